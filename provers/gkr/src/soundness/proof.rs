//! The account of a whole proof: every reduction of the protocol, for one graph, number of runs and kind of boundaries.

use shardproof_integer::{CheckedGraph, Op, TensorId};

use super::{Account, FIELD_SIZE, logup, multilinear_identity, opening, power_combination, sumcheck};
use crate::claims::{self, extents, variables};
use crate::keys::{VerifyingKey, WeightsKey};
use crate::layout::{Columns, Layout};
use crate::mle::bits_for;
use crate::operands::{operands, summed_extents};
use crate::pcs::{self, Parameters, PcsError};
use crate::products;
use crate::statement::{Boundary, Statement};

/// Components of a looked-up tuple: argument, result, tag.
const TUPLE: usize = 3;

/// Counts claims as the protocol makes them, and adds up what their reductions may cost.
struct Walk<'a> {
    graph: &'a CheckedGraph,
    layout: &'a Layout,
    account: Account,
    claims: Vec<usize>,
    on_witness: usize,
    on_weights: usize,
}

/// All terms of a proof of `statement` under `key`.
///
/// # Errors
/// When a commitment would have a size without parameters.
pub fn proof(key: &VerifyingKey, statement: &Statement<'_>) -> Result<Account, PcsError> {
    let graph = key.graph();
    let layout = Layout::new(graph, statement.runs);
    let claims = vec![0; graph.tensors()];
    let mut walk = Walk { graph, layout: &layout, account: Account::default(), claims, on_witness: 0, on_weights: 0 };
    walk.lookups();
    for &tensor in &graph.graph().outputs {
        walk.account.push("output at a random point", multilinear_identity(walk.variables(tensor)));
        walk.add(tensor, 1);
    }
    for node in (0..graph.graph().nodes.len()).rev() {
        walk.node(node);
    }
    if let WeightsKey::Committed(commitment) = key.weights() {
        walk.commitment("weights", commitment.num_vars, walk.on_weights, 1)?;
    }
    if layout.leaves() > 0 {
        walk.commitment("witness", layout.variables, walk.on_witness, 1)?;
    }
    let inputs: Vec<TensorId> = (0..graph.graph().inputs.len() as u32).map(TensorId).collect();
    let outputs = &graph.graph().outputs;
    for (side, boundary, tensors) in [("input", &statement.input, &inputs), ("output", &statement.output, outputs)] {
        let Boundary::Committed(_) = boundary else { continue };
        for &tensor in tensors {
            let num_vars = bits_for(graph.elements(tensor)).max(pcs::MIN_VARS);
            // A claim from the output's random point at most, and those that reach an input.
            let claims = walk.claims[tensor.0 as usize].saturating_add(1);
            walk.commitment(side, num_vars, claims, statement.runs)?;
        }
    }
    Ok(walk.account)
}

impl Walk<'_> {
    fn variables(&self, tensor: TensorId) -> usize {
        variables(&extents(self.graph, tensor, self.layout.runs))
    }

    fn lookups(&mut self) {
        let (leaves, rows) = (self.layout.leaves(), self.layout.tables.iter().map(|table| table.cells.len()).sum());
        if leaves == 0 {
            return;
        }
        self.account.push("lookups: sums of fractions", logup(leaves - rows, rows, TUPLE));
        for layer in 1..self.layout.lookup_variables {
            // Numerator and denominator are mixed, a sumcheck of degree 3 follows, and the halves are joined.
            let error = 2.0 / FIELD_SIZE + sumcheck(vec![3; layer]);
            self.account.push(format!("lookups: layer {layer}"), error);
        }
        self.account.push("lookups: layer 0", 1.0 / FIELD_SIZE);
        self.on_witness = self.on_witness.saturating_add(3);
    }

    fn node(&mut self, node: usize) {
        let result = self.graph.graph().result(node);
        let claims = std::mem::take(&mut self.claims[result.0 as usize]);
        if claims == 0 {
            return;
        }
        let (name, op) = (&self.graph.graph().nodes[node].name, &self.graph.graph().nodes[node].op);
        let variables = self.variables(result);
        let error = match &self.layout.nodes[node] {
            Some(Columns::Requant { sign: Some(_), .. }) => {
                self.on_witness = self.on_witness.saturating_add(3);
                power_combination(claims) + sumcheck(vec![3; variables])
            }
            Some(Columns::Requant { sign: None, .. }) => {
                self.on_witness = self.on_witness.saturating_add(claims).saturating_add(2);
                multilinear_identity(variables)
            }
            Some(Columns::Table { .. }) => {
                self.on_witness = self.on_witness.saturating_add(claims).saturating_add(1);
                multilinear_identity(variables)
            }
            Some(Columns::Max { .. }) => {
                let Op::Max { input } = *op else { return };
                // The claim on differences at a random point of the values comes on top of those on the result.
                let values = self.variables(input);
                self.on_witness = self.on_witness.saturating_add(3);
                self.add(input, 1);
                multilinear_identity(values)
                    + power_combination(claims.saturating_add(1))
                    + sumcheck(vec![3; values])
                    + multilinear_identity(variables)
            }
            Some(Columns::Divide { .. }) => {
                let Op::Divide { denominator, .. } = *op else { return };
                self.on_witness = self.on_witness.saturating_add(claims).saturating_add(3);
                self.add(denominator, 1);
                multilinear_identity(variables) + sumcheck(vec![3; variables])
            }
            Some(Columns::Sqrt { .. }) => {
                self.on_witness = self.on_witness.saturating_add(claims).saturating_add(3);
                multilinear_identity(variables) + sumcheck(vec![3; variables])
            }
            None if matches!(op, Op::MatMulTensors { .. }) => {
                let Op::MatMulTensors { left, .. } = *op else { return };
                let summed = products::summed_extents(self.graph, left, self.layout.runs);
                // As for operators with weights.
                power_combination(claims) + sumcheck(vec![2; variables]) + sumcheck(vec![2; claims::variables(&summed)])
            }
            None if matches!(op, Op::MulTensors { .. }) => power_combination(claims) + sumcheck(vec![3; variables]),
            None if operands(op).is_some() => {
                self.on_weights += 1;
                // Several claims, or one that is no product, take a sumcheck of their own first.
                let separated = power_combination(claims) + sumcheck(vec![2; variables]);
                let summed: usize = summed_extents(self.graph, op).iter().map(|&extent| bits_for(extent)).sum();
                separated + if matches!(op, Op::AddWeight { .. }) { 0.0 } else { sumcheck(vec![2; summed]) }
            }
            // Claims go through as they are; values of several inputs are compared with their sum.
            None => {
                op.inputs().into_iter().for_each(|input| self.add(input, claims));
                return;
            }
        };
        self.account.push(format!("node `{name}`"), error);
        op.inputs().into_iter().for_each(|input| self.add(input, 1));
    }

    /// For each of `times` commitments: claims combined with powers, a sumcheck over the vector, and its opening. A term
    /// stands for all of them, so that a statement of many runs takes no more time or memory than one of few.
    fn commitment(&mut self, what: &str, num_vars: usize, claims: usize, times: usize) -> Result<(), PcsError> {
        let error = power_combination(claims) + sumcheck(vec![2; num_vars]);
        self.account.push(format!("{what}: claims combined"), error * times as f64);
        let mut opening = opening(&Parameters::for_size(num_vars)?);
        opening.terms.iter_mut().for_each(|term| term.bits -= (times as f64).log2());
        self.account.extend(what, opening);
        Ok(())
    }

    /// Notes so many claims more; a graph may double their number with each node, beyond what any prover could send.
    fn add(&mut self, tensor: TensorId, claims: usize) {
        let on = &mut self.claims[tensor.0 as usize];
        *on = on.saturating_add(claims);
    }
}

#[cfg(all(test, feature = "prover"))]
mod tests {
    use shardproof_integer::testing::{Size, random_graph};
    use shardproof_integer::{Graph, Input, Node};

    use super::*;
    use crate::{ProvingKey, Visibility};

    fn bits(key: &VerifyingKey, runs: usize, boundary: Boundary<'_>) -> f64 {
        let statement = Statement { context: b"", runs, input: boundary, output: boundary };
        proof(key, &statement).expect("all sizes have parameters").total_bits()
    }

    #[test]
    fn every_commitment_costs_what_its_opening_may_hide() {
        for seed in 0..20 {
            let (graph, weights, _) = random_graph(seed, Size { nodes: 12, elements: 80 });
            let tensors = (graph.inputs.len() + graph.outputs.len()) as f64;
            let key = ProvingKey::new(graph.check().unwrap(), weights, Visibility::Committed).unwrap();
            let error = |runs, boundary| (-bits(key.verifying(), runs, boundary)).exp2();
            // The cheapest opening there is has 101.6 bits, those of up to 2^7 values at least 101.3.
            let [least, most] = [101.6, 101.3].map(|bits: f64| (-bits).exp2() * tensors);
            for runs in [1, 3, 16] {
                let added = error(runs, Boundary::Committed(&[])) - error(runs, Boundary::Public(&[]));
                let range = least * runs as f64..1.01 * most * runs as f64;
                assert!(range.contains(&added), "seed {seed}, {runs} runs: {added} is not in {range:?}");
            }
        }
    }

    #[test]
    fn claims_that_double_with_each_node_are_counted() {
        let double = |i: u32| Node {
            name: format!("double {i}"),
            op: Op::Combine { terms: vec![(TensorId(i), 0), (TensorId(i), 1)], constant: 0 },
            scale: 0,
        };
        let graph = |nodes| Graph {
            inputs: vec![Input { name: "x".to_owned(), shape: vec![3], scale: 0 }],
            weights: vec![],
            tables: vec![],
            nodes: (0..nodes).map(double).collect(),
            outputs: vec![TensorId(nodes)],
        };
        let key = |nodes| VerifyingKey::new(graph(nodes).check().unwrap(), WeightsKey::None);
        let committed = Boundary::Committed(&[]);
        assert!(bits(&key(10), 1, committed) > 96.0);
        for nodes in [40, 64, 100] {
            let (found, most) = (bits(&key(nodes), 1, committed), 128.1 - f64::from(nodes.min(64)));
            assert!(found < most, "{nodes} nodes: {found} bits, {most} at most");
        }
    }
}
