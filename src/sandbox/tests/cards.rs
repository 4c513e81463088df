//! Customers, cards and card tokens.

use super::*;

async fn customer(connected: &Connected) -> Value {
    connected
        .ok("POST", "/v1/customers", json!({ "email": "test@test.com" }))
        .await
}

#[tokio::test]
async fn a_saved_card_pays_with_its_code_typed_again() {
    let connected = Connected::seller("TESTMLA1").await;
    let customer = customer(&connected).await;
    let cards = format!("/v1/customers/{}/cards", customer["id"].as_str().unwrap());
    let token = connected.card_token(MASTER, "APRO").await;
    let saved = connected.ok("POST", &cards, json!({ "token": token })).await;
    assert_eq!(saved["first_six_digits"], "503175");
    assert_eq!(saved["payment_method"]["id"], "master");
    assert_eq!(connected.ok("GET", &cards, Value::Null).await, json!([saved]));
    let of_card = |code: Value| json!({ "card_id": saved["id"], "security_code": code });
    let path = format!(
        "/v1/card_tokens?public_key={}",
        connected.tokens["public_key"].as_str().unwrap()
    );
    let pay = |token: &Value| {
        json!({
            "transaction_amount": 100, "installments": 1, "token": token["id"],
            "payer": { "type": "customer", "id": customer["id"] },
        })
    };
    let (_, without) = send(&connected.sandbox, "POST", &path, of_card(Value::Null)).await;
    assert_eq!(
        connected.refused("POST", "/v1/payments", pay(&without)).await,
        (400, json!(3031))
    );
    let (_, token) = send(&connected.sandbox, "POST", &path, of_card(json!("123"))).await;
    let paid = connected.ok("POST", "/v1/payments", pay(&token)).await;
    assert_eq!(
        (&paid["status"], &paid["card"]["id"]),
        (&json!("approved"), &saved["id"])
    );
    assert_eq!(paid["payment_method_id"], "master");
}

#[tokio::test]
async fn customers_are_found_changed_and_deleted_by_their_seller_alone() {
    let one = Connected::seller("TESTMLA1").await;
    let other = Connected::to(one.sandbox.clone(), "TESTMLA2").await;
    let customer = customer(&one).await;
    let path = format!("/v1/customers/{}", customer["id"].as_str().unwrap());
    let found = one
        .ok("GET", "/v1/customers/search?email=test@test.com", Value::Null)
        .await;
    assert_eq!(found["results"], json!([customer]));
    assert_eq!(found["paging"], json!({ "limit": 10, "offset": 0, "total": 1 }));
    assert_eq!(
        other.refused("GET", &path, Value::Null).await,
        (404, json!("not_found"))
    );
    let changed = one
        .ok(
            "PUT",
            &path,
            json!({ "first_name": "john", "email": "test@test.com" }),
        )
        .await;
    assert_eq!(changed["first_name"], "john");
    one.ok("DELETE", &path, Value::Null).await;
    assert_eq!(
        one.refused("GET", &path, Value::Null).await,
        (404, json!("not_found"))
    );
}

#[tokio::test]
async fn each_wrong_field_of_a_customer_has_its_code() {
    let connected = Connected::seller("TESTMLA1").await;
    customer(&connected).await;
    let long = "a".repeat(256);
    let cases = [
        (json!({ "email": "test@test.com" }), "101"),
        (json!({ "email": "a@b.co", "phone": "1" }), "103"),
        (json!({ "email": "a@b.co", "first_name": long }), "104"),
        (json!({ "email": "nobody" }), "106"),
        (json!({}), "106"),
        (json!({ "email": "a@b.co", "first_name": 1 }), "107"),
        (json!({ "email": "a@b.co", "last_name": 1 }), "108"),
        (
            json!({ "email": "a@b.co", "phone": { "area_code": true } }),
            "109",
        ),
        (json!({ "email": "a@b.co", "phone": { "number": {} } }), "110"),
        (
            json!({ "email": "a@b.co", "identification": { "type": "CPF" } }),
            "111",
        ),
        (
            json!({ "email": "a@b.co", "identification": { "type": "DNI", "number": "1" } }),
            "112",
        ),
        (json!({ "email": "a@b.co", "address": { "zip_code": [] } }), "113"),
        (
            json!({ "email": "a@b.co", "address": { "street_name": 5 } }),
            "114",
        ),
        (
            json!({ "email": "a@b.co", "date_registered": "yesterday" }),
            "115",
        ),
        (json!({ "email": "a@b.co", "description": 1 }), "116"),
        (json!({ "email": "a@b.co", "metadata": [] }), "117"),
        (json!([]), "118"),
        (json!({ "email": "test_user_241000001@testuser.com" }), "150"),
    ];
    for (body, code) in cases {
        let refused = connected.refused("POST", "/v1/customers", body.clone()).await;
        assert_eq!(refused, (400, json!(code)), "{body}");
    }
    assert_eq!(
        connected.refused("PUT", "/v1/customers", json!({})).await,
        (400, json!("102"))
    );
    assert_eq!(
        connected
            .refused("GET", "/v1/customers/nobody", Value::Null)
            .await,
        (400, json!("105"))
    );
}

#[tokio::test]
async fn changes_and_cards_are_refused_with_their_codes() {
    let connected = Connected::seller("TESTMLA1").await;
    let one = customer(&connected).await;
    let path = format!("/v1/customers/{}", one["id"].as_str().unwrap());
    let cards = format!("{path}/cards");
    assert_eq!(
        connected
            .refused("PUT", &path, json!({ "email": "b@b.co" }))
            .await,
        (400, json!("126"))
    );
    assert_eq!(
        connected
            .refused("PUT", &path, json!({ "default_card": "1" }))
            .await,
        (400, json!("120"))
    );
    assert_eq!(
        connected.refused("POST", &cards, json!({})).await,
        (400, json!("119"))
    );
    assert_eq!(
        connected.refused("POST", &cards, json!({ "token": 1 })).await,
        (400, json!("125"))
    );
    assert_eq!(
        connected.refused("POST", &cards, json!({ "token": "no" })).await,
        (400, json!("121"))
    );
    let token = connected.card_token(MASTER, "APRO").await;
    for (body, code) in [
        (json!({ "token": token, "payment_method_id": "" }), "123"),
        (json!({ "token": token, "issuer_id": "" }), "124"),
        (json!({ "token": token, "payment_method_id": "visa" }), "127"),
        (json!({ "token": token, "issuer_id": "bank" }), "127"),
    ] {
        assert_eq!(
            connected.refused("POST", &cards, body.clone()).await,
            (400, json!(code)),
            "{body}"
        );
    }
    let saved = connected
        .ok("POST", &cards, json!({ "token": token, "issuer_id": 3_245_612 }))
        .await;
    assert_eq!(
        connected.refused("POST", &cards, json!({ "token": token })).await,
        (400, json!("122"))
    );
    let other = connected
        .ok("POST", "/v1/customers", json!({ "email": "b@b.co" }))
        .await;
    let stolen = format!(
        "/v1/customers/{}/cards/{}",
        other["id"].as_str().unwrap(),
        saved["id"].as_str().unwrap()
    );
    assert_eq!(
        connected.refused("GET", &stolen, Value::Null).await,
        (400, json!("140"))
    );
    assert_eq!(
        connected.refused("GET", &format!("{cards}/1"), Value::Null).await,
        (404, json!("not_found"))
    );
}

#[tokio::test]
async fn a_customer_has_ten_cards_at_most_and_the_same_card_once() {
    let connected = Connected::seller("TESTMLA1").await;
    let customer = customer(&connected).await;
    let cards = format!("/v1/customers/{}/cards", customer["id"].as_str().unwrap());
    let numbers: Vec<String> = (4_509_953_566_000_000_u64..)
        .map(|number| number.to_string())
        .filter(|number| crate::sandbox::sites::luhn(number))
        .take(11)
        .collect();
    for number in &numbers[..10] {
        let token = connected.card_token(number, "APRO").await;
        connected.ok("POST", &cards, json!({ "token": token })).await;
    }
    let eleventh = connected.card_token(&numbers[10], "APRO").await;
    assert_eq!(
        connected
            .refused("POST", &cards, json!({ "token": eleventh }))
            .await,
        (400, json!("129"))
    );
    let first_again = connected.card_token(&numbers[0], "APRO").await;
    connected
        .ok("POST", &cards, json!({ "token": first_again }))
        .await;
    assert_eq!(
        connected
            .ok("GET", &cards, Value::Null)
            .await
            .as_array()
            .unwrap()
            .len(),
        10
    );
}

#[tokio::test]
async fn searches_are_refused_with_their_codes() {
    let connected = Connected::seller("TESTMLA1").await;
    customer(&connected).await;
    for (query, code) in [
        ("range=date_created", "200"),
        ("range=date_created:since:2020-01-01T00:00:00Z", "200"),
        ("range=email:after:2020-01-01T00:00:00Z", "201"),
        ("range=date_created:after:soon", "202"),
        ("range=date_created:before:soon", "203"),
        ("filters=email", "204"),
        ("q=", "205"),
        ("sort=shoe_size", "206"),
        ("sort=email:up", "207"),
        ("sort=!", "208"),
    ] {
        let path = format!("/v1/customers/search?{query}");
        assert_eq!(
            connected.refused("GET", &path, Value::Null).await,
            (400, json!(code)),
            "{query}"
        );
    }
    let path =
        "/v1/customers/search?range=date_created:after:2020-01-01T00:00:00Z,before:2020-02-01T00:00:00Z";
    assert_eq!(connected.ok("GET", path, Value::Null).await["paging"]["total"], 0);
    let path = "/v1/customers/search?filters=email:test@test.com&sort=date_created:desc";
    assert_eq!(connected.ok("GET", path, Value::Null).await["paging"]["total"], 1);
}

#[tokio::test]
async fn each_wrong_field_of_a_card_token_has_its_code() {
    let connected = Connected::seller("TESTMLA1").await;
    let path = format!(
        "/v1/card_tokens?public_key={}",
        connected.tokens["public_key"].as_str().unwrap()
    );
    for (member, value, code) in [
        ("card_number", Value::Null, 3017),
        ("card_number", json!("5031x"), 3016),
        ("card_number", json!("503175573453"), 3015),
        ("card_number", json!("5031755734530605"), 3034),
        ("security_code", json!(""), 3013),
        ("security_code", json!("12"), 3032),
        ("expiration_month", Value::Null, 3018),
        ("expiration_year", Value::Null, 3019),
        ("expiration_month", json!(13), 3029),
        ("expiration_year", json!(2020), 3030),
        ("cardholder", Value::Null, 3020),
        (
            "cardholder",
            json!({ "name": "A", "identification": { "type": "DNI" } }),
            3021,
        ),
        (
            "cardholder",
            json!({ "name": "A", "identification": { "number": "12345678" } }),
            3022,
        ),
        ("card_id", json!("1"), 3003),
    ] {
        let mut body = card(MASTER, "APRO");
        body[member] = value.clone();
        let (status, answer) = send(&connected.sandbox, "POST", &path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{member} {value}");
        assert_eq!(answer["cause"][0]["code"], code, "{member} {value}");
    }
    let (status, _) = send(
        &connected.sandbox,
        "POST",
        "/v1/card_tokens",
        card(MASTER, "APRO"),
    )
    .await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}
