//! Signed notifications, and how often they come.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use hmac::{Hmac, KeyInit as _, Mac as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sandbox::{EndReason, Webhook};

#[derive(Clone, Default)]
struct Receiver {
    seen: Arc<Mutex<Vec<(Uri, HeaderMap, Value)>>>,
    refuse: Arc<Mutex<usize>>,
}

impl Receiver {
    /// Waits (bounded) until so many notifications came.
    async fn wait_for(&self, count: usize) -> Vec<(Uri, HeaderMap, Value)> {
        for _ in 0..500 {
            let seen = self.seen.lock().unwrap().clone();
            if seen.len() >= count {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("only {:?} came", self.seen.lock().unwrap());
    }
}

async fn receive(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: String) -> StatusCode {
    receiver
        .seen
        .lock()
        .unwrap()
        .push((uri, headers, serde_json::from_str(&body).unwrap()));
    let mut refuse = receiver.refuse.lock().unwrap();
    if *refuse > 0 {
        *refuse -= 1;
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    }
}

async fn start() -> (Connected, Receiver, CancellationToken) {
    let receiver = Receiver::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(receive).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut options = options();
    options.clients[0].webhook = Some(Webhook {
        url,
        secret: String::from("webhook-secret"),
    });
    let sandbox = Sandbox::new(options);
    let stop = CancellationToken::new();
    let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(sandbox.clone().serve(own, stop.clone()));
    (Connected::to(sandbox, "TESTMLA1").await, receiver, stop)
}

#[tokio::test]
async fn a_payment_is_told_with_a_signature_over_the_documented_manifest() {
    let (connected, receiver, stop) = start().await;
    let paid = connected.pay("APRO").await;
    let seen = receiver.wait_for(2).await;
    let (_, _, linked) = &seen[0];
    assert_eq!(
        (&linked["type"], &linked["action"]),
        (&json!("mp-connect"), &json!("application.authorized"))
    );
    assert_eq!(
        linked["data"]["id"],
        json!(connected.tokens["user_id"].to_string())
    );
    let (uri, headers, body) = &seen[1];
    let id = paid["id"].to_string();
    assert_eq!(uri.query(), Some(&*format!("data.id={id}&type=payment")));
    assert_eq!(
        (&body["action"], &body["data"]["id"]),
        (&json!("payment.created"), &json!(id))
    );
    assert_eq!(body["user_id"], connected.tokens["user_id"]);
    let text = |name: &str| headers[name].to_str().unwrap();
    let (ts, v1) = text("x-signature").split_once(",v1=").unwrap();
    let ts = ts.strip_prefix("ts=").unwrap();
    let manifest = format!("id:{id};request-id:{};ts:{ts};", text("x-request-id"));
    let signature: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&v1[at..at + 2], 16).unwrap())
        .collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"webhook-secret").unwrap();
    mac.update(manifest.as_bytes());
    mac.verify_slice(&signature).unwrap();
    assert_eq!(ts, super::start().timestamp().to_string());
    stop.cancel();
}

#[tokio::test]
async fn what_is_not_confirmed_comes_again_after_a_quarter_of_an_hour() {
    let (connected, receiver, stop) = start().await;
    receiver.wait_for(1).await;
    *receiver.refuse.lock().unwrap() = 1;
    connected.pay("APRO").await;
    let first = receiver.wait_for(2).await;
    connected.sandbox.advance(chrono::Duration::minutes(14));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.seen.lock().unwrap().len(), 2);
    connected.sandbox.advance(chrono::Duration::minutes(1));
    let again = receiver.wait_for(3).await;
    assert_eq!(again[2].2, first[1].2);
    assert_eq!(
        (&first[1].1["x-retry"], &again[2].1["x-retry"]),
        (&"0".parse().unwrap(), &"1".parse().unwrap())
    );
    connected.sandbox.advance(chrono::Duration::days(1));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.seen.lock().unwrap().len(), 3);
    stop.cancel();
}

#[tokio::test]
async fn a_seller_who_removes_the_application_is_told_of_and_an_object_may_name_its_own_address() {
    let (connected, receiver, stop) = start().await;
    let own = receiver.wait_for(1).await[0]
        .0
        .path()
        .replace("webhooks", "elsewhere");
    let port = connected.sandbox.world.options.clients[0]
        .webhook
        .as_ref()
        .unwrap()
        .url
        .replace("/webhooks", &own);
    let body = json!({
        "transaction_amount": 10, "payment_method_id": "rapipago", "payer": { "email": "a@b.co" },
        "notification_url": format!("{port}?client=7"),
    });
    connected.ok("POST", "/v1/payments", body).await;
    let seen = receiver.wait_for(2).await;
    assert!(
        seen[1].0.to_string().starts_with("/elsewhere?client=7&data.id="),
        "{}",
        seen[1].0
    );
    connected.sandbox.revoke(
        connected.tokens["user_id"].as_u64().unwrap(),
        EndReason::Deauthorized,
    );
    let seen = receiver.wait_for(3).await;
    assert_eq!(seen[2].2["action"], "application.deauthorized");
    stop.cancel();
}
