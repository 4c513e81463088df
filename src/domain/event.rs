//! What happened, as it is told: events for the platform (written in the transaction of what they tell) and audit rows for
//! the operator.

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use super::connection::{ConnectionView, text_enum};
use super::ids::{ApplicationId, EventId, SellerId};
use super::random::Random;

text_enum! {
    /// Types of events (DESIGN.md section 9).
    EventType {
        /// A seller connected for the first time, or after a revoke.
        Connected = "connection.connected",
        /// A connected seller consented again.
        Reconnected = "connection.reconnected",
        /// A connection that needed the seller works again by itself.
        Recovered = "connection.recovered",
        /// A new token set was stored.
        Refreshed = "connection.refreshed",
        /// The first failed refresh of a token set.
        RefreshFailing = "connection.refresh_failing",
        /// Refreshing fails and the access token ends soon.
        Expiring = "connection.expiring",
        /// Only the seller can mend the connection.
        ReconnectRequired = "connection.reconnect_required",
        /// The connection was ended.
        Revoked = "connection.revoked",
        /// Mercado Pago sent a notification.
        NotificationReceived = "notification.received",
        /// An event endpoint was disabled because it answered 410, or nothing good for days.
        EndpointDisabled = "event_endpoint.disabled",
        /// Somebody tries an event endpoint out; only that endpoint is told.
        EndpointTest = "event_endpoint.test",
    }
}

/// An event that is about to be written: a row of the outbox.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Our id, by which receivers deduplicate.
    pub id: EventId,
    /// The application it belongs to.
    pub application: ApplicationId,
    /// The seller it is about, where known.
    pub seller_id: Option<SellerId>,
    /// What happened.
    pub event_type: EventType,
    /// When.
    pub at: DateTime<Utc>,
    /// `data` of the event's body.
    pub data: serde_json::Value,
}

impl NewEvent {
    /// An event about a connection: its data has `application`, `seller_id` and `connection` as the API shows it.
    pub fn about_connection(
        event_type: EventType,
        application: &ApplicationId,
        seller_id: &SellerId,
        view: &ConnectionView,
        now: DateTime<Utc>,
        random: &Random,
    ) -> Self {
        Self {
            id: EventId::new(now, random),
            application: application.clone(),
            seller_id: Some(seller_id.clone()),
            event_type,
            at: now,
            data: serde_json::json!({ "application": application, "seller_id": seller_id, "connection": view }),
        }
    }
}

impl NewEvent {
    /// An event about a notification; the seller is unknown if no connection has the account.
    pub fn about_notification(
        id: EventId,
        application: &ApplicationId,
        seller_id: Option<SellerId>,
        notification: &serde_json::Value,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            application: application.clone(),
            event_type: EventType::NotificationReceived,
            at: now,
            data: serde_json::json!({
                "application": application, "seller_id": &seller_id, "notification": notification,
            }),
            seller_id,
        }
    }

    /// An event about an event endpoint.
    pub fn about_endpoint(
        event_type: EventType,
        application: &ApplicationId,
        endpoint: &serde_json::Value,
        now: DateTime<Utc>,
        random: &Random,
    ) -> Self {
        Self {
            id: EventId::new(now, random),
            application: application.clone(),
            seller_id: None,
            event_type,
            at: now,
            data: serde_json::json!({
                "application": application, "seller_id": null, "event_endpoint": endpoint,
            }),
        }
    }
}

text_enum! {
    /// What became of a notification.
    NotificationOutcome {
        /// The platform is told of it.
        Told = "told",
        /// It is noted, and nothing follows from it.
        Recorded = "recorded",
        /// It ended a connection.
        Revoked = "revoked",
        /// It tells of an unlinking that is no longer true, or does not agree with itself.
        Ignored = "ignored",
    }
}

text_enum! {
    /// Why an event endpoint is told nothing.
    DisabledReason {
        /// Somebody disabled it.
        ByHand = "by_hand",
        /// It answered 410.
        Gone = "gone",
        /// It confirmed nothing for days.
        Failing = "failing",
    }
}

text_enum! {
    /// Where a delivery stands.
    DeliveryStatus {
        /// It will be tried (again).
        Pending = "pending",
        /// The endpoint confirmed it.
        Delivered = "delivered",
        /// No attempt is left; it goes again only by a replay.
        Dead = "dead",
    }
}

text_enum! {
    /// Kinds of those who act.
    ActorKind {
        /// A person in the console; the id is the admin's.
        Admin = "admin",
        /// The platform; the id is the API key's.
        ApiKey = "api_key",
        /// The seller in a browser; the id is the connect link's.
        Seller = "seller",
        /// An operator on the command line.
        Operator = "operator",
        /// The service itself.
        System = "system",
        /// Mercado Pago, by a notification.
        Provider = "provider",
    }
}

/// Who did something, from where, in which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The kind.
    pub kind: ActorKind,
    /// Which one of the kind, where there are several.
    pub id: Option<String>,
    /// Client address, where there is one.
    pub address: Option<IpAddr>,
    /// `X-Request-Id` of the request, where there is one.
    pub request_id: Option<String>,
}

impl Actor {
    /// The service itself.
    pub fn system() -> Self {
        Self {
            kind: ActorKind::System,
            id: None,
            address: None,
            request_id: None,
        }
    }

    /// Somebody on the command line.
    pub fn operator() -> Self {
        Self {
            kind: ActorKind::Operator,
            id: None,
            address: None,
            request_id: None,
        }
    }
}

text_enum! {
    /// What is audited.
    AuditAction {
        /// A connect link was made.
        ConnectLinkCreated = "connect_link.created",
        /// A seller connected.
        ConnectionConnected = "connection.connected",
        /// A seller consented again.
        ConnectionReconnected = "connection.reconnected",
        /// A token set was imported.
        ConnectionImported = "connection.imported",
        /// Connections were written out with their tokens in plain.
        ConnectionsRevealed = "connections.revealed",
        /// A token set was renewed.
        ConnectionRefreshed = "connection.refreshed",
        /// A refresh was asked for by hand.
        ConnectionRefreshRequested = "connection.refresh_requested",
        /// A connection was found to need the seller.
        ConnectionReconnectRequired = "connection.reconnect_required",
        /// A connection was ended.
        ConnectionRevoked = "connection.revoked",
        /// Metadata was changed.
        ConnectionMetadataChanged = "connection.metadata_changed",
        /// A rescue file no longer mattered and was removed.
        RescueDiscarded = "rescue.discarded",
        /// Refreshing of an application was stopped.
        ApplicationSuspended = "application.suspended",
        /// Refreshing of an application goes on.
        ApplicationResumed = "application.resumed",
        /// An API key was made.
        ApiKeyCreated = "api_key.created",
        /// An API key was revoked.
        ApiKeyRevoked = "api_key.revoked",
        /// An admin was made.
        AdminCreated = "admin.created",
        /// An admin was removed.
        AdminRemoved = "admin.removed",
        /// An admin's password was set anew.
        AdminPasswordReset = "admin.password_reset",
        /// An admin signed in.
        AdminSignedIn = "admin.signed_in",
        /// Somebody failed to sign in.
        AdminSignInFailed = "admin.sign_in_failed",
        /// An admin signed out.
        AdminSignedOut = "admin.signed_out",
        /// An event endpoint was made.
        EventEndpointCreated = "event_endpoint.created",
        /// An event endpoint was changed, enabled or disabled.
        EventEndpointChanged = "event_endpoint.changed",
        /// An event endpoint got a new secret.
        EventEndpointSecretRotated = "event_endpoint.secret_rotated",
        /// An event endpoint was removed.
        EventEndpointDeleted = "event_endpoint.deleted",
        /// An event endpoint was disabled by the service.
        EventEndpointDisabled = "event_endpoint.disabled",
        /// Events were sent to an endpoint again.
        DeliveriesReplayed = "deliveries.replayed",
    }
}

/// An audit row that is about to be written, in the transaction of what it tells.
#[derive(Debug, Clone)]
pub struct NewAudit {
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: AuditAction,
    /// In which application, where it is of one.
    pub application: Option<ApplicationId>,
    /// On what: a seller id, a key id, an e-mail address.
    pub target: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// More, never a secret.
    pub detail: serde_json::Value,
}
