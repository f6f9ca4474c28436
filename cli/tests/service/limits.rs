//! Each limit by itself: what is too much is refused with the option that sets the limit, and nothing else is.

use std::time::Duration;

use shardproof_common::tensor::FloatTensor;
use shardproof_proto::transport::artifacts::TransferError;
use shardproof_proto::transport::{self, Channel};
use shardproof_proto::v1::artifacts_client::ArtifactsClient;
use shardproof_proto::v1::runs_client::RunsClient;
use shardproof_proto::v1::{Chunk, RunState, StatusRequest};
use tonic::{Code, Status};

use crate::cluster::{PATIENCE, Service, assert_state, samples};

fn assert_exhausted(refused: &Status, option: &str) {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains(option), "{refused:?}");
}

fn serve(limit: &[&str]) -> Service {
    Service::start("mlp", &[], 1, &[&["--backend", "float"], limit].concat())
}

async fn upload(service: &Service, bytes: usize) -> Result<(), Status> {
    match transport::artifacts::store(service.channel(), vec![7; bytes].into()).await {
        Ok(_) => Ok(()),
        Err(TransferError::Remote(status)) => Err(status),
        Err(other) => panic!("{other}"),
    }
}

/// Uploads that do not end by themselves, one at a time.
struct EndlessUpload {
    channel: Channel,
    chunks: tokio::sync::mpsc::Sender<Chunk>,
}

impl EndlessUpload {
    fn begin(channel: Channel) -> Self {
        let (chunks, taken) = tokio::sync::mpsc::channel(1);
        let mut client = ArtifactsClient::new(channel.clone());
        tokio::spawn(async move { client.store(tokio_stream::wrappers::ReceiverStream::new(taken)).await });
        Self { channel, chunks }
    }

    /// Sends a little more. An upload that was refused, because it came while another call was under way, is begun again.
    async fn go_on(&mut self) {
        if self.chunks.send(Chunk { data: vec![7; 10].into() }).await.is_err() {
            *self = Self::begin(self.channel.clone());
        }
    }
}

#[tokio::test]
async fn calls_a_second() {
    let service = serve(&["--client-rate", "1"]);
    let refused = loop {
        if let Err(refused) = service.client().status(StatusRequest {}).await {
            break refused;
        }
    };
    assert_exhausted(&refused, "--client-rate");
}

#[tokio::test]
async fn what_nothing_uses() {
    let service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float", "--max-unused", "128K"]);
    service.ready().await;
    // What runs use is not counted; anything else is, as 64 KiB at least.
    for (input, _) in &samples("mlp")[..4] {
        assert_state(&service.infer(input).await, RunState::Answered);
    }
    upload(&service, 1).await.unwrap();
    upload(&service, 2).await.unwrap();
    assert_exhausted(&upload(&service, 3).await.unwrap_err(), "--max-unused");
}

#[tokio::test]
async fn what_runs_use_is_not_counted_however_much_it_is() {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");
    let service = Service::start(tiny, &["FIRST", "LAST"], 2, &["--boundary", "public", "--max-unused", "512K"]);
    service.ready().await;
    // An input, a public boundary and two proofs of each run.
    for n in 1..=4u8 {
        let input = vec![FloatTensor { shape: vec![1, 4], values: vec![f32::from(n) / 8.0; 4] }];
        let run = service.infer(&input).await;
        assert_state(&run, RunState::Answered);
        service.prove(&run, &[]).await.unwrap();
        assert_state(&service.settled(&run).await, RunState::Verified);
    }
}

#[tokio::test]
async fn calls_under_way() {
    let service = serve(&["--client-calls", "1"]);
    let mut upload = EndlessUpload::begin(service.channel());
    let refused = loop {
        upload.go_on().await;
        if let Err(refused) = service.client().status(StatusRequest {}).await {
            break refused;
        }
    };
    assert_exhausted(&refused, "--client-calls");
    drop(upload);
    service.until("the call has ended", |_| true).await;
}

#[tokio::test]
async fn uploads_under_way() {
    let service = serve(&["--client-uploads", "1"]);
    let mut under_way = EndlessUpload::begin(service.channel());
    let refused = loop {
        under_way.go_on().await;
        if let Err(refused) = upload(&service, 10).await {
            break refused;
        }
    };
    assert_exhausted(&refused, "--client-uploads");
    service.client().status(StatusRequest {}).await.unwrap();
    drop(under_way);
}

#[tokio::test]
async fn bytes_of_an_upload() {
    let service = serve(&["--max-upload", "1000"]);
    upload(&service, 1000).await.unwrap();
    assert_exhausted(&upload(&service, 1001).await.unwrap_err(), "--max-upload");
}

#[tokio::test]
async fn bytes_of_a_message() {
    let service = serve(&["--max-message", "1088K"]);
    let mut client = ArtifactsClient::new(service.channel());
    let mut send = async |bytes: usize| {
        client.store(futures::stream::iter([Chunk { data: vec![7; bytes].into() }])).await.map(|_| ())
    };
    send(1087 << 10).await.unwrap();
    assert_exhausted(&send(1089 << 10).await.unwrap_err(), "--max-message");
}

#[tokio::test]
async fn calls_on_one_connection() {
    let service = serve(&["--max-streams", "1"]);
    let channel = service.channel();
    let mut client = RunsClient::new(channel.clone());
    client.status(StatusRequest {}).await.unwrap();
    let mut upload = EndlessUpload::begin(channel);
    // Taken by the connection, and so on its way before anything that is asked later.
    for _ in 0..3 {
        upload.go_on().await;
    }
    let mut waiting = std::pin::pin!(client.status(StatusRequest {}));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "a second call went through beside the first: {early:?}");
    service.status().await;
    drop(upload);
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn bytes_of_a_proof() {
    let service = Service::start("mlp", &["SOLO"], 1, &["--max-proof", "1000"]);
    service.ready().await;
    let run = service.infer(&samples("mlp")[0].0).await;
    service.prove(&run, &[]).await.unwrap();
    let run = service.settled(&run).await;
    assert_state(&run, RunState::Rejected);
    assert!(run.reason.contains("more than the 1000 that --max-proof allows"), "{}", run.reason);
}

#[tokio::test]
async fn bytes_of_a_workers_spool() {
    let mut service = Service::start("mlp", &[], 1, &[]);
    service.add_worker("SOLO", &["--spool-limit", "10"]);
    service.ready().await;
    let run = service.infer(&samples("mlp")[0].0).await;
    assert_state(&run, RunState::Failed);
    assert!(run.reason.contains("the 10 allowed: raise --spool-limit"), "{}", run.reason);
}

#[tokio::test]
async fn runs_under_way() {
    let mut service = serve(&["--max-runs", "1"]);
    service.add_worker("SOLO", &["--hold-at", "before-receipt"]);
    service.ready().await;
    let input = &samples("mlp")[0].0;
    service.submit(input).await.unwrap();
    assert_exhausted(&service.submit(input).await.unwrap_err(), "--max-runs");
}
