//! The audit log: who did what, from where, in which request; written in the transaction of the change.
//!
//! The chain columns stay empty here: one worker chains the rows afterwards, so that no commit queues for the chain's tail
//! (DESIGN.md section 10).

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

use super::dispatch::{Tx, read, statements, within};
use super::{Page, Store, StoreError};
use crate::domain::event::NewAudit;
use crate::domain::ids::{ApplicationId, AuditId};
use crate::domain::random::Random;

statements! {
    INSERT_AUDIT = "INSERT INTO audit_log (id, at, application, actor_kind, actor_id, address, request_id, action, target, detail) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    LIST_AUDIT = "SELECT id, at, application, actor_kind, actor_id, address, request_id, action, target, detail FROM audit_log \
        WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) AND (CAST($2 AS TEXT) IS NULL OR target = $2) \
        AND (CAST($3 AS TEXT) IS NULL OR action = $3) AND (CAST($4 AS TEXT) IS NULL OR id < $4) ORDER BY id DESC LIMIT $5";
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize, utoipa::ToSchema)]
#[schema(as = AuditRow)]
pub struct AuditRow {
    /// Our id; sorts by time.
    pub id: String,
    /// When.
    pub at: DateTime<Utc>,
    /// In which application, where it is of one.
    pub application: Option<String>,
    /// Kind of who acted.
    pub actor_kind: String,
    /// Which one of the kind.
    pub actor_id: Option<String>,
    /// Client address.
    pub address: Option<String>,
    /// `X-Request-Id`.
    pub request_id: Option<String>,
    /// What was done.
    pub action: String,
    /// On what.
    pub target: Option<String>,
    /// More, never a secret.
    #[sqlx(json)]
    pub detail: Value,
}

/// Which audit rows to list.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only of this application.
    pub application: Option<ApplicationId>,
    /// Only on this target.
    pub target: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only before this id (the cursor of the page before).
    pub before: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// Writes an audit row in the transaction of the change that it tells.
pub(super) async fn insert_audit(tx: &mut Tx, audit: &NewAudit, random: &Random) -> Result<(), StoreError> {
    let id = AuditId::new(audit.at, random);
    within!(tx, |c| sqlx::query(INSERT_AUDIT)
        .bind(id.as_str())
        .bind(audit.at)
        .bind(audit.application.as_ref().map(ApplicationId::as_str))
        .bind(audit.actor.kind.as_str())
        .bind(audit.actor.id.as_deref())
        .bind(audit.actor.address.map(|address| address.to_string()))
        .bind(audit.actor.request_id.as_deref())
        .bind(audit.action.as_str())
        .bind(audit.target.as_deref())
        .bind(Json(&audit.detail))
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

impl Store {
    /// Writes an audit row for something that changed nothing in the store (a failed sign-in, for one).
    pub async fn record_audit(&self, audit: &NewAudit) -> Result<(), StoreError> {
        let mut tx = self.database.begin().await?;
        insert_audit(&mut tx, audit, &self.random).await?;
        tx.commit().await
    }

    /// A page of the audit log, newest first; its cursor goes into [`AuditFilter::before`].
    pub async fn list_audit(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, StoreError> {
        let rows: Vec<AuditRow> = read!(&self.database, |c| sqlx::query_as(LIST_AUDIT)
            .bind(filter.application.as_ref().map(ApplicationId::as_str))
            .bind(filter.target.as_deref())
            .bind(filter.action.as_deref())
            .bind(filter.before.as_deref())
            .bind(i64::from(filter.limit) + 1)
            .fetch_all(c)
            .await)?;
        Ok(Page::of(rows, filter.limit, |row| row.id.clone()))
    }
}
