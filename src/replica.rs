//! One serving process among others on the same database: it reports that it is alive and which keys it has, and compares
//! its clock with the database's (DESIGN.md sections 7 and 11).
//!
//! Guarantees that a replica whose clock is off by more than a quarter of the lease knows it within a minute:
//! [`Replica::excessive_skew`] then keeps it from claiming anything. On SQLite both clocks are the machine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::clock::Clock;
use crate::domain::ids::ReplicaId;
use crate::domain::random::Random;
use crate::storage::{ReplicaReport, Store, StoreError};

/// How often a replica reports.
pub const REPORT_INTERVAL: Duration = Duration::from_mins(1);
/// The part of a lease by which a clock may be off.
const MOST_SKEW: i32 = 4;

/// This process. Clones share what is known of its clock.
#[derive(Debug, Clone)]
pub struct Replica(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: ReplicaId,
    started_at: DateTime<Utc>,
    most_skew: TimeDelta,
    /// How far our clock is ahead, in milliseconds.
    skew: AtomicI64,
}

impl Replica {
    /// A process that starts `now` and holds what it claims for `lease`.
    pub fn new(now: DateTime<Utc>, lease: Duration, random: &Random) -> Self {
        Self(Arc::new(Inner {
            id: ReplicaId::new(now, random),
            started_at: now,
            most_skew: TimeDelta::from_std(lease).unwrap_or(TimeDelta::MAX) / MOST_SKEW,
            skew: AtomicI64::new(0),
        }))
    }

    /// Its id, which stands in its leases.
    pub fn id(&self) -> &ReplicaId {
        &self.0.id
    }

    /// How far its clock is ahead of the database's, if that is too much to claim anything.
    pub fn excessive_skew(&self) -> Option<TimeDelta> {
        let skew = TimeDelta::milliseconds(self.0.skew.load(Ordering::Relaxed));
        (skew.abs() > self.0.most_skew).then_some(skew)
    }

    /// Compares the clocks and reports. Says so once when the clock goes wrong, and once when it is right again.
    pub async fn report(&self, store: &Store, clock: &dyn Clock) -> Result<(), StoreError> {
        let skew = store.clock_skew(clock).await?;
        let before = self.excessive_skew();
        self.0.skew.store(skew.num_milliseconds(), Ordering::Relaxed);
        metrics::gauge!("connector_clock_skew_seconds").set(skew.as_seconds_f64());
        match (before, self.excessive_skew()) {
            (None, Some(skew)) => tracing::error!(
                skew_seconds = skew.num_seconds(),
                most_seconds = self.0.most_skew.num_seconds(),
                "this replica's clock differs too much from the database's: it claims nothing until its clock is set right"
            ),
            (Some(_), None) => {
                tracing::info!("this replica's clock is right again: it claims work as before");
            }
            _ => {}
        }
        let report = ReplicaReport {
            id: self.0.id.clone(),
            started_at: self.0.started_at - skew,
            seen_at: clock.now() - skew,
            key_ids: store.keyring().ids().cloned().collect(),
            clock_skew: skew,
        };
        store.report_replica(&report).await
    }

    /// Takes itself off the list, at the end of the process.
    pub async fn leave(&self, store: &Store) {
        if let Err(error) = store.forget_replica(&self.0.id).await {
            tracing::warn!(%error, "this replica could not take itself off the list; it drops out within minutes");
        }
    }
}
