//! The console: what admins see and do. Rendered here, works without scripts.
//!
//! Who may do what stands in each handler's signature ([`Page`] and [`Form`] with a role); a form answers with a 303 to
//! the page that shows the result, except where a secret is shown once.

mod api_keys;
mod audit_log;
mod connect_links;
mod connections;
mod csv;
mod deliveries;
mod event_endpoints;
mod notifications;
mod overview;
mod settings;
mod sign_in;
mod team;
#[cfg(test)]
mod tests;
mod usage;

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};
use chrono::{DateTime, Utc};

use super::AppState;
use super::pages::console::{Badge, Choice, ConnectionRow, Notice, Place, Shell};
use super::pages::{Moment, Tone};
use super::session::{Form, Page};
use crate::domain::connection::{Connection, Status, StatusReason};
use crate::domain::ids::ApplicationId;
use crate::domain::problem::ProblemCode;
use crate::storage::{Admin, Role};

/// Rows of a page.
const ROWS: u32 = 50;

pub(super) fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/console") }))
        .route("/console", get(overview::show_overview))
        .route(
            "/console/sign-in",
            get(sign_in::show_sign_in).post(sign_in::sign_in),
        )
        .route("/console/sign-out", post(sign_in::sign_out))
        .route("/console/connections", get(connections::list_connections))
        .route("/console/connections.csv", get(csv::download_connections))
        .route(
            "/console/connections/{application}/{seller_id}",
            get(connections::show_connection),
        )
        .route(
            "/console/connections/{application}/{seller_id}/refresh",
            post(connections::refresh_connection),
        )
        .route(
            "/console/connections/{application}/{seller_id}/revoke",
            get(connections::confirm_revoke).post(connections::revoke_connection),
        )
        .route("/console/connect-links/new", get(connect_links::show_form))
        .route("/console/connect-links", post(connect_links::create_connect_link))
        .route("/console/notifications", get(notifications::list_notifications))
        .route("/console/deliveries", get(deliveries::list_deliveries))
        .route("/console/deliveries/{id}", get(deliveries::show_delivery))
        .route("/console/deliveries/{id}/retry", post(deliveries::retry_delivery))
        .merge(endpoint_routes())
        .route(
            "/console/api-keys",
            get(api_keys::list_api_keys).post(api_keys::create_api_key),
        )
        .route(
            "/console/api-keys/{id}/revoke",
            get(api_keys::confirm_revoke).post(api_keys::revoke_api_key),
        )
        .route("/console/team", get(team::list_admins).post(team::create_admin))
        .route(
            "/console/team/{id}/remove",
            get(team::confirm_remove).post(team::remove_admin),
        )
        .route(
            "/console/team/{id}/reset-password",
            get(team::confirm_reset).post(team::reset_password),
        )
        .route("/console/audit-log", get(audit_log::list_audit_log))
        .route("/console/settings", get(settings::show_settings))
}

fn endpoint_routes() -> Router<AppState> {
    let at = |action: &str| format!("/console/event-endpoints/{{id}}/{action}");
    Router::new()
        .route(
            "/console/event-endpoints",
            get(event_endpoints::list_event_endpoints).post(event_endpoints::create_event_endpoint),
        )
        .route(&at("test"), post(event_endpoints::test_event_endpoint))
        .route(&at("replay"), post(event_endpoints::replay_events))
        .route(&at("enable"), post(event_endpoints::enable_event_endpoint))
        .route(&at("disable"), post(event_endpoints::disable_event_endpoint))
        .route(&at("rotate-secret"), post(event_endpoints::rotate_secret))
        .route(
            &at("delete"),
            get(event_endpoints::confirm_delete).post(event_endpoints::delete_event_endpoint),
        )
}

/// What stands around a page for this admin.
fn shell(state: &AppState, admin: &Admin, csrf_token: &str, title: impl Into<String>, place: Place) -> Shell {
    Shell {
        chrome: state.branding.chrome(),
        title: title.into(),
        place,
        email: admin.email.clone(),
        role: admin.role.as_str(),
        may_change: admin.role.includes(Role::Operator),
        is_owner: admin.role.includes(Role::Owner),
        csrf_token: csrf_token.to_owned(),
        notice: None,
    }
}

impl<R> Page<R> {
    fn shell(&self, state: &AppState, title: impl Into<String>, place: Place) -> Shell {
        shell(state, &self.admin, &self.csrf_token, title, place)
    }
}

impl<R> Form<R> {
    fn shell(&self, state: &AppState, title: impl Into<String>, place: Place) -> Shell {
        shell(state, &self.admin, &self.csrf_token, title, place)
    }
}

/// What a form did, as the page that it redirects to tells it. The address carries a word of ours and no text.
fn notice(query: &Query) -> Option<Notice> {
    let good = |text: &str| {
        Some(Notice {
            tone: Tone::Good,
            text: text.to_owned(),
        })
    };
    match query.text("done") {
        "refreshed" => good("The token was refreshed."),
        "revoked" => good("The connection was revoked. Its tokens are destroyed."),
        "key-revoked" => good("The API key was revoked."),
        "queued" => good("It is in line and will be sent."),
        "queued-partly" => good("The first 10,000 events are in line; replay the rest by the API."),
        "enabled" => good("The endpoint is enabled. What waited for it is sent now."),
        "disabled" => good("The endpoint is disabled: it is told nothing."),
        "endpoint-deleted" => good("The endpoint was deleted."),
        "removed" => good("The account was removed and its sessions ended."),
        _ => {
            let code = ProblemCode::ALL
                .iter()
                .find(|code| code.as_str() == query.text("failed"))?;
            Some(Notice {
                tone: Tone::Bad,
                text: format!("That did not work: {}.", code.title()),
            })
        }
    }
}

/// A query of a console page. What is not known is ignored: these addresses are only made by our own pages.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(query: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The parameter without blanks around it; empty if it is not there.
    fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value.trim())
    }

    /// The same, if it is there and short.
    fn filled(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty() && text.len() <= 256)
    }
}

/// An address with these parameters, without the empty ones.
fn address(path: &str, parameters: &[(&str, &str)]) -> String {
    let filled: Vec<_> = parameters.iter().filter(|(_, value)| !value.is_empty()).collect();
    if filled.is_empty() {
        return path.to_owned();
    }
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(filled)
        .finish();
    format!("{path}?{query}")
}

/// The configured applications as a choice.
fn applications(state: &AppState, selected: Option<&str>) -> Vec<Choice> {
    let choice = |id: &str| Choice::new(id, id, selected == Some(id));
    state
        .applications
        .iter()
        .map(|application| choice(application.id.as_str()))
        .collect()
}

fn connection_href(application: &ApplicationId, seller_id: &str) -> String {
    format!("/console/connections/{application}/{seller_id}")
}

fn row(connection: &Connection, now: DateTime<Utc>) -> ConnectionRow {
    let moment = |at| Moment::new(at, now);
    ConnectionRow {
        href: connection_href(&connection.application, connection.seller_id.as_str()),
        seller_id: connection.seller_id.to_string(),
        application: connection.application.to_string(),
        user_id: connection.user_id.to_string(),
        state: badge(connection),
        expires: (connection.status != Status::Revoked).then(|| moment(connection.access_token_expires_at)),
        last_refreshed: connection.last_refreshed_at.map(moment),
        connected: moment(connection.connected_at),
        refresh_failures: connection.refresh_failures,
    }
}

fn badge(connection: &Connection) -> Badge {
    let (tone, label) = match connection.status {
        Status::Active if connection.refresh_failures > 0 => (Tone::Warn, "refresh failing"),
        Status::Active if !connection.has_refresh_token => (Tone::Warn, "no refresh token"),
        Status::Active => (Tone::Good, "active"),
        Status::ReconnectRequired => (Tone::Bad, "reconnect required"),
        Status::Revoked => (Tone::Plain, "revoked"),
    };
    Badge { tone, label }
}

fn reason_text(reason: StatusReason) -> &'static str {
    match reason {
        StatusReason::GrantRejected => "Mercado Pago refused the refresh token",
        StatusReason::RevokedByAdmin => "revoked by an admin",
        StatusReason::RevokedByApi => "revoked by the platform",
        StatusReason::RevokedBySeller => "unlinked by the seller at Mercado Pago",
        StatusReason::NoRefreshToken => {
            "Mercado Pago gave no refresh token (the application lacks offline_access)"
        }
        StatusReason::ClientIdChanged => "the tokens were issued for another client_id",
    }
}
