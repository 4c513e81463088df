//! How everything stands.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use chrono::{DateTime, Duration, Utc};
use http::StatusCode;

use super::usage::{Subject, usage};
use super::{Query, row};
use crate::http::AppState;
use crate::http::pages::console::{Count, Overview, Place, TimelineEntry};
use crate::http::pages::usage::Usage;
use crate::http::pages::{self, Moment, Tone};
use crate::http::session::{Page, Refusal, role};
use crate::storage::{AuditFilter, AuditRow, ConnectionFilter};

/// "Soon", for an access token that ends.
const SOON: Duration = Duration::days(30);
/// So many are looked at, and so many of them shown, the first to end first.
const LOOKED_AT: u32 = 200;
const SHOWN: usize = 20;
const LATEST: u32 = 12;

pub(super) async fn show_overview(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let query = Query::of(query.as_deref());
    let overview = state.store.overview(None).await?;
    let filter = ConnectionFilter {
        expiring_before: Some(now + SOON),
        limit: LOOKED_AT,
        ..ConnectionFilter::default()
    };
    let mut expiring = state.store.list_connections(&filter).await?.data;
    expiring.sort_by_key(|connection| connection.access_token_expires_at);
    expiring.truncate(SHOWN);
    let latest = state
        .store
        .list_audit(&AuditFilter {
            limit: LATEST,
            ..AuditFilter::default()
        })
        .await?;
    let count = |label, number, tone, href| Count {
        label,
        number,
        tone,
        href,
    };
    let backlog = state.store.delivery_backlog().await?;
    let context = Overview {
        problems: problems(&state).await?,
        counts: vec![
            count(
                "Active",
                overview.active,
                Tone::Good,
                "/console/connections?status=active",
            ),
            count(
                "Refresh failing",
                overview.failing,
                Tone::Warn,
                "/console/connections?status=active",
            ),
            count(
                "Seller must reconnect",
                overview.reconnect_required,
                Tone::Bad,
                "/console/connections?status=reconnect_required",
            ),
            count(
                "Revoked",
                overview.revoked,
                Tone::Plain,
                "/console/connections?status=revoked",
            ),
            count(
                "Deliveries waiting",
                backlog.pending,
                Tone::Plain,
                "/console/deliveries?status=pending",
            ),
            count(
                "Deliveries given up",
                backlog.dead,
                if backlog.dead > 0 { Tone::Bad } else { Tone::Plain },
                "/console/deliveries?status=dead",
            ),
        ],
        usages: usages(&state, &query, now).await?,
        expiring: expiring.iter().map(|connection| row(connection, now)).collect(),
        recent: latest.data.iter().map(|audit| entry(audit, now)).collect(),
        shell: page.shell(&state, "Overview", Place::Overview),
    };
    Ok(pages::render(StatusCode::OK, &context))
}

/// What was called, by application.
async fn usages(state: &AppState, query: &Query, now: DateTime<Utc>) -> Result<Vec<Usage>, Refusal> {
    let several = state.applications.iter().nth(1).is_some();
    let mut usages = Vec::new();
    for application in state.applications.iter() {
        let subject = Subject {
            heading: if several {
                format!("Calls of {}", application.id)
            } else {
                "Calls".to_owned()
            },
            application: &application.id,
            connection: None,
            path: "/console",
        };
        usages.push(usage(state, subject, query, now).await?);
    }
    Ok(usages)
}

/// What keeps a whole application from working.
async fn problems(state: &AppState) -> Result<Vec<String>, Refusal> {
    let mut problems = Vec::new();
    for application in state.applications.iter() {
        if let Some(reason) = state
            .store
            .application_state(&application.id)
            .await?
            .suspended_reason
        {
            problems.push(format!(
                "Refreshing is stopped for application {}: {reason}.",
                application.id
            ));
        }
    }
    Ok(problems)
}

/// An audit row as a line of a timeline.
pub(super) fn entry(audit: &AuditRow, now: DateTime<Utc>) -> TimelineEntry {
    TimelineEntry {
        tone: tone(&audit.action),
        what: sentence(&audit.action),
        detail: None,
        target: audit.target.clone(),
        who: audit.actor_kind.replace('_', " "),
        at: Moment::new(audit.at, now),
    }
}

fn tone(action: &str) -> Tone {
    match action.rsplit('.').next().unwrap_or_default() {
        "connected" | "reconnected" | "imported" | "refreshed" | "resumed" => Tone::Good,
        "sign_in_failed" => Tone::Warn,
        "reconnect_required" | "suspended" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// `connection.reconnect_required` as `Connection reconnect required`.
fn sentence(action: &str) -> String {
    let words = action.replace(['.', '_'], " ").replace("api key", "API key");
    let mut characters = words.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}
