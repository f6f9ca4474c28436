//! One node at a time; the mirror of the verifier's module of this name.

use p3_field::PrimeCharacteristicRing;
use rayon::prelude::*;
use shardproof_integer::Op;

use super::Prover;
use super::tables::{operand_tables, pad};
use crate::claims::{
    Claim, Pulled, WeightClaim, WitnessClaim, combine, evaluation, extents, pull_back, required_extents, separable,
    variables,
};
use crate::field::{Base, Ext, to_base};
use crate::functional::{Functional, Term};
use crate::layout::{Columns, Digit};
use crate::operands::{addend_functional, operand_functionals, operands};
use crate::requant::Requant;
use crate::sumcheck::{Product, Triple, prove};
use crate::table::Table;

impl Prover<'_> {
    /// Reduces the claims on the result of `node`, if there are any.
    pub(super) fn node(&mut self, node: usize) {
        let claims = self.claims.take(self.graph.graph().result(node));
        if claims.is_empty() {
            return;
        }
        let layout = self.layout;
        let op = &self.graph.graph().nodes[node].op;
        match &layout.nodes[node] {
            Some(Columns::Requant { low, high, sign }) => {
                let columns = Requant::new(op, low, high, *sign);
                if sign.is_some() {
                    self.rectify(node, claims, &columns);
                } else {
                    self.requantise(node, claims, &columns);
                }
            }
            Some(Columns::Table { argument, result }) => self.table(op, claims, *argument, *result),
            Some(Columns::Max { difference, chosen }) => {
                self.max(node, claims, op.inputs()[0], difference, *chosen);
            }
            Some(Columns::Divide { quotient, remainder, rest }) => {
                let Op::Divide { numerator, denominator, bits } = *op else {
                    unreachable!("the layout gives quotients to divisions only, not to {}", op.name())
                };
                self.divide(claims, [numerator, denominator], bits, [quotient, remainder, rest]);
            }
            Some(Columns::Sqrt { root, remainder, rest }) => {
                self.square_root(claims, op.inputs()[0], [root, remainder, rest]);
            }
            None => match *op {
                Op::MatMulTensors { left, right } => self.tensor_product(node, claims, [left, right]),
                Op::MulTensors { left, right } => self.elementwise(claims, [left, right]),
                _ => self.linear(node, claims),
            },
        }
    }

    fn rectify(&mut self, node: usize, claims: Vec<Claim>, columns: &Requant<'_>) {
        let extents = extents(self.graph, self.graph.graph().result(node), self.layout.runs);
        let combined = combine(claims, self.sender.challenge());
        let elements = extents.iter().product();
        let tables = [
            pad(&combined.functional.dense(), &extents, |value| value),
            pad(&self.column(columns.sign.as_slice(), elements), &extents, Ext::from),
            pad(&self.column(columns.high, elements), &extents, Ext::from),
        ];
        let (point, [_, sign, high]) = prove(&mut self.sender, &Triple, tables.map(Table::new));
        self.sender.send(&[sign, high]);
        self.accumulator(columns, &extents, evaluation(&extents, &point), sign, high);
    }

    fn requantise(&mut self, node: usize, claims: Vec<Claim>, columns: &Requant<'_>) {
        let extents = extents(self.graph, self.graph.graph().result(node), self.layout.runs);
        let ones = Functional::ones(&extents);
        for claim in claims {
            let value = claim.value + claim.functional.inner(&ones) * columns.offset();
            self.witness_claims.push(WitnessClaim::of_digits(columns.high, claim.functional, value));
        }
        let at = evaluation(&extents, &self.sender.challenges(variables(&extents)));
        let high = at.apply(&self.column(columns.high, extents.iter().product()));
        self.sender.send(&[high]);
        self.accumulator(columns, &extents, at, Ext::ZERO, high);
    }

    fn accumulator(&mut self, columns: &Requant<'_>, extents: &[usize], at: Functional, sign: Ext, high: Ext) {
        let low = if columns.low.is_empty() {
            Ext::ZERO
        } else {
            let low = at.apply(&self.column(columns.low, extents.iter().product()));
            self.sender.send(&[low]);
            self.witness_claims.push(WitnessClaim::of_digits(columns.low, at.clone(), low));
            low
        };
        if let Some(digit) = columns.sign {
            self.witness_claims.push(WitnessClaim::of_digits(&[digit], at.clone(), sign));
        }
        self.witness_claims.push(WitnessClaim::of_digits(columns.high, at.clone(), high));
        let ones = at.inner(&Functional::ones(extents));
        self.add_claim(columns.input, at, columns.accumulator(low, high, sign, ones));
    }

    /// The numbers that columns of digits write, as they stand in the committed witness.
    pub(super) fn column(&self, digits: &[Digit], elements: usize) -> Vec<Base> {
        /// Numbers that one task writes.
        const TASK: usize = 1 << 12;
        let mut numbers = vec![Base::ZERO; elements];
        numbers.par_chunks_mut(TASK).enumerate().for_each(|(task, numbers)| {
            for digit in digits {
                let weight = Base::from_u64(1 << digit.position);
                let cells = &self.witness[digit.offset + task * TASK..][..numbers.len()];
                numbers.iter_mut().zip(cells).for_each(|(number, &cell)| *number += weight * cell);
            }
        });
        numbers
    }

    fn table(&mut self, op: &Op, claims: Vec<Claim>, argument: usize, result: usize) {
        let Op::Table { input, .. } = *op else {
            unreachable!("the layout gives arguments and results to tables only, not to {}", op.name())
        };
        for Claim { functional, value } in claims {
            self.witness_claims.push(WitnessClaim { functional, columns: vec![(result, Ext::ONE)], value });
        }
        let extents = extents(self.graph, input, self.layout.runs);
        let at = evaluation(&extents, &self.sender.challenges(variables(&extents)));
        let value = at.apply(&self.witness[argument..argument + extents.iter().product::<usize>()]);
        self.sender.send(&[value]);
        self.witness_claims.push(WitnessClaim { functional: at.clone(), columns: vec![(argument, Ext::ONE)], value });
        self.add_claim(input, at, value);
    }

    fn linear(&mut self, node: usize, claims: Vec<Claim>) {
        let op = &self.graph.graph().nodes[node].op;
        let Some((weight, input)) = operands(op) else {
            for claim in claims {
                let pulled = pull_back(self.graph, node, self.layout.runs, &claim.functional);
                self.distribute(pulled, claim.value);
            }
            return;
        };
        let (term, value) = self.separate(node, claims);
        if let Op::AddWeight { multiplier, .. } = *op {
            let functional = addend_functional(self.graph, weight, &term.factors);
            let addend = functional.apply(&to_base(&self.weights.0[weight.0 as usize]));
            self.sender.send(&[addend]);
            self.weight_claims.push(WeightClaim { weight, functional, value: addend });
            self.add_claim(input, Functional { terms: vec![term] }, value - addend * Base::from_i64(multiplier));
            return;
        }
        let (f, g) = operand_tables(self.graph, self.trace, self.weights, op, &term.factors);
        let (point, [of_weight, of_input]) = prove(&mut self.sender, &Product, [f, g].map(Table::new));
        self.sender.send(&[of_weight, of_input]);
        let (weight_functional, input_functional) = operand_functionals(self.graph, op, &term.factors, &point);
        self.weight_claims.push(WeightClaim { weight, functional: weight_functional, value: of_weight });
        self.add_claim(input, input_functional, of_input);
    }

    pub(super) fn separate(&mut self, node: usize, claims: Vec<Claim>) -> (Term, Ext) {
        let result = self.graph.graph().result(node);
        let runs = self.layout.runs;
        let required = required_extents(self.graph, &self.graph.graph().nodes[node].op, result, runs)
            .expect("operators with weights say what they require");
        if let Some(separate) = separable(&claims, &required) {
            return separate;
        }
        let extents = extents(self.graph, result, runs);
        let combined = combine(claims, self.sender.challenge());
        let coefficients = pad(&combined.functional.dense(), &extents, |value| value);
        let values = pad(self.trace.tensor(result), &extents, |value| Base::from_i64(value).into());
        let (point, [_, value]) = prove(&mut self.sender, &Product, [coefficients, values].map(Table::new));
        self.sender.send(&[value]);
        let at = evaluation(&extents, &point);
        separable(&[Claim { functional: at, value }], &required).expect("an evaluation has a factor for each axis")
    }

    fn distribute(&mut self, pulled: Pulled, value: Ext) {
        if let [(input, _)] = pulled.inputs[..] {
            let functional = pulled.inputs.into_iter().next().expect("there is one").1;
            self.add_claim(input, functional, value - pulled.constant);
            return;
        }
        for (input, functional) in pulled.inputs {
            let value = functional.apply(&to_base(self.trace.tensor(input)));
            self.sender.send(&[value]);
            self.add_claim(input, functional, value);
        }
    }
}
