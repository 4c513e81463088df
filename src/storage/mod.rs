//! What is kept: one [`Store`], one SQL text, two engines (STYLE.md section 5, DESIGN.md section 11).
//!
//! Guarantees that plaintext secrets never reach SQL and ciphertexts never leave this module: the store seals on write and
//! opens on read. Every change of a connection is written together with its event and its audit row in one transaction.
//! No statement asks the database for time or chance; instants come in as arguments.
//!
//! What a method does not find is `Ok(None)`. A method that changes something and finds it changed by somebody else
//! meanwhile says so in its answer and writes nothing.

mod access;
mod applications;
mod audit;
mod audit_chain;
mod authorizations;
mod connections;
mod deliveries;
mod dispatch;
mod event_endpoints;
mod events;
mod export;
mod keys;
mod notifications;
mod refreshes;
mod replicas;
mod retention;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::DatabaseUrl;
use crate::domain::random::Random;
use crate::vault::{Keyring, Vault, VaultError};

pub use access::{Admin, ApiKey, NewAdmin, NewApiKey, Role, Session, SignInLimit};
pub use applications::{ApplicationState, RecentOutcomes};
pub use audit::{AuditFilter, AuditRow};
pub use audit_chain::ChainReport;
pub use authorizations::{
    Admission, ConnectLink, ConsumedAuthorization, NewAuthorizationRequest, NewConnect, NewConnectLink,
};
pub use connections::{ConnectionFilter, OpenConnection, Overview, Page};
pub use deliveries::{
    ClaimedDelivery, DeliveryAttempt, DeliveryBacklog, DeliveryFilter, DeliveryRow, FinishedAttempt, Followed,
};
pub use event_endpoints::{EndpointChange, EndpointSecrets, EventEndpoint, MOST_ENDPOINTS};
pub use events::{EventFilter, EventOrder, EventRow};
pub use export::ExportedConnection;
pub use keys::{RotationCursor, RotationStep};
pub use notifications::{NewNotification, NotificationFilter, NotificationRow};
pub(crate) use refreshes::retry_after_unknown;
pub use refreshes::{Claim, ClaimRequest, ClaimedRefresh, FailedRefresh, SucceededRefresh};
pub use replicas::{REPLICA_DEAD_AFTER, ReplicaReport};

pub use usage::{UsageDelta, UsageHour, UsageSums};

use dispatch::Database;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something that must be unique is there already.
    #[error("conflicts with what is stored already")]
    Conflict,
    /// A row holds what this version does not understand; it was not changed.
    #[error("row {row} of {table} holds an unreadable {column}; restore it from a backup")]
    Corrupt {
        /// Table of the row.
        table: &'static str,
        /// Column that cannot be read.
        column: &'static str,
        /// Id of the row.
        row: String,
    },
    /// A sealed column of a row does not open; it was not changed.
    #[error("{column} of row {row} of {table} {source}")]
    Sealed {
        /// Table of the row.
        table: &'static str,
        /// Column that does not open.
        column: &'static str,
        /// Id of the row.
        row: String,
        /// Why not.
        source: VaultError,
    },
    /// The configured keys are not those of this database.
    #[error("{0}")]
    WrongKeys(String),
    /// The database cannot be reached, or refuses.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The migrations do not fit the database.
    #[error("the database cannot be migrated: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if error
            .as_database_error()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
        {
            Self::Conflict
        } else {
            Self::Unavailable(error)
        }
    }
}

/// The store. Clones share the pools.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    vault: Vault,
    random: Random,
    revocations: Revocations,
}

/// How many connections and API keys this process has revoked. Whoever remembers rows compares it, so that a revoke holds
/// at once where it was made; elsewhere it holds when what is remembered is looked at again.
#[derive(Clone, Debug, Default)]
pub struct Revocations(Arc<AtomicU64>);

impl Revocations {
    /// How many so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Store {
    /// Opens the database; nothing is migrated and no key is checked yet.
    pub async fn open(url: &DatabaseUrl, vault: Vault, random: Random) -> Result<Self, StoreError> {
        Ok(Self {
            database: Database::open(url).await?,
            vault,
            random,
            revocations: Revocations::default(),
        })
    }

    /// The revokes of this process, counted.
    pub fn revocations(&self) -> Revocations {
        self.revocations.clone()
    }

    /// Brings the database up to date. Replicas may do it at the same time.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.database.migrate().await
    }

    /// Brings a database up to date without any key.
    pub async fn migrate_at(url: &DatabaseUrl) -> Result<(), StoreError> {
        let database = Database::open(url).await?;
        database.migrate().await?;
        database.close().await;
        Ok(())
    }

    /// The keys that the store seals and opens with.
    pub fn keyring(&self) -> &Keyring {
        self.vault.keyring()
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.database.ping().await
    }

    /// Waits for what is under way and closes the pools.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

#[cfg(test)]
#[path = "../../tests/it/support/postgres.rs"]
mod postgres;
#[cfg(test)]
mod scenarios;

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;

    const KEY: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    /// Which database a test runs on.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Engine {
        Sqlite,
        Postgres,
    }

    /// An empty database of its own, and what keeps it there.
    pub(crate) struct EmptyDatabase {
        pub(crate) url: DatabaseUrl,
        pub(crate) folder: TempDir,
    }

    impl EmptyDatabase {
        /// None where PostgreSQL is asked for and not installed.
        pub(crate) fn on(engine: Engine) -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let url = match engine {
                Engine::Sqlite => DatabaseUrl::Sqlite(folder.path().join("deep/folder/connector.db")),
                Engine::Postgres => DatabaseUrl::Postgres(postgres::shared()?.create_database()),
            };
            Some(Self { url, folder })
        }

        /// A store on it, as one more replica opens it.
        pub(crate) async fn store(&self, keys: &str) -> Store {
            let vault = Vault::new(keys.parse().unwrap());
            Store::open(&self.url, vault, Random::system()).await.unwrap()
        }

        pub(crate) async fn migrated(&self) -> Store {
            let store = self.store(KEY).await;
            store.migrate().await.unwrap();
            store
        }
    }

    /// A migrated store in a folder that goes with the guard: a SQLite file, or a database of a throw-away PostgreSQL with
    /// `TEST_DATABASE=postgres`.
    pub(crate) async fn temporary_store() -> (Store, TempDir) {
        let engine = match std::env::var("TEST_DATABASE").as_deref() {
            Ok("postgres") => Engine::Postgres,
            _ => Engine::Sqlite,
        };
        let database = EmptyDatabase::on(engine).expect("TEST_DATABASE=postgres needs PostgreSQL installed");
        (database.migrated().await, database.folder)
    }

    /// Every statement that both engines run, with its name.
    fn statements() -> Vec<(&'static str, &'static str)> {
        [
            access::STATEMENTS,
            applications::STATEMENTS,
            audit::STATEMENTS,
            audit_chain::STATEMENTS,
            authorizations::STATEMENTS,
            connections::STATEMENTS,
            deliveries::STATEMENTS,
            event_endpoints::STATEMENTS,
            events::STATEMENTS,
            keys::STATEMENTS,
            notifications::STATEMENTS,
            refreshes::STATEMENTS,
            replicas::STATEMENTS,
            retention::STATEMENTS,
            usage::STATEMENTS,
        ]
        .concat()
    }

    async fn prepare_all(store: &Store, statements: &[(&str, &'static str)]) {
        for (name, sql) in statements {
            store
                .database
                .prepare(sql)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[tokio::test]
    async fn every_statement_is_understood_by_sqlite() {
        let store = EmptyDatabase::on(Engine::Sqlite).unwrap();
        prepare_all(&store.migrated().await, &statements()).await;
    }

    #[tokio::test]
    async fn every_statement_is_understood_by_postgresql() {
        let Some(database) = EmptyDatabase::on(Engine::Postgres) else {
            return;
        };
        let store = database.migrated().await;
        prepare_all(&store, &statements()).await;
        let only_there = [
            connections::POSTGRES_STATEMENTS,
            deliveries::POSTGRES_STATEMENTS,
            refreshes::POSTGRES_STATEMENTS,
            replicas::POSTGRES_STATEMENTS,
        ]
        .concat();
        prepare_all(&store, &only_there).await;
    }

    #[test]
    fn both_engines_have_the_same_migrations() {
        let names = |folder: &str| {
            let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("migrations")
                .join(folder);
            let mut names: Vec<_> = std::fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        assert!(!names("sqlite").is_empty());
        assert_eq!(names("sqlite"), names("postgres"));
    }

    /// Tables with their columns in order: the name, whether null is allowed, and the kind of type that both engines share.
    async fn schema(store: &Store) -> BTreeMap<String, Vec<(String, bool, &'static str)>> {
        let rows: Vec<(String, String, bool, String)> = match &store.database {
            Database::Sqlite { writer, .. } => sqlx::query_as(
                "SELECT m.name, c.name, c.\"notnull\" = 0 AND c.pk = 0, lower(c.type) FROM sqlite_schema m \
                 JOIN pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY m.name, c.cid",
            )
            .fetch_all(writer)
            .await
            .unwrap(),
            Database::Postgres(pool) => sqlx::query_as(
                "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), is_nullable = 'YES', CAST(data_type AS TEXT) \
                 FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
            )
            .fetch_all(pool)
            .await
            .unwrap(),
        };
        let mut tables: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (table, column, nullable, kind) in rows {
            // sqlx's own table differs, and is not ours.
            if !table.starts_with('_') {
                let kind = match kind.as_str() {
                    "bytea" | "blob" => "bytes",
                    "bigint" | "boolean" | "integer" => "number",
                    "text" | "jsonb" | "timestamp with time zone" => "text",
                    other => panic!("{table}.{column} is of type {other}"),
                };
                tables.entry(table).or_default().push((column, nullable, kind));
            }
        }
        tables
    }

    #[tokio::test]
    async fn both_engines_have_the_same_tables_and_columns() {
        let Some(postgres) = EmptyDatabase::on(Engine::Postgres) else {
            return;
        };
        let sqlite = EmptyDatabase::on(Engine::Sqlite).unwrap();
        let there = schema(&postgres.migrated().await).await;
        assert!(there.contains_key("connections"));
        assert_eq!(schema(&sqlite.migrated().await).await, there);
    }
}
