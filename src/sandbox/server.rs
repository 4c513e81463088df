//! The raw connection: hyper around the router, so that a fault can really cut it.
//!
//! A response that carries [`Cut`] is never sent; the connection is dropped instead. Bodies that break off or never end are
//! bodies of their own kind: an error in the middle makes hyper drop the connection too.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Time that open calls get when the sandbox stops.
const GRACE: Duration = Duration::from_millis(500);
/// Pause between the first half of an answer and the cut, so that the half is really sent.
const BEFORE_CUT: Duration = Duration::from_millis(30);
/// Pause between two bytes of a drip.
const BETWEEN_DROPS: Duration = Duration::from_millis(100);

/// Mark of a response that must not be sent: the connection is dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut;

/// Accepts until told to stop.
pub(super) async fn serve(router: Router, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let tracker = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else {
            // Out of descriptors, or a client that went away at once: neither ends the server.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        tracker.spawn(connection(router.clone(), stream, stop.clone()));
    }
    tracker.close();
    tracker.wait().await;
    Ok(())
}

async fn connection(router: Router, stream: TcpStream, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let response: Result<Response, Infallible> = router.oneshot(request.map(Body::new)).await;
            match response {
                Ok(response) if response.extensions().get::<Cut>().is_none() => Ok(response),
                _ => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GRACE, connection).await;
        }
    }
}

/// A body that breaks off after its first part.
#[derive(Debug)]
pub(super) struct HalfBody {
    first: Option<Bytes>,
    cut: Pin<Box<Sleep>>,
}

impl HalfBody {
    pub(super) fn new(whole: &Bytes) -> Self {
        Self {
            first: Some(whole.slice(..whole.len() / 2)),
            cut: Box::pin(tokio::time::sleep(BEFORE_CUT)),
        }
    }
}

impl http_body::Body for HalfBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => self
                .cut
                .as_mut()
                .poll(context)
                .map(|()| Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)))),
        }
    }
}

/// A body that never ends.
#[derive(Debug)]
pub(super) struct DripBody(Pin<Box<Sleep>>);

impl DripBody {
    pub(super) fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(BETWEEN_DROPS)))
    }
}

impl http_body::Body for DripBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.0.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.0 = Box::pin(tokio::time::sleep(BETWEEN_DROPS));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
            }
        }
    }
}
