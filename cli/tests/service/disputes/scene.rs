//! A chain in which the test stands in the place of one worker, or of the network between two.

use std::process::Command;
use std::time::Duration;

use futures::StreamExt;
use shardproof_common::artifacts::Artifact;
use shardproof_common::backend::Inference;
use shardproof_common::ids::{Digest, RunId};
use shardproof_common::keyfile;
use shardproof_common::receipt::{Identity, PublicKey, Receipt, SignatureBytes, attempt_digest};
use shardproof_common::statement::Boundary;
use shardproof_common::tensor::{FloatTensor, Tensor, encode_boundary};
use shardproof_proto::convert;
use shardproof_proto::transport::activations::Hop;
use shardproof_proto::transport::{self, Channel, Party, Transport};
use shardproof_proto::v1::activation::Part;
use shardproof_proto::v1::activations_client::ActivationsClient;
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as ToCoordinator;
use shardproof_proto::v1::{
    Activation, ActivationHeader, Failure, FailureStage, InferenceDone, Run, RunState, ShowOutput, Shown,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::cluster::{PATIENCE, Service, assert_state};
use crate::held::{Delivery, Held, Inbox, one_unit_off};
use crate::rogue::Rogue;

pub(super) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");

/// A worker's `--queue` where nothing else is said.
const QUEUE: usize = 64;

pub(super) fn input() -> Vec<FloatTensor> {
    vec![FloatTensor { shape: vec![1, 4], values: vec![0.5, -0.25, 0.75, 1.0] }]
}

/// A chain of three shards in which the test is the worker of one.
pub(super) struct Scene {
    pub(super) service: Service,
    pub(super) rogue: Rogue,
    pub(super) held: Held,
    pub(super) inbox: Inbox,
    /// Where its outputs go.
    next: String,
}

impl Scene {
    /// The rogue takes `shard`; real workers the others.
    pub(super) async fn with_rogue_at(shard: u32, extra: &[&str]) -> Self {
        let roles = ["FIRST", "MIDDLE", "LAST"];
        let others: Vec<&str> = (0..3).filter(|&index| index != shard).map(|index| roles[index as usize]).collect();
        let service = Service::start(TINY, &others, 3, extra);
        let inbox = Inbox::open().await;
        let mut rogue = Rogue::join(&service, roles[shard as usize], &inbox.address).await;
        let held = Held::take(&service, &mut rogue).await;
        service.ready().await;
        let next = match shard {
            // Real workers are numbered without the rogue.
            0 => service.workers[0].address.clone(),
            1 => service.workers[1].address.clone(),
            _ => service.coordinator.address.clone(),
        };
        Self { service, rogue, held, inbox, next }
    }

    pub(super) fn key(&self) -> PublicKey {
        self.rogue.identity.public()
    }

    /// Starts a run and takes what the rogue is sent of it.
    pub(super) async fn run(&mut self) -> (Run, Delivery) {
        let run = self.service.submit(&input()).await.unwrap();
        let delivery = self.inbox.next().await;
        assert_eq!(delivery.run(), convert::run_id(&run.run).unwrap());
        (run, delivery)
    }

    /// Starts a run and accepts what the rogue is sent of it; with what an honest worker would make of that.
    pub(super) async fn take_run(&mut self) -> (Run, RunId, Inference) {
        let (run, delivery) = self.run().await;
        let (id, honest) = (delivery.run(), self.held.infer(&delivery.tensors()));
        delivery.reply(Ok(()));
        (run, id, honest)
    }

    pub(super) fn sign(&self, run: RunId, attempt: u32, input: Boundary, output: Boundary) -> Receipt {
        self.held.receipt(&self.rogue.identity, (run, attempt), input, output)
    }

    pub(super) async fn say_done(&self, receipt: &Receipt, upstream: Option<&Receipt>) {
        let done = InferenceDone {
            run: convert::run_bytes(receipt.statement.run),
            shard: self.held.shard,
            receipt: convert::pack(receipt),
            upstream: upstream.map(convert::pack).unwrap_or_default(),
            ..Default::default()
        };
        self.rogue.say(ToCoordinator::InferenceDone(done)).await;
    }

    /// Passes tensors on with a receipt, as the worker of the rogue's shard does, in an attempt that the coordinator began.
    pub(super) async fn pass_on(&self, receipt: &Receipt, tensors: &[Tensor]) -> Result<(), Status> {
        let begun = self.begin(receipt.statement.run, receipt.attempt);
        self.pass_on_as(receipt, Some(&begun), tensors).await
    }

    /// The same with another signature over the attempt, or none.
    pub(super) async fn pass_on_as(
        &self,
        receipt: &Receipt,
        begun: Option<&SignatureBytes>,
        tensors: &[Tensor],
    ) -> Result<(), Status> {
        let (header, encoding) = (self.header(receipt, begun), encode_boundary(tensors).into());
        Hop::new(&self.next, self.way_to_next()).deliver(header, encoding, Duration::from_secs(20)).await
    }

    fn way_to_next(&self) -> Channel {
        Transport::plaintext().lazy_channel(&self.next, Party::Worker).unwrap()
    }

    fn header(&self, receipt: &Receipt, begun: Option<&SignatureBytes>) -> ActivationHeader {
        ActivationHeader {
            run: convert::run_bytes(receipt.statement.run),
            plan: convert::digest_bytes(receipt.statement.plan),
            boundary: self.held.shard + 1,
            attempt: receipt.attempt,
            receipt: convert::pack(receipt),
            attempt_signature: begun.map(convert::pack).unwrap_or_default(),
            ..Default::default()
        }
    }

    /// What the coordinator signs when it begins an attempt.
    pub(super) fn begin(&self, run: RunId, attempt: u32) -> SignatureBytes {
        let key = self.service.directory.path().join("coordinator/owner.key");
        let owner: Identity = keyfile::load_or_create(&key).unwrap();
        owner.sign(attempt_digest(run, self.held.card.body.plan.digest(), attempt))
    }

    /// Takes every place in the queue of the next worker with deliveries that take minutes, for as long as they are kept.
    pub(super) async fn fill_queue(&self, inference: &Inference) -> JoinSet<()> {
        let encoding = encode_boundary(&inference.output);
        let mut deliveries = JoinSet::new();
        let receipt =
            || self.sign(RunId::generate(), 0, inference.input_boundary.clone(), inference.output_boundary.clone());
        for _ in 0..QUEUE {
            let receipt = receipt();
            let header = ActivationHeader {
                size: encoding.len() as u64,
                digest: convert::digest_bytes(Digest::of(&encoding)),
                deadline_ms: 600_000,
                ..self.header(&receipt, Some(&self.begin(receipt.statement.run, 0)))
            };
            let bytes: Vec<Part> = encoding.iter().map(|&byte| Part::Chunk(vec![byte].into())).collect();
            let trickle = futures::stream::iter([Part::Header(header)])
                .chain(tokio_stream::StreamExt::throttle(futures::stream::iter(bytes), Duration::from_secs(2)));
            let parts = trickle.map(|part| Activation { part: Some(part) });
            let channel = self.way_to_next();
            deliveries.spawn(async move { drop(ActivationsClient::new(channel).deliver(parts).await) });
        }
        loop {
            let receipt = receipt();
            let header = self.header(&receipt, Some(&self.begin(receipt.statement.run, 0)));
            let (encoding, deadline) = (encoding.clone().into(), Duration::from_secs(1));
            match Hop::new(&self.next, self.way_to_next()).deliver(header, encoding, deadline).await {
                Ok(()) => {}
                Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => return deliveries,
                Err(status) => panic!("{status:?}"),
            }
        }
    }

    /// Says that the next worker finds fault with what it was sent.
    pub(super) async fn say_refused(&self, run: RunId) {
        let stage = FailureStage::Refused.into();
        let (run, shard, reason) = (convert::run_bytes(run), self.held.shard, "it does not fit".to_owned());
        self.rogue.say(ToCoordinator::Failure(Failure { run, shard, stage, reason, ..Default::default() })).await;
    }

    pub(super) async fn complain(&self, run: RunId, attempt: u32, upstream: &Receipt) {
        let failure = Failure {
            run: convert::run_bytes(run),
            shard: self.held.shard,
            attempt: attempt.into(),
            stage: FailureStage::Link.into(),
            reason: "it does not fit".to_owned(),
            upstream: convert::pack(upstream),
        };
        self.rogue.say(ToCoordinator::Failure(failure)).await;
    }

    pub(super) async fn asked_to_show(&mut self) -> ShowOutput {
        loop {
            if let FromCoordinator::ShowOutput(request) = self.rogue.next().await.unwrap() {
                return request;
            }
        }
    }

    /// Stores tensors with the coordinator.
    pub(super) async fn store(&self, tensors: &[Tensor]) -> Artifact {
        let encoding = encode_boundary(tensors).into();
        transport::artifacts::store(self.service.channel(), encoding).await.unwrap()
    }

    pub(super) async fn show(&self, request: ShowOutput, tensors: &[Tensor]) {
        let stored = self.store(tensors).await;
        let (run, shard) = (request.run, request.shard);
        let output = Some(convert::artifact_ref(stored));
        self.rogue.say(ToCoordinator::Shown(Shown { run, shard, output, refusal: String::new() })).await;
    }

    /// The run ends rejected in the rogue's name, for a reason with these words.
    pub(super) async fn rejected(&self, run: &Run, reason: &str) -> Run {
        let run = self.service.settled(run).await;
        assert_state(&run, RunState::Rejected);
        assert!(run.reason.contains(reason), "{}", run.reason);
        assert_eq!((run.blamed_shard, run.blamed_worker.clone()), (Some(self.held.shard), self.key().to_string()));
        run
    }

    /// `shardproof ARGS` against the coordinator: exit code and all that it says.
    pub(super) fn shardproof(&self, args: &[&str]) -> (Option<i32>, String) {
        shardproof(&[args, &["--coordinator", &self.service.coordinator.address]].concat())
    }

    /// How often the rogue has failed a check, refused what it owed, and been convicted.
    pub(super) fn record(&self) -> (u64, u64, u64) {
        let (code, said) = self.shardproof(&["--json", "workers"]);
        assert_eq!(code, Some(0), "{said}");
        let all: serde_json::Value = serde_json::from_str(&said).unwrap();
        let workers = all["workers"].as_array().unwrap();
        let own = workers.iter().find(|worker| worker["key"] == self.key().to_string()).unwrap();
        let count = |what: &str| own[what].as_u64().unwrap();
        (count("failed"), count("refused"), count("convicted"))
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.service.directory.path().join(name).display().to_string()
    }

    /// The evidence convicts the rogue, whoever checks it; changed, it convicts nobody.
    pub(super) fn assert_convicted(&self, run: &Run, words: &str, flags: &[&str]) {
        assert!(run.evidence, "no evidence: {}", self.service.coordinator.logged());
        let id = convert::run_id(&run.run).unwrap().to_string();
        let (file, card) = (self.file("evidence"), self.file("card"));
        let fetched = self.shardproof(&[&["evidence", &id, "--out", &file], flags].concat());
        assert_eq!(fetched.0, Some(0), "{}", fetched.1);
        let fetched = self.shardproof(&["card", "fetch", "--out", &card]);
        assert_eq!(fetched.0, Some(0), "{}", fetched.1);
        let (code, said) = shardproof(&["verify", "--evidence", &file, "--card", &card, "--model", TINY]);
        assert_eq!(code, Some(0), "{said}");
        let convicted = format!("CONVICTED: worker {} {words} (run {id}, shard {})", self.key(), self.held.shard);
        assert!(said.contains(&convicted), "{said}");

        let mut bytes = std::fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (code, said) = shardproof(&["verify", "--evidence", &file, "--card", &card, "--model", TINY]);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("PROVES NOTHING"), "{said}");
    }
}

pub(super) fn shardproof(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_shardproof")).args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// Two honest workers, and a network between them that is the test's. It changes the first boundary that it carries, and the
/// digest that goes with it or not.
pub(super) async fn with_network(changes_digest: bool) -> (Service, Run) {
    let mut service = Service::start(TINY, &["FIRST", "LAST"], 3, &[]);
    let mut network = Inbox::open().await;
    service.add_worker("MIDDLE", &["--advertise", &network.address]);
    service.ready().await;
    let run = service.submit(&input()).await.unwrap();
    let target = service.workers[2].address.clone();
    let mut garbled = false;
    let carried = async {
        loop {
            let delivery = network.next().await;
            let first = !std::mem::replace(&mut garbled, true);
            let carried = if first { one_unit_off(&delivery.tensors()) } else { delivery.tensors() };
            let (mut header, encoding) = (delivery.header.clone(), encode_boundary(&carried));
            if changes_digest {
                header.digest = convert::digest_bytes(Digest::of(&encoding));
            }
            let parts =
                [Part::Header(header), Part::Chunk(encoding.into())].map(|part| Activation { part: Some(part) });
            let channel = Transport::plaintext().lazy_channel(&target, Party::Worker).unwrap();
            let answer = ActivationsClient::new(channel).deliver(futures::stream::iter(parts)).await;
            delivery.reply(answer.map(drop));
        }
    };
    let run = tokio::select! {
        () = carried => unreachable!("the network carries for as long as the run takes"),
        run = tokio::time::timeout(PATIENCE, service.settled(&run)) => run.unwrap(),
    };
    (service, run)
}
