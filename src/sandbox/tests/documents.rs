//! The documents' own samples: each documented request is answered with every member that the documented answer shows, of the
//! same JSON type. The samples stand here as the documents have them, shortened where they say `...`.
//!
//! Where documents contradict each other, one was followed, and the test of the other says so:
//! - `id`, `first_six_digits`, `last_four_digits`, `user_id` and the holder's document number of a saved card are numbers in the
//!   Portuguese reference's sample (its own table says string), strings in the English guides and in the OpenAPI description:
//!   strings here.
//! - `phone.number` and `identification.number` of a customer are digits without quotes in one answer (no valid JSON), strings
//!   in its request: strings here. `address.street_number` likewise.
//! - A card is saved with `payment_method_id` `debit_card`, which is a payment type: taken as such.

use super::*;

/// Whether an answer has all that the sample shows; null in a sample stands for any type.
fn like(sample: &Value, answer: &Value, place: &str) {
    match (sample, answer) {
        (Value::Object(sample), Value::Object(answer)) => {
            for (name, sample) in sample {
                let value = answer
                    .get(name)
                    .unwrap_or_else(|| panic!("{place}/{name} is missing"));
                like(sample, value, &format!("{place}/{name}"));
            }
        }
        (Value::Array(sample), Value::Array(answer)) => {
            if let Some(sample) = sample.first() {
                like(
                    sample,
                    answer.first().unwrap_or_else(|| panic!("{place} is empty")),
                    &format!("{place}/0"),
                );
            }
        }
        (Value::Null, _)
        | (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        _ => panic!("{place}: {answer} is not of the type of {sample}"),
    }
}

fn saved_card() -> Value {
    json!({
        "id": "1493990563105", "expiration_month": 12, "expiration_year": 2020, "first_six_digits": "503175",
        "last_four_digits": "0604",
        "payment_method": {
            "id": "master", "name": "master", "payment_type_id": "credit_card",
            "thumbnail": "http://img.mlstatic.com/org-img/MP3/API/logos/master.gif",
            "secure_thumbnail": "https://www.mercadopago.com/org-img/MP3/API/logos/master.gif"
        },
        "security_code": { "length": 3, "card_location": "back" },
        "issuer": { "id": 3, "name": "Mastercard" },
        "cardholder": { "name": "Card holdername", "identification": { "number": "12345678", "type": "DNI" } },
        "date_created": "2017-05-05T09:22:30.893-04:00", "date_last_updated": "2017-05-05T09:22:30.893-04:00",
        "customer_id": "255276729-yLOTNHQjpDWw1X", "user_id": "255276729", "live_mode": false
    })
}

#[tokio::test]
async fn checkout_api_card_payments() {
    let connected = Connected::seller("TESTMLA1").await;
    let body = json!({
        "transaction_amount": 100, "token": connected.card_token("4509953566233704", "APRO").await,
        "description": "Blue shirt", "installments": 1, "payment_method_id": "visa", "issuer_id": 310,
        "payer": { "email": "test@test.com" }
    });
    let sample = json!({
        "status": "approved", "status_detail": "accredited", "id": 3_055_677,
        "date_approved": "2019-02-23T00:01:10.000-04:00", "payer": {}, "payment_method_id": "visa",
        "payment_type_id": "credit_card", "refunds": []
    });
    let paid = connected.ok("POST", "/v1/payments", body).await;
    like(&sample, &paid, "");
    assert_eq!(
        (&paid["status"], &paid["status_detail"]),
        (&sample["status"], &sample["status_detail"])
    );
    for (name, detail) in [
        ("FUND", "cc_rejected_insufficient_amount"),
        ("RISK", "cc_rejected_high_risk"),
    ] {
        let rejected = connected.pay(name).await;
        let sample = json!({
            "status": "rejected", "status_detail": detail, "id": 47_198_050, "payment_method_id": "master",
            "payment_type_id": "credit_card",
        });
        like(&sample, &rejected, "");
        assert_eq!(
            (&rejected["status"], &rejected["status_detail"]),
            (&sample["status"], &sample["status_detail"])
        );
    }
}

#[tokio::test]
async fn checkout_api_advanced_integration() {
    let connected = Connected::seller("TESTMLA1").await;
    let customer = connected
        .ok("POST", "/v1/customers", json!({ "email": "test@test.com" }))
        .await;
    let path = format!("/v1/customers/{}", customer["id"].as_str().unwrap());
    let cards = format!("{path}/cards");
    let token = connected.card_token(MASTER, "APRO").await;
    let body = json!({ "token": token, "issuer_id": "3245612", "payment_method_id": "debit_card" });
    like(&saved_card(), &connected.ok("POST", &cards, body).await, "");
    let token = connected.card_token("4509953566233704", "APRO").await;
    like(
        &saved_card(),
        &connected.ok("POST", &cards, json!({ "token": token })).await,
        "",
    );
    let short = json!({
        "id": "1490022319978", "expiration_month": 12, "expiration_year": 2020, "first_six_digits": "415231",
        "last_four_digits": "0001",
    });
    let listed = connected.ok("GET", &cards, Value::Null).await;
    like(&json!([short]), &listed, "");
    let sample = json!({
        "id": "123456789-jxOV430go9fx2e", "email": "test@test.com", "default_card": "1490022319978",
        "default_address": null, "cards": [short], "addresses": [], "live_mode": false
    });
    like(&sample, &connected.ok("GET", &path, Value::Null).await, "");
    let found = json!({
        "paging": { "limit": 10, "offset": 0, "total": 1 },
        "results": [{
            "address": { "id": null, "street_name": null, "street_number": null, "zip_code": null },
            "addresses": [], "cards": [{}], "date_created": "2017-05-05T00:00:00.000-04:00",
            "date_last_updated": "2017-05-05T09:23:25.021-04:00", "date_registered": null, "default_address": null,
            "default_card": "1493990563105", "description": null, "email": "test@test.com", "first_name": null,
            "id": "123456789-jxOV430go9fx2e", "identification": { "number": null, "type": null },
            "last_name": null, "live_mode": false, "metadata": {}, "phone": { "area_code": null, "number": null }
        }]
    });
    let by_body = connected
        .ok("GET", "/v1/customers/search", json!({ "email": "test@test.com" }))
        .await;
    like(&found, &by_body, "");
    assert_eq!(by_body["paging"], found["paging"]);
    let key = connected.tokens["public_key"].as_str().unwrap();
    let of_card = json!({ "card_id": listed[0]["id"], "security_code": "123" });
    let tokenise = format!("/v1/card_tokens?public_key={key}");
    let (_, token) = send(&connected.sandbox, "POST", &tokenise, of_card).await;
    let body = json!({
        "transaction_amount": 100, "token": token["id"], "installments": 1,
        "payer": { "type": "customer", "id": customer["id"] }
    });
    assert_eq!(
        connected.ok("POST", "/v1/payments", body).await["status"],
        "approved"
    );
}

#[tokio::test]
async fn checkout_api_advanced_integration_modifying_a_customer() {
    let connected = Connected::seller("TESTMLA1").await;
    let customer = connected
        .ok("POST", "/v1/customers", json!({ "email": "user@user.com" }))
        .await;
    let path = format!("/v1/customers/{}", customer["id"].as_str().unwrap());
    let body = json!({
        "email": "user@user.com", "first_name": "john", "last_name": "wagner",
        "address": { "zip_code": "[FAKER][ADDRESS][ZIP_CODE]", "street_name": "[FAKER][ADDRESS][STREET_NAME]", "street_number": "2" },
        "phone": { "area_code": "[FAKER][PHONE_NUMBER][AREA_CODE]", "number": "001234567" },
        "identification": { "type": "DNI", "number": "12341234" },
        "description": "Customer information"
    });
    let mut sample = body.clone();
    sample["id"] = json!("xxxxxxxxxxxxxxxxxxxxx");
    sample["date_created"] = json!("2021-05-25T15:36:23.541Z");
    sample["metadata"] = json!({});
    sample["cards"] = json!([]);
    sample["addresses"] = json!([]);
    let changed = connected.ok("PUT", &path, body.clone()).await;
    like(&sample, &changed, "");
    assert_eq!(changed["address"]["street_number"], "2");
    let (status, answer) = connected.call("PUT", "/v1/customers", body).await;
    assert_eq!(
        (status, &answer["message"]),
        (StatusCode::BAD_REQUEST, &json!("missing customer id"))
    );
}

#[tokio::test]
async fn save_card_reference_with_its_numbers_as_strings() {
    let connected = Connected::seller("TESTMLB1").await;
    let customer = connected
        .ok("POST", "/v1/customers", json!({ "email": "test@test.com" }))
        .await;
    let cards = format!("/v1/customers/{}/cards", customer["id"].as_str().unwrap());
    let key = connected.tokens["public_key"].as_str().unwrap();
    let mut body = card("4235647728025682", "APRO");
    body["cardholder"]["identification"] = json!({ "type": "CPF", "number": 19_119_119_100_u64 });
    let (_, token) = send(
        &connected.sandbox,
        "POST",
        &format!("/v1/card_tokens?public_key={key}"),
        body,
    )
    .await;
    let sample = json!({
        "id": "1562188766852", "expiration_month": 6, "expiration_year": 2023, "first_six_digits": "423564",
        "last_four_digits": "5682",
        "payment_method": {
            "id": "visa", "name": "visa", "payment_type_id": "credit_card",
            "thumbnail": "http://img.mlstatic.com/org-img/MP3/API/logos/visa.gif",
            "secure_thumbnail": "https://www.mercadopago.com/org-img/MP3/API/logos/visa.gif"
        },
        "security_code": { "length": 3, "card_location": "back" },
        "issuer": { "id": 25, "name": "Visa" },
        "cardholder": { "name": "APRO", "identification": { "number": "19119119100", "type": "CPF" } },
        "date_created": "2019-07-03T21:15:35.000Z", "date_last_updated": "2019-07-03T21:19:18.000Z",
        "customer_id": "448870796-7ZjwhKGxILixxN", "user_id": "448870796", "live_mode": true
    });
    let saved = connected
        .ok("POST", &cards, json!({ "token": token["id"] }))
        .await;
    like(&sample, &saved, "");
    for name in [
        "first_six_digits",
        "last_four_digits",
        "payment_method",
        "issuer",
        "cardholder",
        "live_mode",
    ] {
        assert_eq!(saved[name], sample[name], "{name}");
    }
}

#[tokio::test]
async fn subscriptions_with_a_plan_and_pending() {
    // The samples' dates lie in 2020: so does the clock.
    let before = Utc.with_ymd_and_hms(2020, 6, 1, 0, 0, 0).unwrap();
    let options = SandboxOptions::new(Arc::new(ManualClock::at(before)), Random::seeded(1));
    let connected = Connected::to(Sandbox::new(options), "TESTMLA1").await;
    let plan = json!({
        "reason": "Yoga classes",
        "auto_recurring": {
            "frequency": 1, "frequency_type": "months", "repetitions": 12, "billing_day": 10,
            "billing_day_proportional": true, "free_trial": { "frequency": 1, "frequency_type": "months" },
            "transaction_amount": 10, "currency_id": "ARS"
        },
        "payment_methods_allowed": { "payment_types": [{}], "payment_methods": [{}] },
        "back_url": "https://www.yoursite.com"
    });
    let made = connected.ok("POST", "/preapproval_plan", plan.clone()).await;
    like(&plan, &made, "");
    assert_eq!(made["id"].as_str().unwrap().len(), 32);
    let mut subscription = json!({
        "reason": "Yoga classes", "external_reference": "YG-1234", "payer_email": "test_user@testuser.com",
        "auto_recurring": {
            "frequency": 1, "frequency_type": "months", "start_date": "2020-06-02T13:07:14.260Z",
            "end_date": "2022-07-20T15:59:52.581Z", "transaction_amount": 10, "currency_id": "ARS"
        },
        "back_url": "https://www.mercadopago.com.ar", "status": "authorized"
    });
    let sample = subscription.clone();
    subscription["preapproval_plan_id"] = made["id"].clone();
    subscription["card_token_id"] = json!(connected.card_token(MASTER, "APRO").await);
    let answer = connected.ok("POST", "/preapproval", subscription).await;
    like(&sample, &answer, "");
    assert_eq!(answer["status"], "authorized");
    let brazil = Connected::to(connected.sandbox.clone(), "TESTMLB1").await;
    let pending = json!({
        "reason": "Yoga classes", "external_reference": "YG-1234", "payer_email": "test_user_75650838@testuser.com",
        "auto_recurring": {
            "frequency": 1, "frequency_type": "months", "end_date": "2023-07-20T15:59:52.581Z",
            "transaction_amount": 10, "currency_id": "BRL"
        },
        "back_url": "https://www.yoursite.com", "status": "pending"
    });
    let answer = brazil.ok("POST", "/preapproval", pending.clone()).await;
    like(&pending, &answer, "");
    assert_eq!(answer["status"], "pending");
}

#[tokio::test]
async fn oauth_samples_of_the_three_grants() {
    let sandbox = sandbox();
    let url = authorization_url("s");
    let url = url.split("&code_challenge").next().unwrap();
    let callback = sandbox.consent(url, "TESTMLB1", true).unwrap();
    let body = json!({
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "code": parameter(&callback, "code"),
        "grant_type": "authorization_code", "redirect_uri": REDIRECT_URI, "test_token": "false"
    });
    let sample = json!({
        "access_token": "APP_USR-1", "token_type": "bearer", "expires_in": 15_552_000,
        "scope": "offline_access read write", "user_id": 241_983_636, "refresh_token": "TG-1",
        "public_key": "APP_USR-1", "live_mode": true
    });
    let (status, tokens) = send(&sandbox, "POST", "/oauth/token", body).await;
    assert_eq!(status, StatusCode::OK);
    like(&sample, &tokens, "");
    let (status, again) = send(
        &sandbox,
        "POST",
        "/oauth/token",
        refresh(&tokens["refresh_token"]),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    like(&sample, &again, "");
    let own =
        json!({ "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "client_credentials" });
    let (status, own) = send(&sandbox, "POST", "/oauth/token", own).await;
    assert_eq!((status, &own["expires_in"]), (StatusCode::OK, &json!(21_600)));
}
