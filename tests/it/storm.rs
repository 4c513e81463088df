//! Notifications as fast as they come, while the process is killed again and again: what got 200 becomes one event and is
//! delivered. `STORM_NOTIFICATIONS` and `STORM_KILLS` make it longer; the figures are printed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use hmac::{Hmac, KeyInit as _, Mac as _};
use marketplace_connector::domain::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::postgres;
use crate::support::process::Service;

const SECRET: &str = "canary-webhook-secret-7Yt2";
/// Connections that post at a time.
const POSTERS: usize = 16;
/// After a kill, what the process had under way is due again when its lease ends, after a minute.
const DELIVERED_WITHIN: Duration = Duration::from_mins(10);

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// How often each event came, by its id, and which notification it tells.
type Told = Arc<Mutex<HashMap<String, (usize, u64)>>>;

async fn receive(State(told): State<Told>, body: Bytes) -> StatusCode {
    let event: Value = serde_json::from_slice(&body).unwrap();
    let number = event["data"]["notification"]["body"]["id"].as_u64().unwrap();
    let mut told = told.lock().unwrap();
    let entry = told
        .entry(event["id"].as_str().unwrap().to_owned())
        .or_insert((0, number));
    entry.0 += 1;
    StatusCode::NO_CONTENT
}

struct Storm {
    client: reqwest::Client,
    url: String,
    next: AtomicUsize,
    confirmed: AtomicUsize,
    took: Mutex<Vec<Duration>>,
}

impl Storm {
    /// Posts one notification until it is confirmed, as Mercado Pago does.
    async fn post(&self, number: usize) {
        let (ts, data_id) = (SystemClock.now().timestamp(), number.to_string());
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("id:{data_id};request-id:r-{number};ts:{ts};").as_bytes());
        let v1: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let body = json!({
            "action": "payment.updated", "api_version": "v1", "data": { "id": data_id }, "id": number, "live_mode": true,
            "date_created": SystemClock.now(), "type": "payment", "user_id": 241_983_636,
        });
        loop {
            let begun = Instant::now();
            let sent = self
                .client
                .post(format!("{}?data.id={data_id}&type=payment", self.url))
                .header("x-signature", format!("ts={ts},v1={v1}"))
                .header("x-request-id", format!("r-{number}"))
                .body(body.to_string())
                .send()
                .await;
            match sent.map(|answer| answer.status().as_u16()) {
                Ok(200) => {
                    self.took.lock().unwrap().push(begun.elapsed());
                    return;
                }
                // Down, or on its way down.
                Ok(503) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(status) => panic!("{status}"),
            }
        }
    }

    async fn rage(&self, all: usize) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
            if number > all {
                return;
            }
            self.post(number).await;
            self.confirmed.fetch_add(1, Ordering::Relaxed);
            // Some are sent again although they were confirmed.
            if number.is_multiple_of(10) {
                self.post(number).await;
            }
        }
    }
}

async fn storm(engine: &str, database: Option<String>) {
    let (all, kills) = (setting("STORM_NOTIFICATIONS", 1_000), setting("STORM_KILLS", 2));
    let told: Told = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new().fallback(receive).with_state(Arc::clone(&told));
    tokio::spawn(async move { axum::serve(listener, app).await });

    // The same address after each start.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let mut settings = vec![
        ("LISTEN_ADDR", address.as_str()),
        ("MERCADOPAGO_WEBHOOK_SECRET", SECRET),
        ("EVENT_ENDPOINTS_ALLOW_PRIVATE", "true"),
    ];
    if let Some(database) = &database {
        settings.push(("DATABASE_URL", database));
    }
    let mut service = Service::with("http://127.0.0.1:9", &settings).await;
    let platform = service.platform();
    platform
        .post("/v1/event-endpoints", json!({ "url": hook }))
        .await
        .expect(201);

    let storm = Arc::new(Storm {
        client: reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(22))
            .build()
            .unwrap(),
        url: format!("http://{address}/webhooks/mercadopago"),
        next: AtomicUsize::new(0),
        confirmed: AtomicUsize::new(0),
        took: Mutex::default(),
    });
    let begun = Instant::now();
    let posters: Vec<_> = (0..POSTERS)
        .map(|_| {
            let storm = Arc::clone(&storm);
            tokio::spawn(async move { storm.rage(all).await })
        })
        .collect();
    for kill in 1..=kills {
        while storm.confirmed.load(Ordering::Relaxed) < all * kill / (kills + 1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        service.kill();
        service.start_again().await;
    }
    for poster in posters {
        poster.await.unwrap();
    }
    let posted = begun.elapsed();
    loop {
        let count = told.lock().unwrap().len();
        if count >= all {
            break;
        }
        assert!(
            begun.elapsed() < posted + DELIVERED_WITHIN,
            "only {count} of {all} were delivered"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let delivered = begun.elapsed();

    let (mut events, mut cursor) = (HashSet::new(), String::new());
    loop {
        let page = service
            .platform()
            .get(&format!("/v1/events?limit=200{cursor}"))
            .await
            .expect(200)
            .json();
        for event in page["data"].as_array().unwrap() {
            events.insert(event["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    let told = told.lock().unwrap();
    let numbers: HashSet<u64> = told.values().map(|(_, number)| *number).collect();
    assert_eq!((events.len(), told.len(), numbers.len()), (all, all, all));
    assert!(told.keys().all(|id| events.contains(id)));

    let mut took = storm.took.lock().unwrap().clone();
    took.sort_unstable();
    let percentile = |part: usize| took[(took.len() - 1) * part / 100];
    let repeated: usize = told.values().map(|(times, _)| times - 1).sum();
    println!(
        "{engine}: {all} notifications, {kills} kills: {:.0}/s, 200 after p50 {:?}, p99 {:?}; all delivered after {delivered:.1?}, \
         {repeated} of them more than once",
        f64::from(u32::try_from(all).unwrap()) / posted.as_secs_f64(),
        percentile(50),
        percentile(99),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_got_200_on_sqlite_becomes_one_event_and_is_delivered_whatever_is_killed() {
    storm("SQLite", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_got_200_on_postgresql_becomes_one_event_and_is_delivered_whatever_is_killed() {
    if let Some(cluster) = postgres::shared() {
        storm("PostgreSQL", Some(cluster.create_database())).await;
    }
}
