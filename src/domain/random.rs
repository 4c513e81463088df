//! Chance comes in as an argument, like time: production asks the operating system, a test or the sandbox's `--seed` a
//! seeded generator.
//!
//! Never used for the vault's nonces and keys: a seeded generator beside a real key would repeat a nonce. The vault asks
//! the operating system itself.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use rand::rngs::{ChaCha20Rng, SysRng};
use rand::{Rng as _, SeedableRng as _, TryRng as _};
use uuid::Uuid;

/// A source of random bytes. Clones of a seeded source share its state.
#[derive(Clone)]
pub struct Random(Source);

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<ChaCha20Rng>>),
}

impl Random {
    /// The operating system's generator: unpredictable.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A generator that gives the same bytes for the same `seed`: never where a secret is made for real use.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(ChaCha20Rng::seed_from_u64(
            seed,
        )))))
    }

    /// `N` random bytes.
    ///
    /// # Panics
    /// If the operating system cannot give random bytes: nothing that this service does is safe then.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.0 {
            #[expect(
                clippy::expect_used,
                reason = "without randomness no secret can be made; stopping is the only answer"
            )]
            Source::System => SysRng
                .try_fill_bytes(&mut bytes)
                .expect("the operating system gives random bytes"),
            Source::Seeded(rng) => {
                rng.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .fill_bytes(&mut bytes);
            }
        }
        bytes
    }

    /// `N` random bytes as unpadded base64url (RFC 4648 section 5): 32 bytes give the 43 characters of a PKCE verifier.
    pub fn base64url<const N: usize>(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes::<N>())
    }

    /// A number in `[0, 1)`.
    pub fn unit(&self) -> f64 {
        unit_from(u64::from_le_bytes(self.bytes()))
    }

    /// A random UUID (version 4), for idempotency keys.
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// A UUID that sorts by time (version 7), for ids.
    pub fn uuid_at(&self, now: DateTime<Utc>) -> Uuid {
        let milliseconds = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(milliseconds, &self.bytes()).into_uuid()
    }
}

/// Maps 64 uniform bits to `[0, 1)` with the 53 bits that an `f64` can hold.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
pub fn unit_from(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Random(system)",
            Source::Seeded(_) => "Random(seeded)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        assert_eq!(Random::seeded(7).bytes::<32>(), Random::seeded(7).bytes::<32>());
        assert_ne!(Random::system().bytes::<32>(), Random::system().bytes::<32>());
    }

    #[test]
    fn thirty_two_bytes_make_a_verifier_of_43_unreserved_characters() {
        let verifier = Random::system().base64url::<32>();
        assert_eq!(verifier.len(), 43);
        assert!(
            verifier
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
    }

    #[test]
    fn unit_stays_below_one() {
        assert!(unit_from(u64::MAX) < 1.0);
        assert!(unit_from(0).abs() < f64::EPSILON);
    }
}
