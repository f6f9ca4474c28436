//! Demos, and what their workers could do to the bundles.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;
use shardproof_common::bundle::{Blob, Bundle};
use shardproof_common::keyfile;
use shardproof_common::tensor::{Tensor, decode_boundary, encode_boundary};
use tempfile::TempDir;

pub(crate) fn shardproof(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardproof"));
    command.args(args).env_remove("RUST_LOG");
    command
}

/// Runs a command and returns its exit code and the JSON that it prints.
pub(crate) fn json(args: &[&str]) -> (Option<i32>, Value) {
    let output = shardproof(args).arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?} printed no JSON: {said}"));
    (output.status.code(), value)
}

/// A finished demo whose workers' keys are at hand, as they are to the workers.
pub(crate) struct Demo {
    pub(crate) directory: TempDir,
    pub(crate) report: Value,
}

impl Demo {
    pub(crate) fn run(model: &str, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().to_str().unwrap();
        let (code, report) = json(&[&["demo", model, "--keep", "--out", out], args].concat());
        assert_eq!(code, Some(0), "{report}");
        Self { directory, report }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::decode(&std::fs::read(self.path("run.bundle")).unwrap()).unwrap()
    }

    /// Verifies a bundle's file with everything supplied that can be, then `extra`.
    pub(crate) fn verify_file(&self, bundle: &Path, extra: &[&str]) -> (Option<i32>, Value) {
        let [card, model, input, answer] =
            ["card.json", "model.onnx", "input.json", "answer.json"].map(|name| self.path(name));
        let supplied = ["--card", &card, "--model", &model, "--input", &input, "--output", &answer];
        json(&[&["verify", bundle.to_str().unwrap()], supplied.as_slice(), extra].concat())
    }

    pub(crate) fn verify(&self, bundle: &Bundle) -> (Option<i32>, Value) {
        let path = PathBuf::from(self.path("forged.bundle"));
        std::fs::write(&path, bundle.encode().unwrap()).unwrap();
        self.verify_file(&path, &["--allow-test-srs"])
    }

    /// Requires that the bundle is rejected, and by this check.
    pub(crate) fn assert_refused(&self, bundle: &Bundle, check: &str) {
        let (code, report) = self.verify(bundle);
        assert_eq!(report["refusal"]["check"], check, "{report:#}");
        assert_eq!(report["status"], "rejected");
        assert_eq!(code, Some(3));
    }

    /// Signs a shard's receipt again after its statement was changed, as its worker could.
    pub(crate) fn reseal(&self, bundle: &mut Bundle, shard: usize) {
        let keys: Vec<_> = (0..bundle.shards.len())
            .map(|worker| {
                let path = self.directory.path().join("data").join(format!("worker-{worker}")).join("worker.key");
                assert!(path.is_file());
                keyfile::load_or_create(&path).unwrap()
            })
            .collect();
        let receipt = &bundle.shards[shard].receipt;
        let worker = keys.iter().find(|key| key.public() == receipt.worker).unwrap();
        bundle.shards[shard].receipt = receipt.signed_by(worker);
    }
}

/// Changes one value of a tensor.
pub(crate) fn alter(encoded: &[u8]) -> (Vec<u8>, Vec<Tensor>) {
    let mut tensors = decode_boundary(encoded).unwrap();
    let Tensor::Integer(tensor) = &mut tensors[0] else { panic!("floats in a proven run's bundle") };
    tensor.values[0] += 1;
    (encode_boundary(&tensors), tensors)
}

pub(crate) fn with_flipped_byte(blob: &Blob) -> Blob {
    let mut bytes = blob.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.into()
}
