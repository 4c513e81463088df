//! Notifications: kept once, together with what follows from them.
//!
//! Guarantees that a notification that was stored has its event (or its revoke) in the same transaction, and that a
//! repetition changes nothing, whichever replica it comes to.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

use super::connections::{find_row_by_user_within, find_row_within, revoke_within};
use super::dispatch::{Tx, read, statements, within};
use super::events::{Listening, insert_event_for};
use super::{Page, Store, StoreError};
use crate::domain::connection::StatusReason;
use crate::domain::event::{Actor, ActorKind, NewEvent, NotificationOutcome};
use crate::domain::ids::{ApplicationId, EventId, NotificationId, SellerId};
use crate::mercadopago::application::Application;
use crate::mercadopago::notification::{LINK_TOPIC, Notification};

statements! {
    // The seller whose connection has the account; one that is ended only if there is no other.
    INSERT_NOTIFICATION = "INSERT INTO notifications (id, application, dedupe_key, topic, action, resource_id, user_id, seller_id, outcome, \
        event_id, body, received_at) VALUES ($1, $2, $3, $4, $5, $6, $7, (SELECT seller_id FROM connections \
        WHERE application = $2 AND user_id = $7 ORDER BY CASE WHEN status = 'revoked' THEN 1 ELSE 0 END, updated_at DESC LIMIT 1), \
        $8, $9, $10, $11) ON CONFLICT (application, dedupe_key) DO NOTHING RETURNING seller_id";
    LIST_NOTIFICATIONS = "SELECT id, application, topic, action, resource_id, user_id, seller_id, outcome, event_id, body, received_at \
        FROM notifications WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) AND (CAST($2 AS TEXT) IS NULL OR topic = $2) \
        AND (CAST($3 AS TEXT) IS NULL OR seller_id = $3 OR CAST(user_id AS TEXT) = $3 OR resource_id = $3) \
        AND (NOT $4 OR seller_id IS NULL) AND (CAST($5 AS TEXT) IS NULL OR id < $5) ORDER BY id DESC LIMIT $6";
    FIND_NOTIFICATION = "SELECT id, application, topic, action, resource_id, user_id, seller_id, outcome, event_id, body, received_at \
        FROM notifications WHERE id = $1";
}

/// A verified notification that is about to be kept.
#[derive(Debug)]
pub struct NewNotification {
    /// The application whose secret signed it.
    pub application: Arc<Application>,
    /// What it says.
    pub notification: Notification,
    /// The body as it came.
    pub raw: String,
    /// `X-Request-Id` of the request, for the audit row of a revoke.
    pub request_id: Option<String>,
    /// When it came.
    pub received_at: DateTime<Utc>,
}

/// A notification as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct NotificationRow {
    /// Our id; sorts by time.
    pub id: String,
    /// The application whose secret signed it.
    pub application: String,
    /// What kind of object it is about.
    pub topic: String,
    /// What happened to it.
    pub action: Option<String>,
    /// The object.
    pub resource_id: Option<String>,
    /// The account.
    pub user_id: Option<i64>,
    /// The seller, if a connection has the account.
    pub seller_id: Option<String>,
    /// What became of it, as [`NotificationOutcome`] writes it.
    pub outcome: String,
    /// The event that tells of it.
    pub event_id: Option<String>,
    /// As it came.
    pub body: String,
    /// When it came.
    pub received_at: DateTime<Utc>,
}

/// Which notifications to list.
#[derive(Debug, Clone, Default)]
pub struct NotificationFilter {
    /// Only of this application.
    pub application: Option<ApplicationId>,
    /// Only of this topic.
    pub topic: Option<String>,
    /// Only of this seller, account or object.
    pub about: Option<String>,
    /// Only those whose account no connection has.
    pub unknown_sellers: bool,
    /// Only before this id (the cursor of the page before).
    pub before: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl Store {
    /// Keeps notifications and does what follows from each, all in one transaction. What became of each; none if it came
    /// before.
    pub async fn record_notifications(
        &self,
        new: &[NewNotification],
    ) -> Result<Vec<Option<NotificationOutcome>>, StoreError> {
        let mut tx = self.database.begin().await?;
        let mut outcomes = Vec::with_capacity(new.len());
        let mut listening = HashMap::new();
        for one in new {
            outcomes.push(self.record_within(&mut tx, one, &mut listening).await?);
        }
        tx.commit().await?;
        if outcomes.contains(&Some(NotificationOutcome::Revoked)) {
            self.revocations.add();
        }
        Ok(outcomes)
    }

    async fn record_within(
        &self,
        tx: &mut Tx,
        new: &NewNotification,
        listening: &mut HashMap<ApplicationId, Listening>,
    ) -> Result<Option<NotificationOutcome>, StoreError> {
        let (notification, application) = (&new.notification, &new.application.id);
        let (outcome, revoked) = if notification.topic == LINK_TOPIC {
            self.unlinking(tx, new).await?
        } else {
            (NotificationOutcome::Told, None)
        };
        let told = outcome == NotificationOutcome::Told;
        let event_id = told.then(|| EventId::new(new.received_at, &self.random));
        let id = NotificationId::new(new.received_at, &self.random);
        let inserted: Option<Option<String>> = within!(tx, |c| sqlx::query_scalar(INSERT_NOTIFICATION)
            .bind(id.as_str())
            .bind(application.as_str())
            .bind(notification.dedupe_key.as_slice())
            .bind(&notification.topic)
            .bind(notification.action.as_deref())
            .bind(notification.resource_id.as_deref())
            .bind(notification.user_id.map(|user| user.0))
            .bind(outcome.as_str())
            .bind(event_id.as_ref().map(EventId::as_str))
            .bind(&new.raw)
            .bind(new.received_at)
            .fetch_optional(c)
            .await)?;
        let Some(seller) = inserted else {
            return Ok(None);
        };
        if let Some(event_id) = event_id {
            let told = serde_json::json!({
                "topic": notification.topic,
                "action": notification.action,
                "resource_id": notification.resource_id,
                "body": notification.body,
            });
            let seller = seller.map(parse_seller).transpose()?;
            let event = NewEvent::about_notification(event_id, application, seller, &told, new.received_at);
            if !listening.contains_key(application) {
                listening.insert(application.clone(), Listening::of(tx, application).await?);
            }
            insert_event_for(tx, &event, &listening[application]).await?;
        }
        if let Some(seller) = revoked {
            let actor = Actor {
                kind: ActorKind::Provider,
                id: Some(id.to_string()),
                address: None,
                request_id: new.request_id.clone(),
            };
            let reason = StatusReason::RevokedBySeller;
            revoke_within(
                tx,
                &self.random,
                (application, &seller),
                reason,
                new.application.public_key.as_deref(),
                actor,
                new.received_at,
            )
            .await?;
        }
        Ok(Some(outcome))
    }

    /// Whether a notification about linking ends a connection, and whose.
    async fn unlinking(
        &self,
        tx: &mut Tx,
        new: &NewNotification,
    ) -> Result<(NotificationOutcome, Option<SellerId>), StoreError> {
        if !new.notification.tells_of_unlinking() {
            return Ok((NotificationOutcome::Recorded, None));
        }
        let Some((user, at)) = new.notification.unlinked() else {
            return Ok((NotificationOutcome::Ignored, None));
        };
        let Some(row) = find_row_by_user_within(tx, &new.application.id, user).await? else {
            return Ok((NotificationOutcome::Ignored, None));
        };
        // Again, and locked: no reconnect gets in between.
        let seller = row.connection()?.seller_id;
        let Some(row) = find_row_within(tx, &new.application.id, &seller).await? else {
            return Ok((NotificationOutcome::Ignored, None));
        };
        let connection = row.connection()?;
        // Mercado Pago's times have milliseconds, ours have microseconds.
        let connected_at = connection.connected_at;
        let connected_at = connected_at
            .duration_trunc(TimeDelta::milliseconds(1))
            .unwrap_or(connected_at);
        Ok(if at < connected_at || connection.user_id != user {
            (NotificationOutcome::Ignored, None)
        } else {
            (NotificationOutcome::Revoked, Some(connection.seller_id))
        })
    }

    /// A page of notifications, newest first; its cursor goes into [`NotificationFilter::before`].
    pub async fn list_notifications(
        &self,
        filter: &NotificationFilter,
    ) -> Result<Page<NotificationRow>, StoreError> {
        let rows: Vec<NotificationRow> = read!(&self.database, |c| sqlx::query_as(LIST_NOTIFICATIONS)
            .bind(filter.application.as_ref().map(ApplicationId::as_str))
            .bind(filter.topic.as_deref())
            .bind(filter.about.as_deref())
            .bind(filter.unknown_sellers)
            .bind(filter.before.as_deref())
            .bind(i64::from(filter.limit) + 1)
            .fetch_all(c)
            .await)?;
        Ok(Page::of(rows, filter.limit, |row| row.id.clone()))
    }

    /// The notification with this id.
    pub async fn find_notification(
        &self,
        id: &NotificationId,
    ) -> Result<Option<NotificationRow>, StoreError> {
        Ok(read!(&self.database, |c| sqlx::query_as(FIND_NOTIFICATION)
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?)
    }
}

fn parse_seller(text: String) -> Result<SellerId, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt {
        table: "connections",
        column: "seller_id",
        row: text,
    })
}
