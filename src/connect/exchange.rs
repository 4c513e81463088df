//! The exchange of an authorization code: a task of its own with a rescue file, like a refresh (DESIGN.md section 7).

use std::time::Duration;

use super::{ConnectFlow, Ending, Failure, Parts};
use crate::domain::connection::{OnAccountChange, TokenSet};
use crate::domain::event::{Actor, ActorKind, AuditAction, NewAudit};
use crate::domain::secret::AuthorizationCode;
use crate::mercadopago::application::Application;
use crate::mercadopago::token_endpoint::{TokenError, parse_answer};
use crate::rescue::{LeftFile, RescueFile, Subject};
use crate::storage::{Admission, ConsumedAuthorization, NewConnect, StoreError};

/// First and longest delay between two tries to write an answer to a store that is down.
const STORE_RETRY: Duration = Duration::from_millis(50);
const STORE_RETRY_LONGEST: Duration = Duration::from_secs(5);

impl Parts {
    /// Makes the one exchange of a consumed authorization request and admits what it brings.
    pub(super) async fn exchange(
        &self,
        consumed: ConsumedAuthorization,
        code: AuthorizationCode,
        actor: Actor,
    ) -> Result<Ending, StoreError> {
        let Some(app) = self.applications.get(&consumed.link.application) else {
            return Ok(Ending::Failed(Failure::ExchangeFailed));
        };
        let subject = Subject::exchange(&app.id, &consumed.id);
        let file = match self
            .rescue
            .create(subject, consumed.data_key.clone(), app.id.clone())
            .await
        {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, "RESCUE_DIR cannot be written: nobody can connect until it can");
                self.store.discard_authorization_request(&consumed.id).await?;
                return Ok(Ending::Failed(Failure::ProviderUnavailable));
            }
        };
        match self.ask(app, &consumed, &code, &file).await {
            Ok(tokens) => {
                let ending = self.admit(app, &consumed, &tokens, actor).await?;
                file.remove().await;
                Ok(ending)
            }
            Err(error) => {
                tracing::warn!(link = %consumed.link.id, %error, "a seller could not be connected");
                // An answer that our parser rejects may hold the only tokens there are: file and data key stay.
                if !matches!(error, TokenError::Unknown { .. }) {
                    self.store.discard_authorization_request(&consumed.id).await?;
                    file.remove().await;
                }
                Ok(Ending::Failed(match error {
                    TokenError::GrantRejected { .. } | TokenError::ClientRejected { .. } => {
                        Failure::ExchangeFailed
                    }
                    _ => Failure::ProviderUnavailable,
                }))
            }
        }
    }

    /// Asks with the client secret, and with the previous one if Mercado Pago does not know the first.
    async fn ask(
        &self,
        app: &Application,
        consumed: &ConsumedAuthorization,
        code: &AuthorizationCode,
        file: &RescueFile,
    ) -> Result<TokenSet, TokenError> {
        let Some(verifier) = &consumed.verifier else {
            return Err(TokenError::NotSent {
                reason: "the verifier is gone".to_owned(),
            });
        };
        let answer = self
            .endpoint
            .exchange_code(app, &app.client_secret, code, verifier, file)
            .await;
        match (&answer, &app.client_secret_previous) {
            (Err(TokenError::ClientRejected { .. }), Some(previous)) => {
                self.endpoint
                    .exchange_code(app, previous, code, verifier, file)
                    .await
            }
            _ => answer,
        }
    }

    /// Admits the seller by the identity rules. Tries until the store takes it.
    async fn admit(
        &self,
        app: &Application,
        consumed: &ConsumedAuthorization,
        tokens: &TokenSet,
        actor: Actor,
    ) -> Result<Ending, StoreError> {
        let mut delay = STORE_RETRY;
        loop {
            match self
                .store
                .admit(&self.connect(app, consumed, tokens, actor.clone()))
                .await
            {
                Ok(Admission::Connected(connection)) => {
                    tracing::info!(connection = %connection.id, generation = connection.generation, "connected");
                    return Ok(Ending::Connected(connection));
                }
                Ok(Admission::AccountMismatch) => return Ok(Ending::Failed(Failure::AccountMismatch)),
                Ok(Admission::AccountInUse) => return Ok(Ending::Failed(Failure::AccountInUse)),
                // An import has no consent, so the first cannot come; the second was completed from its rescue file.
                Ok(Admission::SellerConnected | Admission::AlreadyCompleted) => {
                    return self.already(app, consumed).await;
                }
                // A refresh or a revoke came in between: the rules are looked at again.
                Err(error @ (StoreError::Unavailable(_) | StoreError::Conflict)) => {
                    tracing::error!(%error, "a new connection waits for the store");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(STORE_RETRY_LONGEST);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn already(
        &self,
        app: &Application,
        consumed: &ConsumedAuthorization,
    ) -> Result<Ending, StoreError> {
        let found = self
            .store
            .find_connection(&app.id, &consumed.link.seller_id)
            .await?;
        Ok(found.map_or(Ending::Failed(Failure::ExchangeFailed), |found| {
            Ending::Connected(Box::new(found))
        }))
    }

    fn connect<'a>(
        &'a self,
        app: &'a Application,
        consumed: &'a ConsumedAuthorization,
        tokens: &'a TokenSet,
        actor: Actor,
    ) -> NewConnect<'a> {
        let link = &consumed.link;
        // Of two tabs of one link the second may not bring another account.
        let policy = if link.used_at.is_some() {
            OnAccountChange::Refuse
        } else {
            link.on_account_change
        };
        NewConnect {
            application: &app.id,
            client_id: &app.client_id,
            application_public_key: app.public_key.as_deref(),
            seller_id: &link.seller_id,
            tokens,
            data_key: &consumed.data_key,
            metadata: link.metadata.as_ref(),
            consent: Some((consumed, policy)),
            schedule: &self.schedule,
            actor,
            now: self.clock.now(),
        }
    }
}

impl ConnectFlow {
    /// Applies a left file of an exchange: the seller is connected although the process died, unless the consent was
    /// completed otherwise. Files of refreshes are not touched.
    pub async fn apply_rescued(&self, file: LeftFile) -> Result<(), StoreError> {
        let Some(Subject::Exchange {
            authorization_request,
            ..
        }) = file.subject().cloned()
        else {
            return Ok(());
        };
        let flow = &self.0;
        let Ok(id) = authorization_request.parse() else {
            tracing::error!(
                file = file.name(),
                "a rescue file names no authorization request; it is left where it is"
            );
            return Ok(());
        };
        let Some(consumed) = flow.store.find_consumed_authorization(&id).await? else {
            return flow.discard(file, "superseded").await;
        };
        let Some(app) = flow.applications.get(&consumed.link.application) else {
            tracing::warn!(
                file = file.name(),
                "a rescue file waits for its application to be in the settings"
            );
            return Ok(());
        };
        let answer = match file.open(&consumed.data_key, &app.id) {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                flow.store.discard_authorization_request(&id).await?;
                file.remove().await;
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(file = file.name(), %error, "a rescue file does not open");
                return flow.discard(file, "unreadable").await;
            }
        };
        match parse_answer(&answer) {
            Ok(tokens) => {
                let ending = flow.admit(app, &consumed, &tokens, seller(&consumed)).await?;
                tracing::warn!(link = %consumed.link.id, "a consent was completed from its rescue file");
                metrics::counter!("connector_rescued_total", "kind" => "exchange").increment(1);
                if let Ending::Failed(failure) = ending {
                    tracing::warn!(link = %consumed.link.id, error = failure.code(), "its identity was refused");
                }
                file.remove().await;
                Ok(())
            }
            Err(error) if (200..300).contains(&answer.status) => {
                tracing::warn!(file = file.name(), %error, "a rescue file holds an answer that cannot be read; it is kept");
                Ok(())
            }
            Err(_) => {
                flow.store.discard_authorization_request(&id).await?;
                file.remove().await;
                Ok(())
            }
        }
    }
}

fn seller(consumed: &ConsumedAuthorization) -> Actor {
    Actor {
        kind: ActorKind::Seller,
        id: Some(consumed.link.id.to_string()),
        address: None,
        request_id: None,
    }
}

impl Parts {
    async fn discard(&self, file: LeftFile, why: &str) -> Result<(), StoreError> {
        let audit = NewAudit {
            actor: Actor::system(),
            action: AuditAction::RescueDiscarded,
            application: None,
            target: Some(file.name()),
            at: self.clock.now(),
            detail: serde_json::json!({ "reason": why }),
        };
        self.store.record_audit(&audit).await?;
        file.remove().await;
        Ok(())
    }
}
