//! Neighbours at odds: who lied is found out, a liar that signed its lie is convicted, and an honest worker never is.

mod scene;

use std::path::PathBuf;
use std::time::Duration;

use shardproof_common::ids::RunId;
use shardproof_common::receipt::{Identity, attempt_digest};
use shardproof_common::statement::Boundary;
use shardproof_common::tensor::Tensor;
use shardproof_proto::convert;
use shardproof_proto::transport;
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as ToCoordinator;
use shardproof_proto::v1::{DisputeStage, ProofDone, RunState, ShowOutput, Shown, StatusResponse};
use tonic::{Code, Status};

use crate::cluster::{assert_state, verify_bundle};
use crate::held::one_unit_off;
use crate::rogue::Rogue;
use scene::{Scene, input, shardproof, with_network};

#[tokio::test]
async fn a_worker_that_passes_on_something_else_than_it_signed_for_is_named() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (run, id, honest) = scene.take_run().await;
    let receipt = scene.sign(id, 0, honest.input_boundary, honest.output_boundary);
    scene.say_done(&receipt, None).await;
    let other = one_unit_off(&honest.output);
    scene.pass_on(&receipt, &other).await.unwrap();
    let request = scene.asked_to_show().await;
    scene.show(request, &other).await;
    let run = scene.rejected(&run, "its worker shows another output than it signed for").await;
    // What it signed was right, so nothing convicts it.
    assert!(!run.evidence);
    assert_eq!(run.dispute.unwrap().stage(), DisputeStage::Settled);
    let (code, said) = scene.shardproof(&["evidence", &id.to_string()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has no evidence against a worker"), "{said}");
}

#[tokio::test]
async fn a_worker_that_signed_for_a_wrong_output_is_convicted_by_running_its_shard_again() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (run, id, honest) = scene.take_run().await;
    let wrong = scene.held.output_boundary(&one_unit_off(&honest.output));
    let receipt = scene.sign(id, 0, honest.input_boundary, wrong);
    scene.say_done(&receipt, None).await;
    scene.pass_on(&receipt, &honest.output).await.unwrap();
    let request = scene.asked_to_show().await;
    scene.show(request, &honest.output).await;
    let run = scene.rejected(&run, "its worker shows another output than it signed for").await;
    // The shard is left out of what is fetched, and made again from the model; the owner may have it as it is.
    let words = "signed another output than the registered shard gives";
    scene.assert_convicted(&run, words, &[]);
    scene.assert_convicted(&run, words, &["--with-shard"]);
    assert_eq!(scene.record(), (1, 0, 1));
}

#[tokio::test]
async fn a_worker_that_does_not_show_what_it_signed_for_is_named_and_not_convicted() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (run, id, honest) = scene.take_run().await;
    let receipt = scene.sign(id, 0, honest.input_boundary, honest.output_boundary);
    scene.say_done(&receipt, None).await;
    scene.pass_on(&receipt, &one_unit_off(&honest.output)).await.unwrap();
    let ShowOutput { run: asked, shard } = scene.asked_to_show().await;
    let refusal = "the spool has expired".to_owned();
    scene.rogue.say(ToCoordinator::Shown(Shown { run: asked, shard, output: None, refusal })).await;
    let run = scene.rejected(&run, "does not show the output that it signed for: it says: the spool has expired").await;
    assert!(!run.evidence);
    assert_eq!(scene.record(), (0, 1, 0));
}

#[tokio::test]
async fn public_boundaries_are_compared_as_they_are() {
    let mut scene = Scene::with_rogue_at(0, &["--boundary", "public"]).await;
    let (run, id, honest) = scene.take_run().await;
    let receipt = scene.sign(id, 0, honest.input_boundary, honest.output_boundary);
    scene.store(&honest.output).await;
    scene.say_done(&receipt, None).await;
    let other = one_unit_off(&honest.output);
    let refused = scene.pass_on(&receipt, &other).await.unwrap_err();
    assert!(refused.message().contains("the receipt names other tensors"), "{refused:?}");
    // The coordinator has what was signed for, and passes it on itself.
    assert_state(&scene.service.settled(&run).await, RunState::Answered);
}

#[tokio::test]
async fn a_public_boundary_is_handed_over_before_its_receipt() {
    let mut scene = Scene::with_rogue_at(0, &["--boundary", "public"]).await;
    let (run, id, honest) = scene.take_run().await;
    scene.say_done(&scene.sign(id, 0, honest.input_boundary, honest.output_boundary), None).await;
    scene.rejected(&run, "it gave a receipt for tensors that it did not hand over").await;
}

#[tokio::test]
async fn a_worker_that_tells_the_coordinator_and_its_neighbour_different_things_is_convicted() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (run, id, honest) = scene.take_run().await;
    let receipt = scene.sign(id, 0, honest.input_boundary.clone(), honest.output_boundary);
    let other = one_unit_off(&honest.output);
    let another = scene.sign(id, 0, honest.input_boundary, scene.held.output_boundary(&other));
    scene.say_done(&receipt, None).await;
    scene.pass_on(&another, &other).await.unwrap();
    let run = scene.rejected(&run, "its worker gave two receipts that contradict each other").await;
    scene.assert_convicted(&run, "signed two different statements in the same attempt", &[]);
}

#[tokio::test]
async fn a_convicted_worker_is_out_for_good_and_a_spare_takes_its_shard() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    scene.service.add_worker("FIRST", &[]);
    scene.service.until("the spare is there", |status| status.workers.len() == 4).await;
    let (run, id, honest) = scene.take_run().await;
    let receipt = scene.sign(id, 0, honest.input_boundary.clone(), honest.output_boundary);
    let other = one_unit_off(&honest.output);
    let another = scene.sign(id, 0, honest.input_boundary, scene.held.output_boundary(&other));
    scene.say_done(&receipt, None).await;
    scene.pass_on(&another, &other).await.unwrap();
    scene.rejected(&run, "its worker gave two receipts that contradict each other").await;

    let told = loop {
        if let Err(status) = scene.rogue.next().await {
            break status;
        }
    };
    assert_eq!(told.code(), Code::PermissionDenied);
    let liar = scene.key().to_string();
    let spare_serves = |status: &StatusResponse| status.shards[0].ready && status.shards[0].worker != liar;
    scene.service.until("the spare serves", spare_serves).await;
    assert_state(&scene.service.infer(&input()).await, RunState::Answered);

    scene.service.coordinator.kill();
    scene.service.restart_coordinator();
    scene.service.ready().await;
    let again = Identity::from_secret(&scene.rogue.identity.to_secret());
    let mut again = Rogue::join_as(again, &scene.service, "FIRST", "127.0.0.1:9").await;
    let refused = again.next().await.unwrap_err();
    assert!(refused.message().contains("was convicted of a lie"), "{refused:?}");
    let (code, said) = scene.shardproof(&["workers", "admit", &liar]);
    assert!(code == Some(1) && said.contains("never admitted again"), "{said}");
    let (code, said) = scene.shardproof(&["workers"]);
    let line = said.lines().find(|line| line.starts_with(&liar)).unwrap();
    assert!(code == Some(0) && line.contains("convicted") && line.contains("away"), "{said}");
}

#[tokio::test]
async fn a_worker_whose_answer_has_another_receipt_is_convicted() {
    let mut scene = Scene::with_rogue_at(2, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, upstream) = (delivery.run(), delivery.receipt());
    let honest = scene.held.infer(&delivery.tensors());
    delivery.reply(Ok(()));
    let receipt = scene.sign(id, 0, honest.input_boundary.clone(), honest.output_boundary);
    let other = one_unit_off(&honest.output);
    let another = scene.sign(id, 0, honest.input_boundary, Boundary::public(&other));
    scene.pass_on(&another, &other).await.unwrap();
    scene.say_done(&receipt, Some(&upstream)).await;
    let run = scene.rejected(&run, "its worker gave two receipts that contradict each other").await;
    scene.assert_convicted(&run, "signed two different statements in the same attempt", &[]);
}

#[tokio::test]
async fn a_worker_that_denies_what_the_coordinator_itself_hands_it_is_named() {
    let mut scene = Scene::with_rogue_at(1, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, upstream, tensors) = (delivery.run(), delivery.receipt(), delivery.tensors());
    delivery.reply(Ok(()));
    scene.complain(id, 0, &upstream).await;
    let handed = scene.inbox.next().await;
    assert_eq!((handed.tensors(), handed.receipt(), handed.header.attempt), (tensors, upstream.clone(), 1));
    assert!(!handed.header.owner_signature.is_empty());
    handed.reply(Ok(()));
    scene.complain(id, 1, &upstream).await;
    let run = scene.rejected(&run, "denies that what the coordinator handed it is the output that shard 0").await;
    assert!(!run.evidence);
}

#[tokio::test]
async fn a_worker_that_refuses_what_the_coordinator_itself_hands_it_is_named() {
    let mut scene = Scene::with_rogue_at(1, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, upstream) = (delivery.run(), delivery.receipt());
    delivery.reply(Err(Status::invalid_argument("it does not fit")));
    scene.complain(id, 0, &upstream).await;
    scene.inbox.next().await.reply(Err(Status::invalid_argument("nor does this")));
    let run =
        scene.rejected(&run, "refuses the output of shard 0 that it was handed by the coordinator: nor does").await;
    assert!(!run.evidence);
}

#[tokio::test]
async fn a_worker_that_never_signs_for_what_it_is_handed_is_named() {
    let mut scene = Scene::with_rogue_at(1, &["--dispute-deadline", "5"]).await;
    let (run, delivery) = scene.run().await;
    let (id, upstream) = (delivery.run(), delivery.receipt());
    delivery.reply(Ok(()));
    scene.complain(id, 0, &upstream).await;
    scene.inbox.next().await.reply(Ok(()));
    scene.rejected(&run, "gave no receipt within 5 s for the output of shard 0").await;
}

#[tokio::test]
async fn a_worker_that_signs_for_another_input_than_it_got_is_named() {
    let mut scene = Scene::with_rogue_at(1, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, upstream) = (delivery.run(), delivery.receipt());
    let other = scene.held.infer(&one_unit_off(&delivery.tensors()));
    delivery.reply(Ok(()));
    let receipt = scene.sign(id, 0, other.input_boundary, other.output_boundary);
    scene.say_done(&receipt, Some(&upstream)).await;
    scene.rejected(&run, "the receipt that came with its input").await;
}

#[tokio::test]
async fn a_worker_that_shows_no_receipt_for_its_input_is_named() {
    let mut scene = Scene::with_rogue_at(1, &[]).await;
    let (run, id, honest) = scene.take_run().await;
    let receipt = scene.sign(id, 0, honest.input_boundary, honest.output_boundary);
    scene.say_done(&receipt, None).await;
    scene.rejected(&run, "it signed for an input that came without a receipt").await;
}

#[tokio::test]
async fn a_worker_that_makes_up_the_receipt_for_its_input_is_named() {
    let mut scene = Scene::with_rogue_at(1, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, mut upstream) = (delivery.run(), delivery.receipt());
    let other = scene.held.infer(&one_unit_off(&delivery.tensors()));
    delivery.reply(Ok(()));
    upstream.statement.output = other.input_boundary.clone();
    let stranger = upstream.signed_by(&Identity::generate());
    let receipt = scene.sign(id, 0, other.input_boundary, other.output_boundary);
    scene.say_done(&receipt, Some(&stranger)).await;
    let run = scene.rejected(&run, "the receipt that came with its input is by worker").await;
    assert!(!run.evidence);
}

#[tokio::test]
async fn an_honest_worker_signs_one_statement_in_each_attempt() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (_run, id, honest) = scene.take_run().await;
    let other = one_unit_off(&honest.output);
    let sign = |attempt, tensors: &[Tensor]| {
        scene.sign(id, attempt, honest.input_boundary.clone(), scene.held.output_boundary(tensors))
    };
    scene.pass_on(&sign(1, &honest.output), &honest.output).await.unwrap();
    // The same again changes nothing; another boundary in the attempt, and an earlier attempt, are refused.
    scene.pass_on(&sign(1, &honest.output), &honest.output).await.unwrap();
    let refused = scene.pass_on(&sign(1, &other), &other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    let refused = scene.pass_on(&sign(0, &other), &other).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("attempt 1 of this run has arrived already"), "{refused:?}");
    scene.pass_on(&sign(2, &other), &other).await.unwrap();

    // A run of which nothing may be remembered any more is refused, whoever sends it.
    for id in ["01800000-0000-7000-8000-000000000000", "0f000000-0000-7000-8000-000000000000"] {
        let (boundary, output) = (honest.input_boundary.clone(), scene.held.output_boundary(&honest.output));
        let old = scene.sign(id.parse().unwrap(), 0, boundary, output);
        let refused = scene.pass_on(&old, &honest.output).await.unwrap_err();
        assert!(refused.message().contains("within 7 days of this machine's clock"), "{refused:?}");
    }
}

#[tokio::test]
async fn no_worker_is_made_to_work_on_what_the_coordinator_did_not_begin() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (run, delivery) = scene.run().await;
    let begun = convert::unpack("attempt_signature", &delivery.header.attempt_signature).unwrap();
    let (id, honest) = (delivery.run(), scene.held.infer(&delivery.tensors()));
    delivery.reply(Ok(()));
    let sign = |run, attempt| scene.sign(run, attempt, honest.input_boundary.clone(), honest.output_boundary.clone());
    let invented = RunId::generate();
    let forged = scene.rogue.identity.sign(attempt_digest(invented, scene.held.card.body.plan.digest(), 0));
    for (receipt, signature) in [
        (sign(invented, 0), None),
        (sign(invented, 0), Some(&begun)),
        (sign(invented, 0), Some(&forged)),
        (sign(id, 1), Some(&begun)),
    ] {
        let refused = scene.pass_on_as(&receipt, signature, &honest.output).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    }
    let spool = scene.service.worker_data(0).join("spool");
    assert_eq!(std::fs::read_dir(spool).unwrap().count(), 0);

    scene.say_done(&sign(id, 0), None).await;
    scene.pass_on_as(&sign(id, 0), Some(&begun), &honest.output).await.unwrap();
    assert_state(&scene.service.settled(&run).await, RunState::Answered);
}

#[tokio::test]
async fn a_worker_whose_queue_its_neighbour_fills_takes_what_the_coordinator_hands_it() {
    let mut scene = Scene::with_rogue_at(0, &["--dispute-deadline", "10"]).await;
    let (run, id, honest) = scene.take_run().await;
    scene.say_done(&scene.sign(id, 0, honest.input_boundary.clone(), honest.output_boundary.clone()), None).await;
    let _kept = scene.fill_queue(&honest).await;
    scene.say_refused(id).await;
    let request = scene.asked_to_show().await;
    scene.show(request, &honest.output).await;
    assert_state(&scene.service.settled(&run).await, RunState::Answered);
}

#[tokio::test]
async fn whoever_takes_a_shard_over_finds_the_places_free_that_the_worker_before_took() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (_run, _, honest) = scene.take_run().await;
    let _kept = scene.fill_queue(&honest).await;
    let Scene { mut service, rogue, .. } = scene;
    let gone = rogue.identity.public().to_string();
    drop(rogue);
    service.add_worker("FIRST", &[]);
    service.until("another serves", |status| status.shards[0].ready && status.shards[0].worker != gone).await;
    let answered = tokio::time::timeout(Duration::from_secs(60), service.infer(&input())).await;
    assert_state(&answered.unwrap(), RunState::Answered);
}

#[tokio::test]
async fn ezkl_hops_are_bound_by_the_next_shards_circuit() {
    let mut scene = Scene::with_rogue_at(1, &["--backend", "ezkl"]).await;
    let (run, delivery) = scene.run().await;
    let (id, upstream, tensors) = (delivery.run(), delivery.receipt(), delivery.tensors());
    delivery.reply(Ok(()));
    scene.complain(id, 0, &upstream).await;
    let handed = scene.inbox.next().await;
    assert_eq!((handed.tensors(), handed.receipt()), (tensors, upstream.clone()));
    handed.reply(Ok(()));
    scene.complain(id, 1, &upstream).await;
    scene.rejected(&run, "denies that what the coordinator handed it is the output that shard 0").await;
}

#[tokio::test]
async fn a_failed_proof_of_a_wrong_output_ends_in_evidence_though_the_input_is_known_to_workers_only() {
    let mut scene = Scene::with_rogue_at(1, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, upstream) = (delivery.run(), delivery.receipt());
    let honest = scene.held.infer(&delivery.tensors());
    delivery.reply(Ok(()));
    let wrong = one_unit_off(&honest.output);
    let receipt = scene.sign(id, 0, honest.input_boundary, scene.held.output_boundary(&wrong));
    scene.say_done(&receipt, Some(&upstream)).await;
    scene.pass_on(&receipt, &wrong).await.unwrap();
    let run = scene.service.settled(&run).await;
    assert_state(&run, RunState::Answered);

    scene.service.prove(&run, &[1]).await.unwrap();
    let job = loop {
        if let FromCoordinator::Prove(job) = scene.rogue.next().await.unwrap() {
            break job;
        }
    };
    let channel = scene.service.channel();
    let proof = transport::artifacts::store(channel, "no proof at all".into()).await.unwrap();
    let done = ProofDone {
        run: job.members[0].run.clone(),
        shard: 1,
        attempt: job.members[0].attempt,
        proof: Some(convert::artifact_ref(proof)),
        ..Default::default()
    };
    scene.rogue.say(ToCoordinator::ProofDone(done)).await;
    let run = scene.rejected(&run, "proof").await;
    scene.assert_convicted(&run, "signed another output than the registered shard gives", &[]);
}

#[tokio::test]
async fn tensors_that_the_network_changed_are_sent_again_through_the_coordinator_and_the_run_goes_on() {
    let (service, run) = with_network(true).await;
    assert_state(&run, RunState::Answered);
    let dispute = run.dispute.unwrap();
    assert_eq!((dispute.shard, dispute.stage()), (0, DisputeStage::Settled));
    assert!(run.blamed_worker.is_empty() && !run.evidence);

    service.prove(&run, &[]).await.unwrap();
    let proven = service.settled(&run).await;
    assert_state(&proven, RunState::Verified);
    let report = verify_bundle(&service, &proven, input()).await;
    assert!(report.is_verified(), "{report}");
}

#[tokio::test]
async fn tensors_without_the_digest_that_was_announced_are_refused_and_nobody_is_blamed() {
    let (_service, run) = with_network(false).await;
    assert_state(&run, RunState::Failed);
    assert!(run.reason.contains("the content is not the one announced"), "{}", run.reason);
    assert!(run.blamed_worker.is_empty() && run.dispute.is_none() && !run.evidence, "{run:?}");
}

#[test]
fn evidence_or_a_bundle_is_checked_and_not_both() {
    let directory = tempfile::tempdir().unwrap();
    let card: PathBuf = directory.path().join("card");
    std::fs::write(&card, include_str!("../data/mlp-float.card.json")).unwrap();
    let file = directory.path().join("evidence").display().to_string();
    std::fs::write(&file, b"SPBUNDLE").unwrap();
    let card = card.display().to_string();
    let (code, said) = shardproof(&["verify", "bundle", "--evidence", &file, "--card", &card]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = shardproof(&["verify", "--card", &card]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = shardproof(&["verify", "--evidence", &file, "--card", &card, "--json"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(r#""convicts": false"#), "{said}");
    let (code, said) = shardproof(&["verify", "--evidence", "/nonexistent", "--card", &card]);
    assert_eq!(code, Some(1), "{said}");
}
