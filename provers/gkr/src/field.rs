//! The fields: Goldilocks, p = 2^64 - 2^32 + 1, and the extension from which challenges are drawn.

use p3_field::extension::BinomialExtensionField;
use p3_field::{ExtensionField, Field, PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use p3_goldilocks::Goldilocks;
use rayon::prelude::*;

/// The base field: witness and weights live in it.
pub type Base = Goldilocks;
/// The extension: challenges, claims and everything computed from them.
pub type Ext = BinomialExtensionField<Goldilocks, 2>;

/// A vector register of base field elements.
pub(crate) type PackedBase = <Base as Field>::Packing;
/// A block of as many extension field elements, coefficient by coefficient.
pub(crate) type PackedExt = <Ext as ExtensionField<Base>>::ExtensionPacking;

/// Elements of a block.
pub(crate) const WIDTH: usize = PackedBase::WIDTH;

/// A block's elements.
pub(crate) fn lanes(block: PackedExt) -> impl Iterator<Item = Ext> {
    (0..WIDTH).map(move |lane| PackedFieldExtension::<Base, Ext>::extract(&block, lane))
}

/// The sum of a block's elements.
pub(crate) fn lanes_sum(block: PackedExt) -> Ext {
    lanes(block).sum()
}

/// The field elements of integers.
pub(crate) fn to_base<T: Copy + Into<i64> + Sync>(values: &[T]) -> Vec<Base> {
    /// Integers that one task converts.
    const TASK: usize = 1 << 13;
    values.par_iter().with_min_len(TASK).map(|&value| Base::from_i64(value.into())).collect()
}
