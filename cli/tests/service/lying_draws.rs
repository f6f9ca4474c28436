//! A coordinator that draws what it likes: its clients find out.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use shardproof_common::audit::{AuditPolicy, Nonce};
use shardproof_common::ids::{Digest, RunId};
use shardproof_proto::convert;
use shardproof_proto::v1::artifacts_server::{Artifacts, ArtifactsServer};
use shardproof_proto::v1::runs_server::{Runs, RunsServer};
use shardproof_proto::v1::{
    ArtifactRef, Audit, AuditState, BundleRequest, Chunk, EvidenceRequest, FetchRequest, GetRequest, ListRequest,
    ListResponse, ProofState, ProveRequest, RevealRequest, Run, RunState, ShardProgress, StatusRequest, StatusResponse,
    Stored, SubmitRequest, WatchRequest,
};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::{fails, strings};

const CARD: &str = include_str!("../data/mlp-float.card.json");
const RUN: RunId = RunId::from_bytes([9; 16]);
const POLICY: &str = "runs:1";

/// What a coordinator makes of a draw before it shows it, or why it takes no nonce.
type Draw = fn(Run) -> Result<Run, Status>;

/// A coordinator that answers one run in two shards and then draws.
struct Coordinator {
    run: watch::Sender<Run>,
    draw: Draw,
}

impl Coordinator {
    /// Listens; returns its address.
    async fn start(draw: Draw) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shards = (0..2).map(|shard| ShardProgress { shard, ..ShardProgress::default() }).collect();
        let audit = Some(Audit { policy: POLICY.to_owned(), ..Audit::default() });
        let mut run = Run { run: convert::run_bytes(RUN), audit, shards, ..Run::default() };
        run.set_state(RunState::Running);
        let coordinator = Arc::new(Self { run: watch::Sender::new(run), draw });
        let server = Server::builder()
            .add_service(RunsServer::from_arc(coordinator.clone()))
            .add_service(ArtifactsServer::from_arc(coordinator))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        address
    }
}

fn unasked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not asked of this coordinator"))
}

#[tonic::async_trait]
impl Runs for Coordinator {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Run, Status>> + Send>>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse { card: CARD.into(), stage: "serving".to_owned(), ..Default::default() }))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<Run>, Status> {
        let accepted = self.run.borrow().clone();
        self.run.send_modify(|run| {
            run.set_state(RunState::Answered);
            let audit = run.audit.as_mut().unwrap();
            audit.set_state(AuditState::AwaitingNonce);
            audit.nonce_commitment = request.into_inner().nonce_commitment;
            audit.receipts = [b"0", b"1"].map(|receipt| convert::digest_bytes(Digest::of(receipt))).to_vec();
        });
        Ok(Response::new(accepted))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let runs = self.run.subscribe();
        let states = futures::stream::unfold((runs, false, false), async |(mut runs, started, ended)| {
            if ended || (started && runs.changed().await.is_err()) {
                return None;
            }
            let run = runs.borrow_and_update().clone();
            let ended = matches!(run.audit.as_ref().unwrap().state(), AuditState::Drawn | AuditState::Unrevealed);
            Some((Ok(run), (runs, true, ended)))
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn reveal(&self, request: Request<RevealRequest>) -> Result<Response<Run>, Status> {
        let nonce = request.into_inner().nonce;
        let mut run = self.run.borrow().clone();
        let audit = run.audit.as_mut().unwrap();
        let receipts: Vec<Digest> = audit.receipts.iter().map(|r| convert::digest("receipt", r).unwrap()).collect();
        let policy: AuditPolicy = POLICY.parse().unwrap();
        let drawn = policy.draw(RUN, &receipts, &Nonce::from_bytes(nonce.as_ref().try_into().unwrap()));
        audit.drawn = drawn.iter().map(|shard| shard.0).collect();
        audit.nonce = nonce;
        audit.set_state(AuditState::Drawn);
        run.shards.iter_mut().for_each(|shard| shard.set_proof(ProofState::Verified));
        run.set_state(RunState::Verified);
        let drawn = (self.draw)(run);
        let shown = drawn.clone().unwrap_or_else(|_| {
            let mut run = self.run.borrow().clone();
            run.audit.as_mut().unwrap().set_state(AuditState::Unrevealed);
            run
        });
        self.run.send_replace(shown);
        drawn.map(Response::new)
    }

    async fn prove(&self, _: Request<ProveRequest>) -> Result<Response<Run>, Status> {
        unasked()
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<Run>, Status> {
        unasked()
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        unasked()
    }

    async fn bundle(&self, _: Request<BundleRequest>) -> Result<Response<ArtifactRef>, Status> {
        unasked()
    }

    async fn evidence(&self, _: Request<EvidenceRequest>) -> Result<Response<ArtifactRef>, Status> {
        unasked()
    }
}

#[tonic::async_trait]
impl Artifacts for Coordinator {
    type FetchStream = futures::stream::Empty<Result<Chunk, Status>>;

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        unasked()
    }

    async fn store(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Stored>, Status> {
        let (mut chunks, mut content) = (request.into_inner(), Vec::new());
        while let Some(chunk) = chunks.message().await? {
            content.extend_from_slice(&chunk.data);
        }
        let digest = convert::digest_bytes(Digest::of(&content));
        Ok(Response::new(Stored { digest, size: content.len() as u64 }))
    }
}

/// `shardproof infer` at such a coordinator: exit code and standard error.
async fn infer(draw: Draw) -> (Option<i32>, String) {
    let address = Coordinator::start(draw).await;
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input.json");
    std::fs::write(&input, serde_json::json!({ "input_data": [vec![0.5; 25]] }).to_string()).unwrap();
    let input = input.display().to_string();
    let arguments = strings(&["infer", "--input", &input, "--coordinator", &address]);
    let ended = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fails(&arguments)
    });
    ended.await.unwrap()
}

#[tokio::test]
async fn an_honest_draw_is_taken() {
    let (code, errors) = infer(Ok).await;
    assert_eq!(code, Some(0), "{errors}");
}

#[tokio::test]
async fn a_draw_that_spares_a_shard_is_found_out() {
    let (code, errors) = infer(|mut run| {
        run.audit.as_mut().unwrap().drawn.remove(1);
        run.shards[1].set_proof(ProofState::Unspecified);
        run.set_state(RunState::Partial);
        Ok(run)
    })
    .await;
    assert_eq!(code, Some(3), "{errors}");
    assert!(
        errors.contains("shards [0, 1] follow from receipts and nonce, shards [0] are said to be drawn"),
        "{errors}"
    );
}

#[tokio::test]
async fn receipts_that_were_exchanged_after_the_nonce_was_known_are_found_out() {
    let (code, errors) = infer(|mut run| {
        run.audit.as_mut().unwrap().receipts[1] = convert::digest_bytes(Digest::of(b"a luckier one"));
        Ok(run)
    })
    .await;
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.contains("it is over other receipts"), "{errors}");
}

#[tokio::test]
async fn a_nonce_that_is_not_taken_is_a_failure_and_said() {
    let (code, errors) = infer(|_| Err(Status::failed_precondition("too late, I say"))).await;
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("the run is not audited: too late, I say"), "{errors}");
}
