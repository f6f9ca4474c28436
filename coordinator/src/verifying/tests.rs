use shardproof_common::backend::{BackendError, Registered, VerifyError, VerifyRequest};
use shardproof_common::card::ShardCard;
use shardproof_common::plan::BackendKind;
use shardproof_common::receipt::Identity;
use shardproof_gkr_service::GkrVerifier;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::VERIFICATIONS;
use crate::record::{ProofState, RunRecord, RunState};
use crate::testing::Bench;

const FIRST: ShardIndex = ShardIndex(0);

/// Accepts every proof, or is stopped over it.
struct Verifier {
    stop: Option<CancellationToken>,
    version: GkrVerifier,
}

impl ProofVerifier for Verifier {
    fn kind(&self) -> BackendKind {
        BackendKind::Gkr
    }

    fn pinned_version(&self) -> &str {
        self.version.pinned_version()
    }

    fn check_settings(&self, _: &ShardCard, _: &Registered<'_>) -> Result<(), String> {
        Ok(())
    }

    fn verify(&self, _: &VerifyRequest<'_>, _: &Job<'_>) -> Result<(), VerifyError> {
        let Some(stop) = &self.stop else { return Ok(()) };
        stop.cancel();
        Err(BackendError::Cancelled.into())
    }
}

async fn bench(stopped_over_a_proof: bool) -> Bench {
    let shutdown = CancellationToken::new();
    let stop = stopped_over_a_proof.then(|| shutdown.clone());
    let verifier = Verifier { stop, version: GkrVerifier::default() };
    Bench::with_verifiers(1, &["--backend", "gkr"], shutdown, vec![Box::new(verifier)]).await
}

/// A run whose proof has come.
async fn proven(bench: &Bench) -> (Stored, Identity) {
    let worker = Identity::generate();
    bench.stored(1, 2).await;
    let proof = bench.artifacts.put(b"proof").await.unwrap();
    let run = bench.run(1, |_| ()).await;
    let receipt = bench.receipt(&worker, run, 0, 1, 2);
    let given = receipt.clone();
    let change = |record: &mut RunRecord| {
        record.state = RunState::Answered;
        record.shards[0].receipt = Some(given);
        record.request_proofs(&[FIRST], 1);
        assert!(record.take_proof(FIRST, 1, proof));
    };
    bench.runs.change(run, change).await.unwrap();
    (Stored { run, receipt, proof }, worker)
}

async fn assert_open(bench: &Bench, run: RunId) {
    let record = bench.record(run).await;
    assert_eq!((record.state, record.shards[0].proof), (RunState::Answered, ProofState::Verifying));
}

#[tokio::test]
async fn a_check_that_a_stop_cuts_short_leaves_the_run_as_it_was() {
    let bench = bench(true).await;
    let (stored, _) = proven(&bench).await;
    bench.clone().verify(stored.run, FIRST).await;
    assert!(bench.shutdown.is_cancelled());
    assert_open(&bench, stored.run).await;
}

#[tokio::test]
async fn a_stop_ends_the_wait_for_a_turn() {
    let bench = bench(false).await;
    let (stored, _) = proven(&bench).await;
    let _turns = bench.verifying.acquire_many(VERIFICATIONS as u32).await.unwrap();
    bench.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(60), bench.clone().verify(stored.run, FIRST)).await.unwrap();
    assert_open(&bench, stored.run).await;
}

#[tokio::test]
async fn what_cannot_be_read_here_is_read_again_and_blames_nobody() {
    let bench = bench(false).await;
    let (stored, worker) = proven(&bench).await;
    let path = bench.artifacts.path(stored.proof.digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let verifying = tokio::spawn(bench.clone().verify(stored.run, FIRST));
    tokio::time::sleep(STORE_PAUSE / 2).await;
    assert_open(&bench, stored.run).await;
    std::fs::remove_dir(&path).unwrap();
    bench.artifacts.put(b"proof").await.unwrap();
    verifying.await.unwrap();
    assert_eq!(bench.record(stored.run).await.state, RunState::Verified);
    assert!(bench.is_blameless(&worker));
}

#[tokio::test]
async fn a_proof_that_the_disk_here_damaged_blames_nobody() {
    let bench = bench(false).await;
    let (stored, worker) = proven(&bench).await;
    std::fs::write(bench.artifacts.path(stored.proof.digest), b"prood").unwrap();
    bench.clone().verify(stored.run, FIRST).await;
    let record = bench.record(stored.run).await;
    assert_eq!((record.state, record.blamed_worker), (RunState::Failed, None), "{}", record.reason);
    assert!(bench.is_blameless(&worker));
}

#[tokio::test]
async fn what_is_lost_here_after_it_was_handed_over_blames_nobody() {
    let bench = bench(false).await;
    let (stored, worker) = proven(&bench).await;
    let check = |stored: &Stored| bench.check_proof(bench.prepared(), stored);
    assert!(check(&stored).is_ok());
    let path = bench.artifacts.path(stored.proof.digest);
    std::fs::write(&path, b"other").unwrap();
    assert!(matches!(check(&stored), Err(Verdict::Unread(ArtifactError::Damaged { .. }))));
    assert!(!path.exists(), "what is damaged is removed");
    assert!(matches!(check(&stored), Err(Verdict::Unread(ArtifactError::Missing { .. }))));
    // Nor the coordinator's own copies of input and answer.
    std::fs::write(&path, b"proof").unwrap();
    let input = bench.record(stored.run).await.input;
    std::fs::remove_file(bench.artifacts.path(input.digest)).unwrap();
    assert!(matches!(check(&stored), Err(Verdict::Unread(ArtifactError::Missing { .. }))));
    bench.clone().verify(stored.run, FIRST).await;
    let record = bench.record(stored.run).await;
    assert_eq!((record.state, record.blamed_worker), (RunState::Failed, None), "{}", record.reason);
    assert!(bench.is_blameless(&worker));
}

/// What comes of the check of shard 1's proof when boundary 1, which shard 0's worker stored, is not there, or larger than allowed.
async fn check_after_an_inner_boundary(is_there: bool, flags: &[&str]) -> (RunRecord, [bool; 2], [Identity; 2]) {
    let flags = [&["--backend", "gkr", "--boundary", "public"], flags].concat();
    let bench = Bench::new(2, &flags).await;
    let workers = [Identity::generate(), Identity::generate()];
    let proof = bench.artifacts.put(b"proof").await.unwrap();
    if is_there {
        bench.stored(1, 2).await;
    }
    let run = bench.run(1, |_| ()).await;
    let receipts = [bench.receipt(&workers[0], run, 0, 1, 2), bench.receipt(&workers[1], run, 1, 2, 3)];
    let change = |record: &mut RunRecord| {
        record.state = RunState::Answered;
        for (shard, receipt) in record.shards.iter_mut().zip(receipts) {
            shard.receipt = Some(receipt);
        }
        record.request_proofs(&[ShardIndex(1)], 1);
        assert!(record.take_proof(ShardIndex(1), 1, proof));
    };
    bench.runs.change(run, change).await.unwrap();
    bench.clone().verify(run, ShardIndex(1)).await;
    let blameless = [bench.is_blameless(&workers[0]), bench.is_blameless(&workers[1])];
    (bench.record(run).await, blameless, workers)
}

#[tokio::test]
async fn an_inner_boundary_that_is_lost_blames_nobody() {
    let (record, blameless, _) = check_after_an_inner_boundary(false, &[]).await;
    assert_eq!((record.state, record.blamed_worker), (RunState::Failed, None), "{}", record.reason);
    assert_eq!(blameless, [true, true]);
}

#[tokio::test]
async fn an_inner_boundary_that_is_too_large_is_the_fault_of_the_worker_that_stored_it() {
    let (record, blameless, workers) = check_after_an_inner_boundary(true, &["--max-upload", "16"]).await;
    assert_eq!((record.blamed_shard, record.blamed_worker), (Some(FIRST), Some(workers[0].public())));
    assert_eq!(blameless, [false, true]);
}
