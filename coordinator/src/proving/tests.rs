use shardproof_common::artifacts::Artifact;
use shardproof_common::ids::{Digest, Role};
use shardproof_common::receipt::Identity;
use shardproof_proto::v1::CoordinatorMessage;

use super::*;
use crate::audit::AuditStage;
use crate::testing::Bench;

const FIRST: ShardIndex = ShardIndex(0);

/// An answered run whose proof `worker` owes in this attempt.
async fn owing(bench: &Bench, worker: &Identity, attempt: u64) -> RunId {
    let run = bench.run(1, |_| ()).await;
    let receipt = bench.receipt(worker, run, 0, 1, 2);
    let change = |record: &mut RunRecord| {
        record.state = RunState::Answered;
        record.shards[0].receipt = Some(receipt);
        record.request_proofs(&[FIRST], 1);
        (1..attempt).for_each(|_| record.renew_attempt(FIRST));
    };
    bench.runs.change(run, change).await.unwrap();
    run
}

#[tokio::test]
async fn the_clock_of_an_absence_that_has_ended_says_nothing_of_a_later_one() {
    let bench = Bench::new(1, &["--backend", "float", "--rejoin-grace", "0"]).await;
    let worker = Identity::generate();
    // It has been back.
    let run = owing(&bench, &worker, 2).await;
    bench.clone().await_return(run, FIRST, worker.public(), 1).await;
    assert_eq!(bench.record(run).await.state, RunState::Answered);
    bench.clone().await_return(run, FIRST, worker.public(), 2).await;
    assert_eq!(bench.record(run).await.state, RunState::Rejected);
}

#[tokio::test]
async fn only_what_an_earlier_process_left_is_taken_up() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let (left, submitted) = (bench.run(1, |_| ()).await, bench.run(2, |_| ()).await);
    bench.resume(&[left]).await;
    assert_eq!(bench.tasks.len(), 1, "the run {submitted} is seen through already");
}

#[tokio::test]
async fn what_is_cancelled_ends_and_what_an_audit_drew_is_proven_all_the_same() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let run = bench.run(1, |_| ()).await;
    let cancelled = bench.cancel(run).await.unwrap();
    assert_eq!((cancelled.state, cancelled.reason.as_str()), (RunState::Failed, "it was cancelled"));
    let error = bench.cancel(run).await.unwrap_err();
    assert!(error.message().contains("nothing of run"), "{error}");

    let worker = Identity::generate();
    let [free, drawn] = [bench.run(2, |_| ()).await, bench.run(3, |_| ()).await];
    for (run, shards) in [(free, Vec::new()), (drawn, vec![FIRST])] {
        let receipt = bench.receipt(&worker, run, 0, 1, 2);
        let change = |record: &mut RunRecord| {
            record.state = RunState::Answered;
            record.shards[0].receipt = Some(receipt);
            record.audit.stage = AuditStage::Drawn { nonce: None, shards };
            record.request_proofs(&[FIRST], 1);
        };
        bench.runs.change(run, change).await.unwrap();
    }
    let cancelled = bench.cancel(free).await.unwrap();
    assert_eq!((cancelled.state, cancelled.under_way()), (RunState::Answered, false));
    let proof = bench.artifacts.put(b"proof").await.unwrap();
    let late = bench.runs.change(free, |record| record.take_proof(FIRST, 1, proof)).await;
    assert_eq!(late, Some(false), "a proof that comes all the same is not awaited");
    let again = bench.runs.change(free, |record| record.request_proofs(&[FIRST], 1)).await;
    assert_eq!(again, Some(vec![FIRST]), "it can be asked for again");
    let error = bench.cancel(drawn).await.unwrap_err();
    assert!(error.message().contains("drawn by the audit"), "{error}");
    assert!(bench.record(drawn).await.awaits_proof(FIRST));
}

#[tokio::test]
async fn a_worker_is_told_which_request_is_withdrawn() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let worker = Identity::generate();
    let (_, mut messages) = bench.join_ready(Role::Solo, 0, &worker);
    let [cancelled, rejected] = [owing(&bench, &worker, 2).await, owing(&bench, &worker, 2).await];
    let [given_up, changed] = [owing(&bench, &worker, 3).await, owing(&bench, &worker, 4).await];
    bench.cancel(cancelled).await.unwrap();
    bench.reject(rejected, FIRST, worker.public(), Event::Refused, "late".into()).await;
    bench.change_and_withdraw(changed, |record| record.reason = "it is still awaited".to_owned()).await.unwrap();
    bench.change_and_withdraw(given_up, |record| record.give_up(None, "over".to_owned())).await.unwrap();
    let mut withdrawn = Vec::new();
    while withdrawn.len() < 3 {
        if let Some(Message::CancelJob(job)) = messages.recv().await.unwrap().unwrap().message {
            withdrawn.push((convert::run_id(&job.run).unwrap(), job.attempt));
        }
    }
    assert_eq!(withdrawn, [(cancelled, 2), (rejected, 2), (given_up, 3)]);
}

#[tokio::test]
async fn a_proof_that_is_told_of_has_been_handed_over() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let worker = Identity::generate();
    let run = owing(&bench, &worker, 2).await;
    let told = |attempt| ProofDone {
        run: convert::run_bytes(run),
        shard: 0,
        proof: Some(convert::artifact_ref(Artifact { digest: Digest::of(b"nowhere"), size: 7 })),
        attempt,
        ..ProofDone::default()
    };
    bench.take_proof(worker.public(), told(1)).await.unwrap();
    assert!(bench.record(run).await.awaits_proof(FIRST), "the one of an earlier attempt is late");
    bench.take_proof(worker.public(), told(2)).await.unwrap();
    let record = bench.record(run).await;
    assert_eq!((record.state, record.blamed_worker), (RunState::Rejected, Some(worker.public())), "{}", record.reason);
}

#[tokio::test]
async fn a_worker_that_is_to_stop_makes_the_proofs_it_owes_and_no_others() {
    let bench = Bench::new(1, &["--backend", "gkr"]).await;
    let worker = Identity::generate();
    let (session, mut messages) = bench.join_ready(Role::Solo, 0, &worker);
    let run = owing(&bench, &worker, 1).await;
    let another = bench.run(2, |_| ()).await;
    let receipt = bench.receipt(&worker, another, 0, 1, 2);
    let answered = |record: &mut RunRecord| {
        record.state = RunState::Answered;
        record.shards[0].receipt = Some(receipt);
    };
    bench.runs.change(another, answered).await.unwrap();
    bench.cluster.leaving(session);
    bench.send_jobs(FIRST, &[run]).await;
    let is_job = |message: &Result<CoordinatorMessage, Status>| {
        matches!(message, Ok(CoordinatorMessage { message: Some(Message::Prove(_)) }))
    };
    while !is_job(&messages.recv().await.expect("the job comes")) {}
    let refused = bench.prove(&[another], Vec::new()).await.unwrap_err();
    assert!(refused.message().contains("is stopping"), "{refused:?}");
}

#[tokio::test]
async fn a_run_is_not_rejected_for_what_no_longer_holds() {
    let bench = Bench::new(1, &["--backend", "float"]).await;
    let worker = Identity::generate();
    let run = owing(&bench, &worker, 1).await;
    let reject =
        |holds: bool| bench.reject_while(move |_| holds, run, FIRST, worker.public(), Event::Refused, "late".into());
    reject(false).await;
    assert_eq!(bench.record(run).await.state, RunState::Answered);
    assert!(bench.is_blameless(&worker));
    reject(true).await;
    assert_eq!(bench.record(run).await.state, RunState::Rejected);
    assert!(!bench.is_blameless(&worker));
}
