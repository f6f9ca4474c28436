//! The linear functionals that claims are about. Each is a product over the variables, `w(i) = prod_j w_j(i_j)`, which lets
//! both sides bind variables one by one in constant time.

use p3_field::{Field, PrimeCharacteristicRing, TwoAdicField};

use crate::field::{Base, Ext};

/// A functional on polynomials over some variables, coordinate 0 being the most significant.
#[derive(Clone, Debug)]
pub(super) enum Weight {
    /// The value at a point.
    Point(Vec<Ext>),
    /// `sum_i f(i) z^i`: the value of the univariate polynomial with these coefficients, as codewords hold it.
    Power(Base),
}

impl Weight {
    /// The functional whose value is the folded row `row` of an oracle with `2^log_rows` rows.
    pub(super) fn row(row: usize, log_rows: usize) -> Self {
        Self::Power(Base::two_adic_generator(log_rows).exp_u64(row as u64))
    }

    /// The functional at `bound` in the first variables, for one on `vars` variables: a factor and the rest on
    /// `vars - bound.len()`, of which [`Self::apply`] is in charge.
    fn bind(&self, vars: usize, bound: &[Ext]) -> Ext {
        match self {
            Self::Point(point) => point
                .iter()
                .zip(bound)
                .fold(Ext::ONE, |product, (&z, &r)| product * (Ext::ONE - z - r + (z * r).double())),
            Self::Power(z) => {
                // Coordinate j stands for z^(2^(vars - 1 - j)).
                let powers = successive_squares(*z, vars);
                let factors = powers.iter().rev().zip(bound);
                factors.fold(Ext::ONE, |product, (&power, &r)| product * (r * (power - Base::ONE) + Base::ONE))
            }
        }
    }

    /// The functional's value on the polynomial whose first variables are bound at `bound` and whose values in the others
    /// are `rest`.
    pub(super) fn apply(&self, vars: usize, bound: &[Ext], rest: &[Ext]) -> Ext {
        let inner = match self {
            Self::Point(point) => evaluate(rest.to_vec(), &point[bound.len()..]),
            Self::Power(z) => horner(rest, *z),
        };
        self.bind(vars, bound) * inner
    }
}

/// `sum_i values[i] z^i`.
pub(super) fn horner(values: &[Ext], z: Base) -> Ext {
    values.iter().rev().fold(Ext::ZERO, |sum, &value| sum * z + value)
}

/// The value at `point` of the multilinear polynomial with `values` on the cube.
pub(super) fn evaluate(mut values: Vec<Ext>, point: &[Ext]) -> Ext {
    for &coordinate in point {
        let half = values.len() / 2;
        let (low, high) = values.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += (*high - *low) * coordinate);
        values.truncate(half);
    }
    values[0]
}

fn successive_squares<F: Field>(z: F, count: usize) -> Vec<F> {
    std::iter::successors(Some(z), |power| Some(power.square())).take(count).collect()
}
