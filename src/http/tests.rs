//! What sellers and whoever watches the process rely on: the connect pages, the headers of every answer, health, and the
//! server itself on a real socket.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, header};
use http_body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::testing::{Answer, TestSite};
use super::{Audience, Lanes, Site, serve, site};
use crate::mercadopago::peer::json;

/// How long a caller may take nothing of its answer here.
const PATIENCE: Duration = Duration::from_millis(200);

const GRANT: &str =
    r#"{"access_token":"APP_USR-canary","user_id":7,"refresh_token":"TG-canary","expires_in":15552000}"#;

impl TestSite {
    /// Path of a connect link for `seller-1`.
    async fn link(&self, more: &str) -> String {
        let key = self.key("connect:write").await;
        let body = format!("{{\"seller_id\":\"seller-1\"{more}}}");
        let answer = self.call("POST", "/v1/connect-links", &key, &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["url"]
            .as_str()
            .unwrap()
            .strip_prefix("https://connect.example")
            .unwrap()
            .to_owned()
    }

    async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers.iter().fold(Request::builder(), |request, (name, value)| {
            request.header(*name, *value)
        });
        self.send(request.method(method).uri(path).body(Body::empty()).unwrap())
            .await
    }

    /// Begins at the link; the browser's cookie and the `state` that Mercado Pago would send back.
    async fn begin(&self, link: &str) -> (String, String) {
        let begun = self
            .request("POST", link, &[("sec-fetch-site", "same-origin")])
            .await;
        assert_eq!(begun.status, 303, "{begun:?}");
        let cookie = begun.cookie("__Host-connector_browser").unwrap();
        (cookie, parameter(begun.header("location"), "state"))
    }
}

fn parameter(url: &str, name: &str) -> String {
    let url: url::Url = url.parse().unwrap();
    let found = url
        .query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned());
    found.unwrap_or_else(|| panic!("no {name} in {url}"))
}

#[tokio::test]
async fn the_landing_page_is_in_the_links_language_else_the_browsers_and_can_be_changed() {
    let site = TestSite::new().await;
    let (any, portuguese) = (site.link("").await, site.link(r#","locale":"pt""#).await);
    for (link, accept, title) in [
        (&any, "", "Conectar tu cuenta"),
        (&any, "en-GB,en;q=0.9", "Connect your"),
        (&any, "pt-BR", "Conectar sua conta"),
        (&portuguese, "en", "Conectar sua conta"),
        (&format!("{portuguese}?lang=en"), "es", "Connect your"),
    ] {
        let page = site.request("GET", link, &[("accept-language", accept)]).await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains(title), "{link} {accept}: {}", page.body);
        assert!(page.body.contains("Feria Libre") && page.body.contains("seller-1"));
    }
}

#[tokio::test]
async fn opening_a_link_changes_nothing_and_the_form_begins_with_pkce() {
    let site = TestSite::new().await;
    let path = site.link("").await;
    for _ in 0..3 {
        let page = site.get(&path).await;
        assert!(page.headers.get(header::SET_COOKIE).is_none());
        assert!(
            page.body
                .contains(&format!("<form method=\"post\" action=\"{path}\">"))
        );
    }
    let begun = site.request("POST", &path, &[]).await;
    assert_eq!(begun.status, 303);
    let line = begun.header("set-cookie");
    assert!(line.starts_with("__Host-connector_browser="), "{line}");
    for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
        assert!(line.contains(attribute), "{line}");
    }
    let location = begun.header("location");
    assert!(location.starts_with("https://auth.mercadopago.com/authorization?"));
    for (name, expected) in [
        ("client_id", "1234567890123456"),
        ("response_type", "code"),
        ("platform_id", "mp"),
        ("redirect_uri", "https://connect.example/oauth/callback"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameter(location, name), expected);
    }
    assert_eq!(parameter(location, "code_challenge").len(), 43);
    let again = site
        .request("POST", &path, &[("cookie", line.split(';').next().unwrap())])
        .await;
    assert_eq!(
        again.cookie("connector_browser").unwrap(),
        line.split(';').next().unwrap(),
        "two tabs share a browser"
    );
}

#[tokio::test]
async fn a_form_from_another_site_begins_nothing() {
    let site = TestSite::new().await;
    let link = site.link("").await;
    for origin in ["cross-site", "same-site"] {
        let refused = site
            .request(
                "POST",
                &link,
                &[("sec-fetch-site", origin), ("accept-language", "en")],
            )
            .await;
        assert_eq!(refused.status, 403);
        assert!(refused.headers.get(header::SET_COOKIE).is_none() && refused.body.contains("another site"));
    }
}

#[tokio::test]
async fn a_seller_who_consents_sees_success_and_the_link_is_used_up() {
    let site = TestSite::playing([json(200, GRANT)]).await;
    let link = site.link(r#","locale":"en""#).await;
    let (cookie, state) = site.begin(&link).await;
    let callback = format!("/oauth/callback?code=TG-code&state={state}");
    let page = site.request("GET", &callback, &[("cookie", &cookie)]).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("Account connected"));
    for secret in ["canary", "TG-code", &state] {
        assert!(!page.body.contains(secret));
    }
    assert_eq!(
        (page.header("cache-control"), page.header("referrer-policy")),
        ("no-store", "no-referrer")
    );
    let key = site.key("connections:read admin").await;
    assert_eq!(
        site.call("GET", "/v1/connections/seller-1", &key, "")
            .await
            .json()["status"],
        "active"
    );
    let audit = site
        .call("GET", "/v1/audit-log?action=connection.connected", &key, "")
        .await
        .json();
    assert_eq!(
        (&audit["data"][0]["actor_kind"], &audit["data"][0]["address"]),
        (&"seller".into(), &"203.0.113.7".into())
    );

    let replayed = site.request("GET", &callback, &[("cookie", &cookie)]).await;
    assert_eq!(
        (replayed.status.as_u16(), replayed.header("connector-error")),
        (400, "invalid_request")
    );
    for method in ["GET", "POST"] {
        let used = site.request(method, &link, &[]).await;
        assert_eq!(used.status, 404);
        assert!(
            used.body.contains("This link no longer works"),
            "in the link's language"
        );
    }
    assert_eq!(site.peer.requests().len(), 1);
}

#[tokio::test]
async fn a_callback_that_belongs_to_no_attempt_of_this_browser_is_a_400_and_calls_nobody() {
    let site = TestSite::new().await;
    let (cookie, state) = site.begin(&site.link("").await).await;
    let (other_cookie, _) = site.begin(&site.link("").await).await;
    let good = format!("/oauth/callback?code=TG-code&state={state}");
    for (path, cookie) in [
        (good.clone(), ""),
        (good.clone(), other_cookie.as_str()),
        (format!("{good}&state={state}"), &cookie),
        (format!("{good}&code=TG-2"), &cookie),
        ("/oauth/callback".to_owned(), &cookie),
        ("/oauth/callback?code=TG-code&state=unknown".to_owned(), &cookie),
        ("/oauth/callback?error=access_denied".to_owned(), &cookie),
        (format!("{good}{}", "x".repeat(2_000)), &cookie),
    ] {
        let page = site
            .request("GET", &path, &[("cookie", cookie), ("accept-language", "en")])
            .await;
        assert_eq!(page.status, 400, "{path}");
        assert!(
            page.body.contains("We do not recognise this attempt") && !page.body.contains("TG-code"),
            "{path}"
        );
    }
    assert!(site.peer.requests().is_empty());
}

#[tokio::test]
async fn a_seller_goes_back_to_the_marketplace_with_how_it_ended() {
    let site = TestSite::playing([json(200, GRANT), json(400, r#"{"error":"invalid_grant"}"#)]).await;
    let more = r#","return_url":"https://shop.example/done?order=1""#;
    let finish = async |query: &str| {
        let (cookie, state) = site.begin(&site.link(more).await).await;
        let answer = site
            .request(
                "GET",
                &format!("/oauth/callback?state={state}&{query}"),
                &[("cookie", &cookie)],
            )
            .await;
        assert_eq!(answer.status, 303);
        answer.header("location").to_owned()
    };
    let back = "https://shop.example/done?order=1&connection=";
    assert_eq!(
        finish("error=access_denied").await,
        format!("{back}denied&seller_id=seller-1")
    );
    assert_eq!(
        finish("code=TG-1").await,
        format!("{back}connected&seller_id=seller-1")
    );
    assert_eq!(
        finish("code=TG-2").await,
        format!("{back}failed&seller_id=seller-1&error=exchange_failed")
    );
}

#[tokio::test]
async fn a_seller_who_says_no_can_think_again() {
    let site = TestSite::new().await;
    let link = site.link(r#","locale":"es""#).await;
    let (cookie, state) = site.begin(&link).await;
    let path = format!("/oauth/callback?state={state}&error=access_denied");
    let page = site.request("GET", &path, &[("cookie", &cookie)]).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("No se conectó la cuenta"));
    assert_eq!(
        site.request("GET", &path, &[("cookie", &cookie)]).await.status,
        400,
        "the state is consumed"
    );
    assert_eq!(site.get(&link).await.status, 200);
}

#[tokio::test]
async fn every_answer_wears_the_security_headers() {
    let site = TestSite::new().await;
    let link = site.link("").await;
    for path in [
        &link,
        "/oauth/callback",
        "/connect/unknown",
        "/console/sign-in",
        "/v1/connections",
        "/nothing",
        "/healthz",
        "/docs",
    ] {
        let answer = site.get(path).await;
        for (name, expected) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("strict-transport-security", "max-age=31536000"),
        ] {
            assert_eq!(answer.header(name), expected, "{path} {name}");
        }
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}"
        );
        assert!(
            !policy.contains("unsafe") && !policy.contains("http"),
            "{path}: {policy}"
        );
        assert_eq!(answer.header("x-request-id").len(), 32, "{path}");
    }
    let landing = site.get(&link).await;
    assert!(
        !landing.header("content-security-policy").contains("form-action"),
        "it would stop the redirect"
    );
}

#[tokio::test]
async fn static_files_are_kept_by_browsers_and_found_under_their_own_address_only() {
    let site = TestSite::new().await;
    let page = site.get("/console/sign-in").await;
    let linked: Vec<_> = page
        .body
        .split("href=\"/assets/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(linked.len(), 3);
    for file in linked {
        let asset = site.get(&format!("/assets/{file}")).await;
        assert_eq!(asset.status, 200);
        assert_eq!(
            asset.header("cache-control"),
            "public, max-age=31536000, immutable"
        );
    }
    assert_eq!(site.get("/assets/app.css").await.status, 404);
}

#[tokio::test]
async fn the_callers_request_id_comes_back() {
    let site = TestSite::new().await;
    let answer = site
        .request("GET", "/v1/connections", &[("x-request-id", "order-42")])
        .await;
    assert_eq!(
        (answer.header("x-request-id"), answer.code().as_str()),
        ("order-42", "invalid_api_key")
    );
}

#[tokio::test]
async fn readiness_fails_first_when_the_process_stops_and_health_does_not() {
    let site = TestSite::new().await;
    assert_eq!(site.get("/readyz").await.status, 200);
    site.state.draining.cancel();
    let answer = site.get("/readyz").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connector-error")),
        (503, "shutting_down")
    );
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(site.get("/healthz").await.status, 200);
    let closed = TestSite::new().await;
    closed.state.store.close().await;
    let answer = closed.get("/readyz").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (503, "store_unavailable")
    );
}

#[tokio::test]
async fn with_two_listeners_each_has_only_what_its_callers_need() {
    let one = TestSite::new().await;
    let of = |audience| Site::clone(&site(audience, one.state.clone()));
    let status = async |site: Site, path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        site.answer(request, "203.0.113.7".parse().unwrap())
            .await
            .status()
            .as_u16()
    };
    let link = one.link("").await;
    for path in [
        "/console/sign-in",
        "/v1/connections",
        "/docs",
        "/openapi.json",
        "/proxy/seller-1/v1/payments/1",
        "/metrics",
    ] {
        assert_eq!(status(of(Audience::Public), path).await, 404, "{path}");
    }
    assert_eq!(status(of(Audience::Public), &link).await, 200);
    assert_eq!(status(of(Audience::Public), "/oauth/callback").await, 400);
    for (path, expected) in [
        (link.as_str(), 404),
        ("/oauth/callback", 404),
        ("/metrics", 404),
        ("/console/sign-in", 200),
        ("/v1/connections", 401),
    ] {
        assert_eq!(status(of(Audience::Internal), path).await, expected, "{path}");
    }
    for (path, expected) in [
        ("/metrics", 200),
        ("/readyz", 200),
        ("/console/sign-in", 404),
        ("/v1/connections", 404),
    ] {
        assert_eq!(status(of(Audience::Operators), path).await, expected, "{path}");
    }
}

/// A site of `router` on a socket; stops when the token is cancelled.
async fn on_a_socket(
    router: Router,
) -> (
    std::net::SocketAddr,
    CancellationToken,
    tokio::task::JoinHandle<()>,
    TestSite,
) {
    let test = TestSite::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let site = Site::new(test.state.clone(), router, false, PATIENCE);
    let lanes = Lanes::start().unwrap();
    let server = tokio::spawn(serve(
        listener,
        lanes,
        None,
        site,
        stop.clone(),
        Duration::from_secs(20),
    ));
    (address, stop, server, test)
}

/// A body without end, of which somebody learns when it is given up.
struct Endless {
    _given_up: DropGuard,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        const PIECE: &[u8] = &[b'x'; 64 * 1024];
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PIECE)))))
    }
}

#[tokio::test]
async fn a_caller_who_takes_nothing_of_its_answer_is_not_waited_for() {
    let given_up = CancellationToken::new();
    let told = given_up.clone();
    let endless = move || {
        let body = Endless {
            _given_up: told.clone().drop_guard(),
        };
        async { Body::new(body) }
    };
    let (address, _stop, _server, _test) = on_a_socket(Router::new().route("/endless", get(endless))).await;
    let mut caller = TcpStream::connect(address).await.unwrap();
    caller
        .write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    given_up.cancelled().await;
}

async fn exchange(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A refused head may end in a reset: what came before it counts.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_500_and_the_connection_lives() {
    async fn broken() -> &'static str {
        panic!("a canary");
    }
    let router = Router::new()
        .route("/v1/broken", get(broken))
        .route("/fine", get(|| async { "fine" }));
    let (address, _stop, _server, _test) = on_a_socket(router).await;
    let requests = b"GET /v1/broken HTTP/1.1\r\nhost: x\r\n\r\nGET /fine HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = exchange(address, requests).await;
    assert!(
        answers.starts_with("HTTP/1.1 500 ") && answers.contains("\"internal_error\""),
        "{answers}"
    );
    assert!(
        answers.contains("HTTP/1.1 200 ") && answers.ends_with("fine") && !answers.contains("canary"),
        "{answers}"
    );
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_server_stops() {
    let (begun, go_on) = (CancellationToken::new(), CancellationToken::new());
    let (told, waits) = (begun.clone(), go_on.clone());
    let slow = move || {
        let (told, waits) = (told.clone(), waits.clone());
        async move {
            told.cancel();
            waits.cancelled().await;
            "finished"
        }
    };
    let (address, stop, server, _test) = on_a_socket(Router::new().route("/slow", get(slow))).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    let request =
        tokio::spawn(async move { exchange(address, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await });
    begun.cancelled().await;
    stop.cancel();
    let mut nothing = Vec::new();
    assert_eq!(
        idle.read_to_end(&mut nothing).await.unwrap(),
        0,
        "an idle connection is closed at once"
    );
    assert!(!server.is_finished());
    go_on.cancel();
    let answer = request.await.unwrap();
    // Read to its end: the connection was closed behind it.
    assert!(answer.ends_with("finished"), "{answer}");
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn heads_that_are_too_large_or_ambiguous_are_refused_by_the_parser() {
    let router = Router::new().route("/fine", get(|| async { "fine" }).post(|| async { "fine" }));
    let (address, _stop, _server, _test) = on_a_socket(router).await;
    let large = format!(
        "GET /fine HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    assert!(
        exchange(address, large.as_bytes())
            .await
            .starts_with("HTTP/1.1 431 ")
    );
    for head in [
        "POST /fine HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "GET /fine HTTP/1.1\r\nhost: x\r\nx-bad: a\0b\r\n\r\n",
        "GET /fi\nne HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let answer = exchange(address, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
    }
}
