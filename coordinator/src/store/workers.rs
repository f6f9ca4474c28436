//! The workers' records in the database: one row for each key, written whole.

use shardproof_common::receipt::PublicKey;
use sqlx::Row;

use super::{Store, StoreError};
use crate::workers::{Standing, WorkerRecord};

impl Store {
    /// All records.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT key, name, standing, proved, failed, refused, convicted, last_seen_ms FROM workers");
        rows.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Writes a record as it is now.
    pub(crate) async fn save_worker(&self, record: &WorkerRecord) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO workers (key, name, standing, proved, failed, refused, convicted, last_seen_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (key) DO UPDATE SET name = excluded.name, standing = excluded.standing,
                 proved = excluded.proved, failed = excluded.failed, refused = excluded.refused,
                 convicted = excluded.convicted, last_seen_ms = excluded.last_seen_ms",
        )
        .bind(record.key.as_bytes().as_slice())
        .bind(&record.name)
        .bind(record.standing.as_str())
        .bind(count(record.proved))
        .bind(count(record.failed))
        .bind(count(record.refused))
        .bind(count(record.convicted))
        .bind(count(record.last_seen_ms))
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// SQL counts in signed numbers.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<WorkerRecord, StoreError> {
    let (key, standing): (Vec<u8>, String) = (row.try_get(0)?, row.try_get(2)?);
    let unreadable = |what: &str| StoreError::Worker { what: what.to_owned() };
    let key = <[u8; 32]>::try_from(key).map_err(|key| unreadable(&format!("a key of {} bytes", key.len())))?;
    let standing = Standing::parse(&standing).ok_or_else(|| unreadable(&format!("the standing `{standing}`")))?;
    let count = |column: usize| Ok::<u64, sqlx::Error>(row.try_get::<i64, _>(column)?.unsigned_abs());
    Ok(WorkerRecord {
        key: PublicKey::from_bytes(key),
        name: row.try_get(1)?,
        standing,
        proved: count(3)?,
        failed: count(4)?,
        refused: count(5)?,
        convicted: count(6)?,
        last_seen_ms: count(7)?,
    })
}
