//! `/preapproval`: subscriptions with a plan, without one, and pending, and every row of the documents' management table.
//!
//! A card is verified when it is given (401 `CC_VAL_433` if its first cardholder word is a rejection); what the later
//! charges answer is the second word's matter, so that `APRO FUND` subscribes well and then fails to be charged.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::StatusCode;

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::billing;
use super::caller::Caller;
use super::card_tokens::{CardFacts, CardToken, TokenFault};
use super::customer_fields::is_email;
use super::input::Fields;
use super::payment::Status;
use super::payments::by_cardholder;
use super::state::{Books, Seller, World, account_of};
use super::subscription::{AutoRecurring, Plan, Shown, State as SubscriptionState, Subscription, Summarized};
use super::subscription_fields::{Recurring, back_url, text, wrong};

/// What is said of a subscription that does not exist.
pub(super) fn not_found(id: &str) -> Refusal {
    Refusal::subscription(
        StatusCode::NOT_FOUND,
        &format!("The preapproval with id {id} does not exist"),
    )
}

impl From<TokenFault> for Box<Refusal> {
    fn from(fault: TokenFault) -> Self {
        Self::new(match fault {
            TokenFault::Unknown => wrong("Card token service not found"),
            TokenFault::Spent => wrong("Card token was already used or has expired"),
        })
    }
}

/// Uses a card token up for a subscription.
fn take_card(world: &World, caller: &Caller, token: &str) -> Result<(CardFacts, Option<u64>), Refusal> {
    let owner = (caller.seller.user_id, caller.access.client_id.as_str());
    let check = |token: &CardToken| {
        if !token.with_code {
            return Err(Box::new(wrong("Card token was generated without CVV validation")));
        }
        if token.facts.method(caller.seller.site).is_none() {
            return Err(Box::new(wrong(
                "Invalid payment method for the country of the collector",
            )));
        }
        Ok(())
    };
    let token = world
        .card_tokens
        .spend::<Box<Refusal>>(token, owner, caller.now, check)
        .map_err(|refusal| *refusal)?;
    verify(&token.facts, &caller.seller, caller.now)?;
    let card_id = token
        .card_id
        .and_then(|id| id.parse().ok())
        .unwrap_or_else(|| world.next_id());
    Ok((token.facts, Some(card_id)))
}

/// The charge with which a card is verified.
pub(super) fn verify(card: &CardFacts, seller: &Seller, now: DateTime<Utc>) -> Result<(), Refusal> {
    let (status, _) = by_cardholder(&card.cardholder.name);
    if status == Status::Rejected || card.expired(now) || card.method(seller.site).is_none() {
        return Err(Refusal::subscription(
            StatusCode::UNAUTHORIZED,
            "CC_VAL_433 Credit card validation has failed",
        ));
    }
    Ok(())
}

fn method_id(facts: &CardFacts, seller: &Seller) -> Option<String> {
    facts.method(seller.site).map(|method| String::from(method.id))
}

fn status(fields: &Fields<'_>) -> Result<Option<SubscriptionState>, Refusal> {
    match fields
        .text("status")
        .map_err(|_| wrong("Invalid value for status"))?
        .as_deref()
    {
        None => Ok(None),
        Some("pending") => Ok(Some(SubscriptionState::Pending)),
        Some("authorized") => Ok(Some(SubscriptionState::Authorized)),
        Some("paused") => Ok(Some(SubscriptionState::Paused)),
        Some("cancelled") => Ok(Some(SubscriptionState::Cancelled)),
        Some(_) => Err(wrong("Invalid value for status")),
    }
}

/// A subscription that was asked for, as far as the request alone tells.
struct Wanted {
    plan_id: Option<String>,
    reason: String,
    external_reference: Option<String>,
    back_url: Option<String>,
    payer_email: String,
    token: Option<String>,
    auto_recurring: AutoRecurring,
    status: SubscriptionState,
}

impl Wanted {
    fn read(fields: &Fields<'_>, caller: &Caller) -> Result<Self, Refusal> {
        let payer_email = payer(fields, caller)?;
        let status = status(fields)?.unwrap_or(SubscriptionState::Pending);
        let token = text(fields, "card_token_id")?.filter(|token| !token.is_empty());
        let recurring = Recurring::read(fields, caller)?;
        let plan_id = text(fields, "preapproval_plan_id")?;
        let mut reason = text(fields, "reason")?;
        let auto_recurring = match &plan_id {
            None => recurring.complete()?,
            Some(_) if token.is_none() => return Err(wrong("card_token_id is required")),
            Some(_) if status != SubscriptionState::Authorized => {
                return Err(wrong(
                    "A preapproval with a plan must be created with status authorized",
                ));
            }
            Some(id) => {
                let plan = of_plan(caller, id, &recurring, &payer_email)?;
                reason = reason.or(Some(plan.reason));
                recurring.over(&plan.auto_recurring)
            }
        };
        match status {
            SubscriptionState::Authorized if token.is_none() => {
                return Err(wrong("card_token_id is required"));
            }
            SubscriptionState::Authorized | SubscriptionState::Pending => {}
            _ => return Err(wrong("Invalid value for status, must be pending or authorized")),
        }
        Ok(Self {
            plan_id,
            reason: reason
                .filter(|reason| !reason.is_empty())
                .ok_or_else(|| wrong("reason is required"))?,
            external_reference: text(fields, "external_reference")?,
            back_url: back_url(fields)?,
            payer_email,
            token,
            auto_recurring,
            status,
        })
    }
}

/// The plan, if this payer may subscribe to it with these terms.
fn of_plan(caller: &Caller, id: &String, recurring: &Recurring, payer_email: &str) -> Result<Plan, Refusal> {
    let books = caller.seller.books();
    let plan = books.plans.get(id).ok_or_else(|| {
        Refusal::subscription(
            StatusCode::NOT_FOUND,
            &format!("The template with id {id} does not exist"),
        )
    })?;
    if plan.status != "active" {
        return Err(wrong("The template is inactive"));
    }
    if recurring
        .amount
        .is_some_and(|amount| amount != plan.auto_recurring.transaction_amount)
    {
        return Err(wrong("transaction_amount must be the one of the plan"));
    }
    let known = |known: &Subscription| {
        known.shown.preapproval_plan_id.as_ref() == Some(id)
            && known.shown.payer_email == payer_email
            && known.shown.status == SubscriptionState::Authorized
    };
    if books.subscriptions.values().any(known) {
        return Err(wrong(
            "A preapproval already exists for this user and application",
        ));
    }
    Ok(plan.clone())
}

/// `POST /preapproval`.
pub(super) async fn create(State(world): State<Arc<World>>, caller: Caller, body: Bytes) -> Answer {
    let fields = Fields::parse(&body).map_err(|_| wrong("Invalid data"))?;
    let wanted = Wanted::read(&fields, &caller)?;
    let card = wanted
        .token
        .as_ref()
        .map(|token| take_card(&world, &caller, token))
        .transpose()?;
    let authorized = wanted.status == SubscriptionState::Authorized;
    let parties = Parties {
        application_id: caller.access.client_id.parse().unwrap_or(0),
        collector_id: caller.seller.user_id,
        live_mode: caller.access.live_mode,
    };
    let mut subscription = begin(&world, &parties, wanted, card, &caller.seller);
    let id = subscription.shown.id.clone();
    let mut books = caller.seller.books();
    if authorized {
        billing::authorize(&mut books, &mut subscription, caller.now);
    }
    let answer = json_answer(StatusCode::CREATED, &subscription.shown);
    books.subscriptions.insert(id.clone(), subscription);
    drop(books);
    world.announce(&caller.seller, "subscription_preapproval", "created", &id, None);
    Ok(answer)
}

/// Who a subscription is with.
struct Parties {
    application_id: u64,
    collector_id: u64,
    live_mode: bool,
}

fn begin(
    world: &World,
    parties: &Parties,
    wanted: Wanted,
    card: Option<(CardFacts, Option<u64>)>,
    seller: &Seller,
) -> Subscription {
    let now = Stamp(world.now());
    let id = world.hex::<16>();
    let shown = Shown {
        version: 0,
        application_id: parties.application_id,
        collector_id: parties.collector_id,
        preapproval_plan_id: wanted.plan_id,
        reason: wanted.reason,
        external_reference: wanted.external_reference,
        back_url: wanted.back_url,
        init_point: format!(
            "{}/subscriptions/checkout?preapproval_id={id}",
            world.options.public_url
        ),
        auto_recurring: wanted.auto_recurring,
        payer_id: payer_id(&wanted.payer_email),
        payer_email: wanted.payer_email,
        card_id: card.as_ref().and_then(|(_, id)| *id),
        payment_method_id: card.as_ref().and_then(|(facts, _)| method_id(facts, seller)),
        card_id_secondary: None,
        payment_method_id_secondary: None,
        next_payment_date: None,
        date_created: now,
        last_modified: now,
        summarized: Summarized::default(),
        status: SubscriptionState::Pending,
        id,
    };
    Subscription {
        shown,
        card: card.map(|(facts, _)| facts),
        secondary_card: None,
        anchor: None,
        proportional: None,
        periods: 0,
        charges: 0,
        failures: 0,
        live_mode: parties.live_mode,
    }
}

/// A subscription that begins on the plan's checkout page; it has no card yet.
pub(super) fn of_checkout(world: &World, seller: &Seller, plan: &Plan, email: &str) -> Subscription {
    let parties = Parties {
        application_id: plan.application_id,
        collector_id: plan.collector_id,
        live_mode: true,
    };
    let wanted = Wanted {
        plan_id: Some(plan.id.clone()),
        reason: plan.reason.clone(),
        external_reference: plan.external_reference.clone(),
        back_url: Some(plan.back_url.clone()),
        payer_email: String::from(email),
        token: None,
        auto_recurring: plan.auto_recurring.clone(),
        status: SubscriptionState::Pending,
    };
    begin(world, &parties, wanted, None, seller)
}

fn payer(fields: &Fields<'_>, caller: &Caller) -> Result<String, Refusal> {
    let email = fields
        .text("payer_email")
        .map_err(|_| wrong("Invalid value for payer_email"))?
        .ok_or_else(|| wrong("payer_email is required"))?;
    if !is_email(&email) {
        return Err(wrong("Invalid value for payer_email, must be a valid email"));
    }
    if email == caller.seller.email {
        return Err(wrong("Payer and collector cannot be the same user"));
    }
    if let Some((_, Some(site))) = account_of(&email)
        && site.id != caller.seller.site.id
    {
        return Err(wrong("Cannot operate between different countries"));
    }
    if !caller.access.live_mode && !email.ends_with("@testuser.com") {
        return Err(wrong("Both payer and collector must be real or test users"));
    }
    Ok(email)
}

/// An account id that belongs to an address, always the same.
fn payer_id(email: &str) -> u64 {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(email.as_bytes());
    300_000_000
        + hash
            .iter()
            .take(4)
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
            % 600_000_000
}

/// `GET /preapproval/{id}`.
pub(super) async fn show(caller: Caller, Path(id): Path<String>) -> Answer {
    let books = caller.seller.books();
    let subscription = books.subscriptions.get(&id).ok_or_else(|| not_found(&id))?;
    Ok(json_answer(StatusCode::OK, &subscription.shown))
}

/// `PUT /preapproval/{id}`.
pub(super) async fn update(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let fields = Fields::parse(&body).map_err(|_| wrong("Invalid data"))?;
    let status = status(&fields)?;
    let recurring = Recurring::read(&fields, &caller)?;
    let reason = text(&fields, "reason")?;
    let external_reference = text(&fields, "external_reference")?;
    let back_url = back_url(&fields)?;
    {
        let books = caller.seller.books();
        let known = books.subscriptions.get(&id).ok_or_else(|| not_found(&id))?;
        if known.shown.status == SubscriptionState::Cancelled {
            return Err(wrong("You can not modify a cancelled preapproval."));
        }
    }
    let card = text(&fields, "card_token_id")?
        .map(|token| take_card(&world, &caller, &token))
        .transpose()?;
    let secondary = text(&fields, "card_token_id_secondary")?
        .map(|token| take_card(&world, &caller, &token))
        .transpose()?;
    let secondary_method = text(&fields, "payment_method_id_secondary")?;
    if secondary_method
        .as_ref()
        .is_some_and(|method| caller.seller.site.method(method).is_none())
    {
        return Err(wrong("Invalid value for payment_method_id_secondary"));
    }
    let mut books = caller.seller.books();
    let mut subscription = books
        .subscriptions
        .get(&id)
        .cloned()
        .ok_or_else(|| not_found(&id))?;
    let shown = &mut subscription.shown;
    shown.auto_recurring = recurring.over(&shown.auto_recurring);
    if let Some(reason) = reason {
        shown.reason = reason;
    }
    shown.external_reference = external_reference.or(shown.external_reference.take());
    shown.back_url = back_url.or(shown.back_url.take());
    if let Some((facts, card_id)) = card {
        shown.card_id = card_id;
        shown.payment_method_id = method_id(&facts, &caller.seller);
        subscription.card = Some(facts);
    }
    if let Some((facts, card_id)) = secondary {
        shown.card_id_secondary = card_id;
        shown.payment_method_id_secondary = method_id(&facts, &caller.seller);
        subscription.secondary_card = Some(facts);
    } else if let Some(method) = secondary_method {
        shown.payment_method_id_secondary = Some(method);
        shown.card_id_secondary = None;
        subscription.secondary_card = None;
    }
    shown.version += 1;
    shown.last_modified = Stamp(caller.now);
    change_status(&mut books, &mut subscription, status, &caller)?;
    let answer = json_answer(StatusCode::OK, &subscription.shown);
    books.subscriptions.insert(id.clone(), subscription);
    drop(books);
    world.announce(&caller.seller, "subscription_preapproval", "updated", &id, None);
    Ok(answer)
}

fn change_status(
    books: &mut Books,
    subscription: &mut Subscription,
    status: Option<SubscriptionState>,
    caller: &Caller,
) -> Result<(), Refusal> {
    use SubscriptionState::{Authorized, Cancelled, Paused, Pending};
    match (subscription.shown.status, status) {
        (Authorized, None | Some(Authorized)) => billing::reschedule(books, subscription, caller.now),
        (Pending | Paused, Some(Authorized)) if subscription.card.is_some() => {
            billing::authorize(books, subscription, caller.now);
        }
        (Pending | Paused, Some(Authorized)) => return Err(wrong("card_token_id is required")),
        (Authorized, Some(Paused)) => subscription.shown.status = Paused,
        (_, Some(Cancelled)) => {
            subscription.shown.status = Cancelled;
            subscription.shown.next_payment_date = None;
        }
        (old, Some(new)) if old != new => return Err(wrong("Invalid status transition")),
        _ => {}
    }
    Ok(())
}
