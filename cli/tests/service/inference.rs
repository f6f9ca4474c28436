//! Runs without proofs, in float mode.

use shardproof_proto::transport::{Party, Transport};
use shardproof_proto::v1::{ListRequest, RunState};
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
