//! Constants, and the arithmetic of row-major offsets.

/// A constant, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::quantise) struct RealTensor {
    pub(in crate::quantise) shape: Vec<usize>,
    pub(in crate::quantise) values: Vec<f64>,
}

impl RealTensor {
    pub(in crate::quantise) fn scalar(value: f64) -> Self {
        Self { shape: Vec::new(), values: vec![value] }
    }

    pub(in crate::quantise) fn map(mut self, function: impl Fn(f64) -> f64) -> Self {
        self.values.iter_mut().for_each(|value| *value = function(*value));
        self
    }

    /// The one value that all elements have, if they do.
    pub(in crate::quantise) fn uniform(&self) -> Option<f64> {
        let first = *self.values.first()?;
        self.values.iter().all(|&value| value == first).then_some(first)
    }

    /// The same elements with axes of extent 1 put first up to `rank`.
    pub(in crate::quantise) fn with_rank(mut self, rank: usize) -> Self {
        let missing = rank.saturating_sub(self.shape.len());
        self.shape.splice(0..0, std::iter::repeat_n(1, missing));
        self
    }

    /// Axis `a` of the result is axis `axes[a]` of this tensor.
    pub(in crate::quantise) fn transposed(self, axes: &[usize]) -> Self {
        if axes.iter().copied().eq(0..axes.len()) {
            return self;
        }
        let own = strides(&self.shape);
        let shape: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        let turned: Vec<usize> = axes.iter().map(|&axis| own[axis]).collect();
        let values = offsets(&shape, &turned, 0).into_iter().map(|offset| self.values[offset]).collect();
        Self { shape, values }
    }

    /// Element by element, axes of extent 1 standing for every index; both have the same rank.
    pub(in crate::quantise) fn zip(&self, other: &Self, function: impl Fn(f64, f64) -> f64) -> Self {
        let shape: Vec<usize> = self.shape.iter().zip(&other.shape).map(|(&a, &b)| a.max(b)).collect();
        let mine = offsets(&shape, &broadcast_strides(&self.shape), 0);
        let others = offsets(&shape, &broadcast_strides(&other.shape), 0);
        let values = mine.iter().zip(&others).map(|(&a, &b)| function(self.values[a], other.values[b])).collect();
        Self { shape, values }
    }

    /// Largest magnitude.
    pub(in crate::quantise) fn magnitude(&self) -> f64 {
        self.values.iter().fold(0.0, |most, value| most.max(value.abs()))
    }
}

/// Row-major strides.
pub(in crate::quantise) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Row-major strides that stay in place along axes of extent 1.
pub(in crate::quantise) fn broadcast_strides(shape: &[usize]) -> Vec<usize> {
    strides(shape).into_iter().zip(shape).map(|(stride, &extent)| if extent == 1 { 0 } else { stride }).collect()
}

/// `start + sum_a index_a strides_a` for every index of `shape`, in row-major order.
pub(in crate::quantise) fn offsets(shape: &[usize], strides: &[usize], start: usize) -> Vec<usize> {
    shape.iter().zip(strides).fold(vec![start], |outer, (&extent, &stride)| {
        outer.iter().flat_map(|&offset| (0..extent).map(move |index| offset + index * stride)).collect()
    })
}
