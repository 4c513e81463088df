//! Removing what was kept long enough, in small steps, so that no step holds the writer for long.

use chrono::{DateTime, Utc};

use super::dispatch::{statements, within};
use super::{Store, StoreError};
use crate::domain::ids::ApplicationId;

statements! {
    PURGE_EVENTS = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE application = $1 AND created_at < $2 LIMIT $3)";
    PURGE_NOTIFICATIONS = "DELETE FROM notifications WHERE id IN \
        (SELECT id FROM notifications WHERE application = $1 AND received_at < $2 LIMIT $3)";
    PURGE_ATTEMPTS = "DELETE FROM refresh_attempts WHERE id IN \
        (SELECT id FROM refresh_attempts WHERE application = $1 AND finished_at IS NOT NULL AND finished_at < $2 LIMIT $3)";
    PURGE_USAGE = "DELETE FROM usage_hourly WHERE (application, connection_id, hour) IN \
        (SELECT application, connection_id, hour FROM usage_hourly WHERE application = $1 AND hour < $2 LIMIT $3)";
}

impl Store {
    /// Removes up to `limit` events of an application that were written before `before`, with their deliveries. How many went.
    pub async fn purge_events(
        &self,
        application: &ApplicationId,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.purge(PURGE_EVENTS, application, before, limit).await
    }

    /// Removes up to `limit` notifications of an application that came before `before`. How many went.
    pub async fn purge_notifications(
        &self,
        application: &ApplicationId,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.purge(PURGE_NOTIFICATIONS, application, before, limit).await
    }

    /// Removes up to `limit` refresh attempts of an application that ended before `before`. How many went.
    pub async fn purge_refresh_attempts(
        &self,
        application: &ApplicationId,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.purge(PURGE_ATTEMPTS, application, before, limit).await
    }

    /// Removes up to `limit` rows of usage of an application whose hour began before `before`. How many went.
    pub async fn purge_usage(
        &self,
        application: &ApplicationId,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.purge(PURGE_USAGE, application, before, limit).await
    }

    async fn purge(
        &self,
        statement: &'static str,
        application: &ApplicationId,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let mut tx = self.database.begin().await?;
        let removed = within!(&mut tx, |c| sqlx::query(statement)
            .bind(application.as_str())
            .bind(before)
            .bind(i64::from(limit))
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;
    use crate::domain::event::{EventType, NewEvent};
    use crate::domain::ids::{EventId, SellerId};
    use crate::domain::random::Random;
    use crate::storage::events::insert_event;
    use crate::storage::tests::temporary_store;

    #[tokio::test]
    async fn events_go_when_they_are_old_enough_and_in_small_steps() {
        let (store, _folder) = temporary_store().await;
        let application = ApplicationId::default_application();
        let seller: SellerId = "seller-1".parse().unwrap();
        let day = |n| DateTime::UNIX_EPOCH + Duration::days(n);
        for n in 0..5 {
            let mut tx = store.database.begin().await.unwrap();
            let event = NewEvent {
                id: EventId::new(day(n), &Random::system()),
                application: application.clone(),
                seller_id: Some(seller.clone()),
                event_type: EventType::Connected,
                at: day(n),
                data: serde_json::json!({}),
            };
            insert_event(&mut tx, &event).await.unwrap();
            tx.commit().await.unwrap();
        }
        let purge = || store.purge_events(&application, day(3), 2);
        assert_eq!(
            (
                purge().await.unwrap(),
                purge().await.unwrap(),
                purge().await.unwrap()
            ),
            (2, 1, 0)
        );
        assert_eq!(
            store
                .list_events_of_seller(&application, &seller, 10)
                .await
                .unwrap()
                .len(),
            2
        );
        assert_eq!(
            store
                .purge_refresh_attempts(&application, day(3), 2)
                .await
                .unwrap(),
            0
        );
    }
}
