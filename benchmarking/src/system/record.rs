//! What was measured of one configuration, as it is kept, and the rows of tables that follow from it.
//!
//! Tables have times in seconds and sizes in bytes. Columns that an earlier system of this kind, the Python prototype of
//! distributed verifiable inference, wrote as well have its names (`setup_time`, `pk_size`, ...), so that tables of both can
//! be laid side by side.

use serde::{Deserialize, Serialize};

use super::configuration::Configuration;
use crate::conditions::Conditions;
use crate::stats::Summary;

/// What came of one configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was tried.
    pub configuration: Configuration,
    /// On what.
    pub conditions: Conditions,
    /// How it ended.
    pub outcome: Outcome,
}

/// How the measurement of a configuration ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every proof was verified.
    Verified(Box<Figures>),
    /// It was tried, and something went wrong.
    Failed(String),
    /// It was not tried.
    Skipped(String),
}

/// Figures of a configuration all of whose proofs were verified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Trained values of the whole model.
    pub parameters: u64,
    /// From the start of the coordinator until all keys were there, s.
    pub setup_wall: f64,
    /// From then until every worker held its shard, s.
    pub load_wall: f64,
    /// The shards, in order.
    pub shards: Vec<ShardFigures>,
    /// Repetitions in which shards were proven one after the other.
    pub apart: Vec<Pass>,
    /// Repetitions in which all proofs were requested at once; none where that was not tried.
    pub together: Vec<Pass>,
    /// Why `together` is empty.
    pub not_together: Option<String>,
    /// The last run's bundle, bytes.
    pub bundle_bytes: u64,
    /// `shardproof verify` on that bundle, from its start to its end, s.
    pub offline_verification: f64,
    /// The coordinator, then the workers in the order of shards.
    pub processes: Vec<ProcessFigures>,
}

/// What doesn't change from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardFigures {
    /// Trained values.
    pub parameters: u64,
    /// Computing settings and keys, s.
    pub setup: f64,
    /// Proving key, bytes.
    pub proving_key: u64,
    /// Verifying key, bytes.
    pub verifying_key: u64,
    /// What proving was predicted to need, bytes.
    pub predicted: u64,
}

/// One run with its proofs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// The run's id.
    pub run: String,
    /// From submitting the input to the answer, s.
    pub answer: f64,
    /// From requesting proofs to the last verdict, as the client sees it, s.
    pub wall: f64,
    /// The shards, in order.
    pub shards: Vec<ShardPass>,
}

/// One shard's part in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardPass {
    /// Running the shard and signing the receipt, s.
    pub witness: f64,
    /// Proving, s.
    pub prove: f64,
    /// Verifying the proof, s.
    pub verify: f64,
    /// The witness, bytes.
    pub witness_bytes: u64,
    /// The proof, bytes.
    pub proof_bytes: u64,
}

/// One process of the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// `coordinator`, or `worker-` with the shard's index.
    pub name: String,
    /// Most memory that it and its children had at a time, bytes.
    pub peak_bytes: u64,
    /// What its connections as a server received, bytes.
    pub received_bytes: u64,
    /// What they sent, bytes.
    pub sent_bytes: u64,
}

impl Figures {
    /// Middle of the repetitions of what `get` takes of a pass.
    fn median(passes: &[Pass], get: impl Fn(&Pass) -> f64) -> Option<f64> {
        Summary::of(passes.iter().map(get)).map(|summary| summary.median)
    }

    /// Sum over shards of their times apart, s.
    pub fn sum_of_proofs(&self) -> f64 {
        Self::median(&self.apart, |pass| pass.shards.iter().map(|shard| shard.prove).sum()).unwrap_or(0.0)
    }

    /// The longest proof of a shard that had the machine to itself, s.
    pub fn longest_proof(&self) -> f64 {
        let longest = |pass: &Pass| pass.shards.iter().map(|shard| shard.prove).fold(0.0, f64::max);
        Self::median(&self.apart, longest).unwrap_or(0.0)
    }

    /// From requesting all proofs at once to the last verdict, s; with one shard there is only one way to request them.
    pub fn chain_wall(&self) -> Option<f64> {
        Self::median(if self.shards.len() == 1 { &self.apart } else { &self.together }, |pass| pass.wall)
    }

    fn sum(&self, get: impl Fn(&ShardPass) -> f64) -> f64 {
        Self::median(&self.apart, |pass| pass.shards.iter().map(&get).sum()).unwrap_or(0.0)
    }
}

/// A row of `shards.csv`: one shard in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the columns are described beside the table, in benchmarking/README.md")]
pub struct ShardRow {
    pub setup_id: String,
    pub witness_id: String,
    pub shard_id: usize,
    pub model_id: String,
    pub setup_time: f64,
    pub vk_size: u64,
    pub pk_size: u64,
    pub witness_generation_time: f64,
    pub witness_size: u64,
    pub proof_generation_time: f64,
    pub proof_size: u64,
    pub verification_time: f64,
    pub backend: String,
    pub boundary: String,
    pub weights: String,
    pub target: String,
    pub requested: String,
    pub parameters: u64,
    pub predicted_bytes: u64,
    pub worker_peak_bytes: u64,
}

/// A row of `processes.csv`: one process of one configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the columns are described beside the table, in benchmarking/README.md")]
pub struct ProcessRow {
    pub setup_id: String,
    pub backend: String,
    pub boundary: String,
    pub weights: String,
    pub target: String,
    pub process: String,
    pub peak_bytes: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// A row of `summary.csv`: one configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the columns are described beside the table, in benchmarking/README.md")]
pub struct SummaryRow {
    pub setup_id: String,
    pub model_id: String,
    pub num_shards: usize,
    pub backend: String,
    pub boundary: String,
    pub weights: String,
    pub target: String,
    pub status: String,
    pub reason: String,
    pub parameters: Option<u64>,
    pub repetitions: Option<usize>,
    pub total_setup_time: Option<f64>,
    pub total_witness_generation_time: Option<f64>,
    pub total_proof_generation_time: Option<f64>,
    pub longest_proof_generation_time: Option<f64>,
    pub chain_wall_time: Option<f64>,
    pub answer_time: Option<f64>,
    pub total_verification_time: Option<f64>,
    pub offline_verification_time: Option<f64>,
    pub total_pk_size: Option<u64>,
    pub total_vk_size: Option<u64>,
    pub total_witness_size: Option<u64>,
    pub total_proof_size: Option<u64>,
    pub bundle_size: Option<u64>,
    pub coordinator_peak_bytes: Option<u64>,
    pub largest_worker_peak_bytes: Option<u64>,
    pub wire_bytes: Option<u64>,
}

impl Record {
    /// `verified`, `failed` or `skipped`.
    pub fn status(&self) -> &'static str {
        match self.outcome {
            Outcome::Verified(_) => "verified",
            Outcome::Failed(_) => "failed",
            Outcome::Skipped(_) => "skipped",
        }
    }

    /// Rows of `shards.csv`.
    pub fn shard_rows(&self) -> Vec<ShardRow> {
        let Outcome::Verified(figures) = &self.outcome else { return Vec::new() };
        let passes = figures.apart.iter().map(|pass| (pass, "one after the other"));
        let passes = passes.chain(figures.together.iter().map(|pass| (pass, "all at once")));
        let rows = |(pass, requested): (&Pass, &str)| {
            let row = |(shard_id, (shard, measured)): (usize, (&ShardFigures, &ShardPass))| ShardRow {
                setup_id: self.configuration.setup_id(),
                witness_id: pass.run.clone(),
                shard_id,
                model_id: self.configuration.model_id(),
                setup_time: shard.setup,
                vk_size: shard.verifying_key,
                pk_size: shard.proving_key,
                witness_generation_time: measured.witness,
                witness_size: measured.witness_bytes,
                proof_generation_time: measured.prove,
                proof_size: measured.proof_bytes,
                verification_time: measured.verify,
                backend: self.configuration.backend.to_string(),
                boundary: self.configuration.boundary.to_string(),
                weights: self.configuration.weights_in_words().to_owned(),
                target: self.configuration.target.as_str().to_owned(),
                requested: requested.to_owned(),
                parameters: shard.parameters,
                predicted_bytes: shard.predicted,
                worker_peak_bytes: figures.processes.get(shard_id + 1).map_or(0, |process| process.peak_bytes),
            };
            figures.shards.iter().zip(&pass.shards).enumerate().map(row).collect::<Vec<_>>()
        };
        passes.flat_map(rows).collect()
    }

    /// Rows of `processes.csv`.
    pub fn process_rows(&self) -> Vec<ProcessRow> {
        let Outcome::Verified(figures) = &self.outcome else { return Vec::new() };
        let row = |process: &ProcessFigures| ProcessRow {
            setup_id: self.configuration.setup_id(),
            backend: self.configuration.backend.to_string(),
            boundary: self.configuration.boundary.to_string(),
            weights: self.configuration.weights_in_words().to_owned(),
            target: self.configuration.target.as_str().to_owned(),
            process: process.name.clone(),
            peak_bytes: process.peak_bytes,
            received_bytes: process.received_bytes,
            sent_bytes: process.sent_bytes,
        };
        figures.processes.iter().map(row).collect()
    }

    /// The row of `summary.csv`; a configuration without figures has one as well.
    pub fn summary_row(&self) -> SummaryRow {
        let configuration = &self.configuration;
        let (figures, reason) = match &self.outcome {
            Outcome::Verified(figures) => (Some(figures.as_ref()), figures.not_together.clone().unwrap_or_default()),
            Outcome::Failed(reason) | Outcome::Skipped(reason) => (None, reason.clone()),
        };
        let last = |figures: &Figures, get: fn(&ShardPass) -> u64| {
            figures.apart.last().map_or(0, |pass| pass.shards.iter().map(get).sum())
        };
        let worker_peak = |f: &Figures| f.processes.iter().skip(1).map(|process| process.peak_bytes).max();
        SummaryRow {
            setup_id: configuration.setup_id(),
            model_id: configuration.model_id(),
            num_shards: configuration.shards,
            backend: configuration.backend.to_string(),
            boundary: configuration.boundary.to_string(),
            weights: configuration.weights_in_words().to_owned(),
            target: configuration.target.as_str().to_owned(),
            status: self.status().to_owned(),
            reason,
            parameters: figures.map(|f| f.parameters),
            repetitions: figures.map(|f| f.apart.len()),
            total_setup_time: figures.map(|f| f.shards.iter().map(|shard| shard.setup).sum()),
            total_witness_generation_time: figures.map(|f| f.sum(|shard| shard.witness)),
            total_proof_generation_time: figures.map(Figures::sum_of_proofs),
            longest_proof_generation_time: figures.map(Figures::longest_proof),
            chain_wall_time: figures.and_then(Figures::chain_wall),
            answer_time: figures.and_then(|f| Figures::median(&f.apart, |pass| pass.answer)),
            total_verification_time: figures.map(|f| f.sum(|shard| shard.verify)),
            offline_verification_time: figures.map(|f| f.offline_verification),
            total_pk_size: figures.map(|f| f.shards.iter().map(|shard| shard.proving_key).sum()),
            total_vk_size: figures.map(|f| f.shards.iter().map(|shard| shard.verifying_key).sum()),
            total_witness_size: figures.map(|f| last(f, |shard| shard.witness_bytes)),
            total_proof_size: figures.map(|f| last(f, |shard| shard.proof_bytes)),
            bundle_size: figures.map(|f| f.bundle_bytes),
            coordinator_peak_bytes: figures.and_then(|f| Some(f.processes.first()?.peak_bytes)),
            largest_worker_peak_bytes: figures.and_then(worker_peak),
            wire_bytes: figures.map(|f| f.processes.iter().map(|p| p.received_bytes + p.sent_bytes).sum()),
        }
    }
}
