//! What is told of a call when it is over: the request line and the metrics. Whatever way a call ends, its record is
//! dropped, and dropping tells; nothing can be forgotten. Its place among the calls under way is given back with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};

use super::Inner;
use super::metrics::Source;
use super::problem::{Outcome, ProxyProblem};
use super::sellers::Known;
use super::usage::Meter;
use crate::domain::problem::ProblemCode;
use crate::mercadopago::declines::PaymentOutcome;
use crate::mercadopago::routes::Route;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The caller went before there was an answer.
    CallerGone,
    /// The answer's head was ready, its body not yet delivered.
    BodyUnfinished,
    /// All of the answer was delivered.
    Complete,
    /// Mercado Pago's connection broke in the answer's body.
    CutByProvider,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::CallerGone => "caller_gone",
            Self::BodyUnfinished => "body_unfinished",
            Self::Complete => "complete",
            Self::CutByProvider => "cut_by_provider",
        }
    }
}

/// One call.
#[derive(Debug)]
pub(super) struct Record {
    inner: Arc<Inner>,
    /// Where a call of the application's own account is counted; a seller's is counted at its seat.
    pub(super) own_meter: Option<Arc<Meter>>,
    pub(super) request_id: HeaderValue,
    started: Instant,
    method: Method,
    /// The route, once it is known.
    pub(super) route: Option<&'static Route>,
    /// The connection, once it is known.
    pub(super) connection: Option<Arc<Known>>,
    /// Time that Mercado Pago took, over all attempts.
    pub(super) provider: Duration,
    own: Duration,
    /// How many times the call was sent.
    pub(super) attempts: u32,
    /// The key that it was sent with.
    pub(super) idempotency_key: Option<HeaderValue>,
    /// Whether a payment came, and how it stands.
    pub(super) payment: Option<PaymentOutcome>,
    status: u16,
    source: Source,
    code: Option<ProblemCode>,
    outcome: Option<Outcome>,
    end: End,
    /// Whether it has a place among the calls under way.
    is_seated: bool,
}

impl Record {
    /// A call that begins now.
    pub(super) fn new(inner: Arc<Inner>, request_id: HeaderValue, method: Method) -> Self {
        Self {
            inner,
            own_meter: None,
            request_id,
            started: Instant::now(),
            method,
            route: None,
            connection: None,
            provider: Duration::ZERO,
            own: Duration::ZERO,
            attempts: 0,
            idempotency_key: None,
            payment: None,
            // The status that nobody gets: known from load balancers' logs for a caller that went.
            status: 499,
            source: Source::Connector,
            code: None,
            outcome: None,
            end: End::CallerGone,
            is_seated: false,
        }
    }

    /// When it began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Time spent on this side until the answer's head was ready.
    pub(super) fn own(&self) -> Duration {
        self.own
    }

    /// Takes its place among the calls under way, in all and of its seller, if there is one.
    pub(super) fn take_seat(&mut self, most: usize, most_of_seller: usize) -> bool {
        let total = &self.inner.in_flight;
        if !occupy(total, most) {
            return false;
        }
        if let Some(known) = &self.connection
            && !occupy(&known.seat.in_flight, most_of_seller)
        {
            total.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.is_seated = true;
        true
    }

    /// Mercado Pago's answer goes to the caller.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
        self.source = Source::Provider;
        self.head_is_ready();
    }

    /// An answer of ours goes to the caller.
    pub(super) fn refused(&mut self, problem: &ProxyProblem) {
        self.status = problem.code.status();
        self.code = Some(problem.code);
        self.outcome = problem.outcome;
        self.head_is_ready();
    }

    fn head_is_ready(&mut self) {
        self.end = End::BodyUnfinished;
        self.own = self.started.elapsed().saturating_sub(self.provider);
        self.inner.metrics.durations(self.provider, self.own);
        if let Some(payment) = self.payment {
            self.inner.metrics.payment(payment);
        }
    }

    /// The answer's body is delivered.
    pub(super) fn completed(&mut self) {
        self.end = End::Complete;
    }

    /// The answer's body broke off.
    pub(super) fn cut(&mut self) {
        self.end = End::CutByProvider;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.is_seated {
            self.inner.in_flight.fetch_sub(1, Ordering::Relaxed);
            if let Some(known) = &self.connection {
                known.seat.in_flight.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let class = self.route.map(|route| route.class);
        self.inner.metrics.call(class, self.source, self.status);
        let of_seller = self.connection.as_ref().map(|known| &known.seat.meter);
        if let Some(meter) = of_seller.or(self.own_meter.as_ref()) {
            // A caller who went before there was an answer is nobody's failure.
            let failed = self.code.is_some() || self.status >= 500;
            self.inner.usage.count(meter, failed, self.provider, self.payment);
        }
        let text = |header: &HeaderValue| String::from_utf8_lossy(header.as_bytes()).into_owned();
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
        tracing::info!(
            method = %self.method,
            route = self.route.map_or("none", |route| route.template),
            status = self.status,
            duration_ms = milliseconds(self.started.elapsed()),
            provider_ms = milliseconds(self.provider),
            attempts = self.attempts,
            request_id = text(&self.request_id),
            connection = self.connection.as_ref().map(|known| known.connection.id.as_str()),
            idempotency_key = self.idempotency_key.as_ref().map(text),
            error = self.code.map(ProblemCode::as_str),
            outcome = self.outcome.map(|outcome| match outcome {
                Outcome::NotSent => "not_sent",
                Outcome::Unknown => "unknown",
            }),
            end = self.end.as_str(),
            "proxied"
        );
    }
}

fn occupy(places: &AtomicUsize, most: usize) -> bool {
    let occupied = places.fetch_add(1, Ordering::Relaxed) < most;
    if !occupied {
        places.fetch_sub(1, Ordering::Relaxed);
    }
    occupied
}
