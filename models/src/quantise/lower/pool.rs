//! Pooling. A maximum over a window is taken axis by axis, each axis by a tree of `y + relu(x - y)`; a sum over a window is
//! an operator of its own.

use shardproof_integer::Window;

use super::{Lowered, Lowers};
use crate::quantise::real::{Fill, RealOp, RealTensor, Tensor};

/// The windows of one axis.
#[derive(Clone, Copy, Debug)]
struct Axis {
    extent: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
    /// Number of windows.
    windows: usize,
}

impl Axis {
    /// The padding behind that makes the last window end with the padded input, or more.
    fn reach(&self) -> usize {
        let span = (self.windows - 1) * self.stride + self.dilation * (self.kernel - 1) + 1;
        self.after.max(span.saturating_sub(self.extent + self.before))
    }

    /// How many elements of each window count: those of the input, or of the padded input, but nothing beyond it.
    fn counts(&self, padding_counts: bool) -> Vec<f64> {
        let (least, most) = if padding_counts {
            (0, self.before + self.extent + self.after)
        } else {
            (self.before, self.before + self.extent)
        };
        let taps = |window: usize| (0..self.kernel).map(move |tap| window * self.stride + tap * self.dilation);
        (0..self.windows).map(|window| taps(window).filter(|tap| (least..most).contains(tap)).count() as f64).collect()
    }
}

impl Lowered<'_, '_> {
    /// The windows of each spatial axis.
    fn axes(&self, shape: &[usize]) -> Lowers<Vec<Axis>> {
        self.check_auto_pad()?;
        let spatial = shape.len().saturating_sub(2);
        let output = self.output_shape();
        if spatial == 0 || output.len() != shape.len() {
            return Err(self.unsupported(format!("an input of {} axes", shape.len())));
        }
        let kernel = self.counts_or("kernel_shape", vec![0; spatial])?;
        let stride = self.counts_or("strides", vec![1; spatial])?;
        let dilation = self.counts_or("dilations", vec![1; spatial])?;
        let pads = self.counts_or("pads", vec![0; 2 * spatial])?;
        if kernel.iter().chain(&stride).chain(&dilation).any(|&value| value == 0) {
            return Err(self.unsupported("a window without extent or stride"));
        }
        let axis = |axis: usize| Axis {
            extent: shape[axis + 2],
            kernel: kernel[axis],
            stride: stride[axis],
            dilation: dilation[axis],
            before: pads[axis],
            after: pads[axis + spatial],
            windows: output[axis + 2],
        };
        let axes: Vec<Axis> = (0..spatial).map(axis).collect();
        if axes.iter().any(|axis| axis.counts(false).contains(&0.0)) {
            return Err(self.unsupported("a window that covers padding alone"));
        }
        Ok(axes)
    }

    /// MaxPool and GlobalMaxPool.
    pub(super) fn max_pool(&mut self) -> Lowers<Tensor> {
        let mut input = self.tensor(0)?;
        let shape = self.shape_of(input);
        if self.node.output.len() > 1 {
            return Err(self.unsupported("indices of maxima"));
        }
        if self.only_relu_follows() {
            // The two commute, and a ReLU before the maximum is part of the requantisation that the maximum needs.
            input = self.relu(input);
        }
        let narrow = self.push(RealOp::Narrow { input }, shape.clone());
        if self.node.op_type == "GlobalMaxPool" {
            let rest = shape.iter().skip(2).product();
            if shape.len() < 2 {
                return Err(self.unsupported(format!("an input of {} axes", shape.len())));
            }
            let mut flat = self.reshaped(narrow, vec![shape[0], shape[1], rest])?;
            while self.shape_of(flat)[2] > 1 {
                flat = self.halved(flat, 2);
            }
            return Ok(flat);
        }
        let axes = self.axes(&shape)?;
        let pad = |pick: fn(&Axis) -> usize| [0, 0].into_iter().chain(axes.iter().map(pick)).collect::<Vec<_>>();
        let (before, after) = (pad(|axis| axis.before), pad(|axis| axis.reach()));
        let mut result = narrow;
        if before.iter().chain(&after).any(|&count| count > 0) {
            let extents =
                shape.iter().zip(&before).zip(&after).map(|((extent, before), after)| extent + before + after);
            let padded = extents.collect();
            result = self.push(RealOp::Pad { input: narrow, before, after, fill: Fill::Lowest }, padded);
        }
        // The last axis first: its neighbours lie side by side.
        for (index, axis) in axes.iter().enumerate().rev() {
            result = self.largest_of_windows(result, index + 2, axis);
        }
        Ok(result)
    }

    /// Whether every use of the result is a ReLU.
    fn only_relu_follows(&self) -> bool {
        let (graph, result) = (self.lowering.graph, &self.node.output[0]);
        let mut readers = graph.nodes.iter().filter(|node| node.input.contains(result));
        !graph.outputs.contains(result) && readers.all(|node| node.op_type == "Relu")
    }

    /// Maxima over the windows of one axis of a padded tensor.
    fn largest_of_windows(&mut self, input: Tensor, axis: usize, windows: &Axis) -> Tensor {
        let tap = |tap: usize| [tap * windows.dilation, windows.stride, windows.windows];
        let taps: Vec<Tensor> = (0..windows.kernel).map(|index| self.sliced_axis(input, axis, tap(index))).collect();
        match taps[..] {
            [single] => single,
            [first, second] => self.larger(first, second),
            _ => {
                // Stacked on an axis of their own, so that every level of the tree is one comparison.
                let shape = self.shape_of(taps[0]);
                let raised: Vec<usize> = [&[1], &shape[..]].concat();
                let raise = |this: &mut Self, tap| this.push(RealOp::Reshape { input: tap }, raised.clone());
                let raised: Vec<Tensor> = taps.into_iter().map(|tap| raise(self, tap)).collect();
                let mut stack = self.joined(raised, 0);
                while self.shape_of(stack)[0] > 1 {
                    stack = self.halved(stack, 0);
                }
                self.push(RealOp::Reshape { input: stack }, shape)
            }
        }
    }

    /// Compares the first half of an axis with the second; an element without counterpart stays.
    fn halved(&mut self, input: Tensor, axis: usize) -> Tensor {
        let extent = self.shape_of(input)[axis];
        let half = extent / 2;
        let first = self.sliced_axis(input, axis, [0, 1, half]);
        let second = self.sliced_axis(input, axis, [half, 1, half]);
        let larger = self.larger(first, second);
        if extent.is_multiple_of(2) {
            return larger;
        }
        let rest = self.sliced_axis(input, axis, [extent - 1, 1, 1]);
        self.joined(vec![larger, rest], axis)
    }

    fn larger(&mut self, x: Tensor, y: Tensor) -> Tensor {
        let shape = self.shape_of(x);
        self.push(RealOp::Larger { inputs: [x, y] }, shape)
    }

    pub(super) fn average_pool(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let shape = self.shape_of(input);
        let axes = self.axes(&shape)?;
        let sums = self.sums_of_windows(input, &shape, &axes)?;
        let padding_counts = self.int_or("count_include_pad", 0) != 0;
        let counts = axes.iter().map(|axis| axis.counts(padding_counts));
        let divisors =
            counts.enumerate().fold(RealTensor::scalar(1.0).with_rank(shape.len()), |all, (index, counts)| {
                let mut extents = vec![1; shape.len()];
                extents[index + 2] = counts.len();
                all.zip(&RealTensor { shape: extents, values: counts }, |a, b| a * b)
            });
        let factor = divisors.uniform().map_or(divisors, RealTensor::scalar).map(|count| 1.0 / count);
        self.scaled(sums, factor)
    }

    /// Sums over the windows of up to three axes; the integer operator knows windows over the last two.
    fn sums_of_windows(&mut self, input: Tensor, shape: &[usize], axes: &[Axis]) -> Lowers<Tensor> {
        let (outer, output) = (shape[0] * shape[1], self.output_shape());
        match *axes {
            [width] => {
                let flat = self.reshaped(input, vec![outer, 1, width.extent])?;
                let sums = self.window_sums(flat, window(None, Some(width)))?;
                self.reshaped(sums, output)
            }
            [height, width] => {
                let sums = self.window_sums(input, window(Some(height), Some(width)))?;
                self.reshaped(sums, output)
            }
            [depth, height, width] => {
                let planes = self.reshaped(input, vec![outer * depth.extent, height.extent, width.extent])?;
                let planes = self.window_sums(planes, window(Some(height), Some(width)))?;
                let columns = self.reshaped(planes, vec![outer, depth.extent, height.windows * width.windows])?;
                let sums = self.window_sums(columns, window(Some(depth), None))?;
                self.reshaped(sums, output)
            }
            _ => Err(self.unsupported(format!("pooling over {} axes; 1 to 3 are possible", axes.len()))),
        }
    }

    /// GlobalAveragePool, ReduceMean, ReduceSum: sums over whole axes.
    pub(super) fn reduce(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let mut shape = self.shape_of(input);
        let axes = self.reduced_axes(shape.len())?;
        if axes.is_empty() {
            return Ok(input);
        }
        let count: usize = axes.iter().map(|&axis| shape[axis]).product();
        axes.iter().for_each(|&axis| shape[axis] = 1);
        let sums = self.push(RealOp::ReduceSum { input, axes }, shape);
        if self.node.op_type == "ReduceSum" {
            return Ok(sums);
        }
        self.scaled(sums, RealTensor::scalar(1.0 / count as f64))
    }

    fn reduced_axes(&self, rank: usize) -> Lowers<Vec<usize>> {
        if self.node.op_type == "GlobalAveragePool" {
            return Ok((2..rank).collect());
        }
        let given = match self.integers(1)? {
            Some(axes) => Some(axes),
            None => crate::proto::ints_of(self.node, "axes").map(<[i64]>::to_vec),
        };
        let given = given.unwrap_or_default();
        if given.is_empty() {
            return Ok(if self.int_or("noop_with_empty_axes", 0) == 0 { (0..rank).collect() } else { Vec::new() });
        }
        let mut axes = given.into_iter().map(|axis| self.axis(axis, rank)).collect::<Lowers<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }
}

fn window(height: Option<Axis>, width: Option<Axis>) -> Window {
    let single = Axis { extent: 1, kernel: 1, stride: 1, dilation: 1, before: 0, after: 0, windows: 1 };
    let (height, width) = (height.unwrap_or(single), width.unwrap_or(single));
    Window {
        kernel: [height.kernel, width.kernel],
        stride: [height.stride, width.stride],
        dilation: [height.dilation, width.dilation],
        pad_height: [height.before, height.reach()],
        pad_width: [width.before, width.reach()],
    }
}
