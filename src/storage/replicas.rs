//! The replicas that serve on this database: which keys each has, how far its clock is off, and who does the work that one
//! does for all.
//!
//! Instants here are the database's time as far as a replica knows it, so that a replica whose clock is wrong does not look
//! dead to the others.

use chrono::{DateTime, Duration, Utc};

use super::dispatch::{Database, postgres_statements, read, statements, write};
use super::{Store, StoreError};
use crate::domain::clock::Clock;
use crate::domain::ids::ReplicaId;
use crate::vault::KeyId;

statements! {
    REPORT = "INSERT INTO replicas (id, started_at, seen_at, key_ids, clock_skew_ms) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, key_ids = excluded.key_ids, clock_skew_ms = excluded.clock_skew_ms";
    LIST_LIVE = "SELECT id, started_at, seen_at, key_ids, clock_skew_ms FROM replicas WHERE seen_at > $1 ORDER BY started_at, id";
    FORGET = "DELETE FROM replicas WHERE id = $1";
    FORGET_DEAD = "DELETE FROM replicas WHERE seen_at < $1";
    TAKE_LEASE = "INSERT INTO leases (name, owner, lease_until) VALUES ($1, $2, $4) ON CONFLICT (name) DO UPDATE \
        SET owner = excluded.owner, lease_until = excluded.lease_until WHERE leases.owner = excluded.owner OR leases.lease_until <= $3";
}

postgres_statements! {
    DATABASE_TIME = "SELECT clock_timestamp()";
}

/// A replica that has not reported for so long is dead; it reports every minute.
pub const REPLICA_DEAD_AFTER: Duration = Duration::minutes(3);

/// One serving process, as it reports itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaReport {
    /// The process.
    pub id: ReplicaId,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it last reported.
    pub seen_at: DateTime<Utc>,
    /// The keys that it opens with, the active one first.
    pub key_ids: Vec<KeyId>,
    /// How far its clock is ahead of the database's.
    pub clock_skew: Duration,
}

#[derive(sqlx::FromRow)]
struct ReplicaRow {
    id: String,
    started_at: DateTime<Utc>,
    seen_at: DateTime<Utc>,
    key_ids: String,
    clock_skew_ms: i64,
}

impl ReplicaRow {
    fn report(self) -> Result<ReplicaReport, StoreError> {
        let corrupt = |column| StoreError::Corrupt {
            table: "replicas",
            column,
            row: self.id.clone(),
        };
        let key_ids = self.key_ids.split_whitespace().map(str::parse);
        Ok(ReplicaReport {
            id: self.id.parse().map_err(|_| corrupt("id"))?,
            started_at: self.started_at,
            seen_at: self.seen_at,
            key_ids: key_ids
                .collect::<Result<_, _>>()
                .map_err(|_| corrupt("key_ids"))?,
            clock_skew: Duration::milliseconds(self.clock_skew_ms),
        })
    }
}

impl Store {
    /// How far `clock` is ahead of the database's, without what asking took. Zero on SQLite, where both are the machine's.
    pub async fn clock_skew(&self, clock: &dyn Clock) -> Result<Duration, StoreError> {
        let Database::Postgres(pool) = &self.database else {
            return Ok(Duration::zero());
        };
        // Taken from the pool first: waiting for a connection says nothing about clocks.
        let mut connection = pool.acquire().await?;
        let before = clock.now();
        let there: DateTime<Utc> = sqlx::query_scalar(DATABASE_TIME)
            .fetch_one(&mut *connection)
            .await?;
        let after = clock.now();
        Ok(if there < before {
            before - there
        } else if there > after {
            after - there
        } else {
            Duration::zero()
        })
    }

    /// Writes down that a replica is alive, and forgets those that are long dead.
    pub async fn report_replica(&self, report: &ReplicaReport) -> Result<(), StoreError> {
        let key_ids: Vec<_> = report.key_ids.iter().map(KeyId::as_str).collect();
        write!(&self.database, |c| sqlx::query(REPORT)
            .bind(report.id.as_str())
            .bind(report.started_at)
            .bind(report.seen_at)
            .bind(key_ids.join(" "))
            .bind(report.clock_skew.num_milliseconds())
            .execute(c)
            .await
            .map(drop))?;
        write!(&self.database, |c| sqlx::query(FORGET_DEAD)
            .bind(report.seen_at - Duration::days(1))
            .execute(c)
            .await
            .map(drop))?;
        Ok(())
    }

    /// Forgets a replica that stops.
    pub async fn forget_replica(&self, id: &ReplicaId) -> Result<(), StoreError> {
        write!(&self.database, |c| sqlx::query(FORGET)
            .bind(id.as_str())
            .execute(c)
            .await
            .map(drop))?;
        Ok(())
    }

    /// The replicas that reported lately, the oldest first. `now` is the database's time.
    pub async fn live_replicas(&self, now: DateTime<Utc>) -> Result<Vec<ReplicaReport>, StoreError> {
        let rows: Vec<ReplicaRow> = read!(&self.database, |c| sqlx::query_as(LIST_LIVE)
            .bind(now - REPLICA_DEAD_AFTER)
            .fetch_all(c)
            .await)?;
        rows.into_iter().map(ReplicaRow::report).collect()
    }

    /// Takes or keeps the lease on a piece of work that one replica does for all. True for whoever has it until `until`.
    pub async fn take_lease(
        &self,
        name: &str,
        owner: &ReplicaId,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let taken = write!(&self.database, |c| sqlx::query(TAKE_LEASE)
            .bind(name)
            .bind(owner.as_str())
            .bind(now)
            .bind(until)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(taken == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::{OffsetClock, SystemClock};
    use crate::domain::random::Random;
    use crate::storage::tests::{EmptyDatabase, Engine};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_lease_is_one_replicas_until_it_ends() {
        for engine in [Engine::Sqlite, Engine::Postgres] {
            let Some(database) = EmptyDatabase::on(engine) else {
                continue;
            };
            let store = database.migrated().await;
            let now = DateTime::UNIX_EPOCH;
            let [one, other] = [(); 2].map(|()| ReplicaId::new(now, &Random::system()));
            let minute = Duration::minutes(1);
            let take = async |owner, at| store.take_lease("chain", owner, at, at + minute).await.unwrap();
            assert!(take(&one, now).await);
            assert!(!take(&other, now + minute / 2).await);
            assert!(take(&one, now + minute / 2).await, "whoever has it keeps it");
            assert!(!take(&other, now + minute).await);
            assert!(take(&other, now + minute * 3 / 2).await, "and it ends by itself");
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_off_is_measured_and_a_good_one_is_not_blamed() {
        let Some(database) = EmptyDatabase::on(Engine::Postgres) else {
            return;
        };
        let store = database.migrated().await;
        assert!(store.clock_skew(&SystemClock).await.unwrap().abs() < Duration::milliseconds(5));
        for hours in [1, -1] {
            let clock = OffsetClock::new(Arc::new(SystemClock));
            clock.advance(Duration::hours(hours));
            let skew = store.clock_skew(&clock).await.unwrap();
            assert!(
                (skew - Duration::hours(hours)).abs() < Duration::seconds(5),
                "{skew}"
            );
        }
    }
}
