//! Accounting: what was called is counted in memory and added to the store every few seconds, so that no call writes
//! anything (DESIGN.md section 8). What a process that is killed has not added yet is lost: at most those seconds.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

use crate::domain::ids::{ApplicationId, ConnectionId};
use crate::mercadopago::declines::{DeclineCategory, PaymentOutcome};
use crate::storage::{Store, StoreError, UsageDelta, UsageSums};

/// So many rows are added in one transaction.
const AT_ONCE: usize = 500;

/// The counters of one connection, or of an application's own account.
pub(super) struct Meter {
    application: ApplicationId,
    connection: Option<ConnectionId>,
    /// Whether it stands on the list of those that have counted.
    listed: AtomicBool,
    calls: AtomicI64,
    failures: AtomicI64,
    provider_ms: AtomicI64,
    approvals: AtomicI64,
    declines: [AtomicI64; DeclineCategory::ALL.len()],
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

impl Meter {
    /// A meter that has counted nothing.
    pub(super) fn new(application: ApplicationId, connection: Option<ConnectionId>) -> Self {
        Self {
            application,
            connection,
            listed: AtomicBool::new(false),
            calls: AtomicI64::new(0),
            failures: AtomicI64::new(0),
            provider_ms: AtomicI64::new(0),
            approvals: AtomicI64::new(0),
            declines: std::array::from_fn(|_| AtomicI64::new(0)),
        }
    }

    fn take(&self) -> UsageSums {
        let take = |counter: &AtomicI64| counter.swap(0, Ordering::Relaxed);
        let declines = |category: DeclineCategory| take(&self.declines[category as usize]);
        UsageSums {
            calls: take(&self.calls),
            failures: take(&self.failures),
            provider_ms: take(&self.provider_ms),
            approvals: take(&self.approvals),
            declines_data_entry: declines(DeclineCategory::DataEntry),
            declines_issuer: declines(DeclineCategory::Issuer),
            declines_fraud_prevention: declines(DeclineCategory::FraudPrevention),
            declines_other: declines(DeclineCategory::Other),
        }
    }

    fn put_back(&self, sums: &UsageSums) {
        let add = |counter: &AtomicI64, by: i64| counter.fetch_add(by, Ordering::Relaxed);
        add(&self.calls, sums.calls);
        add(&self.failures, sums.failures);
        add(&self.provider_ms, sums.provider_ms);
        add(&self.approvals, sums.approvals);
        add(
            &self.declines[DeclineCategory::DataEntry as usize],
            sums.declines_data_entry,
        );
        add(
            &self.declines[DeclineCategory::Issuer as usize],
            sums.declines_issuer,
        );
        add(
            &self.declines[DeclineCategory::FraudPrevention as usize],
            sums.declines_fraud_prevention,
        );
        add(
            &self.declines[DeclineCategory::Other as usize],
            sums.declines_other,
        );
    }
}

/// The meters that have counted something since the last time.
#[derive(Debug, Default)]
pub(super) struct Usage {
    listed: Mutex<Vec<Arc<Meter>>>,
}

impl Usage {
    /// Counts a call.
    pub(super) fn count(
        &self,
        meter: &Arc<Meter>,
        failed: bool,
        provider: Duration,
        payment: Option<PaymentOutcome>,
    ) {
        meter.calls.fetch_add(1, Ordering::Relaxed);
        let milliseconds = i64::try_from(provider.as_millis()).unwrap_or(i64::MAX);
        if milliseconds > 0 {
            meter.provider_ms.fetch_add(milliseconds, Ordering::Relaxed);
        }
        if failed {
            meter.failures.fetch_add(1, Ordering::Relaxed);
        }
        match payment {
            Some(PaymentOutcome::Approved) => drop(meter.approvals.fetch_add(1, Ordering::Relaxed)),
            Some(PaymentOutcome::Declined(decline)) => {
                meter.declines[decline.category as usize].fetch_add(1, Ordering::Relaxed);
            }
            Some(PaymentOutcome::Undecided) | None => {}
        }
        self.list(meter);
    }

    fn list(&self, meter: &Arc<Meter>) {
        // Looked at first: writing what is there already would take it from the other cores.
        if !meter.listed.load(Ordering::Acquire) && !meter.listed.swap(true, Ordering::AcqRel) {
            self.listed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(meter.clone());
        }
    }

    /// Adds what was counted to the store. What the store does not take is counted on.
    pub(super) async fn flush(&self, store: &Store, now: DateTime<Utc>) -> Result<(), StoreError> {
        let listed = std::mem::take(&mut *self.listed.lock().unwrap_or_else(PoisonError::into_inner));
        let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
        let mut result = Ok(());
        for meters in listed.chunks(AT_ONCE) {
            let deltas: Vec<_> = meters
                .iter()
                .map(|meter| {
                    // Before the counters are read: a call that comes between is counted now and finds nothing next time.
                    meter.listed.store(false, Ordering::Release);
                    let (application, connection) = (meter.application.clone(), meter.connection.clone());
                    UsageDelta {
                        application,
                        connection,
                        sums: meter.take(),
                    }
                })
                .collect();
            if result.is_ok() {
                result = store.add_usage(hour, &deltas).await;
            }
            if result.is_err() {
                for (meter, delta) in meters.iter().zip(&deltas) {
                    meter.put_back(&delta.sums);
                    self.list(meter);
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mercadopago::declines::decline;
    use crate::storage::tests::temporary_store;

    #[tokio::test]
    async fn what_is_counted_is_added_once_and_kept_while_the_store_is_away() {
        let (store, _folder) = temporary_store().await;
        let (usage, app) = (Usage::default(), ApplicationId::default_application());
        let meter = Arc::new(Meter::new(app.clone(), None));
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::minutes(59);
        let provider = Duration::from_millis(20);
        usage.count(&meter, false, provider, Some(PaymentOutcome::Approved));
        usage.count(&meter, true, provider, None);
        let declined = PaymentOutcome::Declined(decline("cc_rejected_high_risk"));
        usage.count(&meter, false, provider, Some(declined));
        for _ in 0..2 {
            usage.flush(&store, now).await.unwrap();
        }
        let hours = store
            .list_usage(Some(&app), None, now - TimeDelta::hours(1))
            .await
            .unwrap();
        let sums = UsageSums {
            calls: 3,
            failures: 1,
            provider_ms: 60,
            approvals: 1,
            declines_fraud_prevention: 1,
            ..UsageSums::default()
        };
        assert_eq!(hours.len(), 1);
        assert_eq!(
            (hours[0].sums, hours[0].hour),
            (sums, now - TimeDelta::minutes(59))
        );

        usage.count(&meter, false, provider, Some(PaymentOutcome::Approved));
        store.close().await;
        assert!(usage.flush(&store, now).await.is_err());
        let kept = UsageSums {
            calls: 1,
            provider_ms: 20,
            approvals: 1,
            ..UsageSums::default()
        };
        assert_eq!(meter.take(), kept);
        assert_eq!(usage.listed.lock().unwrap().len(), 1);
    }
}
