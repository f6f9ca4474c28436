//! Nodes whose results are determined by inequalities; the mirror of the verifier's module of this name.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::TensorId;

use super::Prover;
use super::tables::pad;
use crate::claims::{Claim, WitnessClaim, combine, evaluation, extents, sum_axes, variables};
use crate::field::{Base, Ext, to_base};
use crate::functional::Functional;
use crate::layout::Digit;
use crate::rounding::{quotient_offset, remainder_sum, root_sum};
use crate::sumcheck::{Product, Triple, prove, prove_eq};
use crate::table::Table;

impl Prover<'_> {
    pub(super) fn max(
        &mut self,
        node: usize,
        mut claims: Vec<Claim>,
        input: TensorId,
        difference: &[Digit],
        chosen: Digit,
    ) {
        let result = self.graph.graph().result(node);
        let [rows, values] = [result, input].map(|tensor| extents(self.graph, tensor, self.layout.runs));
        let (last, elements) = (values.len() - 1, values.iter().product());
        let x = to_base(self.trace.tensor(input));
        let at = evaluation(&values, &self.sender.challenges(variables(&values)));
        let [value, lack] = [at.apply(&x), at.apply(&self.column(difference, elements))];
        self.sender.send(&[value, lack]);
        self.witness_claims.push(WitnessClaim::of_digits(difference, at.clone(), lack));
        claims.push(Claim { functional: at.summed_last(&values), value: value + lack });
        self.add_claim(input, at, value);

        let combined = combine(claims, self.sender.challenge());
        let over_rows = sum_axes(&combined.functional, &values, [last].into_iter());
        let bits = self.column(&[chosen], elements);
        let tables = [
            pad(&over_rows.dense(), &values, |value| value),
            pad(&bits, &values, Ext::from),
            pad(&x, &values, Ext::from),
        ];
        let (point, [_, bit, value]) = prove(&mut self.sender, &Triple, tables.map(Table::new));
        let at = evaluation(&values, &point);
        self.sender.send(&[bit, value]);
        self.witness_claims.push(WitnessClaim::of_digits(&[chosen], at.clone(), bit));
        self.add_claim(input, at, value);

        let at = evaluation(&rows, &self.sender.challenges(variables(&rows)));
        let ones = at.inner(&Functional::ones(&rows));
        let over_rows = sum_axes(&at, &values, [last].into_iter());
        self.witness_claims.push(WitnessClaim::of_digits(&[chosen], over_rows, ones));
    }

    pub(super) fn divide(
        &mut self,
        claims: Vec<Claim>,
        [numerator, denominator]: [TensorId; 2],
        bits: u32,
        [quotient, remainder, rest]: [&[Digit]; 3],
    ) {
        let extents = extents(self.graph, numerator, self.layout.runs);
        let elements = extents.iter().product();
        let ones = Functional::ones(&extents);
        for Claim { functional, value } in claims {
            let value = value + functional.inner(&ones) * quotient_offset(bits);
            self.witness_claims.push(WitnessClaim::of_digits(quotient, functional, value));
        }
        let point = self.sender.challenges(variables(&extents));
        let at = evaluation(&extents, &point);
        let denominators = to_base(self.trace.tensor(denominator));
        let x = at.apply(&to_base(self.trace.tensor(numerator)));
        let [d, r] = [at.apply(&denominators), at.apply(&self.column(remainder, elements))];
        self.sender.send(&[x, d, r]);
        self.witness_claims.push(WitnessClaim::of_digits(remainder, at.clone(), r));
        self.witness_claims.push(remainder_sum(remainder, rest, at.clone(), d.double() - at.inner(&ones)));
        self.add_claim(numerator, at.clone(), x);
        self.add_claim(denominator, at, d);

        let mut quotients = self.column(quotient, elements);
        quotients.iter_mut().for_each(|quotient| *quotient -= quotient_offset(bits));
        let factors = [&quotients, &denominators].map(|values| Table::new(pad(values, &extents, Ext::from)));
        let (point, [q, d]) = prove_eq(&mut self.sender, &Product, &point, factors);
        self.sender.send(&[q, d]);
        let at = evaluation(&extents, &point);
        let positive = q + at.inner(&ones) * quotient_offset(bits);
        self.witness_claims.push(WitnessClaim::of_digits(quotient, at.clone(), positive));
        self.add_claim(denominator, at, d);
    }

    pub(super) fn square_root(&mut self, claims: Vec<Claim>, input: TensorId, [root, remainder, rest]: [&[Digit]; 3]) {
        let extents = extents(self.graph, input, self.layout.runs);
        let elements = extents.iter().product();
        for Claim { functional, value } in claims {
            self.witness_claims.push(WitnessClaim::of_digits(root, functional, value));
        }
        let point = self.sender.challenges(variables(&extents));
        let at = evaluation(&extents, &point);
        let x = at.apply(&to_base(self.trace.tensor(input)));
        let r = at.apply(&self.column(remainder, elements));
        self.sender.send(&[x, r]);
        self.witness_claims.push(WitnessClaim::of_digits(remainder, at.clone(), r));
        self.witness_claims.push(root_sum(root, remainder, rest, at.clone()));
        self.add_claim(input, at, x);

        let roots: Vec<Base> = self.column(root, elements);
        let factors = [(); 2].map(|()| Table::new(pad(&roots, &extents, Ext::from)));
        let (point, [y, _]) = prove_eq(&mut self.sender, &Product, &point, factors);
        self.sender.send(&[y]);
        self.witness_claims.push(WitnessClaim::of_digits(root, evaluation(&extents, &point), y));
    }
}
