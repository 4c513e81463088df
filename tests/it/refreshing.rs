//! What keeps sellers connected (DESIGN.md section 7), over HTTP: time passes, tokens end, Mercado Pago misbehaves.

use std::sync::Arc;

use chrono::TimeDelta;
use marketplace_connector::sandbox::{EndReason, Fault, OldAccessToken, SandboxOptions};
use serde_json::json;

use crate::support::app::TestApp;
use crate::support::process::rescued_answers;

fn fault(text: &str) -> Fault {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_calls_on_an_expired_token_make_one_refresh_and_get_fifty_answers() {
    let app = Arc::new(TestApp::start().await);
    app.connect_seller("seller-1").await;
    app.advance(TimeDelta::days(179));
    // The refresh token lives as long; only the access token is over.
    app.sandbox.expire_access_tokens(app.account(0));
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let app = Arc::clone(&app);
            tokio::spawn(async move { app.proxied_get("seller-1", "/v1/payment_methods").await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(app.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_spent_before_day_74_and_everybody_is_renewed_by_day_119() {
    let app = TestApp::start().await;
    for account in 0..4 {
        app.connect_seller_with_account(&format!("seller-{account}"), account)
            .await;
    }
    app.advance(TimeDelta::days(73));
    app.refresh_what_is_due().await;
    assert_eq!(app.refreshes(), 0);
    app.advance(TimeDelta::days(46));
    app.refresh_what_is_due().await;
    assert_eq!(app.refreshes(), 4);
    // And again after as long, with the tokens that the first refresh brought.
    app.advance(TimeDelta::days(119));
    app.refresh_what_is_due().await;
    assert_eq!(app.refreshes(), 8);
    for account in 0..4 {
        let call = app
            .proxied_get(&format!("seller-{account}"), "/users/me")
            .await
            .expect(200);
        assert_eq!(call.json()["id"], app.account(account));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_over_a_refresh_whether_the_old_access_token_lives_or_dies_with_it() {
    for fate in [OldAccessToken::Lives, OldAccessToken::Dies] {
        let app = TestApp::with_provider(|_| {}, |sandbox| sandbox.old_access_token = fate).await;
        app.connect_seller("seller-1").await;
        app.proxied_get("seller-1", "/users/me").await.expect(200);
        app.advance(TimeDelta::days(119));
        app.refresh_what_is_due().await;
        // Within the second in which the old token is still in memory, and after it.
        app.proxied_get("seller-1", "/v1/payment_methods")
            .await
            .expect(200);
        app.advance(TimeDelta::seconds(1));
        app.proxied_get("seller-1", "/v1/payment_methods")
            .await
            .expect(200);
        assert_eq!(app.refreshes(), 1, "{fate:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_gives_no_new_refresh_token_is_served_with_the_old_one() {
    let app = TestApp::with_provider(|_| {}, |sandbox| sandbox.rotate_refresh_tokens = false).await;
    app.connect_seller("seller-1").await;
    for round in 1..=3 {
        // Before the refresh token's own age counts.
        app.advance(TimeDelta::days(50));
        app.platform()
            .post("/v1/connections/seller-1/refresh", json!({}))
            .await
            .expect(200);
        app.proxied_get("seller-1", "/users/me").await.expect(200);
        assert_eq!(app.refreshes(), round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_without_offline_access_is_connected_flagged_and_works_until_the_token_ends() {
    let scopes = |sandbox: &mut SandboxOptions| sandbox.scopes = vec!["read".into(), "write".into()];
    let app = TestApp::with_provider(|_| {}, scopes).await;
    let connection = app.connect_seller("seller-1").await;
    assert_eq!(connection["status_reason"], "no_refresh_token");
    assert_eq!(connection["usable"], true);
    app.proxied_get("seller-1", "/users/me").await.expect(200);
    app.advance(TimeDelta::days(181));
    app.refresh_what_is_due().await;
    let answer = app.proxied_get("seller-1", "/users/me").await;
    assert_eq!(answer.problem(), (409, "reconnect_required"));
    assert_eq!(app.refreshes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_of_business_passes_unchanged_and_spends_nothing() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    // A card that fails validation: Mercado Pago says 401, and its `/users/me` still says 200.
    let body = json!({
        "reason": "Monthly box",
        "external_reference": "box-1",
        "payer_email": "buyer@example.com",
        "card_token_id": app.card_token("seller-1", "OTHE").await,
        "auto_recurring": { "frequency": 1, "frequency_type": "months", "transaction_amount": 50, "currency_id": "ARS" },
        "back_url": "https://shop.example.com/thanks",
        "status": "authorized",
    });
    let answer = app
        .platform()
        .post("/proxy/seller-1/preapproval", body)
        .await
        .expect(401);
    assert_eq!(
        answer.header("connector-error"),
        "",
        "it is Mercado Pago's own answer"
    );
    assert_eq!(app.refreshes(), 0);
    let connection = app.platform().connection("seller-1").await;
    assert_eq!(
        (&connection["status"], &connection["usable"]),
        (&json!("active"), &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_whose_grant_mercado_pago_ended_is_told_to_reconnect_and_comes_back_by_that() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    app.sandbox.revoke(app.account(0), EndReason::PasswordChange);
    let answer = app.proxied_get("seller-1", "/v1/payment_methods").await;
    assert_eq!(answer.problem(), (409, "reconnect_required"));
    assert_eq!(answer.json()["outcome"], "not_sent");
    let connection = app.platform().connection("seller-1").await;
    assert_eq!(connection["status"], "reconnect_required");
    assert_eq!(connection["status_reason"], "grant_rejected");
    assert_eq!(connection["usable"], false);
    // The dead token is not spent again by calls.
    let spent = app.refreshes();
    app.advance(TimeDelta::days(1));
    app.proxied_get("seller-1", "/v1/payment_methods")
        .await
        .expect(409);
    app.refresh_what_is_due().await;
    assert_eq!(app.refreshes(), spent);

    app.connect_seller("seller-1").await;
    app.advance(TimeDelta::seconds(1));
    app.proxied_get("seller-1", "/v1/payment_methods")
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_for_a_month_costs_no_seller() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    for account in 1..CROWD {
        app.connect_seller_with_account(&format!("other-{account}"), account)
            .await;
    }
    app.sandbox.add_fault(fault("token=500"));
    app.advance(TimeDelta::days(120));
    for _ in 0..30 {
        app.refresh_what_is_due().await;
        assert_eq!(statuses(&app).await, ["active"; CROWD]);
        app.advance(TimeDelta::days(1));
    }
    let connection = app.platform().connection("seller-1").await;
    assert_eq!(connection["status"], "active");
    assert!(
        connection["refresh_failures"].as_u64().unwrap() >= 5,
        "{connection}"
    );
    app.proxied_get("seller-1", "/users/me").await.expect(200);

    app.sandbox.clear_faults();
    app.advance(TimeDelta::days(1));
    app.refresh_what_is_due().await;
    let page = app.platform().get("/v1/connections").await.expect(200).json();
    for connection in page["data"].as_array().unwrap() {
        assert_eq!(connection["refresh_failures"], 0, "{connection}");
        assert_ne!(connection["last_refreshed_at"], json!(null), "{connection}");
    }
}

/// So many sellers that it can only be us, or Mercado Pago.
const CROWD: usize = 7;

async fn statuses(app: &TestApp) -> Vec<String> {
    let page = app.platform().get("/v1/connections").await.expect(200).json();
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| row["status"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_for_a_day_cost_no_seller_raise_one_alert_and_the_mend_resumes() {
    // A wrong client secret, and the valid one of another application.
    for answer in ["token=invalid_client", "token=invalid_grant"] {
        let app = TestApp::start().await;
        for account in 0..CROWD {
            app.connect_seller_with_account(&format!("seller-{account}"), account)
                .await;
        }
        app.sandbox.add_fault(fault(answer));
        app.advance(TimeDelta::days(119));
        for _ in 0..24 * 6 {
            app.refresh_what_is_due().await;
            assert_eq!(statuses(&app).await, ["active"; CROWD], "{answer}");
            app.advance(TimeDelta::minutes(10));
        }
        let alerts = "/v1/audit-log?action=application.suspended";
        let alerts = app.platform().get(alerts).await.expect(200).json();
        assert_eq!(alerts["data"].as_array().unwrap().len(), 1, "{alerts}");

        app.sandbox.clear_faults();
        for _ in 0..24 * 6 {
            app.refresh_what_is_due().await;
            app.advance(TimeDelta::minutes(10));
        }
        for account in 0..CROWD {
            let connection = app.platform().connection(&format!("seller-{account}")).await;
            assert_eq!(connection["status"], "active", "{connection}");
            assert_eq!(connection["refresh_failures"], 0, "{connection}");
            assert_ne!(connection["last_refreshed_at"], json!(null), "{connection}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_refresh_that_cannot_be_read_stays_in_the_rescue_folder_and_costs_no_valid_token() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    app.sandbox.add_fault(fault("token=garbage*1"));
    let answer = app
        .platform()
        .post("/v1/connections/seller-1/refresh", json!({}))
        .await;
    assert_eq!(answer.problem(), (503, "token_unavailable"));
    assert_eq!(rescued_answers(&app.rescue_dir()).len(), 1);
    let connection = app.platform().connection("seller-1").await;
    assert_eq!(connection["status"], "active");
    // The access token before it still works, and is used.
    app.proxied_get("seller-1", "/users/me").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_holds_within_a_second_for_calls_that_had_the_token_in_memory() {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    app.proxied_get("seller-1", "/users/me").await.expect(200);
    let revoked = app
        .platform()
        .delete("/v1/connections/seller-1")
        .await
        .expect(200)
        .json();
    assert_eq!(revoked["status"], "revoked");
    assert_eq!(revoked["status_reason"], "revoked_by_api");
    app.advance(TimeDelta::seconds(1));
    app.sandbox.clear_requests();
    let answer = app.proxied_get("seller-1", "/users/me").await;
    assert_eq!(answer.problem(), (409, "connection_revoked"));
    assert!(app.sandbox.requests().is_empty());
    // Again is no error, and nothing is renewed for it ever after.
    app.platform()
        .delete("/v1/connections/seller-1")
        .await
        .expect(200);
    app.advance(TimeDelta::days(170));
    app.refresh_what_is_due().await;
    let answer = app
        .platform()
        .post("/v1/connections/seller-1/refresh", json!({}))
        .await;
    assert_eq!(answer.problem().0, 409);
    assert_eq!(app.refreshes(), 0);
}
