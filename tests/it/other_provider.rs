//! `serve` against a provider that is not our sandbox, by settings alone: the whole way of a seller.

use serde_json::json;

use crate::support::http::parameter;
use crate::support::plain_provider::{PlainProvider, access_token, refresh_token};
use crate::support::process::Service;
use crate::support::{CLIENT_ID, CLIENT_SECRET};

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_of_any_provider_is_connected_called_for_renewed_and_revoked() {
    let provider = PlainProvider::start().await;
    let service = Service::start(&provider.origin).await;
    let platform = service.platform();

    let link = platform.connect_link("seller-1").await;
    let mut browser = service.browser();
    let authorization = browser.begin(&link).await;
    assert!(authorization.starts_with(&format!("{}/authorization?", provider.origin)));
    for (name, value) in [
        ("client_id", CLIENT_ID),
        ("response_type", "code"),
        ("platform_id", "mp"),
        ("redirect_uri", "http://127.0.0.1:8080/oauth/callback"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameter(&authorization, name), value);
    }
    let state = parameter(&authorization, "state");
    browser
        .open(&format!("/oauth/callback?code=TG-code&state={state}"))
        .await
        .expect(200);

    let exchange = provider.token_requests().pop().unwrap();
    assert_eq!(exchange.header("content-type"), "application/json");
    let body: serde_json::Value = serde_json::from_str(&exchange.body).unwrap();
    let mut members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            "client_id",
            "client_secret",
            "code",
            "code_verifier",
            "grant_type",
            "redirect_uri"
        ]
    );
    assert_eq!(body["client_secret"], CLIENT_SECRET);

    assert_eq!(platform.connection("seller-1").await["user_id"], 4711);
    platform
        .post("/proxy/seller-1/v1/payments", json!({ "transaction_amount": 1 }))
        .await
        .expect(200);
    let call = provider.received().pop().unwrap();
    assert_eq!(
        call.header("authorization"),
        format!("Bearer {}", access_token(1))
    );

    platform
        .post("/v1/connections/seller-1/refresh", json!({}))
        .await
        .expect(200);
    let refresh: serde_json::Value =
        serde_json::from_str(&provider.token_requests().pop().unwrap().body).unwrap();
    assert_eq!(
        refresh,
        json!({
            "grant_type": "refresh_token",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "refresh_token": refresh_token(1),
        })
    );

    platform.delete("/v1/connections/seller-1").await.expect(200);
    let answer = platform.get("/proxy/seller-1/users/me").await;
    assert_eq!(answer.problem(), (409, "connection_revoked"));
}
