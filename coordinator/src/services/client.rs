//! The clients' side: submit, watch, prove, fetch.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::bytes::Bytes;
use shardproof_common::audit::{Nonce, NonceCommitment};
use shardproof_common::ids::{Role, RunId, ShardIndex};
use shardproof_proto::convert;
use shardproof_proto::v1::runs_server::Runs;
use shardproof_proto::v1::{
    self, ArtifactRef, BundleRequest, EvidenceRequest, GetRequest, ListRequest, ListResponse, ProveRequest,
    RevealRequest, Run,
};
use shardproof_proto::v1::{StatusRequest, StatusResponse, SubmitRequest, WatchRequest};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::audit::{Audit, AuditStage};
use crate::record::{DisputeStage, ProofState, RunRecord, RunState};
use crate::registry::Member;
use crate::runs::no_run;
use crate::{Coordinator, Stage};

/// Most runs that one listing returns.
const MAX_LISTED: u32 = 1000;
/// Bytes of an answer that comes with its run, and spares whoever waits for it a round trip. A larger one is fetched.
const SMALL_ANSWER_BYTES: u64 = 64 << 10;
/// Most runs of one request for proofs.
const MAX_PROVEN: usize = 1024;

/// The client service.
pub(crate) struct ClientService {
    coordinator: Arc<Coordinator>,
}

impl ClientService {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self { coordinator }
    }

    /// The run for a client, with its answer where that is small.
    async fn show(&self, record: &RunRecord) -> Run {
        show(&self.coordinator, record).await
    }
}

#[tonic::async_trait]
impl Runs for ClientService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Run, Status>> + Send>>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<Run>, Status> {
        let request = request.into_inner();
        let input = convert::digest("input", &request.input)?;
        let commitment = match request.nonce_commitment.as_ref() {
            [] => None,
            bytes => Some(NonceCommitment::from_bytes(*convert::digest("nonce commitment", bytes)?.as_bytes())),
        };
        // A task of its own: a client that hangs up leaves no run that is accepted and goes nowhere.
        let coordinator = self.coordinator.clone();
        let submitted = tokio::spawn(async move {
            let submitted = coordinator.submit(input, commitment).await;
            if submitted.is_ok() {
                coordinator.uploads.used(input);
            }
            submitted
        });
        let record = submitted.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(self.show(&record).await))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let run = convert::run_id(&request.into_inner().run)?;
        let watch = self.coordinator.runs.watch(run).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let watch = watch.ok_or_else(|| no_run(run))?;
        let state = WatchState { coordinator: self.coordinator.clone(), watch, started: false, ended: false };
        Ok(Response::new(Box::pin(futures::stream::unfold(state, WatchState::next))))
    }

    async fn prove(&self, request: Request<ProveRequest>) -> Result<Response<Run>, Status> {
        let request = request.into_inner();
        let shards = request.shards.into_iter().map(ShardIndex).collect();
        let runs = requested_runs(&request.run, &request.runs)?;
        let coordinator = self.coordinator.clone();
        let requested = tokio::spawn(async move { coordinator.prove(&runs, shards).await });
        let record = requested.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(self.show(&record).await))
    }

    async fn reveal(&self, request: Request<RevealRequest>) -> Result<Response<Run>, Status> {
        let request = request.into_inner();
        let nonce = Nonce::from_bytes(*convert::digest("nonce", &request.nonce)?.as_bytes());
        let record = self.coordinator.reveal(convert::run_id(&request.run)?, nonce).await?;
        Ok(Response::new(self.show(&record).await))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Run>, Status> {
        let record = self.coordinator.find_run(convert::run_id(&request.into_inner().run)?).await?;
        Ok(Response::new(self.show(&record).await))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let limit = match request.into_inner().limit {
            0 => 20,
            limit => limit.min(MAX_LISTED),
        };
        let runs = self.coordinator.runs.latest(limit).await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(ListResponse { runs: runs.iter().map(describe).collect() }))
    }

    async fn bundle(&self, request: Request<BundleRequest>) -> Result<Response<ArtifactRef>, Status> {
        let artifact = self.coordinator.bundle(convert::run_id(&request.into_inner().run)?).await?;
        Ok(Response::new(convert::artifact_ref(artifact)))
    }

    async fn evidence(&self, request: Request<EvidenceRequest>) -> Result<Response<ArtifactRef>, Status> {
        let run = convert::run_id(&request.into_inner().run)?;
        Ok(Response::new(convert::artifact_ref(self.coordinator.evidence(run, false).await?)))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(status(&self.coordinator)))
    }
}

/// The runs that a request for proofs names, each once.
fn requested_runs(one: &[u8], several: &[Bytes]) -> Result<Vec<RunId>, Status> {
    match (one, several) {
        ([], several) if (1..=MAX_PROVEN).contains(&several.len()) => {
            let mut named = HashSet::new();
            let runs = several.iter().map(|run| {
                let run = convert::run_id(run)?;
                if named.insert(run) {
                    Ok(run)
                } else {
                    Err(Status::invalid_argument(format!("run {run} is named twice")))
                }
            });
            runs.collect()
        }
        (one, []) => Ok(vec![convert::run_id(one)?]),
        ([], several) => {
            Err(Status::invalid_argument(format!("{} runs in one request, {MAX_PROVEN} is the most", several.len())))
        }
        (_, _) => Err(Status::invalid_argument("a request names either `run` or `runs`")),
    }
}

/// A client's view of a run as it changes.
struct WatchState {
    coordinator: Arc<Coordinator>,
    watch: watch::Receiver<RunRecord>,
    started: bool,
    ended: bool,
}

impl WatchState {
    /// The present state first, then every later one; ends once nothing is under way, with an error where the coordinator ends
    /// before.
    async fn next(mut self) -> Option<(Result<Run, Status>, Self)> {
        if self.ended {
            return None;
        }
        if self.started {
            let over = tokio::select! {
                changed = self.watch.changed() => changed.is_err(),
                // A coordinator that ends says what became of the run before it does.
                () = self.coordinator.shutdown.cancelled() => !self.watch.has_changed().unwrap_or(false),
            };
            if over {
                self.ended = true;
                let stopped = "the coordinator stops before the run is over; it goes on when the coordinator is back";
                return Some((Err(Status::unavailable(stopped)), self));
            }
        }
        self.started = true;
        let record = self.watch.borrow_and_update().clone();
        self.ended = !record.under_way();
        let run = show(&self.coordinator, &record).await;
        Some((Ok(run), self))
    }
}

async fn show(coordinator: &Coordinator, record: &RunRecord) -> Run {
    let answer = match record.answer.filter(|answer| answer.size <= SMALL_ANSWER_BYTES) {
        // Whoever fetches it instead learns why it cannot be read.
        Some(answer) => coordinator.artifacts.read(answer.digest, SMALL_ANSWER_BYTES).await.unwrap_or_default(),
        None => Vec::new(),
    };
    Run { answer: answer.into(), ..describe(record) }
}

/// The run without its answer's content.
pub(super) fn describe(record: &RunRecord) -> Run {
    Run {
        run: convert::run_bytes(record.id),
        state: run_state(record.state).into(),
        reason: record.reason.clone(),
        blamed_shard: record.blamed_shard.map(|shard| shard.0),
        blamed_worker: record.blamed_worker.map(|worker| worker.to_string()).unwrap_or_default(),
        answer: Bytes::new(),
        answer_artifact: record.answer.map(convert::artifact_ref),
        shards: record.shards.iter().enumerate().map(|(index, shard)| show_shard(index as u32, shard)).collect(),
        submitted_unix_ms: record.submitted_ms,
        prove_wall_ms: record.prove_wall_ms,
        audit: Some(show_audit(&record.audit)),
        dispute: record
            .dispute
            .map(|dispute| v1::Dispute { shard: dispute.shard.0, stage: dispute_stage(dispute.stage).into() }),
        evidence: record.evidence.is_some(),
    }
}

fn show_audit(audit: &Audit) -> v1::Audit {
    let bytes = |bytes: &[u8; 32]| Bytes::copy_from_slice(bytes);
    let state = match &audit.stage {
        AuditStage::Open if audit.awaits_nonce() => v1::AuditState::AwaitingNonce,
        AuditStage::Idle | AuditStage::Open => v1::AuditState::Unspecified,
        AuditStage::Drawn { .. } => v1::AuditState::Drawn,
        AuditStage::Unrevealed => v1::AuditState::Unrevealed,
    };
    let (nonce, drawn) = match &audit.stage {
        AuditStage::Drawn { nonce, shards } => (*nonce, shards.as_slice()),
        AuditStage::Idle | AuditStage::Open | AuditStage::Unrevealed => (None, [].as_slice()),
    };
    v1::Audit {
        policy: audit.policy.to_string(),
        state: state.into(),
        nonce_commitment: audit.commitment.map(|commitment| bytes(commitment.as_bytes())).unwrap_or_default(),
        receipts: audit.receipts.iter().map(|receipt| bytes(receipt.as_bytes())).collect(),
        nonce: nonce.map(|nonce| bytes(nonce.as_bytes())).unwrap_or_default(),
        coordinators_nonce: nonce.is_some() && audit.commitment.is_none(),
        drawn: drawn.iter().map(|shard| shard.0).collect(),
    }
}

fn dispute_stage(stage: DisputeStage) -> v1::DisputeStage {
    match stage {
        DisputeStage::Showing => v1::DisputeStage::Showing,
        DisputeStage::Handing => v1::DisputeStage::Handing,
        DisputeStage::Accusing => v1::DisputeStage::Accusing,
        DisputeStage::Settled => v1::DisputeStage::Settled,
    }
}

fn show_shard(index: u32, shard: &crate::record::ShardRecord) -> v1::ShardProgress {
    v1::ShardProgress {
        shard: index,
        proof: proof_state(shard.proof).into(),
        step: shard.step.clone(),
        worker: shard.receipt.as_ref().map(|receipt| receipt.worker.to_string()).unwrap_or_default(),
        provable_until_unix_ms: shard.receipt.as_ref().map_or(0, |receipt| receipt.provable_until.0),
        witness_us: shard.witness_us,
        prove_us: shard.prove_us,
        verify_us: shard.verify_us,
        proof_bytes: shard.artifact.map_or(0, |artifact| artifact.size),
        witness_bytes: shard.witness_bytes,
        peak_rss_bytes: shard.peak_rss_bytes,
    }
}

fn run_state(state: RunState) -> v1::RunState {
    match state {
        RunState::Running => v1::RunState::Running,
        RunState::Answered => v1::RunState::Answered,
        RunState::Partial => v1::RunState::Partial,
        RunState::Verified => v1::RunState::Verified,
        RunState::Rejected => v1::RunState::Rejected,
        RunState::Failed => v1::RunState::Failed,
    }
}

fn proof_state(state: ProofState) -> v1::ProofState {
    match state {
        ProofState::NotRequested => v1::ProofState::Unspecified,
        ProofState::Requested => v1::ProofState::Requested,
        ProofState::Verifying => v1::ProofState::Verifying,
        ProofState::Verified => v1::ProofState::Verified,
        ProofState::Rejected => v1::ProofState::Rejected,
    }
}

fn status(coordinator: &Coordinator) -> StatusResponse {
    let (stage, prepared, failure) = match &*coordinator.stage.borrow() {
        Stage::Preparing(step) => (step.clone(), None, String::new()),
        Stage::Serving(prepared) => ("serving".to_owned(), Some(prepared.clone()), String::new()),
        Stage::Failed(reason) => ("failed".to_owned(), None, reason.clone()),
    };
    let plan = &coordinator.planned.plan;
    let shards = plan.shards.iter().enumerate().map(|(index, shard)| {
        let at = ShardIndex(index as u32);
        let holder =
            coordinator.cluster.with(|registry| registry.holder(at).map(|(_, member)| (member.key, member.serves())));
        let setup = prepared.as_ref().and_then(|prepared| prepared.shards.get(index));
        v1::ShardStatus {
            shard: at.0,
            role: Role::of(at, plan.shards.len()).to_string(),
            parameters: shard.parameters,
            setup_us: setup.map_or(0, |setup| setup.setup_us),
            proving_key_bytes: setup.map_or(0, |setup| setup.proving_key_bytes),
            verifying_key_bytes: setup.and_then(|setup| setup.verifying_key).map_or(0, |key| key.size),
            setup_peak_rss_bytes: setup.map_or(0, |setup| setup.peak_rss_bytes),
            setup_cached: setup.is_some_and(|setup| setup.cached),
            worker: holder.map(|(key, _)| key.to_string()).unwrap_or_default(),
            ready: holder.is_some_and(|(_, ready)| ready),
        }
    });
    let workers = coordinator.cluster.with(|registry| registry.members().map(show_member).collect());
    StatusResponse {
        model: coordinator.planned.name.clone(),
        backend: plan.backends(),
        stage,
        card: prepared.as_ref().map(|prepared| Bytes::from(prepared.card_json.clone())).unwrap_or_default(),
        shards: shards.collect(),
        workers,
        failure,
    }
}

/// A connected worker.
pub(super) fn show_member(member: &Member) -> v1::WorkerStatus {
    v1::WorkerStatus {
        key: member.key.to_string(),
        role: member.role.to_string(),
        address: member.address.clone(),
        shard: member.shard.map(|shard| shard.0),
        ready: member.ready,
        connected_ms: member.since.elapsed().as_millis() as u64,
        trouble: member.trouble.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    #[tokio::test]
    async fn who_watches_is_told_the_last_state_before_the_coordinator_ends() {
        let bench = Bench::new(1, &["--backend", "float"]).await;
        bench.shutdown.cancel();
        // Whether the change or the end is noticed first is a matter of chance.
        for _ in 0..32 {
            let run = bench.run(1, |_| ()).await;
            let watch = bench.runs.watch(run).await.unwrap().unwrap();
            let state = WatchState { coordinator: bench.clone(), watch, started: false, ended: false };
            let (first, state) = state.next().await.unwrap();
            assert_eq!(first.unwrap().state(), v1::RunState::Running);
            bench.runs.change(run, |record| record.fail(None, None, "over".to_owned())).await.unwrap();
            let (last, state) = state.next().await.expect("the last state");
            assert_eq!(last.unwrap().state(), v1::RunState::Failed);
            assert!(state.next().await.is_none());
        }
        let watch = bench.runs.watch(bench.run(1, |_| ()).await).await.unwrap().unwrap();
        let state = WatchState { coordinator: bench.clone(), watch, started: false, ended: false };
        let (_, state) = state.next().await.unwrap();
        let (stopped, state) = state.next().await.unwrap();
        assert_eq!(stopped.unwrap_err().code(), tonic::Code::Unavailable, "what goes on at the next start is no end");
        assert!(state.next().await.is_none());
    }

    #[test]
    fn requests_name_one_run_or_several_once_each() {
        let id = |n: u8| Bytes::from(vec![n; 16]);
        let runs = |several: &[Bytes]| requested_runs(&[], several).map_err(|status| status.message().to_owned());
        assert_eq!(requested_runs(&id(1), &[]).unwrap(), [RunId::from_bytes([1; 16])]);
        assert_eq!(runs(&[id(2), id(1)]).unwrap(), [2, 1].map(|n| RunId::from_bytes([n; 16])));
        assert!(runs(&[id(2), id(1), id(2)]).unwrap_err().ends_with("is named twice"));
        assert!(requested_runs(&id(1), &[id(2)]).unwrap_err().message().contains("either"));
        let many: Vec<Bytes> = (0..=MAX_PROVEN as u128).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
        assert!(runs(&many).unwrap_err().contains("1024 is the most"));
        assert_eq!(runs(&many[1..]).unwrap().len(), MAX_PROVEN);
        assert!(runs(&[]).unwrap_err().contains("16 bytes"));
    }
}
