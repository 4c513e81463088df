//! What an operator's command works with: the store, opened by `DATABASE_URL` and `ENCRYPTION_KEYS` alone.

use std::future::Future;

use anyhow::Context as _;
use chrono::{DateTime, Utc};

use super::WrongSettings;
use crate::config::{Sources, StoreConfig};
use crate::domain::clock::{Clock as _, SystemClock};
use crate::domain::random::Random;
use crate::storage::Store;
use crate::vault::Vault;

/// The store and what changes need beside it.
pub(super) struct Operator {
    pub(super) store: Store,
    pub(super) clock: SystemClock,
    pub(super) random: Random,
}

impl Operator {
    /// Opens the store, brings it up to date and makes sure that the keys are its keys.
    pub(super) async fn open() -> anyhow::Result<Self> {
        let config = StoreConfig::from_sources(&Sources::of_process()).map_err(WrongSettings)?;
        let random = Random::system();
        let store = Store::open(&config.database_url, Vault::new(config.keyring), random.clone()).await?;
        store.migrate().await?;
        let clock = SystemClock;
        store.check_keys(clock.now()).await?;
        Ok(Self { store, clock, random })
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

/// Runs a command's future to its end on a runtime of its own.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    runtime.block_on(future)
}
