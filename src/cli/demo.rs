//! `demo`: everything in one process, nothing to configure.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::serve::until_told_to_stop;
use crate::config::{LogFormat, TelemetrySettings};
use crate::demo::{self, DemoOptions};
use crate::sandbox::Fault;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Play the whole story and end: connect, customer, card, payments, refund, subscription, refresh, revoke
    #[arg(long)]
    run: bool,
    /// Let something go wrong in the sandbox, like `token=500`, `payments=cut-after*3`, `any=latency:200`; may be repeated
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Where the connector listens; 127.0.0.1:8080 or the next free port if not given
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where the sandbox listens; 127.0.0.1:8081 or the next free port if not given
    #[arg(long, value_name = "ADDRESS")]
    sandbox_listen: Option<SocketAddr>,
    /// Where data is kept; a temporary folder if not given
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // Its output is for people; log lines only if something is wrong.
        telemetry::start_logs(&TelemetrySettings {
            log_format: LogFormat::Text,
            filter: "warn".to_owned(),
            otlp_endpoint: None,
        })?;
        let options = DemoOptions {
            listen: self.listen,
            sandbox_listen: self.sandbox_listen,
            data_dir: self.data_dir,
            run: self.run,
            faults: self.faults,
        };
        until_told_to_stop(|stop| async move { demo::run(options, &mut std::io::stdout(), stop).await }).await
    }
}
