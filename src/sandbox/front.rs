//! What every call passes before the routes: it is noted, disturbed if a fault says so, and its trailing slash is dropped
//! (official SDKs send some).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::answer::{Refusal, json_bytes};
use super::caller::{bearer, user_in};
use super::faults::FaultKind;
use super::recorder::RecordedRequest;
use super::server::{Cut, DripBody, HalfBody};
use super::state::World;

/// The largest body that is read.
const MAX_BODY: usize = 32 << 20;

/// The routes behind the front, and the world they work on.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) world: Arc<World>,
    pub(super) routes: Router,
}

/// Handles any call.
pub(super) async fn handle(State(front): State<Front>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return Refusal::plain(StatusCode::PAYLOAD_TOO_LARGE, "body too large").into_response();
    };
    let control = parts.uri.path().starts_with("/_sandbox");
    let mut fault = None;
    if !control {
        front.world.recorder.note(RecordedRequest {
            method: parts.method.clone(),
            path: String::from(parts.uri.path()),
            query: parts.uri.query().map(String::from),
            headers: parts.headers.clone(),
            body: body.clone(),
            at: front.world.now(),
        });
        let seller = || {
            bearer(&parts.headers)
                .and_then(user_in)
                .or_else(|| user_of_grant(&body))
        };
        fault = front
            .world
            .faults
            .strike(parts.uri.path(), seller, &front.world.random);
    }
    if let Some(response) = fault.as_ref().and_then(instead) {
        return response;
    }
    if let Some(FaultKind::Latency(milliseconds)) = fault {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
    if let Some(uri) = without_trailing_slash(&parts.uri) {
        parts.uri = uri;
    }
    if parts.method != http::Method::GET {
        front
            .world
            .changed
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }
    let request = Request::from_parts(parts, Body::from(body));
    let Ok(mut response) = front.routes.clone().oneshot(request).await;
    if let Ok(id) = HeaderValue::from_str(&front.world.random.uuid().to_string()) {
        response.headers_mut().insert("x-request-id", id);
    }
    match fault {
        Some(fault) => disturbed(fault, response).await,
        None => response,
    }
}

/// The account id in a code or refresh token of a token request.
fn user_of_grant(body: &Bytes) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let token = text.get(text.find("TG-")?..)?;
    let end = token
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .unwrap_or(token.len());
    user_in(token.get(..end)?)
}

fn without_trailing_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty())?;
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => String::from(path),
    };
    target.parse().ok()
}

fn cut() -> Response {
    let mut response = StatusCode::BAD_GATEWAY.into_response();
    response.extensions_mut().insert(Cut);
    response
}

fn status_answer(status: u16, body: Option<&str>, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match body {
        Some(body) => json_bytes(status, Bytes::copy_from_slice(body.as_bytes())),
        None => Refusal::plain(status, status.canonical_reason().unwrap_or("error")).into_response(),
    };
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The answer to a call that is not carried out.
fn instead(fault: &FaultKind) -> Option<Response> {
    match fault {
        FaultKind::CutBefore => Some(cut()),
        FaultKind::OAuthError(error) => Some(Refusal::oauth(error).into_response()),
        FaultKind::Status {
            status,
            body,
            retry_after,
            after: false,
        } => Some(status_answer(*status, body.as_deref(), *retry_after)),
        _ => None,
    }
}

/// The answer to a call that was carried out, as the fault leaves it.
async fn disturbed(fault: FaultKind, response: Response) -> Response {
    match fault {
        FaultKind::CutAfter => cut(),
        FaultKind::Hang => std::future::pending().await,
        FaultKind::Status {
            status,
            body,
            retry_after,
            ..
        } => status_answer(status, body.as_deref(), retry_after),
        FaultKind::Garbage => json_bytes(
            StatusCode::OK,
            Bytes::from_static(b"<html>\x00\xff{\"access_token\":"),
        ),
        FaultKind::Drip => {
            let (parts, _) = response.into_parts();
            Response::from_parts(parts, Body::new(DripBody::new()))
        }
        FaultKind::Half => {
            let (mut parts, body) = response.into_parts();
            let whole = body
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            parts
                .headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
            Response::from_parts(parts, Body::new(HalfBody::new(&whole)))
        }
        FaultKind::Latency(_) | FaultKind::CutBefore | FaultKind::OAuthError(_) => response,
    }
}
