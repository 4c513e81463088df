//! After a backup was restored: its refresh tokens may have been spent since it was made, and spending them again could make
//! the provider end grants that are alive. So nothing is refreshed in bulk; each access token is tried first, and only those
//! that are dead spend their refresh token (DESIGN.md section 11).

use std::time::Duration;

use super::Refresher;
use crate::domain::connection::{Status, Trigger};
use crate::domain::schedule::scale;
use crate::mercadopago::api::{Probe, ProviderApi};
use crate::mercadopago::application::Application;
use crate::storage::{ConnectionFilter, OpenConnection, StoreError};

/// Connections that are read at a time.
const PAGE: u32 = 200;
/// What lives and is due is put off by up to this part of the life that is left.
const PUT_OFF: f64 = 0.5;

/// What came of the connections of a restored backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Whose access token is alive; what was due of them is put off, spread over time.
    pub alive: usize,
    /// Whose access token was dead and could be renewed.
    pub renewed: usize,
    /// Whose access token was dead and could not be renewed.
    pub lost: usize,
    /// Of whom nothing could be found out: put off too.
    pub undecided: usize,
}

impl Refresher {
    /// Goes through all active connections, at the configured rate.
    pub async fn verify_restored(&self, provider: &ProviderApi) -> Result<Restored, StoreError> {
        let mut restored = Restored::default();
        for app in self.0.applications.iter() {
            let mut rate =
                tokio::time::interval(Duration::from_secs_f64(1.0 / self.0.settings.rate.per_second()));
            let mut filter = ConnectionFilter {
                application: Some(app.id.clone()),
                status: Some(Status::Active),
                limit: PAGE,
                ..ConnectionFilter::default()
            };
            loop {
                let page = self.0.store.list_connections(&filter).await?;
                for connection in &page.data {
                    rate.tick().await;
                    if let Some(open) = self.0.store.open_connection_by_id(&connection.id).await? {
                        self.verify_one(provider, app, &open, &mut restored).await?;
                    }
                }
                let (Some(_), Some(last)) = (page.next, page.data.last()) else {
                    break;
                };
                filter.after = Some((last.seller_id.to_string(), last.application.to_string()));
            }
        }
        tracing::info!(
            alive = restored.alive,
            renewed = restored.renewed,
            lost = restored.lost,
            undecided = restored.undecided,
            "the restored connections were looked through; start without --after-restore from now on"
        );
        Ok(restored)
    }

    async fn verify_one(
        &self,
        provider: &ProviderApi,
        app: &Application,
        open: &OpenConnection,
        restored: &mut Restored,
    ) -> Result<(), StoreError> {
        let connection = &open.connection;
        let probe = match &open.access_token {
            Some(token) if connection.has_live_access_token_at(self.0.clock.now()) => {
                provider.users_me(app, token).await
            }
            _ => Probe::Dead,
        };
        match probe {
            Probe::Alive { .. } => restored.alive += 1,
            Probe::Undecided { reason } => {
                tracing::warn!(connection = %connection.id, reason, "its access token could not be tried");
                restored.undecided += 1;
            }
            Probe::Dead => {
                let spent = Some(connection.generation);
                match self.refresh(&connection.id, spent, Trigger::Unauthorized).await {
                    Ok(_) => restored.renewed += 1,
                    Err(error) => {
                        tracing::warn!(connection = %connection.id, %error, "its tokens are dead and were not renewed");
                        restored.lost += 1;
                    }
                }
                return Ok(());
            }
        }
        let now = self.0.clock.now();
        let left = connection.access_token_expires_at - now;
        let until = now + scale(left, PUT_OFF * self.0.random.unit());
        self.0.store.put_off_refresh(connection, until, now).await
    }
}
