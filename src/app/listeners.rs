//! The addresses that the service listens on, and whom it serves at each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, TlsFiles};
use crate::http::{self, AppState, Audience, Lanes};

/// Bound listeners.
#[derive(Debug)]
pub struct Listeners {
    public: TcpListener,
    admin: Option<TcpListener>,
    ops: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the settings name.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let public = bind("LISTEN_ADDR", config.listen_addr).await?;
        let admin = match config.admin_listen_addr {
            Some(address) => Some(bind("ADMIN_LISTEN_ADDR", address).await?),
            None => None,
        };
        let ops = match config.ops_listen_addr {
            Some(address) => Some(bind("OPS_LISTEN_ADDR", address).await?),
            None => None,
        };
        Ok(Self { public, admin, ops })
    }

    /// Everything on one listener that is bound already.
    pub fn one(listener: TcpListener) -> Self {
        Self {
            public: listener,
            admin: None,
            ops: None,
        }
    }

    /// Serves on all of them until `stop`; each task ends by `grace` after that.
    pub(super) fn serve(
        self,
        lanes: &Lanes,
        state: &AppState,
        tls: Option<Arc<rustls::ServerConfig>>,
        stop: &CancellationToken,
        grace: Duration,
    ) -> JoinSet<()> {
        let audience = if self.admin.is_some() {
            Audience::Public
        } else {
            Audience::Everyone
        };
        // Metrics are scraped from inside: plain, on whatever address the operator chose.
        let listeners = [
            (Some(self.public), audience, tls.clone()),
            (self.admin, Audience::Internal, tls),
            (self.ops, Audience::Operators, None),
        ];
        let mut servers = JoinSet::new();
        for (listener, audience, tls) in listeners {
            let Some(listener) = listener else { continue };
            if let Ok(addr) = listener.local_addr() {
                tracing::info!(%addr, ?audience, "listening");
            }
            servers.spawn(http::serve(
                listener,
                lanes.clone(),
                tls,
                http::site(audience, state.clone()),
                stop.clone(),
                grace,
            ));
        }
        servers
    }
}

async fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{name}: cannot listen on {address}"))
}

/// TLS for those who connect to us.
pub(super) fn tls_config(files: &TlsFiles) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .with_context(|| format!("TLS_CERT_FILE: {} holds no PEM certificate", files.cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("TLS_KEY_FILE: {} holds no PEM private key", files.key.display()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("TLS_CERT_FILE and TLS_KEY_FILE do not belong together")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
