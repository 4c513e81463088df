//! A small shop in a browser, so that the whole story can be seen without typing a call: pick a connected seller, fill in a
//! test card, pay through the connector, see the outcome, refund it.
//!
//! The card goes from the browser straight to `/v1/card_tokens`, as MercadoPago.js sends it; the page then posts to its own
//! `/process_payment` in the shape of Mercado Pago's documents. The connector's API key stays on this side.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{json_answer, json_bytes};
use super::customer_search::query_map;
use super::options::Storefront;
use super::pages::page;
use super::state::World;

/// Longer than the connector takes at most.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The most that is read of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// The shop's routes.
pub(super) fn routes() -> Router<Arc<World>> {
    Router::new()
        .route("/storefront", get(shop))
        .route("/storefront/shop.js", get(script))
        .route("/storefront/sellers", get(sellers))
        .route("/process_payment", post(process_payment))
        .route("/process_refund", post(process_refund))
}

#[derive(Template)]
#[template(path = "sandbox/storefront.html")]
struct ShopPage {
    connector_url: String,
}

/// Why the shop has nothing to say itself.
fn closed() -> Response {
    super::pages::message_page(
        StatusCode::NOT_FOUND,
        "There is no shop here",
        "This sandbox was started without a connector to pay through.",
    )
}

fn connector(world: &World) -> Option<&Storefront> {
    world.options.storefront.as_ref()
}

async fn shop(State(world): State<Arc<World>>) -> Response {
    let Some(storefront) = connector(&world) else {
        return closed();
    };
    let mut response = page(
        StatusCode::OK,
        &ShopPage {
            connector_url: storefront.connector_url.clone(),
        },
    );
    let policy = HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'",
    );
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

async fn script() -> Response {
    let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
    (
        [(header::CONTENT_TYPE, kind)],
        include_str!("../../templates/sandbox/storefront.js"),
    )
        .into_response()
}

/// One call to the connector; the error is for the page to show.
async fn call(
    storefront: &Storefront,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Reply, Response> {
    let unreachable = |error: &dyn std::fmt::Display| {
        let message = format!(
            "the connector at {} does not answer: {error}",
            storefront.connector_url
        );
        json_answer(StatusCode::BAD_GATEWAY, &json!({ "message": message }))
    };
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| unreachable(&error))?;
    let mut request = client
        .request(method, format!("{}{path}", storefront.connector_url))
        .bearer_auth(&storefront.api_key);
    if let Some(body) = body {
        request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
    }
    let response = request.send().await.map_err(|error| unreachable(&error))?;
    let status = response.status();
    let decline = response
        .headers()
        .get("connector-decline")
        .and_then(|value| value.to_str().ok())
        .map(String::from);
    let body = response.bytes().await.map_err(|error| unreachable(&error))?;
    if body.len() > MAX_ANSWER {
        return Err(unreachable(&"its answer is too long"));
    }
    Ok(Reply {
        status,
        decline,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

struct Reply {
    status: StatusCode,
    decline: Option<String>,
    body: Value,
}

/// The connected sellers, with what the form needs to know of their country.
async fn sellers(State(world): State<Arc<World>>) -> Response {
    #[derive(Deserialize)]
    struct Connection {
        seller_id: String,
        user_id: u64,
        public_key: Option<String>,
    }
    #[derive(Deserialize)]
    struct Connections {
        data: Vec<Connection>,
    }
    let Some(storefront) = connector(&world) else {
        return closed();
    };
    let path = "/v1/connections?status=active&limit=100";
    let reply = match call(storefront, Method::GET, path, None).await {
        Ok(reply) => reply,
        Err(response) => return response,
    };
    let Ok(connections) = serde_json::from_value::<Connections>(reply.body.clone()) else {
        return json_answer(StatusCode::BAD_GATEWAY, &reply.body);
    };
    let shown: Vec<Value> = connections
        .data
        .into_iter()
        .filter_map(|connection| {
            let account = world.seller(connection.user_id)?;
            Some(json!({
                "seller_id": connection.seller_id,
                "nickname": account.nickname,
                "site_id": account.site.id,
                "currency_id": account.site.currency,
                "public_key": connection.public_key.unwrap_or_else(|| account.public_key.clone()),
                "cards": account.site.cards,
                "documents": account.site.documents,
            }))
        })
        .collect();
    json_answer(StatusCode::OK, &shown)
}

fn proxy_path(seller_id: &str, rest: &str) -> String {
    format!(
        "/proxy/{}{rest}",
        utf8_percent_encode(seller_id, NON_ALPHANUMERIC)
            .to_string()
            .replace("%2D", "-")
            .replace("%2E", ".")
            .replace("%5F", "_")
            .replace("%3A", ":")
    )
}

/// `POST /process_payment?seller=...`: the body goes to `/v1/payments` as it is; what comes back is what the documents'
/// server side gives its page, and the connector's advice.
async fn process_payment(
    State(world): State<Arc<World>>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let Some(storefront) = connector(&world) else {
        return closed();
    };
    let query = query_map(query.as_deref());
    let seller = query.get("seller").map_or("", String::as_str);
    let path = proxy_path(seller, "/v1/payments");
    match call(storefront, Method::POST, &path, Some(body)).await {
        Err(response) => response,
        Ok(reply) if reply.status.is_success() => json_answer(
            StatusCode::CREATED,
            &json!({
                "status": reply.body["status"],
                "status_detail": reply.body["status_detail"],
                "id": reply.body["id"],
                "decline": reply.decline,
            }),
        ),
        Ok(reply) => json_answer(reply.status, &reply.body),
    }
}

/// `POST /process_refund` with `{"seller": ..., "id": ...}`: gives all of a payment back.
async fn process_refund(State(world): State<Arc<World>>, body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Wanted {
        seller: String,
        id: u64,
    }
    let Some(storefront) = connector(&world) else {
        return closed();
    };
    let Ok(wanted) = serde_json::from_slice::<Wanted>(&body) else {
        return json_bytes(
            StatusCode::BAD_REQUEST,
            Bytes::from_static(br#"{"message":"seller and id are needed"}"#),
        );
    };
    let path = proxy_path(&wanted.seller, &format!("/v1/payments/{}/refunds", wanted.id));
    match call(storefront, Method::POST, &path, Some(Bytes::from_static(b"{}"))).await {
        Ok(reply) => json_answer(reply.status, &reply.body),
        Err(response) => response,
    }
}
