//! What is counted of proxied calls (DESIGN.md section 16): by class of route, never by seller. Handles are made once, so
//! that counting is an addition and no lookup.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::mercadopago::declines::{DeclineCategory, PaymentOutcome};
use crate::mercadopago::routes::RouteClass;

const CLASSES: usize = RouteClass::ALL.len();

/// Who gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Mercado Pago.
    Provider,
    /// This service.
    Connector,
}

/// How the cache served a look at a connection or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheUse {
    /// From memory.
    Hit,
    /// From memory, after a look at its row.
    Checked,
    /// From the store.
    Loaded,
    /// From memory, because the store does not answer.
    Stale,
}

/// The handles.
pub(super) struct Metrics {
    /// `connector_proxy_calls_total{route, source, status}`; the last row is of calls that matched no route.
    calls: [[OnceLock<Counter>; 10]; CLASSES + 1],
    provider: Histogram,
    own: Histogram,
    in_flight: Gauge,
    cached: Gauge,
    retries: Counter,
    cache: [Counter; 4],
    approvals: Counter,
    declines: Vec<Counter>,
    probes: Counter,
    store_silent: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Handles of the recorder that is installed now.
    pub(super) fn new() -> Self {
        let cache = |use_: &'static str| counter!("connector_proxy_cache_total", "use" => use_);
        let decline = |category: &DeclineCategory| counter!("connector_proxy_declines_total", "category" => category.as_str());
        Self {
            calls: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            provider: histogram!("connector_proxy_provider_seconds"),
            own: histogram!("connector_proxy_own_seconds"),
            in_flight: gauge!("connector_proxy_in_flight"),
            cached: gauge!("connector_proxy_cached_connections"),
            retries: counter!("connector_proxy_retries_total"),
            cache: ["hit", "checked", "loaded", "stale"].map(cache),
            approvals: counter!("connector_proxy_approvals_total"),
            declines: DeclineCategory::ALL.iter().map(decline).collect(),
            probes: counter!("connector_proxy_probes_total"),
            store_silent: counter!("connector_proxy_store_silent_total"),
        }
    }

    /// A call ended with a status; its route is none if it matched none.
    pub(super) fn call(&self, class: Option<RouteClass>, source: Source, status: u16) {
        let row = class.map_or(CLASSES, |class| class as usize);
        let hundred = usize::from(status / 100).clamp(1, 5) - 1;
        let column = hundred + if source == Source::Connector { 5 } else { 0 };
        let make = || {
            let route = class.map_or("none", RouteClass::as_str);
            let source = if source == Source::Connector {
                "connector"
            } else {
                "provider"
            };
            let status = ["1xx", "2xx", "3xx", "4xx", "5xx"][hundred];
            counter!("connector_proxy_calls_total", "route" => route, "source" => source, "status" => status)
        };
        self.calls[row][column].get_or_init(make).increment(1);
    }

    /// How long Mercado Pago and this service took until the answer's head.
    pub(super) fn durations(&self, provider: Duration, own: Duration) {
        self.provider.record(provider.as_secs_f64());
        self.own.record(own.as_secs_f64());
    }

    /// So many calls are under way, and so many connections remembered. Told every few seconds rather than by each call.
    #[expect(clippy::cast_precision_loss, reason = "counts in memory are far below 2^52")]
    pub(super) fn level(&self, in_flight: usize, cached: usize) {
        self.in_flight.set(in_flight as f64);
        self.cached.set(cached as f64);
    }

    /// A call is sent again.
    pub(super) fn retry(&self) {
        self.retries.increment(1);
    }

    /// The cache was used.
    pub(super) fn cache(&self, cache_use: CacheUse) {
        self.cache[cache_use as usize].increment(1);
    }

    /// A payment was answered.
    pub(super) fn payment(&self, outcome: PaymentOutcome) {
        match outcome {
            PaymentOutcome::Approved => self.approvals.increment(1),
            PaymentOutcome::Declined(decline) => self.declines[decline.category as usize].increment(1),
            PaymentOutcome::Undecided => {}
        }
    }

    /// Mercado Pago is asked whether a token is alive.
    pub(super) fn probe(&self) {
        self.probes.increment(1);
    }

    /// The store did not answer in time.
    pub(super) fn store_silent(&self) {
        self.store_silent.increment(1);
    }
}
