//! Evaluation in floats, tensor by tensor: what calibration measures.

use shardproof_integer::Window;

use super::real::{Fill, RealGraph, RealOp, RealTensor, Tensor, broadcast_strides, offsets, strides};

/// The values of every tensor of the graph, inputs first, for one sample.
pub(super) fn evaluate(graph: &RealGraph, inputs: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut tensors = inputs;
    for node in &graph.nodes {
        let values = apply(graph, &node.op, &node.shape, &tensors);
        tensors.push(values);
    }
    tensors
}

fn apply(graph: &RealGraph, op: &RealOp, shape: &[usize], tensors: &[Vec<f64>]) -> Vec<f64> {
    let of = |tensor: Tensor| (tensors[tensor].as_slice(), graph.shape(tensor));
    match op {
        RealOp::MatMul { input, weight } => matmul(&tensors[*input], weight),
        RealOp::Conv { input, weight, groups, window } => conv(of(*input), weight, *groups, window, shape),
        RealOp::MulWeight { input, weight } => broadcast(of(*input), weight, |x, w| x * w),
        RealOp::AddWeight { input, weight } => broadcast(of(*input), weight, |x, w| x + w),
        RealOp::Combine { terms, constant } => {
            let mut sum = vec![*constant; shape.iter().product()];
            for &(tensor, factor) in terms {
                sum.iter_mut().zip(&tensors[tensor]).for_each(|(sum, x)| *sum += factor * x);
            }
            sum
        }
        RealOp::WindowSum { input, window } => window_sum(of(*input), window, shape),
        RealOp::Reshape { input } | RealOp::Narrow { input } => tensors[*input].clone(),
        RealOp::Transpose { input, axes } => {
            let (values, from) = of(*input);
            let own = strides(from);
            let turned: Vec<usize> = axes.iter().map(|&axis| own[axis]).collect();
            gather(values, &offsets(shape, &turned, 0))
        }
        RealOp::Slice { input, start, step } => {
            let (values, from) = of(*input);
            let own = strides(from);
            let stepped: Vec<usize> = own.iter().zip(step).map(|(stride, step)| stride * step).collect();
            gather(values, &offsets(shape, &stepped, dot(&own, start)))
        }
        RealOp::Pad { input, before, fill, .. } => {
            let (values, from) = of(*input);
            let fill = match fill {
                Fill::Value(value) => *value,
                Fill::Lowest => values.iter().copied().fold(f64::INFINITY, f64::min),
            };
            let mut padded = vec![fill; shape.iter().product()];
            place(&mut padded, shape, values, from, before);
            padded
        }
        RealOp::Concat { inputs, axis } => {
            let mut joined = vec![0.0; shape.iter().product()];
            let mut start = vec![0; shape.len()];
            for &tensor in inputs {
                let (values, from) = of(tensor);
                place(&mut joined, shape, values, from, &start);
                start[*axis] += from[*axis];
            }
            joined
        }
        RealOp::Larger { inputs: [x, y] } => tensors[*x].iter().zip(&tensors[*y]).map(|(x, y)| x.max(*y)).collect(),
        RealOp::Relu { input } => tensors[*input].iter().map(|x| x.max(0.0)).collect(),
        RealOp::Function { input, function } => tensors[*input].iter().map(|&x| function.apply(x)).collect(),
        RealOp::MatMulTensors { left, right, factor } => matmul_tensors(of(*left), of(*right), *factor),
        RealOp::MulTensors { inputs: [x, y] } => tensors[*x].iter().zip(&tensors[*y]).map(|(x, y)| x * y).collect(),
        RealOp::Divide { numerator, denominator } => {
            tensors[*numerator].iter().zip(&tensors[*denominator]).map(|(x, y)| x / y).collect()
        }
        RealOp::ReduceSum { input, .. } => {
            let (values, from) = of(*input);
            let mut sums = vec![0.0; shape.iter().product()];
            // The places of the result, seen as a tensor of the input's shape whose summed axes do not move.
            let places = offsets(from, &broadcast_strides(shape), 0);
            places.into_iter().zip(values).for_each(|(place, value)| sums[place] += value);
            sums
        }
        RealOp::Expand { input } => {
            let (values, from) = of(*input);
            gather(values, &offsets(shape, &broadcast_strides(from), 0))
        }
        RealOp::Gather { input, axis, indices } => {
            let (values, from) = of(*input);
            let inner: usize = from[axis + 1..].iter().product();
            let rows = values.chunks_exact(from[*axis] * inner);
            rows.flat_map(|row| indices.iter().flat_map(move |&index| &row[index * inner..][..inner]))
                .copied()
                .collect()
        }
        RealOp::Softmax { input, factor, keep } => {
            let (values, from) = of(*input);
            let kept =
                keep.as_ref().map(|keep| gather(&keep.values, &offsets(from, &broadcast_strides(&keep.shape), 0)));
            softmax(values, kept.as_deref(), *factor, shape[shape.len() - 1])
        }
        RealOp::Normalise { input, epsilon, centred } => {
            let depth = shape[shape.len() - 1];
            let spread = spread(&tensors[*input], depth, *centred);
            let normalised = spread.chunks_exact(depth).flat_map(|row| {
                let mean = row.iter().map(|x| x * x).sum::<f64>() / depth as f64;
                let deviation = (mean + epsilon).sqrt();
                row.iter().map(move |x| x / deviation)
            });
            normalised.collect()
        }
        RealOp::Sqrt { input } => tensors[*input].iter().map(|x| x.sqrt()).collect(),
        RealOp::Reciprocal { input } => tensors[*input].iter().map(|x| 1.0 / x).collect(),
    }
}

/// The largest magnitude of what an operator computes on its way to its result and what a requantisation must hold; 0 for
/// those without such a tensor.
pub(super) fn inner_magnitude(graph: &RealGraph, op: &RealOp, tensors: &[Vec<f64>]) -> f64 {
    match op {
        RealOp::Normalise { input, centred, .. } => {
            let depth = graph.shape(*input).last().copied().unwrap_or(1);
            spread(&tensors[*input], depth, *centred).iter().fold(0.0, |most, x| most.max(x.abs()))
        }
        _ => 0.0,
    }
}

/// Rows of `depth` values less their mean if `centred`.
fn spread(values: &[f64], depth: usize, centred: bool) -> Vec<f64> {
    let rows = values.chunks_exact(depth);
    let spread = rows.flat_map(|row| {
        let mean = if centred { row.iter().sum::<f64>() / depth as f64 } else { 0.0 };
        row.iter().map(move |x| x - mean)
    });
    spread.collect()
}

fn softmax(values: &[f64], kept: Option<&[f64]>, factor: f64, depth: usize) -> Vec<f64> {
    let mut shares = Vec::with_capacity(values.len());
    for (row, start) in values.chunks_exact(depth).zip((0..).step_by(depth)) {
        let counts = |index: usize| kept.is_none_or(|kept| kept[start + index] != 0.0);
        let scaled = |(index, x): (usize, &f64)| if counts(index) { factor * x } else { f64::NEG_INFINITY };
        let largest = row.iter().enumerate().map(scaled).fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = row.iter().enumerate().map(|place| libm::exp(scaled(place) - largest)).collect();
        let sum: f64 = powers.iter().sum();
        shares.extend(powers.iter().map(|power| power / sum));
    }
    shares
}

fn matmul_tensors((left, rows): (&[f64], &[usize]), (right, columns): (&[f64], &[usize]), factor: f64) -> Vec<f64> {
    let (rank, depth) = (rows.len(), rows[rows.len() - 1]);
    let matrices = left.chunks_exact(rows[rank - 2] * depth).zip(right.chunks_exact(columns[rank - 2] * depth));
    let product = |x: &[f64], y: &[f64]| factor * x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let mut result = Vec::new();
    for (left, right) in matrices {
        for row in left.chunks_exact(depth) {
            result.extend(right.chunks_exact(depth).map(|column| product(row, column)));
        }
    }
    result
}

fn gather(values: &[f64], offsets: &[usize]) -> Vec<f64> {
    offsets.iter().map(|&offset| values[offset]).collect()
}

fn dot(a: &[usize], b: &[usize]) -> usize {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Writes `values` of shape `from` into a tensor of shape `shape` at index `start`.
fn place(target: &mut [f64], shape: &[usize], values: &[f64], from: &[usize], start: &[usize]) {
    let own = strides(shape);
    offsets(from, &own, dot(&own, start)).into_iter().zip(values).for_each(|(offset, &value)| target[offset] = value);
}

fn broadcast((values, shape): (&[f64], &[usize]), weight: &RealTensor, apply: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let positions = offsets(shape, &broadcast_strides(&weight.shape), 0);
    values.iter().zip(positions).map(|(&x, position)| apply(x, weight.values[position])).collect()
}

fn matmul(values: &[f64], weight: &RealTensor) -> Vec<f64> {
    let depth = weight.shape[1];
    let product = |row: &[f64], column: &[f64]| row.iter().zip(column).map(|(x, w)| x * w).sum();
    let rows = values.chunks_exact(depth);
    rows.flat_map(|row| weight.values.chunks_exact(depth).map(move |column| product(row, column))).collect()
}

/// Indices of the window's taps along one axis that are within `extent`, as `(tap, index)`.
fn taps(window: &Window, axis: usize, position: usize, extent: usize) -> Vec<(usize, usize)> {
    let before = if axis == 0 { window.pad_height[0] } else { window.pad_width[0] };
    let first = position * window.stride[axis];
    let within = |tap: usize| Some((tap, (first + tap * window.dilation[axis]).checked_sub(before)?));
    (0..window.kernel[axis]).filter_map(within).filter(|&(_, index)| index < extent).collect()
}

fn conv(
    (values, from): (&[f64], &[usize]),
    weight: &RealTensor,
    groups: usize,
    window: &Window,
    shape: &[usize],
) -> Vec<f64> {
    let (channels, height, width) = (from[1], from[2], from[3]);
    let (maps, depth) = (shape[1], channels / groups);
    let rows: Vec<_> = (0..shape[2]).map(|position| taps(window, 0, position, height)).collect();
    let columns: Vec<_> = (0..shape[3]).map(|position| taps(window, 1, position, width)).collect();
    let [kernel_height, kernel_width] = window.kernel;
    let mut result = Vec::with_capacity(shape.iter().product());
    for image in 0..shape[0] {
        for map in 0..maps {
            let group = map / (maps / groups);
            for row in &rows {
                for column in &columns {
                    let mut sum = 0.0;
                    for channel in 0..depth {
                        let plane = (image * channels + group * depth + channel) * height;
                        let kernel = (map * depth + channel) * kernel_height;
                        for &(i, y) in row {
                            for &(j, x) in column {
                                let w = weight.values[(kernel + i) * kernel_width + j];
                                sum += w * values[(plane + y) * width + x];
                            }
                        }
                    }
                    result.push(sum);
                }
            }
        }
    }
    result
}

fn window_sum((values, from): (&[f64], &[usize]), window: &Window, shape: &[usize]) -> Vec<f64> {
    let rank = from.len();
    let (height, width) = (from[rank - 2], from[rank - 1]);
    let rows: Vec<_> = (0..shape[rank - 2]).map(|position| taps(window, 0, position, height)).collect();
    let columns: Vec<_> = (0..shape[rank - 1]).map(|position| taps(window, 1, position, width)).collect();
    let mut result = Vec::with_capacity(shape.iter().product());
    for plane in values.chunks_exact(height * width) {
        for row in &rows {
            for column in &columns {
                let sum: f64 =
                    row.iter().flat_map(|&(_, y)| column.iter().map(move |&(_, x)| plane[y * width + x])).sum();
                result.push(sum);
            }
        }
    }
    result
}
