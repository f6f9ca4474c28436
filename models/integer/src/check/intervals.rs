//! Interval analysis: which values each tensor can have, for all inputs and all weights within their declared bounds.
//!
//! Every interval that is kept is below 2^62 in magnitude and every factor is an `i64` or a count of at most 2^28, so
//! that products stay below 2^125 and `i128` never overflows.

use super::{Bounds, VALUE_BITS};
use crate::error::{GraphError, Site};
use crate::graph::{
    Graph, MAX_QUOTIENT_BITS, MAX_REQUANT_BITS, MAX_ROOT_BITS, MAX_SHIFT, Op, TableId, TensorId, WeightId, Window,
};

/// Bounds of what node `index` makes; its shapes fit.
pub(super) fn infer(
    graph: &Graph,
    index: usize,
    shapes: &[Vec<usize>],
    bounds: &[Bounds],
    tables: &[Bounds],
) -> Result<Bounds, GraphError> {
    let infer = Infer { graph, index, bounds };
    let extent = |tensor: TensorId, axis: usize| shapes[tensor.0 as usize][axis] as i128;
    match &graph.nodes[index].op {
        Op::MatMul { input, weight } => infer.products(*input, *weight, infer.weight_shape(*weight)[1]),
        Op::Conv(conv) => {
            infer.products(conv.input, conv.weight, infer.weight_shape(conv.weight)[1..].iter().product())
        }
        Op::MulWeight { input, weight } => infer.products(*input, *weight, 1),
        Op::AddWeight { input, weight, multiplier } => {
            let largest = infer.weight_magnitude(*weight) * i128::from(*multiplier).abs();
            let added = infer.bounded(Interval { low: -largest, high: largest })?;
            infer.bounded(infer.interval(*input).plus(added)).map(Interval::bounds)
        }
        Op::Combine { terms, constant } => infer.combine(terms, *constant),
        Op::WindowSum { input, window } => infer.window_sum(*input, window),
        Op::Reshape { input, .. }
        | Op::Transpose { input, .. }
        | Op::Slice { input, .. }
        | Op::Expand { input, .. }
        | Op::Gather { input, .. } => Ok(infer.bounds[input.0 as usize]),
        Op::Max { input } => {
            // A proof shows that no value is above the maximum by the range of their differences.
            let Interval { low, high } = infer.interval(*input);
            infer.bounded(Interval { low: 0, high: high - low })?;
            Ok(infer.bounds[input.0 as usize])
        }
        Op::MatMulTensors { left, right } => {
            let depth = extent(*left, shapes[left.0 as usize].len() - 1);
            infer.bounded(infer.tensor_product(*left, *right)?.times(depth)).map(Interval::bounds)
        }
        Op::MulTensors { left, right } => infer.tensor_product(*left, *right).map(Interval::bounds),
        Op::ReduceSum { input, axes } => {
            let count = axes.iter().map(|&axis| extent(*input, axis)).product();
            infer.bounded(infer.interval(*input).times(count)).map(Interval::bounds)
        }
        Op::Divide { numerator, denominator, bits } => infer.divide(*numerator, *denominator, *bits),
        Op::Sqrt { input, bits } => infer.sqrt(*input, *bits),
        Op::Pad { input, before, after, value } => {
            let interval = infer.interval(*input);
            if before.iter().chain(after).all(|&count| count == 0) {
                return Ok(interval.bounds());
            }
            let value = i128::from(*value);
            infer.bounded(interval.joined(Interval { low: value, high: value })).map(Interval::bounds)
        }
        Op::Concat { inputs, .. } => {
            let first = infer.interval(inputs[0]);
            Ok(inputs.iter().fold(first, |all, &input| all.joined(infer.interval(input))).bounds())
        }
        Op::Requant { input, shift, bits, relu } => infer.requant(*input, *shift, *bits, *relu),
        Op::Table { input, table } => infer.table(*input, *table, tables),
    }
}

#[derive(Clone, Copy)]
struct Interval {
    low: i128,
    high: i128,
}

impl Interval {
    fn magnitude(self) -> i128 {
        self.low.abs().max(self.high.abs())
    }

    fn plus(self, other: Self) -> Self {
        Self { low: self.low + other.low, high: self.high + other.high }
    }

    fn times(self, factor: i128) -> Self {
        let (low, high) = (self.low * factor, self.high * factor);
        Self { low: low.min(high), high: low.max(high) }
    }

    fn joined(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// Of products of a value of each.
    fn product(self, other: Self) -> Self {
        self.times(other.low).joined(self.times(other.high))
    }

    /// As bounds; both ends are below 2^62 in magnitude.
    fn bounds(self) -> Bounds {
        Bounds { low: self.low as i64, high: self.high as i64 }
    }
}

struct Infer<'a> {
    graph: &'a Graph,
    index: usize,
    bounds: &'a [Bounds],
}

impl Infer<'_> {
    fn site(&self) -> Box<Site> {
        Site::node(self.graph, self.index)
    }

    fn interval(&self, tensor: TensorId) -> Interval {
        let Bounds { low, high } = self.bounds[tensor.0 as usize];
        Interval { low: low.into(), high: high.into() }
    }

    fn weight_shape(&self, weight: WeightId) -> &[usize] {
        &self.graph.weights[weight.0 as usize].shape
    }

    fn weight_magnitude(&self, weight: WeightId) -> i128 {
        1 << self.graph.weights[weight.0 as usize].bits
    }

    /// The interval itself, if it is below 2^62 in magnitude.
    fn bounded(&self, interval: Interval) -> Result<Interval, GraphError> {
        let magnitude = interval.magnitude();
        if magnitude >= 1 << VALUE_BITS {
            return Err(GraphError::Magnitude { site: self.site(), magnitude });
        }
        Ok(interval)
    }

    /// Bounds of a sum of `count` products of values and weights: the weights' bound is symmetric, and so is the sum's.
    fn products(&self, input: TensorId, weight: WeightId, count: usize) -> Result<Bounds, GraphError> {
        let largest = self.interval(input).magnitude() * self.weight_magnitude(weight) * count as i128;
        self.bounded(Interval { low: -largest, high: largest }).map(Interval::bounds)
    }

    /// Products and partial sums, in the order of the terms, are bounded too.
    fn combine(&self, terms: &[(TensorId, i64)], constant: i64) -> Result<Bounds, GraphError> {
        let constant = i128::from(constant);
        let mut sum = self.bounded(Interval { low: constant, high: constant })?;
        for &(tensor, factor) in terms {
            let product = self.bounded(self.interval(tensor).times(factor.into()))?;
            sum = self.bounded(sum.plus(product))?;
        }
        Ok(sum.bounds())
    }

    fn window_sum(&self, input: TensorId, window: &Window) -> Result<Bounds, GraphError> {
        let mut value = self.interval(input);
        let padded = window.pad_height.iter().chain(&window.pad_width).any(|&count| count > 0);
        if padded {
            value = value.joined(Interval { low: 0, high: 0 });
        }
        let count = window.kernel[0] as i128 * window.kernel[1] as i128;
        self.bounded(value.times(count)).map(Interval::bounds)
    }

    fn requant(&self, input: TensorId, shift: u32, bits: u32, relu: bool) -> Result<Bounds, GraphError> {
        if shift > MAX_SHIFT {
            return Err(GraphError::RequantShift { site: self.site(), shift });
        }
        if bits == 0 || bits > MAX_REQUANT_BITS {
            return Err(GraphError::RequantBits { site: self.site(), bits });
        }
        let interval = self.interval(input);
        let room = (1_i128 << shift) + (1_i128 << (shift + bits + 1));
        if interval.magnitude() + room >= 1 << VALUE_BITS {
            return Err(GraphError::RequantRoom { site: self.site(), input: interval.bounds(), shift, bits });
        }
        let half = if shift == 0 { 0 } else { 1_i128 << (shift - 1) };
        let rescaled = |value: i128| (value + half) >> shift;
        let mut low = rescaled(interval.low).max(-(1 << bits));
        let mut high = rescaled(interval.high).min((1 << bits) - 1);
        if low > high {
            return Err(GraphError::NeverInRange { site: self.site(), input: interval.bounds() });
        }
        if relu {
            (low, high) = (low.max(0), high.max(0));
        }
        Ok(Interval { low, high }.bounds())
    }

    /// Bounds of all of a table's values: to look for those in reach would cost the table's size for every use of it.
    fn table(&self, input: TensorId, table: TableId, tables: &[Bounds]) -> Result<Bounds, GraphError> {
        let half = 1_i128 << (self.graph.tables[table.0 as usize].bits - 1);
        let interval = self.interval(input);
        if interval.high < -half || interval.low >= half {
            return Err(GraphError::NeverInRange { site: self.site(), input: interval.bounds() });
        }
        Ok(tables[table.0 as usize])
    }

    /// One product of elements of two tensors, or of an element with itself.
    fn tensor_product(&self, left: TensorId, right: TensorId) -> Result<Interval, GraphError> {
        let mut product = self.interval(left).product(self.interval(right));
        if left == right && matches!(self.graph.nodes[self.index].op, Op::MulTensors { .. }) {
            product.low = product.low.max(0);
        }
        self.bounded(product)
    }

    /// A proof compares `2 q d + r` with `2 x + d`, `r` having as many bits as `2 d`: neither may leave the 62 bits, whatever
    /// quotient of `bits` bits and whatever remainder a prover claims.
    fn divide(&self, numerator: TensorId, denominator: TensorId, bits: u32) -> Result<Bounds, GraphError> {
        if bits == 0 || bits > MAX_QUOTIENT_BITS {
            return Err(GraphError::QuotientBits { site: self.site(), bits });
        }
        let (x, d) = (self.interval(numerator), self.interval(denominator));
        let products = ((1_i128 << bits) + 2) * 2 * d.magnitude();
        let sums = 2 * x.magnitude() + d.magnitude();
        if products.max(sums) >= 1 << VALUE_BITS {
            let (numerator, denominator) = (x.bounds(), d.bounds());
            return Err(GraphError::QuotientRoom { site: self.site(), numerator, denominator, bits });
        }
        if d.high < 1 {
            return Err(GraphError::NeverInRange { site: self.site(), input: d.bounds() });
        }
        // Towards zero by the largest denominator, away from it by the least.
        let (least, most) = (d.low.max(1), d.high);
        let rounded = |x: i128, d: i128| (2 * x + d).div_euclid(2 * d);
        let low = rounded(x.low, least).min(rounded(x.low, most)).max(-(1 << bits));
        let high = rounded(x.high, least).max(rounded(x.high, most)).min((1 << bits) - 1);
        if low > high {
            return Err(GraphError::NeverInRange { site: self.site(), input: x.bounds() });
        }
        Ok(Interval { low, high }.bounds())
    }

    fn sqrt(&self, input: TensorId, bits: u32) -> Result<Bounds, GraphError> {
        if bits == 0 || bits > MAX_ROOT_BITS {
            return Err(GraphError::RootBits { site: self.site(), bits });
        }
        let interval = self.interval(input);
        let low = interval.low.max(0).isqrt();
        if interval.high < 0 || low >= 1 << bits {
            return Err(GraphError::NeverInRange { site: self.site(), input: interval.bounds() });
        }
        Ok(Interval { low, high: interval.high.isqrt().min((1 << bits) - 1) }.bounds())
    }
}
