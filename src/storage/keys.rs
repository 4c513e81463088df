//! The operator's keys in the database: the check at start that the configured keys are those of this database, and the
//! rotation that wraps every data key anew under the active key (DESIGN.md sections 7 and 11).
//!
//! Guarantees that a wrong or missing key stops the start instead of sealing what nobody can open later, and that rotating
//! goes on beside everything else: in small transactions, each row only if its data key is still the one that was
//! re-wrapped, so that a reconnect or a revoke in between stands. A rotation that was broken off is begun again from the
//! start and finds only what is left.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::dispatch::{Tx, read, statements, within, write};
use super::{Store, StoreError};
use crate::domain::ids::ApplicationId;
use crate::vault::{KeyId, Place, VaultError};

/// Statements over a table whose rows hold a wrapped data key: `id`, `application`, `data_key`, `data_key_id`.
macro_rules! next_key {
    ($table:literal) => {
        concat!("SELECT MIN(data_key_id) FROM ", $table, " WHERE data_key_id > $1")
    };
}
macro_rules! count_by_key {
    ($table:literal) => {
        concat!(
            "SELECT data_key_id, COUNT(*) FROM ",
            $table,
            " WHERE data_key_id IS NOT NULL GROUP BY data_key_id"
        )
    };
}
macro_rules! list_of_key {
    ($table:literal) => {
        concat!(
            "SELECT id, application, data_key FROM ",
            $table,
            " WHERE data_key_id = $1 AND id > $2 AND data_key IS NOT NULL ORDER BY id LIMIT $3"
        )
    };
}
macro_rules! rewrap {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " SET data_key = $3, data_key_id = $4 WHERE id = $1 AND data_key = $2"
        )
    };
}

statements! {
    FIND_CANARIES = "SELECT key_id, sealed FROM vault_canaries";
    INSERT_CANARY = "INSERT INTO vault_canaries (key_id, sealed, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    NEXT_KEY_OF_CONNECTIONS = next_key!("connections");
    NEXT_KEY_OF_ENDPOINTS = next_key!("event_endpoints");
    NEXT_KEY_OF_REQUESTS = next_key!("authorization_requests");
    COUNT_CONNECTIONS = count_by_key!("connections");
    COUNT_ENDPOINTS = count_by_key!("event_endpoints");
    COUNT_REQUESTS = count_by_key!("authorization_requests");
    LIST_CONNECTIONS_OF_KEY = list_of_key!("connections");
    LIST_ENDPOINTS_OF_KEY = list_of_key!("event_endpoints");
    LIST_REQUESTS_OF_KEY = list_of_key!("authorization_requests");
    REWRAP_CONNECTION = rewrap!("connections");
    REWRAP_ENDPOINT = rewrap!("event_endpoints");
    REWRAP_REQUEST = rewrap!("authorization_requests");
}

/// A table whose rows hold a wrapped data key.
struct Holder {
    table: &'static str,
    next_key: &'static str,
    count: &'static str,
    list: &'static str,
    rewrap: &'static str,
}

/// All of them.
const HOLDERS: &[Holder] = &[
    Holder {
        table: "connections",
        next_key: NEXT_KEY_OF_CONNECTIONS,
        count: COUNT_CONNECTIONS,
        list: LIST_CONNECTIONS_OF_KEY,
        rewrap: REWRAP_CONNECTION,
    },
    Holder {
        table: "event_endpoints",
        next_key: NEXT_KEY_OF_ENDPOINTS,
        count: COUNT_ENDPOINTS,
        list: LIST_ENDPOINTS_OF_KEY,
        rewrap: REWRAP_ENDPOINT,
    },
    Holder {
        table: "authorization_requests",
        next_key: NEXT_KEY_OF_REQUESTS,
        count: COUNT_REQUESTS,
        list: LIST_REQUESTS_OF_KEY,
        rewrap: REWRAP_REQUEST,
    },
];

/// How far a rotation has come. Begin with the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotationCursor {
    holder: usize,
    key: String,
    id: String,
}

/// What one step of a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationStep {
    /// Data keys that are now wrapped by the active key.
    pub rewrapped: u64,
    /// Rows (`table/id`) whose data key does not open; they were not touched.
    pub unreadable: Vec<String>,
    /// Where the next step begins; none when everything was looked at.
    pub next: Option<RotationCursor>,
}

#[derive(sqlx::FromRow)]
struct WrappedRow {
    id: String,
    application: String,
    data_key: Vec<u8>,
}

impl Store {
    /// Opens the canaries of all configured keys (writing the missing ones) and makes sure that no data key needs a key
    /// that is not configured. Costs by the number of keys, not of rows.
    pub async fn check_keys(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        // Written before they are read: of two replicas that start with different values of one key, one notices.
        for id in self.vault.keyring().ids() {
            self.write_canary(id, now).await?;
        }
        let canaries: Vec<(String, Vec<u8>)> = read!(&self.database, |c| sqlx::query_as(FIND_CANARIES)
            .fetch_all(c)
            .await)?;
        for (key_id, sealed) in &canaries {
            let application = ApplicationId::default_application();
            match self.vault.unwrap(sealed, canary_place(key_id, &application)) {
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
        for holder in HOLDERS {
            let mut key = String::new();
            while let Some(next) = self.next_key(holder, &key).await? {
                if !self.vault.keyring().ids().any(|id| id.as_str() == next) {
                    let table = holder.table;
                    return Err(StoreError::WrongKeys(format!(
                        "ENCRYPTION_KEYS: rows of {table} are sealed with key `{next}`, which is not configured; add it behind the \
                         active key"
                    )));
                }
                key = next;
            }
        }
        Ok(())
    }

    async fn write_canary(&self, id: &KeyId, now: DateTime<Utc>) -> Result<(), StoreError> {
        let application = ApplicationId::default_application();
        let Some(sealed) = self.vault.canary(id, canary_place(id.as_str(), &application)) else {
            return Ok(());
        };
        write!(&self.database, |c| sqlx::query(INSERT_CANARY)
            .bind(id.as_str())
            .bind(sealed)
            .bind(now)
            .execute(c)
            .await
            .map(drop))?;
        Ok(())
    }

    /// The first key after `key` that a row of the table is wrapped by.
    async fn next_key(&self, holder: &Holder, key: &str) -> Result<Option<String>, StoreError> {
        Ok(read!(&self.database, |c| sqlx::query_scalar(holder.next_key)
            .bind(key)
            .fetch_one(c)
            .await)?)
    }

    /// How many data keys (of connections and of authorization requests under way) each key has wrapped.
    pub async fn data_keys_by_key(&self) -> Result<Vec<(KeyId, i64)>, StoreError> {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for holder in HOLDERS {
            let rows: Vec<(String, i64)> = read!(&self.database, |c| sqlx::query_as(holder.count)
                .fetch_all(c)
                .await)?;
            for (key, rows) in rows {
                *counts.entry(key).or_default() += rows;
            }
        }
        let parse = |(id, count): (String, i64)| match id.parse() {
            Ok(key) => Ok((key, count)),
            Err(_) => Err(StoreError::Corrupt {
                table: "connections",
                column: "data_key_id",
                row: id,
            }),
        };
        counts.into_iter().map(parse).collect()
    }

    /// Wraps up to `limit` data keys anew under the active key, in one transaction.
    pub async fn rotate_step(&self, from: &RotationCursor, limit: u32) -> Result<RotationStep, StoreError> {
        let Some(holder) = HOLDERS.get(from.holder) else {
            return Ok(RotationStep {
                rewrapped: 0,
                unreadable: Vec::new(),
                next: None,
            });
        };
        let mut step = RotationStep {
            rewrapped: 0,
            unreadable: Vec::new(),
            next: None,
        };
        let rows = self.list_of_key(holder, from, limit).await?;
        let Some(last) = rows.last() else {
            step.next = Some(self.next_cursor(holder, from).await?);
            return Ok(step);
        };
        step.next = Some(RotationCursor {
            id: last.id.clone(),
            ..from.clone()
        });
        let mut tx = self.database.begin().await?;
        for row in &rows {
            match self.rewrap(&mut tx, holder, row).await {
                Ok(rewrapped) => step.rewrapped += u64::from(rewrapped),
                Err(StoreError::Sealed { .. } | StoreError::Corrupt { .. }) => {
                    step.unreadable.push(format!("{}/{}", holder.table, row.id));
                }
                Err(error) => return Err(error),
            }
        }
        tx.commit().await?;
        Ok(step)
    }

    /// The rows at a cursor, none where its key is the active one.
    async fn list_of_key(
        &self,
        holder: &Holder,
        from: &RotationCursor,
        limit: u32,
    ) -> Result<Vec<WrappedRow>, StoreError> {
        if from.key.is_empty() || from.key == self.vault.keyring().active_id().as_str() {
            return Ok(Vec::new());
        }
        Ok(read!(&self.database, |c| sqlx::query_as(holder.list)
            .bind(&from.key)
            .bind(&from.id)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?)
    }

    /// The next key of the table, or the next table.
    async fn next_cursor(
        &self,
        holder: &Holder,
        from: &RotationCursor,
    ) -> Result<RotationCursor, StoreError> {
        Ok(match self.next_key(holder, &from.key).await? {
            Some(key) => RotationCursor {
                key,
                id: String::new(),
                ..from.clone()
            },
            None => RotationCursor {
                holder: from.holder + 1,
                ..RotationCursor::default()
            },
        })
    }

    /// Whether the row was still as it had been read.
    async fn rewrap(&self, tx: &mut Tx, holder: &Holder, row: &WrappedRow) -> Result<bool, StoreError> {
        let application: ApplicationId = row.application.parse().map_err(|_| StoreError::Corrupt {
            table: holder.table,
            column: "application",
            row: row.id.clone(),
        })?;
        let place = Place {
            table: holder.table,
            row: &row.id,
            column: "data_key",
            application: &application,
        };
        let data_key = self
            .vault
            .unwrap(&row.data_key, place)
            .map_err(|source| StoreError::Sealed {
                table: holder.table,
                column: "data_key",
                row: row.id.clone(),
                source,
            })?;
        let changed = within!(tx, |c| sqlx::query(holder.rewrap)
            .bind(&row.id)
            .bind(&row.data_key)
            .bind(self.vault.wrap(&data_key, place))
            .bind(self.vault.keyring().active_id().as_str())
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(changed == 1)
    }
}

fn canary_place<'a>(key_id: &'a str, application: &'a ApplicationId) -> Place<'a> {
    Place {
        table: "vault_canaries",
        row: key_id,
        column: "sealed",
        application,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::{EmptyDatabase, Engine};

    const K1: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const OTHER_K1: &str = "k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    #[tokio::test]
    async fn another_value_under_the_same_key_id_stops_the_start() {
        for engine in [Engine::Sqlite, Engine::Postgres] {
            let Some(database) = EmptyDatabase::on(engine) else {
                continue;
            };
            let store = database.migrated().await;
            store.check_keys(DateTime::UNIX_EPOCH).await.unwrap();
            store.check_keys(DateTime::UNIX_EPOCH).await.unwrap();
            for keys in [OTHER_K1.to_owned(), format!("k2:{},{OTHER_K1}", &K1[3..])] {
                let reopened = database.store(&keys).await;
                let error = reopened.check_keys(DateTime::UNIX_EPOCH).await.unwrap_err();
                assert!(matches!(error, StoreError::WrongKeys(_)), "{error}");
            }
        }
    }
}
