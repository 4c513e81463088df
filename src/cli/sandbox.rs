//! `sandbox`: the simulated Mercado Pago alone, for the platform's own developers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{ArgAction, Args, ValueEnum};
use tokio::net::TcpListener;

use super::serve::until_told_to_stop;
use crate::config::{LogFormat, TelemetrySettings};
use crate::domain::clock::SystemClock;
use crate::domain::random::Random;
use crate::sandbox::{
    Client, Fault, OldAccessToken, Sandbox as Simulator, SandboxOptions, Storefront, Webhook,
};
use crate::telemetry::start_logs;

/// What a refresh does to the access token before it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum OldToken {
    /// It works until its own expiry
    Lives,
    /// It stops working at once
    Dies,
}

#[derive(Debug, Args)]
pub(super) struct Sandbox {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Origin under which it is reached, for the links that it hands out (default: http:// and the address)
    #[arg(long)]
    public_url: Option<String>,
    /// Application id
    #[arg(long, default_value = "1234567890123456")]
    client_id: String,
    /// Secret of the application
    #[arg(long, default_value = "sandbox-client-secret")]
    client_secret: String,
    /// Redirect URI of the application; may be given several times
    #[arg(long, default_values_t = [String::from("http://127.0.0.1:8080/oauth/callback")])]
    redirect_uri: Vec<String>,
    /// Where notifications go; none are sent without it
    #[arg(long, requires = "webhook_secret")]
    webhook_url: Option<String>,
    /// Secret that notifications are signed with
    #[arg(long, requires = "webhook_url")]
    webhook_secret: Option<String>,
    /// Whether a refresh gives a new refresh token and kills the old one, as Mercado Pago does
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    rotate_refresh_tokens: bool,
    /// What a refresh does to the old access token: Mercado Pago does not say
    #[arg(long, value_enum, default_value = "lives")]
    old_access_token: OldToken,
    /// Life of an access token
    #[arg(long, default_value = "180d", value_parser = humantime::parse_duration)]
    token_lifetime: std::time::Duration,
    /// Makes ids, tokens and chances repeatable
    #[arg(long)]
    seed: Option<u64>,
    /// File that keeps the state over restarts
    #[arg(long)]
    state_file: Option<PathBuf>,
    /// Payments that a seller keeps; older ones are forgotten
    #[arg(long)]
    forget_after: Option<usize>,
    /// Misbehaviour from the start, as in `token=500` or `payments=cut-after*3`; may be given several times
    #[arg(long)]
    fault: Vec<Fault>,
    /// Origin of a connector that the storefront page pays through
    #[arg(long, requires = "storefront_api_key")]
    storefront_connector: Option<String>,
    /// API key of that connector
    #[arg(long, requires = "storefront_connector")]
    storefront_api_key: Option<String>,
}

impl Sandbox {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        start_logs(&TelemetrySettings {
            filter: String::from("info"),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        })?;
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        let address = listener.local_addr()?;
        let faults = self.fault.clone();
        let state_file = self.state_file.clone();
        let sandbox = Simulator::open(self.options(address)?).with_context(|| {
            format!(
                "the state file {} cannot be read",
                state_file.unwrap_or_default().display()
            )
        })?;
        for fault in faults {
            sandbox.add_fault(fault);
        }
        tracing::info!(addr = %address, "listening");
        until_told_to_stop(|stop| async move { Ok(sandbox.serve(listener, stop).await?) }).await
    }

    fn options(self, address: SocketAddr) -> anyhow::Result<SandboxOptions> {
        let random = self.seed.map_or_else(Random::system, Random::seeded);
        let webhook = self
            .webhook_url
            .zip(self.webhook_secret)
            .map(|(url, secret)| Webhook { url, secret });
        let storefront =
            self.storefront_connector
                .zip(self.storefront_api_key)
                .map(|(connector_url, api_key)| Storefront {
                    connector_url,
                    api_key,
                });
        Ok(SandboxOptions {
            clients: vec![Client {
                client_id: self.client_id,
                client_secret: self.client_secret,
                redirect_uris: self.redirect_uri,
                webhook,
            }],
            rotate_refresh_tokens: self.rotate_refresh_tokens,
            old_access_token: match self.old_access_token {
                OldToken::Lives => OldAccessToken::Lives,
                OldToken::Dies => OldAccessToken::Dies,
            },
            token_lifetime: chrono::Duration::from_std(self.token_lifetime)
                .context("--token-lifetime is too long")?,
            forget_after: self.forget_after,
            state_file: self.state_file,
            public_url: self.public_url.unwrap_or_else(|| format!("http://{address}")),
            storefront,
            ..SandboxOptions::new(Arc::new(SystemClock), random)
        })
    }
}
