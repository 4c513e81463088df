//! One SQL text on two engines: an enum of pools and a macro that compiles a body once for each (STYLE.md section 5.2).
//!
//! Both engines understand `$n`, `ON CONFLICT ... DO UPDATE`, `RETURNING` and partial indexes; sqlx decodes the native types
//! of either into the same Rust types. Where the engines differ, there are two named constants and a two-armed `match`.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

use super::StoreError;
use crate::config::DatabaseUrl;

/// How long a statement waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a SQLite writer of another process is waited for.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const SQLITE_READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 16;

/// Key of the advisory lock that a migrating transaction holds; any number that nobody else uses.
const MIGRATION_LOCK: i64 = 0x6d70_636f_6e6e_6563;

static SQLITE_MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| ours(sqlx::migrate!("migrations/sqlite")));
static POSTGRES_MIGRATIONS: LazyLock<Migrator> =
    LazyLock::new(|| ours(sqlx::migrate!("migrations/postgres")));

/// Migrations as we run them: in a transaction of ours that holds the lock (sqlx's own lock belongs to the session, which
/// `PgBouncer` in transaction mode does not keep), and of an older version beside a newer one, because a migration expands
/// before it contracts.
fn ours(mut migrations: Migrator) -> Migrator {
    migrations.set_locking(false).set_ignore_missing(true);
    migrations
}

/// The pools of one engine.
#[derive(Clone, Debug)]
pub(super) enum Database {
    /// SQLite has one writer at a time; readers beside it do not wait for it.
    Sqlite {
        writer: SqlitePool,
        reader: SqlitePool,
    },
    Postgres(PgPool),
}

/// A transaction on either engine. Dropping it without `commit` undoes it.
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// Runs a statement that only reads: `read!(database, |c| query.fetch_optional(c).await)`.
macro_rules! read {
    ($database:expr, |$c:ident| $body:expr) => {
        match $database {
            $crate::storage::dispatch::Database::Sqlite { reader: $c, .. } => $body,
            $crate::storage::dispatch::Database::Postgres($c) => $body,
        }
    };
}

/// Runs one statement that writes, outside a transaction.
macro_rules! write {
    ($database:expr, |$c:ident| $body:expr) => {
        match $database {
            $crate::storage::dispatch::Database::Sqlite { writer: $c, .. } => $body,
            $crate::storage::dispatch::Database::Postgres($c) => $body,
        }
    };
}

/// Runs a statement in a transaction: `within!(tx, |c| query.execute(c).await)`.
macro_rules! within {
    ($tx:expr, |$c:ident| $body:expr) => {
        match $tx {
            $crate::storage::dispatch::Tx::Sqlite(transaction) => {
                let $c = &mut **transaction;
                $body
            }
            $crate::storage::dispatch::Tx::Postgres(transaction) => {
                let $c = &mut **transaction;
                $body
            }
        }
    };
}

/// Declares the SQL of a file, and lists it for the test that prepares every statement on both engines.
macro_rules! statements {
    ($($name:ident = $sql:expr;)+) => {
        $(const $name: &str = $sql;)+
        /// Every statement of this file that both engines run.
        #[cfg(test)]
        pub(super) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name),)+];
    };
}

/// Declares the SQL that only PostgreSQL runs, in place of a statement of the same meaning, and lists it for the same test.
macro_rules! postgres_statements {
    ($($name:ident = $sql:expr;)+) => {
        $(const $name: &str = $sql;)+
        /// Every statement of this file that only PostgreSQL runs.
        #[cfg(test)]
        pub(super) const POSTGRES_STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name),)+];
    };
}

pub(super) use {postgres_statements, read, statements, within, write};

impl Database {
    pub(super) async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        match url {
            DatabaseUrl::Sqlite(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)
                        .map_err(|error| StoreError::Unavailable(sqlx::Error::Io(error)))?;
                }
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true)
                    .busy_timeout(SQLITE_BUSY_TIMEOUT)
                    .pragma("secure_delete", "ON");
                let pool = |size| {
                    SqlitePoolOptions::new()
                        .max_connections(size)
                        .acquire_timeout(ACQUIRE_TIMEOUT)
                        .idle_timeout(None)
                        .max_lifetime(None)
                };
                let writer = pool(1).connect_with(options.clone()).await?;
                let reader = pool(SQLITE_READERS).connect_lazy_with(options);
                Ok(Self::Sqlite { writer, reader })
            }
            DatabaseUrl::Postgres(url) => {
                // `PgBouncer` refuses this start-up parameter unless it is told not to, and nothing here is a float.
                let options = url.parse::<PgConnectOptions>()?.extra_float_digits(None);
                let pool = PgPoolOptions::new()
                    .max_connections(POSTGRES_CONNECTIONS)
                    .acquire_timeout(ACQUIRE_TIMEOUT)
                    .connect_with(options)
                    .await?;
                Ok(Self::Postgres(pool))
            }
        }
    }

    /// Brings the schema up to date in one transaction. Of several replicas one does it and the others wait for it.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        match &mut tx {
            Tx::Sqlite(transaction) => {
                SQLITE_MIGRATIONS
                    .run_direct(None, &mut **transaction, false)
                    .await?;
            }
            Tx::Postgres(transaction) => {
                sqlx::query("SELECT pg_advisory_xact_lock($1)")
                    .bind(MIGRATION_LOCK)
                    .execute(&mut **transaction)
                    .await?;
                POSTGRES_MIGRATIONS
                    .run_direct(None, &mut **transaction, false)
                    .await?;
            }
        }
        tx.commit().await
    }

    /// Begins a transaction that writes. SQLite takes its write lock at once: a read that turns into a write later would
    /// fail with "database is locked".
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        read!(self, |c| sqlx::query("SELECT 1").execute(c).await.map(drop))?;
        Ok(())
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, reader } => {
                reader.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// Lets the engine parse a statement against the schema, without running it.
    #[cfg(test)]
    pub(super) async fn prepare(&self, sql: &'static str) -> Result<(), sqlx::Error> {
        use sqlx::Executor as _;

        match self {
            Self::Sqlite { writer, .. } => (&mut *writer.acquire().await?)
                .prepare(sqlx::SqlStr::from_static(sql))
                .await
                .map(drop),
            Self::Postgres(pool) => (&mut *pool.acquire().await?)
                .prepare(sqlx::SqlStr::from_static(sql))
                .await
                .map(drop),
        }
    }
}

impl Tx {
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await?,
            Self::Postgres(transaction) => transaction.commit().await?,
        }
        Ok(())
    }

    /// Undoes it at once. Dropping it does so too, but only some time later, and its locks last until then.
    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(transaction) => transaction.rollback().await?,
            Self::Postgres(transaction) => transaction.rollback().await?,
        }
        Ok(())
    }

    /// Whether rows must be locked by the statement that reads them (SQLite's transaction holds the lock already).
    pub(super) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}
