//! `migrate`: brings the database up to date, by `DATABASE_URL` alone.

use super::WrongSettings;
use crate::config::{DatabaseUrl, Sources};
use crate::storage::Store;

pub(super) async fn run() -> anyhow::Result<()> {
    let url = DatabaseUrl::from_sources(&Sources::of_process()).map_err(WrongSettings)?;
    Ok(Store::migrate_at(&url).await?)
}
