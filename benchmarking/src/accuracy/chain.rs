//! A chain of shards in integers beside the same chain in floats, boundary after boundary.

use shardproof_common::tensor::{FloatTensor, IntegerTensor, TensorError};
use shardproof_models::FloatShard;

use super::error::AccuracyError;
use super::inputs::Input;
use super::shards::{Failure, IntegerShard};
use crate::error::BenchError;

/// How far integers are from floats at one place, over all inputs and elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    squares: f64,
    values: u64,
    max: f64,
    low: f64,
    high: f64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { squares: 0.0, values: 0, max: 0.0, low: f64::INFINITY, high: f64::NEG_INFINITY }
    }
}

impl Spread {
    fn add(&mut self, float: &[FloatTensor], integer: &[IntegerTensor]) {
        let floats = float.iter().flat_map(|tensor| tensor.values.iter().map(|&x| f64::from(x)));
        for (x, y) in floats.zip(dequantise(integer)) {
            let error = (y - x).abs();
            self.squares += error * error;
            self.values += 1;
            self.max = self.max.max(error);
            (self.low, self.high) = (self.low.min(x), self.high.max(x));
        }
    }

    /// Root mean square error; nothing where there were no values.
    pub fn rmse(&self) -> Option<f64> {
        (self.values > 0).then(|| (self.squares / self.values as f64).sqrt())
    }

    /// Largest error.
    pub fn max(&self) -> Option<f64> {
        (self.values > 0).then_some(self.max)
    }

    /// Largest float value less the least one.
    pub fn range(&self) -> Option<f64> {
        (self.values > 0).then_some(self.high - self.low)
    }

    /// Root mean square error over the range, %; nothing where the floats never change.
    pub fn relative_percent(&self) -> Option<f64> {
        let range = self.range().filter(|&range| range > 0.0)?;
        self.rmse().map(|rmse| 100.0 * rmse / range)
    }
}

/// The error at the boundary that a shard ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BoundaryErrors {
    /// Of the integers that came through all shards so far.
    pub chain: Spread,
    /// Inputs that came through.
    pub chain_runs: usize,
    /// Of the integers that this shard alone makes of the float boundary before it.
    pub own: Spread,
    /// Inputs that this shard alone has an answer for.
    pub own_runs: usize,
}

/// Where and why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFailure {
    /// Which shard.
    pub shard: usize,
    /// Why.
    pub failure: Failure,
}

/// How far an input has come: its integers at the last boundary, or where it ended.
type Progress = Result<Vec<IntegerTensor>, ChainFailure>;

/// The dequantised outputs one after another, or why there are none.
pub type ChainAnswer = Result<Vec<f64>, ChainFailure>;

/// What a chain made of some inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainErrors {
    /// For boundaries 1 to the number of shards.
    pub boundaries: Vec<BoundaryErrors>,
    /// For every input.
    pub answers: Vec<ChainAnswer>,
}

/// Runs `inputs` through the shards in floats and in integers; calls `done` with the number of inputs after each batch.
///
/// # Errors
/// When a float shard fails, an integer shard fails for another reason than an input's values, or `done` says so.
pub fn measure(
    floats: &[FloatShard],
    integers: &[Box<dyn IntegerShard>],
    inputs: &[Input],
    done: &mut dyn FnMut(usize) -> Result<(), BenchError>,
) -> Result<ChainErrors, BenchError> {
    let batch = integers.iter().map(|shard| shard.batch()).min().unwrap_or(1);
    let mut boundaries = vec![BoundaryErrors::default(); integers.len()];
    let mut answers = Vec::with_capacity(inputs.len());
    for batch in inputs.chunks(batch) {
        let mut real: Vec<Vec<FloatTensor>> = batch.iter().map(|input| input.tensors.clone()).collect();
        let mut chain: Vec<Progress> = Vec::new();
        for (index, (float, integer)) in floats.iter().zip(integers).enumerate() {
            let own = advance(integer.as_ref(), index, quantised(&real, integer.input_scales(), index))?;
            // What enters the first shard is the same either way.
            chain = if index == 0 { own.clone() } else { advance(integer.as_ref(), index, chain)? };
            let after = batch.iter().zip(&real).map(|(input, tensors)| in_floats(float, input, tensors));
            real = after.collect::<Result<_, _>>()?;
            let errors = &mut boundaries[index];
            for ((expected, own), chain) in real.iter().zip(&own).zip(&chain) {
                if let Ok(found) = own {
                    errors.own.add(expected, found);
                    errors.own_runs += 1;
                }
                if let Ok(found) = chain {
                    errors.chain.add(expected, found);
                    errors.chain_runs += 1;
                }
            }
        }
        answers.extend(chain.into_iter().map(|answer| answer.map(|tensors| dequantise(&tensors).collect())));
        done(batch.len())?;
    }
    Ok(ChainErrors { boundaries, answers })
}

/// What `shard` makes of `input`, whose values at its beginning are `tensors`.
pub fn in_floats(
    shard: &FloatShard,
    input: &Input,
    tensors: &[FloatTensor],
) -> Result<Vec<FloatTensor>, AccuracyError> {
    let failed = |source| AccuracyError::Float { what: "input", input: input.position, source };
    shard.run(tensors).map_err(failed)
}

fn dequantise(tensors: &[IntegerTensor]) -> impl Iterator<Item = f64> {
    tensors.iter().flat_map(IntegerTensor::dequantise)
}

fn quantised(inputs: &[Vec<FloatTensor>], scales: &[i32], shard: usize) -> Vec<Progress> {
    let quantise = |(tensor, &scale): (&FloatTensor, &i32)| {
        let failed = |error: TensorError| ChainFailure {
            shard,
            failure: Failure { node: "input".to_owned(), reason: error.to_string() },
        };
        tensor.quantise(scale).map_err(failed)
    };
    inputs.iter().map(|tensors| tensors.iter().zip(scales).map(quantise).collect()).collect()
}

/// Runs those inputs that have come so far through shard `index`; the others stay failed where they did.
fn advance(shard: &dyn IntegerShard, index: usize, entering: Vec<Progress>) -> Result<Vec<Progress>, AccuracyError> {
    let present: Vec<Vec<IntegerTensor>> = entering.iter().filter_map(|input| input.as_ref().ok().cloned()).collect();
    let mut answers = shard.run(&present)?.into_iter();
    let advance_one = |input: Progress| {
        input.and_then(|_| {
            let answer = answers.next().expect("a shard answers every input");
            answer.map_err(|failure| ChainFailure { shard: index, failure })
        })
    };
    Ok(entering.into_iter().map(advance_one).collect())
}
