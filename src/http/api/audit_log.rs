//! Reading the audit log.

#![expect(unused_qualifications, reason = "in what `utoipa::path` writes for `params`")]

use axum::Json;
use axum::extract::State;
use utoipa::IntoParams;

use super::{DEFAULT_LIMIT, List, MAX_LIMIT, Refusals, cursor};
use crate::http::AppState;
use crate::http::auth::{Caller, scope};
use crate::http::error::ApiError;
use crate::http::members::{FromMembers, Members, QueryOf};
use crate::storage::{AuditFilter, AuditRow};

/// Which rows to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only on this seller, key or admin.
    target: Option<String>,
    /// Only of this action, as `connection.revoked`.
    action: Option<String>,
    /// Rows of a page: 1 to 200, 50 by default.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl FromMembers for AuditQuery {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            target: members.short_text("target", 254),
            action: members.short_text("action", 64),
            limit: members.integer("limit", 1, MAX_LIMIT),
            cursor: cursor::read(members),
        })
    }
}

/// List the audit log
///
/// Rows of the caller's application, newest first.
#[utoipa::path(
    get, path = "/v1/audit-log", tag = "Audit log", security(("api_key" = ["admin"])),
    params(AuditQuery),
    responses((status = 200, description = "A page of the audit log", body = List<AuditRow>), Refusals)
)]
pub(super) async fn list_audit_log(
    State(state): State<AppState>,
    caller: Caller<scope::Admin>,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Json<List<AuditRow>>, ApiError> {
    let filter = AuditFilter {
        application: Some(caller.application().clone()),
        target: query.target,
        action: query.action,
        before: query.cursor,
        limit: u32::try_from(query.limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(1),
    };
    let page = state.store.list_audit(&filter).await?;
    Ok(Json(List {
        data: page.data,
        next_cursor: page.next.as_deref().map(cursor::encode),
    }))
}
