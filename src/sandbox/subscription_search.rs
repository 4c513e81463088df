//! `GET /preapproval/search` and `GET /preapproval/export`.

use std::collections::HashMap;
use std::fmt::Write as _;

use axum::extract::RawQuery;
use axum::response::IntoResponse as _;
use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, json_answer};
use super::caller::Caller;
use super::customer_search::{Found, page_of, query_map};
use super::state::Books;
use super::subscription::{Shown, Subscription};
use super::subscription_fields::wrong;

/// Results of a page unless told otherwise.
const DEFAULT_LIMIT: usize = 30;

/// The subscriptions that a query asks for, oldest first.
fn matching<'a>(books: &'a Books, query: &HashMap<String, String>) -> Vec<&'a Subscription> {
    let is = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
    let mut found: Vec<&Subscription> = books
        .subscriptions
        .values()
        .filter(|subscription| {
            let shown = &subscription.shown;
            let status = serde_json::to_value(shown.status).unwrap_or_default();
            let amount = serde_json::to_string(&shown.auto_recurring.transaction_amount).unwrap_or_default();
            is("payer_email", &shown.payer_email)
                && is("payer_id", &shown.payer_id.to_string())
                && is(
                    "preapproval_plan_id",
                    shown.preapproval_plan_id.as_deref().unwrap_or(""),
                )
                && is(
                    "external_reference",
                    shown.external_reference.as_deref().unwrap_or(""),
                )
                && is("status", status.as_str().unwrap_or(""))
                && is("transaction_amount", &amount)
                && is("semaphore", shown.summarized.semaphore.as_deref().unwrap_or(""))
                && query.get("q").is_none_or(|text| {
                    shown.reason.contains(text) || shown.payer_email.contains(text) || shown.id == *text
                })
        })
        .collect();
    found.sort_by_key(|subscription| subscription.shown.date_created);
    let sort = query.get("sort").map_or("", String::as_str);
    if sort.ends_with(":desc") || query.get("criteria").is_some_and(|criteria| criteria == "desc") {
        found.reverse();
    }
    found
}

/// `GET /preapproval/search`.
pub(super) async fn search(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let query = query_map(query.as_deref());
    let (limit, offset) = page_of(&query, DEFAULT_LIMIT).ok_or_else(|| wrong("Invalid paging"))?;
    let books = caller.seller.books();
    let found = matching(&books, &query);
    let paging = json!({ "limit": limit, "offset": offset, "total": found.len() });
    let results: Vec<&Shown> = found
        .into_iter()
        .skip(offset)
        .take(limit)
        .map(|s| &s.shown)
        .collect();
    Ok(json_answer(StatusCode::OK, &Found { paging, results }))
}

/// `GET /preapproval/export`: a CSV file.
pub(super) async fn export(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let query = query_map(query.as_deref());
    if query
        .get("collector_id")
        .is_none_or(|id| *id != caller.seller.user_id.to_string())
    {
        return Err(wrong("collector_id must be the seller's"));
    }
    let books = caller.seller.books();
    let mut csv = String::from("id,status,payer_id,reason,transaction_amount,currency_id,date_created\n");
    for subscription in matching(&books, &query) {
        let shown = &subscription.shown;
        let status = serde_json::to_value(shown.status).unwrap_or_default();
        let amount = serde_json::to_string(&shown.auto_recurring.transaction_amount).unwrap_or_default();
        let _ = writeln!(
            csv,
            "{},{},{},\"{}\",{amount},{},{}",
            shown.id,
            status.as_str().unwrap_or(""),
            shown.payer_id,
            shown.reason.replace('"', "\"\""),
            shown.auto_recurring.currency_id,
            shown.date_created,
        );
    }
    Ok(([(http::header::CONTENT_TYPE, "text/csv")], csv).into_response())
}
