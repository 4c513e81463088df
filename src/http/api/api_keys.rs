//! API keys of the caller's own application. A key makes no key that may do more than itself.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{List, Refusals};
use crate::access::{self, ApiKeyRequest};
use crate::domain::ids::ApiKeyId;
use crate::domain::problem::ProblemCode;
use crate::domain::scope::{Scope, Scopes};
use crate::http::AppState;
use crate::http::auth::{Caller, scope};
use crate::http::error::{ApiError, Problem};
use crate::http::members::{FromMembers, JsonBody, Members, PathOf};
use crate::storage::ApiKey;

/// Longest name of a key, in characters.
const LONGEST_NAME: usize = 100;
/// Longest life of a key that ends by itself, in seconds.
const LONGEST_LIFE: i64 = 10 * 365 * 86_400;

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(super) struct ApiKeyView {
    /// Id of the key; not what requests are sent with.
    id: String,
    /// What its owner calls it.
    name: String,
    /// What it may do.
    scopes: Vec<&'static str>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it ends by itself.
    expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    last_used_at: Option<DateTime<Utc>>,
}

impl ApiKeyView {
    fn of(key: &ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
        }
    }
}

/// An API key with its secret: the only time that it is shown.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedApiKey {
    /// The key.
    #[serde(flatten)]
    key: ApiKeyView,
    /// What requests are sent with, `mck_...`. Only a hash of it is kept.
    secret: String,
}

/// List API keys
///
/// All of the caller's application, oldest first, revoked ones too.
#[utoipa::path(
    get, path = "/v1/api-keys", tag = "API keys", security(("api_key" = ["admin"])),
    responses((status = 200, description = "The keys, on one page", body = List<ApiKeyView>), Refusals)
)]
pub(super) async fn list_api_keys(
    State(state): State<AppState>,
    caller: Caller<scope::Admin>,
) -> Result<Json<List<ApiKeyView>>, ApiError> {
    let keys = state.store.list_api_keys(Some(caller.application())).await?;
    Ok(Json(List {
        data: keys.iter().map(ApiKeyView::of).collect(),
        next_cursor: None,
    }))
}

/// What an API key shall be.
#[derive(Debug, ToSchema)]
pub(super) struct NewApiKeyRequest {
    /// A name to know it by.
    name: String,
    /// What it may do: a subset of what the caller's key may.
    #[schema(value_type = Vec<String>)]
    scopes: Scopes,
    /// Seconds after which it ends by itself; without it, it lives until revoked.
    expires_in: Option<i64>,
}

impl FromMembers for NewApiKeyRequest {
    fn read(members: &mut Members) -> Option<Self> {
        let name = members.short_text("name", LONGEST_NAME);
        let name = members.required("name", name);
        let scopes = match members.value("scopes").map(serde_json::from_value::<Scopes>) {
            Some(Ok(scopes)) if scopes.is_empty() => {
                members.error("scopes", "is empty");
                None
            }
            Some(Ok(scopes)) => Some(scopes),
            Some(Err(error)) => {
                members.error("scopes", error);
                None
            }
            None => None,
        };
        let scopes = members.required("scopes", scopes);
        Some(Self {
            expires_in: members.integer("expires_in", 60, LONGEST_LIFE),
            name: name?,
            scopes: scopes?,
        })
    }
}

/// Create an API key
#[utoipa::path(
    post, path = "/v1/api-keys", tag = "API keys", security(("api_key" = ["admin"])),
    request_body = NewApiKeyRequest,
    responses((status = 201, description = "The key with its secret, shown once", body = CreatedApiKey), Refusals)
)]
pub(super) async fn create_api_key(
    State(state): State<AppState>,
    caller: Caller<scope::Admin>,
    JsonBody(request): JsonBody<NewApiKeyRequest>,
) -> Result<(StatusCode, Json<CreatedApiKey>), ApiError> {
    if !caller.key.scopes.cover(&request.scopes) {
        let detail = format!(
            "a key makes no key that may do more than itself; it has: {}",
            caller.key.scopes
        );
        return Err(ApiError::new(ProblemCode::InsufficientScope, detail));
    }
    let now = state.clock.now();
    let wanted = ApiKeyRequest {
        application: caller.application().clone(),
        name: request.name,
        scopes: request.scopes,
        expires_at: request
            .expires_in
            .map(|seconds| now + TimeDelta::seconds(seconds)),
    };
    let (key, secret) =
        access::create_api_key(&state.store, wanted, caller.actor, now, &state.random).await?;
    let body = CreatedApiKey {
        key: ApiKeyView::of(&key),
        secret: secret.expose().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(body)))
}

/// Revoke an API key
///
/// It stops working within a second on every replica. Revoking a revoked key changes nothing.
#[utoipa::path(
    delete, path = "/v1/api-keys/{id}", tag = "API keys", security(("api_key" = ["admin"])),
    params(("id" = String, Path, description = "Id of the key")),
    responses(
        (status = 200, description = "The revoked key", body = ApiKeyView),
        (status = 404, description = "`not_found`: no such key in this application",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn revoke_api_key(
    State(state): State<AppState>,
    caller: Caller<scope::Admin>,
    PathOf(id): PathOf<ApiKeyId>,
) -> Result<Json<ApiKeyView>, ApiError> {
    let application = caller.application().clone();
    state
        .store
        .revoke_api_key(&id, Some(&application), caller.actor, state.clock.now())
        .await?;
    let keys = state.store.list_api_keys(Some(&application)).await?;
    let key = keys.iter().find(|key| key.id == id);
    let key = key.ok_or_else(|| {
        ApiError::new(
            ProblemCode::NotFound,
            "no API key of this application has this id",
        )
    })?;
    Ok(Json(ApiKeyView::of(key)))
}
