//! What a sandbox is started with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::Duration;

use crate::domain::clock::Clock;
use crate::domain::random::Random;

/// An application registered at the simulated Mercado Pago.
#[derive(Clone)]
pub struct Client {
    /// Application id (RFC 6749 section 2.2).
    pub client_id: String,
    /// Its secret (RFC 6749 section 2.3.1).
    pub client_secret: String,
    /// Where consent may return to, compared character for character.
    pub redirect_uris: Vec<String>,
    /// Where its notifications go, if anywhere.
    pub webhook: Option<Webhook>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("client_id", &self.client_id)
            .field("client_secret", &"[redacted]")
            .field("redirect_uris", &self.redirect_uris)
            .field("webhook", &self.webhook)
            .finish()
    }
}

/// Where an application's notifications go and what they are signed with.
#[derive(Clone)]
pub struct Webhook {
    /// The configured notification address.
    pub url: String,
    /// Secret of the signature.
    pub secret: String,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &self.url)
            .field("secret", &"[redacted]")
            .finish()
    }
}

/// What a refresh does to the access token before it. Mercado Pago does not say, so both must be survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldAccessToken {
    /// It works until its own expiry.
    Lives,
    /// It stops working at once.
    Dies,
}

/// The connector that the storefront page pays through.
#[derive(Clone)]
pub struct Storefront {
    /// Origin of the connector.
    pub connector_url: String,
    /// API key of the platform; stays on the server side of the page.
    pub api_key: String,
}

impl fmt::Debug for Storefront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storefront")
            .field("connector_url", &self.connector_url)
            .field("api_key", &"[redacted]")
            .finish()
    }
}

/// Everything that a sandbox can be told.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Registered applications.
    pub clients: Vec<Client>,
    /// Whether a refresh answers with a new refresh token and kills the old one, as Mercado Pago does.
    pub rotate_refresh_tokens: bool,
    /// What a refresh does to the access token before it.
    pub old_access_token: OldAccessToken,
    /// Life of an access token (180 days at Mercado Pago).
    pub token_lifetime: Duration,
    /// Life of a refresh token that is not used (180 days at Mercado Pago).
    pub refresh_token_lifetime: Duration,
    /// Scopes of the applications; without `offline_access` no refresh token is issued.
    pub scopes: Vec<String>,
    /// Whether an authorization without a code challenge is refused (a switch of the application at Mercado Pago).
    pub require_pkce: bool,
    /// How many payments a seller keeps; older ones are forgotten.
    pub forget_after: Option<usize>,
    /// Where the state is kept over restarts.
    pub state_file: Option<PathBuf>,
    /// Origin under which the sandbox is reached, for the links it hands out.
    pub public_url: String,
    /// The clock that the sandbox's own clock runs on.
    pub clock: Arc<dyn Clock>,
    /// Where ids and tokens come from.
    pub random: Random,
    /// The connector that the storefront page pays through; without it there is no such page.
    pub storefront: Option<Storefront>,
}

impl SandboxOptions {
    /// Mercado Pago's documented behaviour and one application: id `1234567890123456`, secret `sandbox-client-secret`,
    /// redirect URI of a connector on its default address.
    pub fn new(clock: Arc<dyn Clock>, random: Random) -> Self {
        Self {
            clients: vec![Client {
                client_id: String::from("1234567890123456"),
                client_secret: String::from("sandbox-client-secret"),
                redirect_uris: vec![String::from("http://127.0.0.1:8080/oauth/callback")],
                webhook: None,
            }],
            rotate_refresh_tokens: true,
            old_access_token: OldAccessToken::Lives,
            token_lifetime: Duration::days(180),
            refresh_token_lifetime: Duration::days(180),
            scopes: ["offline_access", "read", "write"].map(String::from).to_vec(),
            require_pkce: false,
            forget_after: None,
            state_file: None,
            public_url: String::from("http://127.0.0.1:8081"),
            clock,
            random,
            storefront: None,
        }
    }
}
