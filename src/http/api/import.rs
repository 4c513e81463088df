//! Taking over connections from elsewhere.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use serde_json::Value;
use utoipa::ToSchema;

use super::connect_links::require_configured;
use super::connections::view;
use super::{MAX_METADATA, Refusals};
use crate::connect::Import;
use crate::domain::connection::{ConnectionView, TokenSet};
use crate::domain::event::Actor;
use crate::domain::ids::{SellerId, UserId};
use crate::domain::problem::ProblemCode;
use crate::domain::secret::{AccessToken, RefreshToken};
use crate::http::AppState;
use crate::http::auth::{Caller, scope};
use crate::http::error::{ApiError, Problem};
use crate::http::members::{FromMembers, JsonBody, Members};
use crate::mercadopago::api::Probe;
use crate::mercadopago::application::Application;
use crate::storage::Admission;

/// Longest life of a token set that is believed, in seconds.
const LONGEST_LIFE: i64 = 10 * 365 * 86_400;
/// Longest token that is taken.
const LONGEST_TOKEN: usize = 4_096;

/// A token set from elsewhere.
#[derive(Debug, ToSchema)]
pub(super) struct ImportRequest {
    /// Your own id of the seller.
    #[schema(value_type = String)]
    seller_id: SellerId,
    /// Mercado Pago's id of the account.
    #[schema(value_type = i64)]
    user_id: UserId,
    /// The access token.
    #[schema(value_type = String)]
    access_token: AccessToken,
    /// The refresh token; without it the connection ends with the access token.
    #[schema(value_type = Option<String>)]
    refresh_token: Option<RefreshToken>,
    /// Seconds that the access token lives from now. Either this or `expires_at`.
    expires_in: Option<i64>,
    /// When the access token ends.
    expires_at: Option<DateTime<Utc>>,
    /// Scopes, separated by blanks, as Mercado Pago gave them.
    scope: Option<String>,
    /// The seller's public key.
    public_key: Option<String>,
    /// Whether the tokens move real money.
    live_mode: Option<bool>,
    /// Your own data, kept with the connection.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Whether the access token is tried at Mercado Pago first; true by default.
    verify: Option<bool>,
}

impl FromMembers for ImportRequest {
    fn read(members: &mut Members) -> Option<Self> {
        let seller_id = members.parsed("seller_id");
        let seller_id = members.required("seller_id", seller_id);
        let user_id = members.integer("user_id", 1, i64::MAX);
        let user_id = members.required("user_id", user_id);
        let access_token = token(members, "access_token");
        let access_token = members.required("access_token", access_token);
        let refresh_token = token(members, "refresh_token");
        let expires_in = members.integer("expires_in", 1, LONGEST_LIFE);
        let expires_at = members.time("expires_at");
        if expires_in.is_some() && expires_at.is_some() {
            members.error("expires_at", "stands beside `expires_in`; send one of them");
        } else if expires_at.is_none() {
            members.required("expires_in", expires_in);
        }
        Some(Self {
            expires_in,
            expires_at,
            refresh_token: refresh_token.map(RefreshToken::new),
            scope: members.short_text("scope", 1_024),
            public_key: members.short_text("public_key", 256),
            live_mode: members.boolean("live_mode"),
            metadata: members.object("metadata", MAX_METADATA),
            verify: members.boolean("verify"),
            seller_id: seller_id?,
            user_id: UserId(user_id?),
            access_token: AccessToken::new(access_token?),
        })
    }
}

/// A token as it can stand in a header.
fn token(members: &mut Members, name: &str) -> Option<String> {
    let text = members.text(name)?;
    if (1..=LONGEST_TOKEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Some(text);
    }
    members.error(name, format!("is not 1 to {LONGEST_TOKEN} visible characters"));
    None
}

impl ImportRequest {
    fn tokens(&self, now: DateTime<Utc>) -> Result<TokenSet, ApiError> {
        let expires_at = match (self.expires_at, self.expires_in) {
            (Some(at), _) => at,
            (None, seconds) => now + TimeDelta::seconds(seconds.unwrap_or_default()),
        };
        if (expires_at - now).num_seconds() > LONGEST_LIFE {
            return Err(ApiError::invalid_field(
                "expires_at",
                "is more than ten years away",
            ));
        }
        Ok(TokenSet {
            access_token: self.access_token.clone(),
            refresh_token: self.refresh_token.clone(),
            obtained_at: now,
            expires_at,
            scopes: self
                .scope
                .iter()
                .flat_map(|scope| scope.split_whitespace())
                .map(str::to_owned)
                .collect(),
            public_key: self.public_key.clone(),
            live_mode: self.live_mode,
            user_id: self.user_id,
        })
    }
}

/// Import a token set
///
/// For sellers who consented elsewhere. The life of the token set counts from the import unless `expires_at` says
/// otherwise. The access token is tried with `GET /users/me` first, unless `verify` is false.
#[utoipa::path(
    post, path = "/v1/connections", tag = "Connections", security(("api_key" = ["connections:import"])),
    request_body = ImportRequest,
    responses(
        (status = 201, description = "The connection", body = ConnectionView),
        (status = 409, description = "`conflict`: the seller is connected already, or the account serves another seller",
            body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "`provider_unreachable`: the access token could not be tried; nothing was stored",
            body = Problem, content_type = "application/problem+json"),
        Refusals,
    )
)]
pub(super) async fn import_connection(
    State(state): State<AppState>,
    caller: Caller<scope::ConnectionsImport>,
    JsonBody(request): JsonBody<ImportRequest>,
) -> Result<(StatusCode, Json<ConnectionView>), ApiError> {
    let application = require_configured(&state, caller.application())?;
    let view = import(&state, application, &request, caller.actor).await?;
    Ok((StatusCode::CREATED, Json(view)))
}

/// Imports one token set by its members as JSON, as the operation does: for the command line.
pub async fn import_json(
    state: &AppState,
    application: &Application,
    json: &[u8],
    actor: Actor,
) -> Result<ConnectionView, ApiError> {
    let request = Members::of_json(json)?.finish()?;
    import(state, application, &request, actor).await
}

async fn import(
    state: &AppState,
    application: &Application,
    request: &ImportRequest,
    actor: Actor,
) -> Result<ConnectionView, ApiError> {
    let tokens = request.tokens(state.clock.now())?;
    if request.verify.unwrap_or(true) {
        verify(
            state.provider.users_me(application, &tokens.access_token).await,
            tokens.user_id,
        )?;
    }
    let import = Import {
        application,
        seller_id: &request.seller_id,
        tokens: &tokens,
        metadata: request.metadata.as_ref(),
    };
    let conflict = |detail| Err(ApiError::new(ProblemCode::Conflict, detail));
    match state.connect.import(&import, actor).await? {
        Admission::Connected(connection) => Ok(view(state, &connection)),
        Admission::AccountInUse => {
            conflict("the Mercado Pago account is connected to another seller of this application")
        }
        Admission::SellerConnected | Admission::AccountMismatch | Admission::AlreadyCompleted => {
            conflict("the seller is connected already; revoke the connection first")
        }
    }
}

/// Whether the token is alive and belongs to the account.
fn verify(probe: Probe, user_id: UserId) -> Result<(), ApiError> {
    match probe {
        Probe::Alive { user_id: Some(found) } if found != user_id => Err(ApiError::invalid_field(
            "user_id",
            "is not the account that the access token belongs to",
        )),
        Probe::Alive { .. } => Ok(()),
        Probe::Dead => Err(ApiError::invalid_field(
            "access_token",
            "is refused by Mercado Pago",
        )),
        Probe::Undecided { reason } => Err(ApiError {
            source: Some(reason.into()),
            ..ApiError::new(
                ProblemCode::ProviderUnreachable,
                "the access token could not be tried at Mercado Pago; nothing was stored; `verify: false` imports without",
            )
        }),
    }
}
