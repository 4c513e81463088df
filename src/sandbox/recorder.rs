//! What arrived: the last requests, kept for tests and for `GET /_sandbox/requests`, and counters of the token endpoint.
//!
//! Bounded by number and by bytes, so that a load test costs no memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// Method.
    pub method: Method,
    /// Path as sent.
    pub path: String,
    /// Query string as sent, without `?`.
    pub query: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When, by the sandbox's clock.
    pub at: DateTime<Utc>,
}

const MAX_REQUESTS: usize = 2_000;
const MAX_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
struct Ring {
    requests: VecDeque<RecordedRequest>,
    bytes: usize,
}

/// The last requests and how many there were in all.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    ring: Mutex<Ring>,
    token_calls: Mutex<BTreeMap<String, u64>>,
}

impl Recorder {
    /// Notes a request.
    pub(super) fn note(&self, request: RecordedRequest) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += request.body.len();
        ring.requests.push_back(request);
        while ring.requests.len() > MAX_REQUESTS || (ring.bytes > MAX_BYTES && ring.requests.len() > 1) {
            let Some(oldest) = ring.requests.pop_front() else {
                return;
            };
            ring.bytes -= oldest.body.len();
        }
    }

    /// The last requests, oldest first.
    pub(super) fn requests(&self) -> Vec<RecordedRequest> {
        self.ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .requests
            .iter()
            .cloned()
            .collect()
    }

    /// Forgets the requests.
    pub(super) fn clear(&self) {
        *self.ring.lock().unwrap_or_else(PoisonError::into_inner) = Ring::default();
    }

    /// Counts a call of the token endpoint that was carried out.
    pub(super) fn count_token_call(&self, grant_type: &str) {
        let mut calls = self.token_calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry(String::from(grant_type)).or_default() += 1;
    }

    /// How many calls of the token endpoint with this grant type were carried out, refused ones included.
    pub(super) fn token_calls(&self, grant_type: &str) -> u64 {
        self.token_calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(grant_type)
            .copied()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: usize) -> RecordedRequest {
        RecordedRequest {
            method: Method::POST,
            path: String::from("/v1/payments"),
            query: None,
            headers: HeaderMap::new(),
            body: Bytes::from(vec![0; bytes]),
            at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn memory_is_bounded_by_number_and_by_bytes() {
        let recorder = Recorder::default();
        for _ in 0..MAX_REQUESTS + 10 {
            recorder.note(request(1));
        }
        assert_eq!(recorder.requests().len(), MAX_REQUESTS);
        for _ in 0..3 {
            recorder.note(request(MAX_BYTES / 2));
        }
        assert!(recorder.requests().len() <= 2);
    }
}
