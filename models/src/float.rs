//! Running shards in floats. This proves nothing: it gives reference answers and the unproven `float` mode.

use std::sync::Arc;

use shardproof_common::plan::BoundaryTensor;
use shardproof_common::tensor::FloatTensor;
use tract_onnx::prelude::{InferenceModelExt, IntoRunnable, IntoTValue, TValue, Tensor, TypedRunnableModel};

use crate::engine::guarded;
use crate::error::{FloatError, InputError};
use crate::input;
use crate::proto::{self, ValueInfoProto, dimension, type_proto};

/// A shard, or a whole normalised model, ready to run; cheap to share between threads.
#[derive(Clone)]
pub struct FloatShard {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<BoundaryTensor>,
    outputs: Vec<BoundaryTensor>,
}

impl FloatShard {
    /// Loads a shard from the bytes of its ONNX file.
    ///
    /// # Errors
    /// When the bytes are not a shard as [`crate::Split`] writes them: f32 inputs and outputs of fixed shape.
    pub fn load(onnx: &[u8]) -> Result<Self, FloatError> {
        let model = proto::decode_model(onnx).map_err(|cause| FloatError::Load(cause.to_string()))?;
        let graph = model.graph.as_ref().ok_or_else(|| FloatError::Load("it has no graph".to_owned()))?;
        let specs = |list: &[ValueInfoProto]| list.iter().map(fixed_spec).collect::<Result<Vec<_>, _>>();
        let (inputs, outputs) = (specs(&graph.input)?, specs(&graph.output)?);
        let plan = guarded(|| {
            let parsed = tract_onnx::onnx().with_ignore_value_info(true).parse(&model, None)?;
            parsed.model.into_optimized()?.into_runnable()
        });
        Ok(Self { plan: plan.map_err(FloatError::Load)?, inputs, outputs })
    }

    /// Names and shapes of the inputs, in order.
    pub fn inputs(&self) -> &[BoundaryTensor] {
        &self.inputs
    }

    /// Names and shapes of the outputs, in order.
    pub fn outputs(&self) -> &[BoundaryTensor] {
        &self.outputs
    }

    /// Runs on one tensor per input, in order; gives one per output, in order.
    ///
    /// # Errors
    /// When the tensors do not fit the inputs, or a result is not finite.
    pub fn run(&self, inputs: &[FloatTensor]) -> Result<Vec<FloatTensor>, FloatError> {
        let inputs = input::fit(inputs.to_vec(), &self.inputs)?;
        let results = guarded(|| {
            let values = inputs.iter().map(|tensor| Ok(to_engine(tensor)?.into_tvalue()));
            self.plan.run(values.collect::<Result<_, tract_onnx::prelude::TractError>>()?)
        });
        let results = results.map_err(FloatError::Run)?;
        self.outputs.iter().zip(&results).map(|(spec, value)| from_engine(spec, value)).collect()
    }
}

/// Runs a chain of shards: each one's outputs are the next one's inputs.
///
/// # Errors
/// The first shard's that fails.
pub fn run_chain(shards: &[FloatShard], input: &[FloatTensor]) -> Result<Vec<FloatTensor>, FloatError> {
    shards.iter().try_fold(input.to_vec(), |tensors, shard| shard.run(&tensors))
}

fn fixed_spec(info: &ValueInfoProto) -> Result<BoundaryTensor, FloatError> {
    let refused = || FloatError::Load(format!("tensor `{}` is not of type f32 with a fixed shape", info.name));
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|declared| declared.value.as_ref())
    else {
        return Err(refused());
    };
    let extent = |dim: &proto::Dimension| match dim.value {
        Some(dimension::Value::DimValue(size)) => u64::try_from(size).ok(),
        _ => None,
    };
    let shape: Option<Vec<u64>> = tensor.shape.as_ref().and_then(|shape| shape.dim.iter().map(extent).collect());
    let shape = shape.filter(|_| tensor.elem_type == proto::DataType::Float as i32);
    Ok(BoundaryTensor { name: info.name.clone(), shape: shape.ok_or_else(refused)? })
}

fn to_engine(tensor: &FloatTensor) -> Result<Tensor, tract_onnx::prelude::TractError> {
    let shape: Vec<usize> = tensor.shape.iter().map(|&extent| extent as usize).collect();
    Tensor::from_shape(&shape, &tensor.values)
}

fn from_engine(spec: &BoundaryTensor, value: &TValue) -> Result<FloatTensor, FloatError> {
    let view = value.to_plain_array_view::<f32>().map_err(|cause| FloatError::Run(cause.to_string()))?;
    let values: Vec<f32> = view.iter().copied().collect();
    let shape: Vec<u64> = view.shape().iter().map(|&extent| extent as u64).collect();
    if shape != spec.shape {
        let (input, expected) = (spec.name.clone(), spec.shape.clone());
        return Err(FloatError::Input(InputError::Shape { input, expected, found: shape }));
    }
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, &value)) => Err(FloatError::NonFinite { output: spec.name.clone(), index, value }),
        None => Ok(FloatTensor { shape, values }),
    }
}
