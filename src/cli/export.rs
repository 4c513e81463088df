//! `connections export`: everything that another installation needs to go on, one JSON object per line with the members of
//! `POST /v1/connections`. Revoked connections, and those whose tokens are gone, are left out.

use std::io::Write as _;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::operator::Operator;
use crate::domain::event::{Actor, AuditAction, NewAudit};
use crate::domain::ids::{ApplicationId, SellerId};
use crate::storage::{ConnectionFilter, ExportedConnection, Store};

/// Rows read at a time.
const PAGE: u32 = 200;

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The application
    #[arg(long, default_value = "default")]
    application: ApplicationId,
    /// Write the tokens in plain instead of sealed; the audit log says that it was done
    #[arg(long)]
    reveal_tokens: bool,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    seller_id: &'a SellerId,
    user_id: i64,
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    expires_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_mode: Option<bool>,
    metadata: &'a Value,
}

impl Export {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let operator = Operator::open().await?;
        if self.reveal_tokens {
            // Before the first token leaves.
            let audit = NewAudit {
                actor: Actor::operator(),
                action: AuditAction::ConnectionsRevealed,
                application: Some(self.application.clone()),
                target: None,
                at: operator.now(),
                detail: serde_json::json!({}),
            };
            operator.store.record_audit(&audit).await?;
        }
        let mut filter = ConnectionFilter {
            application: Some(self.application.clone()),
            limit: PAGE,
            ..ConnectionFilter::default()
        };
        let mut to = std::io::BufWriter::new(std::io::stdout().lock());
        loop {
            let page = operator.store.export_connections(&filter).await?;
            for exported in &page.data {
                if let Some(line) = self.line(&operator.store, exported)? {
                    to.write_all(line.as_bytes())
                        .context("the export cannot be written")?;
                }
            }
            let (Some(_), Some(last)) = (page.next, page.data.last()) else {
                break;
            };
            let last = &last.connection;
            filter.after = Some((last.seller_id.to_string(), last.application.to_string()));
        }
        to.flush().context("the export cannot be written")
    }

    /// A connection as a line; none when there is nothing to go on with.
    fn line(
        &self,
        store: &Store,
        exported: &ExportedConnection,
    ) -> anyhow::Result<Option<Zeroizing<String>>> {
        let connection = &exported.connection;
        let Some(access_token) = &exported.access_token else {
            return Ok(None);
        };
        let written = |token: &str, member| {
            Zeroizing::new(if self.reveal_tokens {
                token.to_owned()
            } else {
                store.seal_for_export(token, &connection.seller_id, member, &connection.application)
            })
        };
        let access_token = written(access_token.expose(), "access_token");
        let refresh_token = exported.refresh_token.as_ref();
        let refresh_token = refresh_token.map(|token| written(token.expose(), "refresh_token"));
        let line = Line {
            seller_id: &connection.seller_id,
            user_id: connection.user_id.0,
            access_token: &access_token,
            refresh_token: refresh_token.as_ref().map(|token| token.as_str()),
            expires_at: connection.access_token_expires_at,
            scope: connection.scopes.join(" "),
            public_key: connection.public_key.as_deref(),
            live_mode: connection.live_mode,
            metadata: &connection.metadata,
        };
        Ok(Some(Zeroizing::new(serde_json::to_string(&line)? + "\n")))
    }
}

/// An import's line with its sealed tokens opened; any other line as it is.
pub(super) fn unsealed(
    store: &Store,
    application: &ApplicationId,
    line: Zeroizing<String>,
) -> anyhow::Result<Zeroizing<String>> {
    // What is not an object, or names no seller, is refused where lines are read in full.
    let Ok(Value::Object(mut members)) = serde_json::from_str(&line) else {
        return Ok(line);
    };
    let Some(seller) = members.get("seller_id").and_then(Value::as_str) else {
        return Ok(line);
    };
    let Ok(seller) = seller.parse::<SellerId>() else {
        return Ok(line);
    };
    let mut sealed = false;
    for member in ["access_token", "refresh_token"] {
        let Some(text) = members.get(member).and_then(Value::as_str) else {
            continue;
        };
        if let Some(opened) = store.open_exported(text, &seller, member, application) {
            let opened = opened.with_context(|| format!("`{member}`"))?;
            members.insert(member.to_owned(), Value::String(opened));
            sealed = true;
        }
    }
    if !sealed {
        return Ok(line);
    }
    Ok(Zeroizing::new(serde_json::to_string(&members)?))
}
