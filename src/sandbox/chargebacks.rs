//! `/v1/chargebacks`: disputes over payments. They begin by the control route that sets a payment to `charged_back`; the
//! id of a chargeback is that of its payment.

use axum::extract::{Path, RawQuery};
use bytes::Bytes;
use chrono::Duration;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::Caller;
use super::customer_search::{Found, page_of, query_map};
use super::input::Fields;
use super::payment::{Payment, Status};

/// Results of a page unless told otherwise.
const DEFAULT_LIMIT: usize = 30;
/// Days in which the seller may send evidence.
const EVIDENCE_DAYS: i64 = 10;

fn view(payment: &Payment) -> Value {
    let documented = payment.status_detail == "documented";
    json!({
        "id": payment.id.to_string(),
        "payments": [{ "id": payment.id }],
        "currency": payment.currency_id,
        "amount": payment.transaction_amount,
        "coverage_applied": false,
        "coverage_elegible": true,
        "documentation_required": true,
        "documentation_status": if documented { "valid" } else { "not_supplied" },
        "date_documentation_deadline": Stamp(payment.date_last_updated.0 + Duration::days(EVIDENCE_DAYS)),
        "date_created": payment.date_last_updated,
        "date_last_updated": payment.date_last_updated,
    })
}

fn not_found() -> Refusal {
    Refusal::plain(StatusCode::NOT_FOUND, "Chargeback not found")
}

/// `GET /v1/chargebacks/search`.
pub(super) async fn search(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let query = query_map(query.as_deref());
    let (limit, offset) =
        page_of(&query, DEFAULT_LIMIT).ok_or_else(|| Refusal::bad(1, "params error: limit, offset"))?;
    let books = caller.seller.books();
    let found: Vec<&Payment> = books
        .payment_order
        .iter()
        .filter_map(|id| books.payments.get(id))
        .filter(|payment| {
            payment.status == Status::ChargedBack
                && query
                    .get("payment_id")
                    .is_none_or(|id| *id == payment.id.to_string())
        })
        .collect();
    let paging = json!({ "limit": limit, "offset": offset, "total": found.len() });
    let results: Vec<Value> = found.into_iter().skip(offset).take(limit).map(view).collect();
    Ok(json_answer(StatusCode::OK, &Found { paging, results }))
}

fn charged_back(payment: &&mut Payment) -> bool {
    payment.status == Status::ChargedBack
}

/// `GET /v1/chargebacks/{id}`.
pub(super) async fn show(caller: Caller, Path(id): Path<String>) -> Answer {
    let mut books = caller.seller.books();
    let payment = id
        .parse()
        .ok()
        .and_then(|id: u64| books.payments.get_mut(&id))
        .filter(charged_back);
    Ok(json_answer(StatusCode::OK, &view(payment.ok_or_else(not_found)?)))
}

/// `PUT /v1/chargebacks/{id}`: evidence.
pub(super) async fn document(caller: Caller, Path(id): Path<String>, body: Bytes) -> Answer {
    let files = Fields::parse(&body)
        .ok()
        .and_then(|fields| fields.raw("files").map(|_| ()));
    files.ok_or_else(|| Refusal::bad(1, "params error: files"))?;
    let mut books = caller.seller.books();
    let payment = id
        .parse()
        .ok()
        .and_then(|id: u64| books.payments.get_mut(&id))
        .filter(charged_back);
    let payment = payment.ok_or_else(not_found)?;
    payment.become_status(Status::ChargedBack, "documented", Stamp(caller.now));
    Ok(json_answer(StatusCode::OK, &view(payment)))
}
