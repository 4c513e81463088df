//! A breaker per application: when the token endpoint fails again and again, this replica stops asking for a while instead
//! of spending attempts one seller after the other. In memory only; every replica finds out by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Duration, Utc};

use crate::domain::ids::ApplicationId;

/// So many failures in a row open the breaker.
const FAILURES_TO_OPEN: u32 = 5;
/// How long it stays open at first; doubles with each failure of the one attempt that is let through afterwards.
const FIRST_REST: Duration = Duration::seconds(5);
const LONGEST_REST: Duration = Duration::minutes(5);

#[derive(Debug, Clone, Copy)]
struct State {
    failures: u32,
    open_until: DateTime<Utc>,
}

/// The breakers of all applications.
#[derive(Debug, Default)]
pub(super) struct Breakers(Mutex<HashMap<ApplicationId, State>>);

impl Breakers {
    /// Until when nothing is asked of the application's token endpoint; none when it may be asked.
    pub(super) fn open_until(
        &self,
        application: &ApplicationId,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states
            .get(application)
            .map(|state| state.open_until)
            .filter(|until| *until > now)
    }

    /// The endpoint answered sensibly.
    pub(super) fn succeeded(&self, application: &ApplicationId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(application);
    }

    /// The endpoint failed, and may have said when to come again.
    pub(super) fn failed(
        &self,
        application: &ApplicationId,
        retry_after: Option<Duration>,
        now: DateTime<Utc>,
    ) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states.entry(application.clone()).or_insert(State {
            failures: 0,
            open_until: now,
        });
        // While it rests, only attempts fail that were in the air when it opened: they tell nothing new.
        let mut rest = Duration::zero();
        if state.open_until <= now {
            state.failures = state.failures.saturating_add(1);
            if let Some(beyond) = state.failures.checked_sub(FAILURES_TO_OPEN) {
                rest = (FIRST_REST * 2_i32.pow(beyond.min(10))).min(LONGEST_REST);
            }
        }
        let rest = rest.max(retry_after.unwrap_or_default().min(LONGEST_REST));
        state.open_until = state.open_until.max(now + rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    #[test]
    fn it_opens_after_five_failures_in_a_row_for_longer_and_longer_and_closes_with_a_success() {
        let (breakers, application) = (Breakers::default(), ApplicationId::default_application());
        for _ in 0..FAILURES_TO_OPEN - 1 {
            breakers.failed(&application, None, NOW);
            assert_eq!(breakers.open_until(&application, NOW), None);
        }
        breakers.failed(&application, None, NOW);
        assert_eq!(breakers.open_until(&application, NOW), Some(NOW + FIRST_REST));
        let later = NOW + FIRST_REST;
        assert_eq!(
            breakers.open_until(&application, later),
            None,
            "one attempt is let through"
        );
        breakers.failed(&application, None, later);
        assert_eq!(
            breakers.open_until(&application, later),
            Some(later + FIRST_REST * 2)
        );
        breakers.succeeded(&application);
        assert_eq!(breakers.open_until(&application, later), None);
    }

    #[test]
    fn a_crowd_that_was_in_the_air_when_it_opened_does_not_make_the_rest_longer() {
        let (breakers, application) = (Breakers::default(), ApplicationId::default_application());
        for _ in 0..FAILURES_TO_OPEN + 30 {
            breakers.failed(&application, None, NOW);
        }
        let until = NOW + FIRST_REST;
        assert_eq!(breakers.open_until(&application, NOW), Some(until));
        // Whoever is let through then and fails counts once more, and its crowd does not.
        for _ in 0..30 {
            breakers.failed(&application, None, until);
        }
        assert_eq!(
            breakers.open_until(&application, until),
            Some(until + FIRST_REST * 2)
        );
    }

    #[test]
    fn retry_after_opens_it_at_once_for_that_application_only() {
        let breakers = Breakers::default();
        let (one, other) = (ApplicationId::default_application(), "other".parse().unwrap());
        breakers.failed(&one, Some(Duration::seconds(30)), NOW);
        assert_eq!(breakers.open_until(&one, NOW), Some(NOW + Duration::seconds(30)));
        assert_eq!(breakers.open_until(&other, NOW), None);
    }
}
