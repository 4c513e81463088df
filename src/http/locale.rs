//! The languages of the sellers' pages: the connect link's `locale`, else what the browser asks for (`Accept-Language`, RFC
//! 9110 section 12.5.4), else Spanish, which most of Mercado Pago's sellers read.

use std::cmp::Ordering;

/// A language that the sellers' pages are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locale {
    /// Spanish.
    Es,
    /// Portuguese.
    Pt,
    /// English.
    En,
}

impl Locale {
    /// Every language.
    pub(crate) const ALL: [Self; 3] = [Self::Es, Self::Pt, Self::En];

    /// The code (BCP 47).
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Es => "es",
            Self::Pt => "pt",
            Self::En => "en",
        }
    }

    /// The language's name for itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Es => "Español",
            Self::Pt => "Português",
            Self::En => "English",
        }
    }

    /// The language of a tag like `pt`, `pt-BR` or `ES_ar`.
    pub(crate) fn parse(tag: &str) -> Option<Self> {
        let language = tag.split(['-', '_']).next().unwrap_or_default();
        Self::ALL
            .into_iter()
            .find(|locale| locale.as_str().eq_ignore_ascii_case(language))
    }

    /// The best of the languages that an `Accept-Language` header asks for.
    pub(crate) fn negotiate(accept_language: Option<&str>) -> Self {
        let mut best: Option<(f32, Self)> = None;
        for range in accept_language.unwrap_or_default().split(',').take(32) {
            let mut parts = range.trim().split(';');
            let Some(locale) = parts.next().and_then(Self::parse) else {
                continue;
            };
            let weight = parts
                .find_map(|part| part.trim().strip_prefix("q="))
                .map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
            let better = best.is_none_or(|(known, _)| weight.partial_cmp(&known) == Some(Ordering::Greater));
            if weight > 0.0 && better {
                best = Some((weight, locale));
            }
        }
        best.map_or(Self::Es, |(_, locale)| locale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_with_the_highest_weight_wins_and_the_first_of_equals() {
        for (header, expected) in [
            (None, Locale::Es),
            (Some("de-DE,de;q=0.9"), Locale::Es),
            (Some("pt-BR,pt;q=0.9,en;q=0.8"), Locale::Pt),
            (Some("en;q=0.5, es-AR;q=0.9"), Locale::Es),
            (Some("fr, en-GB;q=0.3"), Locale::En),
            (Some("pt;q=0, en;q=0.1"), Locale::En),
            (Some("en;q=nonsense,pt;q=NaN"), Locale::Es),
        ] {
            assert_eq!(Locale::negotiate(header), expected, "{header:?}");
        }
    }
}
