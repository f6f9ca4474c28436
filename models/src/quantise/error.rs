//! Why a shard cannot be quantised.

use shardproof_integer::{GraphError, RunError, WeightsError};
use thiserror::Error;

use crate::error::{FloatError, InputError, ModelError};

/// Why a shard cannot be quantised, or its quantisation not be judged.
#[derive(Debug, Error)]
pub enum QuantiseError {
    /// The bytes are no shard.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The operator has no counterpart in integers, or not with these inputs and attributes.
    #[error("node `{node}` ({operator}) cannot be quantised: {reason}")]
    Unsupported {
        /// Which ONNX node.
        node: String,
        /// Its operator.
        operator: String,
        /// Why not.
        reason: String,
    },
    /// The values of a tensor cannot be held within the range of proven integers.
    #[error("node `{node}` ({operator}): {reason}")]
    Range {
        /// Which ONNX node.
        node: String,
        /// Its operator.
        operator: String,
        /// What exceeds what.
        reason: String,
    },
    /// A calibration run gave a value that is not a number.
    #[error("node `{node}` ({operator}): calibration sample {sample} gives {value}")]
    NonFinite {
        /// Which ONNX node.
        node: String,
        /// Its operator.
        operator: String,
        /// Which sample, from 0.
        sample: usize,
        /// `NaN`, `inf` or `-inf`.
        value: f64,
    },
    /// Nothing to calibrate on.
    #[error("quantisation needs at least one sample input to choose scales")]
    NoSamples,
    /// A sample that does not fit the shard's inputs.
    #[error("calibration sample {sample}: {source}")]
    Sample {
        /// Which sample, from 0.
        sample: usize,
        /// What does not fit.
        source: InputError,
    },
    /// Another number of scales than the shard has inputs.
    #[error("the shard has {inputs} inputs, but {scales} input scales are given")]
    InputScales {
        /// Inputs of the shard.
        inputs: usize,
        /// Scales given.
        scales: usize,
    },
    /// An option outside what integer graphs can hold.
    #[error("{option} is {found}; it must be from {least} to {most}")]
    Bits {
        /// Which option.
        option: &'static str,
        /// Its value.
        found: i64,
        /// Least value allowed.
        least: i64,
        /// Greatest value allowed.
        most: i64,
    },
    /// The integer graph does not pass its own checks.
    #[error("the quantised graph is refused: {0}")]
    Graph(#[from] GraphError),
    /// The weights do not fit the integer graph.
    #[error("the quantised weights are refused: {0}")]
    Weights(#[from] WeightsError),
    /// The float model could not be run for comparison.
    #[error(transparent)]
    Float(#[from] FloatError),
    /// The quantised model could not be run for comparison.
    #[error("sample {sample}: {source}")]
    Run {
        /// Which sample, from 0.
        sample: usize,
        /// Why.
        source: RunError,
    },
    /// An input that has no integers at the scale of the shard's input.
    #[error("sample {sample}: {source}")]
    Input {
        /// Which sample, from 0.
        sample: usize,
        /// Why.
        source: shardproof_common::tensor::TensorError,
    },
}
