//! The fields: Goldilocks, p = 2^64 - 2^32 + 1, and the extension from which challenges are drawn.

use p3_field::extension::BinomialExtensionField;
use p3_goldilocks::Goldilocks;

/// The base field: witness and weights live in it.
pub type Base = Goldilocks;
/// The extension: challenges, claims and everything computed from them.
pub type Ext = BinomialExtensionField<Goldilocks, 2>;
