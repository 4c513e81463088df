//! `/_sandbox/...`: moving the clock, setting faults, ending grants, settling payments, looking at what arrived.
//!
//! These routes are the simulator's own, need no token, and are neither noted nor disturbed themselves.

use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use bytes::Bytes;
use chrono::Duration;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::faults::Fault;
use super::grants::EndReason;
use super::input::Amount;
use super::payment::Status;
use super::payments::told;
use super::sites::{SITES, Site};
use super::state::{Seller, World, test_buyers};

/// The control routes.
pub(super) fn routes() -> Router<Arc<World>> {
    Router::new()
        .route("/_sandbox/clock", get(show_clock).post(advance_clock))
        .route(
            "/_sandbox/faults",
            get(list_faults).post(add_fault).delete(clear_faults),
        )
        .route("/_sandbox/requests", get(list_requests).delete(clear_requests))
        .route("/_sandbox/notifications", get(list_notifications))
        .route("/_sandbox/sellers", get(list_sellers).post(add_sellers))
        .route("/_sandbox/buyers", get(list_buyers))
        .route("/_sandbox/sellers/{id}/revoke", post(revoke))
        .route("/_sandbox/sellers/{id}/balance", post(set_balance))
        .route("/_sandbox/payments/{id}/status", post(settle_payment))
        .route("/_sandbox/applications", get(list_applications))
        .route("/_sandbox/applications/{client_id}", delete(delete_application))
        .route("/_sandbox/test_cards", get(test_cards))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::plain(StatusCode::BAD_REQUEST, &error.to_string()))
}

fn ok(body: &Value) -> Response {
    json_answer(StatusCode::OK, body)
}

async fn show_clock(State(world): State<Arc<World>>) -> Response {
    ok(&json!({ "now": world.now() }))
}

#[derive(Deserialize)]
struct Advance {
    advance: String,
}

/// `{"advance": "30d"}`
async fn advance_clock(State(world): State<Arc<World>>, body: Bytes) -> Answer {
    let wanted: Advance = read(&body)?;
    let wrong = || {
        Refusal::plain(
            StatusCode::BAD_REQUEST,
            "advance must be a duration like 30d or 12h 5m",
        )
    };
    let by = humantime::parse_duration(&wanted.advance).map_err(|_| wrong())?;
    world.advance(Duration::from_std(by).map_err(|_| wrong())?);
    Ok(ok(&json!({ "now": world.now() })))
}

async fn list_faults(State(world): State<Arc<World>>) -> Answer {
    Ok(json_answer(StatusCode::OK, &world.faults.list()))
}

/// `{"route": "token", "kind": "500", "seller": 241000001, "times": 3}` or `{"fault": "token@241000001=500*3"}`
async fn add_fault(State(world): State<Arc<World>>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Text {
        fault: String,
    }
    let fault: Fault = match read::<Text>(&body) {
        Ok(text) => text.fault.parse().map_err(|error: super::faults::FaultSyntax| {
            Refusal::plain(StatusCode::BAD_REQUEST, &error.to_string())
        })?,
        Err(_) => read(&body)?,
    };
    if world.faults.add(fault) {
        Ok(json_answer(StatusCode::CREATED, &world.faults.list()))
    } else {
        Err(Refusal::plain(
            StatusCode::BAD_REQUEST,
            "there is no route of that name",
        ))
    }
}

async fn clear_faults(State(world): State<Arc<World>>) -> Response {
    world.faults.clear();
    ok(&json!([]))
}

async fn list_requests(State(world): State<Arc<World>>) -> Response {
    let requests: Vec<Value> = world
        .recorder
        .requests()
        .iter()
        .map(|request| {
            let headers: Vec<Value> = request
                .headers
                .iter()
                .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
                .collect();
            json!({
                "at": request.at,
                "method": request.method.as_str(),
                "path": request.path,
                "query": request.query,
                "headers": headers,
                "body": String::from_utf8_lossy(&request.body),
            })
        })
        .collect();
    ok(&Value::Array(requests))
}

async fn clear_requests(State(world): State<Arc<World>>) -> Response {
    world.recorder.clear();
    ok(&json!([]))
}

async fn list_notifications(State(world): State<Arc<World>>) -> Response {
    let (waiting, attempts) = world.outbox.overview();
    ok(&json!({ "waiting": waiting, "attempts": attempts }))
}

async fn list_sellers(State(world): State<Arc<World>>) -> Answer {
    Ok(json_answer(StatusCode::OK, &world.test_sellers()))
}

async fn list_buyers() -> Response {
    json_answer(StatusCode::OK, &test_buyers())
}

/// `{"site_id": "MLA", "count": 1000}`
async fn add_sellers(State(world): State<Arc<World>>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Wanted {
        site_id: String,
        count: u64,
    }
    const MAX_COUNT: u64 = 100_000;
    let wanted: Wanted = read(&body)?;
    let site = Site::find(&wanted.site_id)
        .ok_or_else(|| Refusal::plain(StatusCode::BAD_REQUEST, "there is no site of that id"))?;
    Ok(json_answer(
        StatusCode::CREATED,
        &world.add_sellers(site, wanted.count.min(MAX_COUNT)),
    ))
}

fn seller(world: &World, id: &str) -> Result<Arc<Seller>, Refusal> {
    world
        .find_seller(id)
        .ok_or_else(|| Refusal::plain(StatusCode::NOT_FOUND, "there is no such seller"))
}

/// What ends a grant, expiry included.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    Expired,
    #[serde(untagged)]
    Reason(EndReason),
}

/// `{"reason": "password_change", "client_id": "..."}`; all applications unless one is named.
async fn revoke(State(world): State<Arc<World>>, Path(id): Path<String>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Wanted {
        reason: Ending,
        client_id: Option<String>,
    }
    let wanted: Wanted = read(&body)?;
    let seller = seller(&world, &id)?;
    let matches = |user_id: u64, client: &str| {
        user_id == seller.user_id && wanted.client_id.as_deref().is_none_or(|wanted| wanted == client)
    };
    let ended = match wanted.reason {
        Ending::Expired => world.grants.expire_access(matches),
        Ending::Reason(reason) => world.end_grants(&seller, reason, matches),
    };
    Ok(ok(&json!({ "ended": ended })))
}

/// `{"amount": 1000}`
async fn set_balance(State(world): State<Arc<World>>, Path(id): Path<String>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Wanted {
        amount: Amount,
    }
    let wanted: Wanted = read(&body)?;
    seller(&world, &id)?.books().balance = wanted.amount;
    Ok(ok(&json!({ "balance": wanted.amount })))
}

/// `{"status": "approved"}`: the buyer pays a ticket, a review ends, a dispute begins or ends.
async fn settle_payment(State(world): State<Arc<World>>, Path(id): Path<u64>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Wanted {
        status: Status,
        status_detail: Option<String>,
    }
    let wanted: Wanted = read(&body)?;
    let now = Stamp(world.now());
    for seller in world.all_sellers() {
        let mut books = seller.books();
        let Some(payment) = books.payments.get_mut(&id) else {
            continue;
        };
        let mut earned = 0;
        match wanted.status {
            Status::Approved => {
                let fee = payment.application_fee();
                payment.approve(fee, now);
                earned = payment.net().0;
            }
            Status::Rejected => payment.become_status(Status::Rejected, "cc_rejected_other_reason", now),
            Status::Cancelled => payment.become_status(Status::Cancelled, "by_payer", now),
            Status::ChargedBack => payment.become_status(Status::ChargedBack, "in_process", now),
            Status::InMediation => payment.become_status(Status::InMediation, "pending", now),
            Status::InProcess => payment.become_status(Status::InProcess, "pending_review_manual", now),
            Status::Pending | Status::Authorized | Status::Refunded => {
                return Err(Refusal::plain(
                    StatusCode::BAD_REQUEST,
                    "no payment gets this status from outside",
                ));
            }
        }
        if let Some(detail) = wanted.status_detail {
            payment.status_detail = detail.into();
        }
        let payment = payment.clone();
        books.balance.0 += earned;
        drop(books);
        told(&world, &seller, &payment);
        return Ok(json_answer(StatusCode::OK, &payment));
    }
    Err(Refusal::plain(StatusCode::NOT_FOUND, "there is no such payment"))
}

async fn list_applications(State(world): State<Arc<World>>) -> Response {
    let applications: Vec<Value> = world
        .options
        .clients
        .iter()
        .map(|client| {
            json!({
                "client_id": client.client_id,
                "redirect_uris": client.redirect_uris,
                "public_key": world.application_key(&client.client_id),
                "webhook_url": client.webhook.as_ref().map(|webhook| &webhook.url),
                "deleted": world.client(&client.client_id).is_none(),
            })
        })
        .collect();
    json_answer(StatusCode::OK, &applications)
}

/// Deletes an application: every grant to it ends, and its credentials are worth nothing.
async fn delete_application(State(world): State<Arc<World>>, Path(client_id): Path<String>) -> Answer {
    if world.client(&client_id).is_none() {
        return Err(Refusal::plain(
            StatusCode::NOT_FOUND,
            "there is no such application",
        ));
    }
    let ended = world
        .grants
        .end(EndReason::ApplicationDeleted, |_, client| client == client_id);
    world
        .deleted_clients
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(client_id);
    Ok(ok(&json!({ "ended": ended })))
}

/// The published test cards by site.
async fn test_cards() -> Response {
    let cards: Vec<Value> = SITES
        .iter()
        .map(|site| json!({ "site_id": site.id, "cards": site.cards }))
        .collect();
    json_answer(StatusCode::OK, &cards)
}
