//! `PUT /v1/payments/{id}`: capturing, cancelling and extending a payment.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::Caller;
use super::input::{Amount, Fields};
use super::payment::Status;
use super::payment_request::date_of_expiration;
use super::payments::{locate, not_found};
use super::state::{Due, World};

/// `PUT /v1/payments/{id}`: `capture`, `status: cancelled`, `date_of_expiration`.
pub(super) async fn update(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let fields =
        Fields::parse(&body).map_err(|_| Refusal::bad(1, "params error: the body must be a JSON object"))?;
    change(&world, &caller, &id, &fields)
}

/// `PUT /v1/payments/{id}/cancellations`.
pub(super) async fn cancel(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer {
    change(
        &world,
        &caller,
        &id,
        &Fields::parse(br#"{"status":"cancelled"}"#).unwrap_or_default(),
    )
}

fn change(world: &World, caller: &Caller, id: &str, fields: &Fields<'_>) -> Answer {
    let params = |name: &str| Refusal::bad(1, &format!("params error: {name}"));
    let now = Stamp(caller.now);
    let (mut books, id) = locate(world, caller, id)?;
    let payment = books.payments.get_mut(&id).ok_or_else(not_found)?;
    let wrong_state = || {
        Refusal::bad(
            3005,
            "Invalid action, the resource is in a state that does not allow this operation",
        )
    };
    let status = match fields.text("status") {
        Ok(None) if fields.names("status") => {
            return Err(Refusal::bad(4017, "status attribute can't be null"));
        }
        status => status.map_err(|_| params("status"))?,
    };
    let mut earned = Amount::default();
    match status.as_deref() {
        Some("cancelled") => {
            if !matches!(
                payment.status,
                Status::Pending | Status::InProcess | Status::Authorized
            ) {
                return Err(wrong_state());
            }
            payment.become_status(Status::Cancelled, "by_collector", now);
        }
        Some(_) => return Err(params("status")),
        None => {}
    }
    if fields.boolean("capture").map_err(|_| params("capture"))? == Some(true) {
        if payment.status != Status::Authorized {
            return Err(wrong_state());
        }
        if let Some(amount) =
            partial_capture(fields, payment.transaction_amount, caller.seller.site.decimals)?
        {
            payment.transaction_amount = amount;
        }
        payment.approve(payment.application_fee(), now);
        earned = payment.net();
    }
    let expiry = date_of_expiration(fields, caller)?;
    if let Some(date) = expiry {
        if payment.status != Status::Pending {
            return Err(wrong_state());
        }
        payment.date_of_expiration = Some(date);
        payment.date_last_updated = now;
    }
    let answer = json_answer(StatusCode::OK, &*payment);
    let url = payment.notification_url.clone();
    books.balance.0 += earned.0;
    if let Some(date) = expiry {
        books.agenda.insert((date.0, id), Due::Expire(id));
    }
    drop(books);
    world.announce(
        &caller.seller,
        "payment",
        "payment.updated",
        &id.to_string(),
        url.as_deref(),
    );
    Ok(answer)
}

fn partial_capture(fields: &Fields<'_>, held: Amount, decimals: u32) -> Result<Option<Amount>, Refusal> {
    let amount = fields
        .amount("transaction_amount")
        .map_err(|_| Refusal::bad(4003, "transaction_amount attribute must be numeric"))?;
    match amount {
        Some(amount) if amount.0 <= 0 || amount > held || !amount.fits(decimals) => {
            Err(Refusal::bad(4037, "Invalid transaction_amount"))
        }
        amount => Ok(amount),
    }
}
