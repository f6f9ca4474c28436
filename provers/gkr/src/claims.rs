//! Claims, and how those on an operator's result become claims on its input where no interaction is needed.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{CheckedGraph, Op, TensorId, WeightId, Window};
use thiserror::Error;

use crate::field::{Base, Ext};
use crate::functional::{AxisMap, Factor, Functional, Term};
use crate::layout::Digit;
use crate::mle::{bits_for, eq_prefix};

/// `<functional, tensor> = value`.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// On the values of all runs, `[runs, ..shape]`.
    pub functional: Functional,
    /// What it gives.
    pub value: Ext,
}

/// A claim on columns of the committed witness: `sum_c weight_c <functional, column_c> = value`.
#[derive(Clone, Debug)]
pub(crate) struct WitnessClaim {
    /// On one column.
    pub functional: Functional,
    /// First cell and weight of each column.
    pub columns: Vec<(usize, Ext)>,
    /// What it gives.
    pub value: Ext,
}

impl WitnessClaim {
    /// The claim that digits, weighted by their positions, give `value`.
    pub(crate) fn of_digits(digits: &[Digit], functional: Functional, value: Ext) -> Self {
        Self::of_groups(&[(digits, Ext::ONE)], functional, value)
    }

    /// The claim that the numbers that groups of digits write, times a weight for each group, give `value`.
    pub(crate) fn of_groups(groups: &[(&[Digit], Ext)], functional: Functional, value: Ext) -> Self {
        let place = |digit: &Digit, weight: Ext| (digit.offset, weight * Base::from_u64(1 << digit.position));
        let columns = groups.iter().flat_map(|&(digits, weight)| digits.iter().map(move |digit| place(digit, weight)));
        Self { functional, columns: columns.collect(), value }
    }
}

/// A claim on a weight.
#[derive(Clone, Debug)]
pub(crate) struct WeightClaim {
    /// Which one.
    pub weight: WeightId,
    /// On its values.
    pub functional: Functional,
    /// What it gives.
    pub value: Ext,
}

/// Most coefficients that the functionals of all claims on tensors have, as they are kept: 16 bytes each. They are few where
/// operators respect the axes and extents have small odd parts; a graph may be an attacker's, and see to neither.
pub(crate) const MAX_COEFFICIENTS: usize = 1 << 26;

/// The open claims on each tensor of a graph.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    of: Vec<Vec<Claim>>,
    /// Of all claims that there ever were.
    coefficients: usize,
}

/// A proof makes claims that its verifier could not hold.
#[derive(Debug, Error)]
#[error(
    "claims on the tensors of this graph have more than {MAX_COEFFICIENTS} coefficients: cut the model into more shards"
)]
pub struct TooManyCoefficients;

/// A claim on an operator's result in terms of its inputs: `<f, y> = constant + sum <f_i, x_i>`.
#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    /// The `x_i` with their `f_i`.
    pub inputs: Vec<(TensorId, Functional)>,
    /// What does not depend on them.
    pub(crate) constant: Ext,
}

impl Claims {
    /// No claims on any tensor of `graph`.
    pub(crate) fn none(graph: &CheckedGraph) -> Self {
        Self { of: vec![Vec::new(); graph.graph().inputs.len() + graph.graph().nodes.len()], coefficients: 0 }
    }

    /// Adds a claim on `tensor`, unless there are too many by now.
    pub(crate) fn add(&mut self, tensor: TensorId, functional: Functional, value: Ext) {
        self.coefficients = self.coefficients.saturating_add(functional.kept().max(1));
        if self.check().is_ok() {
            self.of[tensor.0 as usize].push(Claim { functional, value });
        }
    }

    /// Whether all claims were taken.
    pub(crate) fn check(&self) -> Result<(), TooManyCoefficients> {
        if self.coefficients <= MAX_COEFFICIENTS { Ok(()) } else { Err(TooManyCoefficients) }
    }

    /// Takes the claims on `tensor`.
    pub(crate) fn take(&mut self, tensor: TensorId) -> Vec<Claim> {
        std::mem::take(&mut self.of[tensor.0 as usize])
    }
}

/// The random combination of claims on one tensor with powers of `challenge`.
pub(crate) fn combine(claims: Vec<Claim>, challenge: Ext) -> Claim {
    let mut power = Ext::ONE;
    let mut terms = Vec::new();
    let mut value = Ext::ZERO;
    for claim in claims {
        value += power * claim.value;
        terms.extend(claim.functional.scaled(power).terms);
        power *= challenge;
    }
    Claim { functional: Functional { terms }, value }
}

/// Extents of all runs of `tensor`: `[runs, ..shape]`.
pub(crate) fn extents(graph: &CheckedGraph, tensor: TensorId, runs: usize) -> Vec<usize> {
    std::iter::once(runs).chain(graph.shape(tensor).iter().copied()).collect()
}

/// Number of variables of a tensor's multilinear extension: each axis padded to a power of two by itself.
pub(crate) fn variables(extents: &[usize]) -> usize {
    extents.iter().map(|&extent| bits_for(extent)).sum()
}

/// Evaluation of a tensor's multilinear extension at `point`, whose coordinates go axis by axis.
pub(crate) fn evaluation(extents: &[usize], point: &[Ext]) -> Functional {
    let mut rest = point;
    let factors = extents.iter().flat_map(|&extent| {
        let (axis, others) = rest.split_at(bits_for(extent));
        rest = others;
        eq_factors(axis, extent)
    });
    Functional::product(factors.collect())
}

/// `eq(point, i)` for the first `extent` indices as a product: a factor of two values for each power of two that divides the
/// extent, so that an operator that splits the axis there finds a factor for each part.
pub(crate) fn eq_factors(point: &[Ext], extent: usize) -> Vec<Factor> {
    let (high, low) = point.split_at(point.len() - (extent.trailing_zeros() as usize).min(point.len()));
    let odd = eq_prefix(high, extent >> low.len());
    let first = (odd.len() > 1 || low.is_empty()).then(|| Factor::from(odd));
    first.into_iter().chain(low.iter().map(|&x| Factor::from([Ext::ONE - x, x]))).collect()
}

/// What the reductions of products with weights and of matrices need: one claim of one term with one factor for each of `extents`.
pub(crate) fn separable(claims: &[Claim], extents: &[usize]) -> Option<(Term, Ext)> {
    let [claim] = claims else { return None };
    let [term] = claim.functional.terms.as_slice() else { return None };
    Some((Term::product(term.per_axis(extents)?), claim.value))
}

/// The extents by which a claim on the result of a product with a weight or of matrices must be separable before it is
/// reduced; nothing for operators that need no such thing.
pub(crate) fn required_extents(graph: &CheckedGraph, op: &Op, result: TensorId, runs: usize) -> Option<Vec<usize>> {
    let shape = graph.shape(result);
    match op {
        Op::MatMul { .. } => {
            let columns = shape[shape.len() - 1];
            Some(vec![runs * graph.elements(result) / columns, columns])
        }
        Op::Conv(_) => Some(vec![runs * shape[0], shape[1], shape[2], shape[3]]),
        Op::MulWeight { .. } | Op::AddWeight { .. } | Op::MatMulTensors { .. } => Some(extents(graph, result, runs)),
        _ => None,
    }
}

/// A claim on the result of a node without weights and without witness, in terms of the node's inputs.
///
/// # Panics
/// For operators that have weights or a witness.
pub(crate) fn pull_back(graph: &CheckedGraph, node: usize, runs: usize, functional: &Functional) -> Pulled {
    let result = extents(graph, graph.graph().result(node), runs);
    let mut constant = Ext::ZERO;
    let inputs = match &graph.graph().nodes[node].op {
        Op::Combine { terms, constant: added } => {
            if *added != 0 {
                constant = total(functional, &result) * Base::from_i64(*added);
            }
            let scaled = |&(tensor, factor): &(TensorId, i64)| {
                (tensor, functional.clone().scaled(Base::from_i64(factor).into()))
            };
            terms.iter().map(scaled).collect()
        }
        Op::Reshape { input, .. } => vec![(*input, functional.clone())],
        Op::Transpose { input, axes } => {
            let with_runs: Vec<usize> = std::iter::once(0).chain(axes.iter().map(|axis| axis + 1)).collect();
            vec![(*input, functional.permute(&result, &with_runs))]
        }
        Op::WindowSum { input, window } => {
            vec![(*input, functional.pull(&result, &window_maps(&extents(graph, *input, runs), &result, window)))]
        }
        Op::Slice { input, start, step, .. } => {
            let from = extents(graph, *input, runs);
            let map = |axis: usize| (0..result[axis]).map(|o| (o, start[axis - 1] + o * step[axis - 1])).collect();
            vec![(*input, functional.pull(&result, &axis_maps(&from, &result, map)))]
        }
        Op::Pad { input, before, value, .. } => {
            let from = extents(graph, *input, runs);
            let map = |axis: usize| (0..from[axis]).map(|i| (before[axis - 1] + i, i)).collect();
            let inner = functional.pull(&result, &axis_maps(&from, &result, map));
            if *value != 0 {
                constant = (total(functional, &result) - total(&inner, &from)) * Base::from_i64(*value);
            }
            vec![(*input, inner)]
        }
        Op::Concat { inputs, axis } => {
            let mut first = 0;
            let pull = |&input: &TensorId| {
                let from = extents(graph, input, runs);
                let start = first;
                first += from[axis + 1];
                let map = |axis: usize| (0..from[axis]).map(|i| (start + i, i)).collect();
                (input, functional.pull(&result, &axis_maps_on(&from, *axis + 1, map)))
            };
            inputs.iter().map(pull).collect()
        }
        Op::ReduceSum { input, axes } => {
            let from = extents(graph, *input, runs);
            vec![(*input, sum_axes(functional, &from, axes.iter().map(|axis| axis + 1)))]
        }
        Op::Expand { input, .. } => {
            let from = extents(graph, *input, runs);
            let map = |axis: usize| (0..result[axis]).map(|o| (o, if from[axis] == 1 { 0 } else { o })).collect();
            vec![(*input, functional.pull(&result, &axis_maps(&from, &result, map)))]
        }
        Op::Gather { input, axis, indices } => {
            let from = extents(graph, *input, runs);
            let map = |_| indices.iter().enumerate().map(|(o, &i)| (o, i as usize)).collect();
            vec![(*input, functional.pull(&result, &axis_maps_on(&from, *axis + 1, map)))]
        }
        op => unreachable!("{} is reduced with interaction", op.name()),
    };
    Pulled { inputs, constant }
}

/// The functional on a tensor of extents `from` that does to it what `functional` does to its sums over `axes`.
pub(crate) fn sum_axes(functional: &Functional, from: &[usize], axes: impl Iterator<Item = usize>) -> Functional {
    let mut result = from.to_vec();
    let mut maps = vec![AxisMap::Identity; from.len()];
    for axis in axes {
        result[axis] = 1;
        maps[axis] = AxisMap::Pairs { input: from[axis], pairs: (0..from[axis]).map(|i| (0, i)).collect() };
    }
    functional.pull(&result, &maps)
}

/// The functional's value on a tensor of ones.
fn total(functional: &Functional, extents: &[usize]) -> Ext {
    functional.inner(&Functional::ones(extents))
}

/// Maps of all axes whose extent changes or whose indices move; the runs stay.
fn axis_maps(input: &[usize], result: &[usize], pairs: impl Fn(usize) -> Vec<(usize, usize)>) -> Vec<AxisMap> {
    let map = |axis: usize| {
        let pairs = if axis == 0 { Vec::new() } else { pairs(axis) };
        let identity = axis == 0 || input[axis] == result[axis] && pairs.iter().all(|(o, i)| o == i);
        if identity { AxisMap::Identity } else { AxisMap::Pairs { input: input[axis], pairs } }
    };
    (0..input.len()).map(map).collect()
}

/// Maps that change one axis.
fn axis_maps_on(input: &[usize], axis: usize, pairs: impl Fn(usize) -> Vec<(usize, usize)>) -> Vec<AxisMap> {
    let map = |a: usize| {
        if a == axis { AxisMap::Pairs { input: input[a], pairs: pairs(a) } } else { AxisMap::Identity }
    };
    (0..input.len()).map(map).collect()
}

/// The maps of sliding windows over the last two axes.
fn window_maps(input: &[usize], result: &[usize], window: &Window) -> Vec<AxisMap> {
    let rank = input.len();
    let height =
        AxisMap::Pairs { input: input[rank - 2], pairs: window_pairs(input[rank - 2], result[rank - 2], window, 0) };
    let width =
        AxisMap::Pairs { input: input[rank - 1], pairs: window_pairs(input[rank - 1], result[rank - 1], window, 1) };
    let rest = std::iter::repeat_n(AxisMap::Identity, rank - 2);
    rest.chain([height, width]).collect()
}

/// `(o, i)` for every window o and every element i of the input that it covers.
fn window_pairs(input: usize, result: usize, window: &Window, axis: usize) -> Vec<(usize, usize)> {
    let covered = (0..window.kernel[axis]).flat_map(|k| window_taps(input, result, window, axis, k));
    covered.collect()
}

/// `(o, i)` for every window o whose k-th element is the input's i-th, leaving padding out.
pub(crate) fn window_taps(
    input: usize,
    result: usize,
    window: &Window,
    axis: usize,
    k: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let before = if axis == 0 { window.pad_height[0] } else { window.pad_width[0] };
    let (stride, shift) = (window.stride[axis], k * window.dilation[axis]);
    (0..result).filter_map(move |o| {
        let i = (o * stride + shift).checked_sub(before)?;
        (i < input).then_some((o, i))
    })
}
