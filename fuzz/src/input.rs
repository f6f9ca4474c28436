//! An input's file, as `--input` takes it: `.npy` or JSON.

use shardproof_common::plan::BoundaryTensor;
use shardproof_common::tensor::FloatTensor;
use shardproof_models::input::{fit, parse_json, unstack};
use shardproof_models::npy;

pub(crate) fn check(bytes: &[u8]) {
    let specs = [BoundaryTensor { name: "x".to_owned(), shape: vec![1, 4] }];
    if let Ok(tensors) = parse_json(bytes, &specs) {
        assert!(tensors.iter().all(|tensor| is_whole(tensor) && tensor.shape == specs[0].shape));
    }
    let Ok(tensor) = npy::read(bytes) else { return };
    assert!(is_whole(&tensor) || tensor.values.iter().any(|value| !value.is_finite()));
    let again = npy::read(&npy::write(&tensor)).expect("what was read can be written and read");
    let bits = |tensor: &FloatTensor| tensor.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!((&again.shape, bits(&again)), (&tensor.shape, bits(&tensor)));
    if let Ok(samples) = unstack(tensor.clone(), &specs, 8) {
        assert!(samples.iter().flatten().all(is_whole));
    }
    if let Ok(fitted) = fit(vec![tensor], &specs) {
        assert!(fitted.iter().all(|tensor| is_whole(tensor) && tensor.shape == specs[0].shape));
    }
}

/// As many values as the shape has, all finite.
fn is_whole(tensor: &FloatTensor) -> bool {
    tensor.shape.iter().product::<u64>() == tensor.values.len() as u64 && tensor.values.iter().all(|x| x.is_finite())
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let npy = |shape: &[u64]| {
        let count = shape.iter().product::<u64>();
        npy::write(&FloatTensor { shape: shape.to_vec(), values: (0..count).map(|i| i as f32 - 1.5).collect() })
    };
    let json = br#"{"input_data": [[0.5, -1, 2e3, 0]]}"#.to_vec();
    vec![npy(&[1, 4]), npy(&[3, 1, 4]), npy(&[]), json]
}
