//! A shard in the test's own process: what a worker holds, and the inbox that its neighbours and the coordinator deliver to.

#![allow(dead_code, reason = "each test program uses a part")]

use shardproof_common::artifacts::ArtifactStore;
use shardproof_common::backend::{Backend, Inference, Job, ShardFiles};
use shardproof_common::card::ModelCard;
use shardproof_common::ids::{RunId, ShardIndex, UnixMillis};
use shardproof_common::receipt::{Identity, Receipt};
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::{Tensor, decode_boundary};
use shardproof_gkr_service::GkrBackend;
use shardproof_proto::transport::activations;
use shardproof_proto::v1::activations_server::{Activations, ActivationsServer};
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as ToCoordinator;
use shardproof_proto::v1::{Activation, ActivationHeader, Assignment, Delivered, Ready};
use shardproof_proto::{convert, transport};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::Service;
use crate::rogue::Rogue;

/// Largest boundary that a test delivers, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A shard with all that it takes to run it.
pub(crate) struct Held {
    pub(crate) card: ModelCard,
    pub(crate) shard: u32,
    files: ShardFiles,
    directory: TempDir,
}

impl Held {
    /// Waits for the rogue's assignment, fetches what it names, and reports the shard as ready.
    pub(crate) async fn take(service: &Service, rogue: &mut Rogue) -> Self {
        let assignment = loop {
            if let FromCoordinator::Assignment(assignment) = rogue.next().await.unwrap() {
                break assignment;
            }
        };
        let held = Self::fetch(service, &assignment).await;
        let plan = convert::digest_bytes(held.card.body.plan.digest());
        rogue.say(ToCoordinator::Ready(Ready { plan, shard: held.shard })).await;
        held
    }

    async fn fetch(service: &Service, assignment: &Assignment) -> Self {
        let card = ModelCard::parse(&assignment.card).unwrap();
        let index = ShardIndex(assignment.shard);
        let directory = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(directory.path()).unwrap();
        let channel = service.channel();
        let mut files = std::collections::BTreeMap::new();
        for file in &assignment.files {
            let artifact = convert::artifact(file.artifact.as_ref()).unwrap();
            let path = transport::artifacts::fetch(channel.clone(), &store, artifact).await.unwrap();
            files.insert(file.name.clone(), path);
        }
        let (input, output) = card.body.plan.boundaries_of(index).unwrap();
        let files = ShardFiles {
            shard: index,
            card: card.body.shards[index.as_usize()].clone(),
            options: card.body.plan.shards[index.as_usize()].backend.clone(),
            input_mode: input.mode,
            output_mode: output.mode,
            model: directory.path().join("none"),
            files,
        };
        Self { shard: assignment.shard, card, files, directory }
    }

    /// What an honest worker makes of an input.
    pub(crate) fn infer(&self, input: &[Tensor]) -> Inference {
        let cancel = CancellationToken::new();
        let limits = Default::default();
        let job = Job { directory: self.directory.path(), limits, cancel: &cancel, progress: &|_| {} };
        GkrBackend::new().infer(&self.files, input, &job).unwrap()
    }

    /// The boundary of output tensors that need not be this shard's.
    pub(crate) fn output_boundary(&self, tensors: &[Tensor]) -> Boundary {
        GkrBackend::new().output_boundary(self.files.output_mode, tensors).unwrap()
    }

    /// A receipt in this shard's place for whatever the rogue says.
    pub(crate) fn receipt(
        &self,
        identity: &Identity,
        (run, attempt): (RunId, u32),
        input: Boundary,
        output: Boundary,
    ) -> Receipt {
        let body = &self.card.body;
        let statement = Statement {
            protocol: body.protocol,
            backend: self.files.card.backend.clone(),
            model: body.plan.model,
            architecture: body.plan.architecture,
            plan: body.plan.digest(),
            shard: ShardIndex(self.shard),
            shards: body.plan.shards.len() as u32,
            run,
            input,
            output,
            keys: self.files.card.keys.digest(),
        };
        Receipt::sign(statement, attempt, UnixMillis(u64::MAX), identity)
    }
}

/// One integer is one unit off.
pub(crate) fn one_unit_off(tensors: &[Tensor]) -> Vec<Tensor> {
    let mut tensors = tensors.to_vec();
    let Tensor::Integer(tensor) = &mut tensors[0] else { panic!("integers") };
    tensor.values[0] += 1;
    tensors
}

/// What arrived, and the sender that waits.
pub(crate) struct Delivery {
    pub(crate) header: ActivationHeader,
    pub(crate) encoding: Vec<u8>,
    reply: oneshot::Sender<Result<(), Status>>,
}

impl Delivery {
    pub(crate) fn run(&self) -> RunId {
        convert::run_id(&self.header.run).unwrap()
    }

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        decode_boundary(&self.encoding).unwrap()
    }

    /// The receipt that came with it.
    pub(crate) fn receipt(&self) -> Receipt {
        convert::unpack("receipt", &self.header.receipt).unwrap()
    }

    pub(crate) fn reply(self, answer: Result<(), Status>) {
        self.reply.send(answer).unwrap();
    }
}

/// Takes activations; ends with the test.
pub(crate) struct Inbox {
    pub(crate) address: String,
    deliveries: mpsc::Receiver<Delivery>,
}

struct Server(mpsc::Sender<Delivery>);

#[tonic::async_trait]
impl Activations for Server {
    async fn deliver(&self, request: Request<Streaming<Activation>>) -> Result<Response<Delivered>, Status> {
        let mut stream = request.into_inner();
        let header = activations::receive_header(&mut stream, MAX_BYTES).await?;
        let encoding = activations::receive_encoding(&mut stream, &header).await?;
        let (reply, answer) = oneshot::channel();
        let gone = |_| Status::unavailable("the test has ended");
        self.0
            .send(Delivery { header, encoding, reply })
            .await
            .map_err(|_| Status::unavailable("the test has ended"))?;
        answer.await.map_err(gone)??;
        Ok(Response::new(Delivered {}))
    }
}

impl Inbox {
    pub(crate) async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, deliveries) = mpsc::channel(4);
        let server = tonic::transport::Server::builder().add_service(ActivationsServer::new(Server(sender)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, deliveries }
    }

    pub(crate) async fn next(&mut self) -> Delivery {
        self.deliveries.recv().await.unwrap()
    }
}
