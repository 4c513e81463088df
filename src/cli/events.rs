//! `event-endpoints`, `events`, `deliveries`: whom the platform has us tell, what happened, and how telling it went.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::operator::with_app;
use super::output::{Format, Output, local, table};
use crate::domain::event::{Actor, DeliveryStatus, EventType};
use crate::domain::ids::{ApplicationId, DeliveryId, EventEndpointId, SellerId};
use crate::domain::secret::EndpointSecret;
use crate::events::NewEndpoint;
use crate::http::Services;
use crate::storage::{DeliveryFilter, DeliveryRow, EndpointChange, EventEndpoint, EventFilter, EventOrder};

/// Rows of a list at most.
const MOST_ROWS: u32 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum EventEndpoints {
    /// Make an event endpoint and print its secret, which is shown this once
    Create(Create),
    /// Print the event endpoints
    List(InApplication),
    /// Tell an event endpoint of events again
    Enable(OneEndpoint),
    /// Tell an event endpoint nothing more
    Disable(OneEndpoint),
    /// Give an event endpoint a new secret; both sign for 24 hours
    RotateSecret(OneEndpoint),
    /// Send a test event to an event endpoint and print how that went
    Test(OneEndpoint),
    /// Send the events of a time range to an event endpoint again
    Replay(Replay),
    /// Remove an event endpoint with its deliveries
    Delete(OneEndpoint),
}

#[derive(Debug, Args)]
pub(super) struct InApplication {
    /// The application
    #[arg(long, default_value = "default")]
    application: ApplicationId,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Where events are sent: https, and public unless `EVENT_ENDPOINTS_ALLOW_PRIVATE` is true
    url: String,
    /// A type of events that it is told of, several times for several; all if not given
    #[arg(long = "event-type", value_parser = event_type)]
    event_types: Vec<EventType>,
    /// A name to know it by
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    application: InApplication,
}

#[derive(Debug, Args)]
pub(super) struct OneEndpoint {
    /// Id of the event endpoint
    id: EventEndpointId,
    #[command(flatten)]
    application: InApplication,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Events from this instant on, as `2026-11-20T13:35:00Z`
    #[arg(long)]
    since: DateTime<Utc>,
    /// Events before this instant; now, if not given
    #[arg(long)]
    until: Option<DateTime<Utc>>,
    #[command(flatten)]
    endpoint: OneEndpoint,
}

#[derive(Debug, Subcommand)]
pub(super) enum Events {
    /// Print the newest events
    List(ListEvents),
}

#[derive(Debug, Args)]
pub(super) struct ListEvents {
    /// Only of this type
    #[arg(long = "type", value_parser = event_type)]
    event_type: Option<EventType>,
    /// Only about this seller
    #[arg(long)]
    seller_id: Option<SellerId>,
    /// So many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_ROWS)))]
    limit: u32,
    #[command(flatten)]
    application: InApplication,
}

#[derive(Debug, Subcommand)]
pub(super) enum Deliveries {
    /// Print the newest deliveries
    List(ListDeliveries),
    /// Put a delivery in line again; the service sends it
    Retry(OneDelivery),
}

#[derive(Debug, Args)]
pub(super) struct ListDeliveries {
    /// Only in this status: `pending`, `delivered` or `dead`
    #[arg(long, value_parser = delivery_status)]
    status: Option<DeliveryStatus>,
    /// Only to this event endpoint
    #[arg(long)]
    endpoint_id: Option<EventEndpointId>,
    /// So many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_ROWS)))]
    limit: u32,
    #[command(flatten)]
    application: InApplication,
}

#[derive(Debug, Args)]
pub(super) struct OneDelivery {
    /// Id of the delivery
    id: DeliveryId,
    #[command(flatten)]
    application: InApplication,
}

fn event_type(text: &str) -> Result<EventType, String> {
    let known = || {
        EventType::ALL
            .iter()
            .filter(|one| **one != EventType::EndpointTest)
    };
    known().find(|one| one.as_str() == text).copied().ok_or_else(|| {
        let names: Vec<_> = known().map(|one| one.as_str()).collect();
        format!("types are {}", names.join(", "))
    })
}

fn delivery_status(text: &str) -> Result<DeliveryStatus, String> {
    text.parse()
        .map_err(|_| "it is `pending`, `delivered` or `dead`".to_owned())
}

fn endpoint_value(endpoint: &EventEndpoint) -> Value {
    json!({
        "id": endpoint.id,
        "application": endpoint.application,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "description": endpoint.description,
        "enabled": endpoint.disabled.is_none(),
        "disabled_reason": endpoint.disabled.map(|(_, reason)| reason),
        "failing_since": endpoint.failing_since,
        "created_at": endpoint.created_at,
    })
}

fn endpoint_state(endpoint: &EventEndpoint) -> String {
    match (endpoint.disabled, endpoint.failing_since) {
        (Some((at, reason)), _) => format!("disabled ({reason}) since {}", local(at)),
        (None, Some(at)) => format!("failing since {}", local(at)),
        (None, None) => "enabled".to_owned(),
    }
}

/// Prints an endpoint with the secret that it just got.
fn with_secret(endpoint: &EventEndpoint, secret: &EndpointSecret, format: Format) -> anyhow::Result<()> {
    let mut value = endpoint_value(endpoint);
    value["secret"] = json!(secret.expose());
    let text = format!(
        "{}\n{}\n\nThe secret is not shown again.",
        endpoint.id,
        secret.expose()
    );
    Output::new(format).result(&value, &text)
}

fn delivery_value(row: &DeliveryRow) -> Value {
    json!({
        "id": row.id,
        "endpoint_id": row.endpoint_id,
        "event_id": row.event_id,
        "event_type": row.event_type,
        "status": row.status,
        "attempts": row.attempts,
        "next_attempt_at": row.next_attempt_at,
        "last_status": row.last_status,
        "last_error": row.last_error,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
    })
}

fn told(delivery: &DeliveryRow) -> String {
    match &delivery.last_error {
        Some(error) => format!("{}: {error}", delivery.status),
        None => delivery.status.clone(),
    }
}

impl EventEndpoints {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        with_app(async |app| self.work(app).await).await
    }

    async fn work(self, app: &Services) -> anyhow::Result<()> {
        let actor = Actor::operator();
        match self {
            Self::Create(new) => new.run(app).await,
            Self::List(InApplication { application, format }) => {
                let endpoints = app.store.list_endpoints(Some(&application)).await?;
                let values: Vec<_> = endpoints.iter().map(endpoint_value).collect();
                let rows = endpoints
                    .iter()
                    .map(|one| [one.id.to_string(), endpoint_state(one), one.url.clone()]);
                Output::new(format).result(&values, &table(["id", "state", "url"], rows))
            }
            Self::Enable(one) => one.switch(app, true).await,
            Self::Disable(one) => one.switch(app, false).await,
            Self::RotateSecret(OneEndpoint { id, application: of }) => {
                let (endpoint, secret) = app.endpoints.rotate_secret(&of.application, &id, actor).await?;
                with_secret(&endpoint, &secret, of.format)
            }
            Self::Test(OneEndpoint { id, application: of }) => {
                let delivery = app.endpoints.test(&of.application, &id).await?;
                Output::new(of.format).result(&delivery_value(&delivery), &told(&delivery))?;
                anyhow::ensure!(
                    delivery.status == DeliveryStatus::Delivered.as_str(),
                    "the endpoint did not confirm"
                );
                Ok(())
            }
            Self::Replay(replay) => replay.run(app).await,
            Self::Delete(OneEndpoint { id, application: of }) => {
                let endpoint = app.endpoints.delete(&of.application, &id, actor).await?;
                Output::new(of.format).result(&endpoint_value(&endpoint), &format!("{id} is deleted"))
            }
        }
    }
}

impl Create {
    async fn run(self, app: &Services) -> anyhow::Result<()> {
        let InApplication { application, format } = self.application;
        anyhow::ensure!(
            app.applications.get(&application).is_some(),
            "there is no application `{application}` in the settings"
        );
        let new = NewEndpoint {
            application,
            url: self.url,
            event_types: (!self.event_types.is_empty()).then_some(self.event_types),
            description: self.description,
        };
        let (endpoint, secret) = app.endpoints.create(new, Actor::operator()).await?;
        with_secret(&endpoint, &secret, format)
    }
}

impl OneEndpoint {
    async fn switch(self, app: &Services, enabled: bool) -> anyhow::Result<()> {
        let change = EndpointChange {
            enabled: Some(enabled),
            ..EndpointChange::default()
        };
        let of = self.application;
        let endpoint = app
            .endpoints
            .change(&of.application, &self.id, change, Actor::operator())
            .await?;
        let text = format!("{} is {}", self.id, endpoint_state(&endpoint));
        Output::new(of.format).result(&endpoint_value(&endpoint), &text)
    }
}

impl Replay {
    async fn run(self, app: &Services) -> anyhow::Result<()> {
        let OneEndpoint { id, application: of } = self.endpoint;
        let range = (self.since, self.until.unwrap_or_else(|| app.clock.now()));
        let (mut deliveries, mut after) = (0, None);
        loop {
            let replayed = app
                .endpoints
                .replay(&of.application, &id, range, after, Actor::operator())
                .await?;
            deliveries += replayed.deliveries;
            after = replayed.next;
            if after.is_none() {
                break;
            }
        }
        let text = format!("{deliveries} deliveries are in line; the service sends them");
        Output::new(of.format).result(&json!({ "deliveries": deliveries }), &text)
    }
}

impl Events {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self::List(list) = self;
        with_app(async |app| list.run(app).await).await
    }
}

impl ListEvents {
    async fn run(self, app: &Services) -> anyhow::Result<()> {
        let filter = EventFilter {
            application: self.application.application,
            event_type: self.event_type,
            seller_id: self.seller_id,
            order: EventOrder::Backward,
            cursor: None,
            limit: self.limit,
        };
        let events = app.store.list_events(&filter).await?.data;
        let value = |row: &crate::storage::EventRow| json!({ "id": row.id, "type": row.event_type, "timestamp": row.created_at, "data": row.data });
        let values: Vec<_> = events.iter().map(value).collect();
        let rows = events.iter().map(|row| {
            [
                local(row.created_at),
                row.event_type.clone(),
                row.seller_id.clone().unwrap_or_else(|| "-".to_owned()),
                row.id.clone(),
            ]
        });
        Output::new(self.application.format).result(&values, &table(["when", "type", "seller", "id"], rows))
    }
}

impl Deliveries {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => with_app(async |app| list.run(app).await).await,
            Self::Retry(OneDelivery { id, application: of }) => {
                with_app(async |app| {
                    let retried = app.endpoints.retry(&of.application, &id, Actor::operator()).await;
                    let delivery = retried.with_context(|| format!("{id} was not put in line"))?;
                    Output::new(of.format).result(&delivery_value(&delivery), &told(&delivery))
                })
                .await
            }
        }
    }
}

impl ListDeliveries {
    async fn run(self, app: &Services) -> anyhow::Result<()> {
        let filter = DeliveryFilter {
            application: Some(self.application.application),
            endpoint_id: self.endpoint_id,
            status: self.status,
            limit: self.limit,
            ..DeliveryFilter::default()
        };
        let deliveries = app.store.list_deliveries(&filter).await?.data;
        let values: Vec<_> = deliveries.iter().map(delivery_value).collect();
        let rows = deliveries.iter().map(|row| {
            let last = row.last_error.clone().unwrap_or_default();
            [
                row.id.clone(),
                row.event_type.clone(),
                row.status.clone(),
                row.attempts.to_string(),
                last,
            ]
        });
        let headings = ["id", "event", "status", "attempts", "last error"];
        Output::new(self.application.format).result(&values, &table(headings, rows))
    }
}
