//! Health and metrics. `/healthz` says that the process runs; `/readyz` tells the truth about the store and fails first when
//! the process is stopping, so that a load balancer turns away before accepting ends.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header;
use serde::Serialize;

use super::AppState;
use super::edge::nothing_here;
use super::error::ApiError;
use crate::domain::problem::ProblemCode;

/// A store that has not answered by then is not ready.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    /// What does not keep it from serving, but wants somebody's hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// `/healthz` and `/readyz`, which are on every listener.
pub(super) fn health() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness))
}

/// All of the ops listener.
pub(super) fn router() -> Router<AppState> {
    health()
        .route("/metrics", get(show_metrics))
        .fallback(nothing_here)
}

async fn show_health() -> Response {
    Json(Health {
        status: "ok",
        detail: None,
    })
    .into_response()
}

async fn show_readiness(State(state): State<AppState>) -> Result<Response, ApiError> {
    if state.draining.is_cancelled() {
        return Err(ApiError::new(
            ProblemCode::ShuttingDown,
            "the process is stopping; go to another replica",
        ));
    }
    let ping = tokio::time::timeout(STORE_TIMEOUT, state.store.ping()).await;
    ping.map_err(|_| {
        ApiError::new(
            ProblemCode::StoreUnavailable,
            "the database does not answer in time",
        )
    })??;
    let detail = state.replica.excessive_skew().map(|skew| {
        format!(
            "this replica's clock is {} s off the database's: it refreshes nothing until it is set right",
            skew.num_seconds()
        )
    });
    Ok(Json(Health {
        status: "ready",
        detail,
    })
    .into_response())
}

async fn show_metrics(State(state): State<AppState>) -> Response {
    let text_format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (StatusCode::OK, text_format, state.metrics.render()).into_response()
}
