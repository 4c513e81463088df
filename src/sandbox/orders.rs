//! `/v1/orders`: the Orders API as far as cards and tickets go: create, process, capture, cancel, refund, transactions.
//!
//! The idempotency key is needed for every change; the same key with another body within 24 hours is a 409, with the same
//! body the first answer again. How a card turns out is decided by the cardholder's name, as for payments.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, Duration};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Refusal, Stamp, json_answer, json_bytes};
use super::caller::Caller;
use super::card_tokens::TokenFault;
use super::customer_fields::is_email;
use super::customer_search::{page_of, query_map};
use super::input::Amount;
use super::order::{Order, OrderRefund, Transaction, Transactions, amount_text, order_error, text_amount};
use super::payment::{Status, Word};
use super::payments::{by_cardholder, idempotency_key};
use super::state::{Books, OrderReplay, World};

/// Hours that an idempotency key is remembered.
const KEY_HOURS: i64 = 24;
const DEFAULT_LIMIT: usize = 30;

/// An id like `ORD01...`: a prefix and 26 characters.
fn id(world: &World, prefix: &str) -> String {
    format!("{prefix}{}", world.alphanumeric::<26>().to_ascii_uppercase())
}

/// Carries a change out once per idempotency key.
pub(super) fn once(
    caller: &Caller,
    headers: &HeaderMap,
    what: &str,
    body: &[u8],
    work: impl FnOnce(&mut Books) -> Result<(StatusCode, Value), Refusal>,
) -> Answer {
    let key = idempotency_key(headers).ok_or_else(|| {
        order_error(
            400,
            "empty_required_header",
            "The header X-Idempotency-Key is required",
        )
    })?;
    let hash = Sha256::digest([what.as_bytes(), body].concat()).to_vec();
    let mut books = caller.seller.books();
    let fresh = caller.now - Duration::hours(KEY_HOURS);
    if let Some(replay) = books.order_keys.get(&key).filter(|replay| replay.at > fresh) {
        if replay.hash != hash {
            return Err(order_error(
                409,
                "idempotency_key_already_used",
                "The idempotency key was used with another request in the last 24 hours",
            ));
        }
        return Ok(replayed(replay));
    }
    let (status, answer) = work(&mut books)?;
    let body = answer.to_string();
    let replay = OrderReplay {
        at: caller.now,
        hash,
        status: status.as_u16(),
        body,
    };
    let response = replayed(&replay);
    books.order_keys.insert(key, replay);
    Ok(response)
}

fn replayed(replay: &OrderReplay) -> Response {
    let status = StatusCode::from_u16(replay.status).unwrap_or(StatusCode::OK);
    json_bytes(status, Bytes::from(replay.body.clone()))
}

pub(super) fn value<T: serde::Serialize>(shown: &T) -> Value {
    serde_json::to_value(shown).unwrap_or_default()
}

pub(super) fn parse(body: &[u8]) -> Result<Value, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(json!({}));
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| order_error(400, "json_syntax_error", "The body is no JSON"))?;
    if body.is_object() {
        Ok(body)
    } else {
        Err(order_error(400, "property_type", "The body must be an object"))
    }
}

pub(super) fn find<'a>(books: &'a mut Books, order: &str) -> Result<&'a mut Order, Refusal> {
    if !(order.starts_with("ORD") && order.len() == 29) {
        return Err(order_error(
            400,
            "invalid_path_param",
            "The id must be ORD and 26 characters",
        ));
    }
    books
        .orders
        .get_mut(order)
        .ok_or_else(|| order_error(404, "order_not_found", "Order not found"))
}

/// `POST /v1/orders`.
pub(super) async fn create(
    State(world): State<Arc<World>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    once(&caller, &headers, "create", &body, |books| {
        let wanted = parse(&body)?;
        let mut order = read(&world, &caller, &wanted)?;
        if order.processing_mode == "automatic" {
            if order.transactions.payments.is_empty() {
                return Err(order_error(
                    400,
                    "order_builder_without_transactions",
                    "transactions are required",
                ));
            }
            process_payments(&world, &caller, &mut order)?;
        }
        let answer = value(&order);
        let failed = order.status == "failed";
        books.orders.insert(order.id.clone(), order);
        if failed {
            Err(failure(&answer))
        } else {
            Ok((StatusCode::CREATED, answer))
        }
    })
}

fn failure(order: &Value) -> Refusal {
    let detail = order["transactions"]["payments"][0]["status_detail"]
        .as_str()
        .unwrap_or("failed");
    let mut refusal = order_error(402, "failed", detail);
    refusal.body["data"] = order.clone();
    refusal
}

fn read(world: &World, caller: &Caller, wanted: &Value) -> Result<Order, Refusal> {
    let required = |name: &str| order_error(400, "required_properties", &format!("{name} is required"));
    let property = |name: &str| order_error(400, "property_value", &format!("{name} has no valid value"));
    if wanted["type"].as_str() != Some("online") {
        return Err(if wanted["type"].is_null() {
            required("type")
        } else {
            property("type")
        });
    }
    let total = match &wanted["total_amount"] {
        Value::Null => return Err(required("total_amount")),
        Value::String(_) => text_amount(&wanted["total_amount"]).ok_or_else(|| property("total_amount"))?,
        _ => return Err(order_error(400, "property_type", "total_amount must be a string")),
    };
    match wanted["payer"]["email"].as_str() {
        None => return Err(required("payer.email")),
        Some(email) if !is_email(email) => return Err(property("payer.email")),
        Some(_) => {}
    }
    let mode = |name: &str, allowed: &[&str]| match wanted[name].as_str() {
        None => Ok(String::from("automatic")),
        Some(mode) if allowed.contains(&mode) => Ok(String::from(mode)),
        Some(_) => Err(property(name)),
    };
    let payments = transactions(world, caller, &wanted["transactions"]["payments"])?;
    let sum: i64 = payments
        .iter()
        .filter_map(|payment| text_amount(&json!(payment.amount)))
        .map(|a| a.0)
        .sum();
    if !payments.is_empty() && sum != total.0 {
        return Err(property(
            "transactions.payments.amount: their sum must be total_amount",
        ));
    }
    let now = Stamp(caller.now);
    let text = |name: &str| wanted[name].as_str().map(String::from);
    Ok(Order {
        id: id(world, "ORD"),
        kind: Word::Borrowed("online"),
        processing_mode: mode("processing_mode", &["automatic", "manual"])?,
        capture_mode: mode("capture_mode", &["automatic", "manual", "automatic_async"])?,
        external_reference: text("external_reference"),
        description: text("description"),
        total_amount: amount_text(total),
        total_paid_amount: None,
        country_code: Word::Borrowed(caller.seller.site.id),
        user_id: caller.seller.user_id,
        status: Word::Borrowed("created"),
        status_detail: Word::Borrowed("created"),
        created_date: now,
        last_updated_date: now,
        payer: wanted["payer"].clone(),
        items: wanted["items"].clone(),
        integration_data: json!({ "application_id": caller.access.client_id }),
        transactions: Transactions {
            payments,
            refunds: Vec::new(),
        },
    })
}

pub(super) fn transactions(
    world: &World,
    caller: &Caller,
    wanted: &Value,
) -> Result<Vec<Transaction>, Refusal> {
    let property = |name: &str| order_error(400, "property_value", &format!("{name} has no valid value"));
    let wanted = wanted.as_array().map_or(&[][..], Vec::as_slice);
    wanted
        .iter()
        .map(|payment| {
            let amount = text_amount(&payment["amount"]).ok_or_else(|| property("payments.amount"))?;
            let method = payment["payment_method"]["id"].as_str().unwrap_or("");
            caller
                .seller
                .site
                .method(method)
                .ok_or_else(|| property("payments.payment_method.id"))?;
            Ok(Transaction {
                id: id(world, "PAY"),
                amount: amount_text(amount),
                paid_amount: None,
                reference_id: world.alphanumeric::<10>().to_ascii_lowercase(),
                status: Word::Borrowed("created"),
                status_detail: Word::Borrowed("created"),
                payment_method: payment["payment_method"].clone(),
            })
        })
        .collect()
}

/// Charges what is not charged yet.
fn process_payments(world: &World, caller: &Caller, order: &mut Order) -> Result<(), Refusal> {
    let held = order.capture_mode == "manual";
    for payment in order
        .transactions
        .payments
        .iter_mut()
        .filter(|payment| payment.status == "created")
    {
        let method = payment.payment_method["id"]
            .as_str()
            .and_then(|id| caller.seller.site.method(id));
        let (status, detail) = if method.is_some_and(super::sites::Method::is_card) {
            let token = payment.payment_method["token"].as_str().unwrap_or("");
            let owner = (caller.seller.user_id, caller.access.client_id.as_str());
            let token = world
                .card_tokens
                .spend::<TokenFault>(token, owner, caller.now, |_| Ok(()))
                .map_err(|_| order_error(400, "invalid_properties", "The card token is not valid"))?;
            match by_cardholder(&token.facts.cardholder.name) {
                (Status::Approved, _) if held => ("action_required", "waiting_capture"),
                (Status::Approved, _) => ("processed", "accredited"),
                (Status::InProcess, _) => ("processing", "in_process"),
                (_, detail) => ("failed", detail.trim_start_matches("cc_rejected_")),
            }
        } else {
            ("action_required", "waiting_payment")
        };
        payment.status = Word::Borrowed(status);
        payment.status_detail = Word::Borrowed(detail);
        if status == "processed" {
            payment.paid_amount = Some(payment.amount.clone());
        }
    }
    order.follow_payments(Stamp(caller.now));
    Ok(())
}

/// `GET /v1/orders/{id}`.
pub(super) async fn show(caller: Caller, Path(order): Path<String>) -> Answer {
    Ok(json_answer(
        StatusCode::OK,
        find(&mut caller.seller.books(), &order)?,
    ))
}

/// `GET /v1/orders`: `begin_date` and `end_date` are needed.
pub(super) async fn search(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let query = query_map(query.as_deref());
    let date = |name: &str| {
        let text = query
            .get(name)
            .and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        text.ok_or_else(|| order_error(400, "required_properties", &format!("{name} is required")))
    };
    let (begin, end) = (date("begin_date")?, date("end_date")?);
    let (limit, offset) =
        page_of(&query, DEFAULT_LIMIT).ok_or_else(|| order_error(400, "property_type", "limit, offset"))?;
    let books = caller.seller.books();
    let is = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
    let found: Vec<&Order> = books
        .orders
        .values()
        .filter(|order| {
            begin <= order.created_date.0
                && order.created_date.0 <= end
                && is("status", &order.status)
                && is("type", &order.kind)
                && is(
                    "external_reference",
                    order.external_reference.as_deref().unwrap_or(""),
                )
        })
        .collect();
    let paging = json!({ "total": found.len(), "limit": limit, "offset": offset });
    let page: Vec<&Order> = found.into_iter().skip(offset).take(limit).collect();
    Ok(json_answer(
        StatusCode::OK,
        &json!({ "data": page, "results": page, "paging": paging }),
    ))
}

/// `POST /v1/orders/{id}/process|cancel|capture|refund`.
pub(super) async fn act(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path((order_id, action)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    once(
        &caller,
        &headers,
        &format!("{order_id}/{action}"),
        &body,
        |books| {
            let wanted = parse(&body)?;
            let order = find(books, &order_id)?;
            let now = Stamp(caller.now);
            match action.as_str() {
                "process" => {
                    if order.status != "created" {
                        return Err(order_error(
                            409,
                            "operation_not_supported",
                            "The order is not in status created",
                        ));
                    }
                    process_payments(&world, &caller, order)?;
                    if order.status == "failed" {
                        return Err(failure(&value(order)));
                    }
                    Ok((StatusCode::OK, value(order)))
                }
                "cancel" => match &*order.status {
                    "created" | "action_required" => {
                        for payment in &mut order.transactions.payments {
                            payment.status = Word::Borrowed("canceled");
                            payment.status_detail = Word::Borrowed("canceled");
                        }
                        order.status = Word::Borrowed("canceled");
                        order.status_detail = Word::Borrowed("canceled");
                        order.last_updated_date = now;
                        Ok((StatusCode::OK, value(order)))
                    }
                    "canceled" => Err(order_error(
                        409,
                        "order_already_cancelled",
                        "The order is canceled",
                    )),
                    _ => Err(order_error(
                        409,
                        "cannot_cancel_order",
                        "The order's status does not allow it",
                    )),
                },
                "capture" => {
                    if order.status_detail != "waiting_capture" {
                        return Err(order_error(
                            409,
                            "cannot_capture_order",
                            "There is nothing to capture",
                        ));
                    }
                    for payment in &mut order.transactions.payments {
                        payment.status = Word::Borrowed("processed");
                        payment.status_detail = Word::Borrowed("accredited");
                        payment.paid_amount = Some(payment.amount.clone());
                    }
                    order.follow_payments(now);
                    Ok((StatusCode::OK, value(order)))
                }
                "refund" => refund(&world, order, &wanted, now),
                _ => Err(Refusal::plain(StatusCode::NOT_FOUND, "Resource not found")),
            }
        },
    )
}

fn refund(
    world: &World,
    order: &mut Order,
    wanted: &Value,
    now: Stamp,
) -> Result<(StatusCode, Value), Refusal> {
    if order.status_detail == "refunded" {
        return Err(order_error(
            409,
            "order_already_refunded",
            "All of the order is refunded",
        ));
    }
    if order.status != "processed" {
        return Err(order_error(
            409,
            "cannot_refund_order",
            "The order's status does not allow it",
        ));
    }
    let parts: Vec<(String, Amount)> = match wanted["transactions"].as_array() {
        None => order
            .transactions
            .payments
            .iter()
            .map(|p| (p.id.clone(), order.left(p)))
            .collect(),
        Some(parts) => parts
            .iter()
            .map(|part| {
                let amount = text_amount(&part["amount"])
                    .ok_or_else(|| order_error(400, "property_value", "transactions.amount"))?;
                Ok((part["id"].as_str().unwrap_or("").to_owned(), amount))
            })
            .collect::<Result<_, Refusal>>()?,
    };
    for (transaction_id, amount) in parts {
        let payment = order
            .transactions
            .payments
            .iter()
            .find(|payment| payment.id == transaction_id);
        let payment =
            payment.ok_or_else(|| order_error(404, "transaction_not_found", "Transaction not found"))?;
        if amount > order.left(payment) {
            return Err(order_error(
                400,
                "refund_amount_exceeds",
                "More than is left of the payment",
            ));
        }
        order.transactions.refunds.push(OrderRefund {
            id: id(world, "REF"),
            transaction_id,
            reference_id: world.alphanumeric::<10>().to_ascii_lowercase(),
            amount: amount_text(amount),
            status: Word::Borrowed("processed"),
        });
    }
    let all = order
        .transactions
        .payments
        .iter()
        .all(|payment| order.left(payment).0 == 0);
    order.status_detail = Word::Borrowed(if all { "refunded" } else { "partially_refunded" });
    order.last_updated_date = now;
    Ok((StatusCode::CREATED, value(order)))
}
