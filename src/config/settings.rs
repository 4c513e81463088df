//! The list of all settings (DESIGN.md section 4): name, default, and whether it is a secret, which then may also come
//! as `NAME_FILE`. What each means stands on the fields of [`super::Config`] and in `.env.example`; a test holds this list,
//! `.env.example` and the README's table together.

/// What a setting is when nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// The start stops.
    Required,
    /// The feature is off.
    Nothing,
    /// This text.
    Default(&'static str),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name of the environment variable.
    pub name: &'static str,
    /// Whether the value is never shown and `NAME_FILE` is read too.
    pub secret: bool,
    /// What holds when it is not set.
    pub unset: Unset,
}

macro_rules! settings {
    ($($name:ident $(: $secret:ident)? = $unset:tt $(($default:literal))?;)+) => {
        $(pub(super) const $name: Setting = Setting {
            name: stringify!($name),
            secret: settings!(@secret $($secret)?),
            unset: settings!(@unset $unset $(($default))?),
        };)+

        /// Every setting, in the order of DESIGN.md section 4.
        pub const SETTINGS: &[Setting] = &[$($name,)+];
    };
    (@secret secret) => { true };
    (@secret) => { false };
    (@unset required) => { Unset::Required };
    (@unset none) => { Unset::Nothing };
    (@unset default ($default:literal)) => { Unset::Default($default) };
}

settings! {
    LISTEN_ADDR = default("127.0.0.1:8080");
    OPS_LISTEN_ADDR = default("127.0.0.1:9464");
    ADMIN_LISTEN_ADDR = none;
    TRUSTED_PROXIES = none;
    PUBLIC_URL = default("http://127.0.0.1:8080");
    TLS_CERT_FILE = none;
    TLS_KEY_FILE = none;
    DATABASE_URL: secret = default("sqlite://data/connector.db");
    ENCRYPTION_KEYS: secret = required;
    MERCADOPAGO_CLIENT_ID = required;
    MERCADOPAGO_CLIENT_SECRET: secret = required;
    MERCADOPAGO_CLIENT_SECRET_PREVIOUS: secret = none;
    MERCADOPAGO_WEBHOOK_SECRET: secret = none;
    MERCADOPAGO_WEBHOOK_SECRET_PREVIOUS: secret = none;
    MERCADOPAGO_AUTHORIZATION_URL = default("https://auth.mercadopago.com/authorization");
    MERCADOPAGO_API_URL = default("https://api.mercadopago.com");
    MERCADOPAGO_PUBLIC_KEY = none;
    MERCADOPAGO_TEST_TOKENS = default("false");
    MERCADOPAGO_REVOKE_URL = none;
    APPLICATIONS_FILE = none;
    MARKETPLACE_NAME = default("Marketplace");
    MARKETPLACE_LOGO_FILE = none;
    MARKETPLACE_COLOR = none;
    BOOTSTRAP_API_KEY: secret = none;
    BOOTSTRAP_ADMIN_EMAIL = none;
    BOOTSTRAP_ADMIN_PASSWORD: secret = none;
    RETURN_URL_ALLOWLIST = none;
    REFRESH_AT_FRACTION = default("0.66");
    REFRESH_SPREAD = default("0.25");
    REFRESH_POLL_INTERVAL = default("30s");
    REFRESH_CONCURRENCY = default("8");
    REFRESH_RATE = default("20/s");
    REFRESH_LEASE = default("60s");
    TOKEN_ENDPOINT_TIMEOUT = default("15s");
    RESCUE_DIR = default("data/rescue");
    PROXY_CONNECT_TIMEOUT = default("3s");
    PROXY_TIMEOUT = default("30s");
    PROXY_IDLE_TIMEOUT = default("15s");
    PROXY_MAX_RETRIES = default("2");
    PROXY_MAX_BODY = default("10MiB");
    PROXY_MAX_IN_FLIGHT = default("2048");
    PROXY_MAX_IN_FLIGHT_PER_SELLER = default("256");
    CONNECTION_CACHE_TTL = default("1s");
    CONNECTION_CACHE_STALE = default("30s");
    CONNECTION_CACHE_SIZE = default("100000");
    DUPLICATE_PAYMENT_WINDOW = default("0s");
    EVENT_RETRY_SCHEDULE = default("5s,5m,30m,2h,5h,10h,14h,20h,24h");
    EVENT_ENDPOINTS_ALLOW_PRIVATE = default("false");
    NOTIFICATION_TOLERANCE = default("7d");
    RETENTION_EVENTS = default("30d");
    RETENTION_NOTIFICATIONS = default("30d");
    RETENTION_ATTEMPTS = default("400d");
    RETENTION_USAGE = default("400d");
    SHUTDOWN_DELAY = default("0s");
    SHUTDOWN_GRACE = default("45s");
    LOG_FORMAT = default("text");
    RUST_LOG = default("info");
    OTEL_EXPORTER_OTLP_ENDPOINT = none;
}

/// Whether `name` is a setting, or the `NAME_FILE` of a secret one.
pub(super) fn is_known(name: &str) -> bool {
    let file_of = name.strip_suffix("_FILE");
    SETTINGS
        .iter()
        .any(|setting| setting.name == name || (setting.secret && file_of == Some(setting.name)))
}
