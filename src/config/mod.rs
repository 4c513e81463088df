//! The settings (DESIGN.md section 4): read once at the start, checked together, typed from then on.
//!
//! Guarantees that all problems are told at once, one line each, and that none of them shows a secret; that nothing here
//! touches the process's environment ([`Sources`] is handed in); and that every default stands in one table,
//! [`SETTINGS`]. Does not check what needs a network or a database: that is `doctor`'s.

mod applications;
mod database_url;
mod read;
mod reader;
mod settings;
mod sources;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::domain::schedule::RefreshSchedule;
use crate::domain::secret::{ApiKeySecret, Password};
use crate::mercadopago::application::Applications;
use crate::vault::Keyring;

pub use database_url::DatabaseUrl;
pub use reader::Problem;
pub use settings::{SETTINGS, Setting, Unset};
pub use sources::Sources;
pub use values::{Rate, is_loopback};

/// All settings of `serve`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `LISTEN_ADDR`: where sellers, Mercado Pago and (without `ADMIN_LISTEN_ADDR`) everyone else is served. Port 0 takes a
    /// free one; the bound address is logged as `listening`.
    pub listen_addr: SocketAddr,
    /// `OPS_LISTEN_ADDR`: `/metrics`, `/healthz`, `/readyz`. Empty turns it off.
    pub ops_listen_addr: Option<SocketAddr>,
    /// `ADMIN_LISTEN_ADDR`: when set, `/console`, `/v1` and `/proxy` are served only there.
    pub admin_listen_addr: Option<SocketAddr>,
    /// `TRUSTED_PROXIES`: networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `PUBLIC_URL`: the origin that sellers see; https unless the host is loopback.
    pub public_url: Url,
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`: serve https directly.
    pub tls: Option<TlsFiles>,
    /// `DATABASE_URL`.
    pub database_url: DatabaseUrl,
    /// `ENCRYPTION_KEYS`: the first seals, all open.
    pub keyring: Keyring,
    /// `MERCADOPAGO_...` as application `default`, and those of `APPLICATIONS_FILE`.
    pub applications: Applications,
    /// What sellers' pages and the console look like.
    pub branding: Branding,
    /// What exists from the first start.
    pub bootstrap: Bootstrap,
    /// `RETURN_URL_ALLOWLIST`: origins with an optional path prefix that a `return_url` may have.
    pub return_urls: Vec<Url>,
    /// How tokens are renewed.
    pub refresh: RefreshSettings,
    /// How calls are proxied.
    pub proxy: ProxySettings,
    /// How events are delivered.
    pub events: EventSettings,
    /// `NOTIFICATION_TOLERANCE`: greatest age of a notification's signature.
    pub notification_tolerance: Duration,
    /// How long finished things are kept.
    pub retention: Retention,
    /// How the service stops.
    pub shutdown: ShutdownSettings,
    /// What it tells about itself.
    pub telemetry: TelemetrySettings,
    /// Every setting with its value as it may be shown; of a secret only whether it is set.
    pub shown: Vec<(String, String)>,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `TLS_CERT_FILE`.
    pub cert: PathBuf,
    /// `TLS_KEY_FILE`.
    pub key: PathBuf,
}

/// What sellers' pages and the console look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branding {
    /// `MARKETPLACE_NAME`.
    pub name: String,
    /// `MARKETPLACE_LOGO_FILE`: an SVG, PNG, JPEG or WebP file.
    pub logo_file: Option<PathBuf>,
    /// `MARKETPLACE_COLOR` as `#rrggbb`.
    pub color: Option<String>,
}

/// What exists from the first start.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// `BOOTSTRAP_API_KEY`: has all scopes for application `default`; once revoked it stays revoked.
    pub api_key: Option<ApiKeySecret>,
    /// `BOOTSTRAP_ADMIN_EMAIL` and `BOOTSTRAP_ADMIN_PASSWORD`: first owner of the console, while no admin exists.
    pub admin: Option<(String, Password)>,
}

/// How tokens are renewed.
#[derive(Debug, Clone, PartialEq)]
pub struct RefreshSettings {
    /// `REFRESH_AT_FRACTION` and `REFRESH_SPREAD`: when a token set is due.
    pub schedule: RefreshSchedule,
    /// `REFRESH_POLL_INTERVAL`: how often the worker looks.
    pub poll_interval: Duration,
    /// `REFRESH_CONCURRENCY`: refreshes at a time, per replica and application.
    pub concurrency: usize,
    /// `REFRESH_RATE`: refreshes begun, per replica and application.
    pub rate: Rate,
    /// `REFRESH_LEASE`: how long a claimed connection stays claimed.
    pub lease: Duration,
    /// `TOKEN_ENDPOINT_TIMEOUT`: until the whole answer; below half of the lease.
    pub token_endpoint_timeout: Duration,
    /// `RESCUE_DIR`: sealed answers on their way to the store; on a volume that survives the process, one per replica.
    pub rescue_dir: PathBuf,
}

/// How calls are proxied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// `PROXY_CONNECT_TIMEOUT`.
    pub connect_timeout: Duration,
    /// `PROXY_TIMEOUT`: until the answer's head, refresh and retries included.
    pub timeout: Duration,
    /// `PROXY_IDLE_TIMEOUT`: between two reads of a body.
    pub idle_timeout: Duration,
    /// `PROXY_MAX_RETRIES`: safe repetitions of one call.
    pub max_retries: u32,
    /// `PROXY_MAX_BODY`: bytes of a request's body.
    pub max_body: u64,
    /// `PROXY_MAX_IN_FLIGHT`: calls at a time.
    pub max_in_flight: usize,
    /// `PROXY_MAX_IN_FLIGHT_PER_SELLER`.
    pub max_in_flight_per_seller: usize,
    /// `CONNECTION_CACHE_TTL`: how long an opened token is used without a look at its row.
    pub cache_ttl: Duration,
    /// `CONNECTION_CACHE_STALE`: how long it is used while the store does not answer.
    pub cache_stale: Duration,
    /// `CONNECTION_CACHE_SIZE`: connections kept open at most.
    pub cache_size: usize,
    /// `DUPLICATE_PAYMENT_WINDOW`: zero is off.
    pub duplicate_payment_window: Duration,
}

/// How events are delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSettings {
    /// `EVENT_RETRY_SCHEDULE`: delays between attempts.
    pub retry_schedule: Vec<Duration>,
    /// `EVENT_ENDPOINTS_ALLOW_PRIVATE`: also http and private addresses.
    pub allow_private: bool,
}

/// How long finished things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// `RETENTION_EVENTS`.
    pub events: Duration,
    /// `RETENTION_NOTIFICATIONS`.
    pub notifications: Duration,
    /// `RETENTION_ATTEMPTS`: refresh attempts.
    pub attempts: Duration,
    /// `RETENTION_USAGE`.
    pub usage: Duration,
}

/// How the service stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// `SHUTDOWN_DELAY`: how long `/readyz` says 503 before accepting stops.
    pub delay: Duration,
    /// `SHUTDOWN_GRACE`: how long what is under way may take after that.
    pub grace: Duration,
}

/// What the service tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `RUST_LOG`: which log lines are written, in the syntax of `tracing-subscriber`'s `EnvFilter`.
    pub filter: String,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub otlp_endpoint: Option<Url>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The settings of commands that need the store and nothing else.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `DATABASE_URL`.
    pub database_url: DatabaseUrl,
    /// `ENCRYPTION_KEYS`.
    pub keyring: Keyring,
}

/// Fewest characters of an admin's password (NIST SP 800-63B section 5.1.1.2 asks for 8; a console that moves money, for
/// more).
pub const MIN_PASSWORD_CHARACTERS: usize = 12;

#[cfg(test)]
mod tests;
