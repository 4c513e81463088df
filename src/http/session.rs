//! Who uses the console: a signed-in admin with the role that the page or the form needs.
//!
//! Two extractors, and no third way to the admin: [`Page`] for what is looked at, which refuses every method but GET and
//! HEAD; and [`Form`] for what changes something, which takes the form's CSRF token and the browser's `Sec-Fetch-Site` into
//! account before the handler sees a field. So a page cannot change anything, and a change cannot come from another site.
//!
//! Sessions lie in the store as hashes, end after 30 idle minutes and after 12 hours in any case, and are new at each
//! sign-in (OWASP session management).

use std::borrow::Cow;
use std::marker::PhantomData;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::Duration;
use http::request::Parts;
use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::AppState;
use super::client_address::ClientAddress;
use super::cookies::Cookie;
use super::error::ApiError;
use super::request_id::RequestId;
use crate::domain::event::{Actor, ActorKind};
use crate::domain::problem::ProblemCode;
use crate::domain::secret::SessionToken;
use crate::storage::{Admin, Role};

/// A session ends after so long without a request.
pub(crate) const IDLE: Duration = Duration::minutes(30);
/// A session ends after so long in any case.
pub(crate) const ABSOLUTE: Duration = Duration::hours(12);
/// How often "last seen" is written.
const TOUCH_EVERY: Duration = Duration::minutes(1);

/// A role as a type, so that it can stand in a handler's signature.
pub(crate) trait RequiredRole: Send + Sync + 'static {
    const ROLE: Role;
}

/// The roles as types.
pub(crate) mod role {
    use super::{RequiredRole, Role};

    macro_rules! role_types {
        ($($name:ident),+) => {$(
            #[derive(Debug)]
            pub(crate) enum $name {}

            impl RequiredRole for $name {
                const ROLE: Role = Role::$name;
            }
        )+};
    }

    role_types!(Owner, Operator, Viewer);
}

/// A signed-in admin who looks at a page.
#[derive(Debug)]
pub(crate) struct Page<R> {
    pub(crate) admin: Admin,
    pub(crate) csrf_token: String,
    role: PhantomData<R>,
}

/// A signed-in admin who sent a form of ours.
#[derive(Debug)]
pub(crate) struct Form<R> {
    pub(crate) admin: Admin,
    pub(crate) csrf_token: String,
    /// The admin for the audit log.
    pub(crate) actor: Actor,
    pub(crate) token: SessionToken,
    pub(crate) fields: Fields,
    role: PhantomData<R>,
}

/// The fields of a form; a name may stand there several times.
#[derive(Debug)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(crate) fn parse(body: &[u8]) -> Self {
        Self(
            url::form_urlencoded::parse(body)
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The field's value without blanks around it; empty if there is no such field.
    pub(crate) fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.all(name).next().unwrap_or_default().trim()
    }

    /// The field's value as it was typed.
    pub(crate) fn verbatim<'a>(&'a self, name: &'a str) -> &'a str {
        self.all(name).next().unwrap_or_default()
    }

    /// Every value of a field.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Why the console does not go on.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nobody is signed in: to the sign-in page, and back to this address afterwards.
    SignIn { next: Option<String> },
    /// All else.
    Error(ApiError),
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn { next } => {
                let next = next.map_or(Cow::Borrowed("/console/sign-in"), |next| {
                    let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
                    format!("/console/sign-in?next={next}").into()
                });
                Redirect::to(&next).into_response()
            }
            Self::Error(error) => error.into_response(),
        }
    }
}

impl<R: RequiredRole> FromRequestParts<AppState> for Page<R> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refusal> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(ApiError::not_found().into());
        }
        let next = parts.uri.path_and_query().map(ToString::to_string);
        let (admin, token) = signed_in(&parts.headers, state)
            .await?
            .ok_or(Refusal::SignIn { next })?;
        require::<R>(&admin)?;
        Ok(Self {
            admin,
            csrf_token: csrf_token(token.expose()),
            role: PhantomData,
        })
    }
}

impl<R: RequiredRole> FromRequest<AppState> for Form<R> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Refusal> {
        require_same_origin(request.headers())?;
        let (admin, token) = signed_in(request.headers(), state)
            .await?
            .ok_or(Refusal::SignIn { next: None })?;
        require::<R>(&admin)?;
        let actor = Actor {
            kind: ActorKind::Admin,
            id: Some(admin.id.to_string()),
            ..visitor(request.extensions())
        };
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|_| ApiError::invalid_request("the form could not be read"))?;
        let fields = Fields::parse(&body);
        let csrf_token = csrf_token(token.expose());
        require_csrf_token(&csrf_token, &fields)?;
        Ok(Self {
            admin,
            csrf_token,
            actor,
            token,
            fields,
            role: PhantomData,
        })
    }
}

/// The admin of the session in the request's cookie.
async fn signed_in(headers: &HeaderMap, state: &AppState) -> Result<Option<(Admin, SessionToken)>, ApiError> {
    let Some(token) = state
        .cookies()
        .read(headers, Cookie::Session)
        .map(SessionToken::new)
    else {
        return Ok(None);
    };
    let now = state.clock.now();
    let Some(session) = state.store.find_session(&token, now, IDLE).await? else {
        return Ok(None);
    };
    if now - session.last_seen_at >= TOUCH_EVERY {
        state.store.touch_session(&token, now).await?;
    }
    Ok(Some((session.admin, token)))
}

fn require<R: RequiredRole>(admin: &Admin) -> Result<(), ApiError> {
    if admin.role.includes(R::ROLE) {
        return Ok(());
    }
    let detail = format!("this needs the role {}; you have {}", R::ROLE, admin.role);
    Err(ApiError::new(ProblemCode::InsufficientScope, detail))
}

/// Refuses what a browser says another site sent. Browsers that do not say it are left to the form's token.
pub(crate) fn require_same_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(foreign_form()),
    }
}

/// Refuses a form without the token that the page gave it.
pub(crate) fn require_csrf_token(expected: &str, fields: &Fields) -> Result<(), ApiError> {
    if fields
        .verbatim("csrf_token")
        .as_bytes()
        .ct_eq(expected.as_bytes())
        .into()
    {
        Ok(())
    } else {
        Err(foreign_form())
    }
}

fn foreign_form() -> ApiError {
    let detail =
        "the form does not come from this session's pages; go back, reload the page and send it again";
    ApiError::new(ProblemCode::InsufficientScope, detail)
}

/// The token that stands in the forms of a session. It is derived from the session's token, which it does not give away.
pub(crate) fn csrf_token(session_token: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"csrf token of ");
    hash.update(session_token.as_bytes());
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Somebody who is not signed in, for the audit log.
pub(crate) fn visitor(extensions: &http::Extensions) -> Actor {
    Actor {
        kind: ActorKind::Admin,
        id: None,
        address: extensions.get::<ClientAddress>().map(|address| address.0),
        request_id: extensions.get::<RequestId>().map(|id| id.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_may_send_forms() {
        let allowed = |site: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            require_same_origin(&headers).is_ok()
        };
        assert!(allowed(None) && allowed(Some("same-origin")) && allowed(Some("none")));
        assert!(!allowed(Some("cross-site")) && !allowed(Some("same-site")) && !allowed(Some("")));
    }

    #[test]
    fn a_form_needs_the_token_of_its_session() {
        let token = csrf_token("session-a");
        let fields = |token: &str| Fields::parse(format!("csrf_token={token}").as_bytes());
        assert!(require_csrf_token(&token, &fields(&token)).is_ok());
        assert!(require_csrf_token(&token, &fields(&csrf_token("session-b"))).is_err());
        assert!(require_csrf_token(&token, &fields("")).is_err());
        assert!(require_csrf_token(&token, &Fields::parse(b"")).is_err());
    }
}
