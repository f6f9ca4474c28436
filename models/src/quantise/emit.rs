//! From reals to integers: every tensor gets a scale, and requantisations are put where values would grow too wide.
//!
//! Linear operators accumulate exactly at the scale that their operands give them. A tensor is brought back to few bits
//! where a product, a table, a ReLU or the boundary needs it, and only if interval analysis does not show that it has few
//! already. The bits of a requantisation are those of the calibrated range and [`HEADROOM_BITS`] more, or those of the
//! interval where that is tighter: then no input can leave it.

mod interval;
mod linear;
mod moves;
mod normalise;
mod products;
mod quotients;
mod softmax;
mod table;

use std::collections::HashMap;

use shardproof_integer::{
    BOUNDARY_BITS, Graph, Input, MAX_REQUANT_BITS, MAX_SHIFT, Node, Op, TensorId, Weight, WeightId, Weights,
};

use super::calibration::Calibration;
use super::error::QuantiseError;
use super::exact::{bits_of, power_of_two};
use super::real::{RealGraph, RealNode, RealOp, RealTensor, Tensor};
use interval::Interval;

/// Values may be four times those of calibration before a run ends with an error.
pub const HEADROOM_BITS: u32 = 2;
/// Linear results stay below 2^58, which leaves room for a requantisation within 62 bits.
const LINEAR_BITS: u32 = 58;
/// Operands of comparisons: their differences are then within a requantisation's bits.
const COMPARED_BITS: u32 = MAX_REQUANT_BITS - 2;
/// Scales at a boundary are from this one's negative to it; a finer one gains nothing.
pub(super) const FINEST_SCALE: i32 = 60;
/// Within a shard, where large weights may follow, scales are as fine as the least float needs.
const FINEST_INNER: i32 = 160;

/// How many times as far as all values of calibration a limit is that is taken to cut nothing off.
pub(super) const DISTANT: f64 = 64.0;

/// How many bits values get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precision {
    /// Magnitudes of weights are at most 2^this.
    pub(super) weight_bits: u32,
    /// Magnitudes of requantised values are below 2^this, [`HEADROOM_BITS`] included.
    pub(super) activation_bits: u32,
    /// log2 of the entries of a table.
    pub(super) table_bits: u32,
}

/// An integer tensor with its scale and what values it can have.
#[derive(Clone, Copy, Debug)]
struct Value {
    id: TensorId,
    scale: i32,
    /// By the checker's interval analysis.
    bounds: Interval,
    /// In truth: the checker can't know that a maximum, made of a difference and a sum, is within its operands' range.
    tight: Interval,
}

impl Value {
    fn magnitude(self) -> i128 {
        self.bounds.magnitude()
    }

    fn within_bits(self, bits: u32) -> bool {
        self.magnitude() <= 1 << bits
    }
}

/// Builds the integer graph; `input_scales` are those of the inputs.
pub(super) fn emit(
    real: &RealGraph,
    calibration: &Calibration,
    input_scales: &[i32],
    precision: Precision,
) -> Result<(Graph, Weights), QuantiseError> {
    let graph = Graph { inputs: vec![], weights: vec![], tables: vec![], nodes: vec![], outputs: vec![] };
    let mut emitter = Emitter {
        real,
        calibration,
        precision,
        graph,
        weights: Vec::new(),
        values: Vec::new(),
        narrowed: HashMap::new(),
        node: None,
    };
    for (input, &scale) in real.inputs.iter().zip(input_scales) {
        let id = TensorId(emitter.values.len() as u32);
        let bounds = Interval::symmetric(1 << BOUNDARY_BITS);
        emitter.values.push(Some(Value { id, scale, bounds, tight: bounds }));
        emitter.graph.inputs.push(Input { name: input.name.clone(), shape: input.shape.clone(), scale });
    }
    let uses = real.uses();
    for (index, node) in real.nodes.iter().enumerate() {
        emitter.node = Some(node);
        let value = if uses[real.inputs.len() + index] > 0 { Some(emitter.node(node, index)?) } else { None };
        emitter.values.push(value);
    }
    for &output in &real.outputs {
        emitter.node = real.producer(output).map(|node| &real.nodes[node]);
        let mut value = emitter.narrow(output, BOUNDARY_BITS)?;
        if value.scale > FINEST_SCALE {
            value = emitter.rescaled(value, calibration.magnitude(output), FINEST_SCALE, BOUNDARY_BITS, false)?;
        }
        if value.scale < -FINEST_SCALE {
            let reason =
                format!("its values leave the shard in units of 2^{}; 2^{FINEST_SCALE} is the most", -value.scale);
            return Err(emitter.range(reason));
        }
        emitter.graph.outputs.push(value.id);
    }
    Ok((emitter.graph, Weights(emitter.weights)))
}

struct Emitter<'a> {
    real: &'a RealGraph,
    calibration: &'a Calibration,
    precision: Precision,
    graph: Graph,
    weights: Vec<Vec<i32>>,
    /// Of each tensor of the real graph that is used.
    values: Vec<Option<Value>>,
    /// Tensors brought to few bits, by the bits.
    narrowed: HashMap<(Tensor, u32), Value>,
    /// The node that is emitted.
    node: Option<&'a RealNode>,
}

impl<'a> Emitter<'a> {
    fn node(&mut self, node: &'a RealNode, index: usize) -> Result<Value, QuantiseError> {
        let result = self.real.inputs.len() + index;
        match &node.op {
            RealOp::MatMul { input, weight } => self.matmul(*input, weight),
            RealOp::Conv { input, weight, groups, window } => self.conv(*input, weight, *groups, window),
            RealOp::MulWeight { input, weight } => self.mul_weight(*input, weight),
            RealOp::AddWeight { input, weight } => self.add_weight(*input, weight, result),
            RealOp::Combine { terms, constant } => self.combine(terms, *constant, result),
            RealOp::WindowSum { input, window } => self.window_sum(*input, window),
            RealOp::Reshape { input } => {
                if self.real.shape(*input) == node.shape {
                    return Ok(self.value(*input));
                }
                let shape = node.shape.clone();
                Ok(self.moved(*input, |input| Op::Reshape { input, shape }))
            }
            RealOp::Transpose { input, axes } => {
                Ok(self.moved(*input, |input| Op::Transpose { input, axes: axes.clone() }))
            }
            RealOp::Slice { input, start, step } => {
                let (start, step, count) = (start.clone(), step.clone(), node.shape.clone());
                Ok(self.moved(*input, |input| Op::Slice { input, start, step, count }))
            }
            RealOp::Pad { input, before, after, fill } => self.pad(*input, before, after, *fill),
            RealOp::Concat { inputs, axis } => self.concat(inputs, *axis, result),
            RealOp::Relu { input } => self.relu(*input),
            RealOp::Larger { inputs } => self.larger(*inputs),
            RealOp::Narrow { input } => self.narrow(*input, COMPARED_BITS),
            RealOp::Function { input, function } => self.function(*input, function, result),
            RealOp::MatMulTensors { left, right, factor } => self.matmul_tensors(*left, *right, *factor, result),
            RealOp::MulTensors { inputs } => self.mul_tensors(*inputs),
            RealOp::ReduceSum { input, axes } => self.reduce_sum(*input, axes),
            RealOp::Expand { input } => {
                let shape = node.shape.clone();
                Ok(self.moved(*input, |input| Op::Expand { input, shape }))
            }
            RealOp::Gather { input, axis, indices } => {
                let (axis, indices) = (*axis, indices.iter().map(|&index| index as u32).collect());
                Ok(self.moved(*input, |input| Op::Gather { input, axis, indices }))
            }
            RealOp::Softmax { input, factor, keep } => self.softmax(*input, *factor, keep.as_ref()),
            RealOp::Normalise { input, epsilon, centred } => {
                self.normalise(*input, *epsilon, *centred, self.calibration.inner[index])
            }
            RealOp::Sqrt { input } => self.sqrt(*input, result),
            RealOp::Reciprocal { input } => self.reciprocal(*input, result),
            RealOp::Divide { numerator, denominator } => self.divide(*numerator, *denominator, result),
        }
    }

    /// The sum of tensors times factors, and a constant, at a scale that the caller knows to be that of the result.
    fn combined_at(&mut self, terms: &[(Value, i64)], constant: i128, scale: i32) -> Value {
        let op = Op::Combine {
            terms: terms.iter().map(|&(value, factor)| (value.id, factor)).collect(),
            constant: constant as i64,
        };
        let start = Interval { low: constant, high: constant };
        let sum = |of: fn(Value) -> Interval| {
            terms.iter().fold(start, |sum, &(value, factor)| sum.plus(of(value).times(factor.into())))
        };
        self.push(op, scale, sum)
    }

    fn value(&self, tensor: Tensor) -> Value {
        self.values[tensor].expect("a tensor that is used is emitted before its use")
    }

    fn range(&self, reason: String) -> QuantiseError {
        let (node, operator) = self.node.map_or_else(
            || ("input".to_owned(), "Identity".to_owned()),
            |node| (node.name.clone(), node.operator.clone()),
        );
        QuantiseError::Range { node, operator, reason }
    }

    /// Adds a node; `interval` gives the bounds of its result from those of its operands, whichever kind they are.
    fn push(&mut self, op: Op, scale: i32, interval: impl Fn(fn(Value) -> Interval) -> Interval) -> Value {
        let id = TensorId((self.graph.inputs.len() + self.graph.nodes.len()) as u32);
        let name = self.node.map_or_else(String::new, |node| node.name.clone());
        self.graph.nodes.push(Node { name, op, scale });
        Value { id, scale, bounds: interval(|value| value.bounds), tight: interval(|value| value.tight) }
    }

    /// A shape operator: scale and bounds stay.
    fn moved(&mut self, input: Tensor, op: impl FnOnce(TensorId) -> Op) -> Value {
        let value = self.value(input);
        self.push(op(value.id), value.scale, |of| of(value))
    }

    /// The finest scale at which the calibrated values of `tensor` have the bits of activations, headroom left free.
    fn target_scale(&self, tensor: Tensor) -> i32 {
        scale_for(self.calibration.magnitude(tensor), self.precision.activation_bits - HEADROOM_BITS)
    }

    /// The tensor with a magnitude of at most 2^`bits` by interval analysis and at no finer scale than [`FINEST_INNER`],
    /// requantised if need be.
    fn narrow(&mut self, tensor: Tensor, bits: u32) -> Result<Value, QuantiseError> {
        let value = self.value(tensor);
        if value.within_bits(bits) && value.scale <= FINEST_INNER {
            return Ok(value);
        }
        if let Some(&narrowed) = self.narrowed.get(&(tensor, bits)) {
            return Ok(narrowed);
        }
        let narrowed =
            self.rescaled(value, self.calibration.magnitude(tensor), self.target_scale(tensor), bits, false)?;
        self.narrowed.insert((tensor, bits), narrowed);
        Ok(narrowed)
    }

    /// A requantisation to a scale of at most `wanted`, for values that calibration found to be below `magnitude`.
    fn rescaled(
        &mut self,
        value: Value,
        magnitude: f64,
        wanted: i32,
        most_bits: u32,
        relu: bool,
    ) -> Result<Value, QuantiseError> {
        let shift = value.scale.saturating_sub(wanted).max(0) as u32;
        if shift > MAX_SHIFT {
            // One requantisation can't shift that far; the first one leaves bits for the second.
            let first = self.requant(value, magnitude, MAX_SHIFT, MAX_REQUANT_BITS, false)?;
            return self.rescaled(first, magnitude, wanted, most_bits, relu);
        }
        self.requant(value, magnitude, shift, most_bits, relu)
    }

    fn requant(
        &mut self,
        value: Value,
        magnitude: f64,
        shift: u32,
        most_bits: u32,
        relu: bool,
    ) -> Result<Value, QuantiseError> {
        let scale = value.scale - shift as i32;
        let expected = (magnitude * power_of_two(scale)).max(1.0);
        let calibrated = bits_of(expected) as u32 + HEADROOM_BITS;
        if calibrated > most_bits + HEADROOM_BITS {
            return Err(self.range(format!("values of {calibrated} bits where {most_bits} are possible")));
        }
        let bits = calibrated.min(value.tight.shifted(shift).bits()).clamp(1, most_bits);
        Ok(self.requantised(value, shift, bits, relu))
    }

    fn requantised(&mut self, value: Value, shift: u32, bits: u32, relu: bool) -> Value {
        let op = Op::Requant { input: value.id, shift, bits, relu };
        self.push(op, value.scale - shift as i32, |of| {
            let rescaled = of(value).shifted(shift).within(bits);
            if relu { rescaled.positive() } else { rescaled }
        })
    }

    fn relu(&mut self, input: Tensor) -> Result<Value, QuantiseError> {
        let value = self.value(input);
        if let Some(line) = self.uncut(input)? {
            return Ok(line);
        }
        if value.tight.low >= 0 {
            return Ok(value);
        }
        self.rescaled(value, self.calibration.magnitude(input), self.target_scale(input), MAX_REQUANT_BITS, true)
    }

    /// `a x + b`, where `b` is so large that a ReLU of it cuts nothing off: a limit far from all values, whose bits would take those
    /// of `x`. A run in which `x` comes near the limit ends with an error.
    fn uncut(&mut self, input: Tensor) -> Result<Option<Value>, QuantiseError> {
        let real = self.real;
        let Some(RealOp::Combine { terms, constant: limit }) = real.op(input) else { return Ok(None) };
        let [(x, factor)] = terms[..] else { return Ok(None) };
        let (magnitude, line) = (self.calibration.magnitude(x), self.value(input));
        // The sum of both may be too coarse for `x`; if it is not, interval analysis may show as much.
        let exact = line.tight.low >= 0 && line.scale >= self.target_scale(x);
        if exact || *limit <= DISTANT * factor.abs() * magnitude {
            return Ok(None);
        }
        let within = |value: Value| value.magnitude() as f64 * power_of_two(-value.scale) * factor.abs() < *limit;
        let mut value = self.value(x);
        if !within(value) || value.scale > self.target_scale(x) {
            value = self.rescaled(value, magnitude, self.target_scale(x), MAX_REQUANT_BITS, false)?;
        }
        if !within(value) {
            return Ok(None);
        }
        Ok(self.combined(&[(value, factor)], *limit, input))
    }

    /// `y + relu(x - y)`, exactly.
    fn larger(&mut self, [x, y]: [Tensor; 2]) -> Result<Value, QuantiseError> {
        let (x, y) = (self.value(x), self.value(y));
        let scale = x.scale.max(y.scale);
        let (x, y) = (self.refined(x, scale)?, self.refined(y, scale)?);
        let op = Op::Combine { terms: vec![(x.id, 1), (y.id, -1)], constant: 0 };
        let difference = self.push(op, scale, |of| of(x).plus(of(y).times(-1)));
        let bits = difference.tight.bits().max(1);
        if bits > MAX_REQUANT_BITS {
            return Err(self.range(format!("differences of {bits} bits cannot be compared")));
        }
        let positive = self.requantised(difference, 0, bits, true);
        let op = Op::Combine { terms: vec![(y.id, 1), (positive.id, 1)], constant: 0 };
        let larger = self.push(op, scale, |of| of(y).plus(of(positive)));
        Ok(Value { tight: x.tight.larger(y.tight), ..larger })
    }

    /// The same values at a finer scale.
    fn refined(&mut self, value: Value, scale: i32) -> Result<Value, QuantiseError> {
        let Some(bits) = u32::try_from(scale - value.scale).ok().filter(|&bits| bits > 0) else { return Ok(value) };
        if bits > LINEAR_BITS || value.magnitude() << bits > 1 << LINEAR_BITS {
            return Err(self.range(format!("its inputs have scales {} and {scale}, too far apart", value.scale)));
        }
        let op = Op::Combine { terms: vec![(value.id, 1 << bits)], constant: 0 };
        Ok(self.push(op, scale, |of| of(value).times(1 << bits)))
    }

    /// Adds a trained tensor at the finest scale at which its magnitudes are at most 2^`bits`, or at `finest`.
    fn weight(&mut self, weight: &RealTensor, bits: u32, finest: i32) -> (WeightId, i32, u32) {
        let scale = scale_for(weight.magnitude(), bits).min(finest);
        let factor = power_of_two(scale);
        let values: Vec<i32> = weight.values.iter().map(|value| (value * factor).round() as i32).collect();
        let largest = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        let bits = largest.next_power_of_two().trailing_zeros();
        let id = WeightId(self.weights.len() as u32);
        let name = self.node.map_or_else(String::new, |node| node.name.clone());
        self.graph.weights.push(Weight { name, shape: weight.shape.clone(), bits });
        self.weights.push(values);
        (id, scale, bits)
    }
}

/// The finest scale up to [`FINEST_INNER`] at which `magnitude` is at most 2^`bits`.
pub(super) fn scale_for(magnitude: f64, bits: u32) -> i32 {
    if magnitude <= 0.0 {
        return bits as i32;
    }
    (bits as i32 - bits_of(magnitude)).min(FINEST_INNER)
}
