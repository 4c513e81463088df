//! What the platform relies on, played on a real store and with receivers that do what each test lays out; on both
//! engines. Time is advanced.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::TaskTracker;

use super::signature::sign;
use super::*;
use crate::config::EventSettings;
use crate::domain::clock::{Clock, ManualClock};
use crate::domain::connection::{Status, StatusReason, TokenSet};
use crate::domain::event::{Actor, DeliveryStatus, DisabledReason, EventType, NotificationOutcome};
use crate::domain::ids::{ApplicationId, EventEndpointId, ReplicaId, SellerId, UserId};
use crate::domain::random::Random;
use crate::domain::schedule::RefreshSchedule;
use crate::domain::secret::{AccessToken, EndpointSecret, RefreshToken};
use crate::mercadopago::application::Applications;
use crate::mercadopago::application::tests::application;
use crate::mercadopago::notification::NotificationError;
use crate::storage::tests::{EmptyDatabase, Engine};
use crate::storage::{
    DeliveryAttempt, DeliveryFilter, DeliveryRow, EndpointChange, EventEndpoint, EventFilter, EventOrder,
    EventRow, FinishedAttempt, Followed, NewConnect, NotificationFilter, Store,
};
use crate::vault::DataKey;

macro_rules! on_both_engines {
    ($($behaviour:ident,)+) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $behaviour() {
                super::$behaviour(super::Stage::on(super::Engine::Sqlite).await.unwrap()).await;
            })+
        }
        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $behaviour() {
                if let Some(stage) = super::Stage::on(super::Engine::Postgres).await {
                    super::$behaviour(stage).await;
                }
            })+
        }
    };
}

on_both_engines! {
    a_notification_becomes_one_event_with_the_sellers_id_however_often_it_comes,
    a_notification_of_an_unknown_seller_is_kept_and_told,
    a_revoked_sellers_notifications_still_carry_the_sellers_id,
    a_refused_notification_leaves_nothing,
    an_unlinking_revokes_and_the_event_names_the_seller,
    a_late_retry_of_an_unlinking_changes_nothing_after_a_reconnect,
    an_unlinking_that_does_not_agree_with_itself_is_ignored,
    an_event_goes_signed_to_those_who_want_it,
    an_endpoint_that_is_down_for_three_days_gets_everything_and_delays_nobody,
    a_410_disables_the_endpoint_and_the_others_are_told,
    days_without_a_confirmation_disable_the_endpoint,
    after_the_last_attempt_a_delivery_is_dead_until_it_is_retried,
    retry_after_counts_between_the_delay_and_twice_the_delay,
    during_a_rotation_both_secrets_sign,
    a_replay_brings_what_the_endpoint_was_never_told,
    what_a_dead_process_had_leased_is_due_when_the_lease_ends,
    what_a_process_had_leased_that_is_dead_for_certain_is_due_at_once,
    a_removed_endpoint_takes_no_end_of_another_attempt_with_it,
    a_slow_endpoint_has_so_many_attempts_at_a_time_and_delays_nobody,
    two_replicas_do_not_make_the_same_attempt,
    a_redirect_is_not_followed,
    an_answer_without_end_is_cut_off,
    a_disabled_endpoint_is_told_nothing_and_goes_on_when_enabled,
    a_test_event_goes_to_one_endpoint_alone,
    events_are_polled_oldest_first_without_missing_any,
    private_addresses_are_refused_where_they_are_not_allowed,
    a_removed_endpoint_leaves_no_deliveries,
}

const SECRET: &str = "canary-webhook-secret";

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_781_009_500, 0).unwrap()
}

fn default_application() -> ApplicationId {
    ApplicationId::default_application()
}

/// What a receiver got.
#[derive(Debug, Clone)]
struct Got {
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Whether one of the signatures is this secret's.
    fn is_signed_by(&self, secret: &EndpointSecret) -> bool {
        let timestamp = self.header("webhook-timestamp").parse().unwrap();
        let mine = sign(
            std::slice::from_ref(secret),
            self.header("webhook-id"),
            timestamp,
            &self.body,
        );
        self.header("webhook-signature").split(' ').any(|one| one == mine)
    }
}

/// Status and headers of an answer.
type Reply = (u16, Vec<(&'static str, String)>);

/// A receiver on a socket of its own.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Mutex<Reply>>,
    /// Whoever holds it keeps every answer back.
    gate: Arc<tokio::sync::RwLock<()>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            got: Arc::default(),
            answer: Arc::new(Mutex::new((204, Vec::new()))),
            gate: Arc::default(),
        };
        let app = Router::new().fallback(Self::receive).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    async fn receive(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> Response {
        this.got.lock().unwrap().push(Got { headers, body });
        drop(this.gate.read().await);
        let (status, headers) = this.answer.lock().unwrap().clone();
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body("an answer\n".into()).unwrap()
    }

    fn answers(&self, status: u16) {
        *self.answer.lock().unwrap() = (status, Vec::new());
    }

    fn answers_with(&self, status: u16, name: &'static str, value: &str) {
        *self.answer.lock().unwrap() = (status, vec![(name, value.to_owned())]);
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self
            .got()
            .iter()
            .map(|got| got.header("webhook-id").to_owned())
            .collect();
        ids.sort();
        ids
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

struct Stage {
    database: EmptyDatabase,
    store: Store,
    clock: ManualClock,
    random: Random,
    deliverer: Deliverer,
    endpoints: Endpoints,
    intake: Intake,
}

fn deliverer(store: &Store, clock: &ManualClock, allow_private: bool) -> Deliverer {
    let (clock, random): (Arc<dyn Clock>, _) = (Arc::new(clock.clone()), Random::system());
    let schedule = ["5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h"];
    Deliverer::new(DelivererParts {
        store: store.clone(),
        settings: EventSettings {
            retry_schedule: schedule
                .iter()
                .map(|text| humantime::parse_duration(text).unwrap())
                .collect(),
            allow_private,
        },
        owner: ReplicaId::new(clock.now(), &random),
        clock,
        random,
        tracker: TaskTracker::new(),
    })
    .unwrap()
}

impl Stage {
    async fn on(engine: Engine) -> Option<Self> {
        let database = EmptyDatabase::on(engine)?;
        let store = database.migrated().await;
        let (clock, random) = (ManualClock::at(start()), Random::system());
        let deliverer = deliverer(&store, &clock, true);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        Some(Self {
            endpoints: Endpoints::new(
                store.clone(),
                deliverer.clone(),
                Arc::clone(&shared),
                random.clone(),
            ),
            intake: Intake::new(IntakeParts {
                store: store.clone(),
                applications: Applications::new(vec![application("https://api.example")]),
                deliverer: deliverer.clone(),
                clock: shared,
                tolerance: Duration::days(7),
            }),
            database,
            store,
            clock,
            random,
            deliverer,
        })
    }

    async fn connect(&self, seller: &str, user: i64) {
        let now = self.clock.now();
        let tokens = TokenSet {
            access_token: AccessToken::new("APP_USR-1"),
            refresh_token: Some(RefreshToken::new("TG-1")),
            obtained_at: now,
            expires_at: now + Duration::days(180),
            scopes: Vec::new(),
            public_key: None,
            live_mode: Some(true),
            user_id: UserId(user),
        };
        let new = NewConnect {
            application: &default_application(),
            client_id: "1234567890123456",
            application_public_key: None,
            seller_id: &seller.parse().unwrap(),
            tokens: &tokens,
            data_key: &DataKey::generate(),
            metadata: None,
            consent: None,
            schedule: &RefreshSchedule::default(),
            actor: Actor::system(),
            now,
        };
        self.store.admit(&new).await.unwrap();
    }

    /// Sends a notification as Mercado Pago signs it.
    async fn notify(
        &self,
        topic: &str,
        data_id: &str,
        body: &Value,
    ) -> Result<Option<NotificationOutcome>, IntakeError> {
        let ts = self.clock.now().timestamp();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("id:{data_id};request-id:r-1;ts:{ts};").as_bytes());
        let v1 = mac
            .finalize()
            .into_bytes()
            .iter()
            .fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "r-1".parse().unwrap());
        headers.insert("x-signature", format!("ts={ts},v1={v1}").parse().unwrap());
        let query = format!("data.id={data_id}&type={topic}");
        let application = default_application();
        self.intake
            .receive(
                &application,
                &headers,
                &query,
                &body.to_string(),
                Some("q-1".to_owned()),
            )
            .await
    }

    async fn pay(&self, number: i64, user: i64) -> Option<NotificationOutcome> {
        let body = json!({ "id": number, "type": "payment", "action": "payment.updated", "data": { "id": "7" }, "user_id": user });
        self.notify("payment", "7", &body).await.unwrap()
    }

    fn unlinking(user: i64, at: DateTime<Utc>) -> Value {
        json!({ "id": 1, "type": "mp-connect", "action": "application.deauthorized", "data": { "id": user.to_string() },
            "user_id": user, "date_created": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true) })
    }

    async fn events(&self, kind: EventType) -> Vec<EventRow> {
        let filter = EventFilter {
            application: default_application(),
            event_type: Some(kind),
            seller_id: None,
            order: EventOrder::Backward,
            cursor: None,
            limit: 200,
        };
        self.store.list_events(&filter).await.unwrap().data
    }

    async fn status(&self, seller: &str) -> (Status, Option<StatusReason>) {
        let seller: SellerId = seller.parse().unwrap();
        let connection = self.store.find_connection(&default_application(), &seller).await;
        let connection = connection.unwrap().unwrap();
        (connection.status, connection.status_reason)
    }

    async fn endpoint(&self, receiver: &Receiver, types: &[EventType]) -> (EventEndpoint, EndpointSecret) {
        let new = NewEndpoint {
            application: default_application(),
            url: receiver.url(),
            event_types: (!types.is_empty()).then(|| types.to_vec()),
            description: None,
        };
        self.endpoints.create(new, Actor::system()).await.unwrap()
    }

    async fn find(&self, id: &EventEndpointId) -> EventEndpoint {
        let found = self.store.find_endpoint(&default_application(), id).await;
        found.unwrap().unwrap()
    }

    /// Delivers all that is due.
    async fn deliver(&self) {
        while self.deliverer.step().await.unwrap() > 0 {
            self.deliverer.idle().await;
        }
    }

    async fn deliveries(&self, status: Option<DeliveryStatus>) -> Vec<DeliveryRow> {
        let filter = DeliveryFilter {
            status,
            limit: 1000,
            ..DeliveryFilter::default()
        };
        self.store.list_deliveries(&filter).await.unwrap().data
    }

    /// Lets time pass, delivering what comes due when it does.
    async fn pass(&self, time: Duration) {
        let end = self.clock.now() + time;
        self.deliver().await;
        loop {
            let pending = self.deliveries(Some(DeliveryStatus::Pending)).await;
            let due = pending.iter().filter_map(|delivery| delivery.next_attempt_at);
            // What waits for a disabled endpoint stays behind.
            let next = due.filter(|at| *at > self.clock.now()).min();
            let next = next.unwrap_or(end).min(end);
            // Jitter sets neighbours apart: take them together.
            let step = (next - self.clock.now() + Duration::minutes(5)).min(end - self.clock.now());
            self.clock.advance(step);
            self.deliver().await;
            if self.clock.now() >= end {
                return;
            }
        }
    }
}

async fn a_notification_becomes_one_event_with_the_sellers_id_however_often_it_comes(stage: Stage) {
    stage.connect("seller-1", 42).await;
    assert_eq!(stage.pay(1, 42).await, Some(NotificationOutcome::Told));
    stage.clock.advance(Duration::minutes(15));
    assert_eq!(stage.pay(1, 42).await, None);
    assert_eq!(stage.pay(2, 42).await, Some(NotificationOutcome::Told));
    let events = stage.events(EventType::NotificationReceived).await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].seller_id.as_deref(), Some("seller-1"));
    let told = &events[0].data["notification"];
    assert_eq!(
        (
            told["topic"].as_str(),
            told["action"].as_str(),
            told["resource_id"].as_str()
        ),
        (Some("payment"), Some("payment.updated"), Some("7"))
    );
    assert_eq!(told["body"]["id"], 2);
    assert_eq!(events[0].data["seller_id"], "seller-1");
}

async fn a_notification_of_an_unknown_seller_is_kept_and_told(stage: Stage) {
    assert_eq!(stage.pay(1, 43).await, Some(NotificationOutcome::Told));
    let filter = NotificationFilter {
        unknown_sellers: true,
        limit: 10,
        ..NotificationFilter::default()
    };
    let kept = stage.store.list_notifications(&filter).await.unwrap().data;
    assert_eq!((kept.len(), kept[0].user_id), (1, Some(43)));
    let events = stage.events(EventType::NotificationReceived).await;
    assert_eq!((events.len(), &events[0].data["seller_id"]), (1, &Value::Null));
    assert_eq!(kept[0].event_id.as_deref(), Some(events[0].id.as_str()));
}

async fn a_revoked_sellers_notifications_still_carry_the_sellers_id(stage: Stage) {
    stage.connect("seller-1", 42).await;
    let (id, seller) = (default_application(), "seller-1".parse().unwrap());
    let reason = StatusReason::RevokedByApi;
    let now = stage.clock.now();
    stage
        .store
        .revoke_connection(&id, &seller, reason, None, Actor::system(), now)
        .await
        .unwrap();
    stage.pay(1, 42).await;
    let events = stage.events(EventType::NotificationReceived).await;
    assert_eq!(events[0].seller_id.as_deref(), Some("seller-1"));
}

async fn a_refused_notification_leaves_nothing(stage: Stage) {
    let body = json!({ "id": 1, "type": "payment", "data": { "id": "8" }, "user_id": 42 });
    let refused = stage.notify("payment", "7", &body).await.unwrap_err();
    assert!(matches!(
        refused,
        IntakeError::Refused(NotificationError::OtherObject)
    ));
    let unsigned = stage
        .intake
        .receive(
            &default_application(),
            &HeaderMap::new(),
            "data.id=8",
            &body.to_string(),
            None,
        )
        .await;
    assert!(matches!(
        unsigned,
        Err(IntakeError::Refused(NotificationError::Unsigned))
    ));
    let foreign = "another".parse().unwrap();
    let unknown = stage
        .intake
        .receive(&foreign, &HeaderMap::new(), "data.id=8", &body.to_string(), None)
        .await;
    assert!(matches!(unknown, Err(IntakeError::NoSecret(_))));
    let filter = NotificationFilter {
        limit: 10,
        ..NotificationFilter::default()
    };
    assert!(
        stage
            .store
            .list_notifications(&filter)
            .await
            .unwrap()
            .data
            .is_empty()
    );
    assert!(stage.events(EventType::NotificationReceived).await.is_empty());
}

async fn an_unlinking_revokes_and_the_event_names_the_seller(stage: Stage) {
    stage.connect("seller-1", 42).await;
    stage.clock.advance(Duration::days(1));
    let body = Stage::unlinking(42, stage.clock.now());
    let outcome = stage.notify("mp-connect", "42", &body).await.unwrap();
    assert_eq!(outcome, Some(NotificationOutcome::Revoked));
    let revoked = (Status::Revoked, Some(StatusReason::RevokedBySeller));
    assert_eq!(stage.status("seller-1").await, revoked);
    let events = stage.events(EventType::Revoked).await;
    assert_eq!(
        (events.len(), events[0].seller_id.as_deref()),
        (1, Some("seller-1"))
    );
    assert_eq!(events[0].data["connection"]["status_reason"], "revoked_by_seller");
    assert!(stage.events(EventType::NotificationReceived).await.is_empty());
}

async fn a_late_retry_of_an_unlinking_changes_nothing_after_a_reconnect(stage: Stage) {
    stage.connect("seller-1", 42).await;
    let unlinked_at = stage.clock.now() + Duration::hours(1);
    stage.clock.advance(Duration::hours(2));
    let mut body = Stage::unlinking(42, unlinked_at);
    stage.notify("mp-connect", "42", &body).await.unwrap();
    stage.connect("seller-1", 42).await;
    assert_eq!(stage.status("seller-1").await.0, Status::Active);
    stage.clock.advance(Duration::days(2));
    // The same again, and the same under another id.
    assert_eq!(stage.notify("mp-connect", "42", &body).await.unwrap(), None);
    body["id"] = json!(2);
    let outcome = stage.notify("mp-connect", "42", &body).await.unwrap();
    assert_eq!(outcome, Some(NotificationOutcome::Ignored));
    assert_eq!(stage.status("seller-1").await.0, Status::Active);
    assert_eq!(stage.events(EventType::Revoked).await.len(), 1);
}

async fn an_unlinking_that_does_not_agree_with_itself_is_ignored(stage: Stage) {
    stage.connect("seller-1", 42).await;
    let mut body = Stage::unlinking(43, stage.clock.now());
    body["user_id"] = json!(42);
    let outcome = stage.notify("mp-connect", "43", &body).await.unwrap();
    assert_eq!(outcome, Some(NotificationOutcome::Ignored));
    let mut linked = Stage::unlinking(42, stage.clock.now());
    linked["action"] = json!("application.authorized");
    linked["id"] = json!(2);
    let outcome = stage.notify("mp-connect", "42", &linked).await.unwrap();
    assert_eq!(outcome, Some(NotificationOutcome::Recorded));
    assert_eq!(stage.status("seller-1").await.0, Status::Active);
}

async fn an_event_goes_signed_to_those_who_want_it(stage: Stage) {
    let (all, some) = (Receiver::start().await, Receiver::start().await);
    let (_, secret) = stage.endpoint(&all, &[]).await;
    stage.endpoint(&some, &[EventType::Revoked]).await;
    stage.connect("seller-1", 42).await;
    stage.pay(1, 42).await;
    stage.deliver().await;
    let got = all.got();
    assert_eq!((got.len(), some.got().len()), (2, 0));
    let told = got
        .iter()
        .find(|got| got.json()["type"] == "notification.received")
        .unwrap();
    assert_eq!(told.header("content-type"), "application/json");
    assert_eq!(told.json()["id"], told.header("webhook-id"));
    assert_eq!(told.json()["data"]["seller_id"], "seller-1");
    let timestamp: DateTime<Utc> = told.json()["timestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(timestamp, stage.clock.now());
    assert!(got.iter().all(|got| got.is_signed_by(&secret)));
    assert_eq!(stage.deliveries(Some(DeliveryStatus::Delivered)).await.len(), 2);
    stage.pass(Duration::hours(1)).await;
    assert_eq!(all.got().len(), 2);
}

async fn an_endpoint_that_is_down_for_three_days_gets_everything_and_delays_nobody(stage: Stage) {
    let (down, up) = (Receiver::start().await, Receiver::start().await);
    let (endpoint, _) = stage.endpoint(&down, &[]).await;
    stage.endpoint(&up, &[]).await;
    down.answers(503);
    for number in 0..40 {
        stage.pay(number, 42).await;
    }
    stage.deliver().await;
    assert_eq!(up.got().len(), 40);
    stage.pass(Duration::days(3)).await;
    let mut told = up.ids();
    told.dedup();
    assert_eq!(told.len(), 40);
    assert!(stage.find(&endpoint.id).await.failing_since.is_some());
    assert_eq!(stage.deliveries(Some(DeliveryStatus::Pending)).await.len(), 40);
    down.answers(200);
    let before = down.got().len();
    stage.pass(Duration::days(2)).await;
    let mut ids: Vec<_> = down.got()[before..]
        .iter()
        .map(|got| got.json()["id"].clone())
        .collect();
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 40);
    assert_eq!(stage.deliveries(Some(DeliveryStatus::Delivered)).await.len(), 80);
    let healed = stage.find(&endpoint.id).await;
    assert_eq!((healed.failing_since, healed.disabled), (None, None));
}

async fn a_410_disables_the_endpoint_and_the_others_are_told(stage: Stage) {
    let (gone, other) = (Receiver::start().await, Receiver::start().await);
    let (endpoint, _) = stage.endpoint(&gone, &[]).await;
    stage.endpoint(&other, &[EventType::EndpointDisabled]).await;
    gone.answers(410);
    stage.pay(1, 42).await;
    stage.deliver().await;
    let disabled = stage.find(&endpoint.id).await.disabled;
    assert_eq!(disabled.map(|(_, reason)| reason), Some(DisabledReason::Gone));
    let told = other.got();
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].json()["data"]["event_endpoint"]["disabled_reason"],
        "gone"
    );
    stage.pass(Duration::days(1)).await;
    stage.pay(2, 42).await;
    stage.deliver().await;
    assert_eq!(gone.got().len(), 1);
}

async fn days_without_a_confirmation_disable_the_endpoint(stage: Stage) {
    let receiver = Receiver::start().await;
    let (endpoint, _) = stage.endpoint(&receiver, &[]).await;
    receiver.answers(500);
    for number in 0..6 {
        stage.pay(number, 42).await;
        stage.pass(Duration::days(1)).await;
    }
    let disabled = stage.find(&endpoint.id).await.disabled;
    assert_eq!(disabled.map(|(_, reason)| reason), Some(DisabledReason::Failing));
    assert_eq!(stage.events(EventType::EndpointDisabled).await.len(), 1);
}

async fn after_the_last_attempt_a_delivery_is_dead_until_it_is_retried(stage: Stage) {
    let receiver = Receiver::start().await;
    stage.endpoint(&receiver, &[]).await;
    receiver.answers(500);
    stage.pay(1, 42).await;
    stage.deliver().await;
    stage.pass(Duration::days(4)).await;
    let dead = stage.deliveries(Some(DeliveryStatus::Dead)).await;
    assert_eq!((dead.len(), dead[0].attempts, receiver.got().len()), (1, 10, 10));
    assert_eq!(dead[0].last_status, Some(500));
    receiver.answers(200);
    stage.pass(Duration::days(2)).await;
    assert_eq!(receiver.got().len(), 10);
    let id = dead[0].id.parse().unwrap();
    stage
        .endpoints
        .retry(&default_application(), &id, Actor::operator())
        .await
        .unwrap();
    stage.deliver().await;
    assert_eq!(stage.deliveries(Some(DeliveryStatus::Delivered)).await.len(), 1);
    let attempts = stage.store.list_delivery_attempts(&id).await.unwrap();
    assert_eq!(attempts.len(), 11);
    assert_eq!(attempts[0].answer.as_deref(), Some("an answer"));
    assert_eq!((attempts[10].number, attempts[10].http_status), (11, Some(200)));
}

async fn retry_after_counts_between_the_delay_and_twice_the_delay(stage: Stage) {
    let receiver = Receiver::start().await;
    stage.endpoint(&receiver, &[]).await;
    receiver.answers_with(429, "retry-after", "86400");
    stage.pay(1, 42).await;
    stage.deliver().await;
    let next = stage.deliveries(None).await[0].next_attempt_at.unwrap();
    assert_eq!(next, stage.clock.now() + Duration::seconds(10));
    stage.clock.advance(Duration::seconds(10));
    receiver.answers_with(429, "retry-after", "1");
    stage.deliver().await;
    let wait = stage.deliveries(None).await[0].next_attempt_at.unwrap() - stage.clock.now();
    assert!(
        wait >= Duration::minutes(5) && wait <= Duration::minutes(6),
        "{wait}"
    );
}

async fn during_a_rotation_both_secrets_sign(stage: Stage) {
    let receiver = Receiver::start().await;
    let (endpoint, before) = stage.endpoint(&receiver, &[]).await;
    let (id, actor) = (default_application(), Actor::operator());
    let (_, after) = stage
        .endpoints
        .rotate_secret(&id, &endpoint.id, actor)
        .await
        .unwrap();
    stage.pay(1, 42).await;
    stage.deliver().await;
    let got = receiver.got();
    assert!(got[0].is_signed_by(&before) && got[0].is_signed_by(&after));
    stage.clock.advance(Duration::hours(24));
    stage.pay(2, 42).await;
    stage.deliver().await;
    let got = receiver.got();
    assert!(!got[1].is_signed_by(&before) && got[1].is_signed_by(&after));
    let shown = format!("{endpoint:?} {after:?}");
    assert!(!shown.contains("whsec_"));
}

async fn a_replay_brings_what_the_endpoint_was_never_told(stage: Stage) {
    for number in 0..7 {
        stage.clock.advance(Duration::minutes(1));
        stage.pay(number, 42).await;
    }
    let receiver = Receiver::start().await;
    let (endpoint, _) = stage.endpoint(&receiver, &[]).await;
    stage.deliver().await;
    assert!(receiver.got().is_empty());
    let range = (start() + Duration::minutes(3), start() + Duration::minutes(6));
    let id = default_application();
    for round in 1..=2 {
        let actor = Actor::operator();
        let replayed = stage
            .endpoints
            .replay(&id, &endpoint.id, range, None, actor)
            .await
            .unwrap();
        assert_eq!((replayed.deliveries, replayed.next), (3, None));
        stage.deliver().await;
        assert_eq!(receiver.got().len(), 3 * round);
    }
    let bodies: Vec<_> = receiver
        .got()
        .iter()
        .map(|got| got.json()["data"]["notification"]["body"]["id"].clone())
        .collect();
    assert!(
        (2..=4).all(|number| bodies.contains(&json!(number))),
        "{bodies:?}"
    );
}

async fn what_a_dead_process_had_leased_is_due_when_the_lease_ends(stage: Stage) {
    let receiver = Receiver::start().await;
    let (endpoint, _) = stage.endpoint(&receiver, &[]).await;
    stage.pay(1, 42).await;
    let now = stage.clock.now();
    let until = now + Duration::seconds(60);
    let claimed = stage
        .store
        .claim_deliveries(&endpoint.id, "dead", until, 10, now)
        .await;
    assert_eq!(claimed.unwrap().len(), 1);
    stage.deliver().await;
    assert!(receiver.got().is_empty());
    stage.clock.advance(Duration::seconds(60));
    stage.deliver().await;
    assert_eq!(receiver.got().len(), 1);
}

async fn what_a_process_had_leased_that_is_dead_for_certain_is_due_at_once(stage: Stage) {
    let receiver = Receiver::start().await;
    let (endpoint, _) = stage.endpoint(&receiver, &[]).await;
    let (now, until) = (stage.clock.now(), stage.clock.now() + Duration::seconds(60));
    let [dead, alive] = [(); 2].map(|()| ReplicaId::new(now, &stage.random));
    for (number, owner) in [(1, &dead), (2, &alive)] {
        stage.pay(number, 42).await;
        let claimed = stage
            .store
            .claim_deliveries(&endpoint.id, &format!("{owner}.x"), until, 10, now)
            .await;
        assert_eq!(claimed.unwrap().len(), 1);
    }
    stage.deliverer.succeed(&dead).await.unwrap();
    stage.deliver().await;
    let got = receiver.got();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].json()["data"]["notification"]["body"]["id"], 1);
    stage.clock.advance(Duration::seconds(60));
    stage.deliver().await;
    assert_eq!(receiver.got().len(), 2);
}

async fn a_removed_endpoint_takes_no_end_of_another_attempt_with_it(stage: Stage) {
    let receiver = Receiver::start().await;
    let now = stage.clock.now();
    let mut finished = Vec::new();
    let (removed, _) = stage.endpoint(&receiver, &[]).await;
    let (other, _) = stage.endpoint(&receiver, &[]).await;
    stage.pay(1, 42).await;
    for endpoint in [&removed, &other] {
        let claimed = stage
            .store
            .claim_deliveries(&endpoint.id, "ours", now + Duration::seconds(60), 10, now)
            .await
            .unwrap();
        finished.push(FinishedAttempt {
            claim: "ours".to_owned(),
            endpoint: Arc::new(endpoint.clone()),
            delivery: claimed[0].id.clone(),
            attempt: DeliveryAttempt {
                number: 1,
                started_at: now,
                duration_ms: 1,
                http_status: Some(204),
                error: None,
                answer: None,
            },
            followed: Followed::Confirmed,
            disable: None,
            now,
        });
    }
    let id = default_application();
    stage
        .endpoints
        .delete(&id, &removed.id, Actor::operator())
        .await
        .unwrap();
    stage.store.finish_attempts(&finished).await.unwrap();
    assert_eq!(stage.deliveries(None).await.len(), 1);
    assert_eq!(stage.deliveries(Some(DeliveryStatus::Delivered)).await.len(), 1);
}

async fn a_slow_endpoint_has_so_many_attempts_at_a_time_and_delays_nobody(stage: Stage) {
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    stage.endpoint(&slow, &[]).await;
    stage.endpoint(&quick, &[]).await;
    let held = Arc::clone(&slow.gate).write_owned().await;
    for number in 0..100 {
        stage.pay(number, 42).await;
    }
    let told = async {
        while quick.got().len() < 100 || slow.got().len() < 32 {
            stage.deliverer.step().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_mins(1);
    tokio::time::timeout(patience, told).await.unwrap();
    stage.deliverer.step().await.unwrap();
    assert_eq!(slow.got().len(), 32);
    drop(held);
    stage.deliverer.idle().await;
    stage.deliver().await;
    let mut told = slow.ids();
    told.dedup();
    assert_eq!(told.len(), 100);
}

async fn two_replicas_do_not_make_the_same_attempt(stage: Stage) {
    let receiver = Receiver::start().await;
    stage.endpoint(&receiver, &[]).await;
    for number in 0..100 {
        stage.pay(number, 42).await;
    }
    let other = deliverer(&stage.database.migrated().await, &stage.clock, true);
    for _ in 0..50 {
        let (one, two) = tokio::join!(stage.deliverer.step(), other.step());
        one.unwrap();
        two.unwrap();
        if receiver.got().len() >= 100 {
            break;
        }
        tokio::task::yield_now().await;
        stage.deliverer.idle().await;
        other.idle().await;
    }
    stage.deliverer.idle().await;
    other.idle().await;
    let ids = receiver.ids();
    let mut once = ids.clone();
    once.dedup();
    assert_eq!((ids.len(), once.len()), (100, 100));
}

async fn a_redirect_is_not_followed(stage: Stage) {
    let (receiver, inside) = (Receiver::start().await, Receiver::start().await);
    stage.endpoint(&receiver, &[]).await;
    receiver.answers_with(307, "location", &inside.url());
    stage.pay(1, 42).await;
    stage.deliver().await;
    assert_eq!((receiver.got().len(), inside.got().len()), (1, 0));
    let delivery = &stage.deliveries(Some(DeliveryStatus::Pending)).await[0];
    assert_eq!(
        delivery.last_error.as_deref(),
        Some("answered 307; redirects are not followed")
    );
}

async fn an_answer_without_end_is_cut_off(stage: Stage) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = [0; 4096];
        assert!(stream.read(&mut read).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut written = 0;
        while stream.write_all(&read).await.is_ok() {
            written += read.len();
        }
        written
    });
    let new = NewEndpoint {
        application: default_application(),
        url,
        event_types: None,
        description: None,
    };
    stage.endpoints.create(new, Actor::operator()).await.unwrap();
    stage.pay(1, 42).await;
    stage.deliver().await;
    assert_eq!(stage.deliveries(Some(DeliveryStatus::Delivered)).await.len(), 1);
    // What the sockets hold, and no more.
    let written = endless.await.unwrap();
    assert!(written < 32 * 1024 * 1024, "{written} bytes were taken");
}

async fn a_disabled_endpoint_is_told_nothing_and_goes_on_when_enabled(stage: Stage) {
    let receiver = Receiver::start().await;
    let (endpoint, _) = stage.endpoint(&receiver, &[]).await;
    stage.pay(1, 42).await;
    let id = default_application();
    let enabled = |enabled| EndpointChange {
        enabled: Some(enabled),
        ..EndpointChange::default()
    };
    let actor = Actor::operator;
    stage
        .endpoints
        .change(&id, &endpoint.id, enabled(false), actor())
        .await
        .unwrap();
    stage.pay(2, 42).await;
    stage.deliver().await;
    assert!(receiver.got().is_empty());
    let test = stage.endpoints.test(&id, &endpoint.id).await;
    assert!(matches!(test, Err(EndpointError::Disabled)));
    stage
        .endpoints
        .change(&id, &endpoint.id, enabled(true), actor())
        .await
        .unwrap();
    stage.deliver().await;
    assert_eq!(receiver.got().len(), 1);
}

async fn a_test_event_goes_to_one_endpoint_alone(stage: Stage) {
    let (one, other) = (Receiver::start().await, Receiver::start().await);
    let (endpoint, _) = stage.endpoint(&one, &[EventType::Revoked]).await;
    stage.endpoint(&other, &[]).await;
    let id = default_application();
    let delivery = stage.endpoints.test(&id, &endpoint.id).await.unwrap();
    assert_eq!(
        (delivery.status.as_str(), delivery.last_status),
        ("delivered", Some(204))
    );
    stage.deliver().await;
    assert_eq!((one.got().len(), other.got().len()), (1, 0));
    assert_eq!(one.got()[0].json()["type"], "event_endpoint.test");
    one.answers(404);
    let delivery = stage.endpoints.test(&id, &endpoint.id).await.unwrap();
    assert_eq!(
        (delivery.status.as_str(), delivery.last_status),
        ("pending", Some(404))
    );
}

async fn events_are_polled_oldest_first_without_missing_any(stage: Stage) {
    let mut filter = EventFilter {
        application: default_application(),
        event_type: None,
        seller_id: None,
        order: EventOrder::Backward,
        cursor: None,
        limit: 3,
    };
    let mut seen = Vec::new();
    for number in 0..10 {
        stage.pay(number, 42).await;
        stage.clock.advance(Duration::seconds(20));
        filter.order = EventOrder::Forward {
            settled_before: stage.clock.now() - Duration::seconds(30),
        };
        let page = stage.store.list_events(&filter).await.unwrap();
        filter.cursor = page.data.last().map(|row| row.id.clone()).or(filter.cursor);
        seen.extend(
            page.data
                .into_iter()
                .map(|row| row.data["notification"]["body"]["id"].as_i64().unwrap()),
        );
    }
    assert_eq!(seen, (0..9).collect::<Vec<_>>());
}

async fn private_addresses_are_refused_where_they_are_not_allowed(stage: Stage) {
    let receiver = Receiver::start().await;
    let (endpoint, _) = stage.endpoint(&receiver, &[]).await;
    let strict = deliverer(&stage.store, &stage.clock, false);
    let shared: Arc<dyn Clock> = Arc::new(stage.clock.clone());
    let endpoints = Endpoints::new(stage.store.clone(), strict.clone(), shared, stage.random.clone());
    let new = NewEndpoint {
        application: default_application(),
        url: format!("https://{}/", receiver.address),
        event_types: None,
        description: None,
    };
    let refused = endpoints.create(new, Actor::operator()).await.unwrap_err();
    assert!(matches!(refused, EndpointError::Url(EndpointUrlError::NotPublic)));
    // One that was allowed before the setting changed.
    stage.pay(1, 42).await;
    assert_eq!(strict.step().await.unwrap(), 1);
    strict.idle().await;
    assert!(receiver.got().is_empty());
    let delivery = &stage.deliveries(None).await[0];
    assert!(
        delivery
            .last_error
            .as_deref()
            .unwrap()
            .contains("has to begin with https"),
        "{delivery:?}"
    );
    assert!(stage.find(&endpoint.id).await.failing_since.is_some());
}

async fn a_removed_endpoint_leaves_no_deliveries(stage: Stage) {
    let receiver = Receiver::start().await;
    let (endpoint, _) = stage.endpoint(&receiver, &[]).await;
    stage.pay(1, 42).await;
    let id = default_application();
    stage
        .endpoints
        .delete(&id, &endpoint.id, Actor::operator())
        .await
        .unwrap();
    stage.deliver().await;
    assert!(receiver.got().is_empty() && stage.deliveries(None).await.is_empty());
    let again = stage.endpoints.delete(&id, &endpoint.id, Actor::operator()).await;
    assert!(matches!(again, Err(EndpointError::NotFound)));
}
