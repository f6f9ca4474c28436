//! The columns of published tables that the page shows.

use std::path::Path;

use serde::Deserialize;

use crate::error::BenchError;
use crate::load::LoadRow;
use crate::pipeline::PipelineRow;
use crate::system::SummaryRow;
use crate::table;

/// One proof system on one model; of `backends.csv`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Compared {
    pub(super) model: String,
    pub(super) parameters: u64,
    pub(super) system: String,
    /// `ok`, or why there are no figures.
    pub(super) status: String,
    /// Threads that every step might use.
    pub(super) threads: usize,
    /// Proofs that the medians are of.
    pub(super) passes: usize,
    pub(super) setup_ms: Option<f64>,
    pub(super) witness_ms_median: Option<f64>,
    pub(super) prove_ms_median: Option<f64>,
    pub(super) prove_wall_ms_median: Option<f64>,
    pub(super) verify_ms_median: Option<f64>,
    pub(super) verify_wall_ms_median: Option<f64>,
    pub(super) proof_bytes: Option<u64>,
    pub(super) proving_key_bytes: Option<u64>,
    pub(super) verifying_key_bytes: Option<u64>,
    pub(super) setup_peak_bytes: Option<u64>,
    pub(super) prove_peak_bytes: Option<u64>,
    pub(super) relative_rmse: Option<f64>,
    pub(super) control: Option<String>,
}

impl Compared {
    pub(super) fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}

/// One operator with one system; of `compatibility.csv`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Taken {
    pub(super) operator: String,
    pub(super) detail: String,
    pub(super) system: String,
    /// `yes`, `no` or `skipped`.
    pub(super) proven: String,
}

/// One model in one number of shards; of `accuracy.csv`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Accurate {
    pub(super) ezkl_optimization_goal: String,
    pub(super) num_nodes: usize,
    pub(super) model: String,
    pub(super) inputs: usize,
    pub(super) failed_runs: usize,
    pub(super) rmse: Option<f64>,
    pub(super) relative_rmse_percent: Option<f64>,
    pub(super) max_absolute_error: Option<f64>,
    pub(super) class_agreement_percent: Option<f64>,
    pub(super) float_task_accuracy_percent: Option<f64>,
    pub(super) quantised_task_accuracy_percent: Option<f64>,
    pub(super) rmse_added_by_cuts: Option<f64>,
}

/// What others have published; of `published.csv`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Published {
    pub(super) system: String,
    pub(super) model_id: String,
    pub(super) num_shards: usize,
    pub(super) parameters: u64,
    pub(super) total_setup_time: Option<f64>,
    pub(super) total_proof_generation_time: Option<f64>,
    pub(super) total_verification_time: Option<f64>,
    pub(super) total_proof_size: Option<u64>,
    pub(super) total_pk_size: Option<u64>,
    pub(super) peak_bytes: Option<u64>,
    pub(super) conditions: String,
    pub(super) source: String,
}

/// Everything that the page is made from.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub(super) system: Vec<SummaryRow>,
    /// Models of certain architectures.
    pub(super) models: Vec<Compared>,
    /// One architecture in growing sizes.
    pub(super) growth: Vec<Compared>,
    pub(super) compatibility: Vec<Taken>,
    pub(super) accuracy: Vec<Accurate>,
    pub(super) published: Vec<Published>,
    pub(super) load: Vec<LoadRow>,
    pub(super) pipeline: Vec<PipelineRow>,
}

impl Tables {
    /// Reads the published tables in `directory`.
    pub(super) fn read(directory: &Path) -> Result<Self, BenchError> {
        Ok(Self {
            system: table::read(&directory.join("system/summary.csv"))?,
            models: table::read(&directory.join("models/backends.csv"))?,
            growth: table::read(&directory.join("growth/backends.csv"))?,
            compatibility: table::read(&directory.join("compatibility/compatibility.csv"))?,
            accuracy: table::read(&directory.join("accuracy/accuracy.csv"))?,
            published: table::read(&directory.join("published.csv"))?,
            load: table::read(&directory.join("load/load.csv"))?,
            pipeline: table::read(&directory.join("pipeline/pipeline.csv"))?,
        })
    }
}

/// A row for tests.
#[cfg(test)]
pub(super) fn compared(model: &str, system: &str, passes: usize) -> Compared {
    Compared {
        model: model.to_owned(),
        parameters: 100,
        system: system.to_owned(),
        status: "ok".to_owned(),
        threads: 2,
        passes,
        setup_ms: Some(1.0),
        witness_ms_median: Some(2.0),
        prove_ms_median: Some(3.0),
        prove_wall_ms_median: Some(4.0),
        verify_ms_median: Some(5.0),
        verify_wall_ms_median: Some(6.0),
        proof_bytes: Some(7),
        proving_key_bytes: Some(8),
        verifying_key_bytes: Some(9),
        setup_peak_bytes: Some(10),
        prove_peak_bytes: Some(11),
        relative_rmse: None,
        control: Some("rejected".to_owned()),
    }
}
