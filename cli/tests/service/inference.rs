//! Runs without proofs, in float mode.

use shardproof_common::tensor::FloatTensor;
use shardproof_proto::convert;
use shardproof_proto::transport::{Party, Transport};
use shardproof_proto::v1::{GetRequest, ListRequest, RunState};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::cluster::{Service, answer, assert_close, assert_state, samples};

#[tokio::test]
async fn workers_started_in_any_order_answer_like_the_whole_model() {
    let service = Service::start("mlp", &["LAST", "MIDDLE", "FIRST", "MIDDLE"], 4, &["--backend", "float"]);
    service.ready().await;
    for (input, expected) in samples("mlp") {
        let run = service.infer(&input).await;
        assert_state(&run, RunState::Answered);
        assert_close(&answer(&run), &expected, 1e-5);
    }
}

#[tokio::test]
async fn many_runs_in_flight_each_get_their_own_answer() {
    let service = Service::start("mlp", &["FIRST", "MIDDLE", "LAST"], 3, &["--backend", "float"]);
    service.ready().await;
    let samples = samples("mlp");
    let runs = (0..60).map(|i| {
        let (service, (input, expected)) = (&service, &samples[i % samples.len()]);
        async move { assert_close(&answer(&service.infer(input).await), expected, 1e-5) }
    });
    futures::future::join_all(runs).await;
    let listed = service.client().list(ListRequest { limit: 100 }).await.unwrap().into_inner().runs;
    assert_eq!(listed.len(), 60);
    assert!(listed.iter().all(|run| run.state() == RunState::Answered));
}

/// The ONNX file of a `Relu` of so many values.
fn relu(values: u64) -> Vec<u8> {
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 128 {
            bytes.push(value as u8 | 128);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let number = |tag: u8, value: u64| [vec![tag << 3], varint(value)].concat();
    let nested =
        |tag: u8, content: &[u8]| [vec![tag << 3 | 2], varint(content.len() as u64), content.to_vec()].concat();
    let dimension = |extent: u64| nested(1, &number(1, extent));
    let shape = nested(2, &[dimension(1), dimension(values)].concat());
    let tensor = nested(2, &nested(1, &[number(1, 1), shape].concat()));
    let value = |name: &str| [nested(1, name.as_bytes()), tensor.clone()].concat();
    let node = [nested(1, b"x"), nested(2, b"y"), nested(3, b"relu"), nested(4, b"Relu")].concat();
    let graph = [nested(1, &node), nested(2, b"g"), nested(11, &value("x")), nested(12, &value("y"))].concat();
    [number(1, 8), nested(7, &graph), nested(8, &number(2, 13))].concat()
}

#[tokio::test]
async fn answers_come_with_their_run_while_they_are_small_and_in_no_list() {
    let directory = tempfile::tempdir().unwrap();
    for (values, comes_along) in [(100, true), (20_000, false)] {
        let model = directory.path().join(format!("{values}.onnx"));
        std::fs::write(&model, relu(values)).unwrap();
        let service = Service::start(model.to_str().unwrap(), &["SOLO"], 1, &["--backend", "float"]);
        service.ready().await;
        let input = vec![FloatTensor { shape: vec![1, values], values: (0..values).map(|i| i as f32).collect() }];
        let expected: Vec<f64> = (0..values).map(|i| i as f64).collect();
        let run = service.infer(&input).await;
        assert_eq!(answer(&run), expected);

        let shown = service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner();
        assert_eq!(!shown.answer.is_empty(), comes_along);
        let listed = service.client().list(ListRequest { limit: 1 }).await.unwrap().into_inner().runs.remove(0);
        assert!(listed.answer.is_empty() && listed.answer_artifact == shown.answer_artifact);
        assert_eq!(listed.answer_artifact.unwrap().size, run.answer.len() as u64);

        let id = convert::run_id(&run.run).unwrap().to_string();
        let watched = std::process::Command::new(env!("CARGO_BIN_EXE_shardproof"))
            .args(["--json", "watch", &id, "--coordinator", &service.coordinator.address])
            .output()
            .unwrap();
        let watched: serde_json::Value = serde_json::from_slice(&watched.stdout).unwrap();
        assert_eq!(watched["outputs"], serde_json::json!(expected));
    }
}

#[tokio::test]
async fn one_worker_alone_serves_a_convolution() {
    let service = Service::start("cnn", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let (input, expected) = &samples("cnn")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-4);
}

#[tokio::test]
async fn residual_boundaries_pass_through_twelve_workers() {
    let mut roles = vec!["MIDDLE"; 12];
    (roles[0], roles[11]) = ("FIRST", "LAST");
    let service = Service::start("attention", &roles, 12, &["--backend", "float"]);
    service.ready().await;
    let (input, expected) = &samples("attention")[0];
    assert_close(&answer(&service.infer(input).await), expected, 1e-4);
}

#[tokio::test]
async fn both_programs_report_their_health_and_describe_themselves() {
    let mut service = Service::start("mlp", &[], 1, &["--backend", "float"]);
    service.add_worker("SOLO", &[]);
    service.ready().await;
    for (address, name) in [
        (&service.coordinator.address, "shardproof.v1.Runs"),
        (&service.workers[0].address, "shardproof.v1.Activations"),
    ] {
        let channel = Transport::plaintext().lazy_channel(address, Party::Coordinator).unwrap();
        let request = HealthCheckRequest { service: name.to_owned() };
        let health = HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving, "{name}");

        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileContainingSymbol(name.to_owned())),
        };
        let requests = futures::stream::iter([request]);
        let mut answers =
            ServerReflectionClient::new(channel).server_reflection_info(requests).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn float_mode_neither_proves_nor_bundles() {
    let service = Service::start("mlp", &["SOLO"], 1, &["--backend", "float"]);
    service.ready().await;
    let run = service.infer(&samples("mlp")[0].0).await;
    let refused = service.prove(&run, &[]).await.unwrap_err();
    assert!(refused.message().contains("float mode proves nothing"), "{refused:?}");
    let request = shardproof_proto::v1::BundleRequest { run: run.run };
    let refused = service.client().bundle(request).await.unwrap_err();
    assert!(refused.message().contains("no bundle"), "{refused:?}");
}
