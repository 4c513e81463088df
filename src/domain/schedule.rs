//! When a token set is renewed: between 41 % and 66 % of its life by default (day 74 to 119 of 180), spread by connection
//! and generation, so that a million sellers imported in one day do not come due together (DESIGN.md section 7).

use chrono::{DateTime, Duration, Utc};
use sha2::{Digest as _, Sha256};

use super::ids::ConnectionId;
use super::random::unit_from;

/// `REFRESH_AT_FRACTION` and `REFRESH_SPREAD`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RefreshSchedule {
    /// The latest planned moment, as a fraction of the life.
    pub at_fraction: f64,
    /// How far before it the earliest moment lies, as a fraction of the life.
    pub spread: f64,
}

impl Default for RefreshSchedule {
    fn default() -> Self {
        Self {
            at_fraction: 0.66,
            spread: 0.25,
        }
    }
}

impl RefreshSchedule {
    /// `obtained_at + life x (fraction - spread x u)`, with `u` in `[0, 1)` derived from connection and generation: the same
    /// on every replica and after every restart.
    pub fn due_at(
        &self,
        connection: &ConnectionId,
        generation: i64,
        obtained_at: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> DateTime<Utc> {
        let mut hash = Sha256::new();
        hash.update(connection.as_str());
        hash.update(generation.to_be_bytes());
        let mut bits = [0_u8; 8];
        bits.copy_from_slice(&hash.finalize()[..8]);
        let unit = unit_from(u64::from_be_bytes(bits));
        obtained_at + scale(expires_at - obtained_at, self.at_fraction - self.spread * unit)
    }
}

/// A duration times a factor, in whole microseconds (what a store keeps).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "180 days in microseconds are 2^44"
)]
pub fn scale(duration: Duration, factor: f64) -> Duration {
    let microseconds = duration.num_microseconds().unwrap_or(i64::MAX);
    Duration::microseconds((microseconds as f64 * factor) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::random::Random;

    #[test]
    fn a_million_sellers_of_one_day_come_due_evenly_between_day_74_and_119() {
        let random = Random::seeded(3);
        let start = DateTime::UNIX_EPOCH;
        let mut days = [0_u32; 180];
        for _ in 0..100_000 {
            let id = ConnectionId::new(start, &random);
            let due = RefreshSchedule::default().due_at(&id, 1, start, start + Duration::days(180));
            days[usize::try_from((due - start).num_days()).unwrap()] += 1;
        }
        let first = days.iter().position(|n| *n > 0).unwrap();
        let last = days.iter().rposition(|n| *n > 0).unwrap();
        assert!(first >= 73 && last <= 118, "{first} {last}");
        let mean = 100_000 / 45;
        assert!(days.iter().all(|n| *n < 2 * mean));
    }

    #[test]
    fn the_moment_is_the_same_everywhere_and_moves_with_the_generation() {
        let id = ConnectionId::new(DateTime::UNIX_EPOCH, &Random::seeded(1));
        let end = DateTime::UNIX_EPOCH + Duration::days(180);
        let due = |generation| RefreshSchedule::default().due_at(&id, generation, DateTime::UNIX_EPOCH, end);
        assert_eq!(due(1), due(1));
        assert_ne!(due(1), due(2));
    }
}
