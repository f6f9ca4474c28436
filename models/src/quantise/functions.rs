//! Functions of one variable that are looked up in tables.
//!
//! Only total, continuous functions are here: at a jump, a value that quantisation moves to the other side would turn into
//! a wrong answer. The functions are those of `libm`, not of the system: a table must have the same entries on every
//! machine.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use libm::{asinh, atan, cos, cosh, erf, exp, expm1, log1p, sin, sinh, tanh};

/// A function that ONNX defines, with its attributes, or one that is composed of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Function {
    Sigmoid,
    Tanh,
    Erf,
    Exp,
    Softplus,
    Softsign,
    HardSwish,
    Mish,
    Sin,
    Cos,
    Atan,
    Asinh,
    Sinh,
    Cosh,
    Elu {
        alpha: f64,
    },
    Selu {
        alpha: f64,
        gamma: f64,
    },
    /// With the error function.
    Gelu,
    /// With its approximation by tanh.
    GeluTanh,
    /// To a whole power, at least the second.
    Power {
        exponent: u32,
    },
    /// `x sigmoid(x)`.
    Silu,
    /// What several operators make of one tensor, element by element.
    Composed(Box<Expression>),
}

/// A function of one variable, as operators compose it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    /// The variable.
    Argument,
    /// `constant + sum_t factor_t term_t`.
    Sum {
        terms: Vec<(Expression, f64)>,
        constant: f64,
    },
    Product(Box<Expression>, Box<Expression>),
    Applied(Function, Box<Expression>),
}

impl Expression {
    fn apply(&self, x: f64) -> f64 {
        match self {
            Self::Argument => x,
            Self::Sum { terms, constant } => {
                terms.iter().fold(*constant, |sum, (term, factor)| sum + factor * term.apply(x))
            }
            Self::Product(left, right) => left.apply(x) * right.apply(x),
            Self::Applied(function, inner) => function.apply(inner.apply(x)),
        }
    }

    /// Whether it is more than a polynomial, which sums and products compute exactly.
    pub(super) fn is_transcendental(&self) -> bool {
        match self {
            Self::Argument => false,
            Self::Sum { terms, .. } => terms.iter().any(|(term, _)| term.is_transcendental()),
            Self::Product(left, right) => left.is_transcendental() || right.is_transcendental(),
            Self::Applied(..) => true,
        }
    }
}

impl Function {
    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Composed(_) => "several operators".to_owned(),
            one => format!("{one:?}"),
        }
    }

    pub(super) fn apply(&self, x: f64) -> f64 {
        let sigmoid = |x: f64| {
            let small = exp(-x.abs());
            if x >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
        };
        // Neither overflows for large inputs nor loses digits for small ones.
        let softplus = |x: f64| x.max(0.0) + log1p(exp(-x.abs()));
        match self {
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => tanh(x),
            Self::Erf => erf(x),
            Self::Exp => exp(x),
            Self::Softplus => softplus(x),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Mish => x * tanh(softplus(x)),
            Self::Sin => sin(x),
            Self::Cos => cos(x),
            Self::Atan => atan(x),
            Self::Asinh => asinh(x),
            Self::Sinh => sinh(x),
            Self::Cosh => cosh(x),
            Self::Elu { alpha } => elu(x, *alpha),
            Self::Selu { alpha, gamma } => gamma * elu(x, *alpha),
            Self::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
            Self::GeluTanh => 0.5 * x * (1.0 + tanh(FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x))),
            Self::Power { exponent } => (0..*exponent).fold(1.0, |power, _| power * x),
            Self::Silu => x * sigmoid(x),
            Self::Composed(expression) => expression.apply(x),
        }
    }

    /// The least power of two beyond which, on both sides, the function stays within `tolerance` of a constant; nothing
    /// for one that does not level out.
    pub(super) fn saturation(&self, tolerance: f64) -> Option<f64> {
        const FAR: f64 = 1e6;
        if !matches!(self, Self::Sigmoid | Self::Tanh | Self::Erf) {
            return None;
        }
        let level =
            |limit: f64| [limit, -limit].iter().all(|&x| (self.apply(x) - self.apply(x * FAR)).abs() < tolerance);
        (0..10).map(|power| f64::from(1 << power)).find(|&limit| level(limit))
    }
}

fn elu(x: f64, alpha: f64) -> f64 {
    if x >= 0.0 { x } else { alpha * expm1(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_is_where_the_function_is_level() {
        assert_eq!(Function::Sigmoid.saturation(1e-3), Some(8.0));
        assert_eq!(Function::Tanh.saturation(1e-3), Some(4.0));
        assert_eq!(Function::Softplus.saturation(1e-3), None);
    }

    #[test]
    fn functions_are_total_and_continuous() {
        let all = [
            Function::Sigmoid,
            Function::Tanh,
            Function::Erf,
            Function::Exp,
            Function::Softplus,
            Function::Softsign,
            Function::HardSwish,
            Function::Mish,
            Function::Elu { alpha: 0.7 },
            Function::Selu { alpha: 1.6, gamma: 1.05 },
            Function::Gelu,
            Function::GeluTanh,
            Function::Silu,
        ];
        for function in all {
            for step in -20_000..20_000 {
                let x = f64::from(step) / 4_000.0;
                let (here, there) = (function.apply(x), function.apply(x + 1.0 / 4_000.0));
                assert!(here.is_finite() && (there - here).abs() < 0.05, "{} at {x}", function.name());
            }
        }
    }
}
