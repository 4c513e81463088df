//! `/v1/payments/{id}/refunds`: all of a payment or parts of it, for 180 days, as far as the seller's balance goes.
//!
//! One idempotency key makes one refund of a payment. Mercado Pago's and the marketplace's fees are given back in
//! proportion (how it really is done is not documented).

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use chrono::Duration;
use http::{HeaderMap, StatusCode};

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::Caller;
use super::customers::empty_object;
use super::input::{Amount, Fields};
use super::payment::{Payment, Refund, Source, Status, Word};
use super::payments::{idempotency_key, locate, not_found};
use super::state::World;

/// Days after its approval within which a payment can be refunded.
const REFUND_DAYS: i64 = 180;

/// `POST /v1/payments/{id}/refunds`: `{}` for all of it, `{"amount": n}` for a part.
pub(super) async fn create(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let key = idempotency_key(&headers)
        .ok_or_else(|| Refusal::bad(4292, "Header X-Idempotency-Key can't be null"))?;
    let fields = Fields::parse_optional(&body)
        .map_err(|_| Refusal::bad(1, "params error: the body must be a JSON object"))?;
    let asked = asked_amount(&fields)?;
    let (mut books, id) = locate(&world, &caller, &id)?;
    let balance = books.balance;
    let made = books
        .refund_keys
        .get(&id)
        .and_then(|keys| keys.iter().find(|(known, _)| *known == key));
    let made = made.map(|(_, refund)| *refund);
    let payment = books.payments.get_mut(&id).ok_or_else(not_found)?;
    if let Some(known) = payment.refunds.iter().find(|refund| Some(refund.id) == made) {
        return Ok(json_answer(StatusCode::CREATED, known));
    }
    let left = refundable(payment, &caller)?;
    let amount = asked.unwrap_or(left);
    let partial = amount != payment.transaction_amount;
    if partial && !caller.seller.site.partial_refunds {
        return Err(Refusal::bad(
            3024,
            "Partial refund unsupported for this transaction",
        ));
    }
    if amount > left || !amount.fits(caller.seller.site.decimals) {
        return Err(Refusal::bad(
            2063,
            "The action requested is not valid for the current payment state",
        ));
    }
    let net = payment.net().share(amount.0, payment.transaction_amount.0);
    if net > balance {
        return Err(Refusal::bad(
            2063,
            "The action requested is not valid: insufficient balance of the collector",
        ));
    }
    let refund = Refund {
        id: world.next_id(),
        payment_id: id,
        amount,
        metadata: fields
            .echo("metadata")
            .ok()
            .flatten()
            .unwrap_or_else(empty_object),
        source: Source {
            id: caller.seller.user_id.to_string(),
            name: caller.seller.nickname.clone(),
            kind: Word::Borrowed("collector"),
        },
        date_created: Stamp(caller.now),
        unique_sequence_number: None,
        refund_mode: Word::Borrowed("standard"),
        adjustment_amount: Amount::default(),
        status: Word::Borrowed("approved"),
        reason: None,
        label: None,
        partition_details: Vec::new(),
    };
    apply(payment, refund.clone());
    let url = payment.notification_url.clone();
    books.balance.0 -= net.0;
    books.refund_keys.entry(id).or_default().push((key, refund.id));
    drop(books);
    world.announce(
        &caller.seller,
        "payment",
        "payment.updated",
        &id.to_string(),
        url.as_deref(),
    );
    Ok(json_answer(StatusCode::CREATED, &refund))
}

fn asked_amount(fields: &Fields<'_>) -> Result<Option<Amount>, Refusal> {
    let amount = fields.amount("amount").map_err(|_| {
        let number = fields
            .raw("amount")
            .is_some_and(|value| value.get().parse::<f64>().is_ok());
        if number {
            Refusal::bad(
                2063,
                "The action requested is not valid for the current payment state",
            )
        } else {
            Refusal::code(StatusCode::UNAUTHORIZED, 4041, "amount attribute must be numeric")
        }
    })?;
    match amount {
        Some(amount) if amount.0 <= 0 => Err(Refusal::code(
            StatusCode::UNAUTHORIZED,
            4040,
            "amount attribute must be positive",
        )),
        amount => Ok(amount),
    }
}

/// What is left to refund.
fn refundable(payment: &Payment, caller: &Caller) -> Result<Amount, Refusal> {
    let (Status::Approved, Some(approved)) = (payment.status, payment.date_approved) else {
        return Err(Refusal::bad(
            2063,
            "The action requested is not valid for the current payment state",
        ));
    };
    if caller.now > approved.0 + Duration::days(REFUND_DAYS) {
        return Err(Refusal::code(
            StatusCode::NOT_FOUND,
            2024,
            "Payment too old to be refunded",
        ));
    }
    Ok(Amount(
        payment.transaction_amount.0 - payment.transaction_amount_refunded.0,
    ))
}

fn apply(payment: &mut Payment, refund: Refund) {
    let now = refund.date_created;
    payment.transaction_amount_refunded.0 += refund.amount.0;
    if payment.transaction_amount_refunded == payment.transaction_amount {
        payment.become_status(Status::Refunded, "refunded", now);
    } else {
        payment.become_status(Status::Approved, "partially_refunded", now);
    }
    payment.refunds.push(refund);
}

/// `GET /v1/payments/{id}/refunds`.
pub(super) async fn list(State(world): State<Arc<World>>, caller: Caller, Path(id): Path<String>) -> Answer {
    let (books, id) = locate(&world, &caller, &id)?;
    Ok(json_answer(
        StatusCode::OK,
        &books.payments.get(&id).ok_or_else(not_found)?.refunds,
    ))
}

/// `GET /v1/payments/{id}/refunds/{refund_id}`.
pub(super) async fn show(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path((id, refund_id)): Path<(String, String)>,
) -> Answer {
    let (books, id) = locate(&world, &caller, &id)?;
    let payment = books.payments.get(&id).ok_or_else(not_found)?;
    let refund = payment
        .refunds
        .iter()
        .find(|refund| refund.id.to_string() == refund_id);
    match refund {
        Some(refund) => Ok(json_answer(StatusCode::OK, refund)),
        None => Err(Refusal::code(StatusCode::NOT_FOUND, 2032, "Refund not found")),
    }
}
