//! Deliveries: what was sent to which event endpoint, and how that went.

#![expect(unused_qualifications, reason = "in what `utoipa::path` writes for `params`")]

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{DEFAULT_LIMIT, List, MAX_LIMIT, Refusals, cursor};
use crate::domain::event::DeliveryStatus;
use crate::domain::ids::{DeliveryId, EventEndpointId, EventId};
use crate::http::AppState;
use crate::http::auth::{Caller, scope};
use crate::http::error::{ApiError, Problem};
use crate::http::members::{FromMembers, Members, PathOf, QueryOf};
use crate::storage::{DeliveryFilter, DeliveryRow};

/// The obligation to tell one event to one endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView {
    /// Id of the delivery.
    id: String,
    /// Where to.
    endpoint_id: String,
    /// What.
    event_id: String,
    /// Type of the event.
    event_type: String,
    /// `pending`: it will be tried (again); `delivered`: the endpoint confirmed it; `dead`: no attempt is left.
    status: String,
    /// How often it was tried.
    attempts: i64,
    /// When it is tried next; while an attempt is under way, when that is given up for lost.
    next_attempt_at: Option<DateTime<Utc>>,
    /// HTTP status of the last attempt, if there was an answer.
    last_status: Option<i64>,
    /// Why the last attempt failed.
    last_error: Option<String>,
    /// When it was put in line.
    created_at: DateTime<Utc>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

impl DeliveryView {
    pub(super) fn of(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            endpoint_id: row.endpoint_id,
            event_id: row.event_id,
            event_type: row.event_type,
            status: row.status,
            attempts: row.attempts,
            next_attempt_at: row.next_attempt_at,
            last_status: row.last_status,
            last_error: row.last_error,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }
}

/// Which deliveries to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryQuery {
    /// Only to this endpoint.
    #[param(value_type = Option<String>)]
    endpoint_id: Option<EventEndpointId>,
    /// Only of this event.
    #[param(value_type = Option<String>)]
    event_id: Option<EventId>,
    /// Only in this status.
    status: Option<DeliveryStatus>,
    /// Rows of a page: 1 to 200, 50 by default.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl FromMembers for DeliveryQuery {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            endpoint_id: members.parsed("endpoint_id"),
            event_id: members.parsed("event_id"),
            status: members.parsed("status"),
            limit: members.integer("limit", 1, MAX_LIMIT),
            cursor: cursor::read(members),
        })
    }
}

/// List deliveries
///
/// Those of the caller's application, newest event first.
#[utoipa::path(
    get, path = "/v1/deliveries", tag = "Events", security(("api_key" = ["events:read"])),
    params(DeliveryQuery),
    responses((status = 200, description = "A page of deliveries", body = List<DeliveryView>), Refusals)
)]
pub(super) async fn list_deliveries(
    State(state): State<AppState>,
    caller: Caller<scope::EventsRead>,
    QueryOf(query): QueryOf<DeliveryQuery>,
) -> Result<Json<List<DeliveryView>>, ApiError> {
    let filter = DeliveryFilter {
        application: Some(caller.application().clone()),
        endpoint_id: query.endpoint_id,
        event_id: query.event_id,
        status: query.status,
        before: query.cursor,
        limit: u32::try_from(query.limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(1),
    };
    let page = state.store.list_deliveries(&filter).await?;
    Ok(Json(List {
        data: page.data.into_iter().map(DeliveryView::of).collect(),
        next_cursor: page.next.as_deref().map(cursor::encode),
    }))
}

/// Retry a delivery
///
/// Puts it in line again, from the beginning of the schedule, also if it was delivered or given up.
#[utoipa::path(
    post, path = "/v1/deliveries/{id}/retry", tag = "Events", security(("api_key" = ["events:write"])),
    params(("id" = String, Path, description = "Id of the delivery")),
    responses(
        (status = 200, description = "The delivery, in line again", body = DeliveryView),
        (status = 404, description = "`not_found`: no such delivery in this application",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the endpoint is disabled",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn retry_delivery(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
    PathOf(id): PathOf<DeliveryId>,
) -> Result<Json<DeliveryView>, ApiError> {
    let application = caller.application().clone();
    let delivery = state.endpoints.retry(&application, &id, caller.actor).await?;
    Ok(Json(DeliveryView::of(delivery)))
}
