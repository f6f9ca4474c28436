//! Products, quotients, powers and roots of tensors.
//!
//! A quotient by a tensor that is repeated along some axis is a product with its reciprocal, which then is computed once for
//! each element that there is, not for each place where it is used.

use super::{Lowered, Lowers, Operand};
use crate::quantise::functions::Function;
use crate::quantise::real::{RealOp, RealTensor, Tensor};

/// Largest exponent of a power.
const MAX_EXPONENT: f64 = 8.0;

impl Lowered<'_, '_> {
    /// Mul and Div.
    pub(super) fn product(&mut self) -> Lowers<Tensor> {
        let divides = self.node.op_type == "Div";
        match (self.needed(0)?, self.needed(1)?) {
            (Operand::Tensor(input), Operand::Constant(weight)) => {
                if divides && weight.values.contains(&0.0) {
                    return Err(self.unsupported("a division by zero"));
                }
                self.scaled(input, if divides { weight.map(|value| 1.0 / value) } else { weight })
            }
            (Operand::Constant(weight), Operand::Tensor(input)) => {
                let input = if divides { self.reciprocal_of(input) } else { input };
                self.scaled(input, weight)
            }
            (Operand::Tensor(x), Operand::Tensor(y)) if divides => self.quotient(x, y),
            (Operand::Tensor(x), Operand::Tensor(y)) => self.times_tensor(x, y),
            (Operand::Constant(_), Operand::Constant(_)) => Err(self.unsupported("both factors are constants")),
        }
    }

    /// Element by element, both broadcast to the shape of the result.
    pub(super) fn times_tensor(&mut self, x: Tensor, y: Tensor) -> Lowers<Tensor> {
        let shape = self.joint_shape(&[x, y]);
        let inputs = [self.repeated(x, &shape)?, self.repeated(y, &shape)?];
        Ok(self.push(RealOp::MulTensors { inputs }, shape))
    }

    fn quotient(&mut self, x: Tensor, y: Tensor) -> Lowers<Tensor> {
        let shape = self.joint_shape(&[x, y]);
        let repeated = self.shape_of(y).iter().product::<usize>() < shape.iter().product();
        if repeated {
            let reciprocal = self.reciprocal_of(y);
            return self.times_tensor(x, reciprocal);
        }
        let (numerator, denominator) = (self.repeated(x, &shape)?, self.repeated(y, &shape)?);
        Ok(self.push(RealOp::Divide { numerator, denominator }, shape))
    }

    fn reciprocal_of(&mut self, input: Tensor) -> Tensor {
        let shape = self.shape_of(input);
        self.push(RealOp::Reciprocal { input }, shape)
    }

    fn root_of(&mut self, input: Tensor) -> Tensor {
        let shape = self.shape_of(input);
        self.push(RealOp::Sqrt { input }, shape)
    }

    pub(super) fn reciprocal(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        Ok(self.reciprocal_of(input))
    }

    pub(super) fn root(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        Ok(self.root_of(input))
    }

    /// A power by one constant: roots and reciprocals, the square as a product, higher powers by table.
    pub(super) fn power(&mut self) -> Lowers<Tensor> {
        let input = self.tensor(0)?;
        let exponent = self.constant(1)?.as_ref().and_then(RealTensor::uniform);
        let result = match exponent {
            Some(1.0) => input,
            Some(2.0) => self.times_tensor(input, input)?,
            Some(0.5) => self.root_of(input),
            Some(-1.0) => self.reciprocal_of(input),
            Some(-0.5) => {
                let root = self.root_of(input);
                self.reciprocal_of(root)
            }
            Some(exponent) if (3.0..=MAX_EXPONENT).contains(&exponent) && exponent.fract() == 0.0 => {
                let function = Function::Power { exponent: exponent as u32 };
                let shape = self.shape_of(input);
                self.push(RealOp::Function { input, function }, shape)
            }
            _ => {
                return Err(self.unsupported(format!(
                    "its exponent is not one of -1, -0.5, 0.5 and the whole numbers from 1 to {MAX_EXPONENT}"
                )));
            }
        };
        self.repeated(result, &self.output_shape())
    }
}
