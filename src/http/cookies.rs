//! Cookies of ours: the browser id of a connect flow and the console's session.
//!
//! Guarantees the `__Host-` prefix (this host only, https only, whole site; RFC 6265bis section 4.1.3.2), `Secure`,
//! `HttpOnly` and `SameSite=Lax`. Only when `PUBLIC_URL` is http, which the settings allow on loopback alone, the name is
//! plain and `Secure` is left out, because browsers would refuse the cookie.

use http::{HeaderMap, HeaderValue, header};

/// A cookie of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cookie {
    /// The browser that a connect flow was begun in. Lax: the callback is a navigation from Mercado Pago's site.
    Browser,
    /// A signed-in admin.
    Session,
    /// The browser that was shown the sign-in form.
    SignIn,
}

/// How cookies are written and read here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cookies {
    secure: bool,
}

impl Cookies {
    pub(crate) fn new(public_url: &url::Url) -> Self {
        Self {
            secure: public_url.scheme() == "https",
        }
    }

    fn name(self, cookie: Cookie) -> &'static str {
        match (cookie, self.secure) {
            (Cookie::Browser, true) => "__Host-connector_browser",
            (Cookie::Browser, false) => "connector_browser",
            (Cookie::Session, true) => "__Host-connector_session",
            (Cookie::Session, false) => "connector_session",
            (Cookie::SignIn, true) => "__Host-connector_sign_in",
            (Cookie::SignIn, false) => "connector_sign_in",
        }
    }

    /// The cookie's value, if the browser sent exactly one that could be ours: 43 characters of base64url.
    pub(crate) fn read(self, headers: &HeaderMap, cookie: Cookie) -> Option<String> {
        let name = self.name(cookie);
        let mut found = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value);
        let ours = |value: &&str| {
            value.len() == 43
                && value
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        match (found.next().filter(ours), found.next()) {
            (Some(value), None) => Some(value.to_owned()),
            _ => None,
        }
    }

    /// `Set-Cookie` with this value, for as long as the browser is open.
    pub(crate) fn set(self, cookie: Cookie, value: &str) -> Option<HeaderValue> {
        self.line(cookie, value, "")
    }

    /// `Set-Cookie` that takes the cookie away.
    pub(crate) fn clear(self, cookie: Cookie) -> Option<HeaderValue> {
        self.line(cookie, "", "; Max-Age=0")
    }

    /// None for a value that cannot stand in a header, which ours always can.
    fn line(self, cookie: Cookie, value: &str, more: &str) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let line = format!(
            "{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{more}",
            self.name(cookie)
        );
        let mut line = HeaderValue::try_from(line).ok()?;
        line.set_sensitive(true);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(url: &str) -> Cookies {
        Cookies::new(&url.parse().unwrap())
    }

    #[test]
    fn over_https_cookies_belong_to_this_host_alone() {
        let line = cookies("https://pay.example").set(Cookie::Session, "x").unwrap();
        assert_eq!(
            line,
            "__Host-connector_session=x; Path=/; HttpOnly; SameSite=Lax; Secure"
        );
        let plain = cookies("http://127.0.0.1:8080")
            .set(Cookie::Browser, "x")
            .unwrap();
        assert_eq!(plain, "connector_browser=x; Path=/; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn two_cookies_of_one_name_are_none() {
        let value = "a".repeat(43);
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, text.parse().unwrap());
            cookies("https://pay.example").read(&headers, Cookie::Browser)
        };
        assert_eq!(
            read(&format!("a=b; __Host-connector_browser={value}")),
            Some(value.clone())
        );
        assert_eq!(
            read(&format!(
                "__Host-connector_browser={value}; __Host-connector_browser={value}"
            )),
            None
        );
        assert_eq!(read(&format!("connector_browser={value}")), None);
        assert_eq!(read("__Host-connector_browser=short"), None);
    }
}
