//! Where a seller may be sent back to: `RETURN_URL_ALLOWLIST` is a list of origins with path prefixes, and a `return_url` is
//! checked against it when its link is made (DESIGN.md section 6, SECURITY.md D15).
//!
//! The text must be the one that a browser would make of it, so that nothing a browser reads differently
//! (`\`, tabs, `https:evil`, dot segments, an upper-case or non-ASCII host) can hide behind an allowed prefix.

use url::{Host, Url};

/// Why a `return_url` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReturnUrlError {
    /// It is not an absolute http(s) URL in the form that a browser would give it.
    #[error(
        "must be an absolute https URL in its normal form (lower-case ASCII host, no user name, no `.` or `..`, no \\)"
    )]
    Form,
    /// Nothing in the list allows it.
    #[error("is not allowed; add its origin and path prefix to RETURN_URL_ALLOWLIST")]
    NotAllowed,
    /// http is for the loopback host only.
    #[error("must use https unless its host is a loopback address")]
    Insecure,
}

/// The configured origins and path prefixes.
#[derive(Debug, Clone, Default)]
pub struct ReturnUrls(Vec<Url>);

impl ReturnUrls {
    /// Takes the entries of the list.
    pub fn new(allowed: Vec<Url>) -> Self {
        Self(allowed)
    }

    /// The URL, if the list allows it.
    pub fn check(&self, text: &str) -> Result<Url, ReturnUrlError> {
        let url = Url::parse(text).map_err(|_| ReturnUrlError::Form)?;
        let same =
            url.as_str() == text || (url.path() == "/" && url.as_str().strip_suffix('/') == Some(text));
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.has_host()
            && !url.path().contains("//");
        if !same || !plain || !matches!(url.scheme(), "https" | "http") || url.fragment().is_some() {
            return Err(ReturnUrlError::Form);
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(ReturnUrlError::Insecure);
        }
        if self.0.iter().any(|allowed| covers(allowed, &url)) {
            Ok(url)
        } else {
            Err(ReturnUrlError::NotAllowed)
        }
    }
}

/// Same scheme, host and port, and a path that is the prefix or goes on behind it at a `/`.
fn covers(allowed: &Url, url: &Url) -> bool {
    let prefix = allowed.path().trim_end_matches('/');
    let rest = url.path().strip_prefix(prefix);
    allowed.origin() == url.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> ReturnUrls {
        let entries = [
            "https://shop.example/done",
            "https://open.example",
            "http://localhost:3000",
        ];
        ReturnUrls::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
    }

    #[test]
    fn allowed_are_the_prefix_itself_and_what_lies_below_it() {
        for good in [
            "https://shop.example/done",
            "https://shop.example/done/",
            "https://shop.example/done/42?order=1",
            "https://shop.example/done?order=1",
            "https://open.example",
            "https://open.example/",
            "https://open.example/any/path",
            "http://localhost:3000/back",
        ] {
            assert!(
                allowed().check(good).is_ok(),
                "{good}: {:?}",
                allowed().check(good)
            );
        }
    }

    #[test]
    fn everything_that_looks_like_it_is_refused() {
        for bad in [
            "",
            "/done",
            "//evil.example/done",
            "\\\\evil.example/done",
            "https:\\\\shop.example/done",
            "https:/shop.example/done",
            "https:shop.example/done",
            "https://shop.example@evil.example/done",
            "https://user@shop.example/done",
            "https://shop.example.evil.example/done",
            "https://shop.example./done",
            "https://SHOP.example/done",
            "https://shop.example:8443/done",
            "https://shop.example:443/done",
            "https://sh\u{f3}p.example/done",
            "https://shop.example/doneevil",
            "https://shop.example/done/../admin",
            "https://shop.example/done/%2e%2e/admin",
            "https://shop.example//evil.example/done",
            "https://shop.example/done//evil",
            "https://shop.example/done\r\nLocation: https://evil.example",
            "https://shop.example/do\tne",
            " https://shop.example/done",
            "https://shop.example/done#fragment",
            "http://shop.example/done",
            "http://evil.example/",
            "javascript:alert(1)//shop.example/done",
            "data:text/html,x",
            "file:///done",
        ] {
            assert!(allowed().check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        assert_eq!(
            ReturnUrls::default().check("https://shop.example/done"),
            Err(ReturnUrlError::NotAllowed)
        );
    }
}
