//! What an answer of the token endpoint means: one reading, used for live answers and for rescue files alike
//! (DESIGN.md section 7).
//!
//! Careful on purpose: numbers that come as strings, members that are missing, both variants of the error body. An answer
//! that holds no token is never taken for one, and of the provider's own words nothing is kept but the error code. Does
//! not decide what happens next; that is the refresher's table.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::domain::connection::TokenSet;
use crate::domain::ids::UserId;
use crate::domain::secret::{AccessToken, RefreshToken};

/// Life of an access token where the answer does not say, or says nonsense: the 180 days that Mercado Pago documents. If it
/// is shorter in truth, the first 401 shows it, and the refresh token is at hand.
const DOCUMENTED_LIFE: TimeDelta = TimeDelta::days(180);

/// A life longer than this is taken for nonsense.
const LONGEST_LIFE: TimeDelta = TimeDelta::days(3660);

/// Longest error code that is kept.
const LONGEST_CODE: usize = 64;

/// An answer of the token endpoint before anything parsed it. `Debug` shows no body: it holds tokens.
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body, at most 64 KiB.
    pub body: Zeroizing<Vec<u8>>,
    /// When it was complete.
    pub received_at: DateTime<Utc>,
    /// `Retry-After`, as a delay.
    pub retry_after: Option<Duration>,
}

impl fmt::Debug for RawAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawAnswer")
            .field("status", &self.status)
            .field("body", &format_args!("[{} bytes redacted]", self.body.len()))
            .field("received_at", &self.received_at)
            .field("retry_after", &self.retry_after)
            .finish()
    }
}

/// Bytes that are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an answer of the token endpoint as it was kept")]
pub struct NotAnAnswer;

impl RawAnswer {
    /// The answer as one block, for a rescue file: `status microseconds retry_after\n` and the body as it came.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let retry_after = self
            .retry_after
            .map_or_else(|| "-".to_owned(), |delay| delay.as_secs().to_string());
        let head = format!(
            "{} {} {retry_after}\n",
            self.status,
            self.received_at.timestamp_micros()
        );
        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + self.body.len()));
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The answer back from [`RawAnswer::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAnAnswer> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(NotAnAnswer)?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| NotAnAnswer)?;
        let mut words = head.split(' ');
        let (Some(status), Some(micros), Some(delay), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(NotAnAnswer);
        };
        let retry_after = match delay {
            "-" => None,
            seconds => Some(Duration::from_secs(seconds.parse().map_err(|_| NotAnAnswer)?)),
        };
        let micros = micros.parse().map_err(|_| NotAnAnswer)?;
        Ok(Self {
            status: status.parse().map_err(|_| NotAnAnswer)?,
            body: Zeroizing::new(bytes[end + 1..].to_vec()),
            received_at: DateTime::from_timestamp_micros(micros).ok_or(NotAnAnswer)?,
            retry_after,
        })
    }
}

/// Why a token request gave no token set (the table of DESIGN.md section 7). Texts hold nothing of the provider's but the
/// error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No byte of the request left: nothing can be spent.
    #[error("the token endpoint was not reached: {reason}")]
    NotSent {
        /// What kept it from leaving.
        reason: String,
    },
    /// It was sent, and no complete answer that parses came: the grant may be spent.
    #[error("the token endpoint's answer is missing or not understood: {reason}")]
    Unknown {
        /// What is missing or wrong.
        reason: String,
    },
    /// The grant was refused: `invalid_grant`, `expired_grant`, `unauthorized_client`, `forbidden`.
    #[error("the grant was refused ({status} {code})")]
    GrantRejected {
        /// `error` of the answer.
        code: String,
        /// HTTP status.
        status: u16,
    },
    /// Our own settings were refused: `invalid_client`, or a request that is wrong for every seller.
    #[error("our own credentials or settings were refused ({status} {code})")]
    ClientRejected {
        /// `error` of the answer.
        code: String,
        /// HTTP status.
        status: u16,
    },
    /// 429: too many requests.
    #[error("the token endpoint asks to come later")]
    Throttled {
        /// How much later, where it says.
        retry_after: Option<Duration>,
    },
    /// The endpoint answered, and the answer is about itself (5xx, a page of something in between).
    #[error("the token endpoint is unavailable ({status})")]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// When to come again, where it says.
        retry_after: Option<Duration>,
    },
}

impl TokenError {
    /// HTTP status of the answer, where there was one that counts.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::NotSent { .. } | Self::Unknown { .. } => None,
            Self::GrantRejected { status, .. }
            | Self::ClientRejected { status, .. }
            | Self::Unavailable { status, .. } => Some(*status),
            Self::Throttled { .. } => Some(429),
        }
    }
}

/// The token set that an answer holds, or what the answer means instead.
pub fn parse_answer(answer: &RawAnswer) -> Result<TokenSet, TokenError> {
    parse_with_life(answer, DOCUMENTED_LIFE)
}

/// The same for grants whose documented life is another.
pub(super) fn parse_with_life(answer: &RawAnswer, default_life: TimeDelta) -> Result<TokenSet, TokenError> {
    match answer.status {
        200..=299 => token_set(answer, default_life).map_err(|reason| TokenError::Unknown { reason }),
        status => Err(refusal(status, answer)),
    }
}

/// A good answer. Secrets are strings or the answer is not understood; the rest is taken as it comes.
#[derive(Deserialize)]
struct Tokens {
    access_token: Secret,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default)]
    token_type: Value,
    #[serde(default)]
    expires_in: Value,
    #[serde(default)]
    scope: Value,
    #[serde(default)]
    user_id: Value,
    #[serde(default)]
    public_key: Value,
    #[serde(default)]
    live_mode: Value,
}

/// Text that is wiped when it is dropped.
struct Secret(Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

fn token_set(answer: &RawAnswer, default_life: TimeDelta) -> Result<TokenSet, String> {
    let tokens: Tokens = serde_json::from_slice(&answer.body).map_err(|error| describe(&error))?;
    if !is_token(&tokens.access_token.0) {
        return Err("`access_token` is empty or cannot stand in a header".to_owned());
    }
    let refresh_token = tokens.refresh_token.filter(|token| !token.0.is_empty());
    if refresh_token.as_ref().is_some_and(|token| !is_token(&token.0)) {
        return Err("`refresh_token` holds characters that no token has".to_owned());
    }
    // RFC 6749 section 7.1: a token of a type that the client does not understand is not used.
    match &tokens.token_type {
        Value::Null => {}
        Value::String(kind) if kind.eq_ignore_ascii_case("bearer") => {}
        _ => return Err("`token_type` is not bearer".to_owned()),
    }
    let user_id = whole_number(&tokens.user_id)
        .filter(|id| *id > 0)
        .ok_or("`user_id` is missing or not a number")?;
    let life = whole_number(&tokens.expires_in)
        .and_then(TimeDelta::try_seconds)
        .filter(|life| *life > TimeDelta::zero() && *life <= LONGEST_LIFE)
        .unwrap_or(default_life);
    Ok(TokenSet {
        access_token: AccessToken::new(tokens.access_token.0.as_str()),
        refresh_token: refresh_token.map(|token| RefreshToken::new(token.0.as_str())),
        obtained_at: answer.received_at,
        expires_at: answer.received_at + life,
        scopes: words(&tokens.scope),
        public_key: tokens
            .public_key
            .as_str()
            .filter(|key| !key.is_empty())
            .map(str::to_owned),
        live_mode: truth(&tokens.live_mode),
        user_id: UserId(user_id),
    })
}

/// Where the JSON is wrong, without any of its text (serde's message may quote a value).
fn describe(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "it is not JSON",
        serde_json::error::Category::Data | serde_json::error::Category::Io => {
            "it holds no `access_token` string, or a `refresh_token` that is no string"
        }
    };
    format!("{kind} (line {}, column {})", error.line(), error.column())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[expect(clippy::cast_possible_truncation, reason = "guarded by the range before it")]
fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            (float.fract() == 0.0 && float.abs() < 9.0e15).then_some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Scopes are space-separated (RFC 6749 section 3.3); a list is taken too.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// An error answer, in either variant (`message` or `error_description` beside `error`; neither text is kept).
fn refusal(status: u16, answer: &RawAnswer) -> TokenError {
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(default)]
        error: Value,
    }
    let retry_after = answer.retry_after;
    if status == 429 {
        return TokenError::Throttled { retry_after };
    }
    let code = serde_json::from_slice::<Refusal>(&answer.body).ok();
    let code = code
        .as_ref()
        .and_then(|refusal| refusal.error.as_str())
        .map(visible);
    match (status, code) {
        (400..=499, Some(code)) if GRANT_CODES.contains(&code.as_str()) => {
            TokenError::GrantRejected { code, status }
        }
        (400..=499, Some(code)) if CLIENT_CODES.contains(&code.as_str()) => {
            TokenError::ClientRejected { code, status }
        }
        (401, code) => TokenError::ClientRejected {
            code: code.unwrap_or_else(|| "unauthorized".to_owned()),
            status,
        },
        // A 4xx whose code nobody documents may come from something in between: it condemns neither seller nor settings.
        _ => TokenError::Unavailable { status, retry_after },
    }
}

/// Codes that speak of the seller's grant.
const GRANT_CODES: [&str; 4] = [
    "invalid_grant",
    "expired_grant",
    "unauthorized_client",
    "forbidden",
];

/// Codes that speak of our own credentials or of a request that would be wrong for every seller.
const CLIENT_CODES: [&str; 4] = [
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "unsupported_grant_type",
];

/// A code as it may stand in a log: visible ASCII, bounded.
fn visible(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_graphic)
        .take(LONGEST_CODE)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: impl AsRef<[u8]>) -> RawAnswer {
        RawAnswer {
            status,
            body: Zeroizing::new(body.as_ref().to_vec()),
            received_at: DateTime::UNIX_EPOCH,
            retry_after: None,
        }
    }

    fn good() -> Value {
        json!({
            "access_token": "APP_USR-1-0115-abc-241983636", "token_type": "Bearer", "expires_in": 15_552_000,
            "scope": "offline_access read write", "user_id": 241_983_636, "refresh_token": "TG-abc-241983636",
            "public_key": "APP_USR-key", "live_mode": true
        })
    }

    fn with(member: &str, value: Value) -> Result<TokenSet, TokenError> {
        let mut body = good();
        body[member] = value;
        parse_answer(&answer(200, body.to_string()))
    }

    fn without(member: &str) -> Result<TokenSet, TokenError> {
        let mut body = good();
        body.as_object_mut().unwrap().remove(member);
        parse_answer(&answer(200, body.to_string()))
    }

    #[test]
    fn the_documented_answer_gives_every_member() {
        let tokens = parse_answer(&answer(200, good().to_string())).unwrap();
        assert_eq!(tokens.access_token.expose(), "APP_USR-1-0115-abc-241983636");
        assert_eq!(tokens.refresh_token.unwrap().expose(), "TG-abc-241983636");
        assert_eq!(tokens.user_id, UserId(241_983_636));
        assert_eq!(tokens.expires_at, DateTime::UNIX_EPOCH + TimeDelta::days(180));
        assert_eq!(tokens.scopes, ["offline_access", "read", "write"]);
        assert_eq!(tokens.public_key.as_deref(), Some("APP_USR-key"));
        assert_eq!(tokens.live_mode, Some(true));
    }

    #[test]
    fn numbers_may_come_as_strings() {
        assert_eq!(
            with("user_id", json!("241983636")).unwrap().user_id,
            UserId(241_983_636)
        );
        let tokens = with("expires_in", json!("21600")).unwrap();
        assert_eq!(tokens.expires_at, DateTime::UNIX_EPOCH + TimeDelta::hours(6));
        assert_eq!(
            with("expires_in", json!(21600.0)).unwrap().expires_at,
            tokens.expires_at
        );
    }

    #[test]
    fn a_missing_or_absurd_life_is_the_documented_one() {
        let documented = DateTime::UNIX_EPOCH + TimeDelta::days(180);
        assert_eq!(without("expires_in").unwrap().expires_at, documented);
        for absurd in [
            json!(0),
            json!(-1),
            json!(i64::MAX),
            json!(1e300),
            json!("soon"),
            json!(null),
            json!([1]),
        ] {
            assert_eq!(
                with("expires_in", absurd.clone()).unwrap().expires_at,
                documented,
                "{absurd}"
            );
        }
    }

    #[test]
    fn what_is_not_needed_may_be_missing_or_of_another_type() {
        for member in ["refresh_token", "token_type", "scope", "public_key", "live_mode"] {
            assert!(without(member).is_ok(), "{member}");
            assert!(with(member, Value::Null).is_ok(), "{member}");
        }
        assert!(without("refresh_token").unwrap().refresh_token.is_none());
        assert!(with("refresh_token", json!("")).unwrap().refresh_token.is_none());
        assert!(with("scope", json!(7)).unwrap().scopes.is_empty());
        assert_eq!(with("live_mode", json!("false")).unwrap().live_mode, Some(false));
        assert!(with("token_type", json!("BEARER")).is_ok());
    }

    #[test]
    fn a_good_status_without_tokens_is_an_unknown_outcome() {
        let unknown =
            |result: Result<TokenSet, TokenError>| matches!(result, Err(TokenError::Unknown { .. }));
        assert!(unknown(without("access_token")) && unknown(without("user_id")));
        assert!(unknown(with("access_token", json!(7))) && unknown(with("access_token", json!(""))));
        assert!(unknown(with("access_token", json!("a\r\nb"))) && unknown(with("refresh_token", json!(7))));
        assert!(unknown(with("user_id", json!("x"))) && unknown(with("user_id", json!(0))));
        assert!(unknown(with("token_type", json!("mac"))));
        for body in [
            "",
            "{",
            "[]",
            "null",
            "<html>",
            "{\"error\":\"invalid_grant\"}",
            "\u{0}\u{1}",
        ] {
            assert!(unknown(parse_answer(&answer(200, body))), "{body}");
        }
    }

    #[test]
    fn an_error_text_never_quotes_the_answer() {
        let error = parse_answer(&answer(
            200,
            r#"{"access_token": 12345678901234567, "x": "canary"}"#,
        ))
        .unwrap_err();
        assert!(
            !error.to_string().contains("canary") && !error.to_string().contains("12345"),
            "{error}"
        );
        let error =
            parse_answer(&answer(400, r#"{"error":"canary token: TG-1","message":"TG-2"}"#)).unwrap_err();
        assert_eq!(
            error,
            TokenError::Unavailable {
                status: 400,
                retry_after: None
            }
        );
    }

    #[test]
    fn refusals_are_told_apart_by_their_code() {
        let refused = |status: u16, code: &str| {
            let variants = [
                json!({"message": "m", "error": code, "status": status, "cause": []}),
                json!({"error": code, "error_description": "d"}),
            ];
            let [one, other] =
                variants.map(|body| parse_answer(&answer(status, body.to_string())).unwrap_err());
            assert_eq!(one, other);
            one
        };
        for code in [
            "invalid_grant",
            "expired_grant",
            "unauthorized_client",
            "forbidden",
        ] {
            for status in [400, 401, 403] {
                assert_eq!(
                    refused(status, code),
                    TokenError::GrantRejected {
                        code: code.to_owned(),
                        status
                    }
                );
            }
        }
        for code in [
            "invalid_client",
            "invalid_request",
            "invalid_scope",
            "unsupported_grant_type",
        ] {
            assert_eq!(
                refused(400, code),
                TokenError::ClientRejected {
                    code: code.to_owned(),
                    status: 400
                }
            );
        }
        assert!(matches!(
            refused(401, "anything"),
            TokenError::ClientRejected { .. }
        ));
        assert_eq!(
            refused(429, "local_rate_limited"),
            TokenError::Throttled { retry_after: None }
        );
        assert!(matches!(
            refused(500, "invalid_grant"),
            TokenError::Unavailable { status: 500, .. }
        ));
        assert!(matches!(
            refused(400, "bad_request"),
            TokenError::Unavailable { status: 400, .. }
        ));
    }

    #[test]
    fn answers_that_are_no_json_condemn_nobody() {
        for status in [301, 302, 400, 403, 404, 500, 502, 503] {
            assert_eq!(
                parse_answer(&answer(status, "<html>")).unwrap_err(),
                TokenError::Unavailable {
                    status,
                    retry_after: None
                }
            );
        }
        assert!(matches!(
            parse_answer(&answer(401, "")).unwrap_err(),
            TokenError::ClientRejected { .. }
        ));
    }

    #[test]
    fn an_answer_comes_back_from_its_bytes_unchanged() {
        let mut kept = answer(200, b"\x00\n\xff binary\n");
        kept.retry_after = Some(Duration::from_secs(9));
        let back = RawAnswer::from_bytes(&kept.to_bytes()).unwrap();
        assert_eq!(
            (back.status, back.received_at, back.retry_after),
            (200, DateTime::UNIX_EPOCH, kept.retry_after)
        );
        assert_eq!(back.body, kept.body);
        for bad in ["", "200", "200 0\n", "x 0 -\n", "200 0 - 1\n"] {
            assert!(RawAnswer::from_bytes(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics_or_makes_a_token_from_nothing(status in 100_u16..600, body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert!(parse_answer(&answer(status, body)).is_err());
        }
    }
}
