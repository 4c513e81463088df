//! What the platform relies on when it calls Mercado Pago through the service (DESIGN.md section 8), over HTTP.

use bytes::Bytes;
use http::Method;
use marketplace_connector::sandbox::{Fault, FaultKind};
use serde_json::json;

use crate::support::app::TestApp;
use crate::support::{API_KEY, http::Answer};

const FIVE_MEBIBYTES: usize = 5 << 20;

/// Bytes of which no two neighbours can be swapped unseen.
fn large(size: usize) -> Vec<u8> {
    let mut text = String::with_capacity(size + 16);
    text.push_str("{\"note\":\"");
    let mut number = 0_u32;
    while text.len() < size - 2 {
        text.push_str(&number.to_string());
        text.push(' ');
        number += 1;
    }
    text.truncate(size - 2);
    text.push_str("\"}");
    text.into_bytes()
}

async fn send(app: &TestApp, body: impl Into<Bytes>) -> Answer {
    app.platform()
        .call(Method::POST, "/proxy/seller-1/v1/payments", Some(body.into()))
        .await
}

/// The next call is answered with exactly this body.
fn answer_with(app: &TestApp, body: &str) {
    app.sandbox.add_fault(Fault {
        route: "payments".to_owned(),
        seller: None,
        kind: FaultKind::Status {
            status: 200,
            body: Some(body.to_owned()),
            retry_after: None,
            after: false,
        },
        times: Some(1),
        probability: None,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_and_odd_numbers_arrive_byte_for_byte_in_both_directions() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    let odd = "{ \"transaction_amount\" : 1.10,\r\n\t\"id\":12345678901234567890, \"id\":1e400, \"\\u00e9\": \"é\" }\n";
    let five = String::from_utf8(large(FIVE_MEBIBYTES)).unwrap();
    for (sent, answered) in [(odd, odd), (&five, odd), (odd, &five), (&five, &five)] {
        answer_with(&app, answered);
        let answer = send(&app, sent.to_owned()).await.expect(200);
        assert!(
            answer.body == answered.as_bytes(),
            "the answer changed on its way"
        );
        let arrived = app.sandbox.requests().pop().unwrap();
        assert!(arrived.body == sent.as_bytes(), "the request changed on its way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_out_with_the_sellers_token_alone() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    app.proxied_get("seller-1", "/v1/payments/search?sort=date_created&criteria=desc")
        .await
        .expect(200);
    let arrived = app.sandbox.requests().pop().unwrap();
    assert_eq!(arrived.path, "/v1/payments/search");
    assert_eq!(arrived.query.as_deref(), Some("sort=date_created&criteria=desc"));
    let authorization: Vec<_> = arrived.headers.get_all("authorization").iter().collect();
    assert_eq!(authorization.len(), 1);
    assert!(authorization[0].to_str().unwrap().starts_with("Bearer APP_USR-"));
    for (name, value) in &arrived.headers {
        assert!(
            !String::from_utf8_lossy(value.as_bytes()).contains(API_KEY),
            "{name} has our key"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approved_and_rejected_payments_come_as_mercado_pago_says_and_the_declined_one_says_what_helps() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    let approved = app.create_payment("seller-1", "APRO").await.expect(201);
    assert_eq!(approved.json()["status"], "approved");
    assert_eq!(approved.header("connector-decline"), "");
    assert!(!approved.header("x-idempotency-key").is_empty());
    let rejected = app.create_payment("seller-1", "FUND").await.expect(201);
    assert_eq!(rejected.json()["status"], "rejected");
    assert!(
        rejected.header("connector-decline").starts_with("issuer;action="),
        "{}",
        rejected.header("connector-decline")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_answer_was_lost_is_made_once() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    app.sandbox.add_fault("payments=cut-after*1".parse().unwrap());
    let paid = app.create_payment("seller-1", "APRO").await;
    assert_eq!(paid.header("connector-attempts"), "2");
    let paid = paid.json();
    let found = app
        .proxied_get("seller-1", "/v1/payments/search")
        .await
        .expect(200)
        .json();
    let ids: Vec<_> = found["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|payment| payment["id"].clone())
        .collect();
    assert_eq!(ids, [paid["id"].clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_or_the_wrong_one_learns_nothing_of_sellers() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    app.sandbox.clear_requests();
    let stranger = app.caller_with_key("mck_0000000000000000000000000000000000000000");
    for seller in ["seller-1", "nobody"] {
        let answer = stranger.get(&format!("/proxy/{seller}/users/me")).await;
        assert_eq!(answer.problem(), (401, "invalid_api_key"));
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    let answer = app.proxied_get("nobody", "/users/me").await;
    assert_eq!(answer.problem(), (404, "connection_not_found"));
    let answer = app.proxied_get("seller-1", "/oauth/token").await;
    assert_eq!(answer.problem(), (403, "route_not_allowed"));
    let answer = app.proxied_get("seller-1", "/v1/payments/1%2Frefunds").await;
    assert_eq!(answer.problem(), (400, "invalid_path"));
    assert!(app.sandbox.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reaches_only_what_its_scopes_say() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    let key = json!({ "name": "reports", "scopes": ["payments:read"] });
    let key = app.platform().post("/v1/api-keys", key).await.expect(201).json();
    let reports = app.caller_with_key(key["secret"].as_str().unwrap());
    reports
        .get("/proxy/seller-1/v1/payments/search")
        .await
        .expect(200);
    let answer = reports.post("/proxy/seller-1/v1/payments", json!({})).await;
    assert_eq!(answer.problem(), (403, "insufficient_scope"));
    let answer = reports.get("/v1/connections").await;
    assert_eq!(answer.problem(), (403, "insufficient_scope"));

    let id = key["id"].as_str().unwrap();
    app.platform().delete(&format!("/v1/api-keys/{id}")).await;
    app.advance(chrono::TimeDelta::seconds(1));
    let answer = reports.get("/proxy/seller-1/v1/payments/search").await;
    assert_eq!(answer.problem(), (401, "invalid_api_key"));
}
