//! Telling the platform: leases what is due, signs it, sends it, and writes down how it went.
//!
//! Guarantees that one endpoint that is slow or down takes nothing from another (each has slots of its own), that an
//! attempt ends within 15 seconds, and that a process that dies leaves nothing behind that is not due again: at once when it
//! is started again, else when its leases end. An event may arrive twice and in any order: receivers deduplicate by its id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::EgressPolicy;
use super::group::Group;
use super::signature::sign;
use crate::config::EventSettings;
use crate::domain::clock::Clock;
use crate::domain::event::DisabledReason;
use crate::domain::ids::{DeliveryId, EventEndpointId, ReplicaId};
use crate::domain::random::Random;
use crate::domain::secret::EndpointSecret;
use crate::mercadopago::http_client::{self, HttpClientError};
use crate::mercadopago::retry_after;
use crate::storage::{
    ClaimedDelivery, DeliveryAttempt, EventEndpoint, FinishedAttempt, Followed, Store, StoreError,
};

/// How long an attempt may take, from the name's lookup to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long a lease holds: beyond the deadline and a store that is slow to take the result.
const LEASE: TimeDelta = TimeDelta::seconds(60);
/// Attempts under way for one endpoint, per replica.
const SLOTS: usize = 32;
/// How often the store is looked at for what came due, or was written by another replica.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A delay is lengthened by up to this part of itself; never shortened, so that the schedule's sum is what it says.
const JITTER: f64 = 0.2;
/// An endpoint that confirmed nothing for so long is disabled.
const FAILING_TOO_LONG: TimeDelta = TimeDelta::days(5);
/// So much of an answer is read; a longer one is cut off and means what its status means.
const LONGEST_ANSWER: usize = 64 * 1024;
/// So many characters of an answer are kept, to see what was wrong.
const KEPT_ANSWER: usize = 256;
/// How long an idle connection to an endpoint is kept; its address was looked at when it was made.
const IDLE: Duration = Duration::from_secs(30);
/// How soon the end of an attempt is written again that could not be written, at first and at most.
const WRITE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Writing is given up when nothing could be written for so long: the leases are over.
const WRITTEN_WITHIN: Duration = Duration::from_mins(1);

/// What a [`Deliverer`] is made of.
#[derive(Debug)]
pub struct DelivererParts {
    /// Where deliveries lie.
    pub store: Store,
    /// When attempts are repeated, and where they may go.
    pub settings: EventSettings,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub random: Random,
    /// Who leases.
    pub owner: ReplicaId,
    /// Holds attempts under way; shutdown waits for it.
    pub tracker: TaskTracker,
}

#[derive(Debug)]
struct Inner {
    parts: DelivererParts,
    client: reqwest::Client,
    /// Attempts that ended and wait to be written.
    finished: Group<FinishedAttempt>,
    /// Attempts under way by endpoint.
    under_way: Mutex<HashMap<EventEndpointId, usize>>,
    /// There is something to do, or a slot to do it in.
    wake: Notify,
    /// An attempt ended.
    ended: Notify,
}

/// Delivers events. Clones share everything.
#[derive(Debug, Clone)]
pub struct Deliverer(Arc<Inner>);

/// The body of a delivery.
#[derive(Debug, Serialize)]
struct Body<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    timestamp: DateTime<Utc>,
    data: &'a Value,
}

/// What came back.
struct Answer {
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    error: Option<String>,
    text: Option<String>,
}

impl Deliverer {
    /// Puts the parts together.
    pub fn new(parts: DelivererParts) -> Result<Self, HttpClientError> {
        let client = http_client::builder()?
            .dns_resolver(parts_policy(&parts).resolver())
            .timeout(DEADLINE)
            .pool_max_idle_per_host(SLOTS)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("marketplace-connector/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self(Arc::new(Inner {
            parts,
            client,
            finished: Group::default(),
            under_way: Mutex::default(),
            wake: Notify::new(),
            ended: Notify::new(),
        })))
    }

    /// Where deliveries may go.
    pub fn policy(&self) -> EgressPolicy {
        parts_policy(&self.0.parts)
    }

    /// Looks at the store now: something was written.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Steps until `stop`: when woken, when a slot is free again, and now and then.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let Some(stepped) = stop.run_until_cancelled(self.step()).await else {
                return;
            };
            if let Err(error) = stepped {
                tracing::error!(%error, "due deliveries could not be looked for");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Begins what is due, as far as there are slots, and gives how many attempts that were.
    pub async fn step(&self) -> Result<usize, StoreError> {
        let parts = &self.0.parts;
        let mut begun = 0;
        for endpoint in parts.store.list_enabled_endpoints().await? {
            let free = SLOTS.saturating_sub(self.under_way(&endpoint.id));
            // In groups: each costs a statement.
            if free < SLOTS / 2 {
                continue;
            }
            let now = parts.clock.now();
            let claim = self.new_claim();
            let limit = u32::try_from(free).unwrap_or(1);
            let claimed = parts
                .store
                .claim_deliveries(&endpoint.id, &claim, now + LEASE, limit, now)
                .await?;
            if claimed.is_empty() {
                continue;
            }
            let secrets = parts
                .store
                .open_endpoint_secrets(&endpoint.application, &endpoint.id, now)
                .await;
            let secrets = match secrets {
                Ok(Some(secrets)) => Arc::new(secrets),
                // Removed meanwhile, with its deliveries.
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, endpoint = %endpoint.id, "an event endpoint's secret does not open");
                    continue;
                }
            };
            begun += claimed.len();
            let endpoint = Arc::new(endpoint);
            for delivery in claimed {
                let slot = Slot::take(&self.0, &endpoint.id);
                let (this, endpoint, secrets, claim) = (
                    self.clone(),
                    Arc::clone(&endpoint),
                    Arc::clone(&secrets),
                    claim.clone(),
                );
                parts.tracker.spawn(async move {
                    this.attempt(&endpoint, &secrets, &claim, delivery).await;
                    drop(slot);
                });
            }
        }
        Ok(begun)
    }

    /// Makes the attempt of one delivery now, whenever it is due. Whether it waited for one.
    pub async fn deliver_now(
        &self,
        endpoint: &Arc<EventEndpoint>,
        id: &DeliveryId,
    ) -> Result<bool, StoreError> {
        let parts = &self.0.parts;
        let now = parts.clock.now();
        let claim = self.new_claim();
        let claimed = parts.store.claim_delivery(id, &claim, now + LEASE).await?;
        let secrets = parts
            .store
            .open_endpoint_secrets(&endpoint.application, &endpoint.id, now)
            .await?;
        let (Some(delivery), Some(secrets)) = (claimed, secrets) else {
            return Ok(false);
        };
        self.attempt(endpoint, &secrets, &claim, delivery).await;
        Ok(true)
    }

    /// Waits until no attempt is under way.
    pub async fn idle(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.0.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn under_way(&self, endpoint: &EventEndpointId) -> usize {
        self.0.lock().get(endpoint).copied().unwrap_or(0)
    }

    /// A text that no other lease has.
    fn new_claim(&self) -> String {
        let parts = &self.0.parts;
        format!("{}{}", claims_of(&parts.owner), parts.random.base64url::<9>())
    }

    /// Makes what a dead process had under way due at once, instead of when its leases end.
    pub async fn succeed(&self, dead: &ReplicaId) -> Result<(), StoreError> {
        let parts = &self.0.parts;
        let released = parts
            .store
            .release_deliveries(&claims_of(dead), parts.clock.now())
            .await?;
        if released > 0 {
            tracing::info!(%dead, released, "the process before this one was broken off; its deliveries are made again");
            self.wake();
        }
        Ok(())
    }

    async fn attempt(
        &self,
        endpoint: &Arc<EventEndpoint>,
        secrets: &[EndpointSecret],
        claim: &str,
        delivery: ClaimedDelivery,
    ) {
        let parts = &self.0.parts;
        let (started_at, begun) = (parts.clock.now(), Instant::now());
        let answer = self.send(endpoint, secrets, &delivery, started_at).await;
        let duration = begun.elapsed();
        let now = parts.clock.now();
        let followed = self.followed(&answer, delivery.tries, now);
        let failing_too_long = endpoint
            .failing_since
            .is_some_and(|since| now - since >= FAILING_TOO_LONG);
        let disable = match (&followed, answer.status) {
            (Followed::Confirmed, _) => None,
            (_, Some(StatusCode::GONE)) => Some(DisabledReason::Gone),
            _ => failing_too_long.then_some(DisabledReason::Failing),
        };
        let outcome = match &followed {
            Followed::Confirmed => "confirmed",
            Followed::RetryAt(_) => "retry",
            Followed::Dead => "dead",
        };
        metrics::counter!("connector_deliveries_total", "outcome" => outcome).increment(1);
        metrics::histogram!("connector_delivery_seconds").record(duration.as_secs_f64());
        if let Some(reason) = disable {
            tracing::warn!(endpoint = %endpoint.id, reason = reason.as_str(), "an event endpoint is disabled");
        }
        let finished = FinishedAttempt {
            claim: claim.to_owned(),
            endpoint: Arc::clone(endpoint),
            delivery: delivery.id,
            attempt: DeliveryAttempt {
                number: delivery.attempts + 1,
                started_at,
                duration_ms: i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
                http_status: answer.status.map(|status| status.as_u16().into()),
                error: answer.error,
                answer: answer.text,
            },
            followed,
            disable,
            now,
        };
        self.0.finished.put(finished);
        let mut turn = self.0.finished.turn().await;
        while let Some(finished) = turn.take() {
            self.write(finished).await;
        }
    }

    /// Writes down how attempts ended, in one transaction; if that fails, each in its own, so that none suffers for another,
    /// and again what is left: whatever is not written is delivered a second time.
    async fn write(&self, mut finished: Vec<FinishedAttempt>) {
        let store = &self.0.parts.store;
        let (mut pause, longest) = WRITE_PAUSES;
        let mut progress = Instant::now();
        while let Err(error) = store.finish_attempts(&finished).await {
            let count = finished.len();
            let mut left = Vec::new();
            for one in finished {
                let alone = store.finish_attempts(std::slice::from_ref(&one)).await;
                if alone.is_err() {
                    left.push(one);
                }
            }
            if left.len() < count {
                progress = Instant::now();
            }
            finished = left;
            let count = finished.len();
            if count == 0 {
                return;
            }
            if progress.elapsed() >= WRITTEN_WITHIN {
                tracing::error!(%error, count, "the end of deliveries could not be written; they are delivered again");
                return;
            }
            tracing::warn!(%error, count, "the end of deliveries could not be written; it is tried again");
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    async fn send(
        &self,
        endpoint: &EventEndpoint,
        secrets: &[EndpointSecret],
        delivery: &ClaimedDelivery,
        now: DateTime<Utc>,
    ) -> Answer {
        // Again at each attempt: the setting may have changed since the endpoint was made.
        let url = match self.policy().check(&endpoint.url) {
            Ok(url) => url,
            Err(error) => return Answer::failed(format!("the endpoint's address {error}")),
        };
        let body = Body {
            id: &delivery.event_id,
            event_type: &delivery.event_type,
            timestamp: delivery.event_at,
            data: &delivery.data,
        };
        let body = match serde_json::to_vec(&body) {
            Ok(body) => body,
            Err(error) => return Answer::failed(format!("the event cannot be written as JSON: {error}")),
        };
        let timestamp = now.timestamp();
        let signature = sign(secrets, &delivery.event_id, timestamp, &body);
        let request = self
            .0
            .client
            .post(url)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", &delivery.event_id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        match request.send().await {
            Ok(response) => Answer::read(response, now).await,
            Err(error) => Answer::failed(http_client::describe(error)),
        }
    }

    fn followed(&self, answer: &Answer, tries: i64, now: DateTime<Utc>) -> Followed {
        if answer.status.is_some_and(|status| status.is_success()) {
            return Followed::Confirmed;
        }
        let place = usize::try_from(tries).unwrap_or(usize::MAX);
        let Some(delay) = self.0.parts.settings.retry_schedule.get(place) else {
            return Followed::Dead;
        };
        let jittered = delay.mul_f64(1.0 + JITTER * self.0.parts.random.unit());
        // What the endpoint asks for counts between the delay and twice the delay.
        let asked = answer.retry_after.unwrap_or_default().min(*delay * 2);
        let delay = TimeDelta::from_std(jittered.max(asked)).unwrap_or(TimeDelta::MAX);
        Followed::RetryAt(now.checked_add_signed(delay).unwrap_or(DateTime::<Utc>::MAX_UTC))
    }
}

/// What every lease of a process begins with.
fn claims_of(owner: &ReplicaId) -> String {
    format!("{owner}.")
}

fn parts_policy(parts: &DelivererParts) -> EgressPolicy {
    EgressPolicy {
        allow_private: parts.settings.allow_private,
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<EventEndpointId, usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn failed(error: String) -> Self {
        Self {
            status: None,
            retry_after: None,
            error: Some(error),
            text: None,
        }
    }

    async fn read(mut response: reqwest::Response, now: DateTime<Utc>) -> Self {
        let status = response.status();
        let retry_after = retry_after(response.headers(), now);
        let mut bytes = Vec::new();
        // Read to its end, so that the connection can be used again. The status stands, whatever becomes of the body.
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LONGEST_ANSWER {
                break;
            }
        }
        if status.is_success() {
            return Self {
                status: Some(status),
                retry_after,
                error: None,
                text: None,
            };
        }
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(KEPT_ANSWER)
            .collect();
        let error = if status.is_redirection() {
            format!("answered {}; redirects are not followed", status.as_u16())
        } else {
            format!("answered {}", status.as_u16())
        };
        Self {
            status: Some(status),
            retry_after,
            error: Some(error),
            text: (!text.is_empty()).then_some(text),
        }
    }
}

/// A slot of an endpoint, free again when it is dropped, also by a panic.
struct Slot {
    inner: Arc<Inner>,
    endpoint: EventEndpointId,
}

impl Slot {
    fn take(inner: &Arc<Inner>, endpoint: &EventEndpointId) -> Self {
        *inner.lock().entry(endpoint.clone()).or_default() += 1;
        Self {
            inner: Arc::clone(inner),
            endpoint: endpoint.clone(),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut under_way = self.inner.lock();
        if let Some(count) = under_way.get_mut(&self.endpoint) {
            *count -= 1;
            if *count <= SLOTS / 2 {
                self.inner.wake.notify_one();
            }
            if *count == 0 {
                under_way.remove(&self.endpoint);
            }
        }
        drop(under_way);
        self.inner.ended.notify_waiters();
    }
}
