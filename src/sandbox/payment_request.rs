//! Reading `POST /v1/payments`: each wrong field with its own code of Mercado Pago's list.

use chrono::DateTime;
use serde_json::value::RawValue;
use url::Url;

use super::answer::{Refusal, Stamp};
use super::caller::Caller;
use super::card_tokens::Identification;
use super::customer_fields::is_email;
use super::customers::empty_object;
use super::input::{Amount, Fields};
use super::payment::{Payer, Word};
use super::sites::{Method, Site};
use super::state::account_of;

/// Installments that a card may be charged in.
pub(super) const MAX_INSTALLMENTS: i64 = 36;
const MAX_REFERENCE: usize = 256;
const MAX_DESCRIPTOR: usize = 22;
const MAX_URL: usize = 500;
const MAX_EMAIL: usize = 254;

/// A payment that was asked for, as far as the request alone tells.
#[derive(Debug)]
pub(super) struct PaymentRequest {
    pub(super) amount: Amount,
    pub(super) token: Option<String>,
    pub(super) method: Option<&'static Method>,
    pub(super) installments: Option<i64>,
    pub(super) issuer_id: Option<String>,
    pub(super) payer: Payer,
    pub(super) capture: bool,
    pub(super) binary_mode: bool,
    pub(super) application_fee: Option<Amount>,
    pub(super) coupon_amount: Amount,
    pub(super) description: Option<String>,
    pub(super) external_reference: Option<String>,
    pub(super) statement_descriptor: Option<String>,
    pub(super) notification_url: Option<String>,
    pub(super) callback_url: Option<String>,
    pub(super) date_of_expiration: Option<Stamp>,
    pub(super) metadata: Box<RawValue>,
    pub(super) additional_info: Box<RawValue>,
}

fn params(name: &str) -> Refusal {
    Refusal::bad(1, &format!("params error: {name}"))
}

impl PaymentRequest {
    /// Reads and checks a body.
    pub(super) fn read(body: &[u8], caller: &Caller) -> Result<Self, Refusal> {
        let fields = Fields::parse(body).map_err(|_| params("the body must be a JSON object"))?;
        let site = caller.seller.site;
        let amount = amount(&fields, site)?;
        let token = fields
            .text("token")
            .map_err(|_| Refusal::bad(3003, "Invalid card_token_id"))?
            .filter(|token| !token.is_empty());
        let method = method(&fields, site, token.is_some())?;
        let installments = fields
            .integer_or_text("installments")
            .map_err(|_| Refusal::bad(4005, "installments attribute must be numeric"))?;
        if token.is_some() && installments.is_none() {
            return Err(Refusal::bad(4004, "installments attribute can't be null"));
        }
        if installments.is_some_and(|count| count < 1) {
            return Err(Refusal::bad(4005, "installments attribute must be numeric"));
        }
        let issuer_id = fields
            .text_or_number("issuer_id")
            .map_err(|_| Refusal::bad(3001, "Invalid issuer_id"))?;
        if issuer_id
            .as_ref()
            .is_some_and(|id| !id.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(Refusal::bad(3001, "Invalid issuer_id"));
        }
        let date_of_expiration = date_of_expiration(&fields, caller)?;
        let text = |name: &str| fields.text(name).map_err(|_| params(name));
        let external_reference = fields
            .text_or_number("external_reference")
            .map_err(|_| params("external_reference"))?;
        if external_reference
            .as_ref()
            .is_some_and(|text| text.chars().count() > MAX_REFERENCE)
        {
            return Err(params("external_reference"));
        }
        Ok(Self {
            amount,
            token,
            method,
            installments,
            issuer_id,
            payer: payer(&fields, caller)?,
            capture: fields
                .boolean("capture")
                .map_err(|_| params("capture"))?
                .unwrap_or(true),
            binary_mode: fields
                .boolean("binary_mode")
                .map_err(|_| params("binary_mode"))?
                .unwrap_or(false),
            application_fee: application_fee(&fields, amount, caller)?,
            coupon_amount: coupon(&fields)?,
            description: text("description")?,
            external_reference,
            statement_descriptor: text("statement_descriptor")?
                .map(|text| text.chars().take(MAX_DESCRIPTOR).collect()),
            notification_url: notification_url(&fields)?,
            callback_url: text("callback_url")?,
            date_of_expiration,
            metadata: fields
                .echo("metadata")
                .map_err(|_| Refusal::bad(4022, "metadata attribute must be a json object"))?
                .unwrap_or_else(empty_object),
            additional_info: fields
                .echo("additional_info")
                .map_err(|_| params("additional_info"))?
                .unwrap_or_else(empty_object),
        })
    }
}

fn amount(fields: &Fields<'_>, site: &Site) -> Result<Amount, Refusal> {
    let amount = match fields.amount("transaction_amount") {
        Ok(Some(amount)) => amount,
        Ok(None) => return Err(Refusal::bad(4002, "transaction_amount attribute can't be null")),
        Err(_)
            if fields
                .raw("transaction_amount")
                .is_some_and(|value| value.get().parse::<f64>().is_ok()) =>
        {
            return Err(Refusal::bad(4037, "Invalid transaction_amount"));
        }
        Err(_) => return Err(Refusal::bad(4003, "transaction_amount attribute must be numeric")),
    };
    if amount.0 > 0 && amount.fits(site.decimals) {
        Ok(amount)
    } else {
        Err(Refusal::bad(4037, "Invalid transaction_amount"))
    }
}

fn method(fields: &Fields<'_>, site: &Site, with_token: bool) -> Result<Option<&'static Method>, Refusal> {
    let named = fields
        .text("payment_method_id")
        .map_err(|_| Refusal::bad(3028, "Invalid payment_method_id"))?
        .filter(|name| !name.is_empty());
    match named {
        Some(name) => {
            let known = Site::find(site.id).and_then(|site| site.method(&name));
            known
                .map(Some)
                .ok_or_else(|| Refusal::bad(3011, "Not found payment_method"))
        }
        None if with_token => Ok(None),
        None => Err(Refusal::bad(4001, "payment_method_id attribute can't be null")),
    }
}

fn payer(fields: &Fields<'_>, caller: &Caller) -> Result<Payer, Refusal> {
    let malformed = || Refusal::bad(4006, "payer attribute is malformed");
    let payer = fields
        .object("payer")
        .map_err(|_| malformed())?
        .ok_or_else(malformed)?;
    let kind = payer
        .text("type")
        .map_err(|_| Refusal::bad(4029, "Invalid payer type"))?;
    let id = payer.text_or_number("id").map_err(|_| malformed())?;
    let kind = match (kind.as_deref(), &id) {
        (Some("customer" | "registered"), None) => {
            // The documents' C# sample names a customer by e-mail alone.
            if payer.raw("email").is_none() {
                return Err(Refusal::bad(4012, "payer.id attribute can't be null"));
            }
            "customer"
        }
        (Some("customer"), Some(_)) => "customer",
        (Some("registered"), Some(_)) => "registered",
        (Some("guest"), _) | (None, None) => "guest",
        (None, Some(_)) => return Err(Refusal::bad(4013, "payer.type attribute can't be null")),
        (Some(_), _) => return Err(Refusal::bad(4029, "Invalid payer type")),
    };
    let email = payer
        .text("email")
        .map_err(|_| Refusal::bad(4050, "payer.email must be a valid email"))?;
    match &email {
        Some(email) if email.len() >= MAX_EMAIL => {
            return Err(Refusal::bad(
                4051,
                "payer.email must be shorter than 254 characters",
            ));
        }
        Some(email) if !is_email(email) => {
            return Err(Refusal::bad(4050, "payer.email must be a valid email"));
        }
        None if id.is_none() => return Err(Refusal::bad(4050, "payer.email must be a valid email")),
        Some(email) if *email == caller.seller.email => {
            return Err(Refusal::bad(2060, "The customer can't be equal to the collector"));
        }
        _ => {}
    }
    if id.as_deref() == Some(&*caller.seller.user_id.to_string()) {
        return Err(Refusal::bad(2060, "The customer can't be equal to the collector"));
    }
    let account = email.as_deref().and_then(account_of);
    if let Some((_, Some(site))) = account
        && site.id != caller.seller.site.id
    {
        return Err(Refusal::bad(2034, "Invalid users involved"));
    }
    let (kind, id) = match (kind, id, account) {
        ("guest", None, Some((account, _))) => ("registered", Some(account.to_string())),
        (kind, id, _) => (kind, id),
    };
    let identification = match payer.object("identification") {
        Ok(Some(document)) => Identification::read(&document).ok(),
        Ok(None) => Some(Identification::default()),
        Err(_) => None,
    };
    let wrong_document = || Refusal::bad(2067, "Invalid payer identification number");
    let identification = identification.ok_or_else(wrong_document)?;
    if let (Some(kind), Some(number)) = (&identification.kind, &identification.number)
        && !caller.seller.site.accepts_document(kind, number)
    {
        return Err(wrong_document());
    }
    Ok(Payer {
        id,
        email,
        identification,
        kind: Word::Borrowed(kind),
        first_name: payer.text("first_name").map_err(|_| malformed())?,
        last_name: payer.text("last_name").map_err(|_| malformed())?,
    })
}

fn application_fee(fields: &Fields<'_>, amount: Amount, caller: &Caller) -> Result<Option<Amount>, Refusal> {
    let fee = fields
        .amount("application_fee")
        .map_err(|_| params("application_fee"))?;
    match fee {
        Some(fee) if fee.0 < 0 => Err(Refusal::bad(4039, "application_fee cannot be negative")),
        Some(fee) if fee > amount => Err(Refusal::bad(
            4038,
            "application_fee cannot be bigger than transaction_amount",
        )),
        Some(fee) if fee.0 > 0 && !caller.consented() => Err(Refusal::bad(
            2059,
            "application_fee requires an access token obtained by OAuth",
        )),
        fee => Ok(fee),
    }
}

fn coupon(fields: &Fields<'_>) -> Result<Amount, Refusal> {
    if fields.integer_or_text("campaign_id").is_err() {
        return Err(Refusal::bad(4027, "campaign_id attribute must be numeric"));
    }
    let amount = fields
        .amount("coupon_amount")
        .map_err(|_| Refusal::bad(4026, "coupon_amount attribute must be numeric"))?
        .unwrap_or_default();
    if amount.0 < 0 {
        Err(Refusal::bad(4028, "coupon_amount attribute must be positive"))
    } else {
        Ok(amount)
    }
}

fn notification_url(fields: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let wrong = || Refusal::bad(4020, "notification_url attribute must be url valid");
    let url = fields.text("notification_url").map_err(|_| wrong())?;
    match &url {
        Some(url) if url.len() >= MAX_URL => Err(Refusal::bad(
            4021,
            "notification_url attribute must be shorter than 500 characters",
        )),
        Some(text) if !Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) => {
            Err(wrong())
        }
        _ => Ok(url),
    }
}

/// A date in the future, with its offset.
pub(super) fn date_of_expiration(fields: &Fields<'_>, caller: &Caller) -> Result<Option<Stamp>, Refusal> {
    let wrong = || {
        Refusal::bad(
            23,
            "The following parameters must be valid date and format (yyyy-MM-dd'T'HH:mm:ssz) date_of_expiration",
        )
    };
    let date = fields.text("date_of_expiration").map_err(|_| wrong())?;
    let Some(date) = date else { return Ok(None) };
    let date = DateTime::parse_from_rfc3339(&date).map_err(|_| wrong())?.to_utc();
    if date > caller.now {
        Ok(Some(Stamp(date)))
    } else {
        Err(Refusal::bad(7523, "Invalid expiration date: it is in the past"))
    }
}
