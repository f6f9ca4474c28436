//! Chains of shards: each is calibrated on what the ones before it give in floats, and takes over their scales.
//!
//! The floats are those of calibration, in double precision and in one order of summation, not those of the float engine:
//! an engine that picks its kernels by processor would give other scales on other machines.

use shardproof_common::tensor::FloatTensor;

use super::{QuantiseError, QuantiseOptions, Quantised, calibrated};

/// Quantises shards that follow each other, from the bytes of their ONNX files. `samples` are inputs of the first one.
///
/// `options` hold for every shard; their input scales are those of the first one.
///
/// # Errors
/// The first shard's that cannot be quantised.
pub fn quantise_chain<S: AsRef<[u8]>>(
    shards: &[S],
    options: &QuantiseOptions,
    samples: &[Vec<FloatTensor>],
) -> Result<Vec<Quantised>, QuantiseError> {
    let mut options = options.clone();
    let mut samples = samples.to_vec();
    let mut chain: Vec<Quantised> = Vec::with_capacity(shards.len());
    for shard in shards {
        let (quantised, outputs) = calibrated(shard.as_ref(), &options, &samples)?;
        options.input_scales = Some(quantised.output_scales());
        samples = outputs;
        chain.push(quantised);
    }
    Ok(chain)
}
