//! `/v1/customers/{id}/cards`: cards that a seller may charge again, once the buyer types the security code.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::Caller;
use super::card_tokens::{CardFacts, CardToken, Cardholder, Identification, TokenFault};
use super::customers::{Customer, find};
use super::input::Fields;
use super::state::{Seller, World};

/// Cards that a customer may have.
const MAX_CARDS: usize = 10;

/// A saved card.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Card {
    pub(super) id: String,
    pub(super) customer_id: String,
    pub(super) facts: CardFacts,
    pub(super) date_created: Stamp,
    pub(super) date_last_updated: Stamp,
    pub(super) live_mode: bool,
}

/// A saved card as the documents show it.
#[derive(Debug, Serialize)]
pub(super) struct CardView<'a> {
    id: &'a str,
    expiration_month: u32,
    expiration_year: i32,
    first_six_digits: &'a str,
    last_four_digits: &'a str,
    payment_method: MethodView,
    security_code: SecurityCode,
    issuer: Issuer,
    cardholder: &'a Cardholder,
    date_created: Stamp,
    date_last_updated: Stamp,
    customer_id: &'a str,
    user_id: String,
    live_mode: bool,
}

/// A card's payment method.
#[derive(Debug, Serialize)]
pub(super) struct MethodView {
    id: &'static str,
    name: &'static str,
    payment_type_id: &'static str,
    thumbnail: String,
    secure_thumbnail: String,
}

#[derive(Debug, Serialize)]
struct SecurityCode {
    mode: &'static str,
    length: usize,
    card_location: &'static str,
}

/// Who issued a card.
#[derive(Debug, Serialize)]
pub(super) struct Issuer {
    pub(super) id: u32,
    pub(super) name: &'static str,
}

/// Address of a payment method's picture.
pub(super) fn thumbnail(scheme: &str, host: &str, method: &str) -> String {
    format!("{scheme}://{host}/org-img/MP3/API/logos/{method}.gif")
}

impl Card {
    /// The card as answers show it.
    pub(super) fn view<'a>(&'a self, seller: &Seller) -> CardView<'a> {
        let method = self.facts.method(seller.site);
        let id = method.map_or("unknown", |method| method.id);
        CardView {
            id: &self.id,
            expiration_month: self.facts.expiration_month,
            expiration_year: self.facts.expiration_year,
            first_six_digits: &self.facts.first_six_digits,
            last_four_digits: &self.facts.last_four_digits,
            payment_method: MethodView {
                id,
                name: id,
                payment_type_id: method.map_or("credit_card", |method| method.kind),
                thumbnail: thumbnail("http", "img.mlstatic.com", id),
                secure_thumbnail: thumbnail("https", "www.mercadopago.com", id),
            },
            security_code: SecurityCode {
                mode: "mandatory",
                length: method.map_or(3, |method| method.code_length),
                card_location: if id == "amex" { "front" } else { "back" },
            },
            issuer: Issuer {
                id: method.map_or(0, |method| method.issuer),
                name: method.map_or("unknown", |method| method.name),
            },
            cardholder: &self.facts.cardholder,
            date_created: self.date_created,
            date_last_updated: self.date_last_updated,
            customer_id: &self.customer_id,
            user_id: seller.user_id.to_string(),
            live_mode: self.live_mode,
        }
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        match fault {
            TokenFault::Unknown => Self::bad(2006, "Card Token not found"),
            TokenFault::Spent => Self::bad(2062, "Invalid card token"),
        }
    }
}

/// `POST /v1/customers/{customer_id}/cards`.
pub(super) async fn create(
    State(world): State<Arc<World>>,
    caller: Caller,
    Path(customer_id): Path<String>,
    body: Bytes,
) -> Answer {
    let fields =
        Fields::parse(&body).map_err(|_| Refusal::customer(118, "the body must be a Json object"))?;
    let token = fields
        .text("token")
        .map_err(|_| Refusal::customer(125, "invalid parameters."))?
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Refusal::customer(119, "the card is required."))?;
    let mut books = caller.seller.books();
    let customer = find(&mut books, &customer_id)?;
    let owner = (caller.seller.user_id, caller.access.client_id.as_str());
    let check = |token: &CardToken| fits(token, &fields, customer, &caller);
    let token = world
        .card_tokens
        .spend::<SaveFault>(&token, owner, caller.now, check)
        .map_err(|fault| match fault {
            SaveFault::Token(TokenFault::Unknown) => Refusal::customer(121, "the card is invalid."),
            SaveFault::Token(TokenFault::Spent) => Refusal::customer(122, "the card data is invalid."),
            SaveFault::Refused(refusal) => *refusal,
        })?;
    let now = Stamp(caller.now);
    let known = customer
        .cards
        .iter()
        .position(|card| card.facts.fingerprint == token.facts.fingerprint);
    let index = known.unwrap_or(customer.cards.len());
    let card = match known.and_then(|index| customer.cards.get(index)) {
        Some(old) => Card {
            facts: token.facts,
            date_last_updated: now,
            ..old.clone()
        },
        None => Card {
            id: world.next_id().to_string(),
            customer_id: customer.id.clone(),
            facts: token.facts,
            date_created: now,
            date_last_updated: now,
            live_mode: caller.access.live_mode,
        },
    };
    let answer = json_answer(StatusCode::CREATED, &card.view(&caller.seller));
    customer.default_card.get_or_insert_with(|| card.id.clone());
    customer
        .cards
        .splice(index..(index + usize::from(known.is_some())), [card]);
    customer.date_last_updated = now;
    Ok(answer)
}

/// Why a token's card is not saved.
enum SaveFault {
    Token(TokenFault),
    Refused(Box<Refusal>),
}

impl From<TokenFault> for SaveFault {
    fn from(fault: TokenFault) -> Self {
        Self::Token(fault)
    }
}

/// Whether the token's card may be saved for this customer.
fn fits(
    token: &CardToken,
    fields: &Fields<'_>,
    customer: &Customer,
    caller: &Caller,
) -> Result<(), SaveFault> {
    let refused = |code, description| Err(SaveFault::Refused(Box::new(Refusal::customer(code, description))));
    if token
        .card_id
        .as_ref()
        .is_some_and(|id| customer.cards.iter().all(|card| card.id != *id))
    {
        return refused(140, "invalid card owner.");
    }
    if token.facts.expired(caller.now) {
        return refused(122, "the card data is invalid.");
    }
    if customer.cards.len() >= MAX_CARDS
        && customer
            .cards
            .iter()
            .all(|card| card.facts.fingerprint != token.facts.fingerprint)
    {
        return refused(
            129,
            "the customer has reached the maximum allowed number of cards.",
        );
    }
    let method = fields.text("payment_method_id").unwrap_or_default();
    let issuer = fields.text_or_number("issuer_id").unwrap_or_default();
    if method.as_deref() == Some("") {
        return refused(123, "the payment_method_id is required.");
    }
    if issuer.as_deref() == Some("") {
        return refused(124, "the issuer_id is required.");
    }
    let of_card = token.facts.method(caller.seller.site);
    let same = |name: &String| of_card.is_some_and(|card| card.id == *name) || is_payment_type(name);
    let numeric = |issuer: &String| issuer.bytes().all(|b| b.is_ascii_digit());
    if of_card.is_none() || !method.as_ref().is_none_or(same) || !issuer.as_ref().is_none_or(numeric) {
        return refused(
            127,
            "invalid parameter. Cannot resolve the payment method of card, check the payment_method_id and issuer_id.",
        );
    }
    Ok(())
}

/// The documents' own samples send a payment type here.
fn is_payment_type(name: &str) -> bool {
    matches!(name, "credit_card" | "debit_card" | "prepaid_card")
}

/// `GET /v1/customers/{customer_id}/cards`.
pub(super) async fn list(caller: Caller, Path(customer_id): Path<String>) -> Answer {
    let mut books = caller.seller.books();
    let customer = find(&mut books, &customer_id)?;
    let cards: Vec<_> = customer
        .cards
        .iter()
        .map(|card| card.view(&caller.seller))
        .collect();
    Ok(json_answer(StatusCode::OK, &cards))
}

/// Place of a card among its customer's; another customer's card is told apart from one that does not exist.
fn position(books: &mut super::state::Books, customer_id: &str, card_id: &str) -> Result<usize, Refusal> {
    let customer = find(books, customer_id)?;
    if let Some(index) = customer.cards.iter().position(|card| card.id == card_id) {
        return Ok(index);
    }
    let elsewhere = books
        .customers
        .values()
        .any(|customer| customer.cards.iter().any(|card| card.id == card_id));
    Err(if elsewhere {
        Refusal::customer(140, "invalid card owner.")
    } else {
        Refusal::customer_not_found()
    })
}

/// `GET /v1/customers/{customer_id}/cards/{id}`.
pub(super) async fn show(caller: Caller, Path((customer_id, id)): Path<(String, String)>) -> Answer {
    let mut books = caller.seller.books();
    let index = position(&mut books, &customer_id, &id)?;
    let card = &find(&mut books, &customer_id)?.cards[index];
    Ok(json_answer(StatusCode::OK, &card.view(&caller.seller)))
}

/// `PUT /v1/customers/{customer_id}/cards/{id}`: expiry and cardholder.
pub(super) async fn update(
    caller: Caller,
    Path((customer_id, id)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let fields =
        Fields::parse(&body).map_err(|_| Refusal::customer(118, "the body must be a Json object"))?;
    let mut books = caller.seller.books();
    let index = position(&mut books, &customer_id, &id)?;
    let card = &mut find(&mut books, &customer_id)?.cards[index];
    let invalid = || Refusal::customer(122, "the card data is invalid.");
    let mut facts = card.facts.clone();
    if let Some(month) = fields
        .integer_or_text("expiration_month")
        .map_err(|_| invalid())?
    {
        facts.expiration_month = u32::try_from(month)
            .ok()
            .filter(|month| (1..=12).contains(month))
            .ok_or_else(invalid)?;
    }
    if let Some(year) = fields.integer_or_text("expiration_year").map_err(|_| invalid())? {
        facts.expiration_year = i32::try_from(year).map_err(|_| invalid())?;
    }
    if let Some(cardholder) = fields.object("cardholder").map_err(|_| invalid())? {
        if let Some(name) = cardholder.text("name").map_err(|_| invalid())? {
            facts.cardholder.name = name;
        }
        if let Some(document) = cardholder.object("identification").map_err(|_| invalid())? {
            facts.cardholder.identification = Identification::read(&document).map_err(|_| invalid())?;
        }
    }
    if facts.expired(caller.now) {
        return Err(invalid());
    }
    card.facts = facts;
    card.date_last_updated = Stamp(caller.now);
    Ok(json_answer(StatusCode::OK, &card.view(&caller.seller)))
}

/// `DELETE /v1/customers/{customer_id}/cards/{id}`.
pub(super) async fn delete(caller: Caller, Path((customer_id, id)): Path<(String, String)>) -> Answer {
    let mut books = caller.seller.books();
    let index = position(&mut books, &customer_id, &id)?;
    let customer = find(&mut books, &customer_id)?;
    let card = customer.cards.remove(index);
    if customer.default_card.as_ref() == Some(&card.id) {
        customer.default_card = customer.cards.first().map(|card| card.id.clone());
    }
    Ok(json_answer(StatusCode::OK, &card.view(&caller.seller)))
}
