//! `demo`: sandbox, service and SQLite in one process, with nothing to configure (DESIGN.md section 3).
//!
//! Ignores environment and `.env`. What it plays, it plays over HTTP through the public pages and routes, so what works
//! here works for everybody.

mod browser;
mod story;

use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::access;
use crate::app::{App, Listeners, Migrate, Seams};
use crate::config::Config;
use crate::domain::random::Random;
use crate::domain::secret::{ApiKeySecret, Password};
use crate::mercadopago::http_client;
use crate::sandbox::{Client, Fault, Sandbox, SandboxOptions, Storefront, Webhook};
use crate::vault::Keyring;
use story::{Left, Story};

/// The seller of the story.
const SELLER: &str = "demo-seller";
const ADMIN_EMAIL: &str = "admin@example.com";
/// Ports that are tried one after the other.
const PORTS_TRIED: u16 = 50;

/// What the demonstration is started with.
#[derive(Debug, Default)]
pub struct DemoOptions {
    /// Where the connector listens; 127.0.0.1:8080 or the next free port if not given.
    pub listen: Option<SocketAddr>,
    /// Where the sandbox listens; 127.0.0.1:8081 or the next free port if not given.
    pub sandbox_listen: Option<SocketAddr>,
    /// Where data is kept; a temporary folder if not given.
    pub data_dir: Option<PathBuf>,
    /// Whether the story is played, and the demonstration ends with it.
    pub run: bool,
    /// What goes wrong in the sandbox.
    pub faults: Vec<Fault>,
}

/// Runs the demonstration until `stop`, or to the end of its story. `out` gets what people read.
pub async fn run(options: DemoOptions, out: &mut dyn Write, stop: CancellationToken) -> anyhow::Result<()> {
    let folder = Folder::open(options.data_dir.as_deref())?;
    let listener = bind(options.listen, 8080).await?;
    let sandbox_listener = bind(options.sandbox_listen, 8081).await?;
    let secrets = Secrets::of(&folder.path)?;
    let connector: Url = format!("http://{}", listener.local_addr()?).parse()?;
    // A name instead of the address makes it another site to the browser, so cookies are really tested.
    let sandbox: Url = format!("http://localhost:{}", sandbox_listener.local_addr()?.port()).parse()?;

    let simulator = Sandbox::open(sandbox_options(&secrets, &connector, &sandbox, &folder))?;
    for fault in options.faults {
        simulator.add_fault(fault);
    }
    let public_key = simulator.application_key(CLIENT_ID);
    let config = config(
        &folder.path,
        &secrets,
        &connector,
        sandbox_listener.local_addr()?,
        public_key.as_deref(),
    )?;
    let app = App::build(config, Seams::default(), Migrate::First).await?;
    let http = http_client::build()?;

    // The service outlives whoever calls it, and the sandbox outlives the service.
    let (stop_app, stop_sandbox) = (CancellationToken::new(), CancellationToken::new());
    let served_sandbox = tokio::spawn(simulator.serve(sandbox_listener, stop_sandbox.clone()));
    let served_app = tokio::spawn(app.serve(Listeners::one(listener), stop_app.clone()));
    let place = Place {
        connector,
        sandbox,
        http,
        folder: folder.path.clone(),
        secrets,
    };
    let ended = if options.run {
        place.play(out, &stop).await
    } else {
        place.show(out, &stop).await
    };
    stop_app.cancel();
    served_app.await??;
    stop_sandbox.cancel();
    served_sandbox.await??;
    ended
}

/// Everything that is told of a running demonstration.
struct Place {
    connector: Url,
    sandbox: Url,
    http: reqwest::Client,
    folder: PathBuf,
    secrets: Secrets,
}

impl Place {
    async fn play(self, out: &mut dyn Write, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut story = Story {
            connector: self.connector,
            sandbox: self.sandbox,
            api_key: self.secrets.api_key,
            seller: SELLER,
            http: self.http,
            left: Left::default(),
        };
        let mut tell = |line: &str| {
            writeln!(out, "{line}")?;
            Ok(out.flush()?)
        };
        stop.run_until_cancelled(story.play(&mut tell))
            .await
            .context("told to stop")?
    }

    async fn show(self, out: &mut dyn Write, stop: &CancellationToken) -> anyhow::Result<()> {
        let link = story::connect_link(&self.http, &self.connector, &self.secrets.api_key, SELLER).await?;
        writeln!(out, "{}", self.text(&link)?)?;
        out.flush()?;
        stop.cancelled().await;
        Ok(())
    }

    fn text(&self, link: &Url) -> anyhow::Result<String> {
        let Self {
            connector, sandbox, ..
        } = self;
        let key = self.secrets.api_key.expose();
        let mut text = format!(
            "The connector runs with a simulated Mercado Pago. Nothing here is real money. Ctrl-C ends it.\n\n\
             connect link  {link}\n\
             console       {connector}console\n\
             \x20             e-mail {ADMIN_EMAIL}, password {}\n\
             API key       {key}\n\
             sandbox       {sandbox}\n\
             shop          {sandbox}storefront (after the connect link)\n\
             data          {}\n\n\
             Open the connect link in a browser and allow it; then paste these calls.\n",
            self.secrets.admin_password.expose(),
            self.folder.display()
        );
        let json = "-H 'content-type: application/json'";
        let auth = "-H \"authorization: Bearer $KEY\"";
        let (connector, sandbox, card) = (origin(connector), origin(sandbox), story::card("APRO"));
        write!(
            text,
            "\nKEY={key}\n\
             \n# the connection; with its public key the buyer's browser makes card tokens\n\
             curl -s {connector}/v1/connections/{SELLER} {auth}\n\
             PUBLIC_KEY=$(curl -s {connector}/v1/connections/{SELLER} {auth} | sed 's/.*\"public_key\":\"\\([^\"]*\\)\",.*/\\1/')\n\
             \n# a card token, from the browser straight to Mercado Pago (with FUND instead of APRO the payment is rejected)\n\
             TOKEN=$(curl -s \"{sandbox}/v1/card_tokens?public_key=$PUBLIC_KEY\" {json} -d '{card}' | sed 's/.*\"id\": *\"\\([^\"]*\\)\".*/\\1/')\n\
             \n# a payment through the connector\n\
             curl -i {connector}/proxy/{SELLER}/v1/payments {auth} {json} -d '{{\"token\":\"'$TOKEN'\",\"transaction_amount\":100.50,\
             \"installments\":1,\"payment_method_id\":\"visa\",\"payer\":{{\"email\":\"buyer@example.com\"}}}}'\n\
             \n# end the connection; the next proxied call answers 409 connection_revoked\n\
             curl -s -X DELETE {connector}/v1/connections/{SELLER} {auth}\n\
             curl -i {connector}/proxy/{SELLER}/users/me {auth}\n"
        )?;
        Ok(text)
    }
}

const CLIENT_ID: &str = "1234567890123456";

/// Secrets of one demonstration; kept in the data folder, so that a folder can be used again.
struct Secrets {
    encryption_key: String,
    client_secret: String,
    webhook_secret: String,
    api_key: ApiKeySecret,
    admin_password: Password,
}

impl Secrets {
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let random = Random::system();
        let kept = |name: &str, make: &dyn Fn() -> String| {
            let path = folder.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let text = make();
                    std::fs::write(&path, &text).map(|()| text)
                }
                Err(error) => Err(error),
            }
            .with_context(|| format!("{} cannot be kept", path.display()))
        };
        Ok(Self {
            encryption_key: kept("encryption-key", &|| Keyring::generate_entry().to_string())?,
            client_secret: kept("client-secret", &|| random.base64url::<24>())?,
            webhook_secret: kept("webhook-secret", &|| random.base64url::<24>())?,
            api_key: ApiKeySecret::new(kept("api-key", &|| format!("mck_{}", random.base64url::<32>()))?),
            admin_password: Password::new(kept("admin-password", &|| {
                access::generate_password(&random).expose().to_owned()
            })?),
        })
    }
}

fn sandbox_options(secrets: &Secrets, connector: &Url, sandbox: &Url, folder: &Folder) -> SandboxOptions {
    let seams = Seams::default();
    SandboxOptions {
        clients: vec![Client {
            client_id: CLIENT_ID.to_owned(),
            client_secret: secrets.client_secret.clone(),
            redirect_uris: vec![format!("{connector}oauth/callback")],
            webhook: Some(Webhook {
                url: format!("{connector}webhooks/mercadopago"),
                secret: secrets.webhook_secret.clone(),
            }),
        }],
        require_pkce: true,
        public_url: origin(sandbox),
        state_file: (!folder.temporary).then(|| folder.path.join("sandbox.json")),
        storefront: Some(Storefront {
            connector_url: origin(connector),
            api_key: secrets.api_key.expose().to_owned(),
        }),
        ..SandboxOptions::new(Arc::clone(&seams.clock), seams.random)
    }
}

fn origin(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// The service's settings: the same names as everybody's, from nowhere but here.
fn config(
    folder: &Path,
    secrets: &Secrets,
    connector: &Url,
    sandbox: SocketAddr,
    public_key: Option<&str>,
) -> anyhow::Result<Config> {
    let sandbox_name = format!("http://localhost:{}", sandbox.port());
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let source = |name: &str| {
        Some(match name {
            "OPS_LISTEN_ADDR" => String::new(),
            "PUBLIC_URL" => origin(connector),
            "DATABASE_URL" => format!("sqlite://{}", text(folder.join("connector.db"))),
            "RESCUE_DIR" => text(folder.join("rescue")),
            "ENCRYPTION_KEYS" => secrets.encryption_key.clone(),
            "MERCADOPAGO_CLIENT_ID" => CLIENT_ID.to_owned(),
            "MERCADOPAGO_CLIENT_SECRET" => secrets.client_secret.clone(),
            "MERCADOPAGO_WEBHOOK_SECRET" => secrets.webhook_secret.clone(),
            "MERCADOPAGO_AUTHORIZATION_URL" => format!("{sandbox_name}/authorization"),
            "MERCADOPAGO_API_URL" => format!("http://{sandbox}"),
            "MERCADOPAGO_PUBLIC_KEY" => public_key?.to_owned(),
            "MARKETPLACE_NAME" => "Demo Market".to_owned(),
            "BOOTSTRAP_API_KEY" => secrets.api_key.expose().to_owned(),
            "BOOTSTRAP_ADMIN_EMAIL" => ADMIN_EMAIL.to_owned(),
            "BOOTSTRAP_ADMIN_PASSWORD" => secrets.admin_password.expose().to_owned(),
            "SHUTDOWN_GRACE" => "5s".to_owned(),
            _ => return None,
        })
    };
    Config::from_source(&source).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the demonstration's own settings are wrong: {}", lines.join("; "))
    })
}

/// The wanted address, or the first free port from `first` on.
async fn bind(wanted: Option<SocketAddr>, first: u16) -> anyhow::Result<TcpListener> {
    if let Some(address) = wanted {
        return TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"));
    }
    for port in first..first + PORTS_TRIED {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).with_context(|| format!("cannot listen on {address}")),
        }
    }
    anyhow::bail!("no port from {first} to {} is free", first + PORTS_TRIED - 1)
}

/// The folder of the demonstration's data; a temporary one goes with it.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn open(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let temporary = wanted.is_none();
        let path = wanted.map_or_else(
            || {
                std::env::temp_dir().join(format!(
                    "marketplace-connector-demo-{}",
                    Random::system().base64url::<9>()
                ))
            },
            Path::to_owned,
        );
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(!temporary);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self { path, temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed is left to the system, which empties the folder of temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
