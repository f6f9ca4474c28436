//! Calibration: what values the tensors of a graph have on sample inputs.

use shardproof_common::plan::BoundaryTensor;
use shardproof_common::tensor::FloatTensor;

use super::error::QuantiseError;
use super::evaluate::{self, inner_magnitude};
use super::real::{self, RealGraph};
use crate::input;

/// What values a tensor has, both ends included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Range {
    const EMPTY: Self = Self { low: f64::INFINITY, high: f64::NEG_INFINITY };

    fn with(self, value: f64) -> Self {
        Self { low: self.low.min(value), high: self.high.max(value) }
    }

    /// The larger of the ends' magnitudes.
    pub(super) fn magnitude(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }
}

pub(super) struct Calibration {
    /// Of every tensor over all samples; of those that nothing uses, `0 ..= 0`.
    pub(super) ranges: Vec<Range>,
    /// Of every node, what [`inner_magnitude`] says, over all samples.
    pub(super) inner: Vec<f64>,
    /// The outputs, for each sample.
    pub(super) outputs: Vec<Vec<FloatTensor>>,
}

impl Calibration {
    pub(super) fn magnitude(&self, tensor: real::Tensor) -> f64 {
        self.ranges[tensor].magnitude()
    }
}

/// Evaluates `samples`, each with one tensor per input.
pub(super) fn calibrate(real: &RealGraph, samples: &[Vec<FloatTensor>]) -> Result<Calibration, QuantiseError> {
    if samples.is_empty() {
        return Err(QuantiseError::NoSamples);
    }
    let extents = |shape: &[usize]| shape.iter().map(|&extent| extent as u64).collect();
    let specs =
        real.inputs.iter().map(|input| BoundaryTensor { name: input.name.clone(), shape: extents(&input.shape) });
    let specs: Vec<BoundaryTensor> = specs.collect();
    let uses = real.uses();
    let mut ranges = vec![Range::EMPTY; real.inputs.len() + real.nodes.len()];
    let mut inner = vec![0.0_f64; real.nodes.len()];
    let mut outputs = Vec::with_capacity(samples.len());
    for (sample, tensors) in samples.iter().enumerate() {
        let fitted = input::fit(tensors.clone(), &specs).map_err(|source| QuantiseError::Sample { sample, source })?;
        let inputs = fitted.iter().map(|tensor| tensor.values.iter().map(|&x| f64::from(x)).collect()).collect();
        let tensors = evaluate::evaluate(real, inputs);
        for (tensor, values) in tensors.iter().enumerate() {
            // What nothing uses, as a mask's sum that a softmax has replaced, may have any value.
            if tensor >= real.inputs.len() && uses[tensor] == 0 {
                ranges[tensor] = ranges[tensor].with(0.0);
                continue;
            }
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                let (node, operator) = described(real, tensor);
                return Err(QuantiseError::NonFinite { node, operator, sample, value });
            }
            ranges[tensor] = values.iter().fold(ranges[tensor], |range, &value| range.with(value));
        }
        for (most, node) in inner.iter_mut().zip(&real.nodes) {
            *most = most.max(inner_magnitude(real, &node.op, &tensors));
        }
        let output = |&tensor: &real::Tensor| FloatTensor {
            shape: extents(real.shape(tensor)),
            values: tensors[tensor].iter().map(|&x| x as f32).collect(),
        };
        outputs.push(real.outputs.iter().map(output).collect());
    }
    Ok(Calibration { ranges, inner, outputs })
}

/// Name and operator of what makes a tensor.
fn described(real: &RealGraph, tensor: real::Tensor) -> (String, String) {
    match real.producer(tensor) {
        Some(node) => (real.nodes[node].name.clone(), real.nodes[node].operator.clone()),
        None => (real.inputs[tensor].name.clone(), "input".to_owned()),
    }
}
