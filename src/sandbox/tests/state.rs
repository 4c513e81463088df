//! What survives a restart, what a seed repeats.

use super::*;

#[tokio::test]
async fn a_state_file_keeps_sellers_tokens_payments_and_the_moved_clock() {
    let folder = tempfile::tempdir().unwrap();
    let state_file = Some(folder.path().join("sandbox.json"));
    let options = || SandboxOptions {
        state_file: state_file.clone(),
        ..options()
    };
    let connected = Connected::to(Sandbox::open(options()).unwrap(), "TESTMLA1").await;
    connected.sandbox.advance(chrono::Duration::days(3));
    let paid = connected.pay("APRO").await;
    let unused = connected.card_token(MASTER, "APRO").await;
    let mut subscription = json!({
        "reason": "Yoga", "payer_email": "test_user@testuser.com", "status": "authorized",
        "auto_recurring": {
            "frequency": 1, "frequency_type": "months", "transaction_amount": 10, "currency_id": "ARS",
        },
    });
    subscription["card_token_id"] = json!(connected.card_token(MASTER, "APRO").await);
    let subscription = connected.ok("POST", "/preapproval", subscription).await;
    connected
        .ok(
            "POST",
            "/v1/customers",
            json!({ "email": "a@b.co", "metadata": { "n": 1.5 } }),
        )
        .await;
    connected.sandbox.world.save().unwrap();

    let again = Connected {
        sandbox: Sandbox::open(options()).unwrap(),
        tokens: connected.tokens.clone(),
        next_key: std::cell::Cell::new(100),
    };
    assert_eq!(again.sandbox.now(), connected.sandbox.now());
    assert_eq!(
        again
            .ok("GET", &format!("/v1/payments/{}", paid["id"]), Value::Null)
            .await,
        paid
    );
    let found = again
        .ok("GET", "/v1/customers/search?email=a@b.co", Value::Null)
        .await;
    assert_eq!(found["results"][0]["metadata"]["n"], 1.5);
    let second = again.ok("POST", "/v1/payments", payment(&unused)).await;
    assert!(second["id"].as_u64() > paid["id"].as_u64());
    again.sandbox.advance(chrono::Duration::days(31));
    let path = format!("/preapproval/{}", subscription["id"].as_str().unwrap());
    assert_eq!(
        again.ok("GET", &path, Value::Null).await["summarized"]["charged_quantity"],
        2
    );
    let (status, _) = send(
        &again.sandbox,
        "POST",
        "/oauth/token",
        refresh(&again.tokens["refresh_token"]),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_state_file_that_is_none_is_an_error_and_not_a_fresh_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sandbox.json");
    std::fs::write(&path, "{}").unwrap();
    assert!(
        Sandbox::open(SandboxOptions {
            state_file: Some(path),
            ..options()
        })
        .is_err()
    );
}

#[tokio::test]
async fn the_same_seed_gives_the_same_ids_and_tokens() {
    let (one, other) = (
        Connected::seller("TESTMLB1").await,
        Connected::seller("TESTMLB1").await,
    );
    assert_eq!(one.tokens, other.tokens);
    assert_eq!(one.pay("FUND").await, other.pay("FUND").await);
}
