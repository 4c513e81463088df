//! `X-Request-Id`: the caller's, if it sent 1 to 128 visible characters, else one of ours. It stands in every answer, log
//! line and audit row of the request.

use http::{HeaderMap, HeaderValue};

use crate::domain::clock::Clock;
use crate::domain::random::Random;

/// The request's id, as an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's id, or a new one that sorts by time.
    pub fn of(headers: &HeaderMap, clock: &dyn Clock, random: &Random) -> Self {
        let mut sent = headers.get_all("x-request-id").iter();
        let visible = |value: &&HeaderValue| {
            (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        if let (Some(value), None) = (sent.next().filter(visible), sent.next()) {
            return Self(value.clone());
        }
        let id = random.uuid_at(clock.now()).simple().to_string();
        // Hex digits always make a header's value.
        Self(HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("0")))
    }

    /// The id as a text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as a header's value.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::SystemClock;

    #[test]
    fn a_callers_id_is_kept_if_it_is_one_visible_word() {
        let of = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-request-id", HeaderValue::from_bytes(value).unwrap());
            }
            RequestId::of(&headers, &SystemClock, &Random::system())
                .as_str()
                .to_owned()
        };
        assert_eq!(of(&[b"order-42/7"]), "order-42/7");
        let long = [b'x'; 129];
        let cases: [&[&[u8]]; 6] = [&[], &[b""], &[b"a b"], &["ñ".as_bytes()], &[b"a", b"b"], &[&long]];
        for refused in cases {
            assert_eq!(of(refused).len(), 32, "{refused:?}");
        }
    }
}
