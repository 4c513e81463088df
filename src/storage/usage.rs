//! What was called, by the hour and connection, and which payments went out a moment ago. Written beside the calls, in
//! batches; only the duplicate guard costs a statement per payment, and it is off unless asked for.

use std::ops::AddAssign;

use chrono::{DateTime, Utc};

use super::dispatch::{read, statements, within, write};
use super::{Store, StoreError};
use crate::domain::ids::{ApplicationId, ConnectionId};

statements! {
    ADD_USAGE = "INSERT INTO usage_hourly (application, connection_id, hour, calls, failures, provider_ms, approvals, \
        declines_data_entry, declines_issuer, declines_fraud_prevention, declines_other) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (application, connection_id, hour) DO UPDATE SET \
        calls = usage_hourly.calls + excluded.calls, \
        failures = usage_hourly.failures + excluded.failures, \
        provider_ms = usage_hourly.provider_ms + excluded.provider_ms, \
        approvals = usage_hourly.approvals + excluded.approvals, \
        declines_data_entry = usage_hourly.declines_data_entry + excluded.declines_data_entry, \
        declines_issuer = usage_hourly.declines_issuer + excluded.declines_issuer, \
        declines_fraud_prevention = usage_hourly.declines_fraud_prevention + excluded.declines_fraud_prevention, \
        declines_other = usage_hourly.declines_other + excluded.declines_other";
    LIST_USAGE = "SELECT hour, CAST(SUM(calls) AS BIGINT) AS calls, CAST(SUM(failures) AS BIGINT) AS failures, \
        CAST(SUM(provider_ms) AS BIGINT) AS provider_ms, CAST(SUM(approvals) AS BIGINT) AS approvals, \
        CAST(SUM(declines_data_entry) AS BIGINT) AS declines_data_entry, CAST(SUM(declines_issuer) AS BIGINT) AS declines_issuer, \
        CAST(SUM(declines_fraud_prevention) AS BIGINT) AS declines_fraud_prevention, \
        CAST(SUM(declines_other) AS BIGINT) AS declines_other FROM usage_hourly \
        WHERE hour >= $1 AND (CAST($2 AS TEXT) IS NULL OR application = $2) AND (CAST($3 AS TEXT) IS NULL OR connection_id = $3) GROUP BY hour ORDER BY hour";
    NOTE_PAYMENT = "INSERT INTO recent_payments (connection_id, fingerprint, idempotency_key_hash, sent_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (connection_id, fingerprint) DO UPDATE SET idempotency_key_hash = excluded.idempotency_key_hash, \
        sent_at = excluded.sent_at WHERE recent_payments.sent_at <= $5 \
        OR recent_payments.idempotency_key_hash = excluded.idempotency_key_hash";
    FORGET_PAYMENTS = "DELETE FROM recent_payments WHERE sent_at < $1";
}

/// Sums of an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct UsageSums {
    /// Calls.
    pub calls: i64,
    /// Those that ended with an error of ours or with a 5xx.
    pub failures: i64,
    /// Milliseconds that Mercado Pago took for all of them.
    pub provider_ms: i64,
    /// Payments that were approved.
    pub approvals: i64,
    /// Payments declined because something was filled in wrong.
    pub declines_data_entry: i64,
    /// Payments declined by the card's issuer.
    pub declines_issuer: i64,
    /// Payments declined to prevent fraud.
    pub declines_fraud_prevention: i64,
    /// Payments declined for another reason.
    pub declines_other: i64,
}

impl UsageSums {
    /// Payments declined, for whatever reason.
    pub fn declines(&self) -> i64 {
        self.declines_data_entry + self.declines_issuer + self.declines_fraud_prevention + self.declines_other
    }
}

impl AddAssign for UsageSums {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.provider_ms += other.provider_ms;
        self.approvals += other.approvals;
        self.declines_data_entry += other.declines_data_entry;
        self.declines_issuer += other.declines_issuer;
        self.declines_fraud_prevention += other.declines_fraud_prevention;
        self.declines_other += other.declines_other;
    }
}

/// What is added to an hour of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageDelta {
    /// The application.
    pub application: ApplicationId,
    /// The connection; none for the application's own account.
    pub connection: Option<ConnectionId>,
    /// The sums.
    pub sums: UsageSums,
}

/// Sums of one hour, as they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct UsageHour {
    /// When the hour began.
    pub hour: DateTime<Utc>,
    /// The sums.
    #[sqlx(flatten)]
    pub sums: UsageSums,
}

/// In the place of a connection's id: the application's own account.
const OWN_ACCOUNT: &str = "@self";

impl Store {
    /// Adds what was called to the hour that began at `hour`, all or nothing.
    pub async fn add_usage(&self, hour: DateTime<Utc>, deltas: &[UsageDelta]) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        for delta in deltas {
            let sums = &delta.sums;
            within!(&mut tx, |c| sqlx::query(ADD_USAGE)
                .bind(delta.application.as_str())
                .bind(
                    delta
                        .connection
                        .as_ref()
                        .map_or(OWN_ACCOUNT, ConnectionId::as_str)
                )
                .bind(hour)
                .bind(sums.calls)
                .bind(sums.failures)
                .bind(sums.provider_ms)
                .bind(sums.approvals)
                .bind(sums.declines_data_entry)
                .bind(sums.declines_issuer)
                .bind(sums.declines_fraud_prevention)
                .bind(sums.declines_other)
                .execute(c)
                .await
                .map(drop))?;
        }
        tx.commit().await
    }

    /// The hours since `since`, of an application, of a connection, or of all.
    pub async fn list_usage(
        &self,
        application: Option<&ApplicationId>,
        connection: Option<&ConnectionId>,
        since: DateTime<Utc>,
    ) -> Result<Vec<UsageHour>, StoreError> {
        Ok(read!(&self.database, |c| sqlx::query_as(LIST_USAGE)
            .bind(since)
            .bind(application.map(ApplicationId::as_str))
            .bind(connection.map(ConnectionId::as_str))
            .fetch_all(c)
            .await)?)
    }

    /// Notes that a payment goes out now. False when one with the same fingerprint went out after `since` under another
    /// idempotency key; then nothing is noted.
    pub async fn note_payment(
        &self,
        connection: &ConnectionId,
        fingerprint: &[u8; 32],
        idempotency_key_hash: &[u8; 32],
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let noted = write!(&self.database, |c| sqlx::query(NOTE_PAYMENT)
            .bind(connection.as_str())
            .bind(&fingerprint[..])
            .bind(&idempotency_key_hash[..])
            .bind(now)
            .bind(since)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(noted == 1)
    }

    /// Forgets payments that went out before `before`.
    pub async fn forget_payments(&self, before: DateTime<Utc>) -> Result<(), StoreError> {
        write!(&self.database, |c| sqlx::query(FORGET_PAYMENTS)
            .bind(before)
            .execute(c)
            .await
            .map(drop))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::random::Random;
    use crate::storage::tests::temporary_store;

    #[tokio::test]
    async fn hours_add_up_by_connection_and_application_until_they_are_purged() {
        let (store, _folder) = temporary_store().await;
        let hour = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let app = ApplicationId::default_application();
        let connection = ConnectionId::new(hour, &Random::seeded(1));
        let sums = UsageSums {
            calls: 2,
            approvals: 1,
            declines_issuer: 1,
            ..UsageSums::default()
        };
        let of = |connection: Option<&ConnectionId>| UsageDelta {
            application: app.clone(),
            connection: connection.cloned(),
            sums,
        };
        store
            .add_usage(hour, &[of(Some(&connection)), of(None)])
            .await
            .unwrap();
        store.add_usage(hour, &[of(Some(&connection))]).await.unwrap();
        store
            .add_usage(hour + TimeDelta::hours(1), &[of(None)])
            .await
            .unwrap();

        let all = store.list_usage(Some(&app), None, hour).await.unwrap();
        assert_eq!(all.iter().map(|one| one.sums.calls).collect::<Vec<_>>(), [6, 2]);
        let of_connection = store.list_usage(None, Some(&connection), hour).await.unwrap();
        let doubled = UsageSums {
            calls: 4,
            approvals: 2,
            declines_issuer: 2,
            ..UsageSums::default()
        };
        assert_eq!(of_connection, [UsageHour { hour, sums: doubled }]);

        assert_eq!(
            store
                .purge_usage(&app, hour + TimeDelta::hours(1), 1)
                .await
                .unwrap(),
            1
        );
        assert_eq!(
            store
                .purge_usage(&app, hour + TimeDelta::hours(1), 9)
                .await
                .unwrap(),
            1
        );
        assert_eq!(store.list_usage(None, None, hour).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_same_payment_under_another_key_is_found_within_the_window_only() {
        let (store, _folder) = temporary_store().await;
        let start = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let connection = ConnectionId::new(start, &Random::seeded(1));
        let note = async |fingerprint: u8, key: u8, seconds: i64| {
            let now = start + TimeDelta::seconds(seconds);
            let since = now - TimeDelta::seconds(60);
            store
                .note_payment(&connection, &[fingerprint; 32], &[key; 32], since, now)
                .await
                .unwrap()
        };
        assert!(note(1, 1, 0).await);
        assert!(
            note(1, 1, 10).await,
            "a repetition with the same key is no duplicate"
        );
        assert!(!note(1, 2, 20).await);
        assert!(note(2, 2, 20).await, "another payment");
        assert!(note(1, 2, 70).await, "the window is over");
        store.forget_payments(start + TimeDelta::days(1)).await.unwrap();
        assert!(note(1, 3, 71).await);
    }
}
