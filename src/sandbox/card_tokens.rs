//! `POST /v1/card_tokens`: what MercadoPago.js calls from the buyer's browser with a public key.
//!
//! A token stands for a card (or for a saved card with its security code typed again), works once, and lives seven days.
//! The card number itself is not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Duration, Utc};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::bearer;
use super::input::{Fields, WrongType};
use super::sites::{Method, SITES, Site, luhn};
use super::state::{KeyOwner, World};

/// Life of a card token.
const TOKEN_DAYS: i64 = 7;
/// The locks that tokens are spread over.
const SHARDS: usize = 16;
/// Tokens that a shard keeps at most; the oldest go first.
const TOKENS_PER_SHARD: usize = 50_000;

/// The person on a card.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cardholder {
    pub(super) name: String,
    pub(super) identification: Identification,
}

/// An identity document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Identification {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<String>,
}

impl Identification {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, WrongType> {
        Ok(Self {
            number: fields.text_or_number("number")?,
            kind: fields.text("type")?,
        })
    }
}

/// What is known of a card once its number is forgotten.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CardFacts {
    pub(super) first_six_digits: String,
    pub(super) last_four_digits: String,
    pub(super) expiration_month: u32,
    pub(super) expiration_year: i32,
    pub(super) cardholder: Cardholder,
    /// Tells equal cards apart from different ones.
    pub(super) fingerprint: String,
    pub(super) number_length: usize,
}

impl CardFacts {
    /// The method of this card in a country.
    pub(super) fn method(&self, site: &Site) -> Option<&'static Method> {
        Site::find(site.id)?.method_of_card(&self.first_six_digits)
    }

    /// Whether the card's month is over.
    pub(super) fn expired(&self, now: DateTime<Utc>) -> bool {
        (self.expiration_year, self.expiration_month) < (now.year(), now.month())
    }
}

/// A card token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CardToken {
    pub(super) id: String,
    pub(super) facts: CardFacts,
    /// The saved card it was made from.
    pub(super) card_id: Option<String>,
    /// Whether a security code came with it.
    pub(super) with_code: bool,
    /// The seller it is bound to; without one, the application's sellers may use it.
    pub(super) user_id: Option<u64>,
    /// The application it is bound to.
    pub(super) client_id: Option<String>,
    pub(super) live_mode: bool,
    pub(super) created: DateTime<Utc>,
    pub(super) used: Option<DateTime<Utc>>,
}

impl CardToken {
    fn due(&self) -> DateTime<Utc> {
        self.created + Duration::days(TOKEN_DAYS)
    }

    fn status(&self, now: DateTime<Utc>) -> &'static str {
        match self.used {
            Some(_) => "used",
            None if self.due() <= now => "expired",
            None => "active",
        }
    }
}

/// Why a card token cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenFault {
    /// No such token for this caller.
    Unknown,
    /// Used or expired.
    Spent,
}

#[derive(Debug, Default)]
struct Shard {
    tokens: HashMap<String, CardToken>,
    order: VecDeque<String>,
}

/// All card tokens.
#[derive(Debug, Default)]
pub(super) struct CardTokens([Mutex<Shard>; SHARDS]);

impl CardTokens {
    fn shard(&self, id: &str) -> MutexGuard<'_, Shard> {
        let index = id.bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        }) % SHARDS;
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, token: CardToken) {
        let mut shard = self.shard(&token.id);
        while shard.order.len() >= TOKENS_PER_SHARD {
            if let Some(oldest) = shard.order.pop_front() {
                shard.tokens.remove(&oldest);
            }
        }
        shard.order.push_back(token.id.clone());
        shard.tokens.insert(token.id.clone(), token);
    }

    fn get(&self, id: &str) -> Option<CardToken> {
        self.shard(id).tokens.get(id).cloned()
    }

    /// Uses a token up. `check` sees it first and may refuse; the token then stays good.
    pub(super) fn spend<E: From<TokenFault>>(
        &self,
        id: &str,
        owner: (u64, &str),
        now: DateTime<Utc>,
        check: impl FnOnce(&CardToken) -> Result<(), E>,
    ) -> Result<CardToken, E> {
        let mut shard = self.shard(id);
        let token = shard.tokens.get_mut(id).ok_or(TokenFault::Unknown)?;
        let (user_id, client_id) = owner;
        let ours = token
            .user_id
            .map_or(token.client_id.as_deref() == Some(client_id), |id| id == user_id);
        if !ours {
            return Err(TokenFault::Unknown.into());
        }
        if token.status(now) != "active" {
            return Err(TokenFault::Spent.into());
        }
        check(token)?;
        token.used = Some(now);
        Ok(token.clone())
    }

    /// Copies for the state file.
    pub(super) fn snapshot(&self) -> Vec<CardToken> {
        let all = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard
                .order
                .iter()
                .filter_map(|id| shard.tokens.get(id).cloned())
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(all).collect()
    }

    /// What a state file held.
    pub(super) fn restore(tokens: Vec<CardToken>) -> Self {
        let all = Self::default();
        for token in tokens {
            all.put(token);
        }
        all
    }
}

#[derive(Serialize)]
struct TokenView<'a> {
    id: &'a str,
    public_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    card_id: Option<&'a str>,
    first_six_digits: &'a str,
    last_four_digits: &'a str,
    expiration_month: u32,
    expiration_year: i32,
    card_number_length: usize,
    security_code_length: usize,
    cardholder: &'a Cardholder,
    date_created: Stamp,
    date_last_updated: Stamp,
    date_due: Stamp,
    luhn_validation: bool,
    live_mode: bool,
    require_esc: bool,
    status: &'a str,
}

fn view(token: &CardToken, public_key: Option<&str>, now: DateTime<Utc>, status: StatusCode) -> Response {
    let method = SITES.iter().find_map(|site| token.facts.method(site));
    let shown = TokenView {
        id: &token.id,
        public_key,
        card_id: token.card_id.as_deref(),
        first_six_digits: &token.facts.first_six_digits,
        last_four_digits: &token.facts.last_four_digits,
        expiration_month: token.facts.expiration_month,
        expiration_year: token.facts.expiration_year,
        card_number_length: token.facts.number_length,
        security_code_length: method
            .filter(|_| token.with_code)
            .map_or(0, |method| method.code_length),
        cardholder: &token.facts.cardholder,
        date_created: Stamp(token.created),
        date_last_updated: Stamp(token.used.unwrap_or(token.created)),
        date_due: Stamp(token.due()),
        luhn_validation: true,
        live_mode: token.live_mode,
        require_esc: false,
        status: token.status(now),
    };
    json_answer(status, &shown)
}

/// Whoever made the call: a public key in the query or header, or an access token.
fn owner(world: &World, headers: &HeaderMap, query: Option<&str>) -> Option<(KeyOwner, Option<String>)> {
    let of_query = query.and_then(|query| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "public_key")
            .map(|(_, value)| value.into_owned())
    });
    let of_header = || {
        headers
            .get("x-public-key")
            .and_then(|value| value.to_str().ok())
            .map(String::from)
    };
    if let Some(key) = of_query.or_else(of_header) {
        return world.key_owner(&key).map(|owner| (owner, Some(key)));
    }
    let token = bearer(headers)?;
    if let Some(owner) = world.key_owner(token) {
        return Some((owner, Some(String::from(token))));
    }
    let access = world.grants.access(token, world.now())?;
    Some((KeyOwner::Seller(access.user_id), None))
}

/// `POST /v1/card_tokens`.
pub(super) async fn create(
    State(world): State<Arc<World>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let (owner, public_key) = owner(&world, &headers, query.as_deref())
        .ok_or_else(|| Refusal::plain(StatusCode::UNAUTHORIZED, "invalid public key"))?;
    let fields =
        Fields::parse(&body).map_err(|_| Refusal::bad(1, "params error: the body must be a JSON object"))?;
    let now = world.now();
    let (facts, card_id, with_code, user_id) = match fields.text_or_number("card_id") {
        Ok(Some(card_id)) => saved_card(&world, &fields, card_id, &owner)?,
        _ => new_card(&fields, now)?,
    };
    let token = CardToken {
        id: world.hex::<16>(),
        facts,
        card_id,
        with_code,
        user_id: user_id.or(match &owner {
            KeyOwner::Seller(user_id) => Some(*user_id),
            KeyOwner::Application(_) => None,
        }),
        client_id: match owner {
            KeyOwner::Application(client_id) => Some(client_id),
            KeyOwner::Seller(_) => None,
        },
        live_mode: public_key.as_ref().is_none_or(|key| !key.starts_with("TEST-")),
        created: now,
        used: None,
    };
    world.card_tokens.put(token.clone());
    Ok(view(&token, public_key.as_deref(), now, StatusCode::CREATED))
}

type Made = (CardFacts, Option<String>, bool, Option<u64>);

fn saved_card(
    world: &World,
    fields: &Fields<'_>,
    card_id: String,
    owner: &KeyOwner,
) -> Result<Made, Refusal> {
    let sellers = match owner {
        KeyOwner::Seller(user_id) => world.seller(*user_id).into_iter().collect(),
        KeyOwner::Application(_) => world.all_sellers(),
    };
    let found = sellers.iter().find_map(|seller| {
        let books = seller.books();
        let card = books
            .customers
            .values()
            .flat_map(|customer| &customer.cards)
            .find(|card| card.id == card_id)?;
        Some((card.facts.clone(), seller.user_id))
    });
    let (facts, user_id) = found.ok_or_else(|| Refusal::bad(3003, "Invalid card_id"))?;
    let code = fields.text_or_number("security_code").ok().flatten();
    if let Some(code) = &code {
        check_code(code, SITES.iter().find_map(|site| facts.method(site)))?;
    }
    Ok((facts, Some(card_id), code.is_some(), Some(user_id)))
}

fn check_code(code: &str, method: Option<&Method>) -> Result<(), Refusal> {
    let fits = code.bytes().all(|b| b.is_ascii_digit()) && method.is_none_or(|m| m.code_length == code.len());
    if fits {
        Ok(())
    } else {
        Err(Refusal::bad(3032, "Invalid security_code_length"))
    }
}

fn new_card(fields: &Fields<'_>, now: DateTime<Utc>) -> Result<Made, Refusal> {
    let number = fields
        .text_or_number("card_number")
        .ok()
        .flatten()
        .filter(|number| !number.is_empty())
        .ok_or_else(|| Refusal::bad(3017, "card_number_id cannot be null or empty"))?;
    let number: String = number.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::bad(3016, "Invalid card_number"));
    }
    if !(13..=19).contains(&number.len()) {
        return Err(Refusal::bad(3015, "Invalid card_number_length"));
    }
    if !luhn(&number) {
        return Err(Refusal::bad(3034, "Invalid card_number_validation"));
    }
    let (expiration_month, expiration_year) = expiration(fields, now)?;
    let method = SITES.iter().find_map(|site| site.method_of_card(&number));
    let code = fields.text_or_number("security_code").ok().flatten();
    match &code {
        Some(code) if code.is_empty() => {
            return Err(Refusal::bad(3013, "Invalid security_code: it is empty"));
        }
        Some(code) => check_code(code, method)?,
        None => {}
    }
    let cardholder = cardholder(fields)?;
    let facts = CardFacts {
        first_six_digits: number.chars().take(6).collect(),
        last_four_digits: number.chars().skip(number.len() - 4).collect(),
        expiration_month,
        expiration_year,
        cardholder,
        fingerprint: fingerprint(&number),
        number_length: number.len(),
    };
    Ok((facts, None, code.is_some(), None))
}

/// A card that a buyer typed on a page of the sandbox itself; none if the number cannot be one.
pub(super) fn typed_card(number: &str, name: &str) -> Option<CardFacts> {
    const FAR_MONTH: (u32, i32) = (11, 2099);
    ((13..=19).contains(&number.len()) && luhn(number)).then(|| CardFacts {
        first_six_digits: number.chars().take(6).collect(),
        last_four_digits: number.chars().skip(number.len() - 4).collect(),
        expiration_month: FAR_MONTH.0,
        expiration_year: FAR_MONTH.1,
        cardholder: Cardholder {
            name: String::from(name),
            identification: Identification::default(),
        },
        fingerprint: fingerprint(number),
        number_length: number.len(),
    })
}

/// A hash in place of the number.
fn fingerprint(number: &str) -> String {
    use base64::Engine as _;
    use sha2::{Digest as _, Sha256};
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&Sha256::digest(number.as_bytes())[..12])
}

fn expiration(fields: &Fields<'_>, now: DateTime<Utc>) -> Result<(u32, i32), Refusal> {
    let month = fields
        .integer_or_text("expiration_month")
        .map_err(|_| Refusal::bad(3029, "Invalid card_expiration_month"))?;
    let year = fields
        .integer_or_text("expiration_year")
        .map_err(|_| Refusal::bad(3030, "Invalid card_expiration_year"))?;
    let month = month.ok_or_else(|| Refusal::bad(3018, "card_expiration_month cannot be null or empty"))?;
    let year = year.ok_or_else(|| Refusal::bad(3019, "card_expiration_year cannot be null or empty"))?;
    let month = u32::try_from(month)
        .ok()
        .filter(|month| (1..=12).contains(month))
        .ok_or_else(|| Refusal::bad(3029, "Invalid card_expiration_month"))?;
    let year = if (0..100).contains(&year) {
        year + 2000
    } else {
        year
    };
    let year = i32::try_from(year)
        .ok()
        .filter(|year| (now.year()..now.year() + 50).contains(year))
        .ok_or_else(|| Refusal::bad(3030, "Invalid card_expiration_year"))?;
    Ok((month, year))
}

fn cardholder(fields: &Fields<'_>) -> Result<Cardholder, Refusal> {
    let missing = || {
        Refusal::bad(
            3020,
            "Invalid cardholder: cardholder name cannot be null or empty",
        )
    };
    let cardholder = fields
        .object("cardholder")
        .map_err(|_| missing())?
        .ok_or_else(missing)?;
    let name = cardholder
        .text("name")
        .map_err(|_| missing())?
        .unwrap_or_default();
    if name.trim().is_empty() {
        return Err(missing());
    }
    let number = || Refusal::bad(3021, "Invalid cardholder document number");
    let identification = match cardholder.object("identification").map_err(|_| number())? {
        None => Identification::default(),
        Some(fields) => Identification::read(&fields).map_err(|_| number())?,
    };
    match (&identification.kind, &identification.number) {
        (Some(_), None) => Err(number()),
        (None, Some(_)) => Err(Refusal::bad(3022, "Invalid cardholder document type")),
        _ => Ok(Cardholder { name, identification }),
    }
}

/// `GET /v1/card_tokens/{id}`.
pub(super) async fn show(
    State(world): State<Arc<World>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let (_, public_key) = owner(&world, &headers, query.as_deref())
        .ok_or_else(|| Refusal::plain(StatusCode::UNAUTHORIZED, "invalid public key"))?;
    let token = world
        .card_tokens
        .get(&id)
        .ok_or_else(|| Refusal::code(StatusCode::NOT_FOUND, 2006, "Card Token not found"))?;
    Ok(view(&token, public_key.as_deref(), world.now(), StatusCode::OK))
}
