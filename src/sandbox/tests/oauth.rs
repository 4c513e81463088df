//! Consent and the token endpoint.

use chrono::Duration;

use super::*;
use crate::sandbox::{EndReason, OldAccessToken};

async fn token(sandbox: &Sandbox, body: Value) -> (StatusCode, Value) {
    send(sandbox, "POST", "/oauth/token", body).await
}

async fn refused(sandbox: &Sandbox, body: Value) -> String {
    let (status, answer) = token(sandbox, body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert!(answer["message"].is_string());
    String::from(answer["error"].as_str().unwrap())
}

#[tokio::test]
async fn a_consent_becomes_a_token_set_in_the_documented_shape() {
    let connected = Connected::seller("TESTMLA1").await;
    let tokens = &connected.tokens;
    let seller = connected
        .sandbox
        .sellers()
        .into_iter()
        .find(|s| s.nickname == "TESTMLA1")
        .unwrap();
    let access_token = tokens["access_token"].as_str().unwrap();
    assert!(
        access_token.starts_with(&format!("APP_USR-{CLIENT_ID}-030212-")),
        "{access_token}"
    );
    assert!(access_token.ends_with(&format!("-{}", seller.user_id)));
    assert!(tokens["refresh_token"].as_str().unwrap().starts_with("TG-"));
    assert_eq!(tokens["token_type"], "bearer");
    assert_eq!(tokens["expires_in"], 15_552_000);
    assert_eq!(tokens["scope"], "offline_access read write");
    assert_eq!(tokens["user_id"], seller.user_id);
    assert_eq!(tokens["public_key"], seller.public_key);
    assert_eq!(tokens["live_mode"], true);
    let me = connected.ok("GET", "/users/me", Value::Null).await;
    assert_eq!(me["id"], seller.user_id);
}

#[tokio::test]
async fn the_page_offers_the_sellers_and_its_answer_goes_back_with_state() {
    let sandbox = sandbox();
    let path = authorization_url("st%26ate").replace("http://127.0.0.1:8081", "");
    let get = Request::get(&path).body(Body::empty()).unwrap();
    let page = sandbox.router().oneshot(get).await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let html = String::from_utf8(page.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(
        html.contains("TESTMLA1") && html.contains("value=\"deny\""),
        "{html}"
    );
    for (decision, expected) in [("allow", "code"), ("deny", "error")] {
        let post = Request::post(&path)
            .body(Body::from(format!("seller=TESTMLA1&decision={decision}")))
            .unwrap();
        let response = sandbox.router().oneshot(post).await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let location = response.headers()["location"].to_str().unwrap();
        assert_eq!(parameter(location, "state").as_deref(), Some("st&ate"));
        assert!(parameter(location, expected).is_some(), "{location}");
    }
}

#[tokio::test]
async fn a_wrong_application_or_redirect_uri_is_told_on_the_page_and_never_redirected() {
    let sandbox = sandbox();
    let url = authorization_url("s");
    for wrong in [
        url.replace(CLIENT_ID, "1"),
        url.replace("oauth/callback", "oauth/callback/"),
        format!("{url}&state=again"),
    ] {
        assert!(sandbox.consent(&wrong, "TESTMLA1", true).is_err(), "{wrong}");
    }
    let unsupported = sandbox
        .consent(&url.replace("=code&", "=token&"), "TESTMLA1", true)
        .unwrap();
    assert_eq!(
        parameter(&unsupported, "error").as_deref(),
        Some("unsupported_response_type")
    );
}

#[tokio::test]
async fn a_code_works_once() {
    let sandbox = sandbox();
    let code = code(&sandbox, "TESTMLA1");
    assert_eq!(token(&sandbox, exchange(&code)).await.0, StatusCode::OK);
    assert_eq!(refused(&sandbox, exchange(&code)).await, "invalid_grant");
}

#[tokio::test]
async fn a_code_works_for_ten_minutes() {
    let sandbox = sandbox();
    let (early, late) = (code(&sandbox, "TESTMLA1"), code(&sandbox, "TESTMLA1"));
    sandbox.advance(Duration::seconds(599));
    assert_eq!(token(&sandbox, exchange(&early)).await.0, StatusCode::OK);
    sandbox.advance(Duration::seconds(1));
    assert_eq!(refused(&sandbox, exchange(&late)).await, "invalid_grant");
}

#[tokio::test]
async fn the_verifier_and_the_redirect_uri_must_be_those_of_the_request() {
    let sandbox = sandbox();
    for (member, wrong) in [
        ("code_verifier", json!(VERIFIER.replace('0', "1"))),
        ("redirect_uri", json!("http://127.0.0.1:8080/")),
    ] {
        let mut body = exchange(&code(&sandbox, "TESTMLA1"));
        body[member] = wrong;
        assert_eq!(refused(&sandbox, body).await, "invalid_grant", "{member}");
    }
    let mut body = exchange(&code(&sandbox, "TESTMLA1"));
    body.as_object_mut().unwrap().remove("code_verifier");
    assert_eq!(refused(&sandbox, body).await, "invalid_grant");
}

#[tokio::test]
async fn forms_are_taken_like_json_but_no_repeated_parameter() {
    let sandbox = sandbox();
    let form = |body: String| {
        Request::post("/oauth/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap()
    };
    let body = format!(
        "client_id={CLIENT_ID}&client_secret={CLIENT_SECRET}&grant_type=authorization_code\
         &code={}&redirect_uri={REDIRECT_URI}&code_verifier={VERIFIER}",
        code(&sandbox, "TESTMLB1")
    );
    assert_eq!(call(&sandbox, form(body.clone())).await.0, StatusCode::OK);
    let (_, answer) = call(&sandbox, form(format!("{body}&code=TG-1"))).await;
    assert_eq!(answer["error"], "invalid_request");
}

#[tokio::test]
async fn each_error_code_has_its_cause() {
    let sandbox = sandbox();
    let good = || exchange(&code(&sandbox, "TESTMLA1"));
    let with = |member: &str, value: Value| {
        let mut body = good();
        body[member] = value;
        body
    };
    assert_eq!(
        refused(&sandbox, with("client_secret", json!("x"))).await,
        "invalid_client"
    );
    assert_eq!(
        refused(&sandbox, with("client_id", json!("1"))).await,
        "invalid_client"
    );
    assert_eq!(
        refused(&sandbox, with("grant_type", json!("password"))).await,
        "unsupported_grant_type"
    );
    assert_eq!(
        refused(&sandbox, with("grant_type", Value::Null)).await,
        "invalid_request"
    );
    assert_eq!(
        refused(&sandbox, with("code", json!("TG-1-1"))).await,
        "invalid_grant"
    );
    assert_eq!(
        refused(&sandbox, with("scope", json!("read everything"))).await,
        "invalid_scope"
    );
}

#[tokio::test]
async fn a_refresh_token_works_once_and_gives_another() {
    let connected = Connected::seller("TESTMLA1").await;
    let sandbox = &connected.sandbox;
    let (status, second) = token(sandbox, refresh(&connected.tokens["refresh_token"])).await;
    assert_eq!(status, StatusCode::OK, "{second}");
    assert_ne!(second["refresh_token"], connected.tokens["refresh_token"]);
    assert_eq!(
        refused(sandbox, refresh(&connected.tokens["refresh_token"])).await,
        "invalid_grant"
    );
    assert_eq!(
        token(sandbox, refresh(&second["refresh_token"])).await.0,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_parallel_uses_of_a_refresh_token_one_wins() {
    let connected = Connected::seller("TESTMLA1").await;
    let body = refresh(&connected.tokens["refresh_token"]);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (sandbox, body) = (connected.sandbox.clone(), body.clone());
            tokio::spawn(async move { token(&sandbox, body).await.0 })
        })
        .collect();
    let mut won = 0;
    for call in calls {
        won += u32::from(call.await.unwrap() == StatusCode::OK);
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn without_rotation_the_refresh_token_stays() {
    let connected = Connected::to(
        Sandbox::new(SandboxOptions {
            rotate_refresh_tokens: false,
            ..options()
        }),
        "TESTMLA1",
    )
    .await;
    for _ in 0..3 {
        let (status, tokens) = token(&connected.sandbox, refresh(&connected.tokens["refresh_token"])).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(tokens["refresh_token"], connected.tokens["refresh_token"]);
    }
}

#[tokio::test]
async fn a_refresh_leaves_the_old_access_token_or_kills_it_as_told() {
    for (old_access_token, expected) in [
        (OldAccessToken::Lives, StatusCode::OK),
        (OldAccessToken::Dies, StatusCode::UNAUTHORIZED),
    ] {
        let sandbox = Sandbox::new(SandboxOptions {
            old_access_token,
            ..options()
        });
        let connected = Connected::to(sandbox, "TESTMLA1").await;
        token(&connected.sandbox, refresh(&connected.tokens["refresh_token"])).await;
        assert_eq!(connected.call("GET", "/users/me", Value::Null).await.0, expected);
    }
}

#[tokio::test]
async fn an_access_token_dies_at_its_age_and_a_refresh_token_180_days_after_its_issue() {
    let sandbox = Sandbox::new(SandboxOptions {
        token_lifetime: Duration::hours(6),
        ..options()
    });
    let connected = Connected::to(sandbox, "TESTMLA1").await;
    assert_eq!(connected.tokens["expires_in"], 21_600);
    connected.sandbox.advance(Duration::hours(6));
    assert_eq!(
        connected.call("GET", "/users/me", Value::Null).await.0,
        StatusCode::UNAUTHORIZED
    );
    connected.sandbox.advance(Duration::days(180));
    let body = refresh(&connected.tokens["refresh_token"]);
    assert_eq!(refused(&connected.sandbox, body).await, "invalid_grant");
}

#[tokio::test]
async fn whatever_ends_a_grant_kills_the_access_token_and_shows_at_the_next_refresh() {
    for (reason, error) in [
        (EndReason::PasswordChange, "invalid_grant"),
        (EndReason::Deauthorized, "unauthorized_client"),
        (EndReason::FraudCleanup, "forbidden"),
        (EndReason::SessionCleanup, "invalid_grant"),
    ] {
        let connected = Connected::seller("TESTMLA1").await;
        let user_id = connected.tokens["user_id"].as_u64().unwrap();
        let name = serde_json::to_value(reason).unwrap();
        let path = format!("/_sandbox/sellers/{user_id}/revoke");
        assert_eq!(
            control(&connected.sandbox, &path, json!({ "reason": name })).await["ended"],
            1
        );
        assert_eq!(
            connected.call("GET", "/users/me", Value::Null).await.0,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(
            refused(&connected.sandbox, refresh(&connected.tokens["refresh_token"])).await,
            error
        );
    }
    let connected = Connected::seller("TESTMLA1").await;
    let path = format!("/_sandbox/applications/{CLIENT_ID}");
    assert_eq!(
        send(&connected.sandbox, "DELETE", &path, Value::Null).await.0,
        StatusCode::OK
    );
    assert_eq!(
        connected.call("GET", "/users/me", Value::Null).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        refused(&connected.sandbox, refresh(&connected.tokens["refresh_token"])).await,
        "invalid_client"
    );
}

#[tokio::test]
async fn expired_access_tokens_can_be_made_without_moving_the_clock() {
    let connected = Connected::seller("TESTMLA1").await;
    let path = format!("/_sandbox/sellers/{}/revoke", connected.tokens["user_id"]);
    control(&connected.sandbox, &path, json!({ "reason": "expired" })).await;
    assert_eq!(
        connected.call("GET", "/users/me", Value::Null).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        token(&connected.sandbox, refresh(&connected.tokens["refresh_token"]))
            .await
            .0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn an_application_has_an_account_of_its_own_for_six_hours() {
    let sandbox = sandbox();
    let body = json!({
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "client_credentials",
    });
    let (status, tokens) = token(&sandbox, body).await;
    assert_eq!(status, StatusCode::OK, "{tokens}");
    assert_eq!(tokens["expires_in"], 21_600);
    assert!(tokens.get("refresh_token").is_none());
    assert_eq!(sandbox.token_calls("client_credentials"), 1);
}

#[tokio::test]
async fn without_offline_access_there_is_no_refresh_token() {
    let scopes = vec![String::from("read")];
    let connected = Connected::to(Sandbox::new(SandboxOptions { scopes, ..options() }), "TESTMLA1").await;
    assert!(connected.tokens.get("refresh_token").is_none());
    let (status, answer) = connected
        .call("POST", "/v1/customers", json!({ "email": "a@b.co" }))
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(answer["code"], "PA_UNAUTHORIZED_RESULT_FROM_POLICIES");
}
