//! What Mercado Pago told us, newest first.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;

use super::{Query, ROWS, address};
use crate::http::AppState;
use crate::http::pages::console::{Badge, Pages, Place};
use crate::http::pages::events::{NotificationLine, Notifications};
use crate::http::pages::{self, Moment, Tone};
use crate::http::session::{Page, Refusal, role};
use crate::storage::NotificationFilter;

const PATH: &str = "/console/notifications";

pub(super) async fn list_notifications(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let query = Query::of(query.as_deref());
    let filter = NotificationFilter {
        application: None,
        topic: query.filled("topic").map(str::to_owned),
        about: query.filled("about").map(str::to_owned),
        unknown_sellers: query.text("unknown") == "yes",
        before: query.filled("before").map(str::to_owned),
        limit: ROWS,
    };
    let found = state.store.list_notifications(&filter).await?;
    let (about, topic) = (
        query.filled("about").unwrap_or_default(),
        query.filled("topic").unwrap_or_default(),
    );
    let unknown = if filter.unknown_sellers { "yes" } else { "" };
    let with = |before: &str| {
        let parameters = [
            ("about", about),
            ("topic", topic),
            ("unknown", unknown),
            ("before", before),
        ];
        address(PATH, &parameters)
    };
    let rows = found.data.into_iter().map(|row| NotificationLine {
        received: Moment::new(row.received_at, now),
        seller_href: row
            .seller_id
            .as_ref()
            .map(|seller| format!("/console/connections/{}/{seller}", row.application)),
        outcome: match row.outcome.as_str() {
            "told" => Badge {
                tone: Tone::Good,
                label: "told",
            },
            "revoked" => Badge {
                tone: Tone::Warn,
                label: "revoked",
            },
            "ignored" => Badge {
                tone: Tone::Warn,
                label: "ignored",
            },
            _ => Badge {
                tone: Tone::Plain,
                label: "recorded",
            },
        },
        deliveries_href: row
            .event_id
            .as_deref()
            .map(|event| address("/console/deliveries", &[("event", event)])),
        id: row.id,
        application: row.application,
        topic: row.topic,
        action: row.action,
        resource_id: row.resource_id,
        user_id: row.user_id,
        seller_id: row.seller_id,
        body: row.body,
    });
    let context = Notifications {
        rows: rows.collect(),
        about: about.to_owned(),
        topic: topic.to_owned(),
        unknown_sellers: filter.unknown_sellers,
        pages: Pages {
            first: filter.before.is_some().then(|| with("")),
            next: found.next.map(|before| with(&before)),
        },
        shell: page.shell(&state, "Notifications", Place::Notifications),
    };
    Ok(pages::render(StatusCode::OK, &context))
}
