//! What is done with event endpoints and deliveries by hand: the same for the API, the console and the commands.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::signature::generate_secret;
use super::{Deliverer, EndpointUrlError};
use crate::domain::clock::Clock;
use crate::domain::event::{Actor, AuditAction, EventType, NewAudit, NewEvent};
use crate::domain::ids::{ApplicationId, DeliveryId, EventEndpointId};
use crate::domain::random::Random;
use crate::domain::secret::EndpointSecret;
use crate::storage::{DeliveryRow, EndpointChange, EventEndpoint, MOST_ENDPOINTS, Store, StoreError};

/// How long the secret before a rotation signs too: the time to put the new one in place at the receiver.
const OVERLAP: TimeDelta = TimeDelta::hours(24);
/// Events that one replay looks at; the answer says where to go on.
const MOST_REPLAYED: u32 = 10_000;
/// Events that are put in line in one transaction.
const REPLAYED_AT_ONCE: u32 = 500;

/// Why something cannot be done with an endpoint or a delivery.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address is refused.
    #[error("the address {0}")]
    Url(#[from] EndpointUrlError),
    /// The application has as many as it may have.
    #[error("an application has at most {MOST_ENDPOINTS} event endpoints; remove one first")]
    TooMany,
    /// There is none with this id in the application.
    #[error("there is none with this id in this application")]
    NotFound,
    /// It is disabled, so nothing is sent to it.
    #[error("the event endpoint is disabled; enable it first")]
    Disabled,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an endpoint is made from.
#[derive(Debug)]
pub struct NewEndpoint {
    /// The application whose events it wants.
    pub application: ApplicationId,
    /// Where events are sent.
    pub url: String,
    /// Which types it wants; none for all.
    pub event_types: Option<Vec<EventType>>,
    /// What its owner calls it.
    pub description: Option<String>,
}

/// How far a replay came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Deliveries that were put in line.
    pub deliveries: u64,
    /// The event to go on after; none if the range is done.
    pub next: Option<String>,
}

/// Event endpoints and their deliveries. Clones share everything.
#[derive(Debug, Clone)]
pub struct Endpoints {
    store: Store,
    deliverer: Deliverer,
    clock: Arc<dyn Clock>,
    random: Random,
}

impl Endpoints {
    /// Puts the parts together.
    pub fn new(store: Store, deliverer: Deliverer, clock: Arc<dyn Clock>, random: Random) -> Self {
        Self {
            store,
            deliverer,
            clock,
            random,
        }
    }

    /// Who delivers.
    pub fn deliverer(&self) -> &Deliverer {
        &self.deliverer
    }

    /// Makes an endpoint, and gives it with its secret, which is shown at this time only.
    pub async fn create(
        &self,
        new: NewEndpoint,
        actor: Actor,
    ) -> Result<(EventEndpoint, EndpointSecret), EndpointError> {
        let url = self.deliverer.policy().check(&new.url)?;
        let now = self.clock.now();
        let endpoint = EventEndpoint {
            id: EventEndpointId::new(now, &self.random),
            application: new.application,
            url: url.into(),
            event_types: new.event_types,
            description: new.description,
            previous_secret_until: None,
            disabled: None,
            failing_since: None,
            created_at: now,
            updated_at: now,
        };
        let secret = generate_secret(&self.random);
        let created = self.store.create_endpoint(&endpoint, &secret, actor).await?;
        created.ok_or(EndpointError::TooMany)?;
        Ok((endpoint, secret))
    }

    /// Changes an endpoint.
    pub async fn change(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
        mut change: EndpointChange,
        actor: Actor,
    ) -> Result<EventEndpoint, EndpointError> {
        if let Some(url) = change.url.take() {
            change.url = Some(self.deliverer.policy().check(&url)?.into());
        }
        let now = self.clock.now();
        let changed = self
            .store
            .change_endpoint(application, id, change, actor, now)
            .await?;
        self.deliverer.wake();
        changed.ok_or(EndpointError::NotFound)
    }

    /// Gives an endpoint a new secret. Deliveries are signed with both for a day.
    pub async fn rotate_secret(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
        actor: Actor,
    ) -> Result<(EventEndpoint, EndpointSecret), EndpointError> {
        let now = self.clock.now();
        let secret = generate_secret(&self.random);
        let rotated = self
            .store
            .rotate_endpoint_secret(application, id, &secret, now + OVERLAP, actor, now)
            .await?;
        Ok((rotated.ok_or(EndpointError::NotFound)?, secret))
    }

    /// Removes an endpoint with its deliveries.
    pub async fn delete(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
        actor: Actor,
    ) -> Result<EventEndpoint, EndpointError> {
        let deleted = self
            .store
            .delete_endpoint(application, id, actor, self.clock.now())
            .await?;
        deleted.ok_or(EndpointError::NotFound)
    }

    /// Sends a test event to an endpoint at once, and gives how that went.
    pub async fn test(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
    ) -> Result<DeliveryRow, EndpointError> {
        let endpoint = self.enabled(application, id).await?;
        let told = serde_json::json!({ "id": id, "url": endpoint.url.split('?').next() });
        let now = self.clock.now();
        let event = NewEvent::about_endpoint(EventType::EndpointTest, application, &told, now, &self.random);
        let delivery = self.store.insert_endpoint_test(&event, id).await?;
        self.deliverer.deliver_now(&Arc::new(endpoint), &delivery).await?;
        let delivery = self.store.find_delivery(Some(application), &delivery).await?;
        delivery.ok_or(EndpointError::NotFound)
    }

    /// Puts a delivery in line again, from the beginning of the schedule, whatever became of it.
    pub async fn retry(
        &self,
        application: &ApplicationId,
        id: &DeliveryId,
        actor: Actor,
    ) -> Result<DeliveryRow, EndpointError> {
        let delivery = self.store.find_delivery(Some(application), id).await?;
        let delivery = delivery.ok_or(EndpointError::NotFound)?;
        let endpoint = delivery
            .endpoint_id
            .parse()
            .map_err(|_| EndpointError::NotFound)?;
        self.enabled(application, &endpoint).await?;
        let now = self.clock.now();
        self.store.retry_delivery(id, now).await?;
        self.audit_replay(application, id.as_str(), serde_json::json!({}), actor, now)
            .await?;
        self.deliverer.wake();
        let delivery = self.store.find_delivery(Some(application), id).await?;
        delivery.ok_or(EndpointError::NotFound)
    }

    /// Sends the events of `[since, until)` to an endpoint again, those that it was never told of too.
    pub async fn replay(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
        (since, until): (DateTime<Utc>, DateTime<Utc>),
        after: Option<String>,
        actor: Actor,
    ) -> Result<Replayed, EndpointError> {
        let endpoint = self.enabled(application, id).await?;
        let now = self.clock.now();
        let mut replayed = Replayed {
            deliveries: 0,
            next: after,
        };
        for _ in 0..MOST_REPLAYED / REPLAYED_AT_ONCE {
            let after = replayed.next.take();
            let (put, next) = self
                .store
                .replay_events(&endpoint, (since, until), after.as_deref(), REPLAYED_AT_ONCE, now)
                .await?;
            replayed.deliveries += put;
            replayed.next = next;
            self.deliverer.wake();
            if replayed.next.is_none() {
                break;
            }
        }
        let detail = serde_json::json!({ "since": since, "until": until, "deliveries": replayed.deliveries });
        self.audit_replay(application, id.as_str(), detail, actor, now)
            .await?;
        Ok(replayed)
    }

    async fn enabled(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
    ) -> Result<EventEndpoint, EndpointError> {
        let endpoint = self.store.find_endpoint(application, id).await?;
        let endpoint = endpoint.ok_or(EndpointError::NotFound)?;
        if endpoint.disabled.is_some() {
            return Err(EndpointError::Disabled);
        }
        Ok(endpoint)
    }

    async fn audit_replay(
        &self,
        application: &ApplicationId,
        target: &str,
        detail: serde_json::Value,
        actor: Actor,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let audit = NewAudit {
            actor,
            action: AuditAction::DeliveriesReplayed,
            application: Some(application.clone()),
            target: Some(target.to_owned()),
            at,
            detail,
        };
        self.store.record_audit(&audit).await
    }
}
