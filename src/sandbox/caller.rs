//! Who calls: the bearer token of a request, looked up.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use chrono::{DateTime, Utc};
use http::StatusCode;
use http::header;
use http::request::Parts;

use super::answer::Refusal;
use super::grants::{Access, Origin};
use super::state::{Seller, World};

/// A call with a valid access token.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) seller: Arc<Seller>,
    pub(super) access: Arc<Access>,
    /// When the call came, by the sandbox's clock.
    pub(super) now: DateTime<Utc>,
}

impl Caller {
    /// Whether the token came from a seller's consent, which marketplace fees need.
    pub(super) fn consented(&self) -> bool {
        self.access.origin == Origin::Consent
    }
}

/// The token of `Authorization: Bearer ...`.
pub(super) fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The account id at the end of a token, without a look at its validity.
pub(super) fn user_in(token: &str) -> Option<u64> {
    token.rsplit_once('-')?.1.parse().ok()
}

impl FromRequestParts<Arc<World>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, world: &Arc<World>) -> Result<Self, Refusal> {
        let now = world.now();
        let access = bearer(&parts.headers).and_then(|token| world.grants.access(token, now));
        let Some(access) = access else {
            return Err(if parts.uri.path().starts_with("/preapproval") {
                Refusal::subscription(StatusCode::UNAUTHORIZED, "Unauthorized access to resource.")
            } else {
                Refusal::plain(StatusCode::UNAUTHORIZED, "invalid access token")
            });
        };
        let needed = if parts.method == http::Method::GET {
            "read"
        } else {
            "write"
        };
        if !access.scopes.iter().any(|scope| scope == needed) {
            return Err(Refusal::policy());
        }
        let seller = world
            .seller(access.user_id)
            .ok_or_else(|| Refusal::plain(StatusCode::UNAUTHORIZED, "invalid access token"))?;
        world.settle(&seller, now);
        Ok(Self { seller, access, now })
    }
}
