//! Commits and opens.

use std::sync::LazyLock;

use p3_dft::{Radix2DFTSmallBatch, TwoAdicSubgroupDft};
use p3_field::{BasedVectorSpace, PackedValue, PrimeCharacteristicRing};
use p3_matrix::dense::{RowMajorMatrix, RowMajorMatrixView, RowMajorMatrixViewMut};
use rayon::prelude::*;

use super::encoding::{write_base, write_ext};
use super::merkle::MerkleTree;
use super::weight::Weight;
use super::{Commitment, Opening, Parameters, PcsError, draw_rows, ood_point, start_opening};
use crate::field::{Base, Ext, PackedBase, PackedExt, WIDTH, lanes_sum};
use crate::mle::eq_table;
use crate::sumcheck::{Product, message};
use crate::table::{Table, eq_blocks};
use crate::transcript::Transcript;

/// Roots of unity are computed once for all transforms.
static DFT: LazyLock<Radix2DFTSmallBatch<Base>> = LazyLock::new(Radix2DFTSmallBatch::default);

/// Base field elements that an extension field element consists of.
const DEGREE: usize = <Ext as BasedVectorSpace<Base>>::DIMENSION;

/// A committed vector: what it takes to open it, any number of times.
#[derive(Debug)]
pub struct Committed {
    parameters: Parameters,
    commitment: Commitment,
    values: Vec<Base>,
    oracle: Oracle,
}

/// An encoding and its tree.
#[derive(Debug)]
struct Oracle {
    /// `[rows, width]`, row-major.
    elements: Vec<Base>,
    width: usize,
    tree: MerkleTree,
}

impl Oracle {
    /// Encodes the columns of `message`, `[rows, width]`, whose rows after the first `rows / 2^log_inv_rate` are zero.
    fn new(message: Vec<Base>, width: usize) -> Self {
        let elements = DFT.dft_batch(RowMajorMatrix::new(message, width)).values;
        let tree = MerkleTree::new(&elements, width);
        Self { elements, width, tree }
    }

    /// Appends the rows and what ties them to the root.
    fn write_rows(&self, rows: &[usize], bytes: &mut Vec<u8>) {
        for &row in rows {
            let elements = &self.elements[row * self.width..][..self.width];
            elements.iter().for_each(|&element| write_base(bytes, element));
        }
        self.tree.write_siblings(rows, bytes);
    }
}

impl Committed {
    /// The public part.
    pub fn commitment(&self) -> &Commitment {
        &self.commitment
    }

    /// The values, padded to a power of two.
    pub fn values(&self) -> &[Base] {
        &self.values
    }

    /// The committed polynomial's value at `point`.
    ///
    /// # Errors
    /// When the point's dimension is not the polynomial's.
    pub fn evaluate(&self, point: &[Ext]) -> Result<Ext, PcsError> {
        self.check_dimension(point)?;
        Ok(evaluate(&self.values, point, self.parameters.phases[0].fold))
    }

    fn check_dimension(&self, point: &[Ext]) -> Result<(), PcsError> {
        let expected = self.commitment.num_vars;
        if point.len() == expected { Ok(()) } else { Err(PcsError::PointDimension { expected, found: point.len() }) }
    }

    /// Bytes that the commitment's data takes up.
    pub fn bytes(&self) -> usize {
        (self.values.len() + self.oracle.elements.len()) * size_of::<Base>()
            + 2 * 32 * (self.oracle.elements.len() / self.oracle.width)
    }
}

/// Commits to `values`, padded with zeros to a power of two and to `2^MIN_VARS` at least.
///
/// # Errors
/// When there are more than `2^MAX_VARS` values.
pub fn commit(values: Vec<Base>) -> Result<Committed, PcsError> {
    let num_vars = (values.len().next_power_of_two().trailing_zeros() as usize).max(super::MIN_VARS);
    Ok(commit_with(values, Parameters::for_size(num_vars)?))
}

/// Commits with any parameters, which only a verifier with the same ones accepts: for measurements and tests.
#[doc(hidden)]
pub fn commit_with(mut values: Vec<Base>, parameters: Parameters) -> Committed {
    let num_vars = parameters.num_vars;
    values.resize(1 << num_vars, Base::ZERO);
    let first = parameters.phases[0];
    let width = 1 << first.fold;
    let mut message = Base::zero_vec(values.len() << first.log_inv_rate);
    let columns = RowMajorMatrixView::new(&values, values.len() / width);
    columns.transpose_into(&mut RowMajorMatrixViewMut::new(&mut message[..values.len()], width));
    let oracle = Oracle::new(message, width);
    let root = oracle.tree.root();
    let point = ood_point(&root, num_vars);
    let ood = evaluate(&values, &point, first.fold);
    Committed { parameters, commitment: Commitment { root, ood, num_vars }, values, oracle }
}

/// Proves the committed polynomial's value at `point`.
///
/// The transcript must have absorbed everything that `point` depends on; commitment, point and value are absorbed here.
///
/// # Errors
/// When the point's dimension is not the polynomial's.
pub fn open(committed: &Committed, point: &[Ext], transcript: &mut Transcript) -> Result<Opening, PcsError> {
    committed.check_dimension(point)?;
    // Inside the pool, so that small parallel steps don't each cross into it.
    Ok(rayon::scope(|_| Prover::new(committed, point, None, transcript).run()))
}

struct Prover<'a> {
    committed: &'a Committed,
    transcript: &'a mut Transcript,
    bytes: Vec<u8>,
    /// The polynomial that is left.
    f: Table,
    /// What all claims weigh its values with.
    w: Table,
}

impl<'a> Prover<'a> {
    /// Plays the first phase's sumcheck. The claims' weights are products, so all that it needs of the values is, for each
    /// claim and each index over this phase's variables, their sum weighted over the other variables.
    ///
    /// What is claimed is the value at `point`, or `claim` for a test that lies.
    fn new(committed: &'a Committed, point: &[Ext], claim: Option<Ext>, transcript: &'a mut Transcript) -> Self {
        let parameters = &committed.parameters;
        let first = parameters.phases[0];
        let points = [point.to_vec(), committed.commitment.ood_point()];
        let lows = points.each_ref().map(|point| eq_blocks(&point[first.fold..], Ext::ONE));
        let sums = partial_sums(&committed.values, &lows);
        let mut highs = points.each_ref().map(|point| eq_table(&point[..first.fold]));
        let value = sums[0].iter().zip(&highs[0]).map(|(&sum, &weight)| sum * weight).sum();
        let value = claim.unwrap_or(value);
        start_opening(parameters, &committed.commitment, point, value, transcript);
        let challenge = transcript.challenge();
        highs[1].iter_mut().for_each(|weight| *weight *= challenge);
        let [mut sums, mut highs] = [sums, highs].map(|tables| tables.map(Table::new));

        let mut bytes = Vec::new();
        let mut bound = Vec::with_capacity(first.fold);
        for _ in 0..first.fold {
            let messages = sums.iter().zip(&highs).map(|(f, w)| message([f, w], &Product));
            let message = messages.fold([Ext::ZERO; 2], |sum, message| [sum[0] + message[0], sum[1] + message[1]]);
            let challenge = send_message(message, &mut bytes, transcript);
            sums.iter_mut().chain(&mut highs).for_each(|table| table.bind(challenge));
            bound.push(challenge);
        }
        let f = Table::of_blocks(bind_values(&committed.values, &eq_table(&bound)));
        let mut w = Table::zeros(1 << parameters.vars(1));
        for (point, high) in points.iter().zip(&highs) {
            w.add_point(&point[first.fold..], high.constant());
        }
        Self { committed, transcript, bytes, f, w }
    }

    fn run(mut self) -> Opening {
        let parameters = &self.committed.parameters;
        let mut sent: Option<Oracle> = None;
        for (phase, next) in (0..).zip(&parameters.phases[1..]) {
            let vars = parameters.vars(phase + 1);
            let width = DEGREE << next.fold;
            let oracle = Oracle::new(message_of(&self.f, next.fold, next.log_inv_rate), width);
            let root = oracle.tree.root();
            self.bytes.extend_from_slice(&root);
            self.transcript.absorb_bytes(&root);
            let ood_point = self.transcript.challenges(vars);
            let ood = self.f.evaluate(&ood_point);
            write_ext(&mut self.bytes, ood);
            self.transcript.absorb_ext(&[ood]);
            let rows = self.answer(phase, sent.as_ref());
            self.claim(ood_point, &rows, parameters.log_rows(phase));
            self.sumcheck(next.fold);
            sent = Some(oracle);
        }
        let polynomial = self.f.to_vec();
        polynomial.iter().for_each(|&value| write_ext(&mut self.bytes, value));
        self.transcript.absorb_ext(&polynomial);
        self.answer(parameters.phases.len() - 1, sent.as_ref());
        Opening { bytes: self.bytes }
    }

    /// Sends the rows drawn from the oracle of a phase: the committed one or one `sent` since.
    fn answer(&mut self, phase: usize, sent: Option<&Oracle>) -> Vec<usize> {
        let parameters = &self.committed.parameters.phases[phase];
        if parameters.grinding > 0 {
            let nonce = self.transcript.grind(parameters.grinding);
            write_base(&mut self.bytes, nonce);
        }
        let rows = draw_rows(parameters.queries, self.committed.parameters.log_rows(phase), self.transcript);
        sent.unwrap_or(&self.committed.oracle).write_rows(&rows, &mut self.bytes);
        rows
    }

    /// Adds the claims about the out-of-domain value and the rows.
    fn claim(&mut self, ood_point: Vec<Ext>, rows: &[usize], log_rows: usize) {
        let challenge = self.transcript.challenge();
        self.w.add_point(&ood_point, challenge);
        let mut coefficient = challenge;
        let mut powers = Vec::with_capacity(rows.len());
        for &row in rows {
            coefficient *= challenge;
            if let Weight::Power(z) = Weight::row(row, log_rows) {
                powers.push((z, coefficient));
            }
        }
        self.w.add_powers(&powers);
    }

    fn sumcheck(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let challenge = send_message(message([&self.f, &self.w], &Product), &mut self.bytes, self.transcript);
            self.f.bind(challenge);
            self.w.bind(challenge);
        }
    }
}

fn send_message(message: [Ext; 2], bytes: &mut Vec<u8>, transcript: &mut Transcript) -> Ext {
    message.iter().for_each(|&value| write_ext(bytes, value));
    transcript.absorb_ext(&message);
    transcript.challenge()
}

/// Elements of a task of the passes over the committed values.
const TASK: usize = 1 << 10;

/// For each table of weights over the last variables and each index a over the first ones, `sum_j weight[j] values[a, j]`.
fn partial_sums<const N: usize>(values: &[Base], weights: &[Vec<PackedExt>; N]) -> [Vec<Ext>; N] {
    let length = weights[0].len() * WIDTH;
    let height = values.len() / length;
    let task = TASK.min(length);
    let sum_task = |start: usize| -> Vec<[PackedExt; N]> {
        let weights = weights.each_ref().map(|weights| &weights[start / WIDTH..][..task / WIDTH]);
        let row = |a: usize| {
            let values = PackedBase::pack_slice(&values[a * length + start..][..task]);
            weights.map(|weights| weights.iter().zip(values).map(|(&weight, &value)| weight * value).sum())
        };
        (0..height).map(row).collect()
    };
    let zero = || vec![[PackedExt::ZERO; N]; height];
    let add = |mut a: Vec<[PackedExt; N]>, b: Vec<[PackedExt; N]>| {
        a.iter_mut().zip(b).for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a += b));
        a
    };
    let sums = (0..length / task).into_par_iter().map(|index| sum_task(index * task)).reduce(zero, add);
    std::array::from_fn(|claim| sums.iter().map(|sums| lanes_sum(sums[claim])).collect())
}

/// The value at `point`, its first `split` coordinates apart from the others.
fn evaluate(values: &[Base], point: &[Ext], split: usize) -> Ext {
    let (high, low) = point.split_at(split);
    let [sums] = partial_sums(values, &[eq_blocks(low, Ext::ONE)]);
    sums.iter().zip(eq_table(high)).map(|(&sum, weight)| sum * weight).sum()
}

/// The values with their first variables bound: `sum_a weights[a] values[a, j]` for every j.
fn bind_values(values: &[Base], weights: &[Ext]) -> Vec<PackedExt> {
    let length = values.len() / weights.len();
    let mut bound = vec![PackedExt::ZERO; length / WIDTH];
    let blocks = TASK / WIDTH;
    bound.par_chunks_mut(blocks).enumerate().for_each(|(index, bound)| {
        for (a, &weight) in weights.iter().enumerate() {
            let start = a * length + index * TASK;
            let values = PackedBase::pack_slice(&values[start..][..bound.len() * WIDTH]);
            let weight = PackedExt::from(weight);
            bound.iter_mut().zip(values).for_each(|(sum, &value)| *sum += weight * value);
        }
    });
    bound
}

/// The matrix to encode: `[coefficients, first variables, degree]` and zeros for the rate.
fn message_of(f: &Table, fold: usize, log_inv_rate: usize) -> Vec<Base> {
    let width = 1 << fold;
    match f {
        Table::Packed(blocks) if blocks.len() >= width => {
            let length = blocks.len() / width;
            let elements = blocks.len() * WIDTH * DEGREE;
            let mut message = Base::zero_vec(elements << log_inv_rate);
            message[..elements].par_chunks_mut(WIDTH * width * DEGREE).enumerate().for_each(|(j, rows)| {
                for a in 0..width {
                    let coefficients: &[PackedBase] = blocks[a * length + j].as_basis_coefficients_slice();
                    for (d, lanes) in coefficients.iter().enumerate() {
                        for (lane, &element) in lanes.as_slice().iter().enumerate() {
                            rows[(lane * width + a) * DEGREE + d] = element;
                        }
                    }
                }
            });
            message
        }
        f => {
            let values = f.to_vec();
            let length = values.len() / width;
            let ordered = (0..length).flat_map(|j| (0..width).map(move |a| a * length + j));
            let coefficients = |index: usize| -> &[Base] { values[index].as_basis_coefficients_slice() };
            let mut message: Vec<Base> = ordered.flat_map(coefficients).copied().collect();
            message.resize(message.len() << log_inv_rate, Base::ZERO);
            message
        }
    }
}

#[cfg(test)]
mod attacks;

#[cfg(test)]
mod tests {
    //! Provers that lie in one place and go on honestly.
    use super::*;
    use crate::pcs::verify;

    fn committed(num_vars: usize) -> Committed {
        commit((0..1u64 << num_vars).map(|i| Base::from_u64(i * i + 5)).collect()).unwrap()
    }

    fn point(num_vars: usize) -> Vec<Ext> {
        (0..num_vars as u64).map(|i| Ext::from_u64(i * 3 + 2)).collect()
    }

    fn check(committed: &Committed, claim: Option<Ext>) -> Result<(), PcsError> {
        let point = point(committed.commitment.num_vars);
        let transcript = Transcript::new(b"test");
        let value = claim.unwrap_or(committed.evaluate(&point)?);
        let opening = Prover::new(committed, &point, claim, &mut transcript.clone()).run();
        verify(committed.commitment(), &point, value, &opening, &mut transcript.clone())
    }

    const SIZES: [usize; 3] = [6, 12, 18];

    #[test]
    fn a_wrong_value_is_refused() {
        for num_vars in SIZES {
            let committed = committed(num_vars);
            let wrong = committed.evaluate(&point(num_vars)).unwrap() + Ext::ONE;
            assert_eq!(check(&committed, None), Ok(()));
            assert_eq!(check(&committed, Some(wrong)), Err(PcsError::Claim));
        }
    }

    #[test]
    fn a_wrong_out_of_domain_value_is_refused() {
        for num_vars in SIZES {
            let mut committed = committed(num_vars);
            committed.commitment.ood += Ext::ONE;
            assert_eq!(check(&committed, None), Err(PcsError::Claim));
        }
    }

    /// The prover opens other values than those behind the root; its out-of-domain value is theirs.
    #[test]
    fn other_values_than_the_committed_ones_are_refused() {
        for num_vars in SIZES {
            let mut committed = committed(num_vars);
            committed.values[3] += Base::ONE;
            committed.commitment.ood = committed.evaluate(&committed.commitment.ood_point()).unwrap();
            let error = check(&committed, None).unwrap_err();
            // With one phase the rows meet the final polynomial directly, otherwise they are claims about it.
            match committed.parameters.phases.len() {
                1 => assert!(matches!(error, PcsError::FinalPolynomial { .. }), "{error}"),
                _ => assert_eq!(error, PcsError::Claim),
            }
        }
    }

    /// The prover answers queries from another tree than the one it sent the root of.
    #[test]
    fn rows_of_another_tree_are_refused() {
        for num_vars in SIZES {
            let mut committed = committed(num_vars);
            let width = committed.oracle.width;
            committed.oracle.elements.iter_mut().step_by(width).for_each(|element| *element += Base::ONE);
            assert_eq!(check(&committed, None), Err(PcsError::Rows { phase: 0 }));
        }
    }
}
