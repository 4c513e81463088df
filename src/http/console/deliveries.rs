//! Deliveries: all of them, and one with its attempts.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;

use super::{Query, ROWS, address, notice};
use crate::domain::event::DeliveryStatus;
use crate::domain::ids::{ApplicationId, DeliveryId};
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::http::pages::console::{Badge, Choice, Pages, Place};
use crate::http::pages::events::{AttemptLine, Deliveries, Delivery, DeliveryLine};
use crate::http::pages::{self, Moment, Tone};
use crate::http::session::{Form, Page, Refusal, role};
use crate::storage::{DeliveryFilter, DeliveryRow, EventEndpoint};

const PATH: &str = "/console/deliveries";

pub(super) async fn list_deliveries(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let query = Query::of(query.as_deref());
    let filter = DeliveryFilter {
        application: None,
        endpoint_id: query.filled("endpoint").and_then(|text| text.parse().ok()),
        event_id: query.filled("event").and_then(|text| text.parse().ok()),
        status: query.filled("status").and_then(|text| text.parse().ok()),
        before: query.filled("before").map(str::to_owned),
        limit: ROWS,
    };
    let endpoints = state.store.list_endpoints(None).await?;
    let found = state.store.list_deliveries(&filter).await?;
    let (status, endpoint, event) = (
        filter.status.map_or("", DeliveryStatus::as_str),
        filter.endpoint_id.as_ref().map_or("", |id| id.as_str()),
        filter.event_id.as_ref().map_or("", |id| id.as_str()),
    );
    let with = |before: &str| {
        let parameters = [
            ("status", status),
            ("endpoint", endpoint),
            ("event", event),
            ("before", before),
        ];
        address(PATH, &parameters)
    };
    let context = Deliveries {
        rows: found.data.iter().map(|row| line(row, &endpoints, now)).collect(),
        statuses: DeliveryStatus::ALL
            .iter()
            .map(|one| Choice::new(one.as_str(), one.as_str(), one.as_str() == status))
            .collect(),
        endpoints: endpoints
            .iter()
            .map(|one| Choice::new(one.id.as_str(), shown(&one.url), one.id.as_str() == endpoint))
            .collect(),
        pages: Pages {
            first: filter.before.is_some().then(|| with("")),
            next: found.next.map(|before| with(&before)),
        },
        shell: page.shell(&state, "Deliveries", Place::Deliveries),
    };
    Ok(pages::render(StatusCode::OK, &context))
}

/// An address without its query, which may hold a secret of the receiver's.
pub(super) fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

fn line(row: &DeliveryRow, endpoints: &[EventEndpoint], now: DateTime<Utc>) -> DeliveryLine {
    let state = match row.status.as_str() {
        "delivered" => Badge {
            tone: Tone::Good,
            label: "delivered",
        },
        "dead" => Badge {
            tone: Tone::Bad,
            label: "dead",
        },
        _ if row.attempts > 0 => Badge {
            tone: Tone::Warn,
            label: "failing",
        },
        _ => Badge {
            tone: Tone::Plain,
            label: "pending",
        },
    };
    let endpoint = endpoints.iter().find(|one| one.id.as_str() == row.endpoint_id);
    DeliveryLine {
        href: format!("{PATH}/{}", row.id),
        id: row.id.clone(),
        event_type: row.event_type.clone(),
        endpoint_url: endpoint.map_or_else(String::new, |one| shown(&one.url).to_owned()),
        state,
        attempts: row.attempts,
        last: row.last_error.clone(),
        created: Moment::new(row.created_at, now),
        next: row.next_attempt_at.map(|at| Moment::new(at, now)),
    }
}

async fn find(state: &AppState, id: &str) -> Result<(DeliveryId, DeliveryRow), ApiError> {
    let id: DeliveryId = id.parse()?;
    let row = state.store.find_delivery(None, &id).await?;
    Ok((id, row.ok_or_else(ApiError::not_found)?))
}

pub(super) async fn show_delivery(
    State(state): State<AppState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let (id, row) = find(&state, &id).await?;
    let application: ApplicationId = row.application.parse()?;
    let event = state
        .store
        .find_event(&application, &row.event_id.parse()?)
        .await?;
    let attempts = state.store.list_delivery_attempts(&id).await?;
    let endpoints = state.store.list_endpoints(Some(&application)).await?;
    let attempts = attempts.into_iter().map(|attempt| AttemptLine {
        number: attempt.number,
        started: Moment::new(attempt.started_at, now),
        milliseconds: attempt.duration_ms,
        result: match (attempt.error, attempt.http_status) {
            (Some(error), _) => error,
            (None, status) => status.map_or_else(String::new, |status| format!("answered {status}")),
        },
        answer: attempt.answer,
    });
    let mut shell = page.shell(&state, row.event_type.clone(), Place::Deliveries);
    shell.notice = notice(&Query::of(query.as_deref()));
    let context = Delivery {
        row: line(&row, &endpoints, now),
        body: event.map_or_else(String::new, |event| format!("{:#}", event.data)),
        event_id: row.event_id,
        attempts: attempts.collect(),
        shell,
    };
    Ok(pages::render(StatusCode::OK, &context))
}

pub(super) async fn retry_delivery(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Operator>,
) -> Result<Response, Refusal> {
    let (id, row) = find(&state, &id).await?;
    let application: ApplicationId = row.application.parse()?;
    let done = match state.endpoints.retry(&application, &id, form.actor).await {
        Ok(_) => ("done", "queued"),
        Err(error) => ("failed", ApiError::from(error).code.as_str()),
    };
    Ok(Redirect::to(&address(&format!("{PATH}/{id}"), &[done])).into_response())
}
