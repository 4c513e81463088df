//! Making a connect link by hand, to be sent or scanned.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use chrono::TimeDelta;
use http::StatusCode;

use super::{Query, applications};
use crate::connect::LinkRequest;
use crate::domain::connection::OnAccountChange;
use crate::domain::ids::{ApplicationId, SellerId};
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::http::locale::Locale;
use crate::http::pages::console::{
    Choice, ConnectLinkCreated, ConnectLinkForm, ConnectLinkNew, Place, Shell,
};
use crate::http::pages::{self, Moment};
use crate::http::qr;
use crate::http::session::{Fields, Form, Page, Refusal, role};

/// How long a link may live, in seconds, and how that is called.
const LIFETIMES: [(i64, &str); 4] = [
    (3_600, "1 hour"),
    (86_400, "1 day"),
    (604_800, "7 days"),
    (2_592_000, "30 days"),
];
const DEFAULT_LIFETIME: i64 = 86_400;

pub(super) async fn show_form(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Operator>,
) -> Result<Response, Refusal> {
    let query = Query::of(query.as_deref());
    let form = ConnectLinkForm {
        seller_id: query.text("seller_id").to_owned(),
        ..ConnectLinkForm::default()
    };
    let shell = page.shell(&state, "New connect link", Place::ConnectLink);
    let context = new_form(
        &state,
        shell,
        form,
        query.filled("application"),
        "",
        DEFAULT_LIFETIME,
    );
    Ok(pages::render(StatusCode::OK, &context))
}

fn new_form(
    state: &AppState,
    shell: Shell,
    form: ConnectLinkForm,
    application: Option<&str>,
    locale: &str,
    lifetime: i64,
) -> ConnectLinkNew {
    let mut locales = vec![Choice::new("", "as the seller's browser asks", locale.is_empty())];
    locales.extend(
        Locale::ALL
            .iter()
            .map(|one| Choice::new(one.as_str(), one.name(), one.as_str() == locale)),
    );
    let lifetimes = LIFETIMES
        .iter()
        .map(|(seconds, label)| Choice::new(&seconds.to_string(), label, *seconds == lifetime))
        .collect();
    ConnectLinkNew {
        shell,
        form,
        applications: applications(state, application),
        locales,
        lifetimes,
    }
}

pub(super) async fn create_connect_link(
    State(state): State<AppState>,
    form: Form<role::Operator>,
) -> Result<Response, Refusal> {
    let request = match read(&state, &form.fields) {
        Ok(request) => request,
        Err(problem) => {
            let typed = ConnectLinkForm {
                problem: Some(problem),
                seller_id: form.fields.text("seller_id").to_owned(),
                return_url: form.fields.text("return_url").to_owned(),
                replace: form.fields.text("replace") == "yes",
            };
            let shell = form.shell(&state, "New connect link", Place::ConnectLink);
            let lifetime = form.fields.text("expires_in").parse().unwrap_or(DEFAULT_LIFETIME);
            let (application, locale) = (form.fields.text("application"), form.fields.text("locale"));
            let context = new_form(&state, shell, typed, Some(application), locale, lifetime);
            return Ok(pages::render(StatusCode::UNPROCESSABLE_ENTITY, &context));
        }
    };
    let shell = form.shell(&state, "Connect link", Place::ConnectLink);
    let created = state.connect.create_link(request, form.actor).await?;
    let context = ConnectLinkCreated {
        shell,
        seller_id: created.link.seller_id.to_string(),
        qr: qr::svg(created.url.as_str()).map_err(ApiError::internal)?,
        url: created.url.to_string(),
        expires: Moment::new(created.link.expires_at, state.clock.now()),
    };
    Ok(pages::render(StatusCode::CREATED, &context))
}

/// What the form asks for, or what is wrong with it.
fn read(state: &AppState, fields: &Fields) -> Result<LinkRequest, String> {
    let seller_id: SellerId = fields
        .text("seller_id")
        .parse()
        .map_err(|error| format!("{error}."))?;
    // With one application there is no choice in the form.
    let application = match fields.text("application") {
        "" => state
            .applications
            .iter()
            .next()
            .map(|application| application.id.clone()),
        text => text
            .parse::<ApplicationId>()
            .ok()
            .filter(|id| state.applications.get(id).is_some()),
    };
    let return_url = match fields.text("return_url") {
        "" => None,
        text => Some(
            state
                .return_urls
                .check(text)
                .map_err(|error| format!("The return URL {error}."))?,
        ),
    };
    let lifetime = LIFETIMES
        .iter()
        .map(|(seconds, _)| *seconds)
        .find(|seconds| fields.text("expires_in") == seconds.to_string());
    Ok(LinkRequest {
        application: application.ok_or("There is no such application.")?,
        seller_id,
        return_url,
        locale: Locale::parse(fields.text("locale")).map(|locale| locale.as_str().to_owned()),
        expires_in: TimeDelta::seconds(lifetime.ok_or("Choose how long the link is valid.")?),
        metadata: None,
        on_account_change: if fields.text("replace") == "yes" {
            OnAccountChange::Replace
        } else {
            OnAccountChange::Refuse
        },
    })
}
