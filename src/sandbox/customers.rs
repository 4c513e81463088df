//! `/v1/customers`: buyers that a seller remembers. They belong to the account whose token made them; nobody else sees them.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::Caller;
use super::cards::{Card, CardView};
use super::customer_fields::Changes;
use super::input::Fields;
use super::state::{Books, Seller, World};

/// A phone number as customers have it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Phone {
    pub(super) area_code: Option<String>,
    pub(super) number: Option<String>,
}

/// A document as customers have it: members are there even where nothing is known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) number: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// An address.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Address {
    pub(super) id: Option<String>,
    pub(super) street_name: Option<String>,
    pub(super) street_number: Option<String>,
    pub(super) zip_code: Option<String>,
}

/// A customer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Customer {
    pub(super) id: String,
    pub(super) email: String,
    pub(super) first_name: Option<String>,
    pub(super) last_name: Option<String>,
    pub(super) phone: Phone,
    pub(super) identification: Document,
    pub(super) address: Address,
    pub(super) addresses: Vec<Address>,
    pub(super) default_address: Option<String>,
    pub(super) default_card: Option<String>,
    pub(super) description: Option<String>,
    pub(super) date_registered: Option<String>,
    pub(super) date_created: Stamp,
    pub(super) date_last_updated: Stamp,
    pub(super) metadata: Box<RawValue>,
    pub(super) cards: Vec<Card>,
    pub(super) live_mode: bool,
}

/// A customer as the documents show it.
#[derive(Debug, Serialize)]
pub(super) struct CustomerView<'a> {
    id: &'a str,
    email: &'a str,
    first_name: Option<&'a str>,
    last_name: Option<&'a str>,
    phone: &'a Phone,
    identification: &'a Document,
    address: &'a Address,
    date_registered: Option<&'a str>,
    description: Option<&'a str>,
    date_created: Stamp,
    date_last_updated: Stamp,
    metadata: &'a RawValue,
    default_card: Option<&'a str>,
    default_address: Option<&'a str>,
    cards: Vec<CardView<'a>>,
    addresses: &'a [Address],
    live_mode: bool,
}

impl Customer {
    /// The customer as answers show it.
    pub(super) fn view<'a>(&'a self, seller: &Seller) -> CustomerView<'a> {
        CustomerView {
            id: &self.id,
            email: &self.email,
            first_name: self.first_name.as_deref(),
            last_name: self.last_name.as_deref(),
            phone: &self.phone,
            identification: &self.identification,
            address: &self.address,
            date_registered: self.date_registered.as_deref(),
            description: self.description.as_deref(),
            date_created: self.date_created,
            date_last_updated: self.date_last_updated,
            metadata: &self.metadata,
            default_card: self.default_card.as_deref(),
            default_address: self.default_address.as_deref(),
            cards: self.cards.iter().map(|card| card.view(seller)).collect(),
            addresses: &self.addresses,
            live_mode: self.live_mode,
        }
    }
}

/// The customer of this id, or what Mercado Pago says of an id that is malformed or unknown.
pub(super) fn find<'a>(books: &'a mut Books, id: &str) -> Result<&'a mut Customer, Refusal> {
    let well_formed = id.split_once('-').is_some_and(|(account, rest)| {
        account.bytes().all(|b| b.is_ascii_digit()) && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    if !well_formed {
        return Err(Refusal::customer(105, "the customer id is invalid."));
    }
    books
        .customers
        .get_mut(id)
        .ok_or_else(Refusal::customer_not_found)
}

/// `POST /v1/customers`.
pub(super) async fn create(State(world): State<Arc<World>>, caller: Caller, body: Bytes) -> Answer {
    let fields =
        Fields::parse(&body).map_err(|_| Refusal::customer(118, "the body must be a Json object"))?;
    let changes = Changes::read(&fields, caller.seller.site)?;
    let email = changes.new_email(&fields, &caller)?;
    let mut books = caller.seller.books();
    if books.customers.values().any(|customer| customer.email == email) {
        return Err(Refusal::customer(101, "the customer already exist."));
    }
    let now = Stamp(caller.now);
    let mut customer = Customer {
        id: format!("{}-{}", caller.seller.user_id, world.alphanumeric::<14>()),
        email,
        first_name: None,
        last_name: None,
        phone: Phone::default(),
        identification: Document::default(),
        address: Address::default(),
        addresses: Vec::new(),
        default_address: None,
        default_card: None,
        description: None,
        date_registered: None,
        date_created: now,
        date_last_updated: now,
        metadata: empty_object(),
        cards: Vec::new(),
        live_mode: caller.access.live_mode,
    };
    changes.apply(&mut customer)?;
    let answer = json_answer(StatusCode::CREATED, &customer.view(&caller.seller));
    books.customers.insert(customer.id.clone(), customer);
    Ok(answer)
}

/// `{}`
pub(super) fn empty_object() -> Box<RawValue> {
    serde_json::value::to_raw_value(&serde_json::Map::new()).unwrap_or_default()
}

/// `GET /v1/customers/{id}`.
pub(super) async fn show(caller: Caller, Path(id): Path<String>) -> Answer {
    let mut books = caller.seller.books();
    let customer = find(&mut books, &id)?;
    Ok(json_answer(StatusCode::OK, &customer.view(&caller.seller)))
}

/// `PUT /v1/customers/{id}`.
pub(super) async fn update(caller: Caller, Path(id): Path<String>, body: Bytes) -> Answer {
    let fields =
        Fields::parse(&body).map_err(|_| Refusal::customer(118, "the body must be a Json object"))?;
    let changes = Changes::read(&fields, caller.seller.site)?;
    let mut books = caller.seller.books();
    let customer = find(&mut books, &id)?;
    if changes
        .email
        .as_ref()
        .is_some_and(|email| *email != customer.email)
    {
        return Err(Refusal::customer(
            126,
            "invalid parameter. You cannot update the email.",
        ));
    }
    changes.apply(customer)?;
    customer.date_last_updated = Stamp(caller.now);
    Ok(json_answer(StatusCode::OK, &customer.view(&caller.seller)))
}

/// `PUT /v1/customers`, which lacks the id.
pub(super) async fn update_without_id(_caller: Caller) -> Answer {
    Err(Refusal::customer(102, "missing customer id"))
}

/// `DELETE /v1/customers/{id}`.
pub(super) async fn delete(caller: Caller, Path(id): Path<String>) -> Answer {
    let mut books = caller.seller.books();
    find(&mut books, &id)?;
    let customer = books
        .customers
        .remove(&id)
        .ok_or_else(Refusal::customer_not_found)?;
    Ok(json_answer(StatusCode::OK, &customer.view(&caller.seller)))
}
