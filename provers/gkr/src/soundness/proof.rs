//! The account of a whole proof: every reduction of the protocol, for one graph, number of runs and kind of boundaries.

use shardproof_integer::{CheckedGraph, Op, TensorId};

use super::{Account, FIELD_SIZE, logup, multilinear_identity, opening, power_combination, sumcheck};
use crate::claims::{extents, variables};
use crate::keys::{VerifyingKey, WeightsKey};
use crate::layout::{Columns, Layout};
use crate::mle::bits_for;
use crate::operands::{operands, summed_extents};
use crate::pcs::{self, Parameters, PcsError};
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
        walk.claims[tensor.0 as usize] += 1;
    }
    for node in (0..graph.graph().nodes.len()).rev() {
        walk.node(node);
    }
    if let WeightsKey::Committed(commitment) = key.weights() {
        walk.commitment("weights", commitment.num_vars, walk.on_weights)?;
    }
    if layout.leaves() > 0 {
        walk.commitment("witness", layout.variables, walk.on_witness)?;
    }
    let inputs: Vec<TensorId> = (0..graph.graph().inputs.len() as u32).map(TensorId).collect();
    let outputs = &graph.graph().outputs;
    for (side, boundary, tensors) in [("input", &statement.input, &inputs), ("output", &statement.output, outputs)] {
        let Boundary::Committed(_) = boundary else { continue };
        for &tensor in tensors {
            let num_vars = bits_for(graph.elements(tensor)).max(pcs::MIN_VARS);
            // A claim from the output's random point at most, and those that reach an input.
            let claims = walk.claims[tensor.0 as usize] + 1;
            for _ in 0..statement.runs {
                walk.commitment(side, num_vars, claims)?;
            }
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
        self.on_witness += 3;
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
                self.on_witness += 3;
                power_combination(claims) + sumcheck(vec![3; variables])
            }
            Some(Columns::Requant { sign: None, .. }) => {
                self.on_witness += claims + 2;
                multilinear_identity(variables)
            }
            Some(Columns::Table { .. }) => {
                self.on_witness += claims + 1;
                multilinear_identity(variables)
            }
            None if operands(op).is_some() => {
                self.on_weights += 1;
                // Several claims, or one that is no product, take a sumcheck of their own first.
                let separated = power_combination(claims) + sumcheck(vec![2; variables]);
                let summed: usize = summed_extents(self.graph, op).iter().map(|&extent| bits_for(extent)).sum();
                separated + if matches!(op, Op::AddWeight { .. }) { 0.0 } else { sumcheck(vec![2; summed]) }
            }
            // Claims go through as they are; values of several inputs are compared with their sum.
            None => {
                op.inputs().iter().for_each(|input| self.claims[input.0 as usize] += claims);
                return;
            }
        };
        self.account.push(format!("node `{name}`"), error);
        op.inputs().iter().for_each(|input| self.claims[input.0 as usize] += 1);
    }

    /// Claims combined with powers, a sumcheck over the vector, and its opening.
    fn commitment(&mut self, what: &str, num_vars: usize, claims: usize) -> Result<(), PcsError> {
        let error = power_combination(claims) + sumcheck(vec![2; num_vars]);
        self.account.push(format!("{what}: claims combined"), error);
        self.account.extend(what, opening(&Parameters::for_size(num_vars)?));
        Ok(())
    }
}
