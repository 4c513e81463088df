//! `keys`: the operator's encryption keys.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::operator::{Operator, block_on};
use super::output::{Format, Output, table};
use crate::storage::RotationCursor;
use crate::vault::Keyring;

/// Rows that are re-wrapped in one transaction.
const ROTATED_AT_ONCE: u32 = 200;
/// A line of progress is written after so many.
const TOLD_EVERY: u64 = 50_000;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Print a new encryption key with its id, for `ENCRYPTION_KEYS`
    Generate(Format),
    /// Wrap every data key anew under the active key, while the service goes on
    ///
    /// First put the new key second in `ENCRYPTION_KEYS` of every replica, then first, then run this; the old key can go when
    /// `keys status` shows that it holds nothing. May be broken off and begun again at any time.
    Rotate(Format),
    /// Print how many rows each key still holds
    Status(Format),
}

impl Keys {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Status(format) => block_on(status(format)),
            Self::Rotate(format) => block_on(rotate(format)),
            Self::Generate(format) => {
                let entry = Keyring::generate_entry();
                let id = entry.split_once(':').map_or("", |(id, _)| id);
                let value = json!({ "id": id, "entry": *entry });
                Output::new(format).result(&value, &entry)
            }
        }
    }
}

async fn rotate(format: Format) -> anyhow::Result<()> {
    let operator = Operator::open().await?;
    let store = &operator.store;
    let active = store.keyring().active_id().clone();
    let (mut rewrapped, mut told, mut unreadable) = (0, 0, Vec::new());
    let mut cursor = Some(RotationCursor::default());
    while let Some(from) = cursor {
        // Before each step: a replica may have started since with older settings.
        ensure_all_have_active_key(&operator).await?;
        let begun = tokio::time::Instant::now();
        let step = store.rotate_step(&from, ROTATED_AT_ONCE).await?;
        rewrapped += step.rewrapped;
        unreadable.extend(step.unreadable);
        if rewrapped - told >= TOLD_EVERY {
            told = rewrapped;
            tracing::info!(rewrapped, "rotating");
        }
        cursor = step.next;
        // The service writes to the same database: it gets as much of it as this command.
        tokio::time::sleep(begun.elapsed().min(Duration::from_secs(1))).await;
    }
    let value = json!({ "active": active.as_str(), "rewrapped": rewrapped, "unreadable": unreadable });
    let text = format!("{rewrapped} data keys are now wrapped by `{active}`");
    Output::new(format).result(&value, &text)?;
    anyhow::ensure!(
        unreadable.is_empty(),
        "{} rows hold a data key that does not open; they were left as they are: {}",
        unreadable.len(),
        unreadable.join(", ")
    );
    Ok(())
}

/// A replica without the active key could not open what is wrapped by it.
async fn ensure_all_have_active_key(operator: &Operator) -> anyhow::Result<()> {
    let store = &operator.store;
    let active = store.keyring().active_id();
    let now = operator.now() - store.clock_skew(&operator.clock).await?;
    for replica in store.live_replicas(now).await? {
        anyhow::ensure!(
            replica.key_ids.contains(active),
            "replica {} (seen {} s ago) has not reported key `{active}`: put the key into its ENCRYPTION_KEYS and restart it, or \
             wait three minutes if it is gone",
            replica.id,
            (now - replica.seen_at).num_seconds()
        );
    }
    Ok(())
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
        ["key", "use", "rows"],
        rows.iter().map(|(id, active, held)| {
            let role = if *active { "seals and opens" } else { "opens" };
            [(*id).to_owned(), role.to_owned(), held.to_string()]
        }),
    );
    let view = |(id, active, held): &(&str, bool, i64)| json!({ "id": id, "active": active, "rows": held });
    Output::new(format).result(&rows.iter().map(view).collect::<Vec<_>>(), &text)
}
