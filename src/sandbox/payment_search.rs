//! `GET /v1/payments/search`.

use axum::extract::RawQuery;
use chrono::{DateTime, Duration, Utc};
use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, Refusal, json_answer};
use super::caller::Caller;
use super::customer_search::{Found, page_of, query_map};
use super::payment::Payment;

/// Results of a page unless told otherwise.
const DEFAULT_LIMIT: usize = 30;
/// The farthest row that can be asked for.
const MAX_ROWS: usize = 10_000;

/// A date of a range: RFC 3339, or `NOW` with an offset in days or months (`NOW-30DAYS`, `NOW-1MONTH`).
fn date(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let Some(rest) = text.strip_prefix("NOW") else {
        return DateTime::parse_from_rfc3339(text).ok().map(|date| date.to_utc());
    };
    if rest.is_empty() {
        return Some(now);
    }
    let digits: String = rest
        .chars()
        .filter(|c| *c == '-' || *c == '+' || c.is_ascii_digit())
        .collect();
    let count: i64 = digits.parse().ok()?;
    let days = match rest.trim_start_matches(|c: char| !c.is_ascii_alphabetic()) {
        "DAY" | "DAYS" => 1,
        "MONTH" | "MONTHS" => 30,
        "YEAR" | "YEARS" => 365,
        _ => return None,
    };
    now.checked_add_signed(Duration::try_days(count.checked_mul(days)?)?)
}

fn range_value(payment: &Payment, name: &str) -> Option<DateTime<Utc>> {
    match name {
        "date_created" => Some(payment.date_created.0),
        "date_last_updated" => Some(payment.date_last_updated.0),
        "date_approved" => payment.date_approved.map(|date| date.0),
        "money_release_date" => payment.money_release_date.map(|date| date.0),
        _ => None,
    }
}

/// `GET /v1/payments/search`: filters, a range of dates, sorting.
pub(super) async fn search(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let query = query_map(query.as_deref());
    let (limit, offset) =
        page_of(&query, DEFAULT_LIMIT).ok_or_else(|| Refusal::bad(1, "params error: limit, offset"))?;
    if limit + offset > MAX_ROWS {
        return Err(Refusal::bad(1000, "Number of rows exceeded the limits"));
    }
    let bound = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(text) => date(text, caller.now)
            .map(Some)
            .ok_or_else(|| Refusal::bad(1001, "Date format must be yyyy-MM-dd'T'HH:mm:ss.SSSZ")),
    };
    let (begin, end) = (bound("begin_date")?, bound("end_date")?);
    let range = query.get("range").map_or("date_created", String::as_str);
    let is = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
    let books = caller.seller.books();
    let mut found: Vec<&Payment> = books
        .payment_order
        .iter()
        .filter_map(|id| books.payments.get(id))
        .filter(|payment| {
            let status = serde_json::to_value(payment.status).unwrap_or_default();
            is(
                "external_reference",
                payment.external_reference.as_deref().unwrap_or(""),
            ) && is("status", status.as_str().unwrap_or(""))
                && is("id", &payment.id.to_string())
                && is("payment_method_id", &payment.payment_method_id)
                && is("collector.id", &payment.collector_id.to_string())
                && is("payer.id", payment.payer.id.as_deref().unwrap_or(""))
                && is("payer.email", payment.payer.email.as_deref().unwrap_or(""))
                && !query.contains_key("store_id")
                && !query.contains_key("pos_id")
                && (begin.is_none() && end.is_none()
                    || range_value(payment, range).is_some_and(|date| {
                        begin.is_none_or(|begin| date >= begin) && end.is_none_or(|end| date <= end)
                    }))
        })
        .collect();
    if let Some(sort) = query.get("sort") {
        found.sort_by_key(|payment| range_value(payment, sort));
    }
    if query.get("criteria").is_some_and(|criteria| criteria == "desc") {
        found.reverse();
    }
    let paging = json!({ "limit": limit, "offset": offset, "total": found.len() });
    let results = found.into_iter().skip(offset).take(limit).collect();
    Ok(json_answer(StatusCode::OK, &Found { paging, results }))
}
