//! `/checkout/preferences` and `/merchant_orders`: kept and shown as they were sent, with what Mercado Pago adds.
//!
//! Nobody checks out here: a preference's `init_point` has no page, and merchant orders get payments only by being told.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::Caller;
use super::customer_search::{page_of, query_map};
use super::state::World;

/// Results of a page unless told otherwise.
const DEFAULT_LIMIT: usize = 30;

fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_slice(body)
        .map_err(|_| Refusal::plain(StatusCode::BAD_REQUEST, "the body must be a Json object"))
}

fn not_found(what: &str) -> Refusal {
    Refusal::plain(StatusCode::NOT_FOUND, &format!("{what} not found"))
}

/// Whether every item has what it must; what they cost together.
fn total(items: Option<&Value>) -> Result<f64, Refusal> {
    let invalid = |what: &str| Refusal::plain(StatusCode::BAD_REQUEST, &format!("items invalid: {what}"));
    let items = items.and_then(Value::as_array).filter(|items| !items.is_empty());
    let mut sum = 0.0;
    for item in items.ok_or_else(|| invalid("they are needed"))? {
        let title = item["title"].as_str().is_some_and(|title| !title.is_empty());
        let quantity = item["quantity"].as_f64().filter(|quantity| *quantity >= 1.0);
        let price = item["unit_price"].as_f64();
        match (title, quantity, price) {
            (true, Some(quantity), Some(price)) => sum += quantity * price,
            _ => return Err(invalid("title, quantity and unit_price are needed")),
        }
    }
    Ok(sum)
}

/// `POST /checkout/preferences`.
pub(super) async fn create(State(world): State<Arc<World>>, caller: Caller, body: Bytes) -> Answer {
    let mut preference = object(&body)?;
    let total = total(preference.get("items"))?;
    let id = format!("{}-{}", caller.seller.user_id, world.random.uuid());
    let now = Stamp(caller.now).to_string();
    let public_url = &world.options.public_url;
    preference.insert(String::from("id"), json!(id));
    preference.insert(
        String::from("init_point"),
        json!(format!("{public_url}/checkout/v1/redirect?pref_id={id}")),
    );
    preference.insert(String::from("collector_id"), json!(caller.seller.user_id));
    preference.insert(String::from("client_id"), json!(caller.access.client_id));
    preference.insert(String::from("site_id"), json!(caller.seller.site.id));
    preference.insert(String::from("date_created"), json!(now));
    preference.insert(String::from("last_updated"), json!(now));
    preference.insert(String::from("total_amount"), json!(total));
    preference.entry("expires").or_insert(json!(false));
    let preference = Value::Object(preference);
    caller.seller.books().preferences.insert(id, preference.clone());
    Ok(json_answer(StatusCode::CREATED, &preference))
}

/// `GET /checkout/preferences/{id}`.
pub(super) async fn show(caller: Caller, Path(id): Path<String>) -> Answer {
    let books = caller.seller.books();
    Ok(json_answer(
        StatusCode::OK,
        books
            .preferences
            .get(&id)
            .ok_or_else(|| not_found("preference"))?,
    ))
}

/// `PUT /checkout/preferences/{id}`.
pub(super) async fn update(caller: Caller, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut changes = object(&body)?;
    if changes.contains_key("items") {
        changes.insert(String::from("total_amount"), json!(total(changes.get("items"))?));
    }
    let mut books = caller.seller.books();
    let preference = books.preferences.get_mut(&id).and_then(Value::as_object_mut);
    let preference =
        preference.ok_or_else(|| Refusal::plain(StatusCode::BAD_REQUEST, "preference not found"))?;
    for own in [
        "id",
        "init_point",
        "collector_id",
        "client_id",
        "date_created",
        "site_id",
    ] {
        changes.remove(own);
    }
    preference.extend(changes);
    preference.insert(String::from("last_updated"), json!(Stamp(caller.now).to_string()));
    Ok(json_answer(StatusCode::OK, preference))
}

/// Those of a seller's objects that have all the members that the query names.
fn matching<'a>(
    objects: impl Iterator<Item = &'a Value>,
    query: Option<&str>,
    names: &[&str],
) -> Result<Value, Refusal> {
    let query = query_map(query);
    let (limit, offset) = page_of(&query, DEFAULT_LIMIT)
        .ok_or_else(|| Refusal::plain(StatusCode::BAD_REQUEST, "limit and offset must be numbers"))?;
    let is = |object: &Value, name: &str| {
        query.get(name).is_none_or(|wanted| match &object[name] {
            Value::String(text) => text == wanted,
            other => wanted.parse::<Value>().is_ok_and(|wanted| wanted == *other),
        })
    };
    let found: Vec<&Value> = objects
        .filter(|object| names.iter().all(|name| is(object, name)))
        .collect();
    let paging = json!({ "total": found.len(), "limit": limit, "offset": offset });
    let elements: Vec<&Value> = found.into_iter().skip(offset).take(limit).collect();
    Ok(
        json!({ "elements": elements, "paging": paging, "total": paging["total"], "next_offset": offset + elements.len() }),
    )
}

/// `GET /checkout/preferences/search`.
pub(super) async fn search(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let books = caller.seller.books();
    let names = ["external_reference", "marketplace", "site_id", "sponsor_id"];
    Ok(json_answer(
        StatusCode::OK,
        &matching(books.preferences.values(), query.as_deref(), &names)?,
    ))
}

/// `POST /merchant_orders`.
pub(super) async fn create_merchant_order(
    State(world): State<Arc<World>>,
    caller: Caller,
    body: Bytes,
) -> Answer {
    let mut order = object(&body)?;
    let id = world.next_id();
    let now = Stamp(caller.now).to_string();
    let items = order
        .get("items")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let total: f64 = items
        .iter()
        .map(|item| item["unit_price"].as_f64().unwrap_or(0.0) * item["quantity"].as_f64().unwrap_or(1.0))
        .sum();
    let seller = &caller.seller;
    let own = json!({
        "id": id, "status": "opened", "order_status": "payment_required", "site_id": seller.site.id,
        "application_id": caller.access.client_id,
        "collector": { "id": seller.user_id, "email": seller.email, "nickname": seller.nickname },
        "payments": [], "shipments": [], "payouts": [], "items": items, "shipping_cost": 0, "total_amount": total,
        "paid_amount": 0, "refunded_amount": 0, "date_created": now, "last_updated": now, "canceled": false,
    });
    if let Value::Object(own) = own {
        order.extend(own);
    }
    let order = Value::Object(order);
    seller.books().merchant_orders.insert(id, order.clone());
    Ok(json_answer(StatusCode::CREATED, &order))
}

fn merchant_order_id(id: &str) -> Result<u64, Refusal> {
    id.parse()
        .map_err(|_| Refusal::plain(StatusCode::BAD_REQUEST, "the id must be a number"))
}

/// `GET /merchant_orders/{id}`.
pub(super) async fn show_merchant_order(caller: Caller, Path(id): Path<String>) -> Answer {
    let id = merchant_order_id(&id)?;
    let books = caller.seller.books();
    Ok(json_answer(
        StatusCode::OK,
        books
            .merchant_orders
            .get(&id)
            .ok_or_else(|| not_found("merchant order"))?,
    ))
}

/// `PUT /merchant_orders/{id}`.
pub(super) async fn update_merchant_order(caller: Caller, Path(id): Path<String>, body: Bytes) -> Answer {
    let id = merchant_order_id(&id)?;
    let mut changes = object(&body)?;
    for own in ["id", "collector", "payments", "date_created", "site_id"] {
        changes.remove(own);
    }
    let mut books = caller.seller.books();
    let order = books.merchant_orders.get_mut(&id).and_then(Value::as_object_mut);
    let order = order.ok_or_else(|| Refusal::plain(StatusCode::BAD_REQUEST, "merchant order not found"))?;
    order.extend(changes);
    order.insert(String::from("last_updated"), json!(Stamp(caller.now).to_string()));
    Ok(json_answer(StatusCode::OK, order))
}

/// `GET /merchant_orders/search`.
pub(super) async fn search_merchant_orders(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let books = caller.seller.books();
    let names = [
        "status",
        "preference_id",
        "application_id",
        "external_reference",
        "site_id",
        "marketplace",
    ];
    Ok(json_answer(
        StatusCode::OK,
        &matching(books.merchant_orders.values(), query.as_deref(), &names)?,
    ))
}
