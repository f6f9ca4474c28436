//! Why accuracy could not be measured.

use std::path::PathBuf;

use shardproof_common::backend::BackendError;
use shardproof_common::plan::CalibrationTarget;
use shardproof_integer::WeightsError;
use shardproof_models::FloatError;
use shardproof_models::quantise::QuantiseError;
use thiserror::Error;

use crate::plot::PlotError;
use crate::table::TableError;

/// Why accuracy could not be measured.
#[derive(Debug, Error)]
pub enum AccuracyError {
    /// More shards than the model has places for.
    #[error("{model} can be cut into at most {most} shards, {asked} were asked for")]
    TooManyShards {
        /// Which model.
        model: String,
        /// Most shards.
        most: usize,
        /// Asked for.
        asked: usize,
    },
    /// An option that the proof system does not have.
    #[error("{option} is an option of gkr; {backend} has no such")]
    Option {
        /// Which.
        option: &'static str,
        /// The proof system.
        backend: &'static str,
    },
    /// Floats against floats.
    #[error("the float backend does not quantise: there is no error to measure; use gkr or ezkl")]
    FloatBackend,
    /// Nothing to measure on.
    #[error("{} holds no inputs", path.display())]
    NoInputs {
        /// The file.
        path: PathBuf,
    },
    /// A shard cannot be quantised, or the calibration inputs do not suit it.
    #[error("target {}, {shards} shards: shard {shard}: {source}", target.as_str())]
    Quantise {
        /// What calibration optimised.
        target: CalibrationTarget,
        /// Shards of the chain.
        shards: usize,
        /// Which shard.
        shard: usize,
        /// Why.
        source: Box<QuantiseError>,
    },
    /// The quantised weights do not fit their graph.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A float shard cannot be loaded.
    #[error("shard {shard} of {shards}, in floats: {source}")]
    Load {
        /// Which shard.
        shard: usize,
        /// Shards of the chain.
        shards: usize,
        /// Why.
        source: FloatError,
    },
    /// There is no float answer to compare with.
    #[error("{what} {input}, in floats: {source}")]
    Float {
        /// `input` or `calibration input`.
        what: &'static str,
        /// Place in its source, from 0.
        input: usize,
        /// Why.
        source: FloatError,
    },
    /// ezkl cannot set a shard up.
    #[error("target {}, {shards} shards: shard {shard}: {source}", target.as_str())]
    Setup {
        /// What calibration optimised.
        target: CalibrationTarget,
        /// Shards of the chain.
        shards: usize,
        /// Which shard.
        shard: usize,
        /// Why.
        source: BackendError,
    },
    /// ezkl failed for another reason than the values of an input.
    #[error("shard {shard}: {source}")]
    Infer {
        /// Which shard.
        shard: usize,
        /// Why.
        source: BackendError,
    },
    /// A table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A plot could not be written.
    #[error(transparent)]
    Plot(#[from] PlotError),
}
