//! Event endpoints: where the platform wants to be told of events, and what deliveries to it are signed with.
//!
//! Guarantees that secrets lie sealed under a data key of the endpoint's own, like a connection's tokens, and that every
//! change is audited in its transaction.

use chrono::{DateTime, Utc};

use super::audit::insert_audit;
use super::dispatch::{Tx, read, statements, within};
use super::events::{insert_delivery, insert_event, insert_event_row};
use super::{Store, StoreError};
use crate::domain::event::{Actor, AuditAction, DisabledReason, EventType, NewAudit, NewEvent};
use crate::domain::ids::{ApplicationId, DeliveryId, EventEndpointId};
use crate::domain::random::Random;
use crate::domain::secret::EndpointSecret;
use crate::vault::{DataKey, Place};

macro_rules! endpoint_columns {
    () => {
        "id, application, url, event_types, description, data_key, secret, previous_secret, previous_secret_until, disabled_at, \
         disabled_reason, failing_since, created_at, updated_at"
    };
}

statements! {
    COUNT_ENDPOINTS = "SELECT COUNT(*) FROM event_endpoints WHERE application = $1";
    INSERT_ENDPOINT = "INSERT INTO event_endpoints (id, application, url, event_types, description, data_key, data_key_id, secret, created_at, \
        updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)";
    UPDATE_ENDPOINT = "UPDATE event_endpoints SET url = $2, event_types = $3, description = $4, disabled_at = $5, disabled_reason = $6, \
        failing_since = $7, updated_at = $8 WHERE id = $1";
    UPDATE_SECRET = "UPDATE event_endpoints SET secret = $2, previous_secret = $3, previous_secret_until = $4, updated_at = $5 WHERE id = $1";
    DELETE_ENDPOINT = "DELETE FROM event_endpoints WHERE id = $1";
    FIND_ENDPOINT = concat!("SELECT ", endpoint_columns!(), " FROM event_endpoints WHERE application = $1 AND id = $2");
    LIST_ENDPOINTS = concat!("SELECT ", endpoint_columns!(), " FROM event_endpoints \
        WHERE (CAST($1 AS TEXT) IS NULL OR application = $1) ORDER BY application, id");
    LIST_ENABLED = concat!("SELECT ", endpoint_columns!(), " FROM event_endpoints WHERE disabled_at IS NULL ORDER BY id");
    BEGIN_FAILING = "UPDATE event_endpoints SET failing_since = $2 WHERE id = $1 AND failing_since IS NULL";
    END_FAILING = "UPDATE event_endpoints SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL";
    DISABLE_ENDPOINT = "UPDATE event_endpoints SET disabled_at = $2, disabled_reason = $3, updated_at = $2 WHERE id = $1 AND disabled_at IS NULL";
}

/// Most endpoints of one application.
pub const MOST_ENDPOINTS: i64 = 20;

#[derive(sqlx::FromRow)]
pub(super) struct EndpointRow {
    id: String,
    application: String,
    url: String,
    event_types: Option<String>,
    description: Option<String>,
    data_key: Vec<u8>,
    secret: Vec<u8>,
    previous_secret: Option<Vec<u8>>,
    previous_secret_until: Option<DateTime<Utc>>,
    disabled_at: Option<DateTime<Utc>>,
    disabled_reason: Option<String>,
    failing_since: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// An event endpoint, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventEndpoint {
    /// Its id.
    pub id: EventEndpointId,
    /// The application whose events it wants.
    pub application: ApplicationId,
    /// Where events are sent.
    pub url: String,
    /// Which types it wants; none for all.
    pub event_types: Option<Vec<EventType>>,
    /// What its owner calls it.
    pub description: Option<String>,
    /// Until when deliveries are signed with the secret before the last rotation too.
    pub previous_secret_until: Option<DateTime<Utc>>,
    /// Since when it is told nothing, and why.
    pub disabled: Option<(DateTime<Utc>, DisabledReason)>,
    /// Since when it confirms nothing.
    pub failing_since: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What deliveries are signed with at this moment: the newest first.
pub type EndpointSecrets = Vec<EndpointSecret>;

/// What becomes of an endpoint; members that are none stay.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    /// Another address.
    pub url: Option<String>,
    /// Other types; `Some(None)` for all.
    pub event_types: Option<Option<Vec<EventType>>>,
    /// Another description.
    pub description: Option<Option<String>>,
    /// Whether it is told anything.
    pub enabled: Option<bool>,
}

impl EndpointRow {
    pub(super) fn endpoint(&self) -> Result<EventEndpoint, StoreError> {
        let types = self.event_types.as_deref().map(|types| {
            types
                .split(' ')
                .filter(|one| !one.is_empty())
                .map(str::parse)
                .collect::<Result<Vec<EventType>, _>>()
        });
        let reason = self.disabled_reason.as_deref().map(str::parse).transpose();
        let reason = reason.map_err(|_| self.corrupt("disabled_reason"))?;
        Ok(EventEndpoint {
            id: self.id.parse().map_err(|_| self.corrupt("id"))?,
            application: self.application()?,
            url: self.url.clone(),
            event_types: types.transpose().map_err(|_| self.corrupt("event_types"))?,
            description: self.description.clone(),
            previous_secret_until: self.previous_secret_until,
            disabled: self
                .disabled_at
                .map(|at| (at, reason.unwrap_or(DisabledReason::ByHand))),
            failing_since: self.failing_since,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }

    fn application(&self) -> Result<ApplicationId, StoreError> {
        self.application.parse().map_err(|_| self.corrupt("application"))
    }

    fn corrupt(&self, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: "event_endpoints",
            column,
            row: self.id.clone(),
        }
    }
}

fn place<'a>(row: &'a str, column: &'a str, application: &'a ApplicationId) -> Place<'a> {
    Place {
        table: "event_endpoints",
        row,
        column,
        application,
    }
}

fn joined(types: Option<&[EventType]>) -> Option<String> {
    types.map(|types| types.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(" "))
}

fn audited(endpoint: &EventEndpoint, action: AuditAction, actor: Actor, now: DateTime<Utc>) -> NewAudit {
    NewAudit {
        actor,
        action,
        application: Some(endpoint.application.clone()),
        target: Some(endpoint.id.to_string()),
        at: now,
        // The address may hold a secret of the receiver's in its query.
        detail: serde_json::json!({
            "url": endpoint.url.split('?').next(),
            "event_types": endpoint.event_types,
            "enabled": endpoint.disabled.is_none(),
        }),
    }
}

impl Store {
    /// Makes an endpoint. None if the application has as many as it may have.
    pub async fn create_endpoint(
        &self,
        endpoint: &EventEndpoint,
        secret: &EndpointSecret,
        actor: Actor,
    ) -> Result<Option<()>, StoreError> {
        let (id, application, now) = (endpoint.id.as_str(), &endpoint.application, endpoint.created_at);
        let mut tx = self.database.begin().await?;
        let count: i64 = within!(&mut tx, |c| sqlx::query_scalar(COUNT_ENDPOINTS)
            .bind(application.as_str())
            .fetch_one(c)
            .await)?;
        if count >= MOST_ENDPOINTS {
            return Ok(None);
        }
        let key = DataKey::generate();
        let wrapped = self.vault.wrap(&key, place(id, "data_key", application));
        let sealed = key.seal(secret.expose().as_bytes(), place(id, "secret", application));
        within!(&mut tx, |c| sqlx::query(INSERT_ENDPOINT)
            .bind(id)
            .bind(application.as_str())
            .bind(&endpoint.url)
            .bind(joined(endpoint.event_types.as_deref()))
            .bind(endpoint.description.as_deref())
            .bind(wrapped)
            .bind(self.vault.keyring().active_id().as_str())
            .bind(sealed)
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        let audit = audited(endpoint, AuditAction::EventEndpointCreated, actor, now);
        insert_audit(&mut tx, &audit, &self.random).await?;
        tx.commit().await?;
        Ok(Some(()))
    }

    /// The endpoint of an application with this id.
    pub async fn find_endpoint(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
    ) -> Result<Option<EventEndpoint>, StoreError> {
        let row: Option<EndpointRow> = read!(&self.database, |c| sqlx::query_as(FIND_ENDPOINT)
            .bind(application.as_str())
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?;
        row.as_ref().map(EndpointRow::endpoint).transpose()
    }

    /// The endpoints of an application, or of all.
    pub async fn list_endpoints(
        &self,
        application: Option<&ApplicationId>,
    ) -> Result<Vec<EventEndpoint>, StoreError> {
        let rows: Vec<EndpointRow> = read!(&self.database, |c| sqlx::query_as(LIST_ENDPOINTS)
            .bind(application.map(ApplicationId::as_str))
            .fetch_all(c)
            .await)?;
        rows.iter().map(EndpointRow::endpoint).collect()
    }

    /// The endpoints of all applications that are told of events.
    pub async fn list_enabled_endpoints(&self) -> Result<Vec<EventEndpoint>, StoreError> {
        let rows: Vec<EndpointRow> = read!(&self.database, |c| sqlx::query_as(LIST_ENABLED)
            .fetch_all(c)
            .await)?;
        rows.iter().map(EndpointRow::endpoint).collect()
    }

    /// What deliveries to an endpoint are signed with at `now`. None if there is no such endpoint.
    pub async fn open_endpoint_secrets(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
        now: DateTime<Utc>,
    ) -> Result<Option<EndpointSecrets>, StoreError> {
        let row: Option<EndpointRow> = read!(&self.database, |c| sqlx::query_as(FIND_ENDPOINT)
            .bind(application.as_str())
            .bind(id.as_str())
            .fetch_optional(c)
            .await)?;
        row.map(|row| self.open_secrets(&row, now)).transpose()
    }

    fn open_secrets(&self, row: &EndpointRow, now: DateTime<Utc>) -> Result<EndpointSecrets, StoreError> {
        let application = row.application()?;
        let sealed = |column, source| StoreError::Sealed {
            table: "event_endpoints",
            column,
            row: row.id.clone(),
            source,
        };
        let key = self
            .vault
            .unwrap(&row.data_key, place(&row.id, "data_key", &application))
            .map_err(|source| sealed("data_key", source))?;
        let previous = row
            .previous_secret
            .as_ref()
            .filter(|_| row.previous_secret_until.is_some_and(|until| now < until));
        let mut secrets = Vec::new();
        for (column, ciphertext) in [("secret", Some(&row.secret)), ("previous_secret", previous)] {
            let Some(ciphertext) = ciphertext else { continue };
            let opened = key
                .open(ciphertext, place(&row.id, column, &application))
                .map_err(|source| sealed(column, source))?;
            let text = std::str::from_utf8(&opened).map_err(|_| row.corrupt(column))?;
            secrets.push(EndpointSecret::new(text));
        }
        Ok(secrets)
    }

    /// Changes an endpoint. Enabling it forgets that it failed, and what waits for it goes on.
    pub async fn change_endpoint(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
        change: EndpointChange,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<Option<EventEndpoint>, StoreError> {
        let mut tx = self.database.begin().await?;
        let Some(row) = find_within(&mut tx, application, id).await? else {
            return Ok(None);
        };
        let mut endpoint = row.endpoint()?;
        endpoint.url = change.url.unwrap_or(endpoint.url);
        endpoint.event_types = change.event_types.unwrap_or(endpoint.event_types);
        endpoint.description = change.description.unwrap_or(endpoint.description);
        match change.enabled {
            Some(true) => (endpoint.disabled, endpoint.failing_since) = (None, None),
            Some(false) if endpoint.disabled.is_none() => {
                endpoint.disabled = Some((now, DisabledReason::ByHand));
            }
            Some(false) | None => {}
        }
        endpoint.updated_at = now;
        within!(&mut tx, |c| sqlx::query(UPDATE_ENDPOINT)
            .bind(id.as_str())
            .bind(&endpoint.url)
            .bind(joined(endpoint.event_types.as_deref()))
            .bind(endpoint.description.as_deref())
            .bind(endpoint.disabled.map(|(at, _)| at))
            .bind(endpoint.disabled.map(|(_, reason)| reason.as_str()))
            .bind(endpoint.failing_since)
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        let audit = audited(&endpoint, AuditAction::EventEndpointChanged, actor, now);
        insert_audit(&mut tx, &audit, &self.random).await?;
        tx.commit().await?;
        Ok(Some(endpoint))
    }

    /// Gives an endpoint a new secret; deliveries are signed with the one before too, until `until`.
    pub async fn rotate_endpoint_secret(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
        secret: &EndpointSecret,
        until: DateTime<Utc>,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<Option<EventEndpoint>, StoreError> {
        let mut tx = self.database.begin().await?;
        let Some(row) = find_within(&mut tx, application, id).await? else {
            return Ok(None);
        };
        let mut endpoint = row.endpoint()?;
        let sealed = |source| StoreError::Sealed {
            table: "event_endpoints",
            column: "secret",
            row: row.id.clone(),
            source,
        };
        let key = self
            .vault
            .unwrap(&row.data_key, place(id.as_str(), "data_key", application))
            .map_err(sealed)?;
        let before = key
            .open(&row.secret, place(id.as_str(), "secret", application))
            .map_err(sealed)?;
        let seal = |secret: &[u8], column| key.seal(secret, place(id.as_str(), column, application));
        within!(&mut tx, |c| sqlx::query(UPDATE_SECRET)
            .bind(id.as_str())
            .bind(seal(secret.expose().as_bytes(), "secret"))
            .bind(seal(&before, "previous_secret"))
            .bind(until)
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        endpoint.previous_secret_until = Some(until);
        endpoint.updated_at = now;
        let audit = audited(&endpoint, AuditAction::EventEndpointSecretRotated, actor, now);
        insert_audit(&mut tx, &audit, &self.random).await?;
        tx.commit().await?;
        Ok(Some(endpoint))
    }

    /// Removes an endpoint, with what waits for it and what was sent to it. Gives it as it stood.
    pub async fn delete_endpoint(
        &self,
        application: &ApplicationId,
        id: &EventEndpointId,
        actor: Actor,
        now: DateTime<Utc>,
    ) -> Result<Option<EventEndpoint>, StoreError> {
        let mut tx = self.database.begin().await?;
        let Some(row) = find_within(&mut tx, application, id).await? else {
            return Ok(None);
        };
        let endpoint = row.endpoint()?;
        within!(&mut tx, |c| sqlx::query(DELETE_ENDPOINT)
            .bind(id.as_str())
            .execute(c)
            .await
            .map(drop))?;
        let audit = audited(&endpoint, AuditAction::EventEndpointDeleted, actor, now);
        insert_audit(&mut tx, &audit, &self.random).await?;
        tx.commit().await?;
        Ok(Some(endpoint))
    }

    /// Writes an event that only this endpoint is told of.
    pub async fn insert_endpoint_test(
        &self,
        event: &NewEvent,
        endpoint: &EventEndpointId,
    ) -> Result<DeliveryId, StoreError> {
        let mut tx = self.database.begin().await?;
        insert_event_row(&mut tx, event).await?;
        insert_delivery(&mut tx, event, endpoint).await?;
        tx.commit().await?;
        Ok(DeliveryId::of(&event.id, endpoint))
    }
}

async fn find_within(
    tx: &mut Tx,
    application: &ApplicationId,
    id: &EventEndpointId,
) -> Result<Option<EndpointRow>, StoreError> {
    Ok(within!(tx, |c| sqlx::query_as(FIND_ENDPOINT)
        .bind(application.as_str())
        .bind(id.as_str())
        .fetch_optional(c)
        .await)?)
}

/// Notes whether an endpoint confirms what it is sent.
pub(super) async fn note_failing(
    tx: &mut Tx,
    id: &EventEndpointId,
    failing_since: Option<DateTime<Utc>>,
) -> Result<(), StoreError> {
    match failing_since {
        Some(since) => within!(tx, |c| sqlx::query(BEGIN_FAILING)
            .bind(id.as_str())
            .bind(since)
            .execute(c)
            .await
            .map(drop))?,
        None => within!(tx, |c| sqlx::query(END_FAILING)
            .bind(id.as_str())
            .execute(c)
            .await
            .map(drop))?,
    }
    Ok(())
}

/// Disables an endpoint, tells the others and audits it. Whether it was enabled until now.
pub(super) async fn disable_within(
    tx: &mut Tx,
    random: &Random,
    endpoint: &EventEndpoint,
    reason: DisabledReason,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let changed = within!(tx, |c| sqlx::query(DISABLE_ENDPOINT)
        .bind(endpoint.id.as_str())
        .bind(now)
        .bind(reason.as_str())
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 0 {
        return Ok(false);
    }
    let told = serde_json::json!({
        "id": endpoint.id,
        "url": endpoint.url.split('?').next(),
        "disabled_at": now,
        "disabled_reason": reason,
        "failing_since": endpoint.failing_since,
    });
    let kind = EventType::EndpointDisabled;
    let event = NewEvent::about_endpoint(kind, &endpoint.application, &told, now, random);
    insert_event(tx, &event).await?;
    let disabled = EventEndpoint {
        disabled: Some((now, reason)),
        ..endpoint.clone()
    };
    let audit = audited(
        &disabled,
        AuditAction::EventEndpointDisabled,
        Actor::system(),
        now,
    );
    insert_audit(tx, &audit, random).await?;
    Ok(true)
}
