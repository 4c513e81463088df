//! Misbehaviour on request: which calls are disturbed, how, and how often.
//!
//! A fault is told as text (`token=500`, `payments=cut-after*3`, `refunds@241000001=429:retry-after=30`) or as the JSON of
//! `POST /_sandbox/faults`. The newest matching fault wins. Cuts are real: the TCP connection is dropped by the server
//! (`server.rs`), no status is sent.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::domain::random::Random;

/// What happens to a call. In JSON it is the same text as on the command line (`"cut-after"`, `"429:retry-after=30"`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FaultKind {
    /// The call is answered after this many milliseconds.
    Latency(u64),
    /// This status instead of the answer; `retry_after` in seconds; with `after` the call is carried out first.
    Status {
        /// HTTP status code.
        status: u16,
        /// The body, as it is sent; Mercado Pago's error shape unless given.
        body: Option<String>,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
        /// Whether the call is carried out, and only its answer lost.
        after: bool,
    },
    /// An error code of the token endpoint (`invalid_grant`, `invalid_client`, ...).
    OAuthError(String),
    /// The connection is dropped, the call is not carried out.
    CutBefore,
    /// The call is carried out, then the connection is dropped.
    CutAfter,
    /// The call is carried out, and the connection dropped in the middle of the answer's body.
    Half,
    /// Status 200 with a body that is no JSON; the call is carried out.
    Garbage,
    /// A body that never ends, byte by byte; the call is carried out.
    Drip,
    /// Nothing ever comes back; the call is carried out.
    Hang,
}

/// One fault: where, for whom, what, how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// A route's name (`token`, `payments`, `refunds`, `customers`, `cards`, `card_tokens`, `subscriptions`,
    /// `users_me`, ..., or `any`), or the beginning of a path.
    pub route: String,
    /// Only calls with this seller's token (`user_id`).
    #[serde(default)]
    pub seller: Option<u64>,
    /// What happens.
    pub kind: FaultKind,
    /// How many more calls are disturbed; without it all are.
    #[serde(default)]
    pub times: Option<u32>,
    /// The share of matching calls that are disturbed, 0 to 1; without it all are.
    #[serde(default)]
    pub probability: Option<f64>,
}

/// A fault that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no fault; examples: token=500, token=429:retry-after=30, payments=cut-after*3, any=latency:200"
)]
pub struct FaultSyntax(String);

/// Error codes of the token endpoint that a fault can name.
const OAUTH_ERRORS: [&str; 8] = [
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "invalid_request",
    "unsupported_grant_type",
    "forbidden",
    "unauthorized_client",
    "local_rate_limited",
];

impl FromStr for Fault {
    type Err = FaultSyntax;

    fn from_str(text: &str) -> Result<Self, FaultSyntax> {
        let wrong = || FaultSyntax(String::from(text));
        let (target, what) = text.split_once('=').ok_or_else(wrong)?;
        let (route, seller) = match target.split_once('@') {
            Some((route, seller)) => (route, Some(seller.parse().map_err(|_| wrong())?)),
            None => (target, None),
        };
        let (what, times) = match what.rsplit_once('*') {
            Some((what, times)) => (what, Some(times.parse().map_err(|_| wrong())?)),
            None => (what, None),
        };
        let (what, probability) = match what.rsplit_once('~') {
            Some((what, share)) => (what, Some(share.parse().map_err(|_| wrong())?)),
            None => (what, None),
        };
        if !is_route(route) {
            return Err(wrong());
        }
        let kind = kind(what).ok_or_else(wrong)?;
        Ok(Self {
            route: String::from(route),
            seller,
            kind,
            times,
            probability,
        })
    }
}

fn kind(text: &str) -> Option<FaultKind> {
    let (name, details) = text.split_once(':').unwrap_or((text, ""));
    Some(match name {
        "cut-before" => FaultKind::CutBefore,
        "cut-after" => FaultKind::CutAfter,
        "half" => FaultKind::Half,
        "garbage" => FaultKind::Garbage,
        "drip" => FaultKind::Drip,
        "hang" => FaultKind::Hang,
        "latency" => FaultKind::Latency(details.trim_end_matches("ms").parse().ok()?),
        error if OAUTH_ERRORS.contains(&error) => FaultKind::OAuthError(String::from(error)),
        status => {
            let status: u16 = status
                .parse()
                .ok()
                .filter(|status| (200..=599).contains(status))?;
            let (mut body, mut retry_after, mut after) = (None, None, false);
            let mut rest = details;
            while !rest.is_empty() {
                // The body comes last: it may hold commas.
                if let Some(text) = rest.strip_prefix("body=") {
                    body = Some(String::from(text));
                    break;
                }
                let (detail, further) = rest.split_once(',').unwrap_or((rest, ""));
                match detail.split_once('=') {
                    Some(("retry-after", seconds)) => retry_after = Some(seconds.parse().ok()?),
                    None if detail == "after" => after = true,
                    _ => return None,
                }
                rest = further;
            }
            FaultKind::Status {
                status,
                body,
                retry_after,
                after,
            }
        }
    })
}

impl TryFrom<String> for FaultKind {
    type Error = FaultSyntax;

    fn try_from(text: String) -> Result<Self, FaultSyntax> {
        kind(&text).ok_or(FaultSyntax(text))
    }
}

impl From<FaultKind> for String {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::Latency(milliseconds) => format!("latency:{milliseconds}"),
            FaultKind::OAuthError(error) => error,
            FaultKind::CutBefore => Self::from("cut-before"),
            FaultKind::CutAfter => Self::from("cut-after"),
            FaultKind::Half => Self::from("half"),
            FaultKind::Garbage => Self::from("garbage"),
            FaultKind::Drip => Self::from("drip"),
            FaultKind::Hang => Self::from("hang"),
            FaultKind::Status {
                status,
                body,
                retry_after,
                after,
            } => {
                let details: Vec<Self> = [
                    after.then(|| Self::from("after")),
                    retry_after.map(|seconds| format!("retry-after={seconds}")),
                    body.map(|body| format!("body={body}")),
                ]
                .into_iter()
                .flatten()
                .collect();
                if details.is_empty() {
                    status.to_string()
                } else {
                    format!("{status}:{}", details.join(","))
                }
            }
        }
    }
}

/// Names of the routes that faults are told by.
const ROUTES: [&str; 16] = [
    "any",
    "authorization",
    "token",
    "payments",
    "refunds",
    "customers",
    "cards",
    "card_tokens",
    "plans",
    "subscriptions",
    "authorized_payments",
    "catalogue",
    "users_me",
    "orders",
    "preferences",
    "other",
];

fn is_route(name: &str) -> bool {
    name.starts_with('/') || ROUTES.contains(&name)
}

/// The route's name for a path.
pub(super) fn route_name(path: &str) -> &'static str {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).take(5).collect();
    match parts.as_slice() {
        ["authorization", ..] => "authorization",
        ["oauth", "token", ..] => "token",
        ["v1", "payments", _, "refunds", ..] => "refunds",
        ["v1", "payments", ..] => "payments",
        ["v1", "customers", _, "cards", ..] => "cards",
        ["v1", "customers", ..] => "customers",
        ["v1", "card_tokens", ..] => "card_tokens",
        ["v1", "payment_methods" | "identification_types", ..] => "catalogue",
        ["v1", "orders", ..] => "orders",
        ["preapproval_plan", ..] => "plans",
        ["preapproval", ..] => "subscriptions",
        ["authorized_payments", ..] => "authorized_payments",
        ["checkout", "preferences", ..] | ["merchant_orders", ..] => "preferences",
        ["users", "me"] => "users_me",
        _ => "other",
    }
}

/// The faults that are set now.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    /// Sets one more fault; false if its route is unknown.
    pub(super) fn add(&self, fault: Fault) -> bool {
        let known = is_route(&fault.route);
        if known {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
        }
        known
    }

    /// Takes all faults away.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The faults that are set.
    pub(super) fn list(&self) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happens to this call, counted.
    pub(super) fn strike(
        &self,
        path: &str,
        seller: impl FnOnce() -> Option<u64>,
        random: &Random,
    ) -> Option<FaultKind> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.is_empty() {
            return None;
        }
        let name = route_name(path);
        let seller = seller();
        let index = faults.iter().rposition(|fault| {
            let here = fault.route == name
                || fault.route == "any"
                || (fault.route.starts_with('/') && path.starts_with(&fault.route));
            here && (fault.seller.is_none() || fault.seller == seller)
                && fault.times != Some(0)
                && fault.probability.is_none_or(|share| random.unit() < share)
        })?;
        let fault = faults.get_mut(index)?;
        let kind = fault.kind.clone();
        if let Some(times) = &mut fault.times {
            *times -= 1;
            if *times == 0 {
                faults.remove(index);
            }
        }
        Some(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        text.parse().unwrap()
    }

    #[test]
    fn a_fault_is_told_in_one_word() {
        assert_eq!(fault("token=hang").kind, FaultKind::Hang);
        assert_eq!(fault("payments=cut-after*3").times, Some(3));
        assert_eq!(fault("payments@241000001=half").seller, Some(241_000_001));
        assert_eq!(fault("any=latency:200~0.5").probability, Some(0.5));
        assert_eq!(
            fault("token=invalid_grant").kind,
            FaultKind::OAuthError(String::from("invalid_grant"))
        );
        assert_eq!(
            fault("token=429:retry-after=30").kind,
            FaultKind::Status {
                status: 429,
                body: None,
                retry_after: Some(30),
                after: false
            }
        );
        assert_eq!(
            fault("/v1/payments=503:after").kind,
            FaultKind::Status {
                status: 503,
                body: None,
                retry_after: None,
                after: true
            }
        );
        for wrong in [
            "token",
            "token=",
            "token=700",
            "nowhere=500",
            "token=sulk",
            "token=500:soon",
        ] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_says_a_fault_as_the_command_line_does() {
        let text = r#"{"route":"payments","seller":7,"kind":"500:after,body={\"a\":1,\"b\":2}","times":3}"#;
        let read: Fault = serde_json::from_str(text).unwrap();
        let body = Some(String::from(r#"{"a":1,"b":2}"#));
        assert_eq!(
            read.kind,
            FaultKind::Status {
                status: 500,
                body,
                retry_after: None,
                after: true
            }
        );
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Fault>(&written).unwrap(), read);
    }

    #[test]
    fn a_fault_strikes_its_route_and_seller_as_often_as_told() {
        let faults = Faults::default();
        let random = Random::seeded(1);
        assert!(faults.add(fault("payments@7=500*2")));
        let strike = |path: &str, seller| faults.strike(path, || seller, &random).is_some();
        assert!(!strike("/v1/payments", Some(8)));
        assert!(!strike("/v1/payments/1/refunds", Some(7)));
        assert!(strike("/v1/payments", Some(7)));
        assert!(strike("/v1/payments/12", Some(7)));
        assert!(!strike("/v1/payments", Some(7)));
        assert!(faults.list().is_empty());
    }

    #[test]
    fn a_probability_is_kept_on_the_long_run() {
        let faults = Faults::default();
        let random = Random::seeded(1);
        faults.add(fault("any=500~0.25"));
        let struck = (0..1000)
            .filter(|_| faults.strike("/users/me", || None, &random).is_some())
            .count();
        assert!((200..300).contains(&struck), "{struck}");
    }
}
