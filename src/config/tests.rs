//! What an operator is told about settings, right and wrong.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::domain::ids::ApplicationId;

const KEY: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// What must be set, and nothing more.
fn required() -> HashMap<String, String> {
    settings(&[
        ("ENCRYPTION_KEYS", KEY),
        ("MERCADOPAGO_CLIENT_ID", "1234567890123456"),
        ("MERCADOPAGO_CLIENT_SECRET", "canary-secret"),
    ])
}

fn settings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn read(values: &HashMap<String, String>) -> Result<Config, Vec<String>> {
    Config::from_source(&|name| values.get(name).cloned())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// The problems when `changes` are made to settings that are right.
fn problems(changes: &[(&str, &str)]) -> Vec<String> {
    let mut values = required();
    values.extend(settings(changes));
    read(&values).err().unwrap_or_default()
}

#[test]
fn the_required_settings_are_enough_and_the_rest_has_the_documented_defaults() {
    let config = read(&required()).unwrap();
    assert_eq!(config.listen_addr.to_string(), "127.0.0.1:8080");
    assert_eq!(config.ops_listen_addr.unwrap().to_string(), "127.0.0.1:9464");
    assert_eq!(
        config.database_url,
        DatabaseUrl::Sqlite("data/connector.db".into())
    );
    assert_eq!(config.refresh.schedule, RefreshSchedule::default());
    assert_eq!(config.proxy.max_body, 10 << 20);
    assert_eq!(config.events.retry_schedule.len(), 9);
    let application = config
        .applications
        .get(&ApplicationId::default_application())
        .unwrap();
    assert_eq!(application.api_url.as_str(), "https://api.mercadopago.com/");
    assert_eq!(application.redirect_uri, "http://127.0.0.1:8080/oauth/callback");
    assert_eq!(config.refresh, RefreshSettings::default());
    assert_eq!(config.proxy, ProxySettings::default());
    assert_eq!(config.branding, Branding::default());
    assert_eq!(config.telemetry, TelemetrySettings::default());
}

#[test]
fn nothing_set_names_every_required_setting() {
    let problems = read(&HashMap::new()).unwrap_err();
    assert_eq!(
        problems,
        [
            "ENCRYPTION_KEYS: is required; make a key with `marketplace-connector keys generate` and keep it safe",
            "MERCADOPAGO_CLIENT_ID: is required; set it",
            "MERCADOPAGO_CLIENT_SECRET: is required; set it",
        ]
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let found = problems(&[
        ("LISTEN_ADDR", "8080"),
        ("REFRESH_RATE", "fast"),
        ("LOG_FORMAT", "xml"),
    ]);
    assert_eq!(
        found,
        [
            "LISTEN_ADDR: must be an IP address and a port like `127.0.0.1:8080`, not `8080`",
            "REFRESH_RATE: must be a rate above zero like `20/s` or `600/m`, not `fast`",
            "LOG_FORMAT: must be `text` or `json`, not `xml`",
        ]
    );
}

/// Which setting is named, and the changes that make it wrong.
const WRONG: &[(&str, &[(&str, &str)])] = &[
    ("LISTEN_ADDR", &[("LISTEN_ADDR", "")]),
    ("OPS_LISTEN_ADDR", &[("OPS_LISTEN_ADDR", "127.0.0.1:8080")]),
    ("ADMIN_LISTEN_ADDR", &[("ADMIN_LISTEN_ADDR", "127.0.0.1:9464")]),
    ("TRUSTED_PROXIES", &[("TRUSTED_PROXIES", "10.0.0.0/99")]),
    ("PUBLIC_URL", &[("PUBLIC_URL", "http://connect.example.com")]),
    ("PUBLIC_URL", &[("PUBLIC_URL", "https://connect.example.com/app")]),
    ("PUBLIC_URL", &[("PUBLIC_URL", "connect.example.com")]),
    ("TLS_KEY_FILE", &[("TLS_CERT_FILE", "Cargo.toml")]),
    ("TLS_CERT_FILE", &[("TLS_KEY_FILE", "Cargo.toml")]),
    (
        "TLS_CERT_FILE",
        &[("TLS_CERT_FILE", "no/such/file"), ("TLS_KEY_FILE", "Cargo.toml")],
    ),
    ("DATABASE_URL", &[("DATABASE_URL", "mysql://user:canary@host/db")]),
    ("ENCRYPTION_KEYS", &[("ENCRYPTION_KEYS", "k1:canary")]),
    ("ENCRYPTION_KEYS", &[("ENCRYPTION_KEYS", "")]),
    ("ENCRYPTION_KEYS", &[("ENCRYPTION_KEYS_FILE", "canary")]),
    ("MERCADOPAGO_CLIENT_ID", &[("MERCADOPAGO_CLIENT_ID", "has space")]),
    ("MERCADOPAGO_CLIENT_SECRET", &[("MERCADOPAGO_CLIENT_SECRET", " ")]),
    (
        "MERCADOPAGO_WEBHOOK_SECRET_PREVIOUS",
        &[("MERCADOPAGO_WEBHOOK_SECRET_PREVIOUS", "canary")],
    ),
    (
        "MERCADOPAGO_AUTHORIZATION_URL",
        &[("MERCADOPAGO_AUTHORIZATION_URL", "http://auth.example")],
    ),
    (
        "MERCADOPAGO_API_URL",
        &[("MERCADOPAGO_API_URL", "https://api.example/?x=1")],
    ),
    ("MERCADOPAGO_TEST_TOKENS", &[("MERCADOPAGO_TEST_TOKENS", "yes")]),
    (
        "MERCADOPAGO_REVOKE_URL",
        &[("MERCADOPAGO_REVOKE_URL", "https://api.example/revoke")],
    ),
    ("APPLICATIONS_FILE", &[("APPLICATIONS_FILE", "no/such/file")]),
    ("MARKETPLACE_NAME", &[("MARKETPLACE_NAME", "")]),
    (
        "MARKETPLACE_LOGO_FILE",
        &[("MARKETPLACE_LOGO_FILE", "Cargo.toml")],
    ),
    ("MARKETPLACE_COLOR", &[("MARKETPLACE_COLOR", "green")]),
    ("BOOTSTRAP_API_KEY", &[("BOOTSTRAP_API_KEY", "mck_canary")]),
    (
        "BOOTSTRAP_API_KEY",
        &[(
            "BOOTSTRAP_API_KEY",
            "mck_canary~aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        )],
    ),
    (
        "BOOTSTRAP_ADMIN_PASSWORD",
        &[("BOOTSTRAP_ADMIN_EMAIL", "a@example.com")],
    ),
    (
        "BOOTSTRAP_ADMIN_EMAIL",
        &[("BOOTSTRAP_ADMIN_PASSWORD", "canary-canary-canary")],
    ),
    (
        "BOOTSTRAP_ADMIN_PASSWORD",
        &[
            ("BOOTSTRAP_ADMIN_EMAIL", "a@example.com"),
            ("BOOTSTRAP_ADMIN_PASSWORD", "canary"),
        ],
    ),
    (
        "RETURN_URL_ALLOWLIST",
        &[("RETURN_URL_ALLOWLIST", "https://a.example,javascript:alert(1)")],
    ),
    ("REFRESH_AT_FRACTION", &[("REFRESH_AT_FRACTION", "1.5")]),
    ("REFRESH_SPREAD", &[("REFRESH_SPREAD", "0.66")]),
    ("REFRESH_POLL_INTERVAL", &[("REFRESH_POLL_INTERVAL", "0s")]),
    ("REFRESH_CONCURRENCY", &[("REFRESH_CONCURRENCY", "0")]),
    ("TOKEN_ENDPOINT_TIMEOUT", &[("TOKEN_ENDPOINT_TIMEOUT", "30s")]),
    ("PROXY_CONNECT_TIMEOUT", &[("PROXY_CONNECT_TIMEOUT", "31s")]),
    ("PROXY_TIMEOUT", &[("PROXY_TIMEOUT", "30")]),
    ("PROXY_MAX_BODY", &[("PROXY_MAX_BODY", "10MB")]),
    ("PROXY_MAX_RETRIES", &[("PROXY_MAX_RETRIES", "-1")]),
    ("PROXY_MAX_IN_FLIGHT", &[("PROXY_MAX_IN_FLIGHT", "0")]),
    ("CONNECTION_CACHE_STALE", &[("CONNECTION_CACHE_STALE", "0s")]),
    ("EVENT_RETRY_SCHEDULE", &[("EVENT_RETRY_SCHEDULE", "5s,,5m")]),
    ("NOTIFICATION_TOLERANCE", &[("NOTIFICATION_TOLERANCE", "a week")]),
    ("RETENTION_EVENTS", &[("RETENTION_EVENTS", "0s")]),
    ("SHUTDOWN_GRACE", &[("SHUTDOWN_GRACE", "-1s")]),
    ("RUST_LOG", &[("RUST_LOG", "=,=")]),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")],
    ),
];

#[test]
fn each_wrong_value_is_one_problem_that_names_its_setting() {
    for (setting, changes) in WRONG {
        let found = problems(changes);
        assert_eq!(found.len(), 1, "{changes:?}: {found:?}");
        assert!(
            found[0].starts_with(&format!("{setting}: ")),
            "{changes:?}: {found:?}"
        );
        let of_file = changes.iter().any(|(name, _)| name.ends_with("_KEYS_FILE"));
        assert!(of_file || !found[0].contains("canary"), "{found:?}");
    }
}

#[test]
fn a_problem_stays_on_its_line() {
    let found = problems(&[("LOG_FORMAT", "a\nENCRYPTION_KEYS: forged\u{1b}[2J")]);
    assert_eq!(found.len(), 1);
    assert!(!found[0].contains(['\n', '\u{1b}']));
}

#[test]
fn an_empty_ops_address_turns_it_off_and_ports_0_may_repeat() {
    let mut values = required();
    values.extend(settings(&[("OPS_LISTEN_ADDR", "")]));
    assert_eq!(read(&values).unwrap().ops_listen_addr, None);
    assert_eq!(
        problems(&[("OPS_LISTEN_ADDR", "127.0.0.1:0"), ("LISTEN_ADDR", "127.0.0.1:0")]),
        [""; 0]
    );
}

#[test]
fn a_secret_may_come_as_a_file_but_not_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, format!("{KEY}\n")).unwrap();
    let mut values = required();
    values.insert("ENCRYPTION_KEYS_FILE".to_owned(), path.display().to_string());
    assert_eq!(
        read(&values).unwrap_err(),
        ["ENCRYPTION_KEYS: is set, and so is ENCRYPTION_KEYS_FILE; remove one of them"]
    );
    values.remove("ENCRYPTION_KEYS");
    assert_eq!(read(&values).unwrap().keyring.active_id().as_str(), "k1");
}

#[test]
fn debug_of_all_settings_shows_no_secret() {
    let mut values = required();
    values.extend(settings(&[
        ("DATABASE_URL", "postgres://user:canary@host/db"),
        ("BOOTSTRAP_API_KEY", "mck_canarycanarycanarycanarycanarycanary"),
        ("BOOTSTRAP_ADMIN_EMAIL", "a@example.com"),
        ("BOOTSTRAP_ADMIN_PASSWORD", "canary-canary"),
        ("MERCADOPAGO_WEBHOOK_SECRET", "canary"),
    ]));
    let config = read(&values).unwrap();
    let client_secret = config
        .shown
        .iter()
        .find(|(name, _)| name == "MERCADOPAGO_CLIENT_SECRET")
        .unwrap();
    assert_eq!(client_secret.1, "set");
    assert_eq!(config.shown.len(), SETTINGS.len());
    let shown = format!("{config:?}");
    assert!(!shown.contains("canary") && !shown.contains("AAAA"), "{shown}");
}

/// The settings with an `APPLICATIONS_FILE` of that text.
fn with_applications(text: &str) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("applications.toml");
    std::fs::write(&path, text).unwrap();
    let mut values = required();
    values.insert("APPLICATIONS_FILE".to_owned(), path.display().to_string());
    read(&values)
}

#[test]
fn more_applications_come_from_the_file() {
    let text = "[brazil]\nclient_id = 99\nclient_secret = \"s\"\ntest_tokens = true\n";
    let config = with_applications(text).unwrap();
    let brazil = config.applications.get(&"brazil".parse().unwrap()).unwrap();
    assert_eq!((brazil.client_id.as_str(), brazil.test_tokens), ("99", true));
    assert_eq!(brazil.api_url.as_str(), "https://api.mercadopago.com/");
    assert_eq!(config.applications.iter().count(), 2);
}

#[test]
fn each_way_an_applications_file_is_wrong_is_named_and_no_line_is_repeated() {
    let cases = [
        (
            "[brazil]\nclient_id = 9\nclient_secert = 'canary'\n",
            &[
                "APPLICATIONS_FILE [brazil] client_secert: is no setting of an application; correct its name or remove it",
                "APPLICATIONS_FILE [brazil] client_secret: is required; set it",
            ][..],
        ),
        (
            "[Brazil]\n",
            &[
                "APPLICATIONS_FILE: [Brazil]: an application's slug is 1 to 32 of a-z 0-9 - and begins with a letter",
            ],
        ),
        (
            "[default]\nclient_id = 9\n",
            &[
                "APPLICATIONS_FILE: [default] is the application of the MERCADOPAGO_... settings; give it another slug",
            ],
        ),
        (
            "client_id = 'canary'\n",
            &["APPLICATIONS_FILE: `client_id` stands outside a table; begin with `[slug]`"],
        ),
        (
            "[a]\nclient_id = 9\nclient_secret = canary\n",
            &[
                "APPLICATIONS_FILE: is not TOML at line 3; write `name = \"value\"` under `[slug]`, each name once",
            ],
        ),
        (
            "[a]\nclient_id = ['x']\nclient_secret = 'canary'\n",
            &[
                "APPLICATIONS_FILE [a] client_id: must be text in quotes",
                "APPLICATIONS_FILE [a] client_id: is required; set it",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(with_applications(text).unwrap_err(), expected, "{text}");
    }
}

/// What a document says of each setting: its default, or how it is without one.
type Documented = BTreeMap<String, String>;

fn in_code() -> Documented {
    let unset = |setting: &Setting| match setting.unset {
        Unset::Required => "required".to_owned(),
        Unset::Nothing => "none".to_owned(),
        Unset::Default(default) => default.to_owned(),
    };
    SETTINGS
        .iter()
        .map(|setting| (setting.name.to_owned(), unset(setting)))
        .collect()
}

/// `NAME=` is required, `# NAME=` has no default, `# NAME=value` has one.
fn in_env_example() -> Documented {
    let text = include_str!("../../.env.example");
    let entry = |line: &str| {
        let (commented, line) = line.strip_prefix("# ").map_or((false, line), |rest| (true, rest));
        let (name, value) = line.split_once('=')?;
        let is_name = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let value = match (commented, value) {
            (true, "") => "none",
            (false, "") => "required",
            (_, value) => value,
        };
        is_name.then(|| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

/// Rows of the table under `## Settings`: `` | `NAME` | `default` (or required, none) | note | ``.
fn in_readme() -> Documented {
    let text = include_str!("../../README.md");
    let section = text
        .split("\n## Settings\n")
        .nth(1)
        .expect("README.md has a section `## Settings`");
    let section = section.split("\n## ").next().unwrap_or(section);
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.trim_matches('`').to_owned()))
    };
    section.lines().filter_map(row).collect()
}

#[test]
fn the_code_the_example_file_and_the_readme_list_the_same_settings_and_defaults() {
    assert_eq!(in_env_example(), in_code());
    assert_eq!(in_readme(), in_code());
}
