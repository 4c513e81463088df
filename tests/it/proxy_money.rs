//! Payments through a provider that fails at random: none is doubled, none is swallowed, and when the outcome is unknown
//! the answer says so (the second promise of DESIGN.md section 1).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::support::API_KEY;
use crate::support::app::TestApp;

/// How many payments, unless `PAYMENTS_UNDER_FAULTS` says otherwise.
const PAYMENTS: usize = 120;
const AT_A_TIME: usize = 12;
/// A payment that is not settled after so many repetitions never will be.
const MOST_REPETITIONS: usize = 30;

/// How one payment went: what the platform was told, in order.
#[derive(Debug)]
struct Story {
    reference: String,
    answers: Vec<(u16, Value)>,
}

async fn pay(app: &TestApp, client: &reqwest::Client, number: usize) -> Story {
    let reference = format!("order-{number}");
    let token = app.card_token("seller-1", "APRO").await;
    let body = json!({
        "token": token, "transaction_amount": 10.5, "installments": 1, "payment_method_id": "visa",
        "payer": { "email": "buyer@example.com" }, "external_reference": reference,
    });
    let url = format!("{}proxy/seller-1/v1/payments", app.address());
    let mut answers = Vec::new();
    for _ in 0..MOST_REPETITIONS {
        let answer = client
            .post(&url)
            .header(AUTHORIZATION, format!("Bearer {API_KEY}"))
            .header("x-idempotency-key", format!("key-{number}"))
            .header("connector-timeout", "1500ms")
            .json(&body)
            .send()
            .await
            .unwrap();
        let (status, ours) = (
            answer.status().as_u16(),
            answer.headers().contains_key("connector-error"),
        );
        let text = answer.text().await.unwrap();
        let told: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if ours {
            let outcome = told["outcome"].as_str().unwrap_or_default();
            assert!(
                matches!(
                    (status, outcome),
                    (504 | 502, "unknown") | (502 | 503, "not_sent")
                ),
                "{told}"
            );
            assert_eq!(
                told["retryable"],
                status != 502 || outcome == "not_sent",
                "{told}"
            );
        }
        answers.push((status, told));
        if matches!(status, 200 | 201) {
            break;
        }
    }
    Story { reference, answers }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payment_that_was_told_approved_exists_exactly_once() {
    let payments = std::env::var("PAYMENTS_UNDER_FAULTS")
        .ok()
        .map_or(PAYMENTS, |text| text.parse().unwrap());
    let app = Arc::new(TestApp::start().await);
    app.connect_seller("seller-1").await;
    for fault in [
        "payments=500~0.08",
        "payments=502~0.05",
        "payments=503~0.05",
        "payments=429:retry-after=0~0.05",
        "payments=cut-before~0.08",
        "payments=cut-after~0.08",
        "payments=half~0.05",
        "payments=hang~0.02",
        "payments=500:after~0.05",
    ] {
        app.sandbox
            .add_fault(fault.parse().unwrap_or_else(|error| panic!("{fault}: {error}")));
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let tellers: Vec<_> = (0..AT_A_TIME)
        .map(|_| {
            let (app, client, next) = (app.clone(), client.clone(), next.clone());
            tokio::spawn(async move {
                let mut stories = Vec::new();
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= payments {
                        return stories;
                    }
                    stories.push(pay(&app, &client, number).await);
                }
            })
        })
        .collect();
    let mut stories = Vec::new();
    for teller in tellers {
        stories.extend(teller.await.unwrap());
    }
    app.sandbox.clear_faults();

    let mut troubled = 0;
    let mut kinds = BTreeMap::<String, usize>::new();
    for Story { reference, answers } in &stories {
        troubled += usize::from(answers.len() > 1);
        for (status, told) in answers {
            // The provider's own answers have no `outcome`.
            let outcome = told["outcome"].as_str().unwrap_or_default();
            *kinds
                .entry(format!("{status} {outcome}").trim_end().to_owned())
                .or_default() += 1;
        }
        let (status, told) = answers.last().unwrap();
        assert!(
            matches!(status, 200 | 201),
            "{reference} was never settled: {answers:?}"
        );
        assert_eq!(told["status"], "approved", "{reference}");
        let search = format!("/v1/payments/search?external_reference={reference}");
        let found = app.proxied_get("seller-1", &search).await.expect(200).json();
        assert_eq!(found["paging"]["total"], 1, "{reference}: {answers:?}");
        assert_eq!(
            found["results"][0]["id"].to_string().trim_matches('"'),
            told["id"].to_string()
        );
    }
    assert_eq!(stories.len(), payments);
    eprintln!(
        "{payments} payments: each approved and at the provider once, {troubled} of them told a failure before; answers: {kinds:?}"
    );
    assert!(
        troubled > payments / 50,
        "the provider did not fail enough to prove anything: {kinds:?}"
    );
}
