//! Mercado Pago's token endpoint, and the only user of the oauth2 crate.
//!
//! The crate builds the requests; the adaptor under it sends them as Mercado Pago documents them (JSON, only the members
//! that the grant needs, two headers) and hands every complete answer to [`KeepAnswer`] before anything parses it. The
//! answer is then read by [`parse_answer`], the same way in which rescue files are read: the crate's own reading drops the
//! HTTP status, which the classification needs.
//!
//! Guarantees: at most one request per call, never repeated; redirects not followed; at most 64 KiB read; a total
//! deadline. Says [`TokenError::NotSent`] only if no byte of the request left.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use http::header::{ACCEPT, CONTENT_TYPE};
use oauth2::basic::BasicClient;
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, ClientId, CsrfToken, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RequestTokenError, TokenUrl,
};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::application::Application;
use super::http_client;
use super::token_answer::parse_with_life;
pub use super::token_answer::{NotAnAnswer, RawAnswer, TokenError, parse_answer};
use crate::domain::clock::Clock;
use crate::domain::connection::TokenSet;
use crate::domain::secret::{AuthorizationCode, ClientSecret, CodeVerifier, RefreshToken, State};

/// Longest answer that is read (SECURITY.md D13).
const LONGEST_ANSWER: usize = 64 * 1024;

/// Life of a `client_credentials` token where the answer does not say: the documented 6 hours.
const OWN_TOKEN_LIFE: TimeDelta = TimeDelta::hours(6);

/// What [`KeepAnswer::keep`] gives.
pub type Keeping<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Keeps an answer safe before anything parses it (DESIGN.md section 7: the rescue file).
pub trait KeepAnswer: Send + Sync {
    /// Called once with each complete answer, whatever its status. The deadline does not run meanwhile; a failure to keep
    /// is the keeper's to tell, and does not stop the answer from being used.
    fn keep<'a>(&'a self, answer: &'a RawAnswer) -> Keeping<'a>;
}

/// For grants that can be asked for again at any time.
struct KeepNothing;

impl KeepAnswer for KeepNothing {
    fn keep<'a>(&'a self, _: &'a RawAnswer) -> Keeping<'a> {
        Box::pin(std::future::ready(()))
    }
}

type ReadyClient = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// The token endpoint of whichever application is passed.
#[derive(Debug, Clone)]
pub struct TokenEndpoint {
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

impl TokenEndpoint {
    /// Calls through `http` (made by [`http_client::build`]); each has `timeout` from its start to the end of the answer.
    pub fn new(http: reqwest::Client, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        Self { http, clock, timeout }
    }

    /// Where the seller consents (RFC 6749 section 4.1.1 with RFC 7636, always S256).
    ///
    /// # Panics
    /// If the verifier is not 43 to 128 characters; ours are 43.
    pub fn authorization_url(&self, app: &Application, state: &State, verifier: &CodeVerifier) -> Url {
        let verifier = PkceCodeVerifier::new(verifier.expose().to_owned());
        let (url, _) = client(app, &app.client_secret)
            .authorize_url(|| CsrfToken::new(state.expose().to_owned()))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_extra_param("platform_id", "mp")
            .add_extra_param("redirect_uri", app.redirect_uri.as_str())
            .url();
        url
    }

    /// Exchanges an authorization code (RFC 6749 section 4.1.3).
    pub async fn exchange_code(
        &self,
        app: &Application,
        secret: &ClientSecret,
        code: &AuthorizationCode,
        verifier: &CodeVerifier,
        keep: &dyn KeepAnswer,
    ) -> Result<TokenSet, TokenError> {
        let client = client(app, secret);
        let mut request = client
            .exchange_code(oauth2::AuthorizationCode::new(code.expose().to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().to_owned()))
            .add_extra_param("redirect_uri", app.redirect_uri.as_str());
        if app.test_tokens {
            request = request.add_extra_param("test_token", "true");
        }
        let adaptor = self.adaptor(keep);
        parse_answer(&answered(request.request_async(&adaptor).await)?)
    }

    /// Spends a refresh token (RFC 6749 section 6). Mercado Pago's are single-use.
    pub async fn refresh(
        &self,
        app: &Application,
        secret: &ClientSecret,
        token: &RefreshToken,
        keep: &dyn KeepAnswer,
    ) -> Result<TokenSet, TokenError> {
        let client = client(app, secret);
        let token = oauth2::RefreshToken::new(token.expose().to_owned());
        let adaptor = self.adaptor(keep);
        parse_answer(&answered(
            client
                .exchange_refresh_token(&token)
                .request_async(&adaptor)
                .await,
        )?)
    }

    /// A token of the application's own account (RFC 6749 section 4.4); it lives 6 hours and can be had again at any time.
    pub async fn client_credentials(
        &self,
        app: &Application,
        secret: &ClientSecret,
    ) -> Result<TokenSet, TokenError> {
        let client = client(app, secret);
        let mut request = client.exchange_client_credentials();
        if app.test_tokens {
            request = request.add_extra_param("test_token", "true");
        }
        let adaptor = self.adaptor(&KeepNothing);
        parse_with_life(&answered(request.request_async(&adaptor).await)?, OWN_TOKEN_LIFE)
    }

    fn adaptor<'a>(&'a self, keep: &'a dyn KeepAnswer) -> Adaptor<'a> {
        Adaptor { endpoint: self, keep }
    }

    /// Sends and reads, within the deadline. What comes back is complete, or longer than is read and cut there (such an
    /// answer does not parse).
    async fn send(&self, request: HttpRequest) -> Result<RawAnswer, TokenError> {
        let exchange = async {
            let url = request.uri().to_string();
            let body = Bytes::from_owner(json_body(request.into_body()));
            let request = self
                .http
                .post(url)
                .header(ACCEPT, JSON)
                .header(CONTENT_TYPE, JSON)
                .body(body);
            let mut response = request.send().await.map_err(transport_error)?;
            let mut body = Zeroizing::new(Vec::with_capacity(4096));
            while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
                let room = LONGEST_ANSWER - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    break;
                }
            }
            let received_at = self.clock.now();
            let retry_after = super::retry_after(response.headers(), received_at);
            Ok(RawAnswer {
                status: response.status().as_u16(),
                body,
                received_at,
                retry_after,
            })
        };
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(TokenError::Unknown {
                    reason: "no complete answer in time".to_owned(),
                })
            })
    }
}

const JSON: &str = "application/json";

fn client(app: &Application, secret: &ClientSecret) -> ReadyClient {
    BasicClient::new(ClientId::new(app.client_id.clone()))
        .set_client_secret(oauth2::ClientSecret::new(secret.expose().to_owned()))
        .set_auth_type(AuthType::RequestBody)
        .set_auth_uri(AuthUrl::from_url(app.authorization_url.clone()))
        .set_token_uri(TokenUrl::from_url(app.api("/oauth/token")))
}

/// The crate's form as the JSON object that Mercado Pago documents.
fn json_body(form: Vec<u8>) -> Zeroizing<Vec<u8>> {
    let form = Zeroizing::new(form);
    let members: Map<String, Value> = form_urlencoded::parse(&form)
        .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
        .collect();
    Zeroizing::new(Value::Object(members).to_string().into_bytes())
}

fn transport_error(error: reqwest::Error) -> TokenError {
    let sent = !(error.is_connect() || error.is_builder());
    let reason = http_client::describe(error);
    if sent {
        TokenError::Unknown { reason }
    } else {
        TokenError::NotSent { reason }
    }
}

/// Sends what the oauth2 crate built, keeps the answer, and stops the crate before it parses.
struct Adaptor<'a> {
    endpoint: &'a TokenEndpoint,
    keep: &'a dyn KeepAnswer,
}

/// Why the crate gets no answer to parse.
enum Stopped {
    /// There is one, and it was kept.
    Answered(RawAnswer),
    /// There is none.
    Failed(TokenError),
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopped")
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is read elsewhere")
    }
}

impl std::error::Error for Stopped {}

impl<'c> AsyncHttpClient<'c> for Adaptor<'_> {
    type Error = Stopped;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Stopped>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.endpoint.send(request).await.map_err(Stopped::Failed)?;
            self.keep.keep(&answer).await;
            Err(Stopped::Answered(answer))
        })
    }
}

fn answered<T, E: oauth2::ErrorResponse>(
    result: Result<T, RequestTokenError<Stopped, E>>,
) -> Result<RawAnswer, TokenError> {
    match result {
        Err(RequestTokenError::Request(Stopped::Answered(answer))) => Ok(answer),
        Err(RequestTokenError::Request(Stopped::Failed(error))) => Err(error),
        // The crate could not build the request; the adaptor never lets it parse.
        _ => Err(TokenError::NotSent {
            reason: "the request could not be built".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::clock::SystemClock;
    use crate::mercadopago::application::tests::application;
    use crate::mercadopago::peer::{Act, Peer, json, with_headers};

    const GOOD: &str =
        r#"{"access_token":"APP_USR-1","user_id":7,"refresh_token":"TG-2","expires_in":15552000}"#;

    /// Keeps answers in memory.
    #[derive(Default)]
    struct Kept(Mutex<Vec<(u16, Vec<u8>)>>);

    impl KeepAnswer for Kept {
        fn keep<'a>(&'a self, answer: &'a RawAnswer) -> Keeping<'a> {
            self.0.lock().unwrap().push((answer.status, answer.body.to_vec()));
            Box::pin(std::future::ready(()))
        }
    }

    fn endpoint(timeout: Duration) -> TokenEndpoint {
        TokenEndpoint::new(http_client::build().unwrap(), Arc::new(SystemClock), timeout)
    }

    async fn refresh(act: Act) -> (Result<TokenSet, TokenError>, Vec<(u16, Vec<u8>)>, Vec<String>) {
        let peer = Peer::playing([act]).await;
        let (app, kept) = (application(&peer.origin()), Kept::default());
        let token = RefreshToken::new("TG-1");
        let result = endpoint(Duration::from_millis(800))
            .refresh(&app, &app.client_secret, &token, &kept)
            .await;
        (result, kept.0.into_inner().unwrap(), peer.requests())
    }

    fn body(request: &str) -> Value {
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    #[test]
    fn the_authorization_url_has_what_mercado_pago_documents_and_s256() {
        let app = application("https://auth.example");
        let verifier = CodeVerifier::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let url = endpoint(Duration::from_secs(1)).authorization_url(&app, &State::new("s t"), &verifier);
        assert!(url.as_str().starts_with("https://auth.example/authorization?"));
        let mut pairs: Vec<_> = url.query_pairs().into_owned().collect();
        pairs.sort();
        let expected = [
            ("client_id", "1234567890123456"),
            // The example of RFC 7636 appendix B.
            ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ("code_challenge_method", "S256"),
            ("platform_id", "mp"),
            ("redirect_uri", "https://connect.example/oauth/callback"),
            ("response_type", "code"),
            ("state", "s t"),
        ];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[tokio::test]
    async fn a_refresh_sends_json_with_only_the_members_and_headers_it_needs() {
        let (result, kept, requests) = refresh(json(200, GOOD)).await;
        assert_eq!(result.unwrap().refresh_token.unwrap().expose(), "TG-2");
        assert_eq!(kept, [(200, GOOD.as_bytes().to_vec())]);
        assert_eq!(
            body(&requests[0]),
            serde_json::json!({
                "grant_type": "refresh_token", "refresh_token": "TG-1",
                "client_id": "1234567890123456", "client_secret": "canary-client-secret"
            })
        );
        let head = requests[0].split_once("\r\n\r\n").unwrap().0;
        let mut names: Vec<_> = head
            .lines()
            .skip(1)
            .map(|line| line.split(':').next().unwrap())
            .collect();
        names.sort_unstable();
        assert!(head.starts_with("POST /oauth/token HTTP/1.1\r\n"));
        assert_eq!(names, ["accept", "content-length", "content-type", "host"]);
    }

    #[tokio::test]
    async fn an_exchange_sends_verifier_and_redirect_uri_and_asks_for_test_tokens_when_set() {
        let peer = Peer::playing([json(200, GOOD), json(200, GOOD)]).await;
        let mut app = application(&peer.origin());
        let endpoint = endpoint(Duration::from_secs(5));
        let (code, verifier, kept) = (
            AuthorizationCode::new("TG-c"),
            CodeVerifier::new("v".repeat(43)),
            Kept::default(),
        );
        endpoint
            .exchange_code(&app, &app.client_secret, &code, &verifier, &kept)
            .await
            .unwrap();
        app.test_tokens = true;
        endpoint
            .client_credentials(&app, &ClientSecret::new("other & secret"))
            .await
            .unwrap();
        let requests = peer.requests();
        assert_eq!(
            body(&requests[0]),
            serde_json::json!({
                "grant_type": "authorization_code", "code": "TG-c", "code_verifier": "v".repeat(43),
                "redirect_uri": "https://connect.example/oauth/callback",
                "client_id": "1234567890123456", "client_secret": "canary-client-secret"
            })
        );
        assert_eq!(
            body(&requests[1]),
            serde_json::json!({
                "grant_type": "client_credentials", "test_token": "true",
                "client_id": "1234567890123456", "client_secret": "other & secret"
            })
        );
        assert_eq!(kept.0.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_parse_is_kept_all_the_same() {
        for act in [
            json(200, "{\"access_token\": "),
            json(200, "garbage"),
            with_headers(200, "content-type: text/html\r\n", "<p>"),
        ] {
            let (result, kept, _) = refresh(act).await;
            assert!(matches!(result, Err(TokenError::Unknown { .. })));
            assert_eq!(kept.len(), 1);
        }
    }

    #[tokio::test]
    async fn no_answer_is_unknown_and_nothing_is_sent_twice() {
        let half = Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"access".to_vec());
        for act in [Act::Close, Act::Hang, half] {
            let (result, kept, requests) = refresh(act.clone()).await;
            assert!(
                matches!(result, Err(TokenError::Unknown { .. })),
                "{act:?} {result:?}"
            );
            assert_eq!((kept.len(), requests.len()), (0, 1), "{act:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_sent() {
        let app = application("http://127.0.0.1:1");
        let result = endpoint(Duration::from_secs(5))
            .refresh(
                &app,
                &app.client_secret,
                &RefreshToken::new("TG-1"),
                &Kept::default(),
            )
            .await;
        assert!(matches!(result, Err(TokenError::NotSent { .. })), "{result:?}");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let elsewhere = Peer::playing([json(200, GOOD)]).await;
        for status in [301, 302, 303, 307, 308] {
            let location = format!("location: {}/oauth/token\r\n", elsewhere.origin());
            let (result, _, _) = refresh(with_headers(status, &location, "")).await;
            assert_eq!(
                result.unwrap_err(),
                TokenError::Unavailable {
                    status,
                    retry_after: None
                }
            );
        }
        assert!(elsewhere.requests().is_empty());
    }

    #[tokio::test]
    async fn of_a_ten_megabyte_answer_64_kib_are_read() {
        let (result, kept, _) = refresh(json(200, &"x".repeat(10 << 20))).await;
        assert!(matches!(result, Err(TokenError::Unknown { .. })));
        assert_eq!(kept[0].1.len(), LONGEST_ANSWER);
    }

    #[tokio::test]
    async fn retry_after_comes_with_429_and_503() {
        let delay = Some(Duration::from_secs(30));
        let (result, _, _) = refresh(with_headers(
            429,
            "retry-after: 30\r\n",
            r#"{"error":"local_rate_limited"}"#,
        ))
        .await;
        assert_eq!(result.unwrap_err(), TokenError::Throttled { retry_after: delay });
        let (result, _, _) = refresh(with_headers(503, "retry-after: 30\r\n", "")).await;
        assert_eq!(
            result.unwrap_err(),
            TokenError::Unavailable {
                status: 503,
                retry_after: delay
            }
        );
    }
}
