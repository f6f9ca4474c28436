//! Openings by provers who deviate from the protocol and keep everything else consistent with it.

use p3_field::{Field, PackedFieldExtension};

use super::*;
use crate::mle::eq_index;
use crate::pcs::verify;

fn values(num_vars: usize) -> Vec<Base> {
    (0..1u64 << num_vars).map(|i| Base::from_u64(i * i + 5)).collect()
}

fn point(num_vars: usize) -> Vec<Ext> {
    Transcript::new(b"point").challenges(num_vars)
}

fn transcript() -> Transcript {
    Transcript::new(b"test")
}

/// One phase, two and three.
const SIZES: [usize; 3] = [6, 12, 18];

/// A prover that changes what it holds at one of these places.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Before the oracle of the next phase is encoded: the folded polynomial becomes another.
    Folded,
    /// After the oracle is encoded: its out-of-domain value is another polynomial's.
    OutOfDomain,
    /// Before the last polynomial is sent.
    Last,
}

/// An opening of `committed` at `point` whose polynomial becomes another at `place`, in the last phase that has it.
fn open_changing(committed: &Committed, point: &[Ext], place: Place) -> Opening {
    let mut transcript = transcript();
    let mut prover = Prover::new(committed, point, None, &mut transcript);
    let parameters = &committed.parameters;
    let change = |f: &mut Table| {
        let mut values = f.to_vec();
        values[1] += Ext::ONE;
        *f = match f {
            Table::Scalar(_) => Table::Scalar(values),
            Table::Packed(_) => Table::Packed(values.chunks_exact(WIDTH).map(PackedExt::from_ext_slice).collect()),
        };
    };
    let mut sent: Option<Oracle> = None;
    for (phase, next) in (0..).zip(&parameters.phases[1..]) {
        let last = phase + 2 == parameters.phases.len();
        if place == Place::Folded && last {
            change(&mut prover.f);
        }
        let oracle = Oracle::new(message_of(&prover.f, next.fold, next.log_inv_rate), DEGREE << next.fold);
        prover.bytes.extend_from_slice(&oracle.tree.root());
        prover.transcript.absorb_bytes(&oracle.tree.root());
        if place == Place::OutOfDomain && last {
            change(&mut prover.f);
        }
        let ood_point = prover.transcript.challenges(parameters.vars(phase + 1));
        let ood = prover.f.evaluate(&ood_point);
        write_ext(&mut prover.bytes, ood);
        prover.transcript.absorb_ext(&[ood]);
        let rows = prover.answer(phase, sent.as_ref());
        prover.claim(ood_point, &rows, parameters.log_rows(phase));
        prover.sumcheck(next.fold);
        sent = Some(oracle);
    }
    if place == Place::Last {
        change(&mut prover.f);
    }
    let polynomial = prover.f.to_vec();
    polynomial.iter().for_each(|&value| write_ext(&mut prover.bytes, value));
    prover.transcript.absorb_ext(&polynomial);
    prover.answer(parameters.phases.len() - 1, sent.as_ref());
    Opening { bytes: prover.bytes }
}

fn verdict(committed: &Committed, point: &[Ext], value: Ext, opening: &Opening) -> Result<(), PcsError> {
    verify(committed.commitment(), point, value, opening, &mut transcript())
}

#[test]
fn another_polynomial_in_the_middle_is_refused() {
    for num_vars in SIZES {
        let committed = commit(values(num_vars)).unwrap();
        let point = point(num_vars);
        let value = committed.evaluate(&point).unwrap();
        let phases = committed.parameters.phases.len();
        for place in [Place::Folded, Place::OutOfDomain, Place::Last] {
            let opening = open_changing(&committed, &point, place);
            let verdict = verdict(&committed, &point, value, &opening);
            match place {
                _ if phases == 1 && place != Place::Last => assert_eq!(verdict, Ok(())),
                // The rows that were claimed are the honest polynomial's, so the claims contradict each other.
                Place::Folded => assert_eq!(verdict, Err(PcsError::Claim), "2^{num_vars}"),
                // The polynomial sent at the end is not the one behind the last oracle.
                _ => assert!(matches!(verdict, Err(PcsError::FinalPolynomial { .. })), "2^{num_vars}: {verdict:?}"),
            }
        }
    }
}

/// The prover opens values that fit the out-of-domain value, but are not those behind the root.
#[test]
fn other_values_with_the_same_out_of_domain_value_are_refused() {
    for num_vars in SIZES {
        let mut committed = commit(values(num_vars)).unwrap();
        let point = point(num_vars);
        let honest = committed.evaluate(&point).unwrap();
        // Three cells, of which two make up for what the first adds to both coefficients of the value.
        let ood_point = committed.commitment.ood_point();
        let [a, b, c]: [[Base; 2]; 3] = [1, 2, 3].map(|cell| {
            let weight = eq_index(&ood_point, cell);
            let coefficients: &[Base] = weight.as_basis_coefficients_slice();
            [coefficients[0], coefficients[1]]
        });
        let determinant = (b[0] * c[1] - b[1] * c[0]).inverse();
        committed.values[1] += Base::ONE;
        committed.values[2] -= (a[0] * c[1] - a[1] * c[0]) * determinant;
        committed.values[3] -= (b[0] * a[1] - b[1] * a[0]) * determinant;
        assert_eq!(committed.evaluate(&ood_point).unwrap(), committed.commitment.ood);
        let value = committed.evaluate(&point).unwrap();
        assert_ne!(value, honest);
        let opening = Prover::new(&committed, &point, None, &mut transcript()).run();
        let error = verdict(&committed, &point, value, &opening).unwrap_err();
        match committed.parameters.phases.len() {
            1 => assert!(matches!(error, PcsError::FinalPolynomial { .. }), "{error}"),
            _ => assert_eq!(error, PcsError::Claim),
        }
        // All is consistent with these values but the root.
        committed.oracle = commit(committed.values.clone()).unwrap().oracle;
        let opening = Prover::new(&committed, &point, None, &mut transcript()).run();
        assert_eq!(verdict(&committed, &point, value, &opening), Err(PcsError::Rows { phase: 0 }));
    }
}

/// What is committed to is no encoding: coefficients above the degree that the rate allows, or rows of two encodings.
#[test]
fn words_far_from_the_code_are_refused() {
    for num_vars in SIZES {
        let honest = commit(values(num_vars)).unwrap();
        let (first, width) = (honest.parameters.phases[0], honest.oracle.width);
        let point = point(num_vars);
        let value = honest.evaluate(&point).unwrap();
        let mut high: Vec<Base> = Base::zero_vec(honest.oracle.elements.len());
        let other = commit(vec![Base::TWO; 1 << num_vars]).unwrap();
        let half = honest.oracle.elements.len() / 2;
        let mixed = [&honest.oracle.elements[..half], &other.oracle.elements[half..]].concat();
        high[(1 << num_vars) - 1 + width] = Base::ONE;
        let high = DFT.dft_batch(RowMajorMatrix::new(high, width)).values;
        let above = honest.oracle.elements.iter().zip(high).map(|(&element, high)| element + high).collect();
        for elements in [above, mixed] {
            let tree = MerkleTree::new(&elements, width);
            let root = tree.root();
            let oracle = Oracle { elements, width, tree };
            let ood = honest.evaluate(&ood_point(&root, num_vars)).unwrap();
            let commitment = Commitment { root, ood, num_vars };
            let committed =
                Committed { parameters: honest.parameters.clone(), commitment, values: values(num_vars), oracle };
            let opening = Prover::new(&committed, &point, None, &mut transcript()).run();
            let error = verdict(&committed, &point, value, &opening).unwrap_err();
            match committed.parameters.phases.len() {
                1 => assert!(matches!(error, PcsError::FinalPolynomial { .. }), "{error}"),
                _ => assert_eq!(error, PcsError::Claim, "rate 2^-{}", first.log_inv_rate),
            }
        }
    }
}

/// Rows that stand in the tree, but elsewhere.
#[test]
fn rows_from_another_place_of_the_tree_are_refused() {
    for num_vars in SIZES {
        let mut committed = commit(values(num_vars)).unwrap();
        let point = point(num_vars);
        let value = committed.evaluate(&point).unwrap();
        let width = committed.oracle.width;
        // The prover's tree is the honest one; the rows that it takes from it are one behind those asked for.
        committed.oracle.elements.rotate_left(width);
        let opening = Prover::new(&committed, &point, None, &mut transcript()).run();
        assert_eq!(verdict(&committed, &point, value, &opening), Err(PcsError::Rows { phase: 0 }));
    }
}

/// The commitment's out-of-domain point depends on its size: the same root does not stand for vectors of two sizes.
#[test]
fn a_root_is_of_one_size() {
    let committed = commit(values(6)).unwrap();
    let point = point(7);
    let larger = Commitment { num_vars: 7, ..committed.commitment().clone() };
    assert_ne!(larger.ood_point()[..6], committed.commitment().ood_point()[..]);
    let opening = open(&committed, &point[1..], &mut transcript()).unwrap();
    let value = committed.evaluate(&point[1..]).unwrap();
    assert!(verify(&larger, &point, value, &opening, &mut transcript()).is_err());
}

/// What a prover says that is not so, or keeps from the transcript, in one phase of an opening.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// Another polynomial behind the next oracle, of which the sum that is left says the same.
    Folded,
    /// Another root than that of the next oracle.
    Root,
    /// Another out-of-domain value of the next oracle.
    OutOfDomain,
    /// A nonce that shows no work.
    Nonce,
    /// Another round's polynomial in the next phase's sumcheck.
    Round,
    /// Another last polynomial, of which the sum that is left says the same.
    Last,
    /// The next root is not absorbed.
    SilentRoot,
    /// The out-of-domain value is not absorbed.
    SilentValue,
    /// The last polynomial is not absorbed.
    SilentLast,
}

impl Prover<'_> {
    /// Changes the polynomial so that what the claims weigh it with gives the same sum.
    fn change_unweighed(&mut self) {
        let (mut values, weights) = (self.f.to_vec(), self.w.to_vec());
        values[1] += weights[0];
        values[0] -= weights[1];
        self.f = Table::new(values);
    }

    /// [`Self::answer`] behind a nonce that shows no work.
    fn answer_idly(&mut self, phase: usize, sent: Option<&Oracle>) -> Vec<usize> {
        let (parameters, log_rows) =
            (self.committed.parameters.phases[phase], self.committed.parameters.log_rows(phase));
        let idle = |&nonce: &Base| !self.transcript.clone().check_nonce(parameters.grinding, nonce);
        let nonce = (0..).map(Base::from_u64).find(idle).unwrap();
        assert!(!self.transcript.check_nonce(parameters.grinding, nonce));
        write_base(&mut self.bytes, nonce);
        let rows = draw_rows(parameters.queries, log_rows, self.transcript);
        sent.unwrap_or(&self.committed.oracle).write_rows(&rows, &mut self.bytes);
        rows
    }
}

/// An opening that is honest but for one lie, told in phase `at`.
fn open_lying(committed: &Committed, point: &[Ext], (at, lie): (usize, Lie)) -> Opening {
    let mut transcript = transcript();
    let mut prover = Prover::new(committed, point, None, &mut transcript);
    let parameters = &committed.parameters;
    let last = parameters.phases.len() - 1;
    let mut sent: Option<Oracle> = None;
    for (phase, next) in (0..).zip(&parameters.phases[1..]) {
        let told = |told| phase == at && lie == told;
        if told(Lie::Folded) {
            prover.change_unweighed();
        }
        let oracle = Oracle::new(message_of(&prover.f, next.fold, next.log_inv_rate), DEGREE << next.fold);
        let mut root = oracle.tree.root();
        root[7] ^= u8::from(told(Lie::Root));
        prover.bytes.extend_from_slice(&root);
        if !told(Lie::SilentRoot) {
            prover.transcript.absorb_bytes(&root);
        }
        let ood_point = prover.transcript.challenges(parameters.vars(phase + 1));
        let mut ood = prover.f.evaluate(&ood_point);
        if told(Lie::OutOfDomain) {
            ood += Ext::ONE;
        }
        write_ext(&mut prover.bytes, ood);
        if !told(Lie::SilentValue) {
            prover.transcript.absorb_ext(&[ood]);
        }
        let rows = if told(Lie::Nonce) {
            prover.answer_idly(phase, sent.as_ref())
        } else {
            prover.answer(phase, sent.as_ref())
        };
        prover.claim(ood_point, &rows, parameters.log_rows(phase));
        if told(Lie::Round) {
            let mut round = message([&prover.f, &prover.w], &Product);
            round[0] += Ext::ONE;
            let challenge = send_message(round, &mut prover.bytes, prover.transcript);
            prover.f.bind(challenge);
            prover.w.bind(challenge);
            prover.sumcheck(next.fold - 1);
        } else {
            prover.sumcheck(next.fold);
        }
        sent = Some(oracle);
    }
    if lie == Lie::Last {
        prover.change_unweighed();
    }
    let polynomial = prover.f.to_vec();
    polynomial.iter().for_each(|&value| write_ext(&mut prover.bytes, value));
    if lie != Lie::SilentLast {
        prover.transcript.absorb_ext(&polynomial);
    }
    if (at, lie) == (last, Lie::Nonce) {
        prover.answer_idly(last, sent.as_ref());
    } else {
        prover.answer(last, sent.as_ref());
    }
    Opening { bytes: prover.bytes }
}

#[test]
fn a_lie_in_any_phase_is_refused() {
    for num_vars in SIZES {
        let committed = commit(values(num_vars)).unwrap();
        let point = point(num_vars);
        let value = committed.evaluate(&point).unwrap();
        let verdict = |at, lie| verdict(&committed, &point, value, &open_lying(&committed, &point, (at, lie)));
        let last = committed.parameters.phases.len() - 1;
        for phase in 0..last {
            for lie in [Lie::Folded, Lie::OutOfDomain, Lie::Round] {
                assert_eq!(verdict(phase, lie), Err(PcsError::Claim), "2^{num_vars}, {phase}, {lie:?}");
            }
            assert_eq!(verdict(phase, Lie::Root), Err(PcsError::Rows { phase: phase + 1 }), "2^{num_vars}");
            for lie in [Lie::SilentRoot, Lie::SilentValue] {
                // All challenges behind are others, the first of them the one that the nonce is for.
                let verdict = verdict(phase, lie);
                assert!(verdict.is_err(), "2^{num_vars}, {phase}, {lie:?}");
            }
        }
        for phase in 0..=last {
            let bits = committed.parameters.phases[phase].grinding;
            assert_eq!(verdict(phase, Lie::Nonce), Err(PcsError::Nonce { phase, bits }), "2^{num_vars}");
        }
        let error = verdict(last, Lie::Last).unwrap_err();
        assert!(matches!(error, PcsError::FinalPolynomial { .. }), "2^{num_vars}: {error}");
        let error = verdict(last, Lie::SilentLast).unwrap_err();
        assert!(matches!(error, PcsError::Nonce { .. } | PcsError::Rows { .. }), "2^{num_vars}: {error}");
    }
}
