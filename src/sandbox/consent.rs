//! The page on which a seller lets an application act for the account (RFC 6749 section 4.1.1), and the same decision
//! without a browser, for tests.
//!
//! A wrong `client_id` or `redirect_uri` never redirects; everything else that is wrong does, with `error`.

use std::sync::Arc;

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use chrono::Duration;
use http::StatusCode;
use url::Url;

use super::grants::{Challenge, Code};
use super::pages::{message_page, page, see_other};
use super::state::{TestSeller, World};

/// Codes live this long (Mercado Pago: ten minutes).
const CODE_MINUTES: i64 = 10;

/// An authorization request that may be decided on.
#[derive(Debug)]
struct Request {
    client_id: String,
    redirect_uri: String,
    state: Option<String>,
    challenge: Option<Challenge>,
}

/// Why there is nothing to decide on.
#[derive(Debug)]
enum Refused {
    /// Told to whoever looks at the page: the request names no application or place that may be trusted.
    Here(String),
    /// Told to the application.
    ToApplication(String),
}

impl Request {
    fn read(world: &World, query: &str) -> Result<Self, Refused> {
        let mut named: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()).into_owned() {
            if named.iter().any(|(known, _)| *known == name) {
                return Err(Refused::Here(format!("The parameter {name} is repeated.")));
            }
            named.push((name, value));
        }
        let get = |name: &str| {
            named
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        let client_id = get("client_id").unwrap_or_default();
        let Some(client) = world.client(&client_id) else {
            return Err(Refused::Here(format!(
                "There is no application with client_id \"{client_id}\"."
            )));
        };
        let redirect_uri = get("redirect_uri").unwrap_or_default();
        if !client.redirect_uris.contains(&redirect_uri) {
            return Err(Refused::Here(format!(
                "The redirect_uri \"{redirect_uri}\" is not registered for this application, character for character."
            )));
        }
        let mut request = Self {
            client_id,
            redirect_uri,
            state: get("state"),
            challenge: None,
        };
        let wrong =
            |request: &Self, error: &str| Err(Refused::ToApplication(request.callback(&[("error", error)])));
        if get("response_type").as_deref() != Some("code") {
            return wrong(&request, "unsupported_response_type");
        }
        let method = get("code_challenge_method");
        request.challenge = match (get("code_challenge"), method.as_deref().unwrap_or("plain")) {
            (Some(hash), "S256") if hash.len() == 43 => Some(Challenge::S256(hash)),
            (Some(text), "plain" | "Plain") if (43..=128).contains(&text.len()) => {
                Some(Challenge::Plain(text))
            }
            (None, _) if !world.options.require_pkce && method.is_none() => None,
            _ => return wrong(&request, "invalid_request"),
        };
        Ok(request)
    }

    fn callback(&self, parameters: &[(&str, &str)]) -> String {
        let Ok(mut url) = Url::parse(&self.redirect_uri) else {
            return self.redirect_uri.clone();
        };
        url.query_pairs_mut()
            .extend_pairs(parameters)
            .extend_pairs(self.state.iter().map(|state| ("state", state)));
        url.into()
    }

    /// The callback address after the seller's decision.
    fn decide(&self, world: &World, seller: &str, allow: bool) -> Result<String, String> {
        if !allow {
            return Ok(self.callback(&[("error", "access_denied")]));
        }
        let seller = world
            .find_seller(seller)
            .ok_or_else(|| format!("there is no test seller \"{seller}\""))?;
        let code = format!("TG-{}-{}", world.hex::<12>(), seller.user_id);
        let now = world.now();
        let record = Code {
            user_id: seller.user_id,
            client_id: self.client_id.clone(),
            redirect_uri: self.redirect_uri.clone(),
            challenge: self.challenge.clone(),
            expires_at: now + Duration::minutes(CODE_MINUTES),
        };
        world.grants.put_code(code.clone(), record, now);
        Ok(self.callback(&[("code", &code)]))
    }
}

/// Decides on an authorization URL as the page would.
pub(super) fn consent(world: &World, url: &str, seller: &str, allow: bool) -> Result<String, String> {
    let url = Url::parse(url).map_err(|error| format!("not a URL: {error}"))?;
    match Request::read(world, url.query().unwrap_or("")) {
        Ok(request) => request.decide(world, seller, allow),
        Err(Refused::ToApplication(callback)) => Ok(callback),
        Err(Refused::Here(message)) => Err(message),
    }
}

#[derive(Template)]
#[template(path = "sandbox/consent.html")]
struct ConsentPage {
    client_id: String,
    scopes: Vec<String>,
    action: String,
    sellers: Vec<TestSeller>,
}

fn refused(refused: Refused) -> Response {
    match refused {
        Refused::Here(message) => message_page(StatusCode::BAD_REQUEST, "This link does not work", &message),
        Refused::ToApplication(callback) => see_other(&callback),
    }
}

/// `GET /authorization`: the page.
pub(super) async fn show(State(world): State<Arc<World>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    match Request::read(&world, &query) {
        Ok(request) => page(
            StatusCode::OK,
            &ConsentPage {
                client_id: request.client_id,
                scopes: world.options.scopes.clone(),
                action: format!("/authorization?{query}"),
                sellers: world.test_sellers(),
            },
        ),
        Err(error) => refused(error),
    }
}

/// `POST /authorization`: the decision (`seller`, `decision` of `allow` or `deny`).
pub(super) async fn decide(
    State(world): State<Arc<World>>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let request = match Request::read(&world, &query.unwrap_or_default()) {
        Ok(request) => request,
        Err(error) => return refused(error),
    };
    let mut seller = String::new();
    let mut decision = String::new();
    for (name, value) in url::form_urlencoded::parse(&body) {
        match &*name {
            "seller" => seller = value.into_owned(),
            "decision" => decision = value.into_owned(),
            _ => {}
        }
    }
    match request.decide(&world, &seller, decision == "allow") {
        Ok(callback) => see_other(&callback),
        Err(message) => refused(Refused::Here(message)),
    }
}
