//! One flight: claim, spend, store. Runs as a task of its own.

use std::time::Duration;

use chrono::TimeDelta;

use super::verdict::{Verdict, verdict};
use super::{Inner, Outcome, RefreshError, delay_until};
use crate::domain::connection::{Connection, RefreshOutcome, Status, StatusReason, TokenSet, Trigger};
use crate::domain::event::{Actor, AuditAction, EventType, NewAudit, NewEvent};
use crate::domain::ids::ConnectionId;
use crate::mercadopago::application::Application;
use crate::mercadopago::token_endpoint::TokenError;
use crate::rescue::{RescueFile, Subject};
use crate::storage::{
    Claim, ClaimRequest, ClaimedRefresh, FailedRefresh, OpenConnection, StoreError, SucceededRefresh,
};

/// How often a row that another replica is refreshing is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// First and longest delay between two tries to write an answer to a store that is down.
const STORE_RETRY: Duration = Duration::from_millis(50);
const STORE_RETRY_LONGEST: Duration = Duration::from_secs(5);

impl Inner {
    /// Refreshes a connection, or finds out why not.
    pub(super) async fn fly(
        &self,
        id: &ConnectionId,
        spent_generation: Option<i64>,
        trigger: Trigger,
    ) -> Outcome {
        let Some(connection) = self.store.find_connection_by_id(id).await? else {
            return Err(RefreshError::Absent);
        };
        let Some(app) = self.applications.get(&connection.application) else {
            let reason = "its application is not in the settings";
            return Err(RefreshError::TokenUnavailable {
                retry_after: None,
                reason,
            });
        };
        if spent_generation.is_some_and(|spent| spent != connection.generation) {
            // Somebody has done it: nothing is spent, so nothing below speaks against it.
            return self.current(id).await;
        }
        self.check_application(app, trigger).await?;
        if self.replica.excessive_skew().is_some() {
            return Err(RefreshError::TokenUnavailable {
                retry_after: None,
                reason: "this replica's clock differs too much from the database's; set it right, or ask another replica",
            });
        }
        loop {
            let now = self.clock.now();
            let lease = TimeDelta::from_std(self.settings.lease).unwrap_or(TimeDelta::MAX);
            let request = ClaimRequest {
                connection: id,
                spent_generation,
                trigger,
                owner: self.replica.id(),
                lease,
                client_id: &app.client_id,
                now,
            };
            match self.store.claim_refresh(&request).await? {
                Claim::Claimed(claimed) => return self.spend(app, *claimed).await,
                Claim::Superseded(open) => return usable(*open, now),
                Claim::NotRefreshable(open) => return not_refreshable(app, &open.connection),
                Claim::Absent => return Err(RefreshError::Absent),
                Claim::Deferred(until) => {
                    return Err(RefreshError::TokenUnavailable {
                        retry_after: delay_until(until, now),
                        reason: "the last attempt failed; the next one is due later",
                    });
                }
                Claim::Busy(until) => match self
                    .wait_for_other(id, connection.generation, until, trigger)
                    .await?
                {
                    Some(open) => return usable(open, self.clock.now()),
                    None if trigger == Trigger::Schedule => {
                        let reason = "another replica is refreshing it";
                        return Err(RefreshError::TokenUnavailable {
                            retry_after: None,
                            reason,
                        });
                    }
                    None => {}
                },
            }
        }
    }

    /// What another replica brings that is refreshing the connection at this moment, if one is.
    pub(super) async fn of_other(
        &self,
        connection: &Connection,
    ) -> Result<Option<OpenConnection>, RefreshError> {
        let Some(until) = self.store.refresh_lease(&connection.id, self.clock.now()).await? else {
            return Ok(None);
        };
        let generation = connection.generation;
        let brought = self
            .wait_for_other(&connection.id, generation, until, Trigger::Unauthorized)
            .await?;
        brought.map(|open| usable(open, self.clock.now())).transpose()
    }

    /// Waits until another replica has brought a new generation or its lease is over.
    async fn wait_for_other(
        &self,
        id: &ConnectionId,
        generation: i64,
        until: chrono::DateTime<chrono::Utc>,
        trigger: Trigger,
    ) -> Result<Option<OpenConnection>, RefreshError> {
        if trigger == Trigger::Schedule {
            return Ok(None);
        }
        while self.clock.now() < until {
            tokio::time::sleep(LOOK_AGAIN).await;
            let Some(open) = self.store.open_connection_by_id(id).await? else {
                return Err(RefreshError::Absent);
            };
            if open.connection.generation != generation {
                return Ok(Some(open));
            }
            if open.connection.status == Status::ReconnectRequired {
                return Err(RefreshError::ReconnectRequired {
                    reason: "Mercado Pago refused the grant",
                });
            }
        }
        Ok(None)
    }

    /// Spends the claimed refresh token and stores what comes of it.
    async fn spend(&self, app: &Application, claimed: ClaimedRefresh) -> Outcome {
        let attempt = &claimed.attempt;
        let subject = Subject::refresh(
            &attempt.application,
            &attempt.connection_id,
            &attempt.id,
            attempt.generation,
        );
        let file = match self
            .rescue
            .create(subject, claimed.data_key.clone(), attempt.application.clone())
            .await
        {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, "RESCUE_DIR cannot be written: nothing is refreshed until it can");
                let error = TokenError::NotSent {
                    reason: "the rescue file could not be created".to_owned(),
                };
                return self.failed(app, &claimed, &error).await;
            }
        };
        if self.clock.now() - attempt.started_at
            > TimeDelta::from_std(self.settings.lease / 2).unwrap_or(TimeDelta::MAX)
        {
            // Paused since the claim: by the time an answer came, another replica might be spending the same token.
            file.remove().await;
            let error = TokenError::NotSent {
                reason: "the lease was half over before anything was sent".to_owned(),
            };
            return self.failed(app, &claimed, &error).await;
        }
        let answer = self.ask(app, &claimed, &file).await;
        let outcome = match &answer {
            Ok(tokens) => self.succeeded(app, &claimed, tokens).await,
            Err(error) => self.failed(app, &claimed, error).await,
        };
        // An answer that our parser rejects may hold the only tokens there are: its file stays.
        if !matches!(answer, Err(TokenError::Unknown { .. }))
            && !matches!(outcome, Err(RefreshError::StoreUnavailable))
        {
            file.remove().await;
        }
        outcome
    }

    /// Asks with the client secret, and with the previous one if Mercado Pago does not know the first (12 hours' overlap).
    async fn ask(
        &self,
        app: &Application,
        claimed: &ClaimedRefresh,
        file: &RescueFile,
    ) -> Result<TokenSet, TokenError> {
        let answer = self
            .endpoint
            .refresh(app, &app.client_secret, &claimed.refresh_token, file)
            .await;
        match (&answer, &app.client_secret_previous) {
            (Err(TokenError::ClientRejected { .. }), Some(previous)) => {
                self.endpoint
                    .refresh(app, previous, &claimed.refresh_token, file)
                    .await
            }
            _ => answer,
        }
    }

    async fn succeeded(&self, app: &Application, claimed: &ClaimedRefresh, tokens: &TokenSet) -> Outcome {
        let before = &claimed.open.connection;
        let succeeded = self.success(app, before, tokens, &claimed.data_key);
        let stored = self
            .until_stored(|| async {
                let now = self.clock.now();
                self.store
                    .store_refreshed(&claimed.attempt.id, claimed.attempt.generation, &succeeded, now)
                    .await
            })
            .await?;
        metrics::counter!("connector_refresh_total", "outcome" => RefreshOutcome::Succeeded.as_str())
            .increment(1);
        self.breakers.succeeded(&app.id);
        self.resume(app).await;
        if stored {
            tracing::info!(connection = %before.id, generation = succeeded.next.generation, "refreshed");
            return Ok(OpenConnection {
                connection: succeeded.next,
                access_token: Some(tokens.access_token.clone()),
            });
        }
        // Reconnected or revoked meanwhile: what is there counts.
        self.current(&before.id).await
    }

    /// The connection with its new tokens, and what is told and audited of it.
    pub(super) fn success<'a>(
        &self,
        app: &Application,
        before: &Connection,
        tokens: &'a TokenSet,
        data_key: &'a crate::vault::DataKey,
    ) -> SucceededRefresh<'a> {
        let next = before.clone().refreshed(tokens, &self.settings.schedule);
        let event_type = if before.status == Status::ReconnectRequired {
            EventType::Recovered
        } else {
            EventType::Refreshed
        };
        let event = self.event(event_type, app, &next);
        let audit = audit(
            AuditAction::ConnectionRefreshed,
            &next,
            serde_json::json!({ "generation": next.generation }),
        );
        SucceededRefresh {
            next,
            tokens,
            data_key,
            event,
            audit,
        }
    }

    async fn failed(&self, app: &Application, claimed: &ClaimedRefresh, error: &TokenError) -> Outcome {
        let before = &claimed.open.connection;
        let now = self.clock.now();
        let decided = self.decide(app, claimed, error).await?;
        let failed = self.failure(app, before, error, &decided);
        metrics::counter!("connector_refresh_total", "outcome" => failed.outcome.as_str()).increment(1);
        tracing::warn!(connection = %before.id, outcome = %failed.outcome, %error, "not refreshed");
        self.note_for_breaker(app, error);
        let stored = self
            .until_stored(|| async {
                self.store
                    .store_failed(&claimed.attempt, &failed, self.clock.now())
                    .await
            })
            .await?;
        if !stored {
            return self.current(&before.id).await;
        }
        Err(match decided {
            Verdict::ReconnectRequired { .. } => RefreshError::ReconnectRequired {
                reason: "Mercado Pago refused the grant",
            },
            _ if failed.next.status == Status::ReconnectRequired => RefreshError::ReconnectRequired {
                reason: "Mercado Pago refused the grant",
            },
            Verdict::Retry { at, .. }
            | Verdict::Unknown { at }
            | Verdict::Doubt { at }
            | Verdict::Suspend { at } => RefreshError::TokenUnavailable {
                retry_after: delay_until(at, now),
                reason: "Mercado Pago did not renew it",
            },
        })
    }

    /// The verdict on the seller, unless the application as a whole looks wrong.
    async fn decide(
        &self,
        app: &Application,
        claimed: &ClaimedRefresh,
        error: &TokenError,
    ) -> Result<Verdict, RefreshError> {
        let now = self.clock.now();
        let connection = &claimed.open.connection;
        let decided = verdict(error, &claimed.attempt, connection, self.random.unit(), now);
        if let Verdict::Suspend { at } = decided {
            self.suspend(app, "client_rejected").await?;
            return Ok(Verdict::Suspend { at });
        }
        let is_rejection = matches!(error, TokenError::GrantRejected { .. });
        if is_rejection && self.looks_like_ours(app, claimed).await? {
            self.suspend(app, "grants_rejected").await?;
            return Ok(Verdict::Suspend {
                at: now + super::suspension::PROBE_EVERY,
            });
        }
        Ok(decided)
    }

    fn failure(
        &self,
        app: &Application,
        before: &Connection,
        error: &TokenError,
        decided: &Verdict,
    ) -> FailedRefresh {
        let now = self.clock.now();
        let connection = before.clone();
        let rejected = matches!(error, TokenError::GrantRejected { .. });
        let (outcome, next) = match decided {
            Verdict::Retry { outcome, at } => (*outcome, connection.refresh_failed(*at, now)),
            Verdict::Unknown { at } => {
                let next = connection.refresh_failed(*at, now);
                (
                    RefreshOutcome::Unknown,
                    Connection {
                        outcome_unknown: true,
                        ..next
                    },
                )
            }
            Verdict::Doubt { at } => {
                let first_rejected_at = connection.first_rejected_at.or(Some(now));
                let next = connection.refresh_failed(*at, now);
                (
                    RefreshOutcome::GrantRejected,
                    Connection {
                        first_rejected_at,
                        ..next
                    },
                )
            }
            Verdict::Suspend { at } if rejected => {
                (RefreshOutcome::GrantRejected, connection.refresh_failed(*at, now))
            }
            Verdict::Suspend { at } => (
                RefreshOutcome::ClientRejected,
                connection.refresh_failed(*at, now),
            ),
            Verdict::ReconnectRequired { access_token_dead } => (
                RefreshOutcome::GrantRejected,
                connection.reconnect_required(*access_token_dead, now),
            ),
        };
        let flagged = next.status == Status::ReconnectRequired && before.status == Status::Active;
        let mut events = Vec::new();
        if flagged {
            events.push(self.event(EventType::ReconnectRequired, app, &next));
        } else if before.refresh_failures == 0 && next.status == Status::Active {
            events.push(self.event(EventType::RefreshFailing, app, &next));
        }
        let reason = serde_json::json!({ "status_reason": StatusReason::GrantRejected });
        let audit = flagged.then(|| audit(AuditAction::ConnectionReconnectRequired, &next, reason));
        let code = match error {
            TokenError::GrantRejected { code, .. } | TokenError::ClientRejected { code, .. } => code.clone(),
            TokenError::NotSent { reason } | TokenError::Unknown { reason } => reason.clone(),
            TokenError::Throttled { .. } => "throttled".to_owned(),
            TokenError::Unavailable { .. } => "unavailable".to_owned(),
        };
        FailedRefresh {
            outcome,
            http_status: error.status(),
            error: Some(code),
            next,
            events,
            audit,
        }
    }

    pub(super) fn event(
        &self,
        event_type: EventType,
        app: &Application,
        connection: &Connection,
    ) -> NewEvent {
        let now = self.clock.now();
        let view = connection.view_at(now, app.public_key.as_deref());
        NewEvent::about_connection(
            event_type,
            &app.id,
            &connection.seller_id,
            &view,
            now,
            &self.random,
        )
    }

    /// Tries to write until the store takes it: an answer that is here must not be lost to a store that is down. What the
    /// store refuses for another reason than being down is given back.
    pub(super) async fn until_stored<F, T>(&self, mut write: impl FnMut() -> F) -> Result<T, RefreshError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut delay = STORE_RETRY;
        loop {
            match write().await {
                Ok(stored) => return Ok(stored),
                Err(error @ StoreError::Unavailable(_)) => {
                    tracing::error!(%error, "the store cannot be written; a token answer waits for it");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(STORE_RETRY_LONGEST);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What the row holds by now, if it can be used.
    async fn current(&self, id: &ConnectionId) -> Outcome {
        match self.store.open_connection_by_id(id).await? {
            Some(open) => usable(open, self.clock.now()),
            None => Err(RefreshError::Absent),
        }
    }
}

/// Why a connection cannot be refreshed.
fn not_refreshable(app: &Application, connection: &Connection) -> Outcome {
    let reason = match connection.status {
        Status::Revoked => return Err(RefreshError::Revoked),
        Status::ReconnectRequired => "Mercado Pago refused the grant",
        Status::Active if connection.client_id != app.client_id => {
            tracing::warn!(
                connection = %connection.id, application = %app.id,
                "not refreshed: the tokens belong to another client_id than the configured one"
            );
            "the configured client_id is not the one its tokens were issued for"
        }
        Status::Active => "Mercado Pago gave no refresh token (scope offline_access)",
    };
    Err(RefreshError::ReconnectRequired { reason })
}

/// The connection if its access token is alive, else why not.
fn usable(open: OpenConnection, now: chrono::DateTime<chrono::Utc>) -> Outcome {
    match open.connection.status {
        Status::Revoked => Err(RefreshError::Revoked),
        _ if open.access_token.is_some() && open.connection.has_live_access_token_at(now) => Ok(open),
        Status::ReconnectRequired => Err(RefreshError::ReconnectRequired {
            reason: "Mercado Pago refused the grant",
        }),
        Status::Active => {
            let reason = "the new access token is over already";
            Err(RefreshError::TokenUnavailable {
                retry_after: None,
                reason,
            })
        }
    }
}

/// An audit row about a connection, by the service itself.
pub(super) fn audit(action: AuditAction, connection: &Connection, detail: serde_json::Value) -> NewAudit {
    NewAudit {
        actor: Actor::system(),
        action,
        application: Some(connection.application.clone()),
        target: Some(connection.seller_id.to_string()),
        at: connection.updated_at,
        detail,
    }
}
