//! `serve`: the service itself, until it is told to stop.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::WrongSettings;
use crate::app::{App, Listeners, Migrate, Seams};
use crate::config::{Config, Sources};
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Leave the database as it is: `migrate` is run by somebody else
    #[arg(long)]
    no_migrate: bool,
    /// The database comes from a backup: try every access token first, and spend a refresh token only where one is dead
    #[arg(long)]
    after_restore: bool,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = Config::from_sources(&Sources::of_process()).map_err(WrongSettings)?;
        telemetry::start_logs(&config.telemetry)?;
        let migrate = if self.no_migrate {
            Migrate::No
        } else {
            Migrate::First
        };
        until_told_to_stop(|stop| async move {
            let listeners = Listeners::bind(&config).await?;
            let app = App::build(config, Seams::default(), migrate).await?;
            let app = if self.after_restore {
                app.after_restore()
            } else {
                app
            };
            app.serve(listeners, stop).await
        })
        .await
    }
}

/// Runs `work` with a token that SIGTERM and SIGINT cancel. A second signal ends it at once.
pub(super) async fn until_told_to_stop<F: Future<Output = anyhow::Result<()>>>(
    work: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let work = work(stop.clone());
    tokio::pin!(work);
    tokio::select! {
        ended = &mut work => return ended,
        () = signals.next() => stop.cancel(),
    }
    tokio::select! {
        ended = work => ended,
        () = signals.next() => anyhow::bail!("told to stop twice; what was under way is broken off"),
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // Without a handler the system ends the process by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
