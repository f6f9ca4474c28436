//! Several runs that are proven by one request.

use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::Value;
use shardproof_common::tensor::FloatTensor;
use shardproof_proto::convert;
use shardproof_proto::v1::{Run, RunState};
use tonic::Code;

use crate::cluster::{Service, answer, assert_state, bundle_of, check_bundle, samples, verify_bundle};

/// First bytes of a proof of several runs.
const BATCH: &[u8] = b"SPB1";

/// Inputs for `count` runs of mlp, no two of them the same.
fn inputs(count: usize) -> Vec<Vec<FloatTensor>> {
    let sample = samples("mlp").remove(0).0;
    let input = |index: usize| {
        let mut input = sample.clone();
        input[0].values[0] = index as f32 / 16.0;
        input
    };
    (0..count).map(input).collect()
}

async fn infer_all(service: &Service, inputs: &[Vec<FloatTensor>]) -> Vec<Run> {
    let mut runs = Vec::new();
    for input in inputs {
        runs.push(service.infer(input).await);
    }
    runs
}

/// The spool directory of a run at a worker.
fn spooled(service: &Service, worker: usize, run: &Run) -> PathBuf {
    service.spooled(worker, convert::run_id(&run.run).unwrap())
}

#[tokio::test]
async fn runs_proven_together_are_each_verified_from_their_own_bundle() {
    let service = Service::start("mlp", &["FIRST", "LAST"], 2, &[]);
    service.ready().await;
    let inputs = inputs(5);
    let runs = infer_all(&service, &inputs).await;
    let first = service.prove_all(&runs).await.unwrap();
    assert_eq!(first.run, runs[0].run);
    let mut bundles = Vec::new();
    for (run, input) in runs.iter().zip(&inputs) {
        let verified = service.settled(run).await;
        assert_state(&verified, RunState::Verified);
        let report = verify_bundle(&service, &verified, input.clone()).await;
        assert!(report.is_verified(), "{report}");
        bundles.push(bundle_of(&service, run).await);
    }
    for shard in 0..2 {
        let proofs: Vec<&[u8]> =
            bundles.iter().map(|bundle| &*bundle.shards[shard].proof.as_ref().unwrap().proof).collect();
        assert!(proofs[0].starts_with(BATCH), "one proof of five runs");
        assert!(proofs.iter().all(|proof| *proof == proofs[0]), "one proof for all runs");
    }

    // A run of its own: its proof is another, and neither stands for the other.
    let alone = service.infer(&inputs[0]).await;
    service.prove(&alone, &[]).await.unwrap();
    assert_state(&service.settled(&alone).await, RunState::Verified);
    let single = bundle_of(&service, &alone).await;
    assert!(!single.shards[0].proof.as_ref().unwrap().proof.starts_with(BATCH));
    for (mut forged, other, run) in [(bundles[0].clone(), &single, &runs[0]), (single.clone(), &bundles[0], &alone)] {
        forged.shards[1].proof.clone_from(&other.shards[1].proof);
        let report = check_bundle(&service, forged, inputs[0].clone(), answer(run)).await;
        assert!(!report.is_verified(), "{report}");
        assert!(report.to_string().contains("proof"), "{report}");
    }

    // Proving again is no error, also beside a run that is not proven yet.
    let fresh = service.infer(&inputs[1]).await;
    service.prove_all(&[runs[1].clone(), fresh.clone()]).await.unwrap();
    assert_state(&service.settled(&fresh).await, RunState::Verified);
    let twice = service.prove_all(&[fresh.clone(), fresh]).await.unwrap_err();
    assert_eq!(twice.code(), Code::InvalidArgument, "{twice}");
}

#[tokio::test]
async fn a_run_that_cannot_be_proven_leaves_the_others_alone() {
    let service = Service::start("mlp", &["FIRST", "LAST"], 2, &[]);
    service.ready().await;
    let runs = infer_all(&service, &inputs(5)).await;
    // One has another's input in the spool, one has none, one has no receipt.
    std::fs::copy(spooled(&service, 1, &runs[0]).join("input"), spooled(&service, 1, &runs[1]).join("input")).unwrap();
    std::fs::remove_file(spooled(&service, 1, &runs[2]).join("input")).unwrap();
    std::fs::remove_file(spooled(&service, 1, &runs[3]).join("receipt")).unwrap();
    service.prove_all(&runs).await.unwrap();
    for (index, reason) in [
        (0, None),
        (1, Some("input boundary is not that of this input")),
        (2, Some("has not spooled the run")),
        (3, Some("has not spooled the run")),
        (4, None),
    ] {
        let run = service.settled(&runs[index]).await;
        match reason {
            None => assert_state(&run, RunState::Verified),
            Some(reason) => {
                assert_state(&run, RunState::Rejected);
                assert_eq!((run.blamed_shard, &run.blamed_worker), (Some(1), &run.shards[1].worker));
                assert!(run.reason.contains(reason), "run {index}: {}", run.reason);
            }
        }
    }
}

#[tokio::test]
async fn a_run_that_is_rejected_meanwhile_leaves_the_others_alone() {
    // The last worker waits; the first rejects one run at once, which cancels that run's proof at the last.
    let mut service = Service::start("mlp", &["FIRST"], 2, &[]);
    service.add_worker("LAST", &["--hold-at", "prove"]);
    service.ready().await;
    let runs = infer_all(&service, &inputs(3)).await;
    std::fs::remove_file(spooled(&service, 0, &runs[1]).join("input")).unwrap();
    service.prove_all(&runs).await.unwrap();
    let rejected = service.settled(&runs[1]).await;
    assert_state(&rejected, RunState::Rejected);
    assert_eq!(rejected.blamed_shard, Some(0));
    service.workers[1].until_logged("proof cancelled");
    service.workers[1].signal("USR1");
    for index in [0, 2] {
        assert_state(&service.settled(&runs[index]).await, RunState::Verified);
    }
}

#[tokio::test]
async fn a_worker_killed_while_proving_several_runs_proves_each_when_it_is_back() {
    let mut service = Service::start("mlp", &["FIRST"], 2, &[]);
    service.add_worker("LAST", &["--prove-delay-ms", "600000"]);
    service.ready().await;
    let runs = infer_all(&service, &inputs(3)).await;
    service.prove_all(&runs).await.unwrap();
    service.workers[1].kill();
    service.restart_worker(1, &[]);
    for run in &runs {
        assert_state(&service.settled(run).await, RunState::Verified);
    }
}

#[tokio::test]
async fn none_of_several_runs_is_requested_when_one_cannot_be() {
    let service = Service::start("mlp", &["SOLO"], 1, &[]);
    service.ready().await;
    let runs = infer_all(&service, &inputs(1)).await;
    let mut unknown = runs[0].clone();
    unknown.run = vec![9; 16].into();
    let refused = service.prove_all(&[runs[0].clone(), unknown]).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert_state(&service.settled(&runs[0]).await, RunState::Answered);
}

#[tokio::test]
async fn the_command_proves_several_runs_and_leaves_a_bundle_of_each() {
    let service = Service::start("mlp", &["FIRST", "LAST"], 2, &[]);
    service.ready().await;
    let runs = infer_all(&service, &inputs(3)).await;
    let ids: Vec<String> = runs.iter().map(|run| convert::run_id(&run.run).unwrap().to_string()).collect();
    let out = service.directory.path().join("bundles");
    let address = service.coordinator.address.clone();
    let prove = |ids: &[String], out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardproof"));
        command.arg("prove").args(ids).args(["--json", "--coordinator", &address, "--out", out]);
        let output = command.output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let card = service.directory.path().join("card.json");
    std::fs::write(&card, service.status().await.card).unwrap();
    let verify = |bundle: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardproof"));
        command.args(["verify", bundle, "--card"]).arg(&card).args(["--json"]);
        command.output().unwrap().status.code()
    };
    let (code, proved) = prove(&ids, out.to_str().unwrap());
    assert_eq!(code, Some(0), "{proved}");
    for (proved, id) in proved.as_array().unwrap().iter().zip(&ids) {
        assert_eq!((proved["run"].as_str(), proved["state"].as_str()), (Some(id.as_str()), Some("verified")));
        let bundle = out.join(format!("{id}.bundle"));
        assert_eq!(proved["bundle"].as_str(), bundle.to_str());
        assert_eq!(verify(bundle.to_str().unwrap()), Some(0), "{id}");
    }
    // One run is one object and one file, as ever.
    let file = service.directory.path().join("one.bundle");
    let (code, one) = prove(&ids[..1], file.to_str().unwrap());
    assert_eq!((code, one["run"].as_str(), one["bundle"].as_str()), (Some(0), Some(ids[0].as_str()), file.to_str()));
    assert_eq!(verify(file.to_str().unwrap()), Some(0));

    // One bad run of several: the command says so, the good one has its bundle.
    let runs = infer_all(&service, &inputs(2)).await;
    let ids: Vec<String> = runs.iter().map(|run| convert::run_id(&run.run).unwrap().to_string()).collect();
    std::fs::remove_file(spooled(&service, 0, &runs[1]).join("receipt")).unwrap();
    let (code, proved) = prove(&ids, out.to_str().unwrap());
    assert_eq!(code, Some(3), "{proved}");
    assert_eq!(proved[1]["state"], "rejected");
    assert_eq!(verify(proved[0]["bundle"].as_str().unwrap()), Some(0));
}
