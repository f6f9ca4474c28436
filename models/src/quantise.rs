//! Quantisation: from a shard in ONNX to an integer graph and its weights.
//!
//! - **What**: [`quantise`] lowers the shard's operators to those of the integer graph, measures every tensor's range on
//!   sample inputs, and chooses scales and bits; [`QuantisationReport`] says how far the integer answers are from the
//!   float ones.
//! - **When**: on the owner's side, once for a plan; the shards in order, each with the scales that the one before gives
//!   its outputs ([`Quantised::output_scales`]), as [`quantise_chain`] does for a whole chain.
//! - **Guarantees**: the graph has passed [`Graph::check`](shardproof_integer::Graph::check), so no value can leave the
//!   proven range unnoticed; equal shards, options and samples give equal graphs, on every machine. A value may be up to four times
//!   ([`HEADROOM_BITS`]) as large as the largest of calibration; beyond that, and beyond what interval analysis shows, a
//!   run ends with an error. Sigmoid, Tanh and Erf have no such limit where calibration reaches their level parts: their
//!   inputs are clamped, exactly.
//!
//! # What is not linear
//!
//! | operators | integers | error |
//! |---|---|---|
//! | ReLU, Max, Min, Clip, Abs | differences and ReLUs | none |
//! | Sigmoid, Tanh, Erf, Exp, Gelu, powers, .. | one table | half a unit of the input times the slope, half a unit of the result |
//! | products whose factors are functions of one tensor: GELU and SiLU in several operators | one table | the same |
//! | Softmax | maximum, table, sum, a division for each row | `p (e^u - 1) + 2^-T (3 + n p)` for a share p of n; u is a score's unit, T the bits |
//! | LayerNormalization, in one operator or decomposed; RMS norm | sums, root, a division for each row | `(w / v)(1 + a) / 2 + a (1 / r + 1 / (2 R) + 2^-k)`, a the magnitude of the result; w is the input's unit, v the deviation, r and R its root and reciprocal as integers; `a (w / v)^2 / 8` more where epsilon is below `w^2 / 4` and leaves R too few bits |
//! | Sqrt, Reciprocal, Div, Pow by -1, -0.5, 0.5 | proven by inequalities | a unit; half a unit of the quotient |
//! | MatMul, Mul of two tensors, Pow by 2 | exact | none |
//!
//! How the bounds of softmax and normalisation come about is written where they are emitted, in `quantise/emit/softmax.rs` and
//! `quantise/emit/normalise.rs`; `tests/quantise_bounds.rs` holds both to them. A constant mask (`-inf`, or any number of at
//! most -10^4, by Add or Where) makes what it hides exactly zero.
//!
//! `tests/onnx_nodes.rs` runs the official ONNX node tests of all operators in integers; `tests/exported` holds a small
//! transformer by each of PyTorch's exporters, which import takes unchanged.
//!
//! Biases, masks, and all constants of more than one element, are weights; a single number that a tensor is multiplied by, raised
//! by or clipped at is part of the architecture.

mod calibration;
mod chain;
mod emit;
mod error;
mod evaluate;
mod exact;
mod fold;
mod functions;
mod lower;
mod patterns;
mod real;
mod report;

use shardproof_common::plan::CalibrationTarget;
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::{CheckedGraph, TensorId, Weights};

pub use chain::quantise_chain;
pub use emit::HEADROOM_BITS;
pub use error::QuantiseError;
pub use report::{ClassAgreement, OutputError, QuantisationReport, class};

use calibration::calibrate;
use emit::Precision;
use real::{RealGraph, RealOp};

/// How a shard is quantised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantiseOptions {
    /// What the default bits are chosen for: `resources` takes 8-bit weights (and a sign), 11-bit activations and tables of
    /// 2^10 entries; `accuracy` 13-bit weights, 16-bit activations and tables of 2^14 entries.
    pub target: CalibrationTarget,
    /// Scales of the inputs, in order: those of the previous shard's outputs. Chosen by calibration where not given.
    pub input_scales: Option<Vec<i32>>,
    /// Bits of the weights' magnitudes, from 2 to 20.
    pub weight_bits: Option<u32>,
    /// Bits of the magnitudes of requantised values, [`HEADROOM_BITS`] included; from 4 to 22.
    pub activation_bits: Option<u32>,
    /// log2 of the number of entries of a table, from 4 to 18.
    pub table_bits: Option<u32>,
}

impl QuantiseOptions {
    /// The defaults of `target`.
    pub const fn new(target: CalibrationTarget) -> Self {
        Self { target, input_scales: None, weight_bits: None, activation_bits: None, table_bits: None }
    }

    fn precision(&self) -> Result<Precision, QuantiseError> {
        let (weights, activations, tables) = match self.target {
            CalibrationTarget::Resources => (8, 11, 10),
            CalibrationTarget::Accuracy => (13, 16, 14),
        };
        let within = |option, bits: Option<u32>, default, (least, most): (u32, u32)| {
            let bits = bits.unwrap_or(default);
            if (least..=most).contains(&bits) {
                return Ok(bits);
            }
            Err(QuantiseError::Bits { option, found: bits.into(), least: least.into(), most: most.into() })
        };
        Ok(Precision {
            weight_bits: within("weight bits", self.weight_bits, weights, (2, 20))?,
            activation_bits: within("activation bits", self.activation_bits, activations, (4, 22))?,
            table_bits: within("table bits", self.table_bits, tables, (4, 18))?,
        })
    }
}

/// A quantised shard.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// Its architecture, checked.
    pub graph: CheckedGraph,
    /// Its trained values.
    pub weights: Weights,
}

impl Quantised {
    /// Scales of the inputs, in order.
    pub fn input_scales(&self) -> Vec<i32> {
        self.graph.graph().inputs.iter().map(|input| input.scale).collect()
    }

    /// Scales of the outputs, in order: what the next shard takes as its input scales.
    pub fn output_scales(&self) -> Vec<i32> {
        let graph = self.graph.graph();
        graph.outputs.iter().map(|&output| graph.scale(output)).collect()
    }

    /// Shape of output `index`.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output_shape(&self, index: usize) -> &[usize] {
        let output: TensorId = self.graph.graph().outputs[index];
        self.graph.shape(output)
    }
}

/// Quantises a shard, or a whole model, from the bytes of its ONNX file. Each of `samples` holds one tensor per input.
///
/// # Errors
/// Names the node and the operator that have no counterpart in integers or whose values cannot be held, or the option or
/// sample that does not fit.
pub fn quantise(
    onnx: &[u8],
    options: &QuantiseOptions,
    samples: &[Vec<FloatTensor>],
) -> Result<Quantised, QuantiseError> {
    Ok(calibrated(onnx, options, samples)?.0)
}

/// Checks, without samples, that a shard's operators have counterparts in integers and that `options` are possible. What depends
/// on how large its values are is left to [`quantise`].
///
/// # Errors
/// Names the node and the operator that have none, or the option.
pub fn check(onnx: &[u8], options: &QuantiseOptions) -> Result<(), QuantiseError> {
    options.precision()?;
    real_graph(onnx).map(drop)
}

/// The shard's operators, as integers have them.
fn real_graph(onnx: &[u8]) -> Result<RealGraph, QuantiseError> {
    let graph = crate::import::import(onnx, &[])?;
    let mut real = lower::lower(&graph)?;
    patterns::recognise(&mut real);
    fold::fold(&mut real);
    check_masks(&real)?;
    Ok(real)
}

/// A quantised shard, and what its float form makes of the samples: the next shard's samples.
fn calibrated(
    onnx: &[u8],
    options: &QuantiseOptions,
    samples: &[Vec<FloatTensor>],
) -> Result<(Quantised, Vec<Vec<FloatTensor>>), QuantiseError> {
    let precision = options.precision()?;
    let real = real_graph(onnx)?;
    let calibration = calibrate(&real, samples)?;
    let input_scales = match &options.input_scales {
        Some(scales) if scales.len() != real.inputs.len() => {
            return Err(QuantiseError::InputScales { inputs: real.inputs.len(), scales: scales.len() });
        }
        Some(scales) => scales.clone(),
        // Inputs are not requantised, so they may have all the bits of activations and their headroom on top.
        None => {
            let magnitudes = (0..real.inputs.len()).map(|input| calibration.magnitude(input));
            let scale = |magnitude| emit::scale_for(magnitude, precision.activation_bits).min(emit::FINEST_SCALE);
            magnitudes.map(scale).collect()
        }
    };
    input_scales.iter().try_for_each(|&scale| check_scale(scale))?;
    let (graph, weights) = emit::emit(&real, &calibration, &input_scales, precision)?;
    let graph = graph.check()?;
    weights.check(&graph)?;
    Ok((Quantised { graph, weights }, calibration.outputs))
}

/// Infinite constants mask scores, and lowering gives them to the softmax that follows; anywhere else they have no integers.
fn check_masks(real: &RealGraph) -> Result<(), QuantiseError> {
    let uses = real.uses();
    for (index, node) in real.nodes.iter().enumerate() {
        let RealOp::AddWeight { weight, .. } = &node.op else { continue };
        let infinite = weight.values.iter().any(|value| value.abs() >= f64::from(f32::MAX));
        if infinite && uses[real.inputs.len() + index] > 0 {
            let (node, operator) = (node.name.clone(), node.operator.clone());
            let reason = "it adds an infinite constant to what does not enter a softmax as it is".to_owned();
            return Err(QuantiseError::Unsupported { node, operator, reason });
        }
    }
    Ok(())
}

fn check_scale(scale: i32) -> Result<(), QuantiseError> {
    const MOST: i64 = emit::FINEST_SCALE as i64;
    let found = i64::from(scale);
    if found.abs() <= MOST {
        return Ok(());
    }
    Err(QuantiseError::Bits { option: "input scale", found, least: -MOST, most: MOST })
}
