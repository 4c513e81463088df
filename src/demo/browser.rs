//! As much of a browser as the story needs: it keeps cookies per host, reads forms, and follows redirects when told to.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use http::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use http::{Method, StatusCode};
use url::Url;

/// A page as the browser sees it.
pub(super) struct Page {
    /// Where it came from.
    pub(super) url: Url,
    pub(super) status: StatusCode,
    pub(super) html: String,
    location: Option<String>,
}

impl Page {
    /// Where the page sends the browser on to.
    pub(super) fn redirect(&self) -> anyhow::Result<Url> {
        let location = self
            .location
            .as_deref()
            .with_context(|| self.unexpected("a redirect"))?;
        Ok(self.url.join(location)?)
    }

    /// Where the page's form is sent to.
    pub(super) fn form_action(&self) -> anyhow::Result<Url> {
        let action = attribute(&self.html, "<form", "action").with_context(|| self.unexpected("a form"))?;
        Ok(self.url.join(&action)?)
    }

    /// The value of the first choice whose text has `word` in it.
    pub(super) fn choice(&self, word: &str) -> anyhow::Result<String> {
        let options = self.html.split("<option").skip(1);
        let chosen = options
            .map(|option| option.split("</option>").next().unwrap_or(option))
            .find(|option| {
                let text = option.split_once('>').map_or("", |(_, text)| text);
                text.contains(word)
            });
        chosen
            .and_then(|option| attribute(option, "", "value"))
            .with_context(|| self.unexpected(&format!("a choice with `{word}` in it")))
    }

    /// The page's heading and the paragraph below it, for people.
    pub(super) fn told(&self) -> String {
        let text = |tag: &str| {
            // With what ends the name, or `<p` would find `<path`.
            let (plain, with_attributes) = (format!("<{tag}>"), format!("<{tag} "));
            let begins = self
                .html
                .find(&plain)
                .into_iter()
                .chain(self.html.find(&with_attributes))
                .min()?;
            let rest = self.html[begins..].split_once('>')?.1;
            Some(unescape(rest.split('<').next()?.trim()))
        };
        let told: Vec<_> = [text("h1"), text("p")]
            .into_iter()
            .flatten()
            .filter(|text| !text.is_empty())
            .collect();
        told.join(": ")
    }

    fn unexpected(&self, wanted: &str) -> String {
        format!(
            "{} answered {} without {wanted}: {}",
            self.url.path(),
            self.status,
            self.told()
        )
    }
}

/// The browser.
pub(super) struct Browser {
    http: reqwest::Client,
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    /// A browser over a client that follows no redirects.
    pub(super) fn new(http: reqwest::Client) -> Self {
        Self {
            http,
            cookies: BTreeMap::new(),
        }
    }

    pub(super) async fn open(&mut self, url: Url) -> anyhow::Result<Page> {
        self.request(Method::GET, url, None).await
    }

    /// Sends a form from a page of the same origin.
    pub(super) async fn submit(&mut self, url: Url, fields: &[(&str, &str)]) -> anyhow::Result<Page> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.request(Method::POST, url, Some(body)).await
    }

    async fn request(&mut self, method: Method, url: Url, form: Option<String>) -> anyhow::Result<Page> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut request = self.http.request(method, url.clone());
        let of_host = self.cookies.iter().filter(|((of, _), _)| *of == host);
        let cookies: Vec<_> = of_host
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        if let Some(body) = form {
            request = request
                .header(ORIGIN, url.origin().ascii_serialization())
                .header("sec-fetch-site", "same-origin")
                .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("{url} does not answer"))?;
        for cookie in response.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').context("a cookie has no name")?;
            self.cookies
                .insert((host.clone(), name.to_owned()), value.to_owned());
        }
        let location = response
            .headers()
            .get(LOCATION)
            .map(|value| value.to_str().map(str::to_owned))
            .transpose()?;
        let status = response.status();
        ensure!(status != StatusCode::TOO_MANY_REQUESTS, "{url} answered {status}");
        Ok(Page {
            url,
            status,
            location,
            html: response.text().await?,
        })
    }
}

/// The value of `name="..."` in the first tag that begins with `tag`.
fn attribute(html: &str, tag: &str, name: &str) -> Option<String> {
    let rest = html.split_once(tag)?.1;
    let inside = rest.split('>').next()?;
    let value = inside.split_once(&format!("{name}=\""))?.1.split('"').next()?;
    Some(unescape(value))
}

/// Undoes the escapes that a template makes.
fn unescape(text: &str) -> String {
    [
        ("&#38;", "&"),
        ("&amp;", "&"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#60;", "<"),
        ("&#62;", ">"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (escaped, plain)| {
        text.replace(escaped, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_choices_and_headings_are_read() {
        let page = Page {
            url: "http://localhost:1/authorization?x=1".parse().unwrap(),
            status: StatusCode::OK,
            html: "<h1>Allow?</h1><svg><path d=\"m\"/></svg><p class=\"lead\">It asks.</p><form method=\"post\" action=\"/authorization?a=1&#38;b=2\">\
                   <option value=\"7\">A · MLB</option><option value=\"8\">B · MLA</option></form>"
                .to_owned(),
            location: None,
        };
        assert_eq!(
            page.form_action().unwrap().as_str(),
            "http://localhost:1/authorization?a=1&b=2"
        );
        assert_eq!(page.choice("MLA").unwrap(), "8");
        assert_eq!(page.told(), "Allow?: It asks.");
        assert!(
            page.redirect()
                .unwrap_err()
                .to_string()
                .contains("without a redirect: Allow?")
        );
    }
}
