//! A coordinator in the test's own process, which serves to nobody: tests call its parts and play its workers.

use std::ops::Deref;
use std::sync::Arc;

use clap::Parser;
use shardproof_common::artifacts::Artifact;
use shardproof_common::backend::ProofVerifier;
use shardproof_common::ids::{Role, RunId, ShardIndex, UnixMillis};
use shardproof_common::plan::BackendKind;
use shardproof_common::process::DataDir;
use shardproof_common::receipt::{Identity, PublicKey, Receipt};
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::{FloatTensor, IntegerTensor, Tensor, TensorSpec, encode_boundary};
use shardproof_proto::transport::Party;
use shardproof_proto::v1::CoordinatorMessage;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::record::RunRecord;
use crate::registry::{Rank, SessionId};
use crate::setup::{self, Prepared};
use crate::{Coordinator, CoordinatorArgs, Parts, store};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: CoordinatorArgs,
}

/// What a worker is sent.
pub(crate) type Messages = mpsc::Receiver<Result<CoordinatorMessage, Status>>;

/// A coordinator that has set `mlp` up, with a data directory that vanishes with it.
pub(crate) struct Bench {
    coordinator: Arc<Coordinator>,
    prepared: Arc<Prepared>,
    _directory: TempDir,
}

impl Deref for Bench {
    type Target = Arc<Coordinator>;

    fn deref(&self) -> &Arc<Coordinator> {
        &self.coordinator
    }
}

impl Bench {
    /// Over `shards` shards, with the command line's flags.
    pub(crate) async fn new(shards: u32, flags: &[&str]) -> Self {
        let shutdown = CancellationToken::new();
        Self::with_verifiers(shards, flags, shutdown, Vec::new()).await
    }

    /// The same, with verifiers of the test's choice and the token that stops it.
    pub(crate) async fn with_verifiers(
        shards: u32,
        flags: &[&str],
        shutdown: CancellationToken,
        verifiers: Vec<Box<dyn ProofVerifier>>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shards = shards.to_string();
        let line = ["coordinator", "localhost", "0", &shards, "mlp"];
        let args = Cli::parse_from(line.iter().chain(flags)).args;
        let parts = Parts {
            data: &DataDir::open(directory.path()).unwrap(),
            transport: args.access.listen.transport(Party::Coordinator).unwrap(),
            planned: setup::plan(&args).unwrap(),
            store: store::testing::in_file(&directory.path().join("state.sqlite")).await,
            owner: Identity::generate(),
            advertised: "localhost:1".to_owned(),
            stopping: CancellationToken::new(),
            shutdown,
        };
        let coordinator = Arc::new(Coordinator::new(&args, parts, verifiers).await.unwrap());
        coordinator.clone().prepare(args).await;
        let prepared = coordinator.serving().unwrap();
        Self { coordinator, prepared, _directory: directory }
    }

    pub(crate) fn prepared(&self) -> &Arc<Prepared> {
        &self.prepared
    }

    /// A worker joins at an address where nobody listens; its session, and the messages that it is sent.
    pub(crate) fn join(&self, role: Role, worker: &Identity) -> (SessionId, Messages) {
        self.join_at("127.0.0.1:1".to_owned(), role, worker)
    }

    /// The same at another address.
    pub(crate) fn join_at(&self, address: String, role: Role, worker: &Identity) -> (SessionId, Messages) {
        let (stream, messages) = mpsc::channel(1024);
        let rank = self.workers.rank(&worker.public());
        let closed = CancellationToken::new();
        let (session, _) = self.cluster.join(worker.public(), role, address, rank, stream, closed).unwrap();
        (session, messages)
    }

    /// A worker joins and has its shard.
    pub(crate) fn join_ready(&self, role: Role, shard: u32, worker: &Identity) -> (SessionId, Messages) {
        let joined = self.join(role, worker);
        self.cluster.ready(joined.0, ShardIndex(shard));
        joined
    }

    /// Who holds a shard.
    pub(crate) fn holder(&self, shard: u32) -> Option<PublicKey> {
        self.cluster.with(|registry| registry.holder(ShardIndex(shard)).map(|(_, member)| member.key))
    }

    /// Tensors at a boundary, all of one value.
    pub(crate) fn tensors(&self, boundary: usize, value: i64) -> Vec<Tensor> {
        let shards = &self.prepared.card.body.shards;
        let specs = shards.get(boundary).map_or_else(|| &shards[boundary - 1].output, |shard| &shard.input);
        let float = shards[0].backend.kind == BackendKind::Float;
        let tensor = |TensorSpec { shape, scale, .. }: &TensorSpec| {
            let elements = shape.iter().product::<u64>() as usize;
            match float {
                true => Tensor::Float(FloatTensor { shape: shape.clone(), values: vec![value as f32; elements] }),
                false => Tensor::Integer(IntegerTensor {
                    shape: shape.clone(),
                    scale: *scale,
                    values: vec![value; elements],
                }),
            }
        };
        specs.iter().map(tensor).collect()
    }

    /// Stores tensors at a boundary, all of one value.
    pub(crate) async fn stored(&self, boundary: usize, value: i64) -> Artifact {
        self.artifacts.put(&encode_boundary(&self.tensors(boundary, value))).await.unwrap()
    }

    /// A run under way on an input whose elements are all `value`, after `change`.
    pub(crate) async fn run(&self, value: i64, change: impl FnOnce(&mut RunRecord)) -> RunId {
        let input = self.stored(0, value).await;
        let mut record = RunRecord::new(RunId::generate(), self.prepared.plan, self.prepared.shards.len(), input, 0);
        change(&mut record);
        self.runs.create(record.clone()).await.unwrap();
        record.id
    }

    /// The run as it is now.
    pub(crate) async fn record(&self, run: RunId) -> RunRecord {
        self.runs.get(run).await.unwrap().unwrap()
    }

    /// A receipt of public boundaries whose elements are all of one value each.
    pub(crate) fn receipt(&self, worker: &Identity, run: RunId, shard: u32, input: i64, output: i64) -> Receipt {
        let at = |boundary: u32, value| Boundary::public(&self.tensors(boundary as usize, value));
        let (body, index) = (&self.prepared.card.body, ShardIndex(shard));
        let entry = &body.shards[index.as_usize()];
        let statement = Statement {
            protocol: body.protocol,
            backend: entry.backend.clone(),
            model: body.plan.model,
            architecture: body.plan.architecture,
            plan: self.prepared.plan,
            shard: index,
            shards: body.plan.shards.len() as u32,
            run,
            input: at(shard, input),
            output: at(shard + 1, output),
            keys: entry.keys.digest(),
        };
        Receipt::sign(statement, 0, UnixMillis(u64::MAX), worker)
    }

    /// No failures and no refusals are on a worker's record.
    pub(crate) fn is_blameless(&self, worker: &Identity) -> bool {
        self.workers.rank(&worker.public()).failures == Rank::default().failures
    }
}
