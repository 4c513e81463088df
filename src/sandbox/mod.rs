//! A Mercado Pago that anyone can run offline: consent page, token endpoint, payments, refunds, customers, cards,
//! subscriptions, notifications, and everything that goes wrong with them (DESIGN.md section 12).
//!
//! An independent implementation: it shares nothing with the connector but clock and randomness, so that a shared bug
//! cannot hide in shared code. Behaviour follows Mercado Pago's documents; where they are silent, each module says what
//! was chosen. Accounts, cards and money are simulated, no secret here protects anything real, and the control routes are
//! open to whoever reaches the port: it is for development machines.

mod addresses;
mod agenda;
mod answer;
mod billing;
mod caller;
mod card_tokens;
mod cards;
mod catalogue;
mod chargebacks;
mod consent;
mod control;
mod customer_fields;
mod customer_search;
mod customers;
mod faults;
mod front;
mod grants;
mod input;
mod invoices;
mod notifications;
mod oauth;
mod options;
mod order;
mod order_transactions;
mod orders;
mod pages;
mod payment;
mod payment_request;
mod payment_search;
mod payment_update;
mod payments;
mod persist;
mod plans;
mod preferences;
mod recorder;
mod refunds;
mod server;
mod sites;
mod state;
mod storefront;
mod subscription;
mod subscription_fields;
mod subscription_search;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::routing::{any, delete, get, post, put};
use chrono::{DateTime, Duration, Utc};
use http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use faults::{Fault, FaultKind, FaultSyntax};
pub use grants::EndReason;
pub use options::{Client, OldAccessToken, SandboxOptions, Storefront, Webhook};
pub use recorder::RecordedRequest;
pub use state::TestSeller;

use answer::Refusal;
use front::Front;
use state::World;

/// A simulated Mercado Pago. Clones share the world.
#[derive(Debug, Clone)]
pub struct Sandbox {
    world: Arc<World>,
}

impl Sandbox {
    /// The sandbox of the state file; one with fresh test sellers if there is no such file. The error is the state file's.
    pub fn open(options: SandboxOptions) -> io::Result<Self> {
        Ok(Self {
            world: Arc::new(World::open(options)?),
        })
    }

    /// A sandbox with fresh test sellers, whatever the state file holds.
    pub fn new(options: SandboxOptions) -> Self {
        Self {
            world: Arc::new(World::new(options)),
        }
    }

    /// All routes, for calls without a connection. Faults that cut a connection show as a bare 502 here.
    pub fn router(&self) -> Router {
        let front = Front {
            world: Arc::clone(&self.world),
            routes: routes(Arc::clone(&self.world)),
        };
        Router::new().fallback(any(front::handle)).with_state(front)
    }

    /// Serves on `listener` until `stop`, and sends notifications meanwhile.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let sender = tokio::spawn(Arc::clone(&self.world).send_notifications(stop.clone()));
        let saver = tokio::spawn(Arc::clone(&self.world).keep_saving(stop.clone()));
        let served = server::serve(self.router(), listener, stop).await;
        let _ = sender.await;
        let _ = saver.await;
        served.and_then(|()| self.world.save())
    }

    /// Decides on an authorization URL as the consent page would, and gives the callback URL. `seller` is a nickname or
    /// an account id. The error is what the page would show.
    pub fn consent(&self, authorization_url: &str, seller: &str, allow: bool) -> Result<String, String> {
        consent::consent(&self.world, authorization_url, seller, allow)
    }

    /// The sandbox's time.
    pub fn now(&self) -> DateTime<Utc> {
        self.world.now()
    }

    /// Moves the sandbox's clock; what was due meanwhile happens.
    pub fn advance(&self, by: Duration) {
        self.world.advance(by);
    }

    /// Sets a fault. One whose route is unknown never strikes.
    pub fn add_fault(&self, fault: Fault) {
        self.world.faults.add(fault);
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// The last requests, oldest first, without those to the control routes.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.world.recorder.requests()
    }

    /// Forgets the requests that arrived so far.
    pub fn clear_requests(&self) {
        self.world.recorder.clear();
    }

    /// How many calls of the token endpoint with this grant type were carried out, refused ones included.
    pub fn token_calls(&self, grant_type: &str) -> u64 {
        self.world.recorder.token_calls(grant_type)
    }

    /// The test sellers that can consent.
    pub fn sellers(&self) -> Vec<TestSeller> {
        self.world.test_sellers()
    }

    /// Ends what a seller granted to all applications; how many grants that were.
    pub fn revoke(&self, user_id: u64, reason: EndReason) -> usize {
        match self.world.seller(user_id) {
            Some(seller) => self.world.end_grants(&seller, reason, |id, _| id == user_id),
            None => 0,
        }
    }

    /// Ends a seller's access tokens as their expiry would; the refresh tokens stay good.
    pub fn expire_access_tokens(&self, user_id: u64) -> usize {
        self.world.grants.expire_access(|id, _| id == user_id)
    }

    /// The public key with which a front end of this application makes card tokens.
    pub fn application_key(&self, client_id: &str) -> Option<String> {
        self.world.application_key(client_id)
    }
}

fn routes(world: Arc<World>) -> Router {
    Router::new()
        .merge(account_routes())
        .merge(payment_routes())
        .merge(customer_routes())
        .merge(subscription_routes())
        .merge(order_routes())
        .merge(pages::routes())
        .merge(storefront::routes())
        .merge(control::routes())
        .fallback(|| async { Refusal::plain(StatusCode::NOT_FOUND, "Resource not found") })
        .method_not_allowed_fallback(|| async {
            Refusal::plain(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
        })
        .with_state(world)
}

fn account_routes() -> Router<Arc<World>> {
    Router::new()
        .route("/authorization", get(consent::show).post(consent::decide))
        .route("/oauth/token", post(oauth::token))
        .route("/users/me", get(catalogue::users_me))
        .route("/v1/payment_methods", get(catalogue::payment_methods))
        .route("/v1/payment_methods/installments", get(catalogue::installments))
        .route("/v1/identification_types", get(catalogue::identification_types))
        .route("/v1/card_tokens", post(card_tokens::create))
        .route("/v1/card_tokens/{id}", get(card_tokens::show))
}

fn payment_routes() -> Router<Arc<World>> {
    Router::new()
        .route("/v1/payments", post(payments::create))
        .route("/v1/payments/search", get(payment_search::search))
        .route(
            "/v1/payments/{id}",
            get(payments::show).put(payment_update::update),
        )
        .route("/v1/payments/{id}/cancellations", put(payment_update::cancel))
        .route(
            "/v1/payments/{id}/refunds",
            get(refunds::list).post(refunds::create),
        )
        .route("/v1/payments/{id}/refunds/{refund_id}", get(refunds::show))
        .route("/v1/chargebacks/search", get(chargebacks::search))
        .route(
            "/v1/chargebacks/{id}",
            get(chargebacks::show).put(chargebacks::document),
        )
}

fn customer_routes() -> Router<Arc<World>> {
    let customer = get(customers::show)
        .put(customers::update)
        .delete(customers::delete);
    let card = get(cards::show).put(cards::update).delete(cards::delete);
    let address = get(addresses::show)
        .put(addresses::update)
        .delete(addresses::delete);
    Router::new()
        .route(
            "/v1/customers",
            post(customers::create).put(customers::update_without_id),
        )
        .route("/v1/customers/search", get(customer_search::search))
        .route("/v1/customers/{id}", customer)
        .route("/v1/customers/{id}/delete", delete(customers::delete))
        .route("/v1/customers/{id}/cards", get(cards::list).post(cards::create))
        .route("/v1/customers/{id}/cards/{card_id}", card)
        .route(
            "/v1/customers/{id}/addresses",
            get(addresses::list).post(addresses::create),
        )
        .route("/v1/customers/{id}/addresses/{address_id}", address)
}

fn subscription_routes() -> Router<Arc<World>> {
    Router::new()
        .route("/preapproval_plan", post(plans::create))
        .route("/preapproval_plan/search", get(plans::search))
        .route("/preapproval_plan/{id}", get(plans::show).put(plans::update))
        .route("/preapproval", post(subscriptions::create))
        .route("/preapproval/search", get(subscription_search::search))
        .route("/preapproval/export", get(subscription_search::export))
        .route(
            "/preapproval/{id}",
            get(subscriptions::show).put(subscriptions::update),
        )
        .route("/authorized_payments", get(invoices::search))
        .route("/authorized_payments/search", get(invoices::search))
        .route("/authorized_payments/{id}", get(invoices::show))
}

fn order_routes() -> Router<Arc<World>> {
    let transaction =
        put(order_transactions::update_transaction).delete(order_transactions::delete_transaction);
    let merchant_order = get(preferences::show_merchant_order).put(preferences::update_merchant_order);
    Router::new()
        .route("/v1/orders", get(orders::search).post(orders::create))
        .route("/v1/orders/{id}", get(orders::show))
        .route("/v1/orders/{id}/{action}", post(orders::act))
        .route(
            "/v1/orders/{id}/transactions",
            post(order_transactions::add_transaction),
        )
        .route("/v1/orders/{id}/transactions/{transaction_id}", transaction)
        .route("/checkout/preferences", post(preferences::create))
        .route("/checkout/preferences/search", get(preferences::search))
        .route(
            "/checkout/preferences/{id}",
            get(preferences::show).put(preferences::update),
        )
        .route("/merchant_orders", post(preferences::create_merchant_order))
        .route(
            "/merchant_orders/search",
            get(preferences::search_merchant_orders),
        )
        .route("/merchant_orders/{id}", merchant_order)
}
