//! `/v1/customers/{id}/addresses`.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;

use super::answer::{Answer, Refusal, json_answer};
use super::caller::Caller;
use super::customer_fields::read_address;
use super::customers::{Address, find};
use super::input::Fields;
use super::state::World;

fn read(body: &[u8]) -> Result<Address, Refusal> {
    let fields = Fields::parse(body).map_err(|_| Refusal::customer(118, "the body must be a Json object"))?;
    read_address(&fields)
}

fn is(id: &str) -> impl Fn(&Address) -> bool + '_ {
    move |address| address.id.as_deref() == Some(id)
}

/// `POST /v1/customers/{id}/addresses`.
pub(super) async fn create(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path(customer_id): Path<String>,
    body: Bytes,
) -> Answer {
    let address = Address {
        id: Some(world.next_id().to_string()),
        ..read(&body)?
    };
    let mut books = caller.seller.books();
    let customer = find(&mut books, &customer_id)?;
    customer
        .default_address
        .get_or_insert_with(|| address.id.clone().unwrap_or_default());
    customer.addresses.push(address.clone());
    Ok(json_answer(StatusCode::CREATED, &address))
}

/// `GET /v1/customers/{id}/addresses`.
pub(super) async fn list(caller: Caller, Path(customer_id): Path<String>) -> Answer {
    let mut books = caller.seller.books();
    Ok(json_answer(
        StatusCode::OK,
        &find(&mut books, &customer_id)?.addresses,
    ))
}

/// `GET /v1/customers/{id}/addresses/{address_id}`.
pub(super) async fn show(caller: Caller, Path((customer_id, id)): Path<(String, String)>) -> Answer {
    let mut books = caller.seller.books();
    let customer = find(&mut books, &customer_id)?;
    let address = customer.addresses.iter().find(|address| is(&id)(address));
    Ok(json_answer(
        StatusCode::OK,
        address.ok_or_else(Refusal::customer_not_found)?,
    ))
}

/// `PUT /v1/customers/{id}/addresses/{address_id}`.
pub(super) async fn update(
    caller: Caller,
    Path((customer_id, id)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let changes = read(&body)?;
    let mut books = caller.seller.books();
    let customer = find(&mut books, &customer_id)?;
    let address = customer.addresses.iter_mut().find(|address| is(&id)(address));
    let address = address.ok_or_else(Refusal::customer_not_found)?;
    address.street_name = changes.street_name.or(address.street_name.take());
    address.street_number = changes.street_number.or(address.street_number.take());
    address.zip_code = changes.zip_code.or(address.zip_code.take());
    Ok(json_answer(StatusCode::OK, address))
}

/// `DELETE /v1/customers/{id}/addresses/{address_id}`.
pub(super) async fn delete(caller: Caller, Path((customer_id, id)): Path<(String, String)>) -> Answer {
    let mut books = caller.seller.books();
    let customer = find(&mut books, &customer_id)?;
    let index = customer
        .addresses
        .iter()
        .position(is(&id))
        .ok_or_else(Refusal::customer_not_found)?;
    Ok(json_answer(StatusCode::OK, &customer.addresses.remove(index)))
}
