//! Notifications on their way in: verified, read, kept once. Everything within milliseconds, because Mercado Pago waits;
//! what follows from a notification is written in the same transaction, and delivering it is somebody else's work.

use std::sync::Arc;

use chrono::TimeDelta;
use http::HeaderMap;

use super::Deliverer;
use crate::domain::clock::Clock;
use crate::domain::event::NotificationOutcome;
use crate::domain::ids::ApplicationId;
use crate::mercadopago::application::Applications;
use crate::mercadopago::notification::{Envelope, Notification, NotificationError};
use crate::storage::{NewNotification, Store, StoreError};

/// Why a notification was not kept.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It is not Mercado Pago's, or not for us.
    #[error("a notification was refused: {0}")]
    Refused(#[from] NotificationError),
    /// No such application, or one without a webhook secret.
    #[error(
        "a notification for application `{0}` was refused: set its webhook secret (MERCADOPAGO_WEBHOOK_SECRET)"
    )]
    NoSecret(ApplicationId),
    /// The store does not answer; Mercado Pago will come again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an [`Intake`] is made of.
#[derive(Debug)]
pub struct IntakeParts {
    /// Where notifications are kept.
    pub store: Store,
    /// The configured applications.
    pub applications: Applications,
    /// Who is woken when there is something to tell.
    pub deliverer: Deliverer,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// `NOTIFICATION_TOLERANCE`.
    pub tolerance: TimeDelta,
}

/// Takes notifications in. Clones share everything.
#[derive(Debug, Clone)]
pub struct Intake(Arc<IntakeParts>);

impl Intake {
    /// Puts the parts together.
    pub fn new(parts: IntakeParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Takes a notification in; `request_id` is ours, for the audit log. What became of it; none if it came before.
    pub async fn receive(
        &self,
        application: &ApplicationId,
        headers: &HeaderMap,
        query: &str,
        body: &str,
        request_id: Option<String>,
    ) -> Result<Option<NotificationOutcome>, IntakeError> {
        let received = self.kept(application, headers, query, body, request_id).await;
        let outcome = match &received {
            Ok(Some(outcome)) => outcome.as_str(),
            Ok(None) => "repeated",
            Err(IntakeError::Store(_)) => "failed",
            Err(_) => "refused",
        };
        metrics::counter!("connector_notifications_total", "outcome" => outcome).increment(1);
        if matches!(
            received,
            Ok(Some(NotificationOutcome::Told | NotificationOutcome::Revoked))
        ) {
            self.0.deliverer.wake();
        }
        received
    }

    async fn kept(
        &self,
        id: &ApplicationId,
        headers: &HeaderMap,
        query: &str,
        body: &str,
        request_id: Option<String>,
    ) -> Result<Option<NotificationOutcome>, IntakeError> {
        let no_secret = || IntakeError::NoSecret(id.clone());
        let application = self.0.applications.get(id).ok_or_else(no_secret)?;
        let current = application.webhook_secret.as_ref().ok_or_else(no_secret)?;
        let secrets = [Some(current), application.webhook_secret_previous.as_ref()];
        let now = self.0.clock.now();
        let envelope = Envelope::read(headers, query)?;
        envelope.verify(secrets.into_iter().flatten(), now, self.0.tolerance)?;
        let notification = Notification::read(&envelope, body)?;
        let new = NewNotification {
            application: id,
            notification: &notification,
            raw: body,
            public_key: application.public_key.as_deref(),
            request_id,
            received_at: now,
        };
        Ok(self.0.store.record_notification(&new).await?)
    }
}
