//! The inference engine behind import: which operators it knows, shapes of one node's outputs, and constant folding.
//!
//! Each node is analysed on its own, with the facts of its inputs. That names the node and the operator in every error,
//! and costs one small graph per node instead of a search through the engine's messages.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::Onnx;
use tract_onnx::prelude::{InferenceModelExt, IntoRunnable, TractError, TractResult, TypedModel, tvec};
use tract_onnx::tract_hir::infer::Factoid;

use crate::constant::{Constant, data_type_of};
use crate::graph::{Fact, wrap};
use crate::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto, value_info};

/// Version of the engine up to what changes its results, as `Cargo.toml` asks for it.
pub const ENGINE_VERSION: &str = "0.23";

/// Operators whose results differ from onnxruntime's on the official test cases of ONNX 1.19.
const MISCOMPUTED: [&str; 1] = ["Celu"];
/// Largest float constant that shape inference is given by value: it reads sizes and indices, never weights.
const VALUE_ELEMENTS: u64 = 4096;
/// Longest message of the engine that is passed on.
const MESSAGE_CHARACTERS: usize = 400;

/// One input of a node under analysis.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    Computed(&'a Fact),
    Constant(&'a Constant),
}

/// What the engine finds out about one output.
pub(crate) struct Output {
    /// Nothing where the shape depends on data.
    pub(crate) fact: Option<Fact>,
    /// The value where it follows from shapes alone, as that of `Shape` does.
    pub(crate) value: Option<Constant>,
}

pub(crate) struct Engine {
    onnx: Onnx,
    opset: i64,
}

impl Engine {
    pub(crate) fn new(opset: i64) -> Self {
        Self { onnx: tract_onnx::onnx(), opset }
    }

    /// Whether there is an implementation of this operator, and one that computes what ONNX says.
    pub(crate) fn knows(&self, operator: &str) -> bool {
        self.onnx.op_register.0.contains_key(operator) && !MISCOMPUTED.contains(&operator)
    }

    /// Types and shapes of the node's outputs, in order, from those of its inputs.
    pub(crate) fn infer(&self, node: &NodeProto, inputs: &[(&str, Input<'_>)]) -> Result<Vec<Output>, String> {
        let by_value = |constant: &Constant| {
            !crate::constant::is_float(constant.data_type) || constant.elements() <= VALUE_ELEMENTS
        };
        let model = self.single(node, inputs, by_value);
        let outputs = guarded(|| {
            let mut parsed = self.onnx.parse(&model, None)?;
            parsed.model.analyse(false)?;
            let mut outputs = Vec::with_capacity(node.output.len());
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                let found = parsed.model.outlet_fact(parsed.outlets_by_name[name])?;
                let shape = found.shape.as_concrete_finite()?;
                let data_type = found.datum_type.concretize().and_then(data_type_of);
                let fact = shape
                    .zip(data_type)
                    .map(|(shape, data_type)| Fact { data_type, shape: shape.iter().map(|&d| d as u64).collect() });
                let value = found.value.concretize().and_then(|tensor| Constant::from_tensor(&tensor, false));
                outputs.push(Output { fact, value });
            }
            Ok(outputs)
        })?;
        if outputs.iter().all(|output| output.fact.is_some()) {
            return Ok(outputs);
        }
        // Some operators (`Resize` by scales) tell their output's shape only once their constants are in place.
        Ok(self.infer_typed(node, inputs).unwrap_or(outputs))
    }

    fn infer_typed(&self, node: &NodeProto, inputs: &[(&str, Input<'_>)]) -> Option<Vec<Output>> {
        let typed = self.typed(&self.single(node, inputs, |_| true)).ok()?;
        let facts = (0..typed.outputs.len()).map(|index| {
            let found = typed.output_fact(index).ok()?;
            let shape = found.shape.as_concrete()?.iter().map(|&extent| extent as u64).collect();
            let fact = Fact { data_type: data_type_of(found.datum_type)?, shape };
            Some(Output { fact: Some(fact), value: None })
        });
        facts.collect()
    }

    /// Runs a node whose inputs are all constants; its outputs in order.
    pub(crate) fn fold(&self, node: &NodeProto, inputs: &[(&str, Input<'_>)]) -> Result<Vec<Constant>, String> {
        let trained = inputs.iter().any(|(_, input)| matches!(input, Input::Constant(constant) if constant.trained));
        let model = self.single(node, inputs, |_| true);
        guarded(|| {
            let parsed = self.onnx.parse(&model, None)?;
            let results = parsed.model.into_typed()?.into_runnable()?.run(tvec!())?;
            let constants = results.iter().map(|tensor| {
                Constant::from_tensor(tensor, trained)
                    .ok_or_else(|| TractError::msg(format!("type {:?} has no ONNX counterpart", tensor.datum_type())))
            });
            constants.collect()
        })
    }

    /// Translates a whole model, which shows whether it can be run.
    pub(crate) fn typed(&self, model: &ModelProto) -> Result<TypedModel, String> {
        guarded(|| self.onnx.parse(model, None)?.model.into_typed())
    }

    fn single(
        &self,
        node: &NodeProto,
        inputs: &[(&str, Input<'_>)],
        by_value: impl Fn(&Constant) -> bool,
    ) -> ModelProto {
        let mut graph = GraphProto { name: "node".to_owned(), node: vec![node.clone()], ..GraphProto::default() };
        for (position, &(name, input)) in inputs.iter().enumerate() {
            if inputs[..position].iter().any(|(earlier, _)| *earlier == name) {
                continue;
            }
            match input {
                Input::Computed(fact) => graph.input.push(value_info(name, fact.data_type, &fact.shape)),
                Input::Constant(constant) if by_value(constant) => graph.initializer.push(constant.to_proto(name)),
                Input::Constant(constant) => graph.input.push(value_info(name, constant.data_type, &constant.shape)),
            }
        }
        let untyped = |name: &String| ValueInfoProto { name: name.clone(), ..ValueInfoProto::default() };
        graph.output = node.output.iter().filter(|name| !name.is_empty()).map(untyped).collect();
        wrap(graph, 8, self.opset)
    }
}

/// Runs engine code on a model from outside: it may panic where it finds what it did not expect.
pub(crate) fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(cause)) => Err(one_line(&format!("{cause:#}"))),
        Err(_) => Err("the inference engine gave up on it".to_owned()),
    }
}

fn one_line(message: &str) -> String {
    let joined = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match joined.char_indices().nth(MESSAGE_CHARACTERS) {
        Some((end, _)) => format!("{}...", &joined[..end]),
        None => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_the_engine_becomes_an_error() {
        assert!(guarded::<()>(|| panic!("boom")).is_err());
    }

    #[test]
    fn messages_are_one_line_and_bounded() {
        assert_eq!(one_line("a\n  b"), "a b");
        assert_eq!(one_line(&"ä".repeat(1000)).chars().count(), MESSAGE_CHARACTERS + 3);
    }
}
