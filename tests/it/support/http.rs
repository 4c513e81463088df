//! Callers of the service over real HTTP: what they send is written out, what they got is kept, nothing is followed or
//! repeated by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;
use url::Url;

/// No test waits longer for one answer.
const ANSWERS_WITHIN: Duration = Duration::from_mins(1);

/// Everything that the service answered to the callers of one test, heads and bodies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<Bytes>>>);

impl Seen {
    fn note(&self, answer: &Answer) {
        let mut head = answer.status.to_string().into_bytes();
        for (name, value) in &answer.headers {
            head.extend([b"\n", name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
        }
        self.0
            .lock()
            .unwrap()
            .extend([Bytes::from(head), answer.body.clone()]);
    }

    /// All of it, oldest first.
    pub(crate) fn all(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().clone()
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code of an error of our own.
    pub(crate) fn problem(&self) -> (u16, &str) {
        (self.status.as_u16(), self.header("connector-error"))
    }

    /// The answer, which must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    /// Where the answer sends the browser on to; relative addresses stay so.
    #[track_caller]
    pub(crate) fn location(&self) -> &str {
        assert_eq!(
            self.status,
            StatusCode::SEE_OTHER,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        self.header("location")
    }
}

/// Where the service is, under which origin the world knows it, and what it answered.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    client: reqwest::Client,
    /// Where it really listens.
    pub(crate) address: Url,
    /// `PUBLIC_URL`.
    pub(crate) public: Url,
    pub(crate) seen: Seen,
}

impl Target {
    pub(crate) fn new(address: Url, public: Url) -> Self {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWERS_WITHIN)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            client,
            address,
            public,
            seen: Seen::default(),
        }
    }

    /// The same service after it was started again elsewhere.
    pub(crate) fn moved(&self, address: Url) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    /// The address of what the world knows as `url` (a path, or an address below `PUBLIC_URL`).
    fn resolve(&self, url: &str) -> Url {
        let public = self.public.as_str().trim_end_matches('/');
        let path = url.strip_prefix(public).unwrap_or(url);
        assert!(path.starts_with('/'), "{url} is not ours");
        // Joined as text, so that the path stays as the test wrote it.
        format!("{}{path}", self.address.as_str().trim_end_matches('/'))
            .parse()
            .unwrap()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap()
    }

    async fn try_send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let answer = Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await?,
        };
        self.seen.note(&answer);
        Ok(answer)
    }
}

/// The platform with its API key.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    target: Target,
    key: String,
}

impl Platform {
    pub(crate) fn new(target: Target, key: &str) -> Self {
        Self {
            target,
            key: key.to_owned(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(Bytes::from(body.to_string())))
            .await
    }

    /// A call whose answer may never come, because the service is killed meanwhile.
    pub(crate) async fn post_in_vain(&self, path: &str) {
        let request = self
            .target
            .client
            .post(self.target.resolve(path))
            .bearer_auth(&self.key);
        let _ = self.target.try_send(request).await;
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// A call with exactly this body.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Answer {
        let mut request = self
            .target
            .client
            .request(method, self.target.resolve(path))
            .bearer_auth(&self.key);
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        self.target.send(request).await
    }

    /// Makes a connect link for a seller; its address.
    pub(crate) async fn connect_link(&self, seller: &str) -> String {
        self.connect_link_with(serde_json::json!({ "seller_id": seller }))
            .await
    }

    /// Makes a connect link with these members; its address.
    pub(crate) async fn connect_link_with(&self, members: Value) -> String {
        let link = self.post("/v1/connect-links", members).await.expect(201);
        link.json()["url"].as_str().unwrap().to_owned()
    }

    /// The connection of a seller as the API shows it.
    pub(crate) async fn connection(&self, seller: &str) -> Value {
        self.get(&format!("/v1/connections/{seller}"))
            .await
            .expect(200)
            .json()
    }
}

/// A browser: keeps cookies, sends forms as a page of the same origin does. Clones share nothing.
#[derive(Debug, Clone)]
pub(crate) struct Browser {
    target: Target,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            cookies: BTreeMap::new(),
        }
    }

    pub(crate) async fn open(&mut self, url: &str) -> Answer {
        let request = self.target.client.get(self.target.resolve(url));
        self.send(request.header("sec-fetch-site", "none")).await
    }

    /// Opens a page that may never come, because the service is killed meanwhile.
    pub(crate) async fn open_in_vain(self, url: String) {
        let cookies = self.cookie_line();
        let request = self.target.client.get(self.target.resolve(&url));
        let _ = self
            .target
            .try_send(request.header(header::COOKIE, cookies))
            .await;
    }

    fn cookie_line(&self) -> String {
        let pairs: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("; ")
    }

    /// Sends a form from a page of the same origin.
    pub(crate) async fn submit(&mut self, url: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self
            .target
            .client
            .post(self.target.resolve(url))
            .header(header::ORIGIN, self.target.public.origin().ascii_serialization())
            .header("sec-fetch-site", "same-origin")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
        self.send(request).await
    }

    async fn send(&mut self, mut request: reqwest::RequestBuilder) -> Answer {
        if !self.cookies.is_empty() {
            request = request.header(header::COOKIE, self.cookie_line());
        }
        let answer = self.target.send(request).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    /// Opens a connect link and begins; the address at Mercado Pago that the browser is sent to.
    pub(crate) async fn begin(&mut self, link: &str) -> String {
        self.open(link).await.expect(200);
        self.submit(link, &[]).await.location().to_owned()
    }
}

/// The value of the first hidden field of that name on a page.
pub(crate) fn hidden_field(html: &str, name: &str) -> String {
    let rest = html
        .split_once(&format!("name=\"{name}\" value=\""))
        .unwrap_or_else(|| panic!("no field {name} in {html}"))
        .1;
    rest.split('"').next().unwrap().to_owned()
}

/// The value of a parameter in an address.
pub(crate) fn parameter(url: &str, name: &str) -> String {
    let url: Url = url.parse().unwrap();
    url.query_pairs()
        .find(|(key, _)| key == name)
        .unwrap_or_else(|| panic!("no {name} in {url}"))
        .1
        .into_owned()
}
