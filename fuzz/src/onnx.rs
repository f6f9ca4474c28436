//! A model's file. It is the owner's, but the owner may have it from anyone.

use shardproof_common::plan::BackendOptions;
use shardproof_models::{BoundaryModes, FloatShard, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy};

pub(crate) fn check(bytes: &[u8]) {
    let Ok(model) = OnnxModel::parse("fuzz", bytes, &LoadOptions::default()) else { return };
    let written = model.to_onnx();
    let again = OnnxModel::parse("fuzz", &written, &LoadOptions::default());
    let again = again.expect("a model that was imported is imported again as it is written");
    assert_eq!(
        (again.architecture(), again.inputs(), again.outputs(), again.parameters()),
        (model.architecture(), model.inputs(), model.outputs(), model.parameters()),
        "a model that is another one after it was written"
    );
    let request = SplitRequest {
        shards: model.max_shards().min(3),
        strategy: Strategy::Balanced,
        backend: &|_| BackendOptions::Float,
        modes: BoundaryModes::default(),
    };
    let Ok(split) = model.split(&request) else { return };
    for shard in &split.shards {
        let part = OnnxModel::parse("shard", &shard.onnx, &LoadOptions::default());
        part.expect("a shard is a model by itself");
        FloatShard::load(&shard.onnx).expect("a shard can be loaded");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for name in ["mlp", "testing"] {
        let source = ModelSource::resolve(name).expect("a model of the zoo");
        seeds.push(source.read().expect("models of the zoo are part of the program"));
        let model = OnnxModel::load(&source, &LoadOptions::default()).expect("a model of the zoo can be imported");
        let request = SplitRequest {
            shards: model.max_shards().min(6),
            strategy: Strategy::Balanced,
            backend: &|_| BackendOptions::Float,
            modes: BoundaryModes::default(),
        };
        let split = model.split(&request).expect("a model can be cut where cuts are legal");
        seeds.extend(split.shards.into_iter().map(|shard| shard.onnx));
    }
    seeds.retain(|seed| seed.len() <= crate::ONNX.max_len);
    seeds
}
