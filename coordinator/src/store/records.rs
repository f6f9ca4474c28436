//! Runs, receipts and jobs as rows. A save writes what differs from the save before.

use std::collections::HashMap;

use shardproof_common::artifacts::Artifact;
use shardproof_common::ids::RunId;

use super::sql::{Database, Kind, Row, Statement, StoreError};
use crate::record::{ProofState, RunRecord, ShardRecord};

/// What writes `run`, of which `saved` is stored.
pub(super) fn save(run: &RunRecord, saved: Option<&RunRecord>) -> Result<Vec<Statement>, StoreError> {
    let record = Statement::new(
        "INSERT INTO runs (id, under_way, record) VALUES ($1, $2, $3)
         ON CONFLICT (id) DO UPDATE SET under_way = excluded.under_way, record = excluded.record",
    );
    let record = record.bind(&run.id.as_bytes()[..]).bind(run.under_way()).bind(serde_json::to_string(run)?);
    let mut statements = vec![record];
    for (index, shard) in run.shards.iter().enumerate() {
        let before = saved.and_then(|run| run.shards.get(index));
        if shard.receipt.is_some() && before.is_none_or(|before| before.receipt != shard.receipt) {
            statements.extend(save_receipt(run.id, index, shard)?);
        }
        if shard.attempt > 0 && before.is_none_or(|before| job_of(before) != job_of(shard)) {
            statements.push(save_job(run.id, index, shard)?);
        }
    }
    Ok(statements)
}

fn job_of(shard: &ShardRecord) -> (ProofState, u64, Option<Artifact>) {
    (shard.proof, shard.attempt, shard.artifact)
}

fn save_receipt(run: RunId, index: usize, shard: &ShardRecord) -> Result<Option<Statement>, StoreError> {
    let Some(receipt) = &shard.receipt else { return Ok(None) };
    let statement = Statement::new(
        "INSERT INTO receipts (run, shard, attempt, worker, receipt) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (run, shard) DO UPDATE
         SET attempt = excluded.attempt, worker = excluded.worker, receipt = excluded.receipt",
    );
    let statement = statement.bind(&run.as_bytes()[..]).bind(index as i64).bind(receipt.attempt);
    Ok(Some(statement.bind(&receipt.worker.as_bytes()[..]).bind(serde_json::to_string(receipt)?)))
}

fn save_job(run: RunId, index: usize, shard: &ShardRecord) -> Result<Statement, StoreError> {
    let statement = Statement::new(
        "INSERT INTO jobs (run, shard, attempt, state, proof) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (run, shard) DO UPDATE
         SET attempt = excluded.attempt, state = excluded.state, proof = excluded.proof",
    );
    let proof = shard.artifact.map(|artifact| serde_json::to_string(&artifact)).transpose()?;
    let statement = statement.bind(&run.as_bytes()[..]).bind(index as i64).bind(shard.attempt as i64);
    Ok(statement.bind(serde_json::to_string(&shard.proof)?).bind(proof.unwrap_or_default()))
}

/// The runs that `filter` selects; it goes on after `FROM runs`.
pub(super) async fn load(database: &Database, filter: Filter) -> Result<Vec<RunRecord>, StoreError> {
    let (runs, receipts, jobs) = filter.queries();
    let mut found = Vec::new();
    let mut places = HashMap::new();
    for mut row in database.fetch(&runs, &[Kind::Text]).await? {
        let run: RunRecord = serde_json::from_str(&row.text()?)?;
        places.insert(run.id, found.len());
        found.push(run);
    }
    if found.is_empty() {
        return Ok(found);
    }
    for mut row in database.fetch(&receipts, &[Kind::Bytes, Kind::Int, Kind::Text]).await? {
        let Some(shard) = place(&mut found, &places, &mut row)? else { continue };
        shard.receipt = Some(serde_json::from_str(&row.text()?)?);
    }
    for mut row in database.fetch(&jobs, &[Kind::Bytes, Kind::Int, Kind::Int, Kind::Text, Kind::Text]).await? {
        let Some(shard) = place(&mut found, &places, &mut row)? else { continue };
        shard.attempt = row.int()?.try_into().map_err(|_| StoreError::Column)?;
        shard.proof = serde_json::from_str(&row.text()?)?;
        let proof = row.text()?;
        shard.artifact = (!proof.is_empty()).then(|| serde_json::from_str(&proof)).transpose()?;
    }
    Ok(found)
}

/// The shard that the first two columns of a row name; none for a run that came between the queries.
fn place<'a>(
    runs: &'a mut [RunRecord],
    places: &HashMap<RunId, usize>,
    row: &mut Row,
) -> Result<Option<&'a mut ShardRecord>, StoreError> {
    let run = RunId::from_bytes(row.array()?);
    let shard = usize::try_from(row.int()?).map_err(|_| StoreError::Column)?;
    let run = places.get(&run).and_then(|&place| runs.get_mut(place));
    Ok(run.and_then(|run| run.shards.get_mut(shard)))
}

/// Which runs.
#[derive(Clone, Copy)]
pub(super) enum Filter {
    One(RunId),
    UnderWay,
    /// So many of the newest.
    Latest(u32),
    /// Some whose ids come after this one.
    After(RunId),
}

/// The queries of one filter for runs, receipts and jobs.
macro_rules! queries {
    ($filter:literal) => {
        (
            concat!("SELECT record FROM runs WHERE ", $filter),
            concat!("SELECT run, shard, receipt FROM receipts WHERE run IN (SELECT id FROM runs WHERE ", $filter, ")"),
            concat!(
                "SELECT run, shard, attempt, state, proof FROM jobs WHERE run IN (SELECT id FROM runs WHERE ",
                $filter,
                ")"
            ),
        )
    };
}

impl Filter {
    fn queries(self) -> (Statement, Statement, Statement) {
        let (runs, receipts, jobs) = match self {
            Self::One(_) => queries!("id = $1"),
            Self::UnderWay => queries!("under_way = $1"),
            Self::Latest(_) => queries!("true ORDER BY id DESC LIMIT $1"),
            Self::After(_) => queries!("id > $1 ORDER BY id LIMIT 500"),
        };
        let bind = |sql| {
            let statement = Statement::new(sql);
            match self {
                Self::One(run) | Self::After(run) => statement.bind(&run.as_bytes()[..]),
                Self::UnderWay => statement.bind(true),
                Self::Latest(limit) => statement.bind(limit),
            }
        };
        (bind(runs), bind(receipts), bind(jobs))
    }
}
