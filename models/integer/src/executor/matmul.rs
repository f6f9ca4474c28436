//! Exact products of integer matrices in the narrowest arithmetic that the bounds of their values allow.
//!
//! Both factors are held row by row along the summed axis, so that every element of the product is a dot product of two
//! contiguous rows, and tiles of rows share their loads. Rows are padded with zeros to whole vectors.

use rayon::prelude::*;

use crate::check::Bounds;

/// Rows are padded to a multiple of this many elements.
const LANES: usize = 16;
/// Fewest products that are summed in 32 bits before the sum is widened; below it 64 bits are as fast from the start.
const LEAST_SPAN: usize = 96;
/// Rows of the second factor in one tile.
const TILE: usize = 4;
/// Rows of the first factor in one tile: all the tile's sums are to fit into registers.
const ROWS: usize = if cfg!(target_feature = "avx512f") { 4 } else { 2 };
/// Rows of the first factor that one task takes.
const BLOCK: usize = 16;
/// Multiplications below which a product is not worth dividing among threads.
const SERIAL: usize = 1 << 16;

/// A number that factors are held in.
pub(super) trait Element: Copy + Default + Into<i64> + Send + Sync {
    /// What products are summed in.
    type Sum: Copy + Default;
    /// From a value that is known to fit.
    fn narrow(value: i64) -> Self;
    /// `sum + a b`.
    fn fused(sum: Self::Sum, a: Self, b: Self) -> Self::Sum;
    /// The sum's value.
    fn widen(sum: Self::Sum) -> i64;
}

macro_rules! element {
    ($narrow:ty, $sum:ty) => {
        impl Element for $narrow {
            type Sum = $sum;

            #[inline(always)]
            fn narrow(value: i64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn fused(sum: $sum, a: Self, b: Self) -> $sum {
                sum + <$sum>::from(a) * <$sum>::from(b)
            }

            #[inline(always)]
            fn widen(sum: $sum) -> i64 {
                sum.into()
            }
        }
    };
}
element!(i16, i32);
element!(i32, i64);
element!(i64, i64);

/// Rows of elements, each padded with zeros.
#[derive(Clone, Debug)]
pub(super) struct Rows<E> {
    cells: Vec<E>,
    /// Elements of a padded row.
    stride: usize,
}

impl<E: Element> Rows<E> {
    /// `count` rows of zeros, for `depth` elements each.
    pub(super) fn zeros(count: usize, depth: usize) -> Self {
        let stride = depth.next_multiple_of(LANES);
        Self { cells: vec![E::default(); count * stride], stride }
    }

    /// Narrows rows of `depth` elements, each of which is known to fit.
    fn new<V: Copy + Into<i64> + Sync>(values: &[V], depth: usize) -> Self {
        let mut rows = Self::zeros(values.len() / depth, depth);
        let fill = |(row, values): (&mut [E], &[V])| {
            for (cell, &value) in row.iter_mut().zip(values) {
                *cell = E::narrow(value.into());
            }
        };
        if values.len() < SERIAL {
            rows.cells.chunks_exact_mut(rows.stride).zip(values.chunks_exact(depth)).for_each(fill);
        } else {
            let least = SERIAL.div_ceil(depth);
            let pairs = rows.cells.par_chunks_exact_mut(rows.stride).zip(values.par_chunks_exact(depth));
            pairs.with_min_len(least).for_each(fill);
        }
        rows
    }

    /// All rows, to be filled: padded rows of the given length.
    pub(super) fn cells_mut(&mut self) -> (&mut [E], usize) {
        (&mut self.cells, self.stride)
    }

    /// Views all rows.
    pub(super) fn all(&self) -> Slab<'_, E> {
        Slab { cells: &self.cells, stride: self.stride }
    }

    /// Views part `index` of `count` equal parts.
    pub(super) fn part(&self, index: usize, count: usize) -> Slab<'_, E> {
        let length = self.cells.len() / count;
        Slab { cells: &self.cells[index * length..][..length], stride: self.stride }
    }
}

/// Consecutive padded rows.
#[derive(Clone, Copy)]
pub(super) struct Slab<'a, E> {
    cells: &'a [E],
    stride: usize,
}

impl<'a, E> Slab<'a, E> {
    fn rows(self) -> usize {
        self.cells.len() / self.stride
    }

    /// Padded row `index`.
    pub(super) fn row(self, index: usize) -> &'a [E] {
        &self.cells[index * self.stride..][..self.stride]
    }
}

/// A matrix of trained values, narrowed for what it is multiplied with.
#[derive(Clone, Debug)]
pub(super) enum Matrix {
    /// Both factors fit 16 bits; sums of `span` products fit 32.
    Short {
        /// The values.
        rows: Rows<i16>,
        /// A multiple of [`LANES`].
        span: usize,
        /// Elements of an unpadded row.
        depth: usize,
    },
    /// Both factors fit 32 bits.
    Medium {
        /// The values.
        rows: Rows<i32>,
        /// Elements of an unpadded row.
        depth: usize,
    },
    /// The other factor needs 64 bits.
    Long {
        /// The values.
        rows: Rows<i64>,
        /// Elements of an unpadded row.
        depth: usize,
    },
}

impl Matrix {
    /// Prepares `[N, depth]` values for products with values within `other`.
    pub(super) fn new(values: &[i32], depth: usize, other: Bounds) -> Self {
        let largest = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        // Conservative by one at the negative end, where -2^15 would fit too. The product stays below 2^31 * 2^62.
        let short = i16::MAX as u64;
        let product = u128::from(largest) * u128::from(other.magnitude());
        let span = u128::from(i32::MAX.unsigned_abs()).checked_div(product).unwrap_or(u128::MAX);
        let span = (span.min(1 << 30) as usize) / LANES * LANES;
        if u64::from(largest) <= short
            && other.magnitude() <= short
            && span >= LEAST_SPAN.min(depth.next_multiple_of(LANES))
        {
            Self::Short { rows: Rows::new(values, depth), span, depth }
        } else if other.magnitude() <= i32::MAX as u64 {
            Self::Medium { rows: Rows::new(values, depth), depth }
        } else {
            Self::Long { rows: Rows::new(values, depth), depth }
        }
    }

    /// `y[r, n] = sum_k w[n, k] x[r, k]`.
    pub(super) fn times_rows(&self, values: &[i64]) -> Vec<i64> {
        match self {
            Self::Short { rows, span, depth } => times_rows(values, rows, *depth, *span),
            Self::Medium { rows, depth } => times_rows(values, rows, *depth, usize::MAX),
            Self::Long { rows, depth } => times_rows(values, rows, *depth, usize::MAX),
        }
    }
}

fn times_rows<E: Element>(values: &[i64], matrix: &Rows<E>, depth: usize, span: usize) -> Vec<i64> {
    let inputs = Rows::<E>::new(values, depth);
    let (rows, columns) = (inputs.all().rows(), matrix.all().rows());
    let mut product = vec![0; rows * columns];
    if rows >= BLOCK * rayon::current_num_threads() || rows > columns {
        multiply(inputs.all(), matrix.all(), span, &mut product);
        return product;
    }
    // Few rows: the tasks divide the matrix instead.
    multiply(matrix.all(), inputs.all(), span, &mut product);
    if rows == 1 { product } else { transposed(&product, rows) }
}

/// `y[b.., m, n] = sum_k left[b.., m, k] right[b.., n, k]` for values within `bounds`; `shape` is the left factor's,
/// `result` the product's.
pub(super) fn times_tensor(
    left: &[i64],
    right: &[i64],
    shape: &[usize],
    result: &[usize],
    bounds: [Bounds; 2],
) -> Vec<i64> {
    let depth = shape[shape.len() - 1];
    let [.., rows, columns] = *result else { unreachable!("a product of tensors has rows and columns") };
    let sizes = [depth, rows, columns];
    let [a, b] = bounds.map(Bounds::magnitude);
    let short = i16::MAX as u64;
    let span = u128::from(i32::MAX.unsigned_abs()).checked_div(u128::from(a) * u128::from(b)).unwrap_or(u128::MAX);
    let span = (span.min(1 << 30) as usize) / LANES * LANES;
    if a.max(b) <= short && span >= LEAST_SPAN.min(depth.next_multiple_of(LANES)) {
        batches::<i16>(left, right, sizes, span)
    } else if a.max(b) <= i32::MAX as u64 {
        batches::<i32>(left, right, sizes, usize::MAX)
    } else {
        batches::<i64>(left, right, sizes, usize::MAX)
    }
}

/// One product for each batch; the batches are divided among threads where there are several.
fn batches<E: Element>(left: &[i64], right: &[i64], [depth, rows, columns]: [usize; 3], span: usize) -> Vec<i64> {
    let mut product = vec![0; left.len() / depth * columns];
    let batch = |((product, left), right): ((&mut [i64], &[i64]), &[i64])| {
        let (left, right) = (Rows::<E>::new(left, depth), Rows::<E>::new(right, depth));
        multiply(left.all(), right.all(), span, product);
    };
    let operands = product.par_chunks_exact_mut(rows * columns).zip(left.par_chunks_exact(rows * depth));
    let operands = operands.zip(right.par_chunks_exact(columns * depth));
    operands.with_min_len((SERIAL / (rows * columns * depth)).max(1)).for_each(batch);
    product
}

/// `[columns, rows]` to `[rows, columns]`.
fn transposed(values: &[i64], rows: usize) -> Vec<i64> {
    let columns = values.len() / rows;
    let mut result = Vec::with_capacity(values.len());
    for row in 0..rows {
        result.extend((0..columns).map(|column| values[column * rows + row]));
    }
    result
}

/// `product[i, j] = sum_k a[i, k] b[j, k]`; sums of `span` products fit [`Element::Sum`].
pub(super) fn multiply<E: Element>(a: Slab<'_, E>, b: Slab<'_, E>, span: usize, product: &mut [i64]) {
    let columns = b.rows();
    let block = |(index, product): (usize, &mut [i64])| {
        let rows = product.len() / columns;
        let cells = &a.cells[index * BLOCK * a.stride..][..rows * a.stride];
        multiply_block(Slab { cells, stride: a.stride }, b, span, product);
    };
    let blocks = BLOCK * columns;
    if a.rows() * b.cells.len() < SERIAL {
        product.chunks_mut(blocks).enumerate().for_each(block);
    } else {
        product.par_chunks_mut(blocks).enumerate().for_each(block);
    }
}

/// One task: every tile of `b` meets every tile of the block's rows while it is in the nearest cache.
fn multiply_block<E: Element>(a: Slab<'_, E>, b: Slab<'_, E>, span: usize, product: &mut [i64]) {
    let columns = b.rows();
    let mut column = 0;
    while column + TILE <= columns {
        let tile: [&[E]; TILE] = std::array::from_fn(|offset| b.row(column + offset));
        multiply_columns(a, tile, span, product, columns, column);
        column += TILE;
    }
    while column < columns {
        multiply_columns(a, [b.row(column)], span, product, columns, column);
        column += 1;
    }
}

fn multiply_columns<E: Element, const B: usize>(
    a: Slab<'_, E>,
    b: [&[E]; B],
    span: usize,
    product: &mut [i64],
    columns: usize,
    column: usize,
) {
    let rows = a.rows();
    let mut row = 0;
    while row + ROWS <= rows {
        let tile: [&[E]; ROWS] = std::array::from_fn(|offset| a.row(row + offset));
        for (offset, sums) in dot_products(tile, b, span).iter().enumerate() {
            product[(row + offset) * columns + column..][..B].copy_from_slice(sums);
        }
        row += ROWS;
    }
    while row < rows {
        let [sums] = dot_products([a.row(row)], b, span);
        product[row * columns + column..][..B].copy_from_slice(&sums);
        row += 1;
    }
}

/// The dot products of every row of `a` with every row of `b`.
#[inline]
fn dot_products<E: Element, const A: usize, const B: usize>(a: [&[E]; A], b: [&[E]; B], span: usize) -> [[i64; B]; A] {
    let length = a[0].len();
    let mut totals = [[0; B]; A];
    let mut start = 0;
    while start < length {
        let count = span.min(length - start);
        let (a, b) = (a.map(|row| &row[start..][..count]), b.map(|row| &row[start..][..count]));
        let mut sums = [[E::Sum::default(); B]; A];
        for k in 0..count {
            for i in 0..A {
                for j in 0..B {
                    sums[i][j] = E::fused(sums[i][j], a[i][k], b[j][k]);
                }
            }
        }
        for i in 0..A {
            for j in 0..B {
                totals[i][j] += E::widen(sums[i][j]);
            }
        }
        start += count;
    }
    totals
}
