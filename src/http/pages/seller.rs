//! What a seller sees: the page behind a connect link, and how connecting ended.

use askama::Template;
use chrono::{DateTime, Utc};

use super::seller_texts::{self, Texts};
use super::{Tone, absolute};
use crate::http::branding::Chrome;
use crate::http::locale::Locale;

/// A language that the reader can change to.
#[derive(Debug, Clone)]
pub(crate) struct Language {
    /// Code of the language.
    pub(crate) code: &'static str,
    /// Its name for itself.
    pub(crate) name: &'static str,
    /// Whether the page is in it.
    pub(crate) current: bool,
}

/// Something to quote when asking for help.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    /// What it is.
    pub(crate) label: String,
    /// The value.
    pub(crate) value: String,
}

/// The page behind a connect link. Opening it changes nothing.
#[derive(Debug, Template)]
#[template(path = "seller/landing.html")]
pub(crate) struct Landing {
    chrome: Chrome,
    locale: Locale,
    languages: Vec<Language>,
    language_label: &'static str,
    title: &'static str,
    lead: String,
    may: Vec<String>,
    password: String,
    undo: String,
    button: &'static str,
    action: String,
    seller_label: &'static str,
    seller_id: String,
    expires_label: &'static str,
    expires: String,
}

impl Landing {
    /// The page in `locale`; `action` is where the form is sent to.
    pub(crate) fn new(
        chrome: Chrome,
        locale: Locale,
        seller_id: &str,
        expires_at: DateTime<Utc>,
        action: String,
    ) -> Self {
        let texts = Texts::of(locale);
        let fill = |text: &str| text.replace("{marketplace}", &chrome.marketplace);
        Self {
            languages: languages(locale),
            language_label: texts.language_label,
            title: texts.landing_title,
            lead: fill(texts.landing_lead),
            may: texts.landing_may.iter().map(|line| fill(line)).collect(),
            password: fill(texts.landing_password),
            undo: fill(texts.landing_undo),
            button: texts.landing_button,
            action,
            seller_label: texts.seller_label,
            seller_id: seller_id.to_owned(),
            expires_label: texts.expires_label,
            expires: absolute(expires_at),
            chrome,
            locale,
        }
    }
}

/// How an attempt to connect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The account is connected.
    Connected,
    /// The seller did not allow it at Mercado Pago.
    Denied,
    /// The link is unknown, used or over.
    LinkInvalid,
    /// The answer of Mercado Pago does not belong to an attempt of this browser.
    AttemptInvalid,
    /// Another account than before.
    AccountMismatch,
    /// The account serves another seller.
    AccountInUse,
    /// Mercado Pago does not answer.
    ProviderUnavailable,
    /// Mercado Pago did not confirm.
    ExchangeFailed,
    /// Too many attempts from this address.
    TooManyAttempts,
    /// The form was sent from another site.
    ForeignForm,
    /// There is no such page.
    NotFound,
    /// A failure of ours.
    Failure,
}

impl Ending {
    /// Every ending.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 12] = [
        Self::Connected,
        Self::Denied,
        Self::LinkInvalid,
        Self::AttemptInvalid,
        Self::AccountMismatch,
        Self::AccountInUse,
        Self::ProviderUnavailable,
        Self::ExchangeFailed,
        Self::TooManyAttempts,
        Self::ForeignForm,
        Self::NotFound,
        Self::Failure,
    ];

    fn tone(self) -> Tone {
        match self {
            Self::Connected => Tone::Good,
            Self::Failure | Self::ExchangeFailed => Tone::Bad,
            _ => Tone::Warn,
        }
    }
}

/// The page that tells how connecting ended.
#[derive(Debug, Template)]
#[template(path = "seller/message.html")]
pub(crate) struct Message {
    chrome: Chrome,
    locale: Locale,
    languages: Vec<Language>,
    language_label: &'static str,
    tone: Tone,
    title: &'static str,
    lead: String,
    next: Option<String>,
    facts: Vec<Fact>,
}

impl Message {
    /// The page in `locale`. `request_id` is shown where somebody may have to look into it.
    pub(crate) fn new(chrome: Chrome, locale: Locale, ending: Ending, request_id: Option<&str>) -> Self {
        let texts = Texts::of(locale);
        let text = seller_texts::ending(locale, ending);
        let fill = |text: &str| text.replace("{marketplace}", &chrome.marketplace);
        let shown = request_id.filter(|_| ending != Ending::Connected && ending != Ending::Denied);
        Self {
            languages: Vec::new(),
            language_label: texts.language_label,
            tone: ending.tone(),
            title: text.title,
            lead: fill(text.lead),
            next: text.next.map(fill),
            facts: shown
                .map(|id| Fact {
                    label: texts.request_label.to_owned(),
                    value: id.to_owned(),
                })
                .into_iter()
                .collect(),
            chrome,
            locale,
        }
    }
}

fn languages(current: Locale) -> Vec<Language> {
    let language = |locale: Locale| Language {
        code: locale.as_str(),
        name: locale.name(),
        current: locale == current,
    };
    Locale::ALL.into_iter().map(language).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::http::branding::Branding;
    use crate::http::pages::tests::assert_sound;

    /// Every seller's page in every language, with a name.
    pub(crate) fn samples() -> Vec<(String, String)> {
        let chrome = Branding::new("Feria & Co <b>", None, None).unwrap().chrome();
        let mut pages = Vec::new();
        for locale in Locale::ALL {
            let landing = Landing::new(
                chrome.clone(),
                locale,
                "seller-42",
                DateTime::UNIX_EPOCH,
                "/connect/token".to_owned(),
            );
            pages.push((format!("landing-{}", locale.as_str()), landing.render().unwrap()));
            for ending in Ending::ALL {
                let message = Message::new(chrome.clone(), locale, ending, Some("req_1"));
                pages.push((
                    format!("{ending:?}-{}", locale.as_str()),
                    message.render().unwrap(),
                ));
            }
        }
        pages
    }

    #[test]
    fn every_page_renders_in_every_language() {
        for (name, html) in samples() {
            assert_sound(&name, &html);
            assert!(!html.contains("{marketplace}"), "{name} has an unfilled place");
            assert!(
                !html.contains("Co <b>"),
                "{name} does not escape the marketplace's name"
            );
            let lang = name.rsplit('-').next().unwrap();
            assert!(html.contains(&format!("<html lang=\"{lang}\">")), "{name}");
        }
    }

    #[test]
    fn no_text_is_left_in_another_language() {
        for ending in Ending::ALL {
            let [es, pt, en] = Locale::ALL.map(|locale| seller_texts::ending(locale, ending));
            assert!(
                es.title != en.title && pt.title != en.title && es.lead != pt.lead,
                "{ending:?}"
            );
            assert_eq!(
                (es.next.is_some(), pt.next.is_some()),
                (en.next.is_some(), en.next.is_some()),
                "{ending:?}"
            );
        }
    }
}
