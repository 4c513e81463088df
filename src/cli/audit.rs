//! `audit`: whether the audit log is as it was written.

use clap::Subcommand;

use super::operator::Operator;
use super::output::{Format, Output};
use crate::storage::ChainReport;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Check the chain over the audit log: changed rows, gaps, and how many rows are not chained yet
    Verify(Format),
}

impl Audit {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self::Verify(format) = self;
        let operator = Operator::open().await?;
        let report = operator.store.verify_audit_chain().await?;
        Output::new(format).result(&report, &describe(&report))?;
        anyhow::ensure!(
            report.is_sound(),
            "the audit log is not as it was written: {} rows were changed, {} runs of rows are missing",
            report.changed.len(),
            report.gaps.len()
        );
        Ok(())
    }
}

fn describe(report: &ChainReport) -> String {
    let mut lines = vec![
        format!("{} rows are as they were written", report.verified),
        format!("{} rows are not chained yet", report.unchained),
    ];
    if let Some((number, mac)) = &report.head {
        lines.push(format!("the newest chained row is {number}, {mac}"));
    }
    for (key, rows) in &report.unverifiable {
        lines.push(format!(
            "{rows} rows need key `{key}`, which is not in ENCRYPTION_KEYS, to be verified"
        ));
    }
    for (number, id) in &report.changed {
        lines.push(format!("row {number} ({id}) was changed"));
    }
    for (first, last) in &report.gaps {
        lines.push(format!("rows {first} to {last} are missing"));
    }
    lines.join("\n")
}
