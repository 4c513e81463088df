//! A connection: one seller's lasting link to one application, as a state machine.
//!
//! Guarantees that a status changes only through the transitions here, and that `generation` is raised by connect,
//! reconnect, refresh and revoke, never by a change of status, and is never reset (DESIGN.md section 7). Holds no secret:
//! tokens travel in a [`TokenSet`] and are kept by the store.

use std::str::FromStr;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::ids::{ApplicationId, ConnectionId, SellerId, UserId};
use super::schedule::RefreshSchedule;
use super::secret::{AccessToken, RefreshToken};

/// Defines an enum whose variants have one text, used in the store, the API and the logs alike.
macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The text in the store, the API and the logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::domain::connection::UnknownText;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(crate::domain::connection::UnknownText(stringify!($name))),
                }
            }
        }
    };
}
pub(crate) use text_enum;

/// A text that is none of an enum's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not one of the values of {0}")]
pub struct UnknownText(pub &'static str);

text_enum! {
    /// Where a connection stands.
    Status {
        /// Calls are made with its token.
        Active = "active",
        /// The grant is dead: only the seller can mend it. An access token that is still alive is used on.
        ReconnectRequired = "reconnect_required",
        /// Somebody ended it; tokens and data key are destroyed.
        Revoked = "revoked",
    }
}

text_enum! {
    /// Why a connection stands where it stands.
    StatusReason {
        /// Mercado Pago refused the refresh token.
        GrantRejected = "grant_rejected",
        /// An admin revoked it.
        RevokedByAdmin = "revoked_by_admin",
        /// The platform revoked it.
        RevokedByApi = "revoked_by_api",
        /// The seller unlinked the application at Mercado Pago.
        RevokedBySeller = "revoked_by_seller",
        /// Mercado Pago gave no refresh token (the application lacks `offline_access`): it ends with its access token.
        NoRefreshToken = "no_refresh_token",
        /// The configured `client_id` is not the one that the tokens were issued for.
        ClientIdChanged = "client_id_changed",
    }
}

/// What the token endpoint gave: the secrets and what belongs to them.
#[derive(Debug, Clone)]
pub struct TokenSet {
    /// What calls are authorised with.
    pub access_token: AccessToken,
    /// What the next token set is obtained with; absent without `offline_access`.
    pub refresh_token: Option<RefreshToken>,
    /// When the answer came.
    pub obtained_at: DateTime<Utc>,
    /// When the access token ends.
    pub expires_at: DateTime<Utc>,
    /// Scopes as Mercado Pago names them, in its order.
    pub scopes: Vec<String>,
    /// The seller's public key, for front ends.
    pub public_key: Option<String>,
    /// Whether the tokens move real money.
    pub live_mode: Option<bool>,
    /// The account that consented.
    pub user_id: UserId,
}

/// One seller's connection, without its secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Our id of the row.
    pub id: ConnectionId,
    /// The application it belongs to.
    pub application: ApplicationId,
    /// The platform's id of the seller.
    pub seller_id: SellerId,
    /// Mercado Pago's id of the account.
    pub user_id: UserId,
    /// The `client_id` that the tokens were issued for.
    pub client_id: String,
    /// Where it stands.
    pub status: Status,
    /// Why it stands there.
    pub status_reason: Option<StatusReason>,
    /// Raised with each change of the token set.
    pub generation: i64,
    /// Scopes as Mercado Pago names them.
    pub scopes: Vec<String>,
    /// The seller's public key.
    pub public_key: Option<String>,
    /// Whether the tokens move real money.
    pub live_mode: Option<bool>,
    /// Whether the store holds an access token.
    pub has_access_token: bool,
    /// Whether the store holds a refresh token.
    pub has_refresh_token: bool,
    /// When the token set came.
    pub obtained_at: DateTime<Utc>,
    /// When the access token ends.
    pub access_token_expires_at: DateTime<Utc>,
    /// When the next refresh attempt is due; none when nothing will be tried by itself.
    pub refresh_due_at: Option<DateTime<Utc>>,
    /// When the last refresh succeeded.
    pub last_refreshed_at: Option<DateTime<Utc>>,
    /// Failed attempts since the last token set.
    pub refresh_failures: i64,
    /// When Mercado Pago first refused this generation's refresh token.
    pub first_rejected_at: Option<DateTime<Utc>>,
    /// Whether an attempt with this generation's refresh token ended without a known outcome.
    pub outcome_unknown: bool,
    /// The smallest of the warning marks before expiry that was already told, in the order of [`EXPIRY_MARKS`].
    pub expiry_marks_told: i64,
    /// When the seller last consented (or was imported).
    pub connected_at: DateTime<Utc>,
    /// When the row last changed.
    pub updated_at: DateTime<Utc>,
    /// The platform's own data.
    pub metadata: serde_json::Value,
}

/// Days left of a 180-day life at which `connection.expiring` is told while refreshing fails; for shorter lives the marks
/// shrink in proportion (DESIGN.md section 7).
pub const EXPIRY_MARKS: [i32; 5] = [30, 14, 7, 3, 1];

const FULL_LIFE_DAYS: i32 = 180;

impl Connection {
    /// A connection that just came to be, from a consent or an import.
    pub fn connect(
        id: ConnectionId,
        application: ApplicationId,
        seller_id: SellerId,
        client_id: String,
        tokens: &TokenSet,
        metadata: serde_json::Value,
        schedule: &RefreshSchedule,
    ) -> Self {
        let fresh = Self {
            id,
            application,
            seller_id,
            user_id: tokens.user_id,
            client_id,
            status: Status::Active,
            status_reason: None,
            generation: 0,
            scopes: Vec::new(),
            public_key: None,
            live_mode: None,
            has_access_token: false,
            has_refresh_token: false,
            obtained_at: tokens.obtained_at,
            access_token_expires_at: tokens.expires_at,
            refresh_due_at: None,
            last_refreshed_at: None,
            refresh_failures: 0,
            first_rejected_at: None,
            outcome_unknown: false,
            expiry_marks_told: 0,
            connected_at: tokens.obtained_at,
            updated_at: tokens.obtained_at,
            metadata,
        };
        fresh.with_tokens(tokens, schedule)
    }

    /// The same seller consented again (perhaps with another account, which the caller has allowed).
    #[must_use]
    pub fn reconnect(self, client_id: String, tokens: &TokenSet, schedule: &RefreshSchedule) -> Self {
        let next = Self {
            client_id,
            user_id: tokens.user_id,
            connected_at: tokens.obtained_at,
            last_refreshed_at: None,
            has_refresh_token: false,
            ..self
        };
        next.with_tokens(tokens, schedule)
    }

    /// A refresh succeeded. An answer without a refresh token keeps the old one.
    #[must_use]
    pub fn refreshed(self, tokens: &TokenSet, schedule: &RefreshSchedule) -> Self {
        let next = Self {
            last_refreshed_at: Some(tokens.obtained_at),
            ..self
        };
        next.with_tokens(tokens, schedule)
    }

    fn with_tokens(self, tokens: &TokenSet, schedule: &RefreshSchedule) -> Self {
        let has_refresh_token = tokens.refresh_token.is_some() || self.has_refresh_token;
        let generation = self.generation + 1;
        let due = schedule.due_at(&self.id, generation, tokens.obtained_at, tokens.expires_at);
        Self {
            status: Status::Active,
            status_reason: (!has_refresh_token).then_some(StatusReason::NoRefreshToken),
            generation,
            scopes: tokens.scopes.clone(),
            public_key: tokens.public_key.clone().or(self.public_key),
            live_mode: tokens.live_mode.or(self.live_mode),
            has_access_token: true,
            has_refresh_token,
            obtained_at: tokens.obtained_at,
            access_token_expires_at: tokens.expires_at,
            refresh_due_at: has_refresh_token.then_some(due),
            refresh_failures: 0,
            first_rejected_at: None,
            outcome_unknown: false,
            expiry_marks_told: 0,
            updated_at: tokens.obtained_at,
            ..self
        }
    }

    /// Somebody ended the connection. Tokens are gone with it.
    #[must_use]
    pub fn revoked(self, reason: StatusReason, now: DateTime<Utc>) -> Self {
        Self {
            status: Status::Revoked,
            status_reason: Some(reason),
            generation: self.generation + 1,
            has_access_token: false,
            has_refresh_token: false,
            refresh_due_at: None,
            first_rejected_at: None,
            outcome_unknown: false,
            updated_at: now,
            ..self
        }
    }

    /// The grant is dead. `access_token_dead` when Mercado Pago was seen to refuse the access token too.
    #[must_use]
    pub fn reconnect_required(self, access_token_dead: bool, now: DateTime<Utc>) -> Self {
        Self {
            status: Status::ReconnectRequired,
            status_reason: Some(StatusReason::GrantRejected),
            has_access_token: self.has_access_token && !access_token_dead,
            refresh_due_at: None,
            refresh_failures: self.refresh_failures + 1,
            updated_at: now,
            ..self
        }
    }

    /// A refresh failed for now; it is tried again at `retry_at`. A connection that already needs the seller stays so, and
    /// nothing is tried by itself.
    #[must_use]
    pub fn refresh_failed(self, retry_at: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        Self {
            refresh_due_at: (self.status == Status::Active).then_some(retry_at),
            refresh_failures: self.refresh_failures + 1,
            updated_at: now,
            ..self
        }
    }

    /// Whether the access token can still be used at `now`.
    pub fn has_live_access_token_at(&self, now: DateTime<Utc>) -> bool {
        self.has_access_token && self.status != Status::Revoked && now < self.access_token_expires_at
    }

    /// Whether a proxy call would be sent at `now`: with the access token, or after a refresh.
    pub fn is_usable_at(&self, now: DateTime<Utc>) -> bool {
        self.has_live_access_token_at(now) || (self.status == Status::Active && self.has_refresh_token)
    }

    /// How long the token set lives as a whole.
    pub fn life(&self) -> Duration {
        self.access_token_expires_at - self.obtained_at
    }

    /// How many of [`EXPIRY_MARKS`] are passed at `now`, for an access token that is not renewed.
    pub fn expiry_marks_passed_at(&self, now: DateTime<Utc>) -> i64 {
        let left = self.access_token_expires_at - now;
        let passed = |mark: &&i32| left <= (self.life() * **mark) / FULL_LIFE_DAYS;
        i64::try_from(EXPIRY_MARKS.iter().filter(passed).count()).unwrap_or(0)
    }

    /// The connection as the API and the events show it: never a token.
    pub fn view_at(&self, now: DateTime<Utc>, application_public_key: Option<&str>) -> ConnectionView {
        ConnectionView {
            seller_id: self.seller_id.to_string(),
            user_id: self.user_id.0,
            status: self.status,
            status_reason: self.status_reason,
            usable: self.is_usable_at(now),
            public_key: self.public_key.clone(),
            application_public_key: application_public_key.map(str::to_owned),
            live_mode: self.live_mode,
            scopes: self.scopes.clone(),
            access_token_expires_at: (self.status != Status::Revoked).then_some(self.access_token_expires_at),
            refresh_due_at: self.refresh_due_at,
            last_refreshed_at: self.last_refreshed_at,
            refresh_failures: self.refresh_failures,
            connected_at: self.connected_at,
            updated_at: self.updated_at,
            metadata: self.metadata.clone(),
        }
    }
}

/// A connection as the API and the events show it (DESIGN.md section 5). All members are always present, null where
/// unknown.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Connection)]
pub struct ConnectionView {
    /// The platform's id of the seller.
    pub seller_id: String,
    /// Mercado Pago's id of the account.
    pub user_id: i64,
    /// Where the connection stands.
    pub status: Status,
    /// Why it stands there.
    pub status_reason: Option<StatusReason>,
    /// Whether a proxy call would be sent now.
    pub usable: bool,
    /// The seller's public key.
    pub public_key: Option<String>,
    /// The integrator's own public key, for front ends that tokenise with it.
    pub application_public_key: Option<String>,
    /// Whether the tokens move real money.
    pub live_mode: Option<bool>,
    /// Scopes as Mercado Pago names them.
    pub scopes: Vec<String>,
    /// When the access token ends.
    pub access_token_expires_at: Option<DateTime<Utc>>,
    /// When the next refresh attempt is due.
    pub refresh_due_at: Option<DateTime<Utc>>,
    /// When the last refresh succeeded.
    pub last_refreshed_at: Option<DateTime<Utc>>,
    /// Failed attempts since the last token set.
    pub refresh_failures: i64,
    /// When the seller last consented.
    pub connected_at: DateTime<Utc>,
    /// When the connection last changed.
    pub updated_at: DateTime<Utc>,
    /// The platform's own data.
    pub metadata: serde_json::Value,
}

text_enum! {
    /// What happens when a seller comes back with another Mercado Pago account.
    OnAccountChange {
        /// The reconnect is refused with `account_mismatch`.
        Refuse = "refuse",
        /// The new account takes the old one's place.
        Replace = "replace",
    }
}

impl<'de> Deserialize<'de> for OnAccountChange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_str(&text)
            .map_err(|_| serde::de::Error::custom("`on_account_change` is `refuse` or `replace`"))
    }
}

text_enum! {
    /// Who or what wanted a refresh.
    Trigger {
        /// It was due.
        Schedule = "schedule",
        /// A call found the access token over.
        Expired = "expired",
        /// Mercado Pago refused the access token, and the probe confirmed it.
        Unauthorized = "unauthorized",
        /// The platform, an admin or an operator asked.
        Manual = "manual",
    }
}

text_enum! {
    /// How a refresh attempt ended (DESIGN.md section 7).
    RefreshOutcome {
        /// A new token set was stored.
        Succeeded = "succeeded",
        /// Sent, but no complete answer that parses: the refresh token may be spent.
        Unknown = "unknown",
        /// Mercado Pago refused the grant.
        GrantRejected = "grant_rejected",
        /// Mercado Pago refused our own credentials.
        ClientRejected = "client_rejected",
        /// Mercado Pago asked to come later (429).
        Throttled = "throttled",
        /// Mercado Pago answered with an error of its own, or was not reached.
        Unavailable = "unavailable",
        /// Nothing was sent: the tokens belong to another `client_id`.
        ClientIdChanged = "client_id_changed",
        /// Somebody else changed the token set meanwhile; the answer was not needed.
        Superseded = "superseded",
    }
}

/// One spending of a refresh token, as a row.
#[derive(Debug, Clone, PartialEq)]
pub struct RefreshAttempt {
    /// Our id of the row.
    pub id: super::ids::RefreshAttemptId,
    /// The connection whose token is spent.
    pub connection_id: ConnectionId,
    /// The application it belongs to.
    pub application: ApplicationId,
    /// The generation that is spent.
    pub generation: i64,
    /// Who wanted it.
    pub trigger: Trigger,
    /// Whether the outcome of an earlier attempt with the same token is unknown.
    pub after_unknown: bool,
    /// When the row was written, before the token was sent.
    pub started_at: DateTime<Utc>,
    /// When it ended; none while it is under way.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub outcome: Option<RefreshOutcome>,
    /// HTTP status of the answer.
    pub http_status: Option<i64>,
    /// `error` of the answer (RFC 6749 section 5.2), or the kind of the transport's failure.
    pub error: Option<String>,
}
