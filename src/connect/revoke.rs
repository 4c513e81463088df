//! How a connection is ended by somebody on our side: the API, the console, an operator.
//!
//! Guarantees that tokens and data key are destroyed before anything else happens, so that no answer of Mercado Pago can
//! keep them alive. Taking the application off the account there (`MERCADOPAGO_REVOKE_URL`) comes after it, in a task of
//! its own, and is a courtesy: it may fail.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::domain::clock::Clock;
use crate::domain::connection::{Connection, Status, StatusReason};
use crate::domain::event::Actor;
use crate::domain::ids::{ApplicationId, SellerId};
use crate::mercadopago::api::ProviderApi;
use crate::mercadopago::application::Applications;
use crate::storage::{Store, StoreError};

/// Ends connections. Clones share everything.
#[derive(Debug, Clone)]
pub struct Revoker {
    store: Store,
    provider: ProviderApi,
    applications: Applications,
    clock: Arc<dyn Clock>,
    tracker: TaskTracker,
}

impl Revoker {
    /// Puts the parts together; `tracker` holds the calls to Mercado Pago, and shutdown waits for it.
    pub fn new(
        store: Store,
        provider: ProviderApi,
        applications: Applications,
        clock: Arc<dyn Clock>,
        tracker: TaskTracker,
    ) -> Self {
        Self {
            store,
            provider,
            applications,
            clock,
            tracker,
        }
    }

    /// Ends a seller's connection and gives it as it stands then; none if there is none. Ending an ended one changes
    /// nothing.
    pub async fn revoke(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
        reason: StatusReason,
        actor: Actor,
    ) -> Result<Option<Connection>, StoreError> {
        let configured = self.applications.get(application);
        let courtesy = configured.filter(|app| app.revoke_url.is_some());
        let token = match courtesy {
            // A token that does not open is destroyed all the same.
            Some(_) => self
                .store
                .open_connection(application, seller)
                .await
                .ok()
                .flatten(),
            None => None,
        };
        let public_key = configured.and_then(|app| app.public_key.as_deref());
        let now = self.clock.now();
        let ended = self
            .store
            .revoke_connection(application, seller, reason, public_key, actor, now)
            .await?;
        if let (Some(app), Some(opened)) = (courtesy, token)
            && opened.connection.status != Status::Revoked
            && let Some(access_token) = opened.access_token
        {
            let (provider, app, user_id) =
                (self.provider.clone(), Arc::clone(app), opened.connection.user_id);
            let connection_id = opened.connection.id;
            self.tracker.spawn(async move {
                if let Err(error) = provider.revoke(&app, user_id, &access_token).await {
                    tracing::warn!(%error, %connection_id, "mercado pago was not told of a revoked connection");
                }
            });
        }
        Ok(ended)
    }
}
