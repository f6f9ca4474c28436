//! The bytes of an opening: fixed-width elements one after the other, without lengths. The reader knows from the
//! parameters and the queries drawn what comes next, so that there is nothing to trust.

use p3_field::BasedVectorSpace;
#[cfg(feature = "prover")]
use p3_field::PrimeField64;
use p3_field::integers::QuotientMap;

use super::PcsError;
use super::merkle::Digest;
use crate::field::{Base, Ext};

/// Bytes of a base field element.
pub(super) const BASE_BYTES: usize = 8;
/// Bytes of an extension field element.
pub(super) const EXT_BYTES: usize = BASE_BYTES * <Ext as BasedVectorSpace<Base>>::DIMENSION;

/// Appends the canonical encoding of `value`.
#[cfg(feature = "prover")]
pub(super) fn write_base(bytes: &mut Vec<u8>, value: Base) {
    bytes.extend_from_slice(&value.as_canonical_u64().to_le_bytes());
}

/// Appends the canonical encoding of `value`.
#[cfg(feature = "prover")]
pub(super) fn write_ext(bytes: &mut Vec<u8>, value: Ext) {
    let coefficients: &[Base] = value.as_basis_coefficients_slice();
    coefficients.iter().for_each(|&coefficient| write_base(bytes, coefficient));
}

/// Takes an opening's bytes from front to back.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], PcsError> {
        let end = self.position.saturating_add(count);
        let truncated = PcsError::Truncated { needed: end, found: self.bytes.len() };
        let taken = self.bytes.get(self.position..end).ok_or(truncated)?;
        self.position = end;
        Ok(taken)
    }

    /// The next `count` bytes, and a reader for the elements in them.
    pub(super) fn block(&mut self, count: usize) -> Result<(&'a [u8], Self), PcsError> {
        let start = self.position;
        let block = self.bytes(count)?;
        Ok((block, Self { bytes: &self.bytes[..self.position], position: start }))
    }

    pub(super) fn base(&mut self) -> Result<Base, PcsError> {
        let offset = self.position;
        let mut word = [0; BASE_BYTES];
        word.copy_from_slice(self.bytes(BASE_BYTES)?);
        let found = u64::from_le_bytes(word);
        Base::from_canonical_checked(found).ok_or(PcsError::NotCanonical { offset, found })
    }

    pub(super) fn ext(&mut self) -> Result<Ext, PcsError> {
        let coefficients = [self.base()?, self.base()?];
        Ok(Ext::from_basis_coefficients_fn(|i| coefficients[i]))
    }

    pub(super) fn digest(&mut self) -> Result<Digest, PcsError> {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.bytes(32)?);
        Ok(digest)
    }

    /// Checks that nothing is left.
    pub(super) fn finish(&self) -> Result<(), PcsError> {
        if self.position == self.bytes.len() {
            Ok(())
        } else {
            Err(PcsError::TrailingBytes { expected: self.position, found: self.bytes.len() })
        }
    }
}
