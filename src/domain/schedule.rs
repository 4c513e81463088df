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
    fn a_million_sellers_of_one_day_make_a_year_without_a_peak() {
        const SELLERS: i64 = 1_000_000;
        const HOURS: usize = 365 * 24;
        let (random, schedule) = (Random::seeded(3), RefreshSchedule::default());
        let (start, life) = (DateTime::UNIX_EPOCH, Duration::days(180));
        let mut refreshes = vec![0_u32; HOURS];
        let mut latest = Duration::zero();
        for seller in 0..SELLERS {
            let mut obtained_at = start + Duration::microseconds(86_400_000_000 / SELLERS * seller);
            let id = ConnectionId::new(obtained_at, &random);
            for generation in 1.. {
                let due = schedule.due_at(&id, generation, obtained_at, obtained_at + life);
                latest = latest.max(due - obtained_at);
                let hour = usize::try_from((due - start).num_hours()).unwrap();
                let Some(refreshes) = refreshes.get_mut(hour) else {
                    break;
                };
                *refreshes += 1;
                obtained_at = due;
            }
        }
        assert!(
            latest < Duration::days(119),
            "a token waited {latest} of its {life}"
        );
        let first = refreshes.iter().position(|n| *n > 0).unwrap();
        assert!(first >= 73 * 24, "{first}");
        let total: u32 = refreshes.iter().sum();
        let most = refreshes.iter().max().unwrap();
        let mean = total / u32::try_from(HOURS).unwrap();
        eprintln!(
            "{SELLERS} sellers, a year: {total} refreshes, {mean} an hour on average and {most} at most"
        );
        assert!(
            *most < 3 * mean,
            "{most} refreshes in one hour, {mean} on average"
        );
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
