//! Every page as a typed context with its template (askama: checked at compile time, all values escaped).
//!
//! Contexts hold finished texts and addresses: templates decide nothing but layout. Each context has samples, and one test
//! renders every template with every sample.

pub(crate) mod console;
pub(crate) mod docs;
pub(crate) mod events;
#[cfg(test)]
mod samples;
pub(crate) mod seller;
mod seller_texts;
pub(crate) mod usage;

use axum::body::Body;
use axum::response::Response;
use chrono::{DateTime, Duration, Utc};
use http::{StatusCode, header};

/// How something is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Somebody should look at it.
    Warn,
    /// Broken or ended.
    Bad,
    /// Neither good nor bad.
    Plain,
}

impl Tone {
    /// Class in the stylesheet.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Plain => "plain",
        }
    }

    /// Icon that goes with it.
    pub(crate) fn icon(self) -> &'static str {
        match self {
            Self::Good => "check",
            Self::Warn => "warn",
            Self::Bad => "cross",
            Self::Plain => "info",
        }
    }
}

/// An instant as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    /// RFC 3339.
    pub(crate) machine: String,
    /// `2026-11-20 13:35 UTC`.
    pub(crate) absolute: String,
    /// `in 43 days`, `2 hours ago`.
    pub(crate) relative: String,
}

impl Moment {
    /// `at`, seen from `now`.
    pub(crate) fn new(at: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        Self {
            machine: at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            absolute: absolute(at),
            relative: relative(at - now),
        }
    }
}

/// `2026-11-20 13:35 UTC`.
pub(crate) fn absolute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

fn relative(distance: Duration) -> String {
    let seconds = distance.num_seconds();
    let ago = seconds < 0;
    let seconds = seconds.unsigned_abs();
    let (number, unit) = match seconds {
        0..45 => return (if ago { "just now" } else { "now" }).to_owned(),
        // To the nearest unit: a link of a day just made ends in 24 hours, not in 23.
        45..3_570 => ((seconds + 30) / 60, "minute"),
        3_570..171_000 => ((seconds + 1_800) / 3_600, "hour"),
        _ => ((seconds + 43_200) / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    if ago {
        format!("{number} {unit}{plural} ago")
    } else {
        format!("in {number} {unit}{plural}")
    }
}

/// Renders a page. A page is never stored by a cache: it shows what is so now, to whom it is shown.
pub(crate) fn render(status: StatusCode, page: &impl askama::Template) -> Response {
    match page.render() {
        Ok(html) => answer(status, html),
        Err(error) => {
            // Writing into memory does not fail; a template that fails by itself is a defect.
            tracing::error!(%error, "a page could not be rendered");
            answer(StatusCode::INTERNAL_SERVER_ERROR, String::new())
        }
    }
}

fn answer(status: StatusCode, html: String) -> Response {
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_told_in_the_unit_that_helps() {
        for (distance, expected) in [
            (Duration::seconds(3), "now"),
            (Duration::seconds(-3), "just now"),
            (Duration::seconds(50), "in 1 minute"),
            (Duration::minutes(59), "in 59 minutes"),
            (Duration::hours(-2), "2 hours ago"),
            (Duration::hours(47), "in 47 hours"),
            (Duration::days(1) - Duration::seconds(1), "in 24 hours"),
            (Duration::days(180) - Duration::seconds(1), "in 180 days"),
        ] {
            assert_eq!(relative(distance), expected);
        }
    }

    /// What no page may have: the content security policy would break it, or it would reach for another origin.
    pub(crate) fn assert_sound(name: &str, html: &str) {
        assert!(html.starts_with("<!doctype html>"), "{name}");
        assert!(
            html.ends_with("</html>") || html.trim_end().ends_with("</html>"),
            "{name}"
        );
        for forbidden in [
            " style=",
            "<style",
            "javascript:",
            " onclick",
            " onload",
            "src=\"http",
            "href=\"//",
            "src=\"//",
        ] {
            assert!(!html.contains(forbidden), "{name} has {forbidden}");
        }
        let scripts = html.matches("<script").count();
        assert_eq!(
            scripts,
            html.matches("<script src=\"/assets/").count(),
            "{name} has an inline script"
        );
        for open in [
            "main", "form", "table", "ul", "ol", "dl", "a", "button", "section", "div", "span", "p",
        ] {
            let opened =
                html.matches(&format!("<{open}>")).count() + html.matches(&format!("<{open} ")).count();
            assert_eq!(
                opened,
                html.matches(&format!("</{open}>")).count(),
                "{name}: <{open}> is not closed"
            );
        }
        assert!(
            html.contains("<title>") && html.contains("<h1"),
            "{name} has no title or heading"
        );
        // Each field has a label that points to it, or a name of its own.
        for field in html
            .split("<input ")
            .skip(1)
            .chain(html.split("<select ").skip(1))
        {
            let tag = field.split('>').next().unwrap_or_default();
            let id = tag.split("id=\"").nth(1).and_then(|rest| rest.split('"').next());
            let labelled = id.is_some_and(|id| html.contains(&format!("for=\"{id}\"")));
            let wrapped = tag.contains("type=\"checkbox\"") || tag.contains("type=\"radio\"");
            assert!(
                labelled || wrapped || tag.contains("type=\"hidden\"") || tag.contains("aria-label="),
                "{name}: a field has no label: {tag}"
            );
        }
    }
}
