//! Functions of one variable that are looked up in tables.
//!
//! Only total, continuous functions are here: at a jump, a value that quantisation moves to the other side would turn into
//! a wrong answer.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_2_SQRT_PI};

/// A function that ONNX defines, with its attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
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
}

impl Function {
    /// For people.
    pub(super) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(super) fn apply(self, x: f64) -> f64 {
        let sigmoid = |x: f64| if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
        // Neither overflows for large inputs nor loses digits for small ones.
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        match self {
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Erf => erf(x),
            Self::Exp => x.exp(),
            Self::Softplus => softplus(x),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Mish => x * softplus(x).tanh(),
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Atan => x.atan(),
            Self::Asinh => x.asinh(),
            Self::Sinh => x.sinh(),
            Self::Cosh => x.cosh(),
            Self::Elu { alpha } => elu(x, alpha),
            Self::Selu { alpha, gamma } => gamma * elu(x, alpha),
            Self::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
            Self::GeluTanh => 0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x)).tanh()),
            Self::Power { exponent } => x.powi(exponent as i32),
            Self::Silu => x * sigmoid(x),
        }
    }

    /// The least power of two beyond which, on both sides, the function stays within `tolerance` of a constant; nothing
    /// for one that does not level out.
    pub(super) fn saturation(self, tolerance: f64) -> Option<f64> {
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
    if x >= 0.0 { x } else { alpha * x.exp_m1() }
}

/// The error function by its confluent hypergeometric series, whose terms are all of one sign (Abramowitz and Stegun,
/// 7.1.6).
fn erf(x: f64) -> f64 {
    if x.abs() >= 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_its_known_values() {
        for (x, expected) in [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (2.0, 0.995_322_265_018_952_7), (7.0, 1.0)] {
            assert!((erf(x) - expected).abs() < 1e-14, "{x}");
            assert!((erf(-x) + expected).abs() < 1e-14, "-{x}");
        }
    }

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
