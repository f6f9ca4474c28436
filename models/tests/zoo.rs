//! The zoo's models: what the zoo promises of them, and that their shards compute what they compute.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

use shardproof_common::plan::{BackendOptions, EzklOptions};
use shardproof_models::{
    BoundaryModes, FloatShard, LoadOptions, ModelSource, OnnxModel, Split, SplitRequest, Strategy, input, run_chain,
    zoo,
};

const SHARD_COUNTS: [usize; 6] = [1, 2, 3, 4, 6, 12];
const STRATEGIES: [Strategy; 2] = [Strategy::Balanced, Strategy::Layers];

fn load(name: &str) -> (ModelSource, OnnxModel) {
    let source = ModelSource::resolve(name).unwrap();
    let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
    (source, model)
}

fn split(model: &OnnxModel, shards: usize, strategy: Strategy) -> Split {
    let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
    model.split(&SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() }).unwrap()
}

#[test]
fn models_have_their_parameters_and_twelve_layers() {
    let expected = [("mlp", 711), ("cnn", 26_461), ("mlp2", 548_421), ("testing", 4_441), ("attention", 1_191_936)];
    assert_eq!(zoo::names().collect::<Vec<_>>(), expected.map(|(name, _)| name));
    for (name, parameters) in expected {
        let (_, model) = load(name);
        assert_eq!((model.parameters(), model.layers()), (parameters, 12), "{name}");
        assert!(model.max_shards() >= 12, "{name}");
    }
}

#[test]
fn shards_in_a_chain_give_what_the_whole_model_gives() {
    for name in zoo::names() {
        let (source, model) = load(name);
        let samples = input::samples(&source, &model, 2, 0).unwrap();
        assert_eq!(samples.origin, input::SampleOrigin::Zoo);
        let whole = FloatShard::load(&model.to_onnx()).unwrap();
        for strategy in STRATEGIES {
            for count in SHARD_COUNTS {
                let split = split(&model, count, strategy);
                let shards: Vec<_> = split.shards.iter().map(|shard| FloatShard::load(&shard.onnx).unwrap()).collect();
                for sample in &samples.inputs {
                    let expected = whole.run(sample).unwrap();
                    let found = run_chain(&shards, sample).unwrap();
                    let pairs = expected.iter().zip(&found).flat_map(|(a, b)| a.values.iter().zip(&b.values));
                    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(worst <= 1e-5, "{name} {strategy} {count}: {worst}");
                    assert_eq!(found[0].shape, model.outputs()[0].shape);
                }
            }
        }
    }
}

#[test]
fn plans_cover_the_model_in_order() {
    for name in zoo::names() {
        let (_, model) = load(name);
        for strategy in STRATEGIES {
            for count in SHARD_COUNTS {
                let split = split(&model, count, strategy);
                let plan = &split.plan;
                assert_eq!((plan.shards.len(), plan.boundaries.len()), (count, count + 1));
                assert_eq!(plan.boundaries[0].tensors, model.inputs());
                assert_eq!(plan.boundaries[count].tensors, model.outputs());
                assert_eq!(plan.shards.iter().map(|shard| shard.parameters).sum::<u64>(), model.parameters(), "{name}");
                assert_eq!(plan.shards.iter().map(|shard| shard.layers).sum::<u32>(), 12, "{name} {strategy} {count}");
                assert_eq!(split.shards.iter().map(|shard| shard.nodes).sum::<usize>(), model.nodes());
                for (index, shard) in split.shards.iter().enumerate() {
                    assert_eq!(shard.inputs, plan.boundaries[index].tensors);
                    assert_eq!(shard.outputs, plan.boundaries[index + 1].tensors);
                }
                if strategy == Strategy::Layers {
                    assert!(plan.shards.iter().all(|shard| shard.layers as usize == 12 / count), "{name} {count}");
                }
            }
        }
    }
}

#[test]
fn layers_that_do_not_divide_are_spread() {
    let (_, model) = load("mlp");
    let layers: Vec<u32> = split(&model, 5, Strategy::Layers).plan.shards.iter().map(|shard| shard.layers).collect();
    assert_eq!(layers, [2, 3, 2, 3, 2]);
}

#[test]
fn splitting_twice_gives_the_same_bytes() {
    let (_, first) = load("attention");
    let (_, second) = load("attention");
    assert_eq!(first.architecture(), second.architecture());
    let (first, second) = (split(&first, 5, Strategy::Balanced), split(&second, 5, Strategy::Balanced));
    assert_eq!(first.plan, second.plan);
    assert_eq!(first.plan.digest(), second.plan.digest());
    let bytes = |split: &Split| split.shards.iter().map(|shard| shard.onnx.clone()).collect::<Vec<_>>();
    assert!(bytes(&first) == bytes(&second), "shard files differ");
}
