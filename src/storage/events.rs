//! The outbox: events are rows, written in the transaction of what they tell, and so are the deliveries to the endpoints
//! that want them. Delivering them is another matter (`deliveries`).

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

use super::dispatch::{Tx, read, statements, within};
use super::{Page, Store, StoreError};
use crate::domain::event::{EventType, NewEvent};
use crate::domain::ids::{ApplicationId, DeliveryId, EventEndpointId, EventId, SellerId};

statements! {
    INSERT_EVENT = "INSERT INTO events (id, application, seller_id, event_type, created_at, data) VALUES ($1, $2, $3, $4, $5, $6)";
    LIST_LISTENING = "SELECT id, event_types FROM event_endpoints WHERE application = $1 AND disabled_at IS NULL";
    INSERT_DELIVERY = "INSERT INTO deliveries (id, application, endpoint_id, event_id, event_type, status, attempts, tries, next_attempt_at, created_at) \
        VALUES ($1, $2, $3, $4, $5, 'pending', 0, 0, $6, $6)";
    LIST_EVENTS_OF_SELLER = "SELECT id, seller_id, event_type, created_at, data FROM events WHERE application = $1 AND seller_id = $2 \
        ORDER BY created_at DESC, id DESC LIMIT $3";
    FIND_EVENT = "SELECT id, seller_id, event_type, created_at, data FROM events WHERE application = $1 AND id = $2";
    // Every id is between `evt` and `evu`: a page is sought in the index by a bound that is always there.
    LIST_EVENTS_BACKWARD = "SELECT id, seller_id, event_type, created_at, data FROM events WHERE application = $1 \
        AND (CAST($2 AS TEXT) IS NULL OR event_type = $2) AND (CAST($3 AS TEXT) IS NULL OR seller_id = $3) \
        AND id < COALESCE($4, 'evu') ORDER BY id DESC LIMIT $5";
    LIST_EVENTS_FORWARD = "SELECT id, seller_id, event_type, created_at, data FROM events WHERE application = $1 \
        AND (CAST($2 AS TEXT) IS NULL OR event_type = $2) AND (CAST($3 AS TEXT) IS NULL OR seller_id = $3) \
        AND id > COALESCE($4, 'evt') AND created_at <= $5 ORDER BY id LIMIT $6";
}

/// An event as it lies in the outbox.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EventRow {
    /// Our id, by which receivers deduplicate.
    pub id: String,
    /// The seller it is about, where known.
    pub seller_id: Option<String>,
    /// What happened, as [`EventType`] writes it.
    pub event_type: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// `data` of the event's body.
    #[sqlx(json)]
    pub data: Value,
}

/// In which order events are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOrder {
    /// Newest first.
    Backward,
    /// Oldest first, and only those written before an instant. What was written a moment ago may still get a neighbour that
    /// sorts before it, from another replica: who polls must not have passed that place yet.
    Forward {
        /// The instant.
        settled_before: DateTime<Utc>,
    },
}

/// Which events to list.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// Only of this application.
    pub application: ApplicationId,
    /// Only of this type.
    pub event_type: Option<EventType>,
    /// Only about this seller.
    pub seller_id: Option<SellerId>,
    /// In which order.
    pub order: EventOrder,
    /// Only beyond this id (the cursor of the page before).
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// The endpoints of an application that are told of events, as a transaction sees them, each with the types that it wants.
pub(super) struct Listening(Vec<(EventEndpointId, Option<String>)>);

impl Listening {
    pub(super) async fn of(tx: &mut Tx, application: &ApplicationId) -> Result<Self, StoreError> {
        let rows: Vec<(String, Option<String>)> = within!(tx, |c| sqlx::query_as(LIST_LISTENING)
            .bind(application.as_str())
            .fetch_all(c)
            .await)?;
        let parsed = rows.into_iter().map(|(endpoint, types)| {
            let endpoint = endpoint.parse().map_err(|_| StoreError::Corrupt {
                table: "event_endpoints",
                column: "id",
                row: endpoint,
            })?;
            Ok((endpoint, types))
        });
        Ok(Self(parsed.collect::<Result<_, StoreError>>()?))
    }
}

/// Writes an event in the transaction of what it tells, and the obligation to tell it to every endpoint that wants it.
pub(super) async fn insert_event(tx: &mut Tx, event: &NewEvent) -> Result<(), StoreError> {
    let listening = Listening::of(tx, &event.application).await?;
    insert_event_for(tx, event, &listening).await
}

/// The same for those who are known to listen: of several events of one transaction.
pub(super) async fn insert_event_for(
    tx: &mut Tx,
    event: &NewEvent,
    listening: &Listening,
) -> Result<(), StoreError> {
    insert_event_row(tx, event).await?;
    for (endpoint, types) in &listening.0 {
        let wanted = types
            .as_ref()
            .is_none_or(|types| types.split(' ').any(|one| one == event.event_type.as_str()));
        if wanted {
            insert_delivery(tx, event, endpoint).await?;
        }
    }
    Ok(())
}

/// Writes an event that nobody is told of by this.
pub(super) async fn insert_event_row(tx: &mut Tx, event: &NewEvent) -> Result<(), StoreError> {
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

/// Writes the obligation to tell one event to one endpoint.
pub(super) async fn insert_delivery(
    tx: &mut Tx,
    event: &NewEvent,
    endpoint: &EventEndpointId,
) -> Result<(), StoreError> {
    within!(tx, |c| sqlx::query(INSERT_DELIVERY)
        .bind(DeliveryId::of(&event.id, endpoint).as_str())
        .bind(event.application.as_str())
        .bind(endpoint.as_str())
        .bind(event.id.as_str())
        .bind(event.event_type.as_str())
        .bind(event.at)
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

    /// The event of an application with this id.
    pub async fn find_event(
        &self,
        application: &ApplicationId,
        id: &EventId,
    ) -> Result<Option<EventRow>, StoreError> {
        Ok(read!(&self.database, |c| sqlx::query_as(FIND_EVENT)
            .bind(application.as_str())
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?)
    }

    /// A page of events; its cursor goes into [`EventFilter::cursor`].
    pub async fn list_events(&self, filter: &EventFilter) -> Result<Page<EventRow>, StoreError> {
        let (application, seller) = (filter.application.as_str(), filter.seller_id.as_ref());
        let (kind, cursor) = (filter.event_type.map(EventType::as_str), filter.cursor.as_deref());
        let seller = seller.map(SellerId::as_str);
        let limit = i64::from(filter.limit) + 1;
        let rows: Vec<EventRow> = match filter.order {
            EventOrder::Backward => read!(&self.database, |c| sqlx::query_as(LIST_EVENTS_BACKWARD)
                .bind(application)
                .bind(kind)
                .bind(seller)
                .bind(cursor)
                .bind(limit)
                .fetch_all(c)
                .await)?,
            EventOrder::Forward { settled_before } => {
                read!(&self.database, |c| sqlx::query_as(LIST_EVENTS_FORWARD)
                    .bind(application)
                    .bind(kind)
                    .bind(seller)
                    .bind(cursor)
                    .bind(settled_before)
                    .bind(limit)
                    .fetch_all(c)
                    .await)?
            }
        };
        Ok(Page::of(rows, filter.limit, |row| row.id.clone()))
    }
}
