//! How a seller is connected (DESIGN.md section 6): a connect link, a consent at Mercado Pago, one exchange, one
//! transaction. Without HTTP; the pages are in `http`.
//!
//! Guarantees: PKCE with S256 always; `state` used once and only by the browser that began; of any number of parallel
//! callbacks one exchange; the exchange is a task of its own with a rescue file, so neither a seller who closes the page
//! nor a crash loses the tokens; the seller sees success only after the commit.

mod exchange;
mod return_url;
mod revoke;
#[cfg(test)]
mod scenarios;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_util::task::TaskTracker;
use url::Url;

use crate::domain::clock::Clock;
use crate::domain::connection::{Connection, OnAccountChange, TokenSet};
use crate::domain::event::Actor;
use crate::domain::ids::{ApplicationId, AuthorizationRequestId, ConnectLinkId, SellerId};
use crate::domain::random::Random;
use crate::domain::schedule::RefreshSchedule;
use crate::domain::secret::{AuthorizationCode, BrowserId, CodeVerifier, LinkToken, State};
use crate::mercadopago::application::{Application, Applications};
use crate::mercadopago::token_endpoint::TokenEndpoint;
use crate::rescue::RescueDir;
use crate::storage::{
    Admission, ConnectLink, NewAuthorizationRequest, NewConnect, NewConnectLink, Store, StoreError,
};
use crate::vault::DataKey;

pub use return_url::{ReturnUrlError, ReturnUrls};
pub use revoke::Revoker;

/// How long a consent may take: Mercado Pago's codes live as long.
const AUTHORIZATION_REQUEST_LIFE: TimeDelta = TimeDelta::minutes(10);
/// Longest callback parameter that is looked at.
const LONGEST_PARAMETER: usize = 1024;

/// Why a page of the connect flow cannot go on; nothing was asked of Mercado Pago.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No link has this token.
    #[error("the connect link is unknown")]
    UnknownLink,
    /// The link's time is over.
    #[error("the connect link has expired; ask for a new one")]
    ExpiredLink(Box<ConnectLink>),
    /// The seller has connected with it.
    #[error("the connect link was used already")]
    UsedLink(Box<ConnectLink>),
    /// `state` is unknown, expired or consumed, or the consent was begun in another browser.
    #[error("this consent is over, or was begun in another browser; open the connect link again")]
    UnknownState,
    /// The callback's parameters are missing, repeated or too long.
    #[error("the callback's parameters are not those of a consent")]
    MalformedCallback,
    /// The link's application is not in the settings any more.
    #[error("the application of the link is not configured")]
    UnknownApplication,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a connect link is made from; already parsed and, for `return_url`, checked.
#[derive(Debug)]
pub struct LinkRequest {
    /// The application that the seller will be connected to.
    pub application: ApplicationId,
    /// The seller.
    pub seller_id: SellerId,
    /// Where the seller goes afterwards.
    pub return_url: Option<Url>,
    /// Language of the pages: `es`, `pt` or `en`.
    pub locale: Option<String>,
    /// How long it lives.
    pub expires_in: TimeDelta,
    /// The platform's data, for the connection.
    pub metadata: Option<Value>,
    /// What happens when the seller comes back with another account.
    pub on_account_change: OnAccountChange,
}

/// A link that was made.
#[derive(Debug)]
pub struct CreatedLink {
    /// The link.
    pub link: ConnectLink,
    /// What the seller opens; holds the link's token.
    pub url: Url,
}

/// A consent that was begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub redirect_to: Url,
    /// What its cookie must hold.
    pub browser_id: BrowserId,
}

/// The callback's parameters, each of which may stand once.
#[derive(Debug, Default)]
pub struct Callback {
    state: Option<State>,
    code: Option<AuthorizationCode>,
    error: bool,
}

impl Callback {
    /// Reads a query: `state` with `code`, or `state` with `error` (RFC 6749 section 4.1.2). Unknown parameters are ignored,
    /// repeated, empty and over-long ones refused.
    pub fn parse(query: &str) -> Result<Self, ConnectError> {
        let mut callback = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let repeated = match &*name {
                "state" => callback.state.replace(State::new(&*value)).is_some(),
                "code" => callback.code.replace(AuthorizationCode::new(&*value)).is_some(),
                "error" => std::mem::replace(&mut callback.error, true),
                _ => continue,
            };
            if repeated || value.is_empty() || value.len() > LONGEST_PARAMETER {
                return Err(ConnectError::MalformedCallback);
            }
        }
        if callback.state.is_none() || (callback.error && callback.code.is_some()) {
            return Err(ConnectError::MalformedCallback);
        }
        Ok(callback)
    }
}

/// Why a consent brought no connection, as `error` of the `return_url` and on our page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The seller is connected with another Mercado Pago account.
    AccountMismatch,
    /// The Mercado Pago account serves another seller.
    AccountInUse,
    /// Mercado Pago could not be reached, or its answer did not come.
    ProviderUnavailable,
    /// Mercado Pago refused the exchange.
    ExchangeFailed,
}

impl Failure {
    /// The code in the `return_url`.
    pub fn code(self) -> &'static str {
        match self {
            Self::AccountMismatch => "account_mismatch",
            Self::AccountInUse => "account_in_use",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::ExchangeFailed => "exchange_failed",
        }
    }
}

/// How a consent ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The seller is connected.
    Connected(Box<Connection>),
    /// The seller said no.
    Denied,
    /// It came to nothing.
    Failed(Failure),
}

/// A consent that came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Completed {
    /// The link that it was begun from.
    pub link: ConnectLink,
    /// How it ended.
    pub ending: Ending,
}

impl Completed {
    /// The link's `return_url` with the ending appended; none when the link has none.
    pub fn return_to(&self) -> Option<Url> {
        // It was checked when the link was made.
        let mut url = Url::parse(self.link.return_url.as_deref()?).ok()?;
        let word = match &self.ending {
            Ending::Connected(_) => "connected",
            Ending::Denied => "denied",
            Ending::Failed(_) => "failed",
        };
        let mut query = url.query_pairs_mut();
        query
            .append_pair("connection", word)
            .append_pair("seller_id", self.link.seller_id.as_str());
        if let Ending::Failed(failure) = &self.ending {
            query.append_pair("error", failure.code());
        }
        drop(query);
        Some(url)
    }
}

/// A token set from elsewhere.
#[derive(Debug)]
pub struct Import<'a> {
    /// The application that the tokens were issued for.
    pub application: &'a Application,
    /// The seller.
    pub seller_id: &'a SellerId,
    /// The tokens.
    pub tokens: &'a TokenSet,
    /// The platform's data.
    pub metadata: Option<&'a Value>,
}

/// The connect flow. Clones share everything.
#[derive(Debug, Clone)]
pub struct ConnectFlow(Arc<Parts>);

/// What a [`ConnectFlow`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where links, requests and connections lie.
    pub store: Store,
    /// The token endpoint.
    pub endpoint: TokenEndpoint,
    /// The configured applications.
    pub applications: Applications,
    /// The folder of rescue files.
    pub rescue: RescueDir,
    /// When token sets are renewed.
    pub schedule: RefreshSchedule,
    /// Origin that sellers see.
    pub public_url: Url,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Tokens, states, verifiers and ids.
    pub random: Random,
    /// Holds the exchanges; shutdown waits for it.
    pub tracker: TaskTracker,
}

impl ConnectFlow {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Makes a connect link.
    pub async fn create_link(&self, request: LinkRequest, actor: Actor) -> Result<CreatedLink, StoreError> {
        let now = self.0.clock.now();
        let token = LinkToken::new(self.0.random.base64url::<32>());
        let link = ConnectLink {
            id: ConnectLinkId::new(now, &self.0.random),
            application: request.application,
            seller_id: request.seller_id,
            return_url: request.return_url.map(String::from),
            locale: request.locale,
            metadata: request.metadata,
            on_account_change: request.on_account_change,
            created_at: now,
            expires_at: now + request.expires_in,
            used_at: None,
        };
        let new = NewConnectLink {
            link,
            token_hash: hash(token.expose()),
        };
        self.0.store.create_connect_link(&new, actor).await?;
        let mut url = self.0.public_url.clone();
        url.set_path(&format!("/connect/{}", token.expose()));
        Ok(CreatedLink { link: new.link, url })
    }

    /// The link that a seller opened, if it can still be used. Changes nothing: mail scanners open links.
    pub async fn landing(&self, token: &LinkToken) -> Result<ConnectLink, ConnectError> {
        let link = self.0.store.find_connect_link(hash(token.expose())).await?;
        let link = link.ok_or(ConnectError::UnknownLink)?;
        if link.used_at.is_some() {
            return Err(ConnectError::UsedLink(Box::new(link)));
        }
        if link.expires_at <= self.0.clock.now() {
            return Err(ConnectError::ExpiredLink(Box::new(link)));
        }
        Ok(link)
    }

    /// Begins a consent: a new `state` and verifier, bound to this browser.
    pub async fn begin(&self, token: &LinkToken, browser: Option<BrowserId>) -> Result<Begun, ConnectError> {
        let link = self.landing(token).await?;
        let app = self.application(&link.application)?;
        let now = self.0.clock.now();
        let random = &self.0.random;
        // Kept while present, so that two tabs work.
        let browser_id = browser.unwrap_or_else(|| BrowserId::new(random.base64url::<32>()));
        let state = State::new(random.base64url::<32>());
        let verifier = CodeVerifier::new(random.base64url::<32>());
        let request = NewAuthorizationRequest {
            id: &AuthorizationRequestId::new(now, random),
            link: &link,
            state_hash: hash(state.expose()),
            browser_hash: hash(browser_id.expose()),
            verifier: &verifier,
            now,
            expires_at: now + AUTHORIZATION_REQUEST_LIFE,
        };
        self.0.store.create_authorization_request(&request).await?;
        Ok(Begun {
            redirect_to: self.0.endpoint.authorization_url(app, &state, &verifier),
            browser_id,
        })
    }

    /// Completes a consent: consumes its `state` and, if the seller allowed it, makes the one exchange.
    pub async fn complete(
        &self,
        callback: Callback,
        browser: Option<&BrowserId>,
        actor: Actor,
    ) -> Result<Completed, ConnectError> {
        let state = callback.state.ok_or(ConnectError::MalformedCallback)?;
        let browser = browser.ok_or(ConnectError::UnknownState)?;
        let now = self.0.clock.now();
        let consumed = self
            .0
            .store
            .consume_authorization_request(hash(state.expose()), hash(browser.expose()), now)
            .await?
            .ok_or(ConnectError::UnknownState)?;
        let link = consumed.link.clone();
        let Some(code) = callback.code else {
            self.0.store.discard_authorization_request(&consumed.id).await?;
            return Ok(Completed {
                link,
                ending: Ending::Denied,
            });
        };
        self.application(&link.application)?;
        let actor = Actor {
            id: Some(link.id.to_string()),
            ..actor
        };
        let flow = Arc::clone(&self.0);
        let task = self
            .0
            .tracker
            .spawn(async move { flow.exchange(consumed, code, actor).await });
        match task.await {
            Ok(ending) => Ok(Completed {
                link,
                ending: ending?,
            }),
            // It panicked, which was logged where it happened.
            Err(_) => Ok(Completed {
                link,
                ending: Ending::Failed(Failure::ExchangeFailed),
            }),
        }
    }

    /// Admits a token set that was obtained elsewhere.
    pub async fn import(&self, import: &Import<'_>, actor: Actor) -> Result<Admission, StoreError> {
        let data_key = DataKey::generate();
        let new = NewConnect {
            application: &import.application.id,
            client_id: &import.application.client_id,
            application_public_key: import.application.public_key.as_deref(),
            seller_id: import.seller_id,
            tokens: import.tokens,
            data_key: &data_key,
            metadata: import.metadata,
            consent: None,
            schedule: &self.0.schedule,
            actor,
            now: self.0.clock.now(),
        };
        self.0.store.admit(&new).await
    }

    fn application(&self, id: &ApplicationId) -> Result<&Arc<Application>, ConnectError> {
        self.0
            .applications
            .get(id)
            .ok_or(ConnectError::UnknownApplication)
    }

    /// Removes links and requests that ended before `before`, up to `limit` of each.
    pub async fn purge(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        self.0.store.purge_authorizations(before, limit).await
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_holds_each_parameter_once() {
        assert!(Callback::parse("code=TG-1&state=s").is_ok());
        assert!(Callback::parse("error=access_denied&error_description=x&state=s").is_ok());
        assert!(
            Callback::parse("state=s").is_ok(),
            "without a code it is a denial"
        );
        let long = "x".repeat(LONGEST_PARAMETER + 1);
        for bad in [
            "",
            "code=TG-1",
            "code=TG-1&state=s&state=s",
            "code=TG-1&code=TG-2&state=s",
            "code=TG-1&state=",
            "code=&state=s",
            "error=x&error=x&state=s",
            "code=TG-1&error=access_denied&state=s",
            &format!("code={long}&state=s"),
            &format!("code=TG-1&state={long}"),
        ] {
            assert!(Callback::parse(bad).is_err(), "{bad}");
        }
    }
}
