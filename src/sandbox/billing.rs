//! Charging subscriptions: on their dates, with a payment and an invoice each time, a second payment method if the first
//! fails, retries, and the end.
//!
//! Dates are counted from an anchor (after the free trial, on the billing day), so that a month's short end does not move
//! later ones. How often and how late Mercado Pago retries is its own affair; here it is every three days, three times.

use chrono::{DateTime, Duration, Utc};

use super::answer::Stamp;
use super::card_tokens::{CardFacts, Identification};
use super::customers::empty_object;
use super::input::Amount;
use super::payment::{Payer, Payment, PaymentCard, Status, TransactionDetails, Word};
use super::payments::{by_cardholder, enter};
use super::state::{Books, Due, Seller, World};
use super::subscription::{AuthorizedPayment, InvoicePayment, State, Subscription};

const RETRY_DAYS: i64 = 3;
const MAX_RETRIES: u32 = 3;
/// Invoices that may fail one after the other before the subscription is cancelled.
const MAX_FAILURES: u32 = 3;

/// Makes a subscription charge from now on.
pub(super) fn authorize(books: &mut Books, subscription: &mut Subscription, now: DateTime<Utc>) {
    let first_time = subscription.anchor.is_none();
    let start = subscription
        .shown
        .auto_recurring
        .start_date
        .map_or(now, |date| date.0)
        .max(now);
    subscription.shown.status = State::Authorized;
    if first_time {
        subscription.anchor = Some(subscription.shown.auto_recurring.anchor(start));
        subscription.shown.summarized.quotas = subscription.shown.auto_recurring.repetitions;
        subscription.shown.summarized.semaphore = Some(Word::Borrowed("green"));
        if let Some(amount) = subscription.shown.auto_recurring.proportional(start) {
            books.agenda.insert(
                (start, number(&subscription.shown.id)),
                Due::Charge(subscription.shown.id.clone()),
            );
            subscription.shown.next_payment_date = Some(Stamp(start));
            subscription.proportional = Some((start, amount));
            return;
        }
    }
    reschedule(books, subscription, now);
}

/// Puts the next charge into the agenda: the first date that is not in the past.
pub(super) fn reschedule(books: &mut Books, subscription: &mut Subscription, now: DateTime<Utc>) {
    let recurring = &subscription.shown.auto_recurring;
    let Some(mut anchor) = subscription.anchor else {
        return;
    };
    if let Some((at, _)) = subscription.proportional {
        subscription.shown.next_payment_date = Some(Stamp(at));
        return;
    }
    // A billing day that was changed afterwards holds from the next charge on.
    if let Some(day) = recurring.billing_day
        && let Some(moved) = chrono::Datelike::with_day(&anchor, day)
    {
        anchor = moved;
        subscription.anchor = Some(moved);
    }
    let mut next = recurring.charge_date(anchor, subscription.periods);
    while next < now && subscription.periods < u32::MAX / 2400 {
        subscription.periods += 1;
        next = recurring.charge_date(anchor, subscription.periods);
    }
    let over = recurring.end_date.is_some_and(|end| next > end.0)
        || recurring
            .repetitions
            .is_some_and(|count| subscription.charges >= count);
    if over {
        subscription.shown.next_payment_date = None;
        subscription.shown.status = State::Cancelled;
        return;
    }
    subscription.shown.next_payment_date = Some(Stamp(next));
    books.agenda.insert(
        (next, number(&subscription.shown.id)),
        Due::Charge(subscription.shown.id.clone()),
    );
}

/// A number that tells agenda entries of the same instant apart.
fn number(id: &str) -> u64 {
    u64::from_str_radix(id.get(..15).unwrap_or("0"), 16).unwrap_or(0)
}

/// A charge comes due.
pub(super) fn charge(world: &World, seller: &Seller, id: &str, at: DateTime<Utc>) {
    let mut books = seller.books();
    let Some(mut subscription) = books.subscriptions.get(id).cloned() else {
        return;
    };
    // Entries of another plan of dates, of a pause or of a cancellation are left over, not taken back.
    if subscription.shown.status != State::Authorized
        || subscription.shown.next_payment_date != Some(Stamp(at))
    {
        return;
    }
    let amount = if let Some((_, amount)) = subscription.proportional.take() {
        amount
    } else {
        subscription.periods += 1;
        subscription.charges += 1;
        subscription.shown.auto_recurring.transaction_amount
    };
    let invoice = AuthorizedPayment {
        id: world.next_id(),
        kind: Word::Borrowed("scheduled"),
        preapproval_id: String::from(id),
        reason: subscription.shown.reason.clone(),
        external_reference: subscription.shown.external_reference.clone(),
        currency_id: subscription.shown.auto_recurring.currency_id.clone(),
        transaction_amount: amount,
        debit_date: Stamp(at),
        date_created: Stamp(at),
        last_modified: Stamp(at),
        retry_attempt: 0,
        next_retry_date: None,
        payment_method_id: subscription.shown.payment_method_id.clone(),
        payer_id: subscription.shown.payer_id,
        status: Word::Borrowed("scheduled"),
        status_detail: Word::Borrowed("pending"),
        payment: None,
    };
    let events = collect(world, seller, &mut books, &mut subscription, invoice, at);
    if subscription.shown.status == State::Authorized {
        reschedule(&mut books, &mut subscription, at);
    }
    books.subscriptions.insert(String::from(id), subscription);
    drop(books);
    events.tell(world, seller, "created");
}

/// A failed invoice is tried again.
pub(super) fn retry(world: &World, seller: &Seller, invoice: u64, at: DateTime<Utc>) {
    let mut books = seller.books();
    let Some(mut invoice) = books.invoices.get(&invoice).cloned() else {
        return;
    };
    let Some(mut subscription) = books.subscriptions.get(&invoice.preapproval_id).cloned() else {
        return;
    };
    if invoice.status != "recycling" || subscription.shown.status == State::Cancelled {
        return;
    }
    invoice.retry_attempt += 1;
    let events = collect(world, seller, &mut books, &mut subscription, invoice, at);
    books
        .subscriptions
        .insert(subscription.shown.id.clone(), subscription);
    drop(books);
    events.tell(world, seller, "updated");
}

/// What happened and has to be told once the books are closed.
struct Events {
    payment: u64,
    invoice: u64,
    subscription: String,
}

impl Events {
    fn tell(&self, world: &World, seller: &Seller, action: &str) {
        world.announce(
            seller,
            "payment",
            "payment.created",
            &self.payment.to_string(),
            None,
        );
        world.announce(
            seller,
            "subscription_authorized_payment",
            action,
            &self.invoice.to_string(),
            None,
        );
        world.announce(
            seller,
            "subscription_preapproval",
            "updated",
            &self.subscription,
            None,
        );
    }
}

fn collect(
    world: &World,
    seller: &Seller,
    books: &mut Books,
    subscription: &mut Subscription,
    mut invoice: AuthorizedPayment,
    at: DateTime<Utc>,
) -> Events {
    let outcome = |card: Option<&CardFacts>| match card {
        None => (Status::Rejected, "cc_rejected_other_reason"),
        Some(card) if card.expired(at) => (Status::Rejected, "cc_rejected_bad_filled_date"),
        Some(card) => by_cardholder(second_word(&card.cardholder.name)),
    };
    let mut card = subscription.card.clone();
    let (mut status, mut detail) = outcome(card.as_ref());
    if status != Status::Approved && subscription.shown.payment_method_id_secondary.is_some() {
        card.clone_from(&subscription.secondary_card);
        (status, detail) = match &card {
            // Account money, which always pays here.
            None => (Status::Approved, "accredited"),
            Some(card) => outcome(Some(card)),
        };
    }
    let payment = payment(world, seller, subscription, &invoice, card, (status, detail), at);
    invoice.payment = Some(InvoicePayment {
        id: payment.id,
        status: payment.status,
        status_detail: payment.status_detail.clone(),
    });
    invoice.payment_method_id = Some(payment.payment_method_id.to_string());
    invoice.last_modified = Stamp(at);
    invoice.next_retry_date = None;
    let summary = &mut subscription.shown.summarized;
    let mut agenda = None;
    if payment.status == Status::Approved {
        invoice.status = Word::Borrowed("processed");
        invoice.status_detail = Word::Borrowed("accredited");
        subscription.failures = 0;
        summary.charged_quantity += 1;
        summary.charged_amount.0 += invoice.transaction_amount.0;
        summary.last_charged_date = Some(Stamp(at));
        summary.last_charged_amount = Some(invoice.transaction_amount);
        summary.semaphore = Some(Word::Borrowed("green"));
    } else if invoice.retry_attempt < MAX_RETRIES {
        let next = at + Duration::days(RETRY_DAYS);
        invoice.status = Word::Borrowed("recycling");
        invoice.status_detail.clone_from(&payment.status_detail);
        invoice.next_retry_date = Some(Stamp(next));
        summary.semaphore = Some(Word::Borrowed("yellow"));
        agenda = Some(((next, invoice.id), Due::Retry(invoice.id)));
    } else {
        invoice.status = Word::Borrowed("cancelled");
        invoice.status_detail.clone_from(&payment.status_detail);
        summary.semaphore = Some(Word::Borrowed("red"));
        subscription.failures += 1;
        if subscription.failures >= MAX_FAILURES {
            subscription.shown.status = State::Cancelled;
            subscription.shown.next_payment_date = None;
        }
    }
    if let Some(quotas) = summary.quotas {
        let left = quotas.saturating_sub(summary.charged_quantity);
        summary.pending_charge_quantity = Some(left);
        let amount = subscription.shown.auto_recurring.transaction_amount;
        summary.pending_charge_amount = Some(Amount(amount.0 * i64::from(left)));
    }
    subscription.shown.last_modified = Stamp(at);
    let events = Events {
        payment: payment.id,
        invoice: invoice.id,
        subscription: subscription.shown.id.clone(),
    };
    books.invoices.insert(invoice.id, invoice);
    if let Some((key, due)) = agenda {
        books.agenda.insert(key, due);
    }
    enter(world, books, payment, None);
    events
}

/// The word that recurring charges go by: the second, or the only one.
fn second_word(name: &str) -> &str {
    name.split_whitespace().nth(1).unwrap_or("APRO")
}

fn payment(
    world: &World,
    seller: &Seller,
    subscription: &Subscription,
    invoice: &AuthorizedPayment,
    card: Option<CardFacts>,
    (status, detail): (Status, &'static str),
    at: DateTime<Utc>,
) -> Payment {
    let now = Stamp(at);
    let method = card.as_ref().and_then(|card| card.method(seller.site));
    let mut payment = Payment {
        id: world.next_id(),
        date_created: now,
        date_approved: None,
        date_last_updated: now,
        date_of_expiration: None,
        money_release_date: None,
        operation_type: Word::Borrowed("recurring_payment"),
        issuer_id: method.map(|method| method.issuer.to_string()),
        payment_method_id: Word::Borrowed(method.map_or("account_money", |method| method.id)),
        payment_type_id: Word::Borrowed(method.map_or("account_money", |method| method.kind)),
        status,
        status_detail: Word::Borrowed(detail),
        currency_id: Word::Borrowed(seller.site.currency),
        description: Some(subscription.shown.reason.clone()),
        live_mode: subscription.live_mode,
        sponsor_id: None,
        authorization_code: None,
        collector_id: seller.user_id,
        payer: Payer {
            id: Some(subscription.shown.payer_id.to_string()),
            email: Some(subscription.shown.payer_email.clone()),
            identification: card.as_ref().map_or_else(Identification::default, |card| {
                card.cardholder.identification.clone()
            }),
            kind: Word::Borrowed("registered"),
            first_name: None,
            last_name: None,
        },
        metadata: empty_object(),
        additional_info: empty_object(),
        external_reference: subscription.shown.external_reference.clone(),
        transaction_amount: invoice.transaction_amount,
        transaction_amount_refunded: Amount::default(),
        coupon_amount: Amount::default(),
        installments: 1,
        transaction_details: TransactionDetails {
            total_paid_amount: invoice.transaction_amount,
            ..TransactionDetails::default()
        },
        fee_details: Vec::new(),
        captured: status == Status::Approved,
        binary_mode: true,
        statement_descriptor: None,
        card: card.map(|facts| PaymentCard::new(facts, None, now)),
        notification_url: None,
        callback_url: None,
        refunds: Vec::new(),
        processing_mode: Word::Borrowed("aggregator"),
        point_of_interaction: None,
    };
    if status == Status::Approved {
        payment.approve(None, now);
    } else {
        // A recurring charge has no state in between.
        payment.status = Status::Rejected;
    }
    payment
}
