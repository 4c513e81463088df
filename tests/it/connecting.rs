//! What sellers and the platform rely on while somebody connects (DESIGN.md section 6), over HTTP.

use chrono::TimeDelta;
use marketplace_connector::sandbox::Fault;
use serde_json::json;

use crate::support::app::TestApp;
use crate::support::http::parameter;
use crate::support::process::rescued_answers;

fn fault(text: &str) -> Fault {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_who_consents_is_connected_and_no_answer_shows_a_token() {
    let app = TestApp::start().await;
    let connection = app.connect_seller("seller-1").await;
    assert_eq!(connection["status"], "active");
    assert_eq!(connection["usable"], true);
    assert_eq!(connection["user_id"], app.account(0));
    assert!(connection["live_mode"].is_boolean());
    let call = app.proxied_get("seller-1", "/users/me").await.expect(200);
    assert_eq!(call.json()["id"], app.account(0));
    let sent = app.sandbox.requests();
    let token = sent.last().unwrap().headers["authorization"].to_str().unwrap();
    let token = token.strip_prefix("Bearer ").unwrap();
    assert!(token.starts_with("APP_USR-"), "{token}");
    assert!(!connection.to_string().contains(token));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_parallel_callbacks_one_exchanges() {
    let app = TestApp::start().await;
    let link = app.platform().connect_link("seller-1").await;
    let mut browser = app.browser();
    let callback = app.consent(&mut browser, &link, 0).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (mut browser, callback) = (browser.clone(), callback.clone());
            tokio::spawn(async move { browser.open(&callback).await.status.as_u16() })
        })
        .collect();
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| *status == 400), "{statuses:?}");
    assert_eq!(app.exchanges(), 1);
    assert_eq!(app.platform().connection("seller-1").await["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_without_the_cookie_or_with_anothers_makes_no_token_call_and_consumes_nothing() {
    let app = TestApp::start().await;
    let link = app.platform().connect_link("seller-1").await;
    let mut browser = app.browser();
    let callback = app.consent(&mut browser, &link, 0).await;

    let without = app.browser().open(&callback).await;
    assert_eq!(without.problem(), (400, "invalid_request"));

    // The other browser has begun too, so it has a cookie of its own.
    let mut other = app.browser();
    other.begin(&link).await;
    let others = other.open(&callback).await;
    assert_eq!(others.problem(), (400, "invalid_request"));
    assert_eq!(app.exchanges(), 0);

    browser.open(&callback).await.expect(200);
    assert_eq!(app.exchanges(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_that_nobody_asked_for_make_no_token_call() {
    let app = TestApp::start().await;
    let link = app.platform().connect_link("seller-1").await;
    let mut browser = app.browser();
    let callback = app.consent(&mut browser, &link, 0).await;
    let state = parameter(&callback, "state");
    let long = "x".repeat(10_000);
    let wrong = [
        "/oauth/callback".to_owned(),
        "/oauth/callback?code=TG-1".to_owned(),
        "/oauth/callback?code=TG-1&state=unknown".to_owned(),
        "/oauth/callback?error=access_denied&state=unknown".to_owned(),
        format!("{callback}&code=TG-other"),
        format!("{callback}&state={state}"),
        format!("/oauth/callback?state={state}&code={long}"),
        format!("/oauth/callback?state={long}&code=TG-1"),
    ];
    for query in wrong {
        let answer = browser.open(&query).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{query:.80}");
    }
    assert_eq!(app.exchanges(), 0);
    // None of them consumed the state.
    browser.open(&callback).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_ends_after_ten_minutes_and_a_code_is_used_once() {
    let app = TestApp::start().await;
    let link = app.platform().connect_link("seller-1").await;
    let mut browser = app.browser();
    let late = app.consent(&mut browser, &link, 0).await;
    app.advance(TimeDelta::minutes(10) + TimeDelta::seconds(1));
    assert_eq!(browser.open(&late).await.problem(), (400, "invalid_request"));
    assert_eq!(app.exchanges(), 0);

    let callback = app.consent(&mut browser, &link, 0).await;
    browser.open(&callback).await.expect(200);
    assert_eq!(browser.open(&callback).await.problem(), (400, "invalid_request"));
    assert_eq!(app.exchanges(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_who_refuses_is_told_so_and_may_try_again_with_the_same_link() {
    let app = TestApp::start().await;
    let link = app.platform().connect_link("seller-1").await;
    let mut browser = app.browser();
    let authorization = browser.begin(&link).await;
    let denied = app.decide(&authorization, 0, false);
    let page = browser.open(&denied).await.expect(200);
    assert!(!page.text().contains("Connected"), "{}", page.text());
    assert_eq!(browser.open(&denied).await.problem(), (400, "invalid_request"));
    assert_eq!(app.exchanges(), 0);
    let answer = app.platform().get("/v1/connections/seller-1").await;
    assert_eq!(answer.problem(), (404, "connection_not_found"));

    let callback = app.consent(&mut browser, &link, 0).await;
    browser.open(&callback).await.expect(200);
    assert_eq!(app.platform().connection("seller-1").await["status"], "active");
    // Now it is used up.
    assert_eq!(browser.open(&link).await.problem(), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_learns_how_it_ended_at_its_return_url() {
    let app = TestApp::start().await;
    let link = json!({ "seller_id": "seller-1", "return_url": "https://shop.example/done?order=7" });
    let link = app.platform().connect_link_with(link).await;
    let mut browser = app.browser();

    let authorization = browser.begin(&link).await;
    let denied = browser.open(&app.decide(&authorization, 0, false)).await;
    assert_eq!(
        denied.location(),
        "https://shop.example/done?order=7&connection=denied&seller_id=seller-1"
    );

    let callback = app.consent(&mut browser, &link, 0).await;
    app.sandbox.add_fault(fault("token=503*1"));
    let failed = browser.open(&callback).await;
    assert_eq!(parameter(failed.location(), "connection"), "failed");
    assert_eq!(parameter(failed.location(), "error"), "provider_unavailable");

    let callback = app.consent(&mut browser, &link, 0).await;
    app.sandbox.add_fault(fault("token=invalid_grant*1"));
    let failed = browser.open(&callback).await;
    assert_eq!(parameter(failed.location(), "error"), "exchange_failed");

    let callback = app.consent(&mut browser, &link, 0).await;
    let connected = browser.open(&callback).await;
    assert_eq!(
        connected.location(),
        "https://shop.example/done?order=7&connection=connected&seller_id=seller-1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn return_urls_elsewhere_are_refused_when_the_link_is_made() {
    let app = TestApp::start().await;
    for elsewhere in [
        "//evil.example/",
        "\\\\evil.example/",
        "https://shop.example@evil.example/",
        "https://user:password@shop.example/",
        "javascript:alert(1)",
        "https://shop.example.evil.example/",
        "https://shop.example./",
        "http://shop.example/",
        "https://shop.example:8443/",
        "https://shop.example/\\evil",
        "https://shop.example/a\r\nSet-Cookie: a=b",
        "https://shop.example//evil",
    ] {
        let members = json!({ "seller_id": "seller-1", "return_url": elsewhere });
        let answer = app.platform().post("/v1/connect-links", members).await;
        assert_eq!(answer.problem(), (422, "invalid_field"), "{elsewhere}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_of_the_seller_and_an_account_of_another_seller_are_refused() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    let link = json!({ "seller_id": "seller-1", "return_url": "https://shop.example/done" });
    let link = app.platform().connect_link_with(link).await;
    let mut browser = app.browser();
    let callback = app.consent(&mut browser, &link, 1).await;
    let refused = browser.open(&callback).await;
    assert_eq!(parameter(refused.location(), "error"), "account_mismatch");
    assert_eq!(
        app.platform().connection("seller-1").await["user_id"],
        app.account(0)
    );

    let link = json!({ "seller_id": "seller-2", "return_url": "https://shop.example/done" });
    let link = app.platform().connect_link_with(link).await;
    let callback = app.consent(&mut browser, &link, 0).await;
    let refused = browser.open(&callback).await;
    assert_eq!(parameter(refused.location(), "error"), "account_in_use");

    let link = json!({ "seller_id": "seller-1", "on_account_change": "replace" });
    let link = app.platform().connect_link_with(link).await;
    let callback = app.consent(&mut browser, &link, 1).await;
    browser.open(&callback).await.expect(200);
    assert_eq!(
        app.platform().connection("seller-1").await["user_id"],
        app.account(1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_flow_are_kept_by_nobody_and_load_nothing_from_elsewhere() {
    let app = TestApp::start().await;
    let link = app.platform().connect_link("seller-1").await;
    let mut browser = app.browser();
    let landing = browser.open(&link).await.expect(200);
    let callback = app.consent(&mut browser, &link, 0).await;
    let refused = app.browser().open(&callback).await.expect(400);
    let connected = browser.open(&callback).await.expect(200);
    for page in [landing, refused, connected] {
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        for loaded in ["src=\"", "href=\""] {
            for rest in page.text().split(loaded).skip(1) {
                assert!(!rest.starts_with("http") && !rest.starts_with("//"), "{rest:.80}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_the_exchange_that_cannot_be_read_stays_in_the_rescue_folder() {
    let app = TestApp::start().await;
    let link = app.platform().connect_link("seller-1").await;
    let mut browser = app.browser();
    let callback = app.consent(&mut browser, &link, 0).await;
    app.sandbox.add_fault(fault("token=garbage*1"));
    browser.open(&callback).await.expect(200);
    assert_eq!(app.exchanges(), 1);
    assert_eq!(rescued_answers(&app.rescue_dir()).len(), 1);
    // Nobody is connected by it, and nobody is kept from connecting.
    let answer = app.platform().get("/v1/connections/seller-1").await;
    assert_eq!(answer.problem(), (404, "connection_not_found"));
    let callback = app.consent(&mut browser, &link, 0).await;
    browser.open(&callback).await.expect(200);
}
