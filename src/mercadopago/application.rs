//! An application: our registration at Mercado Pago, as the settings describe it.
//!
//! Holds what was configured and nothing derived from it. `Debug` shows no secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use crate::domain::ids::ApplicationId;
use crate::domain::secret::{ClientSecret, WebhookSecret};

/// One registration at Mercado Pago. An operator may have several: a country each, or test and live.
#[derive(Debug, Clone)]
pub struct Application {
    /// Our slug of it.
    pub id: ApplicationId,
    /// `client_id` (RFC 6749 section 2.2), the application number at Mercado Pago.
    pub client_id: String,
    /// `client_secret` (RFC 6749 section 2.3.1).
    pub client_secret: ClientSecret,
    /// The secret before the last rotation; Mercado Pago honours both for 12 hours.
    pub client_secret_previous: Option<ClientSecret>,
    /// What notifications are signed with.
    pub webhook_secret: Option<WebhookSecret>,
    /// The same before the last rotation.
    pub webhook_secret_previous: Option<WebhookSecret>,
    /// Where sellers consent.
    pub authorization_url: Url,
    /// Origin (and path prefix, if any) of the REST API and of the token endpoint.
    pub api_url: Url,
    /// Redirect URI as registered: Mercado Pago compares it character by character.
    pub redirect_uri: String,
    /// The integrator's own public key.
    pub public_key: Option<String>,
    /// Whether test credentials are asked for.
    pub test_tokens: bool,
    /// Template with `{user_id}` and `{client_id}` of a URL to DELETE when a connection is revoked.
    pub revoke_url: Option<String>,
}

impl Application {
    /// The URL of `path` (which begins with `/`) at the API.
    pub fn api(&self, path: &str) -> Url {
        let mut url = self.api_url.clone();
        let full = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&full);
        url
    }
}

/// Every configured application, by slug.
#[derive(Debug, Clone, Default)]
pub struct Applications(BTreeMap<ApplicationId, Arc<Application>>);

impl Applications {
    /// Takes the configured applications; of two with one slug the later stands (the settings refuse such a pair).
    pub fn new(applications: Vec<Application>) -> Self {
        Self(
            applications
                .into_iter()
                .map(|one| (one.id.clone(), Arc::new(one)))
                .collect(),
        )
    }

    /// The application of a slug.
    pub fn get(&self, id: &ApplicationId) -> Option<&Arc<Application>> {
        self.0.get(id)
    }

    /// All of them, by slug.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.0.values()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An application of a provider at `origin`.
    pub(crate) fn application(origin: &str) -> Application {
        Application {
            id: ApplicationId::default_application(),
            client_id: "1234567890123456".to_owned(),
            client_secret: ClientSecret::new("canary-client-secret"),
            client_secret_previous: None,
            webhook_secret: Some(WebhookSecret::new("canary-webhook-secret")),
            webhook_secret_previous: None,
            authorization_url: Url::parse(origin).unwrap().join("/authorization").unwrap(),
            api_url: Url::parse(origin).unwrap(),
            redirect_uri: "https://connect.example/oauth/callback".to_owned(),
            public_key: None,
            test_tokens: false,
            revoke_url: None,
        }
    }

    #[test]
    fn an_api_url_may_have_a_path_prefix() {
        assert_eq!(
            application("https://a.example").api("/oauth/token").as_str(),
            "https://a.example/oauth/token"
        );
        assert_eq!(
            application("https://a.example/mp/").api("/users/me").as_str(),
            "https://a.example/mp/users/me"
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Applications::new(vec![application("https://a.example")]));
        assert!(shown.contains("1234567890123456"));
        assert!(!shown.contains("canary"));
    }
}
