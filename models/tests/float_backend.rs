//! `float` mode through the interface that all backends share.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

use std::collections::BTreeMap;
use std::path::Path;

use shardproof_common::backend::{Backend, BackendError, Job, Limits, SetupRequest, ShardFiles};
use shardproof_common::card::ShardKeys;
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex};
use shardproof_common::plan::{BackendKind, BackendOptions, BoundaryMode};
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::{FloatTensor, IntegerTensor, Tensor};
use shardproof_models::{
    BoundaryModes, FloatBackend, FloatShard, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy, input,
};
use tokio_util::sync::CancellationToken;

struct Fixture {
    folder: tempfile::TempDir,
    cancel: CancellationToken,
    backend: FloatBackend,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cancel: CancellationToken::new(), backend: FloatBackend::new() }
    }

    fn job(&self) -> Job<'_> {
        Job { directory: self.folder.path(), limits: Limits::default(), cancel: &self.cancel, progress: &|_| {} }
    }

    /// Sets the shard in `path` up and gives the files that a worker would hold.
    fn setup(&self, index: u32, path: &Path, names: [&[(String, Vec<u64>)]; 2]) -> Result<ShardFiles, BackendError> {
        let request = SetupRequest {
            shard: ShardIndex(index),
            model: path,
            samples: &[],
            input: None,
            input_names: names[0],
            output_names: names[1],
            input_mode: BoundaryMode::Public,
            output_mode: BoundaryMode::Public,
            options: &BackendOptions::Float,
            min_logrows: None,
        };
        let setup = self.backend.setup(&request, &self.job())?;
        assert_eq!(setup.card.keys, ShardKeys::Float);
        assert!(setup.card.input.iter().chain(&setup.card.output).all(|spec| spec.scale == 0));
        assert!(setup.worker_files.is_empty() && setup.verifying_key.is_none() && setup.proving_key_bytes == 0);
        Ok(ShardFiles {
            shard: ShardIndex(index),
            card: setup.card,
            options: BackendOptions::Float,
            input_mode: BoundaryMode::Public,
            output_mode: BoundaryMode::Public,
            model: path.to_owned(),
            files: BTreeMap::new(),
        })
    }

    fn mlp(&self, shards: usize) -> (Vec<ShardFiles>, Vec<FloatTensor>, Vec<FloatTensor>) {
        let source = ModelSource::resolve("mlp").unwrap();
        let model = OnnxModel::load(&source, &LoadOptions::default()).unwrap();
        let backend = |_| BackendOptions::Float;
        let request =
            SplitRequest { shards, strategy: Strategy::Balanced, backend: &backend, modes: BoundaryModes::default() };
        let split = model.split(&request).unwrap();
        let files = split.shards.iter().map(|shard| {
            let path = self.folder.path().join(format!("{}.onnx", shard.index));
            std::fs::write(&path, &shard.onnx).unwrap();
            let named = |list: &[shardproof_common::plan::BoundaryTensor]| {
                list.iter().map(|t| (t.name.clone(), t.shape.clone())).collect()
            };
            let (inputs, outputs): (Vec<_>, Vec<_>) = (named(&shard.inputs), named(&shard.outputs));
            self.setup(shard.index.0, &path, [&inputs, &outputs]).unwrap()
        });
        let sample = input::samples(&source, &model, 1, 0).unwrap().inputs.remove(0);
        let answer = FloatShard::load(&model.to_onnx()).unwrap().run(&sample).unwrap();
        (files.collect(), sample, answer)
    }
}

fn floats(tensors: &[FloatTensor]) -> Vec<Tensor> {
    tensors.iter().cloned().map(Tensor::Float).collect()
}

#[test]
fn a_chain_of_shards_answers_and_names_its_boundaries() {
    let fixture = Fixture::new();
    let (shards, sample, answer) = fixture.mlp(4);
    let mut tensors = floats(&sample);
    let mut previous = Boundary::public(&tensors);
    for shard in &shards {
        let inference = fixture.backend.infer(shard, &tensors, &fixture.job()).unwrap();
        assert_eq!(inference.input_boundary, previous);
        assert_eq!(inference.output_boundary, Boundary::public(&inference.output));
        inference.output_boundary.conforms_to(&shard.card.output).unwrap();
        (tensors, previous) = (inference.output, inference.output_boundary);
    }
    let difference = (tensors[0].to_reals()[0] - f64::from(answer[0].values[0])).abs();
    assert!(difference <= 1e-5, "{difference}");
}

#[test]
fn more_shards_than_are_kept_loaded_still_run() {
    let fixture = Fixture::new();
    let (shards, sample, answer) = fixture.mlp(12);
    for _ in 0..2 {
        let run = |tensors: Vec<Tensor>, shard| fixture.backend.infer(shard, &tensors, &fixture.job()).unwrap().output;
        let found = shards.iter().fold(floats(&sample), run);
        assert!((found[0].to_reals()[0] - f64::from(answer[0].values[0])).abs() <= 1e-5);
    }
}

#[test]
fn it_proves_nothing_and_says_so() {
    let fixture = Fixture::new();
    let (shards, sample, _) = fixture.mlp(1);
    let boundary = Boundary::public(&floats(&sample));
    let statement = Statement {
        protocol: PROTOCOL_VERSION,
        backend: fixture.backend.id(),
        model: Digest::of(b""),
        architecture: Digest::of(b""),
        plan: Digest::of(b""),
        shard: ShardIndex(0),
        shards: 1,
        run: RunId::from_bytes([0; 16]),
        input: boundary.clone(),
        output: boundary,
        keys: ShardKeys::Float.digest(),
    };
    let error = fixture.backend.prove(&shards[0], &floats(&sample), &statement, &fixture.job()).unwrap_err();
    assert_eq!(error.to_string(), "float proves nothing");
    assert_eq!(fixture.backend.id().kind, BackendKind::Float);
    assert!(fixture.backend.id().version.starts_with("tract 0."));
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let fixture = Fixture::new();
    let (shards, mut sample, _) = fixture.mlp(2);
    let infer = |tensors: &[Tensor]| fixture.backend.infer(&shards[0], tensors, &fixture.job()).unwrap_err();
    let integers = Tensor::Integer(IntegerTensor { shape: vec![1, 1, 5, 5], scale: 7, values: vec![0; 25] });
    let cases = [
        (infer(&[integers]), "integers"),
        (infer(&[]), "the input gives 0"),
        (
            infer(&[Tensor::Float(FloatTensor { shape: vec![25], values: vec![0.0; 25] })]),
            "expected shape [1, 1, 5, 5], found [25]",
        ),
    ];
    for (error, says) in cases {
        assert!(matches!(error, BackendError::Input(_)) && error.to_string().contains(says), "{error}");
    }
    sample[0].values[3] = f32::INFINITY;
    let error = infer(&floats(&sample));
    assert!(error.to_string().contains("element 3 is inf"), "{error}");
}

#[test]
fn files_that_are_not_the_planned_shard_are_refused() {
    let fixture = Fixture::new();
    let path = fixture.folder.path().join("bad.onnx");
    std::fs::write(&path, b"not a model").unwrap();
    assert!(matches!(fixture.setup(0, &path, [&[], &[]]), Err(BackendError::Failed { .. })));
    std::fs::write(&path, shardproof_models::zoo::find("mlp").unwrap().onnx).unwrap();
    assert!(matches!(fixture.setup(0, &path, [&[], &[]]), Err(BackendError::Input(_))));
    assert!(matches!(fixture.setup(0, &fixture.folder.path().join("none"), [&[], &[]]), Err(BackendError::Io { .. })));
}

#[test]
fn a_cancelled_job_does_nothing() {
    let fixture = Fixture::new();
    let (shards, sample, _) = fixture.mlp(1);
    fixture.cancel.cancel();
    let error = fixture.backend.infer(&shards[0], &floats(&sample), &fixture.job()).unwrap_err();
    assert!(matches!(error, BackendError::Cancelled));
}
