//! Signing in and out (OWASP authentication and session management).
//!
//! Attempts are counted before the password is looked at, per account and per address, in the store: so parallel guesses
//! and other replicas count too. An unknown address gets the same answer after the same work. The session's id is new at
//! each sign-in; the one that the browser had is ended.

use std::time::Duration as StdDuration;

use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use chrono::Duration;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Query;
use crate::access;
use crate::domain::event::{Actor, AuditAction, NewAudit};
use crate::domain::problem::ProblemCode;
use crate::domain::secret::{Password, SessionToken};
use crate::http::AppState;
use crate::http::cookies::Cookie;
use crate::http::error::ApiError;
use crate::http::pages::console::SignIn;
use crate::http::pages::{self};
use crate::http::session::{
    self, ABSOLUTE, Fields, Form, IDLE, Refusal, csrf_token, require_csrf_token, require_same_origin, role,
};
use crate::storage::{Admin, SignInLimit};

use axum::extract::FromRequest as _;

const WINDOW: Duration = Duration::minutes(15);
/// Attempts of one account in a window.
const PER_ACCOUNT: SignInLimit = SignInLimit {
    window: WINDOW,
    failures: 10,
};
/// Attempts from one address in a window; higher, because an office shares one.
const PER_ADDRESS: SignInLimit = SignInLimit {
    window: WINDOW,
    failures: 50,
};

const WRONG: &str = "The e-mail or the password is wrong.";
const LIMITED: &str = "Too many attempts. Try again in 15 minutes.";
const STALE: &str = "The page was open for too long or cookies are off. Try again.";

pub(super) async fn show_sign_in(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let next = destination(Query::of(query.as_deref()).text("next")).to_owned();
    if let Some(token) = state
        .cookies()
        .read(&headers, Cookie::Session)
        .map(SessionToken::new)
        && state
            .store
            .find_session(&token, state.clock.now(), IDLE)
            .await?
            .is_some()
    {
        return Ok(Redirect::to(&next).into_response());
    }
    Ok(form(&state, &headers, StatusCode::OK, None, next, String::new()))
}

/// The form, with a token that is bound to a cookie of this browser: somebody else's page cannot sign a visitor in.
fn form(
    state: &AppState,
    headers: &HeaderMap,
    status: StatusCode,
    problem: Option<&'static str>,
    next: String,
    email: String,
) -> Response {
    let cookies = state.cookies();
    let visitor = cookies
        .read(headers, Cookie::SignIn)
        .unwrap_or_else(|| state.random.base64url::<32>());
    let page = SignIn {
        chrome: state.branding.chrome(),
        problem,
        csrf_token: csrf_token(&visitor),
        next,
        email,
    };
    let mut response = pages::render(status, &page);
    if let Some(cookie) = cookies.set(Cookie::SignIn, &visitor) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

pub(super) async fn sign_in(State(state): State<AppState>, request: Request) -> Result<Response, Refusal> {
    require_same_origin(request.headers())?;
    let headers = request.headers().clone();
    let visitor = session::visitor(request.extensions());
    let body = Bytes::from_request(request, &state)
        .await
        .map_err(|_| ApiError::invalid_request("the form could not be read"))?;
    let fields = Fields::parse(&body);
    let email = fields.text("email").to_lowercase();
    let next = destination(fields.text("next")).to_owned();
    let again = |status, problem| {
        form(
            &state,
            &headers,
            status,
            Some(problem),
            next.clone(),
            email.clone(),
        )
    };

    let expected = state
        .cookies()
        .read(&headers, Cookie::SignIn)
        .map(|visitor| csrf_token(&visitor));
    if expected.is_none_or(|expected| require_csrf_token(&expected, &fields).is_err()) {
        return Ok(again(StatusCode::FORBIDDEN, STALE));
    }
    if email.is_empty() || email.len() > 254 {
        return Ok(again(StatusCode::FORBIDDEN, WRONG));
    }
    if is_limited(&state, &email, &visitor).await? {
        let mut response = again(StatusCode::TOO_MANY_REQUESTS, LIMITED);
        let limited = ApiError::new(ProblemCode::RateLimited, "").retry_after(StdDuration::from_mins(15));
        limited.headers(response.headers_mut());
        return Ok(response);
    }
    let (admin, hash) = state.store.find_admin(&email).await?.unzip();
    let right = access::verify_password(Password::new(fields.verbatim("password")), hash).await;
    match admin {
        Some(admin) if right => Ok(begin_session(&state, &headers, &admin, visitor, &next).await?),
        admin => {
            note_failure(&state, admin.as_ref(), visitor).await?;
            Ok(again(StatusCode::FORBIDDEN, WRONG))
        }
    }
}

/// Counts this attempt for the account and the address, and says whether it is one too many.
async fn is_limited(state: &AppState, email: &str, visitor: &Actor) -> Result<bool, ApiError> {
    let now = state.clock.now();
    let mut buckets = vec![(account_bucket(email), PER_ACCOUNT)];
    if let Some(address) = visitor.address {
        buckets.push((format!("address {address}"), PER_ADDRESS));
    }
    let mut limited = false;
    for (bucket, limit) in buckets {
        state.store.count_sign_in_failure(&bucket, limit, now).await?;
        let beyond = SignInLimit {
            failures: limit.failures + 1,
            ..limit
        };
        limited |= state.store.is_sign_in_limited(&bucket, beyond, now).await?;
    }
    Ok(limited)
}

fn account_bucket(email: &str) -> String {
    format!("account {email}")
}

/// An unknown address is not written down: it may be a password in the wrong field.
async fn note_failure(state: &AppState, admin: Option<&Admin>, visitor: Actor) -> Result<(), ApiError> {
    let audit = NewAudit {
        actor: visitor,
        action: AuditAction::AdminSignInFailed,
        application: None,
        target: admin.map(|admin| admin.email.clone()),
        at: state.clock.now(),
        detail: serde_json::json!({}),
    };
    Ok(state.store.record_audit(&audit).await?)
}

async fn begin_session(
    state: &AppState,
    headers: &HeaderMap,
    admin: &Admin,
    visitor: Actor,
    next: &str,
) -> Result<Response, ApiError> {
    let now = state.clock.now();
    let cookies = state.cookies();
    let actor = Actor {
        id: Some(admin.id.to_string()),
        ..visitor
    };
    state
        .store
        .forget_sign_in_failures(&account_bucket(&admin.email))
        .await?;
    if let Some(old) = cookies.read(headers, Cookie::Session).map(SessionToken::new)
        && let Some(session) = state.store.find_session(&old, now, IDLE).await?
    {
        state
            .store
            .end_session(&old, &session.admin.email, actor.clone(), now)
            .await?;
    }
    let token = SessionToken::new(state.random.base64url::<32>());
    state
        .store
        .create_session(&token, admin, now + ABSOLUTE, actor, now)
        .await?;
    let mut response = Redirect::to(next).into_response();
    let lines = [
        cookies.set(Cookie::Session, token.expose()),
        cookies.clear(Cookie::SignIn),
    ];
    for line in lines.into_iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
    Ok(response)
}

pub(super) async fn sign_out(
    State(state): State<AppState>,
    form: Form<role::Viewer>,
) -> Result<Response, Refusal> {
    state
        .store
        .end_session(&form.token, &form.admin.email, form.actor, state.clock.now())
        .await?;
    let mut response = Redirect::to("/console/sign-in").into_response();
    if let Some(cookie) = state.cookies().clear(Cookie::Session) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    // What the browser kept of the console goes with the session.
    response
        .headers_mut()
        .insert("clear-site-data", HeaderValue::from_static("\"cache\""));
    Ok(response)
}

/// Where to go after signing in: a page of the console and nothing else.
fn destination(next: &str) -> &str {
    let path = next.split(['?', '#']).next().unwrap_or_default();
    let below = path == "/console"
        || path
            .strip_prefix("/console/")
            .is_some_and(|rest| !rest.starts_with("sign-"));
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        && !path.contains("//")
        && !path.contains("..");
    if below && plain { next } else { "/console" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_to_a_page_of_the_console_only() {
        for kept in ["/console", "/console/connections?q=a%20b", "/console/team"] {
            assert_eq!(destination(kept), kept);
        }
        for refused in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/console",
            "/console//evil.example",
            "/console/../connect/x",
            "/consolex",
            "/console/sign-out",
            "/console\r\nx: y",
            "javascript:alert(1)",
        ] {
            assert_eq!(destination(refused), "/console", "{refused:?}");
        }
    }
}
