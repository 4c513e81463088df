//! The platform's API under `/v1`. Routes and the OpenAPI document come from the same list, so neither can have an operation
//! that the other lacks (the proxied ones from the proxy's own table); the scope in an operation's `security` is the one that its handler asks for (a test holds both).

mod api_keys;
mod audit_log;
mod connect_links;
pub(super) mod connections;
mod cursor;
mod deliveries;
mod event_endpoints;
mod events;
mod import;
mod proxied;
#[cfg(test)]
mod tests;

pub use import::import_json;

use axum::Router;
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::error::{ApiError, FieldError, Problem};
use crate::domain::ids::SellerId;
use crate::domain::problem::{Fault, ProblemCode};

/// Largest `metadata` of a connection, as JSON.
const MAX_METADATA: usize = 16 * 1024;
/// Rows of a page, if the caller does not say.
const DEFAULT_LIMIT: i64 = 50;
/// Most rows of a page.
const MAX_LIMIT: i64 = 200;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Marketplace connector",
        description = "Connects a marketplace's sellers to Mercado Pago. Every request needs an API key as `Authorization: Bearer \
                       mck_...`, bound to one application; connections of other applications do not exist for it. Errors are \
                       `application/problem+json` (RFC 9457) with a stable `code`, which the header `Connector-Error` repeats. \
                       Calls to Mercado Pago go through `/proxy/{seller_id}/...`; their bodies are described by Mercado Pago, and \
                       an error of the connector has the members of Mercado Pago's own errors beside its own.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "Connect links", description = "How sellers come in"),
        (name = "Connections", description = "Sellers who came in"),
        (name = "Events", description = "What happened, and who is told of it"),
        (name = "API keys", description = "The platform's credentials"),
        (name = "Audit log", description = "Who did what"),
        (name = proxied::TAG, description = "Passed on with the seller's token"),
    ),
    components(schemas(Problem, ProblemCode, Fault, FieldError)),
    modifiers(&ApiKeyScheme),
)]
struct Document;

/// How operations are authorised.
struct ApiKeyScheme;

impl Modify for ApiKeyScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("mck_...")
            .description(Some(
                "An API key; the scope that an operation needs stands beside it.",
            ))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// The answers that every operation can give.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the derive alone")]
enum Refusals {
    /// `invalid_request`: the body or the query cannot be read
    #[response(status = 400, content_type = "application/problem+json")]
    InvalidRequest(#[to_schema] Problem),
    /// `invalid_api_key`: the API key is missing or not valid
    #[response(status = 401, content_type = "application/problem+json")]
    InvalidApiKey(#[to_schema] Problem),
    /// `insufficient_scope`: the API key lacks the scope
    #[response(status = 403, content_type = "application/problem+json")]
    InsufficientScope(#[to_schema] Problem),
    /// `invalid_field`: a value is not valid; `errors` says which
    #[response(status = 422, content_type = "application/problem+json")]
    InvalidField(#[to_schema] Problem),
    /// `store_unavailable`: the connector's database does not answer; with `Retry-After`
    #[response(status = 503, content_type = "application/problem+json")]
    StoreUnavailable(#[to_schema] Problem),
}

fn operations() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(connect_links::create_connect_link))
        .routes(routes!(connections::list_connections, import::import_connection))
        .routes(routes!(
            connections::get_connection,
            connections::update_connection,
            connections::revoke_connection
        ))
        .routes(routes!(connections::refresh_connection))
        .routes(routes!(api_keys::list_api_keys, api_keys::create_api_key))
        .routes(routes!(api_keys::revoke_api_key))
        .routes(routes!(
            event_endpoints::list_event_endpoints,
            event_endpoints::create_event_endpoint
        ))
        .routes(routes!(
            event_endpoints::get_event_endpoint,
            event_endpoints::update_event_endpoint,
            event_endpoints::delete_event_endpoint
        ))
        .routes(routes!(event_endpoints::rotate_event_endpoint_secret))
        .routes(routes!(event_endpoints::test_event_endpoint))
        .routes(routes!(event_endpoints::replay_events))
        .routes(routes!(events::list_events))
        .routes(routes!(events::get_event))
        .routes(routes!(deliveries::list_deliveries))
        .routes(routes!(deliveries::retry_delivery))
        .routes(routes!(audit_log::list_audit_log))
}

/// The routes.
pub(super) fn router() -> Router<AppState> {
    operations().split_for_parts().0
}

/// The OpenAPI 3.1 document of the same routes, and of the proxied ones.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = operations().split_for_parts().1;
    proxied::describe(&mut document.paths);
    document
}

/// A seller id from a path. One that cannot be one has no connection.
struct SellerInPath(SellerId);

impl std::str::FromStr for SellerInPath {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        text.parse()
            .map(Self)
            .map_err(|_| ApiError::connection_not_found())
    }
}

/// Applies a JSON merge patch (RFC 7396) to an object.
fn merge_patch(target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    let mut merged = match target {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            merged.remove(&name);
        } else {
            let before = merged.remove(&name).unwrap_or_default();
            merged.insert(name, merge_patch(before, value));
        }
    }
    Value::Object(merged)
}

/// One page of a list.
#[derive(Debug, serde::Serialize, ToSchema)]
struct List<T> {
    /// The rows.
    data: Vec<T>,
    /// What to send as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}
