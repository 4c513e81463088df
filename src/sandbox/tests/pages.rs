//! The buyer's pages.

use super::*;

async fn get(sandbox: &Sandbox, path: &str) -> (StatusCode, String) {
    form(sandbox, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn form(sandbox: &Sandbox, request: Request<Body>) -> (StatusCode, String) {
    let response = sandbox.router().oneshot(request).await.unwrap();
    let status = response.status();
    let location = response
        .headers()
        .get("location")
        .map(|location| String::from(location.to_str().unwrap()));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        location.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()),
    )
}

fn local(url: &Value) -> String {
    let url = Url::parse(url.as_str().unwrap()).unwrap();
    format!("{}?{}", url.path(), url.query().unwrap_or(""))
}

#[tokio::test]
async fn a_ticket_is_paid_on_its_page_once() {
    let connected = Connected::seller("TESTMLB1").await;
    let body = json!({
        "transaction_amount": 10.5, "payment_method_id": "pix", "payer": { "email": "a@b.co" },
        "application_fee": 1,
    });
    let payment = connected.ok("POST", "/v1/payments", body).await;
    assert_eq!(
        payment["transaction_details"]["external_resource_url"],
        payment["point_of_interaction"]["transaction_data"]["ticket_url"]
    );
    let path = local(&payment["transaction_details"]["external_resource_url"]);
    assert!(get(&connected.sandbox, &path).await.1.contains("10.5 BRL"));
    let pay = || Request::post(&path).body(Body::empty()).unwrap();
    assert_eq!(form(&connected.sandbox, pay()).await.0, StatusCode::OK);
    let paid = connected
        .ok("GET", &format!("/v1/payments/{}", payment["id"]), Value::Null)
        .await;
    assert_eq!(paid["status"], "approved");
    assert_eq!(paid["fee_details"][1]["amount"], 1);
    assert_eq!(form(&connected.sandbox, pay()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pending_subscription_is_completed_where_its_init_point_leads() {
    let connected = Connected::seller("TESTMLA1").await;
    let body = json!({
        "reason": "Yoga <classes>", "payer_email": "test_user@testuser.com", "status": "pending",
        "back_url": "https://www.yoursite.com/thanks",
        "auto_recurring": {
            "frequency": 1, "frequency_type": "months", "transaction_amount": 10, "currency_id": "ARS",
        },
    });
    let subscription = connected.ok("POST", "/preapproval", body).await;
    let path = local(&subscription["init_point"]);
    assert!(
        get(&connected.sandbox, &path)
            .await
            .1
            .contains("Yoga &#60;classes&#62;")
    );
    let post = |name: &str| {
        Request::post(&path)
            .body(Body::from(format!("number={MASTER}&name={name}")))
            .unwrap()
    };
    let (status, page) = form(&connected.sandbox, post("FUND")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(page.contains("declined"));
    let (status, back) = form(&connected.sandbox, post("APRO")).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let id = subscription["id"].as_str().unwrap();
    assert_eq!(
        back,
        format!("https://www.yoursite.com/thanks?preapproval_id={id}")
    );
    let now = connected
        .ok("GET", &format!("/preapproval/{id}"), Value::Null)
        .await;
    assert_eq!(
        (&now["status"], &now["summarized"]["charged_quantity"]),
        (&json!("authorized"), &json!(1))
    );
}

#[tokio::test]
async fn a_plan_is_subscribed_to_where_its_init_point_leads() {
    let connected = Connected::seller("TESTMLA1").await;
    let body = json!({
        "reason": "Yoga", "back_url": "https://www.yoursite.com/",
        "auto_recurring": {
            "frequency": 1, "frequency_type": "months", "transaction_amount": 10, "currency_id": "ARS",
        },
    });
    let plan = connected.ok("POST", "/preapproval_plan", body).await;
    let path = local(&plan["init_point"]);
    let post = Request::post(&path)
        .body(Body::from(format!("number={MASTER}&name=APRO&email=me%40b.co")))
        .unwrap();
    assert_eq!(form(&connected.sandbox, post).await.0, StatusCode::SEE_OTHER);
    let found = connected
        .ok("GET", "/preapproval/search?payer_email=me@b.co", Value::Null)
        .await;
    assert_eq!(found["results"][0]["preapproval_plan_id"], plan["id"]);
    assert_eq!(found["results"][0]["status"], "authorized");
}

#[tokio::test]
async fn the_front_page_lists_test_cards_and_the_shop_is_closed_without_a_connector() {
    let sandbox = sandbox();
    assert!(get(&sandbox, "/").await.1.contains(MASTER));
    assert_eq!(get(&sandbox, "/storefront").await.0, StatusCode::NOT_FOUND);
}
