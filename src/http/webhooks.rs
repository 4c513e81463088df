//! Where Mercado Pago tells of what happened. A notification that is kept, or came before, gets 200; one that is refused
//! gets a bare 401 and learns nothing, not even whether the application exists; while the store does not answer it gets
//! 503, and Mercado Pago comes again.

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{Extensions, HeaderMap, StatusCode};

use super::AppState;
use super::error::ApiError;
use super::request_id::RequestId;
use crate::domain::ids::ApplicationId;
use crate::domain::problem::ProblemCode;
use crate::events::IntakeError;

pub(super) fn router() -> Router<AppState> {
    Router::new()
        .route("/webhooks/mercadopago", post(receive_for_default))
        .route("/webhooks/mercadopago/{application}", post(receive))
}

/// A request, as far as a notification needs it.
struct Delivered {
    headers: HeaderMap,
    query: Option<String>,
    request_id: Option<String>,
    body: Bytes,
}

async fn receive_for_default(
    State(state): State<AppState>,
    headers: HeaderMap,
    extensions: Extensions,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, ApiError> {
    let delivered = Delivered {
        headers,
        query,
        request_id: request_id(&extensions),
        body,
    };
    keep(&state, &ApplicationId::default_application(), delivered).await
}

async fn receive(
    State(state): State<AppState>,
    Path(application): Path<String>,
    headers: HeaderMap,
    extensions: Extensions,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, ApiError> {
    let Ok(application) = application.parse() else {
        return Ok(StatusCode::UNAUTHORIZED.into_response());
    };
    let delivered = Delivered {
        headers,
        query,
        request_id: request_id(&extensions),
        body,
    };
    keep(&state, &application, delivered).await
}

fn request_id(extensions: &Extensions) -> Option<String> {
    extensions.get::<RequestId>().map(|id| id.as_str().to_owned())
}

async fn keep(
    state: &AppState,
    application: &ApplicationId,
    delivered: Delivered,
) -> Result<Response, ApiError> {
    let Ok(body) = std::str::from_utf8(&delivered.body) else {
        return Ok(StatusCode::UNAUTHORIZED.into_response());
    };
    let query = delivered.query.as_deref().unwrap_or_default();
    let received = state
        .intake
        .receive(application, &delivered.headers, query, body, delivered.request_id)
        .await;
    let status = match received {
        Ok(_) => StatusCode::OK,
        Err(IntakeError::Store(error)) => return Err(error.into()),
        Err(error @ IntakeError::BrokenOff) => {
            return Err(ApiError::new(ProblemCode::StoreUnavailable, error.to_string()));
        }
        Err(error @ IntakeError::NoSecret(_)) => {
            tracing::warn!("{error}");
            StatusCode::UNAUTHORIZED
        }
        Err(error @ IntakeError::Refused(_)) => {
            tracing::debug!("{error}");
            StatusCode::UNAUTHORIZED
        }
    };
    Ok(status.into_response())
}
