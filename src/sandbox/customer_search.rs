//! `GET /v1/customers/search`: filters, ranges and sorting, with the codes 200-208 of Mercado Pago's list.

use std::cmp::Ordering;
use std::collections::HashMap;

use axum::extract::RawQuery;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, Refusal, json_answer};
use super::caller::Caller;
use super::customers::Customer;
use super::input::Fields;

/// Results of a page unless told otherwise, as in the documents' sample.
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 200;

/// The members of a query string; the first of two equal names wins.
pub(super) fn query_map(query: Option<&str>) -> HashMap<String, String> {
    let mut map = HashMap::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
        map.entry(name.into_owned()).or_insert_with(|| value.into_owned());
    }
    map
}

/// `limit` and `offset`; none if they are no numbers.
pub(super) fn page_of(query: &HashMap<String, String>, default_limit: usize) -> Option<(usize, usize)> {
    let number = |name: &str, default: usize| query.get(name).map_or(Some(default), |text| text.parse().ok());
    Some((
        number("limit", default_limit)?.min(MAX_LIMIT),
        number("offset", 0)?,
    ))
}

type Range = (String, Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// `date_created:after:<from>,before:<to>`
fn range(text: &str) -> Result<Range, Refusal> {
    let malformed = || {
        Refusal::customer(
            200,
            "invalid range format (range=:date_parameter:after::date_from,before::date_to).",
        )
    };
    let (attribute, limits) = text.split_once(':').ok_or_else(malformed)?;
    if !matches!(
        attribute,
        "date_created" | "date_last_updated" | "date_registered"
    ) {
        return Err(Refusal::customer(
            201,
            "range attribute must belong to date entity.",
        ));
    }
    let date = |text: &str, code, description| {
        DateTime::parse_from_rfc3339(text)
            .map(|date| date.to_utc())
            .map_err(|_| Refusal::customer(code, description))
    };
    let (mut after, mut before) = (None, None);
    for limit in limits.split(',') {
        match limit.split_once(':') {
            Some(("after", text)) => {
                let text = text.trim_start_matches(':');
                after = Some(date(
                    text,
                    202,
                    "invalid 'after' parameter. It should be date[iso_8601].",
                )?);
            }
            Some(("before", text)) => {
                let text = text.trim_start_matches(':');
                before = Some(date(
                    text,
                    203,
                    "invalid 'before' parameter. It should be date[iso_8601].",
                )?);
            }
            _ => return Err(malformed()),
        }
    }
    Ok((String::from(attribute), after, before))
}

/// `attribute` or `attribute:order`
fn sorting(query: &HashMap<String, String>) -> Result<Option<(String, bool)>, Refusal> {
    let Some(sort) = query.get("sort") else {
        return Ok(None);
    };
    let (attribute, order) = match sort.split_once(':') {
        Some((attribute, order)) => (attribute, Some(order)),
        None => (
            sort.as_str(),
            query
                .get("order")
                .or_else(|| query.get("criteria"))
                .map(String::as_str),
        ),
    };
    if attribute.is_empty() || !attribute.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        return Err(Refusal::customer(208, "invalid 'sort' parameter format."));
    }
    let known = [
        "id",
        "email",
        "first_name",
        "last_name",
        "date_created",
        "date_last_updated",
        "date_registered",
    ];
    if !known.contains(&attribute) {
        return Err(Refusal::customer(
            206,
            "attributes to sort must belong to 'customer' entity.",
        ));
    }
    match order.unwrap_or("asc") {
        "asc" => Ok(Some((String::from(attribute), false))),
        "desc" => Ok(Some((String::from(attribute), true))),
        _ => Err(Refusal::customer(207, "order filter must be 'asc' or 'desc'.")),
    }
}

/// `name:value,name:value`
fn filters(query: &HashMap<String, String>) -> Result<Vec<(String, String)>, Refusal> {
    let mut all: Vec<(String, String)> = ["id", "email", "first_name", "last_name", "description"]
        .iter()
        .filter_map(|name| Some((String::from(*name), query.get(*name)?.clone())))
        .collect();
    for filter in query.get("filters").into_iter().flat_map(|text| text.split(',')) {
        let (name, value) = filter
            .split_once(':')
            .ok_or_else(|| Refusal::customer(204, "invalid filters format."))?;
        all.push((String::from(name), String::from(value)));
    }
    Ok(all)
}

fn attribute<'a>(customer: &'a Customer, name: &str) -> Option<&'a str> {
    match name {
        "id" => Some(&customer.id),
        "email" => Some(&customer.email),
        "first_name" => customer.first_name.as_deref(),
        "last_name" => customer.last_name.as_deref(),
        "description" => customer.description.as_deref(),
        "date_registered" => customer.date_registered.as_deref(),
        _ => None,
    }
}

fn date(customer: &Customer, name: &str) -> Option<DateTime<Utc>> {
    match name {
        "date_created" => Some(customer.date_created.0),
        "date_last_updated" => Some(customer.date_last_updated.0),
        _ => {
            let text = customer.date_registered.as_deref()?;
            DateTime::parse_from_rfc3339(text).ok().map(|date| date.to_utc())
        }
    }
}

fn compare(a: &Customer, b: &Customer, name: &str) -> Ordering {
    if name.starts_with("date_") {
        date(a, name).cmp(&date(b, name))
    } else {
        attribute(a, name).cmp(&attribute(b, name))
    }
}

/// `GET /v1/customers/search`. The documents' curl sends the filter as a JSON body; that is understood too.
pub(super) async fn search(caller: Caller, RawQuery(query): RawQuery, body: Bytes) -> Answer {
    let mut query = query_map(query.as_deref());
    if let Ok(fields) = Fields::parse(&body)
        && let Ok(Some(email)) = fields.text("email")
    {
        query.entry(String::from("email")).or_insert(email);
    }
    let range = query.get("range").map(|text| range(text)).transpose()?;
    let sorting = sorting(&query)?;
    let filters = filters(&query)?;
    if query.get("q").is_some_and(|text| text.trim().is_empty()) {
        return Err(Refusal::customer(205, "invalid query format."));
    }
    let (limit, offset) =
        page_of(&query, DEFAULT_LIMIT).ok_or_else(|| Refusal::customer(125, "invalid parameters."))?;
    let books = caller.seller.books();
    let mut found: Vec<&Customer> = books
        .customers
        .values()
        .filter(|customer| {
            filters
                .iter()
                .all(|(name, value)| attribute(customer, name) == Some(value))
                && query.get("q").is_none_or(|text| customer.email.contains(text))
                && range.as_ref().is_none_or(|(name, after, before)| {
                    date(customer, name).is_some_and(|date| {
                        after.is_none_or(|after| date >= after) && before.is_none_or(|before| date <= before)
                    })
                })
        })
        .collect();
    found.sort_by_key(|customer| customer.date_created);
    if let Some((name, descending)) = &sorting {
        found.sort_by(|a, b| {
            if *descending {
                compare(b, a, name)
            } else {
                compare(a, b, name)
            }
        });
    }
    let total = found.len();
    let results: Vec<_> = found
        .into_iter()
        .skip(offset)
        .take(limit)
        .map(|customer| customer.view(&caller.seller))
        .collect();
    let paging = json!({ "limit": limit, "offset": offset, "total": total });
    Ok(json_answer(StatusCode::OK, &Found { paging, results }))
}

/// A page of results.
#[derive(Debug, serde::Serialize)]
pub(super) struct Found<T> {
    pub(super) paging: serde_json::Value,
    pub(super) results: Vec<T>,
}
