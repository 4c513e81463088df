//! Refunds.

use chrono::Duration;

use super::*;

#[tokio::test]
async fn refunds_add_up_to_the_payment() {
    let connected = Connected::seller("TESTMLA1").await;
    let paid = connected.pay("APRO").await;
    let path = format!("/v1/payments/{}/refunds", paid["id"]);
    let part = connected
        .call_with_key("POST", &path, "r", json!({ "amount": 30 }))
        .await;
    assert_eq!(part.0, StatusCode::CREATED, "{}", part.1);
    assert_eq!(
        connected
            .call_with_key("POST", &path, "r", json!({ "amount": 30 }))
            .await
            .1,
        part.1
    );
    assert_eq!(
        connected.refused("POST", &path, json!({ "amount": 70.5 })).await,
        (400, json!(2063))
    );
    let rest = connected.ok("POST", &path, Value::Null).await;
    assert_eq!(rest["amount"], 70);
    let after = connected
        .ok("GET", &format!("/v1/payments/{}", paid["id"]), Value::Null)
        .await;
    assert_eq!(
        (&after["status"], &after["refunds"][1]["amount"]),
        (&json!("refunded"), &json!(70))
    );
    assert_eq!(
        connected
            .ok("GET", &format!("{path}/"), Value::Null)
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let one = connected
        .ok("GET", &format!("{path}/{}", rest["id"]), Value::Null)
        .await;
    assert_eq!(one, rest);
    assert_eq!(
        connected.refused("POST", &path, json!({})).await,
        (400, json!(2063))
    );
}

#[tokio::test]
async fn refund_codes_come_from_what_is_wrong() {
    let connected = Connected::seller("TESTMLA1").await;
    let paid = connected.pay("APRO").await;
    let path = format!("/v1/payments/{}/refunds", paid["id"]);
    assert_eq!(
        connected.refused("POST", &path, json!({ "amount": "all" })).await,
        (401, json!(4041))
    );
    assert_eq!(
        connected.refused("POST", &path, json!({ "amount": -1 })).await,
        (401, json!(4040))
    );
    assert_eq!(
        connected.refused("GET", &format!("{path}/1"), Value::Null).await,
        (404, json!(2032))
    );
    assert_eq!(
        connected
            .refused("POST", "/v1/payments/1/refunds", json!({}))
            .await,
        (404, json!(2000))
    );
    let (status, answer) = connected.call_without_key("POST", &path, json!({})).await;
    assert_eq!(
        (status, &answer["cause"][0]["code"]),
        (StatusCode::BAD_REQUEST, &json!(4292))
    );
    let seller = connected.tokens["user_id"].as_u64().unwrap();
    control(
        &connected.sandbox,
        &format!("/_sandbox/sellers/{seller}/balance"),
        json!({ "amount": 1 }),
    )
    .await;
    assert_eq!(
        connected.refused("POST", &path, json!({})).await,
        (400, json!(2063))
    );
    control(
        &connected.sandbox,
        &format!("/_sandbox/sellers/{seller}/balance"),
        json!({ "amount": 1000 }),
    )
    .await;
    let rejected = connected.pay("FUND").await;
    let of_rejected = format!("/v1/payments/{}/refunds", rejected["id"]);
    assert_eq!(
        connected.refused("POST", &of_rejected, json!({})).await,
        (400, json!(2063))
    );
    let sandbox = connected.sandbox.clone();
    sandbox.advance(Duration::days(179));
    let again = Connected::to(sandbox, "TESTMLA1").await;
    again.ok("POST", &path, json!({ "amount": 1 })).await;
    again.sandbox.advance(Duration::days(2));
    assert_eq!(again.refused("POST", &path, json!({})).await, (404, json!(2024)));
}

#[tokio::test]
async fn peru_has_no_partial_refunds() {
    let connected = Connected::seller("TESTMPE1").await;
    let token = connected.card_token(MASTER, "APRO").await;
    let paid = connected.ok("POST", "/v1/payments", payment(&token)).await;
    let path = format!("/v1/payments/{}/refunds", paid["id"]);
    assert_eq!(
        connected.refused("POST", &path, json!({ "amount": 1 })).await,
        (400, json!(3024))
    );
    assert_eq!(connected.ok("POST", &path, json!({})).await["amount"], 100);
}
