//! The sandbox as its users see it: through its routes, in process, with a clock that stands still until told.

mod cards;
mod documents;
mod faults;
mod notifications;
mod oauth;
mod openapi;
mod orders;
mod pages;
mod payments;
mod refunds;
mod state;
mod subscriptions;

use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeZone as _, Utc};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;
use url::Url;

use super::{Sandbox, SandboxOptions};
use crate::domain::clock::ManualClock;
use crate::domain::random::Random;

pub(super) const CLIENT_ID: &str = "1234567890123456";
pub(super) const CLIENT_SECRET: &str = "sandbox-client-secret";
pub(super) const REDIRECT_URI: &str = "http://127.0.0.1:8080/oauth/callback";
pub(super) const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters-0123";
/// Number of a Mastercard test card of Argentina.
pub(super) const MASTER: &str = "5031755734530604";

pub(super) fn start() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 2, 12, 0, 0).unwrap()
}

pub(super) fn options() -> SandboxOptions {
    SandboxOptions::new(Arc::new(ManualClock::at(start())), Random::seeded(7))
}

pub(super) fn sandbox() -> Sandbox {
    Sandbox::new(options())
}

/// A call without a connection: status and JSON body (null if it is none).
pub(super) async fn call(sandbox: &Sandbox, request: Request<Body>) -> (StatusCode, Value) {
    let response = sandbox.router().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// A call with JSON, without a token.
pub(super) async fn send(sandbox: &Sandbox, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()));
    call(sandbox, request.unwrap()).await
}

/// A control call.
pub(super) async fn control(sandbox: &Sandbox, path: &str, body: Value) -> Value {
    let (status, answer) = send(sandbox, "POST", path, body).await;
    assert!(status.is_success(), "{path}: {status} {answer}");
    answer
}

pub(super) fn authorization_url(state: &str) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    format!(
        "http://127.0.0.1:8081/authorization?client_id={CLIENT_ID}&response_type=code&platform_id=mp&state={state}\
         &redirect_uri={REDIRECT_URI}&code_challenge={challenge}&code_challenge_method=S256"
    )
}

/// A parameter of a callback URL.
pub(super) fn parameter(url: &str, name: &str) -> Option<String> {
    let url = Url::parse(url).unwrap();
    url.query_pairs()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}

/// A code for a seller.
pub(super) fn code(sandbox: &Sandbox, seller: &str) -> String {
    let callback = sandbox.consent(&authorization_url("s"), seller, true).unwrap();
    parameter(&callback, "code").unwrap()
}

/// Body of an exchange.
pub(super) fn exchange(code: &str) -> Value {
    json!({
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "authorization_code",
        "code": code, "redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER,
    })
}

/// Body of a refresh.
pub(super) fn refresh(token: &Value) -> Value {
    json!({
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "refresh_token",
        "refresh_token": token,
    })
}

/// A seller that has consented.
pub(super) struct Connected {
    pub(super) sandbox: Sandbox,
    pub(super) tokens: Value,
    next_key: std::cell::Cell<u32>,
}

impl Connected {
    pub(super) async fn to(sandbox: Sandbox, seller: &str) -> Self {
        let body = exchange(&code(&sandbox, seller));
        let (status, tokens) = send(&sandbox, "POST", "/oauth/token", body).await;
        assert_eq!(status, StatusCode::OK, "{tokens}");
        Self {
            sandbox,
            tokens,
            next_key: std::cell::Cell::new(0),
        }
    }

    pub(super) async fn seller(seller: &str) -> Self {
        Self::to(sandbox(), seller).await
    }

    fn request(&self, method: &str, path: &str, key: Option<&str>, body: &Value) -> Request<Body> {
        let token = self.tokens["access_token"].as_str().unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("x-idempotency-key", key);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        request.body(body).unwrap()
    }

    /// A call with the seller's token and an idempotency key of its own.
    pub(super) async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.next_key.set(self.next_key.get() + 1);
        self.call_with_key(method, path, &format!("key-{}", self.next_key.get()), body)
            .await
    }

    pub(super) async fn call_with_key(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        call(&self.sandbox, self.request(method, path, Some(key), &body)).await
    }

    pub(super) async fn call_without_key(
        &self,
        method: &str,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        call(&self.sandbox, self.request(method, path, None, &body)).await
    }

    /// A call that must succeed.
    pub(super) async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    /// Status and first cause code of a call that must fail.
    pub(super) async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, answer) = self.call(method, path, body).await;
        assert!(status.is_client_error(), "{method} {path}: {status} {answer}");
        (status.as_u16(), answer["cause"][0]["code"].clone())
    }

    /// A card token as a buyer's browser makes it.
    pub(super) async fn card_token(&self, number: &str, name: &str) -> String {
        let path = format!(
            "/v1/card_tokens?public_key={}",
            self.tokens["public_key"].as_str().unwrap()
        );
        let (status, token) = send(&self.sandbox, "POST", &path, card(number, name)).await;
        assert_eq!(status, StatusCode::CREATED, "{token}");
        String::from(token["id"].as_str().unwrap())
    }

    /// A card payment by a cardholder of this name.
    pub(super) async fn pay(&self, name: &str) -> Value {
        let token = self.card_token(MASTER, name).await;
        self.ok("POST", "/v1/payments", payment(&token)).await
    }
}

pub(super) fn card(number: &str, name: &str) -> Value {
    json!({
        "card_number": number, "expiration_month": 11, "expiration_year": 2030,
        "security_code": if number.len() == 15 { "1234" } else { "123" },
        "cardholder": { "name": name, "identification": { "type": "DNI", "number": "12345678" } },
    })
}

pub(super) fn payment(token: &str) -> Value {
    json!({
        "transaction_amount": 100, "token": token, "description": "Blue shirt", "installments": 1,
        "payment_method_id": "master", "payer": { "email": "buyer@example.com" },
    })
}
