//! Answers in Mercado Pago's shapes: JSON with a status, and the error bodies of its different families of routes.
//!
//! Payments, refunds and card tokens have numeric cause codes, customers and cards have strings, subscriptions answer with
//! a bare message, the token endpoint with RFC 6749's `error` beside Mercado Pago's members.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// An instant, written as Mercado Pago does: `2019-02-23T00:01:10.000-04:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(pub(super) DateTime<Utc>);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Mercado Pago's servers stand four hours behind UTC, whatever the seller's country.
        const BEHIND_UTC: i32 = 4 * 3600;
        match FixedOffset::west_opt(BEHIND_UTC) {
            Some(offset) => f.write_str(
                &self
                    .0
                    .with_timezone(&offset)
                    .to_rfc3339_opts(SecondsFormat::Millis, false),
            ),
            None => f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, false)),
        }
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text)
            .map(|at| Self(at.to_utc()))
            .map_err(serde::de::Error::custom)
    }
}

/// A JSON body with its status.
pub(super) fn json_answer<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => json_bytes(status, Bytes::from(bytes)),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// JSON that is already written.
pub(super) fn json_bytes(status: StatusCode, body: Bytes) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
    let mut response = Response::new(axum::body::Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// A call that is turned down, with the body that says why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Refusal {
    /// Payments, refunds, card tokens: a numeric cause.
    pub(super) fn code(status: StatusCode, code: u32, description: &str) -> Self {
        Self::caused(status, &json!(code), description)
    }

    /// 400 with a numeric cause.
    pub(super) fn bad(code: u32, description: &str) -> Self {
        Self::code(StatusCode::BAD_REQUEST, code, description)
    }

    /// Customers and cards: 400 with a cause whose code is a string.
    pub(super) fn customer(code: u32, description: &str) -> Self {
        Self::caused(StatusCode::BAD_REQUEST, &json!(code.to_string()), description)
    }

    /// Customers and cards: 404.
    pub(super) fn customer_not_found() -> Self {
        Self::caused(StatusCode::NOT_FOUND, &json!("not_found"), "not_found")
    }

    fn caused(status: StatusCode, code: &Value, description: &str) -> Self {
        let body = json!({
            "message": description,
            "error": error_word(status),
            "status": status.as_u16(),
            "cause": [{ "code": code, "description": description, "data": null }],
        });
        Self { status, body }
    }

    /// No cause: authorisation failures and routes that do not exist.
    pub(super) fn plain(status: StatusCode, message: &str) -> Self {
        let body = json!({
            "message": message, "error": error_word(status), "status": status.as_u16(), "cause": [],
        });
        Self { status, body }
    }

    /// Subscriptions: a message, without a cause.
    pub(super) fn subscription(status: StatusCode, message: &str) -> Self {
        let body = json!({ "message": message, "error": error_word(status), "status": status.as_u16() });
        Self { status, body }
    }

    /// The layer in front of Mercado Pago's services.
    pub(super) fn policy() -> Self {
        let body = json!({
            "message": "At least one policy returned UNAUTHORIZED.",
            "error": "forbidden",
            "code": "PA_UNAUTHORIZED_RESULT_FROM_POLICIES",
            "status": 403,
            "blocked_by": "PolicyAgent",
        });
        Self {
            status: StatusCode::FORBIDDEN,
            body,
        }
    }

    /// The token endpoint (RFC 6749 section 5.2).
    pub(super) fn oauth(error: &str) -> Self {
        let message = match error {
            "invalid_client" => "invalid client_id or client_secret",
            "invalid_grant" => {
                "Error validating grant. Your authorization code or refresh token may be expired or it was already used."
            }
            "invalid_scope" => "The requested scope is invalid, unknown or malformed",
            "unsupported_grant_type" => {
                "grant_type must be authorization_code, refresh_token or client_credentials"
            }
            "forbidden" => "The caller is not authorized to access this resource",
            "unauthorized_client" => "The application does not have a grant with the user",
            "local_rate_limited" => "Too many requests, try again later",
            _ => "A required parameter is missing, repeated or not supported",
        };
        let status = if error == "local_rate_limited" {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::BAD_REQUEST
        };
        let body = json!({
            "message": message, "error": error, "status": status.as_u16(), "cause": [],
        });
        Self { status, body }
    }
}

fn error_word(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::CONFLICT => "conflict",
        StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
        status if status.is_server_error() => "internal_error",
        _ => "bad_request",
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json_answer(self.status, &self.body)
    }
}

/// What a handler gives back.
pub(super) type Answer = Result<Response, Refusal>;
