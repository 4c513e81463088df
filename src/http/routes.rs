//! Every address, grouped by who calls it. With `ADMIN_LISTEN_ADDR` the groups are split over two listeners.

use axum::Router;

use super::edge::nothing_here;
use super::server::Site;
use super::{AppState, api, assets, connect_pages, console, docs, ops, webhooks};

/// Whom a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody: `LISTEN_ADDR` without `ADMIN_LISTEN_ADDR`.
    Everyone,
    /// Sellers and Mercado Pago: `LISTEN_ADDR` beside `ADMIN_LISTEN_ADDR`.
    Public,
    /// The platform and the admins: `ADMIN_LISTEN_ADDR`.
    Internal,
    /// Whoever watches the process: `OPS_LISTEN_ADDR`.
    Operators,
}

/// What a listener for this audience serves.
pub fn site(audience: Audience, state: AppState) -> Site {
    let router = match audience {
        Audience::Everyone => public().merge(internal()),
        Audience::Public => public(),
        Audience::Internal => internal(),
        Audience::Operators => ops::router(),
    };
    let router = match audience {
        Audience::Operators => router,
        Audience::Everyone | Audience::Public | Audience::Internal => {
            router.merge(assets::router()).merge(ops::health())
        }
    };
    let router = router
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_here);
    let with_proxy = matches!(audience, Audience::Everyone | Audience::Internal);
    let idle_timeout = state.idle_timeout;
    Site::new(state.clone(), router.with_state(state), with_proxy, idle_timeout)
}

/// Sellers and Mercado Pago.
fn public() -> Router<AppState> {
    connect_pages::router().merge(webhooks::router())
}

/// The platform and the admins.
fn internal() -> Router<AppState> {
    Router::new()
        .merge(api::router())
        .merge(docs::router())
        .merge(console::router())
}
