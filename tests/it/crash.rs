//! Killing the real process in the one moment that matters: Mercado Pago has given what it gives only once, and the store
//! has not committed it. The commit is held by a lock on the database file that the test takes, as a backup might.

use sqlx::{Connection as _, SqliteConnection};

use crate::support::http::{Browser, parameter};
use crate::support::plain_provider::{PlainProvider, access_token, refresh_token};
use crate::support::process::{Service, until};

/// Takes the write lock of the database until it is dropped.
async fn lock(service: &Service) -> SqliteConnection {
    let url = &service.settings["DATABASE_URL"];
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

/// Opens a connect link; the address that the provider would send the browser back to.
async fn consent(service: &Service, browser: &mut Browser) -> String {
    let link = service.platform().connect_link("seller-1").await;
    let authorization = browser.begin(&link).await;
    format!(
        "/oauth/callback?code=TG-code&state={}",
        parameter(&authorization, "state")
    )
}

async fn connect(service: &Service) {
    let mut browser = service.browser();
    let callback = consent(service, &mut browser).await;
    browser.open(&callback).await.expect(200);
}

/// The access token that a call of the platform goes out with.
async fn token_in_use(service: &Service, provider: &PlainProvider) -> String {
    service
        .platform()
        .get("/proxy/seller-1/users/me")
        .await
        .expect(200);
    let call = provider.received().pop().unwrap();
    assert!(call.line.starts_with("GET /users/me"), "{}", call.line);
    call.header("authorization")
        .strip_prefix("Bearer ")
        .unwrap()
        .to_owned()
}

/// Waits until the provider was asked for tokens `count` times.
async fn asked(provider: &PlainProvider, count: usize) {
    until("the token request", || {
        (provider.token_requests().len() == count).then_some(())
    })
    .await;
}

/// Lets the provider answer while nothing can be committed, and kills the process once the answer is in its rescue file.
async fn kill_before_the_commit(service: &mut Service, provider: &PlainProvider) {
    let lock = lock(service).await;
    provider.let_token_answers_go();
    until("the rescue file", || {
        (service.rescued_answers().len() == 1).then_some(())
    })
    .await;
    service.kill();
    drop(lock);
}

/// A connected seller whose refresh was answered and not committed when the process died.
async fn killed_in_a_refresh() -> (Service, PlainProvider) {
    let provider = PlainProvider::start().await;
    let mut service = Service::start(&provider.origin).await;
    connect(&service).await;
    provider.hold_token_answers();
    let platform = service.platform();
    tokio::spawn(async move { platform.post_in_vain("/v1/connections/seller-1/refresh").await });
    asked(&provider, 2).await;
    kill_before_the_commit(&mut service, &provider).await;
    (service, provider)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_was_answered_is_not_lost_when_the_process_is_killed_before_its_commit() {
    let (mut service, provider) = killed_in_a_refresh().await;
    service.start_again().await;
    assert_eq!(token_in_use(&service, &provider).await, access_token(2));
    assert_eq!(service.rescued_answers().len(), 0);
    assert_eq!(provider.token_requests().len(), 2, "nothing was spent again");

    // The refresh token came with it: the next refresh spends that one.
    let path = "/v1/connections/seller-1/refresh";
    service
        .platform()
        .post(path, serde_json::json!({}))
        .await
        .expect(200);
    let spent = provider.token_requests().pop().unwrap();
    assert!(spent.body.contains(&refresh_token(2)), "{}", spent.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_was_answered_is_not_lost_when_the_process_is_killed_before_its_commit() {
    let provider = PlainProvider::start().await;
    let mut service = Service::start(&provider.origin).await;
    let mut browser = service.browser();
    let callback = consent(&service, &mut browser).await;
    provider.hold_token_answers();
    tokio::spawn(browser.open_in_vain(callback));
    asked(&provider, 1).await;
    kill_before_the_commit(&mut service, &provider).await;

    service.start_again().await;
    assert_eq!(
        service.platform().connection("seller-1").await["status"],
        "active"
    );
    assert_eq!(token_in_use(&service, &provider).await, access_token(1));
    assert_eq!(service.rescued_answers().len(), 0);
    assert_eq!(provider.token_requests().len(), 1, "the code was not used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_file_of_a_connection_that_was_revoked_meanwhile_changes_nothing() {
    let (mut service, provider) = killed_in_a_refresh().await;
    let revoked = service.run(&["connections", "revoke", "seller-1"]);
    assert!(
        revoked.status.success(),
        "{}",
        String::from_utf8_lossy(&revoked.stderr)
    );
    service.start_again().await;
    assert_eq!(service.rescued_answers().len(), 0);
    assert_eq!(
        service.platform().connection("seller-1").await["status"],
        "revoked"
    );
    let answer = service.platform().get("/proxy/seller-1/users/me").await;
    assert_eq!(answer.problem(), (409, "connection_revoked"));
    assert!(
        provider
            .received()
            .iter()
            .all(|call| !call.header("authorization").contains(&access_token(2)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_file_of_a_connection_that_was_reconnected_meanwhile_changes_nothing() {
    let (mut service, provider) = killed_in_a_refresh().await;
    // The volume with the rescue files is late; the seller is not.
    let file = service.rescued_answers().pop().unwrap();
    let aside = service.folder().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    service.start_again().await;
    connect(&service).await;
    service.kill();
    std::fs::rename(&aside, &file).unwrap();

    service.start_again().await;
    assert_eq!(service.rescued_answers().len(), 0);
    assert_eq!(token_in_use(&service, &provider).await, access_token(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_is_answered_after_a_revoke_cannot_bring_the_connection_back() {
    let provider = PlainProvider::start().await;
    let mut service = Service::start(&provider.origin).await;
    connect(&service).await;
    provider.hold_token_answers();
    let platform = service.platform();
    let refresh = tokio::spawn(async move {
        let path = "/v1/connections/seller-1/refresh";
        platform.post(path, serde_json::json!({})).await
    });
    asked(&provider, 2).await;
    service
        .platform()
        .delete("/v1/connections/seller-1")
        .await
        .expect(200);
    provider.let_token_answers_go();
    assert_eq!(refresh.await.unwrap().status, 409);
    assert_eq!(
        service.platform().connection("seller-1").await["status"],
        "revoked"
    );
    service.kill();
    service.start_again().await;
    assert_eq!(
        service.platform().connection("seller-1").await["status"],
        "revoked"
    );
    assert_eq!(service.rescued_answers().len(), 0);
}
