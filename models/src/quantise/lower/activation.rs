//! Functions of one variable: by ReLUs where that is exact, else by table.

use super::{Lowered, Lowers};
use crate::quantise::functions::Function;
use crate::quantise::real::{RealOp, RealTensor, Tensor};

impl Lowered<'_, '_> {
    pub(super) fn relu(&mut self, input: Tensor) -> Tensor {
        let shape = self.shape_of(input);
        self.push(RealOp::Relu { input }, shape)
    }

    /// Everything that has not been handled: functions of one variable, or an error.
    pub(super) fn activation(&mut self) -> Lowers<Tensor> {
        match self.node.op_type.as_str() {
            "Relu" => {
                let input = self.tensor(0)?;
                Ok(self.relu(input))
            }
            "LeakyRelu" => self.leaky(RealTensor::scalar(self.float_or("alpha", 0.01))),
            "PRelu" => {
                let slope = self.constant(1)?.ok_or_else(|| self.unsupported("it has no slope"))?;
                self.leaky(slope)
            }
            "Abs" => self.leaky(RealTensor::scalar(-1.0)),
            "Neg" => {
                let input = self.tensor(0)?;
                Ok(self.combine(vec![(input, -1.0)], 0.0))
            }
            "Clip" => self.clip(),
            "HardSigmoid" => {
                let input = self.tensor(0)?;
                let (alpha, beta) = (self.float_or("alpha", 0.2), self.float_or("beta", 0.5));
                let line = self.combine(vec![(input, alpha)], beta);
                Ok(self.clipped(line, Some(0.0), Some(1.0)))
            }
            _ => {
                let function = self.function()?;
                let input = self.tensor(0)?;
                let shape = self.shape_of(input);
                Ok(self.push(RealOp::Function { input, function }, shape))
            }
        }
    }

    fn function(&self) -> Lowers<Function> {
        let alpha = self.float_or("alpha", 1.0);
        Ok(match self.node.op_type.as_str() {
            "Sigmoid" => Function::Sigmoid,
            "Tanh" => Function::Tanh,
            "Erf" => Function::Erf,
            "Exp" => Function::Exp,
            "Softplus" => Function::Softplus,
            "Softsign" => Function::Softsign,
            "HardSwish" => Function::HardSwish,
            "Mish" => Function::Mish,
            "Sin" => Function::Sin,
            "Cos" => Function::Cos,
            "Atan" => Function::Atan,
            "Asinh" => Function::Asinh,
            "Sinh" => Function::Sinh,
            "Cosh" => Function::Cosh,
            "Swish" if alpha == 1.0 => Function::Silu,
            "Elu" => Function::Elu { alpha },
            "Selu" => Function::Selu {
                alpha: self.float_or("alpha", 1.673_263_192_176_818_8),
                gamma: self.float_or("gamma", 1.050_700_902_938_842_8),
            },
            "Gelu" => match crate::proto::text_of(self.node, "approximate") {
                None | Some("none") => Function::Gelu,
                Some("tanh") => Function::GeluTanh,
                Some(other) => return Err(self.unsupported(format!("approximation `{other}`"))),
            },
            _ => return Err(self.unsupported("the operator has no counterpart in integers")),
        })
    }

    /// `slope x` where x is negative: `slope x + (1 - slope) relu(x)`, or `x + (1 - slope) relu(-x)` where the slope would
    /// multiply the rounding of positive values.
    fn leaky(&mut self, slope: RealTensor) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        if slope.magnitude() > 1.0 {
            let negated = self.combine(vec![(input, -1.0)], 0.0);
            let negative = self.relu(negated);
            let part = self.scaled(negative, slope.map(|slope| 1.0 - slope))?;
            return self.sum_of(vec![(input, 1.0), (part, 1.0)]);
        }
        let positive = self.relu(input);
        if let Some(slope) = slope.uniform() {
            return Ok(self.combine(vec![(input, slope), (positive, 1.0 - slope)], 0.0));
        }
        let whole = self.scaled(input, slope.clone())?;
        let part = self.scaled(positive, slope.map(|slope| 1.0 - slope))?;
        Ok(self.combine(vec![(whole, 1.0), (part, 1.0)], 0.0))
    }

    fn clip(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let limit = |index: usize, attribute: &str| -> Lowers<Option<f64>> {
            let given = match self.constant(index)? {
                Some(limit) => limit.values.first().copied(),
                None => self.float(attribute),
            };
            // Files that mean no limit often give the largest float.
            Ok(given.filter(|limit| limit.abs() < f64::from(f32::MAX)))
        };
        let (low, high) = (limit(1, "min")?, limit(2, "max")?);
        Ok(self.clipped(input, low, high))
    }

    /// `low + relu(x - low)`, then `high - relu(high - x)`.
    fn clipped(&mut self, input: Tensor, low: Option<f64>, high: Option<f64>) -> Tensor {
        let mut result = input;
        if let Some(low) = low {
            let above = if low == 0.0 { result } else { self.combine(vec![(result, 1.0)], -low) };
            let above = self.relu(above);
            result = if low == 0.0 { above } else { self.combine(vec![(above, 1.0)], low) };
        }
        if let Some(high) = high {
            let below = self.combine(vec![(result, -1.0)], high);
            let below = self.relu(below);
            result = self.combine(vec![(below, -1.0)], high);
        }
        result
    }
}
