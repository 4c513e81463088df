//! The console's pages about what Mercado Pago told us and whom we tell, as contexts.

use askama::Template;

use super::Moment;
use super::console::{Badge, Choice, Pages, Shell};
use crate::domain::secret::EndpointSecret;

/// A notification in the list.
#[derive(Debug)]
pub(crate) struct NotificationLine {
    pub(crate) id: String,
    pub(crate) application: String,
    pub(crate) received: Moment,
    pub(crate) topic: String,
    pub(crate) action: Option<String>,
    pub(crate) resource_id: Option<String>,
    pub(crate) user_id: Option<i64>,
    pub(crate) seller_id: Option<String>,
    pub(crate) seller_href: Option<String>,
    pub(crate) outcome: Badge,
    pub(crate) deliveries_href: Option<String>,
    pub(crate) body: String,
}

#[derive(Debug, Template)]
#[template(path = "console/notifications.html")]
pub(crate) struct Notifications {
    pub(crate) shell: Shell,
    pub(crate) about: String,
    pub(crate) topic: String,
    pub(crate) unknown_sellers: bool,
    pub(crate) rows: Vec<NotificationLine>,
    pub(crate) pages: Pages,
}

/// A delivery in the list.
#[derive(Debug)]
pub(crate) struct DeliveryLine {
    pub(crate) href: String,
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) endpoint_url: String,
    pub(crate) state: Badge,
    pub(crate) attempts: i64,
    pub(crate) last: Option<String>,
    pub(crate) created: Moment,
    pub(crate) next: Option<Moment>,
}

#[derive(Debug, Template)]
#[template(path = "console/deliveries.html")]
pub(crate) struct Deliveries {
    pub(crate) shell: Shell,
    pub(crate) statuses: Vec<Choice>,
    pub(crate) endpoints: Vec<Choice>,
    pub(crate) rows: Vec<DeliveryLine>,
    pub(crate) pages: Pages,
}

/// One attempt of a delivery.
#[derive(Debug)]
pub(crate) struct AttemptLine {
    pub(crate) number: i64,
    pub(crate) started: Moment,
    pub(crate) milliseconds: i64,
    pub(crate) result: String,
    pub(crate) answer: Option<String>,
}

#[derive(Debug, Template)]
#[template(path = "console/delivery.html")]
pub(crate) struct Delivery {
    pub(crate) shell: Shell,
    pub(crate) row: DeliveryLine,
    pub(crate) event_id: String,
    pub(crate) body: String,
    pub(crate) attempts: Vec<AttemptLine>,
}

/// An event endpoint in the list.
#[derive(Debug)]
pub(crate) struct EndpointLine {
    pub(crate) id: String,
    pub(crate) application: String,
    pub(crate) url: String,
    pub(crate) description: Option<String>,
    pub(crate) event_types: Vec<&'static str>,
    pub(crate) state: Badge,
    pub(crate) enabled: bool,
    pub(crate) since: Option<Moment>,
    pub(crate) two_secrets_until: Option<Moment>,
    pub(crate) deliveries_href: String,
}

/// A secret that was just made: the only time that it is shown.
#[derive(Debug)]
pub(crate) struct CreatedSecret {
    pub(crate) url: String,
    pub(crate) secret: EndpointSecret,
}

#[derive(Debug, Template)]
#[template(path = "console/event_endpoints.html")]
pub(crate) struct EventEndpoints {
    pub(crate) shell: Shell,
    pub(crate) created: Option<CreatedSecret>,
    pub(crate) rows: Vec<EndpointLine>,
    pub(crate) applications: Vec<Choice>,
    pub(crate) event_types: Vec<Choice>,
    pub(crate) url: String,
    pub(crate) problem: Option<String>,
}
