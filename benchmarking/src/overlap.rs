//! Whether proofs of different shards are made at the same time.
//!
//! On one machine the provers share its processors, so their own times say little about workers on different machines. Each
//! prover is slowed by a delay that takes no processor time, long against the proofs: if proofs wait for each other, the
//! delays add up; if they do not, all of them pass at once.

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{LoadOptions, ModelSource, OnnxModel, input};

use crate::client::Client;
use crate::error::BenchError;
use crate::processes::{Cluster, Programs, WorkerOptions};
use crate::report::{profile, table};
use crate::system::ProvenBy;

/// What is measured.
#[derive(Clone, Debug)]
pub struct OverlapOptions {
    /// Zoo model or path.
    pub model: String,
    /// Shards, and so workers.
    pub shards: usize,
    /// What each prover waits before each proof, ms.
    pub delay_ms: u64,
    /// What proves all shards.
    pub backend: ProvenBy,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct OverlapReport {
    benchmark: &'static str,
    profile: &'static str,
    model: String,
    backend: ProvenBy,
    delay_ms: u64,
    /// Each worker's own time for its proof, the delay included.
    prove_ms: Vec<u64>,
    prove_ms_sum: u64,
    prove_ms_max: u64,
    /// From requesting all proofs to the last verdict, as the client sees it.
    wall_ms: u64,
    /// The same as the coordinator tells it.
    coordinator_wall_ms: u64,
    /// What the coordinator took to verify.
    verify_ms_sum: u64,
    /// 1 when the whole took no longer than the longest proof, 0 when it took as long as one proof after another.
    overlap: f64,
    /// Whether more than half of what can overlap did.
    overlapped: bool,
}

/// Measures.
///
/// # Errors
/// When the programs fail, or the run is not verified.
pub async fn measure(options: OverlapOptions) -> Result<OverlapReport, BenchError> {
    let programs = Programs::find()?;
    let source = ModelSource::resolve(&options.model)?;
    let model = OnnxModel::load(&source, &LoadOptions::default())?;
    let samples = input::samples(&source, &model, 1, 0)?;
    let directory = tempfile::tempdir().map_err(BenchError::io("making a directory"))?;
    let delay = options.delay_ms.to_string();
    let worker = WorkerOptions { arguments: &["--prove-delay-ms", delay.as_str()], ..Default::default() };
    let backend = ["--backend", options.backend.kind().as_str()];
    let mut cluster =
        Cluster::start(&programs, directory.path(), &options.model, options.shards, &backend, worker).await?;
    let outcome = prove(&mut cluster, &options, &samples.inputs[0]).await;
    cluster.stop().await;
    outcome
}

async fn prove(
    cluster: &mut Cluster,
    options: &OverlapOptions,
    input: &[FloatTensor],
) -> Result<OverlapReport, BenchError> {
    let client = Client::connect(cluster).await?;
    client.wait_until_ready(cluster).await?;
    let run = client.infer(input).await?;
    let started = Instant::now();
    let run = client.prove(&run).await?;
    let wall_ms = started.elapsed().as_millis() as u64;

    let prove_ms: Vec<u64> = run.shards.iter().map(|shard| shard.prove_us / 1000).collect();
    let (sum, max) = (prove_ms.iter().sum(), prove_ms.iter().copied().max().unwrap_or(0));
    let overlap = overlap(wall_ms, sum, max);
    Ok(OverlapReport {
        benchmark: "overlap",
        profile: profile(),
        model: options.model.clone(),
        backend: options.backend,
        delay_ms: options.delay_ms,
        prove_ms,
        prove_ms_sum: sum,
        prove_ms_max: max,
        wall_ms,
        coordinator_wall_ms: run.prove_wall_ms,
        verify_ms_sum: run.shards.iter().map(|shard| shard.verify_us / 1000).sum(),
        overlap,
        overlapped: overlap > 0.5,
    })
}

/// Where `wall` lies between the sum of all (0) and the longest (1). A single proof overlaps nothing.
fn overlap(wall: u64, sum: u64, max: u64) -> f64 {
    if sum <= max {
        return 0.0;
    }
    (sum as f64 - wall as f64) / (sum - max) as f64
}

impl fmt::Display for OverlapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1000.0);
        let mut rows: Vec<Vec<String>> = self
            .prove_ms
            .iter()
            .enumerate()
            .map(|(shard, &ms)| vec![format!("proof of shard {shard}"), seconds(ms)])
            .collect();
        rows.push(vec!["sum of the proofs".to_owned(), seconds(self.prove_ms_sum)]);
        rows.push(vec!["longest proof".to_owned(), seconds(self.prove_ms_max)]);
        rows.push(vec!["wall clock, verification included".to_owned(), seconds(self.wall_ms)]);
        let delay = seconds(self.delay_ms);
        let Self { model, backend, profile, .. } = self;
        let shards = self.prove_ms.len();
        writeln!(f, "{model} in {shards} shards with {backend}, every prover slowed by {delay}, {profile} build\n")?;
        writeln!(f, "{}", table(&["", "time"], &rows))?;
        let verdict =
            if self.overlapped { "proofs were made at the same time" } else { "proofs waited for each other" };
        writeln!(f, "overlap {:.2} (0: one after another, 1: all at once): {verdict}", self.overlap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_lies_between_one_after_another_and_all_at_once() {
        assert_eq!(overlap(20, 20, 5), 0.0);
        assert_eq!(overlap(5, 20, 5), 1.0);
        assert_eq!(overlap(5, 5, 5), 0.0);
        assert!(overlap(6, 20, 5) > 0.9);
    }
}
