//! Event endpoints. Everybody sees them; owners make, test, change and remove them.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;

use super::deliveries::shown;
use super::{Query, address, applications, notice};
use crate::domain::event::{DisabledReason, EventType};
use crate::domain::ids::{ApplicationId, EventEndpointId};
use crate::events::{EndpointError, NewEndpoint};
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::http::pages::console::{Badge, Choice, Confirm, Place, Shell};
use crate::http::pages::events::{CreatedSecret, EndpointLine, EventEndpoints};
use crate::http::pages::{self, Moment, Tone};
use crate::http::session::{Fields, Form, Page, Refusal, role};
use crate::storage::{EndpointChange, EventEndpoint};

const PATH: &str = "/console/event-endpoints";
/// Hours that a replay may go back, as the form offers them.
const REPLAYS: [i64; 4] = [1, 24, 168, 720];

pub(super) async fn list_event_endpoints(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let mut shell = page.shell(&state, "Event endpoints", Place::EventEndpoints);
    shell.notice = notice(&Query::of(query.as_deref()));
    show(&state, shell, StatusCode::OK, None, None).await
}

/// The page, with a secret that was just made, or with what is wrong with the form.
async fn show(
    state: &AppState,
    shell: Shell,
    status: StatusCode,
    created: Option<CreatedSecret>,
    refused: Option<(&Fields, String)>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let endpoints = state.store.list_endpoints(None).await?;
    let typed = |name: &'static str| match &refused {
        Some((fields, _)) => fields.text(name),
        None => "",
    };
    let ticked = |one: &EventType| {
        refused
            .as_ref()
            .is_some_and(|(fields, _)| fields.all("event_type").any(|text| text == one.as_str()))
    };
    let context = EventEndpoints {
        shell,
        created,
        rows: endpoints.iter().map(|one| line(one, now)).collect(),
        applications: applications(state, Some(typed("application"))),
        event_types: EventType::ALL
            .iter()
            .filter(|one| **one != EventType::EndpointTest)
            .map(|one| Choice::new(one.as_str(), one.as_str(), ticked(one)))
            .collect(),
        url: typed("url").to_owned(),
        problem: refused.as_ref().map(|(_, problem)| problem.clone()),
    };
    Ok(pages::render(status, &context))
}

fn line(endpoint: &EventEndpoint, now: DateTime<Utc>) -> EndpointLine {
    let (tone, label, since) = match (endpoint.disabled, endpoint.failing_since) {
        (Some((at, DisabledReason::ByHand)), _) => (Tone::Plain, "disabled", Some(at)),
        (Some((at, DisabledReason::Gone)), _) => (Tone::Bad, "gone: disabled", Some(at)),
        (Some((at, DisabledReason::Failing)), _) => (Tone::Bad, "failed for days: disabled", Some(at)),
        (None, Some(at)) => (Tone::Warn, "failing", Some(at)),
        (None, None) => (Tone::Good, "enabled", None),
    };
    let types = endpoint.event_types.as_deref().unwrap_or_default();
    EndpointLine {
        id: endpoint.id.to_string(),
        application: endpoint.application.to_string(),
        url: shown(&endpoint.url).to_owned(),
        description: endpoint.description.clone(),
        event_types: types.iter().map(|one| one.as_str()).collect(),
        state: Badge { tone, label },
        enabled: endpoint.disabled.is_none(),
        since: since.map(|at| Moment::new(at, now)),
        two_secrets_until: endpoint
            .previous_secret_until
            .filter(|until| now < *until)
            .map(|until| Moment::new(until, now)),
        deliveries_href: address("/console/deliveries", &[("endpoint", endpoint.id.as_str())]),
    }
}

pub(super) async fn create_event_endpoint(
    State(state): State<AppState>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let shell = form.shell(&state, "Event endpoints", Place::EventEndpoints);
    let made = match read(&state, &form.fields) {
        Ok(new) => state.endpoints.create(new, form.actor).await,
        Err(problem) => {
            let refused = Some((&form.fields, problem.to_owned()));
            return show(&state, shell, StatusCode::UNPROCESSABLE_ENTITY, None, refused).await;
        }
    };
    match made {
        Ok((endpoint, secret)) => {
            let url = shown(&endpoint.url).to_owned();
            let created = Some(CreatedSecret { url, secret });
            show(&state, shell, StatusCode::CREATED, created, None).await
        }
        Err(EndpointError::Store(error)) => Err(error.into()),
        Err(error) => {
            let mut problem = error.to_string();
            problem[..1].make_ascii_uppercase();
            let refused = Some((&form.fields, format!("{problem}.")));
            show(&state, shell, StatusCode::UNPROCESSABLE_ENTITY, None, refused).await
        }
    }
}

/// What the form asks for, or what is wrong with it.
fn read(state: &AppState, fields: &Fields) -> Result<NewEndpoint, &'static str> {
    let application = match fields.text("application") {
        "" => state.applications.iter().next().map(|one| one.id.clone()),
        text => text
            .parse::<ApplicationId>()
            .ok()
            .filter(|id| state.applications.get(id).is_some()),
    };
    let types: Result<Vec<EventType>, _> = fields.all("event_type").map(str::parse).collect();
    let types = types.map_err(|_| "Choose events from the list.")?;
    Ok(NewEndpoint {
        application: application.ok_or("There is no such application.")?,
        url: fields.text("url").to_owned(),
        event_types: (!types.is_empty()).then_some(types),
        description: None,
    })
}

async fn find(state: &AppState, id: &str) -> Result<EventEndpoint, ApiError> {
    let id: EventEndpointId = id.parse()?;
    let endpoints = state.store.list_endpoints(None).await?;
    endpoints
        .into_iter()
        .find(|one| one.id == id)
        .ok_or_else(ApiError::not_found)
}

/// Back to the list, which tells what was done or why not.
fn back(done: Result<&str, EndpointError>) -> Response {
    let told = match done {
        Ok(word) => address(PATH, &[("done", word)]),
        Err(error) => address(PATH, &[("failed", ApiError::from(error).code.as_str())]),
    };
    Redirect::to(&told).into_response()
}

pub(super) async fn test_event_endpoint(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let endpoint = find(&state, &id).await?;
    drop(form);
    Ok(
        match state.endpoints.test(&endpoint.application, &endpoint.id).await {
            Ok(delivery) => Redirect::to(&format!("/console/deliveries/{}", delivery.id)).into_response(),
            Err(error) => back(Err(error)),
        },
    )
}

pub(super) async fn replay_events(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let endpoint = find(&state, &id).await?;
    let hours = REPLAYS
        .iter()
        .find(|hours| hours.to_string() == form.fields.text("hours"));
    let hours = hours.copied().unwrap_or(REPLAYS[0]);
    let now = state.clock.now();
    let range = (now - TimeDelta::hours(hours), now);
    let replayed = state
        .endpoints
        .replay(&endpoint.application, &endpoint.id, range, None, form.actor)
        .await;
    Ok(back(replayed.map(|replayed| match replayed.next {
        None => "queued",
        Some(_) => "queued-partly",
    })))
}

async fn enable(
    state: &AppState,
    id: &str,
    form: Form<role::Owner>,
    enabled: bool,
) -> Result<Response, Refusal> {
    let endpoint = find(state, id).await?;
    let change = EndpointChange {
        enabled: Some(enabled),
        ..EndpointChange::default()
    };
    let changed = state
        .endpoints
        .change(&endpoint.application, &endpoint.id, change, form.actor)
        .await;
    let word = if enabled { "enabled" } else { "disabled" };
    Ok(back(changed.map(|_| word)))
}

pub(super) async fn enable_event_endpoint(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    enable(&state, &id, form, true).await
}

pub(super) async fn disable_event_endpoint(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    enable(&state, &id, form, false).await
}

pub(super) async fn rotate_secret(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let shell = form.shell(&state, "Event endpoints", Place::EventEndpoints);
    let endpoint = find(&state, &id).await?;
    let rotated = state
        .endpoints
        .rotate_secret(&endpoint.application, &endpoint.id, form.actor)
        .await;
    match rotated {
        Ok((endpoint, secret)) => {
            let url = shown(&endpoint.url).to_owned();
            show(
                &state,
                shell,
                StatusCode::OK,
                Some(CreatedSecret { url, secret }),
                None,
            )
            .await
        }
        Err(error) => Ok(back(Err(error))),
    }
}

pub(super) async fn confirm_delete(
    State(state): State<AppState>,
    Path(id): Path<String>,
    page: Page<role::Owner>,
) -> Result<Response, Refusal> {
    let endpoint = find(&state, &id).await?;
    let context = Confirm {
        shell: page.shell(&state, "Delete this endpoint?", Place::EventEndpoints),
        what: format!("{} will be told nothing more.", shown(&endpoint.url)),
        consequence: "What waits for it is dropped, and the list of its deliveries goes with it.",
        action: format!("{PATH}/{}/delete", endpoint.id),
        button: "Delete endpoint",
        back: PATH.to_owned(),
    };
    Ok(pages::render(StatusCode::OK, &context))
}

pub(super) async fn delete_event_endpoint(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let endpoint = find(&state, &id).await?;
    let deleted = state
        .endpoints
        .delete(&endpoint.application, &endpoint.id, form.actor)
        .await;
    Ok(back(deleted.map(|_| "endpoint-deleted")))
}
