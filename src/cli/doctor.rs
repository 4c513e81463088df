//! `doctor`: looks at everything that the service needs, and says what is wrong and how to mend it.
//!
//! Changes nothing but what any start would: a missing SQLite file or folder is made, the database is brought up to date.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use clap::Args;
use http::header::DATE;
use serde::Serialize;
use url::Url;

use super::WrongSettings;
use super::output::{Format, Output};
use crate::config::{Config, Sources};
use crate::domain::clock::{Clock as _, SystemClock};
use crate::domain::random::Random;
use crate::mercadopago::application::Application;
use crate::mercadopago::http_client;
use crate::rescue::RescueDir;
use crate::storage::Store;
use crate::vault::Vault;

/// How long the provider may take to answer.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);
/// Clocks may differ by so much: a quarter of the default lease, beyond which replicas would steal each other's work.
const SKEW_ALLOWED: TimeDelta = TimeDelta::seconds(15);

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    format: Format,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    ok: bool,
    detail: String,
}

impl Finding {
    fn of(check: impl Into<String>, result: Result<String, String>) -> Self {
        let (ok, detail) = match result {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        Self {
            check: check.into(),
            ok,
            detail,
        }
    }
}

impl Doctor {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = Config::from_sources(&Sources::of_process()).map_err(WrongSettings)?;
        let mut findings = vec![Finding::of("settings", Ok("all are right".to_owned()))];
        findings.extend(check_store(&config).await);
        findings.push(check_rescue_dir(&config).await);
        let http = http_client::build()?;
        for app in config.applications.iter() {
            let authorization = reach(&http, &app.authorization_url, "MERCADOPAGO_AUTHORIZATION_URL").await;
            findings.push(Finding::of(
                format!("consent page of {}", app.id),
                authorization.map(|_| "answers".to_owned()),
            ));
            findings.extend(check_api(&http, app).await);
        }
        let line = |finding: &Finding| {
            let state = if finding.ok { "ok   " } else { "WRONG" };
            format!("{state}  {}: {}", finding.check, finding.detail)
        };
        let text = findings.iter().map(line).collect::<Vec<_>>().join("\n");
        Output::new(self.format).result(&findings, &text)?;
        let wrong = findings.iter().filter(|finding| !finding.ok).count();
        anyhow::ensure!(
            wrong == 0,
            "{wrong} of {} checks found something wrong",
            findings.len()
        );
        Ok(())
    }
}

async fn check_store(config: &Config) -> Vec<Finding> {
    let vault = Vault::new(config.keyring.clone());
    let opened = match Store::open(&config.database_url, vault, Random::system()).await {
        Ok(store) => store.migrate().await.map(|()| store),
        Err(error) => Err(error),
    };
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let detail =
                format!("{error}; check DATABASE_URL, and that the database runs and lets this user in");
            return vec![Finding::of("database", Err(detail))];
        }
    };
    let keys = store.check_keys(SystemClock.now()).await;
    let ids = config.keyring.ids().count();
    let keys = keys
        .map(|()| format!("{ids} configured, they open what is stored"))
        .map_err(|error| error.to_string());
    let database = Finding::of(
        "database",
        Ok(format!("{:?} answers and is up to date", config.database_url)),
    );
    store.close().await;
    vec![database, Finding::of("encryption keys", keys)]
}

async fn check_rescue_dir(config: &Config) -> Finding {
    let path = config.refresh.rescue_dir.display();
    let left = match RescueDir::open(&config.refresh.rescue_dir) {
        Ok(dir) => dir.list_left().await,
        Err(error) => Err(error),
    };
    let result = match left {
        Ok(left) if left.is_empty() => Ok(format!("{path} is empty")),
        // A running service has some for a moment; of a stopped one they wait for its next start.
        Ok(left) => Ok(format!(
            "{path} holds {} answers under way or left behind",
            left.len()
        )),
        Err(error) => Err(format!(
            "{path} cannot be used: {error}; make it a folder that this user may write to"
        )),
    };
    Finding::of("rescue folder", result)
}

/// Whether the API answers at all, and what time it is there.
async fn check_api(http: &reqwest::Client, app: &Application) -> Vec<Finding> {
    let answered = reach(http, &app.api("/users/me"), "MERCADOPAGO_API_URL").await;
    let mut findings = Vec::new();
    if let Ok(Some(date)) = &answered
        && let Ok(theirs) = DateTime::parse_from_rfc2822(date)
    {
        let skew = (SystemClock.now() - theirs.to_utc()).abs();
        let seconds = skew.num_seconds();
        let detail = if skew <= SKEW_ALLOWED {
            Ok(format!("within {}s of Mercado Pago's", seconds.max(1)))
        } else {
            Err(format!(
                "{seconds}s away from Mercado Pago's; let the system synchronise it (NTP)"
            ))
        };
        findings.push(Finding::of(format!("clock against {}", app.id), detail));
    }
    findings.insert(
        0,
        Finding::of(
            format!("API of {}", app.id),
            answered.map(|_| "answers".to_owned()),
        ),
    );
    findings
}

/// Asks without any credential; every answer is good. Gives its `Date`.
async fn reach(http: &reqwest::Client, url: &Url, setting: &str) -> Result<Option<String>, String> {
    match http.get(url.clone()).timeout(PROVIDER_TIMEOUT).send().await {
        Ok(answer) => Ok(answer
            .headers()
            .get(DATE)
            .and_then(|date| date.to_str().ok())
            .map(str::to_owned)),
        Err(error) => Err(format!(
            "{} is not reached: {}; check {setting}, the network and its firewall",
            url.host_str().unwrap_or_default(),
            http_client::describe(error)
        )),
    }
}
