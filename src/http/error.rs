//! What goes wrong, on its way out: one type for every handler, one place that makes an answer of it (RFC 9457).
//!
//! A handler returns [`ApiError`] with the code that DESIGN.md section 5 names and a sentence for the caller; each layer's
//! errors have their `From` here. Which form it takes, `application/problem+json` or a page, is decided by the address in
//! [`super::edge`], which also knows the request's id. What a source says goes to the log and never into an answer.

use std::error::Error;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::access::AccessError;
use crate::domain::ids::InvalidId;
use crate::domain::problem::{self, Fault, ProblemCode};
use crate::storage::StoreError;

/// When a failure of ours that passes by itself is worth another try.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// A value of a request that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Name of the member or parameter, with dots for members of members.
    pub field: String,
    /// What is wrong and what it may be.
    pub message: String,
}

/// An error answer of the API (RFC 9457), as `application/problem+json`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// The code as a URI.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What went wrong, the same for every answer with this code.
    pub title: &'static str,
    /// HTTP status.
    pub status: u16,
    /// What went wrong here and how to mend it.
    pub detail: String,
    /// The request's id, as in `X-Request-Id`, as a URI.
    pub instance: String,
    /// What went wrong, for programs; also in the header `Connector-Error`.
    pub code: ProblemCode,
    /// Who can mend it.
    pub fault: Fault,
    /// Whether the same request may be sent again and can then succeed without anybody changing anything.
    pub retryable: bool,
    /// The values that make no sense, for `invalid_field`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// What goes wrong in a handler.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct ApiError {
    /// The code.
    pub code: ProblemCode,
    /// What went wrong here and how to mend it; never a secret, never what a source says.
    pub detail: String,
    /// The values that make no sense.
    pub errors: Vec<FieldError>,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// `WWW-Authenticate` (RFC 6750 section 3).
    pub challenge: Option<&'static str>,
    /// Why, for the log.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// An error with this code.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let retry_after = (code.status() == 503).then_some(RETRY_SOON);
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after,
            challenge: None,
            source: None,
        }
    }

    /// A request that cannot be read.
    pub fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::InvalidRequest, detail)
    }

    /// One value that makes no sense.
    #[expect(clippy::needless_pass_by_value, reason = "errors are passed on as they come")]
    pub fn invalid_field(field: &str, message: impl ToString) -> Self {
        Self::invalid_fields(vec![FieldError {
            field: field.to_owned(),
            message: message.to_string(),
        }])
    }

    /// Values that make no sense.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let names: Vec<_> = errors.iter().map(|error| format!("`{}`", error.field)).collect();
        Self {
            errors,
            ..Self::new(
                ProblemCode::InvalidField,
                format!("not valid: {}", names.join(", ")),
            )
        }
    }

    /// There is nothing at this address.
    pub fn not_found() -> Self {
        Self::new(
            ProblemCode::NotFound,
            "there is nothing at this address with this method; see /docs",
        )
    }

    /// No such connection, or one of another application.
    pub fn connection_not_found() -> Self {
        Self::new(
            ProblemCode::ConnectionNotFound,
            "no connection of this application has this seller_id",
        )
    }

    /// A defect of ours.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let detail = "this is a defect or a damaged row; the log has more under the request's id";
        Self {
            source: Some(source.into()),
            ..Self::new(ProblemCode::InternalError, detail)
        }
    }

    /// The same error, to be tried again after `delay`.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self {
            retry_after: Some(delay),
            ..self
        }
    }

    /// The HTTP status of the code.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body for programs.
    pub fn problem(&self, request_id: &str) -> Problem {
        Problem {
            kind: self.code.type_uri(),
            title: self.code.title(),
            status: self.code.status(),
            detail: self.detail.clone(),
            instance: problem::instance(request_id),
            code: self.code,
            fault: self.code.fault(),
            retryable: self.code.is_retryable(),
            errors: self.errors.clone(),
        }
    }

    /// The headers that go with the error in every form: `Connector-Error`, `Retry-After` in whole seconds, the challenge.
    pub fn headers(&self, headers: &mut http::HeaderMap) {
        headers.insert("connector-error", HeaderValue::from_static(self.code.as_str()));
        if let Some(delay) = self.retry_after {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
    }

    /// Writes why to the log, once, where it becomes an answer: who is called at night sees ours, not the callers'.
    pub fn log(&self, request_id: &str) {
        let code = self.code.as_str();
        let source = self.source.as_ref().map(|source| chain(source.as_ref()));
        match self.code.fault() {
            Fault::Connector => tracing::error!(code, request_id, source, "a request failed"),
            Fault::Provider => tracing::warn!(code, request_id, source, "a request failed at the provider"),
            Fault::Caller | Fault::Seller => {
                tracing::debug!(code, request_id, detail = self.detail, "a request was refused");
            }
        }
    }
}

/// An error with all that it comes from.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

/// Only the status is there yet: [`super::edge`] finds the error in the answer's extensions and gives it its form.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response
            .extensions_mut()
            .insert(Unrendered(std::sync::Arc::new(self)));
        response
    }
}

/// An error that waits for its form.
#[derive(Debug, Clone)]
pub(crate) struct Unrendered(pub(crate) std::sync::Arc<ApiError>);

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::new(ProblemCode::Conflict, "there is one like it already"),
            StoreError::Unavailable(_) | StoreError::Migration(_) => Self {
                source: Some(error.into()),
                ..Self::new(
                    ProblemCode::StoreUnavailable,
                    "the connector's database does not answer; try again shortly",
                )
            },
            StoreError::Corrupt { .. } | StoreError::Sealed { .. } | StoreError::WrongKeys(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::WeakPassword => Self::invalid_field("password", error),
            AccessError::Hash(_) => Self::internal(error),
            AccessError::Store(error) => error.into(),
        }
    }
}

/// The ids that stand in paths: one that is none of ours is not there.
impl From<InvalidId> for ApiError {
    fn from(_: InvalidId) -> Self {
        Self::not_found()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_every_member_and_errors_only_where_they_apply() {
        let error = ApiError::invalid_field("expires_in", "is at most 2592000");
        let body = serde_json::to_value(error.problem("req-1")).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:marketplace-connector:problem:invalid_field",
                "title": "A value is not valid",
                "status": 422,
                "detail": "not valid: `expires_in`",
                "instance": "urn:marketplace-connector:request:req-1",
                "code": "invalid_field",
                "fault": "caller",
                "retryable": false,
                "errors": [{ "field": "expires_in", "message": "is at most 2592000" }],
            })
        );
        let other = serde_json::to_value(ApiError::not_found().problem("req-1")).unwrap();
        assert!(other.get("errors").is_none());
    }

    #[test]
    fn every_503_says_when_to_come_again() {
        for code in ProblemCode::ALL.iter().filter(|code| code.status() == 503) {
            let mut headers = http::HeaderMap::new();
            ApiError::new(*code, "").headers(&mut headers);
            assert_eq!(headers[header::RETRY_AFTER], "1");
        }
        let mut headers = http::HeaderMap::new();
        ApiError::new(ProblemCode::RateLimited, "")
            .retry_after(Duration::from_millis(1_200))
            .headers(&mut headers);
        assert_eq!(headers[header::RETRY_AFTER], "2");
    }

    #[test]
    fn what_a_database_says_is_not_told_to_callers() {
        let error = ApiError::from(StoreError::Unavailable(sqlx::Error::Protocol(
            "canary".to_owned(),
        )));
        let body = serde_json::to_string(&error.problem("req-1")).unwrap();
        assert!(!body.contains("canary") && body.contains("store_unavailable"));
    }
}
