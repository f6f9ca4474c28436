//! Checks openings.

use p3_field::PrimeCharacteristicRing;

use super::encoding::{BASE_BYTES, EXT_BYTES, Reader};
use super::merkle::{self, Digest};
use super::weight::{Weight, evaluate, horner};
use super::{Commitment, Opening, Parameters, PcsError, draw_rows, start_opening};
use crate::field::Ext;
use crate::transcript::Transcript;

/// A claim that waits for the final polynomial.
struct Claim {
    weight: Weight,
    coefficient: Ext,
    /// Variables bound before the claim was made.
    start: usize,
}

struct Verifier<'a> {
    parameters: Parameters,
    reader: Reader<'a>,
    transcript: &'a mut Transcript,
    claims: Vec<Claim>,
    /// What the claims, weighted by their coefficients, add up to.
    sum: Ext,
    /// Where the variables are bound so far.
    bound: Vec<Ext>,
}

/// Checks that `value` is the committed polynomial's at `point`.
///
/// The transcript must have absorbed everything that `point` depends on; commitment, point and value are absorbed here.
///
/// # Errors
/// The reason why the opening is refused.
pub fn verify(
    commitment: &Commitment,
    point: &[Ext],
    value: Ext,
    opening: &Opening,
    transcript: &mut Transcript,
) -> Result<(), PcsError> {
    let parameters = Parameters::for_size(commitment.num_vars)?;
    if point.len() != commitment.num_vars {
        return Err(PcsError::PointDimension { expected: commitment.num_vars, found: point.len() });
    }
    start_opening(&parameters, commitment, point, value, transcript);
    let reader = Reader::new(&opening.bytes);
    let mut verifier =
        Verifier { parameters, reader, transcript, claims: Vec::new(), sum: Ext::ZERO, bound: Vec::new() };
    verifier
        .claim(vec![(Weight::Point(point.to_vec()), value), (Weight::Point(commitment.ood_point()), commitment.ood)]);
    verifier.run(commitment.root)
}

impl Verifier<'_> {
    fn run(mut self, mut root: Digest) -> Result<(), PcsError> {
        let last = self.parameters.phases.len() - 1;
        for phase in 0..last {
            self.sumcheck(phase)?;
            let next_root = self.reader.digest()?;
            self.transcript.absorb_bytes(&next_root);
            let ood_point = self.transcript.challenges(self.parameters.vars(phase + 1));
            let ood = self.reader.ext()?;
            self.transcript.absorb_ext(&[ood]);
            let rows = self.query(phase, root)?;
            let log_rows = self.parameters.log_rows(phase);
            let mut claims = vec![(Weight::Point(ood_point), ood)];
            claims.extend(rows.into_iter().map(|(row, folded)| (Weight::row(row, log_rows), folded)));
            self.claim(claims);
            root = next_root;
        }
        self.sumcheck(last)?;
        let values = (0..1 << self.parameters.final_vars()).map(|_| self.reader.ext());
        let polynomial: Vec<Ext> = values.collect::<Result<_, _>>()?;
        self.transcript.absorb_ext(&polynomial);
        let rows = self.query(last, root)?;
        self.reader.finish()?;
        self.conclude(&polynomial, &rows)
    }

    /// Adds claims with successive powers of one challenge; the sum so far has power 0 unless it is empty.
    fn claim(&mut self, claims: Vec<(Weight, Ext)>) {
        let challenge = self.transcript.challenge();
        let mut coefficient = if self.claims.is_empty() { Ext::ONE } else { challenge };
        for (weight, value) in claims {
            self.sum += coefficient * value;
            self.claims.push(Claim { weight, coefficient, start: self.bound.len() });
            coefficient *= challenge;
        }
    }

    /// Binds the variables of a phase. A round's polynomial h has degree 2 and is sent as `h(0)` and its leading
    /// coefficient; `h(1)` is what the sum asks for.
    fn sumcheck(&mut self, phase: usize) -> Result<(), PcsError> {
        for _ in 0..self.parameters.phases[phase].fold {
            let (constant, leading) = (self.reader.ext()?, self.reader.ext()?);
            self.transcript.absorb_ext(&[constant, leading]);
            let challenge = self.transcript.challenge();
            let linear = self.sum - constant.double() - leading;
            self.sum = constant + challenge * (linear + challenge * leading);
            self.bound.push(challenge);
        }
        Ok(())
    }

    /// Reads the rows drawn from an oracle and folds them at the phase's challenges.
    fn query(&mut self, phase: usize, root: Digest) -> Result<Vec<(usize, Ext)>, PcsError> {
        let parameters = self.parameters.phases[phase];
        if parameters.grinding > 0 {
            let nonce = self.reader.base()?;
            if !self.transcript.check_nonce(parameters.grinding, nonce) {
                return Err(PcsError::Nonce { phase, bits: parameters.grinding });
            }
        }
        let log_rows = self.parameters.log_rows(phase);
        let rows = draw_rows(parameters.queries, log_rows, self.transcript);
        let width = 1 << parameters.fold;
        let row_bytes = width * if phase == 0 { BASE_BYTES } else { EXT_BYTES };
        let (bytes, mut elements) = self.reader.block(rows.len() * row_bytes)?;
        let mut leaves = vec![[0; 32]; rows.len()];
        merkle::hash_messages(bytes, &mut leaves);
        let leaves = rows.iter().copied().zip(leaves).collect();
        if merkle::root(leaves, log_rows, &mut self.reader)? != Some(root) {
            return Err(PcsError::Rows { phase });
        }
        let point = &self.bound[self.bound.len() - parameters.fold..];
        let fold = |row| {
            let element = |_| if phase == 0 { elements.base().map(Ext::from) } else { elements.ext() };
            let values: Vec<Ext> = (0..width).map(element).collect::<Result<_, _>>()?;
            Ok((row, evaluate(values, point)))
        };
        rows.into_iter().map(fold).collect()
    }

    /// Checks the last rows and all claims on the final polynomial.
    fn conclude(&self, polynomial: &[Ext], rows: &[(usize, Ext)]) -> Result<(), PcsError> {
        let last = self.parameters.phases.len() - 1;
        for &(row, folded) in rows {
            let Weight::Power(z) = Weight::row(row, self.parameters.log_rows(last)) else { continue };
            if horner(polynomial, z) != folded {
                return Err(PcsError::FinalPolynomial { row });
            }
        }
        let vars = self.parameters.num_vars;
        let terms = self.claims.iter().map(|claim| {
            let value = claim.weight.apply(vars - claim.start, &self.bound[claim.start..], polynomial);
            claim.coefficient * value
        });
        if terms.sum::<Ext>() == self.sum { Ok(()) } else { Err(PcsError::Claim) }
    }
}
