//! Payments and refunds.

use chrono::Duration;

use super::*;
use crate::sandbox::payments::by_cardholder;

#[tokio::test]
async fn a_card_payment_is_approved_with_its_fees() {
    let connected = Connected::seller("TESTMLA1").await;
    let token = connected.card_token(MASTER, "APRO").await;
    let mut body = payment(&token);
    body["application_fee"] = json!(10);
    body["external_reference"] = json!("order-1");
    let (status, paid) = connected.call("POST", "/v1/payments", body).await;
    assert_eq!(status, StatusCode::CREATED, "{paid}");
    assert_eq!(paid["status"], "approved");
    assert_eq!(paid["status_detail"], "accredited");
    assert_eq!(paid["payment_type_id"], "credit_card");
    assert_eq!(paid["transaction_details"]["net_received_amount"], 86);
    assert_eq!(paid["fee_details"][1]["type"], "application_fee");
    assert_eq!(paid["card"]["last_four_digits"], "0604");
    assert_eq!(paid["date_approved"], "2026-03-02T08:00:00.000-04:00");
    let path = format!("/v1/payments/{}", paid["id"]);
    assert_eq!(connected.ok("GET", &path, Value::Null).await, paid);
    let found = connected
        .ok(
            "GET",
            "/v1/payments/search?sort=date_created&criteria=desc&external_reference=order-1",
            Value::Null,
        )
        .await;
    assert_eq!(found["paging"]["total"], 1);
    assert_eq!(found["results"][0]["id"], paid["id"]);
}

#[tokio::test]
async fn the_cardholders_name_decides_as_with_mercado_pagos_test_cards() {
    let connected = Connected::seller("TESTMLA1").await;
    for name in [
        "APRO",
        "OTHE",
        "CONT",
        "CALL",
        "FUND",
        "SECU",
        "EXPI",
        "FORM",
        "CARD",
        "INST",
        "DUPL",
        "LOCK",
        "CTNA",
        "ATTE",
        "BLAC",
        "UNSU",
        "Somebody Else",
    ] {
        let paid = connected.pay(name).await;
        let (status, detail) = by_cardholder(name);
        assert_eq!(paid["status"], serde_json::to_value(status).unwrap(), "{name}");
        assert_eq!(paid["status_detail"], detail, "{name}");
    }
}

#[tokio::test]
async fn one_idempotency_key_makes_one_payment_even_with_the_token_used_up() {
    let connected = Connected::seller("TESTMLA1").await;
    let token = connected.card_token(MASTER, "APRO").await;
    let first = connected
        .call_with_key("POST", "/v1/payments", "k", payment(&token))
        .await;
    let second = connected
        .call_with_key("POST", "/v1/payments", "k", payment(&token))
        .await;
    assert_eq!((first.0, second.0), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(first.1, second.1);
    let (status, answer) = connected
        .call_without_key("POST", "/v1/payments", payment(&token))
        .await;
    assert_eq!(
        (status, &answer["cause"][0]["code"]),
        (StatusCode::BAD_REQUEST, &json!(4292))
    );
}

#[tokio::test]
async fn numbers_of_metadata_come_back_to_the_last_digit() {
    let connected = Connected::seller("TESTMLA1").await;
    let body = r#"{"transaction_amount":1.10,"payment_method_id":"rapipago","payer":{"email":"a@b.co"},"metadata":{"a":1.10,"b":12345678901234567890}}"#;
    let mut request = connected.request("POST", "/v1/payments", Some("k"), &Value::Null);
    *request.body_mut() = Body::from(body);
    let response = connected.sandbox.router().oneshot(request).await.unwrap();
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    let answer = std::str::from_utf8(&answer).unwrap();
    assert!(
        answer.contains(r#""metadata":{"a":1.10,"b":12345678901234567890}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn a_card_token_works_once_and_for_seven_days() {
    let connected = Connected::seller("TESTMLA1").await;
    let token = connected.card_token(MASTER, "APRO").await;
    connected.ok("POST", "/v1/payments", payment(&token)).await;
    assert_eq!(
        connected.refused("POST", "/v1/payments", payment(&token)).await,
        (400, json!(2062))
    );
    let old = connected.card_token(MASTER, "APRO").await;
    connected.sandbox.advance(Duration::days(7));
    assert_eq!(
        connected.refused("POST", "/v1/payments", payment(&old)).await,
        (400, json!(2062))
    );
    let path = format!("/v1/card_tokens/{old}");
    assert_eq!(connected.ok("GET", &path, Value::Null).await["status"], "expired");
}

#[tokio::test]
async fn another_sellers_card_tokens_and_payments_are_out_of_reach() {
    let one = Connected::seller("TESTMLA1").await;
    let other = Connected::to(one.sandbox.clone(), "TESTMLA2").await;
    let token = one.card_token(MASTER, "APRO").await;
    assert_eq!(
        other.refused("POST", "/v1/payments", payment(&token)).await,
        (400, json!(2006))
    );
    let paid = one.ok("POST", "/v1/payments", payment(&token)).await;
    let path = format!("/v1/payments/{}", paid["id"]);
    assert_eq!(other.refused("GET", &path, Value::Null).await, (403, json!(4)));
    assert_eq!(
        other.refused("GET", "/v1/payments/1", Value::Null).await,
        (404, json!(2000))
    );
}

#[tokio::test]
async fn a_token_of_the_applications_public_key_pays_for_its_sellers() {
    let connected = Connected::seller("TESTMLA1").await;
    let key = connected.sandbox.application_key(CLIENT_ID).unwrap();
    let path = format!("/v1/card_tokens?public_key={key}");
    let (_, token) = send(&connected.sandbox, "POST", &path, card(MASTER, "APRO")).await;
    let paid = connected
        .ok("POST", "/v1/payments", payment(token["id"].as_str().unwrap()))
        .await;
    assert_eq!(paid["status"], "approved");
}

#[tokio::test]
async fn each_wrong_field_has_its_code() {
    let connected = Connected::seller("TESTMLA1").await;
    let cases = [
        ("transaction_amount", Value::Null, 4002),
        ("transaction_amount", json!("100"), 4003),
        ("transaction_amount", json!(-1), 4037),
        ("transaction_amount", json!(1.005), 4037),
        ("installments", Value::Null, 4004),
        ("installments", json!("three"), 4005),
        ("token", json!(7), 3003),
        ("token", json!("0123456789abcdef0123456789abcdef"), 2006),
        ("payment_method_id", json!(1), 3028),
        ("payment_method_id", json!("pix"), 3011),
        ("payment_method_id", json!("visa"), 3028),
        ("issuer_id", json!("a bank"), 3001),
        ("payer", Value::Null, 4006),
        ("payer", json!({}), 4050),
        ("payer", json!({ "email": "nobody" }), 4050),
        (
            "payer",
            json!({ "email": format!("{}@b.co", "a".repeat(260)) }),
            4051,
        ),
        ("payer", json!({ "type": "customer" }), 4012),
        ("payer", json!({ "id": "1-a", "email": "a@b.co" }), 4013),
        ("payer", json!({ "type": "friend", "email": "a@b.co" }), 4029),
        ("payer", json!({ "type": "customer", "id": "1-a" }), 2002),
        (
            "payer",
            json!({ "email": "test_user_241000001@testuser.com" }),
            2060,
        ),
        (
            "payer",
            json!({ "email": "test_user_341001001@testuser.com" }),
            2034,
        ),
        ("date_of_expiration", json!("2020-01-01T00:00:00.000-04:00"), 7523),
        (
            "payer",
            json!({ "email": "a@b.co", "identification": { "type": "DNI", "number": "1" } }),
            2067,
        ),
        ("metadata", json!("text"), 4022),
        ("notification_url", json!("nowhere"), 4020),
        (
            "notification_url",
            json!(format!("https://a.co/{}", "a".repeat(500))),
            4021,
        ),
        ("coupon_amount", json!("1"), 4026),
        ("coupon_amount", json!(-1), 4028),
        ("campaign_id", json!("x"), 4027),
        ("application_fee", json!(101), 4038),
        ("application_fee", json!(-1), 4039),
        ("date_of_expiration", json!("tomorrow"), 23),
        ("external_reference", json!("a".repeat(257)), 1),
    ];
    for (member, value, code) in cases {
        let token = connected.card_token(MASTER, "APRO").await;
        let mut body = payment(&token);
        body[member] = value.clone();
        assert_eq!(
            connected.refused("POST", "/v1/payments", body).await,
            (400, json!(code)),
            "{member} {value}"
        );
    }
    let no_method = json!({ "transaction_amount": 1, "payer": { "email": "a@b.co" } });
    assert_eq!(
        connected.refused("POST", "/v1/payments", no_method).await,
        (400, json!(4001))
    );
    let debit = connected.card_token("5287338310253304", "APRO").await;
    let mut body = payment(&debit);
    body["payment_method_id"] = json!("debmaster");
    body["capture"] = json!(false);
    assert_eq!(
        connected.refused("POST", "/v1/payments", body).await,
        (400, json!(2077))
    );
}

#[tokio::test]
async fn a_marketplace_fee_needs_a_sellers_consent() {
    let sandbox = sandbox();
    let body = json!({
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "client_credentials",
    });
    let (_, tokens) = send(&sandbox, "POST", "/oauth/token", body).await;
    let own = Connected {
        sandbox,
        tokens,
        next_key: std::cell::Cell::new(0),
    };
    let body = json!({
        "transaction_amount": 10, "payment_method_id": "rapipago", "payer": { "email": "a@b.co" },
        "application_fee": 1,
    });
    assert_eq!(
        own.refused("POST", "/v1/payments", body).await,
        (400, json!(2059))
    );
}

#[tokio::test]
async fn an_authorization_is_captured_in_part_or_cancelled_and_not_both() {
    let connected = Connected::seller("TESTMLA1").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut body = payment(&connected.card_token(MASTER, "APRO").await);
        body["capture"] = json!(false);
        let payment = connected.ok("POST", "/v1/payments", body).await;
        assert_eq!(
            (&payment["status"], &payment["captured"]),
            (&json!("authorized"), &json!(false))
        );
        held.push(format!("/v1/payments/{}", payment["id"]));
    }
    let captured = connected
        .ok(
            "PUT",
            &held[0],
            json!({ "capture": true, "transaction_amount": 60.5 }),
        )
        .await;
    assert_eq!(
        (&captured["status"], &captured["transaction_amount"]),
        (&json!("approved"), &json!(60.5))
    );
    let cancelled = connected
        .ok("PUT", &held[1], json!({ "status": "cancelled" }))
        .await;
    assert_eq!(cancelled["status_detail"], "by_collector");
    assert_eq!(
        connected
            .refused("PUT", &held[0], json!({ "status": "cancelled" }))
            .await,
        (400, json!(3005))
    );
    assert_eq!(
        connected
            .refused("PUT", &held[1], json!({ "capture": true }))
            .await,
        (400, json!(3005))
    );
}

#[tokio::test]
async fn an_unpaid_payment_expires_after_thirty_days_unless_it_is_paid() {
    let connected = Connected::seller("TESTMLA1").await;
    let body =
        json!({ "transaction_amount": 10, "payment_method_id": "rapipago", "payer": { "email": "a@b.co" } });
    let unpaid = connected.ok("POST", "/v1/payments", body.clone()).await;
    let paid = connected.ok("POST", "/v1/payments", body).await;
    assert_eq!(unpaid["status_detail"], "pending_waiting_payment");
    control(
        &connected.sandbox,
        &format!("/_sandbox/payments/{}/status", paid["id"]),
        json!({ "status": "approved" }),
    )
    .await;
    control(&connected.sandbox, "/_sandbox/clock", json!({ "advance": "30d" })).await;
    let state = |id: &Value| format!("/v1/payments/{id}");
    assert_eq!(
        connected.ok("GET", &state(&unpaid["id"]), Value::Null).await["status_detail"],
        "expired"
    );
    assert_eq!(
        connected.ok("GET", &state(&paid["id"]), Value::Null).await["status"],
        "approved"
    );
}

#[tokio::test]
async fn old_payments_are_forgotten_when_told_so() {
    let sandbox = Sandbox::new(SandboxOptions {
        forget_after: Some(3),
        ..options()
    });
    let connected = Connected::to(sandbox, "TESTMLA1").await;
    let body =
        json!({ "transaction_amount": 10, "payment_method_id": "rapipago", "payer": { "email": "a@b.co" } });
    let first = connected.ok("POST", "/v1/payments", body.clone()).await;
    for _ in 0..3 {
        connected.ok("POST", "/v1/payments", body.clone()).await;
    }
    let path = format!("/v1/payments/{}", first["id"]);
    assert_eq!(
        connected.refused("GET", &path, Value::Null).await,
        (404, json!(2000))
    );
    let all = connected.ok("GET", "/v1/payments/search", Value::Null).await;
    assert_eq!(all["paging"]["total"], 3);
}

#[tokio::test]
async fn a_registered_buyer_pays_with_the_account() {
    let connected = Connected::seller("TESTMLA1").await;
    let request = Request::get("/_sandbox/buyers").body(Body::empty()).unwrap();
    let (_, buyers) = call(&connected.sandbox, request).await;
    let buyer = &buyers[0];
    assert_eq!(buyer["site_id"], "MLA");
    let mut body = payment(&connected.card_token(MASTER, "APRO").await);
    body["payer"] = json!({ "email": buyer["email"] });
    let paid = connected.ok("POST", "/v1/payments", body).await;
    assert_eq!(
        (&paid["payer"]["type"], &paid["payer"]["id"]),
        (&json!("registered"), &json!(buyer["user_id"].to_string()))
    );
}

#[tokio::test]
async fn test_credentials_and_live_card_tokens_are_not_mixed() {
    let sandbox = sandbox();
    let mut body = exchange(&code(&sandbox, "TESTMLA1"));
    body["test_token"] = json!("true");
    let (_, tokens) = send(&sandbox, "POST", "/oauth/token", body).await;
    assert_eq!(tokens["live_mode"], false);
    assert!(tokens["public_key"].as_str().unwrap().starts_with("TEST-"));
    let live = Connected::to(sandbox.clone(), "TESTMLA1").await;
    let test = Connected {
        sandbox,
        tokens,
        next_key: std::cell::Cell::new(50),
    };
    let (of_live, of_test) = (
        live.card_token(MASTER, "APRO").await,
        test.card_token(MASTER, "APRO").await,
    );
    assert_eq!(
        test.refused("POST", "/v1/payments", payment(&of_live)).await,
        (400, json!(3))
    );
    assert_eq!(
        live.refused("POST", "/v1/payments", payment(&of_test)).await,
        (401, json!(7))
    );
    assert_eq!(
        test.ok("POST", "/v1/payments", payment(&of_test)).await["live_mode"],
        false
    );
    let email = json!({ "email": "buyer@example.com" });
    assert_eq!(
        test.refused("POST", "/v1/customers", email).await,
        (400, json!("128"))
    );
    test.ok(
        "POST",
        "/v1/customers",
        json!({ "email": "test_payer_1@testuser.com" }),
    )
    .await;
}
