//! What an answer of the token endpoint means for a connection: the table of DESIGN.md section 7, as one function that the
//! worker, a call on an expired token and the 401 path share. Pure, so that every row of the table is a test.

use chrono::{DateTime, Duration, Utc};

use crate::domain::connection::{Connection, RefreshAttempt, RefreshOutcome, Trigger};
use crate::mercadopago::token_endpoint::TokenError;

/// A grant that is refused for the first time is asked about again no sooner than this.
pub(super) const SECOND_REJECTION_AFTER: Duration = Duration::minutes(1);
/// First delay after a failure that is the provider's; doubles with each.
const FIRST_BACKOFF: Duration = Duration::seconds(15);
/// Longest delay while the access token is alive.
const LONGEST_BACKOFF: Duration = Duration::hours(1);
/// Longest delay once the access token is over: somebody is waiting.
const LONGEST_BACKOFF_EXPIRED: Duration = Duration::seconds(30);

/// What happens to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Tried again then; the connection stays as it is.
    Retry {
        outcome: RefreshOutcome,
        at: DateTime<Utc>,
    },
    /// The refresh token may be spent; spent once more then.
    Unknown { at: DateTime<Utc> },
    /// Refused for the first time: remembered, asked once more then.
    Doubt { at: DateTime<Utc> },
    /// The grant is dead: only the seller can mend it.
    ReconnectRequired { access_token_dead: bool },
    /// Our own settings are wrong: the application is suspended, the seller not touched.
    Suspend { at: DateTime<Utc> },
}

/// Decides by the answer, the attempt that it answers, and what is known of the connection. `jitter` is in `[0, 1)`.
pub(super) fn verdict(
    error: &TokenError,
    attempt: &RefreshAttempt,
    connection: &Connection,
    jitter: f64,
    now: DateTime<Utc>,
) -> Verdict {
    match error {
        TokenError::Unknown { .. } => Verdict::Unknown {
            at: crate::storage::retry_after_unknown(connection, now),
        },
        TokenError::GrantRejected { .. } => {
            let confirmed = attempt.after_unknown
                || attempt.trigger == Trigger::Unauthorized
                || connection
                    .first_rejected_at
                    .is_some_and(|first| now - first >= SECOND_REJECTION_AFTER);
            if confirmed {
                Verdict::ReconnectRequired {
                    access_token_dead: attempt.trigger == Trigger::Unauthorized,
                }
            } else {
                Verdict::Doubt {
                    at: now + jittered(SECOND_REJECTION_AFTER, jitter),
                }
            }
        }
        TokenError::ClientRejected { .. } => Verdict::Suspend {
            at: now + backoff(connection, None, jitter, now),
        },
        TokenError::Throttled { retry_after } => Verdict::Retry {
            outcome: RefreshOutcome::Throttled,
            at: now + backoff(connection, *retry_after, jitter, now),
        },
        TokenError::Unavailable { retry_after, .. } => Verdict::Retry {
            outcome: RefreshOutcome::Unavailable,
            at: now + backoff(connection, *retry_after, jitter, now),
        },
        TokenError::NotSent { .. } => Verdict::Retry {
            outcome: RefreshOutcome::Unavailable,
            at: now + backoff(connection, None, jitter, now),
        },
    }
}

/// Doubles with each failure, never longer than the cap, never beyond the end of a living access token, never shorter than
/// what the provider asked for.
fn backoff(
    connection: &Connection,
    retry_after: Option<std::time::Duration>,
    jitter: f64,
    now: DateTime<Utc>,
) -> Duration {
    let doublings = u32::try_from(connection.refresh_failures.clamp(0, 16)).unwrap_or(0);
    let left = connection.access_token_expires_at - now;
    let longest = if left > Duration::zero() {
        LONGEST_BACKOFF.min(left)
    } else {
        LONGEST_BACKOFF_EXPIRED
    };
    let delay = jittered(
        (FIRST_BACKOFF * 2_i32.pow(doublings)).min(LONGEST_BACKOFF),
        jitter,
    )
    .min(longest);
    retry_after
        .and_then(|asked| Duration::from_std(asked).ok())
        .map_or(delay, |asked| asked.max(delay))
}

/// Between one and two times the delay.
fn jittered(delay: Duration, jitter: f64) -> Duration {
    crate::domain::schedule::scale(delay, 1.0 + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refresh::tests::{attempt, connection};

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn rejected() -> TokenError {
        TokenError::GrantRejected {
            code: "invalid_grant".to_owned(),
            status: 400,
        }
    }

    #[test]
    fn a_first_refusal_is_doubted_and_asked_again_after_a_minute() {
        let Verdict::Doubt { at } = verdict(&rejected(), &attempt(), &connection(), 0.5, NOW) else {
            panic!()
        };
        assert!(at - NOW >= SECOND_REJECTION_AFTER && at - NOW <= SECOND_REJECTION_AFTER * 2);
    }

    #[test]
    fn a_second_refusal_is_final_only_after_a_minute() {
        let first = |ago| Connection {
            first_rejected_at: Some(NOW - ago),
            ..connection()
        };
        let soon = verdict(&rejected(), &attempt(), &first(Duration::seconds(59)), 0.0, NOW);
        assert!(matches!(soon, Verdict::Doubt { .. }));
        let later = verdict(&rejected(), &attempt(), &first(SECOND_REJECTION_AFTER), 0.0, NOW);
        assert_eq!(
            later,
            Verdict::ReconnectRequired {
                access_token_dead: false
            }
        );
    }

    #[test]
    fn a_refusal_after_an_unknown_outcome_is_final_and_leaves_the_access_token() {
        let attempt = RefreshAttempt {
            after_unknown: true,
            ..attempt()
        };
        let decided = verdict(&rejected(), &attempt, &connection(), 0.0, NOW);
        assert_eq!(
            decided,
            Verdict::ReconnectRequired {
                access_token_dead: false
            }
        );
    }

    #[test]
    fn a_refusal_after_a_confirmed_401_is_final_for_the_access_token_too() {
        let attempt = RefreshAttempt {
            trigger: Trigger::Unauthorized,
            ..attempt()
        };
        let decided = verdict(&rejected(), &attempt, &connection(), 0.0, NOW);
        assert_eq!(
            decided,
            Verdict::ReconnectRequired {
                access_token_dead: true
            }
        );
    }

    #[test]
    fn an_unknown_outcome_is_retried_after_ten_minutes_or_a_tenth_of_a_short_life() {
        let unknown = TokenError::Unknown {
            reason: "cut".to_owned(),
        };
        let long = verdict(&unknown, &attempt(), &connection(), 0.0, NOW);
        assert_eq!(
            long,
            Verdict::Unknown {
                at: NOW + Duration::minutes(10)
            }
        );
        let short = Connection {
            access_token_expires_at: NOW + Duration::seconds(50),
            obtained_at: NOW,
            ..connection()
        };
        let short = verdict(&unknown, &attempt(), &short, 0.0, NOW);
        assert_eq!(
            short,
            Verdict::Unknown {
                at: NOW + Duration::seconds(5)
            }
        );
    }

    #[test]
    fn our_own_mistake_touches_no_seller() {
        let error = TokenError::ClientRejected {
            code: "invalid_client".to_owned(),
            status: 400,
        };
        assert!(matches!(
            verdict(&error, &attempt(), &connection(), 0.0, NOW),
            Verdict::Suspend { .. }
        ));
    }

    #[test]
    fn the_providers_failures_are_retried_later_and_later_but_before_the_token_ends() {
        let error = TokenError::Unavailable {
            status: 503,
            retry_after: None,
        };
        let delay = |failures, left| {
            let connection = Connection {
                refresh_failures: failures,
                access_token_expires_at: NOW + left,
                ..connection()
            };
            match verdict(&error, &attempt(), &connection, 0.0, NOW) {
                Verdict::Retry { at, .. } => at - NOW,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(delay(0, Duration::days(60)), FIRST_BACKOFF);
        assert_eq!(delay(3, Duration::days(60)), FIRST_BACKOFF * 8);
        assert_eq!(delay(1000, Duration::days(60)), LONGEST_BACKOFF);
        assert_eq!(delay(1000, Duration::minutes(3)), Duration::minutes(3));
        assert_eq!(delay(1000, Duration::minutes(-3)), LONGEST_BACKOFF_EXPIRED);
    }

    #[test]
    fn retry_after_is_never_undercut() {
        let error = TokenError::Throttled {
            retry_after: Some(std::time::Duration::from_hours(2)),
        };
        let decided = verdict(&error, &attempt(), &connection(), 0.0, NOW);
        assert_eq!(
            decided,
            Verdict::Retry {
                outcome: RefreshOutcome::Throttled,
                at: NOW + Duration::hours(2)
            }
        );
    }
}
