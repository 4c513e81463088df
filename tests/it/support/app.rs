//! The whole service in this process, with the sandbox as its provider: each on a port of its own, both on one clock that
//! moves only when a test says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use marketplace_connector::app::{App, Listeners, Migrate, Seams};
use marketplace_connector::config::Config;
use marketplace_connector::domain::clock::{Clock, ManualClock};
use marketplace_connector::domain::random::Random;
use marketplace_connector::refresh::{Refresher, Step};
use marketplace_connector::sandbox::{Client, Sandbox, SandboxOptions, Webhook};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::http::{Answer, Browser, Platform, Target};
use super::{ADMIN_EMAIL, ADMIN_PASSWORD, API_KEY, CLIENT_ID, CLIENT_SECRET, ENCRYPTION_KEY};

/// Settings by name, before they are read.
pub(crate) type Settings = BTreeMap<&'static str, String>;

/// Service and sandbox; both end with it.
pub(crate) struct TestApp {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: ManualClock,
    provider: Url,
    target: Target,
    refresher: Refresher,
    folder: TempDir,
    _stop: DropGuard,
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings than the usual ones.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_provider(change, |_| {}).await
    }

    /// With other settings, and a sandbox that behaves differently.
    pub(crate) async fn with_provider(
        change: impl FnOnce(&mut Settings),
        change_provider: impl FnOnce(&mut SandboxOptions),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listener, address) = listen().await;
        let (provider_listener, provider) = listen().await;
        let clock = ManualClock::at(DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());

        let mut settings = Settings::from([
            ("OPS_LISTEN_ADDR", String::new()),
            ("PUBLIC_URL", origin(&address)),
            (
                "DATABASE_URL",
                format!("sqlite://{}", folder.path().join("connector.db").display()),
            ),
            ("RESCUE_DIR", folder.path().join("rescue").display().to_string()),
            ("ENCRYPTION_KEYS", ENCRYPTION_KEY.to_owned()),
            ("MERCADOPAGO_CLIENT_ID", CLIENT_ID.to_owned()),
            ("MERCADOPAGO_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            (
                "MERCADOPAGO_AUTHORIZATION_URL",
                format!("{provider}authorization"),
            ),
            ("MERCADOPAGO_API_URL", origin(&provider)),
            ("BOOTSTRAP_API_KEY", API_KEY.to_owned()),
            ("BOOTSTRAP_ADMIN_EMAIL", ADMIN_EMAIL.to_owned()),
            ("BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD.to_owned()),
            ("RETURN_URL_ALLOWLIST", "https://shop.example/".to_owned()),
            // Workers take their steps when a test tells them to.
            ("REFRESH_POLL_INTERVAL", "1h".to_owned()),
            ("SHUTDOWN_GRACE", "1s".to_owned()),
        ]);
        change(&mut settings);
        // Whoever has a secret for notifications gets some.
        let webhook = settings.get("MERCADOPAGO_WEBHOOK_SECRET").map(|secret| Webhook {
            url: format!("{address}webhooks/mercadopago"),
            secret: secret.clone(),
        });
        let mut options = SandboxOptions {
            clients: vec![Client {
                client_id: CLIENT_ID.to_owned(),
                client_secret: CLIENT_SECRET.to_owned(),
                redirect_uris: vec![format!("{address}oauth/callback")],
                webhook,
            }],
            require_pkce: true,
            public_url: provider.to_string(),
            ..SandboxOptions::new(Arc::clone(&shared), Random::system())
        };
        change_provider(&mut options);
        let sandbox = Sandbox::new(options);
        let config = Config::from_source(&|name| settings.get(name).cloned()).unwrap();
        let seams = Seams {
            clock: shared,
            random: Random::system(),
        };
        let app = App::build(config, seams, Migrate::First).await.unwrap();
        let refresher = app.services().refresher.clone();
        let stop = CancellationToken::new();
        tokio::spawn(sandbox.clone().serve(provider_listener, stop.clone()));
        tokio::spawn(app.serve(Listeners::one(listener), stop.clone()));
        Self {
            sandbox,
            clock,
            provider,
            target: Target::new(address.clone(), address),
            refresher,
            folder,
            _stop: stop.drop_guard(),
        }
    }

    /// Where the service listens, without a slash at the end.
    pub(crate) fn origin(&self) -> String {
        origin(&self.target.address)
    }

    /// Where the sandbox listens, without a slash at the end.
    pub(crate) fn provider_origin(&self) -> String {
        origin(&self.provider)
    }

    /// The platform with its API key.
    pub(crate) fn platform(&self) -> Platform {
        Platform::new(self.target.clone(), API_KEY)
    }

    /// Where the service listens.
    pub(crate) fn address(&self) -> &Url {
        &self.target.address
    }

    /// Somebody with another key.
    pub(crate) fn caller_with_key(&self, key: &str) -> Platform {
        Platform::new(self.target.clone(), key)
    }

    /// A seller's browser, without cookies yet.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.target.clone())
    }

    /// Moves the clock of service and sandbox.
    pub(crate) fn advance(&self, by: TimeDelta) {
        self.clock.advance(by);
    }

    /// Lets the refresh worker take its steps until nothing is due.
    pub(crate) async fn refresh_what_is_due(&self) {
        for _ in 0..1_000 {
            if self.refresher.step().await.unwrap() == Step::Idle {
                return;
            }
        }
        panic!("the worker finds work for ever");
    }

    /// A seller of the sandbox who consents for `seller`, by position.
    pub(crate) fn account(&self, index: usize) -> u64 {
        self.sandbox.sellers()[index].user_id
    }

    /// The seller opens a connect link, consents with the first account, and comes back.
    pub(crate) async fn connect_seller(&self, seller: &str) -> Value {
        self.connect_seller_with_account(seller, 0).await
    }

    /// The same with another account of the sandbox.
    pub(crate) async fn connect_seller_with_account(&self, seller: &str, account: usize) -> Value {
        let link = self.platform().connect_link(seller).await;
        let mut browser = self.browser();
        let callback = self.consent(&mut browser, &link, account).await;
        browser.open(&callback).await.expect(200);
        self.platform().connection(seller).await
    }

    /// Opens a link in a browser and consents at the sandbox; the address that the sandbox sends the browser back to.
    pub(crate) async fn consent(&self, browser: &mut Browser, link: &str, account: usize) -> String {
        let authorization = browser.begin(link).await;
        self.decide(&authorization, account, true)
    }

    /// Decides at the sandbox; the address that it sends the browser back to.
    pub(crate) fn decide(&self, authorization: &str, account: usize, allow: bool) -> String {
        let account = self.account(account).to_string();
        self.sandbox.consent(authorization, &account, allow).unwrap()
    }

    /// A call to Mercado Pago's API as a seller.
    pub(crate) async fn proxied_get(&self, seller: &str, path: &str) -> Answer {
        self.platform().get(&format!("/proxy/{seller}{path}")).await
    }

    /// A payment by card, whose cardholder's name decides how it ends.
    pub(crate) async fn create_payment(&self, seller: &str, cardholder: &str) -> Answer {
        let token = self.card_token(seller, cardholder).await;
        let payment = json!({
            "token": token,
            "transaction_amount": 100.50,
            "installments": 1,
            "payment_method_id": "visa",
            "payer": { "email": "buyer@example.com" },
        });
        self.platform()
            .post(&format!("/proxy/{seller}/v1/payments"), payment)
            .await
    }

    /// A card token, as the buyer's browser makes it: at the provider, with the seller's public key.
    pub(crate) async fn card_token(&self, seller: &str, cardholder: &str) -> String {
        let connection = self.platform().connection(seller).await;
        let url = format!(
            "{}v1/card_tokens?public_key={}",
            self.provider,
            connection["public_key"].as_str().unwrap()
        );
        let card = json!({
            "card_number": "4509953566233704",
            "security_code": "123",
            "expiration_month": 11,
            "expiration_year": 2040,
            "cardholder": { "name": cardholder, "identification": { "type": "DNI", "number": "12345678" } },
        });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let token: Value = client
            .post(url)
            .json(&card)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        token["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{token}"))
            .to_owned()
    }

    /// How often refresh tokens were spent at the sandbox.
    pub(crate) fn refreshes(&self) -> u64 {
        self.sandbox.token_calls("refresh_token")
    }

    /// How often codes were exchanged at the sandbox.
    pub(crate) fn exchanges(&self) -> u64 {
        self.sandbox.token_calls("authorization_code")
    }

    /// The rescue folder.
    pub(crate) fn rescue_dir(&self) -> PathBuf {
        self.folder.path().join("rescue")
    }
}

async fn listen() -> (TcpListener, Url) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address.parse().unwrap())
}

fn origin(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}
