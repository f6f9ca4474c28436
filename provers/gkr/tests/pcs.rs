//! Commitments opened and checked, and every reason to refuse an opening.
#![cfg(feature = "prover")]

use p3_field::{BasedVectorSpace, PrimeCharacteristicRing};
use shardproof_gkr::field::{Base, Ext};
use shardproof_gkr::pcs::{self, Committed, Opening, PcsError};
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
    let committed = pcs::commit(values(count)).unwrap();
    let point = point(committed.commitment().num_vars);
    let value = evaluate(committed.values(), &point);
    let opening = pcs::open(&committed, &point, &mut transcript()).unwrap();
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
