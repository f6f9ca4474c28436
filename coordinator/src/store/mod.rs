//! What survives a restart: runs, receipts, jobs, who held which shard, setups, and who serves.
//!
//! In SQLite in the data directory, or in Postgres where more than one machine must share it; one conformance suite runs over
//! both (`conformance`). A write returns once it is durable. One that the database does not take is an error, and nothing is
//! changed: [`crate::runs::Runs`] decides whether to refuse, or to try until the database is back.

#[cfg(test)]
mod conformance;
pub(crate) mod lease;
mod records;
mod sql;
#[cfg(test)]
pub(crate) mod testing;
mod workers;
mod writer;

use std::collections::HashMap;
use std::time::Duration;

use shardproof_common::ids::{Digest, RunId, ShardIndex, UnixMillis};
use shardproof_common::receipt::PublicKey;
use tokio_util::sync::CancellationToken;

use crate::record::RunRecord;
use lease::{Candidate, Lease};
use records::Filter;
pub(crate) use sql::{Database, Kind, Location, Row, Statement, StoreError};
use writer::Writer;

/// The database, written under a lease.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    database: Database,
    lease: Lease,
    writer: Writer,
}

impl Store {
    /// Waits until this process holds the lease of the database; nothing when it is told to stop before that. `lifetime` is
    /// [`lease::LIFETIME`] except in tests.
    pub(crate) async fn lead(
        database: Database,
        candidate: &Candidate,
        lifetime: Duration,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, StoreError> {
        let Some(lease) = lease::take(&database, candidate, lifetime, stop).await? else { return Ok(None) };
        let writer = Writer::start(database.clone(), lease.clone());
        Ok(Some(Self { database, lease, writer }))
    }

    /// The lease that writes are made under.
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Gives signs of life until the store is closed.
    pub(crate) async fn keep_lease(self) {
        if !self.database.is_private() {
            self.lease.keep(self.database).await;
        }
    }

    /// Gives the lease back and closes the database.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.lease.give_back(&self.database).await {
            tracing::warn!(%error, "the lease was not given back: another coordinator has to wait until it runs out");
        }
        self.database.close().await;
    }

    /// Returns once `statements` are durable, all of them, or none are.
    pub(crate) async fn write(&self, statements: Vec<Statement>) -> Result<(), StoreError> {
        self.writer.write(statements).await
    }

    /// The rows that a query gives.
    pub(crate) async fn fetch(&self, query: &Statement, columns: &[Kind]) -> Result<Vec<Row>, StoreError> {
        self.database.fetch(query, columns).await
    }

    /// Writes a run as it is now; `saved` is what is stored of it.
    pub(crate) async fn save(&self, run: &RunRecord, saved: Option<&RunRecord>) -> Result<(), StoreError> {
        self.write(records::save(run, saved)?).await
    }

    pub(crate) async fn load(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        Ok(records::load(&self.database, Filter::One(run)).await?.pop())
    }

    /// Runs that were under way when the program ended.
    pub(crate) async fn under_way(&self) -> Result<Vec<RunRecord>, StoreError> {
        records::load(&self.database, Filter::UnderWay).await
    }

    /// The latest runs, newest first.
    pub(crate) async fn latest(&self, limit: u32) -> Result<Vec<RunRecord>, StoreError> {
        records::load(&self.database, Filter::Latest(limit)).await
    }

    /// Runs whose ids come after `last`, in their order, some at a time; none at the end.
    pub(crate) async fn after(&self, last: RunId) -> Result<Vec<RunRecord>, StoreError> {
        records::load(&self.database, Filter::After(last)).await
    }

    /// Ids of the runs that were accepted before a point in time and are not under way.
    pub(crate) async fn older_than(&self, time: UnixMillis) -> Result<Vec<RunId>, StoreError> {
        let query = Statement::new("SELECT id FROM runs WHERE under_way = 0 AND id < $1 ORDER BY id");
        let first = RunId::first_of(time);
        let rows = self.fetch(&query.bind(&first.as_bytes()[..]), &[Kind::Bytes]).await?;
        rows.into_iter().map(|mut row| Ok(RunId::from_bytes(row.array()?))).collect()
    }

    /// Removes runs with all that is stored of them, except those that are under way.
    pub(crate) async fn remove(&self, runs: &[RunId]) -> Result<(), StoreError> {
        let remove =
            |run: &RunId| Statement::new("DELETE FROM runs WHERE id = $1 AND under_way = 0").bind(&run.as_bytes()[..]);
        self.write(runs.iter().map(remove).collect()).await
    }

    /// Removes runs that were refused, those that were stored all the same.
    pub(crate) async fn take_back(&self, runs: &[RunId]) -> Result<(), StoreError> {
        let remove = |run: &RunId| Statement::new("DELETE FROM runs WHERE id = $1").bind(&run.as_bytes()[..]);
        self.write(runs.iter().map(remove).collect()).await
    }

    /// All setups that are kept, in JSON.
    pub(crate) async fn setups(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.fetch(&Statement::new("SELECT setup FROM setups"), &[Kind::Text]).await?;
        rows.into_iter().map(|mut row| row.text()).collect()
    }

    /// Who held which shard of `plan`.
    pub(crate) async fn holders(&self, plan: Digest) -> Result<HashMap<PublicKey, ShardIndex>, StoreError> {
        let query = Statement::new("SELECT worker, shard FROM holders WHERE plan = $1").bind(&plan.as_bytes()[..]);
        let mut holders = HashMap::new();
        for mut row in self.fetch(&query, &[Kind::Bytes, Kind::Int]).await? {
            let worker = PublicKey::from_bytes(row.array()?);
            holders.insert(worker, ShardIndex(row.int()?.try_into().map_err(|_| StoreError::Column)?));
        }
        Ok(holders)
    }

    /// Remembers who holds a shard.
    pub(crate) async fn remember(&self, plan: Digest, worker: PublicKey, shard: ShardIndex) -> Result<(), StoreError> {
        let statement = Statement::new(
            "INSERT INTO holders (worker, plan, shard) VALUES ($1, $2, $3)
             ON CONFLICT (worker, plan) DO UPDATE SET shard = excluded.shard",
        );
        let statement = statement.bind(&worker.as_bytes()[..]).bind(&plan.as_bytes()[..]).bind(shard.0);
        self.write(vec![statement]).await
    }

    /// The setup that is kept under `id`, in JSON.
    pub(crate) async fn setup(&self, id: Digest) -> Result<Option<String>, StoreError> {
        let query = Statement::new("SELECT setup FROM setups WHERE id = $1").bind(&id.as_bytes()[..]);
        let row = self.fetch(&query, &[Kind::Text]).await?.pop();
        row.map(|mut row| row.text()).transpose()
    }

    /// Keeps a setup.
    pub(crate) async fn keep_setup(&self, id: Digest, setup: String) -> Result<(), StoreError> {
        let statement = Statement::new(
            "INSERT INTO setups (id, setup) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET setup = excluded.setup",
        );
        self.write(vec![statement.bind(&id.as_bytes()[..]).bind(setup)]).await
    }
}
