//! The proxied call at the level of bytes on a socket: what a parser could read in two ways, what a caller could slip in,
//! and what happens when one side hangs up (SECURITY.md D24 to D33).

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::API_KEY;
use crate::support::app::TestApp;

/// Sends bytes on a connection of their own and reads until the service closes it.
async fn exchange(app: &TestApp, bytes: &[u8]) -> String {
    let mut stream = connect(app).await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .expect("the service closes the connection")
        .ok();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connect(app: &TestApp) -> TcpStream {
    let address = app.address();
    TcpStream::connect((address.host_str().unwrap(), address.port().unwrap()))
        .await
        .unwrap()
}

/// A request whose connection ends with its answer.
fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {API_KEY}\r\n{headers}\r\n{body}")
        .into_bytes()
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn code(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["code"].as_str().unwrap_or_default().to_owned()
}

async fn with_seller() -> TestApp {
    let app = TestApp::start().await;
    app.connect_seller("seller-1").await;
    app.sandbox.clear_requests();
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_name_another_host_or_walk_the_path_are_refused() {
    let app = with_seller().await;
    for target in [
        "http://evil.example/proxy/seller-1/users/me",
        "https://user@evil.example/proxy/seller-1/users/me",
        "/proxy/seller-1//evil.example/users/me",
        "/proxy/seller-1/@evil.example/users/me",
        "/proxy/seller-1/v1/payments/..;/1",
        "/proxy/seller-1/v1/payments/../1",
        "/proxy/seller-1/v1/payments/%2e%2e/1",
        "/proxy/seller-1/v1/payments/%252e%252e/1",
        "/proxy/seller-1/v1/payments/1%2frefunds",
        "/proxy/seller-1/v1/payments/1%5crefunds",
        "/proxy/seller-1/v1/payments/1%00",
        "/proxy/seller-1/v1/payments/1%0d%0ahost:evil",
        "/proxy/seller-1/v1/payments/search?access_token=APP_USR-x",
        "/proxy/seller-1/v1/payments/search?access%5ftoken=APP_USR-x",
    ] {
        let answer = exchange(&app, &request(&format!("GET {target}"), "", "")).await;
        assert_eq!(
            (status(&answer), code(&answer).as_str()),
            (400, "invalid_path"),
            "{target}: {answer}"
        );
    }
    for target in [
        "/proxy/seller-1/oauth/token",
        "/proxy/seller-1/v1/card_tokens",
        "/proxy/seller-1/v1/Payments/1",
    ] {
        let answer = exchange(
            &app,
            &request(&format!("POST {target}"), "content-length: 0\r\n", ""),
        )
        .await;
        assert_eq!(
            (status(&answer), code(&answer).as_str()),
            (403, "route_not_allowed"),
            "{target}"
        );
    }
    // Bytes that the parser itself refuses.
    for target in [
        "/proxy/seller-1/v1\\payments/1",
        "/proxy/seller-1/v1/pay ments",
        "/proxy/seller-1/\u{1}",
    ] {
        let answer = exchange(&app, &request(&format!("GET {target}"), "", "")).await;
        assert_eq!(status(&answer), 400, "{target}");
    }
    assert!(app.sandbox.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_request_hides_in_the_framing_of_the_first() {
    let app = with_seller().await;
    let smuggled = format!(
        "GET /proxy/seller-1/users/me HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\n\r\n"
    );
    // Both framings: the chunked one counts (RFC 9112 section 6.3), and the connection ends with this request.
    let both = format!(
        "content-length: {}\r\ntransfer-encoding: chunked\r\n",
        5 + smuggled.len()
    );
    let line = "POST /proxy/seller-1/v1/customers";
    let body = format!("0\r\n\r\n{smuggled}");
    let keep_alive = String::from_utf8(request(line, &both, &body))
        .unwrap()
        .replace("connection: close\r\n", "");
    exchange(&app, keep_alive.as_bytes()).await;
    let arrived = app.sandbox.requests();
    assert!(arrived.len() <= 1, "{arrived:?}");
    assert!(
        arrived
            .iter()
            .all(|one| one.path == "/v1/customers" && one.body.is_empty()),
        "{arrived:?}"
    );
    app.sandbox.clear_requests();

    for headers in [
        "content-length: 2\r\ncontent-length: 3\r\n",
        "content-length: 2, 3\r\n",
        "content-length: -1\r\n",
        "content-length: +2\r\n",
        "content-length: 2\r\ntransfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding : chunked\r\n",
        "x-product-id: a\0b\r\n",
        "x-product-id: a\rb\r\n",
        "x product id: a\r\n",
    ] {
        let answer = exchange(&app, &request(line, headers, "{}")).await;
        assert_eq!(status(&answer), 400, "{headers:?}: {answer}");
    }
    let huge = format!("x-product-id: {}\r\n", "x".repeat(64 * 1024));
    let answer = exchange(&app, &request(line, &huge, "")).await;
    assert_eq!(status(&answer), 431, "{answer}");
    assert!(app.sandbox.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fragment_never_travels_and_a_trailing_slash_does() {
    let app = with_seller().await;
    exchange(
        &app,
        &request(
            "GET /proxy/seller-1/v1/payments/search/?a=1&a=%20#fragment",
            "",
            "",
        ),
    )
    .await;
    let arrived = app.sandbox.requests().pop().unwrap();
    assert_eq!(
        (arrived.path.as_str(), arrived.query.as_deref()),
        ("/v1/payments/search/", Some("a=1&a=%20"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_says_about_itself_stays_here() {
    let app = with_seller().await;
    let headers = "cookie: a=b\r\nproxy-authorization: x\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-host: evil\r\n\
        forwarded: for=1.2.3.4\r\nvia: 1.1 x\r\nx-http-method-override: DELETE\r\naccept-encoding: br\r\nte: trailers\r\n\
        x-request-id: mine-1\r\nx-product-id: listed\r\n";
    let mut bytes = String::from_utf8(request("GET /proxy/seller-1/users/me", headers, "")).unwrap();
    bytes = bytes
        .replace("connection: close", "connection: close, x-tracking-id")
        .replace("\r\n\r\n", "\r\nx-tracking-id: hop\r\n\r\n");
    let answer = exchange(&app, bytes.as_bytes()).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("x-request-id: mine-1\r\n"));
    let arrived = app.sandbox.requests().pop().unwrap();
    let mut names: Vec<_> = arrived.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "host", "x-product-id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_mercado_pago_breaks_off_is_broken_off_here_too() {
    let app = with_seller().await;
    app.sandbox.add_fault("users_me=half*1".parse().unwrap());
    let answer = exchange(&app, &request("GET /proxy/seller-1/users/me", "", "")).await;
    assert_eq!(status(&answer), 200);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => assert!(body.len() < length.parse().unwrap(), "the body ended cleanly"),
        None => assert!(!body.ends_with("0\r\n\r\n"), "the body ended cleanly"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_or_breaks_off_never_reaches_mercado_pago_as_a_whole() {
    let app = TestApp::with(|settings| {
        settings.insert("PROXY_IDLE_TIMEOUT", "200ms".to_owned());
    })
    .await;
    app.connect_seller("seller-1").await;
    app.sandbox.clear_requests();
    // Held before it is sent, or streamed.
    for size in [1_000, 1_000_000] {
        let half = "x".repeat(size / 2);
        let length = format!("content-length: {size}\r\n");
        let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n", half.len());
        let chunked = chunked.split_once("\r\n\r\n").unwrap();
        let chunked_header = format!("{}\r\n", chunked.0);
        for (headers, body) in [(&length, half.as_str()), (&chunked_header, chunked.1)] {
            let request = request("POST /proxy/seller-1/v1/payments", headers, body);
            // It stops: whoever sends gets an answer, and is not waited for any longer.
            let answer = exchange(&app, &request).await;
            assert_eq!(
                (status(&answer), code(&answer).as_str()),
                (400, "invalid_request"),
                "{answer}"
            );
            // It breaks off.
            let mut stream = connect(&app).await;
            stream.write_all(&request).await.unwrap();
            drop(stream);
        }
    }
    app.proxied_get("seller-1", "/users/me").await.expect(200);
    let arrived = app.sandbox.requests();
    let paths: Vec<_> = arrived.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/users/me"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_made_once_when_its_caller_hangs_up() {
    let app = with_seller().await;
    let token = app.card_token("seller-1", "APRO").await;
    let body = serde_json::json!({
        "token": token, "transaction_amount": 10, "installments": 1, "payment_method_id": "visa",
        "payer": { "email": "buyer@example.com" }, "external_reference": "hung-up",
    })
    .to_string();
    app.sandbox.clear_requests();
    app.sandbox.add_fault("payments=503*1".parse().unwrap());
    app.sandbox.add_fault("payments=latency:150*1".parse().unwrap());
    let headers = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let mut stream = connect(&app).await;
    stream
        .write_all(&request("POST /proxy/seller-1/v1/payments", &headers, &body))
        .await
        .unwrap();
    while app.sandbox.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    // The retry after the 503 comes although nobody waits for it.
    let mut found = Value::Null;
    for _ in 0..200 {
        let search = "/v1/payments/search?external_reference=hung-up";
        found = app.proxied_get("seller-1", search).await.expect(200).json();
        if found["paging"]["total"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(found["paging"]["total"], 1, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_and_a_key_of_nobody_are_the_same_401() {
    let app = with_seller().await;
    let key = serde_json::json!({ "name": "short", "scopes": ["proxy:*"], "expires_in": 60 });
    let key = app.platform().post("/v1/api-keys", key).await.expect(201).json();
    let short = app.caller_with_key(key["secret"].as_str().unwrap());
    short.get("/proxy/seller-1/users/me").await.expect(200);
    app.advance(TimeDelta::seconds(61));
    let expired = short.get("/proxy/seller-1/users/me").await;
    let unknown = app.caller_with_key("mck_0000000000000000000000000000000000000000");
    let unknown = unknown.get("/proxy/seller-1/users/me").await;
    assert_eq!(expired.problem(), (401, "invalid_api_key"));
    assert_eq!(unknown.problem(), (401, "invalid_api_key"));
    assert_eq!(expired.json()["detail"], unknown.json()["detail"]);
}
