//! Time comes in as an argument, so that a test can hold it: nothing else in the crate asks the system what time it is
//! (`.clippy.toml` bans it).
//!
//! Guarantees that instants have microsecond precision, because PostgreSQL keeps no more: what is read back from a store
//! equals what was written. Does not cover deadlines of a single I/O operation; those are the runtime's timers.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use chrono::{DateTime, Duration, SubsecRound, Utc};

/// Where the current time comes from.
pub trait Clock: Debug + Send + Sync {
    /// The current instant in UTC, truncated to microseconds.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the system is asked"
        )]
        let now = SystemTime::now();
        // Not `Utc::now` with its fraction cut off: every proxied call asks, and this costs half.
        let micros = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_micros());
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

/// A clock that moves only when told to. Clones share the instant, so whoever made it holds one end.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<DateTime<Utc>>>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(start.trunc_subsecs(6))))
    }

    /// Moves the clock by `by` (backwards if negative).
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another clock plus an offset that can be moved: time goes on, and can be advanced besides. Clones share the offset.
#[derive(Debug, Clone)]
pub struct OffsetClock {
    base: Arc<dyn Clock>,
    offset: Arc<Mutex<Duration>>,
}

impl OffsetClock {
    /// A clock that shows what `base` shows until it is advanced.
    pub fn new(base: Arc<dyn Clock>) -> Self {
        Self {
            base,
            offset: Arc::new(Mutex::new(Duration::zero())),
        }
    }

    /// Moves the clock by `by` on top of the time that passes by itself.
    pub fn advance(&self, by: Duration) {
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        *offset += by;
    }
}

impl Clock for OffsetClock {
    fn now(&self) -> DateTime<Utc> {
        self.base.now() + *self.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_a_store_with_microsecond_precision() {
        let now = SystemClock.now();
        assert_eq!(now, now.trunc_subsecs(6));
    }

    #[test]
    fn clones_of_a_manual_clock_share_the_instant() {
        let clock = ManualClock::at(DateTime::UNIX_EPOCH);
        let other = clock.clone();
        other.advance(Duration::days(180));
        assert_eq!(clock.now(), DateTime::UNIX_EPOCH + Duration::days(180));
    }

    #[test]
    fn an_offset_clock_adds_to_its_base() {
        let base = ManualClock::at(DateTime::UNIX_EPOCH);
        let clock = OffsetClock::new(Arc::new(base.clone()));
        clock.advance(Duration::hours(1));
        base.advance(Duration::minutes(1));
        assert_eq!(clock.now(), DateTime::UNIX_EPOCH + Duration::minutes(61));
    }
}
