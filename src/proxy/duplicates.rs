//! The duplicate guard (DESIGN.md section 8), off unless `DUPLICATE_PAYMENT_WINDOW` is set: two payments of one seller that
//! look the same but carry different idempotency keys are stopped here, before Mercado Pago's prevention of fraud takes the
//! second for an attempt at something ("¿Por qué se rechaza un pago?", `cc_rejected_high_risk`).
//!
//! Compared are amount, payer, and reference or items. A payment that lacks them is not guarded, and while the store does
//! not answer none is: the guard is a convenience, and payments go on.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderValue;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::problem::{Outcome, ProxyProblem};
use crate::domain::ids::ConnectionId;
use crate::domain::problem::ProblemCode;
use crate::storage::Store;

/// How long the store is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

/// Refuses a payment that went out within `window` under another idempotency key, and notes it otherwise.
pub(super) async fn check(
    store: &Store,
    connection: &ConnectionId,
    body: &[u8],
    idempotency_key: &HeaderValue,
    window: Duration,
    now: DateTime<Utc>,
) -> Result<(), ProxyProblem> {
    let Some(fingerprint) = fingerprint(body) else {
        return Ok(());
    };
    let key: [u8; 32] = Sha256::digest(idempotency_key.as_bytes()).into();
    let since = now - TimeDelta::from_std(window).unwrap_or(TimeDelta::MAX);
    let noting = store.note_payment(connection, &fingerprint, &key, since, now);
    match tokio::time::timeout(PATIENCE, noting).await {
        Ok(Ok(false)) => {
            let detail = "a payment of the same amount, payer and reference went out a moment ago under another \
                idempotency key; repeat it with that key, or send `Connector-Allow-Duplicate: true`";
            Err(ProxyProblem::new(ProblemCode::DuplicatePaymentSuspected, detail).outcome(Outcome::NotSent))
        }
        Ok(Ok(true)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the duplicate guard was passed over: the store failed");
            Ok(())
        }
        Err(_) => {
            tracing::warn!("the duplicate guard was passed over: the store did not answer");
            Ok(())
        }
    }
}

/// What makes two payments look the same, hashed; none where the payment says too little.
fn fingerprint(body: &[u8]) -> Option<[u8; 32]> {
    #[derive(Deserialize)]
    struct Payment {
        transaction_amount: f64,
        payer: Payer,
        external_reference: Option<Value>,
        additional_info: Option<AdditionalInfo>,
    }
    #[derive(Deserialize)]
    struct Payer {
        id: Option<Value>,
        email: Option<String>,
    }
    #[derive(Deserialize)]
    struct AdditionalInfo {
        items: Option<Value>,
    }
    let payment: Payment = serde_json::from_slice(body).ok()?;
    let payer = match (payment.payer.email, payment.payer.id) {
        (Some(email), _) => Value::String(email.to_lowercase()),
        (None, Some(id)) => id,
        (None, None) => return None,
    };
    let bought = match payment.external_reference {
        Some(Value::Null) | None => payment.additional_info?.items?,
        Some(reference) => reference,
    };
    let same = serde_json::json!([payment.transaction_amount, payer, bought]);
    Some(Sha256::digest(same.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payments_look_the_same_by_amount_payer_and_what_is_bought() {
        let of = |text: &str| fingerprint(text.as_bytes());
        let one = of(
            r#"{"token":"a","transaction_amount":10.5,"payer":{"email":"A@x.y"},"external_reference":"o-1"}"#,
        );
        assert!(one.is_some());
        let same = of(
            r#"{"transaction_amount":10.50,"payer":{"email":"a@x.y","id":"1"},"token":"b","external_reference":"o-1"}"#,
        );
        assert_eq!(one, same);
        for other in [
            r#"{"transaction_amount":10.51,"payer":{"email":"a@x.y"},"external_reference":"o-1"}"#,
            r#"{"transaction_amount":10.5,"payer":{"email":"b@x.y"},"external_reference":"o-1"}"#,
            r#"{"transaction_amount":10.5,"payer":{"email":"a@x.y"},"external_reference":"o-2"}"#,
            r#"{"transaction_amount":10.5,"payer":{"email":"a@x.y"},"additional_info":{"items":[{"id":"o-1"}]}}"#,
        ] {
            assert!(of(other).is_some());
            assert_ne!(of(other), one, "{other}");
        }
        for too_little in ["{}", "x", r#"{"transaction_amount":1,"payer":{"email":"a@x.y"}}"#] {
            assert_eq!(of(too_little), None, "{too_little}");
        }
    }
}
