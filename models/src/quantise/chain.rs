//! Chains of shards: each is calibrated on what the float shards before it give, and takes over their scales.

use shardproof_common::tensor::FloatTensor;

use super::{QuantiseError, QuantiseOptions, Quantised, quantise};
use crate::float::FloatShard;

/// Quantises shards that follow each other, from the bytes of their ONNX files. `samples` are inputs of the first one.
///
/// `options` hold for every shard; their input scales are those of the first one.
///
/// # Errors
/// The first shard's that cannot be quantised or run in floats.
pub fn quantise_chain<S: AsRef<[u8]>>(
    shards: &[S],
    options: &QuantiseOptions,
    samples: &[Vec<FloatTensor>],
) -> Result<Vec<Quantised>, QuantiseError> {
    let mut options = options.clone();
    let mut samples = samples.to_vec();
    let mut chain: Vec<Quantised> = Vec::with_capacity(shards.len());
    for (index, shard) in shards.iter().enumerate() {
        let quantised = quantise(shard.as_ref(), &options, &samples)?;
        options.input_scales = Some(quantised.output_scales());
        chain.push(quantised);
        if index + 1 < shards.len() {
            let float = FloatShard::load(shard.as_ref())?;
            samples = samples.iter().map(|sample| float.run(sample)).collect::<Result<_, _>>()?;
        }
    }
    Ok(chain)
}
