//! Setting up and proving.
//!
//! The prover walks the graph as the verifier does, from the outputs to the inputs; wherever the verifier receives, it
//! computes and sends.

mod fold;
mod nodes;
mod openings;
mod rounding;
mod tables;
mod tensors;
mod weights;
pub(crate) mod witness;

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{CheckedGraph, TensorId, Trace, Weights, WeightsError};
use thiserror::Error;

use crate::channel::Sender;
use crate::claims::{Claim, Claims, TooManyCoefficients, WeightClaim, WitnessClaim, evaluation, extents, variables};
use crate::field::{Base, Ext, to_base};
use crate::functional::Functional;
use crate::keys::{VerifyingKey, Visibility, WeightsKey};
use crate::layout::Layout;
use crate::lookup::{self, Compression, LookupClaims};
use crate::pcs::{self, Commitment, PcsError};
use crate::proof::{Proof, VERSION};
use crate::soundness::{self, NoAccount};
use crate::statement::{Boundary, Statement, begin};
use crate::timings::Timings;
use crate::weights::WeightLayout;

/// What a prover works with.
#[derive(Debug)]
pub struct ProvingKey {
    verifying: VerifyingKey,
    weights: Weights,
    committed: Option<pcs::Committed>,
}

/// The committed tensors of both boundaries: for each tensor one for each run. Empty where a boundary is public.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommittedBoundaries<'a> {
    /// Of the input.
    pub input: &'a [Vec<pcs::Committed>],
    /// Of the output.
    pub output: &'a [Vec<pcs::Committed>],
}

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The weights do not belong to the graph.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// They cannot be committed to.
    #[error("the weights: {0}")]
    Commitment(#[from] PcsError),
}

/// Why there is no proof.
#[derive(Debug, Error)]
pub enum ProveError {
    /// The statement's boundaries are not what the run gave.
    #[error("the statement's {side} boundary is not that of the run")]
    Boundary {
        /// `input` or `output`.
        side: &'static str,
    },
    /// Another number of runs was executed.
    #[error("the statement is about {expected} runs, {found} were executed")]
    Runs {
        /// Of the statement.
        expected: usize,
        /// Of the trace.
        found: usize,
    },
    /// What is to be proven has no account.
    #[error(transparent)]
    Account(#[from] NoAccount),
    /// The claims of the proof cannot be held.
    #[error(transparent)]
    Claims(#[from] TooManyCoefficients),
    /// The account of what is to be proven has too few bits.
    #[error(
        "a proof of {runs} runs has {bits:.1} bits of soundness, {} are the least; prove fewer runs at once, or make the \
         boundaries public",
        soundness::MIN_BITS
    )]
    Soundness {
        /// Of the statement.
        runs: usize,
        /// Bits of the union bound, work counted.
        bits: f64,
    },
    /// The witness cannot be committed to.
    #[error("the witness: {0}; use more shards, or fewer runs in one proof")]
    Commitment(#[from] PcsError),
}

/// The committed witness and what the prover says of it: the same, unless a test lies.
#[derive(Clone, Copy)]
pub(crate) struct Witness<'a> {
    pub(crate) committed: &'a pcs::Committed,
    /// Cells, results and multiplicities of the lookup argument.
    pub(crate) looked_up: &'a [Base],
    /// What nodes take their columns from.
    pub(crate) columns: &'a [Base],
}

impl<'a> Witness<'a> {
    fn of(committed: &'a pcs::Committed) -> Self {
        Self { committed, looked_up: committed.values(), columns: committed.values() }
    }
}

/// Where a proof stands.
struct Prover<'a> {
    graph: &'a CheckedGraph,
    layout: &'a Layout,
    trace: &'a Trace,
    witness: &'a [Base],
    weights: &'a Weights,
    sender: Sender<'a>,
    claims: Claims,
    witness_claims: Vec<WitnessClaim>,
    weight_claims: Vec<WeightClaim>,
    boundary: Vec<CommittedTensor<'a>>,
}

/// A committed tensor of a boundary in one run, with the claims on it.
struct CommittedTensor<'a> {
    committed: &'a pcs::Committed,
    claims: Vec<Claim>,
}

impl ProvingKey {
    /// The keys of a shard.
    ///
    /// # Errors
    /// When the weights do not belong to the graph, or are too many for one commitment.
    pub fn new(graph: CheckedGraph, weights: Weights, visibility: Visibility) -> Result<Self, SetupError> {
        weights.check(&graph)?;
        let (committed, key) = if weights.0.is_empty() {
            (None, WeightsKey::None)
        } else if visibility == Visibility::Public {
            (None, WeightsKey::Public(weights.digest(&graph)?))
        } else {
            // Before there is a vector of that size.
            pcs::Parameters::for_size(WeightLayout::new(&graph).variables)?;
            let committed = pcs::commit(openings::stack_weights(&graph, &weights))?;
            let key = WeightsKey::Committed(committed.commitment().clone());
            (Some(committed), key)
        };
        Ok(Self { verifying: VerifyingKey::new(graph, key), weights, committed })
    }

    /// What the owner registers.
    pub fn verifying(&self) -> &VerifyingKey {
        &self.verifying
    }

    /// The trained values.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The same key in the hands of somebody who has other weights.
    #[cfg(test)]
    pub(crate) fn with_weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// Proves that the runs of `trace`, which an executor of this key's graph and weights made, are as `statement` says.
    ///
    /// # Errors
    /// When the trace is not of the statement.
    pub fn prove(
        &self,
        statement: &Statement<'_>,
        trace: &Trace,
        committed: CommittedBoundaries<'_>,
        timings: &mut Timings,
    ) -> Result<Proof, ProveError> {
        let graph = self.verifying.graph();
        check_statement(graph, statement, trace, &committed)?;
        let account = soundness::proof(&self.verifying, statement)?;
        if !account.suffices() {
            return Err(ProveError::Soundness { runs: statement.runs, bits: account.total_bits() });
        }
        let layout = Layout::new(graph, statement.runs);
        let stack = timings.time("witness", "", || witness::stack(graph, &layout, trace));
        self.prove_witness(statement, &layout, trace, stack, committed, timings)
    }

    /// Proves whatever `stack`, the vector to commit to, says of the runs of `trace`.
    pub(crate) fn prove_witness(
        &self,
        statement: &Statement<'_>,
        layout: &Layout,
        trace: &Trace,
        stack: Vec<Base>,
        committed: CommittedBoundaries<'_>,
        timings: &mut Timings,
    ) -> Result<Proof, ProveError> {
        let witness = timings.time("commit", "witness", || pcs::commit(stack))?;
        self.prove_committed(statement, layout, trace, Witness::of(&witness), committed, timings)
    }

    /// Proves whatever is said of `witness` and of the runs of `trace`.
    pub(crate) fn prove_committed(
        &self,
        statement: &Statement<'_>,
        layout: &Layout,
        trace: &Trace,
        witness: Witness<'_>,
        committed: CommittedBoundaries<'_>,
        timings: &mut Timings,
    ) -> Result<Proof, ProveError> {
        let graph = self.verifying.graph();
        let mut transcript = begin(self.verifying.digest(), statement, layout);
        let commitment = (layout.leaves() > 0).then(|| witness.committed.commitment().clone());
        commitment.iter().for_each(|commitment| commitment.absorb(&mut transcript));
        let mut prover = Prover {
            graph,
            layout,
            trace,
            witness: witness.columns,
            weights: &self.weights,
            sender: Sender::new(&mut transcript),
            claims: Claims::none(graph),
            witness_claims: Vec::new(),
            weight_claims: Vec::new(),
            boundary: Vec::new(),
        };
        let lookups = timings.time("lookups", "", || prover.lookups(witness.looked_up));
        prover.outputs(&statement.output, committed.output);
        for node in (0..graph.graph().nodes.len()).rev() {
            timings.time("reduce", &graph.graph().nodes[node].name, || prover.node(node));
            prover.claims.check()?;
        }
        prover.inputs(committed.input);
        let (values, openings) = prover.finish(self.committed.as_ref(), lookups, witness.committed, timings)?;
        Ok(Proof { version: VERSION, witness: commitment, values, openings, seal: transcript.seal() })
    }
}

/// Commits to one tensor of a boundary in one run.
///
/// # Errors
/// When it is too large for one commitment.
pub fn commit_tensor(values: &[i64]) -> Result<pcs::Committed, PcsError> {
    pcs::commit(to_base(values))
}

impl<'a> Prover<'a> {
    /// Notes a claim, which must be true for the proof to verify.
    fn add_claim(&mut self, tensor: TensorId, functional: Functional, value: Ext) {
        debug_assert!(
            cfg!(test) || functional.apply(&to_base(self.trace.tensor(tensor))) == value,
            "a false claim on {tensor:?}"
        );
        self.claims.add(tensor, functional, value);
    }

    fn lookups(&mut self, looked_up: &[Base]) -> Option<LookupClaims> {
        if self.layout.leaves() == 0 {
            return None;
        }
        let compression = Compression { at: self.sender.challenge(), base: self.sender.challenge() };
        Some(lookup::prove(&mut self.sender, self.graph, self.layout, looked_up, compression))
    }

    fn outputs(&mut self, boundary: &Boundary<'_>, committed: &'a [Vec<pcs::Committed>]) {
        for (index, &tensor) in self.graph.graph().outputs.iter().enumerate() {
            let extents = extents(self.graph, tensor, self.layout.runs);
            let point = self.sender.challenges(variables(&extents));
            let functional = evaluation(&extents, &point);
            let value = match boundary {
                Boundary::Public(_) => functional.apply(&to_base(self.trace.tensor(tensor))),
                Boundary::Committed(_) => self.split_by_run(&functional, tensor, &committed[index]),
            };
            self.add_claim(tensor, functional, value);
        }
    }

    fn inputs(&mut self, committed: &'a [Vec<pcs::Committed>]) {
        for (index, runs) in committed.iter().enumerate() {
            let tensor = TensorId(index as u32);
            for claim in self.claims.take(tensor) {
                let _ = self.split_by_run(&claim.functional, tensor, runs);
            }
        }
    }

    /// Sends the value of each run and makes it a claim on the run's commitment.
    fn split_by_run(&mut self, functional: &Functional, tensor: TensorId, committed: &'a [pcs::Committed]) -> Ext {
        let values = to_base(self.trace.tensor(tensor));
        let mut sum = Ext::ZERO;
        for (run, (committed, values)) in
            committed.iter().zip(values.chunks_exact(values.len() / committed.len())).enumerate()
        {
            let functional = functional.of_run(run, self.layout.runs);
            let value = functional.apply(values);
            self.sender.send(&[value]);
            sum += value;
            let claim = Claim { functional, value };
            match self.boundary.iter_mut().find(|tensor| std::ptr::eq(tensor.committed, committed)) {
                Some(tensor) => tensor.claims.push(claim),
                None => self.boundary.push(CommittedTensor { committed, claims: vec![claim] }),
            }
        }
        sum
    }
}

/// Refuses a statement that the proof would not verify for.
fn check_statement(
    graph: &CheckedGraph,
    statement: &Statement<'_>,
    trace: &Trace,
    committed: &CommittedBoundaries<'_>,
) -> Result<(), ProveError> {
    if trace.runs != statement.runs {
        return Err(ProveError::Runs { expected: statement.runs, found: trace.runs });
    }
    let inputs: Vec<TensorId> = (0..graph.graph().inputs.len() as u32).map(TensorId).collect();
    let sides = [
        ("input", &statement.input, inputs, committed.input),
        ("output", &statement.output, graph.graph().outputs.clone(), committed.output),
    ];
    for (side, boundary, tensors, committed) in sides {
        let same = match boundary {
            Boundary::Public(values) => {
                committed.is_empty()
                    && values.len() == tensors.len()
                    && values.iter().zip(&tensors).all(|(values, &tensor)| values == trace.tensor(tensor))
            }
            Boundary::Committed(commitments) => {
                let theirs =
                    |runs: &Vec<pcs::Committed>| runs.iter().map(|committed| committed.commitment().clone()).collect();
                commitments.len() == tensors.len()
                    && committed.iter().map(theirs).collect::<Vec<Vec<Commitment>>>() == *commitments
            }
        };
        if !same {
            return Err(ProveError::Boundary { side });
        }
    }
    Ok(())
}
