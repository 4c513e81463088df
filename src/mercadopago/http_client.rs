//! The HTTP client for everything that is not a proxied call: token endpoint, probes, event deliveries.
//!
//! Guarantees: no redirects (a credential must not follow one), certificates checked against Mozilla's roots with TLS 1.2
//! or later, HTTP/1.1, no cookies, no referrer, no decompression, no retries, and no proxy from the environment: where
//! this service sends its credentials is decided by its settings alone. No connection is kept for a later call: a kept one
//! that the peer closes while we write would leave open whether a single-use refresh token was spent. Deadlines beyond
//! connecting are the caller's.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;

/// How long connecting (address, TCP, TLS) may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS as a client of Mercado Pago, for these calls and for proxied ones alike.
pub fn tls_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_webpki_roots()
        .with_no_client_auth())
}

/// Why there is no HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The TLS library refused its own defaults.
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP library refused the settings.
    #[error("cannot set the HTTP client up: {0}")]
    Client(#[from] reqwest::Error),
}

/// A builder with the guarantees above, for callers that add to it (event deliveries pin addresses).
pub fn builder() -> Result<reqwest::ClientBuilder, HttpClientError> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config()?)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_TIMEOUT))
}

/// The client itself.
pub fn build() -> Result<reqwest::Client, HttpClientError> {
    Ok(builder()?.build()?)
}

/// A transport error as one line, without the URL (it may carry an id) and without anything that was sent.
pub fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
