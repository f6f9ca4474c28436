//! The encoding of a boundary's tensors, which crosses from worker to worker.

use shardproof_common::tensor::{FloatTensor, IntegerTensor, Tensor, decode_boundary, encode_boundary};

pub(crate) fn check(bytes: &[u8]) {
    let Ok(tensors) = decode_boundary(bytes) else { return };
    assert!(encode_boundary(&tensors) == bytes, "a boundary that has two encodings");
    for tensor in &tensors {
        let elements = tensor.shape().iter().product::<u64>();
        assert_eq!(tensor.to_reals().len() as u64, elements, "another number of values than the shape has");
        if let Tensor::Float(float) = tensor {
            // What is not finite, or too large for the scale, is refused, never wrapped.
            if let Ok(quantised) = float.quantise(8) {
                assert_eq!((quantised.shape, quantised.values.len() as u64), (float.shape.clone(), elements));
            }
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let integers = Tensor::Integer(IntegerTensor { shape: vec![1, 3], scale: 8, values: vec![-1, 0, 1 << 40] });
    let scalar = Tensor::Integer(IntegerTensor { shape: vec![], scale: -3, values: vec![7] });
    let floats = Tensor::Float(FloatTensor { shape: vec![2, 2], values: vec![0.5, -1.0, 1e30, 0.0] });
    [vec![integers.clone()], vec![floats.clone()], vec![integers, scalar, floats]]
        .iter()
        .map(|b| encode_boundary(b))
        .collect()
}
