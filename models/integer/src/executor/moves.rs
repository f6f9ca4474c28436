//! Operators that move values, and the walk over strided tensors that they share.

/// A walk over a tensor that is contiguous on one side and strided on the other: in rows of the longest axes that keep
/// one stride.
pub(super) struct Pattern {
    /// Elements of a row.
    pub(super) length: usize,
    /// Distance of a row's elements on the strided side.
    pub(super) stride: usize,
    /// Where each row starts on the strided side, in the order of the contiguous side.
    pub(super) offsets: Vec<usize>,
}

impl Pattern {
    /// A walk over `shape` with a stride for each axis.
    pub(super) fn strided(shape: &[usize], strides: &[usize]) -> Self {
        let mut axes: Vec<(usize, usize)> = Vec::new();
        for (&extent, &stride) in shape.iter().zip(strides) {
            match axes.last_mut() {
                _ if extent == 1 => {}
                Some(outer) if outer.1 == extent * stride => *outer = (outer.0 * extent, stride),
                _ => axes.push((extent, stride)),
            }
        }
        let (length, stride) = axes.pop().unwrap_or((1, 0));
        let mut offsets = vec![0];
        for (extent, stride) in axes {
            offsets = offsets.iter().flat_map(|offset| (0..extent).map(move |i| offset + i * stride)).collect();
        }
        Self { length, stride, offsets }
    }

    /// A walk over `shape` along a tensor whose extents are `shape`'s or 1.
    pub(super) fn broadcast(shape: &[usize], weight: &[usize]) -> Self {
        let mut strides = row_major(weight);
        for (stride, &extent) in strides.iter_mut().zip(weight) {
            if extent == 1 {
                *stride = 0;
            }
        }
        Self::strided(shape, &strides)
    }

    /// Reads the strided side of `runs` tensors into contiguous ones; `base` is added to every place.
    fn gather(&self, values: &[i64], base: usize, runs: usize) -> Vec<i64> {
        let mut result = Vec::with_capacity(runs * self.offsets.len() * self.length);
        for run in values.chunks_exact(values.len() / runs) {
            for offset in &self.offsets {
                let source = &run[base + offset..];
                match self.stride {
                    1 => result.extend_from_slice(&source[..self.length]),
                    stride => result.extend((0..self.length).map(|place| source[place * stride])),
                }
            }
        }
        result
    }
}

/// Distance of neighbours along each axis.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

pub(super) fn transpose(values: &[i64], shape: &[usize], axes: &[usize], runs: usize) -> Vec<i64> {
    let strides = row_major(shape);
    let extents: Vec<_> = axes.iter().map(|&axis| shape[axis]).collect();
    let strides: Vec<_> = axes.iter().map(|&axis| strides[axis]).collect();
    Pattern::strided(&extents, &strides).gather(values, 0, runs)
}

pub(super) fn slice(
    values: &[i64],
    shape: &[usize],
    start: &[usize],
    step: &[usize],
    count: &[usize],
    runs: usize,
) -> Vec<i64> {
    let strides = row_major(shape);
    let base = start.iter().zip(&strides).map(|(start, stride)| start * stride).sum();
    // The step of an axis with one element may be any number; its stride is not used.
    let strides: Vec<_> = step.iter().zip(&strides).map(|(step, stride)| step.saturating_mul(*stride)).collect();
    Pattern::strided(count, &strides).gather(values, base, runs)
}

/// `result` are the repeated extents.
pub(super) fn expand(values: &[i64], shape: &[usize], result: &[usize], runs: usize) -> Vec<i64> {
    Pattern::broadcast(result, shape).gather(values, 0, runs)
}

pub(super) fn gather(values: &[i64], shape: &[usize], axis: usize, indices: &[u32], runs: usize) -> Vec<i64> {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer = runs * shape[..axis].iter().product::<usize>();
    let mut gathered = Vec::with_capacity(outer * indices.len() * inner);
    for block in values.chunks_exact(shape[axis] * inner) {
        indices.iter().for_each(|&index| gathered.extend_from_slice(&block[index as usize * inner..][..inner]));
    }
    gathered
}

/// `result` are the padded extents.
pub(super) fn pad(
    values: &[i64],
    shape: &[usize],
    before: &[usize],
    result: &[usize],
    value: i64,
    runs: usize,
) -> Vec<i64> {
    let strides = row_major(result);
    let base: usize = before.iter().zip(&strides).map(|(before, stride)| before * stride).sum();
    let pattern = Pattern::strided(shape, &strides);
    let elements: usize = result.iter().product();
    let mut padded = vec![value; runs * elements];
    for (target, run) in padded.chunks_exact_mut(elements).zip(values.chunks_exact(values.len() / runs)) {
        for (offset, row) in pattern.offsets.iter().zip(run.chunks_exact(pattern.length)) {
            let target = &mut target[base + offset..];
            match pattern.stride {
                1 => target[..row.len()].copy_from_slice(row),
                stride => row.iter().enumerate().for_each(|(place, value)| target[place * stride] = *value),
            }
        }
    }
    padded
}

/// Joins the parts, each with its extents, along `axis`.
pub(super) fn concat(parts: &[(&[i64], &[usize])], axis: usize, runs: usize) -> Vec<i64> {
    let outer = runs * parts[0].1[..axis].iter().product::<usize>();
    let mut joined = Vec::with_capacity(parts.iter().map(|(values, _)| values.len()).sum());
    for index in 0..outer {
        for (values, _) in parts {
            let length = values.len() / outer;
            joined.extend_from_slice(&values[index * length..][..length]);
        }
    }
    joined
}
