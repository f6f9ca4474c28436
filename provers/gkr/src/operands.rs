//! Operators with weights: `y = sum over an index of weight times input`, as functionals.
//!
//! For a claim `<u (x) t, y> = v` each such operator is a sum `v = sum_k f(k) g(k)` over a small index k, where f depends on
//! the weight and g on the input alone. The product sumcheck brings it to a point `rho`, and `f(rho)`, `g(rho)` are
//! functionals of weight and input again:
//!
//! | operator | k | f(k) | g(k) |
//! |---|---|---|---|
//! | MatMul | column | `sum_n t_n w[n, k]` | `sum_b u_b x[b, k]` |
//! | Conv | (channel c, tap i, tap j) | `sum_m t_m w[m, c, i, j]` | `sum_{h, w} a_h b_w x[c, h s + i d - p, ..]` |
//! | MulWeight | element of the weight | `w[k]` | `sum over x's elements that k multiplies of u x` |
//!
//! The sum over k is as large as one row of the weight; the input is never unrolled.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{CheckedGraph, Conv, Op, TensorId, WeightId};

use crate::claims::window_taps;
use crate::field::Ext;
use crate::functional::{Factor, Functional};
use crate::mle::{bits_for, eq_prefix};

/// The weight and the input of an operator that has both; nothing for others.
pub(crate) fn operands(op: &Op) -> Option<(WeightId, TensorId)> {
    match op {
        Op::MatMul { input, weight } | Op::MulWeight { input, weight } | Op::AddWeight { input, weight, .. } => {
            Some((*weight, *input))
        }
        Op::Conv(conv) => Some((conv.weight, conv.input)),
        _ => None,
    }
}

/// Extents of the index k that an operator sums over, each padded to a power of two by itself.
pub(crate) fn summed_extents(graph: &CheckedGraph, op: &Op) -> Vec<usize> {
    match op {
        Op::MatMul { input, .. } => graph.shape(*input).last().copied().into_iter().collect(),
        Op::Conv(conv) => {
            let [height, width] = conv.window.kernel;
            vec![graph.shape(conv.input)[1], height, width]
        }
        Op::MulWeight { weight, .. } => graph.graph().weights[weight.0 as usize].shape.clone(),
        _ => Vec::new(),
    }
}

/// `f(rho)` as a functional of the weight and `g(rho)` as one of the input, for a claim with the vectors `factors`, one
/// for each of [`crate::claims::required_extents`].
pub(crate) fn operand_functionals(
    graph: &CheckedGraph,
    op: &Op,
    factors: &[Factor],
    rho: &[Ext],
) -> (Functional, Functional) {
    let mut rest = rho;
    let mut axes = summed_extents(graph, op).into_iter().map(|extent| {
        let (axis, others) = rest.split_at(bits_for(extent));
        rest = others;
        Factor::from(eq_prefix(axis, extent))
    });
    match op {
        Op::MatMul { .. } => {
            let column = axes.next().expect("a product sums over one axis");
            let weight = Functional::product(vec![factors[1].clone(), column.clone()]);
            (weight, Functional::product(vec![factors[0].clone(), column]))
        }
        Op::Conv(conv) => conv_functionals(graph, conv, factors, &axes.collect::<Vec<_>>()),
        _ => {
            let axes: Vec<Factor> = axes.collect();
            let input = std::iter::once(factors[0].clone());
            let input =
                input.chain(factors[1..].iter().zip(&axes).map(|(factor, axis)| broadcast_product(factor, axis)));
            (Functional::product(axes.clone()), Functional::product(input.collect()))
        }
    }
}

/// For `y = x + c w`: the functional of the weight in `<u, y> = <u, x> + c <u', w>`.
pub(crate) fn addend_functional(graph: &CheckedGraph, weight: WeightId, factors: &[Factor]) -> Functional {
    let shape = &graph.graph().weights[weight.0 as usize].shape;
    let runs: Ext = factors[0].iter().copied().sum();
    let axes = factors[1..].iter().zip(shape).map(|(factor, &extent)| {
        if extent == factor.len() { factor.clone() } else { Factor::from([factor.iter().copied().sum()]) }
    });
    Functional::product(axes.collect()).scaled(runs)
}

/// Multiplies vectors of one length, or a vector by the only value of the other.
fn broadcast_product(factor: &Factor, axis: &Factor) -> Factor {
    if axis.len() == factor.len() {
        factor.iter().zip(axis.iter()).map(|(&a, &b)| a * b).collect()
    } else {
        factor.iter().map(|&a| a * axis[0]).collect()
    }
}

/// `factors` are over `[runs N, M, H', W']`, `axes` are `eq(rho)` over `[C, kernel height, kernel width]`.
fn conv_functionals(
    graph: &CheckedGraph,
    conv: &Conv,
    factors: &[Factor],
    axes: &[Factor],
) -> (Functional, Functional) {
    let shape = graph.shape(conv.input);
    let (filters, channels) = (&factors[1], &axes[0]);
    let per_group = (filters.len() / conv.groups, channels.len() / conv.groups);
    let leading: Vec<Factor> = if conv.groups == 1 {
        vec![filters.clone(), channels.clone()]
    } else {
        // Filter m sees the channels of its own group only.
        let pairs = filters.iter().enumerate().flat_map(|(m, &filter)| {
            let first = m / per_group.0 * per_group.1;
            channels[first..first + per_group.1].iter().map(move |&channel| filter * channel)
        });
        vec![pairs.collect()]
    };
    let weight = leading.into_iter().chain([axes[1].clone(), axes[2].clone()]).collect();
    let height = tap_weights(shape[2], conv, 0, &factors[2], &axes[1]);
    let width = tap_weights(shape[3], conv, 1, &factors[3], &axes[2]);
    (Functional::product(weight), Functional::product(vec![factors[0].clone(), channels.clone(), height, width]))
}

/// `sum_{o, k: window o has its k-th element at i} result[o] taps[k]` for every i below `extent`.
fn tap_weights(extent: usize, conv: &Conv, axis: usize, result: &Factor, taps: &Factor) -> Factor {
    let mut weights = vec![Ext::ZERO; extent];
    for (k, &tap) in taps.iter().enumerate() {
        for (o, i) in window_taps(extent, result.len(), &conv.window, axis, k) {
            weights[i] += result[o] * tap;
        }
    }
    weights.into()
}
