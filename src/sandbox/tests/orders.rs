//! Orders, preferences, merchant orders, chargebacks, addresses.

use super::*;

async fn order(connected: &Connected, name: &str, more: Value) -> Value {
    let mut body = json!({
        "type": "online", "total_amount": "100.50", "external_reference": "order-1",
        "payer": { "email": "buyer@example.com" },
        "transactions": { "payments": [{
            "amount": "100.50",
            "payment_method": {
                "id": "master", "type": "credit_card", "installments": 1,
                "token": connected.card_token(MASTER, name).await,
            },
        }] },
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn an_order_is_paid_and_refunded_in_parts() {
    let connected = Connected::seller("TESTMLA1").await;
    let made = connected
        .ok("POST", "/v1/orders", order(&connected, "APRO", json!({})).await)
        .await;
    assert_eq!(
        (&made["status"], &made["status_detail"]),
        (&json!("processed"), &json!("accredited"))
    );
    assert_eq!(made["total_paid_amount"], "100.50");
    let path = format!("/v1/orders/{}", made["id"].as_str().unwrap());
    assert_eq!(connected.ok("GET", &path, Value::Null).await, made);
    let part =
        json!({ "transactions": [{ "id": made["transactions"]["payments"][0]["id"], "amount": "40.00" }] });
    let refunded = connected.ok("POST", &format!("{path}/refund"), part).await;
    assert_eq!(refunded["status_detail"], "partially_refunded");
    let rest = connected.ok("POST", &format!("{path}/refund"), Value::Null).await;
    assert_eq!(
        (
            &rest["status_detail"],
            &rest["transactions"]["refunds"][1]["amount"]
        ),
        (&json!("refunded"), &json!("60.50"))
    );
    let (status, again) = connected
        .call("POST", &format!("{path}/refund"), Value::Null)
        .await;
    assert_eq!(
        (status, &again["error"]),
        (StatusCode::CONFLICT, &json!("order_already_refunded"))
    );
    let search = "/v1/orders?begin_date=2026-01-01T00:00:00Z&end_date=2027-01-01T00:00:00Z&status=processed";
    assert_eq!(
        connected.ok("GET", search, Value::Null).await["paging"]["total"],
        1
    );
}

#[tokio::test]
async fn an_order_is_held_then_captured_or_canceled_and_a_failing_card_is_a_402() {
    let connected = Connected::seller("TESTMLA1").await;
    let manual = json!({ "capture_mode": "manual" });
    let held = connected
        .ok(
            "POST",
            "/v1/orders",
            order(&connected, "APRO", manual.clone()).await,
        )
        .await;
    assert_eq!(
        (&held["status"], &held["status_detail"]),
        (&json!("action_required"), &json!("waiting_capture"))
    );
    let path = format!("/v1/orders/{}", held["id"].as_str().unwrap());
    assert_eq!(
        connected
            .ok("POST", &format!("{path}/capture"), Value::Null)
            .await["status"],
        "processed"
    );
    let other = connected
        .ok("POST", "/v1/orders", order(&connected, "APRO", manual).await)
        .await;
    let path = format!("/v1/orders/{}", other["id"].as_str().unwrap());
    assert_eq!(
        connected.ok("POST", &format!("{path}/cancel"), Value::Null).await["status"],
        "canceled"
    );
    let (status, again) = connected
        .call("POST", &format!("{path}/cancel"), Value::Null)
        .await;
    assert_eq!(
        (status, &again["error"]),
        (StatusCode::CONFLICT, &json!("order_already_cancelled"))
    );
    let (status, failed) = connected
        .call("POST", "/v1/orders", order(&connected, "FUND", json!({})).await)
        .await;
    assert_eq!(
        (status, &failed["errors"][0]["code"]),
        (StatusCode::PAYMENT_REQUIRED, &json!("failed"))
    );
    assert_eq!(
        failed["data"]["transactions"]["payments"][0]["status_detail"],
        "insufficient_amount"
    );
}

#[tokio::test]
async fn a_manual_order_gets_its_transactions_one_by_one() {
    let connected = Connected::seller("TESTMLA1").await;
    let mut body = order(&connected, "APRO", json!({ "processing_mode": "manual" })).await;
    let payments = body["transactions"].take();
    let made = connected.ok("POST", "/v1/orders", body).await;
    assert_eq!(made["status"], "created");
    let path = format!("/v1/orders/{}", made["id"].as_str().unwrap());
    let mut ticket = payments.clone();
    ticket["payments"][0]["payment_method"] = json!({ "id": "rapipago", "type": "ticket" });
    let added = connected
        .ok("POST", &format!("{path}/transactions"), ticket)
        .await;
    let ticket = format!(
        "{path}/transactions/{}",
        added["payments"][0]["id"].as_str().unwrap()
    );
    let (status, _) = connected.call("DELETE", &ticket, Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let added = connected
        .ok("POST", &format!("{path}/transactions"), payments)
        .await;
    let card = format!(
        "{path}/transactions/{}",
        added["payments"][0]["id"].as_str().unwrap()
    );
    let changed = connected
        .ok("PUT", &card, json!({ "payment_method": { "installments": 3 } }))
        .await;
    assert_eq!(changed["payment_method"]["installments"], 3);
    assert_eq!(
        connected
            .ok("POST", &format!("{path}/process"), Value::Null)
            .await["status"],
        "processed"
    );
}

#[tokio::test]
async fn an_order_key_answers_again_for_the_same_body_and_refuses_another_for_a_day() {
    let connected = Connected::seller("TESTMLA1").await;
    let body = order(&connected, "APRO", json!({})).await;
    let first = connected
        .call_with_key("POST", "/v1/orders", "k", body.clone())
        .await;
    assert_eq!(
        connected
            .call_with_key("POST", "/v1/orders", "k", body.clone())
            .await,
        first
    );
    let mut other = body.clone();
    other["external_reference"] = json!("order-2");
    let (status, answer) = connected
        .call_with_key("POST", "/v1/orders", "k", other.clone())
        .await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::CONFLICT, &json!("idempotency_key_already_used"))
    );
    let (status, answer) = connected.call_without_key("POST", "/v1/orders", body).await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::BAD_REQUEST, &json!("empty_required_header"))
    );
    connected.sandbox.advance(chrono::Duration::hours(25));
    other["transactions"]["payments"][0]["payment_method"]["token"] =
        json!(connected.card_token(MASTER, "APRO").await);
    assert_eq!(
        connected.call_with_key("POST", "/v1/orders", "k", other).await.0,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn wrong_orders_are_refused_with_their_codes() {
    let connected = Connected::seller("TESTMLA1").await;
    for (member, value, code) in [
        ("type", Value::Null, "required_properties"),
        ("type", json!("point"), "property_value"),
        ("total_amount", Value::Null, "required_properties"),
        ("total_amount", json!(100.5), "property_type"),
        ("total_amount", json!("1.00"), "property_value"),
        ("payer", json!({}), "required_properties"),
        ("payer", json!({ "email": "nobody" }), "property_value"),
        ("capture_mode", json!("maybe"), "property_value"),
        ("transactions", json!({}), "order_builder_without_transactions"),
    ] {
        let mut body = order(&connected, "APRO", json!({})).await;
        body[member] = value.clone();
        let (status, answer) = connected.call("POST", "/v1/orders", body).await;
        assert_eq!(
            (status, &answer["error"]),
            (StatusCode::BAD_REQUEST, &json!(code)),
            "{member} {value}"
        );
    }
    let (status, answer) = connected.call("GET", "/v1/orders/7", Value::Null).await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_path_param"))
    );
    let unknown = format!("/v1/orders/ORD{}", "0".repeat(26));
    assert_eq!(
        connected.call("GET", &unknown, Value::Null).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn preferences_and_merchant_orders_are_kept() {
    let connected = Connected::seller("TESTMLA1").await;
    let body = json!({
        "items": [{ "title": "Shirt", "quantity": 2, "unit_price": 10.5 }], "external_reference": "order-1",
    });
    let made = connected.ok("POST", "/checkout/preferences/", body).await;
    assert_eq!(
        (&made["total_amount"], &made["collector_id"]),
        (&json!(21.0), &connected.tokens["user_id"])
    );
    let path = format!("/checkout/preferences/{}", made["id"].as_str().unwrap());
    assert_eq!(
        connected
            .ok("PUT", &path, json!({ "expires": true, "id": "x" }))
            .await["id"],
        made["id"]
    );
    assert_eq!(connected.ok("GET", &path, Value::Null).await["expires"], true);
    let found = connected
        .ok(
            "GET",
            "/checkout/preferences/search?external_reference=order-1",
            Value::Null,
        )
        .await;
    assert_eq!(found["elements"][0]["id"], made["id"]);
    let (status, _) = connected
        .call("POST", "/checkout/preferences", json!({ "items": [{}] }))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let order = connected
        .ok("POST", "/merchant_orders", json!({ "preference_id": made["id"] }))
        .await;
    let path = format!("/merchant_orders/{}", order["id"]);
    connected
        .ok("PUT", &path, json!({ "additional_info": "soon" }))
        .await;
    assert_eq!(
        connected.ok("GET", &path, Value::Null).await["additional_info"],
        "soon"
    );
    let found = connected
        .ok("GET", "/merchant_orders/search?status=opened", Value::Null)
        .await;
    assert_eq!(found["total"], 1);
}

#[tokio::test]
async fn a_chargeback_is_seen_and_documented() {
    let connected = Connected::seller("TESTMLA1").await;
    let paid = connected.pay("APRO").await;
    let path = format!("/v1/chargebacks/{}", paid["id"]);
    assert_eq!(
        connected.call("GET", &path, Value::Null).await.0,
        StatusCode::NOT_FOUND
    );
    let status = format!("/_sandbox/payments/{}/status", paid["id"]);
    control(&connected.sandbox, &status, json!({ "status": "charged_back" })).await;
    assert_eq!(
        connected.ok("GET", &path, Value::Null).await["documentation_status"],
        "not_supplied"
    );
    connected
        .ok("PUT", &path, json!({ "files": [{ "name": "proof.pdf" }] }))
        .await;
    let found = connected.ok("GET", "/v1/chargebacks/search", Value::Null).await;
    assert_eq!(found["results"][0]["documentation_status"], "valid");
}

#[tokio::test]
async fn a_customer_has_addresses() {
    let connected = Connected::seller("TESTMLA1").await;
    let customer = connected
        .ok("POST", "/v1/customers", json!({ "email": "a@b.co" }))
        .await;
    let path = format!("/v1/customers/{}/addresses", customer["id"].as_str().unwrap());
    let made = connected
        .ok(
            "POST",
            &path,
            json!({ "street_name": "Home", "zip_code": "1000" }),
        )
        .await;
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let changed = connected.ok("PUT", &one, json!({ "street_number": 7 })).await;
    assert_eq!(
        (&changed["street_name"], &changed["street_number"]),
        (&json!("Home"), &json!("7"))
    );
    assert_eq!(connected.ok("GET", &path, Value::Null).await, json!([changed]));
    connected.ok("DELETE", &one, Value::Null).await;
    assert_eq!(
        connected.refused("GET", &one, Value::Null).await,
        (404, json!("not_found"))
    );
}

#[tokio::test]
async fn subscriptions_are_exported_as_csv() {
    let connected = Connected::seller("TESTMLA1").await;
    let request = |id: &Value| {
        let path = format!("/preapproval/export?collector_id={id}");
        connected.request("GET", &path, None, &Value::Null)
    };
    let response = connected
        .sandbox
        .router()
        .oneshot(request(&connected.tokens["user_id"]))
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "text/csv");
    let response = connected
        .sandbox
        .router()
        .oneshot(request(&json!(1)))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}
