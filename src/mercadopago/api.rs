//! The few API calls that the service makes for itself: is this token alive, and take this application off that account.
//!
//! Both say no more than they know: a probe that got no clear answer is `Undecided`, never `Dead`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::application::Application;
use super::http_client;
use crate::domain::ids::UserId;
use crate::domain::secret::AccessToken;

/// Longest answer that is read.
const LONGEST_ANSWER: usize = 256 * 1024;

/// What Mercado Pago says of an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It was accepted.
    Alive {
        /// The account it belongs to, if the answer says.
        user_id: Option<UserId>,
    },
    /// It was refused with 401.
    Dead,
    /// Neither: not reached, throttled, or an error of the provider's own.
    Undecided {
        /// What came instead.
        reason: String,
    },
}

/// Why an application was not taken off an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnlinkError {
    /// The configured template gives no URL.
    #[error("`MERCADOPAGO_REVOKE_URL` is not a URL once its placeholders are filled")]
    Template,
    /// Mercado Pago refused.
    #[error("mercado pago answered {0}")]
    Refused(u16),
    /// No answer.
    #[error("mercado pago was not reached: {0}")]
    NotReached(String),
}

/// Mercado Pago's API, as far as the service itself needs it.
#[derive(Debug, Clone)]
pub struct ProviderApi {
    http: reqwest::Client,
    timeout: Duration,
}

impl ProviderApi {
    /// Calls through `http` (made by [`http_client::build`]), each within `timeout`.
    pub fn new(http: reqwest::Client, timeout: Duration) -> Self {
        Self { http, timeout }
    }

    /// `GET /users/me` with the token: whether it is alive, and whose it is.
    pub async fn users_me(&self, app: &Application, token: &AccessToken) -> Probe {
        let request = self
            .http
            .get(app.api("/users/me"))
            .bearer_auth(token.expose())
            .timeout(self.timeout);
        match request.send().await {
            Ok(response) => match response.status().as_u16() {
                200 => Probe::Alive {
                    user_id: account(response).await,
                },
                401 => Probe::Dead,
                status => Probe::Undecided {
                    reason: format!("mercado pago answered {status}"),
                },
            },
            Err(error) => Probe::Undecided {
                reason: http_client::describe(error),
            },
        }
    }

    /// Asks Mercado Pago to take the application off the account, where the settings name a URL for it. Best effort: what
    /// matters is that our copy of the tokens is gone.
    pub async fn revoke(
        &self,
        app: &Application,
        user_id: UserId,
        token: &AccessToken,
    ) -> Result<(), UnlinkError> {
        let Some(template) = &app.revoke_url else {
            return Ok(());
        };
        let url = template
            .replace("{user_id}", &user_id.to_string())
            .replace("{client_id}", &app.client_id);
        let url = url::Url::parse(&url).map_err(|_| UnlinkError::Template)?;
        let request = self
            .http
            .delete(url)
            .bearer_auth(token.expose())
            .timeout(self.timeout);
        let response = request
            .send()
            .await
            .map_err(|error| UnlinkError::NotReached(http_client::describe(error)))?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(UnlinkError::Refused(response.status().as_u16()))
        }
    }
}

async fn account(mut response: reqwest::Response) -> Option<UserId> {
    #[derive(Deserialize)]
    struct Me {
        id: Value,
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    let me: Me = serde_json::from_slice(&body).ok()?;
    let id = me.id.as_i64().or_else(|| me.id.as_str()?.parse().ok())?;
    Some(UserId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mercadopago::application::tests::application;
    use crate::mercadopago::peer::{Act, Peer, json};

    async fn probe(act: Act) -> (Probe, String) {
        let peer = Peer::playing([act]).await;
        let api = ProviderApi::new(http_client::build().unwrap(), Duration::from_millis(500));
        let probe = api
            .users_me(&application(&peer.origin()), &AccessToken::new("APP_USR-1"))
            .await;
        (probe, peer.requests()[0].clone())
    }

    #[tokio::test]
    async fn a_token_is_alive_dead_or_undecided() {
        let (alive, request) = probe(json(200, r#"{"id":241983636,"nickname":"x"}"#)).await;
        assert_eq!(
            alive,
            Probe::Alive {
                user_id: Some(UserId(241_983_636))
            }
        );
        assert!(
            request.starts_with("GET /users/me HTTP/1.1\r\nauthorization: Bearer APP_USR-1\r\n"),
            "{request}"
        );
        assert_eq!(
            probe(json(200, "garbage")).await.0,
            Probe::Alive { user_id: None }
        );
        assert_eq!(probe(json(401, "{}")).await.0, Probe::Dead);
        for act in [
            json(403, ""),
            json(500, ""),
            json(429, ""),
            json(302, ""),
            Act::Close,
            Act::Hang,
        ] {
            assert!(
                matches!(probe(act.clone()).await.0, Probe::Undecided { .. }),
                "{act:?}"
            );
        }
    }

    #[tokio::test]
    async fn unlinking_fills_the_template_and_tells_a_refusal() {
        let peer = Peer::playing([json(200, "{}"), json(404, "{}")]).await;
        let mut app = application(&peer.origin());
        let api = ProviderApi::new(http_client::build().unwrap(), Duration::from_secs(5));
        let token = AccessToken::new("APP_USR-1");
        assert_eq!(api.revoke(&app, UserId(7), &token).await, Ok(()));
        assert!(peer.requests().is_empty(), "no template, no call");
        app.revoke_url = Some(format!(
            "{}/users/{{user_id}}/applications/{{client_id}}",
            peer.origin()
        ));
        assert_eq!(api.revoke(&app, UserId(7), &token).await, Ok(()));
        assert!(peer.requests()[0].starts_with("DELETE /users/7/applications/1234567890123456 HTTP/1.1\r\n"));
        assert_eq!(
            api.revoke(&app, UserId(7), &token).await,
            Err(UnlinkError::Refused(404))
        );
        app.revoke_url = Some("not a url".to_owned());
        assert_eq!(
            api.revoke(&app, UserId(7), &token).await,
            Err(UnlinkError::Template)
        );
    }
}
