//! `X-Request-Id`: the caller's, if it sent 1 to 128 visible characters, else one of ours. It stands in every answer, log
//! line and audit row of the request.
//!
//! Ours is a random number of this process and a count, so that an id costs a call no question to the operating system.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::random::Random;

/// Made once: looking a header up by a text would read the text anew for every call.
static NAME: HeaderName = HeaderName::from_static("x-request-id");

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The request's id, as an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's id, or a new one.
    pub fn of(headers: &HeaderMap, random: &Random) -> Self {
        let mut sent = headers.get_all(&NAME).iter();
        let visible = |value: &&HeaderValue| {
            (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        if let (Some(value), None) = (sent.next().filter(visible), sent.next()) {
            return Self(value.clone());
        }
        Self::made(random)
    }

    fn made(random: &Random) -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let process = *PROCESS.get_or_init(|| u64::from_le_bytes(random.bytes()));
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let bytes = [process.to_be_bytes(), count.to_be_bytes()];
        let mut text = [0; 32];
        for (byte, digits) in bytes.as_flattened().iter().zip(text.as_chunks_mut().0) {
            *digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]];
        }
        // Hex digits always make a header's value.
        Self(HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0")))
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

    #[test]
    fn a_callers_id_is_kept_if_it_is_one_visible_word() {
        let of = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-request-id", HeaderValue::from_bytes(value).unwrap());
            }
            RequestId::of(&headers, &Random::system()).as_str().to_owned()
        };
        assert_eq!(of(&[b"order-42/7"]), "order-42/7");
        let long = [b'x'; 129];
        let cases: [&[&[u8]]; 6] = [&[], &[b""], &[b"a b"], &["ñ".as_bytes()], &[b"a", b"b"], &[&long]];
        for refused in cases {
            assert_eq!(of(refused).len(), 32, "{refused:?}");
        }
    }

    #[test]
    fn no_two_of_ours_are_the_same() {
        let ours = || RequestId::of(&HeaderMap::new(), &Random::system());
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| ours().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
