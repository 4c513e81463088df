//! What Mercado Pago tells an application: signed notifications, sent again until they are confirmed.
//!
//! Signed as documented: HMAC-SHA256 over `id:<data.id>;request-id:<x-request-id>;ts:<ts>;`, `ts` in seconds. Not
//! confirmed with 200 or 201 within 22 seconds: again after 15 minutes, then at widening intervals. Times are those of the
//! sandbox's clock, so moving it brings the next attempt.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration as StdDuration;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::state::{Seller, World};

/// The receiver's time to confirm.
const CONFIRM_WITHIN: StdDuration = StdDuration::from_secs(22);
/// Minutes until the next attempt, by attempts made; the last one repeats.
const RETRY_MINUTES: [i64; 6] = [15, 30, 60, 360, 2880, 5760];
/// Attempts in all; Mercado Pago's end is not documented.
const MAX_ATTEMPTS: usize = 10;
/// Notifications that wait at most; the oldest are dropped.
const MAX_WAITING: usize = 20_000;
/// Attempts that are remembered.
const MAX_LOG: usize = 1_000;
/// How often the queue is looked at, because the clock below the sandbox's may have been moved by others.
const LOOK_EVERY: StdDuration = StdDuration::from_millis(100);

/// A notification on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Notification {
    id: u64,
    url: String,
    topic: String,
    data_id: String,
    body: String,
    /// The application whose secret signs it.
    client_id: String,
    attempts: usize,
}

/// One attempt, as `GET /_sandbox/notifications` shows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Attempt {
    at: DateTime<Utc>,
    url: String,
    retry: usize,
    body: String,
    /// What the receiver answered, if it did.
    status: Option<u16>,
}

/// What is to be sent, and what was.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<BTreeMap<(DateTime<Utc>, u64), Notification>>,
    log: Mutex<VecDeque<Attempt>>,
    wake: Notify,
    /// Applications that a seller is linked to.
    links: RwLock<HashMap<u64, Vec<String>>>,
}

/// What a state file holds of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct OutboxSnapshot {
    waiting: Vec<(DateTime<Utc>, Notification)>,
    links: HashMap<u64, Vec<String>>,
}

impl Outbox {
    /// For the state file.
    pub(super) fn snapshot(&self) -> OutboxSnapshot {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        OutboxSnapshot {
            waiting: waiting
                .iter()
                .map(|((at, _), notification)| (*at, notification.clone()))
                .collect(),
            links: self.links.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// What a state file held.
    pub(super) fn restore(snapshot: OutboxSnapshot) -> Self {
        let waiting = snapshot
            .waiting
            .into_iter()
            .map(|(at, notification)| ((at, notification.id), notification));
        Self {
            waiting: Mutex::new(waiting.collect()),
            links: RwLock::new(snapshot.links),
            ..Self::default()
        }
    }

    /// Links a seller to an application.
    pub(super) fn link(&self, user_id: u64, client_id: &str) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let clients = links.entry(user_id).or_default();
        if !clients.iter().any(|known| known == client_id) {
            clients.push(String::from(client_id));
        }
    }

    /// Takes the link away.
    pub(super) fn unlink(&self, user_id: u64, client_id: &str) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(clients) = links.get_mut(&user_id) {
            clients.retain(|known| known != client_id);
        }
    }

    fn linked(&self, user_id: u64) -> Vec<String> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&user_id).cloned().unwrap_or_default()
    }

    /// What waits and what was tried.
    pub(super) fn overview(&self) -> (Vec<Notification>, Vec<Attempt>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        (waiting.values().cloned().collect(), log.iter().cloned().collect())
    }

    /// Looks at the queue again: the clock was moved.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn put(&self, at: DateTime<Utc>, notification: Notification) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert((at, notification.id), notification);
        while waiting.len() > MAX_WAITING {
            waiting.pop_first();
        }
        self.wake.notify_one();
    }

    fn take_due(&self, now: DateTime<Utc>) -> Option<Notification> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    fn note(&self, attempt: Attempt) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_back(attempt);
        if log.len() > MAX_LOG {
            log.pop_front();
        }
    }
}

impl World {
    /// Tells the applications of a seller that something happened to one of the seller's objects. An address given with
    /// the object goes before the application's own.
    pub(super) fn announce(
        &self,
        seller: &Seller,
        topic: &str,
        action: &str,
        data_id: &str,
        url: Option<&str>,
    ) {
        if url.is_none() && self.options.clients.iter().all(|client| client.webhook.is_none()) {
            return;
        }
        let clients = self.outbox.linked(seller.user_id);
        for client in self
            .options
            .clients
            .iter()
            .filter(|client| clients.contains(&client.client_id))
        {
            let own = client.webhook.as_ref().map(|webhook| webhook.url.as_str());
            if let Some(url) = url.or(own) {
                self.queue(seller, url, &client.client_id, (topic, action, data_id));
            }
        }
    }

    /// Tells an application that a seller linked it or unlinked it (topic `mp-connect`).
    pub(super) fn announce_link(&self, seller: &Seller, client_id: &str, action: &str) {
        let webhook = self
            .options
            .clients
            .iter()
            .find(|client| client.client_id == client_id);
        if let Some(webhook) = webhook.and_then(|client| client.webhook.as_ref()) {
            let data_id = seller.user_id.to_string();
            self.queue(seller, &webhook.url, client_id, ("mp-connect", action, &data_id));
        }
    }

    fn queue(&self, seller: &Seller, url: &str, client_id: &str, what: (&str, &str, &str)) {
        let (topic, action, data_id) = what;
        let now = self.now();
        let id = self.next_id();
        let body = json!({
            "action": action,
            "api_version": "v1",
            "data": { "id": data_id },
            "date_created": now.to_rfc3339_opts(SecondsFormat::Millis, true),
            "id": id,
            "live_mode": true,
            "type": topic,
            "user_id": seller.user_id,
        });
        let notification = Notification {
            id,
            url: String::from(url),
            topic: String::from(topic),
            data_id: String::from(data_id),
            body: body.to_string(),
            client_id: String::from(client_id),
            attempts: 0,
        };
        self.outbox.put(now, notification);
    }

    /// Sends what is due until told to stop.
    pub(super) async fn send_notifications(self: std::sync::Arc<Self>, stop: CancellationToken) {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(CONFIRM_WITHIN)
            .build();
        let Ok(client) = client else { return };
        let limit = std::sync::Arc::new(tokio::sync::Semaphore::new(32));
        loop {
            while let Some(notification) = self.outbox.take_due(self.now()) {
                let Ok(permit) = std::sync::Arc::clone(&limit).acquire_owned().await else {
                    return;
                };
                let (world, client) = (std::sync::Arc::clone(&self), client.clone());
                tokio::spawn(async move {
                    world.attempt(&client, notification).await;
                    drop(permit);
                });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.outbox.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn attempt(&self, client: &reqwest::Client, mut notification: Notification) {
        let now = self.now();
        let status = match self.request(client, &notification, now) {
            Some(request) => request
                .send()
                .await
                .ok()
                .map(|response| response.status().as_u16()),
            None => None,
        };
        self.outbox.note(Attempt {
            at: now,
            url: notification.url.clone(),
            retry: notification.attempts,
            body: notification.body.clone(),
            status,
        });
        if matches!(status, Some(200 | 201)) {
            return;
        }
        let delay = RETRY_MINUTES[notification.attempts.min(RETRY_MINUTES.len() - 1)];
        notification.attempts += 1;
        if notification.attempts < MAX_ATTEMPTS {
            self.outbox.put(now + Duration::minutes(delay), notification);
        }
    }

    fn request(
        &self,
        client: &reqwest::Client,
        notification: &Notification,
        now: DateTime<Utc>,
    ) -> Option<reqwest::RequestBuilder> {
        let mut url = Url::parse(&notification.url).ok()?;
        url.query_pairs_mut()
            .append_pair("data.id", &notification.data_id)
            .append_pair("type", &notification.topic);
        let request_id = self.random.uuid().to_string();
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .header("user-agent", "restclient-node/5.1.10")
            .header("x-request-id", &request_id)
            .header("x-retry", notification.attempts.to_string())
            .header("x-socket-timeout", CONFIRM_WITHIN.as_millis().to_string())
            .header("x-rest-pool-name", "/services/webhooks.js")
            .body(notification.body.clone());
        let client = self
            .options
            .clients
            .iter()
            .find(|client| client.client_id == notification.client_id);
        Some(match client.and_then(|client| client.webhook.as_ref()) {
            Some(webhook) => {
                let ts = now.timestamp();
                let manifest = format!("id:{};request-id:{request_id};ts:{ts};", notification.data_id);
                request.header(
                    "x-signature",
                    format!("ts={ts},v1={}", sign(&webhook.secret, &manifest)?),
                )
            }
            None => request,
        })
    }
}

/// HMAC-SHA256 in lower-case hex.
fn sign(secret: &str, manifest: &str) -> Option<String> {
    use std::fmt::Write as _;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(manifest.as_bytes());
    Some(
        mac.finalize()
            .into_bytes()
            .iter()
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
    )
}
