//! Which platform calls: API keys, remembered for a moment.
//!
//! A key is looked up by its SHA-256 digest, so that no key is kept in memory; what is remembered is looked up again after
//! `CONNECTION_CACHE_TTL`, so that a revoke holds within a second on every replica that reaches the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::cache::Cache;
use super::freshness::{Age, Patience};
use super::metrics::{CacheUse, Metrics};
use super::problem::ProxyProblem;
use crate::domain::problem::ProblemCode;
use crate::domain::secret::ApiKeySecret;
use crate::storage::{ApiKey, Store};

/// Keys that are remembered at most.
const MOST_KEYS: usize = 10_000;

/// A longer text is no key of ours.
const LONGEST_KEY: usize = 256;

/// How often the last use of a key is written down at most.
const TOUCH_EVERY_MICROS: i64 = 60_000_000;

/// A key that is known.
#[derive(Debug)]
pub(super) struct KnownKey {
    digest: [u8; 32],
    /// The key, without its secret.
    pub(super) key: ApiKey,
    age: Age,
    touched_at: AtomicI64,
}

/// The known keys.
#[derive(Debug)]
pub(super) struct Keys {
    cache: Cache<KnownKey>,
    store: Store,
    patience: Arc<Patience>,
    metrics: Arc<Metrics>,
}

impl Keys {
    /// No key is known yet.
    pub(super) fn new(store: Store, patience: Arc<Patience>, metrics: Arc<Metrics>) -> Self {
        Self {
            cache: Cache::new(MOST_KEYS),
            store,
            patience,
            metrics,
        }
    }

    /// The key with this secret, if it is valid at `now`.
    pub(super) async fn find(&self, secret: &str, now: DateTime<Utc>) -> Result<Arc<KnownKey>, ProxyProblem> {
        if !secret.starts_with("mck_") || secret.len() > LONGEST_KEY {
            return Err(invalid());
        }
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let [first, ..] = digest.as_chunks::<8>().0 else {
            return Err(invalid());
        };
        let hash = u64::from_be_bytes(*first);
        let known = self
            .cache
            .get(hash)
            .filter(|known| known.digest.ct_eq(&digest).into());
        let known = match known {
            Some(known) if self.patience.is_fresh(&known.age, now) => {
                self.metrics.cache(CacheUse::Hit);
                known
            }
            // Boxed, like every rare turn of a call: what is seldom needed would make each call's future larger.
            known => Box::pin(self.look_up(secret, hash, digest, known, now)).await?,
        };
        if !known.key.is_valid_at(now) {
            return Err(invalid());
        }
        self.touch(&known, now);
        Ok(known)
    }

    async fn look_up(
        &self,
        secret: &str,
        hash: u64,
        digest: [u8; 32],
        known: Option<Arc<KnownKey>>,
        now: DateTime<Utc>,
    ) -> Result<Arc<KnownKey>, ProxyProblem> {
        let secret = ApiKeySecret::new(secret);
        let asked = self
            .patience
            .ask(known.is_some(), now, self.store.find_api_key(&secret))
            .await;
        match (asked, known) {
            (Ok(Some(key)), Some(known)) if key == known.key => {
                self.patience.checked(&known.age, now);
                self.metrics.cache(CacheUse::Checked);
                Ok(known)
            }
            (Ok(Some(key)), known) => {
                let touched_at = known.map_or(0, |known| known.touched_at.load(Ordering::Relaxed));
                let known = Arc::new(KnownKey {
                    digest,
                    key,
                    age: self.patience.young(now),
                    touched_at: AtomicI64::new(touched_at),
                });
                self.cache.insert(hash, known.clone());
                self.metrics.cache(CacheUse::Loaded);
                Ok(known)
            }
            (Ok(None), _) => {
                self.cache.remove(hash);
                Err(invalid())
            }
            (Err(_), Some(known)) if self.patience.may_serve_stale(&known.age, now) => {
                self.metrics.cache(CacheUse::Stale);
                Ok(known)
            }
            (Err(problem), _) => Err(problem),
        }
    }

    /// Writes the key's use down, at most once a minute and beside the call.
    fn touch(&self, known: &KnownKey, now: DateTime<Utc>) {
        let micros = now.timestamp_micros();
        let last = known.touched_at.load(Ordering::Relaxed);
        if micros - last < TOUCH_EVERY_MICROS
            || known
                .touched_at
                .compare_exchange(last, micros, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let (store, id) = (self.store.clone(), known.key.id.clone());
        tokio::spawn(async move {
            if let Err(error) = store.touch_api_key(&id, now).await {
                tracing::debug!(%error, "an API key's last use was not noted");
            }
        });
    }

    /// Forgets what was not looked at for long.
    pub(super) fn forget_old(&self, now: DateTime<Utc>) {
        self.cache
            .retain(|known| self.patience.may_serve_stale(&known.age, now));
    }
}

fn invalid() -> ProxyProblem {
    ProxyProblem::new(
        ProblemCode::InvalidApiKey,
        "send a valid API key as `Authorization: Bearer mck_...`; it may be missing, unknown, expired or revoked",
    )
}
