//! Linear functionals on tensors, the currency of the protocol: a claim is `<functional, tensor> = value`.
//!
//! A functional on a row-major tensor is a sum of terms, each the Kronecker product of a few vectors: `eq` at a point of a
//! tensor with axes `[C, H, W]` is `c (x) h (x) w`. So its size, and the time to pull it back through an operator or to
//! evaluate it, is the sum of the extents and not their product, as long as operators respect the axes. Where one doesn't
//! (a transposition after a flattening), the vectors concerned are multiplied out; that is always correct.

use std::ops::Range;
use std::sync::Arc;

use p3_field::{PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

use crate::field::{Base, Ext, PackedBase, PackedExt, WIDTH, lanes_sum};
use crate::mle::{dot, eq_index, eq_prefix, eq_range, trailing_zeros};

/// Most values that factors are multiplied out to where that makes a pass over a tensor faster.
const BLOCK: usize = 256;
/// Values of a tensor that are worth a task.
const TASK: usize = 1 << 13;

/// A vector of a Kronecker product.
pub(crate) type Factor = Arc<[Ext]>;

/// A linear functional on tensors of a fixed number of elements.
#[derive(Clone, Debug)]
pub(crate) struct Functional {
    /// Summed up.
    pub terms: Vec<Term>,
}

/// `scalar` times the Kronecker product of `factors`, the first one belonging to the outermost axis.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    /// Multiplies everything.
    pub scalar: Ext,
    /// Their lengths multiply to the number of elements.
    pub factors: Vec<Factor>,
}

/// How one axis of an operator's result draws on the same axis of its input.
#[derive(Clone, Debug)]
pub(crate) enum AxisMap {
    /// Index by index.
    Identity,
    /// `y[o] = sum x[i]` over the pairs `(o, i)`.
    Pairs {
        /// Extent of the input's axis.
        input: usize,
        /// `(o, i)`.
        pairs: Vec<(usize, usize)>,
    },
}

/// A run of axes whose vectors are multiplied out.
struct Group {
    axes: Range<usize>,
    values: Factor,
}

impl Term {
    /// The Kronecker product of `factors`.
    pub(crate) fn product(factors: Vec<Factor>) -> Self {
        Self { scalar: Ext::ONE, factors }
    }

    /// The vectors over `extents`, one for each axis; nothing when the term does not respect them.
    pub(crate) fn per_axis(&self, extents: &[usize]) -> Option<Vec<Factor>> {
        let (groups, scalar) = self.groups(extents);
        if groups.iter().any(|group| group.axes.len() != 1) {
            return None;
        }
        let mut factors: Vec<Factor> = groups.into_iter().map(|group| group.values).collect();
        if let Some(first) = factors.first_mut() {
            *first = first.iter().map(|&value| value * scalar).collect();
        }
        Some(factors)
    }

    /// The shortest runs of axes at whose ends a factor ends too, and the scalar that remains.
    fn groups(&self, extents: &[usize]) -> (Vec<Group>, Ext) {
        let (units, longer): (Vec<&Factor>, Vec<&Factor>) = self.factors.iter().partition(|factor| factor.len() == 1);
        let scalar = units.iter().fold(self.scalar, |product, unit| product * unit[0]);
        let mut factors = longer.into_iter();
        let mut groups = Vec::new();
        let mut axis = 0;
        while axis < extents.len() {
            let first = axis;
            let mut extent = extents[axis];
            let mut taken: Vec<&Factor> = Vec::new();
            let mut length = 1;
            axis += 1;
            while extent != length {
                if length < extent {
                    let factor = factors.next().expect("factors cover all axes");
                    length *= factor.len();
                    taken.push(factor);
                } else {
                    extent *= extents[axis];
                    axis += 1;
                }
            }
            groups.push(Group { axes: first..axis, values: expand(&taken) });
        }
        (groups, scalar)
    }

    /// The whole vector.
    pub(crate) fn dense(&self) -> Vec<Ext> {
        let factors: Vec<&Factor> = self.factors.iter().collect();
        let mut values = expand(&factors).to_vec();
        if self.scalar != Ext::ONE {
            values.iter_mut().for_each(|value| *value *= self.scalar);
        }
        values
    }

    /// The factors behind the outermost ones that cover `length` indices, without those of one value; nothing when none
    /// ends there.
    fn behind(&self, length: usize) -> Option<Vec<Factor>> {
        let mut covered = 1;
        let mut factors = self.factors.iter().filter(|factor| factor.len() > 1);
        while covered < length {
            covered *= factors.next()?.len();
        }
        (covered == length).then(|| factors.cloned().collect())
    }

    fn pull(&self, extents: &[usize], maps: &[AxisMap]) -> Self {
        let (groups, scalar) = self.groups(extents);
        let factors = groups.into_iter().map(|group| pull_group(&group, extents, maps)).collect();
        Self { scalar, factors }
    }

    fn permute(&self, extents: &[usize], axes: &[usize]) -> Self {
        let mut inverse = vec![0; axes.len()];
        for (result, &input) in axes.iter().enumerate() {
            inverse[input] = result;
        }
        match self.per_axis(extents) {
            Some(factors) => Self::product(inverse.iter().map(|&result| factors[result].clone()).collect()),
            None => {
                let dense = self.dense();
                Self::product(vec![transpose(&dense, extents, &inverse).into()])
            }
        }
    }

    /// The multilinear extension at `point` of the coefficients, placed from index `offset` on in a vector of zeros.
    ///
    /// From the last factor outwards, the variables that number an aligned block within a factor are bound by themselves, so
    /// that the time is the sum of the extents where extents and offset are divisible by powers of two.
    fn placed_at(&self, point: &[Ext], offset: usize) -> Ext {
        let (units, mut factors): (Vec<&Factor>, Vec<&Factor>) =
            self.factors.iter().partition(|factor| factor.len() == 1);
        let mut product = units.iter().fold(self.scalar, |product, unit| product * unit[0]);
        let (mut point, mut offset) = (point, offset);
        while let Some(last) = factors.pop() {
            if let ([zero, one], [.., x], 0) = (&last[..], point, offset % 2) {
                product *= *zero + *x * (*one - *zero);
                (point, offset) = (&point[..point.len() - 1], offset / 2);
                continue;
            }
            let aligned = last.len().trailing_zeros().min(trailing_zeros(offset)) as usize;
            let (high, low) = point.split_at(point.len() - aligned.min(point.len()));
            let block = eq_prefix(low, 1 << low.len());
            let folded: Factor = last.chunks_exact(block.len()).map(|values| dot(values, &block)).collect();
            (point, offset) = (high, offset >> low.len());
            if let [value] = folded[..] {
                product *= value;
                continue;
            }
            factors.push(&folded);
            let rest = expand(&factors);
            return product * dot(&rest, &eq_range(point, offset, rest.len()));
        }
        product * eq_index(point, offset)
    }

    fn inner(&self, other: &Self) -> Ext {
        let (mut left, mut right) = (Covered::new(&self.factors), Covered::new(&other.factors));
        let mut product = self.scalar * other.scalar;
        // The shortest runs of factors on both sides that cover the same indices.
        while left.advance() | right.advance() {
            while left.length != right.length {
                let advanced = if left.length < right.length { left.advance() } else { right.advance() };
                assert!(advanced, "both functionals are on as many elements");
            }
            product *= dot(&left.take(), &right.take());
        }
        product
    }

    fn apply(&self, values: &[Base]) -> Ext {
        let blocks = self.blocks();
        let Some((last, rest)) = blocks.split_last() else {
            return values.iter().map(|&value| self.scalar * value).sum();
        };
        let packed: Vec<_> = last.chunks_exact(WIDTH).map(PackedExt::from_ext_slice).collect();
        let tail = &last[packed.len() * WIDTH..];
        let chunks = values.par_chunks_exact(last.len()).with_min_len(TASK.div_ceil(last.len()));
        let mut folded: Vec<Ext> = chunks.map(|chunk| dot_base(&packed, tail, chunk)).collect();
        for factor in rest.iter().rev() {
            folded = folded.chunks_exact(factor.len()).map(|chunk| dot(factor, chunk)).collect();
        }
        folded.into_iter().sum::<Ext>() * self.scalar
    }

    /// The factors with neighbours multiplied out up to [`BLOCK`] values, from the last one on: a pass over a tensor with
    /// longer factors is one with fewer steps.
    fn blocks(&self) -> Vec<Factor> {
        let mut blocks: Vec<Factor> = Vec::new();
        let mut end = self.factors.len();
        while end > 0 {
            let mut start = end - 1;
            let mut length = self.factors[start].len();
            while start > 0 && length * self.factors[start - 1].len() <= BLOCK {
                start -= 1;
                length *= self.factors[start].len();
            }
            blocks.push(expand(&self.factors[start..end].iter().collect::<Vec<_>>()));
            end = start;
        }
        blocks.reverse();
        blocks
    }

    /// Adds `scale` times the coefficients to `target`, which is as long as the tensor.
    #[cfg(feature = "prover")]
    fn add_to(&self, scale: Ext, target: &mut [Ext]) {
        let blocks = self.blocks();
        let Some((last, outer)) = blocks.split_last() else {
            return target.iter_mut().for_each(|cell| *cell += scale * self.scalar);
        };
        let outer = expand(&outer.iter().collect::<Vec<_>>());
        for (chunk, &outer) in target.chunks_exact_mut(last.len()).zip(outer.iter()) {
            let scale = scale * self.scalar * outer;
            chunk.iter_mut().zip(last.iter()).for_each(|(cell, &value)| *cell += scale * value);
        }
    }
}

/// Walks along the factors of a product.
struct Covered<'a> {
    factors: std::slice::Iter<'a, Factor>,
    taken: Vec<&'a Factor>,
    length: usize,
}

impl<'a> Covered<'a> {
    fn new(factors: &'a [Factor]) -> Self {
        Self { factors: factors.iter(), taken: Vec::new(), length: 1 }
    }

    /// Takes one more factor; false at the end.
    fn advance(&mut self) -> bool {
        let Some(factor) = self.factors.next() else { return false };
        self.length *= factor.len();
        self.taken.push(factor);
        true
    }

    /// The product of what was taken since the last time.
    fn take(&mut self) -> Factor {
        self.length = 1;
        expand(&std::mem::take(&mut self.taken))
    }
}

impl Functional {
    /// The functional of one term.
    pub(crate) fn product(factors: Vec<Factor>) -> Self {
        Self { terms: vec![Term::product(factors)] }
    }

    /// The functional that adds up the values of a tensor.
    pub(crate) fn ones(extents: &[usize]) -> Self {
        Self::product(extents.iter().map(|&extent| vec![Ext::ONE; extent].into()).collect())
    }

    /// Number of values that it is kept as.
    pub(crate) fn kept(&self) -> usize {
        self.terms.iter().flat_map(|term| &term.factors).map(|factor| factor.len()).sum()
    }

    /// Number of coefficients.
    pub(crate) fn elements(&self) -> usize {
        self.terms.first().map_or(0, |term| term.factors.iter().map(|factor| factor.len()).product())
    }

    /// What it does to run `run` of `runs`, the tensor being `[runs, ..]`.
    pub(crate) fn of_run(&self, run: usize, runs: usize) -> Self {
        let elements = self.elements() / runs;
        let restrict = |term: &Term| match term.per_axis(&[runs, elements]) {
            // Within the run the product of the other factors stays as it is, unless a factor spans runs.
            Some(factors) => {
                Term { scalar: factors[0][run], factors: term.behind(runs).unwrap_or(vec![factors[1].clone()]) }
            }
            None => Term::product(vec![term.dense()[run * elements..][..elements].into()]),
        };
        Self { terms: self.terms.iter().map(restrict).collect() }
    }

    /// Every coefficient times `scalar`.
    pub(crate) fn scaled(mut self, scalar: Ext) -> Self {
        self.terms.iter_mut().for_each(|term| term.scalar *= scalar);
        self
    }

    /// Coefficient by coefficient.
    pub(crate) fn dense(&self) -> Vec<Ext> {
        let mut terms = self.terms.iter().map(Term::dense);
        let mut sum = terms.next().unwrap_or_default();
        for term in terms {
            sum.iter_mut().zip(term).for_each(|(sum, value)| *sum += value);
        }
        sum
    }

    /// The functional on an operator's input that does to it what this one does to the result, for operators that act on
    /// each axis by itself. `extents` are the result's.
    pub(crate) fn pull(&self, extents: &[usize], maps: &[AxisMap]) -> Self {
        Self { terms: self.terms.iter().map(|term| term.pull(extents, maps)).collect() }
    }

    /// The functional on the input of a transposition by `axes` whose result has `extents`.
    pub(crate) fn permute(&self, extents: &[usize], axes: &[usize]) -> Self {
        Self { terms: self.terms.iter().map(|term| term.permute(extents, axes)).collect() }
    }

    /// The functional on a tensor whose last axis has the extent 1 that does to it what this one does to its values repeated
    /// along that axis; `extents` are those of the repeated tensor.
    pub(crate) fn summed_last(&self, extents: &[usize]) -> Self {
        let last = extents.len() - 1;
        let mut maps = vec![AxisMap::Identity; extents.len()];
        maps[last] = AxisMap::Pairs { input: 1, pairs: (0..extents[last]).map(|o| (o, 0)).collect() };
        self.pull(extents, &maps)
    }

    /// The multilinear extension at `point` of the coefficients, placed from index `offset` on in a vector of zeros.
    pub(crate) fn placed_at(&self, point: &[Ext], offset: usize) -> Ext {
        self.terms.iter().map(|term| term.placed_at(point, offset)).sum()
    }

    /// `sum_i a_i b_i` of two functionals on as many elements.
    pub(crate) fn inner(&self, other: &Self) -> Ext {
        let pairs = self.terms.iter().flat_map(|a| other.terms.iter().map(move |b| a.inner(b)));
        pairs.sum()
    }

    /// Adds `scale` times the coefficients to `target`, which is as long as the tensor.
    #[cfg(feature = "prover")]
    pub(crate) fn add_to(&self, scale: Ext, target: &mut [Ext]) {
        self.terms.iter().for_each(|term| term.add_to(scale, target));
    }

    /// The functional's value on a tensor.
    pub(crate) fn apply(&self, values: &[Base]) -> Ext {
        self.terms.iter().map(|term| term.apply(values)).sum()
    }
}

/// The inner product of `values` with the weights in blocks and, behind them, those that fill none.
fn dot_base(blocks: &[PackedExt], tail: &[Ext], values: &[Base]) -> Ext {
    let (whole, rest) = values.split_at(blocks.len() * WIDTH);
    let whole = PackedBase::pack_slice(whole);
    let sum: PackedExt = blocks.iter().zip(whole).map(|(&weights, &values)| weights * values).sum();
    lanes_sum(sum) + tail.iter().zip(rest).map(|(&weight, &value)| weight * value).sum::<Ext>()
}

/// The Kronecker product.
fn expand(factors: &[&Factor]) -> Factor {
    match factors {
        [] => Arc::from([Ext::ONE]),
        [one] => Arc::clone(one),
        [first, rest @ ..] => {
            let inner = expand(rest);
            first.iter().flat_map(|&outer| inner.iter().map(move |&value| outer * value)).collect()
        }
    }
}

fn pull_group(group: &Group, extents: &[usize], maps: &[AxisMap]) -> Factor {
    let maps = &maps[group.axes.clone()];
    if maps.iter().all(|map| matches!(map, AxisMap::Identity)) {
        return Arc::clone(&group.values);
    }
    // Axis by axis: the vector is [outer, axis, inner], and only the middle extent changes.
    let mut shape: Vec<usize> = extents[group.axes.clone()].to_vec();
    let mut values: Vec<Ext> = group.values.to_vec();
    for (axis, map) in maps.iter().enumerate() {
        let AxisMap::Pairs { input, pairs } = map else { continue };
        let outer: usize = shape[..axis].iter().product();
        let inner: usize = shape[axis + 1..].iter().product();
        let mut pulled = vec![Ext::ZERO; outer * input * inner];
        for block in 0..outer {
            for &(result, from) in pairs {
                let source = (block * shape[axis] + result) * inner;
                let target = (block * input + from) * inner;
                for i in 0..inner {
                    pulled[target + i] += values[source + i];
                }
            }
        }
        shape[axis] = *input;
        values = pulled;
    }
    values.into()
}

/// `y[i]` with axis a of y being axis `axes[a]` of x, whose extents are `extents`.
fn transpose<T: Copy>(values: &[T], extents: &[usize], axes: &[usize]) -> Vec<T> {
    let mut strides = vec![1; extents.len()];
    for axis in (0..extents.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * extents[axis + 1];
    }
    let mut offsets = vec![0];
    for &axis in axes {
        let step = strides[axis];
        offsets = offsets.iter().flat_map(|&offset| (0..extents[axis]).map(move |i| offset + i * step)).collect();
    }
    offsets.into_iter().map(|offset| values[offset]).collect()
}

#[cfg(test)]
mod tests {
    use p3_field::PrimeCharacteristicRing;

    use super::*;

    fn vector(seed: u64, length: usize) -> Factor {
        (0..length as u64)
            .map(|i| Ext::from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i * i + 1)))
            .collect()
    }

    fn tensor(length: usize) -> Vec<Base> {
        (0..length as u64).map(|i| Base::from_u64(i * 7 + 3)).collect()
    }

    fn naive(functional: &Functional, values: &[Base]) -> Ext {
        dot_base(&[], &functional.dense(), values)
    }

    #[test]
    fn factors_and_dense_vectors_agree() {
        let a = Functional::product(vec![vector(1, 2), vector(2, 3), vector(3, 5)]);
        let b = Functional::product(vec![vector(4, 6), vector(5, 5)]).scaled(Ext::from_u64(9));
        let both = Functional { terms: [a.terms.clone(), b.terms.clone()].concat() };
        let values = tensor(30);
        assert_eq!(both.apply(&values), naive(&both, &values));
        assert_eq!(both.inner(&a), dot(&both.dense(), &a.dense()));
        assert_eq!(a.inner(&b), dot(&a.dense(), &b.dense()));
    }

    #[test]
    fn pulling_back_is_the_adjoint() {
        // y[o0, o1] = x[2 o0, o1 + 1] + x[2 o0, o1] over x of [5, 4].
        let maps = [
            AxisMap::Pairs { input: 5, pairs: vec![(0, 0), (1, 2), (2, 4)] },
            AxisMap::Pairs { input: 4, pairs: (0..3).flat_map(|o| [(o, o), (o, o + 1)]).collect() },
        ];
        let x = tensor(20);
        let y: Vec<Base> = (0..9).map(|i| x[(i / 3) * 8 + i % 3] + x[(i / 3) * 8 + i % 3 + 1]).collect();
        for functional in
            [Functional::product(vec![vector(1, 3), vector(2, 3)]), Functional::product(vec![vector(3, 9)])]
        {
            assert_eq!(functional.pull(&[3, 3], &maps).apply(&x), functional.apply(&y));
        }
    }

    #[test]
    fn permuting_is_the_adjoint_of_transposing() {
        let (x, axes) = (tensor(24), [2, 0, 1]);
        let y = transpose(&x, &[2, 3, 4], &axes);
        for functional in [
            Functional::product(vec![vector(1, 4), vector(2, 2), vector(3, 3)]),
            Functional::product(vec![vector(4, 8), vector(5, 3)]),
        ] {
            assert_eq!(functional.permute(&[4, 2, 3], &axes).apply(&x), functional.apply(&y));
        }
    }

    #[test]
    fn coefficients_are_added_to_what_is_there() {
        let a = Functional::product(vec![vector(1, 2), vector(2, 3), vector(3, 5), vector(4, 1), vector(5, 700)]);
        let b = Functional::product(vec![vector(6, 21_000)]).scaled(Ext::from_u64(9));
        let both = Functional { terms: [a.terms, b.terms].concat() };
        let before = vector(7, 21_000);
        let mut target = before.to_vec();
        both.add_to(Ext::TWO, &mut target);
        let expected = before.iter().zip(both.dense()).map(|(&before, value)| before + Ext::TWO * value);
        assert_eq!(target, expected.collect::<Vec<_>>());
        assert_eq!(both.apply(&tensor(21_000)), naive(&both, &tensor(21_000)));
        let mut one = [Ext::ONE];
        Functional::product(vec![]).scaled(Ext::TWO).add_to(Ext::TWO, &mut one);
        assert_eq!(one, [Ext::from_u8(5)]);
    }

    #[test]
    fn placed_coefficients_are_those_of_the_whole_vector() {
        let point = vector(9, 8);
        for (offset, lengths) in [
            (0, &[3, 8, 4][..]),
            (32, &[3, 8, 4]),
            (16, &[1, 6, 4]),
            (8, &[2, 1, 12]),
            (5, &[4, 8]),
            (64, &[64]),
            (255, &[1]),
        ] {
            let factors = lengths.iter().enumerate().map(|(seed, &length)| vector(seed as u64 + 3, length)).collect();
            let functional = Functional::product(factors).scaled(Ext::from_u64(7));
            let dense = functional.dense();
            let expected = dot(&dense, &eq_range(&point, offset, dense.len()));
            assert_eq!(functional.placed_at(&point, offset), expected, "{offset}: {lengths:?}");
        }
    }

    #[test]
    fn unit_axes_stand_alone() {
        let term = Term { scalar: Ext::TWO, factors: vec![vector(1, 1), vector(2, 3), vector(3, 1)] };
        let factors = term.per_axis(&[1, 3, 1]).unwrap();
        assert_eq!(factors.iter().map(|factor| factor.len()).collect::<Vec<_>>(), [1, 3, 1]);
        assert_eq!(Term::product(factors).dense(), term.dense());
    }
}
