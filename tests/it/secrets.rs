//! No token leaves: the whole story is played with secrets that are known, the log as talkative as it gets, and then every
//! file that the service wrote and everything that it answered is searched for them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::http::{hidden_field, parameter};
use crate::support::plain_provider::{PlainProvider, access_token, refresh_token};
use crate::support::process::Service;
use crate::support::{ADMIN_EMAIL, ADMIN_PASSWORD, API_KEY, CLIENT_SECRET, ENCRYPTION_KEY};

const WEBHOOK_SECRET: &str = "canary-webhook-secret-9Zt2";
const WRONG_PASSWORD: &str = "canary-wrong-password-77";
const WRONG_KEY: &str = "mck_canary-wrong-api-key-0123456789abcdefgh";
const CODES: [&str; 2] = ["TG-canary-code-1", "TG-canary-code-2"];

/// The secrets that were in play, each with a name for the report.
struct Canaries(Vec<(String, String)>);

impl Canaries {
    fn add(&mut self, name: &str, secret: impl Into<String>) {
        self.0.push((name.to_owned(), secret.into()));
    }

    /// What of them is found in `content`, plain or in one of the usual codes.
    fn found_in(&self, content: &[u8]) -> Vec<&str> {
        let holds = |needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
        let mut found = Vec::new();
        for (name, secret) in &self.0 {
            let hex: Vec<_> = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            let percent: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let codes = [
                secret.clone(),
                hex.concat(),
                percent,
                STANDARD_NO_PAD.encode(secret),
                URL_SAFE_NO_PAD.encode(secret),
            ];
            if codes.iter().any(|code| holds(code.as_bytes())) {
                found.push(name.as_str());
            }
        }
        found
    }
}

/// Connects the seller with the given code; the state and the verifier that were used.
async fn connect(service: &Service, provider: &PlainProvider, code: &str) -> (String, String) {
    let link = service.platform().connect_link("seller-1").await;
    let mut browser = service.browser();
    let authorization = browser.begin(&link).await;
    let state = parameter(&authorization, "state");
    browser
        .open(&format!("/oauth/callback?code={code}&state={state}"))
        .await
        .expect(200);
    let exchange: Value = serde_json::from_str(&provider.token_requests().pop().unwrap().body).unwrap();
    (state, exchange["code_verifier"].as_str().unwrap().to_owned())
}

/// Signs in to the console, with the wrong password first, and looks at every page of the seller.
async fn look_at_the_console(service: &Service) {
    let mut browser = service.browser();
    for password in [WRONG_PASSWORD, ADMIN_PASSWORD] {
        let page = browser.open("/console/sign-in").await.expect(200);
        let csrf = hidden_field(page.text(), "csrf_token");
        let form = [
            ("csrf_token", csrf.as_str()),
            ("email", ADMIN_EMAIL),
            ("password", password),
        ];
        browser.submit("/console/sign-in", &form).await;
    }
    for path in [
        "/console",
        "/console/connections",
        "/console/connections/default/seller-1",
        "/console/connections.csv",
        "/console/audit-log",
        "/console/settings",
        "/console/api-keys",
        "/console/team",
    ] {
        browser.open(path).await.expect(200);
    }
}

/// Everything that ends in one of the service's own errors.
async fn make_mistakes(service: &Service, provider: &PlainProvider) {
    let platform = service.platform();
    let stranger = service.platform_with_key(WRONG_KEY);
    stranger.get("/v1/connections").await.expect(401);
    stranger.get("/proxy/seller-1/users/me").await.expect(401);
    platform
        .get("/proxy/seller-1/users/me?access_token=x")
        .await
        .expect(400);
    platform.post("/v1/connections", json!({ "seller_id": 1 })).await;
    // Answers of the token endpoint that repeat what they were sent, or break off in the middle of a token.
    let spent = refresh_token(1);
    let told =
        format!(r#"{{"error":"temporarily_unavailable","error_description":"{spent} of {CLIENT_SECRET}"}}"#);
    provider.answer_next_token_request(500, &told);
    platform
        .post("/v1/connections/seller-1/refresh", json!({}))
        .await
        .expect(503);
    let cut = format!(
        r#"{{"access_token":"{}","refresh_token":"{}"#,
        access_token(90),
        refresh_token(90)
    );
    provider.answer_next_token_request(200, &cut);
    platform
        .post("/v1/connections/seller-1/refresh", json!({}))
        .await
        .expect(503);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_that_was_used_is_in_a_file_a_log_line_or_an_answer() {
    let provider = PlainProvider::start().await;
    let settings = [
        ("RUST_LOG", "trace"),
        ("MERCADOPAGO_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("BOOTSTRAP_ADMIN_EMAIL", ADMIN_EMAIL),
        ("BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD),
    ];
    let mut service = Service::with(&provider.origin, &settings).await;
    let platform = service.platform();

    let (first_state, first_verifier) = connect(&service, &provider, CODES[0]).await;
    platform.get("/proxy/seller-1/users/me").await.expect(200);
    make_mistakes(&service, &provider).await;
    // The seller comes again: what is spent next is known to be good.
    let (second_state, second_verifier) = connect(&service, &provider, CODES[1]).await;
    platform
        .post("/v1/connections/seller-1/refresh", json!({}))
        .await
        .expect(200);
    look_at_the_console(&service).await;
    platform.delete("/v1/connections/seller-1").await.expect(200);
    platform.get("/proxy/seller-1/users/me").await;
    assert!(
        !service.rescued_answers().is_empty(),
        "the answer that breaks off was kept"
    );
    service.kill();
    assert!(
        service.log().contains("TRACE"),
        "the log is as talkative as it gets"
    );

    let mut canaries = Canaries(Vec::new());
    for number in [1, 2, 3, 90] {
        canaries.add(&format!("access token {number}"), access_token(number));
        canaries.add(&format!("refresh token {number}"), refresh_token(number));
    }
    canaries.add("first state", first_state);
    canaries.add("first verifier", first_verifier);
    canaries.add("second state", second_state);
    canaries.add("second verifier", second_verifier);
    for code in CODES {
        canaries.add("authorization code", code);
    }
    canaries.add("client secret", CLIENT_SECRET);
    canaries.add("webhook secret", WEBHOOK_SECRET);
    canaries.add("API key", API_KEY);
    canaries.add("wrong API key", WRONG_KEY);
    canaries.add("admin's password", ADMIN_PASSWORD);
    canaries.add("wrong password", WRONG_PASSWORD);
    let key = ENCRYPTION_KEY.split_once(':').unwrap().1;
    canaries.add("encryption key", key.trim_end_matches('='));

    // The search itself is able to find: the provider did get these.
    let told = format!("{:?}", provider.received());
    assert!(canaries.found_in(told.as_bytes()).len() >= 8);

    let mut leaks = Vec::new();
    let mut searched = 0;
    let mut folders = vec![service.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            searched += 1;
            let content = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            leaks.extend(
                canaries
                    .found_in(&content)
                    .iter()
                    .map(|found| format!("{found} in {name}")),
            );
        }
    }
    assert!(searched >= 3, "database, log and rescue file were searched");
    for answer in service.seen() {
        let start = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        // The state belongs into the redirect to the provider, which is where it goes.
        let found = canaries.found_in(&answer);
        let found = found.iter().filter(|found| !found.ends_with("state"));
        leaks.extend(found.map(|found| format!("{found} in the answer {start}")));
    }
    assert_eq!(leaks, Vec::<String>::new());
}
