//! Cursors: where the next page of a list begins. Opaque to callers, so that what is inside may change.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::http::members::Members;

/// The cursor that a caller gets.
pub(super) fn encode(position: &str) -> String {
    URL_SAFE_NO_PAD.encode(position)
}

/// The position in the parameter `cursor`, if one was sent; what is none of ours is noted as an error.
pub(super) fn read(members: &mut Members) -> Option<String> {
    let text = members.text("cursor")?;
    let position = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    if position.is_none() {
        members.error(
            "cursor",
            "is none of ours; send `next_cursor` of the page before as it was",
        );
    }
    position
}
