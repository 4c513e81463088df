//! The check at start that the configured keys are those of this database: a canary per key, and no data key wrapped by a
//! key that is not configured. A wrong key stops the start instead of sealing what nobody can open later.

use chrono::{DateTime, Utc};

use super::dispatch::{read, statements, write};
use super::{Store, StoreError};
use crate::domain::ids::ApplicationId;
use crate::vault::{DataKey, KeyId, Place, VaultError};

statements! {
    FIND_CANARIES = "SELECT key_id, sealed FROM vault_canaries";
    INSERT_CANARY = "INSERT INTO vault_canaries (key_id, sealed, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    COUNT_BY_KEY = "SELECT data_key_id, COUNT(*) FROM connections WHERE data_key_id IS NOT NULL GROUP BY data_key_id";
}

impl Store {
    /// Opens the canaries of all configured keys (writing the missing ones) and makes sure that no data key needs a key
    /// that is not configured.
    pub async fn check_keys(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let canaries: Vec<(String, Vec<u8>)> = read!(&self.database, |c| sqlx::query_as(FIND_CANARIES)
            .fetch_all(c)
            .await)?;
        let application = ApplicationId::default_application();
        for (key_id, sealed) in &canaries {
            let place = Place {
                table: "vault_canaries",
                row: key_id,
                column: "sealed",
                application: &application,
            };
            match self.vault.unwrap(sealed, place) {
                // A retired key is fine as long as nothing needs it; that is checked below.
                Ok(_) | Err(VaultError::UnknownKey(_)) => {}
                Err(error) => {
                    return Err(StoreError::WrongKeys(format!(
                        "ENCRYPTION_KEYS: key `{key_id}` is not the key that this database was sealed with ({error}); put its \
                         real value back, or give the new value a new id"
                    )));
                }
            }
        }
        for (key_id, rows) in self.data_keys_by_key().await? {
            if !self.vault.keyring().ids().any(|id| *id == key_id) {
                return Err(StoreError::WrongKeys(format!(
                    "ENCRYPTION_KEYS: {rows} connections are sealed with key `{key_id}`, which is not configured; add it behind \
                     the active key"
                )));
            }
        }
        let active = self.vault.keyring().active_id().as_str();
        if !canaries.iter().any(|(key_id, _)| key_id == active) {
            let place = Place {
                table: "vault_canaries",
                row: active,
                column: "sealed",
                application: &application,
            };
            let sealed = self.vault.wrap(&DataKey::generate(), place);
            write!(&self.database, |c| sqlx::query(INSERT_CANARY)
                .bind(active)
                .bind(sealed)
                .bind(now)
                .execute(c)
                .await
                .map(drop))?;
        }
        Ok(())
    }

    /// How many connections' data keys each key has wrapped.
    pub async fn data_keys_by_key(&self) -> Result<Vec<(KeyId, i64)>, StoreError> {
        let rows: Vec<(String, i64)> = read!(&self.database, |c| sqlx::query_as(COUNT_BY_KEY)
            .fetch_all(c)
            .await)?;
        rows.into_iter()
            .map(|(id, count)| match id.parse() {
                Ok(key) => Ok((key, count)),
                Err(_) => Err(StoreError::Corrupt {
                    table: "connections",
                    column: "data_key_id",
                    row: id,
                }),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseUrl;
    use crate::domain::random::Random;
    use crate::storage::tests::temporary_store;
    use crate::vault::Vault;

    #[tokio::test]
    async fn another_value_under_the_same_key_id_stops_the_start() {
        let (store, folder) = temporary_store().await;
        store.check_keys(DateTime::UNIX_EPOCH).await.unwrap();
        store.check_keys(DateTime::UNIX_EPOCH).await.unwrap();
        let other = Vault::new("k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".parse().unwrap());
        let url = DatabaseUrl::Sqlite(folder.path().join("deep/folder/connector.db"));
        let reopened = Store::open(&url, other, Random::system()).await.unwrap();
        let error = reopened.check_keys(DateTime::UNIX_EPOCH).await.unwrap_err();
        assert!(matches!(error, StoreError::WrongKeys(_)), "{error}");
    }
}
