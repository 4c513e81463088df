//! The platform's end of the events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

/// Confirms every event and counts it by type and seller.
#[derive(Clone, Default)]
pub(crate) struct Receiver(Arc<Mutex<HashMap<(String, String), usize>>>);

impl Receiver {
    /// Begins to listen, for as long as the test runs; its URL.
    pub(crate) async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let got = receiver.clone();
        let take = move |Json(event): Json<Value>| {
            got.take(&event);
            std::future::ready(StatusCode::NO_CONTENT)
        };
        let router = Router::new().route("/events", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    fn take(&self, event: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (text(&event["type"]), text(&event["data"]["seller_id"]));
        *self.0.lock().unwrap().entry(key).or_default() += 1;
    }

    /// Whether an event of this type came for a seller.
    pub(crate) fn has(&self, event_type: &str, seller: &str) -> bool {
        let key = (event_type.to_owned(), seller.to_owned());
        self.0.lock().unwrap().contains_key(&key)
    }
}
