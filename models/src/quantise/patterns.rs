//! Patterns of exporters, recognised as what they mean.
//!
//! A layer's normalisation and GELU are one operator in one file and ten in the next. Both are computed correctly; what is
//! recognised here takes fewer roundings and fewer requantisations:
//! - a centred tensor over the root of its mean square is a normalisation ([`normalise`]);
//! - a product whose factors are functions of one tensor is one function, looked up in one table ([`compose`]): GELU with the
//!   error function or with tanh, SiLU, and whatever else is built like them;
//! - single factors of a product of two tensors are one factor, and that of a softmax's argument goes into the softmax: the
//!   `1 / sqrt(width)` of an attention costs nothing then.
//!
//! What a cut divides between two shards is no pattern any more; then its operators are computed one by one.

mod compose;
mod normalise;

use super::real::{RealGraph, RealOp, Tensor};

/// Replaces what is recognised. The graph computes the same; nodes that nothing uses any more stay.
pub(super) fn recognise(graph: &mut RealGraph) {
    for index in 0..graph.nodes.len() {
        if graph.uses()[graph.inputs.len() + index] == 0 {
            continue;
        }
        let found = match &graph.nodes[index].op {
            RealOp::MulTensors { .. } => normalise::found(graph, index).or_else(|| compose::found(graph, index)),
            RealOp::MatMulTensors { .. } => factors_joined(graph, index),
            RealOp::Softmax { .. } => factor_taken_in(graph, index),
            _ => None,
        };
        if let Some(op) = found {
            graph.nodes[index].op = op;
        }
    }
}

/// `base`, `a` and `b` such that the tensor is `a base + b`, as single-term combinations make it.
fn affine(graph: &RealGraph, tensor: Tensor) -> (Tensor, f64, f64) {
    if let Some(RealOp::Combine { terms, constant }) = graph.op(tensor)
        && let [(input, factor)] = terms[..]
    {
        let (base, a, b) = affine(graph, input);
        return (base, factor * a, factor * b + constant);
    }
    (tensor, 1.0, 0.0)
}

/// The tensor and the positive factor that it is multiplied by, wherever that is all that happens to it.
fn scaled(graph: &RealGraph, tensor: Tensor) -> (Tensor, f64) {
    match affine(graph, tensor) {
        (base, factor, 0.0) if factor > 0.0 => (base, factor),
        _ => (tensor, 1.0),
    }
}

/// A product of tensors with the factors of its operands.
fn factors_joined(graph: &mut RealGraph, index: usize) -> Option<RealOp> {
    let RealOp::MatMulTensors { left, right, factor } = graph.nodes[index].op else { return None };
    let (left, of_left) = taken(graph, left);
    let (right, of_right) = taken(graph, right);
    Some(RealOp::MatMulTensors { left, right, factor: factor * of_left * of_right })
}

/// A factor of a tensor, or of one that only this use transposes, taken off it.
fn taken(graph: &mut RealGraph, tensor: Tensor) -> (Tensor, f64) {
    if let Some(&RealOp::Transpose { input, .. }) = graph.op(tensor) {
        let (base, factor) = scaled(graph, input);
        let only_use = graph.uses()[tensor] == 1;
        if let Some(node) = graph.producer(tensor).filter(|_| only_use && factor != 1.0)
            && let RealOp::Transpose { input, .. } = &mut graph.nodes[node].op
        {
            *input = base;
            return (tensor, factor);
        }
        return (tensor, 1.0);
    }
    scaled(graph, tensor)
}

/// Whether `tensor`, and all between it and the `base` that it is an affine function of, is read in one place only.
fn read_once(graph: &RealGraph, tensor: Tensor, base: Tensor) -> bool {
    let uses = graph.uses();
    let mut next = tensor;
    while uses[next] == 1 && next != base {
        match graph.op(next) {
            Some(RealOp::Combine { terms, .. }) => next = terms[0].0,
            _ => return false,
        }
    }
    uses[next] == 1
}

/// A softmax with the factor of its argument. What is added to all scores alike has no effect on it.
fn factor_taken_in(graph: &mut RealGraph, index: usize) -> Option<RealOp> {
    let RealOp::Softmax { input, factor, keep } = graph.nodes[index].op.clone() else { return None };
    let (base, mut joined, _) = affine(graph, input);
    if joined <= 0.0 {
        return None;
    }
    let unread = read_once(graph, input, base);
    if let Some(node) = graph.producer(base).filter(|_| unread)
        && let RealOp::MatMulTensors { factor, .. } = &mut graph.nodes[node].op
        && *factor > 0.0
    {
        joined *= std::mem::replace(factor, 1.0);
    }
    Some(RealOp::Softmax { input: base, factor: factor * joined, keep })
}
