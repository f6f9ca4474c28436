//! Convolutions as matrix products of the weight with the windows' values, and sums over windows.

use rayon::prelude::*;

use super::matmul::{Element, Matrix, Rows, Slab, multiply};
use crate::graph::{Conv, Window};

/// Elements of the windows that are unrolled at a time.
pub(super) const UNROLLED: usize = 1 << 20;
/// Unrolled elements below which the unrolling is not divided among threads.
const SERIAL: usize = 1 << 15;

/// Convolves `[runs * N, C, H, W]` values to `result` extents `[N, M, H', W']`.
pub(super) fn convolve(conv: &Conv, matrix: &Matrix, values: &[i64], shape: &[usize], result: &[usize]) -> Vec<i64> {
    let (&[_, channels, height, width], &[_, _, out_height, out_width]) = (shape, result) else {
        unreachable!("a checked convolution has four axes")
    };
    let plan = Plan {
        window: &conv.window,
        groups: conv.groups,
        channels: channels / conv.groups,
        input: [height, width],
        output: [out_height, out_width],
        outputs: result[1] / conv.groups,
    };
    match matrix {
        Matrix::Short { rows, span, .. } => plan.convolve(rows, *span, values),
        Matrix::Medium { rows, .. } => plan.convolve(rows, usize::MAX, values),
        Matrix::Long { rows, .. } => plan.convolve(rows, usize::MAX, values),
    }
}

struct Plan<'a> {
    window: &'a Window,
    groups: usize,
    /// Input channels of a group.
    channels: usize,
    /// Height and width.
    input: [usize; 2],
    /// Height and width.
    output: [usize; 2],
    /// Output channels of a group.
    outputs: usize,
}

impl Plan<'_> {
    fn depth(&self) -> usize {
        self.channels * self.window.kernel[0] * self.window.kernel[1]
    }

    fn convolve<E: Element>(&self, matrix: &Rows<E>, span: usize, values: &[i64]) -> Vec<i64> {
        let inputs = self.channels * self.input[0] * self.input[1];
        let outputs = self.outputs * self.output[0] * self.output[1];
        let mut result = vec![0; values.len() / inputs * outputs];
        let one = |(index, (result, values)): (usize, (&mut [i64], &[i64]))| {
            self.group(matrix.part(index % self.groups, self.groups), span, values, result);
        };
        if values.len() == inputs {
            one((0, (&mut result, values)));
        } else {
            result.par_chunks_mut(outputs).zip(values.par_chunks(inputs)).enumerate().for_each(one);
        }
        result
    }

    /// One image and group: `[C / groups, H, W]` to `[M / groups, H', W']`.
    fn group<E: Element>(&self, matrix: Slab<'_, E>, span: usize, values: &[i64], result: &mut [i64]) {
        let padded = Padded::new(self, values);
        if self.outputs == 1 {
            return self.accumulate(matrix, &padded, result);
        }
        let positions = self.output[0] * self.output[1];
        let step = (UNROLLED / self.depth()).clamp(1, positions);
        let mut start = 0;
        while start < positions {
            let count = step.min(positions - start);
            let windows = self.unroll(&padded, start, count);
            if count == positions {
                multiply(matrix, windows.all(), span, result);
            } else {
                let mut product = vec![0; self.outputs * count];
                multiply(matrix, windows.all(), span, &mut product);
                for (row, part) in result.chunks_exact_mut(positions).zip(product.chunks_exact(count)) {
                    row[start..][..count].copy_from_slice(part);
                }
            }
            start += count;
        }
    }

    /// One output channel, where unrolled windows would be read only once: adds the input's lines, times a weight each.
    fn accumulate<E: Element>(&self, matrix: Slab<'_, E>, padded: &Padded<E>, result: &mut [i64]) {
        let Window { kernel, stride, dilation, .. } = self.window;
        let weight = &matrix.row(0)[..self.depth()];
        let fill = |(row, sums): (usize, &mut [i64])| {
            for (line, weights) in weight.chunks_exact(kernel[1]).enumerate() {
                let (channel, line) = (line / kernel[0], line % kernel[0]);
                let height = channel * padded.height + row * stride[0] + line * dilation[0];
                let source = &padded.cells[height * padded.width..][..padded.width];
                for (column, &weight) in weights.iter().enumerate() {
                    let (source, weight) = (&source[column * dilation[1]..], weight.into());
                    if stride[1] == 1 {
                        sums.iter_mut().zip(source).for_each(|(sum, &value)| *sum += value.into() * weight);
                    } else {
                        let values = source.iter().step_by(stride[1]);
                        sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value.into() * weight);
                    }
                }
            }
        };
        let width = self.output[1];
        if result.len() * self.depth() < SERIAL {
            result.chunks_exact_mut(width).enumerate().for_each(fill);
        } else {
            let least = SERIAL.div_ceil(width * self.depth());
            result.par_chunks_exact_mut(width).with_min_len(least).enumerate().for_each(fill);
        }
    }

    /// The values under `count` windows from position `start` on, a row for each, in the order of a weight's row.
    fn unroll<E: Element>(&self, padded: &Padded<E>, start: usize, count: usize) -> Rows<E> {
        let mut rows = Rows::zeros(count, self.depth());
        let (cells, stride) = rows.cells_mut();
        let fill = |(index, row): (usize, &mut [E])| {
            let position = start + index;
            padded.window(self, position / self.output[1], position % self.output[1], row);
        };
        if count * stride < SERIAL {
            cells.chunks_exact_mut(stride).enumerate().for_each(fill);
        } else {
            cells.par_chunks_exact_mut(stride).with_min_len(SERIAL.div_ceil(stride)).enumerate().for_each(fill);
        }
        rows
    }
}

/// The channels of a group, surrounded by the padding's zeros.
struct Padded<E> {
    cells: Vec<E>,
    height: usize,
    width: usize,
}

impl<E: Element> Padded<E> {
    fn new(plan: &Plan<'_>, values: &[i64]) -> Self {
        let Window { pad_height, pad_width, .. } = plan.window;
        let height = plan.input[0] + pad_height[0] + pad_height[1];
        let width = plan.input[1] + pad_width[0] + pad_width[1];
        let mut cells = vec![E::default(); plan.channels * height * width];
        for (index, line) in values.chunks_exact(plan.input[1]).enumerate() {
            let (channel, row) = (index / plan.input[0], index % plan.input[0]);
            let start = (channel * height + row + pad_height[0]) * width + pad_width[0];
            for (cell, &value) in cells[start..][..plan.input[1]].iter_mut().zip(line) {
                *cell = E::narrow(value);
            }
        }
        Self { cells, height, width }
    }

    /// Copies the values under the window at `(row, column)`.
    fn window(&self, plan: &Plan<'_>, row: usize, column: usize, target: &mut [E]) {
        let Window { kernel, stride, dilation, .. } = plan.window;
        let mut lines = target.chunks_exact_mut(kernel[1]);
        for channel in 0..plan.channels {
            for line in 0..kernel[0] {
                let height = channel * self.height + row * stride[0] + line * dilation[0];
                let source = &self.cells[height * self.width + column * stride[1]..];
                let Some(target) = lines.next() else { return };
                for (cell, value) in target.iter_mut().zip(source.iter().step_by(dilation[1])) {
                    *cell = *value;
                }
            }
        }
    }
}

/// Sums `[.., H, W]` values over windows to `result` extents `[.., H', W']`.
pub(super) fn window_sum(window: &Window, values: &[i64], shape: &[usize], result: &[usize]) -> Vec<i64> {
    let axis = shape.len() - 2;
    let (height, width) = (shape[axis], shape[axis + 1]);
    let (out_height, out_width) = (result[axis], result[axis + 1]);
    let mut sums = vec![0; values.len() / (height * width) * out_height * out_width];
    let planes = sums.par_chunks_mut(out_height * out_width).zip(values.par_chunks(height * width));
    planes.with_min_len(SERIAL.div_ceil(height * width)).for_each(|(sums, plane)| {
        for (index, sum) in sums.iter_mut().enumerate() {
            let columns = || reach(window, 1, index % out_width, width);
            *sum = reach(window, 0, index / out_width, height)
                .map(|row| columns().map(|column| plane[row * width + column]).sum::<i64>())
                .sum();
        }
    });
    sums
}

/// The indices of an axis, of `extent` elements, that window `index` covers; the padding left out.
fn reach(window: &Window, axis: usize, index: usize, extent: usize) -> impl Iterator<Item = usize> {
    let before = if axis == 0 { window.pad_height[0] } else { window.pad_width[0] };
    let (first, dilation) = (index * window.stride[axis], window.dilation[axis]);
    let padded = (0..window.kernel[axis]).map(move |place| first + place * dilation);
    padded.filter_map(move |place| place.checked_sub(before)).filter(move |&place| place < extent)
}
