//! `/v1/orders/{id}/transactions`: the payments of an order that is not processed yet, one by one.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::answer::{Answer, Refusal, Stamp};
use super::caller::Caller;
use super::order::{Order, Transaction, order_error};
use super::orders::{find, once, parse, transactions, value};
use super::state::World;

/// `POST /v1/orders/{id}/transactions`.
pub(super) async fn add_transaction(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path(order_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    once(
        &caller,
        &headers,
        &format!("{order_id}/transactions"),
        &body,
        |books| {
            let wanted = parse(&body)?;
            let payments = transactions(&world, &caller, &wanted["payments"])?;
            let order = find(books, &order_id)?;
            if order.status != "created" || payments.is_empty() {
                return Err(order_error(
                    409,
                    "operation_not_supported",
                    "Nothing can be added to the order now",
                ));
            }
            order.transactions.payments.extend(payments.clone());
            order.last_updated_date = Stamp(caller.now);
            Ok((StatusCode::CREATED, json!({ "payments": payments })))
        },
    )
}

/// `PUT /v1/orders/{id}/transactions/{transaction_id}`.
pub(super) async fn update_transaction(
    caller: Caller,
    Path((order_id, transaction_id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    once(
        &caller,
        &headers,
        &format!("{order_id}/{transaction_id}"),
        &body,
        |books| {
            let wanted = parse(&body)?;
            let payment = open_transaction(find(books, &order_id)?, &transaction_id)?;
            if let (Some(method), Some(changes)) = (
                payment.payment_method.as_object_mut(),
                wanted["payment_method"].as_object(),
            ) {
                method.extend(changes.clone());
            }
            Ok((StatusCode::OK, value(payment)))
        },
    )
}

fn open_transaction<'a>(order: &'a mut Order, id: &str) -> Result<&'a mut Transaction, Refusal> {
    if order.status != "created" {
        return Err(order_error(
            409,
            "operation_not_supported",
            "The order is not in status created",
        ));
    }
    let payment = order
        .transactions
        .payments
        .iter_mut()
        .find(|payment| payment.id == id);
    payment.ok_or_else(|| order_error(404, "transaction_not_found", "Transaction not found"))
}

/// `DELETE /v1/orders/{id}/transactions/{transaction_id}`.
pub(super) async fn delete_transaction(
    caller: Caller,
    Path((order_id, transaction_id)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let mut books = caller.seller.books();
    let order = find(&mut books, &order_id)?;
    open_transaction(order, &transaction_id)?;
    order
        .transactions
        .payments
        .retain(|payment| payment.id != transaction_id);
    Ok(StatusCode::NO_CONTENT)
}
