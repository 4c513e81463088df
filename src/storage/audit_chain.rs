//! The chain over the audit log: each row's MAC covers the row and the MAC before it, so that a change, a removal in the
//! middle and an insertion show (DESIGN.md section 10).
//!
//! Rows are chained afterwards, by whoever holds the lease, so that no commit queues for the chain's tail; the unique number
//! keeps two chainers from forking it. The MAC's key is derived from the operator's key whose id stands in the row, so who
//! can write to the database alone cannot forge it.
//!
//! Does not show that the newest rows were removed together: for that the head is logged as it grows and told by
//! [`Store::verify_audit_chain`], to be compared with a copy kept elsewhere. Rows chained under a key that is no longer
//! configured cannot be verified; they are counted. A row that is not chained yet is protected by nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::audit::AuditRow;
use super::dispatch::{read, statements, within};
use super::{Store, StoreError};
use crate::vault::KeyId;

statements! {
    FIND_HEAD = "SELECT chain_number, chain_mac FROM audit_log WHERE chain_number IS NOT NULL ORDER BY chain_number DESC LIMIT 1";
    LIST_UNCHAINED = "SELECT id, at, application, actor_kind, actor_id, address, request_id, action, target, detail FROM audit_log \
        WHERE chain_number IS NULL ORDER BY id LIMIT $1";
    CHAIN_ROW = "UPDATE audit_log SET chain_number = $2, chain_mac = $3, chain_key_id = $4 WHERE id = $1 AND chain_number IS NULL";
    LIST_CHAINED = "SELECT id, at, application, actor_kind, actor_id, address, request_id, action, target, detail, chain_number, \
        chain_mac, chain_key_id FROM audit_log WHERE chain_number > $1 ORDER BY chain_number LIMIT $2";
    COUNT_UNCHAINED = "SELECT COUNT(*) FROM audit_log WHERE chain_number IS NULL";
}

/// What the derived key is for.
const PURPOSE: &str = "audit chain";
/// What the first row's MAC covers in place of one before it.
const BEGINNING: [u8; 32] = [0; 32];
/// Rows verified at a time.
const VERIFIED_AT_ONCE: i64 = 1_000;

/// What verifying the chain found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ChainReport {
    /// Rows whose MAC is right.
    pub verified: u64,
    /// Number and MAC (hex) of the newest chained row.
    pub head: Option<(i64, String)>,
    /// Runs of numbers that are missing, first and last.
    pub gaps: Vec<(i64, i64)>,
    /// Numbers and ids of rows that are not as they were when they were chained.
    pub changed: Vec<(i64, String)>,
    /// Rows under a key that is not configured, by key.
    pub unverifiable: BTreeMap<String, u64>,
    /// Rows that are not chained yet.
    pub unchained: i64,
}

impl ChainReport {
    /// Whether nothing speaks against the log.
    pub fn is_sound(&self) -> bool {
        self.gaps.is_empty() && self.changed.is_empty()
    }
}

#[derive(sqlx::FromRow)]
struct ChainedRow {
    #[sqlx(flatten)]
    row: AuditRow,
    chain_number: i64,
    chain_mac: Vec<u8>,
    chain_key_id: String,
}

/// The bytes that a row's MAC covers, the same on both engines whatever order they keep the members of `detail` in.
fn covered(before: &[u8], number: i64, row: &AuditRow) -> Vec<u8> {
    let AuditRow {
        id,
        at,
        application,
        actor_kind,
        actor_id,
        address,
        request_id,
        action,
        target,
        detail,
    } = row;
    let members = serde_json::json!([
        number,
        id,
        at.timestamp_micros(),
        application,
        actor_kind,
        actor_id,
        address,
        request_id,
        action,
        target,
        in_order(detail),
    ]);
    let mut bytes = before.to_vec();
    bytes.extend_from_slice(members.to_string().as_bytes());
    bytes
}

/// Objects as arrays of name and value, by name.
fn in_order(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let pairs = sorted
                .into_iter()
                .map(|(name, value)| serde_json::json!([name, in_order(value)]));
            serde_json::json!({ "": pairs.collect::<Vec<_>>() })
        }
        Value::Array(values) => values.iter().map(in_order).collect(),
        other => other.clone(),
    }
}

impl Store {
    /// Chains up to `limit` rows that are not chained yet, oldest first. How many. Zero too when somebody else was faster.
    pub async fn chain_audit(&self, limit: u32) -> Result<u64, StoreError> {
        let mut tx = self.database.begin().await?;
        let head: Option<(i64, Vec<u8>)> =
            within!(&mut tx, |c| sqlx::query_as(FIND_HEAD).fetch_optional(c).await)?;
        let (mut number, mut before) = head.unwrap_or((0, BEGINNING.to_vec()));
        let rows: Vec<AuditRow> = within!(&mut tx, |c| sqlx::query_as(LIST_UNCHAINED)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await)?;
        let key = self.vault.keyring().active_id();
        for row in &rows {
            number += 1;
            let bytes = covered(&before, number, row);
            // The active key is always there.
            let Some(mac) = self.vault.authenticate(key, PURPOSE, &bytes) else {
                break;
            };
            before = mac.to_vec();
            let written = within!(&mut tx, |c| sqlx::query(CHAIN_ROW)
                .bind(&row.id)
                .bind(number)
                .bind(&before)
                .bind(key.as_str())
                .execute(c)
                .await
                .map(|done| done.rows_affected()));
            match written.map_err(StoreError::from) {
                Ok(1) => {}
                Ok(_) | Err(StoreError::Conflict) => {
                    tx.rollback().await?;
                    return Ok(0);
                }
                Err(error) => return Err(error),
            }
        }
        match tx.commit().await {
            Ok(()) => {}
            Err(StoreError::Conflict) => return Ok(0),
            Err(error) => return Err(error),
        }
        if !rows.is_empty() {
            tracing::info!(number, mac = hex(&before), "audit log chained");
        }
        Ok(rows.len() as u64)
    }

    /// Goes through the whole chain.
    pub async fn verify_audit_chain(&self) -> Result<ChainReport, StoreError> {
        let mut report = ChainReport::default();
        let (mut number, mut before) = (0, Some(BEGINNING.to_vec()));
        loop {
            let rows: Vec<ChainedRow> = read!(&self.database, |c| sqlx::query_as(LIST_CHAINED)
                .bind(number)
                .bind(VERIFIED_AT_ONCE)
                .fetch_all(c)
                .await)?;
            if rows.is_empty() {
                break;
            }
            for chained in rows {
                if chained.chain_number != number + 1 {
                    report.gaps.push((number + 1, chained.chain_number - 1));
                    before = None;
                }
                number = chained.chain_number;
                self.verify_row(&chained, before.as_deref(), &mut report);
                // One row that was changed does not make those after it wrong.
                report.head = Some((number, hex(&chained.chain_mac)));
                before = Some(chained.chain_mac);
            }
        }
        report.unchained = read!(&self.database, |c| sqlx::query_scalar(COUNT_UNCHAINED)
            .fetch_one(c)
            .await)?;
        Ok(report)
    }

    fn verify_row(&self, chained: &ChainedRow, before: Option<&[u8]>, report: &mut ChainReport) {
        // After a gap the MAC before it is not known: the gap is told, and the row counts as it is.
        let Some(before) = before else { return };
        let bytes = covered(before, chained.chain_number, &chained.row);
        let key: Option<KeyId> = chained.chain_key_id.parse().ok();
        match key.and_then(|key| self.vault.verify(&key, PURPOSE, &bytes, &chained.chain_mac)) {
            Some(true) => report.verified += 1,
            Some(false) => report
                .changed
                .push((chained.chain_number, chained.row.id.clone())),
            None => {
                *report
                    .unverifiable
                    .entry(chained.chain_key_id.clone())
                    .or_default() += 1;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|half| char::from_digit(u32::from(half), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;
    use crate::domain::event::{Actor, AuditAction, NewAudit};
    use crate::storage::dispatch::write;
    use crate::storage::tests::{EmptyDatabase, Engine};

    async fn write_rows(store: &Store, count: usize) {
        for n in 0..count {
            let row = NewAudit {
                actor: Actor::operator(),
                action: AuditAction::ConnectionRevoked,
                application: None,
                target: Some(format!("seller-{n}")),
                at: DateTime::UNIX_EPOCH,
                detail: json!({ "z": 1, "aa": { "b": [1, { "y": "ü", "x": null }] }, "b": 1.5 }),
            };
            store.record_audit(&row).await.unwrap();
        }
    }

    /// A store with ten chained rows.
    async fn chained(engine: Engine) -> Option<(Store, EmptyDatabase)> {
        let database = EmptyDatabase::on(engine)?;
        let store = database.migrated().await;
        write_rows(&store, 10).await;
        assert_eq!(store.chain_audit(4).await.unwrap(), 4);
        assert_eq!(store.chain_audit(100).await.unwrap(), 6);
        assert_eq!(store.chain_audit(100).await.unwrap(), 0);
        Some((store, database))
    }

    async fn tamper(store: &Store, sql: &'static str) {
        write!(&store.database, |c| sqlx::query(sql).execute(c).await.map(drop)).unwrap();
    }

    #[tokio::test]
    async fn an_untouched_log_is_sound_and_tells_its_unchained_tail() {
        for engine in [Engine::Sqlite, Engine::Postgres] {
            let Some((store, database)) = chained(engine).await else {
                continue;
            };
            write_rows(&store, 3).await;
            let report = store.verify_audit_chain().await.unwrap();
            assert_eq!((report.verified, report.unchained), (10, 3), "{report:?}");
            assert!(report.is_sound() && report.unverifiable.is_empty(), "{report:?}");
            assert_eq!(report.head.unwrap().0, 10);
            // After a rotation the old key still verifies what it chained, and the new one goes on.
            let k1 = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
            let k2 = "k2:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
            let rotated = database.store(&format!("{k2},{k1}")).await;
            assert_eq!(rotated.chain_audit(100).await.unwrap(), 3);
            let report = rotated.verify_audit_chain().await.unwrap();
            assert_eq!((report.verified, report.is_sound()), (13, true), "{report:?}");
            let without = database.store(k2).await.verify_audit_chain().await.unwrap();
            assert_eq!(without.unverifiable, BTreeMap::from([("k1".to_owned(), 10)]));
            assert_eq!(without.verified, 3);
        }
    }

    #[tokio::test]
    async fn every_kind_of_tampering_is_found() {
        type Case = (&'static str, &'static [(i64, i64)], &'static [i64]);
        let cases: [Case; 6] = [
            (
                "UPDATE audit_log SET target = 'seller-x' WHERE chain_number = 5",
                &[],
                &[5],
            ),
            (
                "UPDATE audit_log SET actor_id = 'adm_1' WHERE chain_number = 1",
                &[],
                &[1],
            ),
            (
                "UPDATE audit_log SET detail = '{\"z\": 2}' WHERE chain_number = 10",
                &[],
                &[10],
            ),
            (
                "DELETE FROM audit_log WHERE chain_number IN (4, 5)",
                &[(4, 5)],
                &[],
            ),
            ("DELETE FROM audit_log WHERE chain_number = 1", &[(1, 1)], &[]),
            // A removal that is covered up by numbering the rest anew.
            (
                "UPDATE audit_log SET chain_number = -chain_number, request_id = 'x' WHERE chain_number = 2",
                &[(2, 2)],
                &[],
            ),
        ];
        for engine in [Engine::Sqlite, Engine::Postgres] {
            for (sql, gaps, changed) in cases {
                let Some((store, _database)) = chained(engine).await else {
                    continue;
                };
                tamper(&store, sql).await;
                let report = store.verify_audit_chain().await.unwrap();
                let numbers: Vec<_> = report.changed.iter().map(|(number, _)| *number).collect();
                assert_eq!(
                    (report.gaps.as_slice(), numbers.as_slice()),
                    (gaps, changed),
                    "{sql}"
                );
                assert!(!report.is_sound());
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn two_chainers_make_one_chain() {
        for engine in [Engine::Sqlite, Engine::Postgres] {
            let Some(database) = EmptyDatabase::on(engine) else {
                continue;
            };
            let (one, other) = (database.migrated().await, database.migrated().await);
            write_rows(&one, 50).await;
            let chain = async |store: &Store| {
                for _ in 0..20 {
                    store.chain_audit(7).await.unwrap();
                }
            };
            tokio::join!(chain(&one), chain(&other));
            let report = one.verify_audit_chain().await.unwrap();
            assert_eq!(
                (report.verified, report.is_sound(), report.unchained),
                (50, true, 0)
            );
        }
    }
}
