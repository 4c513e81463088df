//! `api-keys`: the platform's credentials.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::operator::Operator;
use super::output::{Format, Output, local, table};
use crate::access::{self, ApiKeyRequest};
use crate::domain::event::Actor;
use crate::domain::ids::{ApiKeyId, ApplicationId};
use crate::domain::scope::Scopes;
use crate::storage::ApiKey;

#[derive(Debug, Subcommand)]
pub(super) enum ApiKeys {
    /// Make an API key and print it: it is shown this once
    Create(Create),
    /// List the API keys, without their secrets
    List(List),
    /// Revoke an API key, effective within a second
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// A name to know the key by
    #[arg(long)]
    name: String,
    /// What it may do, separated by commas, like `connect:write,connections:read,proxy:*`
    #[arg(long)]
    scopes: Scopes,
    /// The application it is bound to
    #[arg(long, default_value = "default")]
    application: ApplicationId,
    /// How long it holds, like `90d`; for ever if not given
    #[arg(long, value_parser = humantime::parse_duration)]
    expires_in: Option<std::time::Duration>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only of this application
    #[arg(long)]
    application: Option<ApplicationId>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Id of the key, `key_...`
    id: ApiKeyId,
    #[command(flatten)]
    format: Format,
}

impl ApiKeys {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let operator = Operator::open().await?;
        match self {
            Self::Create(arguments) => arguments.run(&operator).await,
            Self::List(arguments) => arguments.run(&operator).await,
            Self::Revoke(arguments) => arguments.run(&operator).await,
        }
    }
}

impl Create {
    async fn run(self, operator: &Operator) -> anyhow::Result<()> {
        anyhow::ensure!(!self.scopes.is_empty(), "--scopes names no scope");
        let now = operator.now();
        let request = ApiKeyRequest {
            application: self.application,
            name: self.name,
            scopes: self.scopes,
            expires_at: self.expires_in.map(|life| now + life),
        };
        let (key, secret) =
            access::create_api_key(&operator.store, request, Actor::operator(), now, &operator.random)
                .await?;
        let mut value = view(&key);
        value["secret"] = secret.expose().into();
        let text = format!(
            "{}\n\nThis is {}. It is not shown again.",
            secret.expose(),
            key.id
        );
        Output::new(self.format).result(&value, &text)
    }
}

impl List {
    async fn run(self, operator: &Operator) -> anyhow::Result<()> {
        let keys = operator.store.list_api_keys(self.application.as_ref()).await?;
        let now = operator.now();
        let row = |key: &ApiKey| {
            let state = if key.revoked_at.is_some() {
                "revoked".to_owned()
            } else if key.is_valid_at(now) {
                key.expires_at
                    .map_or_else(|| "valid".to_owned(), |end| format!("until {}", local(end)))
            } else {
                "expired".to_owned()
            };
            [
                key.id.to_string(),
                key.application.to_string(),
                key.name.clone(),
                state,
                key.scopes.to_string(),
            ]
        };
        let text = table(
            ["id", "application", "name", "state", "scopes"],
            keys.iter().map(row),
        );
        Output::new(self.format).result(&keys.iter().map(view).collect::<Vec<_>>(), &text)
    }
}

impl Revoke {
    async fn run(self, operator: &Operator) -> anyhow::Result<()> {
        let revoked = operator
            .store
            .revoke_api_key(&self.id, None, Actor::operator(), operator.now())
            .await?;
        anyhow::ensure!(revoked, "there is no API key {} that could be revoked", self.id);
        Output::new(self.format).result(
            &json!({ "id": self.id, "revoked": true }),
            &format!("{} is revoked", self.id),
        )
    }
}

/// A key as `GET /v1/api-keys` shows it.
fn view(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "application": key.application,
        "name": key.name,
        "scopes": key.scopes,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    })
}
