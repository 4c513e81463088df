//! What a command gives: for people, or as JSON for machines.

use std::io::Write;

use clap::Args;
use serde::Serialize;

/// How results are written.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Format {
    /// Write JSON for machines
    #[arg(long)]
    json: bool,
}

/// Where results are written.
pub(super) struct Output {
    to: Box<dyn Write>,
    json: bool,
}

impl Output {
    /// Standard output.
    pub(super) fn new(format: Format) -> Self {
        Self {
            to: Box::new(std::io::stdout()),
            json: format.json,
        }
    }

    /// Writes `value` as one JSON document, or `text` for people.
    pub(super) fn result(&mut self, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
        if self.json {
            serde_json::to_writer_pretty(&mut self.to, value)?;
            writeln!(self.to)?;
        } else {
            writeln!(self.to, "{text}")?;
        }
        Ok(self.to.flush()?)
    }
}
