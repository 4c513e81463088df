//! What the platform relies on when it calls through the proxy, played on a real store and a provider that does what each
//! test lays out.

use std::time::Duration as StdDuration;

use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::access::{ApiKeyRequest, create_api_key};
use crate::config::{DatabaseUrl, RefreshSettings};
use crate::domain::clock::ManualClock;
use crate::domain::connection::{StatusReason, TokenSet, Trigger};
use crate::domain::event::{Actor, AuditAction, EventType, NewAudit, NewEvent};
use crate::domain::ids::{EventId, ReplicaId, UserId};
use crate::domain::schedule::RefreshSchedule;
use crate::domain::scope::Scopes;
use crate::domain::secret::{AccessToken, RefreshToken};
use crate::mercadopago::application::tests::application;
use crate::mercadopago::peer::{Act, Peer, json, with_headers};
use crate::refresh::RefresherParts;
use crate::replica::Replica;
use crate::rescue::RescueDir;
use crate::storage::{Admission, Claim, ClaimRequest, NewConnect, SucceededRefresh};
use crate::vault::{DataKey, Vault};

const GRANT: &str = r#"{"access_token":"APP_USR-2","user_id":7,"refresh_token":"TG-2","expires_in":15552000,"scope":"offline_access"}"#;
const OWN_GRANT: &str = r#"{"access_token":"APP_USR-own","user_id":9,"expires_in":21600}"#;

/// One replica with a provider.
struct Scene {
    proxy: Proxy,
    store: Store,
    clock: ManualClock,
    peer: Peer,
    key: String,
    app: Application,
    tracker: TaskTracker,
    folder: TempDir,
}

impl Scene {
    async fn playing(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::with(acts, |_| {}).await
    }

    async fn with(acts: impl IntoIterator<Item = Act>, change: impl FnOnce(&mut ProxySettings)) -> Self {
        let peer = Peer::playing(acts).await;
        let origin = peer.origin();
        Self::at(peer, &origin, change).await
    }

    async fn at(peer: Peer, origin: &str, change: impl FnOnce(&mut ProxySettings)) -> Self {
        let (store, folder) = crate::storage::tests::temporary_store().await;
        let app = application(origin);
        let clock = ManualClock::at(DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let http = http_client::build().unwrap();
        let endpoint = TokenEndpoint::new(http.clone(), shared.clone(), StdDuration::from_secs(5));
        let other = Application {
            id: "other".parse().unwrap(),
            ..app.clone()
        };
        let applications = Applications::new(vec![app.clone(), other]);
        let tracker = TaskTracker::new();
        let refresher = Refresher::new(RefresherParts {
            store: store.clone(),
            endpoint: endpoint.clone(),
            applications: applications.clone(),
            rescue: RescueDir::open(&folder.path().join("rescue")).unwrap(),
            settings: RefreshSettings {
                schedule: RefreshSchedule::default(),
                poll_interval: StdDuration::from_secs(30),
                concurrency: 8,
                rate: "1000/s".parse().unwrap(),
                lease: StdDuration::from_mins(1),
                token_endpoint_timeout: StdDuration::from_secs(5),
                rescue_dir: folder.path().join("rescue"),
            },
            clock: shared.clone(),
            random: Random::system(),
            replica: Replica::new(DateTime::UNIX_EPOCH, StdDuration::from_mins(1), &Random::system()),
            tracker: tracker.clone(),
        });
        let mut settings = ProxySettings {
            idle_timeout: StdDuration::from_millis(500),
            ..ProxySettings::default()
        };
        change(&mut settings);
        let proxy = Proxy::new(ProxyParts {
            store: store.clone(),
            refresher,
            endpoint,
            api: ProviderApi::new(http, StdDuration::from_secs(2)),
            applications,
            settings,
            clock: shared,
            random: Random::system(),
            tracker: tracker.clone(),
        })
        .unwrap();
        let mut scene = Self {
            proxy,
            store,
            clock,
            peer,
            key: String::new(),
            app,
            tracker,
            folder,
        };
        scene.key = scene.key_with(Scopes::all()).await;
        scene.connect("s1", 7).await;
        scene
    }

    fn now(&self) -> DateTime<Utc> {
        use crate::domain::clock::Clock as _;
        self.clock.now()
    }

    async fn key_with(&self, scopes: Scopes) -> String {
        let application = self.app.id.clone();
        let request = ApiKeyRequest {
            application,
            name: "platform".to_owned(),
            scopes,
            expires_at: None,
        };
        let (_, secret) = create_api_key(
            &self.store,
            request,
            Actor::system(),
            self.now(),
            &Random::system(),
        )
        .await
        .unwrap();
        secret.expose().to_owned()
    }

    /// Connects a seller of this user with the tokens `APP_USR-1` and `TG-1`.
    async fn connect(&self, seller: &str, user: i64) {
        self.connect_with(seller, user, "APP_USR-1").await;
    }

    async fn connect_with(&self, seller: &str, user: i64, access_token: &'static str) {
        let now = self.now();
        let tokens = TokenSet {
            access_token: AccessToken::new(access_token),
            refresh_token: Some(RefreshToken::new("TG-1")),
            obtained_at: now,
            expires_at: now + TimeDelta::days(180),
            scopes: Vec::new(),
            public_key: None,
            live_mode: None,
            user_id: UserId(user),
        };
        let admission = self
            .store
            .admit(&NewConnect {
                application: &self.app.id,
                client_id: &self.app.client_id,
                application_public_key: None,
                seller_id: &seller.parse().unwrap(),
                tokens: &tokens,
                data_key: &DataKey::generate(),
                metadata: None,
                consent: None,
                schedule: &RefreshSchedule::default(),
                actor: Actor::system(),
                now,
            })
            .await
            .unwrap();
        assert!(matches!(admission, Admission::Connected(_)), "{admission:?}");
    }

    async fn revoke(&self, seller: &str) {
        self.revoke_at(&self.store, seller).await;
    }

    /// The same database as another process has it open.
    async fn other_process(&self) -> Store {
        let vault = Vault::new(self.store.keyring().clone());
        let url = DatabaseUrl::Sqlite(self.folder.path().join("deep/folder/connector.db"));
        Store::open(&url, vault, Random::system()).await.unwrap()
    }

    async fn revoke_at(&self, store: &Store, seller: &str) {
        let (app, now) = (&self.app.id, self.now());
        let seller = seller.parse().unwrap();
        let reason = StatusReason::RevokedByApi;
        store
            .revoke_connection(app, &seller, reason, None, Actor::system(), now)
            .await
            .unwrap();
    }

    fn request(&self, method: &str, target: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(target)
            .header("authorization", format!("Bearer {}", self.key))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let context = CallContext {
            request_id: HeaderValue::from_static("req-1"),
        };
        let (head, body) = self.proxy.handle(request, context).await.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        Reply {
            status: head.status,
            headers: head.headers,
            body: body.map_err(|error| error.to_string()),
        }
    }

    async fn get(&self, target: &str) -> Reply {
        self.send(self.request("GET", target).body(Full::default()).unwrap())
            .await
    }

    async fn post(&self, target: &str, body: &'static str) -> Reply {
        let request = self.request("POST", target).header("content-length", body.len());
        self.send(request.body(Full::from(body)).unwrap()).await
    }

    async fn status(&self) -> crate::domain::connection::Connection {
        self.store
            .find_connection(&self.app.id, &"s1".parse().unwrap())
            .await
            .unwrap()
            .unwrap()
    }
}

#[derive(Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Result<Bytes, String>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(self.body.as_ref().unwrap()).unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and outcome of an error answer of ours.
    fn problem(&self) -> (u16, String, Option<String>) {
        let body = self.json();
        assert_eq!(body["code"], self.header("connector-error"), "{body}");
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(
            (&body["message"], &body["error"]),
            (&body["detail"], &body["code"])
        );
        let text = |member: &str| body[member].as_str().map(str::to_owned);
        (self.status.as_u16(), text("code").unwrap(), text("outcome"))
    }
}

fn problem(status: u16, code: &str, outcome: &str) -> (u16, String, Option<String>) {
    (
        status,
        code.to_owned(),
        (!outcome.is_empty()).then(|| outcome.to_owned()),
    )
}

#[tokio::test]
async fn a_call_goes_out_with_the_sellers_token_and_comes_back_byte_for_byte() {
    let answer = r#"{"transaction_amount": 1.10,"big":12345678901234567890}"#;
    let scene = Scene::playing([with_headers(
        201,
        "content-type: application/json\r\nx-request-id: theirs\r\nset-cookie: a=b\r\nserver: x\r\nx-rate: 1\r\n",
        answer,
    )])
    .await;
    let body = r#"{"transaction_amount": 1.10, "x":12345678901234567890}"#;
    let reply = scene.post("/proxy/s1/v1/payments?a=%20b&a=2", body).await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.text(), answer);
    assert_eq!(reply.header("x-request-id"), "req-1");
    assert_eq!(reply.header("connector-provider-request-id"), "theirs");
    assert_eq!(reply.header("connector-attempts"), "1");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    assert_eq!(reply.header("x-rate"), "1");
    assert!(reply.header("server-timing").starts_with("provider;dur="));
    assert!(
        ["set-cookie", "server", "connector-error"]
            .iter()
            .all(|name| !reply.headers.contains_key(*name))
    );
    let sent = &scene.peer.requests()[0];
    let (head, sent_body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /v1/payments?a=%20b&a=2 HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(sent_body, body);
    assert_eq!(head.matches("authorization: ").count(), 1);
    assert!(head.contains("authorization: Bearer APP_USR-1"));
    assert!(head.contains(&format!("host: {}", scene.peer.address)));
    assert!(head.contains(&format!(
        "x-idempotency-key: {}",
        reply.header("x-idempotency-key")
    )));
    assert!(!head.contains(&scene.key));
}

#[tokio::test]
async fn refusals_come_in_the_documented_order_and_send_nothing() {
    let scene = Scene::playing([]).await;
    let reader = scene.key_with("payments:read".parse().unwrap()).await;
    let other = scene.key_with("connections:read".parse().unwrap()).await;
    let call = async |method: &str, target: &str, token: &str| {
        let mut request = Request::builder().method(method).uri(target);
        if !token.is_empty() {
            request = request.header("authorization", token);
        }
        scene.send(request.body(Full::default()).unwrap()).await.problem()
    };
    let bearer = |key: &str| format!("Bearer {key}");
    let (all, reader, other) = (bearer(&scene.key), bearer(&reader), bearer(&other));
    for token in [
        "",
        "Bearer",
        "Bearer x",
        "Basic mck_x",
        "Bearer mck_unknown",
        &all.replace("mck_", "mck-"),
    ] {
        assert_eq!(
            call("GET", "/proxy/s1/../x", token).await,
            problem(401, "invalid_api_key", ""),
            "{token}"
        );
    }
    assert_eq!(
        call("GET", "/proxy/s1/v1//x", &other).await,
        problem(400, "invalid_path", "")
    );
    assert_eq!(
        call("GET", "/proxy/s1/v1/x?access_token=1", &other).await,
        problem(400, "invalid_path", "")
    );
    for (method, path) in [
        ("POST", "/oauth/token"),
        ("POST", "/v1/card_tokens"),
        ("PATCH", "/users/me"),
        ("GET", "/"),
    ] {
        let target = format!("/proxy/nobody{path}");
        assert_eq!(
            call(method, &target, &other).await,
            problem(403, "route_not_allowed", ""),
            "{path}"
        );
    }
    assert_eq!(
        call("GET", "/proxy/nobody/users/me", &other).await,
        problem(403, "insufficient_scope", "")
    );
    assert_eq!(
        call("POST", "/proxy/s1/v1/payments", &reader).await,
        problem(403, "insufficient_scope", "")
    );
    assert_eq!(
        call("GET", "/proxy/nobody/users/me", &all).await,
        problem(404, "connection_not_found", "")
    );
    scene.revoke("s1").await;
    assert_eq!(
        call("GET", "/proxy/s1/v1/payments/1", &reader).await,
        problem(409, "connection_revoked", "not_sent")
    );
    assert!(scene.peer.requests().is_empty());
}

#[tokio::test]
async fn a_key_of_one_application_gets_the_same_404_for_anothers_seller_as_for_nobody() {
    let scene = Scene::playing([]).await;
    let mut texts = Vec::new();
    let foreign = ApiKeyRequest {
        application: "other".parse().unwrap(),
        name: "x".to_owned(),
        scopes: Scopes::all(),
        expires_at: None,
    };
    // The other application is configured, so that only the seller makes the difference.
    let (_, secret) = create_api_key(
        &scene.store,
        foreign,
        Actor::system(),
        scene.now(),
        &Random::system(),
    )
    .await
    .unwrap();
    for (seller, key) in [("s1", secret.expose()), ("nobody", scene.key.as_str())] {
        let request = Request::get(format!("/proxy/{seller}/users/me"))
            .header("authorization", format!("Bearer {key}"))
            .body(Full::default())
            .unwrap();
        let reply = scene.send(request).await;
        assert_eq!(reply.problem(), problem(404, "connection_not_found", ""));
        texts.push(reply.text().to_owned());
    }
    assert_eq!(texts[0], texts[1]);
}

#[tokio::test]
async fn the_seller_may_stand_in_the_token_and_the_application_has_its_own_account() {
    let scene = Scene::playing([
        json(200, "{}"),
        json(200, OWN_GRANT),
        json(200, "{}"),
        json(200, "{}"),
    ])
    .await;
    let with_token = async |target: &str, token: String| {
        let request = Request::get(target).header("authorization", format!("Bearer {token}"));
        scene.send(request.body(Full::default()).unwrap()).await
    };
    let key = scene.key.clone();
    assert_eq!(
        with_token("/proxy/~/users/me", format!("{key}~s1")).await.status,
        200
    );
    assert!(scene.peer.requests()[0].contains("authorization: Bearer APP_USR-1"));
    for token in [key.clone(), format!("{key}~"), format!("{key}~a/b")] {
        assert_eq!(
            with_token("/proxy/~/users/me", token).await.problem(),
            problem(400, "invalid_request", "")
        );
    }
    let crossed = with_token("/proxy/s2/users/me", format!("{key}~s1")).await;
    assert_eq!(crossed.problem(), problem(400, "invalid_request", ""));
    for _ in 0..2 {
        assert_eq!(with_token("/proxy/@self/users/me", key.clone()).await.status, 200);
    }
    let requests = scene.peer.requests();
    assert_eq!(requests.len(), 4, "the own token is asked for once");
    assert!(requests[1].contains(r#""grant_type":"client_credentials""#));
    assert!(requests[3].contains("authorization: Bearer APP_USR-own"));
    scene.clock.advance(TimeDelta::hours(7));
    assert_eq!(
        with_token("/proxy/@self/users/me", key).await.problem(),
        problem(503, "token_unavailable", "not_sent")
    );
}

#[tokio::test]
async fn an_idempotency_key_is_kept_or_made_for_what_changes_something() {
    let scene = Scene::playing((0..4).map(|_| json(200, "{}"))).await;
    let send = async |method: &str, target: &str, keys: &[&str]| {
        let mut request = scene.request(method, target);
        for key in keys {
            request = request.header("x-idempotency-key", *key);
        }
        scene.send(request.body(Full::default()).unwrap()).await
    };
    let given = send(
        "POST",
        "/proxy/s1/v1/payments",
        &["not a uuid".replace(' ', "-").as_str()],
    )
    .await;
    assert_eq!(given.header("x-idempotency-key"), "not-a-uuid");
    let made = send("PUT", "/proxy/s1/v1/payments/1", &[]).await;
    let uuid = made.header("x-idempotency-key").parse::<uuid::Uuid>().unwrap();
    assert_eq!(uuid.get_version_num(), 4);
    assert!(scene.peer.requests()[1].contains(&format!("x-idempotency-key: {uuid}")));
    assert_eq!(
        send("GET", "/proxy/s1/v1/payments/1", &[])
            .await
            .header("x-idempotency-key"),
        ""
    );
    assert_eq!(
        send("DELETE", "/proxy/s1/v1/customers/1", &[])
            .await
            .header("x-idempotency-key"),
        ""
    );
    for wrong in [&[""][..], &["a b"], &["a", "b"], &["x".repeat(257).as_str()]] {
        let refused = send("POST", "/proxy/s1/v1/payments", wrong).await;
        assert_eq!(
            refused.problem(),
            problem(400, "invalid_request", ""),
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn a_payment_whose_connection_broke_is_sent_again_with_the_same_key_and_body() {
    let scene = Scene::playing([Act::Close, json(503, "{}"), json(201, r#"{"status":"approved"}"#)]).await;
    let reply = scene.post("/proxy/s1/v1/payments", r#"{"a":1}"#).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("connector-attempts")),
        (201, "3")
    );
    let requests = scene.peer.requests();
    assert_eq!(requests.len(), 3);
    assert!(
        requests.iter().all(|request| *request == requests[0]),
        "{requests:?}"
    );
}

#[tokio::test]
async fn what_has_no_key_of_mercado_pagos_is_never_sent_twice() {
    let scene = Scene::playing([Act::Close, json(503, "theirs")]).await;
    let lost = scene.post("/proxy/s1/v1/customers", "{}").await;
    assert_eq!(
        lost.problem(),
        problem(504, "provider_connection_lost", "unknown")
    );
    assert_eq!(lost.json()["retryable"], false);
    assert_eq!(lost.json()["idempotency_key"], lost.header("x-idempotency-key"));
    let refused = scene.post("/proxy/s1/v1/customers", "{}").await;
    assert_eq!((refused.status.as_u16(), refused.text()), (503, "theirs"));
    assert!(!refused.headers.contains_key("connector-error"));
    assert_eq!(scene.peer.requests().len(), 2);
}

#[tokio::test]
async fn the_end_of_the_retries_is_the_providers_own_answer_or_ours_with_the_outcome() {
    let scene = Scene::playing([
        json(503, "1"),
        json(502, "2"),
        json(504, "3"),
        Act::Close,
        Act::Close,
        Act::Close,
        json(503, "1"),
        Act::Answer(b"SSH-2.0\r\n\r\n".to_vec()),
    ])
    .await;
    let own = scene.get("/proxy/s1/v1/payments/1").await;
    assert_eq!(
        (own.status.as_u16(), own.text(), own.header("connector-attempts")),
        (504, "3", "3")
    );
    let lost = scene.post("/proxy/s1/v1/payments", "{}").await;
    assert_eq!(
        lost.problem(),
        problem(504, "provider_connection_lost", "unknown")
    );
    assert_eq!(lost.json()["retryable"], true);
    let garbled = scene.post("/proxy/s1/v1/payments", "{}").await;
    assert_eq!(
        garbled.problem(),
        problem(502, "provider_protocol_error", "unknown")
    );
    assert_eq!(scene.peer.requests().len(), 8);
}

#[tokio::test]
async fn an_unreachable_provider_means_that_nothing_was_sent() {
    let peer = Peer::playing([]).await;
    let scene = Scene::at(peer, "http://127.0.0.1:1", |_| {}).await;
    let reply = scene.post("/proxy/s1/v1/customers", "{}").await;
    assert_eq!(reply.problem(), problem(502, "provider_unreachable", "not_sent"));
    assert_eq!(
        (reply.header("connector-attempts"), &reply.json()["retryable"]),
        ("3", &Value::Bool(true))
    );
}

#[tokio::test]
async fn the_callers_shorter_deadline_counts_and_the_outcome_is_said() {
    let scene = Scene::playing([Act::Hang]).await;
    let timed = async |value: &str| {
        let request = scene
            .request("POST", "/proxy/s1/v1/payments")
            .header("connector-timeout", value);
        scene.send(request.body(Full::from("{}")).unwrap()).await
    };
    let begun = std::time::Instant::now();
    let reply = timed("200ms").await;
    assert_eq!(reply.problem(), problem(504, "provider_timeout", "unknown"));
    assert!(begun.elapsed() < StdDuration::from_secs(2));
    for wrong in ["", "0s", "10", "soon", "-1s"] {
        assert_eq!(
            timed(wrong).await.problem(),
            problem(400, "invalid_request", ""),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_throttled_call_waits_as_it_is_told_if_the_deadline_allows() {
    let later = |seconds: u32| with_headers(429, &format!("retry-after: {seconds}\r\n"), "wait");
    let scene = Scene::playing([later(1), json(200, "ok"), later(60), json(429, "wait")]).await;
    let begun = std::time::Instant::now();
    assert_eq!(scene.get("/proxy/s1/users/me").await.text(), "ok");
    assert!(begun.elapsed() >= StdDuration::from_secs(1));
    let told = scene.get("/proxy/s1/users/me").await;
    assert_eq!(
        (told.status.as_u16(), told.header("retry-after"), told.text()),
        (429, "60", "wait")
    );
    assert_eq!(scene.get("/proxy/s1/users/me").await.status, 429);
    assert_eq!(scene.peer.requests().len(), 4);
}

#[tokio::test]
async fn a_business_401_passes_untouched_and_spends_no_refresh_token() {
    let refused = r#"{"message":"CC_VAL_433 Credit card validation has failed","status":401}"#;
    let scene = Scene::playing([json(401, refused), json(200, r#"{"id":7}"#)]).await;
    let before = scene.status().await;
    let reply = scene.post("/proxy/s1/preapproval", "{}").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (401, refused));
    assert!(!reply.headers.contains_key("connector-error"));
    let requests = scene.peer.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].starts_with("GET /users/me "));
    assert_eq!(scene.status().await, before);
}

#[tokio::test]
async fn a_dead_access_token_is_refreshed_and_the_call_sent_once_more() {
    let scene = Scene::playing([
        json(401, "{}"),
        json(401, "{}"),
        json(200, GRANT),
        json(201, "paid"),
        json(200, "next"),
    ])
    .await;
    let reply = scene.post("/proxy/s1/v1/customers", "{}").await;
    assert_eq!(
        (
            reply.status.as_u16(),
            reply.text(),
            reply.header("connector-attempts")
        ),
        (201, "paid", "2")
    );
    let requests = scene.peer.requests();
    assert!(requests[2].starts_with("POST /oauth/token "));
    assert!(requests[3].contains("authorization: Bearer APP_USR-2"));
    scene.get("/proxy/s1/v1/customers/1").await;
    assert!(scene.peer.requests()[4].contains("authorization: Bearer APP_USR-2"));
    assert_eq!(scene.status().await.generation, 2);
}

#[tokio::test]
async fn a_token_that_dies_again_within_five_minutes_is_not_refreshed_again() {
    let unauthorized = || json(401, "{}");
    let scene = Scene::playing([
        unauthorized(),
        unauthorized(),
        json(200, GRANT),
        unauthorized(),
        unauthorized(),
        unauthorized(),
    ])
    .await;
    // The replay is refused too: that is then the answer.
    assert_eq!(scene.get("/proxy/s1/v1/payments/1").await.status, 401);
    let again = scene.get("/proxy/s1/v1/payments/1").await;
    assert_eq!(again.problem(), problem(503, "token_unavailable", "not_sent"));
    assert_eq!(again.header("retry-after"), "300");
    let to_token_endpoint = |request: &&String| request.starts_with("POST /oauth/token ");
    assert_eq!(scene.peer.requests().iter().filter(to_token_endpoint).count(), 1);
}

#[tokio::test]
async fn a_token_that_another_replica_is_renewing_is_waited_for_however_soon_after_a_refresh() {
    let unauthorized = || json(401, "{}");
    let scene = Scene::playing([
        unauthorized(),
        unauthorized(),
        json(200, GRANT),
        json(200, "first"),
        unauthorized(),
        unauthorized(),
        json(200, "second"),
    ])
    .await;
    assert_eq!(scene.get("/proxy/s1/v1/payments/1").await.text(), "first");
    let connection = scene.status().await;
    let other = ReplicaId::new(scene.now(), &Random::seeded(9));
    let claim = ClaimRequest {
        connection: &connection.id,
        spent_generation: None,
        trigger: Trigger::Schedule,
        owner: &other,
        lease: TimeDelta::seconds(60),
        client_id: &scene.app.client_id,
        now: scene.now(),
    };
    let Claim::Claimed(claimed) = scene.store.claim_refresh(&claim).await.unwrap() else {
        panic!("nobody else is at it");
    };
    let tokens = TokenSet {
        access_token: AccessToken::new("APP_USR-9"),
        refresh_token: Some(RefreshToken::new("TG-9")),
        obtained_at: scene.now(),
        expires_at: scene.now() + TimeDelta::days(180),
        scopes: Vec::new(),
        public_key: None,
        live_mode: None,
        user_id: UserId(7),
    };
    let next = connection.clone().refreshed(&tokens, &RefreshSchedule::default());
    let succeeded = SucceededRefresh {
        event: NewEvent {
            id: EventId::new(scene.now(), &Random::seeded(9)),
            application: scene.app.id.clone(),
            seller_id: Some(next.seller_id.clone()),
            event_type: EventType::Refreshed,
            at: scene.now(),
            data: Value::Null,
        },
        audit: NewAudit {
            actor: Actor::system(),
            action: AuditAction::ConnectionRefreshed,
            application: Some(scene.app.id.clone()),
            target: None,
            at: scene.now(),
            detail: Value::Null,
        },
        next,
        tokens: &tokens,
        data_key: &claimed.data_key,
    };
    let renewed_elsewhere = async {
        while scene.peer.requests().len() < 6 {
            tokio::task::yield_now().await;
        }
        let generation = connection.generation;
        let stored = scene
            .store
            .store_refreshed(&claimed.attempt.id, generation, &succeeded, scene.now());
        assert!(stored.await.unwrap());
    };
    let (reply, ()) = tokio::join!(scene.get("/proxy/s1/v1/payments/1"), renewed_elsewhere);
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "second"));
    assert!(scene.peer.requests()[6].contains("authorization: Bearer APP_USR-9"));
}

#[tokio::test]
async fn a_401_after_the_token_was_replaced_elsewhere_is_sent_once_more_and_nobody_is_asked() {
    let scene = Scene::playing([
        json(200, "ok"),
        json(401, "{}"),
        json(201, "paid"),
        json(401, "theirs"),
        json(200, "{}"),
    ])
    .await;
    assert_eq!(scene.get("/proxy/s1/v1/customers/1").await.status, 200);
    scene.revoke_at(&scene.other_process().await, "s1").await;
    scene.connect_with("s1", 7, "APP_USR-9").await;
    // Here the old token is still in memory.
    let reply = scene.post("/proxy/s1/v1/customers", "{}").await;
    assert_eq!(
        (
            reply.status.as_u16(),
            reply.text(),
            reply.header("connector-attempts")
        ),
        (201, "paid", "2")
    );
    let requests = scene.peer.requests();
    assert!(requests[1].contains("authorization: Bearer APP_USR-1"));
    assert!(requests[2].contains("authorization: Bearer APP_USR-9"));
    // Nothing newer now: then the token is tried, and the 401 is one of business.
    let reply = scene.post("/proxy/s1/v1/customers", "{}").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (401, "theirs"));
    assert!(scene.peer.requests()[4].starts_with("GET /users/me "));
}

#[tokio::test]
async fn users_me_is_its_own_probe() {
    let scene = Scene::playing([json(401, "{}"), json(200, GRANT), json(200, "me")]).await;
    assert_eq!(scene.get("/proxy/s1/users/me").await.text(), "me");
}

#[tokio::test]
async fn fifty_calls_on_an_expired_token_make_one_refresh_and_get_fifty_answers() {
    let acts = std::iter::once(json(200, GRANT)).chain((0..50).map(|_| json(200, "ok")));
    let scene = Arc::new(Scene::playing(acts).await);
    scene.clock.advance(TimeDelta::days(181));
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let scene = scene.clone();
            tokio::spawn(async move { scene.get("/proxy/s1/v1/payments/1").await.text().to_owned() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "ok");
    }
    let requests = scene.peer.requests();
    assert_eq!(
        requests
            .iter()
            .filter(|request| request.starts_with("POST /oauth/token "))
            .count(),
        1
    );
    assert_eq!(
        requests
            .iter()
            .filter(|request| request.contains("Bearer APP_USR-2"))
            .count(),
        50
    );
}

#[tokio::test]
async fn an_expired_token_that_cannot_be_renewed_says_whose_turn_it_is() {
    let rejected = r#"{"error":"invalid_grant"}"#;
    let scene = Scene::playing([json(500, ""), json(400, rejected)]).await;
    scene.clock.advance(TimeDelta::days(181));
    let later = scene.get("/proxy/s1/users/me").await;
    assert_eq!(later.problem(), problem(503, "token_unavailable", "not_sent"));
    assert_eq!(
        (&later.json()["fault"], &later.json()["retryable"]),
        (&"provider".into(), &true.into())
    );
    assert!(!later.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_revoke_in_this_process_holds_for_the_next_call() {
    let scene = Scene::playing((0..3).map(|_| json(200, "ok"))).await;
    scene.connect("s2", 8).await;
    assert_eq!(scene.get("/proxy/s1/users/me").await.status, 200);
    assert_eq!(scene.get("/proxy/s2/users/me").await.status, 200);
    scene.revoke("s1").await;
    assert_eq!(
        scene.get("/proxy/s1/users/me").await.problem(),
        problem(409, "connection_revoked", "not_sent")
    );
    assert_eq!(scene.get("/proxy/s2/users/me").await.status, 200);
    let key = scene.store.list_api_keys(None).await.unwrap().remove(0).id;
    assert!(
        scene
            .store
            .revoke_api_key(&key, None, Actor::system(), scene.now())
            .await
            .unwrap()
    );
    assert_eq!(scene.get("/proxy/s2/users/me").await.status, 401);
}

#[tokio::test]
async fn a_revoke_by_another_replica_holds_when_the_cache_is_a_second_old_and_a_reconnect_too() {
    let scene = Scene::playing((0..3).map(|_| json(200, "ok"))).await;
    assert_eq!(scene.get("/proxy/s1/users/me").await.status, 200);
    scene.revoke_at(&scene.other_process().await, "s1").await;
    scene.clock.advance(TimeDelta::seconds(1));
    assert_eq!(
        scene.get("/proxy/s1/users/me").await.problem(),
        problem(409, "connection_revoked", "not_sent")
    );
    scene.connect("s1", 7).await;
    scene.clock.advance(TimeDelta::seconds(1));
    assert_eq!(scene.get("/proxy/s1/users/me").await.status, 200);
}

#[tokio::test]
async fn sellers_in_the_cache_outlive_a_store_that_is_away_but_not_for_ever() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let figures = recorder.handle();
    let _recording = ::metrics::set_default_local_recorder(&recorder);
    let scene = Scene::playing((0..4).map(|_| json(200, "ok"))).await;
    scene.connect("s2", 8).await;
    assert_eq!(scene.get("/proxy/s1/users/me").await.status, 200);
    scene.store.close().await;
    for seconds in [0, 1, 28] {
        scene.clock.advance(TimeDelta::seconds(seconds));
        assert_eq!(scene.get("/proxy/s1/users/me").await.status, 200, "{seconds}");
    }
    let unknown = scene.get("/proxy/s2/users/me").await;
    assert_eq!(unknown.problem(), problem(503, "store_unavailable", "not_sent"));
    scene.clock.advance(TimeDelta::seconds(1));
    let gone = scene.get("/proxy/s1/users/me").await;
    assert_eq!(gone.problem(), problem(503, "store_unavailable", "not_sent"));
    let figures = figures.render();
    // Key and connection of the two calls after the first second, and the key of the call for the other seller.
    assert!(
        figures.contains("connector_proxy_cache_total{use=\"stale\"} 5"),
        "{figures}"
    );
    assert!(
        figures.contains("connector_proxy_store_silent_total "),
        "{figures}"
    );
}

#[tokio::test]
async fn a_full_house_answers_at_once_and_frees_its_places() {
    let one_per_seller: fn(&mut ProxySettings) = |settings| settings.max_in_flight_per_seller = 1;
    let one_in_all: fn(&mut ProxySettings) = |settings| settings.max_in_flight = 1;
    for (change, others) in [(one_per_seller, 200), (one_in_all, 503)] {
        let scene = Scene::with([Act::Hang, json(200, "ok"), json(200, "ok")], change).await;
        scene.connect("s2", 8).await;
        let scene = Arc::new(scene);
        let waiting = scene.clone();
        let first = tokio::spawn(async move { waiting.get("/proxy/s1/v1/payments/1").await });
        while scene.peer.requests().is_empty() {
            tokio::time::sleep(StdDuration::from_millis(5)).await;
        }
        let refused = scene.get("/proxy/s1/v1/payments/1").await;
        assert_eq!(refused.problem(), problem(503, "overloaded", "not_sent"));
        assert!(!refused.header("retry-after").is_empty());
        assert_eq!(scene.get("/proxy/s2/v1/payments/1").await.status, others);
        // The caller of a read hangs up: nobody waits for the answer any more, and the place is free.
        first.abort();
        let _ = first.await;
        let under_way = scene.proxy.0.in_flight.load(Ordering::Relaxed);
        assert_eq!(under_way, 0);
        assert_eq!(scene.get("/proxy/s1/v1/payments/1").await.status, 200);
    }
}

#[tokio::test]
async fn a_declined_payment_says_what_helps_and_its_bytes_stay() {
    let declined = r#"{"id":1,  "status":"rejected","status_detail":"cc_rejected_insufficient_amount"}"#;
    let scene = Scene::playing([
        json(201, declined),
        json(201, r#"{"status":"approved"}"#),
        json(200, declined),
    ])
    .await;
    let reply = scene.post("/proxy/s1/v1/payments", "{}").await;
    assert_eq!(
        (reply.header("connector-decline"), reply.text()),
        ("issuer;action=use_another_method", declined)
    );
    assert_eq!(
        scene
            .post("/proxy/s1/v1/payments", "{}")
            .await
            .header("connector-decline"),
        ""
    );
    assert_eq!(
        scene
            .get("/proxy/s1/v1/payments/1")
            .await
            .header("connector-decline"),
        ""
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_ends_cleanly() {
    let half = Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec());
    let chunk =
        Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec());
    let stalled = Act::Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec());
    let scene = Scene::playing([half.clone(), chunk, stalled, half.clone(), half.clone(), half]).await;
    for _ in 0..3 {
        let reply = scene.get("/proxy/s1/v1/payments/1").await;
        assert_eq!(reply.status, 200);
        assert!(reply.body.is_err());
    }
    // A payment's answer is read whole first: what broke off is sent again with its key, and in the end unknown.
    let paid = scene.post("/proxy/s1/v1/payments", "{}").await;
    assert_eq!(
        paid.problem(),
        problem(504, "provider_connection_lost", "unknown")
    );
}

#[tokio::test]
async fn a_redirect_is_passed_on_and_not_followed() {
    let location = "location: https://www.mercadopago.com/elsewhere\r\n";
    let scene = Scene::playing([with_headers(302, location, "")]).await;
    let reply = scene.get("/proxy/s1/users/me").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("location")),
        (302, "https://www.mercadopago.com/elsewhere")
    );
    assert_eq!(scene.peer.requests().len(), 1);
}

#[tokio::test]
async fn large_bodies_stream_both_ways_and_the_limit_holds() {
    let large = "x".repeat(5 << 20);
    let scene = Scene::with([json(200, &large)], |settings| settings.max_body = 6 << 20).await;
    let body: Bytes = "y".repeat(5 << 20).into();
    let request = scene
        .request("POST", "/proxy/s1/v1/customers")
        .header("content-length", body.len());
    let reply = scene.send(request.body(Full::new(body.clone())).unwrap()).await;
    assert_eq!(reply.body.as_ref().unwrap().len(), large.len());
    let sent = scene.peer.requests()[0].split_once("\r\n\r\n").unwrap().1.len();
    assert_eq!(sent, body.len());
    let over = scene
        .request("POST", "/proxy/s1/v1/customers")
        .body(Full::from("z".repeat(7 << 20)))
        .unwrap();
    assert_eq!(
        scene.send(over).await.problem(),
        problem(413, "body_too_large", "not_sent")
    );
    assert_eq!(scene.peer.requests().len(), 1);
}

#[tokio::test]
async fn a_payment_is_finished_when_its_caller_hangs_up_and_a_read_is_not() {
    let scene = Arc::new(Scene::playing([Act::Close, json(201, "{}"), Act::Close]).await);
    let caller = scene.clone();
    let call = tokio::spawn(async move { caller.post("/proxy/s1/v1/payments", "{}").await });
    while scene.peer.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    call.abort();
    let _ = call.await;
    scene.tracker.close();
    scene.tracker.wait().await;
    assert_eq!(scene.peer.requests().len(), 2, "the retry still happened");
}

#[tokio::test]
async fn a_payment_never_sees_more_statements_than_its_cache_needs() {
    let scene = Scene::playing((0..3).map(|_| json(200, "ok"))).await;
    assert_eq!(scene.get("/proxy/s1/users/me").await.status, 200);
    // Without a store, a call within the time to live can only come from memory.
    scene.store.close().await;
    let before = std::time::Instant::now();
    assert_eq!(scene.get("/proxy/s1/users/me").await.status, 200);
    assert!(
        before.elapsed() < StdDuration::from_millis(250),
        "nothing waited for the store"
    );
    scene.clock.advance(TimeDelta::seconds(40));
    scene.proxy.forget_old();
    assert_eq!(
        scene.proxy.0.sellers.remembered(),
        0,
        "opened tokens do not linger"
    );
}

#[tokio::test]
async fn what_is_called_is_counted_by_the_hour() {
    let declined = r#"{"status":"rejected","status_detail":"cc_rejected_bad_filled_date"}"#;
    let scene = Scene::playing([
        json(201, r#"{"status":"approved"}"#),
        json(201, declined),
        json(500, ""),
    ])
    .await;
    for _ in 0..3 {
        scene.post("/proxy/s1/v1/payments", "{}").await;
    }
    scene.revoke("s1").await;
    scene.post("/proxy/s1/v1/payments", "{}").await;
    scene.get("/proxy/nobody/users/me").await;
    scene.proxy.flush_usage().await.unwrap();
    let since = scene.now() - TimeDelta::hours(1);
    let connection = scene.status().await.id;
    let hours = scene
        .store
        .list_usage(None, Some(&connection), since)
        .await
        .unwrap();
    let sums = hours[0].sums;
    assert_eq!((hours.len(), sums.calls, sums.failures), (1, 4, 2));
    assert_eq!((sums.approvals, sums.declines_data_entry), (1, 1));
}

#[tokio::test]
async fn a_payment_that_looks_like_the_one_before_is_stopped_unless_the_caller_insists() {
    let acts = (0..4).map(|_| json(201, "{}"));
    let scene = Scene::with(acts, |settings| {
        settings.duplicate_payment_window = StdDuration::from_mins(1);
    })
    .await;
    let pay = async |key: &str, reference: &str, allow: bool| {
        let body = format!(
            r#"{{"transaction_amount":10,"payer":{{"email":"a@x.y"}},"external_reference":"{reference}"}}"#
        );
        let mut request = scene
            .request("POST", "/proxy/s1/v1/payments")
            .header("x-idempotency-key", key);
        if allow {
            request = request.header("connector-allow-duplicate", "true");
        }
        scene.send(request.body(Full::from(body)).unwrap()).await
    };
    assert_eq!(pay("k-1", "o-1", false).await.status, 201);
    assert_eq!(
        pay("k-1", "o-1", false).await.status,
        201,
        "a repetition with its own key"
    );
    let stopped = pay("k-2", "o-1", false).await;
    assert_eq!(
        stopped.problem(),
        problem(409, "duplicate_payment_suspected", "not_sent")
    );
    assert_eq!(pay("k-3", "o-2", false).await.status, 201);
    assert_eq!(pay("k-4", "o-1", true).await.status, 201);
    assert_eq!(scene.peer.requests().len(), 4);
    assert!(!scene.peer.requests()[3].contains("connector-allow-duplicate"));
}
