//! What a command gives: for people, or as JSON for machines.

use std::io::Write;

use chrono::{DateTime, Utc};
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

/// An instant as people read it.
pub(super) fn local(instant: DateTime<Utc>) -> String {
    instant.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Rows under their headings, columns aligned. The last column is as wide as it is.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(headings.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            ["a".to_owned(), "long cell".to_owned()],
            ["longer".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            table(["id", "name"], rows.into_iter()),
            "id      name\na       long cell\nlonger  x"
        );
    }
}
