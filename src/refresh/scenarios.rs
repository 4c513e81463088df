//! What the platform relies on when tokens are renewed, played on a real store, a real rescue folder and a token endpoint
//! that does what each test lays out. Time is moved, never slept.

use std::time::Duration as StdDuration;

use tempfile::TempDir;

use super::tests::tokens;
use super::*;
use crate::domain::clock::ManualClock;
use crate::domain::connection::{RefreshOutcome, Status, StatusReason};
use crate::domain::event::Actor;
use crate::domain::ids::{ApplicationId, ReplicaId, SellerId, UserId};
use crate::domain::schedule::RefreshSchedule;
use crate::domain::secret::{AccessToken, ClientSecret};
use crate::mercadopago::api::ProviderApi;
use crate::mercadopago::application::Application;
use crate::mercadopago::application::tests::application;
use crate::mercadopago::http_client;
use crate::mercadopago::peer::{Act, Peer, json};
use crate::mercadopago::token_endpoint::{KeepAnswer as _, RawAnswer};
use crate::rescue::Subject;
use crate::storage::{Admission, Claim, ClaimRequest, NewConnect};
use crate::vault::DataKey;

const REJECTED: &str =
    r#"{"message":"Error validating grant","error":"invalid_grant","status":400,"cause":[]}"#;

/// A token answer whose tokens are numbered.
fn granted(number: u32) -> String {
    format!(
        r#"{{"access_token":"APP_USR-{number}","user_id":7,"refresh_token":"TG-{number}","expires_in":15552000,"scope":"offline_access"}}"#
    )
}

fn grant(number: u32) -> Act {
    json(200, &granted(number))
}

fn refuse() -> Act {
    json(400, REJECTED)
}

/// One replica with its store, and the provider's token endpoint.
struct Scene {
    refresher: Refresher,
    store: Store,
    rescue: RescueDir,
    clock: ManualClock,
    peer: Peer,
    app: Application,
    folder: TempDir,
}

impl Scene {
    async fn with(acts: impl IntoIterator<Item = Act>, change: impl FnOnce(&mut Application)) -> Self {
        let (store, folder) = crate::storage::tests::temporary_store().await;
        let peer = Peer::playing(acts).await;
        let mut app = application(&peer.origin());
        change(&mut app);
        let clock = ManualClock::at(DateTime::UNIX_EPOCH);
        let rescue = RescueDir::open(&folder.path().join("rescue")).unwrap();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let refresher = Refresher::new(RefresherParts {
            store: store.clone(),
            endpoint: TokenEndpoint::new(
                http_client::build().unwrap(),
                Arc::clone(&shared),
                StdDuration::from_secs(10),
            ),
            applications: Applications::new(vec![app.clone()]),
            rescue: rescue.clone(),
            settings: RefreshSettings {
                schedule: RefreshSchedule::default(),
                poll_interval: StdDuration::from_secs(30),
                concurrency: 8,
                rate: "1000/s".parse().unwrap(),
                lease: StdDuration::from_mins(1),
                token_endpoint_timeout: StdDuration::from_secs(10),
                rescue_dir: folder.path().join("rescue"),
            },
            clock: shared,
            random: Random::system(),
            replica: Replica::new(DateTime::UNIX_EPOCH, StdDuration::from_mins(1), &Random::system()),
            tracker: TaskTracker::new(),
        });
        Self {
            refresher,
            store,
            rescue,
            clock,
            peer,
            app,
            folder,
        }
    }

    async fn playing(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::with(acts, |_| {}).await
    }

    /// Connects a seller with the tokens `APP_USR-1` and `TG-1`.
    async fn connect(&self, seller: &str, user: i64) -> ConnectionId {
        let now = self.clock.now();
        let tokens = crate::domain::connection::TokenSet {
            user_id: UserId(user),
            ..tokens(now)
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
        match admission {
            Admission::Connected(connection) => connection.id,
            other => panic!("{other:?}"),
        }
    }

    async fn open(&self, id: &ConnectionId) -> OpenConnection {
        self.store.open_connection_by_id(id).await.unwrap().unwrap()
    }

    async fn token(&self, id: &ConnectionId) -> String {
        self.open(id).await.access_token.unwrap().expose().to_owned()
    }

    async fn events(&self, seller: &str) -> Vec<String> {
        let seller: SellerId = seller.parse().unwrap();
        let events = self
            .store
            .list_events_of_seller(&self.app.id, &seller, 50)
            .await
            .unwrap();
        events.into_iter().rev().map(|event| event.event_type).collect()
    }

    async fn outcomes(&self, id: &ConnectionId) -> Vec<Option<RefreshOutcome>> {
        let attempts = self.store.list_refresh_attempts(id, 50).await.unwrap();
        attempts
            .into_iter()
            .rev()
            .map(|attempt| attempt.outcome)
            .collect()
    }

    fn advance(&self, by: TimeDelta) {
        self.clock.advance(by);
    }

    async fn claim(&self, id: &ConnectionId) -> Claim {
        let request = ClaimRequest {
            connection: id,
            spent_generation: None,
            trigger: Trigger::Schedule,
            owner: &ReplicaId::new(self.clock.now(), &Random::system()),
            lease: TimeDelta::minutes(1),
            client_id: &self.app.client_id,
            now: self.clock.now(),
        };
        self.store.claim_refresh(&request).await.unwrap()
    }

    async fn apply_rescued(&self) {
        for file in self.rescue.list_left().await.unwrap() {
            self.refresher.apply_rescued(file).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_due_is_renewed_and_nothing_else() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    scene.advance(TimeDelta::days(70));
    assert_eq!(
        scene.refresher.step().await.unwrap(),
        Step::Idle,
        "nothing is due before day 74"
    );
    scene.advance(TimeDelta::days(50));
    assert_eq!(scene.refresher.step().await.unwrap(), Step::Worked(1));
    let open = scene.open(&id).await;
    assert_eq!(open.access_token.unwrap().expose(), "APP_USR-2");
    assert_eq!(open.connection.generation, 2);
    assert_eq!(
        open.connection.access_token_expires_at,
        scene.clock.now() + TimeDelta::days(180)
    );
    assert_eq!(
        scene.events("seller-1").await,
        ["connection.connected", "connection.refreshed"]
    );
    assert_eq!(scene.outcomes(&id).await, [Some(RefreshOutcome::Succeeded)]);
    assert!(
        scene.rescue.list_left().await.unwrap().is_empty(),
        "a committed answer leaves no file"
    );
    assert!(scene.peer.requests()[0].contains(r#""refresh_token":"TG-1""#));
}

#[tokio::test]
async fn fifty_callers_on_an_expired_token_share_one_refresh() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    scene.advance(TimeDelta::days(181));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (refresher, id) = (scene.refresher.clone(), id.clone());
        callers.spawn(async move { refresher.refresh(&id, Some(1), Trigger::Expired).await });
    }
    for outcome in callers.join_all().await {
        assert_eq!(outcome.unwrap().access_token.unwrap().expose(), "APP_USR-2");
    }
    assert_eq!(scene.peer.requests().len(), 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_drops_no_answer() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    let flight = scene.refresher.refresh(&id, Some(1), Trigger::Expired);
    // The future is started and dropped at once.
    assert!(tokio::time::timeout(StdDuration::ZERO, flight).await.is_err());
    scene.refresher.0.tracker.close();
    scene.refresher.0.tracker.wait().await;
    assert_eq!(scene.token(&id).await, "APP_USR-2");
}

#[tokio::test]
async fn a_newer_generation_is_given_and_nothing_is_spent() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    scene
        .refresher
        .refresh(&id, Some(1), Trigger::Expired)
        .await
        .unwrap();
    let open = scene
        .refresher
        .refresh(&id, Some(1), Trigger::Expired)
        .await
        .unwrap();
    assert_eq!(open.access_token.unwrap().expose(), "APP_USR-2");
    assert_eq!(scene.peer.requests().len(), 1);
}

#[tokio::test]
async fn one_refusal_flags_nobody_and_a_second_after_a_minute_does() {
    let scene = Scene::playing([refuse(), refuse()]).await;
    let id = scene.connect("seller-1", 7).await;
    scene.advance(TimeDelta::days(120));
    scene.refresher.step().await.unwrap();
    assert_eq!(scene.open(&id).await.connection.status, Status::Active);
    assert_eq!(
        scene.refresher.step().await.unwrap(),
        Step::Idle,
        "it is not asked again at once"
    );
    scene.advance(TimeDelta::minutes(3));
    scene.refresher.step().await.unwrap();
    let open = scene.open(&id).await;
    assert_eq!(open.connection.status, Status::ReconnectRequired);
    assert_eq!(open.connection.status_reason, Some(StatusReason::GrantRejected));
    assert_eq!(
        open.access_token.unwrap().expose(),
        "APP_USR-1",
        "the old access token is served on"
    );
    assert!(open.connection.is_usable_at(scene.clock.now()));
    let told = scene.events("seller-1").await;
    assert_eq!(
        told,
        [
            "connection.connected",
            "connection.refresh_failing",
            "connection.reconnect_required"
        ]
    );
    scene.advance(TimeDelta::days(40));
    scene.refresher.step().await.unwrap();
    assert_eq!(
        scene.peer.requests().len(),
        2,
        "a connection that needs the seller spends nothing by itself"
    );
    let error = scene
        .refresher
        .refresh(&id, None, Trigger::Expired)
        .await
        .unwrap_err();
    assert!(matches!(error, RefreshError::ReconnectRequired { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_after_a_confirmed_401_ends_the_access_token_too() {
    let scene = Scene::playing([refuse()]).await;
    let id = scene.connect("seller-1", 7).await;
    let error = scene
        .refresher
        .refresh(&id, Some(1), Trigger::Unauthorized)
        .await
        .unwrap_err();
    assert!(matches!(error, RefreshError::ReconnectRequired { .. }), "{error}");
    let open = scene.open(&id).await;
    assert!(open.access_token.is_none() && !open.connection.is_usable_at(scene.clock.now()));
}

#[tokio::test]
async fn after_an_answer_that_was_cut_the_token_is_spent_once_more_after_ten_minutes_and_then_it_is_final() {
    let scene = Scene::playing([Act::Close, refuse()]).await;
    let id = scene.connect("seller-1", 7).await;
    scene.advance(TimeDelta::days(120));
    scene.refresher.step().await.unwrap();
    scene.advance(TimeDelta::minutes(9));
    let error = scene
        .refresher
        .refresh(&id, Some(1), Trigger::Manual)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RefreshError::TokenUnavailable {
                retry_after: Some(_),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(scene.peer.requests().len(), 1);
    scene.advance(TimeDelta::minutes(1));
    scene.refresher.step().await.unwrap();
    assert_eq!(
        scene.outcomes(&id).await,
        [Some(RefreshOutcome::Unknown), Some(RefreshOutcome::GrantRejected)]
    );
    assert_eq!(scene.open(&id).await.connection.status, Status::ReconnectRequired);
}

#[tokio::test]
async fn an_attempt_that_a_dead_replica_left_open_counts_as_unknown() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    scene.advance(TimeDelta::days(120));
    assert!(matches!(scene.claim(&id).await, Claim::Claimed(_)));
    assert!(
        matches!(scene.claim(&id).await, Claim::Busy(_)),
        "the lease keeps others out"
    );
    scene.advance(TimeDelta::minutes(2));
    scene.refresher.step().await.unwrap();
    assert_eq!(
        scene.peer.requests().len(),
        0,
        "the token may be spent: not at once"
    );
    scene.advance(TimeDelta::minutes(11));
    scene.refresher.step().await.unwrap();
    assert_eq!(
        scene.outcomes(&id).await,
        [Some(RefreshOutcome::Unknown), Some(RefreshOutcome::Succeeded)]
    );
    assert_eq!(scene.token(&id).await, "APP_USR-2");
}

#[tokio::test]
async fn the_providers_failures_flag_nobody_for_a_month_and_then_everything_goes_on() {
    let failures = std::iter::repeat_n(json(500, "{}"), 2000);
    let scene = Scene::playing(failures).await;
    let id = scene.connect("seller-1", 7).await;
    scene.advance(TimeDelta::days(120));
    for _ in 0..30 * 24 {
        scene.advance(TimeDelta::hours(1));
        scene.refresher.step().await.unwrap();
    }
    let open = scene.open(&id).await;
    assert_eq!(open.connection.status, Status::Active);
    assert!(
        open.connection.refresh_failures > 100,
        "{}",
        open.connection.refresh_failures
    );
    assert!(open.connection.is_usable_at(scene.clock.now()));
    let told = scene.events("seller-1").await;
    let count = |name: &str| told.iter().filter(|event| *event == name).count();
    assert_eq!(count("connection.refresh_failing"), 1);
    assert_eq!(
        count("connection.expiring"),
        1,
        "day 150 is 30 days before the end: {told:?}"
    );
    assert_eq!(count("connection.reconnect_required"), 0);
}

#[tokio::test]
async fn a_crowd_of_refusals_is_not_the_sellers_doing() {
    let acts = std::iter::repeat_n(refuse(), 12).chain((2..30).map(grant));
    let scene = Scene::playing(acts).await;
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(scene.connect(&format!("seller-{number}"), 100 + number).await);
    }
    scene.advance(TimeDelta::days(120));
    scene.refresher.step().await.unwrap();
    let suspended = scene.store.application_state(&scene.app.id).await.unwrap();
    assert_eq!(suspended.suspended_reason.as_deref(), Some("grants_rejected"));
    let asked = scene.peer.requests().len();
    assert!(
        (5..=12).contains(&asked),
        "those in the air when the fifth was refused may be refused too: {asked}"
    );
    for _ in 0..9 {
        scene.advance(TimeDelta::minutes(1));
        scene.refresher.step().await.unwrap();
    }
    assert_eq!(
        scene.peer.requests().len(),
        asked,
        "nobody is asked for while the application rests"
    );
    let error = scene
        .refresher
        .refresh(&ids[0], Some(1), Trigger::Expired)
        .await
        .unwrap_err();
    assert!(matches!(error, RefreshError::TokenUnavailable { .. }), "{error}");
    // The mend: one seller every ten minutes is tried, and the first success lets all go on.
    for _ in 0..60 {
        scene.advance(TimeDelta::minutes(10));
        scene.refresher.step().await.unwrap();
    }
    assert_eq!(
        scene
            .store
            .application_state(&scene.app.id)
            .await
            .unwrap()
            .suspended_at,
        None
    );
    for id in &ids {
        let connection = scene.open(id).await.connection;
        assert_eq!((connection.status, connection.generation), (Status::Active, 2));
    }
}

#[tokio::test]
async fn refused_credentials_stop_the_application_and_touch_no_seller() {
    let unknown_client = json(400, r#"{"error":"invalid_client","status":400}"#);
    let scene = Scene::playing([unknown_client]).await;
    let id = scene.connect("seller-1", 7).await;
    scene.advance(TimeDelta::days(120));
    scene.refresher.step().await.unwrap();
    let open = scene.open(&id).await;
    assert_eq!(
        (open.connection.status, open.connection.first_rejected_at),
        (Status::Active, None)
    );
    let state = scene.store.application_state(&scene.app.id).await.unwrap();
    assert_eq!(state.suspended_reason.as_deref(), Some("client_rejected"));
    scene.advance(TimeDelta::minutes(5));
    scene.refresher.step().await.unwrap();
    assert_eq!(
        scene.peer.requests().len(),
        1,
        "one seller every ten minutes is tried"
    );
}

#[tokio::test]
async fn the_previous_client_secret_is_tried_once() {
    let unknown_client = json(401, r#"{"error":"invalid_client","status":401}"#);
    let scene = Scene::with([unknown_client, grant(2)], |app| {
        app.client_secret_previous = Some(ClientSecret::new("previous"));
    })
    .await;
    let id = scene.connect("seller-1", 7).await;
    scene
        .refresher
        .refresh(&id, Some(1), Trigger::Manual)
        .await
        .unwrap();
    assert_eq!(scene.token(&id).await, "APP_USR-2");
    assert!(scene.peer.requests()[1].contains(r#""client_secret":"previous""#));
    assert_eq!(
        scene
            .store
            .application_state(&scene.app.id)
            .await
            .unwrap()
            .suspended_at,
        None
    );
}

#[tokio::test]
async fn tokens_of_another_client_id_are_not_spent() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    let mut other = scene.app.clone();
    other.client_id = "999".to_owned();
    let request = ClaimRequest {
        connection: &id,
        spent_generation: None,
        trigger: Trigger::Manual,
        owner: &ReplicaId::new(scene.clock.now(), &Random::system()),
        lease: TimeDelta::minutes(1),
        client_id: &other.client_id,
        now: scene.clock.now(),
    };
    assert!(matches!(
        scene.store.claim_refresh(&request).await.unwrap(),
        Claim::NotRefreshable(_)
    ));
    let connection = scene.open(&id).await.connection;
    assert_eq!(connection.status_reason, Some(StatusReason::ClientIdChanged));
    assert_eq!(connection.status, Status::Active, "a bad deploy flags nobody");
    scene.refresher.refresh(&id, None, Trigger::Manual).await.unwrap();
    assert_eq!(
        scene.open(&id).await.connection.status_reason,
        None,
        "the right client_id mends it"
    );
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let scene = Scene::playing([json(200, r#"{"access_token":"APP_USR-2","user_id":7}"#), grant(3)]).await;
    let id = scene.connect("seller-1", 7).await;
    scene.refresher.refresh(&id, None, Trigger::Manual).await.unwrap();
    scene.refresher.refresh(&id, None, Trigger::Manual).await.unwrap();
    assert!(scene.peer.requests()[1].contains(r#""refresh_token":"TG-1""#));
    assert_eq!(scene.token(&id).await, "APP_USR-3");
}

/// Leaves the rescue file of a process that died after the answer came and before it was stored.
async fn crash_with_answer(scene: &Scene, id: &ConnectionId, answer: &str) {
    let Claim::Claimed(claimed) = scene.claim(id).await else {
        panic!("not claimed")
    };
    let attempt = &claimed.attempt;
    let subject = Subject::refresh(&scene.app.id, id, &attempt.id, attempt.generation);
    let file = scene
        .rescue
        .create(subject, claimed.data_key.clone(), scene.app.id.clone())
        .await
        .unwrap();
    let answer = RawAnswer {
        status: 200,
        body: zeroize::Zeroizing::new(answer.as_bytes().to_vec()),
        received_at: scene.clock.now(),
        retry_after: None,
    };
    file.keep(&answer).await;
}

#[tokio::test]
async fn an_answer_that_only_the_rescue_file_holds_is_not_lost() {
    let scene = Scene::playing([]).await;
    let id = scene.connect("seller-1", 7).await;
    crash_with_answer(&scene, &id, &granted(2)).await;
    scene.apply_rescued().await;
    assert_eq!(scene.token(&id).await, "APP_USR-2");
    assert_eq!(scene.outcomes(&id).await, [Some(RefreshOutcome::Succeeded)]);
    assert!(scene.rescue.list_left().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_rescued_answer_brings_back_a_connection_that_needed_the_seller() {
    let scene = Scene::playing([refuse()]).await;
    let id = scene.connect("seller-1", 7).await;
    crash_with_answer(&scene, &id, &granted(2)).await;
    scene.advance(TimeDelta::minutes(2));
    // Another replica finds the attempt open, waits, spends the token once more, and is refused: final.
    scene
        .refresher
        .refresh(&id, None, Trigger::Manual)
        .await
        .unwrap_err();
    scene.advance(TimeDelta::minutes(11));
    scene
        .refresher
        .refresh(&id, None, Trigger::Manual)
        .await
        .unwrap_err();
    assert_eq!(scene.open(&id).await.connection.status, Status::ReconnectRequired);
    // Events of one instant have no order.
    scene.advance(TimeDelta::seconds(1));
    scene.apply_rescued().await;
    let open = scene.open(&id).await;
    assert_eq!(
        (open.connection.status, open.connection.status_reason),
        (Status::Active, None)
    );
    assert_eq!(
        open.access_token.as_ref().map(AccessToken::expose),
        Some("APP_USR-2")
    );
    assert_eq!(
        scene.events("seller-1").await.last().unwrap(),
        "connection.recovered"
    );
}

#[tokio::test]
async fn a_rescue_file_of_a_revoked_or_reconnected_connection_changes_nothing() {
    let scene = Scene::playing([]).await;
    let revoked = scene.connect("seller-1", 7).await;
    crash_with_answer(&scene, &revoked, &granted(2)).await;
    let seller = "seller-1".parse().unwrap();
    let now = scene.clock.now();
    scene
        .store
        .revoke_connection(
            &scene.app.id,
            &seller,
            StatusReason::RevokedByApi,
            None,
            Actor::system(),
            now,
        )
        .await
        .unwrap();
    scene.apply_rescued().await;
    let open = scene.open(&revoked).await;
    assert!(open.access_token.is_none());
    assert_eq!(open.connection.status, Status::Revoked);
    assert!(scene.rescue.list_left().await.unwrap().is_empty());

    let reconnected = scene.connect("seller-1", 7).await;
    assert_eq!(reconnected, revoked, "a seller keeps the row");
    assert_eq!(scene.token(&reconnected).await, "APP_USR-1");
    let audited = scene
        .store
        .list_audit(&crate::storage::AuditFilter {
            limit: 50,
            ..Default::default()
        })
        .await
        .unwrap();
    assert!(audited.data.iter().any(|row| row.action == "rescue.discarded"));
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_stays_in_its_rescue_file() {
    let scene = Scene::playing([json(200, r#"{"access_token":12345,"user_id":7}"#)]).await;
    let id = scene.connect("seller-1", 7).await;
    scene
        .refresher
        .refresh(&id, None, Trigger::Manual)
        .await
        .unwrap_err();
    assert_eq!(scene.outcomes(&id).await, [Some(RefreshOutcome::Unknown)]);
    scene.apply_rescued().await;
    let left = scene.rescue.list_left().await.unwrap();
    assert_eq!(left.len(), 1);
    let (_, key) = scene.store.find_for_rescue(&id).await.unwrap().unwrap();
    let answer = left[0]
        .open(&key.unwrap(), &ApplicationId::default_application())
        .unwrap()
        .unwrap();
    assert_eq!(*answer.body, br#"{"access_token":12345,"user_id":7}"#);
}

#[tokio::test]
async fn a_late_answer_cannot_bring_a_revoked_connection_back() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    let Claim::Claimed(claimed) = scene.claim(&id).await else {
        panic!("not claimed")
    };
    let seller = "seller-1".parse().unwrap();
    let now = scene.clock.now();
    scene
        .store
        .revoke_connection(
            &scene.app.id,
            &seller,
            StatusReason::RevokedByAdmin,
            None,
            Actor::system(),
            now,
        )
        .await
        .unwrap();
    let late = tokens(now);
    let succeeded = scene
        .refresher
        .0
        .success(&scene.app, &claimed.open.connection, &late, &claimed.data_key);
    let stored = scene
        .store
        .store_refreshed(&claimed.attempt.id, claimed.attempt.generation, &succeeded, now)
        .await;
    assert!(!stored.unwrap());
    let open = scene.open(&id).await;
    assert_eq!(open.connection.status, Status::Revoked);
    assert!(open.access_token.is_none());
    assert_eq!(scene.outcomes(&id).await, [Some(RefreshOutcome::Superseded)]);
    let error = scene
        .refresher
        .refresh(&id, None, Trigger::Manual)
        .await
        .unwrap_err();
    assert_eq!(error, RefreshError::Revoked);
    assert!(scene.peer.requests().is_empty());
}

#[tokio::test]
async fn a_full_disk_spends_nothing() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    std::fs::remove_dir_all(scene.folder.path().join("rescue")).unwrap();
    let error = scene
        .refresher
        .refresh(&id, None, Trigger::Manual)
        .await
        .unwrap_err();
    assert!(matches!(error, RefreshError::TokenUnavailable { .. }), "{error}");
    assert!(scene.peer.requests().is_empty());
    assert_eq!(scene.outcomes(&id).await, [Some(RefreshOutcome::Unavailable)]);
}

#[tokio::test]
async fn a_resting_endpoint_is_not_asked() {
    let throttled = json(429, r#"{"error":"local_rate_limited","status":429}"#);
    let failing = std::iter::repeat_n(json(503, "{}"), 4).chain([throttled]);
    let scene = Scene::playing(failing).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(scene.connect(&format!("seller-{number}"), 100 + number).await);
    }
    for id in &ids {
        let error = scene
            .refresher
            .refresh(id, None, Trigger::Manual)
            .await
            .unwrap_err();
        assert!(matches!(error, RefreshError::TokenUnavailable { .. }), "{error}");
    }
    assert_eq!(scene.peer.requests().len(), 5, "the sixth is not asked for");
}

#[tokio::test]
async fn what_another_replica_brought_is_given_while_the_endpoint_rests_here() {
    let throttled = json(429, r#"{"error":"local_rate_limited","status":429}"#);
    let scene = Scene::playing(std::iter::repeat_n(json(503, "{}"), 4).chain([throttled])).await;
    let id = scene.connect("seller-1", 7).await;
    for number in 0..5 {
        let other = scene.connect(&format!("other-{number}"), 100 + number).await;
        scene
            .refresher
            .refresh(&other, None, Trigger::Manual)
            .await
            .unwrap_err();
    }
    let Claim::Claimed(claimed) = scene.claim(&id).await else {
        panic!()
    };
    let brought = tokens(scene.clock.now());
    let succeeded =
        scene
            .refresher
            .0
            .success(&scene.app, &claimed.open.connection, &brought, &claimed.data_key);
    scene
        .store
        .store_refreshed(&claimed.attempt.id, 1, &succeeded, scene.clock.now())
        .await
        .unwrap();
    let open = scene
        .refresher
        .refresh(&id, Some(1), Trigger::Expired)
        .await
        .unwrap();
    assert_eq!(open.connection.generation, 2);
    assert_eq!(scene.peer.requests().len(), 5, "nothing more is asked for");
}

#[tokio::test]
async fn after_a_restore_only_dead_access_tokens_spend_their_refresh_token() {
    let users_me = json(200, r#"{"id":7}"#);
    let dead = json(401, "{}");
    let acts = [users_me, dead.clone(), grant(2), dead, refuse(), json(500, "{}")];
    let scene = Scene::playing(acts).await;
    let mut ids = Vec::new();
    for (seller, user) in [("alive", 6), ("dead", 7), ("lost", 8), ("undecided", 9)] {
        ids.push(scene.connect(seller, user).await);
    }
    scene.advance(TimeDelta::days(120));
    let now = scene.clock.now();
    let provider = ProviderApi::new(http_client::build().unwrap(), StdDuration::from_secs(10));
    let restored = scene.refresher.verify_restored(&provider).await.unwrap();
    let expected = Restored {
        alive: 1,
        renewed: 1,
        lost: 1,
        undecided: 1,
    };
    assert_eq!(restored, expected);
    let spent = |request: &String| request.contains("refresh_token");
    assert_eq!(
        scene
            .peer
            .requests()
            .iter()
            .filter(|request| spent(request))
            .count(),
        2
    );
    assert_eq!(scene.token(&ids[1]).await, "APP_USR-2");
    assert_eq!(
        scene.open(&ids[2]).await.connection.status,
        Status::ReconnectRequired
    );
    // What lives was due, and is put off within half of the 60 days that are left to it.
    for id in [&ids[0], &ids[3]] {
        let connection = scene.open(id).await.connection;
        let due = connection.refresh_due_at.unwrap();
        assert!(due >= now && due <= now + TimeDelta::days(30), "{due}");
        assert_eq!((connection.generation, connection.status), (1, Status::Active));
    }
}

#[tokio::test]
async fn after_a_restore_an_access_token_that_is_over_is_renewed_without_being_tried() {
    let scene = Scene::playing([grant(2)]).await;
    let id = scene.connect("seller-1", 7).await;
    scene.advance(TimeDelta::days(181));
    let provider = ProviderApi::new(http_client::build().unwrap(), StdDuration::from_secs(10));
    let restored = scene.refresher.verify_restored(&provider).await.unwrap();
    assert_eq!((restored.renewed, scene.peer.requests().len()), (1, 1));
    assert_eq!(scene.token(&id).await, "APP_USR-2");
}
