//! Making connect links.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{MAX_METADATA, Refusals};
use crate::connect::LinkRequest;
use crate::domain::connection::OnAccountChange;
use crate::domain::ids::{ApplicationId, SellerId};
use crate::domain::problem::ProblemCode;
use crate::http::AppState;
use crate::http::auth::{Caller, scope};
use crate::http::error::ApiError;
use crate::http::locale::Locale;
use crate::http::members::{FromMembers, JsonBody, Members};
use crate::mercadopago::application::Application;

/// How long a link lives if nobody says, in seconds.
const DEFAULT_LIFE: i64 = 86_400;
const SHORTEST_LIFE: i64 = 60;
const LONGEST_LIFE: i64 = 30 * 86_400;

/// What a connect link shall be.
#[derive(Debug, ToSchema)]
pub(super) struct ConnectLinkRequest {
    /// Your own id of the seller: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    #[schema(value_type = String)]
    seller_id: SellerId,
    /// Where the seller goes afterwards, with `connection` and `seller_id` appended. Must be in `RETURN_URL_ALLOWLIST`.
    #[schema(format = "uri")]
    return_url: Option<String>,
    /// Language of the pages: `es`, `pt` or `en`. Without it, the browser's.
    #[schema(value_type = Option<String>)]
    locale: Option<Locale>,
    /// How long the link lives, in seconds: 60 to 2592000, 86400 by default.
    expires_in: Option<i64>,
    /// Your own data, kept with the connection.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// What happens when a connected seller comes back with another Mercado Pago account; `refuse` by default.
    on_account_change: Option<OnAccountChange>,
}

impl FromMembers for ConnectLinkRequest {
    fn read(members: &mut Members) -> Option<Self> {
        let seller_id = members.parsed("seller_id");
        let seller_id = members.required("seller_id", seller_id);
        let locale = members.text("locale");
        let known = locale.as_deref().and_then(Locale::parse);
        if locale.is_some() && known.is_none() {
            members.error("locale", "is none of `es`, `pt` and `en`");
        }
        let change = members.text("on_account_change");
        let on_account_change = change.as_deref().and_then(|text| text.parse().ok());
        if change.is_some() && on_account_change.is_none() {
            members.error("on_account_change", "is neither `refuse` nor `replace`");
        }
        Some(Self {
            return_url: members.text("return_url"),
            locale: known,
            expires_in: members.integer("expires_in", SHORTEST_LIFE, LONGEST_LIFE),
            metadata: members.object("metadata", MAX_METADATA),
            on_account_change,
            seller_id: seller_id?,
        })
    }
}

/// A connect link that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConnectLinkResponse {
    /// Id of the link, for the audit log.
    id: String,
    /// What the seller opens. Shown here only: a hash of it is kept.
    url: String,
    /// The seller.
    seller_id: String,
    /// When the link ends.
    expires_at: DateTime<Utc>,
}

/// Create a connect link
///
/// The seller opens the link in a browser and consents at Mercado Pago. It stays usable until it succeeds or ends.
#[utoipa::path(
    post, path = "/v1/connect-links", tag = "Connect links", security(("api_key" = ["connect:write"])),
    request_body = ConnectLinkRequest,
    responses((status = 201, description = "The link", body = ConnectLinkResponse), Refusals)
)]
pub(super) async fn create_connect_link(
    State(state): State<AppState>,
    caller: Caller<scope::ConnectWrite>,
    JsonBody(request): JsonBody<ConnectLinkRequest>,
) -> Result<(StatusCode, Json<ConnectLinkResponse>), ApiError> {
    require_configured(&state, caller.application())?;
    let return_url = match &request.return_url {
        Some(text) => {
            let checked = state.return_urls.check(text);
            Some(checked.map_err(|error| ApiError::invalid_field("return_url", error))?)
        }
        None => None,
    };
    let link = LinkRequest {
        application: caller.application().clone(),
        seller_id: request.seller_id,
        return_url,
        locale: request.locale.map(|locale| locale.as_str().to_owned()),
        expires_in: TimeDelta::seconds(request.expires_in.unwrap_or(DEFAULT_LIFE)),
        metadata: request.metadata,
        on_account_change: request.on_account_change.unwrap_or(OnAccountChange::Refuse),
    };
    let created = state.connect.create_link(link, caller.actor).await?;
    let body = ConnectLinkResponse {
        id: created.link.id.to_string(),
        url: created.url.to_string(),
        seller_id: created.link.seller_id.to_string(),
        expires_at: created.link.expires_at,
    };
    Ok((StatusCode::CREATED, Json(body)))
}

/// The application of a key; refuses one that was taken out of the settings.
pub(super) fn require_configured<'a>(
    state: &'a AppState,
    id: &ApplicationId,
) -> Result<&'a Application, ApiError> {
    let application = state.applications.get(id).map(AsRef::as_ref);
    application.ok_or_else(|| {
        let detail = format!("the application `{id}` of this API key is not configured any more");
        ApiError::new(ProblemCode::Conflict, detail)
    })
}
