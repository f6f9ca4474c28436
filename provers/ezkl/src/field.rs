//! Elements of the scalar field of BN254 as ezkl writes them, and the integers that they stand for.
//!
//! An element has exactly one text: 64 lower-case hexadecimal digits, little-endian, below the modulus. Everything else is
//! refused here, before ezkl sees it, so that no two encodings of one value can pass for each other. Integers are the
//! representatives nearest to zero.

use thiserror::Error;

/// The field's order r, least significant limb first.
const MODULUS: [u64; 4] = [0x43e1_f593_f000_0001, 0x2833_e848_79b9_7091, 0xb850_45b6_8181_585d, 0x3064_4e72_e131_a029];

/// A canonical element, 32 bytes little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Felt([u8; 32]);

/// Why something is no field element, or no integer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FeltError {
    /// Another number of bytes than 32.
    #[error("a field element has 32 bytes, found {found}")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// Something other than lower-case hexadecimal digits.
    #[error("a field element is written in lower-case hexadecimal digits")]
    NotHex,
    /// At or above the modulus.
    #[error("not a canonical field element: it is not below the modulus")]
    NotCanonical,
    /// Outside the integers that cross boundaries.
    #[error("the field element stands for no integer of 64 bits")]
    NotInteger,
}

impl Felt {
    /// The element with these little-endian bytes.
    ///
    /// # Errors
    /// When there are not 32 of them, or the value is not below the modulus.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FeltError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| FeltError::Length { found: bytes.len() })?;
        if below(&limbs_of(&bytes), &MODULUS) { Ok(Self(bytes)) } else { Err(FeltError::NotCanonical) }
    }

    /// Reads the one text form.
    ///
    /// # Errors
    /// When it is any other text.
    pub fn from_hex(text: &str) -> Result<Self, FeltError> {
        if text.len() != 64 {
            return Err(FeltError::Length { found: text.len() / 2 });
        }
        if text.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(FeltError::NotHex);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| FeltError::NotHex)?;
        Self::from_bytes(&bytes)
    }

    /// The little-endian bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The one text form.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// The integer nearest to zero that the element stands for.
    ///
    /// # Errors
    /// When it needs more than 64 bits.
    pub fn to_i64(self) -> Result<i64, FeltError> {
        let limbs = limbs_of(&self.0);
        if limbs[1..] == [0; 3] {
            return i64::try_from(limbs[0]).map_err(|_| FeltError::NotInteger);
        }
        let distance = subtract(&MODULUS, &limbs);
        if distance[1..] != [0; 3] || distance[0] > 1 << 63 {
            return Err(FeltError::NotInteger);
        }
        Ok((distance[0] as i64).wrapping_neg())
    }
}

impl From<i64> for Felt {
    fn from(value: i64) -> Self {
        let magnitude = [value.unsigned_abs(), 0, 0, 0];
        let limbs = if value < 0 { subtract(&MODULUS, &magnitude) } else { magnitude };
        let mut bytes = [0; 32];
        bytes.chunks_exact_mut(8).zip(limbs).for_each(|(chunk, limb)| chunk.copy_from_slice(&limb.to_le_bytes()));
        Self(bytes)
    }
}

fn limbs_of(bytes: &[u8; 32]) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
        *limb = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
    }
    limbs
}

fn below(a: &[u64; 4], b: &[u64; 4]) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

/// `a - b` for `b <= a`.
fn subtract(a: &[u64; 4], b: &[u64; 4]) -> [u64; 4] {
    let mut borrow = false;
    std::array::from_fn(|i| {
        let (difference, first) = a[i].overflowing_sub(b[i]);
        let (difference, second) = difference.overflowing_sub(u64::from(borrow));
        borrow = first || second;
        difference
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODULUS_HEX: &str = "010000f093f5e1439170b97948e833285d588181b64550b829a031e1724e6430";

    #[test]
    fn encodings_are_pinned() {
        assert_eq!(Felt::from(1).to_hex(), format!("01{}", "00".repeat(31)));
        assert_eq!(Felt::from(-1).to_hex(), "000000f093f5e1439170b97948e833285d588181b64550b829a031e1724e6430");
    }

    #[test]
    fn everything_but_the_canonical_text_is_refused() {
        assert_eq!(Felt::from_hex(MODULUS_HEX), Err(FeltError::NotCanonical));
        assert_eq!(Felt::from_hex(&"ff".repeat(32)), Err(FeltError::NotCanonical));
        assert_eq!(Felt::from_hex(&"0A".repeat(32)), Err(FeltError::NotHex));
        assert_eq!(Felt::from_hex(&"0g".repeat(32)), Err(FeltError::NotHex));
        assert_eq!(Felt::from_hex("00"), Err(FeltError::Length { found: 1 }));
        assert_eq!(Felt::from_bytes(&[0; 33]), Err(FeltError::Length { found: 33 }));
    }

    #[test]
    fn integers_beyond_64_bits_are_refused() {
        let mut bytes = [0; 32];
        bytes[8] = 1;
        assert_eq!(Felt::from_bytes(&bytes).unwrap().to_i64(), Err(FeltError::NotInteger));
        bytes = [0; 32];
        bytes[7] = 0x80;
        assert_eq!(Felt::from_bytes(&bytes).unwrap().to_i64(), Err(FeltError::NotInteger));
        for extreme in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
            assert_eq!(Felt::from(extreme).to_i64(), Ok(extreme));
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(value: i64) {
            let felt = Felt::from(value);
            prop_assert_eq!(felt.to_i64(), Ok(value));
            prop_assert_eq!(Felt::from_hex(&felt.to_hex()), Ok(felt));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,80}") {
            let _ = Felt::from_hex(&text);
        }
    }
}
