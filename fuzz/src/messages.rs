//! What arrives on a stream of a service, from the frames of the wire on. The first byte says which stream it is.
//!
//! The services themselves need a cluster around them; what is here is everything that they do with a message before they look
//! at their own state.

use futures::executor::block_on;
use http_body_util::Full;
use prost::Message;
use prost::bytes::Bytes;
use shardproof_common::receipt::{Receipt, SignatureBytes};
use shardproof_common::tensor::{decode_boundary, encode_boundary};
use shardproof_proto::transport::activations::{receive_encoding, receive_header};
use shardproof_proto::v1::activation::Part;
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as FromWorker;
use shardproof_proto::v1::{self, Activation, ActivationHeader, Chunk, CoordinatorMessage, WorkerMessage};
use shardproof_proto::{convert, transport};
use tonic::Streaming;
use tonic::codec::Codec;
use tonic_prost::ProstCodec;

use crate::honest::stages;

/// Bytes of the boundary that the receiver expects.
const EXPECTED_BYTES: u64 = 4096;

pub(crate) fn check(bytes: &[u8]) {
    let Some((&kind, body)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => block_on(from_worker(stream(body))),
        1 => block_on(from_coordinator(stream(body))),
        _ => block_on(activations(stream(body))),
    }
}

fn stream<T: Message + Default + 'static>(body: &[u8]) -> Streaming<T> {
    let decoder = ProstCodec::<T, T>::default().decoder();
    let body = Full::new(Bytes::copy_from_slice(body));
    Streaming::new_request(decoder, body, None, Some(transport::MAX_MESSAGE_BYTES))
}

async fn from_worker(mut stream: Streaming<WorkerMessage>) {
    while let Ok(Some(WorkerMessage { message: Some(message) })) = stream.message().await {
        match message {
            FromWorker::Join(join) => {
                let _key = convert::public_key(&join.key);
                let _signature = convert::unpack::<SignatureBytes>("signature", &join.signature);
            }
            FromWorker::Ready(ready) => drop(convert::digest("plan", &ready.plan)),
            FromWorker::InferenceDone(done) => {
                let _run = convert::run_id(&done.run);
                check_receipt(&done.receipt);
            }
            FromWorker::ProofDone(done) => {
                let _run = convert::run_id(&done.run);
                let _artifact = convert::artifact(done.proof.as_ref());
            }
            FromWorker::Failure(failure) => {
                let _run = convert::run_id(&failure.run);
                let _stage = failure.stage();
            }
            FromWorker::Progress(progress) => drop(convert::run_id(&progress.run)),
            _ => {}
        }
    }
}

async fn from_coordinator(mut stream: Streaming<CoordinatorMessage>) {
    while let Ok(Some(CoordinatorMessage { message: Some(message) })) = stream.message().await {
        match message {
            FromCoordinator::Challenge(challenge) => drop(convert::digest("nonce", &challenge.nonce)),
            FromCoordinator::Assignment(assignment) => {
                let _model = convert::artifact(assignment.model.as_ref());
                let _card = shardproof_common::card::ModelCard::parse(&assignment.card);
            }
            FromCoordinator::Route(route) => drop(convert::public_key(&route.previous)),
            FromCoordinator::Prove(job) => {
                job.members.iter().for_each(|member| drop(convert::run_id(&member.run)));
            }
            FromCoordinator::CancelJob(job) => drop(convert::run_id(&job.run)),
            _ => {}
        }
    }
}

/// A boundary is taken only whole, of the announced size and digest, and in its one encoding.
async fn activations(mut stream: Streaming<Activation>) {
    let Ok(header) = receive_header(&mut stream, EXPECTED_BYTES).await else { return };
    assert!(header.size <= EXPECTED_BYTES, "more is announced than the receiver takes");
    check_receipt(&header.receipt);
    let Ok(encoding) = receive_encoding(&mut stream, &header).await else { return };
    assert_eq!(encoding.len() as u64, header.size);
    assert_eq!(convert::digest("digest", &header.digest).ok(), Some(shardproof_common::ids::Digest::of(&encoding)));
    if let Ok(tensors) = decode_boundary(&encoding) {
        assert!(encode_boundary(&tensors) == encoding, "a boundary that has two encodings");
    }
}

fn check_receipt(packed: &[u8]) {
    if let Ok(receipt) = convert::unpack::<Receipt>("receipt", packed) {
        assert!(receipt.check().is_err() || crate::receipt::is_honest(&receipt), "nobody signed {receipt:?}");
    }
}

/// A message in its frame: not compressed, its length, its bytes.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0], &(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let bytes = |value: u8, count: usize| Bytes::from(vec![value; count]);
    let mut seeds = Vec::new();
    for draft in stages().map(|stage| &stage.runs[0]) {
        let receipt = convert::pack(&draft.bundle.shards[0].receipt);
        let run = bytes(1, 16);
        let from_worker = [
            FromWorker::Join(v1::Join { role: "SOLO".to_owned(), key: bytes(2, 32), ..Default::default() }),
            FromWorker::InferenceDone(v1::InferenceDone { run, receipt: receipt.clone(), ..Default::default() }),
            FromWorker::Failure(v1::Failure { run: bytes(1, 16), reason: "because".to_owned(), ..Default::default() }),
        ];
        let frames = from_worker.map(|message| framed(&WorkerMessage { message: Some(message) }));
        seeds.push([&[0], &frames.concat()[..]].concat());
        let card = draft.card.to_json().into_bytes().into();
        let assignment = FromCoordinator::Assignment(v1::Assignment { card, shard: 1, ..Default::default() });
        seeds.push([&[1], &framed(&CoordinatorMessage { message: Some(assignment) })[..]].concat());

        let encoding = Bytes::copy_from_slice(draft.bundle.boundaries[0].as_deref().unwrap_or_default());
        let (size, digest) = (encoding.len() as u64, shardproof_common::ids::Digest::of(&encoding));
        let digest = convert::digest_bytes(digest);
        let header = ActivationHeader { run: bytes(1, 16), size, digest, receipt, ..Default::default() };
        let parts = [Part::Header(header), Part::Chunk(encoding)];
        let frames = parts.map(|part| framed(&Activation { part: Some(part) }));
        seeds.push([&[2], &frames.concat()[..]].concat());
    }
    seeds.push([&[3], &framed(&Chunk::default())[..]].concat());
    seeds
}
