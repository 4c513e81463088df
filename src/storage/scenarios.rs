//! The store suite: what the rest relies on, one function per behaviour, each run on both engines. Where two replicas matter
//! there are two stores on one database, each with its own pool.

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::tests::{EmptyDatabase, Engine};
use super::*;
use crate::domain::connection::{
    Connection, OnAccountChange, RefreshOutcome, Status, StatusReason, TokenSet, Trigger,
};
use crate::domain::event::{Actor, AuditAction, EventType, NewAudit, NewEvent};
use crate::domain::ids::{
    AdminId, ApiKeyId, ApplicationId, AuthorizationRequestId, ConnectLinkId, ConnectionId, ReplicaId,
    SellerId, UserId,
};
use crate::domain::schedule::RefreshSchedule;
use crate::domain::secret::{AccessToken, ApiKeySecret, CodeVerifier, RefreshToken, SessionToken};
use crate::vault::DataKey;

/// Runs each behaviour on each engine.
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
    replicas_that_start_together_migrate_once,
    one_account_serves_one_seller_whoever_comes_first,
    one_seller_connects_twice_at_once_and_has_one_connection,
    another_account_needs_the_links_permission,
    an_import_does_not_replace_a_connection_but_follows_a_revoke,
    a_state_is_consumed_once_by_a_hundred_parallel_callbacks,
    a_state_of_another_browser_is_not_consumed,
    a_refused_consent_is_forgotten,
    a_link_is_used_up_with_the_connection,
    of_many_parallel_claims_one_gets_the_token,
    a_claim_waits_for_no_more_than_the_change_that_locks_the_row,
    a_lease_that_ended_leaves_an_outcome_unknown,
    the_second_spend_after_an_unknown_outcome_waits,
    another_client_id_spends_nothing,
    an_answer_for_an_older_generation_is_not_stored,
    a_failure_is_never_written_over_a_newer_generation,
    a_late_failure_of_an_attempt_that_was_given_up_changes_nothing,
    a_revoke_destroys_key_and_tokens_and_stays,
    two_revokes_tell_it_once,
    a_refresh_leaves_the_metadata_alone,
    parallel_changes_of_metadata_are_all_kept,
    a_change_that_fails_leaves_neither_event_nor_audit_row,
    pages_hold_every_connection_once,
    a_search_takes_wildcards_as_they_are,
    the_overview_counts,
    the_audit_log_pages_backwards_by_filter,
    failed_sign_ins_are_counted_per_window_by_all_replicas,
    a_session_ends_by_age_idleness_removal_and_new_password,
    an_api_key_is_found_until_it_is_revoked_on_every_replica,
    one_replica_takes_the_turn_to_probe,
    warnings_are_told_once,
    a_rotation_leaves_nothing_under_the_old_key_and_may_be_broken_off,
    a_rotation_does_not_undo_what_happens_meanwhile,
    a_key_that_rows_still_need_cannot_be_left_out,
    a_replica_is_live_until_it_leaves_or_falls_silent,
}

/// A database with a store on it.
struct Stage {
    database: EmptyDatabase,
    store: Store,
    random: Random,
}

fn start() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::days(20_000)
}

fn application() -> ApplicationId {
    ApplicationId::default_application()
}

fn seller(name: &str) -> SellerId {
    name.parse().unwrap()
}

fn tokens_of(user: i64, number: u32) -> TokenSet {
    TokenSet {
        access_token: AccessToken::new(format!("APP_USR-{number}")),
        refresh_token: Some(RefreshToken::new(format!("TG-{number}"))),
        obtained_at: start(),
        expires_at: start() + Duration::days(180),
        scopes: vec!["offline_access".to_owned(), "read".to_owned()],
        public_key: Some("APP_USR-public".to_owned()),
        live_mode: Some(true),
        user_id: UserId(user),
    }
}

/// A consent of a seller with an account.
struct Consent {
    authorization: ConsumedAuthorization,
    policy: OnAccountChange,
}

impl Stage {
    async fn on(engine: Engine) -> Option<Self> {
        let database = EmptyDatabase::on(engine)?;
        let store = database.migrated().await;
        Some(Self {
            database,
            store,
            random: Random::system(),
        })
    }

    /// Two replicas: this store and one more.
    async fn replicas(&self) -> [Store; 2] {
        [self.store.clone(), self.database.migrated().await]
    }

    /// Brings a token set as an import, or with a consent.
    async fn admit_to(
        store: &Store,
        name: &str,
        tokens: &TokenSet,
        consent: Option<&Consent>,
        metadata: Option<&Value>,
    ) -> Result<Admission, StoreError> {
        store
            .admit(&NewConnect {
                application: &application(),
                client_id: "1234567890123456",
                application_public_key: None,
                seller_id: &seller(name),
                tokens,
                data_key: &DataKey::generate(),
                metadata,
                consent: consent.map(|consent| (&consent.authorization, consent.policy)),
                schedule: &RefreshSchedule::default(),
                actor: Actor::system(),
                now: start(),
            })
            .await
    }

    async fn connect(&self, name: &str, user: i64) -> Connection {
        match Self::admit_to(&self.store, name, &tokens_of(user, 1), None, None)
            .await
            .unwrap()
        {
            Admission::Connected(connection) => *connection,
            other => panic!("{other:?}"),
        }
    }

    async fn link(&self, name: &str) -> ConnectLink {
        let link = ConnectLink {
            id: ConnectLinkId::new(start(), &self.random),
            application: application(),
            seller_id: seller(name),
            return_url: Some("https://shop.example/done".to_owned()),
            locale: Some("pt".to_owned()),
            metadata: Some(json!({ "shop": 1 })),
            on_account_change: OnAccountChange::Refuse,
            created_at: start(),
            expires_at: start() + Duration::days(1),
            used_at: None,
        };
        let token_hash = self.random.bytes();
        let new = NewConnectLink {
            link: link.clone(),
            token_hash,
        };
        self.store
            .create_connect_link(&new, Actor::operator())
            .await
            .unwrap();
        assert_eq!(
            self.store.find_connect_link(token_hash).await.unwrap().unwrap(),
            link
        );
        link
    }

    /// An authorization request of this state and browser, begun from a link.
    async fn request(
        &self,
        link: &ConnectLink,
        state: [u8; 32],
        browser: [u8; 32],
    ) -> AuthorizationRequestId {
        let id = AuthorizationRequestId::new(start(), &self.random);
        self.store
            .create_authorization_request(&NewAuthorizationRequest {
                id: &id,
                link,
                state_hash: state,
                browser_hash: browser,
                verifier: &CodeVerifier::new("the-verifier"),
                now: start(),
                expires_at: start() + Duration::minutes(10),
            })
            .await
            .unwrap();
        id
    }

    async fn consent(&self, name: &str, policy: OnAccountChange) -> Consent {
        let link = self.link(name).await;
        let (state, browser) = (self.random.bytes(), self.random.bytes());
        self.request(&link, state, browser).await;
        let consumed = self
            .store
            .consume_authorization_request(state, browser, start())
            .await;
        Consent {
            authorization: consumed.unwrap().unwrap(),
            policy,
        }
    }

    async fn claim_at(store: &Store, id: &ConnectionId, now: DateTime<Utc>, trigger: Trigger) -> Claim {
        let owner = ReplicaId::new(now, &Random::system());
        let request = ClaimRequest {
            connection: id,
            spent_generation: None,
            trigger,
            owner: &owner,
            lease: Duration::minutes(1),
            client_id: "1234567890123456",
            now,
        };
        store.claim_refresh(&request).await.unwrap()
    }

    async fn claimed(&self, id: &ConnectionId) -> ClaimedRefresh {
        match Self::claim_at(&self.store, id, start(), Trigger::Schedule).await {
            Claim::Claimed(claimed) => *claimed,
            other => panic!("{other:?}"),
        }
    }

    async fn store_answer(&self, claimed: &ClaimedRefresh, tokens: &TokenSet) -> bool {
        let before = &claimed.open.connection;
        let next = before.clone().refreshed(tokens, &RefreshSchedule::default());
        let succeeded = SucceededRefresh {
            event: self.event(EventType::Refreshed, &next),
            audit: audit(AuditAction::ConnectionRefreshed, &next.seller_id),
            next,
            tokens,
            data_key: &claimed.data_key,
        };
        self.store
            .store_refreshed(
                &claimed.attempt.id,
                claimed.attempt.generation,
                &succeeded,
                start(),
            )
            .await
            .unwrap()
    }

    fn event(&self, event_type: EventType, connection: &Connection) -> NewEvent {
        let view = connection.view_at(start(), None);
        NewEvent::about_connection(
            event_type,
            &connection.application,
            &connection.seller_id,
            &view,
            start(),
            &self.random,
        )
    }

    async fn events(&self, name: &str) -> Vec<String> {
        let events = self
            .store
            .list_events_of_seller(&application(), &seller(name), 50)
            .await
            .unwrap();
        let mut types: Vec<_> = events.into_iter().map(|event| event.event_type).collect();
        types.sort();
        types
    }

    async fn audited(&self, name: &str) -> Vec<String> {
        let filter = AuditFilter {
            target: Some(name.to_owned()),
            limit: 50,
            ..AuditFilter::default()
        };
        let page = self.store.list_audit(&filter).await.unwrap();
        let mut actions: Vec<_> = page.data.into_iter().map(|row| row.action).collect();
        actions.sort();
        actions
    }

    async fn find(&self, name: &str) -> Option<Connection> {
        self.store
            .find_connection(&application(), &seller(name))
            .await
            .unwrap()
    }

    async fn token(&self, name: &str) -> Option<String> {
        let open = self
            .store
            .open_connection(&application(), &seller(name))
            .await
            .unwrap()
            .unwrap();
        open.access_token.map(|token| token.expose().to_owned())
    }

    async fn revoke(store: &Store, name: &str) -> Connection {
        let (application, seller) = (application(), seller(name));
        let reason = StatusReason::RevokedByApi;
        store
            .revoke_connection(&application, &seller, reason, None, Actor::operator(), start())
            .await
            .unwrap()
            .unwrap()
    }
}

fn audit(action: AuditAction, target: &SellerId) -> NewAudit {
    NewAudit {
        actor: Actor::system(),
        action,
        application: Some(application()),
        target: Some(target.to_string()),
        at: start(),
        detail: json!({}),
    }
}

/// Runs `work` for each of `count` callers at the same moment, on alternating replicas.
async fn all_at_once<F, T>(replicas: &[Store; 2], count: usize, work: impl Fn(Store, usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let barrier = Arc::new(Barrier::new(count));
    let mut callers = JoinSet::new();
    for n in 0..count {
        let (barrier, work) = (Arc::clone(&barrier), work(replicas[n % 2].clone(), n));
        callers.spawn(async move {
            barrier.wait().await;
            work.await
        });
    }
    callers.join_all().await
}

async fn replicas_that_start_together_migrate_once(stage: Stage) {
    let empty = match &stage.database.url {
        DatabaseUrl::Sqlite(_) => EmptyDatabase::on(Engine::Sqlite),
        DatabaseUrl::Postgres(_) => EmptyDatabase::on(Engine::Postgres),
    };
    let empty = empty.unwrap();
    let mut starting = JoinSet::new();
    for _ in 0..4 {
        let store = empty
            .store("k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
            .await;
        starting.spawn(async move {
            store.migrate().await?;
            store.check_keys(start()).await
        });
    }
    for started in starting.join_all().await {
        started.unwrap();
    }
}

async fn one_account_serves_one_seller_whoever_comes_first(stage: Stage) {
    for round in 0..5 {
        let admitted = all_at_once(&stage.replicas().await, 8, |store, n| async move {
            Stage::admit_to(
                &store,
                &format!("seller-{round}-{n}"),
                &tokens_of(round, 1),
                None,
                None,
            )
            .await
            .unwrap()
        })
        .await;
        let (connected, refused): (Vec<_>, Vec<_>) = admitted
            .iter()
            .partition(|one| matches!(one, Admission::Connected(_)));
        assert_eq!(connected.len(), 1, "{admitted:?}");
        assert!(
            refused.iter().all(|one| matches!(one, Admission::AccountInUse)),
            "{admitted:?}"
        );
    }
}

async fn one_seller_connects_twice_at_once_and_has_one_connection(stage: Stage) {
    let consents = [
        stage.consent("seller-1", OnAccountChange::Refuse).await,
        stage.consent("seller-1", OnAccountChange::Refuse).await,
    ];
    let consents = Arc::new(consents);
    let admitted = all_at_once(&stage.replicas().await, 2, |store, n| {
        let consents = Arc::clone(&consents);
        async move {
            Stage::admit_to(&store, "seller-1", &tokens_of(7, 1), Some(&consents[n]), None)
                .await
                .unwrap()
        }
    })
    .await;
    assert!(
        admitted.iter().all(|one| matches!(one, Admission::Connected(_))),
        "{admitted:?}"
    );
    assert_eq!(stage.find("seller-1").await.unwrap().generation, 2);
    assert_eq!(
        stage.events("seller-1").await,
        ["connection.connected", "connection.reconnected"]
    );
}

async fn another_account_needs_the_links_permission(stage: Stage) {
    stage.connect("seller-1", 7).await;
    let refusing = stage.consent("seller-1", OnAccountChange::Refuse).await;
    let admitted = Stage::admit_to(&stage.store, "seller-1", &tokens_of(8, 2), Some(&refusing), None).await;
    assert_eq!(admitted.unwrap(), Admission::AccountMismatch);
    assert_eq!(stage.token("seller-1").await.as_deref(), Some("APP_USR-1"));
    let replacing = stage.consent("seller-1", OnAccountChange::Replace).await;
    let admitted = Stage::admit_to(&stage.store, "seller-1", &tokens_of(8, 2), Some(&replacing), None).await;
    assert!(matches!(admitted.unwrap(), Admission::Connected(_)));
    assert_eq!(stage.find("seller-1").await.unwrap().user_id, UserId(8));
    assert_eq!(stage.token("seller-1").await.as_deref(), Some("APP_USR-2"));
    // The account that was replaced may serve another seller now.
    stage.connect("seller-2", 7).await;
}

async fn an_import_does_not_replace_a_connection_but_follows_a_revoke(stage: Stage) {
    let first = stage.connect("seller-1", 7).await;
    let again = Stage::admit_to(&stage.store, "seller-1", &tokens_of(7, 2), None, None).await;
    assert_eq!(again.unwrap(), Admission::SellerConnected);
    Stage::revoke(&stage.store, "seller-1").await;
    let again = stage.connect("seller-1", 7).await;
    assert_eq!(again.id, first.id);
    assert_eq!(again.generation, 3, "connected, revoked, connected");
}

async fn a_state_is_consumed_once_by_a_hundred_parallel_callbacks(stage: Stage) {
    let link = stage.link("seller-1").await;
    let (state_hash, browser_hash) = ([1; 32], [2; 32]);
    stage.request(&link, state_hash, browser_hash).await;
    let consumed = all_at_once(&stage.replicas().await, 100, |store, _| async move {
        store
            .consume_authorization_request(state_hash, browser_hash, start())
            .await
            .unwrap()
    })
    .await;
    let mut got = consumed.into_iter().flatten();
    let one = got.next().unwrap();
    assert_eq!(one.verifier.unwrap().expose(), "the-verifier");
    assert!(got.next().is_none());
    // What comes back after a crash has no verifier any more: the code cannot be exchanged twice.
    let found = stage
        .store
        .find_consumed_authorization(&one.id)
        .await
        .unwrap()
        .unwrap();
    assert!(found.verifier.is_none());
}

async fn a_state_of_another_browser_is_not_consumed(stage: Stage) {
    let link = stage.link("seller-1").await;
    stage.request(&link, [1; 32], [2; 32]).await;
    let consume = |browser, now| stage.store.consume_authorization_request([1; 32], browser, now);
    assert!(consume([3; 32], start()).await.unwrap().is_none());
    assert!(
        consume([2; 32], start() + Duration::minutes(11))
            .await
            .unwrap()
            .is_none(),
        "expired"
    );
    assert!(consume([2; 32], start()).await.unwrap().is_some());
}

async fn a_refused_consent_is_forgotten(stage: Stage) {
    stage.connect("seller-1", 7).await;
    let consent = stage.consent("seller-2", OnAccountChange::Refuse).await;
    let admitted = Stage::admit_to(&stage.store, "seller-2", &tokens_of(7, 2), Some(&consent), None).await;
    assert_eq!(admitted.unwrap(), Admission::AccountInUse);
    let found = stage
        .store
        .find_consumed_authorization(&consent.authorization.id)
        .await
        .unwrap();
    assert!(found.is_none(), "its data key went with it");
    assert!(stage.find("seller-2").await.is_none());
}

async fn a_link_is_used_up_with_the_connection(stage: Stage) {
    let consent = Arc::new(stage.consent("seller-1", OnAccountChange::Refuse).await);
    let admitted = all_at_once(&stage.replicas().await, 4, |store, _| {
        let consent = Arc::clone(&consent);
        async move {
            let metadata = json!({ "shop": 1 });
            Stage::admit_to(
                &store,
                "seller-1",
                &tokens_of(7, 1),
                Some(&consent),
                Some(&metadata),
            )
            .await
            .unwrap()
        }
    })
    .await;
    let connected = admitted
        .iter()
        .filter(|one| matches!(one, Admission::Connected(_)));
    assert_eq!(connected.count(), 1, "{admitted:?}");
    let others = admitted
        .iter()
        .filter(|one| matches!(one, Admission::AlreadyCompleted));
    assert_eq!(others.count(), 3, "{admitted:?}");
    assert_eq!(
        stage.find("seller-1").await.unwrap().metadata,
        json!({ "shop": 1 })
    );
    assert_eq!(stage.events("seller-1").await, ["connection.connected"]);
    assert_eq!(
        stage.audited("seller-1").await,
        ["connect_link.created", "connection.connected"]
    );
}

async fn of_many_parallel_claims_one_gets_the_token(stage: Stage) {
    let replicas = stage.replicas().await;
    for n in 0..5 {
        let id = stage.connect(&format!("seller-{n}"), n).await.id;
        let claims = all_at_once(&replicas, 32, |store, _| {
            let id = id.clone();
            async move { Stage::claim_at(&store, &id, start(), Trigger::Expired).await }
        })
        .await;
        let claimed = claims.iter().filter(|claim| matches!(claim, Claim::Claimed(_)));
        assert_eq!(claimed.count(), 1, "{claims:?}");
        let busy = claims.iter().filter(|claim| matches!(claim, Claim::Busy(_)));
        assert_eq!(busy.count(), 31, "{claims:?}");
        assert_eq!(stage.store.list_refresh_attempts(&id, 50).await.unwrap().len(), 1);
    }
}

async fn a_claim_waits_for_no_more_than_the_change_that_locks_the_row(stage: Stage) {
    let DatabaseUrl::Postgres(_) = &stage.database.url else {
        return; // On SQLite a claim waits for the writer instead.
    };
    let connection = stage.connect("seller-1", 7).await;
    let mut tx = stage.store.database.begin().await.unwrap();
    let row = connections::find_row_within(&mut tx, &application(), &connection.seller_id).await;
    assert!(row.unwrap().is_some());
    let claim = Stage::claim_at(&stage.store, &connection.id, start(), Trigger::Expired).await;
    let Claim::Busy(until) = claim else {
        panic!("{claim:?}")
    };
    assert!(
        until - start() < Duration::seconds(1),
        "no lease is held, so none is waited for"
    );
    // Not dropped: a transaction that is dropped is undone some time later.
    tx.commit().await.unwrap();
    stage.claimed(&connection.id).await;
}

async fn a_lease_that_ended_leaves_an_outcome_unknown(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    stage.claimed(&id).await;
    let later = start() + Duration::seconds(61);
    let claim = Stage::claim_at(&stage.store, &id, later, Trigger::Schedule).await;
    let Claim::Deferred(until) = claim else {
        panic!("{claim:?}")
    };
    assert_eq!(until, later + Duration::minutes(10));
    let found = stage.find("seller-1").await.unwrap();
    assert!(found.outcome_unknown && found.refresh_failures == 1);
    assert_eq!(found.refresh_due_at, Some(until));
    let attempts = stage.store.list_refresh_attempts(&id, 50).await.unwrap();
    assert_eq!(attempts[0].outcome, Some(RefreshOutcome::Unknown));
    assert_eq!(attempts.len(), 1, "nothing was spent");
}

async fn the_second_spend_after_an_unknown_outcome_waits(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    stage.claimed(&id).await;
    let abandoned = start() + Duration::seconds(61);
    Stage::claim_at(&stage.store, &id, abandoned, Trigger::Manual).await;
    let early = Stage::claim_at(
        &stage.store,
        &id,
        abandoned + Duration::minutes(9),
        Trigger::Manual,
    )
    .await;
    assert!(
        matches!(early, Claim::Deferred(until) if until == abandoned + Duration::minutes(10)),
        "{early:?}"
    );
    let then = Stage::claim_at(
        &stage.store,
        &id,
        abandoned + Duration::minutes(10),
        Trigger::Manual,
    )
    .await;
    let Claim::Claimed(claimed) = then else {
        panic!("{then:?}")
    };
    assert!(claimed.attempt.after_unknown);
    assert_eq!(claimed.refresh_token.expose(), "TG-1");
}

async fn another_client_id_spends_nothing(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    let owner = ReplicaId::new(start(), &stage.random);
    let request = ClaimRequest {
        connection: &id,
        spent_generation: None,
        trigger: Trigger::Schedule,
        owner: &owner,
        lease: Duration::minutes(1),
        client_id: "6543210987654321",
        now: start(),
    };
    let claim = stage.store.claim_refresh(&request).await.unwrap();
    assert!(matches!(claim, Claim::NotRefreshable(_)), "{claim:?}");
    let found = stage.find("seller-1").await.unwrap();
    assert_eq!(found.status, Status::Active);
    assert_eq!(found.status_reason, Some(StatusReason::ClientIdChanged));
    assert!(
        stage
            .store
            .list_refresh_attempts(&id, 50)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn an_answer_for_an_older_generation_is_not_stored(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    let claimed = stage.claimed(&id).await;
    Stage::revoke(&stage.store, "seller-1").await;
    assert!(!stage.store_answer(&claimed, &tokens_of(7, 2)).await);
    let found = stage.find("seller-1").await.unwrap();
    assert_eq!((found.status, found.generation), (Status::Revoked, 2));
    assert_eq!(stage.token("seller-1").await, None);
    assert_eq!(
        stage.events("seller-1").await,
        ["connection.connected", "connection.revoked"]
    );
    let attempts = stage.store.list_refresh_attempts(&id, 50).await.unwrap();
    assert_eq!(attempts[0].outcome, Some(RefreshOutcome::Superseded));
}

async fn a_failure_is_never_written_over_a_newer_generation(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    let late = stage.claimed(&id).await;
    let consent = stage.consent("seller-1", OnAccountChange::Refuse).await;
    Stage::admit_to(&stage.store, "seller-1", &tokens_of(7, 2), Some(&consent), None)
        .await
        .unwrap();
    let next = late.open.connection.clone().reconnect_required(true, start());
    let failed = FailedRefresh {
        outcome: RefreshOutcome::GrantRejected,
        http_status: Some(400),
        error: Some("invalid_grant".to_owned()),
        events: vec![stage.event(EventType::ReconnectRequired, &next)],
        audit: Some(audit(AuditAction::ConnectionReconnectRequired, &next.seller_id)),
        next,
    };
    assert!(
        !stage
            .store
            .store_failed(&late.attempt, &failed, start())
            .await
            .unwrap()
    );
    assert_eq!(stage.find("seller-1").await.unwrap().status, Status::Active);
    assert_eq!(stage.token("seller-1").await.as_deref(), Some("APP_USR-2"));
    assert_eq!(
        stage.events("seller-1").await,
        ["connection.connected", "connection.reconnected"]
    );
    let attempts = stage.store.list_refresh_attempts(&id, 50).await.unwrap();
    assert_eq!(
        attempts[0].outcome,
        Some(RefreshOutcome::GrantRejected),
        "what happened is kept all the same"
    );
}

async fn a_late_failure_of_an_attempt_that_was_given_up_changes_nothing(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    let paused = stage.claimed(&id).await;
    let lease_over = start() + Duration::seconds(61);
    Stage::claim_at(&stage.store, &id, lease_over, Trigger::Schedule).await;
    let second_spend = lease_over + Duration::minutes(10);
    let claim = Stage::claim_at(&stage.store, &id, second_spend, Trigger::Schedule).await;
    assert!(matches!(claim, Claim::Claimed(_)), "{claim:?}");
    let before = stage.find("seller-1").await.unwrap();
    let failed = FailedRefresh {
        outcome: RefreshOutcome::Unavailable,
        http_status: None,
        error: None,
        next: paused
            .open
            .connection
            .clone()
            .refresh_failed(second_spend, second_spend),
        events: Vec::new(),
        audit: None,
    };
    assert!(
        !stage
            .store
            .store_failed(&paused.attempt, &failed, second_spend)
            .await
            .unwrap()
    );
    assert_eq!(
        stage.find("seller-1").await.unwrap(),
        before,
        "still of unknown outcome"
    );
    let third = Stage::claim_at(&stage.store, &id, second_spend, Trigger::Manual).await;
    assert!(matches!(third, Claim::Busy(_)), "and still claimed: {third:?}");
}

async fn a_revoke_destroys_key_and_tokens_and_stays(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    assert_eq!(stage.store.data_keys_by_key().await.unwrap().len(), 1);
    Stage::revoke(&stage.store, "seller-1").await;
    assert!(
        stage.store.data_keys_by_key().await.unwrap().is_empty(),
        "no data key is left"
    );
    let sql = "SELECT id FROM connections WHERE data_key IS NOT NULL OR access_token IS NOT NULL OR refresh_token IS NOT NULL";
    let left: Vec<String> = dispatch::read!(&stage.store.database, |c| sqlx::query_scalar(sql)
        .fetch_all(c)
        .await
        .unwrap());
    assert!(left.is_empty());
    let claim = Stage::claim_at(&stage.store, &id, start(), Trigger::Manual).await;
    assert!(matches!(claim, Claim::NotRefreshable(_)), "{claim:?}");
    let (_, key) = stage.store.find_for_rescue(&id).await.unwrap().unwrap();
    assert!(key.is_none(), "a rescue file of it cannot be read any more");
}

async fn two_revokes_tell_it_once(stage: Stage) {
    stage.connect("seller-1", 7).await;
    let revoked = all_at_once(&stage.replicas().await, 8, |store, _| async move {
        Stage::revoke(&store, "seller-1").await
    })
    .await;
    assert!(
        revoked
            .iter()
            .all(|one| one.status == Status::Revoked && one.generation == 2)
    );
    assert_eq!(
        stage.events("seller-1").await,
        ["connection.connected", "connection.revoked"]
    );
    assert_eq!(
        stage.audited("seller-1").await,
        ["connection.imported", "connection.revoked"]
    );
}

async fn a_refresh_leaves_the_metadata_alone(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    let claimed = stage.claimed(&id).await;
    let (application, seller) = (application(), seller("seller-1"));
    let changed = stage
        .store
        .change_metadata(
            &application,
            &seller,
            |_| json!({ "plan": "gold" }),
            Actor::operator(),
            start(),
        )
        .await
        .unwrap();
    assert_eq!(changed.unwrap().metadata, json!({ "plan": "gold" }));
    assert!(
        stage.store_answer(&claimed, &tokens_of(7, 2)).await,
        "metadata does not raise the generation"
    );
    let found = stage.find("seller-1").await.unwrap();
    assert_eq!((found.metadata, found.generation), (json!({ "plan": "gold" }), 2));
    // A reconnect that brings none leaves it as well.
    let consent = stage.consent("seller-1", OnAccountChange::Refuse).await;
    Stage::admit_to(&stage.store, "seller-1", &tokens_of(7, 3), Some(&consent), None)
        .await
        .unwrap();
    assert_eq!(
        stage.find("seller-1").await.unwrap().metadata,
        json!({ "plan": "gold" })
    );
}

async fn parallel_changes_of_metadata_are_all_kept(stage: Stage) {
    stage.connect("seller-1", 7).await;
    all_at_once(&stage.replicas().await, 16, |store, n| async move {
        let add = move |mut metadata: Value| {
            metadata[format!("member-{n}")] = json!(n);
            metadata
        };
        store
            .change_metadata(
                &application(),
                &seller("seller-1"),
                add,
                Actor::operator(),
                start(),
            )
            .await
            .unwrap()
            .unwrap()
    })
    .await;
    let metadata = stage.find("seller-1").await.unwrap().metadata;
    assert_eq!(metadata.as_object().unwrap().len(), 16, "{metadata}");
}

async fn a_change_that_fails_leaves_neither_event_nor_audit_row(stage: Stage) {
    let id = stage.connect("seller-1", 7).await.id;
    let claimed = stage.claimed(&id).await;
    let tokens = tokens_of(7, 2);
    let next = claimed
        .open
        .connection
        .clone()
        .refreshed(&tokens, &RefreshSchedule::default());
    let event = stage.event(EventType::Refreshed, &next);
    let mut tx = stage.store.database.begin().await.unwrap();
    events::insert_event(&mut tx, &event).await.unwrap();
    tx.commit().await.unwrap();
    // Its event cannot be written a second time, so nothing of the refresh may be there.
    let succeeded = SucceededRefresh {
        event,
        audit: audit(AuditAction::ConnectionRefreshed, &next.seller_id),
        next,
        tokens: &tokens,
        data_key: &claimed.data_key,
    };
    let stored = stage
        .store
        .store_refreshed(
            &claimed.attempt.id,
            claimed.attempt.generation,
            &succeeded,
            start(),
        )
        .await;
    assert!(matches!(stored, Err(StoreError::Conflict)), "{stored:?}");
    let found = stage.find("seller-1").await.unwrap();
    assert_eq!(found.generation, 1);
    assert_eq!(stage.token("seller-1").await.as_deref(), Some("APP_USR-1"));
    assert_eq!(stage.audited("seller-1").await, ["connection.imported"]);
    assert!(
        stage.store.list_refresh_attempts(&id, 1).await.unwrap()[0]
            .outcome
            .is_none()
    );
}

async fn pages_hold_every_connection_once(stage: Stage) {
    // In the order of bytes, which is not that of any language.
    let mut names = ["a", "B", "b", "a-1", "a.1", "a_1", "A:1", "Z", "10", "9"];
    for (user, name) in (1..).zip(names) {
        stage.connect(name, user).await;
    }
    Stage::revoke(&stage.store, "Z").await;
    names.sort_unstable();
    let mut filter = ConnectionFilter {
        application: Some(application()),
        limit: 3,
        ..Default::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = stage.store.list_connections(&filter).await.unwrap();
        assert!(page.data.len() <= 3);
        let last = page.data.last().unwrap();
        filter.after = Some((last.seller_id.to_string(), last.application.to_string()));
        seen.extend(page.data.iter().map(|one| one.seller_id.to_string()));
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seen, names);
    let by = async |filter: ConnectionFilter| {
        let page = stage
            .store
            .list_connections(&ConnectionFilter { limit: 50, ..filter })
            .await;
        page.unwrap().data.len()
    };
    let revoked = ConnectionFilter {
        status: Some(Status::Revoked),
        ..Default::default()
    };
    assert_eq!(by(revoked).await, 1);
    let ending = |days| ConnectionFilter {
        expiring_before: Some(start() + Duration::days(days)),
        ..Default::default()
    };
    assert_eq!(
        (by(ending(180)).await, by(ending(181)).await),
        (0, 9),
        "a revoked one does not expire"
    );
    let other = ConnectionFilter {
        application: Some("other".parse().unwrap()),
        ..Default::default()
    };
    assert_eq!(by(other).await, 0);
}

async fn a_search_takes_wildcards_as_they_are(stage: Stage) {
    for (user, name) in [(41, "a_b"), (42, "axb"), (431, "a.b")] {
        stage.connect(name, user).await;
    }
    let search = async |q: &str| {
        let filter = ConnectionFilter {
            q: Some(q.to_owned()),
            limit: 50,
            ..Default::default()
        };
        let page = stage.store.list_connections(&filter).await.unwrap();
        page.data
            .into_iter()
            .map(|one| one.seller_id.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(search("a_b").await, ["a_b"]);
    assert_eq!(search("43").await, ["a.b"], "part of the account's number");
    for nothing in ["%", "!", "a!_b", "_b%", "'"] {
        assert!(search(nothing).await.is_empty(), "{nothing}");
    }
}

async fn the_overview_counts(stage: Stage) {
    assert_eq!(stage.store.overview(None).await.unwrap(), Overview::default());
    for user in 1..=3 {
        stage.connect(&format!("seller-{user}"), user).await;
    }
    Stage::revoke(&stage.store, "seller-3").await;
    let expected = Overview {
        active: 2,
        reconnect_required: 0,
        revoked: 1,
        failing: 0,
        earliest_expiry: Some(start() + Duration::days(180)),
    };
    assert_eq!(
        stage.store.overview(Some(&application())).await.unwrap(),
        expected
    );
    let other = "other".parse().unwrap();
    assert_eq!(
        stage.store.overview(Some(&other)).await.unwrap(),
        Overview::default()
    );
}

async fn the_audit_log_pages_backwards_by_filter(stage: Stage) {
    for n in 0..5 {
        let at = start() + Duration::seconds(n);
        let target = Some(format!("seller-{}", n % 2));
        let row = NewAudit {
            target,
            at,
            ..audit(AuditAction::ConnectionRefreshed, &seller("x"))
        };
        stage.store.record_audit(&row).await.unwrap();
    }
    let mut filter = AuditFilter {
        target: Some("seller-0".to_owned()),
        limit: 2,
        ..Default::default()
    };
    let first = stage.store.list_audit(&filter).await.unwrap();
    let seconds = |page: &Page<AuditRow>| {
        page.data
            .iter()
            .map(|row| (row.at - start()).num_seconds())
            .collect::<Vec<_>>()
    };
    assert_eq!(seconds(&first), [4, 2]);
    filter.before = first.next;
    let second = stage.store.list_audit(&filter).await.unwrap();
    assert_eq!(seconds(&second), [0]);
    assert!(second.next.is_none());
    assert_eq!(second.data[0].detail, json!({}));
}

async fn failed_sign_ins_are_counted_per_window_by_all_replicas(stage: Stage) {
    let limit = SignInLimit {
        window: Duration::minutes(15),
        failures: 10,
    };
    all_at_once(&stage.replicas().await, 10, |store, _| async move {
        store
            .count_sign_in_failure("ana@shop.example", limit, start())
            .await
            .unwrap();
    })
    .await;
    let limited = async |bucket: &str, now| stage.store.is_sign_in_limited(bucket, limit, now).await.unwrap();
    assert!(limited("ana@shop.example", start()).await);
    assert!(!limited("other@shop.example", start()).await);
    assert!(!limited("ana@shop.example", start() + Duration::minutes(15)).await);
    stage
        .store
        .forget_sign_in_failures("ana@shop.example")
        .await
        .unwrap();
    assert!(!limited("ana@shop.example", start()).await);
}

async fn a_session_ends_by_age_idleness_removal_and_new_password(stage: Stage) {
    let admin = Admin {
        id: AdminId::new(start(), &stage.random),
        email: "Ana@shop.example".to_lowercase(),
        role: Role::Operator,
        created_at: start(),
    };
    let new = NewAdmin {
        admin: admin.clone(),
        password_hash: "$argon2id$...",
    };
    stage.store.create_admin(&new, Actor::operator()).await.unwrap();
    let twice = stage.store.create_admin(&new, Actor::operator()).await;
    assert!(matches!(twice, Err(StoreError::Conflict)), "{twice:?}");
    let idle = Duration::minutes(30);
    let begin = async |token: &SessionToken| {
        let ends = start() + Duration::hours(12);
        stage
            .store
            .create_session(token, &admin, ends, Actor::system(), start())
            .await
            .unwrap();
    };
    let [_, replica] = stage.replicas().await;
    let is_there =
        async |token: &SessionToken, now| replica.find_session(token, now, idle).await.unwrap().is_some();
    let token = SessionToken::new("session-1");
    begin(&token).await;
    assert!(
        is_there(&token, start() + Duration::minutes(29)).await,
        "on the other replica too"
    );
    assert!(!is_there(&token, start() + Duration::minutes(30)).await, "idle");
    stage
        .store
        .touch_session(&token, start() + Duration::hours(11))
        .await
        .unwrap();
    assert!(is_there(&token, start() + Duration::minutes(11 * 60 + 29)).await);
    stage
        .store
        .touch_session(&token, start() + Duration::hours(12))
        .await
        .unwrap();
    assert!(!is_there(&token, start() + Duration::hours(12)).await, "over");

    let reset = stage
        .store
        .reset_password("ana@shop.example", "$other", Actor::operator(), start())
        .await;
    assert!(reset.unwrap());
    assert!(!is_there(&token, start()).await, "a new password ends it");
    begin(&token).await;
    assert!(
        stage
            .store
            .remove_admin("ANA@shop.example", Actor::operator(), start())
            .await
            .unwrap()
    );
    assert!(!is_there(&token, start()).await, "and so does removal");
}

async fn an_api_key_is_found_until_it_is_revoked_on_every_replica(stage: Stage) {
    let key = ApiKey {
        id: ApiKeyId::new(start(), &stage.random),
        application: application(),
        name: "shop".to_owned(),
        scopes: "payments:read payments:write".parse().unwrap(),
        created_at: start(),
        expires_at: Some(start() + Duration::days(1)),
        revoked_at: None,
        last_used_at: None,
    };
    let secret = ApiKeySecret::new("mck_0123456789abcdef0123456789abcdef");
    let new = NewApiKey {
        key: key.clone(),
        secret: &secret,
    };
    stage.store.create_api_key(&new, Actor::operator()).await.unwrap();
    let [_, replica] = stage.replicas().await;
    assert_eq!(replica.find_api_key(&secret).await.unwrap().unwrap(), key);
    assert!(
        replica
            .find_api_key(&ApiKeySecret::new("mck_other"))
            .await
            .unwrap()
            .is_none()
    );
    let other: ApplicationId = "other".parse().unwrap();
    let revoke = async |application: &ApplicationId| {
        let revoked = stage
            .store
            .revoke_api_key(&key.id, Some(application), Actor::operator(), start());
        revoked.await.unwrap()
    };
    assert!(!revoke(&other).await, "another application's key");
    assert!(revoke(&application()).await);
    assert!(!revoke(&application()).await, "once");
    let found = replica.find_api_key(&secret).await.unwrap().unwrap();
    assert!(!found.is_valid_at(start()));
    let again = stage.store.create_api_key(&new, Actor::operator()).await;
    assert!(
        matches!(again, Err(StoreError::Conflict)),
        "a revoked key stays revoked"
    );
}

async fn one_replica_takes_the_turn_to_probe(stage: Stage) {
    let probe_at = start() + Duration::minutes(10);
    let suspended = all_at_once(&stage.replicas().await, 8, |store, _| async move {
        let audit = audit(AuditAction::ApplicationSuspended, &seller("x"));
        store
            .suspend_application(&application(), "client_rejected", probe_at, &audit)
            .await
            .unwrap()
    })
    .await;
    assert_eq!(suspended.iter().filter(|first| **first).count(), 1, "one alert");
    let turns = all_at_once(&stage.replicas().await, 8, |store, _| async move {
        let next = probe_at + Duration::minutes(10);
        store.take_probe(&application(), probe_at, next).await.unwrap()
    })
    .await;
    assert_eq!(turns.iter().filter(|taken| **taken).count(), 1);
    let audit = audit(AuditAction::ApplicationResumed, &seller("x"));
    assert!(
        stage
            .store
            .resume_application(&application(), &audit)
            .await
            .unwrap()
    );
    assert!(
        !stage
            .store
            .resume_application(&application(), &audit)
            .await
            .unwrap()
    );
}

async fn warnings_are_told_once(stage: Stage) {
    let connection = stage.connect("seller-1", 7).await;
    let event = stage.event(EventType::Expiring, &connection);
    let told = all_at_once(&stage.replicas().await, 8, |store, _| {
        let (connection, event) = (connection.clone(), event.clone());
        async move { store.store_expiry_warning(&connection, 1, &event).await.unwrap() }
    })
    .await;
    assert_eq!(told.iter().filter(|first| **first).count(), 1);
    assert_eq!(
        stage.events("seller-1").await,
        ["connection.connected", "connection.expiring"]
    );
}

const K1: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const K2: &str = "k2:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// Rows of each key.
async fn held(store: &Store) -> Vec<(String, i64)> {
    let counts = store.data_keys_by_key().await.unwrap();
    counts
        .into_iter()
        .map(|(key, rows)| (key.to_string(), rows))
        .collect()
}

/// Rotates, at most so many steps.
async fn rotate(store: &Store, steps: usize) {
    let mut cursor = Some(RotationCursor::default());
    for _ in 0..steps {
        let Some(from) = cursor else { return };
        let step = store.rotate_step(&from, 3).await.unwrap();
        assert!(step.unreadable.is_empty(), "{step:?}");
        cursor = step.next;
    }
}

async fn a_rotation_leaves_nothing_under_the_old_key_and_may_be_broken_off(stage: Stage) {
    for user in 0..10 {
        stage.connect(&format!("seller-{user}"), user).await;
    }
    let link = stage.link("seller-x").await;
    stage.request(&link, [1; 32], [2; 32]).await;
    assert_eq!(held(&stage.store).await, [("k1".to_owned(), 11)]);
    let rotated = stage.database.store(&format!("{K2},{K1}")).await;
    rotate(&rotated, 3).await;
    let half = held(&rotated).await;
    assert!(
        half.iter().all(|(_, rows)| *rows > 0) && half.len() == 2,
        "{half:?}"
    );
    rotate(&rotated, 100).await;
    assert_eq!(held(&rotated).await, [("k2".to_owned(), 11)]);
    // The new key alone opens everything.
    let after = stage.database.store(K2).await;
    after.check_keys(start()).await.unwrap();
    for user in 0..10 {
        let open = after
            .open_connection(&application(), &seller(&format!("seller-{user}")))
            .await;
        assert_eq!(open.unwrap().unwrap().access_token.unwrap().expose(), "APP_USR-1");
    }
    let consumed = after
        .consume_authorization_request([1; 32], [2; 32], start())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(consumed.verifier.unwrap().expose(), "the-verifier");
}

async fn a_rotation_does_not_undo_what_happens_meanwhile(stage: Stage) {
    for user in 0..20 {
        stage.connect(&format!("seller-{user}"), user).await;
    }
    let rotated = stage.database.store(&format!("{K2},{K1}")).await;
    let consent = stage.consent("seller-1", OnAccountChange::Refuse).await;
    let claimed = stage.claimed(&stage.find("seller-2").await.unwrap().id).await;
    let (store, tokens) = (stage.store.clone(), tokens_of(2, 2));
    tokio::join!(rotate(&rotated, 100), async {
        Stage::revoke(&store, "seller-19").await;
        let admitted = Stage::admit_to(&store, "seller-1", &tokens_of(1, 2), Some(&consent), None).await;
        assert!(matches!(admitted.unwrap(), Admission::Connected(_)));
        assert!(stage.store_answer(&claimed, &tokens).await);
    });
    assert_eq!(stage.token("seller-19").await, None);
    for name in ["seller-1", "seller-2"] {
        let open = rotated
            .open_connection(&application(), &seller(name))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(open.access_token.unwrap().expose(), "APP_USR-2", "{name}");
    }
    // What was written with the old key in between is found by another run.
    rotate(&rotated, 100).await;
    assert!(held(&rotated).await.iter().all(|(key, _)| key == "k2"));
}

async fn a_key_that_rows_still_need_cannot_be_left_out(stage: Stage) {
    stage.connect("seller-1", 1).await;
    let without = stage.database.store(K2).await;
    let refused = without.check_keys(start()).await.unwrap_err().to_string();
    assert!(
        refused.contains("`k1`") && refused.contains("ENCRYPTION_KEYS"),
        "{refused}"
    );
    let behind = stage.database.store(&format!("{K2},{K1}")).await;
    behind.check_keys(start()).await.unwrap();
}

async fn a_replica_is_live_until_it_leaves_or_falls_silent(stage: Stage) {
    let report = |seen_at| ReplicaReport {
        id: ReplicaId::new(start(), &stage.random),
        started_at: start(),
        seen_at,
        key_ids: vec!["k2".parse().unwrap(), "k1".parse().unwrap()],
        clock_skew: Duration::milliseconds(-7),
    };
    let (silent, alive) = (report(start()), report(start() + Duration::minutes(2)));
    for report in [&silent, &alive] {
        stage.store.report_replica(report).await.unwrap();
    }
    let live = async |now| stage.store.live_replicas(now).await.unwrap();
    assert_eq!(live(start() + Duration::minutes(2)).await.len(), 2);
    assert_eq!(
        live(start() + Duration::minutes(4)).await,
        std::slice::from_ref(&alive)
    );
    stage.store.forget_replica(&alive.id).await.unwrap();
    assert!(live(start() + Duration::minutes(4)).await.is_empty());
}

/// A database that goes away and comes back is used again without a restart of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_postgresql_is_used_again() {
    let Some(cluster) = postgres::Cluster::start() else {
        return;
    };
    let database = EmptyDatabase {
        url: DatabaseUrl::Postgres(cluster.create_database()),
        folder: tempfile::tempdir().unwrap(),
    };
    let store = database.migrated().await;
    store.check_keys(start()).await.unwrap();
    cluster.stop();
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    cluster.resume();
    store.ping().await.unwrap();
    store.check_keys(start()).await.unwrap();
}
