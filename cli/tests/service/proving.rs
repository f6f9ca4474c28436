//! Proofs through the service, on the smallest network that is worth it.

use std::process::Stdio;
use std::time::Duration;

use shardproof_common::chain;
use shardproof_common::clock;
use shardproof_common::ids::UnixMillis;
use shardproof_common::tensor::FloatTensor;
use shardproof_proto::convert;
use shardproof_proto::v1::admin_client::AdminClient;
use shardproof_proto::v1::{CancelRequest, GetRequest, ProofState, Run, RunState};
use tonic::Code;

use crate::cluster::{
    PATIENCE, Service, answer, assert_close, assert_state, command, fails, json, samples, strings, verify_bundle,
};

pub(crate) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");

const EZKL: &[&str] = &["--backend", "ezkl"];

fn input() -> Vec<FloatTensor> {
    vec![FloatTensor { shape: vec![1, 4], values: vec![0.5, -0.25, 0.75, 1.0] }]
}

fn proofs(run: &Run) -> Vec<ProofState> {
    run.shards.iter().map(|shard| shard.proof()).collect()
}

/// Fetches card and bundle and checks them as anyone else would.
async fn verify_offline(service: &Service, run: &Run) -> chain::Report {
    verify_bundle(service, run, input()).await
}

#[tokio::test]
async fn native_proofs_come_on_request_shard_by_shard_and_after_restarts_of_everything() {
    proofs_come_on_request(&["--backend", "gkr"]).await;
}

#[tokio::test]
async fn ezkl_proofs_come_on_request_shard_by_shard_and_after_restarts_of_everything() {
    proofs_come_on_request(EZKL).await;
}

#[tokio::test]
async fn proofs_are_refused_once_nobody_promises_them_and_nobody_is_blamed() {
    let mut service = Service::start(TINY, &[], 1, &["--backend", "gkr", "--provable-for", "0s"]);
    service.add_worker("SOLO", &["--keep-spool", "5s"]);
    service.ready().await;
    let run = service.infer(&input()).await;
    assert_state(&run, RunState::Answered);
    let promised = UnixMillis(run.shards[0].provable_until_unix_ms);
    assert!(promised > UnixMillis(run.submitted_unix_ms));
    while clock::now() <= promised {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = service.prove(&run, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("can be proven is past"), "{}", refused.message());
    let after = service.client().get(GetRequest { run: run.run }).await.unwrap().into_inner();
    assert_state(&after, RunState::Answered);
    assert_eq!((after.blamed_worker.as_str(), proofs(&after).as_slice()), ("", [ProofState::Unspecified].as_slice()));
}

#[tokio::test]
async fn a_worker_that_promises_too_little_rejects_the_run() {
    let mut service = Service::start(TINY, &[], 1, &["--provable-for", "30m"]);
    service.add_worker("SOLO", &["--keep-spool", "20m"]);
    service.ready().await;
    let run = service.infer(&input()).await;
    assert_state(&run, RunState::Rejected);
    assert!(run.reason.contains("its receipt promises to be provable for 60"), "{}", run.reason);
    assert_eq!(run.blamed_shard, Some(0));
}

#[tokio::test]
async fn who_waits_for_a_proof_that_is_refused_is_told_why_and_can_cancel_it() {
    let service = Service::start(TINY, &["SOLO"], 1, &["--backend", "gkr", "--max-upload", "2K"]);
    service.ready().await;
    let run = service.infer(&input()).await;
    assert_state(&run, RunState::Answered);
    service.prove(&run, &[]).await.unwrap();
    let told = service.run_until(&run, |run| run.shards[0].step.contains("(--max-upload)")).await;
    assert!(told.shards[0].step.starts_with("proof refused: "), "{told:?}");
    let request = CancelRequest { run: run.run.clone() };
    AdminClient::new(service.channel()).cancel_run(request).await.unwrap();
    service.workers[0].until_logged("proof cancelled");
    service.workers[0].until_logged("a proof that nobody wants any more is not handed over");
    let after = service.client().get(GetRequest { run: run.run }).await.unwrap().into_inner();
    assert_eq!((after.state(), after.blamed_worker.as_str()), (RunState::Answered, ""));
}

async fn proofs_come_on_request(backend: &[&str]) {
    let mut service = Service::start(TINY, &["FIRST", "MIDDLE", "LAST"], 3, backend);
    service.ready().await;
    let run = service.infer(&input()).await;
    assert_state(&run, RunState::Answered);

    service.prove(&run, &[1]).await.unwrap();
    let partial = service.settled(&run).await;
    assert_state(&partial, RunState::Partial);
    assert_eq!(proofs(&partial), [ProofState::Unspecified, ProofState::Verified, ProofState::Unspecified]);
    let refused = service.prove(&run, &[3]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);

    service.coordinator.kill();
    for index in 0..3 {
        service.workers[index].kill();
    }
    service.restart_coordinator();
    for index in [2, 0, 1] {
        service.restart_worker(index, &[]);
    }
    service.ready().await;
    assert!(service.status().await.shards.iter().all(|shard| shard.setup_cached), "keys are computed once");
    service.prove(&run, &[]).await.unwrap();
    let verified = service.settled(&run).await;
    assert_state(&verified, RunState::Verified);
    let report = verify_offline(&service, &verified).await;
    assert!(report.is_verified(), "{report}");
    assert_close(&report.outputs.unwrap(), &answer(&run), 0.0);
}

#[tokio::test]
async fn public_boundaries_are_in_the_bundle() {
    verified_with(&["--boundary", "public"]).await;
}

#[tokio::test]
async fn public_boundaries_of_ezkl_are_in_the_bundle() {
    verified_with(&["--backend", "ezkl", "--boundary", "public"]).await;
}

#[tokio::test]
async fn polynomial_commitments_link_shards() {
    verified_with(&["--backend", "ezkl", "--boundary", "polycommit"]).await;
}

#[tokio::test]
async fn two_backends_make_one_chain() {
    verified_with(&["--backend", "gkr,ezkl"]).await;
}

async fn verified_with(plan: &[&str]) {
    let service = Service::start(TINY, &["FIRST", "LAST"], 2, plan);
    service.ready().await;
    let run = service.infer(&input()).await;
    service.prove(&run, &[]).await.unwrap();
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Verified);
    assert!(verify_offline(&service, &run).await.is_verified());
}

#[tokio::test]
async fn a_worker_killed_while_proving_proves_when_it_is_back() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &[]);
    service.add_worker("LAST", &["--prove-delay-ms", "600000"]);
    service.ready().await;
    let run = service.infer(&input()).await;
    service.prove(&run, &[]).await.unwrap();
    service.workers[1].kill();
    service.restart_worker(1, &[]);
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Verified);
}

#[tokio::test]
async fn a_prover_that_stays_away_rejects_the_run_by_name() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &["--rejoin-grace", "1"]);
    service.add_worker("LAST", &["--prove-delay-ms", "600000"]);
    service.ready().await;
    let run = service.infer(&input()).await;
    service.prove(&run, &[]).await.unwrap();
    service.workers[1].kill();
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Rejected);
    assert_eq!(run.blamed_shard, Some(1));
    assert_eq!(run.blamed_worker, run.shards[1].worker);
    assert!(run.reason.contains("was lost while it owed the proof"), "{}", run.reason);
}

#[tokio::test]
async fn a_late_proof_rejects_the_run() {
    let mut service = Service::start(TINY, &["FIRST"], 2, &["--prove-deadline", "2"]);
    service.add_worker("LAST", &["--prove-delay-ms", "600000"]);
    service.ready().await;
    let run = service.infer(&input()).await;
    service.prove(&run, &[1]).await.unwrap();
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Rejected);
    assert!(run.reason.contains("did not come within 2 s"), "{}", run.reason);
}

#[tokio::test]
async fn a_worker_without_its_spool_rejects_the_run_and_is_named() {
    let service = Service::start(TINY, &["FIRST", "LAST"], 2, &[]);
    service.ready().await;
    let run = service.infer(&input()).await;
    std::fs::remove_dir_all(service.worker_data(0).join("spool")).unwrap();
    service.prove(&run, &[0]).await.unwrap();
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Rejected);
    assert_eq!(run.blamed_shard, Some(0));
    assert!(run.reason.contains("has not spooled the run"), "{}", run.reason);
}

#[tokio::test]
async fn a_native_proof_of_another_run_rejects_the_run() {
    a_proof_of_another_run(&[]).await;
}

#[tokio::test]
async fn an_ezkl_proof_of_another_run_rejects_the_run() {
    a_proof_of_another_run(EZKL).await;
}

async fn a_proof_of_another_run(backend: &[&str]) {
    let service = Service::start(TINY, &["FIRST", "LAST"], 2, backend);
    service.ready().await;
    let honest = service.infer(&input()).await;
    let mut other_input = input();
    other_input[0].values[0] = -0.5;
    let other = service.infer(&other_input).await;
    assert_ne!(answer(&honest), answer(&other));
    service.swap_spool(1, &other, &honest);
    service.prove(&honest, &[]).await.unwrap();
    let run = service.settled(&honest).await;
    assert_state(&run, RunState::Rejected);
    assert_eq!(run.blamed_shard, Some(1));
    assert_eq!(run.blamed_worker, run.shards[1].worker);
}

#[tokio::test]
async fn proofs_of_different_shards_are_made_at_the_same_time() {
    const DELAY_MS: u64 = 3000;
    let delay = DELAY_MS.to_string();
    let mut service = Service::start(TINY, &[], 3, &[]);
    for role in ["FIRST", "MIDDLE", "LAST"] {
        service.add_worker(role, &["--prove-delay-ms", &delay]);
    }
    service.ready().await;
    let run = service.infer(&input()).await;
    service.prove(&run, &[]).await.unwrap();
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Verified);
    let sum: u64 = run.shards.iter().map(|shard| shard.prove_us / 1000).sum();
    assert!(run.shards.iter().all(|shard| shard.prove_us >= 1000 * DELAY_MS));
    assert!(run.prove_wall_ms + DELAY_MS <= sum, "wall {} ms, sum {sum} ms", run.prove_wall_ms);
    assert!(u128::from(run.prove_wall_ms) < PATIENCE.as_millis());
}

#[tokio::test]
async fn proofs_that_are_cancelled_are_given_up_and_can_be_asked_for_again() {
    let service = Service::start("mlp", &["SOLO"], 1, &["--backend", "gkr"]);
    service.ready().await;
    let run = service.infer(&samples("mlp")[0].0).await;
    let id = convert::run_id(&run.run).unwrap().to_string();
    let line = ["--json", "cancel", &id, "--coordinator", &service.coordinator.address];
    let (code, refused) = fails(&line);
    assert!(code == Some(1) && refused.contains("nothing of run"), "{refused}");

    service.workers[0].signal("STOP");
    let prove = strings(&["prove", &id, "--coordinator", &service.coordinator.address]);
    let waiting = command(&prove).stderr(Stdio::piped()).spawn().unwrap();
    // A watch would end before there is a request.
    let get = async || service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
    let requested = async {
        while proofs(&get().await) != [ProofState::Requested] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, requested).await.unwrap();
    let (code, cancelled) = json(&strings(&line));
    assert_eq!((code, &cancelled["state"]), (Some(0), &"answered".into()));
    let told = waiting.wait_with_output().unwrap();
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(
        told.status.code() == Some(1) && said.contains(&format!("the proofs of run {id} were cancelled")),
        "{said}"
    );
    service.workers[0].signal("CONT");
    assert_state(&service.settled(&run).await, RunState::Answered);
    service.prove(&run, &[]).await.unwrap();
    assert_state(&service.settled(&run).await, RunState::Verified);
}

#[tokio::test]
async fn a_run_that_is_cancelled_has_failed_and_its_late_answer_changes_nothing() {
    let service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let (input, expected) = &samples("mlp")[0];
    service.workers[0].signal("STOP");
    let run = service.submit(input).await.unwrap();
    let id = convert::run_id(&run.run).unwrap().to_string();
    let line = ["--json", "cancel", &id, "--coordinator", &service.coordinator.address];
    let (code, cancelled) = json(&strings(&line));
    assert_eq!((code, &cancelled["state"]), (Some(0), &"failed".into()));
    service.workers[0].signal("CONT");
    assert_close(&answer(&service.infer(input).await), expected, 1e-5);
    let after = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
    assert_eq!((after.state(), after.reason.as_str()), (RunState::Failed, "it was cancelled"));
}
