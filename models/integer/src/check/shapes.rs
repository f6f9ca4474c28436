//! Shapes of results, and whether operands fit. Every count comes from an untrusted graph: arithmetic is checked.

use super::{MAX_ELEMENTS, MAX_RANK, capped_elements};
use crate::error::{GraphError, Site};
use crate::graph::{Conv, Graph, Op, TensorId, WeightId, Window};

/// Extents of what node `index` makes; its operands exist.
pub(super) fn infer(graph: &Graph, index: usize, shapes: &[Vec<usize>]) -> Result<Vec<usize>, GraphError> {
    let infer = Infer { graph, index, shapes };
    match &graph.nodes[index].op {
        Op::MatMul { input, weight } => infer.matmul(*input, *weight),
        Op::Conv(conv) => infer.conv(conv),
        Op::MulWeight { input, weight } => infer.broadcast(*input, *weight),
        Op::AddWeight { input, weight, multiplier } => {
            if *multiplier == 0 {
                return Err(GraphError::ZeroMultiplier { site: infer.site() });
            }
            infer.broadcast(*input, *weight)
        }
        Op::Combine { terms, .. } => infer.combine(terms),
        Op::WindowSum { input, window } => infer.window_sum(*input, window),
        Op::Reshape { input, shape } => infer.reshape(*input, shape),
        Op::Transpose { input, axes } => infer.transpose(*input, axes),
        Op::Slice { input, start, step, count } => infer.slice(*input, start, step, count),
        Op::Pad { input, before, after, .. } => infer.pad(*input, before, after),
        Op::Concat { inputs, axis } => infer.concat(inputs, *axis),
        Op::Requant { input, .. } | Op::Table { input, .. } | Op::Sqrt { input, .. } => {
            Ok(infer.shape(*input).to_vec())
        }
        Op::MatMulTensors { left, right } => infer.tensor_product(*left, *right),
        Op::MulTensors { left, right } => infer.elementwise(*left, *right),
        Op::ReduceSum { input, axes } => infer.reduce_sum(*input, axes),
        Op::Expand { input, shape } => infer.expand(*input, shape),
        Op::Gather { input, axis, indices } => infer.gather(*input, *axis, indices),
        Op::Max { input } => infer.max(*input),
        Op::Divide { numerator, denominator, .. } => infer.elementwise(*numerator, *denominator),
    }
}

struct Infer<'a> {
    graph: &'a Graph,
    index: usize,
    shapes: &'a [Vec<usize>],
}

type Shape = Result<Vec<usize>, GraphError>;

impl<'a> Infer<'a> {
    fn site(&self) -> Box<Site> {
        Site::node(self.graph, self.index)
    }

    fn shape(&self, tensor: TensorId) -> &'a [usize] {
        &self.shapes[tensor.0 as usize]
    }

    fn weight(&self, weight: WeightId) -> &'a [usize] {
        &self.graph.weights[weight.0 as usize].shape
    }

    fn matmul(&self, input: TensorId, weight: WeightId) -> Shape {
        let (input, weight) = (self.shape(input), self.weight(weight));
        match (input.split_last(), weight) {
            (Some((inner, outer)), [columns, depth]) if inner == depth => Ok([outer, &[*columns]].concat()),
            _ => Err(GraphError::MatMulShapes { site: self.site(), input: input.to_vec(), weight: weight.to_vec() }),
        }
    }

    fn conv(&self, conv: &Conv) -> Shape {
        let (input, weight) = (self.shape(conv.input), self.weight(conv.weight));
        let (&[batch, channels, height, width], &[output, depth, kernel_height, kernel_width]) = (input, weight) else {
            return Err(GraphError::ConvRank { site: self.site(), input: input.to_vec(), weight: weight.to_vec() });
        };
        let groups = conv.groups;
        if groups == 0 || channels % groups != 0 || output % groups != 0 {
            return Err(GraphError::ConvGroups { site: self.site(), groups, input: channels, output });
        }
        let expected = [channels / groups, conv.window.kernel[0], conv.window.kernel[1]];
        let found = [depth, kernel_height, kernel_width];
        if expected != found {
            return Err(GraphError::ConvWeight { site: self.site(), expected, found });
        }
        let [out_height, out_width] = self.windows(&[batch, channels], height, width, &conv.window)?;
        Ok(vec![batch, output, out_height, out_width])
    }

    fn window_sum(&self, input: TensorId, window: &Window) -> Shape {
        let shape = self.shape(input);
        let [outer @ .., height, width] = shape else {
            return Err(GraphError::WindowRank { site: self.site(), input: shape.to_vec() });
        };
        let extents = self.windows(outer, *height, *width, window)?;
        Ok([outer, &extents].concat())
    }

    /// Extents of the windows over a plane. The padded input is within the cap on elements, and windows fit into it, so
    /// that every product of a window's parameter and an index is small.
    fn windows(&self, outer: &[usize], height: usize, width: usize, window: &Window) -> Result<[usize; 2], GraphError> {
        let parameters = [window.kernel, window.stride, window.dilation];
        if parameters.iter().flatten().any(|&parameter| parameter == 0) {
            return Err(GraphError::WindowZero { site: self.site() });
        }
        let pad = |extent: usize, [before, after]: [usize; 2]| extent.checked_add(before)?.checked_add(after);
        pad(height, window.pad_height)
            .zip(pad(width, window.pad_width))
            .and_then(|(height, width)| capped_elements(&[outer, &[height, width]].concat()))
            .ok_or_else(|| GraphError::Elements { site: self.site() })?;
        let extents =
            window.output(height, width).ok_or_else(|| GraphError::WindowFit { site: self.site(), height, width })?;
        // Windows overlap: what they cover together can be the square of the input.
        for (&extent, &kernel) in extents.iter().zip(&window.kernel) {
            if extent.checked_mul(kernel).is_none_or(|covered| covered > MAX_ELEMENTS) {
                return Err(GraphError::WindowOverlap { site: self.site(), extent, kernel });
            }
        }
        Ok(extents)
    }

    fn broadcast(&self, input: TensorId, weight: WeightId) -> Shape {
        let (input, weight) = (self.shape(input), self.weight(weight));
        let fits = input.len() == weight.len() && input.iter().zip(weight).all(|(x, w)| x == w || *w == 1);
        if !fits {
            return Err(GraphError::Broadcast { site: self.site(), input: input.to_vec(), weight: weight.to_vec() });
        }
        Ok(input.to_vec())
    }

    fn combine(&self, terms: &[(TensorId, i64)]) -> Shape {
        let expected = self.shape(terms[0].0);
        for (term, &(tensor, _)) in terms.iter().enumerate() {
            let found = self.shape(tensor);
            if found != expected {
                return Err(GraphError::CombineShapes {
                    site: self.site(),
                    term,
                    expected: expected.to_vec(),
                    found: found.to_vec(),
                });
            }
        }
        Ok(expected.to_vec())
    }

    fn reshape(&self, input: TensorId, shape: &[usize]) -> Shape {
        let input = self.shape(input);
        if capped_elements(shape) != capped_elements(input) {
            let (input, shape) = (input.to_vec(), shape.to_vec());
            return Err(GraphError::ReshapeElements { site: self.site(), input, shape });
        }
        Ok(shape.to_vec())
    }

    fn transpose(&self, input: TensorId, axes: &[usize]) -> Shape {
        let input = self.shape(input);
        let mut seen = [false; MAX_RANK];
        let permutes = axes.len() == input.len()
            && axes.iter().all(|&axis| axis < input.len() && !std::mem::replace(&mut seen[axis], true));
        if !permutes {
            return Err(GraphError::TransposeAxes { site: self.site(), axes: axes.to_vec(), rank: input.len() });
        }
        Ok(axes.iter().map(|&axis| input[axis]).collect())
    }

    fn slice(&self, input: TensorId, start: &[usize], step: &[usize], count: &[usize]) -> Shape {
        let input = self.shape(input);
        let rank = input.len();
        if [start, step, count].iter().any(|part| part.len() != rank) {
            return Err(GraphError::SliceRank { site: self.site(), rank });
        }
        for axis in 0..rank {
            if step[axis] == 0 {
                return Err(GraphError::SliceStep { site: self.site(), axis });
            }
            if count[axis] == 0 {
                return Err(GraphError::EmptyAxis { site: self.site(), axis });
            }
            let last = (count[axis] - 1).checked_mul(step[axis]).and_then(|span| span.checked_add(start[axis]));
            if last.is_none_or(|last| last >= input[axis]) {
                return Err(GraphError::SliceRange { site: self.site(), axis, extent: input[axis] });
            }
        }
        Ok(count.to_vec())
    }

    fn pad(&self, input: TensorId, before: &[usize], after: &[usize]) -> Shape {
        let input = self.shape(input);
        if before.len() != input.len() || after.len() != input.len() {
            return Err(GraphError::PadRank { site: self.site(), rank: input.len() });
        }
        let extents = input.iter().zip(before).zip(after);
        extents
            .map(|((extent, before), after)| extent.checked_add(*before)?.checked_add(*after))
            .collect::<Option<_>>()
            .ok_or_else(|| GraphError::Elements { site: self.site() })
    }

    fn concat(&self, inputs: &[TensorId], axis: usize) -> Shape {
        let expected = self.shape(inputs[0]);
        if axis >= expected.len() {
            return Err(GraphError::ConcatAxis { site: self.site(), axis, rank: expected.len() });
        }
        let mut extent = 0;
        for (index, &input) in inputs.iter().enumerate() {
            let found = self.shape(input);
            let equal = |range: std::ops::Range<usize>| found.get(range.clone()) == expected.get(range);
            if found.len() != expected.len() || !equal(0..axis) || !equal(axis + 1..expected.len()) {
                return Err(GraphError::ConcatShapes {
                    site: self.site(),
                    index,
                    expected: expected.to_vec(),
                    found: found.to_vec(),
                });
            }
            // No overflow: at most 2^16 operands of at most 2^28 elements.
            extent += found[axis];
        }
        let mut shape = expected.to_vec();
        shape[axis] = extent;
        Ok(shape)
    }

    fn tensor_product(&self, left: TensorId, right: TensorId) -> Shape {
        let (left, right) = (self.shape(left), self.shape(right));
        match (left, right) {
            ([batch @ .., rows, depth], [others @ .., columns, inner]) if batch == others && depth == inner => {
                Ok([batch, &[*rows, *columns]].concat())
            }
            _ => Err(GraphError::TensorProduct { site: self.site(), left: left.to_vec(), right: right.to_vec() }),
        }
    }

    fn elementwise(&self, left: TensorId, right: TensorId) -> Shape {
        let (left, right) = (self.shape(left), self.shape(right));
        if left != right {
            return Err(GraphError::ElementShapes { site: self.site(), left: left.to_vec(), right: right.to_vec() });
        }
        Ok(left.to_vec())
    }

    fn reduce_sum(&self, input: TensorId, axes: &[usize]) -> Shape {
        let mut shape = self.shape(input).to_vec();
        let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || axes.last().is_none_or(|&last| last >= shape.len()) {
            return Err(GraphError::ReduceAxes { site: self.site(), axes: axes.to_vec(), rank: shape.len() });
        }
        axes.iter().for_each(|&axis| shape[axis] = 1);
        Ok(shape)
    }

    fn expand(&self, input: TensorId, shape: &[usize]) -> Shape {
        let input = self.shape(input);
        let fits = input.len() == shape.len() && input.iter().zip(shape).all(|(&from, &to)| from == to || from == 1);
        if !fits {
            return Err(GraphError::ExpandShape { site: self.site(), input: input.to_vec(), shape: shape.to_vec() });
        }
        Ok(shape.to_vec())
    }

    fn gather(&self, input: TensorId, axis: usize, indices: &[u32]) -> Shape {
        let mut shape = self.shape(input).to_vec();
        let Some(extent) = shape.get_mut(axis) else {
            return Err(GraphError::GatherAxis { site: self.site(), axis, rank: shape.len() });
        };
        if let Some(&index) = indices.iter().find(|&&index| index as usize >= *extent) {
            return Err(GraphError::GatherIndex { site: self.site(), index, extent: *extent });
        }
        *extent = indices.len();
        Ok(shape)
    }

    fn max(&self, input: TensorId) -> Shape {
        let mut shape = self.shape(input).to_vec();
        *shape.last_mut().ok_or_else(|| GraphError::MaxRank { site: self.site() })? = 1;
        Ok(shape)
    }
}
