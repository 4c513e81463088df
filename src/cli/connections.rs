//! `connections`: what the API says of sellers' connections, for operators.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::export::{Export, unsealed};
use super::operator::{Operator, with_app};
use super::output::{Format, Output, local, table};
use crate::domain::connection::{Connection, RefreshAttempt, Status, StatusReason, Trigger};
use crate::domain::event::Actor;
use crate::domain::ids::{ApplicationId, SellerId};
use crate::http::error::ApiError;
use crate::http::{AppState, Services, import_json};
use crate::storage::{ConnectionFilter, Store};

/// Rows read at a time.
const PAGE: u32 = 200;
/// Refresh attempts shown with a connection.
const ATTEMPTS: u32 = 10;

#[derive(Debug, Subcommand)]
pub(super) enum Connections {
    /// List the connections, by seller
    List(List),
    /// Show one connection with its last refresh attempts
    Show(One),
    /// Renew a connection's tokens now, also when it waits for the seller
    Refresh(One),
    /// End a connection: its tokens are destroyed at once
    Revoke(One),
    /// Take over connections from elsewhere, one JSON object per line with the members of `POST /v1/connections`
    ///
    /// Sealed tokens of an export are opened with `ENCRYPTION_KEYS`.
    Import(Import),
    /// Write out the connections, one JSON object per line, for another installation's import; tokens are sealed
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only of this application
    #[arg(long)]
    application: Option<ApplicationId>,
    /// Only in this status: `active`, `reconnect_required` or `revoked`
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// Only those whose seller id or Mercado Pago account contains this
    #[arg(long)]
    q: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

/// One seller's connection.
#[derive(Debug, Args)]
pub(super) struct One {
    /// The platform's id of the seller
    seller_id: SellerId,
    /// The application
    #[arg(long, default_value = "default")]
    application: ApplicationId,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file; `-` is standard input
    file: PathBuf,
    /// The application that the tokens were issued for
    #[arg(long, default_value = "default")]
    application: ApplicationId,
    #[command(flatten)]
    format: Format,
}

fn status(text: &str) -> Result<Status, String> {
    text.parse()
        .map_err(|_| "a status is `active`, `reconnect_required` or `revoked`".to_owned())
}

impl Connections {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(arguments) => arguments.run(&Operator::open().await?).await,
            Self::Show(arguments) => arguments.show(&Operator::open().await?).await,
            Self::Refresh(arguments) => with_app(async |app| arguments.refresh(app).await).await,
            Self::Revoke(arguments) => with_app(async |app| arguments.revoke(app).await).await,
            Self::Export(arguments) => arguments.run().await,
            Self::Import(arguments) => with_app(async |app| arguments.run(app).await).await,
        }
    }
}

impl List {
    async fn run(self, operator: &Operator) -> anyhow::Result<()> {
        let mut filter = ConnectionFilter {
            application: self.application,
            status: self.status,
            q: self.q,
            limit: PAGE,
            ..ConnectionFilter::default()
        };
        let mut found: Vec<Connection> = Vec::new();
        while found.len() < self.limit {
            let page = operator.store.list_connections(&filter).await?;
            found.extend(page.data);
            let (Some(_), Some(last)) = (page.next, found.last()) else {
                break;
            };
            filter.after = Some((last.seller_id.to_string(), last.application.to_string()));
        }
        found.truncate(self.limit);
        let now = operator.now();
        let row = |connection: &Connection| {
            [
                connection.seller_id.to_string(),
                connection.application.to_string(),
                connection.user_id.to_string(),
                connection.status.to_string(),
                connection
                    .status_reason
                    .map(|reason| reason.to_string())
                    .unwrap_or_default(),
                local(connection.access_token_expires_at),
            ]
        };
        let headings = [
            "seller",
            "application",
            "account",
            "status",
            "reason",
            "token until",
        ];
        let text = table(headings, found.iter().map(row));
        let views: Vec<_> = found
            .iter()
            .map(|connection| connection.view_at(now, None))
            .collect();
        Output::new(self.format).result(&views, &text)
    }
}

impl One {
    async fn find(&self, store: &Store) -> anyhow::Result<Connection> {
        let found = store.find_connection(&self.application, &self.seller_id).await?;
        found.with_context(|| self.nothing())
    }

    fn nothing(&self) -> String {
        format!(
            "seller {} has no connection to application {}",
            self.seller_id, self.application
        )
    }

    async fn show(self, operator: &Operator) -> anyhow::Result<()> {
        let connection = self.find(&operator.store).await?;
        let attempts = operator
            .store
            .list_refresh_attempts(&connection.id, ATTEMPTS)
            .await?;
        let value = json!({
            "connection": connection.view_at(operator.now(), None),
            "refresh_attempts": attempts.iter().map(attempt_view).collect::<Vec<_>>(),
        });
        let mut text = describe(&connection, operator.now());
        if !attempts.is_empty() {
            text.push_str("\n\nrefresh attempts, newest first\n");
            text.push_str(&table(
                ["begun", "trigger", "outcome", "status", "error"],
                attempts.iter().map(attempt_row),
            ));
        }
        Output::new(self.format).result(&value, &text)
    }
}

impl One {
    async fn refresh(self, app: &Services) -> anyhow::Result<()> {
        let connection = self.find(&app.store).await?;
        app.refresher
            .refresh(&connection.id, None, Trigger::Manual)
            .await?;
        self.tell(app).await
    }

    async fn revoke(self, app: &Services) -> anyhow::Result<()> {
        let reason = StatusReason::RevokedByAdmin;
        let ended = app
            .revoker
            .revoke(&self.application, &self.seller_id, reason, Actor::operator())
            .await?;
        ended.with_context(|| self.nothing())?;
        self.tell(app).await
    }

    /// The connection as it stands now.
    async fn tell(self, app: &Services) -> anyhow::Result<()> {
        let connection = self.find(&app.store).await?;
        let now = app.clock.now();
        Output::new(self.format).result(&connection.view_at(now, None), &describe(&connection, now))
    }
}

impl Import {
    /// Goes on after a line that is refused; fails at the end if there was one.
    async fn run(self, app: &AppState) -> anyhow::Result<()> {
        let application = app.applications.get(&self.application);
        let application = application
            .with_context(|| format!("there is no application `{}` in the settings", self.application))?;
        let lines: Box<dyn BufRead> = if self.file.as_os_str() == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            let file =
                File::open(&self.file).with_context(|| format!("{} cannot be read", self.file.display()))?;
            Box::new(BufReader::new(file))
        };
        let (mut imported, mut refused) = (0_usize, Vec::new());
        for (index, line) in lines.lines().enumerate() {
            let line = Zeroizing::new(line.context("the file breaks off")?);
            if line.trim().is_empty() {
                continue;
            }
            let line = match unsealed(&app.store, &application.id, line) {
                Ok(line) => line,
                Err(error) => {
                    refused.push((index + 1, format!("{error:#}")));
                    continue;
                }
            };
            match import_json(app, application, line.as_bytes(), Actor::operator()).await {
                Ok(_) => imported += 1,
                Err(error) => refused.push((index + 1, told(&error))),
            }
        }
        let mut text = format!("{imported} connections are imported");
        for (line, why) in &refused {
            // Writing to a String cannot fail.
            let _ = write!(text, "\nline {line} is refused: {why}");
        }
        let lines: Vec<_> = refused
            .iter()
            .map(|(line, why)| json!({ "line": line, "detail": why }))
            .collect();
        Output::new(self.format).result(&json!({ "imported": imported, "refused": lines }), &text)?;
        anyhow::ensure!(refused.is_empty(), "{} lines were refused", refused.len());
        Ok(())
    }
}

/// A refusal of the API on one line.
fn told(error: &ApiError) -> String {
    let fields = error
        .errors
        .iter()
        .map(|field| format!("; {} {}", field.field, field.message));
    format!("{}: {}{}", error.code, error.detail, fields.collect::<String>())
}

/// A connection, one member a line.
fn describe(connection: &Connection, now: DateTime<Utc>) -> String {
    let instant = |instant: Option<DateTime<Utc>>| instant.map_or_else(|| "-".to_owned(), local);
    let reason = connection
        .status_reason
        .map_or_else(String::new, |reason| format!(" ({reason})"));
    let rows = [
        ("seller", connection.seller_id.to_string()),
        ("application", connection.application.to_string()),
        ("account", connection.user_id.to_string()),
        ("status", format!("{}{reason}", connection.status)),
        (
            "usable",
            if connection.is_usable_at(now) { "yes" } else { "no" }.to_owned(),
        ),
        ("token until", local(connection.access_token_expires_at)),
        ("refresh due", instant(connection.refresh_due_at)),
        ("last refreshed", instant(connection.last_refreshed_at)),
        ("failed refreshes", connection.refresh_failures.to_string()),
        ("connected", local(connection.connected_at)),
        ("scopes", connection.scopes.join(" ")),
    ];
    rows.map(|(name, value)| format!("{name:<17} {value}")).join("\n")
}

fn attempt_row(attempt: &RefreshAttempt) -> [String; 5] {
    [
        local(attempt.started_at),
        attempt.trigger.to_string(),
        attempt
            .outcome
            .map_or_else(|| "under way".to_owned(), |outcome| outcome.to_string()),
        attempt
            .http_status
            .map(|status| status.to_string())
            .unwrap_or_default(),
        attempt.error.clone().unwrap_or_default(),
    ]
}

fn attempt_view(attempt: &RefreshAttempt) -> Value {
    json!({
        "id": attempt.id,
        "generation": attempt.generation,
        "trigger": attempt.trigger,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "error": attempt.error,
    })
}
