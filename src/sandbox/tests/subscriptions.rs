//! Plans, subscriptions and their invoices.

use chrono::Duration;

use super::*;

fn pending() -> Value {
    json!({
        "reason": "Yoga classes", "external_reference": "YG-1234", "payer_email": "test_user_75650838@testuser.com",
        "auto_recurring": {
            "frequency": 1, "frequency_type": "months", "transaction_amount": 10, "currency_id": "ARS",
        },
        "back_url": "https://www.yoursite.com", "status": "pending",
    })
}

fn plan() -> Value {
    json!({
        "reason": "Yoga classes",
        "auto_recurring": {
            "frequency": 1, "frequency_type": "months", "repetitions": 12, "transaction_amount": 10,
            "currency_id": "ARS",
        },
        "back_url": "https://www.yoursite.com",
    })
}

async fn authorized(connected: &Connected, cardholder: &str) -> String {
    let mut body = pending();
    body["status"] = json!("authorized");
    body["card_token_id"] = json!(connected.card_token(MASTER, cardholder).await);
    let subscription = connected.ok("POST", "/preapproval", body).await;
    assert_eq!(subscription["status"], "authorized");
    String::from(subscription["id"].as_str().unwrap())
}

async fn invoices(connected: &Connected, id: &str) -> Vec<Value> {
    let path = format!("/authorized_payments/search?preapproval_id={id}");
    connected.ok("GET", &path, Value::Null).await["results"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn a_subscription_charges_on_its_dates_and_writes_invoices() {
    let connected = Connected::seller("TESTMLA1").await;
    let id = authorized(&connected, "APRO").await;
    connected.sandbox.advance(Duration::days(70));
    let invoices = invoices(&connected, &id).await;
    let dates: Vec<_> = invoices
        .iter()
        .map(|invoice| invoice["debit_date"].as_str().unwrap())
        .collect();
    assert_eq!(
        dates,
        [
            "2026-03-02T08:00:00.000-04:00",
            "2026-04-02T08:00:00.000-04:00",
            "2026-05-02T08:00:00.000-04:00"
        ]
    );
    let payment = format!("/v1/payments/{}", invoices[1]["payment"]["id"]);
    let payment = connected.ok("GET", &payment, Value::Null).await;
    assert_eq!(payment["operation_type"], "recurring_payment");
    assert_eq!(payment["date_approved"], "2026-04-02T08:00:00.000-04:00");
    let subscription = connected
        .ok("GET", &format!("/preapproval/{id}"), Value::Null)
        .await;
    assert_eq!(subscription["summarized"]["charged_quantity"], 3);
    assert_eq!(subscription["summarized"]["charged_amount"], 30);
    assert_eq!(subscription["next_payment_date"], "2026-06-02T08:00:00.000-04:00");
}

#[tokio::test]
async fn a_failing_charge_is_retried_and_in_the_end_the_subscription_is_cancelled() {
    let connected = Connected::seller("TESTMLA1").await;
    let id = authorized(&connected, "APRO FUND").await;
    let first = &invoices(&connected, &id).await[0];
    assert_eq!(
        (&first["status"], &first["retry_attempt"]),
        (&json!("recycling"), &json!(0))
    );
    connected.sandbox.advance(Duration::days(10));
    let first = &invoices(&connected, &id).await[0];
    assert_eq!(
        (&first["status"], &first["retry_attempt"]),
        (&json!("cancelled"), &json!(3))
    );
    connected.sandbox.advance(Duration::days(90));
    let subscription = connected
        .ok("GET", &format!("/preapproval/{id}"), Value::Null)
        .await;
    assert_eq!(
        (&subscription["status"], &subscription["summarized"]["semaphore"]),
        (&json!("cancelled"), &json!("red"))
    );
}

#[tokio::test]
async fn a_second_payment_method_takes_over_when_the_first_fails() {
    let connected = Connected::seller("TESTMLA1").await;
    let mut body = pending();
    body["status"] = json!("authorized");
    body["card_token_id"] = json!(connected.card_token(MASTER, "APRO FUND").await);
    body["auto_recurring"]["start_date"] = json!("2026-03-10T12:00:00.000Z");
    let subscription = connected.ok("POST", "/preapproval", body).await;
    let id = subscription["id"].as_str().unwrap();
    let path = format!("/preapproval/{id}");
    let second = connected.card_token("4509953566233704", "APRO").await;
    let change = json!({ "card_token_id_secondary": second, "payment_method_id_secondary": "visa" });
    let changed = connected.ok("PUT", &path, change).await;
    assert_eq!(changed["payment_method_id_secondary"], "visa");
    connected.sandbox.advance(Duration::days(8));
    let invoice = &invoices(&connected, id).await[0];
    assert_eq!(
        (&invoice["status"], &invoice["payment_method_id"]),
        (&json!("processed"), &json!("visa"))
    );
}

#[tokio::test]
async fn every_row_of_the_management_table_works() {
    let connected = Connected::seller("TESTMLA1").await;
    let id = authorized(&connected, "APRO").await;
    let path = format!("/preapproval/{id}");
    let found = connected
        .ok(
            "GET",
            "/preapproval/search?payer_email=test_user_75650838@testuser.com",
            Value::Null,
        )
        .await;
    assert_eq!(found["results"][0]["id"], json!(id));
    let amount = json!({ "auto_recurring": { "transaction_amount": 20, "currency_id": "ARS" } });
    assert_eq!(
        connected.ok("PUT", &path, amount).await["auto_recurring"]["transaction_amount"],
        20
    );
    let card = connected.card_token("4509953566233704", "APRO").await;
    let changed = connected.ok("PUT", &path, json!({ "card_token_id": card })).await;
    assert_eq!(changed["payment_method_id"], "visa");
    let paused = connected.ok("PUT", &path, json!({ "status": "paused" })).await;
    assert_eq!(paused["status"], "paused");
    connected.sandbox.advance(Duration::days(40));
    assert_eq!(invoices(&connected, &id).await.len(), 1);
    let until =
        json!({ "status": "authorized", "auto_recurring": { "end_date": "2026-06-20T00:00:00.000Z" } });
    let resumed = connected.ok("PUT", &path, until).await;
    assert_eq!(resumed["next_payment_date"], "2026-05-02T08:00:00.000-04:00");
    let day = connected
        .ok("PUT", &path, json!({ "auto_recurring": { "billing_day": 20 } }))
        .await;
    assert_eq!(day["next_payment_date"], "2026-05-20T08:00:00.000-04:00");
    let proportional = json!({ "auto_recurring": { "billing_day_proportional": true } });
    assert_eq!(
        connected.ok("PUT", &path, proportional).await["auto_recurring"]["billing_day_proportional"],
        true
    );
    let cancelled = connected.ok("PUT", &path, json!({ "status": "cancelled" })).await;
    assert_eq!(cancelled["status"], "cancelled");
    let (status, _) = connected
        .call("PUT", &path, json!({ "status": "authorized" }))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_plan_gives_its_subscriptions_amount_and_free_trial() {
    let connected = Connected::seller("TESTMLA1").await;
    let made = connected.ok("POST", "/preapproval_plan", plan()).await;
    let path = format!("/preapproval_plan/{}", made["id"].as_str().unwrap());
    let trial = json!({ "auto_recurring": { "free_trial": { "frequency": 1, "frequency_type": "months" } } });
    connected.ok("PUT", &path, trial).await;
    let body = json!({
        "preapproval_plan_id": made["id"], "payer_email": "test_user@testuser.com",
        "card_token_id": connected.card_token(MASTER, "APRO").await, "status": "authorized",
    });
    let subscription = connected.ok("POST", "/preapproval", body.clone()).await;
    assert_eq!(subscription["auto_recurring"]["transaction_amount"], 10);
    assert_eq!(subscription["next_payment_date"], "2026-04-02T08:00:00.000-04:00");
    let mut without_card = body.clone();
    without_card["card_token_id"] = Value::Null;
    let (status, answer) = connected.call("POST", "/preapproval", without_card).await;
    assert_eq!(
        (status, &answer["message"]),
        (StatusCode::BAD_REQUEST, &json!("card_token_id is required"))
    );
    let mut again = body;
    again["card_token_id"] = json!(connected.card_token(MASTER, "APRO").await);
    assert_eq!(
        connected.call("POST", "/preapproval", again).await.0,
        StatusCode::BAD_REQUEST
    );
    let found = connected
        .ok("GET", "/preapproval_plan/search?status=active", Value::Null)
        .await;
    assert_eq!(found["paging"]["total"], 1);
}

#[tokio::test]
async fn a_proportional_amount_is_charged_at_once_and_the_whole_one_on_the_billing_day() {
    let connected = Connected::seller("TESTMLA1").await;
    let mut body = pending();
    body["status"] = json!("authorized");
    body["card_token_id"] = json!(connected.card_token(MASTER, "APRO").await);
    body["auto_recurring"]["transaction_amount"] = json!(31);
    body["auto_recurring"]["billing_day"] = json!(10);
    body["auto_recurring"]["billing_day_proportional"] = json!(true);
    let subscription = connected.ok("POST", "/preapproval", body).await;
    connected.sandbox.advance(Duration::days(9));
    let invoices = invoices(&connected, subscription["id"].as_str().unwrap()).await;
    let amounts: Vec<_> = invoices
        .iter()
        .map(|invoice| invoice["transaction_amount"].clone())
        .collect();
    assert_eq!(amounts, [json!(8), json!(31)]);
}

#[tokio::test]
async fn a_pending_subscription_is_authorized_once_it_has_a_card() {
    let connected = Connected::seller("TESTMLA1").await;
    let subscription = connected.ok("POST", "/preapproval", pending()).await;
    assert_eq!(subscription["status"], "pending");
    assert!(
        subscription["init_point"]
            .as_str()
            .unwrap()
            .contains("preapproval_id=")
    );
    let path = format!("/preapproval/{}", subscription["id"].as_str().unwrap());
    let (status, _) = connected
        .call("PUT", &path, json!({ "status": "authorized" }))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let card = connected.card_token(MASTER, "APRO").await;
    let changed = connected
        .ok(
            "PUT",
            &path,
            json!({ "status": "authorized", "card_token_id": card }),
        )
        .await;
    assert_eq!(changed["status"], "authorized");
}

#[tokio::test]
async fn a_card_that_fails_validation_is_a_401_of_business_and_not_of_the_token() {
    let connected = Connected::seller("TESTMLA1").await;
    let mut body = pending();
    body["status"] = json!("authorized");
    body["card_token_id"] = json!(connected.card_token(MASTER, "OTHE").await);
    let (status, answer) = connected.call("POST", "/preapproval", body).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(answer["message"].as_str().unwrap().contains("CC_VAL_433"));
    connected.ok("GET", "/users/me", Value::Null).await;
}

#[tokio::test]
async fn wrong_subscriptions_are_refused_with_a_message() {
    let connected = Connected::seller("TESTMLA1").await;
    let recurring = |member: &str, value: Value| {
        let mut body = pending();
        body["auto_recurring"][member] = value;
        body
    };
    let top = |member: &str, value: Value| {
        let mut body = pending();
        body[member] = value;
        body
    };
    for (body, part) in [
        (recurring("frequency", Value::Null), "frequency is required"),
        (
            recurring("frequency_type", Value::Null),
            "frequency_type is required",
        ),
        (
            recurring("transaction_amount", Value::Null),
            "transaction_amount is required",
        ),
        (recurring("currency_id", Value::Null), "currency_id is required"),
        (recurring("frequency", json!(0)), "frequency"),
        (recurring("frequency_type", json!("weeks")), "frequency_type"),
        (recurring("transaction_amount", json!(-1)), "positive"),
        (recurring("transaction_amount", json!(1.005)), "decimals"),
        (recurring("transaction_amount", json!(0.1)), "lower than"),
        (
            recurring("transaction_amount", json!(1_000_000_000)),
            "greater than",
        ),
        (recurring("currency_id", json!("BRL")), "currency_id"),
        (recurring("start_date", json!("soon")), "date format"),
        (recurring("end_date", json!("2020-01-01T00:00:00.000Z")), "future"),
        (top("payer_email", Value::Null), "payer_email is required"),
        (top("payer_email", json!("nobody")), "payer_email"),
        (
            top("payer_email", json!("test_user_241000001@testuser.com")),
            "same user",
        ),
        (top("back_url", json!("nowhere")), "back_url"),
        (top("reason", json!("a".repeat(256))), "reason"),
        (
            top("external_reference", json!("a".repeat(256))),
            "external_reference",
        ),
        (top("status", json!("authorized")), "card_token_id is required"),
        (top("status", json!("sleeping")), "status"),
        (top("card_token_id", json!("no")), "Card token"),
    ] {
        let (status, answer) = connected.call("POST", "/preapproval", body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(
            answer["message"].as_str().unwrap().contains(part),
            "{part}: {answer}"
        );
    }
}
