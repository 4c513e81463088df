//! `/authorized_payments`: the invoices of subscriptions.

use axum::extract::{Path, RawQuery};
use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, Refusal, json_answer};
use super::caller::Caller;
use super::customer_search::{Found, page_of, query_map};
use super::subscription::AuthorizedPayment;
use super::subscription_fields::wrong;

/// Results of a page unless told otherwise.
const DEFAULT_LIMIT: usize = 30;

/// `GET /authorized_payments/{id}`.
pub(super) async fn show(caller: Caller, Path(id): Path<String>) -> Answer {
    let number: u64 = id.parse().map_err(|_| wrong("Invalid authorized payment id"))?;
    let books = caller.seller.books();
    let invoice = books.invoices.get(&number).ok_or_else(|| {
        Refusal::subscription(
            StatusCode::NOT_FOUND,
            &format!("The authorized payment with id {id} does not exist"),
        )
    })?;
    Ok(json_answer(StatusCode::OK, invoice))
}

/// `GET /authorized_payments` and `GET /authorized_payments/search` (Mercado Pago's own sources name either).
pub(super) async fn search(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let query = query_map(query.as_deref());
    let (limit, offset) = page_of(&query, DEFAULT_LIMIT).ok_or_else(|| wrong("Invalid paging"))?;
    let is = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
    let books = caller.seller.books();
    let found: Vec<&AuthorizedPayment> = books
        .invoices
        .values()
        .filter(|invoice| {
            let payment = invoice.payment.as_ref().map_or(0, |payment| payment.id);
            is("preapproval_id", &invoice.preapproval_id)
                && is("payer_id", &invoice.payer_id.to_string())
                && is("payment_id", &payment.to_string())
                && is("status", &invoice.status)
        })
        .collect();
    let paging = json!({ "limit": limit, "offset": offset, "total": found.len() });
    let results = found.into_iter().skip(offset).take(limit).collect();
    Ok(json_answer(StatusCode::OK, &Found { paging, results }))
}
