//! The Fiat-Shamir transcript, used identically by prover and verifier.
//!
//! Every challenge is the hash (Blake3, 256 bits) of everything absorbed before it. Field elements are absorbed in their
//! one canonical encoding (8 bytes, little endian, below the modulus), byte strings with their length, so that two
//! different histories never hash to the same input.

use p3_blake3::Blake3;
use p3_challenger::{
    CanObserve, CanSample, CanSampleBits, GrindingChallenger, HashChallenger, SerializingChallenger64,
};
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing};

use crate::field::{Base, Ext};

/// A challenger over bytes.
type Challenger = SerializingChallenger64<Base, HashChallenger<u8, Blake3, 32>>;

/// Absorbs what was sent and yields the challenges that depend on it.
#[derive(Clone, Debug)]
pub struct Transcript {
    challenger: Challenger,
}

impl Transcript {
    /// A transcript whose challenges are for `domain` alone.
    pub fn new(domain: &[u8]) -> Self {
        let mut transcript = Self { challenger: Challenger::from_hasher(Vec::new(), Blake3) };
        transcript.absorb_bytes(b"shardproof-gkr transcript 1");
        transcript.absorb_bytes(domain);
        transcript
    }

    /// Absorbs a byte string and its length.
    pub fn absorb_bytes(&mut self, bytes: &[u8]) {
        self.absorb_length(bytes.len());
        // The sponge takes field elements or digests; four bytes always make a canonical element.
        for part in bytes.chunks(4) {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            self.challenger.observe(Base::from_u64(u64::from(u32::from_le_bytes(word))));
        }
    }

    /// Absorbs base field elements; how many must follow from what both sides know.
    pub fn absorb_base(&mut self, values: &[Base]) {
        self.challenger.observe_slice(values);
    }

    /// Absorbs extension field elements; how many must follow from what both sides know.
    pub fn absorb_ext(&mut self, values: &[Ext]) {
        for value in values {
            let coefficients: &[Base] = value.as_basis_coefficients_slice();
            self.challenger.observe_slice(coefficients);
        }
    }

    /// A challenge, uniform over the extension field.
    pub fn challenge(&mut self) -> Ext {
        self.challenger.sample()
    }

    /// `n` challenges.
    pub fn challenges(&mut self, n: usize) -> Vec<Ext> {
        (0..n).map(|_| self.challenge()).collect()
    }

    /// A uniform index below `2^bits`.
    ///
    /// # Panics
    /// When `bits` is 63 or more; it is a logarithm of a domain's size.
    pub fn index(&mut self, bits: usize) -> usize {
        self.challenger.sample_bits(bits)
    }

    /// Searches a nonce that makes `bits` bits of the next hash zero, and absorbs it.
    #[cfg(feature = "prover")]
    pub fn grind(&mut self, bits: usize) -> Base {
        self.challenger.grind(bits)
    }

    /// Absorbs a nonce; whether it makes `bits` bits of the next hash zero.
    #[must_use]
    pub fn check_nonce(&mut self, bits: usize, nonce: Base) -> bool {
        self.challenger.check_witness(bits, nonce)
    }

    fn absorb_length(&mut self, length: usize) {
        // A length is far below the modulus.
        self.challenger.observe(Base::from_u64(length as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_history_gives_the_same_challenges() {
        let run = || {
            let mut transcript = Transcript::new(b"test");
            transcript.absorb_bytes(b"hello world");
            transcript.absorb_ext(&[Ext::from_u64(7)]);
            (transcript.challenges(3), transcript.index(20))
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn every_part_of_the_history_counts() {
        let challenge = |domain: &[u8], parts: &[&[u8]], base: u64, ext: u64| {
            let mut transcript = Transcript::new(domain);
            parts.iter().for_each(|part| transcript.absorb_bytes(part));
            transcript.absorb_base(&[Base::from_u64(base)]);
            transcript.absorb_ext(&[Ext::from_u64(ext)]);
            transcript.challenge()
        };
        let reference = challenge(b"a", &[b"bc", b"d"], 1, 2);
        assert_ne!(reference, challenge(b"b", &[b"bc", b"d"], 1, 2));
        assert_ne!(reference, challenge(b"a", &[b"b", b"cd"], 1, 2));
        assert_ne!(reference, challenge(b"a", &[b"bcd"], 1, 2));
        assert_ne!(reference, challenge(b"a", &[b"bc", b"d", b""], 1, 2));
        assert_ne!(reference, challenge(b"a", &[b"bc\0", b"d"], 1, 2));
        assert_ne!(reference, challenge(b"a", &[b"bc", b"d"], 3, 2));
        assert_ne!(reference, challenge(b"a", &[b"bc", b"d"], 1, 3));
    }

    #[test]
    fn successive_challenges_differ() {
        let mut transcript = Transcript::new(b"test");
        let challenges = transcript.challenges(8);
        for (i, challenge) in challenges.iter().enumerate() {
            assert!(!challenges[..i].contains(challenge));
        }
    }

    #[test]
    #[cfg(feature = "prover")]
    fn a_nonce_is_bound_and_checked() {
        let start = Transcript::new(b"test");
        let (mut prover, mut verifier, mut other) = (start.clone(), start.clone(), start);
        let nonce = prover.grind(10);
        assert!(verifier.check_nonce(10, nonce));
        assert_eq!(prover.challenge(), verifier.challenge());
        assert!(!other.check_nonce(10, nonce + Base::ONE) || other.challenge() != prover.challenge());
    }
}
