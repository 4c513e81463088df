//! The static files that pages link to. Their addresses carry a hash of the content, so browsers keep them for ever.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{Uri, header};

use super::AppState;
use super::error::ApiError;

pub(super) fn router() -> Router<AppState> {
    Router::new().route("/assets/{file}", get(show_asset))
}

async fn show_asset(State(state): State<AppState>, uri: Uri) -> Result<Response, ApiError> {
    let asset = state.branding.asset(uri.path()).ok_or_else(ApiError::not_found)?;
    let headers = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    let mut response = (headers, asset.bytes.clone()).into_response();
    if asset.content_type == "image/svg+xml" {
        // A logo may be styled from within, and must run nothing if it is opened by itself.
        let policy = http::HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}
