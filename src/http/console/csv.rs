//! The list of connections as CSV (RFC 4180), streamed page by page, so that a million rows need no memory.
//!
//! Cells that a spreadsheet would run as a formula get a quote in front (OWASP CSV injection): seller ids are chosen by
//! others. If the store fails on the way, the answer breaks off, so that half a list is not taken for a whole one.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use http::header;
use http_body::Frame;
use tokio::sync::mpsc;

use super::Query;
use super::connections::filter_of;
use crate::domain::connection::{Connection, Status, StatusReason};
use crate::http::AppState;
use crate::http::session::{Page, Refusal, role};
use crate::storage::{ConnectionFilter, StoreError};

const ROWS: u32 = 500;
const HEAD: &str = "seller_id,application,user_id,status,status_reason,live_mode,access_token_expires_at,refresh_due_at,\
    last_refreshed_at,refresh_failures,connected_at,updated_at\r\n";

pub(super) async fn download_connections(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    _page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let filter = filter_of(&Query::of(query.as_deref()), ROWS);
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(write_pages(state, filter, sender));
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"connections.csv\"",
        ),
    ];
    Ok((headers, Body::new(Pages(receiver))).into_response())
}

/// Sends page after page until the last one, an error, or the reader's end.
async fn write_pages(
    state: AppState,
    mut filter: ConnectionFilter,
    sender: mpsc::Sender<Result<Bytes, StoreError>>,
) {
    let mut text = HEAD.to_owned();
    loop {
        let page = match state.store.list_connections(&filter).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "a download of connections broke off");
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
        for connection in &page.data {
            push_row(&mut text, connection);
        }
        filter.after = page
            .next
            .as_deref()
            .and_then(|next| next.split_once('/'))
            .map(|(seller, application)| (seller.to_owned(), application.to_owned()));
        if sender.send(Ok(std::mem::take(&mut text).into())).await.is_err() || filter.after.is_none() {
            return;
        }
    }
}

/// The pages as a body.
struct Pages(mpsc::Receiver<Result<Bytes, StoreError>>);

impl http_body::Body for Pages {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        self.0
            .poll_recv(context)
            .map(|page| page.map(|page| page.map(Frame::data)))
    }
}

fn push_row(text: &mut String, connection: &Connection) {
    let time = |at: Option<DateTime<Utc>>| {
        at.map_or_else(String::new, |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    let expires = (connection.status != Status::Revoked).then_some(connection.access_token_expires_at);
    let cells = [
        connection.seller_id.to_string(),
        connection.application.to_string(),
        connection.user_id.to_string(),
        connection.status.to_string(),
        connection
            .status_reason
            .map_or("", StatusReason::as_str)
            .to_owned(),
        connection
            .live_mode
            .map_or_else(String::new, |live| live.to_string()),
        time(expires),
        time(connection.refresh_due_at),
        time(connection.last_refreshed_at),
        connection.refresh_failures.to_string(),
        time(Some(connection.connected_at)),
        time(Some(connection.updated_at)),
    ];
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&quoted(cell));
    }
    text.push_str("\r\n");
}

/// A cell that no spreadsheet runs and no comma splits.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guarded = if formula {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if guarded.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula_and_never_two_cells() {
        for (cell, expected) in [
            ("seller-42", "seller-42"),
            ("-2+3", "'-2+3"),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("@SUM(1)", "'@SUM(1)"),
            ("+1", "'+1"),
            ("\tx", "'\tx"),
            ("a,b", "\"a,b\""),
            ("a\r\nb", "\"a\r\nb\""),
        ] {
            assert_eq!(quoted(cell), expected);
        }
    }
}
