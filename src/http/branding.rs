//! How the marketplace looks on the pages: name, logo and colour (`MARKETPLACE_NAME`, `MARKETPLACE_LOGO_FILE`,
//! `MARKETPLACE_COLOR`), and the static files that every page links to.
//!
//! Guarantees that no page needs an inline style or script (the content security policy forbids both): the colour comes as
//! a stylesheet of its own. Addresses of static files carry a hash of the content, so a browser may keep them for ever.

use std::fmt;

use sha2::{Digest as _, Sha256};

const APP_STYLESHEET: &str = include_str!("../../templates/assets/app.css");
const COPY_SCRIPT: &str = include_str!("../../templates/assets/copy.js");
const DEFAULT_COLOR: Color = Color {
    red: 0x1f,
    green: 0x5f,
    blue: 0xd6,
};

/// A colour `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    red: u8,
    green: u8,
    blue: u8,
}

impl Color {
    /// Reads `#rrggbb`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .strip_prefix('#')
            .filter(|digits| digits.len() == 6 && digits.is_ascii())?;
        let part = |range| u8::from_str_radix(digits.get(range)?, 16).ok();
        Some(Self {
            red: part(0..2)?,
            green: part(2..4)?,
            blue: part(4..6)?,
        })
    }

    /// Relative luminance (WCAG 2.2).
    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }

    /// White or near-black, whichever can be read better on this colour.
    fn ink(self) -> &'static str {
        let on_white = 1.05 / (self.luminance() + 0.05);
        let on_black = (self.luminance() + 0.05) / 0.05;
        if on_white >= on_black.min(4.5) {
            "#ffffff"
        } else {
            "#111418"
        }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

/// A logo's bytes are none of the kinds that browsers show.
#[derive(Debug, thiserror::Error)]
#[error("is not an SVG, PNG, JPEG or WebP image")]
pub struct UnknownImage;

/// A static file with its address.
#[derive(Debug, Clone)]
pub struct Asset {
    /// Path below the origin.
    pub path: String,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// What is sent.
    pub bytes: bytes::Bytes,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, bytes: impl Into<bytes::Bytes>) -> Self {
        let bytes = bytes.into();
        let hash = Sha256::digest(&bytes);
        let short = hash
            .iter()
            .take(8)
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        Self {
            path: format!("/assets/{stem}-{short}.{extension}"),
            content_type,
            bytes,
        }
    }
}

/// The marketplace's look and the static files.
#[derive(Debug, Clone)]
pub struct Branding {
    name: String,
    stylesheet: Asset,
    brand_stylesheet: Asset,
    copy_script: Asset,
    icon: Asset,
    logo: Option<Asset>,
}

impl Branding {
    /// Puts the look together; `logo` is the content of the logo's file.
    pub fn new(name: &str, logo: Option<Vec<u8>>, color: Option<Color>) -> Result<Self, UnknownImage> {
        let color = color.unwrap_or(DEFAULT_COLOR);
        let brand = format!(":root {{ --brand: {color}; --brand-ink: {}; }}\n", color.ink());
        let icon = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 32 32\"><rect width=\"32\" height=\"32\" rx=\"8\" \
             fill=\"{color}\"/><path d=\"M8 13h16M20 9l4 4-4 4M24 19H8M12 15l-4 4 4 4\" transform=\"translate(0 0)\" fill=\"none\" \
             stroke=\"{}\" stroke-width=\"2.4\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/></svg>",
            color.ink()
        );
        let logo = match logo {
            Some(bytes) => {
                let (extension, content_type) = image_type(&bytes).ok_or(UnknownImage)?;
                Some(Asset::new("logo", extension, content_type, bytes))
            }
            None => None,
        };
        Ok(Self {
            name: name.to_owned(),
            stylesheet: Asset::new("app", "css", "text/css; charset=utf-8", APP_STYLESHEET),
            brand_stylesheet: Asset::new("brand", "css", "text/css; charset=utf-8", brand),
            copy_script: Asset::new("copy", "js", "text/javascript; charset=utf-8", COPY_SCRIPT),
            icon: Asset::new("icon", "svg", "image/svg+xml", icon),
            logo,
        })
    }

    /// `MARKETPLACE_NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The static file at `path`.
    pub fn asset(&self, path: &str) -> Option<&Asset> {
        let fixed = [
            &self.stylesheet,
            &self.brand_stylesheet,
            &self.copy_script,
            &self.icon,
        ];
        fixed
            .into_iter()
            .chain(&self.logo)
            .find(|asset| asset.path == path)
    }

    /// What the pages need of it.
    pub fn chrome(&self) -> Chrome {
        Chrome {
            marketplace: self.name.clone(),
            initial: self
                .name
                .chars()
                .next()
                .map_or_else(String::new, |first| first.to_uppercase().collect()),
            logo: self.logo.as_ref().map(|logo| logo.path.clone()),
            stylesheet: self.stylesheet.path.clone(),
            brand_stylesheet: self.brand_stylesheet.path.clone(),
            copy_script: self.copy_script.path.clone(),
            icon: self.icon.path.clone(),
        }
    }
}

/// What every page shows of the marketplace and links to.
#[derive(Debug, Clone)]
pub struct Chrome {
    /// Name of the marketplace.
    pub marketplace: String,
    /// Its first letter, in place of a logo.
    pub initial: String,
    /// Address of the logo.
    pub logo: Option<String>,
    /// Address of the stylesheet of all pages.
    pub stylesheet: String,
    /// Address of the stylesheet with the marketplace's colour.
    pub brand_stylesheet: String,
    /// Address of the script behind copy buttons.
    pub copy_script: String,
    /// Address of the icon in the browser's tab.
    pub icon: String,
}

/// Extension and content type, by the content and not by a name that somebody chose.
fn image_type(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = || {
        std::str::from_utf8(bytes)
            .ok()
            .map(|text| text.trim_start_matches('\u{feff}').trim_start())
    };
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some(("png", "image/png"))
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some(("jpg", "image/jpeg"))
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some(("webp", "image/webp"))
    } else if text().is_some_and(|text| text.starts_with('<') && text.contains("<svg")) {
        Some(("svg", "image/svg+xml"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_on_the_brand_colour_can_be_read() {
        assert_eq!(Color::parse("#000080").unwrap().ink(), "#ffffff");
        assert_eq!(Color::parse("#ffe600").unwrap().ink(), "#111418");
        for bad in ["", "#fff", "ffe600", "#ffe60g", "red;}", "#ééé"] {
            assert!(Color::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_address_of_a_static_file_changes_with_its_content() {
        let one = Branding::new("A", None, Color::parse("#112233"))
            .unwrap()
            .chrome();
        let other = Branding::new("A", None, Color::parse("#112234"))
            .unwrap()
            .chrome();
        assert_ne!(one.brand_stylesheet, other.brand_stylesheet);
        assert_eq!(one.stylesheet, other.stylesheet);
    }

    #[test]
    fn a_logo_is_served_as_what_it_is() {
        let svg = b"<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec();
        let branding = Branding::new("A", Some(svg), None).unwrap();
        let path = branding.chrome().logo.unwrap();
        assert_eq!(branding.asset(&path).unwrap().content_type, "image/svg+xml");
        assert!(Branding::new("A", Some(b"<html><script>".to_vec()), None).is_err());
    }
}
