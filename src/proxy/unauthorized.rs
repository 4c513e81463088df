//! What a 401 of Mercado Pago means (DESIGN.md section 8). It answers 401 for business reasons too (a card that fails
//! validation, for one), so a 401 alone proves nothing and changes nothing.
//!
//! The row is read past the cache; a newer token set is used. Else Mercado Pago is asked about itself with the same token:
//! only if that is refused too, the token is dead and a refresh is due, at most once per seller in five minutes. What the
//! refresh says, and nothing else, changes the connection's status.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use super::own_account::OwnToken;
use super::problem::{Outcome, ProxyProblem};
use super::sellers::{Known, reconnect_required, revoked};
use super::{Credential, Inner};
use crate::domain::connection::{Status, Trigger};
use crate::domain::problem::ProblemCode;
use crate::domain::secret::AccessToken;
use crate::mercadopago::api::Probe;
use crate::mercadopago::application::Application;

/// How often a seller's 401s may lead to a refresh.
const REFRESH_EVERY: TimeDelta = TimeDelta::minutes(5);

/// What a seller's 401s led to.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// The last answer about a token set of this generation, and when it came: whoever waited for it uses it.
    verdict: Option<(i64, Instant, Probe)>,
    /// When a refresh was last asked for.
    refreshed_at: Option<DateTime<Utc>>,
}

/// What to do with a 401.
#[derive(Debug)]
pub(super) enum After401 {
    /// It is Mercado Pago's answer.
    PassOn,
    /// The call is sent once more with this.
    Replay(Credential),
}

/// A call that was answered with 401.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    pub(super) app: &'a Application,
    /// What it was sent with.
    pub(super) credential: &'a Credential,
    /// Whether it was the very question that would be asked now.
    pub(super) was_users_me: bool,
    /// When it was sent.
    pub(super) sent_at: Instant,
    pub(super) deadline: tokio::time::Instant,
}

impl Inner {
    /// Finds out what a 401 means.
    pub(super) async fn after_401(&self, refused: Refused<'_>) -> Result<After401, ProxyProblem> {
        let finding_out = async {
            match refused.credential {
                Credential::Seller(known) => self.after_sellers_401(refused, known).await,
                Credential::Own(token) => self.after_own_401(refused, token).await,
            }
        };
        // Out of time, nothing is known: then it is Mercado Pago's answer.
        tokio::time::timeout_at(refused.deadline, finding_out)
            .await
            .unwrap_or(Ok(After401::PassOn))
    }

    async fn after_sellers_401(
        &self,
        refused: Refused<'_>,
        known: &Arc<Known>,
    ) -> Result<After401, ProxyProblem> {
        let deadline = refused.deadline;
        if let Some(after) = self.with_newer_tokens(known, deadline).await? {
            return Ok(after);
        }
        let Some(token) = &known.access_token else {
            return Ok(After401::PassOn);
        };
        let generation = known.connection.generation;
        let mut suspicion = known.seat.suspicion.lock().await;
        let shared = suspicion.verdict.as_ref();
        let shared = shared.filter(|(of, at, _)| *of == generation && *at >= refused.sent_at);
        let verdict = if let Some((_, _, verdict)) = shared {
            verdict.clone()
        } else {
            let verdict = self.probe(refused, token).await;
            suspicion.verdict = Some((generation, Instant::now(), verdict.clone()));
            verdict
        };
        if verdict != Probe::Dead {
            return Ok(After401::PassOn);
        }
        // Somebody else who held the lock may have refreshed meanwhile.
        if let Some(after) = self.with_newer_tokens(known, deadline).await? {
            return Ok(after);
        }
        if known.connection.status == Status::ReconnectRequired {
            return Err(reconnect_required("Mercado Pago refuses both its tokens"));
        }
        let now = self.clock.now();
        if let Some(last) = suspicion.refreshed_at.filter(|last| now - *last < REFRESH_EVERY) {
            // Whom the limit does not bind may be at it: the token died because its successor is on its way.
            if let Some(joined) = self.sellers.join_refresh(known, now).await {
                return Ok(After401::Replay(Credential::Seller(joined?)));
            }
            if let Some(after) = self.with_newer_tokens(known, deadline).await? {
                return Ok(after);
            }
            let detail =
                "Mercado Pago refuses the seller's access token, and a refresh moments ago did not help";
            return Err(ProxyProblem::new(ProblemCode::TokenUnavailable, detail)
                .outcome(Outcome::NotSent)
                .retry_after((last + REFRESH_EVERY - now).to_std().ok()));
        }
        suspicion.refreshed_at = Some(now);
        let refreshed = self
            .sellers
            .refresh(known, Trigger::Unauthorized, now, deadline)
            .await?;
        Ok(After401::Replay(Credential::Seller(refreshed)))
    }

    /// What the row says now, if that is something else than what the call was sent with.
    async fn with_newer_tokens(
        &self,
        known: &Arc<Known>,
        deadline: tokio::time::Instant,
    ) -> Result<Option<After401>, ProxyProblem> {
        let now = self.clock.now();
        let fresh = match self.sellers.reload(known, now).await {
            Ok(fresh) => fresh,
            // Without the store nothing newer is known.
            Err(problem) if problem.code == ProblemCode::StoreUnavailable => return Ok(None),
            Err(problem) => return Err(problem),
        };
        if fresh.connection.status == Status::Revoked {
            return Err(revoked());
        }
        if fresh.connection.generation == known.connection.generation {
            return Ok(None);
        }
        let fresh = self.sellers.with_live_token(fresh, now, deadline).await?;
        Ok(Some(After401::Replay(Credential::Seller(fresh))))
    }

    async fn after_own_401(&self, refused: Refused<'_>, token: &OwnToken) -> Result<After401, ProxyProblem> {
        let now = self.clock.now();
        let is_young = now - token.obtained_at < REFRESH_EVERY;
        if is_young || self.probe(refused, &token.access_token).await != Probe::Dead {
            return Ok(After401::PassOn);
        }
        let replaced = self
            .own_accounts
            .replace(refused.app, token, now, refused.deadline)
            .await?;
        Ok(After401::Replay(Credential::Own(replaced)))
    }

    async fn probe(&self, refused: Refused<'_>, token: &AccessToken) -> Probe {
        if refused.was_users_me {
            return Probe::Dead;
        }
        self.metrics.probe();
        let probe = self.api.users_me(refused.app, token).await;
        if let Probe::Undecided { reason } = &probe {
            tracing::info!(reason, "whether an access token is alive could not be found out");
        }
        probe
    }
}
