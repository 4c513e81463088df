//! What is the same for every request that does not go through the proxy: its id, its client's address, the limit of its
//! body, the form of its errors, the security headers of its answer, and its one line in the log.
//!
//! Guarantees that a panic in a handler is a 500 for that one request, and that no answer leaves without the headers.
//! The log line carries the route's template and never the path or the query: link tokens, codes and states travel there.

use std::future::Future;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower::ServiceExt as _;

use super::AppState;
use super::client_address::{ClientAddress, client_address};
use super::error::{ApiError, Unrendered};
use super::locale::Locale;
use super::pages;
use super::pages::console::ErrorPage;
use super::pages::seller::{Ending, Message};
use super::request_id::RequestId;
use crate::domain::problem::ProblemCode;

/// Largest body of a request that is not proxied.
const MAX_BODY: usize = 256 * 1024;
/// A body that is not there by then will not come.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// What browsers may do with a page of ours: load its own stylesheets, scripts and images, send its forms home.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";
/// The same for sellers' pages, without `form-action`, which browsers apply to the redirect to Mercado Pago too.
const SELLER_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'";
/// A year, for this host alone.
const STRICT_TRANSPORT: &str = "max-age=31536000";

/// Notes which route matched, for the log line. A layer of the router, where the route is known.
pub(super) async fn note_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// The layer that [`note_route`] is.
pub(super) fn noting_routes(router: Router) -> Router {
    router.layer(middleware::from_fn(note_route))
}

/// Answers a request that is not proxied.
pub(super) async fn answer<B>(
    state: &AppState,
    router: &Router,
    request: http::Request<B>,
    peer: IpAddr,
) -> Response
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let begun = Instant::now();
    let (mut parts, body) = request.into_parts();
    let id = RequestId::of(&parts.headers, &state.random);
    let client = client_address(peer, &parts.headers, &state.trusted_proxies);
    parts.extensions.insert(id.clone());
    parts.extensions.insert(client);
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let form = Form::of(&path, &parts.headers);
    let language = Locale::negotiate(text(&parts.headers, header::ACCEPT_LANGUAGE));

    let handled = async {
        match read_body(&parts.headers, body).await {
            Ok(body) => {
                let request = Request::from_parts(parts, Body::from(body));
                router
                    .clone()
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {})
            }
            Err(error) => error.into_response(),
        }
    };
    let mut response = match catch_panic(pin!(handled)).await {
        Ok(response) => response,
        Err(Panicked) => ApiError::internal("a handler panicked").into_response(),
    };
    if let Some(Unrendered(error)) = response.extensions_mut().remove::<Unrendered>() {
        error.log(id.as_str());
        response = form.render(&error, state, language, &id, &response);
    }
    dress(response.headers_mut(), form, state, &id);
    let route = response
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str);
    log(&method, route, response.status(), begun, client, &id);
    response
}

/// Reads the whole body: every handler here wants it whole, and a client that stops sending holds up nothing else.
async fn read_body<B>(headers: &HeaderMap, body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    let too_large = || {
        ApiError::new(
            ProblemCode::BodyTooLarge,
            format!("the body is larger than {MAX_BODY} bytes"),
        )
    };
    let announced = text(headers, header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large());
    }
    let body = pin!(Limited::new(body, MAX_BODY));
    match tokio::time::timeout(BODY_TIMEOUT, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::invalid_request("the body broke off")),
        Err(_) => Err(ApiError::invalid_request("the body did not come in time")),
    }
}

/// A future panicked; the hook has told where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panicked;

/// Drives a future and turns its panic into an error. What the future had under way is dropped with it. The future stays
/// where it is: a call's is large, and moving it would cost more than polling it.
pub(super) async fn catch_panic<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Panicked> {
    std::future::poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Panicked)),
        },
    )
    .await
}

/// The form that an error takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `application/problem+json`, for programs.
    Problem,
    /// A page for admins.
    Console,
    /// A page for sellers.
    Seller,
}

impl Form {
    fn of(path: &str, headers: &HeaderMap) -> Self {
        let below = |prefix: &str| {
            path == prefix
                || path
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        if below("/console") || below("/docs") {
            Self::Console
        } else if below("/connect") || below("/oauth") {
            Self::Seller
        } else if below("/v1") || below("/webhooks") {
            Self::Problem
        } else if text(headers, header::ACCEPT).is_some_and(|accept| accept.contains("text/html")) {
            Self::Seller
        } else {
            Self::Problem
        }
    }

    /// Gives an error its body; `response` keeps its other headers and extensions.
    fn render(
        self,
        error: &ApiError,
        state: &AppState,
        locale: Locale,
        id: &RequestId,
        response: &Response,
    ) -> Response {
        let status = response.status();
        let mut rendered = match self {
            Self::Problem => problem(error, id),
            Self::Console => {
                let page = ErrorPage {
                    chrome: state.branding.chrome(),
                    status: status.as_u16(),
                    title: error.code.title(),
                    detail: error.detail.clone(),
                    code: error.code.as_str(),
                    request_id: id.as_str().to_owned(),
                };
                pages::render(status, &page)
            }
            Self::Seller => {
                let ending = match error.code {
                    ProblemCode::NotFound => Ending::NotFound,
                    ProblemCode::RateLimited => Ending::TooManyAttempts,
                    ProblemCode::InsufficientScope => Ending::ForeignForm,
                    ProblemCode::InvalidRequest => Ending::AttemptInvalid,
                    _ => Ending::Failure,
                };
                let page = Message::new(state.branding.chrome(), locale, ending, Some(id.as_str()));
                pages::render(status, &page)
            }
        };
        *rendered.extensions_mut() = response.extensions().clone();
        error.headers(rendered.headers_mut());
        rendered
    }
}

fn problem(error: &ApiError, id: &RequestId) -> Response {
    // The members of a problem are texts and numbers: this cannot fail.
    let body = serde_json::to_vec(&error.problem(id.as_str())).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = error.status();
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Puts on what every answer wears; what a handler chose for itself stays.
fn dress(headers: &mut HeaderMap, form: Form, state: &AppState, id: &RequestId) {
    headers.insert(HeaderName::from_static("x-request-id"), id.header());
    let mut wear = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    wear(header::CACHE_CONTROL, "no-store");
    wear(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    wear(header::X_FRAME_OPTIONS, "DENY");
    wear(header::REFERRER_POLICY, "no-referrer");
    wear(
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=()",
    );
    match form {
        Form::Seller => wear(header::CONTENT_SECURITY_POLICY, SELLER_POLICY),
        Form::Console => {
            wear(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
            wear(
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            );
        }
        Form::Problem => wear(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    }
    if state.public_url.scheme() == "https" {
        wear(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
    }
}

fn log(
    method: &Method,
    route: &str,
    status: StatusCode,
    begun: Instant,
    client: ClientAddress,
    id: &RequestId,
) {
    let duration = begun.elapsed();
    metrics::counter!(
        "connector_requests_total",
        "route" => route.to_owned(),
        "status" => status_class(status),
    )
    .increment(1);
    tracing::info!(
        method = method.as_str(),
        route,
        status = status.as_u16(),
        duration_ms = duration.as_secs_f64() * 1_000.0,
        client = %client.0,
        request_id = id.as_str(),
        "request"
    );
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What a router answers where it has no route, or none for the method.
pub(super) async fn nothing_here() -> ApiError {
    ApiError::not_found()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_where_it_happens() {
        async fn broken() -> u32 {
            tokio::task::yield_now().await;
            panic!("a defect")
        }
        let result = catch_panic(pin!(broken())).await;
        assert!(result.is_err());
        assert_eq!(catch_panic(pin!(async { 7 })).await.unwrap(), 7);
    }

    #[test]
    fn the_form_of_an_error_follows_the_address() {
        let form = |path: &str, accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Form::of(path, &headers)
        };
        assert_eq!(form("/v1/nothing", "text/html"), Form::Problem);
        assert_eq!(form("/connect/x", "*/*"), Form::Seller);
        assert_eq!(form("/console", "*/*"), Form::Console);
        assert_eq!(form("/consolefoo", "*/*"), Form::Problem);
        assert_eq!(form("/", "text/html,*/*"), Form::Seller);
    }
}
