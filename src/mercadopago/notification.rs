//! Notifications as Mercado Pago signs and spells them: who sent it, what it is about, and whether it came before.
//!
//! The signature covers the query's `data.id`, `x-request-id` and `ts`, and not the body. So a body that names another
//! object than the signed one is refused, and whoever acts on more than the object's id must look at what else agrees.
//! Sources contradict each other on two points, and both forms are taken: the id as it came or in lower case, `ts` in
//! seconds or in milliseconds. Does not decide what a notification means for a connection.

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::domain::ids::UserId;
use crate::domain::secret::WebhookSecret;

/// Topic of linking and unlinking an application.
pub const LINK_TOPIC: &str = "mp-connect";
/// The action of a seller who takes the application off the account.
pub const UNLINKED: &str = "application.deauthorized";

/// How far ahead of our clock a signature's time may be.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(10);
/// A `ts` from here on is in milliseconds: as seconds it would be the year 5138, as milliseconds it is 1973.
const FIRST_MILLISECONDS: i64 = 100_000_000_000;
/// Longest id, topic and request id that are looked at.
const LONGEST_PARAMETER: usize = 256;
/// Longest `x-signature` that is looked at.
const LONGEST_SIGNATURE: usize = 512;

/// Why a notification is refused. The sender is told none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    /// No `x-signature`, or one that does not parse.
    #[error("x-signature is missing or does not parse")]
    Unsigned,
    /// The signature is none of the configured secrets'.
    #[error("x-signature is not that of the configured webhook secret")]
    WrongSignature,
    /// The signature's time is too long ago, or ahead of the clock.
    #[error("the time of x-signature is beyond NOTIFICATION_TOLERANCE")]
    OutOfTime,
    /// The body names another object than the one that was signed.
    #[error("the body's data.id is not the signed one")]
    OtherObject,
    /// The body is not a JSON object, or the query has something twice.
    #[error("the notification cannot be read")]
    Malformed,
}

/// `x-signature: ts=<digits>,v1=<hex>`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature<'a> {
    /// As it stands there: it is signed as text.
    ts: &'a str,
    v1: [u8; 32],
}

impl<'a> Signature<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let (mut ts, mut v1) = (None, None);
        for part in header.split(',') {
            let (name, value) = part.split_once('=')?;
            let (slot, value) = match name.trim() {
                "ts" => (&mut ts, value.trim()),
                "v1" => (&mut v1, value.trim()),
                // Room for a `v2` beside it.
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let ts = ts.filter(|ts| (1..=16).contains(&ts.len()) && ts.bytes().all(|b| b.is_ascii_digit()))?;
        Some(Self { ts, v1: hex(v1?)? })
    }

    fn time(&self) -> Option<DateTime<Utc>> {
        let number: i64 = self.ts.parse().ok()?;
        if number < FIRST_MILLISECONDS {
            DateTime::from_timestamp(number, 0)
        } else {
            DateTime::from_timestamp_millis(number)
        }
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// What was signed, read from headers and query; [`verify`](Self::verify) says whether it was.
#[derive(Debug)]
pub struct Envelope<'a> {
    signature: Signature<'a>,
    request_id: Option<&'a str>,
    data_id: Option<String>,
    topic: Option<String>,
}

impl<'a> Envelope<'a> {
    /// Reads `x-signature`, `x-request-id` and the query's `data.id` and `type`. Each may stand once.
    pub fn read(headers: &'a HeaderMap, query: &str) -> Result<Self, NotificationError> {
        let header = single(headers, "x-signature")?.filter(|text| text.len() <= LONGEST_SIGNATURE);
        let signature = header
            .and_then(Signature::parse)
            .ok_or(NotificationError::Unsigned)?;
        let request_id = single(headers, "x-request-id")?;
        if request_id.is_some_and(|id| id.len() > LONGEST_PARAMETER) {
            return Err(NotificationError::Malformed);
        }
        let (mut data_id, mut topic) = (None, None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*name {
                "data.id" => &mut data_id,
                "type" => &mut topic,
                _ => continue,
            };
            let repeated = slot.replace(value.clone().into_owned()).is_some();
            if repeated || value.len() > LONGEST_PARAMETER || value.chars().any(char::is_control) {
                return Err(NotificationError::Malformed);
            }
        }
        Ok(Self {
            signature,
            // The documents leave a pair out whose value is absent; the official validators treat an empty one as absent.
            request_id: request_id.filter(|id| !id.is_empty()),
            data_id: data_id.filter(|id| !id.is_empty()),
            topic: topic.filter(|topic| !topic.is_empty()),
        })
    }

    /// Whether one of `secrets` signed it, no longer than `tolerance` before `now`. Takes the same time whichever of them
    /// did, and whether any did.
    pub fn verify<'s>(
        &self,
        secrets: impl Iterator<Item = &'s WebhookSecret>,
        now: DateTime<Utc>,
        tolerance: TimeDelta,
    ) -> Result<(), NotificationError> {
        let raw = self.manifest(self.data_id.as_deref());
        let lower = self.data_id.as_deref().map(str::to_ascii_lowercase);
        let lower = self.manifest(lower.as_deref());
        let mut good = Choice::from(0);
        for secret in secrets {
            good |= self.is_of(secret, &raw) | self.is_of(secret, &lower);
        }
        if !bool::from(good) {
            return Err(NotificationError::WrongSignature);
        }
        let time = self.signature.time().ok_or(NotificationError::OutOfTime)?;
        let in_time = now - time <= tolerance && time - now <= CLOCK_SKEW;
        in_time.then_some(()).ok_or(NotificationError::OutOfTime)
    }

    fn manifest(&self, data_id: Option<&str>) -> String {
        let mut manifest = String::new();
        let pairs = [
            ("id", data_id),
            ("request-id", self.request_id),
            ("ts", Some(self.signature.ts)),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                manifest.extend([name, ":", value, ";"]);
            }
        }
        manifest
    }

    fn is_of(&self, secret: &WebhookSecret, manifest: &str) -> Choice {
        #[expect(
            clippy::expect_used,
            reason = "HMAC takes keys of any length (RFC 2104 section 3)"
        )]
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes any key");
        mac.update(manifest.as_bytes());
        mac.finalize().into_bytes().as_slice().ct_eq(&self.signature.v1)
    }
}

/// The one value of a header; none if it is not there or not text.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, NotificationError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(value.to_str().ok()),
        (Some(_), Some(_)) => Err(NotificationError::Malformed),
    }
}

/// A notification, read. Only what [`Envelope::verify`] let through should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// What kind of object it is about: the query's `type`, else the body's.
    pub topic: String,
    /// What happened to it.
    pub action: Option<String>,
    /// The object: the signed id, else what the body points to.
    pub resource_id: Option<String>,
    /// The account that it happened in. Not signed.
    pub user_id: Option<UserId>,
    /// When it happened, by Mercado Pago's clock. Not signed.
    pub date_created: Option<DateTime<Utc>>,
    /// Equal for every repetition of one notification and for nothing else.
    pub dedupe_key: [u8; 32],
    /// The body.
    pub body: Value,
}

impl Notification {
    /// Reads the body of a verified notification. A body that names another object than the signed one is refused.
    pub fn read(envelope: &Envelope<'_>, body: &str) -> Result<Self, NotificationError> {
        // PostgreSQL keeps no NUL in JSON, and nothing that Mercado Pago sends has one.
        let value: Value = serde_json::from_str(body).map_err(|_| NotificationError::Malformed)?;
        if !value.is_object() || body.contains("\\u0000") {
            return Err(NotificationError::Malformed);
        }
        let named = text(&value["data"]["id"]);
        if let Some(named) = &named {
            // The query's form may be in lower case.
            let signed = envelope.data_id.as_deref().unwrap_or_default();
            if !signed.eq_ignore_ascii_case(named) {
                return Err(NotificationError::OtherObject);
            }
        }
        let kind = text(&value["type"]);
        let topic = envelope.topic.clone().or_else(|| kind.clone());
        let topic = topic.ok_or(NotificationError::Malformed)?;
        let action = text(&value["action"]);
        let resource_id = named
            .or_else(|| envelope.data_id.clone())
            .or_else(|| text(&value["data"]["resource"]));
        let date_created = value["date_created"].as_str();
        let dedupe_key = match text(&value["id"]) {
            Some(id) => digest(&[Some("id"), Some(&id), kind.as_deref()]),
            None => digest(&[
                Some("of"),
                Some(&topic),
                resource_id.as_deref(),
                action.as_deref(),
                date_created,
            ]),
        };
        let user_id = match &value["user_id"] {
            Value::Number(number) => number.as_i64(),
            Value::String(digits) => digits.parse().ok(),
            _ => None,
        };
        Ok(Self {
            topic,
            action,
            resource_id,
            user_id: user_id.map(UserId),
            date_created: date_created
                .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
                .map(|time| time.to_utc()),
            dedupe_key,
            body: value,
        })
    }

    /// Whether it tells that a seller took the application off the account; [`unlinked`](Self::unlinked) says whether that
    /// can be believed.
    pub fn tells_of_unlinking(&self) -> bool {
        self.topic == LINK_TOPIC && self.action.as_deref() == Some(UNLINKED)
    }

    /// The account that was unlinked and when, if that is what this tells beyond doubt: topic and action say so, and the
    /// signed id is the account. Only the id is signed, so everything else has to agree with it.
    pub fn unlinked(&self) -> Option<(UserId, DateTime<Utc>)> {
        let user_id = self.user_id?;
        let agrees = self.tells_of_unlinking()
            && self.body["type"] == LINK_TOPIC
            && text(&self.body["data"]["id"]) == Some(user_id.to_string())
            && self.resource_id == Some(user_id.to_string());
        agrees.then_some((user_id, self.date_created?))
    }
}

/// A text or a number as text; none where it is neither, empty or too long.
fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty() && text.len() <= LONGEST_PARAMETER).then_some(text)
}

/// A hash over parts with their lengths, so that no two lists of parts have the same.
fn digest(parts: &[Option<&str>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.unwrap_or_default();
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "canary-webhook-secret";
    const REQUEST_ID: &str = "bb56a2f1-6aae-46ac-982e-9dcd3581d08e";

    fn signed(manifest: &str, ts: &str) -> HeaderMap {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(manifest.as_bytes());
        let hex = mac
            .finalize()
            .into_bytes()
            .iter()
            .fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
        HeaderMap::from_iter([
            (
                "x-signature".parse().unwrap(),
                format!("ts={ts},v1={hex}").parse().unwrap(),
            ),
            (
                "x-request-id".parse::<http::HeaderName>().unwrap(),
                REQUEST_ID.parse().unwrap(),
            ),
        ])
    }

    fn check(headers: &HeaderMap, query: &str) -> Result<(), NotificationError> {
        let secret = WebhookSecret::new(SECRET);
        let other = WebhookSecret::new("another");
        let now = DateTime::from_timestamp(1_781_009_500, 0).unwrap();
        Envelope::read(headers, query)?.verify([&other, &secret].into_iter(), now, TimeDelta::days(7))
    }

    fn manifest(id: &str, ts: &str) -> String {
        format!("id:{id};request-id:{REQUEST_ID};ts:{ts};")
    }

    #[test]
    fn both_cases_and_both_units_verify() {
        let query = "data.id=ORD01JQ&type=order";
        for id in ["ORD01JQ", "ord01jq"] {
            for ts in ["1781009491", "1781009491351"] {
                assert_eq!(check(&signed(&manifest(id, ts), ts), query), Ok(()), "{id} {ts}");
            }
        }
        let upper = check(
            &signed(&manifest("ORD01JQ", "1781009491"), "1781009491"),
            "data.id=ord01jq",
        );
        assert_eq!(upper, Err(NotificationError::WrongSignature));
    }

    #[test]
    fn absent_pairs_are_left_out() {
        let ts = "1781009491";
        let mut headers = signed(&format!("id:1;ts:{ts};"), ts);
        headers.remove("x-request-id");
        assert_eq!(check(&headers, "data.id=1"), Ok(()));
        let headers = signed(&format!("request-id:{REQUEST_ID};ts:{ts};"), ts);
        assert_eq!(check(&headers, "type=payment"), Ok(()));
        assert_eq!(check(&headers, "data.id=&type=payment"), Ok(()));
    }

    #[test]
    fn an_altered_id_time_or_request_id_is_refused() {
        let ts = "1781009491";
        let good = signed(&manifest("1", ts), ts);
        assert_eq!(check(&good, "data.id=1"), Ok(()));
        assert_eq!(check(&good, "data.id=2"), Err(NotificationError::WrongSignature));
        assert_eq!(check(&good, ""), Err(NotificationError::WrongSignature));
        let mut other = good.clone();
        other.insert("x-request-id", "other".parse().unwrap());
        assert_eq!(check(&other, "data.id=1"), Err(NotificationError::WrongSignature));
        let mut other = good.clone();
        let later = other["x-signature"].to_str().unwrap().replace(ts, "1781009492");
        other.insert("x-signature", later.parse().unwrap());
        assert_eq!(check(&other, "data.id=1"), Err(NotificationError::WrongSignature));
    }

    #[test]
    fn a_good_signature_that_is_too_old_or_from_the_future_is_refused() {
        let at = |ts: &str| check(&signed(&manifest("1", ts), ts), "data.id=1");
        assert_eq!(at("1780404701"), Ok(()));
        assert_eq!(at("1780404699"), Err(NotificationError::OutOfTime));
        assert_eq!(at("1780404699000"), Err(NotificationError::OutOfTime));
        assert_eq!(at("1781010099"), Ok(()));
        assert_eq!(at("1781010101"), Err(NotificationError::OutOfTime));
        assert_eq!(at("9999999999999999"), Err(NotificationError::OutOfTime));
    }

    #[test]
    fn what_stands_there_twice_or_does_not_parse_is_refused() {
        let ts = "1781009491";
        let good = signed(&manifest("1", ts), ts);
        assert_eq!(
            check(&good, "data.id=1&data.id=1"),
            Err(NotificationError::Malformed)
        );
        let mut twice = good.clone();
        twice.append("x-signature", good["x-signature"].clone());
        assert_eq!(check(&twice, "data.id=1"), Err(NotificationError::Malformed));
        let v1 = "a".repeat(64);
        for header in [
            "",
            "ts=1",
            "v1=00",
            &format!("ts=,v1={v1}"),
            &format!("ts=-1,v1={v1}"),
            &format!("ts=1,ts=1,v1={v1}"),
            &format!("ts=1,v1={v1}0"),
            &format!("ts=1 v1={v1}"),
            &format!("ts=1,v1=g{}", &v1[1..]),
            &format!("ts=12345678901234567,v1={v1}"),
        ] {
            let headers = HeaderMap::from_iter([("x-signature".parse().unwrap(), header.parse().unwrap())]);
            assert_eq!(
                check(&headers, "data.id=1"),
                Err(NotificationError::Unsigned),
                "{header}"
            );
        }
        assert_eq!(
            check(&HeaderMap::new(), "data.id=1"),
            Err(NotificationError::Unsigned)
        );
    }

    fn read(query: &str, body: &str) -> Result<Notification, NotificationError> {
        let ts = "1781009491";
        let headers = signed("", ts);
        Notification::read(&Envelope::read(&headers, query).unwrap(), body)
    }

    #[test]
    fn a_body_about_another_object_than_the_signed_one_is_refused() {
        let body = r#"{"id":1,"type":"payment","action":"payment.updated","data":{"id":"7"},"user_id":"42"}"#;
        let good = read("data.id=7&type=payment", body).unwrap();
        assert_eq!(
            (good.resource_id.as_deref(), good.user_id),
            (Some("7"), Some(UserId(42)))
        );
        assert_eq!(
            read("data.id=8&type=payment", body),
            Err(NotificationError::OtherObject)
        );
        assert_eq!(read("type=payment", body), Err(NotificationError::OtherObject));
        assert!(read("data.id=7", &body.replace("\"7\"", "7")).is_ok());
        assert!(read("data.id=abc", &body.replace('7', "ABC")).is_ok());
    }

    /// The topics of the provider's documents, each with the body's `type`, as they differ.
    #[test]
    fn every_topic_is_read() {
        for (topic, body, resource) in [
            (
                "payment",
                r#"{"id":1,"type":"payment","action":"payment.created","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "order",
                r#"{"id":"a","type":"order","action":"order.processed","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "orders",
                r#"{"id":1,"type":"order","action":"order.updated","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "subscription_preapproval",
                r#"{"id":1,"type":"subscription_preapproval","action":"updated","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "subscription_preapproval_plan",
                r#"{"id":1,"type":"subscription_preapproval_plan","action":"created","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "subscription_authorized_payment",
                r#"{"id":1,"type":"subscription_authorized_payment","action":"created","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "topic_merchant_order_wh",
                r#"{"id":1,"type":"topic_merchant_order_wh","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "mp-connect",
                r#"{"id":1,"type":"mp-connect","action":"application.authorized","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "delivery",
                r#"{"id":1,"type":"delivery","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "topic_claims_integration_wh",
                r#"{"id":"5f1c","type":"claim","action":"updated","data":{"resource":"/v1/claims/9"}}"#,
                Some("9"),
            ),
            (
                "topic_chargebacks_wh",
                r#"{"id":1,"type":"order","action":"order.charged_back","data":{"id":9}}"#,
                Some("9"),
            ),
            (
                "stop_delivery_op_wh",
                r#"{"id":1,"type":"stop_delivery_op_wh","action":"created","data":{"id":"9"}}"#,
                Some("9"),
            ),
            (
                "topic_card_id_wh",
                r#"{"id":1,"type":"automatic-payments","action":"card.updated","data":{"customer_id":"c","new_card_id":2,"old_card_id":1}}"#,
                Some("9"),
            ),
            (
                "point_integration_wh",
                r#"{"id":1,"action":"state_FINISHED"}"#,
                Some("9"),
            ),
        ] {
            let read = read(&format!("data.id=9&type={topic}"), body).unwrap();
            assert_eq!(
                (read.topic.as_str(), read.resource_id.as_deref()),
                (topic, resource)
            );
        }
    }

    #[test]
    fn repetitions_have_one_key_and_other_notifications_another() {
        let key = |body: &str| read("data.id=7&type=payment", body).unwrap().dedupe_key;
        let by_id = r#"{"id":1,"type":"payment","action":"payment.updated","data":{"id":"7"}}"#;
        assert_eq!(key(by_id), key(&by_id.replace("{\"id\":1", "{ \"id\": \"1\"")));
        assert_ne!(key(by_id), key(&by_id.replace("\"id\":1", "\"id\":2")));
        let without = r#"{"type":"payment","action":"payment.updated","data":{"id":"7"}}"#;
        assert_eq!(key(without), key(without));
        assert_ne!(key(without), key(&without.replace("updated", "created")));
    }

    #[test]
    fn an_unlinking_counts_only_if_everything_agrees() {
        let body = r#"{"action":"application.deauthorized","data":{"id":"42"},"date_created":"2026-06-12T13:14:01.351Z","id":1,"type":"mp-connect","user_id":42}"#;
        let query = "data.id=42&type=mp-connect";
        let unlinked = |query: &str, body: &str| read(query, body).unwrap().unlinked();
        assert_eq!(unlinked(query, body).map(|(user, _)| user), Some(UserId(42)));
        for (from, to) in [
            ("\"user_id\":42", "\"user_id\":43"),
            ("application.deauthorized", "application.authorized"),
            ("\"data\":{\"id\":\"42\"}", "\"data\":{}"),
            ("\"type\":\"mp-connect\"", "\"type\":\"payment\""),
            ("2026-06-12T13:14:01.351Z", "yesterday"),
        ] {
            assert_eq!(unlinked(query, &body.replace(from, to)), None, "{to}");
        }
        assert_eq!(unlinked("data.id=42&type=payment", body), None);
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_panics(header in "\\PC{0,80}", query in "\\PC{0,80}", body in "\\PC{0,80}") {
            let Ok(value) = http::HeaderValue::from_str(&header) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-signature"), value)]);
            prop_assert!(check(&headers, &query).is_err());
            let _ = read("data.id=7&type=payment", &body);
        }
    }
}
