//! The account of a whole proof: every reduction of the protocol, for one graph, number of runs and kind of boundaries.

use shardproof_integer::{CheckedGraph, Op, TensorId};
use thiserror::Error;

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
/// Claims on its own columns that a node with a witness makes at a point that it draws, at most.
const OWN_CLAIMS: u64 = 3;
/// Most elements, over all runs, of a tensor that there are claims on: a functional on it that is written out has as many
/// coefficients, 16 bytes each.
pub const MAX_ELEMENTS: usize = 1 << 26;
/// Most coefficients of all claims of a proof together, each claim counted as if its functional were written out: what a verifier
/// may have to go through. A graph may be an attacker's, and claims on wide tensors cost it nothing.
pub const MAX_COEFFICIENTS: u64 = 1 << 32;

/// Counts claims as the protocol makes them, and adds up what their reductions may cost.
struct Walk<'a> {
    graph: &'a CheckedGraph,
    layout: &'a Layout,
    account: Account,
    coefficients: u64,
    widest: usize,
    claims: Vec<usize>,
    on_witness: usize,
    on_weights: usize,
}

/// All terms of a proof of `statement` under `key`.
///
/// # Errors
/// When a commitment would have a size without parameters, or its claims more coefficients than a verifier takes.
pub fn proof(key: &VerifyingKey, statement: &Statement<'_>) -> Result<Account, NoAccount> {
    let graph = key.graph();
    let layout = Layout::new(graph, statement.runs);
    let claims = vec![0; graph.tensors()];
    let account = Account::default();
    let (coefficients, widest) = (0, 0);
    let mut walk = Walk { graph, layout: &layout, account, coefficients, widest, claims, on_witness: 0, on_weights: 0 };
    walk.lookups();
    for &tensor in &graph.graph().outputs {
        walk.account.push("output at a random point", multilinear_identity(walk.variables(tensor)));
        walk.add(tensor, 1);
    }
    for node in (0..graph.graph().nodes.len()).rev() {
        walk.node(node);
    }
    if walk.widest > MAX_ELEMENTS {
        return Err(NoAccount::Tensor { found: walk.widest });
    }
    if walk.coefficients > MAX_COEFFICIENTS {
        return Err(NoAccount::Coefficients { found: walk.coefficients });
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
        if self.layout.nodes[node].is_some() {
            self.keep(OWN_CLAIMS, self.graph.elements(result).saturating_mul(self.layout.runs));
        }
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
            None if let Some((weight, _)) = operands(op) => {
                self.on_weights += 1;
                self.keep(1, self.graph.graph().weights[weight.0 as usize].shape.iter().product());
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
        let elements = self.graph.elements(tensor).saturating_mul(self.layout.runs);
        self.widest = self.widest.max(elements);
        self.keep(claims as u64, elements);
    }

    /// Notes the coefficients of so many claims on so many elements.
    fn keep(&mut self, claims: u64, elements: usize) {
        self.coefficients = self.coefficients.saturating_add(claims.saturating_mul(elements as u64));
    }
}

/// Why there is no account of a proof, and so no proof.
#[derive(Debug, Error)]
pub enum NoAccount {
    /// A commitment has no parameters.
    #[error(transparent)]
    Size(#[from] PcsError),
    /// A tensor is too large for a verifier.
    #[error(
        "a tensor has {found} elements in all runs, {MAX_ELEMENTS} are the most: prove fewer runs together, or a smaller model"
    )]
    Tensor {
        /// Elements.
        found: usize,
    },
    /// All claims together would take a verifier too long.
    #[error(
        "the claims that a proof of this graph makes have {found} coefficients, {MAX_COEFFICIENTS} are the most: cut the model \
         into more shards, or prove fewer runs together"
    )]
    Coefficients {
        /// Coefficients of all claims.
        found: u64,
    },
}

#[cfg(all(test, feature = "prover"))]
mod tests {
    use shardproof_integer::testing::{Size, random_graph};
    use shardproof_integer::{Graph, Input, Node};

    use super::*;
    use p3_field::PrimeCharacteristicRing;

    use crate::field::Ext;
    use crate::proof::{Proof, VERSION};
    use crate::{ProvingKey, VerifyError, Visibility, verify};

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

    /// A scalar spread over `width` elements, multiplied with themselves by `products` nodes, and summed up again.
    fn wide(width: usize, products: u32) -> VerifyingKey {
        let square = Op::MulTensors { left: TensorId(2), right: TensorId(2) };
        let mut ops = vec![
            Op::Expand { input: TensorId(0), shape: vec![width] },
            Op::Combine { terms: vec![(TensorId(1), 0)], constant: 0 },
        ];
        ops.extend((0..products).map(|_| square.clone()));
        ops.push(Op::Combine { terms: (0..products).map(|i| (TensorId(3 + i), 0)).collect(), constant: 0 });
        ops.push(Op::ReduceSum { input: TensorId(3 + products), axes: vec![0] });
        let graph = Graph {
            inputs: vec![Input { name: "x".to_owned(), shape: vec![1], scale: 0 }],
            weights: vec![],
            tables: vec![],
            outputs: vec![TensorId(ops.len() as u32)],
            nodes: ops.into_iter().map(|op| Node { name: String::new(), op, scale: 0 }).collect(),
        };
        VerifyingKey::new(graph.check().expect("the graph is in order"), WeightsKey::None)
    }

    #[test]
    fn a_verifier_refuses_claims_that_it_could_not_hold() {
        let account = |key: &VerifyingKey, runs| {
            let boundary = Boundary::Public(&[]);
            proof(key, &Statement { context: b"", runs, input: boundary, output: boundary })
        };
        assert!(account(&wide(1000, 100), 1).unwrap().suffices());
        assert!(account(&wide(1 << 20, 1), 64).unwrap().suffices());
        let many = account(&wide(1 << 20, 1), 65);
        assert!(matches!(many, Err(NoAccount::Tensor { found }) if found > MAX_ELEMENTS), "{many:?}");
        let long = account(&wide(1 << 26, 70), 1);
        assert!(matches!(long, Err(NoAccount::Coefficients { found }) if found > MAX_COEFFICIENTS), "{long:?}");

        // All zeros, a proof of these graphs passes every check but those on what it takes.
        let verdict = |key: &VerifyingKey| {
            let values = [vec![0]];
            let boundary = Boundary::Public(&values);
            let statement = Statement { context: b"", runs: 1, input: boundary, output: boundary };
            let values = vec![Ext::ZERO; 1 << 14];
            verify(
                key,
                None,
                &statement,
                &Proof { version: VERSION, witness: None, values, openings: vec![], seal: [0; 32] },
            )
        };
        let wide_tensor = verdict(&wide((1 << 28) - 1, 1));
        assert!(matches!(wide_tensor, Err(VerifyError::Account(NoAccount::Tensor { .. }))), "{wide_tensor:?}");
        // Where the odd part of the extent is small, so are the functionals.
        let (even, odd) = (verdict(&wide(1 << 22, 10)), verdict(&wide((1 << 22) - 1, 10)));
        assert!(matches!(even, Err(VerifyError::Channel(_))), "values are left over: {even:?}");
        assert!(matches!(odd, Err(VerifyError::Claims(_))), "{odd:?}");
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
        let (found, most) = (bits(&key(24), 1, committed), 128.1 - 24.0);
        assert!(found < most, "{found} bits, {most} at most");
        for nodes in [40, 64, 100] {
            let statement = Statement { context: b"", runs: 1, input: committed, output: committed };
            let refused = proof(&key(nodes), &statement);
            assert!(matches!(refused, Err(NoAccount::Coefficients { .. })), "{nodes} nodes: {refused:?}");
        }
    }
}
