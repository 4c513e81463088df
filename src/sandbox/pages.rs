//! The sandbox's pages: how they are sent, its front page, and those on which a buyer pays a ticket or completes a
//! subscription (`init_point`, `ticket_url`).

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::answer::Stamp;
use super::billing;
use super::customer_fields::is_email;
use super::customer_search::query_map;
use super::payment::Status;
use super::payments::told;
use super::sites::{SITES, Site};
use super::state::{Seller, World};
use super::subscription::{Plan, State as SubscriptionState, Subscription};
use super::{card_tokens, subscriptions};

/// The pages' routes.
pub(super) fn routes() -> Router<Arc<World>> {
    Router::new()
        .route("/", get(index))
        .route("/payments/{id}/ticket", get(ticket).post(pay_ticket))
        .route("/subscriptions/checkout", get(checkout).post(subscribe))
}

/// A page of the sandbox, with headers that let it load nothing.
pub(super) fn page<T: Template>(status: StatusCode, template: &T) -> Response {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    );
    const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
    match template.render() {
        Ok(html) => (
            status,
            [
                (header::CONTENT_TYPE, HTML),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            ],
            html,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[derive(Template)]
#[template(path = "sandbox/message.html")]
struct MessagePage {
    title: String,
    message: String,
}

/// A page with a message.
pub(super) fn message_page(status: StatusCode, title: &str, message: &str) -> Response {
    page(
        status,
        &MessagePage {
            title: String::from(title),
            message: String::from(message),
        },
    )
}

/// To another page, after a form.
pub(super) fn see_other(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

#[derive(Template)]
#[template(path = "sandbox/index.html")]
struct IndexPage {
    shop: bool,
    sites: &'static [Site],
}

/// `GET /`: what there is.
async fn index(State(world): State<Arc<World>>) -> Response {
    page(
        StatusCode::OK,
        &IndexPage {
            shop: world.options.storefront.is_some(),
            sites: &SITES,
        },
    )
}

fn gone() -> Response {
    message_page(
        StatusCode::NOT_FOUND,
        "There is nothing to pay here",
        "The link is wrong, or it was paid already.",
    )
}

#[derive(Template)]
#[template(path = "sandbox/ticket.html")]
struct TicketPage {
    id: u64,
    amount: String,
    currency: &'static str,
    open: bool,
}

fn with_payment<R>(
    world: &World,
    id: u64,
    work: impl FnOnce(&Arc<Seller>, &mut super::state::Books) -> R,
) -> Option<R> {
    for seller in world.all_sellers() {
        world.settle(&seller, world.now());
        let mut books = seller.books();
        if books.payments.contains_key(&id) {
            return Some(work(&seller, &mut books));
        }
    }
    None
}

/// `GET /payments/{id}/ticket`: what a buyer pays at a counter or by transfer.
async fn ticket(State(world): State<Arc<World>>, Path(id): Path<u64>) -> Response {
    let shown = with_payment(&world, id, |seller, books| {
        let payment = books.payments.get(&id)?;
        Some(TicketPage {
            id,
            amount: serde_json::to_string(&payment.transaction_amount).unwrap_or_default(),
            currency: seller.site.currency,
            open: payment.status == Status::Pending,
        })
    });
    match shown.flatten() {
        Some(shown) => page(StatusCode::OK, &shown),
        None => gone(),
    }
}

/// `POST /payments/{id}/ticket`: it is paid.
async fn pay_ticket(State(world): State<Arc<World>>, Path(id): Path<u64>) -> Response {
    let now = Stamp(world.now());
    let paid = with_payment(&world, id, |seller, books| {
        let payment = books
            .payments
            .get_mut(&id)
            .filter(|payment| payment.status == Status::Pending)?;
        payment.approve(payment.application_fee(), now);
        let payment = payment.clone();
        books.balance.0 += payment.net().0;
        Some((Arc::clone(seller), payment))
    });
    match paid.flatten() {
        Some((seller, payment)) => {
            told(&world, &seller, &payment);
            message_page(StatusCode::OK, "Paid", "The seller will see it now.")
        }
        None => gone(),
    }
}

#[derive(Template)]
#[template(path = "sandbox/checkout.html")]
struct CheckoutPage {
    reason: String,
    amount: String,
    currency: &'static str,
    action: String,
    email: Option<String>,
    cards: &'static [super::sites::TestCard],
    error: String,
}

/// What a checkout link leads to.
enum Checkout {
    Subscription(Box<Subscription>),
    Plan(Box<Plan>),
}

fn find(world: &World, query: Option<&str>) -> Option<(Arc<Seller>, Checkout)> {
    let query = query_map(query);
    world.all_sellers().into_iter().find_map(|seller| {
        let books = seller.books();
        let found = if let Some(id) = query.get("preapproval_id") {
            let subscription = books.subscriptions.get(id)?;
            (subscription.shown.status == SubscriptionState::Pending)
                .then(|| Checkout::Subscription(Box::new(subscription.clone())))
        } else {
            let plan = books.plans.get(query.get("preapproval_plan_id")?)?;
            (plan.status == "active").then(|| Checkout::Plan(Box::new(plan.clone())))
        };
        drop(books);
        found.map(|found| (seller, found))
    })
}

fn checkout_page(seller: &Seller, checkout: &Checkout, query: &str, error: &str) -> Response {
    let (reason, recurring, email) = match checkout {
        Checkout::Subscription(subscription) => {
            let shown = &subscription.shown;
            (
                &shown.reason,
                &shown.auto_recurring,
                Some(shown.payer_email.clone()),
            )
        }
        Checkout::Plan(plan) => (&plan.reason, &plan.auto_recurring, None),
    };
    let status = if error.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    page(
        status,
        &CheckoutPage {
            reason: reason.clone(),
            amount: serde_json::to_string(&recurring.transaction_amount).unwrap_or_default(),
            currency: seller.site.currency,
            action: format!("/subscriptions/checkout?{query}"),
            email,
            cards: seller.site.cards,
            error: String::from(error),
        },
    )
}

/// `GET /subscriptions/checkout`: where `init_point` leads a subscriber.
async fn checkout(State(world): State<Arc<World>>, RawQuery(query): RawQuery) -> Response {
    match find(&world, query.as_deref()) {
        Some((seller, found)) => checkout_page(&seller, &found, query.as_deref().unwrap_or(""), ""),
        None => gone(),
    }
}

/// `POST /subscriptions/checkout`: the subscriber gives a card; back to the seller's `back_url`.
async fn subscribe(State(world): State<Arc<World>>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let Some((seller, found)) = find(&world, query.as_deref()) else {
        return gone();
    };
    let form = std::str::from_utf8(&body).ok();
    let form = query_map(form);
    let get = |name: &str| form.get(name).map_or("", String::as_str);
    let again = |error: &str| checkout_page(&seller, &found, query.as_deref().unwrap_or(""), error);
    let number: String = get("number").chars().filter(char::is_ascii_digit).collect();
    let Some(facts) = card_tokens::typed_card(&number, get("name")) else {
        return again("This card number is not valid.");
    };
    if subscriptions::verify(&facts, &seller, world.now()).is_err() {
        return again("The card was declined.");
    }
    let mut subscription = match &found {
        Checkout::Subscription(subscription) => subscription.as_ref().clone(),
        Checkout::Plan(_) if !is_email(get("email")) => return again("This e-mail address is not valid."),
        Checkout::Plan(plan) => subscriptions::of_checkout(&world, &seller, plan, get("email")),
    };
    subscription.shown.payment_method_id = facts.method(seller.site).map(|method| String::from(method.id));
    subscription.shown.card_id = Some(world.next_id());
    subscription.card = Some(facts);
    let id = subscription.shown.id.clone();
    let back = subscription.shown.back_url.clone();
    let mut books = seller.books();
    billing::authorize(&mut books, &mut subscription, world.now());
    books.subscriptions.insert(id.clone(), subscription);
    drop(books);
    world.announce(&seller, "subscription_preapproval", "updated", &id, None);
    world.settle(&seller, world.now());
    let back = back.and_then(|back| url::Url::parse(&back).ok()).map(|mut back| {
        back.query_pairs_mut().append_pair("preapproval_id", &id);
        String::from(back)
    });
    match back {
        Some(back) => see_other(&back),
        None => message_page(
            StatusCode::OK,
            "Subscribed",
            "The first charge follows on its date.",
        ),
    }
}
