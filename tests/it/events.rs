//! Notifications in, events out, over HTTP with the sandbox as Mercado Pago and a receiver as the platform; and the public
//! libraries that receivers use as judges of the signatures.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use chrono::TimeDelta;
use http_body_util::BodyExt as _;
use marketplace_connector::domain::clock::{Clock as _, SystemClock};
use marketplace_connector::domain::random::Random;
use marketplace_connector::sandbox::{Client, Sandbox, SandboxOptions, Webhook};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::sdks::{suite, tools};
use crate::support::app::{Settings, TestApp};
use crate::support::http::{Answer, Browser, hidden_field};
use crate::support::process::{Service, until};
use crate::support::{ADMIN_EMAIL, ADMIN_PASSWORD, CLIENT_ID, CLIENT_SECRET};

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
    let begun = Instant::now();
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

/// A `serve` process and a sandbox that tells it of what happens.
async fn serve_with_a_sandbox() -> (Service, Sandbox, String, DropGuard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = format!("http://{}", listener.local_addr().unwrap());
    let settings = [
        ("MERCADOPAGO_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("EVENT_ENDPOINTS_ALLOW_PRIVATE", "true"),
        ("OPS_LISTEN_ADDR", "127.0.0.1:0"),
    ];
    let service = Service::with(&provider, &settings).await;
    let sandbox = Sandbox::new(SandboxOptions {
        clients: vec![Client {
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            redirect_uris: vec!["http://127.0.0.1:8080/oauth/callback".to_owned()],
            webhook: Some(Webhook {
                url: format!("http://{}/webhooks/mercadopago", service.address()),
                secret: WEBHOOK_SECRET.to_owned(),
            }),
        }],
        public_url: format!("{provider}/"),
        ..SandboxOptions::new(Arc::new(SystemClock), Random::system())
    });
    let stop = CancellationToken::new();
    tokio::spawn(sandbox.clone().serve(listener, stop.clone()));
    (service, sandbox, provider, stop.drop_guard())
}

/// What the operators' listener of a process says.
async fn metrics(service: &Service) -> String {
    let address = until("the operators' listener", || {
        let log = service.log();
        let line = log.lines().find(|line| line.contains("Operators"))?;
        let rest = line.split_once("addr=")?.1;
        rest.split_whitespace().next().map(str::to_owned)
    })
    .await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("http://{address}/metrics")).send().await;
    answer.unwrap().text().await.unwrap()
}

/// Nothing is done by hand here: a real process, its worker, the sandbox's notification, a delivery.
#[tokio::test(flavor = "multi_thread")]
async fn a_seller_who_unlinks_the_application_is_revoked_in_a_real_process() {
    let (service, sandbox, provider, _stop) = serve_with_a_sandbox().await;
    let mut receiver = Receiver::start().await;
    let platform = service.platform();
    let endpoint =
        json!({ "url": receiver.url, "event_types": ["connection.connected", "connection.revoked"] });
    platform.post("/v1/event-endpoints", endpoint).await.expect(201);
    let link = platform.connect_link("seller-1").await;
    let mut browser = service.browser();
    let authorization = browser.begin(&link).await;
    let user = sandbox.sellers()[0].user_id;
    let callback = sandbox.consent(&authorization, &user.to_string(), true).unwrap();
    browser.open(&callback).await.expect(200);
    receiver.event("connection.connected").await;

    let begun = Instant::now();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let unlinked = client
        .post(format!("{provider}/_sandbox/sellers/{user}/revoke"))
        .json(&json!({ "reason": "deauthorized" }))
        .send()
        .await
        .unwrap();
    assert!(unlinked.status().is_success());
    let revoked = async {
        while platform.connection("seller-1").await["status"] != "revoked" {
            tokio::task::yield_now().await;
        }
        begun.elapsed()
    };
    let told = async {
        let told = receiver.event("connection.revoked").await.json();
        (told, begun.elapsed())
    };
    let (revoked, (told, delivered)) = tokio::join!(revoked, told);
    println!("revoked {revoked:.1?} after the seller unlinked it, the platform told after {delivered:.1?}");
    assert_eq!(told["data"]["seller_id"], "seller-1");
    assert_eq!(told["data"]["connection"]["status_reason"], "revoked_by_seller");
    let call = platform.get("/proxy/seller-1/users/me").await;
    assert_eq!(call.problem(), (409, "connection_revoked"));
    let metrics = metrics(&service).await;
    for line in [
        "connector_notifications_total{outcome=\"revoked\"} 1",
        "connector_deliveries_total{outcome=\"confirmed\"} ",
        "connector_deliveries{status=\"pending\"} ",
        "connector_deliveries{status=\"dead\"} 0",
        "connector_delivery_oldest_pending_seconds ",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

/// The end of an attempt is told once more to the store, not to the receiver.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_was_confirmed_while_the_store_refused_is_not_made_again() {
    let mut receiver = Receiver::start().await;
    let settings = [("EVENT_ENDPOINTS_ALLOW_PRIVATE", "true")];
    let service = Service::with("http://127.0.0.1:9", &settings).await;
    let platform = service.platform();
    let endpoint = json!({ "url": receiver.url });
    platform.post("/v1/event-endpoints", endpoint).await.expect(201);
    let url = &service.settings["DATABASE_URL"];
    let mut database = SqliteConnection::connect(url).await.unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON deliveries WHEN new.status = 'delivered' \
        BEGIN SELECT RAISE(ABORT, 'not now'); END";
    sqlx::query(refuse).execute(&mut database).await.unwrap();
    let tokens = json!({
        "seller_id": "seller-1", "user_id": 42, "access_token": "APP_USR-1", "refresh_token": "TG-1", "expires_in": 15_552_000,
        "verify": false,
    });
    platform.post("/v1/connections", tokens).await.expect(201);
    receiver.event("connection.connected").await;
    until("the refusal", || {
        service.log().contains("it is tried again").then_some(())
    })
    .await;
    let waiting = platform.get("/v1/deliveries").await.expect(200).json();
    assert_eq!(waiting["data"][0]["status"], "pending");
    sqlx::query("DROP TRIGGER refuse")
        .execute(&mut database)
        .await
        .unwrap();
    let stands = async {
        while platform.get("/v1/deliveries?status=delivered").await.json()["data"] == json!([]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(ARRIVES_WITHIN, stands).await.unwrap();
    assert!(receiver.got.try_recv().is_err(), "it was delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_do_by_command_what_the_platform_does_by_the_api() {
    let mut receiver = Receiver::start().await;
    let settings = [("EVENT_ENDPOINTS_ALLOW_PRIVATE", "true")];
    let service = Service::with("http://127.0.0.1:9", &settings).await;
    let run = |arguments: &[&str]| {
        let output = service.run(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let made = run(&["event-endpoints", "create", &receiver.url]);
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    let id = made["id"].as_str().unwrap();
    assert_eq!(run(&["event-endpoints", "test", id])["status"], "delivered");
    receiver.event("event_endpoint.test").await;
    assert_ne!(
        run(&["event-endpoints", "rotate-secret", id])["secret"],
        made["secret"]
    );
    let tokens = json!({
        "seller_id": "seller-1", "user_id": 42, "access_token": "APP_USR-1", "expires_in": 15_552_000, "verify": false,
    });
    service
        .platform()
        .post("/v1/connections", tokens)
        .await
        .expect(201);
    receiver.event("connection.connected").await;

    let events = run(&[
        "events",
        "list",
        "--type",
        "connection.connected",
        "--seller-id",
        "seller-1",
    ]);
    assert_eq!(events.as_array().unwrap().len(), 1);
    // The process beside the service puts it in line, the service sends it.
    let replayed = run(&["event-endpoints", "replay", id, "--since", "2020-01-01T00:00:00Z"]);
    assert_eq!(replayed["deliveries"], 1);
    let told = receiver.event("connection.connected").await.json();
    assert_eq!(told["id"], events[0]["id"]);
    let deliveries = run(&["deliveries", "list", "--endpoint-id", id]);
    let delivery = deliveries[0]["id"].as_str().unwrap();
    run(&["deliveries", "retry", delivery]);
    receiver.event("connection.connected").await;
    assert_eq!(
        run(&["event-endpoints", "disable", id])["disabled_reason"],
        "by_hand"
    );
    assert_eq!(run(&["event-endpoints", "list"])[0]["enabled"], false);
    assert_eq!(run(&["event-endpoints", "enable", id])["enabled"], true);
    run(&["event-endpoints", "delete", id]);
    assert_eq!(run(&["event-endpoints", "list"]), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sandbox_signed_is_taken_as_it_is_and_neither_altered_nor_late() {
    let app = start().await;
    app.connect_seller("seller-1").await;
    let mut seller_hook = Receiver::start().await;
    pay(&app, Some(&seller_hook.url)).await;
    let signed = seller_hook.next(|got| got.query.contains("data.id=")).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = async |query: &str, change: Option<(&str, String)>, body: String| {
        let (signature, id) = (signed.header("x-signature"), signed.header("x-request-id"));
        let mut headers = BTreeMap::from([
            ("x-signature", signature.to_owned()),
            ("x-request-id", id.to_owned()),
        ]);
        headers.extend(change);
        let mut request = client.post(format!("{}/webhooks/mercadopago?{query}", app.origin()));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await.unwrap();
        answer.status().as_u16()
    };
    let (query, body) = (signed.query.as_str(), || signed.body.clone());
    assert_eq!(send(query, None, body()).await, 200);
    assert_eq!(send(query, None, body()).await, 200, "a repeat");
    let told = "/v1/events?type=notification.received";
    let events = app.platform().get(told).await.expect(200).json();
    let again = |event: &&Value| event["data"]["notification"]["body"] == signed.json();
    assert_eq!(events["data"].as_array().unwrap().iter().filter(again).count(), 1);

    assert_eq!(
        send(&query.replace("data.id=", "data.id=9"), None, body()).await,
        401
    );
    let later = signed.header("x-signature").replacen("ts=1", "ts=2", 1);
    assert_eq!(send(query, Some(("x-signature", later)), body()).await, 401);
    let other = ("x-request-id", "other".to_owned());
    assert_eq!(send(query, Some(other), body()).await, 401);
    let mut about_another = signed.json();
    about_another["data"]["id"] = json!("9");
    assert_eq!(send(query, None, about_another.to_string()).await, 401);
    app.advance(TimeDelta::days(7) + TimeDelta::minutes(1));
    assert_eq!(send(query, None, body()).await, 401, "beyond the tolerance");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_with_the_secret_before_the_last_rotation_is_taken() {
    const BEFORE: &str = "canary-webhook-secret-before-3Kd8";
    let settings = |settings: &mut Settings| {
        settings.insert("MERCADOPAGO_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned());
        settings.insert("MERCADOPAGO_WEBHOOK_SECRET_PREVIOUS", BEFORE.to_owned());
        settings.insert("EVENT_ENDPOINTS_ALLOW_PRIVATE", "true".to_owned());
    };
    let app = TestApp::with_provider(settings, |provider| {
        let webhooks = provider
            .clients
            .iter_mut()
            .filter_map(|client| client.webhook.as_mut());
        webhooks.for_each(|webhook| webhook.secret = BEFORE.to_owned());
    })
    .await;
    let mut receiver = Receiver::start().await;
    endpoint(&app, &receiver).await;
    app.connect_seller("seller-1").await;
    pay(&app, None).await.expect(201);
    let told = receiver.event("notification.received").await.json();
    assert_eq!(told["data"]["seller_id"], "seller-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_polled_with_the_cursor_of_the_answer_before() {
    let app = start().await;
    let platform = app.platform();
    let poll = async |cursor: &Value| {
        let cursor = cursor.as_str().map(|cursor| format!("&cursor={cursor}"));
        let path = format!("/v1/events?order=asc&limit=2{}", cursor.unwrap_or_default());
        platform.get(&path).await.expect(200).json()
    };
    for number in 0..3 {
        app.connect_seller_with_account(&format!("seller-{number}"), number)
            .await;
        app.advance(TimeDelta::milliseconds(1));
    }
    assert_eq!(
        poll(&Value::Null).await["data"],
        json!([]),
        "they are not settled yet"
    );
    app.advance(TimeDelta::seconds(31));
    let (mut sellers, mut cursor) = (Vec::new(), Value::Null);
    for expected in [2, 1, 0] {
        let page = poll(&cursor).await;
        let events = page["data"].as_array().unwrap();
        assert_eq!(events.len(), expected);
        sellers.extend(events.iter().map(|event| event["data"]["seller_id"].clone()));
        cursor = page["next_cursor"].clone();
        assert!(cursor.is_string(), "who polls goes on from here");
    }
    assert_eq!(sellers, ["seller-0", "seller-1", "seller-2"]);
    platform.delete("/v1/connections/seller-1").await.expect(200);
    app.advance(TimeDelta::seconds(31));
    let page = poll(&cursor).await;
    assert_eq!(page["data"][0]["type"], "connection.revoked");
}

async fn sign_in(app: &TestApp) -> Browser {
    let mut browser = app.browser();
    let page = browser.open("/console/sign-in").await.expect(200);
    let csrf = hidden_field(page.text(), "csrf_token");
    let form = [
        ("csrf_token", csrf.as_str()),
        ("email", ADMIN_EMAIL),
        ("password", ADMIN_PASSWORD),
    ];
    browser.submit("/console/sign-in", &form).await;
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_what_came_in_and_went_out_and_sends_it_again() {
    let app = start().await;
    let mut receiver = Receiver::start().await;
    endpoint(&app, &receiver).await;
    app.connect_seller("seller-1").await;
    let payment = pay(&app, None).await.json();
    let told = receiver.event("notification.received").await.json();
    let mut browser = sign_in(&app).await;
    let page = browser
        .open("/console/notifications?topic=payment")
        .await
        .expect(200);
    for shown in [
        ">seller-1<",
        &payment["id"].to_string(),
        "payment.created",
        ">told<",
    ] {
        assert!(page.text().contains(shown), "{shown} is not in {}", page.text());
    }
    let path = format!("/console/deliveries?event={}", told["id"].as_str().unwrap());
    let page = browser.open(&path).await.expect(200);
    assert!(page.text().contains("notification.received") && page.text().contains(&receiver.url));
    let (_, rest) = page.text().split_once("href=\"/console/deliveries/").unwrap();
    let delivery = format!("/console/deliveries/{}", rest.split('"').next().unwrap());
    let page = browser.open(&delivery).await.expect(200);
    let csrf = hidden_field(page.text(), "csrf_token");
    browser
        .submit(&format!("{delivery}/retry"), &[("csrf_token", &csrf)])
        .await;
    assert_eq!(receiver.event("notification.received").await.json(), told);
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
    let large = json!({ "id": 1, "filler": "x".repeat(300 * 1024) });
    let refused = app.platform().post(hooks[0], large).await;
    assert_eq!(refused.problem(), (413, "body_too_large"));
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
