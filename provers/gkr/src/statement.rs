//! What a proof is about, and the start of every transcript.

use crate::layout::Layout;
use crate::pcs::Commitment;
use crate::transcript::Transcript;

/// One side of a shard in all runs that a proof covers.
#[derive(Clone, Copy, Debug)]
pub enum Boundary<'a> {
    /// The integers of each tensor, `[runs, ..shape]`, row-major.
    Public(&'a [Vec<i64>]),
    /// For each tensor one commitment for each run.
    ///
    /// Of an input this stands for integers within the bounds of a boundary only if something else shows that they are: the
    /// proof of the shard whose output it is, whose bounds follow from the graph, and so on back to a public boundary.
    Committed(&'a [Vec<Commitment>]),
}

/// What a proof asserts: under the verifying key, the output boundary follows from the input boundary.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// Whatever else the proof is bound to, such as the digests of shardproof's statements.
    pub context: &'a [u8],
    /// Number of runs.
    pub runs: usize,
    /// What entered.
    pub input: Boundary<'a>,
    /// What left.
    pub output: Boundary<'a>,
}

/// Starts a transcript with everything that is fixed before the prover speaks.
pub(crate) fn begin(key: &[u8; 32], statement: &Statement<'_>, layout: &Layout) -> Transcript {
    let mut transcript = Transcript::new(b"shardproof gkr 2");
    transcript.absorb_bytes(key);
    transcript.absorb_bytes(statement.context);
    for number in [statement.runs, layout.variables, layout.lookup_variables] {
        transcript.absorb_bytes(&(number as u64).to_le_bytes());
    }
    absorb_boundary(&mut transcript, &statement.input);
    absorb_boundary(&mut transcript, &statement.output);
    transcript
}

fn absorb_boundary(transcript: &mut Transcript, boundary: &Boundary<'_>) {
    match boundary {
        Boundary::Public(tensors) => {
            transcript.absorb_bytes(b"public");
            for tensor in *tensors {
                let mut hasher = blake3::Hasher::new();
                tensor.iter().for_each(|value| {
                    hasher.update(&value.to_le_bytes());
                });
                transcript.absorb_bytes(&(tensor.len() as u64).to_le_bytes());
                transcript.absorb_bytes(hasher.finalize().as_bytes());
            }
        }
        Boundary::Committed(tensors) => {
            transcript.absorb_bytes(b"committed");
            for commitments in *tensors {
                transcript.absorb_bytes(&(commitments.len() as u64).to_le_bytes());
                commitments.iter().for_each(|commitment| commitment.absorb(transcript));
            }
        }
    }
}
