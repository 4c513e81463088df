//! How each section is read from its settings, and the checks across settings.
//!
//! A section reads everything before it gives anything up, so that all problems are found in one go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use url::Url;

use super::reader::{Problem, Reader};
use super::settings::{self as name, SETTINGS};
use super::sources::Sources;
use super::{
    Bootstrap, Branding, Config, DatabaseUrl, EventSettings, LogFormat, MIN_PASSWORD_CHARACTERS,
    ProxySettings, RefreshSettings, Retention, ShutdownSettings, StoreConfig, TelemetrySettings, TlsFiles,
    applications, values,
};
use crate::domain::schedule::RefreshSchedule;
use crate::domain::secret::{ApiKeySecret, Password};
use crate::vault::InvalidKeyring;

impl Config {
    /// Reads and checks all settings. `source` gives the text of a setting by its name.
    pub fn from_source(source: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(source);
        let config = Self::read(&mut reader);
        finish(reader, config)
    }

    /// Reads and checks all settings; what is wrong with the sources themselves is told with the rest.
    pub fn from_sources(sources: &Sources) -> Result<Self, Vec<Problem>> {
        with_sources(sources, Self::read)
    }

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        // Everything is read before anything is given up, so that all problems are found.
        let listen_addr = r.value(name::LISTEN_ADDR, values::socket_addr);
        let ops_listen_addr = r.optional_or_off(name::OPS_LISTEN_ADDR, values::socket_addr);
        let admin_listen_addr = r.optional(name::ADMIN_LISTEN_ADDR, values::socket_addr);
        distinct_listeners(r, listen_addr, ops_listen_addr, admin_listen_addr);
        let trusted_proxies = r
            .optional(name::TRUSTED_PROXIES, values::networks)
            .unwrap_or_default();
        let public_url = r.value(name::PUBLIC_URL, values::origin);
        let tls = TlsFiles::read(r);
        let store = StoreConfig::read(r);
        let applications = applications::read(r, public_url.as_ref());
        let branding = Branding::read(r);
        let bootstrap = Bootstrap::read(r);
        let return_urls = r
            .optional(name::RETURN_URL_ALLOWLIST, values::url_prefixes)
            .unwrap_or_default();
        let refresh = RefreshSettings::read(r);
        let proxy = ProxySettings::read(r);
        let events = EventSettings::read(r);
        let notification_tolerance = r.value(name::NOTIFICATION_TOLERANCE, values::some_duration);
        let retention = Retention::read(r);
        let shutdown = ShutdownSettings::read(r);
        let telemetry = TelemetrySettings::read(r);
        let shown = SETTINGS
            .iter()
            .map(|setting| (setting.name.to_owned(), r.shown(*setting)))
            .collect();
        let store = store?;
        Some(Self {
            listen_addr: listen_addr?,
            ops_listen_addr,
            admin_listen_addr,
            trusted_proxies,
            public_url: public_url?,
            tls,
            database_url: store.database_url,
            keyring: store.keyring,
            applications: applications?,
            branding: branding?,
            bootstrap,
            return_urls,
            refresh: refresh?,
            proxy: proxy?,
            events: events?,
            notification_tolerance: notification_tolerance?,
            retention: retention?,
            shutdown: shutdown?,
            telemetry: telemetry?,
            shown,
        })
    }
}

impl DatabaseUrl {
    /// Reads `DATABASE_URL` alone.
    pub fn from_sources(sources: &Sources) -> Result<Self, Vec<Problem>> {
        with_sources(sources, Self::read)
    }

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        r.value(name::DATABASE_URL, |text| text.parse().map_err(str::to_owned))
    }
}

impl StoreConfig {
    /// Reads the settings of the store alone.
    pub fn from_sources(sources: &Sources) -> Result<Self, Vec<Problem>> {
        with_sources(sources, Self::read)
    }

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let database_url = DatabaseUrl::read(r);
        let keyring = if r.is_set(name::ENCRYPTION_KEYS) {
            r.value(name::ENCRYPTION_KEYS, |text| {
                text.parse().map_err(|error: InvalidKeyring| error.to_string())
            })
        } else {
            let mend = "is required; make a key with `marketplace-connector keys generate` and keep it safe";
            r.problem(name::ENCRYPTION_KEYS.name, mend);
            None
        };
        Some(Self {
            database_url: database_url?,
            keyring: keyring?,
        })
    }
}

impl TlsFiles {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (cert_set, key_set) = (r.is_set(name::TLS_CERT_FILE), r.is_set(name::TLS_KEY_FILE));
        let cert = r.optional(name::TLS_CERT_FILE, readable_file);
        let key = r.optional(name::TLS_KEY_FILE, readable_file);
        if cert_set && !key_set {
            r.problem(name::TLS_KEY_FILE.name, "is missing; TLS_CERT_FILE needs it");
        }
        if key_set && !cert_set {
            r.problem(name::TLS_CERT_FILE.name, "is missing; TLS_KEY_FILE needs it");
        }
        cert.zip(key).map(|(cert, key)| Self { cert, key })
    }
}

impl Branding {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let name = r.value(name::MARKETPLACE_NAME, |text| Ok(text.to_owned()));
        let logo_file = r.optional(name::MARKETPLACE_LOGO_FILE, |text| {
            let path = readable_file(text)?;
            let extension = path
                .extension()
                .and_then(|extension| extension.to_str())
                .unwrap_or_default();
            match extension.to_ascii_lowercase().as_str() {
                "svg" | "png" | "jpg" | "jpeg" | "webp" => Ok(path),
                _ => Err("must be a file ending in .svg, .png, .jpg, .jpeg or .webp".to_owned()),
            }
        });
        let color = r.optional(name::MARKETPLACE_COLOR, values::color);
        Some(Self {
            name: name?,
            logo_file,
            color,
        })
    }
}

impl Bootstrap {
    fn read(r: &mut Reader<'_>) -> Self {
        let api_key = r.optional(name::BOOTSTRAP_API_KEY, |text| {
            let rest = text.strip_prefix("mck_").unwrap_or_default();
            // No `~`: it parts key and seller in the token of `/proxy/~` (DESIGN.md section 5).
            let allowed = rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            if (32..=256).contains(&rest.len()) && allowed {
                Ok(ApiKeySecret::new(text))
            } else {
                Err("must be `mck_` and 32 to 256 random characters of A-Z a-z 0-9 _ -".to_owned())
            }
        });
        let email_set = r.is_set(name::BOOTSTRAP_ADMIN_EMAIL);
        let password_set = r.is_set(name::BOOTSTRAP_ADMIN_PASSWORD);
        let email = r.optional(name::BOOTSTRAP_ADMIN_EMAIL, |text| match text.split_once('@') {
            Some((user, host)) if !user.is_empty() && !host.is_empty() && text.len() <= 254 => {
                Ok(text.to_owned())
            }
            _ => Err("must be an e-mail address".to_owned()),
        });
        let password = r.optional(name::BOOTSTRAP_ADMIN_PASSWORD, |text| {
            let length = text.chars().count();
            if length < MIN_PASSWORD_CHARACTERS {
                return Err(format!(
                    "has {length} characters; a password has at least {MIN_PASSWORD_CHARACTERS}"
                ));
            }
            Ok(Password::new(text))
        });
        if email_set && !password_set {
            r.problem(
                name::BOOTSTRAP_ADMIN_PASSWORD.name,
                "is missing; BOOTSTRAP_ADMIN_EMAIL needs it",
            );
        }
        if password_set && !email_set {
            r.problem(
                name::BOOTSTRAP_ADMIN_EMAIL.name,
                "is missing; BOOTSTRAP_ADMIN_PASSWORD needs it",
            );
        }
        Self {
            api_key,
            admin: email.zip(password),
        }
    }
}

impl RefreshSettings {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let at_fraction = r.value(name::REFRESH_AT_FRACTION, values::fraction);
        let spread = r.value(name::REFRESH_SPREAD, values::fraction);
        if let (Some(at_fraction), Some(spread)) = (at_fraction, spread)
            && spread >= at_fraction
        {
            r.problem(
                name::REFRESH_SPREAD.name,
                "must be below REFRESH_AT_FRACTION, or a token would be due at once",
            );
        }
        let poll_interval = r.value(name::REFRESH_POLL_INTERVAL, values::some_duration);
        let concurrency = r.value(name::REFRESH_CONCURRENCY, values::count);
        let rate = r.value(name::REFRESH_RATE, str::parse::<values::Rate>);
        let lease = r.value(name::REFRESH_LEASE, values::some_duration);
        let token_endpoint_timeout = r.value(name::TOKEN_ENDPOINT_TIMEOUT, values::some_duration);
        if let (Some(lease), Some(timeout)) = (lease, token_endpoint_timeout)
            && timeout >= lease / 2
        {
            r.problem(
                name::TOKEN_ENDPOINT_TIMEOUT.name,
                "must be below half of REFRESH_LEASE, or an answer could come after the lease; lower it or raise the lease",
            );
        }
        let rescue_dir = r.value(name::RESCUE_DIR, |text| Ok(PathBuf::from(text)));
        Some(Self {
            schedule: RefreshSchedule {
                at_fraction: at_fraction?,
                spread: spread?,
            },
            poll_interval: poll_interval?,
            concurrency: concurrency?,
            rate: rate?,
            lease: lease?,
            token_endpoint_timeout: token_endpoint_timeout?,
            rescue_dir: rescue_dir?,
        })
    }
}

impl ProxySettings {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let connect_timeout = r.value(name::PROXY_CONNECT_TIMEOUT, values::some_duration);
        let timeout = r.value(name::PROXY_TIMEOUT, values::some_duration);
        if connect_timeout
            .zip(timeout)
            .is_some_and(|(connect, whole)| connect > whole)
        {
            r.problem(
                name::PROXY_CONNECT_TIMEOUT.name,
                "must not be above PROXY_TIMEOUT, which includes it",
            );
        }
        let idle_timeout = r.value(name::PROXY_IDLE_TIMEOUT, values::some_duration);
        let max_retries = r.value(name::PROXY_MAX_RETRIES, values::retries);
        let max_body = r.value(name::PROXY_MAX_BODY, values::size);
        let max_in_flight = r.value(name::PROXY_MAX_IN_FLIGHT, values::count);
        let max_in_flight_per_seller = r.value(name::PROXY_MAX_IN_FLIGHT_PER_SELLER, values::count);
        let cache_ttl = r.value(name::CONNECTION_CACHE_TTL, values::duration);
        let cache_stale = r.value(name::CONNECTION_CACHE_STALE, values::duration);
        if cache_ttl.zip(cache_stale).is_some_and(|(ttl, stale)| stale < ttl) {
            r.problem(
                name::CONNECTION_CACHE_STALE.name,
                "must not be below CONNECTION_CACHE_TTL",
            );
        }
        let cache_size = r.value(name::CONNECTION_CACHE_SIZE, values::count);
        let duplicate_payment_window = r.value(name::DUPLICATE_PAYMENT_WINDOW, values::duration);
        Some(Self {
            connect_timeout: connect_timeout?,
            timeout: timeout?,
            idle_timeout: idle_timeout?,
            max_retries: max_retries?,
            max_body: max_body?,
            max_in_flight: max_in_flight?,
            max_in_flight_per_seller: max_in_flight_per_seller?,
            cache_ttl: cache_ttl?,
            cache_stale: cache_stale?,
            cache_size: cache_size?,
            duplicate_payment_window: duplicate_payment_window?,
        })
    }
}

impl EventSettings {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let retry_schedule = r.value(name::EVENT_RETRY_SCHEDULE, values::durations);
        let allow_private = r.value(name::EVENT_ENDPOINTS_ALLOW_PRIVATE, values::boolean);
        Some(Self {
            retry_schedule: retry_schedule?,
            allow_private: allow_private?,
        })
    }
}

impl Retention {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let events = r.value(name::RETENTION_EVENTS, values::some_duration);
        let notifications = r.value(name::RETENTION_NOTIFICATIONS, values::some_duration);
        let attempts = r.value(name::RETENTION_ATTEMPTS, values::some_duration);
        let usage = r.value(name::RETENTION_USAGE, values::some_duration);
        Some(Self {
            events: events?,
            notifications: notifications?,
            attempts: attempts?,
            usage: usage?,
        })
    }
}

impl ShutdownSettings {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let delay = r.value(name::SHUTDOWN_DELAY, values::duration);
        let grace = r.value(name::SHUTDOWN_GRACE, values::duration);
        Some(Self {
            delay: delay?,
            grace: grace?,
        })
    }
}

impl TelemetrySettings {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let log_format = r.value(name::LOG_FORMAT, |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("must be `text` or `json`".to_owned()),
        });
        let filter = r.value(name::RUST_LOG, |text| {
            text.parse::<tracing_subscriber::EnvFilter>()
                .map(|_| text.to_owned())
                .map_err(|_| "must be a log filter like `info` or `info,sqlx=warn`".to_owned())
        });
        let otlp_endpoint = r.optional_or_off(name::OTEL_EXPORTER_OTLP_ENDPOINT, |text| {
            let url = text
                .parse::<Url>()
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https"));
            url.ok_or_else(|| "must be a URL like `http://collector:4318`".to_owned())
        });
        Some(Self {
            log_format: log_format?,
            filter: filter?,
            otlp_endpoint,
        })
    }
}

/// Implements `Default` by reading an empty source: the table of settings is the only place where defaults stand.
macro_rules! default_from_table {
    ($($type:ident),+) => {$(
        impl Default for $type {
            fn default() -> Self {
                // A test reads every default of the table.
                Self::read(&mut Reader::new(&|_| None)).expect("the defaults of the table are right")
            }
        }
    )+};
}

default_from_table!(
    Branding,
    RefreshSettings,
    ProxySettings,
    EventSettings,
    Retention,
    ShutdownSettings,
    TelemetrySettings
);

fn with_sources<T>(
    sources: &Sources,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let source = |name: &str| sources.get(name);
    let mut reader = Reader::new(&source);
    reader.add(sources.problems().to_vec());
    let value = read(&mut reader);
    finish(reader, value)
}

fn finish<T>(reader: Reader<'_>, value: Option<T>) -> Result<T, Vec<Problem>> {
    let problems = reader.finish();
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(problems),
    }
}

fn distinct_listeners(
    r: &mut Reader<'_>,
    listen: Option<SocketAddr>,
    ops: Option<SocketAddr>,
    admin: Option<SocketAddr>,
) {
    let same = |a: Option<SocketAddr>, b: Option<SocketAddr>| {
        a.is_some() && a == b && a.is_some_and(|a| a.port() != 0)
    };
    if same(listen, ops) {
        r.problem(
            name::OPS_LISTEN_ADDR.name,
            "is the same as LISTEN_ADDR; give it another port, or leave it empty",
        );
    }
    if same(listen, admin) || same(ops, admin) {
        r.problem(
            name::ADMIN_LISTEN_ADDR.name,
            "is the same as another listener's address; give it another port",
        );
    }
}

fn readable_file(text: &str) -> Result<PathBuf, String> {
    match std::fs::File::open(text) {
        Ok(_) => Ok(Path::new(text).to_owned()),
        Err(error) => Err(format!("must be a file that can be read ({error})")),
    }
}
