//! `keys`: the operator's encryption keys.

use clap::Subcommand;

use super::output::{Format, Output};
use crate::vault::Keyring;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Print a new encryption key with its id, for `ENCRYPTION_KEYS`
    Generate(Format),
}

impl Keys {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Generate(format) => {
                let entry = Keyring::generate_entry();
                let id = entry.split_once(':').map_or("", |(id, _)| id);
                let value = serde_json::json!({ "id": id, "entry": *entry });
                Output::new(format).result(&value, &entry)
            }
        }
    }
}
