//! What the service tells about itself: log lines to standard error, as text or JSON, and metrics for Prometheus.
//!
//! Guarantees nothing about secrets by itself: they are types that cannot print ([`crate::domain::secret`]), so no line
//! can hold one. Traces are not exported yet: a set `OTEL_EXPORTER_OTLP_ENDPOINT` is answered with a warning.

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, TelemetrySettings};

/// Upper bounds of latency histograms in seconds: fine where a proxied call's own share lies, coarse up to its deadline.
const SECONDS_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    30.0,
];

/// Why telemetry could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter does not parse.
    #[error("the log filter is wrong: {0}")]
    Filter(#[from] ParseError),
    /// Somebody else took the process's logs.
    #[error("log lines are written elsewhere already: {0}")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
    /// The histogram's bounds are wrong.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(#[from] BuildError),
    /// Somebody else took the process's metrics.
    #[error("metrics are recorded elsewhere already")]
    MetricsTaken,
}

/// Sends the process's log lines to standard error from here on. Once per process.
pub fn start_logs(settings: &TelemetrySettings) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&settings.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => lines.with_ansi(false).finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    if settings.otlp_endpoint.is_some() {
        tracing::warn!("OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces are not exported yet; remove it");
    }
    Ok(())
}

/// The process's metrics. The first call begins recording; who holds the handle renders them.
///
/// The handle's `run_upkeep` has to be called every few seconds, or histograms grow with each observation.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    static METRICS: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut metrics = METRICS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = metrics.as_ref() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::MetricsTaken)?;
    *metrics = Some(handle.clone());
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_and_latencies_have_buckets() {
        let handle = metrics().unwrap();
        metrics::counter!("connector_test_total", "outcome" => "good").increment(2);
        metrics::histogram!("connector_test_seconds").record(0.02);
        let text = metrics().unwrap().render();
        assert!(
            text.contains(r#"connector_test_total{outcome="good"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"connector_test_seconds_bucket{le="0.025"} 1"#),
            "{text}"
        );
        handle.run_upkeep();
    }
}
