//! The settings that this process runs with, to be read. Secrets are left out before they come here.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use crate::http::AppState;
use crate::http::pages;
use crate::http::pages::console::{Place, SettingRow, Settings};
use crate::http::session::{Page, Refusal, role};

pub(super) async fn show_settings(
    State(state): State<AppState>,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let row = |(name, value): &(String, String)| SettingRow {
        name: name.clone(),
        value: value.clone(),
    };
    let context = Settings {
        settings: state.settings.iter().map(row).collect(),
        shell: page.shell(&state, "Settings", Place::Settings),
    };
    Ok(pages::render(StatusCode::OK, &context))
}
