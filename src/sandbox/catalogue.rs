//! What can be asked about a country and an account: payment methods, installments, documents, `/users/me`.

use axum::extract::RawQuery;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, json_answer};
use super::caller::Caller;
use super::cards::thumbnail;
use super::customer_search::query_map;
use super::input::Amount;
use super::sites::Method;

/// Installments that cards are offered in.
const OFFERED_INSTALLMENTS: [i64; 4] = [1, 3, 6, 12];

fn method(method: &Method, decimals: u32) -> Value {
    let smallest = if decimals == 0 { json!(1) } else { json!(0.5) };
    let settings: Vec<Value> = method
        .bins
        .iter()
        .map(|bin| {
            json!({
                "bin": { "pattern": format!("^{bin}"), "installments_pattern": format!("^{bin}"), "exclusion_pattern": null },
                "card_number": { "length": method.card_length, "validation": "standard" },
                "security_code": {
                    "length": method.code_length,
                    "card_location": if method.code_length == 4 { "front" } else { "back" },
                    "mode": "mandatory",
                },
            })
        })
        .collect();
    let needed: &[&str] = if method.is_card() {
        &[
            "cardholder_name",
            "cardholder_identification_type",
            "cardholder_identification_number",
        ]
    } else {
        &[]
    };
    json!({
        "id": method.id,
        "name": method.name,
        "payment_type_id": method.kind,
        "status": "active",
        "secure_thumbnail": thumbnail("https", "www.mercadopago.com", method.id),
        "thumbnail": thumbnail("http", "img.mlstatic.com", method.id),
        "deferred_capture": match method.kind {
            "credit_card" => "supported",
            "debit_card" => "unsupported",
            _ => "does_not_apply",
        },
        "settings": settings,
        "additional_info_needed": needed,
        "min_allowed_amount": smallest,
        "max_allowed_amount": 60_000_000,
        "accreditation_time": if method.is_card() { 2880 } else { 60 },
        "financial_institutions": [],
        "processing_modes": ["aggregator"],
    })
}

/// `GET /v1/payment_methods`.
pub(super) async fn payment_methods(caller: Caller) -> Answer {
    let site = caller.seller.site;
    let methods: Vec<Value> = site
        .methods
        .iter()
        .map(|known| method(known, site.decimals))
        .collect();
    Ok(json_answer(StatusCode::OK, &methods))
}

/// `GET /v1/payment_methods/installments`: by `payment_method_id` or `bin`, for an `amount`.
pub(super) async fn installments(caller: Caller, RawQuery(query): RawQuery) -> Answer {
    let query = query_map(query.as_deref());
    let site = caller.seller.site;
    let amount = query
        .get("amount")
        .and_then(|text| serde_json::from_str::<Amount>(text).ok())
        .filter(|amount| amount.0 > 0)
        .ok_or_else(|| Refusal::bad(4023, "Invalid amount"))?;
    let by_id = query.get("payment_method_id").and_then(|id| site.method(id));
    let known = query
        .get("bin")
        .and_then(|bin| site.method_of_card(bin))
        .or(by_id)
        .ok_or_else(|| Refusal::bad(3011, "Not found payment_method"))?;
    let counts = if known.is_credit() {
        &OFFERED_INSTALLMENTS[..]
    } else {
        &OFFERED_INSTALLMENTS[..1]
    };
    let costs: Vec<Value> = counts
        .iter()
        .map(|count| {
            // Two percent a month: the simulator's own figure.
            let rate = if *count == 1 { 0 } else { count * 2 };
            let total = Amount(amount.0 + amount.0 * rate / 100);
            json!({
                "installments": count,
                "installment_rate": rate,
                "discount_rate": 0,
                "reimbursement_rate": 0,
                "labels": [],
                "min_allowed_amount": 0,
                "max_allowed_amount": 60_000_000,
                "recommended_message": format!("{count} cuota(s)"),
                "total_amount": total,
                "installment_amount": total.share(1, *count),
            })
        })
        .collect();
    let answer = json!([{
        "payment_method_id": known.id,
        "payment_type_id": known.kind,
        "issuer": { "id": known.issuer, "name": known.name },
        "processing_mode": "aggregator",
        "payer_costs": costs,
    }]);
    Ok(json_answer(StatusCode::OK, &answer))
}

/// `GET /v1/identification_types`: 404 where the country has none.
pub(super) async fn identification_types(caller: Caller) -> Answer {
    let documents = caller.seller.site.documents;
    if documents.is_empty() {
        return Err(Refusal::plain(StatusCode::NOT_FOUND, "Resource not found"));
    }
    Ok(json_answer(StatusCode::OK, &documents))
}

/// `GET /users/me`.
pub(super) async fn users_me(caller: Caller) -> Answer {
    let seller = &caller.seller;
    let answer = json!({
        "id": seller.user_id,
        "nickname": seller.nickname,
        "registration_date": "2020-01-15T09:00:00.000-04:00",
        "first_name": "Test",
        "last_name": "Seller",
        "email": seller.email,
        "country_id": seller.site.country,
        "site_id": seller.site.id,
        "user_type": "normal",
        "tags": ["normal", "test_user"],
        "identification": { "type": null, "number": null },
        "phone": { "area_code": null, "number": null, "extension": null, "verified": false },
        "status": { "site_status": "active", "mercadopago_account_type": "business" },
    });
    Ok(json_answer(StatusCode::OK, &answer))
}
