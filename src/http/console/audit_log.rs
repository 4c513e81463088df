//! The audit log, newest first.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;

use super::{Query, ROWS, address};
use crate::domain::event::AuditAction;
use crate::http::AppState;
use crate::http::pages::console::{AuditLog, AuditLogRow, Choice, Pages, Place};
use crate::http::pages::{self, Moment};
use crate::http::session::{Page, Refusal, role};
use crate::storage::AuditFilter;

const PATH: &str = "/console/audit-log";

pub(super) async fn list_audit_log(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let query = Query::of(query.as_deref());
    let filter = AuditFilter {
        application: None,
        target: query.filled("target").map(str::to_owned),
        action: query.filled("action").map(str::to_owned),
        before: query.filled("before").map(str::to_owned),
        limit: ROWS,
    };
    let found = state.store.list_audit(&filter).await?;
    let (target, action) = (
        query.filled("target").unwrap_or_default(),
        query.filled("action").unwrap_or_default(),
    );
    let with = |before: &str| {
        address(
            PATH,
            &[("target", target), ("action", action), ("before", before)],
        )
    };
    let rows = found.data.into_iter().map(|row| AuditLogRow {
        at: Moment::new(row.at, now),
        action: row.action,
        detail: row
            .detail
            .as_object()
            .is_some_and(|detail| !detail.is_empty())
            .then(|| row.detail.to_string()),
        target: row.target,
        application: row.application,
        actor_kind: row.actor_kind.replace('_', " "),
        actor_id: row.actor_id,
        address: row.address,
        request_id: row.request_id,
    });
    let context = AuditLog {
        rows: rows.collect(),
        target: target.to_owned(),
        actions: AuditAction::ALL
            .iter()
            .map(|one| Choice::new(one.as_str(), one.as_str(), one.as_str() == action))
            .collect(),
        pages: Pages {
            first: filter.before.is_some().then(|| with("")),
            next: found.next.map(|before| with(&before)),
        },
        shell: page.shell(&state, "Audit log", Place::AuditLog),
    };
    Ok(pages::render(StatusCode::OK, &context))
}
