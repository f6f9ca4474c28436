//! `c / sqrt(mean(c^2) + epsilon)`, and `c = x - mean(x)` before it: layer norm without scale and bias, and RMS norm.

use super::affine;
use crate::quantise::real::{RealGraph, RealOp, Tensor};

/// Factors may differ from what they should be by this share: exporters write them as 32-bit floats.
const TOLERANCE: f64 = 1e-6;

/// The normalisation that the product at `index` is the last step of.
pub(super) fn found(graph: &RealGraph, index: usize) -> Option<RealOp> {
    let RealOp::MulTensors { inputs: [x, y] } = graph.nodes[index].op else { return None };
    let normalised = |input: Tensor, reciprocal: Tensor| {
        let epsilon = epsilon_of(graph, input, reciprocal)?;
        Some(match centred(graph, input) {
            Some(input) => RealOp::Normalise { input, epsilon, centred: true },
            None => RealOp::Normalise { input, epsilon, centred: false },
        })
    };
    normalised(x, y).or_else(|| normalised(y, x))
}

/// The epsilon of `1 / sqrt(mean(c^2) + epsilon)`, repeated along the rows of `c`.
fn epsilon_of(graph: &RealGraph, c: Tensor, reciprocal: Tensor) -> Option<f64> {
    let row = of_row(graph, reciprocal, graph.shape(c))?;
    let &RealOp::Reciprocal { input: root } = graph.op(row)? else { return None };
    let &RealOp::Sqrt { input: shifted } = graph.op(unmoved(graph, root))? else { return None };
    let (sum, factor, epsilon) = affine(graph, shifted);
    let square = sum_of_rows(graph, sum, factor)?;
    let &RealOp::MulTensors { inputs } = graph.op(square)? else { return None };
    (inputs == [c, c] && epsilon > 0.0).then_some(epsilon)
}

/// `x` where the tensor is `x - mean(x)` along its rows.
fn centred(graph: &RealGraph, tensor: Tensor) -> Option<Tensor> {
    let RealOp::Combine { terms, constant: 0.0 } = graph.op(tensor)? else { return None };
    let (x, repeated) = match terms[..] {
        [(x, 1.0), (mean, -1.0)] | [(mean, -1.0), (x, 1.0)] => (x, mean),
        _ => return None,
    };
    let row = of_row(graph, repeated, graph.shape(tensor))?;
    let (sum, factor, shift) = affine(graph, row);
    (shift == 0.0 && sum_of_rows(graph, sum, factor)? == x).then_some(x)
}

/// The tensor whose rows are summed, if `factor` makes the sums means.
fn sum_of_rows(graph: &RealGraph, sum: Tensor, factor: f64) -> Option<Tensor> {
    let RealOp::ReduceSum { input, axes } = graph.op(unmoved(graph, sum))? else { return None };
    let shape = graph.shape(*input);
    let count = *shape.last()? as f64;
    let mean = (factor * count - 1.0).abs() < TOLERANCE;
    (mean && axes[..] == [shape.len() - 1]).then_some(*input)
}

/// The tensor of one element for each row of `shape` that is repeated along them.
fn of_row(graph: &RealGraph, repeated: Tensor, shape: &[usize]) -> Option<Tensor> {
    let &RealOp::Expand { input } = graph.op(repeated)? else { return None };
    let (&last, outer) = shape.split_last()?;
    let rows = graph.shape(input).split_last() == Some((&1, outer));
    (rows && last > 1).then(|| unmoved(graph, input))
}

/// The tensor before axes of extent 1 were added or removed.
fn unmoved(graph: &RealGraph, tensor: Tensor) -> Tensor {
    let extents = |tensor: Tensor| graph.shape(tensor).iter().filter(|&&extent| extent != 1);
    match graph.op(tensor) {
        Some(&RealOp::Reshape { input }) if extents(input).eq(extents(tensor)) => unmoved(graph, input),
        _ => tensor,
    }
}
