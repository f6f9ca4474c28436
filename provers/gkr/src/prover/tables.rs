//! Tables of multilinear polynomials for the sumchecks.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;
use shardproof_integer::{CheckedGraph, Conv, Op, Trace, WeightId, Weights};

use super::fold::fold_rows;
use crate::claims::{extents, window_taps};
use crate::field::{Base, Ext};
use crate::functional::Factor;
use crate::mle::{bits_for, dot};
use crate::operands::summed_extents;

/// The table over the cube in which each axis is padded to a power of two with zeros.
pub(super) fn pad<T: Copy>(values: &[T], extents: &[usize], lift: impl Fn(T) -> Ext) -> Vec<Ext> {
    let Some((&row, outer)) = extents.split_last() else { return values.iter().map(|&value| lift(value)).collect() };
    let bits: usize = extents.iter().map(|&extent| bits_for(extent)).sum();
    let mut table = vec![Ext::ZERO; 1 << bits];
    let mut index = vec![0; outer.len()];
    for chunk in values.chunks_exact(row) {
        let place =
            index.iter().zip(outer).fold(0, |place, (&i, &extent)| place << bits_for(extent) | i) << bits_for(row);
        table[place..place + row].iter_mut().zip(chunk).for_each(|(cell, &value)| *cell = lift(value));
        for (i, &extent) in index.iter_mut().zip(outer).rev() {
            *i += 1;
            if *i < extent {
                break;
            }
            *i = 0;
        }
    }
    table
}

/// `f` and `g` of [`crate::operands`] over their cube, for a claim with the vectors `factors`.
pub(super) fn operand_tables(
    graph: &CheckedGraph,
    trace: &Trace,
    weights: &Weights,
    op: &Op,
    factors: &[Factor],
) -> (Vec<Ext>, Vec<Ext>) {
    let summed = summed_extents(graph, op);
    let (f, g) = match op {
        Op::MatMul { input, weight } => {
            let f =
                fold_rows(&weights.0[weight.0 as usize], graph.graph().weights[weight.0 as usize].bits, &factors[1]);
            (f, contract_rows(trace.tensor(*input), &factors[0]))
        }
        Op::Conv(conv) => (conv_weight(graph, weights, conv, factors), conv_input(graph, trace, conv, factors)),
        Op::MulWeight { input, weight } => {
            let f = weights.0[weight.0 as usize].iter().map(|&w| Ext::from(Base::from_i64(w.into()))).collect();
            let extents = extents(graph, *input, trace.runs);
            (f, contract_broadcast(trace.tensor(*input), &extents, graph, *weight, factors))
        }
        _ => unreachable!("{} has no sum over weight and input", op.name()),
    };
    (pad(&f, &summed, |value| value), pad(&g, &summed, |value| value))
}

/// `sum_b u_b x[b, k]` for every k.
fn contract_rows(values: &[i64], rows: &[Ext]) -> Vec<Ext> {
    let columns = values.len() / rows.len();
    if let [row] = rows {
        return values.iter().map(|&value| *row * Base::from_i64(value)).collect();
    }
    let per_task = (1usize << 12).div_ceil(rows.len());
    let mut sums = vec![Ext::ZERO; columns];
    sums.par_chunks_mut(per_task).enumerate().for_each(|(task, sums)| {
        for (&weight, row) in rows.iter().zip(values.chunks_exact(columns)) {
            let row = &row[task * per_task..];
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += weight * Base::from_i64(value));
        }
    });
    sums
}

/// `sum over x's elements i that the weight's k multiplies of u_i x_i` for every k.
fn contract_broadcast(
    values: &[i64],
    extents: &[usize],
    graph: &CheckedGraph,
    weight: WeightId,
    factors: &[Factor],
) -> Vec<Ext> {
    let shape = &graph.graph().weights[weight.0 as usize].shape;
    let mut table: Vec<Ext> = values.iter().map(|&value| Base::from_i64(value).into()).collect();
    // Axis by axis from the last: sum it out, or weigh it where the weight has the axis. `inner` is what is kept behind it.
    let mut inner = 1;
    for axis in (0..extents.len()).rev() {
        let kept = axis > 0 && shape[axis - 1] == extents[axis] && extents[axis] > 1;
        let (extent, factor) = (extents[axis], &factors[axis]);
        let blocks = table.chunks_exact(extent * inner);
        table = if kept {
            blocks.flat_map(|block| weigh(block, factor, inner)).collect()
        } else {
            blocks
                .flat_map(|block| (0..inner).map(move |i| (0..extent).map(|o| factor[o] * block[o * inner + i]).sum()))
                .collect()
        };
        if kept {
            inner *= extent;
        }
    }
    table
}

fn weigh<'a>(block: &'a [Ext], factor: &'a Factor, inner: usize) -> impl Iterator<Item = Ext> + 'a {
    block.iter().enumerate().map(move |(i, &value)| value * factor[i / inner])
}

/// `sum_m t_m w[m, c, i, j]` for every `[C, i, j]`.
fn conv_weight(graph: &CheckedGraph, weights: &Weights, conv: &Conv, factors: &[Factor]) -> Vec<Ext> {
    let values = &weights.0[conv.weight.0 as usize];
    let bits = graph.graph().weights[conv.weight.0 as usize].bits;
    let groups = values.chunks_exact(values.len() / conv.groups);
    let filters = factors[1].chunks_exact(factors[1].len() / conv.groups);
    groups.zip(filters).flat_map(|(group, filters)| fold_rows(group, bits, filters)).collect()
}

/// `sum_{b, h, w} u_b a_h b_w x[b, c, h s + i d - p, w s + j d - p]` for every `[c, i, j]`, one axis after another.
fn conv_input(graph: &CheckedGraph, trace: &Trace, conv: &Conv, factors: &[Factor]) -> Vec<Ext> {
    let shape = graph.shape(conv.input);
    let (channels, height, width) = (shape[1], shape[2], shape[3]);
    let images = contract_rows(trace.tensor(conv.input), &factors[0]);
    let taps = |axis: usize, extent: usize, result: &Factor| -> Vec<Vec<Ext>> {
        let weights = |k: usize| {
            let mut weights = vec![Ext::ZERO; extent];
            window_taps(extent, result.len(), &conv.window, axis, k).for_each(|(o, i)| weights[i] += result[o]);
            weights
        };
        (0..conv.window.kernel[axis]).map(weights).collect()
    };
    let rows = taps(0, height, &factors[2]);
    let columns = taps(1, width, &factors[3]);
    let channel = |image: &[Ext]| -> Vec<Ext> {
        let narrowed: Vec<Vec<Ext>> =
            columns.iter().map(|column| image.chunks_exact(width).map(|row| dot(column, row)).collect()).collect();
        rows.iter().flat_map(|row| narrowed.iter().map(move |values| dot(row, values))).collect()
    };
    (0..channels).into_par_iter().flat_map_iter(|c| channel(&images[c * height * width..][..height * width])).collect()
}
