//! Mercado Pago's official SDKs, unmodified, with base URL and token set and nothing else: straight at the sandbox, so that it
//! is known to be understood by them, and through the connector, so that a platform can use them with it.
//!
//! They are found where `.ci/run` installs them. Where they are missing, these suites say so loudly and are left out, unless
//! `REQUIRE_ALL_SUITES=1`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::{API_KEY, CLIENT_ID, CLIENT_SECRET};

/// Where `.ci/run` puts what the suites drive; none where this part of it is not there.
pub(crate) fn tools(part: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()?
        .join("suite-tools");
    if folder.join(part).exists() {
        return Some(folder);
    }
    let required = std::env::var("REQUIRE_ALL_SUITES").is_ok_and(|value| value == "1");
    assert!(
        !required,
        "{part} is not installed, and REQUIRE_ALL_SUITES=1 leaves no suite out"
    );
    // Straight to the stream: the test harness hides what `eprintln!` writes in a test that passes.
    let _ = writeln!(
        std::io::stderr(),
        "\n*** LEFT OUT: the official SDKs, because target/suite-tools/{part} is not there (see .ci/run) ***\n"
    );
    None
}

pub(crate) fn suite(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/suites")
        .join(name)
}

/// Runs a suite; its last line.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.lines().last().unwrap_or_default().to_owned()
}

async fn python(base: &str, token: &str, tokenise: &str) {
    let Some(tools) = tools("python/bin/python") else {
        return;
    };
    let mut command = Command::new(tools.join("python/bin/python"));
    command.arg(suite("sdk.py")).args([base, token, tokenise]);
    let said = run(command).await;
    assert!(
        said.starts_with("python sdk: ") && said.ends_with(" calls answered as expected"),
        "{said}"
    );
}

async fn node(base: &str, arguments: &[&str]) {
    let Some(tools) = tools("node/node_modules/mercadopago") else {
        return;
    };
    let mut command = Command::new("node");
    command
        .arg(suite("sdk.mjs"))
        .arg(tools.join("node"))
        .arg(base)
        .args(arguments);
    let said = run(command).await;
    assert!(
        said.starts_with("node sdk: ") && said.ends_with(" calls answered as expected"),
        "{said}"
    );
}

/// The sandbox's origin, an access token of the application's own account, and where its cards are tokenised.
async fn straight(app: &TestApp) -> (String, String, String) {
    let request = json!({
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "client_credentials",
    });
    let origin = app.provider_origin();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client
        .post(format!("{origin}/oauth/token"))
        .json(&request)
        .send()
        .await
        .unwrap();
    let tokens: Value = answer.json().await.unwrap();
    let public_key = tokens["public_key"].as_str().unwrap();
    let tokenise = format!("{origin}/v1/card_tokens?public_key={public_key}");
    (
        origin,
        tokens["access_token"].as_str().unwrap().to_owned(),
        tokenise,
    )
}

/// The connector as the SDKs see it, a seller's token, and where the seller's cards are tokenised.
async fn through(app: &TestApp, seller: &str, account: usize) -> (String, String, String) {
    let connection = app.connect_seller_with_account(seller, account).await;
    let public_key = connection["public_key"].as_str().unwrap();
    let tokenise = format!("{}/v1/card_tokens?public_key={public_key}", app.provider_origin());
    (
        format!("{}/proxy/~", app.origin()),
        format!("{API_KEY}~{seller}"),
        tokenise,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_understands_the_sandbox() {
    let app = TestApp::start().await;
    let (base, token, tokenise) = straight(&app).await;
    python(&base, &token, &tokenise).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_sdk_understands_the_sandbox() {
    let app = TestApp::start().await;
    let (base, token, tokenise) = straight(&app).await;
    node(&base, &[&token, &tokenise]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_works_through_the_connector() {
    let app = TestApp::start().await;
    let (base, token, tokenise) = through(&app, "seller-1", 0).await;
    python(&base, &token, &tokenise).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_sdk_works_through_the_connector_and_two_sellers_in_one_process_are_not_crossed() {
    let app = TestApp::start().await;
    let (base, first, tokenise) = through(&app, "seller-1", 0).await;
    let (_, second, _) = through(&app, "seller-2", 1).await;
    node(&base, &[&first, &tokenise, &second]).await;
}
