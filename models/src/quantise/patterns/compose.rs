//! Products whose factors are functions of one tensor.

use crate::quantise::functions::{Expression, Function};
use crate::quantise::real::{RealGraph, RealOp, Tensor};

/// Most operators that one function replaces.
const MAX_OPERATORS: usize = 16;

/// The function that the product at `index` is.
pub(super) fn found(graph: &RealGraph, index: usize) -> Option<RealOp> {
    let product = graph.inputs.len() + index;
    let composed = sources(graph, product).into_iter().find_map(|input| {
        let expression = expression(graph, product, input, &mut 0)?;
        expression.is_transcendental().then_some((input, expression))
    });
    let (input, expression) = composed?;
    Some(RealOp::Function { input, function: Function::Composed(Box::new(expression)) })
}

/// Tensors that `tensor` is computed from by operators that act on each element by itself, nearest first.
fn sources(graph: &RealGraph, tensor: Tensor) -> Vec<Tensor> {
    let mut found = vec![tensor];
    let mut next = 0;
    while next < found.len() && found.len() <= MAX_OPERATORS {
        let inputs = match graph.op(found[next]) {
            Some(op @ (RealOp::Combine { .. } | RealOp::MulTensors { .. } | RealOp::Function { .. })) => op.inputs(),
            _ => Vec::new(),
        };
        for input in inputs {
            if !found.contains(&input) {
                found.push(input);
            }
        }
        next += 1;
    }
    found.split_off(1)
}

/// What `tensor` is as a function of `argument`, if it depends on nothing else; `operators` counts what it consists of.
fn expression(graph: &RealGraph, tensor: Tensor, argument: Tensor, operators: &mut usize) -> Option<Expression> {
    if tensor == argument {
        return Some(Expression::Argument);
    }
    *operators += 1;
    if *operators > MAX_OPERATORS {
        return None;
    }
    Some(match graph.op(tensor)? {
        RealOp::Combine { terms, constant } => {
            let term =
                |&(input, factor): &(Tensor, f64)| Some((expression(graph, input, argument, operators)?, factor));
            Expression::Sum { terms: terms.iter().map(term).collect::<Option<_>>()?, constant: *constant }
        }
        RealOp::MulTensors { inputs: [x, y] } => {
            let left = expression(graph, *x, argument, operators)?;
            let right = expression(graph, *y, argument, operators)?;
            Expression::Product(Box::new(left), Box::new(right))
        }
        RealOp::Function { input, function } => {
            let inner = expression(graph, *input, argument, operators)?;
            Expression::Applied(function.clone(), Box::new(inner))
        }
        _ => return None,
    })
}
