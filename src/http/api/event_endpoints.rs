//! Event endpoints: where the platform wants to be told.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::deliveries::DeliveryView;
use super::{List, Refusals, cursor};
use crate::domain::event::{DisabledReason, EventType};
use crate::domain::ids::{EventEndpointId, EventId};
use crate::domain::problem::ProblemCode;
use crate::domain::secret::EndpointSecret;
use crate::events::{EndpointError, NewEndpoint};
use crate::http::AppState;
use crate::http::auth::{Caller, scope};
use crate::http::error::{ApiError, Problem};
use crate::http::members::{FromMembers, JsonBody, Members, PathOf};
use crate::storage::{EndpointChange, EventEndpoint};

/// Longest description, in characters.
const LONGEST_DESCRIPTION: usize = 200;

impl From<EndpointError> for ApiError {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Url(error) => Self::invalid_field("url", error),
            EndpointError::TooMany | EndpointError::Disabled => {
                Self::new(ProblemCode::Conflict, error.to_string())
            }
            EndpointError::NotFound => Self::new(ProblemCode::NotFound, error.to_string()),
            EndpointError::Store(error) => error.into(),
        }
    }
}

/// An event endpoint, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventEndpoint)]
pub(super) struct EndpointView {
    /// Id of the endpoint.
    id: String,
    /// Where events are sent.
    url: String,
    /// Which types of events it is told of; null for all.
    event_types: Option<Vec<EventType>>,
    /// What its owner calls it.
    description: Option<String>,
    /// Whether it is told anything.
    enabled: bool,
    /// Why it is not.
    disabled_reason: Option<DisabledReason>,
    /// Since when it is not.
    disabled_at: Option<DateTime<Utc>>,
    /// Since when it confirms nothing; after five days it is disabled.
    failing_since: Option<DateTime<Utc>>,
    /// Until when deliveries are also signed with the secret before the last rotation.
    previous_secret_until: Option<DateTime<Utc>>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was last changed.
    updated_at: DateTime<Utc>,
}

impl EndpointView {
    fn of(endpoint: &EventEndpoint, now: DateTime<Utc>) -> Self {
        Self {
            id: endpoint.id.to_string(),
            url: endpoint.url.clone(),
            event_types: endpoint.event_types.clone(),
            description: endpoint.description.clone(),
            enabled: endpoint.disabled.is_none(),
            disabled_reason: endpoint.disabled.map(|(_, reason)| reason),
            disabled_at: endpoint.disabled.map(|(at, _)| at),
            failing_since: endpoint.failing_since,
            previous_secret_until: endpoint.previous_secret_until.filter(|until| now < *until),
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
        }
    }
}

/// An event endpoint with its secret: shown at its creation and at a rotation only.
#[derive(Serialize, ToSchema)]
pub(super) struct EndpointWithSecret {
    /// The endpoint.
    #[serde(flatten)]
    endpoint: EndpointView,
    /// What deliveries are signed with (Standard Webhooks), `whsec_...`.
    secret: String,
}

impl EndpointWithSecret {
    fn of(endpoint: &EventEndpoint, secret: &EndpointSecret, now: DateTime<Utc>) -> Self {
        Self {
            endpoint: EndpointView::of(endpoint, now),
            secret: secret.expose().to_owned(),
        }
    }
}

/// Reads types of events: a list without repetitions, none of them the test's.
fn event_types(members: &mut Members) -> Option<Vec<EventType>> {
    let value = members.value("event_types")?;
    let texts = serde_json::from_value::<Vec<String>>(value);
    let types = texts.ok().and_then(|texts| {
        let types: Result<Vec<EventType>, _> = texts.iter().map(|text| text.parse()).collect();
        types.ok()
    });
    let types = types.filter(|types| !types.is_empty() && !types.contains(&EventType::EndpointTest));
    let Some(mut types) = types else {
        let known = EventType::ALL
            .iter()
            .filter(|one| **one != EventType::EndpointTest);
        let known: Vec<_> = known.map(|one| one.as_str()).collect();
        members.error(
            "event_types",
            format!(
                "is a list of one or more of: {}; left out for all",
                known.join(", ")
            ),
        );
        return None;
    };
    types.sort_unstable();
    types.dedup();
    Some(types)
}

/// What an event endpoint shall be.
#[derive(Debug, ToSchema)]
pub(super) struct NewEndpointRequest {
    /// Where events are sent: https, and reachable from the public internet.
    url: String,
    /// Which types of events it is told of; without it, of all.
    event_types: Option<Vec<EventType>>,
    /// A name to know it by.
    description: Option<String>,
}

impl FromMembers for NewEndpointRequest {
    fn read(members: &mut Members) -> Option<Self> {
        let url = members.text("url");
        let url = members.required("url", url);
        Some(Self {
            event_types: event_types(members),
            description: members.short_text("description", LONGEST_DESCRIPTION),
            url: url?,
        })
    }
}

/// List event endpoints
///
/// All of the caller's application, oldest first, disabled ones too.
#[utoipa::path(
    get, path = "/v1/event-endpoints", tag = "Events", security(("api_key" = ["events:write"])),
    responses((status = 200, description = "The endpoints, on one page", body = List<EndpointView>), Refusals)
)]
pub(super) async fn list_event_endpoints(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
) -> Result<Json<List<EndpointView>>, ApiError> {
    let now = state.clock.now();
    let endpoints = state.store.list_endpoints(Some(caller.application())).await?;
    Ok(Json(List {
        data: endpoints.iter().map(|one| EndpointView::of(one, now)).collect(),
        next_cursor: None,
    }))
}

/// Create an event endpoint
#[utoipa::path(
    post, path = "/v1/event-endpoints", tag = "Events", security(("api_key" = ["events:write"])),
    request_body = NewEndpointRequest,
    responses(
        (status = 201, description = "The endpoint with its secret, shown once", body = EndpointWithSecret),
        (status = 409, description = "`conflict`: the application has as many endpoints as it may have",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn create_event_endpoint(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
    JsonBody(request): JsonBody<NewEndpointRequest>,
) -> Result<(StatusCode, Json<EndpointWithSecret>), ApiError> {
    let new = NewEndpoint {
        application: caller.application().clone(),
        url: request.url,
        event_types: request.event_types,
        description: request.description,
    };
    let (endpoint, secret) = state.endpoints.create(new, caller.actor).await?;
    let body = EndpointWithSecret::of(&endpoint, &secret, state.clock.now());
    Ok((StatusCode::CREATED, Json(body)))
}

/// Get an event endpoint
#[utoipa::path(
    get, path = "/v1/event-endpoints/{id}", tag = "Events", security(("api_key" = ["events:write"])),
    params(("id" = String, Path, description = "Id of the endpoint")),
    responses(
        (status = 200, description = "The endpoint", body = EndpointView),
        (status = 404, description = "`not_found`: no such endpoint in this application",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn get_event_endpoint(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
    PathOf(id): PathOf<EventEndpointId>,
) -> Result<Json<EndpointView>, ApiError> {
    let endpoint = state.store.find_endpoint(caller.application(), &id).await?;
    let endpoint = endpoint.ok_or(EndpointError::NotFound)?;
    Ok(Json(EndpointView::of(&endpoint, state.clock.now())))
}

/// What becomes of an event endpoint; what is left out stays.
#[expect(
    clippy::option_option,
    reason = "left out, null and a value are three different wishes"
)]
#[derive(Debug, ToSchema)]
pub(super) struct EndpointChangeRequest {
    /// Where events are sent from now on; what waits goes there too.
    url: Option<String>,
    /// Which types of events it is told of from now on; null for all.
    #[schema(value_type = Option<Vec<EventType>>)]
    event_types: Option<Option<Vec<EventType>>>,
    /// A name to know it by; null for none.
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// Whether it is told anything. Enabling goes on with what waits; what happened meanwhile comes by a replay.
    enabled: Option<bool>,
}

impl FromMembers for EndpointChangeRequest {
    fn read(members: &mut Members) -> Option<Self> {
        let all_types = members.is_null("event_types");
        let no_description = members.is_null("description");
        Some(Self {
            url: members.text("url"),
            event_types: if all_types {
                members.value("event_types");
                Some(None)
            } else {
                event_types(members).map(Some)
            },
            description: if no_description {
                members.value("description");
                Some(None)
            } else {
                members.short_text("description", LONGEST_DESCRIPTION).map(Some)
            },
            enabled: members.boolean("enabled"),
        })
    }
}

/// Change an event endpoint
#[utoipa::path(
    patch, path = "/v1/event-endpoints/{id}", tag = "Events", security(("api_key" = ["events:write"])),
    params(("id" = String, Path, description = "Id of the endpoint")),
    request_body = EndpointChangeRequest,
    responses(
        (status = 200, description = "The changed endpoint", body = EndpointView),
        (status = 404, description = "`not_found`: no such endpoint in this application",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn update_event_endpoint(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
    PathOf(id): PathOf<EventEndpointId>,
    JsonBody(request): JsonBody<EndpointChangeRequest>,
) -> Result<Json<EndpointView>, ApiError> {
    let change = EndpointChange {
        url: request.url,
        event_types: request.event_types,
        description: request.description,
        enabled: request.enabled,
    };
    let application = caller.application().clone();
    let endpoint = state
        .endpoints
        .change(&application, &id, change, caller.actor)
        .await?;
    Ok(Json(EndpointView::of(&endpoint, state.clock.now())))
}

/// Delete an event endpoint
///
/// What waits for it goes with it.
#[utoipa::path(
    delete, path = "/v1/event-endpoints/{id}", tag = "Events", security(("api_key" = ["events:write"])),
    params(("id" = String, Path, description = "Id of the endpoint")),
    responses(
        (status = 200, description = "The endpoint as it stood", body = EndpointView),
        (status = 404, description = "`not_found`: no such endpoint in this application",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn delete_event_endpoint(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
    PathOf(id): PathOf<EventEndpointId>,
) -> Result<Json<EndpointView>, ApiError> {
    let application = caller.application().clone();
    let endpoint = state.endpoints.delete(&application, &id, caller.actor).await?;
    Ok(Json(EndpointView::of(&endpoint, state.clock.now())))
}

/// Rotate the secret of an event endpoint
///
/// Deliveries are signed with the new secret and the one before for 24 hours.
#[utoipa::path(
    post, path = "/v1/event-endpoints/{id}/rotate-secret", tag = "Events", security(("api_key" = ["events:write"])),
    params(("id" = String, Path, description = "Id of the endpoint")),
    responses(
        (status = 200, description = "The endpoint with its new secret, shown once", body = EndpointWithSecret),
        (status = 404, description = "`not_found`: no such endpoint in this application",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn rotate_event_endpoint_secret(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
    PathOf(id): PathOf<EventEndpointId>,
) -> Result<Json<EndpointWithSecret>, ApiError> {
    let application = caller.application().clone();
    let (endpoint, secret) = state
        .endpoints
        .rotate_secret(&application, &id, caller.actor)
        .await?;
    Ok(Json(EndpointWithSecret::of(
        &endpoint,
        &secret,
        state.clock.now(),
    )))
}

/// Test an event endpoint
///
/// Sends it an event `event_endpoint.test` now, whatever types it wants, and waits for how that goes.
#[utoipa::path(
    post, path = "/v1/event-endpoints/{id}/test", tag = "Events", security(("api_key" = ["events:write"])),
    params(("id" = String, Path, description = "Id of the endpoint")),
    responses(
        (status = 200, description = "The delivery after its first attempt", body = DeliveryView),
        (status = 404, description = "`not_found`: no such endpoint in this application",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the endpoint is disabled",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn test_event_endpoint(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
    PathOf(id): PathOf<EventEndpointId>,
) -> Result<Json<DeliveryView>, ApiError> {
    let delivery = state.endpoints.test(caller.application(), &id).await?;
    Ok(Json(DeliveryView::of(delivery)))
}

/// Which events to send again.
#[derive(Debug, ToSchema)]
pub(super) struct ReplayRequest {
    /// Events from here on.
    since: DateTime<Utc>,
    /// Events before this; now, if left out.
    until: Option<DateTime<Utc>>,
    /// `next_cursor` of the answer before.
    cursor: Option<String>,
}

impl FromMembers for ReplayRequest {
    fn read(members: &mut Members) -> Option<Self> {
        let since = members.time("since");
        let since = members.required("since", since);
        let position = cursor::read(members);
        let good = position
            .as_ref()
            .is_none_or(|text| text.parse::<EventId>().is_ok());
        if !good {
            members.error("cursor", "is none of ours");
        }
        Some(Self {
            until: members.time("until"),
            cursor: position,
            since: since?,
        })
    }
}

/// How far a replay came.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayAnswer {
    /// Deliveries that were put in line.
    deliveries: u64,
    /// What to send as `cursor`, with the same times, to go on; null if all are in line.
    next_cursor: Option<String>,
}

/// Replay events to an event endpoint
///
/// Puts the events of a time range in line for this endpoint, those that it was told of and those that it was not: after
/// an outage, or for a new endpoint. Types that it does not want are left out.
#[utoipa::path(
    post, path = "/v1/event-endpoints/{id}/replay", tag = "Events", security(("api_key" = ["events:write"])),
    params(("id" = String, Path, description = "Id of the endpoint")),
    request_body = ReplayRequest,
    responses(
        (status = 200, description = "How many were put in line", body = ReplayAnswer),
        (status = 404, description = "`not_found`: no such endpoint in this application",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the endpoint is disabled",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn replay_events(
    State(state): State<AppState>,
    caller: Caller<scope::EventsWrite>,
    PathOf(id): PathOf<EventEndpointId>,
    JsonBody(request): JsonBody<ReplayRequest>,
) -> Result<Json<ReplayAnswer>, ApiError> {
    let application = caller.application().clone();
    let range = (request.since, request.until.unwrap_or_else(|| state.clock.now()));
    let replayed = state
        .endpoints
        .replay(&application, &id, range, request.cursor, caller.actor)
        .await?;
    Ok(Json(ReplayAnswer {
        deliveries: replayed.deliveries,
        next_cursor: replayed.next.as_deref().map(cursor::encode),
    }))
}
