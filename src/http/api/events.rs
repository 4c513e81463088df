//! Events, for platforms that would rather ask than be told.

#![expect(unused_qualifications, reason = "in what `utoipa::path` writes for `params`")]

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{DEFAULT_LIMIT, List, MAX_LIMIT, Refusals, cursor};
use crate::domain::event::EventType;
use crate::domain::ids::{EventId, SellerId};
use crate::domain::problem::ProblemCode;
use crate::http::AppState;
use crate::http::auth::{Caller, scope};
use crate::http::error::{ApiError, Problem};
use crate::http::members::{FromMembers, Members, PathOf, QueryOf};
use crate::storage::{EventFilter, EventOrder, EventRow};

/// An event shows up oldest first only after this long: until then a neighbour may still come in before it.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(30);

/// An event, as it is delivered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventView {
    /// Id of the event, by which to deduplicate.
    id: String,
    /// What happened.
    #[serde(rename = "type")]
    event_type: String,
    /// When.
    timestamp: DateTime<Utc>,
    /// `application`, `seller_id`, and `connection`, `notification` or `event_endpoint`.
    #[schema(value_type = Object)]
    data: Value,
}

impl EventView {
    fn of(row: EventRow) -> Self {
        Self {
            id: row.id,
            event_type: row.event_type,
            timestamp: row.created_at,
            data: row.data,
        }
    }
}

/// Which events to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Only of this type, as `connection.revoked`.
    #[param(value_type = Option<String>)]
    r#type: Option<EventType>,
    /// Only about this seller.
    #[param(value_type = Option<String>)]
    seller_id: Option<SellerId>,
    /// `desc`, newest first, by default; `asc`, oldest first, to poll: then `next_cursor` is always there, to be sent next
    /// time, and events show up 30 seconds after they happened.
    #[param(value_type = Option<String>)]
    order: Option<Order>,
    /// Rows of a page: 1 to 200, 50 by default.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which event comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

impl std::str::FromStr for Order {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "asc" => Ok(Self::Ascending),
            "desc" => Ok(Self::Descending),
            _ => Err("is `asc` or `desc`"),
        }
    }
}

impl FromMembers for EventQuery {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            r#type: members.parsed("type"),
            seller_id: members.parsed("seller_id"),
            order: members.parsed("order"),
            limit: members.integer("limit", 1, MAX_LIMIT),
            cursor: cursor::read(members),
        })
    }
}

/// List events
///
/// Those of the caller's application, as long as `RETENTION_EVENTS` keeps them.
#[utoipa::path(
    get, path = "/v1/events", tag = "Events", security(("api_key" = ["events:read"])),
    params(EventQuery),
    responses((status = 200, description = "A page of events", body = List<EventView>), Refusals)
)]
pub(super) async fn list_events(
    State(state): State<AppState>,
    caller: Caller<scope::EventsRead>,
    QueryOf(query): QueryOf<EventQuery>,
) -> Result<Json<List<EventView>>, ApiError> {
    let order = match query.order {
        Some(Order::Ascending) => EventOrder::Forward {
            settled_before: state.clock.now() - SETTLED_AFTER,
        },
        Some(Order::Descending) | None => EventOrder::Backward,
    };
    let filter = EventFilter {
        application: caller.application().clone(),
        event_type: query.r#type,
        seller_id: query.seller_id,
        order,
        cursor: query.cursor,
        limit: u32::try_from(query.limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(1),
    };
    let page = state.store.list_events(&filter).await?;
    let next = match order {
        EventOrder::Backward => page.next,
        // Who polls goes on from here, also after the last page.
        EventOrder::Forward { .. } => page.data.last().map(|row| row.id.clone()).or(filter.cursor),
    };
    Ok(Json(List {
        data: page.data.into_iter().map(EventView::of).collect(),
        next_cursor: next.as_deref().map(cursor::encode),
    }))
}

/// Get an event
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "Events", security(("api_key" = ["events:read"])),
    params(("id" = String, Path, description = "Id of the event")),
    responses(
        (status = 200, description = "The event", body = EventView),
        (status = 404, description = "`not_found`: no such event in this application",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn get_event(
    State(state): State<AppState>,
    caller: Caller<scope::EventsRead>,
    PathOf(id): PathOf<EventId>,
) -> Result<Json<EventView>, ApiError> {
    let event = state.store.find_event(caller.application(), &id).await?;
    let event = event.ok_or_else(|| {
        ApiError::new(
            ProblemCode::NotFound,
            "no event of this application has this id, or it was kept long enough",
        )
    })?;
    Ok(Json(EventView::of(event)))
}
