//! From a normalised ONNX graph to the operators of the integer graph, in reals.

mod activation;
mod arithmetic;
mod attention;
mod constants;
mod linear;
mod pool;
mod select;
mod shape;

use std::collections::HashMap;

use shardproof_integer::{MAX_ELEMENTS, MAX_RANK, Window};

use super::error::QuantiseError;
use super::real::{RealGraph, RealInput, RealNode, RealOp, RealTensor, Tensor};
use crate::constant::Constant;
use crate::graph::Graph;
use crate::proto::{DataType, NodeProto};
use constants::{integers, reals};

/// Largest kernel, stride, dilation or padding.
const MAX_COUNT: usize = 1 << 16;

/// Lowers all nodes of `graph`.
pub(super) fn lower(graph: &Graph) -> Result<RealGraph, QuantiseError> {
    let mut lowering = Lowering { graph, real: RealGraph::default(), tensors: HashMap::new() };
    for name in &graph.inputs {
        let shape = extents(&graph.fact(name).shape);
        lowering.tensors.insert(name, lowering.real.inputs.len());
        lowering.real.inputs.push(RealInput { name: name.clone(), shape });
    }
    for node in &graph.nodes {
        Lowered { lowering: &mut lowering, node }.lower()?;
    }
    let outputs = graph.outputs.iter().map(|name| lowering.tensors[name.as_str()]).collect();
    lowering.real.outputs = outputs;
    Ok(lowering.real)
}

struct Lowering<'a> {
    graph: &'a Graph,
    real: RealGraph,
    /// By ONNX name.
    tensors: HashMap<&'a str, Tensor>,
}

/// An input of a node.
#[derive(Clone, Debug)]
enum Operand {
    Tensor(Tensor),
    Constant(RealTensor),
}

/// One node while it is lowered.
struct Lowered<'l, 'a> {
    lowering: &'l mut Lowering<'a>,
    node: &'a NodeProto,
}

type Lowers<T> = Result<T, QuantiseError>;

impl<'a> Lowered<'_, 'a> {
    fn lower(mut self) -> Lowers<()> {
        self.check_outputs()?;
        let result = match self.node.op_type.as_str() {
            "Split" => return self.split(),
            "Gemm" => self.gemm(),
            "MatMul" => self.matmul(),
            "Conv" => self.conv(),
            "Add" | "Sub" | "Sum" | "Mean" => self.sum(),
            "Mul" | "Div" => self.product(),
            "Pow" => self.power(),
            "Sqrt" => self.root(),
            "Reciprocal" => self.reciprocal(),
            "Softmax" => self.softmax(),
            "LayerNormalization" => self.layer_normalization(),
            "Gather" => self.gather(),
            "Expand" => self.expand(),
            "Where" => self.selection(),
            "Max" | "Min" => self.extremum(),
            "BatchNormalization" => self.batch_normalization(),
            "MaxPool" | "GlobalMaxPool" => self.max_pool(),
            "AveragePool" => self.average_pool(),
            "GlobalAveragePool" | "ReduceMean" | "ReduceSum" => self.reduce(),
            "Identity" | "Dropout" | "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape(),
            "Transpose" => self.transpose(),
            "Concat" => self.concat(),
            "Slice" => self.slice(),
            "Pad" => self.pad(),
            _ => self.activation(),
        }?;
        self.define(0, result)
    }

    /// What the rest relies on: a first output, floats, and sizes that integer graphs can have.
    fn check_outputs(&self) -> Lowers<()> {
        if self.node.output.first().is_none_or(String::is_empty) {
            return Err(self.unsupported("its first output is left out"));
        }
        let tensors = self.node.output.iter().chain(&self.node.input).filter(|name| !name.is_empty());
        for (name, fact) in tensors.filter_map(|name| Some((name, self.lowering.graph.facts.get(name)?))) {
            if fact.data_type != DataType::Float {
                return Err(self.unsupported(format!("tensor `{name}` is of type {}", fact.data_type.as_str_name())));
            }
            if !(1..=MAX_ELEMENTS as u64).contains(&fact.elements()) || fact.shape.len() > MAX_RANK {
                return Err(
                    self.unsupported(format!("tensor `{name}` of shape {:?} is too large or empty", fact.shape))
                );
            }
        }
        Ok(())
    }

    /// Names `tensor` as the node's output `index`.
    fn define(&mut self, index: usize, tensor: Tensor) -> Lowers<()> {
        let name = self.node.output.get(index).ok_or_else(|| self.unsupported("it has no output"))?;
        if self.node.output.iter().skip(1).any(|other| !other.is_empty()) && self.node.op_type != "Split" {
            return Err(self.unsupported("only its first output can be used"));
        }
        let shape = extents(&self.lowering.graph.fact(name).shape);
        let tensor = self.reshaped(tensor, shape)?;
        self.lowering.tensors.insert(name, tensor);
        Ok(())
    }

    fn unsupported(&self, reason: impl Into<String>) -> QuantiseError {
        let NodeProto { name, op_type, .. } = self.node;
        QuantiseError::Unsupported { node: name.clone(), operator: op_type.clone(), reason: reason.into() }
    }

    /// Input `index`, if it is given.
    fn operand(&self, index: usize) -> Lowers<Option<Operand>> {
        let Some(name) = self.node.input.get(index).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        if let Some(&tensor) = self.lowering.tensors.get(name.as_str()) {
            return Ok(Some(Operand::Tensor(tensor)));
        }
        let constant = self.constant_named(name)?;
        let values = reals(constant).ok_or_else(|| self.unsupported(format!("constant `{name}` is not of numbers")))?;
        Ok(Some(Operand::Constant(RealTensor { shape: extents(&constant.shape), values })))
    }

    fn constant_named(&self, name: &str) -> Lowers<&'a Constant> {
        let constant = self.lowering.graph.constants.get(name);
        constant.ok_or_else(|| self.unsupported(format!("its input `{name}` is neither computed nor constant")))
    }

    /// Input `index`, which the operator needs.
    fn needed(&self, index: usize) -> Lowers<Operand> {
        self.operand(index)?.ok_or_else(|| self.unsupported(format!("input {index} is missing")))
    }

    /// Input `index`, which must be computed.
    fn tensor(&self, index: usize) -> Lowers<Tensor> {
        match self.needed(index)? {
            Operand::Tensor(tensor) => Ok(tensor),
            Operand::Constant(_) => Err(self.unsupported(format!("input {index} is a constant"))),
        }
    }

    /// Input `index`, if it is given; it must be constant then.
    fn constant(&self, index: usize) -> Lowers<Option<RealTensor>> {
        match self.operand(index)? {
            None => Ok(None),
            Some(Operand::Constant(constant)) => Ok(Some(constant)),
            Some(Operand::Tensor(_)) => Err(self.unsupported(format!("input {index} is not constant"))),
        }
    }

    /// The integers of input `index`, if it is given.
    fn integers(&self, index: usize) -> Lowers<Option<Vec<i64>>> {
        let Some(name) = self.node.input.get(index).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let constant = self.constant_named(name)?;
        let read = integers(constant);
        read.map(Some).ok_or_else(|| self.unsupported(format!("constant `{name}` is not of integers")))
    }

    /// A float attribute.
    fn float(&self, name: &str) -> Option<f64> {
        let attribute = crate::proto::attribute(self.node, name)?;
        (attribute.r#type() == crate::proto::AttributeType::Float).then_some(f64::from(attribute.f))
    }

    fn float_or(&self, name: &str, default: f64) -> f64 {
        self.float(name).unwrap_or(default)
    }

    fn int_or(&self, name: &str, default: i64) -> i64 {
        crate::proto::int_of(self.node, name).unwrap_or(default)
    }

    /// A list of integers from 0 to [`MAX_COUNT`], or `default`.
    fn counts_or(&self, name: &str, default: Vec<usize>) -> Lowers<Vec<usize>> {
        let Some(values) = crate::proto::ints_of(self.node, name) else { return Ok(default) };
        let count = |&value: &i64| usize::try_from(value).ok().filter(|&count| count <= MAX_COUNT);
        let counts: Option<Vec<usize>> = values.iter().map(count).collect();
        let counts = counts.ok_or_else(|| self.unsupported(format!("attribute `{name}` is {values:?}")))?;
        if counts.len() == default.len() {
            return Ok(counts);
        }
        Err(self.unsupported(format!("attribute `{name}` has {} values, not {}", counts.len(), default.len())))
    }

    /// An axis, counted from the front.
    fn axis(&self, axis: i64, rank: usize) -> Lowers<usize> {
        let counted = if axis < 0 { axis + rank as i64 } else { axis };
        let counted = usize::try_from(counted).ok().filter(|&counted| counted < rank);
        counted.ok_or_else(|| self.unsupported(format!("axis {axis} of a tensor of {rank} axes")))
    }

    fn shape_of(&self, tensor: Tensor) -> Vec<usize> {
        self.lowering.real.shape(tensor).to_vec()
    }

    /// Shape of the node's first output.
    fn output_shape(&self) -> Vec<usize> {
        extents(&self.lowering.graph.fact(&self.node.output[0]).shape)
    }

    fn push(&mut self, op: RealOp, shape: Vec<usize>) -> Tensor {
        let real = &mut self.lowering.real;
        let (name, operator) = (self.node.name.clone(), self.node.op_type.clone());
        real.nodes.push(RealNode { name, operator, op, shape });
        real.inputs.len() + real.nodes.len() - 1
    }

    fn reshaped(&mut self, input: Tensor, shape: Vec<usize>) -> Lowers<Tensor> {
        let own = self.shape_of(input);
        if own == shape {
            return Ok(input);
        }
        if own.iter().product::<usize>() != shape.iter().product::<usize>() {
            return Err(self.unsupported(format!("its result has shape {own:?}, not {shape:?}")));
        }
        Ok(self.push(RealOp::Reshape { input }, shape))
    }

    fn combine(&mut self, terms: Vec<(Tensor, f64)>, constant: f64) -> Tensor {
        let shape = self.shape_of(terms[0].0);
        self.push(RealOp::Combine { terms, constant }, shape)
    }

    /// Two transpositions after each other are one.
    fn transposed(&mut self, input: Tensor, axes: Vec<usize>) -> Tensor {
        if axes.iter().copied().eq(0..axes.len()) {
            return input;
        }
        if let Some(RealOp::Transpose { input, axes: before }) = self.lowering.real.op(input) {
            let (input, axes) = (*input, axes.iter().map(|&axis| before[axis]).collect());
            return self.transposed(input, axes);
        }
        let own = self.shape_of(input);
        let shape = axes.iter().map(|&axis| own[axis]).collect();
        self.push(RealOp::Transpose { input, axes }, shape)
    }

    fn sliced(&mut self, input: Tensor, start: Vec<usize>, step: Vec<usize>, count: Vec<usize>) -> Tensor {
        if count == self.shape_of(input) {
            return input;
        }
        self.push(RealOp::Slice { input, start, step }, count)
    }

    /// Elements `start, start + step, ..` of one axis.
    fn sliced_axis(&mut self, input: Tensor, axis: usize, [start, step, count]: [usize; 3]) -> Tensor {
        let mut counts = self.shape_of(input);
        counts[axis] = count;
        let (mut starts, mut steps) = (vec![0; counts.len()], vec![1; counts.len()]);
        (starts[axis], steps[axis]) = (start, step);
        self.sliced(input, starts, steps, counts)
    }

    fn joined(&mut self, inputs: Vec<Tensor>, axis: usize) -> Tensor {
        if let [single] = inputs[..] {
            return single;
        }
        let mut shape = self.shape_of(inputs[0]);
        shape[axis] = inputs.iter().map(|&input| self.lowering.real.shape(input)[axis]).sum();
        self.push(RealOp::Concat { inputs, axis }, shape)
    }

    /// Sums over windows of the last two axes.
    fn window_sums(&mut self, input: Tensor, window: Window) -> Lowers<Tensor> {
        let mut shape = self.shape_of(input);
        let rank = shape.len();
        let extents = window.output(shape[rank - 2], shape[rank - 1]);
        let [height, width] = extents.ok_or_else(|| self.unsupported("its window does not fit into its input"))?;
        shape.splice(rank - 2.., [height, width]);
        Ok(self.push(RealOp::WindowSum { input, window }, shape))
    }

    /// Multiplies by a constant of the architecture, or by a trained one; only a single number counts as the former.
    fn scaled(&mut self, input: Tensor, weight: RealTensor) -> Lowers<Tensor> {
        match weight.values[..] {
            [1.0] => Ok(input),
            [factor] => Ok(self.combine(vec![(input, factor)], 0.0)),
            _ => self.scaled_by_weight(input, weight),
        }
    }

    /// Adds a constant of the architecture, or a trained one; only a single number counts as the former.
    fn shifted(&mut self, input: Tensor, weight: RealTensor) -> Lowers<Tensor> {
        match weight.values[..] {
            [0.0] => Ok(input),
            [constant] => Ok(self.combine(vec![(input, 1.0)], constant)),
            _ => self.shifted_by_weight(input, weight),
        }
    }

    /// Multiplies by a trained tensor, both broadcast to the shape of the result.
    fn scaled_by_weight(&mut self, input: Tensor, weight: RealTensor) -> Lowers<Tensor> {
        let (input, weight) = self.broadcast(input, weight)?;
        let shape = self.shape_of(input);
        Ok(self.push(RealOp::MulWeight { input, weight }, shape))
    }

    /// Adds a trained tensor, both broadcast to the shape of the result: biases, however few.
    fn shifted_by_weight(&mut self, input: Tensor, weight: RealTensor) -> Lowers<Tensor> {
        let (input, weight) = self.broadcast(input, weight)?;
        let shape = self.shape_of(input);
        Ok(self.push(RealOp::AddWeight { input, weight }, shape))
    }

    /// A tensor that has the shape of the result, and a constant of its rank.
    fn broadcast(&mut self, input: Tensor, weight: RealTensor) -> Lowers<(Tensor, RealTensor)> {
        let shape = linear::joint(&[&self.shape_of(input), &weight.shape]);
        let fits = weight.shape.iter().rev().zip(shape.iter().rev()).all(|(&own, &joint)| own == joint || own == 1);
        if !fits || shape.iter().product::<usize>() > MAX_ELEMENTS {
            let (found, own) = (&weight.shape, self.shape_of(input));
            return Err(self.unsupported(format!("a constant of shape {found:?} for a tensor of shape {own:?}")));
        }
        let weight = weight.with_rank(shape.len());
        Ok((self.repeated(input, &shape)?, weight))
    }
}

fn extents(shape: &[u64]) -> Vec<usize> {
    shape.iter().map(|&extent| extent as usize).collect()
}
