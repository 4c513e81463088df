//! The service as tests meet it: really put together, on a real store in a temporary folder, asked in process; Mercado Pago
//! is a peer that does what the test lays out, and time stands until it is moved.

use std::net::IpAddr;

use axum::body::Body;
use chrono::{DateTime, TimeDelta};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;

use super::{AppState, Audience, Site, site};
use crate::access::{self, ApiKeyRequest};
use crate::app::{App, Migrate, Seams};
use crate::config::Config;
use crate::connect::Import;
use crate::domain::clock::ManualClock;
use crate::domain::connection::TokenSet;
use crate::domain::event::Actor;
use crate::domain::ids::{ApplicationId, UserId};
use crate::domain::random::Random;
use crate::domain::secret::{AccessToken, Password, RefreshToken};
use crate::mercadopago::peer::{Act, Peer};
use crate::storage::{Admission, Role};

pub(crate) const PASSWORD: &str = "a password for tests";

pub(crate) struct TestSite {
    pub(crate) state: AppState,
    pub(crate) site: Site,
    pub(crate) clock: ManualClock,
    pub(crate) peer: Peer,
    _app: App,
    _folder: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `code` of a problem, after a look at what every problem has.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["code"], self.header("connector-error"));
        assert_eq!(
            body["instance"],
            format!(
                "urn:marketplace-connector:request:{}",
                self.header("x-request-id")
            )
        );
        for member in ["type", "title", "detail", "fault", "retryable"] {
            assert!(!body[member].is_null(), "{member} is missing: {body}");
        }
        body["code"].as_str().unwrap().to_owned()
    }

    /// The names of the fields of an `invalid_field`.
    pub(crate) fn fields(&self) -> Vec<String> {
        assert_eq!(self.code(), "invalid_field");
        let errors = self.json()["errors"].as_array().unwrap().clone();
        errors
            .iter()
            .map(|error| error["field"].as_str().unwrap().to_owned())
            .collect()
    }

    /// `name=value` of the cookie that is set under a name that ends like this.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let lines = self
            .headers
            .get_all(header::SET_COOKIE)
            .iter()
            .map(|line| line.to_str().unwrap());
        let pairs = lines.filter_map(|line| line.split(';').next());
        pairs.filter(|pair| pair.contains(name)).map(str::to_owned).next()
    }

    /// The value of a hidden field.
    pub(crate) fn hidden(&self, name: &str) -> String {
        let marker = format!("name=\"{name}\" value=\"");
        let rest = self
            .body
            .split(&marker)
            .nth(1)
            .unwrap_or_else(|| panic!("no field {name}: {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }
}

impl TestSite {
    pub(crate) async fn new() -> Self {
        Self::playing([]).await
    }

    pub(crate) async fn playing(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::with(acts, &[]).await
    }

    pub(crate) async fn with(acts: impl IntoIterator<Item = Act>, settings: &[(&str, &str)]) -> Self {
        let peer = Peer::playing(acts).await;
        let folder = tempfile::tempdir().unwrap();
        let origin = peer.origin();
        let applications = folder.path().join("applications.toml");
        std::fs::write(
            &applications,
            "[other]\nclient_id = \"22\"\nclient_secret = \"s22\"\n",
        )
        .unwrap();
        let database = format!("sqlite://{}", folder.path().join("connector.db").display());
        let rescue = folder.path().join("rescue").display().to_string();
        let source = |name: &str| {
            let chosen = settings
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned());
            let usual = match name {
                "PUBLIC_URL" => "https://connect.example",
                "ENCRYPTION_KEYS" => "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                "MERCADOPAGO_CLIENT_ID" => "1234567890123456",
                "MERCADOPAGO_CLIENT_SECRET" => "canary-client-secret",
                "MERCADOPAGO_PUBLIC_KEY" => "APP_USR-integrator",
                "MERCADOPAGO_API_URL" => &origin,
                "RETURN_URL_ALLOWLIST" => "https://shop.example/done",
                "MARKETPLACE_NAME" => "Feria Libre",
                "DATABASE_URL" => &database,
                "RESCUE_DIR" => &rescue,
                "APPLICATIONS_FILE" => applications.to_str().unwrap(),
                _ => return chosen,
            };
            chosen.or_else(|| Some(usual.to_owned()))
        };
        let config = Config::from_source(&source).unwrap();
        let clock = ManualClock::at(DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
        let seams = Seams {
            clock: std::sync::Arc::new(clock.clone()),
            random: Random::system(),
        };
        let app = App::build(config, seams, Migrate::First).await.unwrap();
        let state = app.state();
        Self {
            site: site(Audience::Everyone, state.clone()),
            state,
            clock,
            peer,
            _app: app,
            _folder: folder,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from("203.0.113.7", request).await
    }

    pub(crate) async fn send_from(&self, address: &str, request: Request<Body>) -> Answer {
        let peer: IpAddr = address.parse().unwrap();
        let (parts, body) = self.site.answer(request, peer).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A request to the API.
    pub(crate) async fn call(&self, method: &str, path: &str, key: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .body(Body::from(body.to_owned()));
        self.send(request.unwrap()).await
    }

    /// An API key of this application with these scopes.
    pub(crate) async fn key_of(&self, application: &str, scopes: &str) -> String {
        let request = ApiKeyRequest {
            application: application.parse().unwrap(),
            name: "test".to_owned(),
            scopes: scopes.parse().unwrap(),
            expires_at: None,
        };
        let (actor, now) = (Actor::operator(), self.now());
        let made = access::create_api_key(&self.state.store, request, actor, now, &self.state.random).await;
        made.unwrap().1.expose().to_owned()
    }

    pub(crate) async fn key(&self, scopes: &str) -> String {
        self.key_of("default", scopes).await
    }

    pub(crate) fn now(&self) -> DateTime<chrono::Utc> {
        use crate::domain::clock::Clock as _;
        self.clock.now()
    }

    /// A connected seller of this application, whose tokens are `APP_USR-canary-...` and `TG-canary-...`.
    pub(crate) async fn connect_of(&self, application: &str, seller: &str, user: i64) {
        let application: ApplicationId = application.parse().unwrap();
        let tokens = TokenSet {
            access_token: AccessToken::new(format!("APP_USR-canary-{user}")),
            refresh_token: Some(RefreshToken::new(format!("TG-canary-{user}"))),
            obtained_at: self.now(),
            expires_at: self.now() + TimeDelta::days(180),
            scopes: vec!["offline_access".to_owned(), "read".to_owned()],
            public_key: Some("APP_USR-public".to_owned()),
            live_mode: Some(true),
            user_id: UserId(user),
        };
        let import = Import {
            application: self.state.applications.get(&application).unwrap(),
            seller_id: &seller.parse().unwrap(),
            tokens: &tokens,
            metadata: Some(&serde_json::json!({ "shop": "<b>norte</b>" })),
        };
        let admitted = self
            .state
            .connect
            .import(&import, Actor::operator())
            .await
            .unwrap();
        assert!(matches!(admitted, Admission::Connected(_)), "{admitted:?}");
    }

    pub(crate) async fn connect(&self, seller: &str, user: i64) {
        self.connect_of("default", seller, user).await;
    }

    pub(crate) async fn admin(&self, email: &str, role: Role) {
        let (actor, now) = (Actor::operator(), self.now());
        let password = Password::new(PASSWORD);
        access::create_admin(
            &self.state.store,
            email,
            role,
            &password,
            actor,
            now,
            &self.state.random,
        )
        .await
        .unwrap();
    }

    /// Opens the sign-in page and sends the form.
    pub(crate) async fn sign_in_from(
        &self,
        address: &str,
        email: &str,
        password: &str,
        old_session: &str,
    ) -> Answer {
        let page = self.get("/console/sign-in").await;
        let cookie = page.cookie("connector_sign_in").unwrap();
        let form = form(&[
            ("email", email),
            ("password", password),
            ("csrf_token", &page.hidden("csrf_token")),
            ("next", "/console/connections"),
        ]);
        let request = Request::post("/console/sign-in")
            .header(header::COOKIE, format!("{cookie}; {old_session}"))
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(form));
        self.send_from(address, request.unwrap()).await
    }

    /// A browser in which an admin of this role is signed in.
    pub(crate) async fn browser(&self, role: Role) -> Browser<'_> {
        let email = format!("{role}@example.com");
        self.admin(&email, role).await;
        let answer = self.sign_in_from("203.0.113.7", &email, PASSWORD, "").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
        Browser {
            site: self,
            cookie: answer.cookie("connector_session").unwrap(),
        }
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// A browser with a session.
pub(crate) struct Browser<'a> {
    site: &'a TestSite,
    pub(crate) cookie: String,
}

impl Browser<'_> {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.site
            .send(
                Request::get(path)
                    .header(header::COOKIE, &self.cookie)
                    .body(Body::empty())
                    .unwrap(),
            )
            .await
    }

    /// Sends a form as a browser does from a page of ours, with this CSRF token.
    pub(crate) async fn post_with(&self, path: &str, token: &str, fields: &[(&str, &str)]) -> Answer {
        let form = form(&[fields, &[("csrf_token", token)]].concat());
        let request = Request::post(path)
            .header(header::COOKIE, &self.cookie)
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(form));
        self.site.send(request.unwrap()).await
    }

    /// The same with the token of the session's pages.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.get("/console").await.hidden("csrf_token");
        self.post_with(path, &token, fields).await
    }
}
