//! Folding: factors go into the weights of the product before them, and sums of constants become one.
//!
//! A normalisation after a convolution then costs nothing, and a bias of its own is one addition.

use super::emit::DISTANT;
use super::real::{RealGraph, RealOp, RealTensor, Tensor};

/// Folds wherever a tensor has no other use. The graph computes the same; nodes that nothing uses any more stay.
pub(super) fn fold(graph: &mut RealGraph) {
    for index in 0..graph.nodes.len() {
        let result = graph.inputs.len() + index;
        let uses = graph.uses();
        // What nothing reads must not change what others read.
        if uses[result] == 0 {
            continue;
        }
        let foldable = factor_of(graph, index).filter(|(input, factor)| absorbs(graph, &uses, *input, factor));
        if let Some((input, factor)) = foldable {
            absorb(graph, input, &factor);
            graph.nodes[index].op = RealOp::Reshape { input };
        }
        match graph.nodes[index].op {
            RealOp::Reshape { input } if graph.shape(input) == graph.shape(result) => replace(graph, result, input),
            _ => {}
        }
        if let Some((input, sum)) = merged_sum(graph, &uses, index) {
            graph.nodes[index].op = RealOp::AddWeight { input, weight: sum };
        }
    }
}

/// Lets everything that reads `tensor` read `other` instead.
fn replace(graph: &mut RealGraph, tensor: Tensor, other: Tensor) {
    let first = tensor - graph.inputs.len();
    let operands = graph.nodes[first..].iter_mut().flat_map(|node| node.op.inputs_mut());
    operands.chain(&mut graph.outputs).filter(|operand| **operand == tensor).for_each(|operand| *operand = other);
}

/// What a node multiplies its input by, at the input's rank.
fn factor_of(graph: &RealGraph, index: usize) -> Option<(Tensor, RealTensor)> {
    match &graph.nodes[index].op {
        RealOp::MulWeight { input, weight } => Some((*input, weight.clone())),
        RealOp::Combine { terms, constant } if *constant == 0.0 && terms.len() == 1 => {
            let (input, factor) = terms[0];
            Some((input, RealTensor::scalar(factor).with_rank(graph.shape(input).len())))
        }
        _ => None,
    }
}

/// Whether `factor` is one for each index of `axis`, or one for all.
fn along(factor: &RealTensor, axis: usize) -> bool {
    factor.shape.iter().enumerate().all(|(other, &extent)| other == axis || extent == 1)
}

/// Whether `tensor` is used once and made of weights that can take `factor` in.
fn absorbs(graph: &RealGraph, uses: &[usize], tensor: Tensor, factor: &RealTensor) -> bool {
    let Some(node) = graph.producer(tensor).filter(|_| uses[tensor] == 1) else { return false };
    match &graph.nodes[node].op {
        RealOp::Conv { .. } => along(factor, 1),
        RealOp::MatMul { .. } => along(factor, factor.shape.len() - 1),
        RealOp::AddWeight { input, .. } => absorbs(graph, uses, *input, factor),
        RealOp::Combine { terms, .. } => {
            matches!(terms[..], [(input, 1.0)] if absorbs(graph, uses, input, factor))
        }
        RealOp::Reshape { input } => {
            through(factor, graph.shape(tensor), graph.shape(*input)).is_some_and(|f| absorbs(graph, uses, *input, &f))
        }
        _ => false,
    }
}

/// A factor of a reshaped tensor as a factor of the tensor before: possible for channels that stay the second axis.
fn through(factor: &RealTensor, after: &[usize], before: &[usize]) -> Option<RealTensor> {
    if let Some(single) = factor.values.first().filter(|_| factor.values.len() == 1) {
        return Some(RealTensor::scalar(*single).with_rank(before.len()));
    }
    if !along(factor, 1) || after.len() < 2 || before.len() < 2 || after[..2] != before[..2] {
        return None;
    }
    let mut shape = vec![1; before.len()];
    shape[1] = factor.values.len();
    Some(RealTensor { shape, values: factor.values.clone() })
}

/// Multiplies `factor` into the weights that make `tensor`.
fn absorb(graph: &mut RealGraph, tensor: Tensor, factor: &RealTensor) {
    let node = graph.producer(tensor).expect("only a node's result absorbs a factor");
    match &mut graph.nodes[node].op {
        RealOp::Conv { weight, .. } | RealOp::MatMul { weight, .. } => {
            let row = weight.values.len() / weight.shape[0];
            for (channel, values) in weight.values.chunks_exact_mut(row).enumerate() {
                let own = factor.values[if factor.values.len() == 1 { 0 } else { channel }];
                values.iter_mut().for_each(|value| *value *= own);
            }
        }
        RealOp::AddWeight { input, weight } => {
            *weight = weight.zip(factor, |added, factor| added * factor);
            let input = *input;
            absorb(graph, input, factor);
        }
        RealOp::Combine { terms, constant } => {
            let (input, added) = (terms[0].0, *constant);
            match factor.values[..] {
                [single] => *constant *= single,
                _ => {
                    let weight = factor.clone().map(|factor| added * factor);
                    graph.nodes[node].op = RealOp::AddWeight { input, weight };
                }
            }
            absorb(graph, input, factor);
        }
        RealOp::Reshape { input } => {
            let input = *input;
            let moved = through(factor, graph.shape(tensor), graph.shape(input));
            absorb(graph, input, &moved.expect("the same was possible when it was asked"));
        }
        other => unreachable!("{other:?} absorbs no factor"),
    }
}

/// The sum of two constants that are added one after the other, where it has no more elements than the larger one. A limit far
/// beyond a bias stays by itself: it would take the bits of the bias, and is a limit to emission only while it is one number.
fn merged_sum(graph: &RealGraph, uses: &[usize], index: usize) -> Option<(Tensor, RealTensor)> {
    let added = |node: usize| match &graph.nodes[node].op {
        RealOp::AddWeight { input, weight } => Some((*input, weight.clone())),
        RealOp::Combine { terms, constant } => match terms[..] {
            [(input, 1.0)] => Some((input, RealTensor::scalar(*constant).with_rank(graph.shape(input).len()))),
            _ => None,
        },
        _ => None,
    };
    let (between, second) = added(index)?;
    let producer = graph.producer(between).filter(|_| uses[between] == 1)?;
    let (input, first) = added(producer)?;
    if second.values.len() == 1 && second.magnitude() > DISTANT * first.magnitude() {
        return None;
    }
    let sum = first.zip(&second, |a, b| a + b);
    (sum.values.len() <= first.values.len().max(second.values.len())).then_some((input, sum))
}
