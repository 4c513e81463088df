//! The service's face: who may ask what at which address, and what the answers look like.
//!
//! [`routes`] is the table of contents, grouped by who calls. Handlers parse, call one method of a service, and answer;
//! what they may do stands in their signature ([`auth::Caller`], [`session::Page`], [`session::Form`]). Errors become
//! answers in one place ([`error`], [`edge`]).

mod api;
mod assets;
pub mod auth;
pub mod branding;
pub mod client_address;
mod connect_pages;
mod console;
mod cookies;
mod docs;
mod edge;
pub mod error;
mod lanes;
mod locale;
mod members;
mod ops;
mod pages;
mod qr;
pub mod request_id;
mod routes;
pub mod server;
mod session;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod webhooks;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::branding::Branding;
use self::cookies::Cookies;
use crate::connect::{ConnectFlow, ReturnUrls, Revoker};
use crate::domain::clock::Clock;
use crate::domain::random::Random;
use crate::events::{Endpoints, Intake};
use crate::mercadopago::api::ProviderApi;
use crate::mercadopago::application::Applications;
use crate::proxy::Proxy;
use crate::refresh::Refresher;
use crate::replica::Replica;
use crate::storage::Store;

pub use api::{import_json, openapi};
pub use lanes::Lanes;
pub use routes::{Audience, site};
pub use server::{Site, SiteBody, serve};

/// What the handlers work with, built once at the start.
#[derive(Debug)]
pub struct Services {
    /// Where everything lies.
    pub store: Store,
    /// How sellers are connected.
    pub connect: ConnectFlow,
    /// Where sellers may be sent back to.
    pub return_urls: ReturnUrls,
    /// How connections are ended.
    pub revoker: Revoker,
    /// This process, and how its clock stands.
    pub replica: Replica,
    /// How tokens are renewed.
    pub refresher: Refresher,
    /// How calls are proxied.
    pub proxy: Proxy,
    /// How notifications come in.
    pub intake: Intake,
    /// Event endpoints and their deliveries.
    pub endpoints: Endpoints,
    /// Mercado Pago's API, for verifying imported tokens.
    pub provider: ProviderApi,
    /// The configured applications.
    pub applications: Applications,
    /// Name, logo and colour of the marketplace.
    pub branding: Branding,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Session tokens, keys and ids.
    pub random: Random,
    /// Origin that sellers see.
    pub public_url: Url,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a caller may take nothing of its answer.
    pub idle_timeout: Duration,
    /// The settings as they may be shown: name and value, secrets left out.
    pub settings: Vec<(String, String)>,
    /// What `/metrics` renders.
    pub metrics: PrometheusHandle,
    /// Cancelled when the process begins to stop: `/readyz` says 503 from then on.
    pub draining: CancellationToken,
}

/// The handlers' state.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Services>);

impl AppState {
    /// The state of these services.
    pub fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }

    fn cookies(&self) -> Cookies {
        Cookies::new(&self.public_url)
    }
}

impl Deref for AppState {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}
