//! Reading the bodies of plans and subscriptions: each wrong field with Mercado Pago's message.

use chrono::DateTime;
use http::StatusCode;
use url::Url;

use super::answer::{Refusal, Stamp};
use super::caller::Caller;
use super::input::{Amount, Fields};
use super::subscription::{AutoRecurring, FreeTrial, FrequencyType};

/// Longest reason and external reference.
const MAX_TEXT: usize = 255;
/// Largest amount of a charge, in hundredths.
const MAX_AMOUNT: i64 = 10_000_000_000;
/// Smallest amount of a charge, in hundredths.
const MIN_AMOUNT: i64 = 50;

/// 400 in the shape of the subscription routes.
pub(super) fn wrong(message: &str) -> Refusal {
    Refusal::subscription(StatusCode::BAD_REQUEST, message)
}

/// A text of limited length.
pub(super) fn text(fields: &Fields<'_>, name: &str) -> Result<Option<String>, Refusal> {
    let value = fields
        .text(name)
        .map_err(|_| wrong(&format!("Invalid value for {name}")))?;
    if value
        .as_ref()
        .is_some_and(|value| value.chars().count() > MAX_TEXT)
    {
        return Err(wrong(&format!(
            "{name} must be shorter than {MAX_TEXT} characters"
        )));
    }
    Ok(value)
}

/// An address to come back to.
pub(super) fn back_url(fields: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let url = fields
        .text("back_url")
        .map_err(|_| wrong("Invalid value for back_url, must be an URL"))?;
    if url
        .as_ref()
        .is_some_and(|url| !Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")))
    {
        return Err(wrong("Invalid value for back_url, must be an URL"));
    }
    Ok(url)
}

/// The members of `auto_recurring` that a body has.
#[derive(Debug, Default)]
pub(super) struct Recurring {
    frequency: Option<u32>,
    frequency_type: Option<FrequencyType>,
    pub(super) amount: Option<Amount>,
    currency_id: Option<String>,
    start_date: Option<Stamp>,
    end_date: Option<Stamp>,
    repetitions: Option<u32>,
    billing_day: Option<u32>,
    billing_day_proportional: Option<bool>,
    free_trial: Option<FreeTrial>,
}

impl Recurring {
    /// Reads and checks them.
    pub(super) fn read(fields: &Fields<'_>, caller: &Caller) -> Result<Self, Refusal> {
        let Some(recurring) = fields
            .object("auto_recurring")
            .map_err(|_| wrong("Invalid value for auto_recurring"))?
        else {
            return Ok(Self::default());
        };
        let currency_id = recurring
            .text("currency_id")
            .map_err(|_| wrong("Invalid value for currency_id"))?;
        if currency_id
            .as_ref()
            .is_some_and(|currency| currency != caller.seller.site.currency)
        {
            return Err(wrong("Invalid value for currency_id"));
        }
        let start_date = date(&recurring, "start_date", caller)?;
        let end_date = date(&recurring, "end_date", caller)?;
        if let (Some(start), Some(end)) = (start_date, end_date)
            && end <= start
        {
            return Err(wrong("end_date must be after start_date"));
        }
        let trial = recurring
            .object("free_trial")
            .map_err(|_| wrong("Invalid value for free_trial"))?;
        let day = positive(&recurring, "billing_day")?;
        if day.is_some_and(|day| day > 28) {
            return Err(wrong("Invalid value for billing_day, must be between 1 and 28"));
        }
        Ok(Self {
            frequency: positive(&recurring, "frequency")?,
            frequency_type: unit(&recurring)?,
            amount: amount(&recurring, caller)?,
            currency_id,
            start_date,
            end_date,
            repetitions: positive(&recurring, "repetitions")?,
            billing_day: day,
            billing_day_proportional: recurring
                .boolean("billing_day_proportional")
                .map_err(|_| wrong("Invalid value for billing_day_proportional"))?,
            free_trial: trial.map(|trial| free_trial(&trial)).transpose()?,
        })
    }

    /// A complete description; what must be there is asked for by name.
    pub(super) fn complete(self) -> Result<AutoRecurring, Refusal> {
        let missing = |name: &str| wrong(&format!("{name} is required"));
        Ok(AutoRecurring {
            frequency: self.frequency.ok_or_else(|| missing("frequency"))?,
            frequency_type: self.frequency_type.ok_or_else(|| missing("frequency_type"))?,
            transaction_amount: self.amount.ok_or_else(|| missing("transaction_amount"))?,
            currency_id: self.currency_id.ok_or_else(|| missing("currency_id"))?,
            start_date: self.start_date,
            end_date: self.end_date,
            repetitions: self.repetitions,
            billing_day: self.billing_day,
            billing_day_proportional: self.billing_day_proportional,
            free_trial: self.free_trial,
        })
    }

    /// Writes what is there over an existing description.
    pub(super) fn over(self, old: &AutoRecurring) -> AutoRecurring {
        AutoRecurring {
            frequency: self.frequency.unwrap_or(old.frequency),
            frequency_type: self.frequency_type.unwrap_or(old.frequency_type),
            transaction_amount: self.amount.unwrap_or(old.transaction_amount),
            currency_id: self.currency_id.unwrap_or_else(|| old.currency_id.clone()),
            start_date: self.start_date.or(old.start_date),
            end_date: self.end_date.or(old.end_date),
            repetitions: self.repetitions.or(old.repetitions),
            billing_day: self.billing_day.or(old.billing_day),
            billing_day_proportional: self.billing_day_proportional.or(old.billing_day_proportional),
            free_trial: self.free_trial.or(old.free_trial),
        }
    }
}

fn positive(fields: &Fields<'_>, name: &str) -> Result<Option<u32>, Refusal> {
    let invalid = || wrong(&format!("Invalid value for {name}"));
    match fields.integer(name).map_err(|_| invalid())? {
        Some(number) => u32::try_from(number)
            .ok()
            .filter(|n| (1..=1200).contains(n))
            .map(Some)
            .ok_or_else(invalid),
        None => Ok(None),
    }
}

fn unit(fields: &Fields<'_>) -> Result<Option<FrequencyType>, Refusal> {
    let text = fields
        .text("frequency_type")
        .map_err(|_| wrong("Invalid value for frequency_type"))?;
    match text.as_deref() {
        None => Ok(None),
        Some("days") => Ok(Some(FrequencyType::Days)),
        Some("months") => Ok(Some(FrequencyType::Months)),
        Some(_) => Err(wrong("Invalid value for frequency_type, must be days or months")),
    }
}

fn free_trial(fields: &Fields<'_>) -> Result<FreeTrial, Refusal> {
    let missing = || wrong("free_trial needs frequency and frequency_type");
    Ok(FreeTrial {
        frequency: positive(fields, "frequency")?.ok_or_else(missing)?,
        frequency_type: unit(fields)?.ok_or_else(missing)?,
    })
}

fn amount(fields: &Fields<'_>, caller: &Caller) -> Result<Option<Amount>, Refusal> {
    let amount = fields
        .amount("transaction_amount")
        .map_err(|_| wrong("Invalid value for transaction_amount, it has at most 2 decimals"))?;
    match amount {
        Some(amount) if amount.0 <= 0 => Err(wrong("transaction_amount must be a positive number")),
        Some(amount) if !amount.fits(caller.seller.site.decimals) => Err(wrong(
            "Invalid value for transaction_amount, the currency has no decimals",
        )),
        Some(amount) if amount.0 < MIN_AMOUNT => Err(wrong(
            "Cannot pay an amount lower than the minimum of the payment method",
        )),
        Some(amount) if amount.0 > MAX_AMOUNT => Err(wrong(
            "Cannot pay an amount greater than the maximum of the payment method",
        )),
        amount => Ok(amount),
    }
}

fn date(fields: &Fields<'_>, name: &str, caller: &Caller) -> Result<Option<Stamp>, Refusal> {
    let format = || wrong(&format!("Invalid date format for {name}"));
    let Some(text) = fields.text(name).map_err(|_| format())? else {
        return Ok(None);
    };
    let date = DateTime::parse_from_rfc3339(&text)
        .map_err(|_| format())?
        .to_utc();
    if date < caller.now {
        return Err(wrong(&format!("{name} must be in the future")));
    }
    Ok(Some(Stamp(date)))
}
