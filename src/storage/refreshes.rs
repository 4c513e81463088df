//! Refresh attempts: claiming a connection before its refresh token is spent, and writing down how it ended
//! (DESIGN.md section 7).
//!
//! Guarantees: the attempt's row is committed before the token is handed out, so a store that cannot be written spends
//! nothing; one attempt at a time per connection, across replicas, by the lease in the row; an attempt that is found open
//! after its lease counts as one of unknown outcome; a failure is never written over a newer generation.

use chrono::{DateTime, Duration, Utc};

use super::audit::insert_audit;
use super::connections::{
    ConnectionRow, OpenConnection, connection_columns, update_connection, update_tokens,
};
use super::dispatch::{Tx, postgres_statements, read, statements, within};
use super::events::insert_event;
use super::{Store, StoreError};
use crate::domain::connection::{
    Connection, RefreshAttempt, RefreshOutcome, Status, StatusReason, TokenSet, Trigger,
};
use crate::domain::event::{NewAudit, NewEvent};
use crate::domain::ids::{ApplicationId, ConnectionId, RefreshAttemptId, ReplicaId};
use crate::domain::secret::RefreshToken;
use crate::vault::DataKey;

statements! {
    FIND_FOR_CLAIM = concat!("SELECT ", connection_columns!(), " FROM connections WHERE id = $1");
    FIND_LEASE = "SELECT lease_until FROM connections WHERE id = $1 AND lease_until > $2";
    SET_LEASE = "UPDATE connections SET lease_owner = $2, lease_until = $3 WHERE id = $1";
    POSTPONE = "UPDATE connections SET refresh_due_at = CASE WHEN status = 'active' THEN COALESCE($2, refresh_due_at) END, status_reason = $3, \
        outcome_unknown = $4, refresh_failures = refresh_failures + $5, lease_owner = NULL, lease_until = NULL, updated_at = $6 WHERE id = $1";
    INSERT_ATTEMPT = "INSERT INTO refresh_attempts (id, connection_id, application, generation, trigger_kind, after_unknown, owner, started_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    ABANDON_ATTEMPTS = "UPDATE refresh_attempts SET finished_at = $3, outcome = 'unknown', error = 'abandoned' \
        WHERE connection_id = $1 AND generation = $2 AND finished_at IS NULL";
    FINISH_ATTEMPT = "UPDATE refresh_attempts SET finished_at = $2, outcome = $3, http_status = $4, error = $5 WHERE id = $1";
    IS_OPEN = "SELECT COUNT(*) FROM refresh_attempts WHERE id = $1 AND finished_at IS NULL";
    LAST_UNKNOWN = "SELECT MAX(finished_at) FROM refresh_attempts WHERE connection_id = $1 AND generation = $2 AND outcome = 'unknown'";
    LIST_ATTEMPTS = "SELECT id, connection_id, application, generation, trigger_kind, after_unknown, started_at, finished_at, outcome, \
        http_status, error FROM refresh_attempts WHERE connection_id = $1 ORDER BY started_at DESC, id DESC LIMIT $2";
    LIST_DUE = "SELECT id FROM connections WHERE application = $1 AND refresh_due_at <= $2 AND (lease_until IS NULL OR lease_until <= $2) \
        ORDER BY access_token_expires_at LIMIT $3";
    LIST_TO_WARN = concat!("SELECT ", connection_columns!(), " FROM connections WHERE application = $1 AND status <> 'revoked' \
        AND status <> 'reconnect_required' AND access_token_expires_at <= $2 AND access_token_expires_at > $3 AND expiry_marks_told < $4 \
        AND (refresh_failures > 0 OR refresh_due_at IS NULL OR refresh_due_at <= $5) ORDER BY access_token_expires_at LIMIT $6");
    PUT_OFF = "UPDATE connections SET refresh_due_at = $3, updated_at = $4 WHERE id = $1 AND generation = $2 AND refresh_due_at < $3";
    SET_MARKS = "UPDATE connections SET expiry_marks_told = $3 WHERE id = $1 AND generation = $2 AND expiry_marks_told < $3";
}

postgres_statements! {
    // A row that another replica is claiming at this moment is passed over.
    LOCK_CONNECTION = "SELECT id FROM connections WHERE id = $1 FOR NO KEY UPDATE";
    FIND_FOR_CLAIM_LOCKED = concat!("SELECT ", connection_columns!(), " FROM connections WHERE id = $1 FOR UPDATE SKIP LOCKED");
}

/// How long after an attempt of unknown outcome the token is spent once more: at the most.
const AFTER_UNKNOWN_MOST: Duration = Duration::minutes(10);
/// The same as a part of the token's life, where that is shorter.
const AFTER_UNKNOWN_PART_OF_LIFE: i32 = 10;
/// How long a row that is locked at this moment counts as busy: transactions are short.
const LOCKED_FOR: Duration = Duration::milliseconds(100);
/// How long refreshing rests when the configured `client_id` is not the one of the tokens.
const CLIENT_ID_CHANGED_REST: Duration = Duration::minutes(10);

/// What is asked of [`Store::claim_refresh`].
#[derive(Debug, Clone)]
pub struct ClaimRequest<'a> {
    /// The connection to refresh.
    pub connection: &'a ConnectionId,
    /// The generation whose tokens the caller found wanting; another one in the row means that the work is done. None: whatever
    /// is there.
    pub spent_generation: Option<i64>,
    /// Who wants it.
    pub trigger: Trigger,
    /// The replica that asks.
    pub owner: &'a ReplicaId,
    /// Until when nobody else may claim.
    pub lease: Duration,
    /// The application's `client_id` by the settings.
    pub client_id: &'a str,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claim {
    /// The row is ours until the lease ends; the attempt is written.
    Claimed(Box<ClaimedRefresh>),
    /// The token set changed meanwhile: use this.
    Superseded(Box<OpenConnection>),
    /// Somebody else is refreshing it, at most until then.
    Busy(DateTime<Utc>),
    /// Nothing may be spent before then.
    Deferred(DateTime<Utc>),
    /// Refreshing cannot help: revoked, without a refresh token, waiting for the seller, or of another `client_id`.
    NotRefreshable(Box<OpenConnection>),
    /// There is no such connection.
    Absent,
}

/// A claimed connection with what is needed to refresh it.
#[derive(Debug)]
pub struct ClaimedRefresh {
    /// The attempt as it was written.
    pub attempt: RefreshAttempt,
    /// The connection before it.
    pub open: OpenConnection,
    /// The token to spend.
    pub refresh_token: RefreshToken,
    /// The connection's data key, for the rescue file and the new tokens.
    pub data_key: DataKey,
}

/// A new token set and what goes with it.
#[derive(Debug)]
pub struct SucceededRefresh<'a> {
    /// The connection as it stands from now on.
    pub next: Connection,
    /// The new tokens.
    pub tokens: &'a TokenSet,
    /// The connection's data key.
    pub data_key: &'a DataKey,
    /// What is told of it.
    pub event: NewEvent,
    /// What is audited of it.
    pub audit: NewAudit,
}

/// How an attempt ended that brought no tokens.
#[derive(Debug)]
pub struct FailedRefresh {
    /// The outcome.
    pub outcome: RefreshOutcome,
    /// HTTP status of the answer, if there was one.
    pub http_status: Option<u16>,
    /// Its error code, or the kind of the transport's failure.
    pub error: Option<String>,
    /// The connection as it stands from now on.
    pub next: Connection,
    /// What is told of it.
    pub events: Vec<NewEvent>,
    /// What is audited of it.
    pub audit: Option<NewAudit>,
}

#[derive(sqlx::FromRow)]
struct AttemptRow {
    id: String,
    connection_id: String,
    application: String,
    generation: i64,
    trigger_kind: String,
    after_unknown: bool,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    outcome: Option<String>,
    http_status: Option<i64>,
    error: Option<String>,
}

impl AttemptRow {
    fn attempt(self) -> Result<RefreshAttempt, StoreError> {
        let corrupt = |column| StoreError::Corrupt {
            table: "refresh_attempts",
            column,
            row: self.id.clone(),
        };
        let outcome = self.outcome.as_deref().map(str::parse).transpose();
        Ok(RefreshAttempt {
            id: self.id.parse().map_err(|_| corrupt("id"))?,
            connection_id: self.connection_id.parse().map_err(|_| corrupt("connection_id"))?,
            application: self.application.parse().map_err(|_| corrupt("application"))?,
            generation: self.generation,
            trigger: self.trigger_kind.parse().map_err(|_| corrupt("trigger_kind"))?,
            after_unknown: self.after_unknown,
            started_at: self.started_at,
            finished_at: self.finished_at,
            outcome: outcome.map_err(|_| corrupt("outcome"))?,
            http_status: self.http_status,
            error: self.error,
        })
    }
}

/// When a token whose attempt ended without a known outcome may be spent once more.
pub(crate) fn retry_after_unknown(connection: &Connection, ended_at: DateTime<Utc>) -> DateTime<Utc> {
    ended_at + AFTER_UNKNOWN_MOST.min(connection.life() / AFTER_UNKNOWN_PART_OF_LIFE)
}

impl Store {
    /// Connections of an application that are due at `now` and not leased, those with the least time left first.
    pub async fn list_due(
        &self,
        application: &ApplicationId,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let ids: Vec<String> = read!(&self.database, |c| sqlx::query_scalar(LIST_DUE)
            .bind(application.as_str())
            .bind(now)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?;
        let parse = |id: String| {
            id.parse().map_err(|_| StoreError::Corrupt {
                table: "connections",
                column: "id",
                row: id,
            })
        };
        ids.into_iter().map(parse).collect()
    }

    /// Until when at most somebody is refreshing a connection at this moment, if anybody is.
    pub async fn refresh_lease(
        &self,
        id: &ConnectionId,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let until: Option<DateTime<Utc>> = read!(&self.database, |c| sqlx::query_scalar(FIND_LEASE)
            .bind(id.as_str())
            .bind(now)
            .fetch_optional(c)
            .await)?;
        Ok(until)
    }

    /// Claims a connection and writes the attempt, in one transaction, before its token is spent.
    pub async fn claim_refresh(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        let mut tx = self.database.begin().await?;
        let sql = if tx.is_postgres() {
            FIND_FOR_CLAIM_LOCKED
        } else {
            FIND_FOR_CLAIM
        };
        let row: Option<ConnectionRow> = within!(&mut tx, |c| sqlx::query_as(sql)
            .bind(request.connection.as_str())
            .fetch_optional(c)
            .await)?;
        let claim = match row {
            Some(row) => Some(self.claim_row(&mut tx, row, request).await?),
            None => None,
        };
        // Also where nothing was written: a transaction that is only dropped keeps its lock for a while.
        tx.commit().await?;
        if let Some(claim) = claim {
            return Ok(claim);
        }
        // Absent, or locked: by another replica's claim, or by a change that ends as soon and leaves no lease.
        let found = self.connection_generation(request.connection).await?;
        Ok(if found.is_some() {
            Claim::Busy(request.now + LOCKED_FOR)
        } else {
            Claim::Absent
        })
    }

    /// Decides on a claim of a row that nobody else changes meanwhile.
    async fn claim_row(
        &self,
        tx: &mut Tx,
        row: ConnectionRow,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError> {
        let now = request.now;
        let open = self.open_row(&row)?;
        let connection = &open.connection;
        if request
            .spent_generation
            .is_some_and(|spent| spent != connection.generation)
        {
            return Ok(Claim::Superseded(Box::new(open)));
        }
        let waits_for_seller =
            connection.status == Status::ReconnectRequired && request.trigger != Trigger::Manual;
        if connection.status == Status::Revoked || !connection.has_refresh_token || waits_for_seller {
            return Ok(Claim::NotRefreshable(Box::new(open)));
        }
        if let Some(until) = row
            .lease_until
            .filter(|until| *until > now && row.lease_owner.is_some())
        {
            return Ok(Claim::Busy(until));
        }
        if let Some(until) = abandon_open_attempts(tx, connection, now).await? {
            return Ok(Claim::Deferred(until));
        }
        if connection.outcome_unknown {
            let until = retry_after_unknown(connection, last_unknown(tx, connection).await?.unwrap_or(now));
            if until > now {
                return Ok(Claim::Deferred(until));
            }
        }
        if request.trigger == Trigger::Expired
            && connection.refresh_failures > 0
            && let Some(until) = connection.refresh_due_at.filter(|due| *due > now)
        {
            return Ok(Claim::Deferred(until));
        }
        if connection.client_id != request.client_id {
            postpone(
                tx,
                connection,
                now + CLIENT_ID_CHANGED_REST,
                Some(StatusReason::ClientIdChanged),
                0,
                now,
            )
            .await?;
            return Ok(Claim::NotRefreshable(Box::new(open)));
        }
        let key = row.data_key(&self.vault, &connection.application)?;
        let token = match &key {
            Some(key) => row.refresh_token(key, &connection.application)?,
            None => None,
        };
        let (Some(data_key), Some(refresh_token)) = (key, token) else {
            return Ok(Claim::NotRefreshable(Box::new(open)));
        };
        let attempt = self.insert_attempt(tx, connection, request).await?;
        Ok(Claim::Claimed(Box::new(ClaimedRefresh {
            attempt,
            open,
            refresh_token,
            data_key,
        })))
    }

    async fn insert_attempt(
        &self,
        tx: &mut Tx,
        connection: &Connection,
        request: &ClaimRequest<'_>,
    ) -> Result<RefreshAttempt, StoreError> {
        within!(tx, |c| sqlx::query(SET_LEASE)
            .bind(connection.id.as_str())
            .bind(request.owner.as_str())
            .bind(request.now + request.lease)
            .execute(c)
            .await
            .map(drop))?;
        let attempt = RefreshAttempt {
            id: RefreshAttemptId::new(request.now, &self.random),
            connection_id: connection.id.clone(),
            application: connection.application.clone(),
            generation: connection.generation,
            trigger: request.trigger,
            after_unknown: connection.outcome_unknown,
            started_at: request.now,
            finished_at: None,
            outcome: None,
            http_status: None,
            error: None,
        };
        within!(tx, |c| sqlx::query(INSERT_ATTEMPT)
            .bind(attempt.id.as_str())
            .bind(attempt.connection_id.as_str())
            .bind(attempt.application.as_str())
            .bind(attempt.generation)
            .bind(attempt.trigger.as_str())
            .bind(attempt.after_unknown)
            .bind(request.owner.as_str())
            .bind(attempt.started_at)
            .execute(c)
            .await
            .map(drop))?;
        Ok(attempt)
    }

    /// Stores a new token set by compare-and-swap on the generation that the attempt spent, with the finished attempt,
    /// what is told and what is audited. False when the row has moved on (then only the attempt is finished).
    pub async fn store_refreshed(
        &self,
        attempt: &RefreshAttemptId,
        spent_generation: i64,
        succeeded: &SucceededRefresh<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let next = &succeeded.next;
        let mut tx = self.database.begin().await?;
        let stored = update_connection(&mut tx, next, spent_generation).await?;
        let outcome = if stored {
            RefreshOutcome::Succeeded
        } else {
            RefreshOutcome::Superseded
        };
        if stored {
            update_tokens(&mut tx, next, succeeded.tokens, succeeded.data_key).await?;
            insert_event(&mut tx, &succeeded.event).await?;
            insert_audit(&mut tx, &succeeded.audit, &self.random).await?;
        }
        finish_attempt(&mut tx, attempt, outcome, Some(200), None, now).await?;
        tx.commit().await?;
        Ok(stored)
    }

    /// Writes down how an attempt failed. False when the row has moved on: then only the attempt is finished. False too when
    /// somebody else gave the attempt up after its lease: what that made of the row stands.
    pub async fn store_failed(
        &self,
        attempt: &RefreshAttempt,
        failed: &FailedRefresh,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.database.begin().await?;
        if !is_still_open(&mut tx, attempt).await? {
            tx.rollback().await?;
            return Ok(false);
        }
        let stored = update_connection(&mut tx, &failed.next, attempt.generation).await?;
        if stored {
            for event in &failed.events {
                insert_event(&mut tx, event).await?;
            }
            if let Some(audit) = &failed.audit {
                insert_audit(&mut tx, audit, &self.random).await?;
            }
        }
        finish_attempt(
            &mut tx,
            &attempt.id,
            failed.outcome,
            failed.http_status,
            failed.error.as_deref(),
            now,
        )
        .await?;
        tx.commit().await?;
        Ok(stored)
    }

    /// The connection behind a refresh attempt's rescue file with its data key, while it still has one.
    pub async fn find_for_rescue(
        &self,
        id: &ConnectionId,
    ) -> Result<Option<(Connection, Option<DataKey>)>, StoreError> {
        let row: Option<ConnectionRow> = read!(&self.database, |c| sqlx::query_as(FIND_FOR_CLAIM)
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?;
        let Some(row) = row else { return Ok(None) };
        let connection = row.connection()?;
        let key = row.data_key(&self.vault, &connection.application)?;
        Ok(Some((connection, key)))
    }

    /// The newest refresh attempts of a connection, newest first.
    pub async fn list_refresh_attempts(
        &self,
        id: &ConnectionId,
        limit: u32,
    ) -> Result<Vec<RefreshAttempt>, StoreError> {
        let rows: Vec<AttemptRow> = read!(&self.database, |c| sqlx::query_as(LIST_ATTEMPTS)
            .bind(id.as_str())
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?;
        rows.into_iter().map(AttemptRow::attempt).collect()
    }

    /// Active connections whose refreshing fails, is overdue since `overdue_since` or is impossible, and whose access token
    /// ends between `now` and `until`, unless all `marks` warnings were told.
    pub async fn list_to_warn(
        &self,
        application: &ApplicationId,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        marks: i64,
        overdue_since: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Connection>, StoreError> {
        let rows: Vec<ConnectionRow> = read!(&self.database, |c| sqlx::query_as(LIST_TO_WARN)
            .bind(application.as_str())
            .bind(until)
            .bind(now)
            .bind(marks)
            .bind(overdue_since)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?;
        rows.iter().map(ConnectionRow::connection).collect()
    }

    /// Moves the due time of a connection to `until`, if it is earlier and the token set is still this one.
    pub async fn put_off_refresh(
        &self,
        connection: &Connection,
        until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        within!(&mut tx, |c| sqlx::query(PUT_OFF)
            .bind(connection.id.as_str())
            .bind(connection.generation)
            .bind(until)
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        tx.commit().await
    }

    /// Notes that the first `marks` expiry warnings of this generation are told, with the event that tells the last. False
    /// when somebody else has told it.
    pub async fn store_expiry_warning(
        &self,
        connection: &Connection,
        marks: i64,
        event: &NewEvent,
    ) -> Result<bool, StoreError> {
        let mut tx = self.database.begin().await?;
        let changed = within!(&mut tx, |c| sqlx::query(SET_MARKS)
            .bind(connection.id.as_str())
            .bind(connection.generation)
            .bind(marks)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        if changed == 1 {
            insert_event(&mut tx, event).await?;
            tx.commit().await?;
        }
        Ok(changed == 1)
    }
}

/// Closes attempts that are open although nobody holds the lease: their process died, and the token may be spent.
async fn abandon_open_attempts(
    tx: &mut Tx,
    connection: &Connection,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, StoreError> {
    let abandoned = within!(tx, |c| sqlx::query(ABANDON_ATTEMPTS)
        .bind(connection.id.as_str())
        .bind(connection.generation)
        .bind(now)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    if abandoned == 0 {
        return Ok(None);
    }
    let until = retry_after_unknown(connection, now);
    let abandoned = Connection {
        outcome_unknown: true,
        ..connection.clone()
    };
    postpone(tx, &abandoned, until, connection.status_reason, 1, now).await?;
    Ok(Some(until))
}

/// Whether an attempt was not given up by somebody else, who then cannot do so until the transaction ends.
async fn is_still_open(tx: &mut Tx, attempt: &RefreshAttempt) -> Result<bool, StoreError> {
    if tx.is_postgres() {
        within!(tx, |c| sqlx::query(LOCK_CONNECTION)
            .bind(attempt.connection_id.as_str())
            .execute(c)
            .await
            .map(drop))?;
    }
    let open: i64 = within!(tx, |c| sqlx::query_scalar(IS_OPEN)
        .bind(attempt.id.as_str())
        .fetch_one(c)
        .await)?;
    Ok(open == 1)
}

async fn last_unknown(tx: &mut Tx, connection: &Connection) -> Result<Option<DateTime<Utc>>, StoreError> {
    Ok(within!(tx, |c| sqlx::query_scalar(LAST_UNKNOWN)
        .bind(connection.id.as_str())
        .bind(connection.generation)
        .fetch_one(c)
        .await)?)
}

async fn postpone(
    tx: &mut Tx,
    connection: &Connection,
    until: DateTime<Utc>,
    reason: Option<StatusReason>,
    failures: i64,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    within!(tx, |c| sqlx::query(POSTPONE)
        .bind(connection.id.as_str())
        .bind(until)
        .bind(reason.map(StatusReason::as_str))
        .bind(connection.outcome_unknown)
        .bind(failures)
        .bind(now)
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

async fn finish_attempt(
    tx: &mut Tx,
    id: &RefreshAttemptId,
    outcome: RefreshOutcome,
    http_status: Option<u16>,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    within!(tx, |c| sqlx::query(FINISH_ATTEMPT)
        .bind(id.as_str())
        .bind(now)
        .bind(outcome.as_str())
        .bind(http_status.map(i64::from))
        .bind(error)
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}
