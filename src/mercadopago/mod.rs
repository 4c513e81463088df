//! All that is the provider's: its endpoints, its answers, its routes and its reasons for declining. Nothing outside this
//! folder knows how Mercado Pago spells things; facts and their sources stand in the provider's own documents.

pub mod api;
pub mod application;
pub mod declines;
pub mod http_client;
pub mod notification;
#[cfg(test)]
pub(crate) mod peer;
pub mod routes;
pub mod token_answer;
pub mod token_endpoint;

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The longest that a `Retry-After` is believed; a typo over there must not park a seller for a year.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);

/// `Retry-After` (RFC 9110 section 10.2.3) as a delay from `now`: seconds or a date; none where it is missing or neither.
pub fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now)
            .to_std()
            .unwrap_or_default(),
    };
    Some(delay.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(text: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        let now = DateTime::parse_from_rfc3339("2026-11-06T08:49:00Z")
            .unwrap()
            .to_utc();
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_never_longer_than_a_day() {
        assert_eq!(delay("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            delay("Fri, 06 Nov 2026 08:49:37 GMT"),
            Some(Duration::from_secs(37))
        );
        assert_eq!(delay("Fri, 06 Nov 2020 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(delay("99999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(delay("soon"), None);
        assert_eq!(delay("-3"), None);
    }
}
