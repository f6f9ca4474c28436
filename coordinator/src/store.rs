//! What survives a restart: runs, the workers' records and who held which shard, in SQLite in the data directory.

mod workers;

use std::collections::HashMap;
use std::path::Path;

use shardproof_common::ids::{Digest, RunId, ShardIndex};
use shardproof_common::receipt::PublicKey;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, migrate};
use thiserror::Error;

use crate::record::RunRecord;

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database at `path`, made and migrated where needed.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        migrate!().run(&pool).await?;
        Ok(Self { pool })
    }

    /// Writes a run as it is now.
    pub(crate) async fn save(&self, run: &RunRecord) -> Result<(), StoreError> {
        let record = serde_json::to_string(run)?;
        sqlx::query(
            "INSERT INTO runs (id, under_way, record) VALUES (?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET under_way = excluded.under_way, record = excluded.record",
        )
        .bind(run.id.as_bytes().as_slice())
        .bind(run.under_way())
        .bind(record)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(crate) async fn load(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        let row = sqlx::query("SELECT record FROM runs WHERE id = ?").bind(run.as_bytes().as_slice());
        let row = row.fetch_optional(&self.pool).await?;
        row.map(|row| parse(&row)).transpose()
    }

    /// Runs that were under way when the program ended.
    pub(crate) async fn under_way(&self) -> Result<Vec<RunRecord>, StoreError> {
        let rows = sqlx::query("SELECT record FROM runs WHERE under_way = 1").fetch_all(&self.pool).await?;
        rows.iter().map(parse).collect()
    }

    /// The latest runs, newest first.
    pub(crate) async fn latest(&self, limit: u32) -> Result<Vec<RunRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT record FROM runs ORDER BY id DESC LIMIT ?").bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(parse).collect()
    }

    /// Who held which shard of `plan`.
    pub(crate) async fn holders(&self, plan: Digest) -> Result<HashMap<PublicKey, ShardIndex>, StoreError> {
        let rows = sqlx::query("SELECT worker, shard FROM holders WHERE plan = ?").bind(plan.as_bytes().as_slice());
        let mut holders = HashMap::new();
        for row in rows.fetch_all(&self.pool).await? {
            let (worker, shard): (Vec<u8>, u32) = (row.try_get(0)?, row.try_get(1)?);
            if let Ok(worker) = <[u8; 32]>::try_from(worker) {
                holders.insert(PublicKey::from_bytes(worker), ShardIndex(shard));
            }
        }
        Ok(holders)
    }

    /// Remembers who holds a shard.
    pub(crate) async fn remember(&self, plan: Digest, worker: PublicKey, shard: ShardIndex) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO holders (worker, plan, shard) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET shard = excluded.shard")
            .bind(worker.as_bytes().as_slice())
            .bind(plan.as_bytes().as_slice())
            .bind(shard.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn parse(row: &sqlx::sqlite::SqliteRow) -> Result<RunRecord, StoreError> {
    Ok(serde_json::from_str(&row.try_get::<String, _>(0)?)?)
}

/// Why the database failed.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("database migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("database holds a run that cannot be read: {0}")]
    Record(#[from] serde_json::Error),
    #[error("database holds a worker that cannot be read: {what}")]
    Worker { what: String },
}

#[cfg(test)]
mod tests {
    use shardproof_common::artifacts::Artifact;

    use super::*;
    use crate::record::RunState;

    #[tokio::test]
    async fn runs_survive_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.sqlite");
        let store = Store::open(&path).await.unwrap();
        let input = Artifact { digest: Digest::of(b"x"), size: 1 };
        let mut run = RunRecord::new(RunId::generate(), Digest::of(b"plan"), 2, input, 5);
        store.save(&run).await.unwrap();
        run.fail(None, None, "stopped".into());
        store.save(&run).await.unwrap();
        drop(store);

        let store = Store::open(&path).await.unwrap();
        let loaded = store.load(run.id).await.unwrap().unwrap();
        assert_eq!((loaded.state, loaded.reason.as_str()), (RunState::Failed, "stopped"));
        assert!(store.under_way().await.unwrap().is_empty());
        assert_eq!(store.latest(10).await.unwrap().len(), 1);
        assert!(store.load(RunId::generate()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn holders_are_remembered_per_plan() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.sqlite")).await.unwrap();
        let (plan, worker) = (Digest::of(b"plan"), PublicKey::from_bytes([3; 32]));
        store.remember(plan, worker, ShardIndex(1)).await.unwrap();
        store.remember(plan, worker, ShardIndex(2)).await.unwrap();
        assert_eq!(store.holders(plan).await.unwrap(), HashMap::from([(worker, ShardIndex(2))]));
        assert!(store.holders(Digest::of(b"other")).await.unwrap().is_empty());
    }
}
