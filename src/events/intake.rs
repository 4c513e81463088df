//! Notifications on their way in: verified, read, kept once. Everything within milliseconds, because Mercado Pago waits;
//! what follows from a notification is written in the same transaction, and delivering it is somebody else's work.

use std::sync::Arc;

use chrono::TimeDelta;
use http::HeaderMap;
use tokio::sync::oneshot;

use super::Deliverer;
use super::group::Group;
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
    /// The request that wrote it together with its own was broken off; Mercado Pago will come again.
    #[error("writing a notification was broken off")]
    BrokenOff,
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

type Kept = Result<Option<NotificationOutcome>, StoreError>;

#[derive(Debug)]
struct Inner {
    parts: IntakeParts,
    /// What was verified and waits to be written.
    waiting: Group<(NewNotification, oneshot::Sender<Kept>)>,
}

/// Takes notifications in. Clones share everything.
#[derive(Debug, Clone)]
pub struct Intake(Arc<Inner>);

impl Intake {
    /// Puts the parts together.
    pub fn new(parts: IntakeParts) -> Self {
        let waiting = Group::default();
        Self(Arc::new(Inner { parts, waiting }))
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
            Err(IntakeError::Store(_) | IntakeError::BrokenOff) => "failed",
            Err(_) => "refused",
        };
        metrics::counter!("connector_notifications_total", "outcome" => outcome).increment(1);
        if matches!(
            received,
            Ok(Some(NotificationOutcome::Told | NotificationOutcome::Revoked))
        ) {
            self.0.parts.deliverer.wake();
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
        let parts = &self.0.parts;
        let no_secret = || IntakeError::NoSecret(id.clone());
        let application = parts.applications.get(id).ok_or_else(no_secret)?;
        let current = application.webhook_secret.as_ref().ok_or_else(no_secret)?;
        let secrets = [Some(current), application.webhook_secret_previous.as_ref()];
        let now = parts.clock.now();
        let envelope = Envelope::read(headers, query)?;
        envelope.verify(secrets.into_iter().flatten(), now, parts.tolerance)?;
        let new = NewNotification {
            application: Arc::clone(application),
            notification: Notification::read(&envelope, body)?,
            raw: body.to_owned(),
            request_id,
            received_at: now,
        };
        let (answer, kept) = oneshot::channel();
        self.0.waiting.put((new, answer));
        let mut turn = self.0.waiting.turn().await;
        while let Some(batch) = turn.take() {
            self.write(batch).await;
        }
        drop(turn);
        Ok(kept.await.map_err(|_| IntakeError::BrokenOff)??)
    }

    /// Writes notifications in one transaction; if that fails, each in its own, so that none suffers for another.
    async fn write(&self, batch: Vec<(NewNotification, oneshot::Sender<Kept>)>) {
        let store = &self.0.parts.store;
        let (new, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        // Whoever does not wait any more needs no answer.
        match store.record_notifications(&new).await {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(_) => {
                for (one, answer) in new.into_iter().zip(answers) {
                    let alone = store.record_notifications(&[one]).await;
                    let _ = answer.send(alone.map(|outcomes| outcomes.into_iter().next().flatten()));
                }
            }
        }
    }
}
