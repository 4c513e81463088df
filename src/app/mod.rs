//! The service put together: settings in, a running service out. The one place where everything meets, and the whole of
//! the dependency injection (STYLE.md section 10).
//!
//! Guarantees that a wrong key, an unreachable database or a taken address stops the start; that what a process left
//! behind in its rescue folder is applied before the first request; and that stopping lets what is under way finish,
//! refreshes above all, within the grace period.

mod listeners;
mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access;
use crate::config::{Config, Retention, ShutdownSettings};
use crate::connect::{ConnectFlow, Parts, ReturnUrls, Revoker};
use crate::domain::clock::{Clock, SystemClock};
use crate::domain::random::Random;
use crate::events::{Deliverer, DelivererParts, Endpoints, Intake, IntakeParts};
use crate::http::branding::{self, Branding};
use crate::http::{AppState, Lanes, Services};
use crate::mercadopago::api::ProviderApi;
use crate::mercadopago::http_client;
use crate::mercadopago::token_endpoint::TokenEndpoint;
use crate::proxy::{Proxy, ProxyParts};
use crate::refresh::{Refresher, RefresherParts};
use crate::replica::Replica;
use crate::rescue::RescueDir;
use crate::storage::Store;
use crate::telemetry;
use crate::vault::Vault;

pub use listeners::Listeners;

/// Where time and chance come from. The default is the machine's; tests hold other ends.
#[derive(Debug, Clone)]
pub struct Seams {
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Ids, states, jitter; never the vault's keys and nonces.
    pub random: Random,
}

impl Default for Seams {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Random::system(),
        }
    }
}

/// Opens the database and makes sure that this process may work on it: migrated, listed among the replicas, with the keys
/// that it was sealed with.
async fn open_store(
    config: &Config,
    clock: &dyn Clock,
    random: &Random,
    migrate: Migrate,
) -> anyhow::Result<(Store, Replica)> {
    let vault = Vault::new(config.keyring.clone());
    let store = Store::open(&config.database_url, vault, random.clone()).await?;
    if migrate == Migrate::First {
        store.migrate().await?;
    }
    // Listed before the keys are checked, so that a rotation that begins meanwhile sees which keys are here.
    let replica = Replica::new(clock.now(), config.refresh.lease, random);
    replica.report(&store, clock).await?;
    if let Err(error) = store.check_keys(clock.now()).await {
        replica.leave(&store).await;
        return Err(error.into());
    }
    Ok((store, replica))
}

/// Whether the database is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrate {
    /// Before anything else.
    First,
    /// Somebody else does it (`serve --no-migrate`).
    No,
}

/// Folder inside `RESCUE_DIR` for commands that run beside the service. The service applies it at its start.
pub const OPERATOR_RESCUE_DIR: &str = "operator";

/// The service, ready to serve.
#[derive(Debug)]
pub struct App {
    state: AppState,
    rescue: RescueDir,
    rescue_dir: PathBuf,
    poll_interval: Duration,
    retention: Retention,
    shutdown: ShutdownSettings,
    after_restore: bool,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// Holds refreshes, exchanges and workers.
    tracker: TaskTracker,
}

impl App {
    /// Opens the store and puts the service together. Nothing is served and no worker runs yet.
    pub async fn build(config: Config, seams: Seams, migrate: Migrate) -> anyhow::Result<Self> {
        let Seams { clock, random } = seams;
        let tls = config.tls.as_ref().map(listeners::tls_config).transpose()?;
        let branding = load_branding(&config.branding)?;
        let rescue = open_rescue(&config.refresh.rescue_dir)?;
        let (store, replica) = open_store(&config, &*clock, &random, migrate).await?;
        access::bootstrap(&store, &config.bootstrap, &*clock, &random).await?;

        let tracker = TaskTracker::new();
        let http = http_client::build()?;
        let timeout = config.refresh.token_endpoint_timeout;
        let endpoint = TokenEndpoint::new(http.clone(), Arc::clone(&clock), timeout);
        let provider = ProviderApi::new(http, timeout);
        let refresher = Refresher::new(RefresherParts {
            store: store.clone(),
            endpoint: endpoint.clone(),
            applications: config.applications.clone(),
            rescue: rescue.clone(),
            settings: config.refresh.clone(),
            clock: Arc::clone(&clock),
            random: random.clone(),
            replica: replica.clone(),
            tracker: tracker.clone(),
        });
        let connect = ConnectFlow::new(Parts {
            store: store.clone(),
            endpoint: endpoint.clone(),
            applications: config.applications.clone(),
            rescue: rescue.clone(),
            schedule: config.refresh.schedule,
            public_url: config.public_url.clone(),
            clock: Arc::clone(&clock),
            random: random.clone(),
            tracker: tracker.clone(),
        });
        let revoker = Revoker::new(
            store.clone(),
            provider.clone(),
            config.applications.clone(),
            Arc::clone(&clock),
            tracker.clone(),
        );
        let (intake, endpoints) = open_events(&config, &store, &clock, &random, &replica, &tracker)?;
        let metrics = telemetry::metrics()?;
        let idle_timeout = config.proxy.idle_timeout;
        let proxy = Proxy::new(ProxyParts {
            store: store.clone(),
            refresher: refresher.clone(),
            endpoint: endpoint.clone(),
            api: provider.clone(),
            applications: config.applications.clone(),
            settings: config.proxy,
            clock: Arc::clone(&clock),
            random: random.clone(),
            tracker: tracker.clone(),
        })?;
        let state = AppState::new(Services {
            store,
            connect,
            return_urls: ReturnUrls::new(config.return_urls),
            revoker,
            replica,
            refresher,
            proxy,
            intake,
            endpoints,
            provider,
            applications: config.applications,
            branding,
            clock,
            random,
            public_url: config.public_url,
            trusted_proxies: config.trusted_proxies,
            idle_timeout,
            settings: config.shown,
            metrics,
            draining: CancellationToken::new(),
        });
        Ok(Self {
            state,
            rescue,
            rescue_dir: config.refresh.rescue_dir,
            poll_interval: config.refresh.poll_interval,
            retention: config.retention,
            shutdown: config.shutdown,
            after_restore: false,
            tls,
            tracker,
        })
    }

    /// Lets it look through the connections of a restored backup before anything is refreshed because it is due.
    #[must_use]
    pub fn after_restore(self) -> Self {
        Self {
            after_restore: true,
            ..self
        }
    }

    /// The services, for commands that do what the API does.
    pub fn services(&self) -> &AppState {
        &self.state
    }

    /// The state of the handlers, for a site that a test asks in process.
    #[cfg(test)]
    pub(crate) fn state(&self) -> AppState {
        self.state.clone()
    }

    /// Applies what processes left behind that died between a token answer and its commit.
    pub async fn apply_rescued(&self) {
        workers::apply_rescued(&self.rescue, &self.state).await;
        let of_commands = self.rescue_dir.join(OPERATOR_RESCUE_DIR);
        if of_commands.exists()
            && let Ok(dir) = RescueDir::open(&of_commands)
        {
            workers::apply_rescued(&dir, &self.state).await;
        }
    }

    /// Serves until `stop`, then lets what is under way finish: `/readyz` says 503 for `SHUTDOWN_DELAY`, then nothing
    /// more is accepted, then `SHUTDOWN_GRACE` is waited at most.
    pub async fn serve(self, listeners: Listeners, stop: CancellationToken) -> anyhow::Result<()> {
        self.apply_rescued().await;
        let (stop_accepting, stop_working) = (CancellationToken::new(), CancellationToken::new());
        workers::spawn(
            &self.tracker,
            &self.state,
            &self.rescue,
            self.poll_interval,
            self.retention,
            self.after_restore,
            &stop_working,
        );
        // They outlive the store: its connections may have been opened on them.
        let lanes = Lanes::start().context("threads for connections cannot be started")?;
        let mut servers = listeners.serve(
            &lanes,
            &self.state,
            self.tls.clone(),
            &stop_accepting,
            self.shutdown.grace,
        );

        let ended_early = tokio::select! {
            () = stop.cancelled() => false,
            // Servers end only when told to.
            _ = servers.join_next() => true,
        };
        self.state.draining.cancel();
        tracing::info!(delay = ?self.shutdown.delay, grace = ?self.shutdown.grace, "stopping");
        tokio::time::sleep(self.shutdown.delay).await;
        stop_accepting.cancel();
        stop_working.cancel();
        while servers.join_next().await.is_some() {}
        self.finish().await;
        drop(lanes);
        anyhow::ensure!(!ended_early, "a listener ended by itself");
        tracing::info!("stopped");
        Ok(())
    }

    /// Waits for refreshes and exchanges under way, then closes the store.
    pub async fn finish(self) {
        self.tracker.close();
        if tokio::time::timeout(self.shutdown.grace, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "work was still under way at the end of the grace period; its rescue files are applied at the next start"
            );
        }
        workers::flush_usage(&self.state).await;
        self.state.replica.leave(&self.state.store).await;
        self.state.store.close().await;
    }
}

/// Notifications in and events out.
fn open_events(
    config: &Config,
    store: &Store,
    clock: &Arc<dyn Clock>,
    random: &Random,
    replica: &Replica,
    tracker: &TaskTracker,
) -> anyhow::Result<(Intake, Endpoints)> {
    let deliverer = Deliverer::new(DelivererParts {
        store: store.clone(),
        settings: config.events.clone(),
        clock: Arc::clone(clock),
        random: random.clone(),
        owner: replica.id().clone(),
        tracker: tracker.clone(),
    })?;
    let intake = Intake::new(IntakeParts {
        store: store.clone(),
        applications: config.applications.clone(),
        deliverer: deliverer.clone(),
        clock: Arc::clone(clock),
        tolerance: TimeDelta::from_std(config.notification_tolerance).unwrap_or(TimeDelta::MAX),
    });
    let endpoints = Endpoints::new(store.clone(), deliverer, Arc::clone(clock), random.clone());
    Ok((intake, endpoints))
}

fn open_rescue(path: &Path) -> anyhow::Result<RescueDir> {
    RescueDir::open(path).with_context(|| format!("RESCUE_DIR: {} cannot be opened", path.display()))
}

fn load_branding(settings: &crate::config::Branding) -> anyhow::Result<Branding> {
    let logo = settings.logo_file.as_ref().map(std::fs::read).transpose();
    let logo = logo.context("MARKETPLACE_LOGO_FILE cannot be read")?;
    let color = settings.color.as_deref().and_then(branding::Color::parse);
    Branding::new(&settings.name, logo, color).context("MARKETPLACE_LOGO_FILE")
}
