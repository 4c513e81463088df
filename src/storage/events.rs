//! The outbox: events are rows, written in the transaction of what they tell. Delivering them is another matter.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

use super::dispatch::{Tx, read, statements, within};
use super::{Store, StoreError};
use crate::domain::event::NewEvent;
use crate::domain::ids::{ApplicationId, SellerId};

statements! {
    INSERT_EVENT = "INSERT INTO events (id, application, seller_id, event_type, created_at, data) VALUES ($1, $2, $3, $4, $5, $6)";
    LIST_EVENTS_OF_SELLER = "SELECT id, event_type, created_at, data FROM events WHERE application = $1 AND seller_id = $2 \
        ORDER BY created_at DESC, id DESC LIMIT $3";
}

/// An event as it lies in the outbox.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EventRow {
    /// Our id, by which receivers deduplicate.
    pub id: String,
    /// What happened, as [`crate::domain::event::EventType`] writes it.
    pub event_type: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// `data` of the event's body.
    #[sqlx(json)]
    pub data: Value,
}

/// Writes an event in the transaction of what it tells.
pub(super) async fn insert_event(tx: &mut Tx, event: &NewEvent) -> Result<(), StoreError> {
    within!(tx, |c| sqlx::query(INSERT_EVENT)
        .bind(event.id.as_str())
        .bind(event.application.as_str())
        .bind(event.seller_id.as_ref().map(SellerId::as_str))
        .bind(event.event_type.as_str())
        .bind(event.at)
        .bind(Json(&event.data))
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

impl Store {
    /// The newest events about one seller, newest first.
    pub async fn list_events_of_seller(
        &self,
        application: &ApplicationId,
        seller: &SellerId,
        limit: u32,
    ) -> Result<Vec<EventRow>, StoreError> {
        Ok(read!(&self.database, |c| sqlx::query_as(LIST_EVENTS_OF_SELLER)
            .bind(application.as_str())
            .bind(seller.as_str())
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?)
    }
}
