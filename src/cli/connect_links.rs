//! `connect-links`: what a seller opens to connect.

use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use clap::{Args, Subcommand};
use serde_json::json;

use super::operator::with_app;
use super::output::{Format, Output, local};
use crate::connect::LinkRequest;
use crate::domain::connection::OnAccountChange;
use crate::domain::event::Actor;
use crate::domain::ids::{ApplicationId, SellerId};
use crate::http::Services;

/// Longest life of a link.
const LONGEST: Duration = Duration::from_hours(30 * 24);

#[derive(Debug, Subcommand)]
pub(super) enum ConnectLinks {
    /// Make a connect link and print it
    Create(Create),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The platform's id of the seller
    seller_id: SellerId,
    /// The application that the seller is connected to
    #[arg(long, default_value = "default")]
    application: ApplicationId,
    /// Where the seller goes afterwards; must be in `RETURN_URL_ALLOWLIST`
    #[arg(long)]
    return_url: Option<String>,
    /// Language of the pages: `es`, `pt` or `en`; the browser's if not given
    #[arg(long, value_parser = ["es", "pt", "en"])]
    locale: Option<String>,
    /// How long the link lives, at most `30d`
    #[arg(long, default_value = "1d", value_parser = life)]
    expires_in: Duration,
    /// What happens when the seller comes back with another Mercado Pago account: `refuse` or `replace`
    #[arg(long, default_value = "refuse", value_parser = on_account_change)]
    on_account_change: OnAccountChange,
    #[command(flatten)]
    format: Format,
}

fn life(text: &str) -> Result<Duration, String> {
    let life =
        humantime::parse_duration(text).map_err(|_| "a life is a duration like `12h` or `7d`".to_owned())?;
    if life.is_zero() || life > LONGEST {
        Err("a link lives at least 1s and at most 30d".to_owned())
    } else {
        Ok(life)
    }
}

fn on_account_change(text: &str) -> Result<OnAccountChange, String> {
    text.parse().map_err(|_| "it is `refuse` or `replace`".to_owned())
}

impl ConnectLinks {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create(arguments) => with_app(async |app| arguments.run(app).await).await,
        }
    }
}

impl Create {
    async fn run(self, app: &Services) -> anyhow::Result<()> {
        let known = app.applications.get(&self.application).is_some();
        anyhow::ensure!(
            known,
            "there is no application `{}` in the settings",
            self.application
        );
        let return_url = self
            .return_url
            .as_deref()
            .map(|url| app.return_urls.check(url))
            .transpose();
        let request = LinkRequest {
            application: self.application,
            seller_id: self.seller_id,
            return_url: return_url.context("--return-url")?,
            locale: self.locale,
            expires_in: TimeDelta::from_std(self.expires_in)?,
            metadata: None,
            on_account_change: self.on_account_change,
        };
        let created = app.connect.create_link(request, Actor::operator()).await?;
        let link = &created.link;
        let value = json!({
            "id": link.id,
            "url": created.url,
            "seller_id": link.seller_id,
            "expires_at": link.expires_at,
        });
        let text = format!(
            "{}\n\nfor seller {} until {}",
            created.url,
            link.seller_id,
            local(link.expires_at)
        );
        Output::new(self.format).result(&value, &text)
    }
}
