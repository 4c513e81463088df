//! How long and how large a run is, and the seed that its disturbances come from.

use std::fmt;
use std::time::Duration;

use marketplace_connector::domain::random::Random;

/// What the environment asks for; the short form where it asks for nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) sellers: usize,
    pub(crate) duration: Duration,
    /// Of an access token: short enough that each is renewed several times.
    pub(crate) life: Duration,
    pub(crate) calls_per_second: f64,
}

impl Plan {
    pub(crate) fn from_environment() -> Self {
        let seconds = number("FAULTS_SECONDS", 12);
        Self {
            seed: number("FAULTS_SEED", 20_261_121),
            sellers: usize::try_from(number("FAULTS_SELLERS", 60)).unwrap(),
            duration: Duration::from_secs(seconds),
            life: Duration::from_secs((seconds / 3).clamp(16, 180)),
            calls_per_second: if is_long() { 200.0 } else { 60.0 },
        }
    }

    /// Chance for one purpose of the run.
    pub(crate) fn chance(&self, purpose: u64) -> Random {
        Random::seeded(self.seed.wrapping_mul(1_000).wrapping_add(purpose))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FAULTS_SEED={} FAULTS_SECONDS={} FAULTS_SELLERS={}, access tokens live {} s",
            self.seed,
            self.duration.as_secs(),
            self.sellers,
            self.life.as_secs()
        )
    }
}

/// Whether the long form was asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("FAULTS_SECONDS").is_some()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {value}"))
    })
}
