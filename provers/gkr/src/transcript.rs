//! The Fiat-Shamir transcript, used identically by prover and verifier.
//!
//! Every challenge is the hash (Blake3, 256 bits) of everything absorbed before it. Field elements are absorbed in their
//! one canonical encoding (8 bytes, little endian, below the modulus), byte strings with their length, so that two
//! different histories never hash to the same input.

use std::ops::Range;

use p3_blake3::Blake3;
use p3_challenger::{CanObserve, CanSample, CanSampleBits, HashChallenger, SerializingChallenger64};
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField64};
use p3_symmetric::CryptographicHasher;
#[cfg(feature = "prover")]
use rayon::prelude::*;

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

    /// Names the history so far.
    pub fn seal(&mut self) -> [u8; 32] {
        let mut seal = [0; 32];
        for bytes in seal.chunks_exact_mut(8) {
            let element: Base = self.challenger.sample();
            bytes.copy_from_slice(&element.as_canonical_u64().to_le_bytes());
        }
        seal
    }

    /// Searches the least nonce that shows `bits` bits of work, and absorbs it.
    #[cfg(feature = "prover")]
    pub fn grind(&mut self, bits: usize) -> Base {
        let work = Work::new(self, bits);
        let batch = |index: u64| work.search(index * Work::BATCH..(index + 1) * Work::BATCH);
        // As many batches at a time as are likely to hold a nonce; the least is taken, so that proofs are reproducible.
        let round = ((1 << bits) / Work::BATCH).max(1);
        let rounds = (0..).step_by(round as usize).find_map(|first: u64| {
            if round == 1 { batch(first) } else { (first..first + round).into_par_iter().find_map_first(batch) }
        });
        let nonce = Base::from_u64(rounds.expect("some nonce below 2^64 shows 63 bits of work or fewer"));
        self.absorb_base(&[nonce]);
        nonce
    }

    /// Absorbs a nonce; whether it shows `bits` bits of work.
    #[must_use]
    pub fn check_nonce(&mut self, bits: usize, nonce: Base) -> bool {
        let work = Work::new(self, bits);
        let number = nonce.as_canonical_u64();
        self.absorb_base(&[nonce]);
        work.search(number..number.saturating_add(1)) == Some(number)
    }

    fn absorb_length(&mut self, length: usize) {
        // A length is far below the modulus.
        self.challenger.observe(Base::from_u64(length as u64));
    }
}

/// A nonce shows n bits of work when the hash of the history and the nonce ends in n zeros.
///
/// What is hashed is one block of the hash function, so that many nonces are tried at a time.
struct Work {
    seed: [Base; 4],
    mask: u64,
}

impl Work {
    /// Nonces hashed at a time.
    const BATCH: u64 = 256;

    fn new(transcript: &mut Transcript, bits: usize) -> Self {
        let seed = std::array::from_fn(|_| transcript.challenger.sample());
        Self { seed, mask: (1 << bits) - 1 }
    }

    /// The first of at most [`Self::BATCH`] nonces that will do.
    fn search(&self, nonces: Range<u64>) -> Option<u64> {
        let mut template = [0; 64];
        for (bytes, element) in template.chunks_exact_mut(8).zip(self.seed) {
            bytes.copy_from_slice(&element.as_canonical_u64().to_le_bytes());
        }
        let mut messages = Vec::with_capacity(64 * Self::BATCH as usize);
        for nonce in nonces.clone() {
            template[32..40].copy_from_slice(&nonce.to_le_bytes());
            messages.extend_from_slice(&template);
        }
        let mut digests = vec![[0; 32]; messages.len() / 64];
        Blake3.hash_many(&messages, &mut digests);
        let shows_work = |digest: &[u8; 32]| {
            let (word, _) = digest.split_first_chunk::<8>().unwrap_or((&[0xff; 8], &[]));
            u64::from_le_bytes(*word) & self.mask == 0
        };
        nonces.zip(&digests).find(|(_, digest)| shows_work(digest)).map(|(nonce, _)| nonce)
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
        for bits in [1, 8, 12] {
            let (mut prover, mut verifier, mut other) = (start.clone(), start.clone(), Transcript::new(b"other"));
            let nonce = prover.grind(bits);
            assert!(verifier.check_nonce(bits, nonce));
            assert_eq!(prover.challenge(), verifier.challenge());
            let least =
                (0..nonce.as_canonical_u64()).all(|less| !start.clone().check_nonce(bits, Base::from_u64(less)));
            assert!(least, "a lesser nonce shows {bits} bits of work");
            assert_ne!(other.grind(bits), nonce);
            assert_ne!(other.challenge(), verifier.challenge());
        }
    }
}
