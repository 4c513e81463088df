//! Faults, on real connections.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;

struct Serving {
    sandbox: Sandbox,
    address: std::net::SocketAddr,
    stop: CancellationToken,
}

impl Serving {
    async fn start() -> Self {
        let sandbox = sandbox();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(sandbox.clone().serve(listener, stop.clone()));
        Self {
            sandbox,
            address,
            stop,
        }
    }

    /// Everything that comes back until the connection is closed or `patience` is over, and whether it was closed.
    async fn raw(&self, patience: Duration) -> (String, bool) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let body = exchange("TG-1-241000001").to_string();
        let head = format!(
            "POST /oauth/token HTTP/1.1\r\nhost: sandbox\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(patience, stream.read_to_end(&mut answer))
            .await
            .is_ok();
        (String::from_utf8_lossy(&answer).into_owned(), closed)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_cut_before_drops_the_connection_and_carries_nothing_out() {
    let serving = Serving::start().await;
    serving.sandbox.add_fault("token=cut-before*1".parse().unwrap());
    assert_eq!(serving.raw(PATIENCE).await, (String::new(), true));
    assert_eq!(serving.sandbox.token_calls("authorization_code"), 0);
    assert_eq!(serving.sandbox.requests().len(), 1);
    let (answer, _) = serving.raw(SHORT).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn a_cut_after_drops_the_connection_though_the_call_was_carried_out() {
    let serving = Serving::start().await;
    serving.sandbox.add_fault("token=cut-after".parse().unwrap());
    assert_eq!(serving.raw(PATIENCE).await, (String::new(), true));
    assert_eq!(serving.sandbox.token_calls("authorization_code"), 1);
}

#[tokio::test]
async fn half_an_answer_promises_more_than_it_sends() {
    let serving = Serving::start().await;
    serving.sandbox.add_fault("token=half".parse().unwrap());
    let (answer, closed) = serving.raw(PATIENCE).await;
    assert!(closed);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(body.len(), length / 2);
}

#[tokio::test]
async fn a_drip_goes_on_and_a_hang_says_nothing() {
    let serving = Serving::start().await;
    serving.sandbox.add_fault("token=drip*1".parse().unwrap());
    let (answer, closed) = serving.raw(SHORT).await;
    assert!(answer.starts_with("HTTP/1.1 400") && !closed, "{answer}");
    serving.sandbox.clear_faults();
    serving.sandbox.add_fault("token=hang*1".parse().unwrap());
    assert_eq!(serving.raw(SHORT).await, (String::new(), false));
}

#[tokio::test]
async fn statuses_bodies_and_garbage_come_as_told() {
    let sandbox = sandbox();
    let told = |text: &str| {
        sandbox.clear_faults();
        sandbox.add_fault(text.parse().unwrap());
    };
    told("token=429:retry-after=30");
    let request = Request::post("/oauth/token").body(Body::empty()).unwrap();
    let response = sandbox.router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "30");
    told(r#"token=500:after,body={"message":"boom"}"#);
    let (status, answer) = send(
        &sandbox,
        "POST",
        "/oauth/token",
        exchange(&code(&sandbox, "TESTMLA1")),
    )
    .await;
    assert_eq!(
        (status, answer),
        (StatusCode::INTERNAL_SERVER_ERROR, json!({ "message": "boom" }))
    );
    assert_eq!(sandbox.token_calls("authorization_code"), 1);
    told("token=garbage");
    let (status, answer) = send(&sandbox, "POST", "/oauth/token", exchange("TG-1-1")).await;
    assert_eq!((status, answer), (StatusCode::OK, Value::Null));
    told("token=invalid_grant");
    let (status, answer) = send(&sandbox, "POST", "/oauth/token", exchange("TG-1-1")).await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_grant"))
    );
}

#[tokio::test]
async fn a_fault_can_be_meant_for_one_seller_also_at_the_token_endpoint() {
    let sandbox = sandbox();
    let body = json!({ "route": "token", "seller": 241_000_002, "kind": "503" });
    let (status, set) = send(&sandbox, "POST", "/_sandbox/faults", body).await;
    assert_eq!((status, set.as_array().unwrap().len()), (StatusCode::CREATED, 1));
    let (one, _) = send(
        &sandbox,
        "POST",
        "/oauth/token",
        exchange(&code(&sandbox, "TESTMLA1")),
    )
    .await;
    let (other, _) = send(
        &sandbox,
        "POST",
        "/oauth/token",
        exchange(&code(&sandbox, "TESTMLA2")),
    )
    .await;
    assert_eq!((one, other), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
    let unknown = json!({ "route": "nowhere", "kind": "503" });
    assert_eq!(
        send(&sandbox, "POST", "/_sandbox/faults", unknown).await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn what_arrived_can_be_read() {
    let sandbox = sandbox();
    send(&sandbox, "POST", "/oauth/token/?x=1", json!({ "a": 1 })).await;
    let request = Request::get("/_sandbox/requests").body(Body::empty()).unwrap();
    let (_, seen) = call(&sandbox, request).await;
    assert_eq!(
        (&seen[0]["path"], &seen[0]["query"], &seen[0]["body"]),
        (&json!("/oauth/token/"), &json!("x=1"), &json!("{\"a\":1}"))
    );
}

#[tokio::test]
async fn latency_delays_the_answer_and_changes_nothing_else() {
    let sandbox = sandbox();
    sandbox.add_fault("token=latency:60".parse().unwrap());
    let begun = std::time::Instant::now();
    let (status, _) = send(
        &sandbox,
        "POST",
        "/oauth/token",
        exchange(&code(&sandbox, "TESTMLA1")),
    )
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert_eq!(status, StatusCode::OK);
}
