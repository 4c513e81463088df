//! How long what is remembered may be used: without a look at its row for `CONNECTION_CACHE_TTL`, and while the store does
//! not answer for `CONNECTION_CACHE_STALE` at most, so that a database failover does not stop payments and a replica that
//! is cut off stops after that (DESIGN.md section 8).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::metrics::Metrics;
use super::problem::ProxyProblem;
use crate::domain::problem::ProblemCode;
use crate::storage::{Revocations, StoreError};

/// How long the store is waited for when there is something to serve without it.
const SHORT: Duration = Duration::from_millis(250);

/// How long it is waited for when there is nothing.
const LONG: Duration = Duration::from_secs(5);

/// How long a store that did not answer is not asked again by those who can do without.
const SILENCE_MICROS: i64 = 250_000;

/// When something remembered was last seen to hold, and after how many revokes of this process.
#[derive(Debug)]
pub(super) struct Age {
    seen_at: AtomicI64,
    revocations: AtomicU64,
}

impl Age {
    fn is_within(&self, limit: i64, now: DateTime<Utc>) -> bool {
        // A clock that was set back makes everything old rather than young.
        (0..limit).contains(&(now.timestamp_micros() - self.seen_at.load(Ordering::Relaxed)))
    }
}

/// The bounds, and what is known of the store.
#[derive(Debug)]
pub(super) struct Patience {
    ttl: i64,
    stale: i64,
    silent_since: AtomicI64,
    revocations: Revocations,
    metrics: Arc<Metrics>,
}

impl Patience {
    /// With the two bounds of the settings. A revoke that `revocations` counts makes everything old at once.
    pub(super) fn new(
        ttl: Duration,
        stale: Duration,
        revocations: Revocations,
        metrics: Arc<Metrics>,
    ) -> Self {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self {
            ttl: micros(ttl),
            stale: micros(stale),
            silent_since: AtomicI64::new(i64::MIN),
            revocations,
            metrics,
        }
    }

    /// The age of what was read just now.
    pub(super) fn young(&self, now: DateTime<Utc>) -> Age {
        Age {
            seen_at: AtomicI64::new(now.timestamp_micros()),
            revocations: AtomicU64::new(self.revocations.count()),
        }
    }

    /// It was seen to hold again.
    pub(super) fn checked(&self, age: &Age, now: DateTime<Utc>) {
        age.seen_at.store(now.timestamp_micros(), Ordering::Relaxed);
        age.revocations.store(self.revocations.count(), Ordering::Relaxed);
    }

    /// Whether it may be used without a look.
    pub(super) fn is_fresh(&self, age: &Age, now: DateTime<Utc>) -> bool {
        age.is_within(self.ttl, now) && age.revocations.load(Ordering::Relaxed) == self.revocations.count()
    }

    /// Whether it may be used while the store does not answer.
    pub(super) fn may_serve_stale(&self, age: &Age, now: DateTime<Utc>) -> bool {
        age.is_within(self.stale, now)
    }

    /// Asks the store, for as long as makes sense.
    pub(super) async fn ask<T>(
        &self,
        can_do_without: bool,
        now: DateTime<Utc>,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ProxyProblem> {
        let silent_for = now
            .timestamp_micros()
            .saturating_sub(self.silent_since.load(Ordering::Relaxed));
        if can_do_without && (0..SILENCE_MICROS).contains(&silent_for) {
            return Err(unavailable());
        }
        let patience = if can_do_without { SHORT } else { LONG };
        match tokio::time::timeout(patience, question).await {
            Ok(Ok(answer)) => {
                self.silent_since.store(i64::MIN, Ordering::Relaxed);
                Ok(answer)
            }
            Ok(Err(error @ (StoreError::Corrupt { .. } | StoreError::Sealed { .. }))) => {
                // One row is damaged; the store as a whole answers.
                tracing::error!(%error, "a row cannot be read");
                Err(unavailable())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the store failed");
                Err(self.silent(now))
            }
            Err(_) => {
                tracing::warn!("the store did not answer within {patience:?}");
                Err(self.silent(now))
            }
        }
    }

    fn silent(&self, now: DateTime<Utc>) -> ProxyProblem {
        self.silent_since.store(now.timestamp_micros(), Ordering::Relaxed);
        self.metrics.store_silent();
        unavailable()
    }
}

fn unavailable() -> ProxyProblem {
    ProxyProblem::new(
        ProblemCode::StoreUnavailable,
        "the connector's database does not answer; nothing was sent",
    )
    .outcome(super::problem::Outcome::NotSent)
}
