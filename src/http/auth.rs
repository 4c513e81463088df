//! Who calls the API: an API key with the scope that the operation needs.
//!
//! A handler names the scope in its signature, `caller: Caller<scope::ConnectionsRead>`, and gets the application to work on
//! from nowhere else: without a caller it has nothing to ask the store with. Missing, malformed, unknown, expired and
//! revoked keys get one and the same answer. A key is looked up at each request, so a revoked one is refused at once on
//! every replica.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use chrono::Duration;
use http::request::Parts;
use http::{HeaderMap, header};

use super::AppState;
use super::client_address::ClientAddress;
use super::error::ApiError;
use super::request_id::RequestId;
use crate::domain::event::{Actor, ActorKind};
use crate::domain::ids::ApplicationId;
use crate::domain::problem::ProblemCode;
use crate::domain::scope::Scope;
use crate::domain::secret::ApiKeySecret;
use crate::storage::ApiKey;

/// How often "last used" is written.
const TOUCH_EVERY: Duration = Duration::minutes(1);

/// A scope as a type, so that it can stand in a handler's signature.
pub trait RequiredScope: Send + Sync + 'static {
    /// The scope.
    const SCOPE: Scope;
    /// `WWW-Authenticate` for a key that lacks it (RFC 6750 section 3.1).
    const CHALLENGE: &'static str;
}

/// The scopes of the API's operations as types.
pub mod scope {
    use super::{RequiredScope, Scope};

    macro_rules! scope_types {
        ($($name:ident = $text:literal,)+) => {$(
            #[doc = concat!("`", $text, "`")]
            #[derive(Debug)]
            pub enum $name {}

            impl RequiredScope for $name {
                const SCOPE: Scope = Scope::$name;
                const CHALLENGE: &'static str =
                    concat!("Bearer realm=\"marketplace-connector\", error=\"insufficient_scope\", scope=\"", $text, "\"");
            }
        )+};
    }

    scope_types! {
        ConnectWrite = "connect:write",
        ConnectionsRead = "connections:read",
        ConnectionsWrite = "connections:write",
        ConnectionsRevoke = "connections:revoke",
        ConnectionsImport = "connections:import",
        EventsRead = "events:read",
        EventsWrite = "events:write",
        Admin = "admin",
    }
}

/// The holder of an API key that has scope `S`.
#[derive(Debug)]
pub struct Caller<S> {
    /// The key.
    pub key: ApiKey,
    /// The caller for the audit log.
    pub actor: Actor,
    scope: PhantomData<S>,
}

impl<S> Caller<S> {
    /// The application that the key is bound to, and so the only one that the request is about.
    pub fn application(&self) -> &ApplicationId {
        &self.key.application
    }
}

impl<S: RequiredScope> FromRequestParts<AppState> for Caller<S> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let secret = bearer(&parts.headers).ok_or_else(|| invalid_api_key(NO_KEY))?;
        let now = state.clock.now();
        let key = state.store.find_api_key(&secret).await?;
        let key = key
            .filter(|key| key.is_valid_at(now))
            .ok_or_else(|| invalid_api_key(BAD_KEY))?;
        if !key.scopes.allow(S::SCOPE) {
            let detail = format!(
                "this needs the scope `{}`; the API key has: {}",
                S::SCOPE,
                key.scopes
            );
            return Err(ApiError {
                challenge: Some(S::CHALLENGE),
                ..ApiError::new(ProblemCode::InsufficientScope, detail)
            });
        }
        if key.last_used_at.is_none_or(|at| now - at >= TOUCH_EVERY)
            && let Err(error) = state.store.touch_api_key(&key.id, now).await
        {
            // Not knowing when a key was last used is no reason to refuse its call.
            tracing::warn!(%error, key_id = key.id.as_str(), "the last use of an API key could not be noted");
        }
        let actor = Actor {
            kind: ActorKind::ApiKey,
            id: Some(key.id.to_string()),
            address: parts.extensions.get::<ClientAddress>().map(|address| address.0),
            request_id: parts
                .extensions
                .get::<RequestId>()
                .map(|id| id.as_str().to_owned()),
        };
        Ok(Self {
            key,
            actor,
            scope: PhantomData,
        })
    }
}

const NO_KEY: &str = "Bearer realm=\"marketplace-connector\"";
const BAD_KEY: &str = "Bearer realm=\"marketplace-connector\", error=\"invalid_token\"";

fn invalid_api_key(challenge: &'static str) -> ApiError {
    let detail = "send a valid API key as `Authorization: Bearer mck_...`";
    ApiError {
        challenge: Some(challenge),
        ..ApiError::new(ProblemCode::InvalidApiKey, detail)
    }
}

/// The one bearer token of a request (RFC 6750 section 2.1); none if there are several headers.
fn bearer(headers: &HeaderMap) -> Option<ApiKeySecret> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| ApiKeySecret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_names_the_scope_of_the_type() {
        fn holds<S: RequiredScope>() {
            assert!(S::CHALLENGE.ends_with(&format!("scope=\"{}\"", S::SCOPE)));
        }
        holds::<scope::ConnectWrite>();
        holds::<scope::ConnectionsRead>();
        holds::<scope::ConnectionsWrite>();
        holds::<scope::ConnectionsRevoke>();
        holds::<scope::ConnectionsImport>();
        holds::<scope::EventsRead>();
        holds::<scope::EventsWrite>();
        holds::<scope::Admin>();
    }

    #[test]
    fn a_request_has_one_bearer_token_or_none() {
        let token = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(token(&["Bearer mck_a"]).as_deref(), Some("mck_a"));
        assert_eq!(token(&["bearer  mck_a"]).as_deref(), Some("mck_a"));
        for refused in [
            &[][..],
            &["mck_a"],
            &["Bearer "],
            &["Basic mck_a"],
            &["Bearer mck_a", "Bearer mck_b"],
        ] {
            assert_eq!(token(refused), None, "{refused:?}");
        }
    }
}
