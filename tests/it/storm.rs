//! Notifications as fast as they are taken, while the serving processes are killed again and again: what got 200 is one event
//! and is delivered, and what came twice is still one event (DESIGN.md section 9).
//!
//! A short storm runs with the other tests. `NOTIFICATIONS_IN_A_STORM=100000` makes it a long one, and `CONNECTOR_BINARY` with
//! a release build makes its figures mean something (`--nocapture` shows them).

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use marketplace_connector::domain::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpStream;

use crate::support::postgres;
use crate::support::process::Service;

const SECRET: &str = "canary-webhook-secret-7Yt2";
/// How many notifications, unless `NOTIFICATIONS_IN_A_STORM` says otherwise, and how often a process is killed meanwhile.
const NOTIFICATIONS: usize = 2_000;
const KILLS: usize = 2;
const KILLS_IN_A_LONG_STORM: usize = 10;
/// Connections that post at a time.
const POSTERS: usize = 48;
/// One in so many is sent twice at the same time, and one in so many once more after it was confirmed.
const REPEATED: usize = 10;
/// How soon a notification that was not confirmed is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Nothing arrives for so long only if nothing will.
const SILENCE: Duration = Duration::from_mins(2);

/// What the receiver was told: which notification each event is of, and how often it came.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<HashMap<String, (u64, usize)>>>);

impl Told {
    #[expect(clippy::unused_async, reason = "axum calls a handler as a future")]
    async fn receive(State(told): State<Self>, body: Bytes) -> StatusCode {
        let event: Value = serde_json::from_slice(&body).unwrap();
        let number = number_of(&event);
        let id = event["id"].as_str().unwrap().to_owned();
        told.0.lock().unwrap().entry(id).or_insert((number, 0)).1 += 1;
        StatusCode::NO_CONTENT
    }

    /// Begins to receive; the address to deliver to.
    async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let app = Router::new().fallback(Self::receive).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// The notification that an event tells of.
fn number_of(event: &Value) -> u64 {
    event["data"]["notification"]["body"]["id"].as_u64().unwrap()
}

/// A notification, signed as Mercado Pago signs it.
fn notification(number: usize, now: DateTime<Utc>) -> Request<Full<Bytes>> {
    let (ts, data_id) = (now.timestamp(), number.to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("id:{data_id};request-id:r-{number};ts:{ts};").as_bytes());
    let mut signature = format!("ts={ts},v1=");
    for byte in mac.finalize().into_bytes() {
        write!(signature, "{byte:02x}").unwrap();
    }
    let body = json!({
        "action": "payment.updated", "api_version": "v1", "data": { "id": data_id }, "date_created": now, "id": number,
        "live_mode": true, "type": "payment", "user_id": 241_983_636,
    });
    Request::post(format!("/webhooks/mercadopago?data.id={data_id}&type=payment"))
        .header("host", "connect.example.com")
        .header("content-type", "application/json")
        .header("x-request-id", format!("r-{number}"))
        .header("x-signature", signature)
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// Everybody who posts.
struct Storm {
    all: usize,
    /// Where each replica listens at present.
    addresses: Vec<Mutex<SocketAddr>>,
    next: AtomicUsize,
    confirmed: AtomicUsize,
    unanswered: AtomicUsize,
    /// How long each 200 took.
    took: Mutex<Vec<Duration>>,
}

/// One connection to one replica; to the next one when it breaks.
struct Poster<'a> {
    storm: &'a Storm,
    replica: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Poster<'_> {
    /// Sends a request; none if no answer came.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Option<u16> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let address = *self.storm.addresses[self.replica].lock().unwrap();
            let stream = TcpStream::connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (connection, driven) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(driven);
            connection
        };
        let answer = connection.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.ok()?;
        connection.ready().await.ok()?;
        self.connection = Some(connection);
        Some(status)
    }

    /// Posts a notification until it is confirmed, as Mercado Pago does.
    async fn post(&mut self, number: usize) {
        loop {
            let request = notification(number, SystemClock.now());
            let begun = Instant::now();
            match self.send(request).await {
                Some(200) => {
                    self.storm.took.lock().unwrap().push(begun.elapsed());
                    return;
                }
                None => {
                    self.storm.unanswered.fetch_add(1, Ordering::Relaxed);
                    self.replica = (self.replica + 1) % self.storm.addresses.len();
                }
                Some(503) => {}
                Some(status) => panic!("notification {number} was answered {status}"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

impl Storm {
    /// Takes one notification after another; a second connection of its own sends some of them at the same time.
    async fn rage(self: Arc<Self>, poster: usize) {
        let mut poster = Poster {
            storm: &self,
            replica: poster % self.addresses.len(),
            connection: None,
        };
        let mut twin = Poster {
            connection: None,
            ..poster
        };
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
            if number > self.all {
                return;
            }
            if number % REPEATED == 1 {
                tokio::join!(poster.post(number), twin.post(number));
            } else {
                poster.post(number).await;
            }
            self.confirmed.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(REPEATED) {
                poster.post(number).await;
            }
        }
    }
}

/// The events of all notifications by the API, each with the notification's number.
async fn events(service: &Service) -> HashMap<String, u64> {
    let (mut found, mut cursor) = (HashMap::new(), String::new());
    loop {
        let path = format!("/v1/events?type=notification.received&limit=200{cursor}");
        let page = service.platform().get(&path).await.expect(200).json();
        for event in page["data"].as_array().unwrap() {
            found.insert(event["id"].as_str().unwrap().to_owned(), number_of(event));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Waits until every event was told, and until every delivery stands as delivered.
async fn delivered(service: &Service, told: &Told, all: usize) {
    let (mut count, mut since) = (0, Instant::now());
    loop {
        let now = told.len();
        if now > count {
            (count, since) = (now, Instant::now());
        }
        let waiting = service
            .platform()
            .get("/v1/deliveries?status=pending&limit=1")
            .await;
        let waiting = waiting.expect(200).json()["data"].as_array().unwrap().len();
        if count >= all && waiting == 0 {
            return;
        }
        assert!(since.elapsed() < SILENCE, "{count} of {all} events were told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lets a storm pass over so many replicas, and gives its figures.
async fn storm(engine: &str, replicas: usize, database: Option<String>) -> String {
    let long = std::env::var("NOTIFICATIONS_IN_A_STORM").ok();
    let kills = if long.is_some() {
        KILLS_IN_A_LONG_STORM
    } else {
        KILLS
    };
    let all = long.map_or(NOTIFICATIONS, |text| text.parse().unwrap());
    let told = Told::default();
    let hook = told.listen().await;
    let mut settings = vec![
        ("MERCADOPAGO_WEBHOOK_SECRET", SECRET),
        ("EVENT_ENDPOINTS_ALLOW_PRIVATE", "true"),
    ];
    settings.extend(database.as_deref().map(|url| ("DATABASE_URL", url)));
    let mut services = Vec::new();
    for _ in 0..replicas {
        services.push(Service::with("http://127.0.0.1:9", &settings).await);
    }
    let platform = services[0].platform();
    let made = platform.post("/v1/event-endpoints", json!({ "url": hook })).await;
    made.expect(201);

    let addresses = services.iter().map(|service| Mutex::new(service.address()));
    let storm = Arc::new(Storm {
        all,
        addresses: addresses.collect(),
        next: AtomicUsize::new(0),
        confirmed: AtomicUsize::new(0),
        unanswered: AtomicUsize::new(0),
        took: Mutex::default(),
    });
    let begun = Instant::now();
    let posters: Vec<_> = (0..POSTERS)
        .map(|poster| tokio::spawn(Arc::clone(&storm).rage(poster)))
        .collect();
    let mut down = Duration::ZERO;
    for kill in 0..kills {
        while storm.confirmed.load(Ordering::Relaxed) < all * (kill + 1) / (kills + 1) {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        let service = &mut services[kill % replicas];
        let killed = Instant::now();
        service.kill();
        service.start_again().await;
        *storm.addresses[kill % replicas].lock().unwrap() = service.address();
        down += killed.elapsed();
    }
    for poster in posters {
        poster.await.unwrap();
    }
    let posted = begun.elapsed();
    delivered(&services[0], &told, all).await;
    let done = begun.elapsed();

    let events = events(&services[0]).await;
    let numbers: HashSet<u64> = events.values().copied().collect();
    assert_eq!(
        (events.len(), numbers.len()),
        (all, all),
        "one event of each notification"
    );
    let told = told.0.lock().unwrap();
    assert_eq!(told.len(), all);
    for (id, (number, _)) in &*told {
        assert_eq!(events.get(id), Some(number));
    }

    let mut took = storm.took.lock().unwrap().clone();
    took.sort_unstable();
    let part = |percent: usize| took[(took.len() - 1) * percent / 100];
    let again: usize = told.values().map(|(_, times)| times - 1).sum();
    let rate = |time: Duration| f64::from(u32::try_from(took.len()).unwrap()) / time.as_secs_f64();
    format!(
        "{engine}, {replicas} replica(s), {POSTERS} connections: {all} notifications and {} repeats confirmed in {posted:.1?}, \
         {:.0}/s ({:.0}/s without the {down:.1?} of {kills} kills and starts); 200 after p50 {:.1?}, p99 {:.1?}; {} posts got \
         no answer; {} events, all delivered after {done:.1?}, {again} deliveries came again",
        took.len() - all,
        rate(posted),
        rate(posted.saturating_sub(if replicas == 1 { down } else { Duration::ZERO })),
        part(50),
        part(99),
        storm.unanswered.load(Ordering::Relaxed),
        events.len(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_got_200_becomes_one_event_and_is_delivered_whatever_is_killed_on_sqlite() {
    println!("{}", storm("SQLite", 1, None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_got_200_becomes_one_event_and_is_delivered_whatever_is_killed_on_postgresql() {
    if let Some(cluster) = postgres::shared() {
        let database = cluster.create_database();
        println!("{}", storm("PostgreSQL", 2, Some(database)).await);
    }
}
