//! Identifiers as types. Ours are a prefix that names the kind and a time-sortable UUID, so that an id in a log says what
//! it is of; the others are parsed once, at the edge, by the rules of DESIGN.md section 2.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::random::Random;

/// Why a text is not an identifier of the asked kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub(crate) &'static str);

macro_rules! our_ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal,)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new id, which sorts after all that were made before `now`.
            pub fn new(now: DateTime<Utc>, random: &Random) -> Self {
                Self(format!(concat!($prefix, "_{}"), random.uuid_at(now).simple()))
            }

            /// The text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let rest = text.strip_prefix(concat!($prefix, "_"));
                match rest {
                    Some(rest) if rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()) => {
                        Ok(Self(text.to_owned()))
                    }
                    _ => Err(InvalidId(concat!("an id of this kind is `", $prefix, "_` and 32 hex digits"))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

our_ids! {
    /// One seller's lasting link to one application.
    ConnectionId = "con",
    /// A connect link (its token, which stands in the URL, is another thing).
    ConnectLinkId = "lnk",
    /// One attempt to consent.
    AuthorizationRequestId = "areq",
    /// One spending of a refresh token.
    RefreshAttemptId = "rat",
    /// Something that happened, as the platform is told of it.
    EventId = "evt",
    /// Something that Mercado Pago told us.
    NotificationId = "ntf",
    /// Where the platform wants to be told of events.
    EventEndpointId = "ep",
    /// The obligation to tell one event to one endpoint.
    DeliveryId = "dlv",
    /// A platform's API key (not its secret).
    ApiKeyId = "key",
    /// A person who signs in to the console.
    AdminId = "adm",
    /// A row of the audit log.
    AuditId = "aud",
    /// One running process of the service.
    ReplicaId = "rep",
}

impl DeliveryId {
    /// The id of the delivery of an event to an endpoint: there is one for each pair. Sorts as the event does.
    pub fn of(event: &EventId, endpoint: &EventEndpointId) -> Self {
        let mut hash = Sha256::new();
        hash.update(event.as_str());
        hash.update(endpoint.as_str());
        // The first 12 hex digits of an id are its time.
        let mut text = format!("dlv_{}", &event.as_str()[4..16]);
        for byte in &hash.finalize()[..10] {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }
}

/// The platform's own id of a seller: 1-128 of `A-Za-z0-9._:-`, not `.` or `..` (it stands in paths).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SellerId(String);

impl SellerId {
    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SellerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".." {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(
                "a seller_id is 1 to 128 of A-Z a-z 0-9 . _ : - and neither `.` nor `..`",
            ))
        }
    }
}

impl fmt::Display for SellerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SellerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Slug of an application: 1-32 of `a-z0-9-`, beginning with a letter. The first application is `default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ApplicationId(String);

impl ApplicationId {
    /// The slug of the application that the settings without a prefix describe.
    pub fn default_application() -> Self {
        Self("default".to_owned())
    }

    /// The text of the slug.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApplicationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if begins && text.len() <= 32 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(
                "an application's slug is 1 to 32 of a-z 0-9 - and begins with a letter",
            ))
        }
    }
}

impl fmt::Display for ApplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Mercado Pago's id of an account (`user_id` in a token answer, `collector_id` of a payment).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub i64);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seller_ids_are_what_can_stand_in_a_path() {
        for good in ["a", "seller-42", "A.b_c:d", &"x".repeat(128), "..."] {
            assert!(good.parse::<SellerId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ñ", "a%2f", "~", &"x".repeat(129)] {
            assert!(bad.parse::<SellerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn application_slugs_are_lower_case() {
        assert!("default".parse::<ApplicationId>().is_ok());
        for bad in ["", "Default", "1ar", "ar_test", &"x".repeat(33)] {
            assert!(bad.parse::<ApplicationId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn our_ids_name_their_kind_and_sort_by_time() {
        let random = Random::seeded(1);
        let earlier = ConnectionId::new(DateTime::UNIX_EPOCH, &random);
        let later = ConnectionId::new(DateTime::UNIX_EPOCH + chrono::Duration::seconds(1), &random);
        assert!(earlier < later);
        assert_eq!(earlier.as_str().parse::<ConnectionId>().unwrap(), earlier);
        assert!(earlier.as_str().parse::<ApiKeyId>().is_err());
    }
}
