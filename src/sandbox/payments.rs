//! `POST /v1/payments` and what can be done with a payment afterwards: read, capture, cancel, extend.
//!
//! Guarantees that one idempotency key makes one payment, however often and however parallel it comes: the key is looked
//! up and the payment written under one lock of the seller's books. The key lives as long as its payment. A repeated key
//! gives back the first payment whatever the new body says (Mercado Pago documents nothing else for this route).

use std::sync::{Arc, MutexGuard};

use axum::extract::{Path, State};
use bytes::Bytes;
use chrono::Duration;
use http::{HeaderMap, StatusCode};

use super::answer::{Answer, Refusal, Stamp, json_answer};
use super::caller::Caller;
use super::card_tokens::CardToken;
use super::input::Amount;
use super::payment::{
    Payment, PaymentCard, PointOfInteraction, Status, TransactionData, TransactionDetails, Word,
};
use super::payment_request::{MAX_INSTALLMENTS, PaymentRequest};
use super::sites::Method;
use super::state::{Books, Due, World};

/// Days after which an unpaid payment expires.
const EXPIRY_DAYS: i64 = 30;
/// The longest idempotency key.
const MAX_KEY: usize = 256;

/// The idempotency key, which payments and refunds must have.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    let key = headers.get("x-idempotency-key")?.to_str().ok()?;
    (1..=MAX_KEY).contains(&key.len()).then(|| String::from(key))
}

/// `POST /v1/payments`.
pub(super) async fn create(
    State(world): State<Arc<World>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let key = idempotency_key(&headers)
        .ok_or_else(|| Refusal::bad(4292, "Header X-Idempotency-Key can't be null"))?;
    let request = PaymentRequest::read(&body, &caller)?;
    let mut books = caller.seller.books();
    if let Some(known) = books.keys.get(&key).and_then(|id| books.payments.get(id)) {
        return Ok(json_answer(StatusCode::OK, known));
    }
    let payment = charge(&world, &caller, &mut books, request)?;
    let id = payment.id;
    let notification_url = payment.notification_url.clone();
    let answer = json_answer(StatusCode::CREATED, &payment);
    enter(&world, &mut books, payment, Some(key));
    drop(books);
    world.announce(
        &caller.seller,
        "payment",
        "payment.created",
        &id.to_string(),
        notification_url.as_deref(),
    );
    Ok(answer)
}

/// Writes a new payment into the books, and forgets the oldest if there are too many.
pub(super) fn enter(world: &World, books: &mut Books, payment: Payment, key: Option<String>) {
    let id = payment.id;
    if matches!(payment.status, Status::Approved) {
        books.balance.0 += payment.net().0;
    }
    if matches!(
        payment.status,
        Status::Pending | Status::InProcess | Status::Authorized
    ) {
        let default = payment.date_created.0 + Duration::days(EXPIRY_DAYS);
        let until = payment.date_of_expiration.map_or(default, |date| date.0);
        books.agenda.insert((until, id), Due::Expire(id));
    }
    if let Some(key) = key {
        books.payment_keys.push_back(key.clone());
        books.keys.insert(key, id);
    }
    books.payment_order.push_back(id);
    books.payments.insert(id, payment);
    let Some(limit) = world.options.forget_after else {
        return;
    };
    while books.payment_order.len() > limit {
        let Some(oldest) = books.payment_order.pop_front() else {
            return;
        };
        books.refund_keys.remove(&oldest);
        if let Some(payment) = books.payments.remove(&oldest) {
            let default = payment.date_created.0 + Duration::days(EXPIRY_DAYS);
            books
                .agenda
                .remove(&(payment.date_of_expiration.map_or(default, |date| date.0), oldest));
        }
    }
    while books.payment_keys.len() > limit {
        let Some(key) = books.payment_keys.pop_front() else {
            return;
        };
        books.keys.remove(&key);
    }
}

fn charge(
    world: &World,
    caller: &Caller,
    books: &mut Books,
    request: PaymentRequest,
) -> Result<Payment, Refusal> {
    if request.payer.kind == "customer"
        && request
            .payer
            .id
            .as_ref()
            .is_some_and(|id| !books.customers.contains_key(id))
    {
        return Err(Refusal::bad(2002, "Customer not found"));
    }
    let card = match &request.token {
        Some(token) => {
            let owner = (caller.seller.user_id, caller.access.client_id.as_str());
            let check = |token: &CardToken| usable(token, &request, caller, books);
            Some(
                world
                    .card_tokens
                    .spend::<Refusal>(token, owner, caller.now, check)?,
            )
        }
        None => None,
    };
    let method = match (request.method, &card) {
        (Some(method), None) if method.is_card() => {
            return Err(Refusal::bad(2006, "Card Token not found"));
        }
        (Some(method), _) => method,
        (None, Some(card)) => card
            .facts
            .method(caller.seller.site)
            .ok_or_else(|| Refusal::bad(2131, "Cannot infer Payment Method"))?,
        (None, None) => return Err(Refusal::bad(2131, "Cannot infer Payment Method")),
    };
    if !request.capture && !method.is_credit() {
        return Err(Refusal::bad(
            2077,
            "Deferred capture is not supported by this payment method",
        ));
    }
    let (status, detail) = outcome(&request, method, card.as_ref(), caller);
    Ok(build(world, caller, request, method, card, status, detail))
}

/// Whether the token may pay this; if not it stays good.
fn usable(
    token: &CardToken,
    request: &PaymentRequest,
    caller: &Caller,
    books: &Books,
) -> Result<(), Refusal> {
    match (caller.access.live_mode, token.live_mode) {
        (false, true) => return Err(Refusal::bad(3, "Token must be for test")),
        (true, false) => {
            return Err(Refusal::code(
                StatusCode::UNAUTHORIZED,
                7,
                "Unauthorized use of live credentials",
            ));
        }
        _ => {}
    }
    let of_card = token.facts.method(caller.seller.site);
    if of_card.is_none() {
        return Err(Refusal::bad(2131, "Cannot infer Payment Method"));
    }
    if request
        .method
        .is_some_and(|method| of_card.is_none_or(|card| card.id != method.id))
    {
        return Err(if token.card_id.is_some() {
            Refusal::bad(3026, "Invalid card_id for this payment_method_id")
        } else {
            Refusal::bad(3028, "Invalid payment_method_id")
        });
    }
    if !request.capture && of_card.is_some_and(|card| !card.is_credit()) {
        return Err(Refusal::bad(
            2077,
            "Deferred capture is not supported by this payment method",
        ));
    }
    let Some(card_id) = &token.card_id else {
        return Ok(());
    };
    if !token.with_code {
        return Err(Refusal::bad(3031, "secure_code_id can't be null"));
    }
    let customer = request.payer.id.as_ref().and_then(|id| books.customers.get(id));
    match customer {
        Some(customer) if customer.cards.iter().all(|card| card.id != *card_id) => {
            Err(Refusal::bad(2034, "Invalid users involved"))
        }
        _ => Ok(()),
    }
}

/// How the payment turns out: by the cardholder's name, as Mercado Pago's test cards do.
fn outcome(
    request: &PaymentRequest,
    method: &Method,
    card: Option<&CardToken>,
    caller: &Caller,
) -> (Status, &'static str) {
    let Some(card) = card else {
        return match method.kind {
            "account_money" => (Status::Approved, "accredited"),
            "bank_transfer" => (Status::Pending, "pending_waiting_transfer"),
            _ => (Status::Pending, "pending_waiting_payment"),
        };
    };
    if card.facts.expired(caller.now) {
        return (Status::Rejected, "cc_rejected_bad_filled_date");
    }
    if request.installments.is_some_and(|count| count > MAX_INSTALLMENTS) {
        return (Status::Rejected, "cc_rejected_invalid_installments");
    }
    match by_cardholder(&card.facts.cardholder.name) {
        (Status::Approved, _) if !request.capture => (Status::Authorized, "pending_capture"),
        (Status::InProcess, _) if request.binary_mode => (Status::Rejected, "cc_rejected_other_reason"),
        outcome => outcome,
    }
}

/// What Mercado Pago's test cards answer for a cardholder's name; any other name is approved.
pub(super) fn by_cardholder(name: &str) -> (Status, &'static str) {
    let word = name.split_whitespace().next().unwrap_or("").to_ascii_uppercase();
    let rejected = match word.as_str() {
        "CONT" => return (Status::InProcess, "pending_contingency"),
        "OTHE" => "cc_rejected_other_reason",
        "CALL" => "cc_rejected_call_for_authorize",
        "FUND" => "cc_rejected_insufficient_amount",
        "SECU" => "cc_rejected_bad_filled_security_code",
        "EXPI" => "cc_rejected_bad_filled_date",
        "FORM" => "cc_rejected_bad_filled_other",
        "CARD" => "cc_rejected_bad_filled_card_number",
        "INST" => "cc_rejected_invalid_installments",
        "DUPL" => "cc_rejected_duplicated_payment",
        "LOCK" => "cc_rejected_card_disabled",
        "CTNA" | "UNSU" => "cc_rejected_card_type_not_allowed",
        "ATTE" => "cc_rejected_max_attempts",
        "BLAC" => "cc_rejected_blacklist",
        "RISK" => "cc_rejected_high_risk",
        "TEST" => "cc_amount_rate_limit_exceeded",
        _ => return (Status::Approved, "accredited"),
    };
    (Status::Rejected, rejected)
}

fn build(
    world: &World,
    caller: &Caller,
    request: PaymentRequest,
    method: &'static Method,
    card: Option<CardToken>,
    status: Status,
    detail: &'static str,
) -> Payment {
    let now = Stamp(caller.now);
    let id = world.next_id();
    let unpaid = status == Status::Pending;
    let public_url = &world.options.public_url;
    let ticket = unpaid.then(|| format!("{public_url}/payments/{id}/ticket"));
    let mut payment = Payment {
        id,
        date_created: now,
        date_approved: None,
        date_last_updated: now,
        date_of_expiration: request
            .date_of_expiration
            .or_else(|| unpaid.then(|| Stamp(caller.now + Duration::days(EXPIRY_DAYS)))),
        money_release_date: None,
        operation_type: Word::Borrowed("regular_payment"),
        issuer_id: request
            .issuer_id
            .or_else(|| method.is_card().then(|| method.issuer.to_string())),
        payment_method_id: Word::Borrowed(method.id),
        payment_type_id: Word::Borrowed(method.kind),
        status,
        status_detail: Word::Borrowed(detail),
        currency_id: Word::Borrowed(caller.seller.site.currency),
        description: request.description,
        live_mode: caller.access.live_mode,
        sponsor_id: None,
        authorization_code: None,
        collector_id: caller.seller.user_id,
        payer: request.payer,
        metadata: request.metadata,
        additional_info: request.additional_info,
        external_reference: request.external_reference,
        transaction_amount: request.amount,
        transaction_amount_refunded: Amount::default(),
        coupon_amount: request.coupon_amount,
        installments: request.installments.unwrap_or(1),
        transaction_details: TransactionDetails {
            external_resource_url: ticket.clone(),
            total_paid_amount: request.amount,
            ..TransactionDetails::default()
        },
        fee_details: request
            .application_fee
            .filter(|fee| fee.0 > 0)
            .map(marketplace_fee)
            .into_iter()
            .collect(),
        captured: status == Status::Approved,
        binary_mode: request.binary_mode,
        statement_descriptor: request.statement_descriptor,
        card: card.map(|token| PaymentCard::new(token.facts, token.card_id, now)),
        notification_url: request.notification_url,
        callback_url: request.callback_url,
        refunds: Vec::new(),
        processing_mode: Word::Borrowed("aggregator"),
        point_of_interaction: (unpaid && method.kind == "bank_transfer").then(|| transfer(id, ticket)),
    };
    match status {
        Status::Approved => payment.approve(request.application_fee, now),
        Status::Authorized => payment.authorization_code = Some(format!("{:06}", id % 1_000_000)),
        _ => {}
    }
    payment
}

fn marketplace_fee(amount: Amount) -> super::payment::Fee {
    super::payment::Fee {
        kind: Word::Borrowed("application_fee"),
        amount,
        fee_payer: Word::Borrowed("collector"),
    }
}

fn transfer(id: u64, ticket_url: Option<String>) -> PointOfInteraction {
    PointOfInteraction {
        kind: Word::Borrowed("OPENPLATFORM"),
        transaction_data: TransactionData {
            qr_code: Some(format!("00020126580014br.gov.bcb.pix0136sandbox-{id}")),
            qr_code_base64: None,
            ticket_url,
        },
    }
}

/// What is said of a payment that nobody has.
pub(super) fn not_found() -> Refusal {
    Refusal::code(StatusCode::NOT_FOUND, 2000, "Payment not found")
}

/// The seller's books, locked, if the payment is in them. Another seller's payment is a 403, as at Mercado Pago; only one
/// seller's books are ever locked at a time, so that no two calls can wait for each other.
pub(super) fn locate<'a>(
    world: &World,
    caller: &'a Caller,
    id: &str,
) -> Result<(MutexGuard<'a, Books>, u64), Refusal> {
    let id: u64 = id
        .parse()
        .map_err(|_| Refusal::bad(4019, "payment_id attribute must be numeric"))?;
    let books = caller.seller.books();
    if books.payments.contains_key(&id) {
        return Ok((books, id));
    }
    drop(books);
    let elsewhere = world
        .all_sellers()
        .iter()
        .any(|seller| seller.books().payments.contains_key(&id));
    Err(if elsewhere {
        Refusal::code(
            StatusCode::FORBIDDEN,
            4,
            "The caller is not authorized to access this resource",
        )
    } else {
        not_found()
    })
}

/// `GET /v1/payments/{id}`.
pub(super) async fn show(State(world): State<Arc<World>>, caller: Caller, Path(id): Path<String>) -> Answer {
    let (books, id) = locate(&world, &caller, &id)?;
    Ok(json_answer(
        StatusCode::OK,
        books.payments.get(&id).ok_or_else(not_found)?,
    ))
}

/// A payment that the clock or a control call changed, told to the application.
pub(super) fn told(world: &World, seller: &super::state::Seller, payment: &Payment) {
    world.announce(
        seller,
        "payment",
        "payment.updated",
        &payment.id.to_string(),
        payment.notification_url.as_deref(),
    );
}
