//! What sellers and the platform rely on when somebody connects, played on a real store, a real rescue folder and a token
//! endpoint that does what each test lays out.

use std::time::Duration as StdDuration;

use tempfile::TempDir;

use super::*;
use crate::domain::clock::ManualClock;
use crate::domain::connection::Status;
use crate::domain::ids::UserId;
use crate::domain::secret::ClientSecret;
use crate::mercadopago::application::tests::application;
use crate::mercadopago::http_client;
use crate::mercadopago::peer::{Act, Peer, json};

fn grant(user: i64) -> Act {
    json(
        200,
        &format!(
            r#"{{"access_token":"APP_USR-{user}","user_id":{user},"refresh_token":"TG-{user}","expires_in":15552000}}"#
        ),
    )
}

struct Scene {
    flow: ConnectFlow,
    store: Store,
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
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let flow = ConnectFlow::new(Parts {
            store: store.clone(),
            endpoint: TokenEndpoint::new(
                http_client::build().unwrap(),
                Arc::clone(&shared),
                StdDuration::from_secs(10),
            ),
            applications: Applications::new(vec![app.clone()]),
            rescue: RescueDir::open(&folder.path().join("rescue")).unwrap(),
            schedule: RefreshSchedule::default(),
            public_url: "https://connect.example".parse().unwrap(),
            clock: shared,
            random: Random::system(),
            tracker: TaskTracker::new(),
        });
        Self {
            flow,
            store,
            clock,
            peer,
            app,
            folder,
        }
    }

    async fn playing(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::with(acts, |_| {}).await
    }

    fn request(&self, seller: &str) -> LinkRequest {
        LinkRequest {
            application: self.app.id.clone(),
            seller_id: seller.parse().unwrap(),
            return_url: Some("https://shop.example/done?order=1".parse().unwrap()),
            locale: None,
            expires_in: TimeDelta::days(1),
            metadata: Some(serde_json::json!({ "shop": 1 })),
            on_account_change: OnAccountChange::Refuse,
        }
    }

    async fn link(&self, request: LinkRequest) -> LinkToken {
        let created = self.flow.create_link(request, Actor::operator()).await.unwrap();
        LinkToken::new(created.url.path().strip_prefix("/connect/").unwrap())
    }

    /// Opens the link in a browser and consents; what the callback would carry.
    async fn consent(&self, link: &LinkToken, browser: Option<BrowserId>) -> (String, BrowserId) {
        let begun = self.flow.begin(link, browser).await.unwrap();
        let state = begun
            .redirect_to
            .query_pairs()
            .find(|(name, _)| name == "state")
            .unwrap()
            .1
            .into_owned();
        (state, begun.browser_id)
    }

    async fn call_back(&self, query: &str, browser: Option<&BrowserId>) -> Result<Completed, ConnectError> {
        self.flow
            .complete(Callback::parse(query).unwrap(), browser, Actor::system())
            .await
    }

    /// The whole way of one seller.
    async fn connect(&self, request: LinkRequest) -> Ending {
        let link = self.link(request).await;
        let (state, browser) = self.consent(&link, None).await;
        self.call_back(&format!("code=TG-c&state={state}"), Some(&browser))
            .await
            .unwrap()
            .ending
    }

    async fn connection(&self, seller: &str) -> Option<Connection> {
        self.store
            .find_connection(&self.app.id, &seller.parse().unwrap())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_seller_who_consents_is_connected_and_sent_back() {
    let scene = Scene::playing([grant(7)]).await;
    let link = scene.link(scene.request("seller-1")).await;
    let (state, browser) = scene.consent(&link, None).await;
    assert!(
        scene.flow.landing(&link).await.is_ok(),
        "a link is usable until it succeeds"
    );
    let completed = scene
        .call_back(&format!("code=TG-c&state={state}"), Some(&browser))
        .await
        .unwrap();
    let back = completed.return_to().unwrap();
    assert_eq!(
        back.as_str(),
        "https://shop.example/done?order=1&connection=connected&seller_id=seller-1"
    );
    let connection = scene.connection("seller-1").await.unwrap();
    assert_eq!(
        (connection.status, connection.user_id, connection.generation),
        (Status::Active, UserId(7), 1)
    );
    assert_eq!(connection.metadata, serde_json::json!({ "shop": 1 }));
    assert!(matches!(
        scene.flow.landing(&link).await,
        Err(ConnectError::UsedLink(_))
    ));
    assert_eq!(
        std::fs::read_dir(scene.folder.path().join("rescue"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn of_a_hundred_parallel_callbacks_one_exchanges() {
    let scene = Scene::playing([grant(7)]).await;
    let link = scene.link(scene.request("seller-1")).await;
    let (state, browser) = scene.consent(&link, None).await;
    let mut callbacks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (flow, state, browser) = (scene.flow.clone(), state.clone(), browser.clone());
        callbacks.spawn(async move {
            let callback = Callback::parse(&format!("code=TG-c&state={state}")).unwrap();
            flow.complete(callback, Some(&browser), Actor::system()).await
        });
    }
    let outcomes = callbacks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let others = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(ConnectError::UnknownState)));
    assert_eq!(others.count(), 99);
    assert_eq!(scene.peer.requests().len(), 1);
}

#[tokio::test]
async fn another_browser_is_refused_before_any_token_call_and_consumes_nothing() {
    let scene = Scene::playing([grant(7)]).await;
    let link = scene.link(scene.request("seller-1")).await;
    let (state, browser) = scene.consent(&link, None).await;
    let query = format!("code=TG-c&state={state}");
    let other = BrowserId::new("another");
    assert!(matches!(
        scene.call_back(&query, Some(&other)).await,
        Err(ConnectError::UnknownState)
    ));
    assert!(matches!(
        scene.call_back(&query, None).await,
        Err(ConnectError::UnknownState)
    ));
    assert!(scene.peer.requests().is_empty());
    assert!(matches!(
        scene.call_back(&query, Some(&browser)).await.unwrap().ending,
        Ending::Connected(_)
    ));
}

#[tokio::test]
async fn two_tabs_of_one_browser_both_work() {
    let scene = Scene::playing([grant(7), grant(7)]).await;
    let link = scene.link(scene.request("seller-1")).await;
    let (first, browser) = scene.consent(&link, None).await;
    let (second, same) = scene.consent(&link, Some(browser.clone())).await;
    assert_eq!(browser.expose(), same.expose());
    for state in [first, second] {
        let ending = scene
            .call_back(&format!("code=TG-c&state={state}"), Some(&browser))
            .await
            .unwrap()
            .ending;
        assert!(matches!(ending, Ending::Connected(_)));
    }
    assert_eq!(scene.connection("seller-1").await.unwrap().generation, 2);
}

#[tokio::test]
async fn a_seller_who_says_no_is_sent_back_and_may_try_again() {
    let scene = Scene::playing([]).await;
    let link = scene.link(scene.request("seller-1")).await;
    let (state, browser) = scene.consent(&link, None).await;
    let query = format!("error=access_denied&state={state}");
    let completed = scene.call_back(&query, Some(&browser)).await.unwrap();
    assert!(
        completed
            .return_to()
            .unwrap()
            .as_str()
            .ends_with("connection=denied&seller_id=seller-1")
    );
    assert!(matches!(
        scene.call_back(&query, Some(&browser)).await,
        Err(ConnectError::UnknownState)
    ));
    assert!(scene.flow.landing(&link).await.is_ok());
    assert!(scene.peer.requests().is_empty());
}

#[tokio::test]
async fn states_and_links_end() {
    let scene = Scene::playing([]).await;
    let link = scene.link(scene.request("seller-1")).await;
    let (state, browser) = scene.consent(&link, None).await;
    scene.clock.advance(TimeDelta::minutes(10));
    let late = scene
        .call_back(&format!("code=TG-c&state={state}"), Some(&browser))
        .await;
    assert!(matches!(late, Err(ConnectError::UnknownState)));
    scene.clock.advance(TimeDelta::days(1));
    assert!(matches!(
        scene.flow.landing(&link).await,
        Err(ConnectError::ExpiredLink(_))
    ));
    assert!(matches!(
        scene.flow.begin(&link, None).await,
        Err(ConnectError::ExpiredLink(_))
    ));
    let unknown = LinkToken::new("nobody-made-this");
    assert!(matches!(
        scene.flow.landing(&unknown).await,
        Err(ConnectError::UnknownLink)
    ));
    assert!(scene.peer.requests().is_empty());
}

#[tokio::test]
async fn another_account_is_refused_unless_the_link_says_replace() {
    let scene = Scene::playing([grant(7), grant(8), grant(8)]).await;
    scene.connect(scene.request("seller-1")).await;
    let refused = scene.connect(scene.request("seller-1")).await;
    assert_eq!(refused, Ending::Failed(Failure::AccountMismatch));
    assert_eq!(scene.connection("seller-1").await.unwrap().user_id, UserId(7));
    let replace = LinkRequest {
        on_account_change: OnAccountChange::Replace,
        ..scene.request("seller-1")
    };
    assert!(matches!(scene.connect(replace).await, Ending::Connected(_)));
    let connection = scene.connection("seller-1").await.unwrap();
    assert_eq!((connection.user_id, connection.generation), (UserId(8), 2));
}

#[tokio::test]
async fn one_account_cannot_serve_two_sellers() {
    let scene = Scene::playing([grant(7), grant(7)]).await;
    scene.connect(scene.request("seller-1")).await;
    assert_eq!(
        scene.connect(scene.request("seller-2")).await,
        Ending::Failed(Failure::AccountInUse)
    );
    assert!(scene.connection("seller-2").await.is_none());
}

#[tokio::test]
async fn an_exchange_that_mercado_pago_refuses_and_one_that_does_not_come_back_are_told_apart() {
    let refusal = json(400, r#"{"error":"invalid_grant","status":400}"#);
    let scene = Scene::playing([refusal, Act::Close]).await;
    let link = scene.link(scene.request("seller-1")).await;
    let (state, browser) = scene.consent(&link, None).await;
    let completed = scene
        .call_back(&format!("code=TG-c&state={state}"), Some(&browser))
        .await
        .unwrap();
    let back = completed.return_to().unwrap();
    assert!(
        back.as_str()
            .ends_with("connection=failed&seller_id=seller-1&error=exchange_failed"),
        "{back}"
    );
    assert_eq!(
        scene.connect(scene.request("seller-1")).await,
        Ending::Failed(Failure::ProviderUnavailable)
    );
    assert!(
        scene.flow.landing(&link).await.is_ok(),
        "a link stays usable until it succeeds"
    );
}

#[tokio::test]
async fn the_previous_client_secret_is_tried_once() {
    let unknown_client = json(400, r#"{"error":"invalid_client","status":400}"#);
    let scene = Scene::with([unknown_client, grant(7)], |app| {
        app.client_secret_previous = Some(ClientSecret::new("previous"));
    })
    .await;
    assert!(matches!(
        scene.connect(scene.request("seller-1")).await,
        Ending::Connected(_)
    ));
    assert!(scene.peer.requests()[1].contains(r#""client_secret":"previous""#));
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_stays_in_its_rescue_file() {
    let scene = Scene::playing([json(200, r#"{"access_token":"APP_USR-1","user_id":"nobody"}"#)]).await;
    assert_eq!(
        scene.connect(scene.request("seller-1")).await,
        Ending::Failed(Failure::ProviderUnavailable)
    );
    let left = scene.flow.0.rescue.list_left().await.unwrap();
    assert_eq!(left.len(), 1);
    for file in left {
        scene.flow.apply_rescued(file).await.unwrap();
    }
    assert_eq!(
        scene.flow.0.rescue.list_left().await.unwrap().len(),
        1,
        "it is kept for a version that can read it"
    );
}

#[tokio::test]
async fn a_consent_is_completed_from_its_rescue_file_once() {
    use crate::mercadopago::token_endpoint::{KeepAnswer as _, RawAnswer};
    use crate::rescue::Subject;

    let scene = Scene::playing([]).await;
    let link = scene.link(scene.request("seller-1")).await;
    let (state, browser) = scene.consent(&link, None).await;
    let now = scene.clock.now();
    let consumed = scene
        .store
        .consume_authorization_request(hash(&state), hash(browser.expose()), now)
        .await
        .unwrap()
        .unwrap();
    let answer = RawAnswer {
        status: 200,
        body: zeroize::Zeroizing::new(
            br#"{"access_token":"APP_USR-7","user_id":7,"refresh_token":"TG-7"}"#.to_vec(),
        ),
        received_at: now,
        retry_after: None,
    };
    for _ in 0..2 {
        let subject = Subject::exchange(&scene.app.id, &consumed.id);
        let key = consumed.data_key.clone();
        let file = scene
            .flow
            .0
            .rescue
            .create(subject, key, scene.app.id.clone())
            .await
            .unwrap();
        file.keep(&answer).await;
        drop(file);
        for file in scene.flow.0.rescue.list_left().await.unwrap() {
            scene.flow.apply_rescued(file).await.unwrap();
        }
        assert!(scene.flow.0.rescue.list_left().await.unwrap().is_empty());
    }
    let connection = scene.connection("seller-1").await.unwrap();
    assert_eq!((connection.status, connection.generation), (Status::Active, 1));
    assert!(scene.peer.requests().is_empty());
}
