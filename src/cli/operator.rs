//! What an operator's command works with: the store, opened by `DATABASE_URL` and `ENCRYPTION_KEYS` alone.

use std::future::Future;

use anyhow::Context as _;
use chrono::{DateTime, Utc};

use super::WrongSettings;
use crate::app::{App, Migrate, OPERATOR_RESCUE_DIR, Seams};
use crate::config::{Config, Sources, StoreConfig};
use crate::domain::clock::{Clock as _, SystemClock};
use crate::domain::random::Random;
use crate::http::AppState;
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

/// Does something that needs the whole service without serving, and waits for what it began.
///
/// Rescue files go to a folder of their own: a service that runs beside this command would take them for what a dead
/// process left.
pub(super) async fn with_app(work: impl AsyncFnOnce(&AppState) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut config = Config::from_sources(&Sources::of_process()).map_err(WrongSettings)?;
    config.refresh.rescue_dir.push(OPERATOR_RESCUE_DIR);
    let app = App::build(config, Seams::default(), Migrate::First).await?;
    app.apply_rescued().await;
    let done = work(app.services()).await;
    app.finish().await;
    done
}

/// Runs a command's future to its end on a runtime of its own.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    runtime.block_on(future)
}
