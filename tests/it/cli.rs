//! The command line as whoever types it meets it: a real process, its exit code and its two streams.

use std::process::{Command, Output};

const KEY: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Runs the program in an empty folder with nothing in its environment but `settings`.
fn run(folder: &std::path::Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_marketplace-connector"))
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Runs the program with `settings` and gives exit code, standard output and standard error.
fn outcome(arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    told(&run(folder.path(), arguments, settings))
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

const REQUIRED: [(&str, &str); 3] = [
    ("ENCRYPTION_KEYS", KEY),
    ("MERCADOPAGO_CLIENT_ID", "1234567890123456"),
    ("MERCADOPAGO_CLIENT_SECRET", "canary-client-secret"),
];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    REQUIRED.iter().chain(more).copied().collect()
}

#[test]
fn serve_without_settings_names_each_missing_one_on_its_line() {
    let (code, out, err) = outcome(&["serve"], &[]);
    assert_eq!((code, out.as_str()), (2, ""));
    let named: Vec<_> = err.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        named,
        [
            "ENCRYPTION_KEYS",
            "MERCADOPAGO_CLIENT_ID",
            "MERCADOPAGO_CLIENT_SECRET"
        ]
    );
}

#[test]
fn serve_with_a_bad_key_says_what_is_wrong_with_it_and_does_not_show_it() {
    let bad = "k1:Y2FuYXJ5LWtleQ==";
    let (code, _, err) = outcome(&["serve"], &with(&[("ENCRYPTION_KEYS", bad)]));
    assert_eq!(code, 2);
    assert_eq!(err.lines().count(), 1);
    assert!(
        err.starts_with("ENCRYPTION_KEYS: entry 1: the key of `k1` has 10 bytes instead of 32"),
        "{err}"
    );
    assert!(!err.contains("Y2FuYXJ5"));
}

#[test]
fn serve_with_a_bad_url_names_the_setting() {
    let (code, _, err) = outcome(
        &["serve"],
        &with(&[("MERCADOPAGO_API_URL", "api.mercadopago.com")]),
    );
    assert_eq!(code, 2);
    assert_eq!(err.lines().count(), 1);
    assert!(err.starts_with("MERCADOPAGO_API_URL: must be a URL"), "{err}");
}

#[test]
fn serve_with_three_wrong_values_tells_all_three() {
    let wrong = [
        ("LISTEN_ADDR", "8080"),
        ("PROXY_TIMEOUT", "soon"),
        ("MERCADOPAGO_TEST_TOKENS", "perhaps"),
    ];
    let (code, _, err) = outcome(&["serve"], &with(&wrong));
    assert_eq!(code, 2);
    let named: Vec<_> = err.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(named, ["LISTEN_ADDR", "MERCADOPAGO_TEST_TOKENS", "PROXY_TIMEOUT"]);
    assert!(!err.contains("canary"));
}

#[test]
fn an_unknown_name_in_the_env_file_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), "LISTEN_ADR=127.0.0.1:1\n").unwrap();
    let (code, _, err) = told(&run(folder.path(), &["serve"], &REQUIRED));
    assert_eq!(
        (code, err.as_str()),
        (
            2,
            ".env: `LISTEN_ADR` is no setting; correct its name or remove it\n"
        )
    );
}

#[test]
fn bad_usage_is_2_and_help_is_0() {
    assert_eq!(outcome(&[], &[]).0, 2);
    assert_eq!(outcome(&["sreve"], &[]).0, 2);
    assert_eq!(
        outcome(
            &["api-keys", "create", "--name", "x", "--scopes", "payments:steal"],
            &REQUIRED
        )
        .0,
        2
    );
    let (code, out, _) = outcome(&["--help"], &[]);
    assert_eq!(code, 0);
    for command in [
        "serve",
        "demo",
        "migrate",
        "keys",
        "api-keys",
        "admins",
        "connections",
        "audit",
        "connect-links",
        "doctor",
    ] {
        assert!(
            out.contains(&format!("\n  {command} ")),
            "{command} is not in\n{out}"
        );
    }
}

#[test]
fn an_operator_makes_a_key_and_uses_it_from_the_first_minute() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], key: &str| {
        told(&run(
            folder.path(),
            arguments,
            &[("ENCRYPTION_KEYS", key), ("DATABASE_URL", "sqlite://data/c.db")],
        ))
    };
    let (code, key, _) = run(&["keys", "generate"], "");
    assert_eq!(code, 0);
    let key = key.trim();
    assert_eq!(run(&["migrate"], key).0, 0);
    assert!(folder.path().join("data/c.db").exists());

    let (code, made, _) = run(
        &[
            "api-keys", "create", "--name", "shop", "--scopes", "proxy:*", "--json",
        ],
        key,
    );
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert!(code == 0 && made["secret"].as_str().unwrap().starts_with("mck_"));
    let id = made["id"].as_str().unwrap();
    let (_, listed, _) = run(&["api-keys", "list"], key);
    assert!(listed.contains(id) && !listed.contains("mck_"), "{listed}");
    assert_eq!(run(&["api-keys", "revoke", id], key).0, 0);
    assert_eq!(run(&["api-keys", "revoke", id], key).0, 1);
    assert!(run(&["api-keys", "list"], key).1.contains("revoked"));

    let (code, made, _) = run(&["admins", "create", "ana@example.com", "--json"], key);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert!(code == 0 && made["password"].as_str().unwrap().len() >= 12);
    assert_eq!(run(&["admins", "create", "Ana@example.com"], key).0, 1);
    assert_eq!(run(&["admins", "reset-password", "ana@example.com"], key).0, 0);
    assert_eq!(run(&["admins", "remove", "ana@example.com"], key).0, 0);
    assert_eq!(run(&["admins", "remove", "ana@example.com"], key).0, 1);

    assert!(run(&["keys", "status"], key).1.contains("seals and opens"));
    assert_eq!(run(&["connections", "list", "--json"], key).1.trim(), "[]");
    assert_eq!(run(&["connections", "show", "nobody"], key).0, 1);
}

#[test]
fn a_database_of_another_key_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let list = |key: &str| {
        told(&run(
            folder.path(),
            &["admins", "list"],
            &[("ENCRYPTION_KEYS", key)],
        ))
    };
    assert_eq!(list(KEY).0, 0);
    let (code, _, err) = list("k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    assert_eq!(code, 1);
    assert!(
        err.contains("`k1` is not the key that this database was sealed with"),
        "{err}"
    );
}

#[test]
fn an_operator_takes_sellers_over_and_ends_their_connections() {
    let folder = tempfile::tempdir().unwrap();
    let settings = with(&[
        ("MERCADOPAGO_API_URL", "http://127.0.0.1:9"),
        ("RETURN_URL_ALLOWLIST", "https://shop.example.com/back"),
    ]);
    let run = |arguments: &[&str]| told(&run(folder.path(), arguments, &settings));
    let lines = [
        r#"{"seller_id":"s1","user_id":71,"access_token":"APP_USR-canary","refresh_token":"TG-canary","expires_in":15552000,"verify":false}"#,
        r#"{"seller_id":"s 2","user_id":72,"access_token":"APP_USR-canary","expires_in":1,"verify":false}"#,
        r#"{"seller_id":"s1","user_id":73,"access_token":"APP_USR-canary","expires_in":60,"verify":false}"#,
        "",
    ];
    std::fs::write(folder.path().join("sellers.ndjson"), lines.join("\n")).unwrap();
    let (code, out, _) = run(&["connections", "import", "sellers.ndjson", "--json"]);
    let imported: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &imported["imported"]), (1, &1.into()));
    let refused: Vec<_> = imported["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["line"].clone())
        .collect();
    assert_eq!(refused, [2, 3]);
    assert!(!out.contains("canary"), "{out}");

    let (code, shown, _) = run(&["connections", "show", "s1", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (code, shown["connection"]["status"].as_str()),
        (0, Some("active"))
    );
    assert!(run(&["connections", "list"]).1.contains("s1"));
    // The provider is away, so a refresh fails, and the connection stays as it is.
    assert_eq!(run(&["connections", "refresh", "s1"]).0, 1);
    let (code, revoked, _) = run(&["connections", "revoke", "s1"]);
    assert!(
        code == 0 && revoked.contains("revoked (revoked_by_admin)"),
        "{revoked}"
    );
    assert_eq!(run(&["connections", "revoke", "nobody"]).0, 1);

    let (code, link, _) = run(&[
        "connect-links",
        "create",
        "s1",
        "--return-url",
        "https://shop.example.com/back/1",
    ]);
    assert!(
        code == 0 && link.starts_with("http://127.0.0.1:8080/connect/"),
        "{link}"
    );
    let (code, _, err) = run(&[
        "connect-links",
        "create",
        "s1",
        "--return-url",
        "https://evil.example.com/",
    ]);
    assert!(code == 1 && err.contains("RETURN_URL_ALLOWLIST"), "{err}");
}

#[test]
fn an_export_is_sealed_and_goes_on_elsewhere_with_the_same_key() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = with(&[("MERCADOPAGO_API_URL", "http://127.0.0.1:9")]);
    let run_in =
        |folder: &tempfile::TempDir, arguments: &[&str]| told(&run(folder.path(), arguments, &settings));
    let imported = |folder: &tempfile::TempDir, lines: &str| {
        std::fs::write(folder.path().join("sellers.ndjson"), lines).unwrap();
        run_in(folder, &["connections", "import", "sellers.ndjson"])
    };
    let lines = [
        r#"{"seller_id":"s1","user_id":71,"access_token":"APP_USR-canary-1","refresh_token":"TG-canary-1","expires_in":15552000,"scope":"offline_access read","metadata":{"shop":"a"},"verify":false}"#,
        r#"{"seller_id":"s2","user_id":72,"access_token":"APP_USR-canary-2","expires_in":15552000,"verify":false}"#,
        r#"{"seller_id":"s3","user_id":73,"access_token":"APP_USR-canary-3","expires_in":15552000,"verify":false}"#,
    ];
    assert_eq!(imported(&old, &lines.join("\n")).0, 0);
    assert_eq!(run_in(&old, &["connections", "revoke", "s3"]).0, 0);

    let (code, sealed, err) = run_in(&old, &["connections", "export"]);
    assert_eq!((code, sealed.lines().count()), (0, 2), "{sealed}{err}");
    assert!(
        !sealed.contains("canary") && !err.contains("canary"),
        "{sealed}{err}"
    );

    // The provider is away: the tokens are not tried.
    let unverified = sealed.replace("{\"seller_id\"", "{\"verify\":false,\"seller_id\"");
    // One seller's token does not open as another's.
    let swapped = unverified.lines().next().unwrap().replace("\"s1\"", "\"s9\"");
    let (code, out, _) = imported(&new, &swapped);
    assert!(
        code == 1 && out.contains("line 1 is refused: `access_token`"),
        "{out}"
    );
    let (code, out, err) = imported(&new, &unverified);
    assert_eq!(code, 0, "{out}{err}");
    let plain = |folder| run_in(folder, &["connections", "export", "--reveal-tokens"]).1;
    let (before, after) = (plain(&old), plain(&new));
    assert_eq!(before, after);
    for token in ["APP_USR-canary-1", "TG-canary-1", "APP_USR-canary-2"] {
        assert!(after.contains(token), "{token} is not in the revealed export");
    }

    let verify = |folder| -> serde_json::Value {
        serde_json::from_str(&run_in(folder, &["audit", "verify", "--json"]).1).unwrap()
    };
    let told_before = verify(&old);
    assert_eq!(run_in(&old, &["connections", "export"]).0, 0);
    assert_eq!(verify(&old), told_before, "a sealed export tells nothing");
    plain(&old);
    let rows = |report: &serde_json::Value| report["unchained"].as_i64().unwrap();
    assert_eq!(
        rows(&verify(&old)),
        rows(&told_before) + 1,
        "a revealed one is audited"
    );
}

#[test]
fn doctor_says_what_is_wrong_and_how_to_mend_it() {
    let away = [
        ("MERCADOPAGO_API_URL", "http://127.0.0.1:9"),
        (
            "MERCADOPAGO_AUTHORIZATION_URL",
            "http://127.0.0.1:9/authorization",
        ),
    ];
    let (code, out, _) = outcome(&["doctor"], &with(&away));
    assert_eq!(code, 1);
    assert!(out.contains("ok     database: "), "{out}");
    assert!(
        out.contains("WRONG  API of default: 127.0.0.1 is not reached"),
        "{out}"
    );
    assert!(out.contains("check MERCADOPAGO_API_URL"), "{out}");
    assert_eq!(outcome(&["doctor"], &[]).0, 2);
}

#[test]
fn the_api_document_is_printed() {
    let (code, out, _) = outcome(&["openapi"], &[]);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/v1/connections/{seller_id}"]["delete"].is_object());
}
