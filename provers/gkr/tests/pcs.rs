//! Commitments opened and checked, and every reason to refuse an opening.
#![cfg(feature = "prover")]

use p3_field::{BasedVectorSpace, PrimeCharacteristicRing};
use shardproof_gkr::field::{Base, Ext};
use shardproof_gkr::pcs::{self, Commitment, Committed, Opening, PcsError};
use shardproof_gkr::transcript::Transcript;

fn values(count: usize) -> Vec<Base> {
    let next = |state: &u64| Some(state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f));
    std::iter::successors(Some(7), next).take(count).map(|state: u64| Base::from_u64(state >> 1)).collect()
}

fn point(num_vars: usize) -> Vec<Ext> {
    let words = values(2 * num_vars);
    words.chunks_exact(2).map(|pair| Ext::from_basis_coefficients_fn(|i| pair[i])).collect()
}

/// By the definition: coordinate 0 belongs to the most significant bit.
fn evaluate(values: &[Base], point: &[Ext]) -> Ext {
    let term = |(index, &value): (usize, &Base)| {
        let bits = point.iter().rev().enumerate();
        bits.fold(Ext::from(value), |product, (bit, &x)| product * if index >> bit & 1 == 1 { x } else { Ext::ONE - x })
    };
    values.iter().enumerate().map(term).sum()
}

fn transcript() -> Transcript {
    Transcript::new(b"test")
}

fn open(count: usize) -> (Committed, Vec<Ext>, Ext, Opening) {
    let committed = pcs::commit(values(count)).expect("the size is supported");
    let point = point(committed.commitment().num_vars);
    let value = evaluate(committed.values(), &point);
    let opening = pcs::open(&committed, &point, &mut transcript()).expect("the point fits");
    (committed, point, value, opening)
}

fn verify(committed: &Committed, point: &[Ext], value: Ext, opening: &Opening) -> Result<(), PcsError> {
    pcs::verify(committed.commitment(), point, value, opening, &mut transcript())
}

#[test]
fn honest_openings_verify() {
    for num_vars in 6..=18 {
        let (committed, point, value, opening) = open(1 << num_vars);
        assert_eq!(committed.commitment().num_vars, num_vars);
        assert_eq!(verify(&committed, &point, value, &opening), Ok(()), "2^{num_vars}");
    }
}

#[test]
fn short_vectors_are_padded() {
    for count in [0, 1, 5, 64, 65, 1000] {
        let (committed, point, value, opening) = open(count);
        assert_eq!(committed.values().len(), count.next_power_of_two().max(64));
        assert_eq!(committed.values()[..count], values(count));
        assert_eq!(verify(&committed, &point, value, &opening), Ok(()), "{count} values");
    }
}

#[test]
fn a_commitment_is_opened_many_times() {
    let committed = pcs::commit(values(300)).unwrap();
    let mut prover = transcript();
    let mut verifier = transcript();
    for _ in 0..3 {
        let point = prover.challenges(committed.commitment().num_vars);
        assert_eq!(point, verifier.challenges(point.len()));
        let value = committed.evaluate(&point).unwrap();
        assert_eq!(value, evaluate(committed.values(), &point));
        let opening = pcs::open(&committed, &point, &mut prover).unwrap();
        pcs::verify(committed.commitment(), &point, value, &opening, &mut verifier).unwrap();
    }
    assert_eq!(prover.challenge(), verifier.challenge());
}

#[test]
fn openings_are_reproducible() {
    assert_eq!(open(1 << 14).3, open(1 << 14).3);
}

#[test]
fn sizes_without_parameters_are_refused() {
    let (committed, point, value, opening) = open(64);
    for num_vars in [0, 5, 27, 64, usize::MAX] {
        let commitment = Commitment { num_vars, ..committed.commitment().clone() };
        let result = pcs::verify(&commitment, &point, value, &opening, &mut transcript());
        assert_eq!(result, Err(PcsError::UnsupportedSize { num_vars, min: 6, max: 26 }));
    }
}

#[test]
fn points_of_another_dimension_are_refused() {
    let (committed, point, value, opening) = open(1 << 10);
    let error = Err(PcsError::PointDimension { expected: 10, found: 9 });
    assert_eq!(verify(&committed, &point[1..], value, &opening), error);
    assert_eq!(pcs::open(&committed, &point[1..], &mut transcript()).map(|_| ()), error);
    assert_eq!(committed.evaluate(&point[1..]).map(|_| ()), error);
}

#[test]
fn an_opening_is_for_one_commitment_point_value_and_transcript() {
    for count in [64, 1 << 12] {
        let (committed, point, value, opening) = open(count);
        let commitment = committed.commitment();
        let refused = |commitment: &Commitment, point: &[Ext], value: Ext, domain: &[u8]| {
            pcs::verify(commitment, point, value, &opening, &mut Transcript::new(domain)).is_err()
        };
        assert!(!refused(commitment, &point, value, b"test"));
        assert!(refused(commitment, &point, value, b"another"));
        assert!(refused(commitment, &point, value + Ext::ONE, b"test"));
        for coordinate in [0, point.len() - 1] {
            let mut other = point.clone();
            other[coordinate] += Ext::ONE;
            assert!(refused(commitment, &other, value, b"test"));
        }
        let mut other = commitment.clone();
        other.root[31] ^= 1;
        assert!(refused(&other, &point, value, b"test"));
        let other = Commitment { ood: commitment.ood + Ext::ONE, ..commitment.clone() };
        assert!(refused(&other, &point, value, b"test"));
        let other = pcs::commit(vec![Base::ONE; count]).unwrap();
        assert!(refused(other.commitment(), &point, value, b"test"));
    }
}

#[test]
fn truncated_and_extended_openings_are_refused() {
    for count in [64, 1 << 12] {
        let (committed, point, value, opening) = open(count);
        let bytes = opening.as_bytes();
        let step = bytes.len() / 300 + 1;
        for length in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let error = verify(&committed, &point, value, &Opening::from_bytes(bytes[..length].to_vec())).unwrap_err();
            assert!(matches!(error, PcsError::Truncated { found, .. } if found == length), "{length}: {error}");
        }
        let extended = [bytes, &[0]].concat();
        let error = PcsError::TrailingBytes { expected: bytes.len(), found: bytes.len() + 1 };
        assert_eq!(verify(&committed, &point, value, &Opening::from_bytes(extended)), Err(error));
    }
}

/// For 2^6 values: three rounds of two elements, eight elements of the final polynomial, a nonce, rows, siblings.
const NONCE: usize = 3 * 32 + 8 * 16;

fn altered(opening: &Opening, position: usize, alter: impl Fn(u8) -> u8) -> Opening {
    let mut bytes = opening.as_bytes().to_vec();
    bytes[position] = alter(bytes[position]);
    Opening::from_bytes(bytes)
}

#[test]
fn every_altered_byte_is_refused() {
    for (count, step) in [(64, 1), (1 << 12, 113)] {
        let (committed, point, value, opening) = open(count);
        for position in (0..opening.as_bytes().len()).step_by(step) {
            for mask in [0x01, 0x80, 0xff] {
                let other = altered(&opening, position, |byte| byte ^ mask);
                assert!(verify(&committed, &point, value, &other).is_err(), "byte {position} xor {mask:#x}");
            }
        }
    }
}

#[test]
fn words_beyond_the_modulus_are_refused() {
    let (committed, point, value, opening) = open(64);
    for offset in [0, 24, 3 * 32, NONCE] {
        let mut bytes = opening.as_bytes().to_vec();
        bytes[offset..offset + 8].copy_from_slice(&0xffff_ffff_0000_0001u64.to_le_bytes());
        let error = PcsError::NotCanonical { offset, found: 0xffff_ffff_0000_0001 };
        assert_eq!(verify(&committed, &point, value, &Opening::from_bytes(bytes)), Err(error));
    }
}

#[test]
fn a_nonce_without_work_is_refused() {
    let (committed, point, value, opening) = open(64);
    let other = altered(&opening, NONCE + 5, |byte| byte ^ 1);
    assert_eq!(verify(&committed, &point, value, &other), Err(PcsError::Nonce { phase: 0, bits: 12 }));
}

#[test]
fn altered_rows_and_siblings_are_refused() {
    let (committed, point, value, opening) = open(64);
    for position in [NONCE + 8, opening.as_bytes().len() - 1] {
        let other = altered(&opening, position, |byte| byte ^ 1);
        assert_eq!(verify(&committed, &point, value, &other), Err(PcsError::Rows { phase: 0 }));
    }
}

#[test]
fn openings_survive_serialisation() {
    let (committed, point, value, opening) = open(1 << 10);
    let bytes = postcard::to_stdvec(&(committed.commitment(), &opening)).unwrap();
    let (commitment, decoded): (Commitment, Opening) = postcard::from_bytes(&bytes).unwrap();
    assert_eq!((&commitment, &decoded), (committed.commitment(), &opening));
    pcs::verify(&commitment, &point, value, &decoded, &mut transcript()).unwrap();
}
