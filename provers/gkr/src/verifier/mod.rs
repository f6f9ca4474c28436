//! The verifier: from claims on the output through the graph to claims on input, weights and witness, and their openings.
//!
//! It needs no value of any inner tensor. What it expects to read follows from the graph, the number of runs and the kinds
//! of the boundaries alone.

mod nodes;
mod openings;
mod rounding;
mod tensors;

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{CheckedGraph, TensorId, Weights};

use crate::channel::Receiver;
use crate::claims::{Claim, Claims, WeightClaim, WitnessClaim, evaluation, extents, variables};
use crate::error::{Committed, VerifyError};
use crate::field::{Ext, to_base};
use crate::functional::Functional;
use crate::keys::{RegisteredWeights, VerifyingKey, WeightsKey};
use crate::layout::Layout;
use crate::lookup::{self, Compression, LookupClaims};
use crate::mle::bits_for;
use crate::pcs::{self, Commitment};
use crate::proof::Proof;
use crate::soundness;
use crate::statement::{Boundary, Statement, begin};
use crate::weights::WeightLayout;

/// Where a verification stands.
struct Verifier<'a> {
    graph: &'a CheckedGraph,
    layout: &'a Layout,
    receiver: Receiver<'a>,
    claims: Claims,
    witness: Vec<WitnessClaim>,
    weights: Vec<WeightClaim>,
    boundary: Vec<CommittedTensor>,
}

/// A committed tensor of a boundary in one run, with the claims on it.
struct CommittedTensor {
    what: Committed,
    commitment: Commitment,
    claims: Vec<Claim>,
}

/// Checks `proof` of `statement` under `key`. `weights` are needed where the key has public ones.
///
/// # Errors
/// Names the first check that fails.
pub fn verify(
    key: &VerifyingKey,
    weights: Option<&RegisteredWeights>,
    statement: &Statement<'_>,
    proof: &Proof,
) -> Result<(), VerifyError> {
    let graph = key.graph();
    let public = public_weights(key, weights)?;
    check_boundary("input", graph, &statement.input, &inputs(graph), statement.runs)?;
    check_boundary("output", graph, &statement.output, &graph.graph().outputs, statement.runs)?;
    let account = soundness::proof(key, statement)?;
    if !account.suffices() {
        return Err(VerifyError::Soundness { bits: account.total_bits() });
    }
    let layout = Layout::new(graph, statement.runs);
    let due = layout.leaves() > 0;
    if proof.witness.is_some() != due {
        return Err(VerifyError::Witness { due });
    }

    let mut transcript = begin(key.digest(), statement, &layout);
    if let Some(witness) = &proof.witness {
        check_commitment(witness, layout.variables)?;
        witness.absorb(&mut transcript);
    }
    let mut verifier = Verifier {
        graph,
        layout: &layout,
        receiver: Receiver::new(&mut transcript, &proof.values),
        claims: Claims::none(graph),
        witness: Vec::new(),
        weights: Vec::new(),
        boundary: Vec::new(),
    };
    let lookups = verifier.lookups()?;
    verifier.outputs(&statement.output)?;
    for node in (0..graph.graph().nodes.len()).rev() {
        verifier.node(node)?;
        verifier.claims.check()?;
    }
    verifier.inputs(&statement.input)?;
    verifier.finish(key, public, lookups, proof)?;
    if transcript.seal() == proof.seal { Ok(()) } else { Err(VerifyError::Seal) }
}

impl Verifier<'_> {
    /// The claims of the lookup argument; nothing for a graph without lookups.
    fn lookups(&mut self) -> Result<Option<LookupClaims>, VerifyError> {
        if self.layout.leaves() == 0 {
            return Ok(None);
        }
        let compression = Compression { at: self.receiver.challenge(), base: self.receiver.challenge() };
        Ok(Some(lookup::verify(&mut self.receiver, self.graph, self.layout, compression)?))
    }

    /// Claims on the output tensors at random points.
    fn outputs(&mut self, boundary: &Boundary<'_>) -> Result<(), VerifyError> {
        for (index, &tensor) in self.graph.graph().outputs.iter().enumerate() {
            let extents = extents(self.graph, tensor, self.layout.runs);
            let point = self.receiver.challenges(variables(&extents));
            let functional = evaluation(&extents, &point);
            let value = match boundary {
                Boundary::Public(tensors) => functional.apply(&to_base(&tensors[index])),
                Boundary::Committed(commitments) => {
                    let what = |run| Committed::Output { tensor: index, run };
                    self.split_by_run(&functional, &commitments[index], what)?
                }
            };
            self.claims.add(tensor, functional, value);
        }
        Ok(())
    }

    /// Settles the claims on the input tensors, or passes them on to the commitments.
    fn inputs(&mut self, boundary: &Boundary<'_>) -> Result<(), VerifyError> {
        for index in 0..self.graph.graph().inputs.len() {
            let claims = self.claims.take(TensorId(index as u32));
            match boundary {
                Boundary::Public(tensors) => {
                    let values = to_base(&tensors[index]);
                    if claims.iter().any(|claim| claim.functional.apply(&values) != claim.value) {
                        return Err(VerifyError::InputValue { tensor: index });
                    }
                }
                Boundary::Committed(commitments) => {
                    for claim in claims {
                        let what = |run| Committed::Input { tensor: index, run };
                        let value = self.split_by_run(&claim.functional, &commitments[index], what)?;
                        if value != claim.value {
                            return Err(VerifyError::RunSum { tensor: what(0) });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Receives the value of each run, makes it a claim on the run's commitment, and gives the sum.
    fn split_by_run(
        &mut self,
        functional: &Functional,
        commitments: &[Commitment],
        what: impl Fn(usize) -> Committed,
    ) -> Result<Ext, VerifyError> {
        let mut sum = Ext::ZERO;
        for (run, commitment) in commitments.iter().enumerate() {
            let [value] = self.receiver.receive()?;
            sum += value;
            let claim = Claim { functional: functional.of_run(run, commitments.len()), value };
            let what = what(run);
            match self.boundary.iter_mut().find(|tensor| tensor.what == what) {
                Some(tensor) => tensor.claims.push(claim),
                None => {
                    self.boundary.push(CommittedTensor { what, commitment: commitment.clone(), claims: vec![claim] })
                }
            }
        }
        Ok(sum)
    }
}

fn inputs(graph: &CheckedGraph) -> Vec<TensorId> {
    (0..graph.graph().inputs.len() as u32).map(TensorId).collect()
}

/// The values of public weights, and a check of the commitment to committed ones.
fn public_weights<'a>(
    key: &VerifyingKey,
    weights: Option<&'a RegisteredWeights>,
) -> Result<Option<&'a Weights>, VerifyError> {
    let refuse = |reason: &str| Err(VerifyError::Weights(reason.to_owned()));
    match (key.weights(), weights) {
        (WeightsKey::None, _) if key.graph().graph().weights.is_empty() => Ok(None),
        (WeightsKey::None, _) => refuse("the key does not fix the graph's weights"),
        (WeightsKey::Committed(commitment), _) => {
            check_commitment(commitment, WeightLayout::new(key.graph()).variables)?;
            Ok(None)
        }
        (WeightsKey::Public(_), None) => refuse("the weights are public: the model is needed to verify"),
        (WeightsKey::Public(_), Some(weights)) => match weights.under(key) {
            Some(weights) => Ok(Some(weights)),
            None => refuse("the weights were registered under another key"),
        },
    }
}

fn check_commitment(commitment: &Commitment, expected: usize) -> Result<(), VerifyError> {
    if commitment.num_vars == expected {
        return Ok(());
    }
    let found = commitment.num_vars;
    Err(VerifyError::Boundary(format!("a commitment is to 2^{found} values, 2^{expected} are due")))
}

/// Compares a boundary with the graph: tensors, runs, elements, and the range of public integers.
fn check_boundary(
    side: &str,
    graph: &CheckedGraph,
    boundary: &Boundary<'_>,
    tensors: &[TensorId],
    runs: usize,
) -> Result<(), VerifyError> {
    let refuse = |reason: String| Err(VerifyError::Boundary(format!("{side} boundary: {reason}")));
    let found = match boundary {
        Boundary::Public(values) => values.len(),
        Boundary::Committed(commitments) => commitments.len(),
    };
    if runs == 0 || found != tensors.len() {
        return refuse(format!("{found} tensors in {runs} runs, {} are due", tensors.len()));
    }
    for (index, &tensor) in tensors.iter().enumerate() {
        let elements = graph.elements(tensor);
        match boundary {
            Boundary::Public(values) => {
                let values = &values[index];
                if runs.checked_mul(elements) != Some(values.len()) {
                    let found = values.len();
                    return refuse(format!(
                        "tensor {index} has {found} values, {elements} are due for each of {runs} runs"
                    ));
                }
                let bound = 1i64 << shardproof_integer::graph::BOUNDARY_BITS;
                if let Some(value) = values.iter().find(|value| !(-bound..=bound).contains(*value)) {
                    return refuse(format!("tensor {index} has the value {value}, outside -{bound} ..= {bound}"));
                }
            }
            Boundary::Committed(commitments) => {
                let commitments = &commitments[index];
                if commitments.len() != runs {
                    return refuse(format!("tensor {index} has {} commitments, {runs} are due", commitments.len()));
                }
                for commitment in commitments {
                    check_commitment(commitment, bits_for(elements).max(pcs::MIN_VARS))?;
                }
            }
        }
    }
    Ok(())
}
