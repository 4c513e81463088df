//! Error answers of our own under `/proxy`: the members of RFC 9457 together with Mercado Pago's, so that its SDKs parse
//! them (DESIGN.md section 5). They tell the caller the one thing that matters about money: whether the call may have
//! reached Mercado Pago.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::headers;
use crate::domain::problem::{Fault, ProblemCode};

/// Whether a call may have reached Mercado Pago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It did not, or was refused before it was looked at.
    NotSent,
    /// It may have.
    Unknown,
}

/// An error answer of ours.
#[derive(Debug, Clone)]
pub(super) struct ProxyProblem {
    pub(super) code: ProblemCode,
    pub(super) detail: Cow<'static, str>,
    pub(super) retry_after: Option<Duration>,
    pub(super) outcome: Option<Outcome>,
    /// Whether the route forbids a repetition after an unknown outcome.
    pub(super) never_again: bool,
}

impl ProxyProblem {
    /// A problem of a code.
    pub(super) fn new(code: ProblemCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = (code.status() == 503).then_some(Duration::from_secs(1));
        Self {
            code,
            detail: detail.into(),
            retry_after,
            outcome: None,
            never_again: false,
        }
    }

    /// With what is known of where the call got to.
    pub(super) fn outcome(self, outcome: Outcome) -> Self {
        Self {
            outcome: Some(outcome),
            ..self
        }
    }

    /// With a time to wait, where one is known.
    pub(super) fn retry_after(self, delay: Option<Duration>) -> Self {
        Self {
            retry_after: delay.or(self.retry_after),
            ..self
        }
    }

    /// The answer, as a whole.
    pub(super) fn response(
        &self,
        request_id: &HeaderValue,
        idempotency_key: Option<&HeaderValue>,
    ) -> Response<Bytes> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: String,
            title: &'static str,
            status: u16,
            detail: &'a str,
            instance: &'a str,
            code: &'static str,
            fault: Fault,
            retryable: bool,
            message: &'a str,
            error: &'static str,
            cause: [(); 0],
            #[serde(skip_serializing_if = "Option::is_none")]
            outcome: Option<Outcome>,
            #[serde(skip_serializing_if = "Option::is_none")]
            idempotency_key: Option<&'a str>,
        }
        let key = self
            .outcome
            .and(idempotency_key)
            .and_then(|key| key.to_str().ok());
        let unsafe_to_repeat = self.never_again && self.outcome == Some(Outcome::Unknown);
        let body = Body {
            r#type: format!("/docs#{}", self.code),
            title: self.code.title(),
            status: self.code.status(),
            detail: &self.detail,
            instance: request_id.to_str().unwrap_or_default(),
            code: self.code.as_str(),
            fault: self.code.fault(),
            retryable: self.code.is_retryable() && !unsafe_to_repeat,
            message: &self.detail,
            error: self.code.as_str(),
            cause: [],
            outcome: self.outcome,
            idempotency_key: key,
        };
        let mut response = Response::new(Bytes::from(serde_json::to_vec(&body).unwrap_or_default()));
        *response.status_mut() = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let map = response.headers_mut();
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        map.insert(headers::ERROR, HeaderValue::from_static(self.code.as_str()));
        if self.code == ProblemCode::InvalidApiKey {
            map.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"marketplace-connector\""),
            );
        }
        if let Some(delay) = self.retry_after {
            // Rounded up: never sooner than asked.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            map.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_both_shapes_at_once() {
        let problem =
            ProxyProblem::new(ProblemCode::ProviderTimeout, "no answer in time").outcome(Outcome::Unknown);
        let key = HeaderValue::from_static("k-1");
        let response = problem.response(&HeaderValue::from_static("r-1"), Some(&key));
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()["connector-error"], "provider_timeout");
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        let expected = serde_json::json!({
            "type": "/docs#provider_timeout",
            "title": ProblemCode::ProviderTimeout.title(),
            "status": 504,
            "detail": "no answer in time",
            "instance": "r-1",
            "code": "provider_timeout",
            "fault": "provider",
            "retryable": true,
            "message": "no answer in time",
            "error": "provider_timeout",
            "cause": [],
            "outcome": "unknown",
            "idempotency_key": "k-1",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn what_must_not_be_repeated_is_not_called_retryable() {
        let retryable = |outcome| {
            let problem = ProxyProblem::new(ProblemCode::ProviderConnectionLost, "x").outcome(outcome);
            let problem = ProxyProblem {
                never_again: true,
                ..problem
            };
            let response = problem.response(&HeaderValue::from_static("r"), None);
            serde_json::from_slice::<serde_json::Value>(response.body()).unwrap()["retryable"].clone()
        };
        assert_eq!(retryable(Outcome::Unknown), false);
        assert_eq!(retryable(Outcome::NotSent), true);
    }

    #[test]
    fn every_503_says_when_to_come_again_and_401_how_to_sign_in() {
        let id = HeaderValue::from_static("r");
        for code in ProblemCode::ALL.iter().filter(|code| code.status() == 503) {
            assert_eq!(
                ProxyProblem::new(*code, "x").response(&id, None).headers()["retry-after"],
                "1"
            );
        }
        let later = ProxyProblem::new(ProblemCode::TokenUnavailable, "x")
            .retry_after(Some(Duration::from_millis(2500)));
        assert_eq!(later.response(&id, None).headers()["retry-after"], "3");
        let unauthorized = ProxyProblem::new(ProblemCode::InvalidApiKey, "x").response(&id, None);
        assert!(
            unauthorized.headers()["www-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("Bearer ")
        );
    }
}
