//! Strangers and workers that lie, over the same gRPC as everyone else.

use shardproof_common::card::ModelCard;
use shardproof_common::ids::{Digest, RunId};
use shardproof_common::receipt::{Identity, handed_digest};
use shardproof_common::tensor::encode_boundary;
use shardproof_proto::convert;
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as ToCoordinator;
use shardproof_proto::v1::{Failure, FailureStage, GetRequest, InferenceDone, Run, RunState};
use tonic::Code;

use crate::cluster::{Service, answer, assert_close, assert_state, samples};
use crate::rogue::{Rogue, card, deliver, deliver_signed, floats, shape, sign};

#[tokio::test]
async fn strangers_deliver_neither_answers_nor_activations() {
    let service = Service::start("mlp", &["FIRST", "LAST"], 2, &["--backend", "float"]);
    service.ready().await;
    let card = card(&service).await;
    let (input, expected) = &samples("mlp")[0];
    let run = service.infer(input).await;
    let id = convert::run_id(&run.run).unwrap();
    let stranger = Identity::generate();

    let (middle, last) = (floats(&shape(&card, 1), 1.0), floats(&shape(&card, 2), 1.0));
    let fake = sign(&stranger, &card, id, 1, &middle, &last);
    let refused =
        deliver(&service.coordinator.address, &card, id, 2, convert::pack(&fake).to_vec(), &last).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");

    let fresh = RunId::generate();
    let fake = sign(&stranger, &card, fresh, 0, &floats(&shape(&card, 0), 0.0), &middle);
    let refused = deliver(&service.workers[1].address, &card, fresh, 1, convert::pack(&fake).to_vec(), &middle)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");

    let start = floats(&shape(&card, 0), 0.0);
    let digest = Digest::of(&encode_boundary(&start));
    let signature = stranger.sign(handed_digest(fresh, card.body.plan.digest(), 0, 0, digest));
    let first = &service.workers[0].address;
    let refused = deliver_signed(first, &card, fresh, 0, Vec::new(), Some(&signature), &start).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");

    // Nor does a stranger hand over an inner boundary as only the owner may.
    let fake = sign(&stranger, &card, fresh, 0, &start, &middle);
    let digest = Digest::of(&encode_boundary(&middle));
    let signature = stranger.sign(handed_digest(fresh, card.body.plan.digest(), 1, 0, digest));
    let (second, receipt) = (&service.workers[1].address, convert::pack(&fake).to_vec());
    let refused = deliver_signed(second, &card, fresh, 1, receipt, Some(&signature), &middle).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");

    for worker in 0..2 {
        assert!(!service.spooled(worker, fresh).exists(), "worker {worker} spooled what a stranger sent");
    }
    let after = service.client().get(GetRequest { run: run.run }).await.unwrap().into_inner();
    assert_state(&after, RunState::Answered);
    assert_close(&answer(&after), expected, 1e-5);
}

#[tokio::test]
async fn a_spare_cannot_speak_for_a_shard_that_it_does_not_hold() {
    // The run waits: its first worker is the test's and passes nothing on.
    let service = Service::start("mlp", &["LAST"], 2, &["--backend", "float"]);
    let run = waiting_run(&service).await;
    let id = convert::run_id(&run.run).unwrap();
    let card = card(&service).await;
    let spare = Rogue::join(&service, "LAST", "127.0.0.1:9").await;
    let (middle, last) = (floats(&shape(&card, 1), 1.0), floats(&shape(&card, 2), 1.0));
    let receipt = spare.receipt(&card, id, 1, &middle, &last);
    let done = InferenceDone { run: run.run.clone(), shard: 1, receipt: convert::pack(&receipt), ..Default::default() };
    spare.say(ToCoordinator::InferenceDone(done)).await;
    let failure = Failure {
        run: run.run.clone(),
        shard: 0,
        stage: FailureStage::Inference.into(),
        reason: "framed".into(),
        ..Default::default()
    };
    spare.say(ToCoordinator::Failure(failure)).await;
    // Both messages have been looked at once both refusals are logged.
    service
        .until("both messages are refused", |_| {
            service.coordinator.logged().matches("the worker does not hold that shard").count() == 2
        })
        .await;
    let after = service.client().get(GetRequest { run: run.run }).await.unwrap().into_inner();
    assert_state(&after, RunState::Running);
    assert!(
        after.shards.iter().all(|shard| shard.worker.is_empty()),
        "a receipt was taken from a worker without the shard"
    );
}

/// A run that is stuck at a first worker which accepts the input and does nothing.
async fn waiting_run(service: &Service) -> Run {
    let sink = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = sink.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = sink.accept().await {
            held.push(stream);
        }
    });
    let mut first = Rogue::join(service, "FIRST", &address).await;
    let card = loop {
        if let FromCoordinator::Assignment(assignment) = first.next().await.unwrap() {
            break ModelCard::parse(&assignment.card).unwrap();
        }
    };
    let plan = convert::digest_bytes(card.body.plan.digest());
    first.say(ToCoordinator::Ready(shardproof_proto::v1::Ready { plan, shard: 0 })).await;
    service.ready().await;
    let run = service.submit(&samples("mlp")[0].0).await.unwrap();
    // The stream stays open for as long as the test runs, or the coordinator would take the worker for lost.
    tokio::spawn(async move { while first.next().await.is_ok() {} });
    run
}

#[tokio::test]
async fn words_of_workers_are_cut_and_escaped() {
    let service = Service::start("mlp", &[], 1, &["--backend", "float"]);
    service.until("serving", |status| status.stage == "serving").await;
    let mut drawing = Rogue::join(&service, "SOLO", "127.0.0.1:9\x1b]0;owned\x07:9").await;
    let refused = drawing.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(!refused.message().contains('\x1b'), "{refused:?}");

    // A worker that holds the shard may fail a run, in few words that draw nothing.
    let service = Service::start("mlp", &["FIRST"], 2, &["--backend", "float"]);
    let mut last = Rogue::join(&service, "LAST", "127.0.0.1:9").await;
    let plan = convert::digest_bytes(card(&service).await.body.plan.digest());
    last.say(ToCoordinator::Ready(shardproof_proto::v1::Ready { plan, shard: 1 })).await;
    service.ready().await;
    let run = service.submit(&samples("mlp")[0].0).await.unwrap();
    let failure = Failure {
        run: run.run.clone(),
        shard: 1,
        stage: FailureStage::Inference.into(),
        reason: "\x1b[2J".repeat(50_000),
        ..Default::default()
    };
    last.say(ToCoordinator::Failure(failure)).await;
    tokio::spawn(async move { while last.next().await.is_ok() {} });
    let failed = service.settled(&run).await;
    assert_state(&failed, RunState::Failed);
    assert!(failed.reason.len() < 10_000 && !failed.reason.contains('\x1b'), "{}", failed.reason);
}
