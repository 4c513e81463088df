//! When it is not the sellers: an application whose credentials are refused, or whose sellers' grants are refused in a
//! crowd, is suspended. Nobody is flagged, an operator is told, and one seller is tried every ten minutes; the first success
//! lets refreshing go on (DESIGN.md section 7).

use chrono::TimeDelta;

use super::{Inner, RefreshError, delay_until};
use crate::domain::connection::Trigger;
use crate::domain::event::{Actor, AuditAction, NewAudit};
use crate::mercadopago::application::Application;
use crate::mercadopago::token_endpoint::TokenError;
use crate::storage::ClaimedRefresh;

/// How often one seller of a suspended application is tried.
pub(super) const PROBE_EVERY: TimeDelta = TimeDelta::minutes(10);
/// So many of the application's last attempts are looked at.
const ATTEMPTS_LOOKED_AT: u32 = 50;
/// Refusals of so many sellers ...
const SELLERS_OF_A_CROWD: usize = 5;
/// ... that are more than this part of the attempts (one in ...) are not the sellers' doing.
const CROWD_IS_ONE_IN: usize = 5;

impl Inner {
    /// Refuses to spend anything of an application that is suspended or whose token endpoint is resting. Who asks by hand
    /// gets past the suspension: that is how an operator finds out whether the mend worked.
    pub(super) async fn check_application(
        &self,
        app: &Application,
        trigger: Trigger,
    ) -> Result<(), RefreshError> {
        let now = self.clock.now();
        if let Some(until) = self.breakers.open_until(&app.id, now) {
            let reason = "Mercado Pago's token endpoint fails; it is asked again later";
            return Err(RefreshError::TokenUnavailable {
                retry_after: delay_until(until, now),
                reason,
            });
        }
        if trigger != Trigger::Expired && trigger != Trigger::Unauthorized {
            return Ok(());
        }
        let state = self.store.application_state(&app.id).await?;
        if state.suspended_at.is_some() {
            let reason = "refreshing is stopped for the application: its credentials or settings look wrong";
            return Err(RefreshError::TokenUnavailable {
                retry_after: state.probe_at.and_then(|at| delay_until(at, now)),
                reason,
            });
        }
        Ok(())
    }

    /// Whether this refusal makes a crowd with the application's last attempts.
    pub(super) async fn looks_like_ours(
        &self,
        app: &Application,
        claimed: &ClaimedRefresh,
    ) -> Result<bool, RefreshError> {
        let state = self.store.application_state(&app.id).await?;
        if state.suspended_at.is_some() {
            return Ok(true);
        }
        if claimed.attempt.after_unknown {
            return Ok(false);
        }
        let since = state.resumed_at.unwrap_or(chrono::DateTime::UNIX_EPOCH);
        let mut recent = self
            .store
            .recent_outcomes(&app.id, since, ATTEMPTS_LOOKED_AT)
            .await?;
        // This one is not finished yet; a seller that was refused before counts once.
        recent.attempts += 1;
        recent.rejected += 1;
        if claimed.open.connection.first_rejected_at.is_none() {
            recent.rejected_sellers += 1;
        }
        Ok(recent.rejected_sellers >= SELLERS_OF_A_CROWD
            && recent.rejected * CROWD_IS_ONE_IN > recent.attempts)
    }

    /// Stops refreshing the application and raises the alert, once.
    pub(super) async fn suspend(&self, app: &Application, reason: &'static str) -> Result<(), RefreshError> {
        let now = self.clock.now();
        let audit = NewAudit {
            actor: Actor::system(),
            action: AuditAction::ApplicationSuspended,
            application: Some(app.id.clone()),
            target: None,
            at: now,
            detail: serde_json::json!({ "reason": reason }),
        };
        if self
            .store
            .suspend_application(&app.id, reason, now + PROBE_EVERY, &audit)
            .await?
        {
            tracing::error!(
                alert = true, application = %app.id, reason,
                "refreshing is stopped: Mercado Pago refuses the application, not single sellers; check client id and secret"
            );
            metrics::counter!("connector_application_suspensions_total", "reason" => reason).increment(1);
        }
        Ok(())
    }

    /// After a success: lets refreshing go on if it was stopped. A store that fails here is asked again with the next one.
    pub(super) async fn resume(&self, app: &Application) {
        let audit = NewAudit {
            actor: Actor::system(),
            action: AuditAction::ApplicationResumed,
            application: Some(app.id.clone()),
            target: None,
            at: self.clock.now(),
            detail: serde_json::json!({}),
        };
        match self.store.resume_application(&app.id, &audit).await {
            Ok(true) => {
                tracing::warn!(application = %app.id, "refreshing goes on: Mercado Pago accepts the application again");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the store failed after a refresh"),
        }
    }

    /// Tells the breaker how the endpoint itself behaved.
    pub(super) fn note_for_breaker(&self, app: &Application, error: &TokenError) {
        let now = self.clock.now();
        match error {
            TokenError::Throttled { retry_after } | TokenError::Unavailable { retry_after, .. } => {
                let asked = retry_after.and_then(|asked| TimeDelta::from_std(asked).ok());
                self.breakers.failed(&app.id, asked, now);
            }
            TokenError::NotSent { .. } | TokenError::Unknown { .. } => {
                self.breakers.failed(&app.id, None, now);
            }
            TokenError::GrantRejected { .. } | TokenError::ClientRejected { .. } => {
                self.breakers.succeeded(&app.id);
            }
        }
    }
}
