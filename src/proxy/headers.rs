//! Which headers pass, in both directions, edited in place in one pass (DESIGN.md section 8, SECURITY.md D27 to D30).
//!
//! Requests: only what is on the list goes on, so nothing that a later version of HTTP or of a load balancer invents can
//! leak. Responses: all comes back but what belongs to the connection, to the provider's site, or is ours to say.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use smallvec::SmallVec;
use url::{Host, Url};

/// `X-Idempotency-Key`, Mercado Pago's.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");
/// `X-Request-Id`: always ours.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where Mercado Pago's `X-Request-Id` comes.
pub(super) const PROVIDER_REQUEST_ID: HeaderName = HeaderName::from_static("connector-provider-request-id");
/// How many times the call was sent.
pub(super) const ATTEMPTS: HeaderName = HeaderName::from_static("connector-attempts");
/// Why a payment was declined and what helps.
pub(super) const DECLINE: HeaderName = HeaderName::from_static("connector-decline");
/// The code of an error answer of ours.
pub(super) const ERROR: HeaderName = HeaderName::from_static("connector-error");
/// The caller's own, shorter deadline.
pub(super) const TIMEOUT: HeaderName = HeaderName::from_static("connector-timeout");
/// The caller knows that the payment looks like the one before.
pub(super) const ALLOW_DUPLICATE: HeaderName = HeaderName::from_static("connector-allow-duplicate");
/// Where the time went (W3C Server Timing).
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Names that are looked at before anything is removed; rarely more than a handful.
type Names = SmallVec<[HeaderName; 8]>;

/// Whether a request header goes on. `content-length` frames the body that goes on unchanged; `host` and `authorization` are
/// replaced by the caller of [`filter_request`].
fn passes_on(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept"
            | "accept-language"
            | "content-length"
            | "content-type"
            | "user-agent"
            | "x-idempotency-key"
            | "x-meli-session-id"
            | "x-product-id"
            | "x-tracking-id"
            | "x-platform-id"
            | "x-integrator-id"
            | "x-corporation-id"
            | "x-expand-responde-nodes"
            | "x-card-validation"
            | "x-render-in-process-refunds"
            | "x-test-token"
            | "traceparent"
    )
}

/// Leaves of a request's headers what goes to Mercado Pago, and puts host and credential in.
pub(super) fn filter_request(headers: &mut HeaderMap, host: &HeaderValue, authorization: HeaderValue) {
    let mut dropped = Names::new();
    for (name, value) in headers.iter() {
        if name == CONNECTION {
            end_here(value, &mut dropped);
        }
        if !passes_on(name) && !is_replaced(name) {
            dropped.push(name.clone());
        }
    }
    for name in dropped {
        headers.remove(name);
    }
    headers.insert(http::header::HOST, host.clone());
    headers.insert(http::header::AUTHORIZATION, authorization);
}

fn is_replaced(name: &HeaderName) -> bool {
    *name == http::header::HOST || *name == http::header::AUTHORIZATION
}

/// Whether a response header stays with Mercado Pago: what belongs to its connection (RFC 9110 section 7.6.1), to its site,
/// or is ours to say.
fn stays_behind(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.as_bytes()[0] {
        b'a' => name == "alt-svc" || name.starts_with("access-control-"),
        b'c' => {
            name == "connection"
                || name.starts_with("connector-")
                || name == "content-security-policy"
                || name == "content-security-policy-report-only"
        }
        b'k' => name == "keep-alive",
        b'p' => name.starts_with("proxy-"),
        b's' => matches!(
            name,
            "set-cookie" | "server" | "strict-transport-security" | "server-timing"
        ),
        b't' => matches!(name, "te" | "trailer" | "transfer-encoding"),
        b'u' => name == "upgrade",
        b'v' => name == "via",
        b'x' => name == "x-idempotency-key",
        _ => false,
    }
}

/// Leaves of a response's headers what the caller gets, and moves the provider's request id aside.
pub(super) fn filter_response(headers: &mut HeaderMap) {
    let mut dropped = Names::new();
    let mut has_request_id = false;
    for (name, value) in headers.iter() {
        if name == CONNECTION {
            end_here(value, &mut dropped);
        }
        if stays_behind(name) || (name == LOCATION && points_inside(value)) {
            dropped.push(name.clone());
        }
        has_request_id |= name == REQUEST_ID;
    }
    for name in dropped {
        headers.remove(name);
    }
    if has_request_id && let Some(id) = headers.remove(REQUEST_ID) {
        headers.insert(PROVIDER_REQUEST_ID, id);
    }
}

/// The headers that a value of `Connection` names end here, but for the framing. What it usually says, `keep-alive` and
/// `close`, names none that passes anyway.
fn end_here(connection: &HeaderValue, dropped: &mut Names) {
    for token in connection.as_bytes().split(|byte| *byte == b',') {
        let token = token.trim_ascii();
        if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(token)
            && name != http::header::CONTENT_LENGTH
        {
            dropped.push(name);
        }
    }
}

/// Whether a `Location` names a host inside some network: it tells callers nothing but that network's layout.
fn points_inside(location: &HeaderValue) -> bool {
    let Ok(text) = location.to_str() else { return true };
    // Only an absolute or scheme-relative URL names a host.
    let url = if text.starts_with("//") {
        Url::parse(&format!("https:{text}"))
    } else {
        Url::parse(text)
    };
    let Ok(url) = url else { return false };
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            !name.contains('.')
                || [".local", ".internal", ".localhost", ".lan"]
                    .iter()
                    .any(|end| name.ends_with(end))
        }
        Some(Host::Ipv4(address)) => {
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
        }
        Some(Host::Ipv6(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some()
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn request(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        filter_request(
            &mut headers,
            &HeaderValue::from_static("api.example"),
            HeaderValue::from_static("Bearer token"),
        );
        headers
    }

    #[test]
    fn everything_on_the_list_goes_on_unchanged() {
        let listed = [
            "accept",
            "accept-language",
            "content-type",
            "user-agent",
            "x-idempotency-key",
            "x-meli-session-id",
            "x-product-id",
            "x-tracking-id",
            "x-platform-id",
            "x-integrator-id",
            "x-corporation-id",
            "x-expand-responde-nodes",
            "x-card-validation",
            "x-render-in-process-refunds",
            "x-test-token",
            "traceparent",
        ];
        let headers = request(&listed.map(|name| (name, "value; of it")));
        for name in listed {
            assert_eq!(headers[name], "value; of it", "{name}");
        }
        assert_eq!(headers.len(), listed.len() + 2);
    }

    #[test]
    fn everything_else_is_dropped_and_the_credential_is_exactly_one() {
        let headers = request(&[
            ("host", "connector.example"),
            ("authorization", "Bearer mck_x"),
            ("authorization", "Bearer other"),
            ("cookie", "a=b"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "x"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("connector-timeout", "1s"),
            ("connector-allow-duplicate", "true"),
            ("accept-encoding", "gzip"),
            ("expect", "100-continue"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-request-id", "mine"),
            ("x-http-method-override", "DELETE"),
            ("origin", "x"),
            ("referer", "x"),
            ("tracestate", "x"),
            ("x-caller-id", "1"),
        ]);
        assert_eq!(
            headers,
            map(&[("host", "api.example"), ("authorization", "Bearer token")])
        );
    }

    #[test]
    fn what_connection_names_ends_here_but_not_the_framing() {
        let headers = request(&[
            (
                "connection",
                "close, X-Product-Id , content-length, authorization, host",
            ),
            ("connection", "accept"),
            ("x-product-id", "p"),
            ("accept", "a"),
            ("content-length", "5"),
        ]);
        let expected = map(&[
            ("content-length", "5"),
            ("host", "api.example"),
            ("authorization", "Bearer token"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn responses_lose_what_belongs_to_the_connection_and_the_site() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "x"),
            ("trailer", "x"),
            ("upgrade", "x"),
            ("proxy-authenticate", "x"),
            ("set-cookie", "a=b"),
            ("server", "x"),
            ("via", "x"),
            ("alt-svc", "x"),
            ("strict-transport-security", "x"),
            ("content-security-policy", "x"),
            ("content-security-policy-report-only", "x"),
            ("access-control-allow-origin", "*"),
            ("access-control-max-age", "1"),
            ("connector-error", "forged"),
            ("connector-attempts", "9"),
            ("content-type", "application/json"),
            ("content-length", "5"),
            ("content-encoding", "br"),
            ("retry-after", "1"),
            ("etag", "x"),
            ("date", "x"),
            ("cache-control", "x"),
            ("x-ratelimit-remaining", "1"),
            ("x-request-id", "theirs"),
        ]);
        filter_response(&mut headers);
        let expected = map(&[
            ("content-type", "application/json"),
            ("content-length", "5"),
            ("content-encoding", "br"),
            ("retry-after", "1"),
            ("etag", "x"),
            ("date", "x"),
            ("cache-control", "x"),
            ("x-ratelimit-remaining", "1"),
            ("connector-provider-request-id", "theirs"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_location_passes_unless_it_shows_the_inside_of_a_network() {
        let passes = |location: &str| {
            let mut headers = map(&[("location", location)]);
            filter_response(&mut headers);
            headers.contains_key("location")
        };
        for good in [
            "/v1/payments/1",
            "https://www.mercadopago.com/x",
            "v1",
            "//mercadopago.com/x",
        ] {
            assert!(passes(good), "{good}");
        }
        for bad in [
            "http://127.0.0.1/",
            "http://10.0.0.1/",
            "http://192.168.1.1:8080/x",
            "http://169.254.169.254/latest",
            "http://localhost/",
            "http://router/",
            "http://db.internal/",
            "http://x.local./",
            "http://[::1]/",
            "http://[fd00::1]/",
            "http://[::ffff:10.0.0.1]/",
            "//10.1.1.1/x",
        ] {
            assert!(!passes(bad), "{bad}");
        }
    }
    /// Any header that a parser lets through, real names among them.
    fn any_headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
        let name = proptest::string::string_regex(
            "(accept|authorization|host|cookie|connection|content-length|x-product-id|x-idempotency-key|x-forwarded-[a-z]{1,4}|\
             proxy-[a-z]{1,4}|set-cookie|server|via|access-control-[a-z]{1,4}|connector-[a-z]{1,5}|x-request-id|[a-z-]{1,8})",
        );
        let value = proptest::collection::vec(0x20_u8..0x7f, 0..20);
        let named = "[A-Za-z-]{1,6}|x-product-id|Accept, cookie|close".prop_map(String::into_bytes);
        let header = (name.unwrap(), value, named).prop_map(|(name, value, named)| {
            let value = if name == "connection" { named } else { value };
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(&value).unwrap(),
            )
        });
        proptest::collection::vec(header, 0..20)
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_caller_sends_only_what_is_listed_goes_on_with_one_credential(sent in any_headers()) {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(name, value);
            }
            let before = headers.clone();
            filter_request(&mut headers, &HeaderValue::from_static("api.example"), HeaderValue::from_static("Bearer token"));
            for name in headers.keys() {
                let ours = is_replaced(name);
                proptest::prop_assert!(ours || passes_on(name), "{name}");
                proptest::prop_assert!(ours || headers.get_all(name).iter().eq(before.get_all(name)), "{name}");
            }
            for (name, value) in [("host", "api.example"), ("authorization", "Bearer token")] {
                proptest::prop_assert!(headers.get_all(name).iter().eq([value]), "{name}");
            }
        }

        #[test]
        fn whatever_mercado_pago_sends_nothing_of_ours_can_be_forged(sent in any_headers()) {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(name, value);
            }
            let before = headers.clone();
            let named: Vec<HeaderName> = before
                .get_all(CONNECTION)
                .iter()
                .flat_map(|value| value.to_str().unwrap().split(','))
                .filter_map(|name| name.trim().parse().ok())
                .collect();
            filter_response(&mut headers);
            for name in headers.keys() {
                let is_ours = name.as_str().starts_with("connector-") && *name != PROVIDER_REQUEST_ID;
                proptest::prop_assert!(!is_ours && !stays_behind(name) || *name == PROVIDER_REQUEST_ID, "{name}");
            }
            proptest::prop_assert_eq!(
                headers.get(PROVIDER_REQUEST_ID),
                before.get(REQUEST_ID).filter(|_| !named.contains(&REQUEST_ID))
            );
            for name in before.keys().filter(|name| !stays_behind(name) && !named.contains(name) && **name != REQUEST_ID) {
                proptest::prop_assert!(headers.get_all(name).iter().eq(before.get_all(name)), "{name}");
            }
        }
    }
}
