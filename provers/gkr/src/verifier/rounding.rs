//! Nodes whose results are determined by inequalities: maxima, quotients, roots. See [`crate::rounding`].

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::TensorId;

use super::Verifier;
use crate::claims::{Claim, WitnessClaim, combine, evaluation, extents, sum_axes, variables};
use crate::error::VerifyError;
use crate::functional::Functional;
use crate::layout::Digit;
use crate::rounding::{quotient_offset, quotient_products, remainder_sum, root_sum};
use crate::sumcheck::{verify_eq_quadratic, verify_triple};

impl Verifier<'_> {
    /// `m - x` from its digits at a random point of the values; then all claims on m, which is `sum_j b_j x_j`; then
    /// `sum_j b_j = 1` at a random point of the rows.
    pub(super) fn max(
        &mut self,
        node: usize,
        mut claims: Vec<Claim>,
        input: TensorId,
        difference: &[Digit],
        chosen: Digit,
    ) -> Result<(), VerifyError> {
        let result = self.graph.graph().result(node);
        let [rows, values] = [result, input].map(|tensor| extents(self.graph, tensor, self.layout.runs));
        let last = values.len() - 1;
        let at = evaluation(&values, &self.receiver.challenges(variables(&values)));
        let [value, lack] = self.receiver.receive()?;
        self.witness.push(WitnessClaim::of_digits(difference, at.clone(), lack));
        claims.push(Claim { functional: at.summed_last(&values), value: value + lack });
        self.claims.add(input, at, value);

        let combined = combine(claims, self.receiver.challenge());
        let reduced = verify_triple(&mut self.receiver, combined.value, variables(&values))?;
        let at = evaluation(&values, &reduced.point);
        let [bit, value] = self.receiver.receive()?;
        let over_rows = sum_axes(&combined.functional, &values, [last].into_iter());
        if over_rows.inner(&at) * bit * value != reduced.value {
            return Err(self.failed(node));
        }
        self.witness.push(WitnessClaim::of_digits(&[chosen], at.clone(), bit));
        self.claims.add(input, at, value);

        let at = evaluation(&rows, &self.receiver.challenges(variables(&rows)));
        let ones = at.inner(&Functional::ones(&rows));
        let over_rows = sum_axes(&at, &values, [last].into_iter());
        self.witness.push(WitnessClaim::of_digits(&[chosen], over_rows, ones));
        Ok(())
    }

    /// `2 q d + r = 2 x + d` at a random point, the product by a sumcheck; `r` and what it lacks to `2 d - 1` there.
    pub(super) fn divide(
        &mut self,
        node: usize,
        claims: Vec<Claim>,
        [numerator, denominator]: [TensorId; 2],
        bits: u32,
        [quotient, remainder, rest]: [&[Digit]; 3],
    ) -> Result<(), VerifyError> {
        let extents = extents(self.graph, numerator, self.layout.runs);
        let ones = Functional::ones(&extents);
        for Claim { functional, value } in claims {
            let value = value + functional.inner(&ones) * quotient_offset(bits);
            self.witness.push(WitnessClaim::of_digits(quotient, functional, value));
        }
        let point = self.receiver.challenges(variables(&extents));
        let at = evaluation(&extents, &point);
        let [x, d, r] = self.receiver.receive()?;
        self.witness.push(WitnessClaim::of_digits(remainder, at.clone(), r));
        self.witness.push(remainder_sum(remainder, rest, at.clone(), d.double() - at.inner(&ones)));
        self.claims.add(numerator, at.clone(), x);
        self.claims.add(denominator, at, d);

        let reduced = verify_eq_quadratic(&mut self.receiver, quotient_products(x, d, r), &point)?;
        let at = evaluation(&extents, &reduced.point);
        let [q, d] = self.receiver.receive()?;
        if q * d != reduced.value {
            return Err(self.failed(node));
        }
        let positive = q + at.inner(&ones) * quotient_offset(bits);
        self.witness.push(WitnessClaim::of_digits(quotient, at.clone(), positive));
        self.claims.add(denominator, at, d);
        Ok(())
    }

    /// `y^2 + r = x` at a random point, the square by a sumcheck; `r` and what it lacks to `2 y` there.
    pub(super) fn square_root(
        &mut self,
        node: usize,
        claims: Vec<Claim>,
        input: TensorId,
        [root, remainder, rest]: [&[Digit]; 3],
    ) -> Result<(), VerifyError> {
        let extents = extents(self.graph, input, self.layout.runs);
        for Claim { functional, value } in claims {
            self.witness.push(WitnessClaim::of_digits(root, functional, value));
        }
        let point = self.receiver.challenges(variables(&extents));
        let at = evaluation(&extents, &point);
        let [x, r] = self.receiver.receive()?;
        self.witness.push(WitnessClaim::of_digits(remainder, at.clone(), r));
        self.witness.push(root_sum(root, remainder, rest, at.clone()));
        self.claims.add(input, at, x);

        let reduced = verify_eq_quadratic(&mut self.receiver, x - r, &point)?;
        let [y] = self.receiver.receive()?;
        if y * y != reduced.value {
            return Err(self.failed(node));
        }
        self.witness.push(WitnessClaim::of_digits(root, evaluation(&extents, &reduced.point), y));
        Ok(())
    }
}
