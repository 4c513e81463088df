//! What refreshing found out about an application as a whole: whether it is suspended because its own settings look wrong,
//! and how its last attempts went (DESIGN.md section 7).

use chrono::{DateTime, Utc};

use super::audit::insert_audit;
use super::dispatch::{read, statements, within};
use super::{Store, StoreError};
use crate::domain::event::NewAudit;
use crate::domain::ids::ApplicationId;

statements! {
    FIND_STATE = "SELECT suspended_reason, suspended_at, probe_at, resumed_at FROM application_states WHERE application = $1";
    SUSPEND = "INSERT INTO application_states (application, suspended_reason, suspended_at, probe_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (application) DO UPDATE SET suspended_reason = excluded.suspended_reason, suspended_at = excluded.suspended_at, \
        probe_at = excluded.probe_at WHERE application_states.suspended_at IS NULL";
    RESUME = "UPDATE application_states SET suspended_reason = NULL, suspended_at = NULL, probe_at = NULL, resumed_at = $2 \
        WHERE application = $1 AND suspended_at IS NOT NULL";
    TAKE_PROBE = "UPDATE application_states SET probe_at = $3 WHERE application = $1 AND suspended_at IS NOT NULL AND probe_at <= $2";
    LIST_RECENT = "SELECT connection_id, outcome, after_unknown FROM refresh_attempts WHERE application = $1 AND finished_at IS NOT NULL \
        AND finished_at > $2 ORDER BY finished_at DESC LIMIT $3";
}

/// Whether refreshing an application is stopped, and since when it runs again.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct ApplicationState {
    /// Why it is stopped; none when it runs.
    pub suspended_reason: Option<String>,
    /// Since when it is stopped.
    pub suspended_at: Option<DateTime<Utc>>,
    /// When one seller is tried again.
    pub probe_at: Option<DateTime<Utc>>,
    /// When it last went on.
    pub resumed_at: Option<DateTime<Utc>>,
}

/// How the last attempts of an application went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecentOutcomes {
    /// How many attempts there were, those after an unknown one not counted.
    pub attempts: usize,
    /// How many of them were refused as `grant_rejected`.
    pub rejected: usize,
    /// Of how many sellers.
    pub rejected_sellers: usize,
}

impl Store {
    /// Whether refreshing of an application is stopped.
    pub async fn application_state(
        &self,
        application: &ApplicationId,
    ) -> Result<ApplicationState, StoreError> {
        let state = read!(&self.database, |c| sqlx::query_as(FIND_STATE)
            .bind(application.as_str())
            .fetch_optional(c)
            .await)?;
        Ok(state.unwrap_or_default())
    }

    /// Stops refreshing an application until a probe succeeds. False when it was stopped already.
    pub async fn suspend_application(
        &self,
        application: &ApplicationId,
        reason: &str,
        probe_at: DateTime<Utc>,
        audit: &NewAudit,
    ) -> Result<bool, StoreError> {
        let mut tx = self.database.begin().await?;
        let changed = within!(&mut tx, |c| sqlx::query(SUSPEND)
            .bind(application.as_str())
            .bind(reason)
            .bind(audit.at)
            .bind(probe_at)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        if changed == 1 {
            insert_audit(&mut tx, audit, &self.random).await?;
            tx.commit().await?;
        }
        Ok(changed == 1)
    }

    /// Lets refreshing of an application go on. False when it was not stopped.
    pub async fn resume_application(
        &self,
        application: &ApplicationId,
        audit: &NewAudit,
    ) -> Result<bool, StoreError> {
        let mut tx = self.database.begin().await?;
        let changed = within!(&mut tx, |c| sqlx::query(RESUME)
            .bind(application.as_str())
            .bind(audit.at)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        if changed == 1 {
            insert_audit(&mut tx, audit, &self.random).await?;
            tx.commit().await?;
        }
        Ok(changed == 1)
    }

    /// Takes the turn to try one seller of a stopped application; the next turn comes at `next`. True for one replica only.
    pub async fn take_probe(
        &self,
        application: &ApplicationId,
        now: DateTime<Utc>,
        next: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.database.begin().await?;
        let changed = within!(&mut tx, |c| sqlx::query(TAKE_PROBE)
            .bind(application.as_str())
            .bind(now)
            .bind(next)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// How the last `limit` attempts of an application went since `since`.
    pub async fn recent_outcomes(
        &self,
        application: &ApplicationId,
        since: DateTime<Utc>,
        limit: u32,
    ) -> Result<RecentOutcomes, StoreError> {
        let rows: Vec<(String, String, bool)> = read!(&self.database, |c| sqlx::query_as(LIST_RECENT)
            .bind(application.as_str())
            .bind(since)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?;
        let counted: Vec<_> = rows
            .iter()
            .filter(|(_, _, after_unknown)| !after_unknown)
            .collect();
        let rejected: Vec<_> = counted
            .iter()
            .filter(|(_, outcome, _)| outcome == "grant_rejected")
            .collect();
        let mut sellers: Vec<&str> = rejected
            .iter()
            .map(|(connection, _, _)| connection.as_str())
            .collect();
        sellers.sort_unstable();
        sellers.dedup();
        Ok(RecentOutcomes {
            attempts: counted.len(),
            rejected: rejected.len(),
            rejected_sellers: sellers.len(),
        })
    }
}
