//! Shards in integers, exactly as they are served and proven.

use std::sync::Arc;

use shardproof_common::plan::CalibrationTarget;
use shardproof_common::tensor::{FloatTensor, IntegerTensor};
use shardproof_integer::{Executor, RunError, Site, TensorId};
use shardproof_models::FloatShard;
use shardproof_models::quantise::{QuantiseOptions, Quantised, quantise};

use super::error::AccuracyError;

/// Integers that one batch may take, over all tensors: 256 MiB.
const BATCH_VALUES: usize = 1 << 25;
/// Most runs of a batch: more gain no speed.
const BATCH_RUNS: usize = 64;

/// Why a shard has no answer for an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The node or input whose value has no place.
    pub node: String,
    /// What it is.
    pub reason: String,
}

/// A shard's outputs for one input, or why there are none.
pub type Answer = Result<Vec<IntegerTensor>, Failure>;

/// One quantised shard of a chain.
pub trait IntegerShard {
    /// Scales at which it takes its inputs, in order.
    fn input_scales(&self) -> &[i32];

    /// Scales at which it gives its outputs, in order.
    fn output_scales(&self) -> &[i32];

    /// How many inputs are best given at a time.
    fn batch(&self) -> usize;

    /// Runs it on each of `inputs`, integers at its scales.
    ///
    /// # Errors
    /// When it fails for another reason than an input's values.
    fn run(&self, inputs: &[Vec<IntegerTensor>]) -> Result<Vec<Answer>, AccuracyError>;
}

/// What every shard of a chain is calibrated on, in floats: as the coordinator computes it.
///
/// # Errors
/// When a shard has no answer in floats.
pub fn calibration_inputs(
    floats: &[FloatShard],
    samples: &[Vec<FloatTensor>],
) -> Result<Vec<Vec<Vec<FloatTensor>>>, AccuracyError> {
    let mut current = samples.to_vec();
    let mut inputs = Vec::with_capacity(floats.len());
    for shard in floats {
        let run = |(input, sample): (usize, &Vec<FloatTensor>)| {
            let failed = |source| AccuracyError::Float { what: "calibration input", input, source };
            shard.run(sample).map_err(failed)
        };
        let outputs = current.iter().enumerate().map(run).collect::<Result<_, _>>()?;
        inputs.push(std::mem::replace(&mut current, outputs));
    }
    Ok(inputs)
}

/// A shard of the native prover.
#[derive(Debug)]
pub struct GkrShard {
    executor: Executor,
    input_scales: Vec<i32>,
    output_scales: Vec<i32>,
    output_shapes: Vec<Vec<u64>>,
}

impl GkrShard {
    /// Quantises shards that follow each other, as the coordinator's setup does: each on its own calibration inputs
    /// ([`calibration_inputs`]), with its predecessor's scales.
    ///
    /// # Errors
    /// The first shard's that cannot be quantised.
    pub fn chain(
        shards: &[&[u8]],
        options: &QuantiseOptions,
        calibration: &[Vec<Vec<FloatTensor>>],
    ) -> Result<Vec<Self>, AccuracyError> {
        let mut chain: Vec<Self> = Vec::with_capacity(shards.len());
        for (index, (onnx, samples)) in shards.iter().zip(calibration).enumerate() {
            let given = chain.last().map(|previous| previous.output_scales.clone());
            let options = QuantiseOptions { input_scales: given, ..options.clone() };
            let quantised = quantise(onnx, &options, samples).map_err(|source| AccuracyError::Quantise {
                target: options.target,
                shards: shards.len(),
                shard: index,
                source: Box::new(source),
            })?;
            chain.push(Self::new(quantised)?);
        }
        Ok(chain)
    }

    fn new(quantised: Quantised) -> Result<Self, AccuracyError> {
        let (input_scales, output_scales) = (quantised.input_scales(), quantised.output_scales());
        let shape = |index| quantised.output_shape(index).iter().map(|&extent| extent as u64).collect();
        let output_shapes = (0..output_scales.len()).map(shape).collect();
        let executor = Executor::new(Arc::new(quantised.graph), &quantised.weights)?;
        Ok(Self { executor, input_scales, output_scales, output_shapes })
    }

    /// Runs inputs together, each tensor's integers one after another.
    fn run_together(&self, inputs: &[Vec<IntegerTensor>]) -> Result<Vec<Vec<IntegerTensor>>, RunError> {
        let graph = self.executor.graph().graph();
        let stack = |index: usize| inputs.iter().flat_map(|tensors| tensors[index].values.iter().copied()).collect();
        let stacked: Vec<Vec<i64>> = (0..self.input_scales.len()).map(stack).collect();
        let trace = self.executor.run(&stacked, inputs.len())?;
        let output = |run: usize, index: usize| {
            let values = trace.tensor(graph.outputs[index]);
            let elements = values.len() / inputs.len();
            IntegerTensor {
                shape: self.output_shapes[index].clone(),
                scale: self.output_scales[index],
                values: values[run * elements..(run + 1) * elements].to_vec(),
            }
        };
        let outputs = |run| (0..graph.outputs.len()).map(|index| output(run, index)).collect();
        Ok((0..inputs.len()).map(outputs).collect())
    }
}

impl IntegerShard for GkrShard {
    fn input_scales(&self) -> &[i32] {
        &self.input_scales
    }

    fn output_scales(&self) -> &[i32] {
        &self.output_scales
    }

    fn batch(&self) -> usize {
        let graph = self.executor.graph();
        let values: usize = (0..graph.tensors()).map(|tensor| graph.elements(TensorId(tensor as u32))).sum();
        (BATCH_VALUES / values.max(1)).clamp(1, BATCH_RUNS)
    }

    fn run(&self, inputs: &[Vec<IntegerTensor>]) -> Result<Vec<Answer>, AccuracyError> {
        let mut answers = Vec::with_capacity(inputs.len());
        for batch in inputs.chunks(self.batch()) {
            match self.run_together(batch) {
                Ok(outputs) => answers.extend(outputs.into_iter().map(Ok)),
                // One run that fails ends its batch: the others get their answers by themselves.
                Err(_) => answers.extend(batch.iter().map(|input| {
                    let mut outputs =
                        self.run_together(std::slice::from_ref(input)).map_err(|error| failure(&error))?;
                    Ok(outputs.swap_remove(0))
                })),
            }
        }
        Ok(answers)
    }
}

fn failure(error: &RunError) -> Failure {
    let site = match error {
        RunError::InputRange { site, .. }
        | RunError::RequantRange { site, .. }
        | RunError::TableDomain { site, .. } => Some(site.as_ref()),
        _ => None,
    };
    let node = match site {
        Some(Site::Node { name, .. } | Site::Input { name, .. }) => name.clone(),
        _ => String::new(),
    };
    Failure { node, reason: error.to_string() }
}

/// What `target` and the given bits ask of the quantiser.
pub fn options(target: CalibrationTarget, weight_bits: Option<u32>, activation_bits: Option<u32>) -> QuantiseOptions {
    QuantiseOptions { weight_bits, activation_bits, ..QuantiseOptions::new(target) }
}
