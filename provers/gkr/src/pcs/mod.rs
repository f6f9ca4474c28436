//! Commitments to vectors of base field elements, opened as multilinear polynomials: WHIR (eprint 2024/1586).
//!
//! A vector of `2^n` values is the polynomial f over n variables with `f(i) = values[i]` on the cube; **coordinate 0 of a
//! point belongs to the most significant bit of the index**. Its commitment is the Merkle root of a Reed-Solomon encoding,
//! with the value of f at a point that the root determines: even where the root alone would stand for a short list of
//! polynomials, root and value stand for one (see `SOUNDNESS.md`). An opening proves that value together with f at the
//! point asked for.
//!
//! Prover and verifier work through the phases of [`Parameters`]. Each phase binds a few variables by sumcheck, sends an
//! encoding of what is left, and draws rows of the oracle before it; a drawn row, folded at the sumcheck's challenges, is
//! one value of the new polynomial at a power point, and all these claims go into the next phase's sumcheck. The last
//! polynomial is sent in the clear. Two properties make it fast: claims are products over the variables, so that the first
//! phase needs one pass over the (base field) values and no sumcheck over them; and each phase has its own rate, distance
//! and number of variables, so that large codewords are rare.
//!
//! The verifier takes from an opening exactly what the parameters ask for, in canonical encoding, and refuses anything
//! else. Nothing here hides the values.

mod encoding;
mod merkle;
mod parameters;
#[cfg(feature = "prover")]
mod powers;
#[cfg(feature = "prover")]
mod prover;
mod verifier;
mod weight;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::parameters::{MAX_VARS, MIN_VARS, Parameters, Phase, Regime};
#[cfg(feature = "prover")]
#[doc(hidden)]
pub use self::prover::commit_with;
#[cfg(feature = "prover")]
pub use self::prover::{Committed, commit, open};
pub use self::verifier::verify;
#[doc(hidden)]
pub use self::verifier::verify_with;
use crate::field::Ext;
use crate::transcript::Transcript;

/// What stands for a committed vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment {
    /// Merkle root of the encoding.
    pub root: [u8; 32],
    /// The polynomial's value at the point that the root and the size determine.
    pub ood: Ext,
    /// The vector has `2^num_vars` values.
    pub num_vars: usize,
}

/// The bytes that prove one value of a committed polynomial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    bytes: Vec<u8>,
}

/// Why a commitment or an opening is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PcsError {
    /// No parameters for the size.
    #[error("2^{num_vars} values cannot be committed to: the exponent is {min} to {max}")]
    UnsupportedSize {
        /// The exponent asked for.
        num_vars: usize,
        /// The least.
        min: usize,
        /// The greatest.
        max: usize,
    },
    /// A point of another dimension than the polynomial.
    #[error("the point has {found} coordinates, the polynomial has {expected} variables")]
    PointDimension {
        /// Variables of the polynomial.
        expected: usize,
        /// Coordinates of the point.
        found: usize,
    },
    /// The opening is too short.
    #[error("the opening has {found} bytes, at least {needed} are due")]
    Truncated {
        /// Bytes due up to and with the next element.
        needed: usize,
        /// Bytes there.
        found: usize,
    },
    /// The opening is too long.
    #[error("the opening has {found} bytes, {expected} are due")]
    TrailingBytes {
        /// Bytes due.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// A word that is not below the modulus.
    #[error("the word {found:#x} at byte {offset} is no field element")]
    NotCanonical {
        /// Where the word starts in the opening.
        offset: usize,
        /// The word.
        found: u64,
    },
    /// A nonce without the work that it should show.
    #[error("the nonce of phase {phase} does not show {bits} bits of work")]
    Nonce {
        /// The phase whose queries it guards.
        phase: usize,
        /// The work due.
        bits: usize,
    },
    /// Rows that are not those of the oracle.
    #[error("the rows of phase {phase} do not belong to its root")]
    Rows {
        /// The phase whose oracle was queried.
        phase: usize,
    },
    /// A row that the final polynomial disagrees with.
    #[error("the final polynomial disagrees with row {row} of the last oracle")]
    FinalPolynomial {
        /// The row's index.
        row: usize,
    },
    /// The claims do not hold for the final polynomial.
    #[error("the value claimed is not the committed polynomial's")]
    Claim,
}

impl Commitment {
    /// Absorbs everything that the commitment consists of.
    pub fn absorb(&self, transcript: &mut Transcript) {
        transcript.absorb_bytes(b"commitment");
        transcript.absorb_bytes(&(self.num_vars as u64).to_le_bytes());
        transcript.absorb_bytes(&self.root);
        transcript.absorb_ext(&[self.ood]);
    }

    /// The point at which `ood` is the polynomial's value.
    pub fn ood_point(&self) -> Vec<Ext> {
        ood_point(&self.root, self.num_vars)
    }
}

impl Opening {
    /// The proof's bytes; their number follows from the parameters and the rows drawn.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// An opening of any bytes; [`verify`] decides what they are worth.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

fn ood_point(root: &[u8; 32], num_vars: usize) -> Vec<Ext> {
    let mut transcript = Transcript::new(b"shardproof-gkr out-of-domain point 1");
    transcript.absorb_bytes(root);
    transcript.absorb_bytes(&(num_vars as u64).to_le_bytes());
    transcript.challenges(num_vars)
}

/// What both sides absorb before an opening's first challenge.
fn start_opening(
    parameters: &Parameters,
    commitment: &Commitment,
    point: &[Ext],
    value: Ext,
    transcript: &mut Transcript,
) {
    transcript.absorb_bytes(b"opening");
    transcript.absorb_bytes(&parameters.encode());
    commitment.absorb(transcript);
    transcript.absorb_ext(point);
    transcript.absorb_ext(&[value]);
}

/// Draws the rows of an oracle: ascending, each once.
fn draw_rows(queries: usize, log_rows: usize, transcript: &mut Transcript) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..queries).map(|_| transcript.index(log_rows)).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}
