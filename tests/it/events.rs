//! Notifications in, events out, over HTTP with the sandbox as Mercado Pago and a receiver as the platform; and the public
//! libraries that receivers use as judges of the signatures.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use chrono::TimeDelta;
use http_body_util::BodyExt as _;
use marketplace_connector::domain::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::sdks::{suite, tools};
use crate::support::app::TestApp;
use crate::support::http::Answer;

const WEBHOOK_SECRET: &str = "canary-webhook-secret-7Yt2";
/// Nothing here takes longer, however busy the machine.
const ARRIVES_WITHIN: Duration = Duration::from_mins(1);

/// What a receiver got.
struct Got {
    query: String,
    headers: http::HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn webhook_headers(&self) -> Value {
        let header = |name: &str| (name.to_owned(), json!(self.header(name)));
        ["webhook-id", "webhook-timestamp", "webhook-signature"]
            .map(header)
            .into_iter()
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// A receiver that confirms everything.
struct Receiver {
    url: String,
    got: mpsc::UnboundedReceiver<Got>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, got) = mpsc::unbounded_channel();
        let app = Router::new().fallback(receive).with_state(sender);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, got }
    }

    /// The next that satisfies `wanted`; others are passed over.
    async fn next(&mut self, wanted: impl Fn(&Got) -> bool) -> Got {
        let arrives = async {
            loop {
                let got = self.got.recv().await.unwrap();
                if wanted(&got) {
                    return got;
                }
            }
        };
        tokio::time::timeout(ARRIVES_WITHIN, arrives).await.unwrap()
    }

    async fn event(&mut self, kind: &str) -> Got {
        self.next(|got| got.json()["type"] == kind).await
    }
}

async fn receive(State(sender): State<mpsc::UnboundedSender<Got>>, request: Request) -> StatusCode {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let _ = sender.send(Got {
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    StatusCode::OK
}

/// A service that the sandbox tells of what happens, at the machine's own time: the libraries look at it.
async fn start() -> TestApp {
    let app = TestApp::with(|settings| {
        settings.insert("MERCADOPAGO_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned());
        settings.insert("EVENT_ENDPOINTS_ALLOW_PRIVATE", "true".to_owned());
    })
    .await;
    app.advance(SystemClock.now() - app.clock.now());
    app
}

async fn endpoint(app: &TestApp, receiver: &Receiver) -> Value {
    let made = app
        .platform()
        .post("/v1/event-endpoints", json!({ "url": receiver.url }))
        .await;
    made.expect(201).json()
}

async fn pay(app: &TestApp, notification_url: Option<&str>) -> Answer {
    let mut payment = json!({
        "token": app.card_token("seller-1", "APRO").await,
        "transaction_amount": 100.50,
        "installments": 1,
        "payment_method_id": "visa",
        "payer": { "email": "buyer@example.com" },
    });
    if let Some(url) = notification_url {
        payment["notification_url"] = json!(url);
    }
    app.platform()
        .post("/proxy/seller-1/v1/payments", payment)
        .await
        .expect(201)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_told_of_a_payment_with_the_sellers_own_id() {
    let app = start().await;
    let mut receiver = Receiver::start().await;
    endpoint(&app, &receiver).await;
    app.connect_seller("seller-1").await;
    let connected = receiver.event("connection.connected").await.json();
    assert_eq!(connected["data"]["connection"]["status"], "active");
    let payment = pay(&app, None).await.json();
    let told = receiver.event("notification.received").await.json();
    let data = &told["data"];
    assert_eq!(data["seller_id"], "seller-1");
    assert_eq!(data["notification"]["topic"], "payment");
    assert_eq!(data["notification"]["resource_id"], payment["id"].to_string());
    assert_eq!(
        data["notification"]["body"]["data"]["id"],
        payment["id"].to_string()
    );
    let listed = app
        .platform()
        .get("/v1/events?type=notification.received")
        .await
        .json();
    assert_eq!(listed["data"][0], told);
    let one = format!("/v1/events/{}", told["id"].as_str().unwrap());
    assert_eq!(app.platform().get(&one).await.expect(200).json(), told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_who_unlinks_the_application_is_revoked_within_a_second_and_the_platform_is_told() {
    let app = start().await;
    let mut receiver = Receiver::start().await;
    endpoint(&app, &receiver).await;
    app.connect_seller("seller-1").await;
    let begun = std::time::Instant::now();
    let user = app.account(0);
    let url = format!("{}/_sandbox/sellers/{user}/revoke", app.provider_origin());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let revoked = client
        .post(url)
        .json(&json!({ "reason": "deauthorized" }))
        .send()
        .await
        .unwrap();
    assert!(revoked.status().is_success(), "{}", revoked.text().await.unwrap());
    let told = receiver.event("connection.revoked").await.json();
    println!("told after {:?}", begun.elapsed());
    assert_eq!(told["data"]["seller_id"], "seller-1");
    assert_eq!(told["data"]["connection"]["status_reason"], "revoked_by_seller");
    let connection = app.platform().connection("seller-1").await;
    assert_eq!(
        (&connection["status"], &connection["status_reason"]),
        (&json!("revoked"), &json!("revoked_by_seller"))
    );
    assert_eq!(
        app.proxied_get("seller-1", "/users/me").await.problem(),
        (409, "connection_revoked")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_that_is_not_mercado_pagos_gets_a_bare_401() {
    let app = start().await;
    let hooks = [
        "/webhooks/mercadopago",
        "/webhooks/mercadopago/default",
        "/webhooks/mercadopago/nobody",
        "/webhooks/mercadopago/%00",
    ];
    for path in hooks {
        let refused = app
            .platform()
            .post(&format!("{path}?data.id=1&type=payment"), json!({ "id": 1 }))
            .await;
        assert_eq!((refused.status.as_u16(), refused.text()), (401, ""), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_and_deliveries_by_the_api() {
    let app = start().await;
    let mut receiver = Receiver::start().await;
    let platform = app.platform();
    let made = endpoint(&app, &receiver).await;
    let path = format!("/v1/event-endpoints/{}", made["id"].as_str().unwrap());
    let shown = platform.get(&path).await.expect(200).json();
    assert!(shown.get("secret").is_none() && shown["enabled"] == true && shown["event_types"].is_null());
    let tested = platform
        .post(&format!("{path}/test"), json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&tested["status"], &tested["last_status"]),
        (&json!("delivered"), &json!(200))
    );
    receiver.event("event_endpoint.test").await;
    let again = format!("/v1/deliveries/{}/retry", tested["id"].as_str().unwrap());
    platform.post(&again, json!({})).await.expect(200);
    receiver.event("event_endpoint.test").await;
    app.connect_seller("seller-1").await;
    receiver.event("connection.connected").await;
    let replayed = platform
        .post(
            &format!("{path}/replay"),
            json!({ "since": "2020-01-01T00:00:00Z" }),
        )
        .await;
    assert_eq!(
        replayed.expect(200).json(),
        json!({ "deliveries": 0, "next_cursor": null })
    );
    app.advance(TimeDelta::seconds(1));
    let replayed = platform
        .post(
            &format!("{path}/replay"),
            json!({ "since": "2020-01-01T00:00:00Z" }),
        )
        .await;
    assert_eq!(replayed.expect(200).json()["deliveries"], 1);
    receiver.event("connection.connected").await;
    let listed = platform.get("/v1/deliveries?limit=1").await.expect(200).json();
    assert!(listed["next_cursor"].is_string());
    for wrong in [
        json!({ "url": "http://127.0.0.1/", "event_types": [] }),
        json!({ "url": "ftp://platform.example/" }),
        json!({ "url": receiver.url, "event_types": ["event_endpoint.test"] }),
        json!({}),
    ] {
        let refused = platform.post("/v1/event-endpoints", wrong).await;
        assert_eq!(refused.problem(), (422, "invalid_field"));
    }
    let change = json!({ "enabled": false, "event_types": ["connection.revoked"], "description": "main" });
    let body = serde_json::to_vec(&change).unwrap().into();
    let changed = platform
        .call(http::Method::PATCH, &path, Some(body))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&changed["enabled"], &changed["disabled_reason"]),
        (&json!(false), &json!("by_hand"))
    );
    let test = platform.post(&format!("{path}/test"), json!({})).await;
    assert_eq!(test.problem(), (409, "conflict"));
    platform.delete(&path).await.expect(200);
    assert_eq!(platform.get(&path).await.problem(), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn public_libraries_verify_our_deliveries_and_what_the_sandbox_signs() {
    let app = start().await;
    let (mut receiver, mut seller_hook) = (Receiver::start().await, Receiver::start().await);
    let made = endpoint(&app, &receiver).await;
    app.connect_seller("seller-1").await;
    let before = receiver.event("connection.connected").await;
    let payment = pay(&app, Some(&seller_hook.url)).await.json();
    let signed = seller_hook.next(|got| got.query.contains("data.id=")).await;
    let path = format!(
        "/v1/event-endpoints/{}/rotate-secret",
        made["id"].as_str().unwrap()
    );
    let rotated = app.platform().post(&path, json!({})).await.expect(200).json();
    let test = path.replace("rotate-secret", "test");
    app.platform().post(&test, json!({})).await.expect(200);
    let during = receiver.event("event_endpoint.test").await;
    let (old, new) = (&made["secret"], &rotated["secret"]);
    let delivery = |got: &Got, secrets: Value, foreign: Value| {
        json!({
            "body": got.body, "headers": got.webhook_headers(), "secrets": secrets, "foreign_secrets": foreign,
        })
    };
    let given = json!({
        "deliveries": [delivery(&before, json!([old]), json!([new])), delivery(&during, json!([old, new]), json!([]))],
        "notifications": [{
            "x_signature": signed.header("x-signature"), "x_request_id": signed.header("x-request-id"),
            "data_id": payment["id"].to_string(), "secret": WEBHOOK_SECRET,
        }],
    });
    if let Some(tools) = tools("python/bin/python") {
        let mut command = Command::new(tools.join("python/bin/python"));
        command.arg(suite("signatures.py"));
        assert_eq!(
            judge(command, &given),
            "python: 2 deliveries and 1 notifications verified"
        );
    }
    if let Some(tools) = tools("node/node_modules/standardwebhooks") {
        let mut command = Command::new("node");
        command.arg(suite("signatures.mjs")).arg(tools.join("node"));
        assert_eq!(
            judge(command, &given),
            "node: 2 deliveries and 1 notifications verified"
        );
    }
}

/// Gives a suite its input; its last line.
fn judge(mut command: Command, given: &Value) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(given.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.lines().last().unwrap_or_default().to_owned()
}
