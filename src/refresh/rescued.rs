//! Rescue files that a process left: applied at start and every few seconds, only if the connection is still of the generation
//! that was spent and not revoked; else removed and audited (DESIGN.md section 7).

use super::{RefreshError, Refresher};
use crate::domain::connection::{Connection, Status};
use crate::domain::event::AuditAction;
use crate::mercadopago::token_endpoint::parse_answer;
use crate::rescue::{LeftFile, Subject};

impl Refresher {
    /// Applies a left file of a refresh. Files of exchanges are not touched.
    pub async fn apply_rescued(&self, file: LeftFile) -> Result<(), RefreshError> {
        let Some(Subject::Refresh {
            application,
            connection,
            attempt,
            generation,
        }) = file.subject().cloned()
        else {
            return Ok(());
        };
        let (Ok(id), Ok(attempt)) = (connection.parse(), attempt.parse()) else {
            tracing::error!(
                file = file.name(),
                "a rescue file names no connection; it is left where it is"
            );
            return Ok(());
        };
        let Some((connection, key)) = self.0.store.find_for_rescue(&id).await? else {
            file.remove().await;
            return Ok(());
        };
        let Some(key) =
            key.filter(|_| connection.generation == generation && connection.status != Status::Revoked)
        else {
            return self.discard(file, &connection, "superseded").await;
        };
        let Some(app) = self.0.applications.get(&connection.application) else {
            tracing::warn!(
                file = file.name(),
                application,
                "a rescue file waits for its application to be in the settings"
            );
            return Ok(());
        };
        let answer = match file.open(&key, &connection.application) {
            Ok(Some(answer)) => answer,
            // No answer had come: the open attempt in the store tells the rest.
            Ok(None) => {
                file.remove().await;
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(file = file.name(), %error, "a rescue file does not open");
                return self.discard(file, &connection, "unreadable").await;
            }
        };
        match parse_answer(&answer) {
            Ok(tokens) => {
                let succeeded = self.0.success(app, &connection, &tokens, &key);
                let now = self.0.clock.now();
                if self
                    .0
                    .store
                    .store_refreshed(&attempt, generation, &succeeded, now)
                    .await?
                {
                    tracing::warn!(connection = %connection.id, "a token answer was recovered from its rescue file");
                    metrics::counter!("connector_rescued_total", "kind" => "refresh").increment(1);
                    file.remove().await;
                    Ok(())
                } else {
                    self.discard(file, &connection, "superseded").await
                }
            }
            Err(error) if (200..300).contains(&answer.status) => {
                tracing::warn!(file = file.name(), %error, "a rescue file holds an answer that cannot be read; it is kept");
                Ok(())
            }
            // A refusal brings nothing: the attempt counts as one of unknown outcome and is made once more.
            Err(_) => {
                file.remove().await;
                Ok(())
            }
        }
    }

    async fn discard(&self, file: LeftFile, connection: &Connection, why: &str) -> Result<(), RefreshError> {
        let detail = serde_json::json!({ "reason": why });
        let audit = super::flight::audit(AuditAction::RescueDiscarded, connection, detail);
        let audit = crate::domain::event::NewAudit {
            at: self.0.clock.now(),
            ..audit
        };
        self.0.store.record_audit(&audit).await?;
        file.remove().await;
        Ok(())
    }
}
