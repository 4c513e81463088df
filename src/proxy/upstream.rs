//! Connections to Mercado Pago: kept, reused, and honest about whether a request left.
//!
//! HTTP/1.1 on hyper's connection level rather than on a general client: that level gives a request back when it was not
//! begun to be written, so that "nothing was sent" is known and not guessed (DESIGN.md section 8), and it spares the task
//! that such a client spawns for each answer. Redirects are not followed, nothing is decompressed, no environment proxy.

use std::array;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use tower::Service as _;
use url::Url;

use super::upload::Upload;

/// An idle connection is not used after this time; load balancers commonly close theirs after a minute.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// Most connections that a thread keeps for later.
const MOST_IDLE: usize = 1024;

/// Threads that keep their connections apart; more than these share.
const THREADS: usize = 64;

/// Longest head of an answer, and how much of a body waits in one connection's buffers: a hundred large bodies at a time are
/// to cost next to no memory.
const LONGEST_HEAD: usize = 32 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendError {
    /// No byte of the request left.
    NotSent(String),
    /// It may have left; the connection broke.
    Lost(String),
    /// It may have left; what came back is no HTTP answer.
    Garbled(String),
    /// The deadline passed after it may have left.
    TimedOut,
}

/// One origin's connections.
pub(super) struct Upstream {
    connector: HttpsConnector<HttpConnector>,
    /// Scheme and authority.
    origin: Uri,
    host: HeaderValue,
    /// Path prefix, without a trailing slash.
    prefix: String,
    connect_timeout: Duration,
    /// By thread.
    idle: [Mutex<VecDeque<Idle>>; THREADS],
}

struct Idle {
    sender: SendRequest<Upload>,
    since: Instant,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// A URL that cannot be called.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an http or https URL with a host")]
pub struct NotAnOrigin(Url);

impl Upstream {
    /// Connections to `api_url`.
    pub(super) fn new(
        api_url: &Url,
        tls: ClientConfig,
        connect_timeout: Duration,
    ) -> Result<Self, NotAnOrigin> {
        let not_an_origin = || NotAnOrigin(api_url.clone());
        let authority = api_url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        let origin: Uri = format!("{}://{authority}/", api_url.scheme())
            .parse()
            .map_err(|_| not_an_origin())?;
        if !matches!(api_url.scheme(), "http" | "https") || authority.is_empty() {
            return Err(not_an_origin());
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        tcp.set_connect_timeout(Some(connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self {
            connector,
            origin,
            host: HeaderValue::from_str(&authority).map_err(|_| not_an_origin())?,
            prefix: api_url.path().trim_end_matches('/').to_owned(),
            connect_timeout,
            idle: array::from_fn(|_| Mutex::default()),
        })
    }

    /// What goes into `Host`.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The target of a call, in origin form.
    pub(super) fn target(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let mut target =
            String::with_capacity(self.prefix.len() + path.len() + query.map_or(0, |query| query.len() + 1));
        target.push_str(&self.prefix);
        target.push_str(path);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        Ok(Uri::from(PathAndQuery::try_from(target)?))
    }

    /// Sends a request and waits for the answer's head, until `deadline`.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Upload>,
        deadline: tokio::time::Instant,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        loop {
            let (mut sender, reused) = match self.take_idle() {
                Some(sender) => (sender, true),
                None => (Box::pin(self.connect(deadline)).await?, false),
            };
            let sending = sender.try_send_request(request);
            match tokio::time::timeout_at(deadline, sending).await {
                Ok(Ok(response)) => {
                    return Ok((
                        response,
                        Lease {
                            upstream: self.clone(),
                            sender: Some(sender),
                        },
                    ));
                }
                Ok(Err(mut failed)) => match failed.take_message() {
                    // The connection ended while it was idle, before this request was begun.
                    Some(unsent) if reused => request = unsent,
                    Some(_) => return Err(SendError::NotSent(describe(failed.error()))),
                    None => return Err(broken(failed.error())),
                },
                Err(_) => return Err(SendError::TimedOut),
            }
        }
    }

    /// What this thread keeps.
    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % THREADS;
        }
        let of_thread = THREAD.with(|thread| &self.idle[*thread]);
        of_thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<SendRequest<Upload>> {
        let mut idle = self.idle();
        // The one that was used last: the others may then grow old and be closed.
        while let Some(one) = idle.pop_back() {
            if one.since.elapsed() > LONGEST_IDLE {
                idle.clear();
                return None;
            }
            if one.sender.is_ready() {
                return Some(one.sender);
            }
        }
        None
    }

    async fn connect(&self, deadline: tokio::time::Instant) -> Result<SendRequest<Upload>, SendError> {
        let within = deadline.min(tokio::time::Instant::now() + self.connect_timeout);
        let mut connector = self.connector.clone();
        let connecting = async {
            let stream = connector
                .call(self.origin.clone())
                .await
                .map_err(|error| describe(&*error))?;
            let mut builder = Builder::new();
            builder.max_buf_size(LONGEST_HEAD).max_header_size(LONGEST_HEAD);
            let (sender, connection) = builder
                .handshake(stream)
                .await
                .map_err(|error| describe(&error))?;
            // Ends with the connection: when the sender is dropped, or the peer closes.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to Mercado Pago ended");
                }
            });
            Ok(sender)
        };
        match tokio::time::timeout_at(within, connecting).await {
            Ok(connected) => connected.map_err(SendError::NotSent),
            Err(_) => Err(SendError::NotSent("connecting took too long".to_owned())),
        }
    }

    fn keep(&self, sender: SendRequest<Upload>) {
        let now = Instant::now();
        let mut idle = self.idle();
        let is_old = |one: &Idle| now.duration_since(one.since) > LONGEST_IDLE;
        while idle.len() >= MOST_IDLE || idle.front().is_some_and(is_old) {
            idle.pop_front();
        }
        idle.push_back(Idle { sender, since: now });
    }
}

/// A connection that is in use. Dropped before the answer is read to its end, it is closed.
pub(super) struct Lease {
    upstream: Arc<Upstream>,
    sender: Option<SendRequest<Upload>>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl Lease {
    /// The answer was read to its end: the connection may serve another call.
    pub(super) fn give_back(&mut self) {
        let Some(mut sender) = self.sender.take() else {
            return;
        };
        if sender.is_ready() {
            self.upstream.keep(sender);
        } else if !sender.is_closed() {
            // The connection's task has yet to notice; or the answer came before the whole request was sent.
            let upstream = self.upstream.clone();
            tokio::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(5), sender.ready()).await {
                    upstream.keep(sender);
                }
            });
        }
    }
}

/// An error after the request may have left.
fn broken(error: &hyper::Error) -> SendError {
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        SendError::Garbled(describe(error))
    } else {
        SendError::Lost(describe(error))
    }
}

/// An error with its causes, on one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::mercadopago::http_client::tls_config;
    use crate::mercadopago::peer::{Act, Peer, json};

    fn upstream(origin: &str) -> Arc<Upstream> {
        Arc::new(
            Upstream::new(
                &origin.parse().unwrap(),
                tls_config().unwrap(),
                Duration::from_millis(500),
            )
            .unwrap(),
        )
    }

    async fn call(upstream: &Arc<Upstream>) -> Result<String, SendError> {
        let request = Request::post(upstream.target("/v1/payments", Some("a=%20b")).unwrap())
            .header("host", upstream.host())
            .body(Upload::Held(Bytes::from_static(b"{}")))
            .unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_millis(500);
        let (response, mut lease) = upstream.send(request, deadline).await?;
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| SendError::Lost(error.to_string()))?;
        lease.give_back();
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_a_dead_one_replaced() {
        let peer = Peer::playing([
            json(200, "1"),
            json(200, "2"),
            Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3".to_vec()),
            json(200, "4"),
        ])
        .await;
        let upstream = upstream(&peer.origin());
        for expected in ["1", "2", "3", "4"] {
            assert_eq!(call(&upstream).await.as_deref(), Ok(expected));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(peer.connections(), 2);
        assert!(peer.requests()[0].starts_with("POST /v1/payments?a=%20b HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_path_prefix_of_the_api_url_is_kept() {
        let upstream = upstream("http://127.0.0.1:1/prefix/");
        assert_eq!(upstream.target("/users/me", None).unwrap(), "/prefix/users/me");
        assert_eq!(upstream.host(), "127.0.0.1:1");
        assert!(
            Upstream::new(
                &"ftp://x/".parse().unwrap(),
                tls_config().unwrap(),
                Duration::ZERO
            )
            .is_err()
        );
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_sent_and_a_broken_one_may_be() {
        assert!(matches!(
            call(&upstream("http://127.0.0.1:1")).await,
            Err(SendError::NotSent(_))
        ));
        let garbage = Act::Answer(b"SSH-2.0-x\r\n\r\n".to_vec());
        let peer = Peer::playing([Act::Close, Act::Hang, garbage]).await;
        let upstream = upstream(&peer.origin());
        assert!(matches!(call(&upstream).await, Err(SendError::Lost(_))));
        assert_eq!(call(&upstream).await, Err(SendError::TimedOut));
        assert!(matches!(call(&upstream).await, Err(SendError::Garbled(_))));
        assert_eq!(peer.requests().len(), 3, "nothing is sent twice by itself");
    }
}
