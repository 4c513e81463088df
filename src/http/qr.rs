//! A connect link as a QR code, so that a seller can open it on the phone.

use qrcode::render::svg;
use qrcode::types::QrError;
use qrcode::{EcLevel, QrCode};

/// The text as an SVG element. Fails for texts longer than a QR code holds (about 2,300 bytes at this level).
pub(crate) fn svg(text: &str) -> Result<String, QrError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M)?;
    let image = code
        .render::<svg::Color<'_>>()
        .min_dimensions(208, 208)
        .quiet_zone(false)
        .build();
    // The XML declaration does not belong into the middle of a page.
    Ok(image
        .split_once("?>")
        .map_or(image.clone(), |(_, element)| element.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_one_svg_element() {
        let image = svg("https://pay.example/connect/token").unwrap();
        assert!(image.starts_with("<svg") && image.ends_with("</svg>"));
        assert!(!image.contains("style="));
    }
}
