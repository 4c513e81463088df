//! When a request may be sent again, as one pure function (DESIGN.md section 8).
//!
//! Guarantees that nothing that may have reached Mercado Pago is repeated unless repeating is harmless: reads, and what
//! carries an idempotency key on a route that honours it. Says nothing about tokens; a replay after a 401 is another story.

use std::time::Duration;

use crate::mercadopago::routes::Replay;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No byte of the request left.
    NotSent,
    /// It may have reached Mercado Pago; the connection broke before the answer was there.
    Lost,
    /// It may have reached Mercado Pago; what came back is no HTTP answer.
    Garbled,
    /// It may have reached Mercado Pago; the deadline passed.
    TimedOut,
    /// Mercado Pago answered with this status.
    Answered {
        /// The status.
        status: u16,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// What is known of a call when an attempt of it failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// Class of the route.
    pub(super) replay: Replay,
    /// Whether the request carries an idempotency key, the caller's or ours.
    pub(super) keyed: bool,
    /// Whether the body can be sent once more.
    pub(super) body_at_hand: bool,
    /// How many more attempts there may be.
    pub(super) attempts_left: u32,
    /// Time until the deadline.
    pub(super) time_left: Duration,
}

/// After how long to send it again; none if it must not be.
///
/// `backoff` is the delay of this round when Mercado Pago names none.
pub(super) fn decide(situation: Situation, failure: Failure, backoff: Duration) -> Option<Duration> {
    let Situation {
        replay,
        keyed,
        body_at_hand,
        attempts_left,
        time_left,
    } = situation;
    if attempts_left == 0 || !body_at_hand {
        return None;
    }
    let repeatable = match replay {
        Replay::Read => true,
        Replay::Keyed => keyed,
        Replay::Never => false,
    };
    let delay = match failure {
        Failure::NotSent => backoff,
        Failure::Lost if repeatable => backoff,
        Failure::Answered {
            status: 502..=504,
            retry_after,
        } if repeatable => retry_after.unwrap_or(backoff).max(backoff),
        Failure::Answered {
            status: 429,
            retry_after: Some(delay),
        } if repeatable => delay.max(backoff),
        Failure::Lost | Failure::Garbled | Failure::TimedOut | Failure::Answered { .. } => return None,
    };
    (delay < time_left).then_some(delay)
}

/// Whether an answer of this status can lead to a repetition at all: spares the common answer everything else.
pub(super) fn may_repeat(status: u16) -> bool {
    matches!(status, 429 | 502..=504)
}

/// The delay before the `round`th repetition (from 0): 50 ms doubling to 1.6 s, times 0.5 to 1.5 by `unit` in `[0, 1)`, so
/// that callers which failed together do not come back together.
pub(super) fn backoff(round: u32, unit: f64) -> Duration {
    Duration::from_millis(50 << round.min(5)).mul_f64(0.5 + unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_secs(2));
    const LATE: Option<Duration> = Some(Duration::from_mins(1));

    fn failures() -> Vec<(Failure, &'static str)> {
        let answered = |status, retry_after| Failure::Answered { status, retry_after };
        // The second column: for whom it may be sent again. `any`, `safe` (reads and keyed), `nobody`.
        vec![
            (Failure::NotSent, "any"),
            (Failure::Lost, "safe"),
            (Failure::Garbled, "nobody"),
            (Failure::TimedOut, "nobody"),
            (answered(502, None), "safe"),
            (answered(503, None), "safe"),
            (answered(503, SOON), "safe"),
            (answered(503, LATE), "nobody"),
            (answered(504, None), "safe"),
            (answered(429, SOON), "safe"),
            (answered(429, LATE), "nobody"),
            (answered(429, None), "nobody"),
            (answered(200, None), "nobody"),
            (answered(201, None), "nobody"),
            (answered(302, None), "nobody"),
            (answered(400, None), "nobody"),
            (answered(401, None), "nobody"),
            (answered(403, None), "nobody"),
            (answered(404, None), "nobody"),
            (answered(409, None), "nobody"),
            (answered(423, SOON), "nobody"),
            (answered(500, None), "nobody"),
            (answered(501, None), "nobody"),
            (answered(505, None), "nobody"),
        ]
    }

    #[test]
    fn every_combination_is_decided_by_the_table() {
        let backoff = Duration::from_millis(100);
        for (failure, whom) in failures() {
            for replay in [Replay::Read, Replay::Keyed, Replay::Never] {
                for keyed in [true, false] {
                    for body_at_hand in [true, false] {
                        for attempts_left in [0, 1, 2] {
                            let time_left = Duration::from_secs(30);
                            let situation = Situation {
                                replay,
                                keyed,
                                body_at_hand,
                                attempts_left,
                                time_left,
                            };
                            let safe = replay == Replay::Read || (replay == Replay::Keyed && keyed);
                            let may = match whom {
                                "any" => true,
                                "safe" => safe,
                                _ => false,
                            };
                            let expected = may && body_at_hand && attempts_left > 0;
                            let decided = decide(situation, failure, backoff);
                            assert_eq!(decided.is_some(), expected, "{failure:?} {situation:?}");
                            if let Failure::Answered { status, .. } = failure {
                                assert!(may_repeat(status) || !expected, "{status}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_repetition_waits_as_long_as_it_is_asked_and_never_past_the_deadline() {
        let at = |time_left: u64, failure| {
            let time_left = Duration::from_millis(time_left);
            let situation = Situation {
                replay: Replay::Read,
                keyed: false,
                body_at_hand: true,
                attempts_left: 1,
                time_left,
            };
            decide(situation, failure, Duration::from_millis(100))
        };
        let throttled = Failure::Answered {
            status: 429,
            retry_after: SOON,
        };
        assert_eq!(at(5000, throttled), SOON);
        assert_eq!(at(2000, throttled), None);
        assert_eq!(at(5000, Failure::NotSent), Some(Duration::from_millis(100)));
        assert_eq!(at(100, Failure::NotSent), None);
        let at_once = Failure::Answered {
            status: 503,
            retry_after: Some(Duration::ZERO),
        };
        assert_eq!(at(5000, at_once), Some(Duration::from_millis(100)));
    }

    #[test]
    fn backoff_grows_and_is_spread() {
        assert_eq!(backoff(0, 0.0), Duration::from_millis(25));
        assert_eq!(backoff(1, 0.5), Duration::from_millis(100));
        assert_eq!(backoff(40, 0.5), Duration::from_millis(1600));
    }
}
