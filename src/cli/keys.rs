//! `keys`: the operator's encryption keys.

use clap::Subcommand;
use serde_json::json;

use super::operator::{Operator, block_on};
use super::output::{Format, Output, table};
use crate::vault::Keyring;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Print a new encryption key with its id, for `ENCRYPTION_KEYS`
    Generate(Format),
    /// Print how many rows each key still holds
    Status(Format),
}

impl Keys {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Status(format) => block_on(status(format)),
            Self::Generate(format) => {
                let entry = Keyring::generate_entry();
                let id = entry.split_once(':').map_or("", |(id, _)| id);
                let value = json!({ "id": id, "entry": *entry });
                Output::new(format).result(&value, &entry)
            }
        }
    }
}

async fn status(format: Format) -> anyhow::Result<()> {
    let operator = Operator::open().await?;
    let counts = operator.store.data_keys_by_key().await?;
    let keyring = operator.store.keyring();
    let rows = keyring.ids().map(|id| {
        let held = counts
            .iter()
            .find(|(key, _)| key == id)
            .map_or(0, |(_, rows)| *rows);
        (id.as_str(), id == keyring.active_id(), held)
    });
    let rows: Vec<_> = rows.collect();
    let text = table(
        ["key", "use", "connections"],
        rows.iter().map(|(id, active, held)| {
            let role = if *active { "seals and opens" } else { "opens" };
            [(*id).to_owned(), role.to_owned(), held.to_string()]
        }),
    );
    let view =
        |(id, active, held): &(&str, bool, i64)| json!({ "id": id, "active": active, "connections": held });
    Output::new(format).result(&rows.iter().map(view).collect::<Vec<_>>(), &text)
}
