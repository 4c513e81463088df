//! `POST /oauth/token`: the three grants of Mercado Pago (RFC 6749 sections 4.1.3, 4.4 and 6, with RFC 7636).
//!
//! Takes JSON and forms. Guarantees that a code works once within ten minutes and, while rotation is on, a refresh token
//! once at all. Errors are 400 with Mercado Pago's codes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::Duration;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Refusal, json_answer};
use super::grants::{Access, Challenge, Origin, Refresh};
use super::input::Fields;
use super::options::{Client, OldAccessToken};
use super::state::{Seller, World};

/// Life of a token of the application's own account.
const OWN_ACCOUNT_HOURS: i64 = 6;

/// What a grant needs, by name.
type Parameters = HashMap<String, String>;

#[derive(Serialize)]
struct TokenAnswer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    scope: String,
    user_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    public_key: &'a str,
    live_mode: bool,
}

/// Issues tokens.
pub(super) async fn token(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Answer {
    let parameters = parameters(&headers, &body).ok_or_else(|| Refusal::oauth("invalid_request"))?;
    let grant_type = required(&parameters, "grant_type")?;
    world.recorder.count_token_call(grant_type);
    if let Some(scope) = parameters.get("scope") {
        let known = |word: &str| matches!(word, "offline_access" | "read" | "write");
        if !scope.split_whitespace().all(known) {
            return Err(Refusal::oauth("invalid_scope"));
        }
    }
    match grant_type {
        "authorization_code" => exchange(&world, &parameters),
        "refresh_token" => refresh(&world, &parameters),
        "client_credentials" => own_account(&world, &parameters),
        _ => Err(Refusal::oauth("unsupported_grant_type")),
    }
}

/// The parameters of a JSON object of strings (numbers and booleans too: clients send them) or of a form; none if
/// neither, or if one is repeated (RFC 6749 section 3.2).
fn parameters(headers: &HeaderMap, body: &[u8]) -> Option<Parameters> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let mut parameters = Parameters::new();
    if content_type.starts_with("application/x-www-form-urlencoded") {
        for (name, value) in url::form_urlencoded::parse(body) {
            if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return None;
            }
        }
    } else {
        let fields = Fields::parse(body).ok()?;
        for name in fields.all_names() {
            let value = match fields.boolean(name) {
                Ok(Some(flag)) => Some(flag.to_string()),
                _ => fields.text_or_number(name).ok()?,
            };
            if let Some(value) = value {
                parameters.insert(String::from(name), value);
            }
        }
    }
    Some(parameters)
}

fn required<'a>(parameters: &'a Parameters, name: &str) -> Result<&'a str, Refusal> {
    parameters
        .get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Refusal::oauth("invalid_request"))
}

/// The application, if id and secret are right.
fn client<'a>(world: &'a World, parameters: &Parameters) -> Result<&'a Client, Refusal> {
    let client_id = required(parameters, "client_id")?;
    let secret = required(parameters, "client_secret")?;
    world
        .client(client_id)
        .filter(|client| client.client_secret == secret)
        .ok_or_else(|| Refusal::oauth("invalid_client"))
}

fn exchange(world: &World, parameters: &Parameters) -> Answer {
    let client = client(world, parameters)?;
    let code = required(parameters, "code")?;
    let redirect_uri = required(parameters, "redirect_uri")?;
    let record = world
        .grants
        .take_code(code)
        .ok_or_else(|| Refusal::oauth("invalid_grant"))?;
    let verifier = parameters.get("code_verifier").map(String::as_str);
    let good = record.expires_at > world.now()
        && record.client_id == client.client_id
        && record.redirect_uri == redirect_uri
        && proves(record.challenge.as_ref(), verifier);
    let seller = world
        .seller(record.user_id)
        .filter(|_| good)
        .ok_or_else(|| Refusal::oauth("invalid_grant"))?;
    let test = parameters.get("test_token").is_some_and(|value| value == "true");
    world.authorized(&seller, &client.client_id);
    Ok(issue(
        world,
        client,
        &seller,
        &Issue {
            origin: Origin::Consent,
            live_mode: !test,
            keep_refresh: None,
        },
    ))
}

/// Whether the verifier fits the challenge (RFC 7636 section 4.6); one without the other does not.
fn proves(challenge: Option<&Challenge>, verifier: Option<&str>) -> bool {
    let well_formed = |verifier: &str| {
        (43..=128).contains(&verifier.len())
            && verifier
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    match (challenge, verifier) {
        (None, None) => true,
        (Some(Challenge::S256(hash)), Some(verifier)) => {
            well_formed(verifier) && *hash == URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
        }
        (Some(Challenge::Plain(expected)), Some(verifier)) => well_formed(verifier) && expected == verifier,
        _ => false,
    }
}

fn refresh(world: &World, parameters: &Parameters) -> Answer {
    let client = client(world, parameters)?;
    let token = required(parameters, "refresh_token")?;
    let rotate = world.options.rotate_refresh_tokens;
    let spent = world
        .grants
        .spend_refresh(token, &client.client_id, world.now(), rotate)
        .map_err(Refusal::oauth)?;
    if world.options.old_access_token == OldAccessToken::Dies {
        world.grants.drop_access(&spent.access_token);
    }
    let seller = world
        .seller(spent.user_id)
        .ok_or_else(|| Refusal::oauth("invalid_grant"))?;
    let keep_refresh = (!rotate).then_some(token);
    let test = parameters.get("test_token").is_some_and(|value| value == "true");
    let live_mode = spent.live_mode && !test;
    Ok(issue(
        world,
        client,
        &seller,
        &Issue {
            origin: Origin::Consent,
            live_mode,
            keep_refresh,
        },
    ))
}

fn own_account(world: &World, parameters: &Parameters) -> Answer {
    let client = client(world, parameters)?;
    let owner = world
        .owner_of(&client.client_id)
        .ok_or_else(|| Refusal::oauth("unauthorized_client"))?;
    let test = parameters.get("test_token").is_some_and(|value| value == "true");
    Ok(issue(
        world,
        client,
        &owner,
        &Issue {
            origin: Origin::OwnAccount,
            live_mode: !test,
            keep_refresh: None,
        },
    ))
}

struct Issue<'a> {
    origin: Origin,
    live_mode: bool,
    /// The refresh token that stays good, when they are not rotated.
    keep_refresh: Option<&'a str>,
}

fn issue(world: &World, client: &Client, seller: &Seller, issue: &Issue<'_>) -> Response {
    let now = world.now();
    let lifetime = match issue.origin {
        Origin::Consent => world.options.token_lifetime,
        Origin::OwnAccount => Duration::hours(OWN_ACCOUNT_HOURS),
    };
    let prefix = if issue.live_mode { "APP_USR" } else { "TEST" };
    let access_token = format!(
        "{prefix}-{}-{}-{}-{}",
        client.client_id,
        now.format("%m%d%H"),
        world.hex::<16>(),
        seller.user_id
    );
    let scopes = world.options.scopes.clone();
    let offline = issue.origin == Origin::Consent && scopes.iter().any(|scope| scope == "offline_access");
    let refresh_until = now
        + world
            .options
            .refresh_token_lifetime
            .max(world.options.token_lifetime);
    let refresh_token = match issue.keep_refresh {
        Some(kept) => {
            world.grants.renew_refresh(kept, &access_token, refresh_until);
            Some(String::from(kept))
        }
        None if offline => {
            let token = format!("TG-{}-{}", world.hex::<12>(), seller.user_id);
            let record = Refresh {
                user_id: seller.user_id,
                client_id: client.client_id.clone(),
                access_token: access_token.clone(),
                live_mode: issue.live_mode,
                expires_at: refresh_until,
                ended: None,
            };
            world.grants.put_refresh(token.clone(), record);
            Some(token)
        }
        None => None,
    };
    let scope = scopes.join(" ");
    let access = Access {
        user_id: seller.user_id,
        client_id: client.client_id.clone(),
        expires_at: now + lifetime,
        origin: issue.origin,
        live_mode: issue.live_mode,
        scopes,
    };
    world.grants.put_access(access_token.clone(), access, now);
    let answer = TokenAnswer {
        access_token: &access_token,
        token_type: "bearer",
        expires_in: lifetime.num_seconds(),
        scope,
        user_id: seller.user_id,
        refresh_token: refresh_token.as_deref(),
        public_key: if issue.live_mode {
            &seller.public_key
        } else {
            &seller.test_public_key
        },
        live_mode: issue.live_mode,
    };
    json_answer(StatusCode::OK, &answer)
}
