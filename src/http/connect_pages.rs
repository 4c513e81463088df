//! The pages of the connect flow: the link, the way to Mercado Pago, and the way back (DESIGN.md section 6).
//!
//! `GET /connect/{link}` changes nothing, because mail scanners open links; a `POST` from the page begins. Redirects are
//! 303, never 307, so that no form is sent on (RFC 9700 section 4.12). Codes and states stand in the callback's query: they
//! are not logged, the page says `no-referrer`, and nothing on it comes from another origin.

use axum::Router;
use axum::extract::{OriginalUri, Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{Extensions, HeaderMap, StatusCode, header};

use super::AppState;
use super::client_address::ClientAddress;
use super::cookies::Cookie;
use super::error::ApiError;
use super::locale::Locale;
use super::pages::seller::{Ending as PageEnding, Landing, Message};
use super::request_id::RequestId;
use super::session::require_same_origin;
use crate::connect::{Callback, ConnectError, Ending, Failure};
use crate::domain::event::{Actor, ActorKind};
use crate::domain::problem::ProblemCode;
use crate::domain::secret::{BrowserId, LinkToken};
use crate::http::pages;

pub(super) fn router() -> Router<AppState> {
    Router::new()
        .route("/connect/{link}", get(show_landing).post(begin_connect))
        .route("/oauth/callback", get(complete_connect))
}

/// What a page needs to know of the request.
struct Visit {
    accepts: Locale,
    request_id: String,
}

impl Visit {
    fn of(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let accept_language = headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok());
        Self {
            accepts: Locale::negotiate(accept_language),
            request_id: extensions
                .get::<RequestId>()
                .map_or_else(String::new, |id| id.as_str().to_owned()),
        }
    }

    /// The link's language, if it has one, else the browser's.
    fn locale(&self, link: Option<&str>) -> Locale {
        link.and_then(Locale::parse).unwrap_or(self.accepts)
    }

    fn message(&self, state: &AppState, status: StatusCode, locale: Locale, ending: PageEnding) -> Response {
        pages::render(
            status,
            &Message::new(state.branding.chrome(), locale, ending, Some(&self.request_id)),
        )
    }

    /// The page for a flow that cannot go on.
    fn refuse(&self, state: &AppState, error: ConnectError) -> Result<Response, ApiError> {
        let (code, ending, link) = match error {
            ConnectError::UnknownLink => (ProblemCode::NotFound, PageEnding::LinkInvalid, None),
            ConnectError::ExpiredLink(link) | ConnectError::UsedLink(link) => {
                (ProblemCode::NotFound, PageEnding::LinkInvalid, Some(link))
            }
            ConnectError::UnknownState | ConnectError::MalformedCallback => {
                (ProblemCode::InvalidRequest, PageEnding::AttemptInvalid, None)
            }
            ConnectError::UnknownApplication => return Err(ApiError::internal(error)),
            ConnectError::Store(error) => return Err(error.into()),
        };
        let error = ApiError::new(code, "");
        let locale = self.locale(link.as_ref().and_then(|link| link.locale.as_deref()));
        let mut response = self.message(state, error.status(), locale, ending);
        error.headers(response.headers_mut());
        Ok(response)
    }
}

async fn show_landing(
    State(state): State<AppState>,
    Path(token): Path<String>,
    RawQuery(query): RawQuery,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    let visit = Visit::of(&headers, &extensions);
    let link = match state.connect.landing(&LinkToken::new(token)).await {
        Ok(link) => link,
        Err(error) => return visit.refuse(&state, error),
    };
    let chosen = chosen_language(query.as_deref());
    let locale = chosen.unwrap_or_else(|| visit.locale(link.locale.as_deref()));
    let page = Landing::new(
        state.branding.chrome(),
        locale,
        link.seller_id.as_str(),
        link.expires_at,
        uri.path().to_owned(),
    );
    Ok(pages::render(StatusCode::OK, &page))
}

/// The language that the reader chose on the page.
fn chosen_language(query: Option<&str>) -> Option<Locale> {
    url::form_urlencoded::parse(query?.as_bytes())
        .find(|(name, _)| name == "lang")
        .and_then(|(_, value)| Locale::parse(&value))
}

async fn begin_connect(
    State(state): State<AppState>,
    Path(token): Path<String>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    // A page of somebody else must not start a consent in this browser.
    require_same_origin(&headers)?;
    let cookies = state.cookies();
    let browser = cookies.read(&headers, Cookie::Browser).map(BrowserId::new);
    let begun = match state.connect.begin(&LinkToken::new(token), browser).await {
        Ok(begun) => begun,
        Err(error) => return Visit::of(&headers, &extensions).refuse(&state, error),
    };
    let mut response = Redirect::to(begun.redirect_to.as_str()).into_response();
    if let Some(cookie) = cookies.set(Cookie::Browser, begun.browser_id.expose()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn complete_connect(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    let visit = Visit::of(&headers, &extensions);
    let browser = state
        .cookies()
        .read(&headers, Cookie::Browser)
        .map(BrowserId::new);
    let actor = Actor {
        kind: ActorKind::Seller,
        id: None,
        address: extensions.get::<ClientAddress>().map(|address| address.0),
        request_id: Some(visit.request_id.clone()),
    };
    let completed = match Callback::parse(query.as_deref().unwrap_or_default()) {
        Ok(callback) => state.connect.complete(callback, browser.as_ref(), actor).await,
        Err(error) => Err(error),
    };
    let completed = match completed {
        Ok(completed) => completed,
        Err(error) => return visit.refuse(&state, error),
    };
    if let Some(url) = completed.return_to() {
        return Ok(Redirect::to(url.as_str()).into_response());
    }
    let locale = visit.locale(completed.link.locale.as_deref());
    Ok(visit.message(&state, StatusCode::OK, locale, page_of(&completed.ending)))
}

fn page_of(ending: &Ending) -> PageEnding {
    match ending {
        Ending::Connected(_) => PageEnding::Connected,
        Ending::Denied => PageEnding::Denied,
        Ending::Failed(Failure::AccountMismatch) => PageEnding::AccountMismatch,
        Ending::Failed(Failure::AccountInUse) => PageEnding::AccountInUse,
        Ending::Failed(Failure::ProviderUnavailable) => PageEnding::ProviderUnavailable,
        Ending::Failed(Failure::ExchangeFailed) => PageEnding::ExchangeFailed,
    }
}
