//! The account of a whole proof: what its graph, its runs and its commitments make necessary, in one union bound.

use shardproof_integer::{CheckedGraph, TensorId};

use super::{Account, logup, multilinear_identity, opening, power_combination, sumcheck};
use crate::claims::{extents, variables};
use crate::keys::{VerifyingKey, WeightsKey};
use crate::layout::{Columns, Layout};
use crate::mle::bits_for;
use crate::operands::{operands, summed_extents};
use crate::pcs::{self, Parameters, PcsError};
use crate::weights::WeightLayout;

/// Fewest bits of a proof that is made or accepted.
pub const MIN_BITS: f64 = 96.0;

/// Which tensors of a shard's boundaries are committed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommittedSides {
    /// Those that enter.
    pub input: bool,
    /// Those that leave.
    pub output: bool,
}

/// The terms of a proof of `runs` runs under `key`.
///
/// # Errors
/// When the witness or a tensor is too large for a commitment, for which there is no proof.
///
/// # Panics
/// When there is no run.
pub fn proof(key: &VerifyingKey, runs: usize, committed: CommittedSides) -> Result<Account, PcsError> {
    whole(key, &Layout::new(key.graph(), runs), committed)
}

/// [`proof`] for a layout that is known.
pub(crate) fn whole(key: &VerifyingKey, layout: &Layout, committed: CommittedSides) -> Result<Account, PcsError> {
    let graph = key.graph();
    let mut account = Account::default();
    if layout.leaves() > 0 {
        lookups(layout, &mut account);
    }
    let mut walk = Walk::new(graph, layout.runs);
    walk.outputs();
    (0..graph.graph().nodes.len()).rev().for_each(|node| walk.node(node, &layout.nodes[node]));
    let Walk { claims, witness, weights, points, combinations, sumchecks, .. } = walk;
    for (name, error) in [("points", points), ("combinations", combinations), ("sumchecks", sumchecks)] {
        if error > 0.0 {
            account.push(format!("reductions, {name}"), error);
        }
    }
    if let WeightsKey::Committed(_) = key.weights() {
        batch(&mut account, "weights", weights, WeightLayout::new(graph).variables, 1)?;
    }
    if layout.leaves() > 0 {
        // Cells, multiplicities and results of the lookup argument are claims too.
        batch(&mut account, "witness", witness.saturating_add(3), layout.variables, 1)?;
    }
    let size = |tensor| bits_for(graph.elements(tensor)).max(pcs::MIN_VARS);
    if committed.input {
        let inputs = (0..graph.graph().inputs.len() as u32).map(TensorId);
        // Nothing is opened of an input that no claim reaches.
        for tensor in inputs.filter(|tensor| claims[tensor.0 as usize] > 0) {
            batch(&mut account, "input", claims[tensor.0 as usize], size(tensor), layout.runs)?;
        }
    }
    if committed.output {
        for &tensor in &graph.graph().outputs {
            batch(&mut account, "output", 1, size(tensor), layout.runs)?;
        }
    }
    Ok(account)
}

/// Logup itself, and the tree of fractions: in each layer the choice of a child, the combination of numerator and
/// denominator, and a sumcheck whose rounds have degree 3, of which one stands for a coordinate that is zero.
fn lookups(layout: &Layout, account: &mut Account) {
    let cells = layout.lookups.last().map_or(0, |lookup| lookup.cells.end);
    account.push("lookups, fractions", logup(cells, layout.leaves() - cells, 3));
    let layer = |layer: usize| multilinear_identity(1) + power_combination(2) + sumcheck(vec![3; layer]);
    account.push("lookups, layers", (0..layout.lookup_variables).map(layer).sum());
}

/// `times` commitments to `2^variables` values with so many claims on each: combined, reduced to a point, and opened.
fn batch(account: &mut Account, name: &str, claims: usize, variables: usize, times: usize) -> Result<(), PcsError> {
    let reduced = power_combination(claims) + sumcheck(vec![2; variables]);
    account.push(format!("{name}, batch of claims"), reduced * times as f64);
    let mut opening = opening(&Parameters::for_size(variables)?);
    opening.terms.iter_mut().for_each(|term| term.bits -= (times as f64).log2());
    account.extend(&format!("{name}, opening"), opening);
    Ok(())
}

/// Counts claims as the verifier walks through the graph, and adds up what each step of the walk may hide.
struct Walk<'a> {
    graph: &'a CheckedGraph,
    runs: usize,
    /// On each tensor.
    claims: Vec<usize>,
    witness: usize,
    weights: usize,
    points: f64,
    combinations: f64,
    sumchecks: f64,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a CheckedGraph, runs: usize) -> Self {
        let claims = vec![0; graph.tensors()];
        Self { graph, runs, claims, witness: 0, weights: 0, points: 0.0, combinations: 0.0, sumchecks: 0.0 }
    }

    fn outputs(&mut self) {
        for &output in &self.graph.graph().outputs {
            self.points += multilinear_identity(self.variables(output));
            self.add(output, 1);
        }
    }

    fn variables(&self, tensor: TensorId) -> usize {
        variables(&extents(self.graph, tensor, self.runs))
    }

    fn add(&mut self, tensor: TensorId, claims: usize) {
        let on = &mut self.claims[tensor.0 as usize];
        *on = on.saturating_add(claims);
    }

    fn node(&mut self, node: usize, columns: &Option<Columns>) {
        let result = self.graph.graph().result(node);
        let claims = self.claims[result.0 as usize];
        if claims == 0 {
            return;
        }
        let op = &self.graph.graph().nodes[node].op;
        let variables = self.variables(result);
        match (columns, operands(op)) {
            (Some(columns), _) => {
                // The columns are what they say they are of the input at a random point.
                self.points += multilinear_identity(variables);
                let on_columns = match columns {
                    Columns::Requant { sign: Some(_), .. } => {
                        self.combinations += power_combination(claims);
                        self.sumchecks += sumcheck(vec![3; variables]);
                        3
                    }
                    Columns::Requant { sign: None, .. } => claims.saturating_add(2),
                    Columns::Table { .. } => claims.saturating_add(1),
                };
                self.witness = self.witness.saturating_add(on_columns);
                op.inputs().into_iter().for_each(|input| self.add(input, 1));
            }
            (None, Some((_, input))) => {
                // To one point, unless the claim is a product already; then over the weight.
                self.combinations += power_combination(claims);
                let summed: usize = summed_extents(self.graph, op).into_iter().map(bits_for).sum();
                self.sumchecks += sumcheck(vec![2; variables + summed]);
                self.weights = self.weights.saturating_add(1);
                self.add(input, 1);
            }
            (None, None) => op.inputs().into_iter().for_each(|input| self.add(input, claims)),
        }
    }
}

#[cfg(all(test, feature = "prover"))]
mod tests {
    use shardproof_integer::testing::{Size, random_graph};

    use super::*;
    use crate::{ProvingKey, Visibility};

    const BOTH: CommittedSides = CommittedSides { input: true, output: true };

    fn key(seed: u64) -> VerifyingKey {
        let (graph, weights, _) = random_graph(seed, Size { nodes: 12, elements: 80 });
        ProvingKey::new(graph.check().unwrap(), weights, Visibility::Committed).unwrap().verifying().clone()
    }

    #[test]
    fn proofs_of_few_commitments_have_enough_bits() {
        for seed in 0..40 {
            let bits = proof(&key(seed), 1, BOTH).unwrap().total_bits();
            assert!((MIN_BITS..100.0).contains(&bits), "seed {seed}: {bits} bits");
        }
    }

    #[test]
    fn every_commitment_costs_what_its_opening_may_hide() {
        let key = key(1);
        let (inputs, outputs) = (key.graph().graph().inputs.len(), key.graph().graph().outputs.len());
        let error = |account: &Account| (-account.total_bits()).exp2();
        let small = error(&opening(&Parameters::for_size(pcs::MIN_VARS).unwrap()));
        let public = proof(&key, 1, CommittedSides::default()).unwrap();
        let committed = proof(&key, 1, BOTH).unwrap();
        let added = error(&committed) - error(&public);
        let least = small * outputs as f64;
        assert!(added >= least && added < 2.5 * small * (inputs + outputs) as f64, "{added} and {least}");
        // Runs have commitments of their own, until they are too many for one proof.
        let runs: Vec<f64> = [1, 4, 16, 64].map(|runs| proof(&key, runs, BOTH).unwrap().total_bits()).to_vec();
        assert!(runs.windows(2).all(|pair| pair[1] < pair[0] - 0.3), "{runs:?}");
        assert!(runs[0] >= MIN_BITS && runs[3] < MIN_BITS, "{runs:?}");
    }

    #[test]
    fn claims_are_counted_however_many_they_are() {
        use shardproof_integer::{Graph, Input, Node, Op, TensorId};
        // Every node is twice the one before, by the sum of two copies; from the first an all but bounded number.
        let double = |i: u32| Node {
            name: format!("double {i}"),
            op: Op::Combine { terms: vec![(TensorId(i), 0), (TensorId(i), 1)], constant: 0 },
            scale: 0,
        };
        let graph = Graph {
            inputs: vec![Input { name: "x".to_owned(), shape: vec![3], scale: 0 }],
            weights: vec![],
            tables: vec![],
            nodes: (0..90).map(double).collect(),
            outputs: vec![TensorId(90)],
        };
        let key = VerifyingKey::new(graph.check().unwrap(), WeightsKey::None);
        let bits = proof(&key, 1, BOTH).unwrap().total_bits();
        assert!(bits < 65.0, "{bits} bits");
    }
}
