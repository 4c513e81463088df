//! `GET /openapi.json` and `GET /docs`, the same document as a page. The page is laid out here and loads nothing from
//! elsewhere.

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;

use super::error::ApiError;
use super::pages::docs::Docs;
use super::{AppState, api, pages};

pub(super) fn router() -> Router<AppState> {
    Router::new()
        .route("/openapi.json", get(show_openapi))
        .route("/docs", get(show_docs))
}

async fn show_openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(api::openapi())
}

async fn show_docs(State(state): State<AppState>) -> Result<Response, ApiError> {
    let document = serde_json::to_value(api::openapi()).map_err(ApiError::internal)?;
    Ok(pages::render(
        StatusCode::OK,
        &Docs::new(state.branding.chrome(), &document),
    ))
}
