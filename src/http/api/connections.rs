//! Reading, changing, refreshing and ending connections.

#![expect(unused_qualifications, reason = "in what `utoipa::path` writes for `params`")]

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{DEFAULT_LIMIT, List, MAX_LIMIT, MAX_METADATA, Refusals, SellerInPath, cursor, merge_patch};
use crate::domain::connection::{Connection, ConnectionView, Status, StatusReason, Trigger};
use crate::domain::event::{Actor, AuditAction, NewAudit};
use crate::domain::problem::ProblemCode;
use crate::http::AppState;
use crate::http::auth::{Caller, scope};
use crate::http::error::{ApiError, Problem};
use crate::http::members::{FromMembers, JsonBody, Members, PathOf, QueryOf};
use crate::refresh::RefreshError;
use crate::storage::ConnectionFilter;

/// How long a caller waits for a refresh; the refresh itself goes on.
const REFRESH_DEADLINE: Duration = Duration::from_secs(25);

/// Which connections to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectionsQuery {
    /// Only in this status.
    status: Option<Status>,
    /// Only those whose `seller_id` or `user_id` contains this.
    q: Option<String>,
    /// Only those, not revoked, whose access token ends before this instant.
    expiring_before: Option<DateTime<Utc>>,
    /// Rows of a page: 1 to 200, 50 by default.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<(String, String)>,
}

impl FromMembers for ConnectionsQuery {
    fn read(members: &mut Members) -> Option<Self> {
        let status = members.text("status");
        let known = status.as_deref().and_then(|text| text.parse().ok());
        if status.is_some() && known.is_none() {
            members.error(
                "status",
                "is none of `active`, `reconnect_required` and `revoked`",
            );
        }
        let position = cursor::read(members);
        let cursor = position.as_deref().and_then(|position| position.split_once('/'));
        if position.is_some() && cursor.is_none() {
            members.error(
                "cursor",
                "is none of ours; send `next_cursor` of the page before as it was",
            );
        }
        Some(Self {
            status: known,
            q: members.short_text("q", 128),
            expiring_before: members.time("expiring_before"),
            limit: members.integer("limit", 1, MAX_LIMIT),
            cursor: cursor.map(|(seller, application)| (seller.to_owned(), application.to_owned())),
        })
    }
}

/// List connections
///
/// By `seller_id`, revoked ones too.
#[utoipa::path(
    get, path = "/v1/connections", tag = "Connections", security(("api_key" = ["connections:read"])),
    params(ConnectionsQuery),
    responses((status = 200, description = "A page of connections", body = List<ConnectionView>), Refusals)
)]
pub(super) async fn list_connections(
    State(state): State<AppState>,
    caller: Caller<scope::ConnectionsRead>,
    QueryOf(query): QueryOf<ConnectionsQuery>,
) -> Result<Json<List<ConnectionView>>, ApiError> {
    let filter = ConnectionFilter {
        application: Some(caller.application().clone()),
        status: query.status,
        q: query.q,
        expiring_before: query.expiring_before,
        after: query.cursor,
        limit: u32::try_from(query.limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(1),
    };
    let page = state.store.list_connections(&filter).await?;
    Ok(Json(List {
        data: page
            .data
            .iter()
            .map(|connection| view(&state, connection))
            .collect(),
        next_cursor: page.next.as_deref().map(cursor::encode),
    }))
}

/// Get a connection
///
/// Never a token. Revoked connections stay readable.
#[utoipa::path(
    get, path = "/v1/connections/{seller_id}", tag = "Connections", security(("api_key" = ["connections:read"])),
    params(("seller_id" = String, Path, description = "Your own id of the seller")),
    responses((status = 200, description = "The connection", body = ConnectionView), Refusals, NotConnected)
)]
pub(super) async fn get_connection(
    State(state): State<AppState>,
    caller: Caller<scope::ConnectionsRead>,
    PathOf(SellerInPath(seller)): PathOf<SellerInPath>,
) -> Result<Json<ConnectionView>, ApiError> {
    let connection = state.store.find_connection(caller.application(), &seller).await?;
    let connection = connection.ok_or_else(ApiError::connection_not_found)?;
    Ok(Json(view(&state, &connection)))
}

/// What changes of a connection.
#[derive(Debug, ToSchema)]
pub(super) struct ConnectionUpdate {
    /// A JSON merge patch (RFC 7396) of the metadata: members are set, null removes one.
    #[schema(value_type = Object)]
    metadata: Value,
}

impl FromMembers for ConnectionUpdate {
    fn read(members: &mut Members) -> Option<Self> {
        let metadata = members.object("metadata", MAX_METADATA);
        Some(Self {
            metadata: members.required("metadata", metadata)?,
        })
    }
}

/// Change a connection's metadata
#[utoipa::path(
    patch, path = "/v1/connections/{seller_id}", tag = "Connections", security(("api_key" = ["connections:write"])),
    params(("seller_id" = String, Path, description = "Your own id of the seller")),
    request_body = ConnectionUpdate,
    responses((status = 200, description = "The connection", body = ConnectionView), Refusals, NotConnected)
)]
pub(super) async fn update_connection(
    State(state): State<AppState>,
    caller: Caller<scope::ConnectionsWrite>,
    PathOf(SellerInPath(seller)): PathOf<SellerInPath>,
    JsonBody(update): JsonBody<ConnectionUpdate>,
) -> Result<Json<ConnectionView>, ApiError> {
    let application = caller.application().clone();
    let current = state.store.find_connection(&application, &seller).await?;
    let current = current.ok_or_else(ApiError::connection_not_found)?;
    if merge_patch(current.metadata, update.metadata.clone())
        .to_string()
        .len()
        > MAX_METADATA
    {
        return Err(ApiError::invalid_field(
            "metadata",
            format!("would have more than {MAX_METADATA} bytes"),
        ));
    }
    let change = |metadata| merge_patch(metadata, update.metadata);
    let now = state.clock.now();
    let changed = state
        .store
        .change_metadata(&application, &seller, change, caller.actor, now)
        .await?;
    let changed = changed.ok_or_else(ApiError::connection_not_found)?;
    Ok(Json(view(&state, &changed)))
}

/// Refresh a connection's token now
///
/// Spends the refresh token, whatever the status but `revoked`. It is the only way by which a connection in
/// `reconnect_required` tries its token again.
#[utoipa::path(
    post, path = "/v1/connections/{seller_id}/refresh", tag = "Connections", security(("api_key" = ["connections:write"])),
    params(("seller_id" = String, Path, description = "Your own id of the seller")),
    responses(
        (status = 200, description = "The connection with its new token set", body = ConnectionView),
        (status = 409, description = "`reconnect_required` or `connection_revoked`: only the seller can mend it",
            body = Problem, content_type = "application/problem+json"),
        Refusals, NotConnected,
        (status = 503, description = "`token_unavailable`: refreshing fails for now; or `store_unavailable`; with `Retry-After`",
            body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn refresh_connection(
    State(state): State<AppState>,
    caller: Caller<scope::ConnectionsWrite>,
    PathOf(SellerInPath(seller)): PathOf<SellerInPath>,
) -> Result<Json<ConnectionView>, ApiError> {
    let connection = state.store.find_connection(caller.application(), &seller).await?;
    let connection = connection.ok_or_else(ApiError::connection_not_found)?;
    let refreshed = refresh_now(&state, &connection, caller.actor).await?;
    Ok(Json(view(&state, &refreshed)))
}

/// Refreshes because somebody asked, audited.
pub(in crate::http) async fn refresh_now(
    state: &AppState,
    connection: &Connection,
    actor: Actor,
) -> Result<Connection, ApiError> {
    if connection.status == Status::Revoked {
        return Err(RefreshError::Revoked.into());
    }
    let audit = NewAudit {
        actor,
        action: AuditAction::ConnectionRefreshRequested,
        application: Some(connection.application.clone()),
        target: Some(connection.seller_id.to_string()),
        at: state.clock.now(),
        detail: serde_json::json!({ "generation": connection.generation }),
    };
    state.store.record_audit(&audit).await?;
    // Asked twice for the same token set, it is spent once.
    let refresh = state
        .refresher
        .refresh(&connection.id, Some(connection.generation), Trigger::Manual);
    match tokio::time::timeout(REFRESH_DEADLINE, refresh).await {
        Ok(opened) => Ok(opened?.connection),
        Err(_) => Err(ApiError::new(
            ProblemCode::TokenUnavailable,
            "the refresh is still under way; look at the connection in a moment",
        )),
    }
}

/// Revoke a connection
///
/// Tokens and data key are destroyed at once; calls answer 409 `connection_revoked` within a second. Revoking a revoked
/// connection changes nothing.
#[utoipa::path(
    delete, path = "/v1/connections/{seller_id}", tag = "Connections", security(("api_key" = ["connections:revoke"])),
    params(("seller_id" = String, Path, description = "Your own id of the seller")),
    responses((status = 200, description = "The revoked connection", body = ConnectionView), Refusals, NotConnected)
)]
pub(super) async fn revoke_connection(
    State(state): State<AppState>,
    caller: Caller<scope::ConnectionsRevoke>,
    PathOf(SellerInPath(seller)): PathOf<SellerInPath>,
) -> Result<Json<ConnectionView>, ApiError> {
    let application = caller.application().clone();
    let ended = state
        .revoker
        .revoke(&application, &seller, StatusReason::RevokedByApi, caller.actor)
        .await?;
    let ended = ended.ok_or_else(ApiError::connection_not_found)?;
    Ok(Json(view(&state, &ended)))
}

/// The answer for a seller without a connection.
#[derive(utoipa::IntoResponses)]
#[response(
    status = 404,
    content_type = "application/problem+json",
    description = "`connection_not_found`: absent, or of another application"
)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct NotConnected(#[to_schema] Problem);

/// A connection as the API shows it now.
pub(super) fn view(state: &AppState, connection: &Connection) -> ConnectionView {
    let application = state.applications.get(&connection.application);
    connection.view_at(
        state.clock.now(),
        application.and_then(|app| app.public_key.as_deref()),
    )
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Absent => Self::connection_not_found(),
            RefreshError::Revoked => Self::new(ProblemCode::ConnectionRevoked, error.to_string()),
            RefreshError::ReconnectRequired { .. } => {
                Self::new(ProblemCode::ReconnectRequired, error.to_string())
            }
            RefreshError::TokenUnavailable { retry_after, .. } => {
                let problem = Self::new(ProblemCode::TokenUnavailable, error.to_string());
                match retry_after {
                    Some(delay) => problem.retry_after(delay),
                    None => problem,
                }
            }
            RefreshError::StoreUnavailable => Self::new(
                ProblemCode::StoreUnavailable,
                "the connector's database does not answer; nothing was spent; try again shortly",
            ),
        }
    }
}
