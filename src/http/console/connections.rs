//! The list of connections, and one of them: its state, what happened to it, and what can be done about it.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;

use super::overview::entry;
use super::usage::{Subject, usage};
use super::{Query, ROWS, address, applications, connection_href, notice, reason_text, row};
use crate::domain::connection::{Connection, RefreshAttempt, RefreshOutcome, Status, StatusReason, Trigger};
use crate::domain::event::AuditAction;
use crate::domain::ids::{ApplicationId, SellerId};
use crate::http::AppState;
use crate::http::api::connections::refresh_now;
use crate::http::error::ApiError;
use crate::http::pages::console::{self, Choice, Confirm, Connections, Notice, Pages, Place, TimelineEntry};
use crate::http::pages::{self, Moment, Tone};
use crate::http::session::{Form, Page, Refusal, role};
use crate::storage::{AuditFilter, ConnectionFilter};

/// Attempts and audit rows on a connection's timeline.
const TIMELINE: u32 = 50;

/// The filter that a query asks for.
pub(super) fn filter_of(query: &Query, limit: u32) -> ConnectionFilter {
    ConnectionFilter {
        application: query.filled("application").and_then(|text| text.parse().ok()),
        status: query.filled("status").and_then(|text| text.parse().ok()),
        q: query.filled("q").map(str::to_owned),
        expiring_before: None,
        after: query
            .filled("after")
            .and_then(|text| text.split_once('/'))
            .map(|(seller, application)| (seller.to_owned(), application.to_owned())),
        limit,
    }
}

pub(super) async fn list_connections(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let query = Query::of(query.as_deref());
    let filter = filter_of(&query, ROWS);
    let found = state.store.list_connections(&filter).await?;
    let (q, status) = (
        query.filled("q").unwrap_or_default(),
        filter.status.map_or("", Status::as_str),
    );
    let application = filter.application.as_ref().map_or("", ApplicationId::as_str);
    let filters = [("q", q), ("status", status), ("application", application)];
    let with = |path: &str, after: &str| address(path, &[&filters[..], &[("after", after)]].concat());
    let context = Connections {
        shell: page.shell(&state, "Connections", Place::Connections),
        q: q.to_owned(),
        statuses: Status::ALL
            .iter()
            .map(|one| {
                Choice::new(
                    one.as_str(),
                    &one.as_str().replace('_', " "),
                    status == one.as_str(),
                )
            })
            .collect(),
        applications: applications(&state, Some(application)),
        filtered: filters.iter().any(|(_, value)| !value.is_empty()),
        csv_href: with("/console/connections.csv", ""),
        rows: found.data.iter().map(|connection| row(connection, now)).collect(),
        pages: Pages {
            first: filter.after.is_some().then(|| with("/console/connections", "")),
            next: found.next.map(|after| with("/console/connections", &after)),
        },
    };
    Ok(pages::render(StatusCode::OK, &context))
}

/// The connection that an address names.
async fn find(state: &AppState, (application, seller): (String, String)) -> Result<Connection, ApiError> {
    let (Ok(application), Ok(seller)) = (application.parse::<ApplicationId>(), seller.parse::<SellerId>())
    else {
        return Err(ApiError::connection_not_found());
    };
    let found = state.store.find_connection(&application, &seller).await?;
    found.ok_or_else(ApiError::connection_not_found)
}

pub(super) async fn show_connection(
    State(state): State<AppState>,
    Path(path): Path<(String, String)>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let connection = find(&state, path).await?;
    let empty = connection
        .metadata
        .as_object()
        .is_none_or(serde_json::Map::is_empty);
    let mut shell = page.shell(&state, connection.seller_id.as_str(), Place::Connections);
    let query = Query::of(query.as_deref());
    shell.notice = notice(&query);
    let href = connection_href(&connection.application, connection.seller_id.as_str());
    let subject = Subject {
        heading: "Calls".to_owned(),
        application: &connection.application,
        connection: Some(&connection.id),
        path: &href,
    };
    let context = console::Connection {
        shell,
        row: row(&connection, now),
        reason: connection.status_reason.map(reason_text),
        advice: advice(&connection, now),
        usable: connection.is_usable_at(now),
        mode: connection
            .live_mode
            .map_or("unknown", |live| if live { "live" } else { "test" }),
        refresh_due: connection.refresh_due_at.map(|at| Moment::new(at, now)),
        scopes: connection.scopes.clone(),
        public_key: connection.public_key.clone(),
        metadata: (!empty).then(|| format!("{:#}", connection.metadata)),
        may_refresh: connection.has_refresh_token,
        may_revoke: connection.status != Status::Revoked,
        reconnect_href: address(
            "/console/connect-links/new",
            &[
                ("seller_id", connection.seller_id.as_str()),
                ("application", connection.application.as_str()),
            ],
        ),
        timeline: timeline(&state, &connection, now).await?,
        usage: usage(&state, subject, &query, now).await?,
    };
    Ok(pages::render(StatusCode::OK, &context))
}

/// What somebody should know or do about it.
fn advice(connection: &Connection, now: DateTime<Utc>) -> Option<Notice> {
    let (tone, text) = match connection.status {
        Status::Revoked => (
            Tone::Plain,
            "The tokens are destroyed. Only the seller can connect again: send a reconnect link.",
        ),
        Status::ReconnectRequired if connection.is_usable_at(now) => (
            Tone::Warn,
            "Only the seller can mend this: send a reconnect link. Calls are sent until the access token ends.",
        ),
        Status::ReconnectRequired => (
            Tone::Bad,
            "Only the seller can mend this: send a reconnect link. Calls are refused until then.",
        ),
        Status::Active if !connection.has_refresh_token => (
            Tone::Warn,
            "It cannot be renewed and ends with its access token. Give the application offline_access at Mercado Pago, \
             then send a reconnect link.",
        ),
        Status::Active if connection.refresh_failures > 0 => (
            Tone::Warn,
            "The last refresh failed; it is tried again by itself. The timeline says why.",
        ),
        Status::Active => return None,
    };
    Some(Notice {
        tone,
        text: text.to_owned(),
    })
}

/// Refresh attempts and audit rows together, newest first.
async fn timeline(
    state: &AppState,
    connection: &Connection,
    now: DateTime<Utc>,
) -> Result<Vec<TimelineEntry>, ApiError> {
    let attempts = state
        .store
        .list_refresh_attempts(&connection.id, TIMELINE)
        .await?;
    let filter = AuditFilter {
        application: Some(connection.application.clone()),
        target: Some(connection.seller_id.to_string()),
        limit: TIMELINE,
        ..AuditFilter::default()
    };
    let audits = state.store.list_audit(&filter).await?.data;
    // A refresh that succeeded has its attempt here already.
    let audits = audits
        .iter()
        .filter(|audit| audit.action != AuditAction::ConnectionRefreshed.as_str());
    let mut entries: Vec<_> = audits
        .map(|audit| {
            (
                audit.at,
                TimelineEntry {
                    target: None,
                    ..entry(audit, now)
                },
            )
        })
        .collect();
    entries.extend(
        attempts
            .iter()
            .map(|attempt| (attempt.started_at, attempt_entry(attempt, now))),
    );
    entries.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn attempt_entry(attempt: &RefreshAttempt, now: DateTime<Utc>) -> TimelineEntry {
    let (tone, what) = match attempt.outcome {
        None => (Tone::Plain, "Refresh under way"),
        Some(RefreshOutcome::Succeeded) => (Tone::Good, "Refreshed"),
        Some(RefreshOutcome::Unknown) => (Tone::Warn, "Refresh without a readable answer"),
        Some(RefreshOutcome::GrantRejected) => (Tone::Bad, "Refresh token refused"),
        Some(RefreshOutcome::ClientRejected) => (Tone::Bad, "Our own credentials refused"),
        Some(RefreshOutcome::Throttled) => (Tone::Warn, "Refresh put off by Mercado Pago"),
        Some(RefreshOutcome::Unavailable) => (Tone::Warn, "Mercado Pago not available"),
        Some(RefreshOutcome::ClientIdChanged) => (Tone::Bad, "Not sent: the client_id changed"),
        Some(RefreshOutcome::Superseded) => (Tone::Plain, "Refresh not needed any more"),
    };
    let status = attempt.http_status.map(|status| format!("HTTP {status}"));
    let detail: Vec<_> = status.into_iter().chain(attempt.error.clone()).collect();
    TimelineEntry {
        tone,
        what: what.to_owned(),
        detail: (!detail.is_empty()).then(|| detail.join(", ")),
        target: None,
        who: match attempt.trigger {
            Trigger::Schedule => "on schedule",
            Trigger::Expired => "for a call",
            Trigger::Unauthorized => "after a 401",
            Trigger::Manual => "by hand",
        }
        .to_owned(),
        at: Moment::new(attempt.started_at, now),
    }
}

pub(super) async fn refresh_connection(
    State(state): State<AppState>,
    Path(path): Path<(String, String)>,
    form: Form<role::Operator>,
) -> Result<Redirect, Refusal> {
    let connection = find(&state, path).await?;
    let href = connection_href(&connection.application, connection.seller_id.as_str());
    let result = match refresh_now(&state, &connection, form.actor).await {
        Ok(_) => ("done", "refreshed"),
        Err(error) => ("failed", error.code.as_str()),
    };
    Ok(Redirect::to(&address(&href, &[result])))
}

pub(super) async fn confirm_revoke(
    State(state): State<AppState>,
    Path(path): Path<(String, String)>,
    page: Page<role::Operator>,
) -> Result<Response, Refusal> {
    let connection = find(&state, path).await?;
    let href = connection_href(&connection.application, connection.seller_id.as_str());
    let context = Confirm {
        shell: page.shell(
            &state,
            format!("Revoke {}?", connection.seller_id),
            Place::Connections,
        ),
        what: format!(
            "The connection of {} with Mercado Pago account {} will be ended.",
            connection.seller_id, connection.user_id
        ),
        consequence: "Its tokens are destroyed at once and calls answer 409 connection_revoked. Only the seller can connect again.",
        action: format!("{href}/revoke"),
        button: "Revoke connection",
        back: href,
    };
    Ok(pages::render(StatusCode::OK, &context))
}

pub(super) async fn revoke_connection(
    State(state): State<AppState>,
    Path(path): Path<(String, String)>,
    form: Form<role::Operator>,
) -> Result<Response, Refusal> {
    let connection = find(&state, path).await?;
    let (application, seller) = (&connection.application, &connection.seller_id);
    state
        .revoker
        .revoke(application, seller, StatusReason::RevokedByAdmin, form.actor)
        .await?;
    let href = connection_href(application, seller.as_str());
    Ok(Redirect::to(&address(&href, &[("done", "revoked")])).into_response())
}
