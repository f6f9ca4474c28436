//! One node at a time: claims on its result become claims on its inputs, its weight and its witness columns.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::Op;

use super::Verifier;
use crate::claims::{
    Claim, Pulled, WeightClaim, WitnessClaim, combine, evaluation, extents, pull_back, required_extents, separable,
    variables,
};
use crate::error::VerifyError;
use crate::field::{Base, Ext};
use crate::functional::Functional;
use crate::functional::Term;
use crate::layout::Columns;
use crate::operands::{addend_functional, operand_functionals, operands, summed_extents};
use crate::requant::Requant;
use crate::sumcheck::{verify_product, verify_triple};

impl Verifier<'_> {
    /// Reduces the claims on the result of `node`, if there are any.
    pub(super) fn node(&mut self, node: usize) -> Result<(), VerifyError> {
        let result = self.graph.graph().result(node);
        let claims = self.claims.take(result);
        if claims.is_empty() {
            return Ok(());
        }
        let op = &self.graph.graph().nodes[node].op;
        match &self.layout.nodes[node] {
            Some(Columns::Requant { low, high, sign }) => {
                let columns = Requant::new(op, low, high, *sign);
                if sign.is_some() {
                    self.rectify(node, claims, &columns)
                } else {
                    self.requantise(node, claims, &columns)
                }
            }
            Some(Columns::Table { argument, result }) => self.table(node, claims, *argument, *result),
            Some(Columns::Max { difference, chosen }) => {
                let Op::Max { input } = *op else { return Err(self.failed(node)) };
                self.max(node, claims, input, difference, *chosen)
            }
            Some(Columns::Divide { quotient, remainder, rest }) => {
                let Op::Divide { numerator, denominator, bits } = *op else { return Err(self.failed(node)) };
                self.divide(node, claims, [numerator, denominator], bits, [quotient, remainder, rest])
            }
            Some(Columns::Sqrt { root, remainder, rest }) => {
                let Op::Sqrt { input, .. } = *op else { return Err(self.failed(node)) };
                self.square_root(node, claims, input, [root, remainder, rest])
            }
            None => match *op {
                Op::MatMulTensors { left, right } => self.tensor_product(node, claims, [left, right]),
                Op::MulTensors { left, right } => self.elementwise(node, claims, [left, right]),
                _ => self.linear(node, claims),
            },
        }
    }

    pub(super) fn failed(&self, node: usize) -> VerifyError {
        let node = &self.graph.graph().nodes[node];
        VerifyError::Reduction { node: node.name.clone(), operator: node.op.name() }
    }

    /// `y = sign * high`, then the accumulator from all digits.
    fn rectify(&mut self, node: usize, claims: Vec<Claim>, columns: &Requant<'_>) -> Result<(), VerifyError> {
        let result = self.graph.graph().result(node);
        let extents = extents(self.graph, result, self.layout.runs);
        let combined = combine(claims, self.receiver.challenge());
        let reduced = verify_triple(&mut self.receiver, combined.value, variables(&extents))?;
        let at = evaluation(&extents, &reduced.point);
        let [sign, high] = self.receiver.receive()?;
        if combined.functional.inner(&at) * sign * high != reduced.value {
            return Err(self.failed(node));
        }
        self.accumulator(node, columns, at, sign, high)
    }

    /// `y = high - 2^bits`, then the accumulator from all digits at a random point.
    fn requantise(&mut self, node: usize, claims: Vec<Claim>, columns: &Requant<'_>) -> Result<(), VerifyError> {
        let result = self.graph.graph().result(node);
        let extents = extents(self.graph, result, self.layout.runs);
        let ones = Functional::ones(&extents);
        for claim in claims {
            let value = claim.value + claim.functional.inner(&ones) * columns.offset();
            self.witness.push(WitnessClaim::of_digits(columns.high, claim.functional, value));
        }
        let point = self.receiver.challenges(variables(&extents));
        let [high] = self.receiver.receive()?;
        self.accumulator(node, columns, evaluation(&extents, &point), Ext::ZERO, high)
    }

    /// Makes claims of the digits' values at a point, and of the accumulator that they add up to.
    fn accumulator(
        &mut self,
        node: usize,
        columns: &Requant<'_>,
        at: Functional,
        sign: Ext,
        high: Ext,
    ) -> Result<(), VerifyError> {
        let low = if columns.low.is_empty() {
            Ext::ZERO
        } else {
            let [low] = self.receiver.receive()?;
            self.witness.push(WitnessClaim::of_digits(columns.low, at.clone(), low));
            low
        };
        if let Some(digit) = columns.sign {
            self.witness.push(WitnessClaim::of_digits(&[digit], at.clone(), sign));
        }
        self.witness.push(WitnessClaim::of_digits(columns.high, at.clone(), high));
        let result = self.graph.graph().result(node);
        let ones = at.inner(&Functional::ones(&extents(self.graph, result, self.layout.runs)));
        self.claims.add(columns.input, at, columns.accumulator(low, high, sign, ones));
        Ok(())
    }

    /// Claims on the results become claims on their column; the arguments are the input's values.
    fn table(&mut self, node: usize, claims: Vec<Claim>, argument: usize, result: usize) -> Result<(), VerifyError> {
        let Op::Table { input, .. } = self.graph.graph().nodes[node].op else { return Err(self.failed(node)) };
        for Claim { functional, value } in claims {
            self.witness.push(WitnessClaim { functional, columns: vec![(result, Ext::ONE)], value });
        }
        let extents = extents(self.graph, input, self.layout.runs);
        let point = self.receiver.challenges(variables(&extents));
        let at = evaluation(&extents, &point);
        let [value] = self.receiver.receive()?;
        self.witness.push(WitnessClaim { functional: at.clone(), columns: vec![(argument, Ext::ONE)], value });
        self.claims.add(input, at, value);
        Ok(())
    }

    fn linear(&mut self, node: usize, claims: Vec<Claim>) -> Result<(), VerifyError> {
        let op = &self.graph.graph().nodes[node].op;
        let Some((weight, input)) = operands(op) else {
            for claim in claims {
                let pulled = pull_back(self.graph, node, self.layout.runs, &claim.functional);
                self.distribute(node, pulled, claim.value)?;
                self.claims.check()?;
            }
            return Ok(());
        };
        let (term, value) = self.separate(node, claims)?;
        if let Op::AddWeight { multiplier, .. } = *op {
            let [addend] = self.receiver.receive()?;
            let functional = addend_functional(self.graph, weight, &term.factors);
            self.weights.push(WeightClaim { weight, functional, value: addend });
            let value = value - addend * Base::from_i64(multiplier);
            self.claims.add(input, Functional { terms: vec![term] }, value);
            return Ok(());
        }
        let reduced = verify_product(&mut self.receiver, value, variables(&summed_extents(self.graph, op)))?;
        let [of_weight, of_input] = self.receiver.receive()?;
        if of_weight * of_input != reduced.value {
            return Err(self.failed(node));
        }
        let (weight_functional, input_functional) = operand_functionals(self.graph, op, &term.factors, &reduced.point);
        self.weights.push(WeightClaim { weight, functional: weight_functional, value: of_weight });
        self.claims.add(input, input_functional, of_input);
        Ok(())
    }

    /// Brings claims to one that has a factor for each axis that the operator needs apart.
    pub(super) fn separate(&mut self, node: usize, claims: Vec<Claim>) -> Result<(Term, Ext), VerifyError> {
        let result = self.graph.graph().result(node);
        let runs = self.layout.runs;
        let required = required_extents(self.graph, &self.graph.graph().nodes[node].op, result, runs);
        let required = required.ok_or_else(|| self.failed(node))?;
        if let Some(separate) = separable(&claims, &required) {
            return Ok(separate);
        }
        let extents = extents(self.graph, result, runs);
        let combined = combine(claims, self.receiver.challenge());
        let reduced = verify_product(&mut self.receiver, combined.value, variables(&extents))?;
        let at = evaluation(&extents, &reduced.point);
        let [value] = self.receiver.receive()?;
        if combined.functional.inner(&at) * value != reduced.value {
            return Err(self.failed(node));
        }
        separable(&[Claim { functional: at, value }], &required).ok_or_else(|| self.failed(node))
    }

    /// Claims on several inputs take a value for each; one input takes what remains.
    fn distribute(&mut self, node: usize, pulled: Pulled, value: Ext) -> Result<(), VerifyError> {
        let mut rest = value - pulled.constant;
        let single = pulled.inputs.len() == 1;
        for (input, functional) in pulled.inputs {
            let value = if single {
                rest
            } else {
                let [value] = self.receiver.receive()?;
                value
            };
            rest -= value;
            self.claims.add(input, functional, value);
        }
        if rest != Ext::ZERO {
            let node = &self.graph.graph().nodes[node];
            return Err(VerifyError::Sum { node: node.name.clone(), operator: node.op.name() });
        }
        Ok(())
    }
}
