//! What the target of a proxied call says: whose account, and which path goes to Mercado Pago.
//!
//! Guarantees that the bytes that are matched are the bytes that are sent (SECURITY.md D24, D25): nothing is decoded or
//! normalised on the way, and whatever two parsers could read differently is refused. A `#fragment` never gets here: the
//! HTTP library drops it before anything else sees the request.

use http::Uri;

use crate::domain::ids::SellerId;

/// Whose account a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    /// `/proxy/{seller_id}/...`
    Seller(SellerId),
    /// `/proxy/~/...`: the seller stands in the bearer token.
    Token,
    /// `/proxy/@self/...`: the application's own.
    Own,
}

/// A target, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) selector: Selector,
    /// Path at Mercado Pago, beginning with `/`, byte for byte.
    pub(super) path: &'a str,
    /// Query, byte for byte, without the question mark.
    pub(super) query: Option<&'a str>,
}

/// Why a target is refused, for the caller to read.
pub(super) type Refusal = &'static str;

/// Where proxied calls live.
pub(super) const PREFIX: &str = "/proxy/";

/// Takes `/proxy/{selector}/{path}?{query}` apart.
pub(super) fn parse(uri: &Uri) -> Result<Target<'_>, Refusal> {
    if uri.scheme().is_some() || uri.authority().is_some() {
        return Err("the request's target must be a path, not an absolute URL");
    }
    let rest = uri
        .path()
        .strip_prefix(PREFIX)
        .ok_or("the path begins with `/proxy/` and a seller's id")?;
    let (selector, path) = match rest.bytes().position(|byte| byte == b'/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let selector = match selector {
        "~" => Selector::Token,
        "@self" => Selector::Own,
        seller => Selector::Seller(seller_id(seller)?),
    };
    check_path(path)?;
    let query = uri.query();
    check_query(query.unwrap_or_default())?;
    Ok(Target {
        selector,
        path,
        query,
    })
}

/// A seller's id as it may stand in a path. `encodeURIComponent` turns its colons into `%3A`; no other escape is needed, so
/// no other is understood.
fn seller_id(text: &str) -> Result<SellerId, Refusal> {
    let parsed = if text.contains('%') {
        text.replace("%3A", ":").replace("%3a", ":").parse()
    } else {
        text.parse()
    };
    parsed.map_err(|_| "the segment after `/proxy/` is a seller's id, `~` or `@self`")
}

/// Refuses a path that is not made of plain, non-empty segments. One trailing slash is fine.
fn check_path(path: &str) -> Result<(), Refusal> {
    let bytes = path.as_bytes();
    let mut segment = 1;
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'/' => {
                if index > 0 {
                    check_segment(&bytes[segment..index])?;
                }
                segment = index + 1;
                index += 1;
            }
            b'%' => {
                let escape = bytes.get(index + 1..index + 3).and_then(decode);
                if !escape.is_some_and(may_be_escaped) {
                    return Err("the path holds a percent-encoding that is never forwarded");
                }
                index += 3;
            }
            byte if may_stand_plain(byte) => index += 1,
            _ => return Err("the path holds a character that is never forwarded"),
        }
    }
    match &bytes[segment..] {
        [] => Ok(()),
        last => check_segment(last),
    }
}

fn check_segment(segment: &[u8]) -> Result<(), Refusal> {
    match segment {
        b"" => Err("the path holds an empty segment"),
        b"." | b".." => Err("the path holds a `.` or `..` segment"),
        _ => Ok(()),
    }
}

fn decode(hex: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(hex[0])? * 16 + digit(hex[1])?).ok()
}

/// Unreserved characters (RFC 3986 section 2.3) and the few others that ids have.
fn may_stand_plain(byte: u8) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            #[expect(clippy::cast_possible_truncation, reason = "below 128")]
            let character = byte as u8;
            plain[byte] = character.is_ascii_alphanumeric()
                || matches!(
                    character,
                    b'-' | b'.' | b'_' | b'~' | b':' | b',' | b'=' | b'+' | b'!' | b'$'
                );
            byte += 1;
        }
        plain
    };
    PLAIN[usize::from(byte)]
}

/// What an escape may stand for: no control, no byte outside ASCII, and nothing that has a meaning of its own in a URL (a
/// dot, a slash, a backslash, a percent sign that would make a second encoding).
fn may_be_escaped(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && !matches!(byte, b'.' | b'/' | b'\\' | b'%' | b';' | b'@' | b'#' | b'?')
}

/// The query goes as it came; only a token in it is refused (RFC 6750 section 2.3 discourages it, and here it would stand
/// beside the right one), however its name is escaped, and what is no visible ASCII.
fn check_query(query: &str) -> Result<(), Refusal> {
    if query.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("the query holds a character that is never forwarded");
    }
    if query.len() < "access_token".len() {
        return Ok(());
    }
    let is_token = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        name.eq_ignore_ascii_case("access_token")
            || (name.contains('%')
                && percent_encoding::percent_decode_str(name)
                    .decode_utf8_lossy()
                    .trim()
                    .eq_ignore_ascii_case("access_token"))
    };
    if query.split(['&', ';']).any(is_token) {
        return Err(
            "an `access_token` parameter is never forwarded; the seller's token is put in by the connector",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::time::Duration;

    use super::*;
    use crate::mercadopago::http_client::tls_config;
    use crate::proxy::upstream::Upstream;

    fn path(text: &str) -> Result<String, Refusal> {
        let uri: Uri = format!("/proxy/s1{text}").parse().map_err(|_| "not a URI")?;
        parse(&uri).map(|target| target.path.to_owned())
    }

    #[test]
    fn the_bytes_of_a_path_are_kept() {
        for good in [
            "/v1/payments",
            "/v1/payments/",
            "/v1/payments/12-Ab_c~d.e",
            "/preapproval/a%20b",
            "/v1/x:y",
            "/",
        ] {
            assert_eq!(path(good).as_deref(), Ok(good));
        }
        assert_eq!(path("").as_deref(), Ok("/"));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for bad in [
            "//evil.example",
            "/v1//payments",
            "/v1/payments//",
            "/.",
            "/..",
            "/v1/./payments",
            "/v1/../oauth/token",
            "/v1/payments/..",
            "/v1/payments/../",
            "/v1/%2e%2e/x",
            "/v1/%2E",
            "/v1/%2fpayments",
            "/v1/%2Fx",
            "/v1/%5cx",
            "/v1/%5Cx",
            "/v1/%00",
            "/v1/%0d%0a",
            "/v1/%7f",
            "/v1/%252e",
            "/v1/%25",
            "/v1/%",
            "/v1/%2",
            "/v1/%zz",
            "/v1/%c3%b1",
            "/v1/@evil.example",
            "/@evil.example/x",
            "/v1/payments;x=1",
            "/v1\\payments",
            "/v1/pay\"ments",
            "/v1/%3bx",
            "/v1/%40x",
            "/v1/%23",
            "/v1/%3f",
            "/v1/ñ",
            "/v1/{x}",
            "/v1/<x>",
            "/v1/x|y",
            "/v1/x*",
            "/v1/'x'",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_absolute_target_is_refused() {
        for bad in [
            "http://evil.example/proxy/s1/v1/payments",
            "https://a@b/proxy/s1/v1/payments",
        ] {
            assert!(parse(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_selector_is_a_seller_the_token_or_the_application_itself() {
        let selector = |text: &str| parse(&text.parse().unwrap()).map(|target| target.selector);
        assert_eq!(
            selector("/proxy/s-1/users/me"),
            Ok(Selector::Seller("s-1".parse().unwrap()))
        );
        assert_eq!(
            selector("/proxy/a%3Ab/users/me"),
            Ok(Selector::Seller("a:b".parse().unwrap()))
        );
        assert_eq!(selector("/proxy/~/users/me"), Ok(Selector::Token));
        assert_eq!(selector("/proxy/@self/users/me"), Ok(Selector::Own));
        for bad in [
            "/proxy//users/me",
            "/proxy/../users/me",
            "/proxy/a%2e/x",
            "/proxy/@other/x",
            "/proxy/a@b/x",
            "/elsewhere",
        ] {
            assert!(selector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_query_goes_verbatim_but_never_with_a_token() {
        let query = |text: &str| {
            parse(&format!("/proxy/s1/v1/payments/search?{text}").parse().unwrap())
                .map(|t| t.query.unwrap().to_owned())
        };
        for good in [
            "a=1&a=2&b=%20%C3%B1+x",
            "",
            "begin_date=NOW-1DAYS&x=a/b?c;d@e",
            "my_access_token=1",
            "q=access_token",
        ] {
            assert_eq!(query(good).as_deref(), Ok(good));
        }
        for bad in [
            "access_token=x",
            "a=1&access_token",
            "a=1&Access_Token=x",
            "access%5Ftoken=x",
            "%61ccess_token=x",
            "a=1;access_token=x",
            "access_token%20=x",
        ] {
            assert!(query(bad).is_err(), "{bad}");
        }
    }

    static UPSTREAM: LazyLock<Upstream> = LazyLock::new(|| {
        let url = "https://api.example".parse().unwrap();
        Upstream::new(&url, tls_config().unwrap(), Duration::ZERO).unwrap()
    });

    /// What people and programs write into addresses, and what only somebody with intentions does.
    const PIECES: &str = r"(/|\.|\.\.|%2e|%2E|%2f|%5c|%00|%25|%252e|%0d%0a|\\|;|@|#|\?|%20|%3A|//|/\./|/\.\./|[!-~]|[a-z0-9_]{1,8}|v1|payments|oauth|token|access_token=|access%5Ftoken|é|\x00){0,12}";

    proptest::proptest! {
        #[test]
        fn an_accepted_path_has_no_dots_empty_segments_or_controls(tail in PIECES) {
            if let Ok(path) = path(&format!("/{tail}")) {
                let inner = path.strip_suffix('/').unwrap_or(&path);
                for segment in inner.split('/').skip(1) {
                    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8().unwrap();
                    proptest::prop_assert!(!decoded.is_empty() && decoded != "." && decoded != "..", "{path}");
                    proptest::prop_assert!(!decoded.contains(['/', '\\', '%', '\0', '\r', '\n', '#', '?', ';', '@']), "{path}");
                }
                let lower = path.to_ascii_lowercase();
                for never in ["/../", "/./", "//", "%2e", "%2f", "%5c", "%00", "%25", "\\"] {
                    proptest::prop_assert!(!lower[1..].contains(never), "{path}");
                }
            }
        }

        #[test]
        fn the_bytes_that_are_matched_are_the_bytes_that_are_sent(tail in PIECES) {
            let asked = format!("/proxy/s1/{tail}");
            let Ok(uri) = asked.parse::<Uri>() else { return Ok(()) };
            if let Ok(Target { path, query, .. }) = parse(&uri) {
                let sent = match query {
                    Some(query) => format!("{path}?{query}"),
                    None => path.to_owned(),
                };
                // A fragment is not part of a request's target.
                let asked = asked.split('#').next().unwrap().strip_prefix("/proxy/s1").unwrap();
                proptest::prop_assert_eq!(&sent, asked);
                let target = UPSTREAM.target(path, query).unwrap();
                proptest::prop_assert_eq!(target.to_string(), sent);
                for (name, _) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
                    proptest::prop_assert!(!name.eq_ignore_ascii_case("access_token"), "{asked}");
                }
            }
        }
    }
}
