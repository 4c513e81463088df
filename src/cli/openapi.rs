//! `openapi`: the API's description.

use std::io::Write as _;

use crate::http;

pub(super) fn run() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", http::openapi().to_pretty_json()?)?;
    Ok(out.flush()?)
}
