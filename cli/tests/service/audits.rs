//! Audits: what is drawn is proven or rejects the run, and the draw is the one that receipts and nonce call for.

use shardproof_common::audit::{AuditPolicy, Nonce};
use shardproof_common::ids::{Digest, ShardIndex};
use shardproof_common::tensor::FloatTensor;
use shardproof_proto::convert;
use shardproof_proto::v1::{Audit, AuditState, ProofState, RevealRequest, Run, RunState};
use tonic::{Code, Status};

use crate::cluster::{Service, assert_state, fails, json, strings, verify_bundle};
use crate::proving::TINY;

fn input() -> Vec<FloatTensor> {
    vec![FloatTensor { shape: vec![1, 4], values: vec![0.5, -0.25, 0.75, 1.0] }]
}

async fn start(audit: &[&str]) -> Service {
    let service = Service::start(TINY, &["FIRST", "LAST"], 2, audit);
    service.ready().await;
    service
}

async fn reveal(service: &Service, run: &Run, nonce: Nonce) -> Result<Run, Status> {
    let request = RevealRequest { run: run.run.clone(), nonce: nonce.as_bytes().to_vec().into() };
    Ok(service.client().reveal(request).await?.into_inner())
}

/// Submits with a commitment to `nonce` and waits until the coordinator asks for it.
async fn answered(service: &Service, nonce: Nonce) -> Run {
    let run = service.submit_committed(&input(), nonce).await.unwrap();
    let awaiting = |run: &Run| audit(run).state() == AuditState::AwaitingNonce;
    let run = service.run_until(&run, awaiting).await;
    assert_state(&run, RunState::Answered);
    run
}

fn audit(run: &Run) -> &Audit {
    run.audit.as_ref().unwrap()
}

/// The draw as anyone can compute it.
fn draw(run: &Run) -> Vec<u32> {
    let audit = audit(run);
    let policy: AuditPolicy = audit.policy.parse().unwrap();
    let receipts: Vec<Digest> = audit.receipts.iter().map(|bytes| convert::digest("receipt", bytes).unwrap()).collect();
    let nonce = Nonce::from_bytes(audit.nonce.as_ref().try_into().unwrap());
    let shards = policy.draw(convert::run_id(&run.run).unwrap(), &receipts, &nonce);
    shards.into_iter().map(|ShardIndex(shard)| shard).collect()
}

#[tokio::test]
async fn every_run_is_proven_under_always() {
    let service = start(&["--audit", "always"]).await;
    let run = service.infer(&input()).await;
    assert_state(&run, RunState::Verified);
    assert_eq!((audit(&run).state(), audit(&run).drawn.as_slice()), (AuditState::Drawn, [0, 1].as_slice()));
    assert!(verify_bundle(&service, &run, input()).await.is_verified());
}

#[tokio::test]
async fn a_revealed_nonce_draws_and_what_is_drawn_is_proven() {
    let service = start(&["--audit", "shards:0.5"]).await;
    let mut sizes = [0; 3];
    // Eight runs of two shards: that all draws are alike has a chance of one in tens of thousands.
    for n in 0..8 {
        let nonce = Nonce::from_bytes([n; 32]);
        let before = answered(&service, nonce).await;
        assert!(audit(&before).nonce.is_empty() && audit(&before).drawn.is_empty(), "drawn before the nonce is known");
        assert_eq!(audit(&before).nonce_commitment, nonce.commitment().as_bytes().as_slice());
        reveal(&service, &before, nonce).await.unwrap();
        let after = service.settled(&before).await;
        assert_eq!(audit(&after).receipts, audit(&before).receipts);
        assert_eq!(audit(&after).nonce, nonce.as_bytes().as_slice());
        let drawn = draw(&after);
        assert_eq!(audit(&after).drawn, drawn);
        for shard in &after.shards {
            let expected = if drawn.contains(&shard.shard) { ProofState::Verified } else { ProofState::Unspecified };
            assert_eq!(shard.proof(), expected, "shard {} of {drawn:?}", shard.shard);
        }
        assert_state(&after, [RunState::Answered, RunState::Partial, RunState::Verified][drawn.len()]);
        sizes[drawn.len()] += 1;
    }
    assert!(sizes.iter().filter(|&&count| count > 0).count() > 1, "{sizes:?}");
}

#[tokio::test]
async fn nonces_open_their_commitment_when_it_is_due() {
    let service = start(&["--audit", "runs:1"]).await;
    let nonce = Nonce::generate();
    let run = answered(&service, nonce).await;
    let refused = reveal(&service, &run, Nonce::generate()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    reveal(&service, &run, nonce).await.unwrap();
    reveal(&service, &run, nonce).await.unwrap();
    assert_state(&service.settled(&run).await, RunState::Verified);
}

#[tokio::test]
async fn a_nonce_that_is_kept_leaves_the_run_unaudited() {
    let service = start(&["--audit", "runs:1", "--reveal-deadline", "1"]).await;
    let nonce = Nonce::generate();
    let run = service.submit_committed(&input(), nonce).await.unwrap();
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Answered);
    assert_eq!(audit(&run).state(), AuditState::Unrevealed);
    assert!(run.shards.iter().all(|shard| shard.proof() == ProofState::Unspecified));
    let late = reveal(&service, &run, nonce).await.unwrap_err();
    assert!(late.message().contains("too late"), "{late:?}");
}

#[tokio::test]
async fn without_a_commitment_the_coordinator_draws_and_says_so() {
    let service = start(&["--audit", "runs:1"]).await;
    let run = service.infer(&input()).await;
    assert_state(&run, RunState::Verified);
    assert!(audit(&run).coordinators_nonce);
    assert_eq!(draw(&run), audit(&run).drawn);
    let refused = reveal(&service, &run, Nonce::generate()).await.unwrap_err();
    assert!(refused.message().contains("without a commitment"), "{refused:?}");
}

#[tokio::test]
async fn a_restarted_coordinator_still_takes_the_nonce() {
    let mut service = start(&["--audit", "runs:1"]).await;
    let nonce = Nonce::generate();
    let run = answered(&service, nonce).await;
    service.coordinator.kill();
    service.restart_coordinator();
    service.ready().await;
    reveal(&service, &run, nonce).await.unwrap();
    let after = service.settled(&run).await;
    assert_state(&after, RunState::Verified);
    assert_eq!(audit(&after).receipts, audit(&run).receipts);
}

#[tokio::test]
async fn the_command_takes_part_and_checks_the_draw() {
    let service = start(&["--audit", "runs:1"]).await;
    let file = service.directory.path().join("input.json");
    std::fs::write(&file, r#"{"input_data": [[0.5, -0.25, 0.75, 1.0]]}"#).unwrap();
    let input = file.display().to_string();
    let arguments = strings(&["infer", "--json", "--input", &input, "--coordinator", &service.coordinator.address]);
    let (code, inferred) = tokio::task::spawn_blocking(move || json(&arguments)).await.unwrap();
    assert_eq!(code, Some(0), "{inferred}");
    assert_eq!(inferred["state"], "verified");
    assert_eq!(inferred["proven"], true);
    assert_eq!(inferred["wrong_draw"], serde_json::Value::Null);
    let audit = &inferred["audit"];
    assert_eq!(
        (&audit["policy"], &audit["state"], &audit["nonce_by"]),
        (&"runs:1".into(), &"drawn".into(), &"client".into())
    );
    assert_eq!(audit["drawn"], serde_json::json!([0, 1]));
    let nonce: Digest = audit["nonce"].as_str().unwrap().parse().unwrap();
    assert_eq!(audit["nonce_commitment"], Nonce::from_bytes(*nonce.as_bytes()).commitment().to_string());
}

#[tokio::test]
async fn a_drawn_proof_that_cannot_be_made_rejects_the_run() {
    let service = start(&["--audit", "runs:1"]).await;
    let nonce = Nonce::generate();
    let run = answered(&service, nonce).await;
    std::fs::remove_dir_all(service.worker_data(1).join("spool")).unwrap();
    reveal(&service, &run, nonce).await.unwrap();
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Rejected);
    assert_eq!((run.blamed_shard, &run.blamed_worker), (Some(1), &run.shards[1].worker));
}

#[test]
fn audits_in_float_mode_and_policies_that_are_none_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().display().to_string();
    let start = |audit: &str, backend: &str| {
        let service = ["coordinator", "127.0.0.1", "0", "1", "mlp", "--data-dir", &data];
        fails(&[&service[..], &["--audit", audit, "--backend", backend]].concat())
    };
    let (code, errors) = start("always", "float");
    assert!(code == Some(1) && errors.contains("--audit always: float mode proves nothing"), "{errors}");
    let (code, errors) = start("runs:1.5", "gkr");
    assert!(code == Some(2) && errors.contains("expected a share from 0 to 1"), "{errors}");
}
