//! `/preapproval_plan`: what a subscription costs and how often, to be shared by many subscribers.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::Caller;
use super::customer_search::{Found, page_of, query_map};
use super::customers::empty_object;
use super::input::Fields;
use super::payment::Word;
use super::state::World;
use super::subscription::Plan;
use super::subscription_fields::{Recurring, back_url, text, wrong};

/// Results of a page unless told otherwise.
const DEFAULT_LIMIT: usize = 30;

fn not_found(id: &str) -> Refusal {
    Refusal::subscription(
        StatusCode::NOT_FOUND,
        &format!("The template with id {id} does not exist"),
    )
}

/// `POST /preapproval_plan`.
pub(super) async fn create(State(world): State<Arc<World>>, caller: Caller, body: Bytes) -> Answer {
    let fields = Fields::parse(&body).map_err(|_| wrong("Invalid data"))?;
    let reason = text(&fields, "reason")?.filter(|reason| !reason.is_empty());
    let reason = reason.ok_or_else(|| wrong("reason is required"))?;
    let back_url = back_url(&fields)?.ok_or_else(|| wrong("back_url is required"))?;
    if fields.raw("auto_recurring").is_none() {
        return Err(wrong("auto_recurring is required"));
    }
    let auto_recurring = Recurring::read(&fields, &caller)?.complete()?;
    let now = Stamp(caller.now);
    let id = world.hex::<16>();
    let plan = Plan {
        application_id: caller.access.client_id.parse().unwrap_or(0),
        collector_id: caller.seller.user_id,
        reason,
        status: Word::Borrowed("active"),
        auto_recurring,
        payment_methods_allowed: fields
            .echo("payment_methods_allowed")
            .map_err(|_| wrong("Invalid value for payment_methods_allowed"))?
            .unwrap_or_else(empty_object),
        back_url,
        external_reference: text(&fields, "external_reference")?,
        init_point: format!(
            "{}/subscriptions/checkout?preapproval_plan_id={id}",
            world.options.public_url
        ),
        date_created: now,
        last_modified: now,
        id: id.clone(),
    };
    let answer = json_answer(StatusCode::CREATED, &plan);
    caller.seller.books().plans.insert(id.clone(), plan);
    world.announce(
        &caller.seller,
        "subscription_preapproval_plan",
        "created",
        &id,
        None,
    );
    Ok(answer)
}

/// `GET /preapproval_plan/{id}`.
pub(super) async fn show(caller: Caller, Path(id): Path<String>) -> Answer {
    let books = caller.seller.books();
    let plan = books.plans.get(&id).ok_or_else(|| not_found(&id))?;
    Ok(json_answer(StatusCode::OK, plan))
}

/// `PUT /preapproval_plan/{id}`: reason, amount, free trial, billing day, status.
pub(super) async fn update(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let fields = Fields::parse(&body).map_err(|_| wrong("Invalid data"))?;
    let recurring = Recurring::read(&fields, &caller)?;
    let reason = text(&fields, "reason")?;
    let back_url = back_url(&fields)?;
    let status = match fields
        .text("status")
        .map_err(|_| wrong("Invalid value for status"))?
        .as_deref()
    {
        None => None,
        Some("active") => Some("active"),
        Some("cancelled" | "inactive") => Some("inactive"),
        Some(_) => return Err(wrong("Invalid value for status")),
    };
    let methods = fields
        .echo("payment_methods_allowed")
        .map_err(|_| wrong("Invalid value for payment_methods_allowed"))?;
    let mut books = caller.seller.books();
    let plan = books.plans.get_mut(&id).ok_or_else(|| not_found(&id))?;
    if plan.status != "active" && status != Some("active") {
        return Err(wrong("The template is inactive"));
    }
    plan.auto_recurring = recurring.over(&plan.auto_recurring);
    if let Some(reason) = reason {
        plan.reason = reason;
    }
    if let Some(back_url) = back_url {
        plan.back_url = back_url;
    }
    if let Some(status) = status {
        plan.status = Word::Borrowed(status);
    }
    if let Some(methods) = methods {
        plan.payment_methods_allowed = methods;
    }
    plan.last_modified = Stamp(caller.now);
    let answer = json_answer(StatusCode::OK, plan);
    drop(books);
    world.announce(
        &caller.seller,
        "subscription_preapproval_plan",
        "updated",
        &id,
        None,
    );
    Ok(answer)
}

/// `GET /preapproval_plan/search`.
pub(super) async fn search(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let query = query_map(query.as_deref());
    let (limit, offset) = page_of(&query, DEFAULT_LIMIT).ok_or_else(|| wrong("Invalid paging"))?;
    let books = caller.seller.books();
    let mut found: Vec<&Plan> = books
        .plans
        .values()
        .filter(|plan| {
            query.get("status").is_none_or(|status| plan.status == *status)
                && query
                    .get("q")
                    .is_none_or(|text| plan.reason.contains(text) || plan.id == *text)
        })
        .collect();
    found.sort_by_key(|plan| plan.date_created);
    if query.get("criteria").is_some_and(|criteria| criteria == "desc") {
        found.reverse();
    }
    let paging = json!({ "limit": limit, "offset": offset, "total": found.len() });
    let results = found.into_iter().skip(offset).take(limit).collect();
    Ok(json_answer(StatusCode::OK, &Found { paging, results }))
}
