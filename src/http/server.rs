//! Accepting connections and serving them: HTTP/1.1, plain or TLS, until told to stop.
//!
//! What is proxied goes straight to the proxy, on the connection's own thread ([`Lanes`]); all else goes through the router,
//! whose work would be a large part of a proxied call's cost (DESIGN.md section 15), and runs beside, so that no page and no
//! import holds a payment up. Guarantees that a head that does not come in time or is too large ends the
//! connection, and so does a caller who takes nothing of its answer for long; that stopping lets every request under way
//! finish, and that no failure of one connection touches another.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::AppState;
use super::edge;
use super::lanes::Lanes;
use super::request_id::RequestId;
use crate::proxy::{self, CallContext, ProxyBody};

/// A head has to be there by then; also how long a connection may idle between two requests. Above the idle time of the
/// load balancers in front (usually 60 s), so that they are the ones who close.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// A TLS handshake has to be done by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request; larger ones are answered 431 by the parser.
const MAX_HEAD: usize = 32 * 1024;
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What one listener serves.
#[derive(Debug, Clone)]
pub struct Site {
    state: AppState,
    router: Router,
    with_proxy: bool,
    /// How long a caller may take nothing of its answer.
    idle_timeout: Duration,
    /// Where the router's work runs.
    runtime: Handle,
}

/// The body of an answer: a proxied call's, or the router's.
pub type SiteBody = Either<ProxyBody, Body>;

impl Site {
    /// A site of these routes, with or without proxied calls beside them. Within a runtime, on which the routes' work runs.
    pub(super) fn new(state: AppState, router: Router, with_proxy: bool, idle_timeout: Duration) -> Self {
        Self {
            state,
            router: edge::noting_routes(router),
            with_proxy,
            idle_timeout,
            runtime: Handle::current(),
        }
    }

    /// Answers one request of a client at `peer`.
    pub async fn answer<B>(&self, request: Request<B>, peer: IpAddr) -> Response<SiteBody>
    where
        B: http_body::Body<Data = Bytes, Error: Into<proxy::BoxError>> + Send + Unpin + 'static,
    {
        if self.with_proxy && request.uri().path().starts_with(proxy::PREFIX) {
            let state = &self.state;
            let request_id = RequestId::of(request.headers(), &state.random).header();
            let (context, method) = (CallContext { request_id }, request.method().clone());
            let call = pin!(state.proxy.handle(request, context.clone()));
            let answered = edge::catch_panic(call).await;
            let response = answered.unwrap_or_else(|edge::Panicked| state.proxy.failed(method, context));
            return response.map(Either::Left);
        }
        let (state, router) = (self.state.clone(), self.router.clone());
        let work = async move { edge::answer(&state, &router, request, peer).await };
        // A caller who leaves takes the work along, as if it ran here.
        let answered = AbortOnDropHandle::new(self.runtime.spawn(work)).await;
        let response = answered.unwrap_or_else(|_| {
            // Panics are caught inside; what is left is a runtime that ends.
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        });
        response.map(Either::Right)
    }
}

/// Serves `site` on `listener` until `stop`, then waits at most `grace` for what is under way. Connections live on `lanes`.
pub async fn serve(
    listener: TcpListener,
    lanes: Lanes,
    tls: Option<Arc<rustls::ServerConfig>>,
    site: Site,
    stop: CancellationToken,
    grace: Duration,
) {
    let graceful = GracefulShutdown::new();
    let acceptor = tls.map(TlsAcceptor::from);
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly a client that left already, or too many open files: neither ends the service.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        // Small answers are not worth waiting for a fuller packet.
        let _ = stream.set_nodelay(true);
        // Taken off this runtime's reactor: the lane has its own.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, %peer, "a connection was lost as soon as it was accepted");
                continue;
            }
        };
        let (site, watcher, acceptor) = (site.clone(), graceful.watcher(), acceptor.clone());
        lanes.spawn(async move {
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => return tracing::warn!(%error, "a connection cannot be served"),
            };
            let Some(acceptor) = acceptor else {
                return serve_connection(stream, peer, site, watcher).await;
            };
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => serve_connection(stream, peer, site, watcher).await,
                Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake did not end in time"),
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            ?grace,
            "requests were still under way at the end of the grace period"
        );
    }
}

async fn serve_connection<S>(stream: S, peer: SocketAddr, site: Site, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(site.idle_timeout));
    let stream = Box::pin(stream);
    let service = service_fn(move |request: Request<Incoming>| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(request, peer.ip()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, %peer, "a connection ended with an error");
    }
}
