//! The workers' records in the database: one row for each key, written whole.

use shardproof_common::receipt::PublicKey;

use super::{Kind, Row, Statement, Store, StoreError};
use crate::workers::{Standing, WorkerRecord};

const COLUMNS: [Kind; 8] = [Kind::Bytes, Kind::Text, Kind::Text, Kind::Int, Kind::Int, Kind::Int, Kind::Int, Kind::Int];

impl Store {
    /// All records.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let query =
            Statement::new("SELECT key, name, standing, proved, failed, refused, convicted, last_seen_ms FROM workers");
        self.fetch(&query, &COLUMNS).await?.into_iter().map(read).collect()
    }

    /// Writes a record as it is now.
    pub(crate) async fn save_worker(&self, record: &WorkerRecord) -> Result<(), StoreError> {
        let statement = Statement::new(
            "INSERT INTO workers (key, name, standing, proved, failed, refused, convicted, last_seen_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (key) DO UPDATE SET name = excluded.name, standing = excluded.standing,
                 proved = excluded.proved, failed = excluded.failed, refused = excluded.refused,
                 convicted = excluded.convicted, last_seen_ms = excluded.last_seen_ms",
        );
        let statement = statement
            .bind(&record.key.as_bytes()[..])
            .bind(record.name.as_str())
            .bind(record.standing.as_str())
            .bind(count(record.proved))
            .bind(count(record.failed))
            .bind(count(record.refused))
            .bind(count(record.convicted))
            .bind(count(record.last_seen_ms));
        self.write(vec![statement]).await
    }
}

/// SQL counts in signed numbers.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn read(mut row: Row) -> Result<WorkerRecord, StoreError> {
    let (key, name, standing) = (row.array()?, row.text()?, row.text()?);
    let unreadable = || StoreError::Worker { what: format!("the standing `{standing}`") };
    let standing = Standing::parse(&standing).ok_or_else(unreadable)?;
    Ok(WorkerRecord {
        key: PublicKey::from_bytes(key),
        name,
        standing,
        proved: row.int()?.unsigned_abs(),
        failed: row.int()?.unsigned_abs(),
        refused: row.int()?.unsigned_abs(),
        convicted: row.int()?.unsigned_abs(),
        last_seen_ms: row.int()?.unsigned_abs(),
    })
}
