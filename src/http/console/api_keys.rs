//! The platform's API keys. Everybody sees them, owners make and revoke them.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;

use super::{Query, address, applications, notice};
use crate::access::{self, ApiKeyRequest};
use crate::domain::ids::{ApiKeyId, ApplicationId};
use crate::domain::scope::{Scope, Scopes};
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::http::pages::console::{ApiKeys, Badge, Choice, Confirm, CreatedKey, KeyRow, Place, Shell};
use crate::http::pages::{self, Moment, Tone};
use crate::http::session::{Fields, Form, Page, Refusal, role};
use crate::storage::ApiKey;

/// Longest name of a key, in characters.
const LONGEST_NAME: usize = 100;
/// How long a key may live, in seconds, as the form offers it.
const LIFETIMES: [i64; 3] = [2_592_000, 7_776_000, 31_536_000];

pub(super) async fn list_api_keys(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let mut shell = page.shell(&state, "API keys", Place::ApiKeys);
    shell.notice = notice(&Query::of(query.as_deref()));
    show(&state, shell, StatusCode::OK, None, None).await
}

/// The page, with a key that was just made, or with what is wrong with the form.
async fn show(
    state: &AppState,
    shell: Shell,
    status: StatusCode,
    created: Option<CreatedKey>,
    refused: Option<(&Fields, String)>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let mut keys = state.store.list_api_keys(None).await?;
    keys.sort_by_key(|key| (!key.is_valid_at(now), std::cmp::Reverse(key.created_at)));
    let ticked = |scope: &Scope| {
        refused
            .as_ref()
            .is_some_and(|(fields, _)| fields.all("scope").any(|text| text == scope.as_str()))
    };
    let application = refused.as_ref().map(|(fields, _)| fields.text("application"));
    let context = ApiKeys {
        shell,
        created,
        keys: keys.iter().map(|key| key_row(key, now)).collect(),
        applications: applications(state, application),
        scopes: Scope::ALL
            .iter()
            .map(|scope| Choice::new(scope.as_str(), scope.as_str(), ticked(scope)))
            .collect(),
        name: refused
            .as_ref()
            .map_or_else(String::new, |(fields, _)| fields.text("name").to_owned()),
        problem: refused.as_ref().map(|(_, problem)| problem.clone()),
    };
    Ok(pages::render(status, &context))
}

fn key_row(key: &ApiKey, now: DateTime<Utc>) -> KeyRow {
    let (tone, label) = match key.revoked_at {
        Some(_) => (Tone::Plain, "revoked"),
        None if key.is_valid_at(now) => (Tone::Good, "valid"),
        None => (Tone::Warn, "ended"),
    };
    KeyRow {
        id: key.id.to_string(),
        name: key.name.clone(),
        application: key.application.to_string(),
        state: Badge { tone, label },
        revocable: key.revoked_at.is_none(),
        scopes: key.scopes.iter().map(Scope::as_str).collect(),
        created: Moment::new(key.created_at, now),
        expires: key.expires_at.map(|at| Moment::new(at, now)),
        last_used: key.last_used_at.map(|at| Moment::new(at, now)),
    }
}

pub(super) async fn create_api_key(
    State(state): State<AppState>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let shell = form.shell(&state, "API keys", Place::ApiKeys);
    let now = state.clock.now();
    match read(&state, &form.fields, now) {
        Ok(request) => {
            let (key, secret) =
                access::create_api_key(&state.store, request, form.actor, now, &state.random).await?;
            let created = CreatedKey {
                name: key.name,
                secret,
            };
            show(&state, shell, StatusCode::CREATED, Some(created), None).await
        }
        Err(problem) => {
            let refused = Some((&form.fields, problem.to_owned()));
            show(&state, shell, StatusCode::UNPROCESSABLE_ENTITY, None, refused).await
        }
    }
}

/// What the form asks for, or what is wrong with it.
fn read(state: &AppState, fields: &Fields, now: DateTime<Utc>) -> Result<ApiKeyRequest, &'static str> {
    let name = fields.text("name");
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err("Give the key a name of at most 100 characters.");
    }
    let scopes: Result<Scopes, _> = fields.all("scope").map(str::parse::<Scope>).collect();
    let scopes = scopes.map_err(|_| "Choose scopes from the list.")?;
    if scopes.is_empty() {
        return Err("Choose at least one scope.");
    }
    let application = match fields.text("application") {
        "" => state
            .applications
            .iter()
            .next()
            .map(|application| application.id.clone()),
        text => text
            .parse::<ApplicationId>()
            .ok()
            .filter(|id| state.applications.get(id).is_some()),
    };
    let expires_at = match fields.text("expires_in") {
        "" => None,
        text => {
            let lifetime = LIFETIMES.iter().find(|seconds| seconds.to_string() == text);
            Some(now + TimeDelta::seconds(*lifetime.ok_or("Choose how long the key is valid.")?))
        }
    };
    let application = application.ok_or("There is no such application.")?;
    Ok(ApiKeyRequest {
        application,
        name: name.to_owned(),
        scopes,
        expires_at,
    })
}

async fn find(state: &AppState, id: &str) -> Result<ApiKey, ApiError> {
    let id: ApiKeyId = id.parse()?;
    let keys = state.store.list_api_keys(None).await?;
    keys.into_iter()
        .find(|key| key.id == id)
        .ok_or_else(ApiError::not_found)
}

pub(super) async fn confirm_revoke(
    State(state): State<AppState>,
    Path(id): Path<String>,
    page: Page<role::Owner>,
) -> Result<Response, Refusal> {
    let key = find(&state, &id).await?;
    let context = Confirm {
        shell: page.shell(&state, format!("Revoke “{}”?", key.name), Place::ApiKeys),
        what: format!("The API key “{}” ({}) will stop working.", key.name, key.id),
        consequence: "Requests with it are refused within a second. It cannot be brought back.",
        action: format!("/console/api-keys/{}/revoke", key.id),
        button: "Revoke key",
        back: "/console/api-keys".to_owned(),
    };
    Ok(pages::render(StatusCode::OK, &context))
}

pub(super) async fn revoke_api_key(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let key = find(&state, &id).await?;
    state
        .store
        .revoke_api_key(&key.id, Some(&key.application), form.actor, state.clock.now())
        .await?;
    Ok(Redirect::to(&address("/console/api-keys", &[("done", "key-revoked")])).into_response())
}
