//! The application's own account (`/proxy/@self`): a token by `client_credentials`, kept in memory only and renewed by
//! itself before its 6 hours are over. It can be had again at any time, so nothing of it is stored.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderValue;
use tokio::sync::Mutex;

use super::problem::{Outcome, ProxyProblem};
use super::sellers::bearer;
use crate::domain::ids::ApplicationId;
use crate::domain::problem::ProblemCode;
use crate::domain::secret::AccessToken;
use crate::mercadopago::application::Application;
use crate::mercadopago::token_endpoint::{TokenEndpoint, TokenError};

/// A token is renewed when less than this share of its life (one part in so many) is left.
const RENEW_AT_ONE_IN: i32 = 10;

/// How long nobody asks again after a failure.
const PAUSE: TimeDelta = TimeDelta::seconds(5);

/// A token of the application's own account.
#[derive(Debug)]
pub(super) struct OwnToken {
    /// The token.
    pub(super) access_token: AccessToken,
    /// The same as a header.
    pub(super) authorization: HeaderValue,
    renew_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// When it came.
    pub(super) obtained_at: DateTime<Utc>,
}

#[derive(Debug, Default)]
struct Account {
    token: RwLock<Option<Arc<OwnToken>>>,
    /// Held by whoever asks; the last failure, so that a crowd does not ask on.
    asking: Mutex<Option<(DateTime<Utc>, ProxyProblem)>>,
}

/// The own accounts of all applications.
#[derive(Debug)]
pub(super) struct OwnAccounts {
    accounts: HashMap<ApplicationId, Account>,
    endpoint: TokenEndpoint,
}

impl OwnAccounts {
    /// One account for each application; no token is asked for yet.
    pub(super) fn new<'a>(
        applications: impl Iterator<Item = &'a ApplicationId>,
        endpoint: TokenEndpoint,
    ) -> Self {
        Self {
            accounts: applications.map(|id| (id.clone(), Account::default())).collect(),
            endpoint,
        }
    }

    /// A token that is alive at `now`.
    pub(super) async fn token(
        &self,
        app: &Application,
        now: DateTime<Utc>,
        deadline: tokio::time::Instant,
    ) -> Result<Arc<OwnToken>, ProxyProblem> {
        let obtained = self
            .obtain(app, now, deadline, |token| now < token.renew_at)
            .await;
        // An old one that still lives is better than none.
        obtained.or_else(|problem| {
            let old = self.accounts.get(&app.id).and_then(current);
            old.filter(|token| now < token.expires_at).ok_or(problem)
        })
    }

    /// Another token than the one that Mercado Pago was seen to refuse.
    pub(super) async fn replace(
        &self,
        app: &Application,
        dead: &OwnToken,
        now: DateTime<Utc>,
        deadline: tokio::time::Instant,
    ) -> Result<Arc<OwnToken>, ProxyProblem> {
        self.obtain(app, now, deadline, |token| token.obtained_at > dead.obtained_at)
            .await
    }

    async fn obtain(
        &self,
        app: &Application,
        now: DateTime<Utc>,
        deadline: tokio::time::Instant,
        will_do: impl Fn(&OwnToken) -> bool,
    ) -> Result<Arc<OwnToken>, ProxyProblem> {
        let account = self
            .accounts
            .get(&app.id)
            .ok_or_else(|| unavailable("the application is not configured"))?;
        if let Some(token) = current(account).filter(|token| will_do(token)) {
            return Ok(token);
        }
        let asking = async {
            let mut failure = account.asking.lock().await;
            if let Some(token) = current(account).filter(|token| will_do(token)) {
                return Ok(token);
            }
            if let Some((until, problem)) = failure.as_ref().filter(|(until, _)| now < *until) {
                tracing::debug!(%until, "the own account's token is not asked for yet");
                return Err(problem.clone());
            }
            match self.ask(app).await {
                Ok(token) => {
                    let token = Arc::new(token);
                    *account.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
                    *failure = None;
                    Ok(token)
                }
                Err(problem) => {
                    *failure = Some((now + PAUSE, problem.clone()));
                    Err(problem)
                }
            }
        };
        let asked = tokio::time::timeout_at(deadline, asking).await;
        asked.unwrap_or_else(|_| Err(unavailable("Mercado Pago does not answer")))
    }

    async fn ask(&self, app: &Application) -> Result<OwnToken, ProxyProblem> {
        let mut asked = self.endpoint.client_credentials(app, &app.client_secret).await;
        if let (Err(TokenError::ClientRejected { .. }), Some(previous)) =
            (&asked, &app.client_secret_previous)
        {
            asked = self.endpoint.client_credentials(app, previous).await;
        }
        let tokens = asked.map_err(|error| {
            tracing::warn!(application = %app.id, %error, "no token for the application's own account");
            let retry_after = match error {
                TokenError::Throttled { retry_after } | TokenError::Unavailable { retry_after, .. } => {
                    retry_after
                }
                _ => None,
            };
            unavailable("Mercado Pago gave no token for it").retry_after(retry_after)
        })?;
        let authorization =
            bearer(&tokens.access_token).ok_or_else(|| unavailable("Mercado Pago's token cannot be sent"))?;
        Ok(OwnToken {
            authorization,
            access_token: tokens.access_token,
            renew_at: tokens.expires_at - (tokens.expires_at - tokens.obtained_at) / RENEW_AT_ONE_IN,
            expires_at: tokens.expires_at,
            obtained_at: tokens.obtained_at,
        })
    }
}

fn current(account: &Account) -> Option<Arc<OwnToken>> {
    account
        .token
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

fn unavailable(reason: &'static str) -> ProxyProblem {
    let detail = format!("the application's own account cannot be used for now: {reason}");
    ProxyProblem::new(ProblemCode::TokenUnavailable, detail)
        .outcome(Outcome::NotSent)
        .retry_after(Some(Duration::from_secs(5)))
}
