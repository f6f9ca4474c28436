//! How far a quantised shard's answers are from the float ones.

use std::sync::Arc;

use serde::Serialize;
use shardproof_common::tensor::FloatTensor;
use shardproof_integer::Executor;

use super::{QuantiseError, Quantised};
use crate::float::FloatShard;

/// How far a quantised shard's answers are from the float ones, over some samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuantisationReport {
    /// Number of samples.
    pub samples: usize,
    /// Of each output, in order.
    pub outputs: Vec<OutputError>,
    /// Whether both give the same class: the sign of a single number, else the index of the largest element of the first
    /// output.
    pub classes: ClassAgreement,
}

/// The error of one output over all samples and elements.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputError {
    /// Root of the mean squared difference.
    pub rmse: f64,
    /// Largest difference.
    pub max: f64,
    /// Largest float value less the least one.
    pub range: f64,
}

/// Samples whose class both agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClassAgreement {
    /// Equal classes.
    pub agreeing: usize,
    /// Samples.
    pub samples: usize,
}

impl OutputError {
    /// Compares dequantised values with float ones, element by element.
    ///
    /// # Panics
    /// If the numbers of elements differ.
    pub fn of(float: &[f64], integer: &[f64]) -> Self {
        assert_eq!(float.len(), integer.len(), "one integer result for each float one");
        let squares: f64 = float.iter().zip(integer).map(|(a, b)| (a - b).powi(2)).sum();
        let max = float.iter().zip(integer).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let (low, high) = float.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        Self { rmse: (squares / float.len().max(1) as f64).sqrt(), max, range: (high - low).max(0.0) }
    }

    /// Root mean square error over the range; over 1 where the output never changes.
    pub fn relative(&self) -> f64 {
        if self.range > 0.0 { self.rmse / self.range } else { self.rmse }
    }
}

impl QuantisationReport {
    /// Runs `samples` through the shard in floats and in integers.
    ///
    /// # Errors
    /// When the shard cannot be run, or a sample leaves the calibrated range.
    pub fn measure(onnx: &[u8], quantised: &Quantised, samples: &[Vec<FloatTensor>]) -> Result<Self, QuantiseError> {
        let float = FloatShard::load(onnx)?;
        let executor = Executor::new(Arc::new(quantised.graph.clone()), &quantised.weights)?;
        let graph = quantised.graph.graph();
        let mut expected = vec![Vec::new(); graph.outputs.len()];
        let mut found = vec![Vec::new(); graph.outputs.len()];
        let mut agreeing = 0;
        for (sample, inputs) in samples.iter().enumerate() {
            let reals = float.run(inputs)?;
            let integers = graph.inputs.iter().zip(inputs).map(|(input, tensor)| {
                let quantised = tensor.quantise(input.scale);
                Ok(quantised.map_err(|source| QuantiseError::Input { sample, source })?.values)
            });
            let integers = integers.collect::<Result<Vec<_>, QuantiseError>>()?;
            let trace = executor.run(&integers, 1).map_err(|source| QuantiseError::Run { sample, source })?;
            for (index, &output) in graph.outputs.iter().enumerate() {
                let unit = (-f64::from(graph.scale(output))).exp2();
                let dequantised: Vec<f64> = trace.tensor(output).iter().map(|&q| q as f64 * unit).collect();
                let real: Vec<f64> = reals[index].values.iter().map(|&x| f64::from(x)).collect();
                if index == 0 && class(&dequantised) == class(&real) {
                    agreeing += 1;
                }
                expected[index].extend(real);
                found[index].extend(dequantised);
            }
        }
        let outputs = expected.iter().zip(&found).map(|(expected, found)| OutputError::of(expected, found)).collect();
        let samples = samples.len();
        Ok(Self { samples, outputs, classes: ClassAgreement { agreeing, samples } })
    }
}

/// The class that a model's first output stands for: whether a single number is positive, else the place of the largest.
pub fn class(values: &[f64]) -> usize {
    match values {
        [single] => usize::from(*single > 0.0),
        _ => {
            let largest = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            largest.map_or(0, |(index, _)| index)
        }
    }
}
