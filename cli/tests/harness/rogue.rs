//! A worker under a test's control: it joins as any other and says what the test wants.

#![allow(dead_code, reason = "each test program uses a part")]

use std::time::Duration;

use shardproof_common::card::ModelCard;
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex, UnixMillis};
use shardproof_common::receipt::{Identity, Receipt, SignatureBytes};
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::{FloatTensor, Tensor, encode_boundary};
use shardproof_proto::convert;
use shardproof_proto::transport::activations::Hop;
use shardproof_proto::transport::{Party, Transport};
use shardproof_proto::v1::control_client::ControlClient;
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as ToCoordinator;
use shardproof_proto::v1::{ActivationHeader, Join, WorkerMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::cluster::Service;

/// A worker under the test's control.
pub(crate) struct Rogue {
    pub(crate) identity: Identity,
    sender: mpsc::Sender<WorkerMessage>,
    inbound: Streaming<shardproof_proto::v1::CoordinatorMessage>,
}

impl Rogue {
    pub(crate) async fn join(service: &Service, role: &str, address: &str) -> Self {
        Self::join_as(Identity::generate(), service, role, address).await
    }

    pub(crate) async fn join_as(identity: Identity, service: &Service, role: &str, address: &str) -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let channel = Transport::plaintext().lazy_channel(&service.coordinator.address, Party::Coordinator).unwrap();
        let inbound = ControlClient::new(channel).work(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut rogue = Self { identity, sender, inbound };
        let FromCoordinator::Challenge(challenge) = rogue.next().await.unwrap() else { panic!("expected a challenge") };
        let nonce = convert::digest("nonce", &challenge.nonce).unwrap();
        let key = rogue.identity.public();
        let signature = rogue.identity.sign(Digest::derive("shardproof 2 join", &(nonce, key)));
        rogue
            .say(ToCoordinator::Join(Join {
                role: role.to_owned(),
                address: address.to_owned(),
                key: key.as_bytes().to_vec().into(),
                version: "test".to_owned(),
                protocol: PROTOCOL_VERSION,
                signature: convert::pack(&signature),
            }))
            .await;
        rogue
    }

    pub(crate) async fn say(&self, message: ToCoordinator) {
        self.sender.send(WorkerMessage { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<FromCoordinator, Status> {
        Ok(self.inbound.message().await?.unwrap().message.unwrap())
    }

    /// A receipt for a statement of the rogue's choice.
    pub(crate) fn receipt(
        &self,
        service_card: &ModelCard,
        run: RunId,
        shard: u32,
        input: &[Tensor],
        output: &[Tensor],
    ) -> Receipt {
        sign(&self.identity, service_card, run, shard, input, output)
    }
}

pub(crate) fn sign(
    identity: &Identity,
    card: &ModelCard,
    run: RunId,
    shard: u32,
    input: &[Tensor],
    output: &[Tensor],
) -> Receipt {
    let (body, index) = (&card.body, ShardIndex(shard));
    let entry = &body.shards[index.as_usize()];
    let statement = Statement {
        protocol: body.protocol,
        backend: entry.backend.clone(),
        model: body.plan.model,
        architecture: body.plan.architecture,
        plan: body.plan.digest(),
        shard: index,
        shards: body.plan.shards.len() as u32,
        run,
        input: Boundary::public(input),
        output: Boundary::public(output),
        keys: entry.keys.digest(),
    };
    Receipt::sign(statement, 0, UnixMillis(u64::MAX), identity)
}

pub(crate) fn floats(shape: &[u64], value: f32) -> Vec<Tensor> {
    let elements = shape.iter().product::<u64>() as usize;
    vec![Tensor::Float(FloatTensor { shape: shape.to_vec(), values: vec![value; elements] })]
}

pub(crate) async fn card(service: &Service) -> ModelCard {
    service.until("serving", |status| status.stage == "serving").await;
    ModelCard::parse(&service.status().await.card).unwrap()
}

pub(crate) fn shape(card: &ModelCard, boundary: usize) -> Vec<u64> {
    card.body.plan.boundaries[boundary].tensors[0].shape.clone()
}

pub(crate) async fn deliver(
    address: &str,
    card: &ModelCard,
    run: RunId,
    boundary: u32,
    receipt: Vec<u8>,
    tensors: &[Tensor],
) -> Result<(), Status> {
    deliver_signed(address, card, run, boundary, receipt, None, tensors).await
}

/// As the owner's side hands a boundary over, with its signature or another.
pub(crate) async fn deliver_signed(
    address: &str,
    card: &ModelCard,
    run: RunId,
    boundary: u32,
    receipt: Vec<u8>,
    signature: Option<&SignatureBytes>,
    tensors: &[Tensor],
) -> Result<(), Status> {
    let header = ActivationHeader {
        run: convert::run_bytes(run),
        plan: convert::digest_bytes(card.body.plan.digest()),
        boundary,
        receipt: receipt.into(),
        owner_signature: signature.map(convert::pack).unwrap_or_default(),
        ..Default::default()
    };
    let encoding = encode_boundary(tensors).into();
    let channel = Transport::plaintext().lazy_channel(address, Party::Worker).unwrap();
    Hop::new(address, channel).deliver(header, encoding, Duration::from_secs(20)).await
}
