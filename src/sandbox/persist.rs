//! The state file: the world as JSON, so that a sandbox goes on after a restart where it was.
//!
//! Written as a whole to a file beside it and renamed, once a second while something changes and at the end. What happened
//! since the last writing is lost in a crash: this is a simulator's memory, not a bank's.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration as StdDuration;

use chrono::Duration;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::card_tokens::{CardToken, CardTokens};
use super::grants::{Grants, GrantsSnapshot};
use super::notifications::{Outbox, OutboxSnapshot};
use super::options::SandboxOptions;
use super::sites::Site;
use super::state::{Books, World};

/// How often a changed world is written.
const SAVE_EVERY: StdDuration = StdDuration::from_secs(1);

/// An account in the state file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SellerRecord {
    pub(super) user_id: u64,
    pub(super) nickname: String,
    pub(super) site_id: String,
    pub(super) public_key: String,
    pub(super) test_public_key: String,
    pub(super) selectable: bool,
    pub(super) books: Books,
}

#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    /// How far the clock was moved, in seconds.
    moved: i64,
    next_id: u64,
    sellers: Vec<SellerRecord>,
    application_keys: HashMap<String, String>,
    deleted_clients: HashSet<String>,
    grants: GrantsSnapshot,
    card_tokens: Vec<CardToken>,
    outbox: OutboxSnapshot,
}

impl World {
    /// The world of the state file; a new one if there is no such file.
    pub(super) fn open(options: SandboxOptions) -> io::Result<Self> {
        let bytes = match options.state_file.as_ref().map(std::fs::read) {
            None => return Ok(Self::new(options)),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(options)),
            Some(read) => read?,
        };
        let snapshot: Snapshot = serde_json::from_slice(&bytes)?;
        let mut world = Self::new(options);
        world.clock.advance(Duration::seconds(snapshot.moved));
        world.next_id.store(snapshot.next_id, Ordering::Relaxed);
        world.grants = Grants::restore(snapshot.grants);
        world.card_tokens = CardTokens::restore(snapshot.card_tokens);
        world.outbox = Outbox::restore(snapshot.outbox);
        world.deleted_clients = snapshot.deleted_clients.into();
        world.forget_accounts();
        for (client_id, key) in snapshot.application_keys {
            world.put_application_key(key, client_id);
        }
        for record in snapshot.sellers {
            let site = Site::find(&record.site_id)
                .ok_or_else(|| io::Error::other(format!("unknown site {}", record.site_id)))?;
            world.restore_seller(record, site);
        }
        world.add_owners();
        Ok(world)
    }

    fn snapshot(&self) -> serde_json::Result<Vec<u8>> {
        let sellers = self.all_sellers();
        let books: Vec<_> = sellers.iter().map(|seller| seller.record()).collect();
        let application_keys = self
            .options
            .clients
            .iter()
            .filter_map(|client| Some((client.client_id.clone(), self.application_key(&client.client_id)?)))
            .collect();
        serde_json::to_vec(&Snapshot {
            moved: (self.now() - self.options.clock.now()).num_seconds(),
            next_id: self.next_id.load(Ordering::Relaxed),
            sellers: books,
            application_keys,
            deleted_clients: self
                .deleted_clients
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            grants: self.grants.snapshot(),
            card_tokens: self.card_tokens.snapshot(),
            outbox: self.outbox.snapshot(),
        })
    }

    /// Writes the state file, if there is to be one.
    pub(super) fn save(&self) -> io::Result<()> {
        match &self.options.state_file {
            Some(path) => write(path, &self.snapshot()?),
            None => Ok(()),
        }
    }

    /// Writes the state file whenever something changed, and when told to stop.
    pub(super) async fn keep_saving(self: Arc<Self>, stop: CancellationToken) {
        if self.options.state_file.is_none() {
            return;
        }
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(SAVE_EVERY) => {}
            }
            if self.changed.swap(false, Ordering::Relaxed) {
                let world = Arc::clone(&self);
                let saved = tokio::task::spawn_blocking(move || world.save()).await;
                if let Ok(Err(error)) = saved {
                    tracing::warn!(%error, "the sandbox's state file cannot be written");
                }
            }
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path)
}
