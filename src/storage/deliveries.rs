//! Deliveries: the obligation to tell one event to one endpoint, and every attempt to.
//!
//! Guarantees that an obligation ends only by a confirmation, by its last attempt, or with its event or endpoint. An
//! attempt is leased in the row before it is made: a process that dies with it, or hangs, leaves a row that is due again
//! when the lease ends. So an event may reach an endpoint twice, and never not at all.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::dispatch::{Tx, postgres_statements, read, statements, within, write};
use super::event_endpoints::{disable_within, note_failing};
use super::{EventEndpoint, Page, Store, StoreError};
use crate::domain::event::{DeliveryStatus, DisabledReason};
use crate::domain::ids::{ApplicationId, DeliveryId, EventEndpointId, EventId};

macro_rules! delivery_columns {
    () => {
        "id, application, endpoint_id, event_id, event_type, status, attempts, next_attempt_at, created_at, finished_at, last_status, last_error"
    };
}

/// What an attempt needs, given back by the statement that leases it.
macro_rules! claimed {
    () => {
        " RETURNING id, event_id, event_type, attempts, tries, (SELECT created_at FROM events WHERE events.id = deliveries.event_id) \
         AS event_at, (SELECT data FROM events WHERE events.id = deliveries.event_id) AS data"
    };
}

statements! {
    CLAIM_DUE = concat!("UPDATE deliveries SET claim = $1, next_attempt_at = $2 WHERE id IN (SELECT id FROM deliveries \
        WHERE endpoint_id = $3 AND status = 'pending' AND next_attempt_at <= $4 ORDER BY next_attempt_at LIMIT $5)", claimed!());
    CLAIM_ONE = concat!("UPDATE deliveries SET claim = $1, next_attempt_at = $2 WHERE id = $3 AND status = 'pending'", claimed!());
    // Nothing if the delivery went with its endpoint meanwhile.
    INSERT_ATTEMPT = "INSERT INTO delivery_attempts (delivery_id, number, started_at, duration_ms, http_status, error, answer) \
        SELECT id, $2, $3, $4, $5, $6, $7 FROM deliveries WHERE id = $1 ON CONFLICT (delivery_id, number) DO NOTHING";
    CONFIRM = "UPDATE deliveries SET status = 'delivered', attempts = $2, tries = tries + 1, next_attempt_at = NULL, claim = NULL, \
        finished_at = $3, last_status = $4, last_error = NULL WHERE id = $1 AND status = 'pending'";
    FAIL = "UPDATE deliveries SET status = $3, attempts = $4, tries = tries + 1, next_attempt_at = $5, claim = NULL, finished_at = $6, \
        last_status = $7, last_error = $8 WHERE id = $1 AND claim = $2";
    FIND_DELIVERY = concat!("SELECT ", delivery_columns!(), " FROM deliveries WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) AND id = $2");
    LIST_DELIVERIES = concat!("SELECT ", delivery_columns!(), " FROM deliveries WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) \
        AND (CAST($2 AS TEXT) IS NULL OR endpoint_id = $2) AND (CAST($3 AS TEXT) IS NULL OR event_id = $3) \
        AND (CAST($4 AS TEXT) IS NULL OR status = $4) AND (CAST($5 AS TEXT) IS NULL OR id < $5) ORDER BY id DESC LIMIT $6");
    LIST_DELIVERY_ATTEMPTS = "SELECT number, started_at, duration_ms, http_status, error, answer FROM delivery_attempts \
        WHERE delivery_id = $1 ORDER BY number";
    RETRY = "UPDATE deliveries SET status = 'pending', tries = 0, next_attempt_at = $2, claim = NULL, finished_at = NULL WHERE id = $1";
    LIST_TO_REPLAY = "SELECT id, event_type FROM events WHERE application = $1 AND created_at >= $2 AND created_at < $3 \
        AND event_type <> 'event_endpoint.test' AND (CAST($4 AS TEXT) IS NULL OR id > $4) ORDER BY id LIMIT $5";
    REPLAY = "INSERT INTO deliveries (id, application, endpoint_id, event_id, event_type, status, attempts, tries, next_attempt_at, created_at) \
        VALUES ($1, $2, $3, $4, $5, 'pending', 0, 0, $6, $6) \
        ON CONFLICT (id) DO UPDATE SET status = 'pending', tries = 0, next_attempt_at = $6, claim = NULL, finished_at = NULL";
    RELEASE = "UPDATE deliveries SET next_attempt_at = $2, claim = NULL WHERE status = 'pending' AND substr(claim, 1, length($1)) = $1";
    COUNT_DELIVERIES = "SELECT status, COUNT(*), MIN(created_at) FROM deliveries WHERE status <> 'delivered' GROUP BY status";
}

postgres_statements! {
    // Rows that another replica is claiming at this moment are passed over.
    CLAIM_DUE_LOCKED = concat!("UPDATE deliveries SET claim = $1, next_attempt_at = $2 WHERE id IN (SELECT id FROM deliveries \
        WHERE endpoint_id = $3 AND status = 'pending' AND next_attempt_at <= $4 ORDER BY next_attempt_at LIMIT $5 \
        FOR UPDATE SKIP LOCKED)", claimed!());
}

/// A delivery as it stands.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DeliveryRow {
    /// Its id; sorts by the event's time.
    pub id: String,
    /// The application.
    pub application: String,
    /// Where to.
    pub endpoint_id: String,
    /// What.
    pub event_id: String,
    /// Type of the event.
    pub event_type: String,
    /// As [`DeliveryStatus`] writes it.
    pub status: String,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is tried next, if it is.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it was put in line.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// HTTP status of the last attempt, if there was an answer.
    pub last_status: Option<i64>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DeliveryAttempt {
    /// From 1.
    pub number: i64,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub duration_ms: i64,
    /// HTTP status, if there was an answer.
    pub http_status: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
    /// The beginning of what the endpoint answered, if it did not confirm.
    pub answer: Option<String>,
}

/// A delivery whose attempt is leased to the caller.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ClaimedDelivery {
    /// The delivery.
    pub id: String,
    /// The event.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// How often it was tried.
    pub attempts: i64,
    /// How often since it was last put in line.
    pub tries: i64,
    /// When it happened.
    pub event_at: DateTime<Utc>,
    /// `data` of its body.
    #[sqlx(json)]
    pub data: Value,
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The endpoint confirmed it.
    Confirmed,
    /// It is tried again then.
    RetryAt(DateTime<Utc>),
    /// It was the last attempt.
    Dead,
}

/// An attempt that was made.
#[derive(Debug)]
pub struct FinishedAttempt {
    /// Who made it: the text that the lease was taken with.
    pub claim: String,
    /// The endpoint as it was when the attempt began.
    pub endpoint: Arc<EventEndpoint>,
    /// The delivery's id.
    pub delivery: String,
    /// What happened.
    pub attempt: DeliveryAttempt,
    /// What follows.
    pub followed: Followed,
    /// Whether and why the endpoint is told nothing more.
    pub disable: Option<DisabledReason>,
    /// When it ended.
    pub now: DateTime<Utc>,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Only of this application.
    pub application: Option<ApplicationId>,
    /// Only to this endpoint.
    pub endpoint_id: Option<EventEndpointId>,
    /// Only of this event.
    pub event_id: Option<EventId>,
    /// Only in this status.
    pub status: Option<DeliveryStatus>,
    /// Only before this id (the cursor of the page before).
    pub before: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// How many deliveries are not confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryBacklog {
    /// How many wait.
    pub pending: i64,
    /// Since when the oldest of them waits.
    pub oldest: Option<DateTime<Utc>>,
    /// How many were given up.
    pub dead: i64,
}

impl Store {
    /// Leases up to `limit` due deliveries of an endpoint until `until`, those that wait longest first.
    pub async fn claim_deliveries(
        &self,
        endpoint: &EventEndpointId,
        claim: &str,
        until: DateTime<Utc>,
        limit: u32,
        now: DateTime<Utc>,
    ) -> Result<Vec<ClaimedDelivery>, StoreError> {
        let mut tx = self.database.begin().await?;
        let sql = if tx.is_postgres() {
            CLAIM_DUE_LOCKED
        } else {
            CLAIM_DUE
        };
        let claimed: Vec<ClaimedDelivery> = within!(&mut tx, |c| sqlx::query_as(sql)
            .bind(claim)
            .bind(until)
            .bind(endpoint.as_str())
            .bind(now)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?;
        if !claimed.is_empty() {
            tx.commit().await?;
        }
        Ok(claimed)
    }

    /// Leases one delivery that waits, due or not. None if it does not wait.
    pub async fn claim_delivery(
        &self,
        id: &DeliveryId,
        claim: &str,
        until: DateTime<Utc>,
    ) -> Result<Option<ClaimedDelivery>, StoreError> {
        let mut tx = self.database.begin().await?;
        let claimed = within!(&mut tx, |c| sqlx::query_as(CLAIM_ONE)
            .bind(claim)
            .bind(until)
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// Ends the leases of a process that is dead: what it had under way is due now. `claims` is what each of its leases was
    /// taken with begins with. How many those were.
    pub async fn release_deliveries(&self, claims: &str, now: DateTime<Utc>) -> Result<u64, StoreError> {
        Ok(write!(&self.database, |c| sqlx::query(RELEASE)
            .bind(claims)
            .bind(now)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?)
    }

    /// Writes down how attempts ended and what follows, all in one transaction.
    pub async fn finish_attempts(&self, finished: &[FinishedAttempt]) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        for one in finished {
            self.finish_within(&mut tx, one).await?;
        }
        tx.commit().await
    }

    async fn finish_within(&self, tx: &mut Tx, finished: &FinishedAttempt) -> Result<(), StoreError> {
        let FinishedAttempt {
            attempt,
            endpoint,
            now,
            ..
        } = finished;
        within!(tx, |c| sqlx::query(INSERT_ATTEMPT)
            .bind(&finished.delivery)
            .bind(attempt.number)
            .bind(attempt.started_at)
            .bind(attempt.duration_ms)
            .bind(attempt.http_status)
            .bind(attempt.error.as_deref())
            .bind(attempt.answer.as_deref())
            .execute(c)
            .await
            .map(drop))?;
        let (status, next) = match finished.followed {
            Followed::Confirmed => {
                // Whoever holds the lease by now: it is confirmed.
                within!(tx, |c| sqlx::query(CONFIRM)
                    .bind(&finished.delivery)
                    .bind(attempt.number)
                    .bind(*now)
                    .bind(attempt.http_status)
                    .execute(c)
                    .await
                    .map(drop))?;
                if endpoint.failing_since.is_some() {
                    note_failing(tx, &endpoint.id, None).await?;
                }
                return Ok(());
            }
            Followed::RetryAt(at) => (DeliveryStatus::Pending, Some(at)),
            Followed::Dead => (DeliveryStatus::Dead, None),
        };
        within!(tx, |c| sqlx::query(FAIL)
            .bind(&finished.delivery)
            .bind(&finished.claim)
            .bind(status.as_str())
            .bind(attempt.number)
            .bind(next)
            .bind((status == DeliveryStatus::Dead).then_some(*now))
            .bind(attempt.http_status)
            .bind(attempt.error.as_deref())
            .execute(c)
            .await
            .map(drop))?;
        if endpoint.failing_since.is_none() {
            note_failing(tx, &endpoint.id, Some(*now)).await?;
        }
        if let Some(reason) = finished.disable {
            disable_within(tx, &self.random, endpoint, reason, *now).await?;
        }
        Ok(())
    }

    /// The delivery with this id, of an application or of any.
    pub async fn find_delivery(
        &self,
        application: Option<&ApplicationId>,
        id: &DeliveryId,
    ) -> Result<Option<DeliveryRow>, StoreError> {
        Ok(read!(&self.database, |c| sqlx::query_as(FIND_DELIVERY)
            .bind(application.map(ApplicationId::as_str))
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?)
    }

    /// A page of deliveries, newest event first; its cursor goes into [`DeliveryFilter::before`].
    pub async fn list_deliveries(&self, filter: &DeliveryFilter) -> Result<Page<DeliveryRow>, StoreError> {
        let rows: Vec<DeliveryRow> = read!(&self.database, |c| sqlx::query_as(LIST_DELIVERIES)
            .bind(filter.application.as_ref().map(ApplicationId::as_str))
            .bind(filter.endpoint_id.as_ref().map(EventEndpointId::as_str))
            .bind(filter.event_id.as_ref().map(EventId::as_str))
            .bind(filter.status.map(DeliveryStatus::as_str))
            .bind(filter.before.as_deref())
            .bind(i64::from(filter.limit) + 1)
            .fetch_all(c)
            .await)?;
        Ok(Page::of(rows, filter.limit, |row| row.id.clone()))
    }

    /// Every attempt of a delivery, in order.
    pub async fn list_delivery_attempts(&self, id: &DeliveryId) -> Result<Vec<DeliveryAttempt>, StoreError> {
        Ok(read!(&self.database, |c| sqlx::query_as(LIST_DELIVERY_ATTEMPTS)
            .bind(id.as_str())
            .fetch_all(c)
            .await)?)
    }

    /// Puts a delivery in line again, from the beginning of the schedule.
    pub async fn retry_delivery(&self, id: &DeliveryId, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(RETRY)
            .bind(id.as_str())
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        tx.commit().await
    }

    /// Puts up to `limit` events of `[since, until)` in line for an endpoint, whether it was told of them or not, beginning
    /// after the event `after`. Gives how many it put in line, and the event to go on after if there are more.
    pub async fn replay_events(
        &self,
        endpoint: &EventEndpoint,
        (since, until): (DateTime<Utc>, DateTime<Utc>),
        after: Option<&str>,
        limit: u32,
        now: DateTime<Utc>,
    ) -> Result<(u64, Option<String>), StoreError> {
        let mut tx = self.database.begin().await?;
        let rows: Vec<(String, String)> = within!(&mut tx, |c| sqlx::query_as(LIST_TO_REPLAY)
            .bind(endpoint.application.as_str())
            .bind(since)
            .bind(until)
            .bind(after)
            .bind(i64::from(limit) + 1)
            .fetch_all(c)
            .await)?;
        let page = Page::of(rows, limit, |(id, _)| id.clone());
        let mut put = 0;
        for (event, kind) in &page.data {
            let wanted = match &endpoint.event_types {
                Some(types) => types.iter().any(|one| one.as_str() == kind),
                None => true,
            };
            let Some(event) = event.parse::<EventId>().ok().filter(|_| wanted) else {
                continue;
            };
            within!(&mut tx, |c| sqlx::query(REPLAY)
                .bind(DeliveryId::of(&event, &endpoint.id).as_str())
                .bind(endpoint.application.as_str())
                .bind(endpoint.id.as_str())
                .bind(event.as_str())
                .bind(kind)
                .bind(now)
                .execute(c)
                .await
                .map(drop))?;
            put += 1;
        }
        tx.commit().await?;
        Ok((put, page.next))
    }

    /// How many deliveries are not confirmed.
    pub async fn delivery_backlog(&self) -> Result<DeliveryBacklog, StoreError> {
        let counts: Vec<(String, i64, Option<DateTime<Utc>>)> =
            read!(&self.database, |c| sqlx::query_as(COUNT_DELIVERIES)
                .fetch_all(c)
                .await)?;
        let mut backlog = DeliveryBacklog::default();
        for (status, count, oldest) in counts {
            if status == DeliveryStatus::Pending.as_str() {
                (backlog.pending, backlog.oldest) = (count, oldest);
            } else {
                backlog.dead = count;
            }
        }
        Ok(backlog)
    }
}
