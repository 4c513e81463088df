//! Mercado Pago's own description (OpenAPI 3.1): every answer of a long story is held against it.
//!
//! Runs when `MERCADOPAGO_OPENAPI` names the file. The validator knows just the keywords that the description uses and
//! fails on any other, so that nothing is passed over silently. `nullable`, which 3.1 does not know, is read as it is meant.

use super::*;

/// Where an answer differs on purpose: method, path of the description, where in the body (a beginning), why.
const DEVIATIONS: [(&str, &str, &str, &str); 9] = [
    (
        "GET",
        "/v1/payments/{id}/refunds",
        "",
        "the documents and all SDKs read a list, the description says one refund",
    ),
    (
        "*",
        "/v1/customers",
        "/cause/0/code",
        "the documents list these codes as strings (\"not_found\" is among them)",
    ),
    (
        "*",
        "/v1/customers",
        "/description",
        "the documents' samples have null where nothing is known",
    ),
    (
        "*",
        "/v1/customers",
        "/",
        "the documents' samples have null where nothing is known",
    ),
    (
        "GET",
        "/v1/customers",
        "/results/",
        "the documents' samples have null where nothing is known",
    ),
    (
        "GET",
        "/v1/payment_methods",
        "/",
        "settings are a list in the documents and the SDKs' types",
    ),
    (
        "GET",
        "/preapproval_plan/search",
        "/results/",
        "the description takes plans for subscriptions; a plan's status is its own",
    ),
    (
        "*",
        "/v1/customers/{customer_id}/cards",
        "/cause/0/code",
        "as for customers",
    ),
    (
        "*",
        "/v1/customers/{customer_id}/cards/{id}",
        "/cause/0/code",
        "as for customers",
    ),
];

/// Faults that the deviations above excuse.
fn excused(method: &str, template: &str, fault: &Fault) -> bool {
    DEVIATIONS.iter().any(|(known_method, known_path, place, _)| {
        let same_route = *known_path == template
            || (*known_path == "/v1/customers"
                && matches!(template, "/v1/customers/search" | "/v1/customers/{id}"));
        let same_place = match *place {
            "" => fault.place.is_empty(),
            "/" | "/results/" => {
                fault.place.starts_with(place)
                    && (fault.null || fault.place.ends_with("/settings") || fault.place.ends_with("/status"))
            }
            place => fault.place.starts_with(place),
        };
        (*known_method == "*" || *known_method == method) && same_route && same_place
    })
}

#[derive(Debug)]
struct Fault {
    place: String,
    says: String,
    null: bool,
}

struct Description(Value);

impl Description {
    fn load() -> Option<Self> {
        let path = std::env::var_os("MERCADOPAGO_OPENAPI")?;
        let text = std::fs::read_to_string(&path).unwrap();
        Some(Self(serde_yaml_ng::from_str(&text).unwrap()))
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self.resolve(self.0.pointer(reference.trim_start_matches('#')).unwrap()),
            None => schema,
        }
    }

    /// The path of the description that this path is of: literal parts go before parameters.
    fn template(&self, path: &str) -> Option<String> {
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &&String| {
            let known: Vec<&str> = template.split('/').collect();
            known.len() == parts.len()
                && known
                    .iter()
                    .zip(&parts)
                    .all(|(known, part)| known.starts_with('{') || known == part)
        };
        let paths = self.0["paths"].as_object().unwrap();
        paths
            .keys()
            .filter(fits)
            .min_by_key(|template| template.matches('{').count())
            .cloned()
    }

    /// What is wrong with an answer; none if the description does not know the route.
    fn check(&self, method: &str, path: &str, status: StatusCode, body: &Value) -> Option<Vec<Fault>> {
        let template = self.template(path)?;
        let operation = &self.0["paths"][&template][method.to_lowercase()];
        if operation.is_null() {
            return None;
        }
        let response = &operation["responses"][status.as_str()];
        let mut faults = Vec::new();
        if response.is_null() {
            let says = format!("{status} is not described");
            faults.push(Fault {
                place: String::new(),
                says,
                null: false,
            });
        } else {
            let schema = &self.resolve(response)["content"]["application/json"]["schema"];
            if !schema.is_null() {
                self.validate(schema, body, "", &mut faults);
            }
        }
        faults.retain(|fault| !excused(method, &template, fault));
        Some(faults)
    }

    fn validate(&self, schema: &Value, value: &Value, place: &str, faults: &mut Vec<Fault>) {
        let schema = self.resolve(schema);
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        let mut wrong = |says: String| {
            faults.push(Fault {
                place: String::from(place),
                says,
                null: value.is_null(),
            });
        };
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "type" => {
                    let good = match rule.as_str().unwrap() {
                        "string" => value.is_string(),
                        "integer" => value.is_u64() || value.is_i64(),
                        "number" => value.is_number(),
                        "boolean" => value.is_boolean(),
                        "array" => value.is_array(),
                        "object" => value.is_object(),
                        other => panic!("unknown type {other}"),
                    };
                    if !good {
                        wrong(format!("{value} is no {rule}"));
                        return;
                    }
                }
                "enum" if !rule.as_array().unwrap().contains(value) => {
                    wrong(format!("{value} is not in {rule}"));
                }
                "format" => {
                    let text = value.as_str().unwrap_or("");
                    let good = match rule.as_str().unwrap() {
                        "date-time" => DateTime::parse_from_rfc3339(text).is_ok(),
                        "uri" => Url::parse(text).is_ok(),
                        "email" => text.contains('@'),
                        "float" => true,
                        other => panic!("unknown format {other}"),
                    };
                    if !good {
                        wrong(format!("{value} is no {rule}"));
                    }
                }
                "minimum" if value.as_f64() < rule.as_f64() => wrong(format!("{value} is below {rule}")),
                "maximum" if value.as_f64() > rule.as_f64() => wrong(format!("{value} is above {rule}")),
                "enum"
                | "minimum"
                | "maximum"
                | "required"
                | "properties"
                | "items"
                | "additionalProperties"
                | "nullable"
                | "description"
                | "example"
                | "deprecated" => {}
                other => panic!("unknown keyword {other}"),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if value.get(name.as_str().unwrap()).is_none() {
                let says = format!("{name} is missing");
                faults.push(Fault {
                    place: String::from(place),
                    says,
                    null: false,
                });
            }
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(value) = value.get(name) {
                self.validate(member, value, &format!("{place}/{name}"), faults);
            }
        }
        if let Some(items) = schema.get("items") {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                self.validate(items, item, &format!("{place}/{index}"), faults);
            }
        }
    }
}

/// Calls, and holds each answer against the description.
struct Checked<'a> {
    connected: &'a Connected,
    description: &'a Description,
    answers: std::cell::RefCell<std::collections::BTreeSet<String>>,
}

impl Checked<'_> {
    fn hold(&self, method: &str, path: &str, status: StatusCode, body: &Value) {
        let path = path.split('?').next().unwrap();
        if let Some(faults) = self.description.check(method, path, status, body) {
            let told: Vec<_> = faults.iter().map(|fault| (&fault.place, &fault.says)).collect();
            assert!(told.is_empty(), "{method} {path} {status}: {told:#?}\n{body:#}");
            let template = self.description.template(path).unwrap();
            self.answers
                .borrow_mut()
                .insert(format!("{method} {template} {status}"));
        }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.connected.call(method, path, body).await;
        self.hold(method, path, status, &answer);
        answer
    }

    async fn send(&self, path: &str, body: Value) -> Value {
        let (status, answer) = send(&self.connected.sandbox, "POST", path, body).await;
        self.hold("POST", path, status, &answer);
        answer
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn payments(story: &Checked<'_>) {
    for name in ["APRO", "CONT", "FUND"] {
        let token = story.connected.card_token(MASTER, name).await;
        story.call("POST", "/v1/payments", payment(&token)).await;
    }
    let key = text(&story.connected.tokens["public_key"]);
    let token = story
        .send(&format!("/v1/card_tokens?public_key={key}"), card(MASTER, "APRO"))
        .await;
    story
        .send(&format!("/v1/card_tokens?public_key={key}"), json!({}))
        .await;
    story
        .call(
            "GET",
            &format!("/v1/card_tokens/{}", text(&token["id"])),
            Value::Null,
        )
        .await;
    story.call("GET", "/v1/card_tokens/0", Value::Null).await;
    let mut held = payment(text(&token["id"]));
    held["capture"] = json!(false);
    held["application_fee"] = json!(1.5);
    held["metadata"] = json!({ "order": 7 });
    let held = story.call("POST", "/v1/payments", held).await;
    let path = format!("/v1/payments/{}", held["id"]);
    story.call("PUT", &path, json!({ "capture": true })).await;
    story.call("PUT", &path, json!({ "status": "cancelled" })).await;
    let refunds = format!("{path}/refunds");
    let refund = story.call("POST", &refunds, json!({ "amount": 10 })).await;
    story.call("GET", &refunds, Value::Null).await;
    story
        .call("GET", &format!("{refunds}/{}", refund["id"]), Value::Null)
        .await;
    story.call("GET", &format!("{refunds}/1"), Value::Null).await;
    story.call("POST", &refunds, json!({})).await;
    story.call("POST", &refunds, json!({})).await;
    story.call("POST", &refunds, json!({ "amount": "all" })).await;
    story.call("GET", &path, Value::Null).await;
    story.call("GET", "/v1/payments/1", Value::Null).await;
    story.call("GET", "/v1/payments/one", Value::Null).await;
    story.call("POST", "/v1/payments", json!({})).await;
    let ticket =
        json!({ "transaction_amount": 1, "payment_method_id": "rapipago", "payer": { "email": "a@b.co" } });
    let ticket = story.call("POST", "/v1/payments", ticket).await;
    let cancellations = format!("/v1/payments/{}/cancellations", ticket["id"]);
    story.call("PUT", &cancellations, Value::Null).await;
    story
        .call(
            "GET",
            "/v1/payments/search?sort=date_created&criteria=desc",
            Value::Null,
        )
        .await;
    story
        .call("GET", "/v1/payments/search?begin_date=x", Value::Null)
        .await;
}

async fn customers(story: &Checked<'_>) {
    let customer = story
        .call("POST", "/v1/customers", json!({ "email": "test@test.com" }))
        .await;
    story
        .call("POST", "/v1/customers", json!({ "email": "test@test.com" }))
        .await;
    let path = format!("/v1/customers/{}", text(&customer["id"]));
    let full = json!({
        "first_name": "john", "last_name": "wagner", "description": "Customer information",
        "phone": { "area_code": "11", "number": "001234567" },
        "identification": { "type": "DNI", "number": "12341234" },
        "address": { "zip_code": "1000", "street_name": "Home", "street_number": "2" },
    });
    story.call("PUT", &path, full).await;
    story.call("PUT", &path, json!({ "email": "b@b.co" })).await;
    story.call("GET", &path, Value::Null).await;
    story.call("GET", "/v1/customers/1-a", Value::Null).await;
    story
        .call("GET", "/v1/customers/search?email=test@test.com", Value::Null)
        .await;
    let cards = format!("{path}/cards");
    let token = story.connected.card_token(MASTER, "APRO").await;
    let card = story.call("POST", &cards, json!({ "token": token })).await;
    story.call("POST", &cards, json!({})).await;
    story.call("GET", &cards, Value::Null).await;
    let card = format!("{cards}/{}", text(&card["id"]));
    story.call("GET", &card, Value::Null).await;
    story.call("GET", &format!("{cards}/1"), Value::Null).await;
    story.call("PUT", &card, json!({ "expiration_year": 2031 })).await;
    story.call("GET", &path, Value::Null).await;
    story.call("DELETE", &card, Value::Null).await;
}

async fn subscriptions(story: &Checked<'_>) {
    let recurring = json!({
        "frequency": 1, "frequency_type": "months", "transaction_amount": 10.5, "currency_id": "ARS",
        "free_trial": { "frequency": 1, "frequency_type": "days" },
    });
    let plan =
        json!({ "reason": "Yoga", "auto_recurring": recurring, "back_url": "https://www.yoursite.com" });
    let plan = story.call("POST", "/preapproval_plan", plan).await;
    story.call("POST", "/preapproval_plan", json!({})).await;
    let path = format!("/preapproval_plan/{}", text(&plan["id"]));
    story.call("GET", &path, Value::Null).await;
    story.call("PUT", &path, json!({ "reason": "More yoga" })).await;
    story.call("GET", "/preapproval_plan/0", Value::Null).await;
    story.call("GET", "/preapproval_plan/search", Value::Null).await;
    let with_plan = json!({
        "preapproval_plan_id": plan["id"], "payer_email": "test_user@testuser.com", "status": "authorized",
        "card_token_id": story.connected.card_token(MASTER, "APRO").await,
    });
    let subscription = story.call("POST", "/preapproval", with_plan).await;
    story.call("POST", "/preapproval", json!({})).await;
    let path = format!("/preapproval/{}", text(&subscription["id"]));
    story.connected.sandbox.advance(chrono::Duration::days(40));
    story.call("GET", &path, Value::Null).await;
    let found = story.call("GET", "/authorized_payments", Value::Null).await;
    let invoice = &found["results"][0]["id"];
    assert!(invoice.is_u64(), "{found}");
    story
        .call("GET", &format!("/authorized_payments/{invoice}"), Value::Null)
        .await;
    story.call("PUT", &path, json!({ "status": "paused" })).await;
    story
        .call("GET", "/preapproval/search?status=paused", Value::Null)
        .await;
    story.call("PUT", &path, json!({ "status": "cancelled" })).await;
    story.call("GET", "/preapproval/0", Value::Null).await;
}

async fn the_rest(story: &Checked<'_>) {
    let token = story.connected.card_token(MASTER, "APRO").await;
    let order = json!({
        "type": "online", "total_amount": "10.00", "payer": { "email": "a@b.co" },
        "transactions": { "payments": [{
            "amount": "10.00", "payment_method": { "id": "master", "type": "credit_card", "token": token },
        }] },
    });
    let order = story.call("POST", "/v1/orders", order).await;
    story.call("POST", "/v1/orders", json!({})).await;
    let path = format!("/v1/orders/{}", text(&order["id"]));
    story.call("GET", &path, Value::Null).await;
    story.call("GET", "/v1/orders/1", Value::Null).await;
    story
        .call(
            "GET",
            "/v1/orders?begin_date=2026-01-01T00:00:00Z&end_date=2027-01-01T00:00:00Z",
            Value::Null,
        )
        .await;
    let preference = json!({ "items": [{ "title": "Shirt", "quantity": 1, "unit_price": 9.5 }] });
    let preference = story.call("POST", "/checkout/preferences", preference).await;
    story
        .call(
            "GET",
            &format!("/checkout/preferences/{}", text(&preference["id"])),
            Value::Null,
        )
        .await;
    story
        .call("GET", "/checkout/preferences/search", Value::Null)
        .await;
    let order = story.call("POST", "/merchant_orders", json!({})).await;
    story
        .call("GET", &format!("/merchant_orders/{}", order["id"]), Value::Null)
        .await;
    story.call("GET", "/merchant_orders/1", Value::Null).await;
    let paid = story.connected.pay("APRO").await;
    let status = format!("/_sandbox/payments/{}/status", paid["id"]);
    control(
        &story.connected.sandbox,
        &status,
        json!({ "status": "charged_back" }),
    )
    .await;
    story
        .call("GET", &format!("/v1/chargebacks/{}", paid["id"]), Value::Null)
        .await;
    story.call("GET", "/v1/chargebacks/1", Value::Null).await;
}

#[tokio::test]
async fn every_answer_is_valid_by_mercado_pagos_own_description() {
    let Some(description) = Description::load() else {
        eprintln!("LEFT OUT: MERCADOPAGO_OPENAPI does not name Mercado Pago's OpenAPI description");
        return;
    };
    let connected = Connected::seller("TESTMLA1").await;
    let story = Checked {
        connected: &connected,
        description: &description,
        answers: std::cell::RefCell::default(),
    };
    payments(&story).await;
    customers(&story).await;
    subscriptions(&story).await;
    the_rest(&story).await;
    for path in [
        "/v1/payment_methods",
        "/v1/payment_methods/installments?payment_method_id=visa&amount=100",
        "/v1/identification_types",
    ] {
        story.call("GET", path, Value::Null).await;
    }
    story
        .send("/oauth/token", exchange(&code(&connected.sandbox, "TESTMLA2")))
        .await;
    story
        .send("/oauth/token", refresh(&connected.tokens["refresh_token"]))
        .await;
    story.send("/oauth/token", json!({})).await;
    control(
        &connected.sandbox,
        "/_sandbox/sellers/241000001/revoke",
        json!({ "reason": "expired" }),
    )
    .await;
    for path in ["/v1/payments/1", "/v1/customers/1-a", "/v1/identification_types"] {
        story.call("GET", path, Value::Null).await;
    }
    story.call("POST", "/v1/payments", Value::Null).await;
    assert!(story.answers.borrow().len() > 65, "{:#?}", story.answers.borrow());
}
