//! Neighbours at odds: who lied is found out, a liar that signed its lie is convicted, and an honest worker never is.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use shardproof_common::ids::RunId;
use shardproof_common::receipt::{PublicKey, Receipt};
use shardproof_common::statement::Boundary;
use shardproof_common::tensor::{FloatTensor, Tensor, encode_boundary};
use shardproof_proto::convert;
use shardproof_proto::transport::{self, activations};
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as ToCoordinator;
use shardproof_proto::v1::{
    ActivationHeader, DisputeStage, Failure, FailureStage, InferenceDone, ProofDone, Run, RunState, ShowOutput, Shown,
};
use tonic::Status;

use crate::cluster::{PATIENCE, Service, assert_state, verify_bundle};
use crate::held::{Delivery, Held, Inbox, one_unit_off};
use crate::rogue::Rogue;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");

fn input() -> Vec<FloatTensor> {
    vec![FloatTensor { shape: vec![1, 4], values: vec![0.5, -0.25, 0.75, 1.0] }]
}

/// A chain of three shards in which the test is the worker of one.
struct Scene {
    service: Service,
    rogue: Rogue,
    held: Held,
    inbox: Inbox,
    /// Where its outputs go.
    next: String,
}

impl Scene {
    /// The rogue takes `shard`; real workers the others.
    async fn with_rogue_at(shard: u32, extra: &[&str]) -> Self {
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

    fn key(&self) -> PublicKey {
        self.rogue.identity.public()
    }

    /// Starts a run and takes what the rogue is sent of it.
    async fn run(&mut self) -> (Run, Delivery) {
        let run = self.service.submit(&input()).await.unwrap();
        let delivery = self.inbox.next().await;
        assert_eq!(delivery.run(), convert::run_id(&run.run).unwrap());
        (run, delivery)
    }

    fn sign(&self, run: RunId, attempt: u32, input: Boundary, output: Boundary) -> Receipt {
        self.held.receipt(&self.rogue.identity, (run, attempt), input, output)
    }

    async fn say_done(&self, receipt: &Receipt, upstream: Option<&Receipt>) {
        let done = InferenceDone {
            run: convert::run_bytes(receipt.statement.run),
            shard: self.held.shard,
            receipt: convert::pack(receipt),
            upstream: upstream.map(convert::pack).unwrap_or_default(),
            ..Default::default()
        };
        self.rogue.say(ToCoordinator::InferenceDone(done)).await;
    }

    /// Passes tensors on with a receipt, as the worker of the rogue's shard does.
    async fn pass_on(&self, receipt: &Receipt, tensors: &[Tensor]) -> Result<(), Status> {
        let header = ActivationHeader {
            run: convert::run_bytes(receipt.statement.run),
            plan: convert::digest_bytes(receipt.statement.plan),
            boundary: self.held.shard + 1,
            attempt: receipt.attempt,
            receipt: convert::pack(receipt),
            ..Default::default()
        };
        let channel = transport::lazy_channel(&self.next).unwrap();
        activations::deliver(channel, header, encode_boundary(tensors).into(), Duration::from_secs(20)).await
    }

    async fn complain(&self, run: RunId, attempt: u32, upstream: &Receipt) {
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

    async fn asked_to_show(&mut self) -> ShowOutput {
        loop {
            if let FromCoordinator::ShowOutput(request) = self.rogue.next().await.unwrap() {
                return request;
            }
        }
    }

    async fn show(&self, request: ShowOutput, tensors: &[Tensor]) {
        let channel = transport::lazy_channel(&self.service.coordinator.address).unwrap();
        let stored = transport::artifacts::store(channel, encode_boundary(tensors).into()).await.unwrap();
        let (run, shard) = (request.run, request.shard);
        let output = Some(convert::artifact_ref(stored));
        self.rogue.say(ToCoordinator::Shown(Shown { run, shard, output, refusal: String::new() })).await;
    }

    /// The run ends rejected in the rogue's name, for a reason with these words.
    async fn rejected(&self, run: &Run, reason: &str) -> Run {
        let run = self.service.settled(run).await;
        assert_state(&run, RunState::Rejected);
        assert!(run.reason.contains(reason), "{}", run.reason);
        assert_eq!((run.blamed_shard, run.blamed_worker.clone()), (Some(self.held.shard), self.key().to_string()));
        run
    }

    /// `shardproof ARGS` against the coordinator: exit code and all that it says.
    fn shardproof(&self, args: &[&str]) -> (Option<i32>, String) {
        shardproof(&[args, &["--coordinator", &self.service.coordinator.address]].concat())
    }

    fn file(&self, name: &str) -> String {
        self.service.directory.path().join(name).display().to_string()
    }

    /// The evidence convicts the rogue, whoever checks it; changed, it convicts nobody.
    fn assert_convicted(&self, run: &Run, words: &str, flags: &[&str]) {
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

fn shardproof(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_shardproof")).args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_worker_that_passes_on_something_else_than_it_signed_for_is_named() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, honest) = (delivery.run(), scene.held.infer(&delivery.tensors()));
    delivery.reply(Ok(()));
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
    let (run, delivery) = scene.run().await;
    let (id, honest) = (delivery.run(), scene.held.infer(&delivery.tensors()));
    delivery.reply(Ok(()));
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
}

#[tokio::test]
async fn a_worker_that_does_not_show_what_it_signed_for_is_named_and_not_convicted() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, honest) = (delivery.run(), scene.held.infer(&delivery.tensors()));
    delivery.reply(Ok(()));
    let receipt = scene.sign(id, 0, honest.input_boundary, honest.output_boundary);
    scene.say_done(&receipt, None).await;
    scene.pass_on(&receipt, &one_unit_off(&honest.output)).await.unwrap();
    let ShowOutput { run: asked, shard } = scene.asked_to_show().await;
    let refusal = "the spool has expired".to_owned();
    scene.rogue.say(ToCoordinator::Shown(Shown { run: asked, shard, output: None, refusal })).await;
    let run = scene.rejected(&run, "does not show the output that it signed for: it says: the spool has expired").await;
    assert!(!run.evidence);
}

#[tokio::test]
async fn public_boundaries_are_compared_as_they_are() {
    let mut scene = Scene::with_rogue_at(0, &["--boundary", "public"]).await;
    let (run, delivery) = scene.run().await;
    let (id, honest) = (delivery.run(), scene.held.infer(&delivery.tensors()));
    delivery.reply(Ok(()));
    let receipt = scene.sign(id, 0, honest.input_boundary, honest.output_boundary);
    scene.say_done(&receipt, None).await;
    let other = one_unit_off(&honest.output);
    let refused = scene.pass_on(&receipt, &other).await.unwrap_err();
    assert!(refused.message().contains("the receipt names other tensors"), "{refused:?}");
    let request = scene.asked_to_show().await;
    scene.show(request, &other).await;
    scene.rejected(&run, "its worker shows another output than it signed for").await;
}

#[tokio::test]
async fn a_worker_that_tells_the_coordinator_and_its_neighbour_different_things_is_convicted() {
    let mut scene = Scene::with_rogue_at(0, &[]).await;
    let (run, delivery) = scene.run().await;
    let (id, honest) = (delivery.run(), scene.held.infer(&delivery.tensors()));
    delivery.reply(Ok(()));
    let receipt = scene.sign(id, 0, honest.input_boundary.clone(), honest.output_boundary);
    let other = one_unit_off(&honest.output);
    let another = scene.sign(id, 0, honest.input_boundary, scene.held.output_boundary(&other));
    scene.say_done(&receipt, None).await;
    scene.pass_on(&another, &other).await.unwrap();
    let run = scene.rejected(&run, "its worker gave two receipts that contradict each other").await;
    scene.assert_convicted(&run, "signed two different statements in the same attempt", &[]);
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
    let mut scene = Scene::with_rogue_at(1, &["--dispute-deadline", "1"]).await;
    let (run, delivery) = scene.run().await;
    let (id, upstream) = (delivery.run(), delivery.receipt());
    delivery.reply(Ok(()));
    scene.complain(id, 0, &upstream).await;
    scene.inbox.next().await.reply(Ok(()));
    scene.rejected(&run, "gave no receipt within 1 s for the output of shard 0").await;
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
    let (run, delivery) = scene.run().await;
    let (id, honest) = (delivery.run(), scene.held.infer(&delivery.tensors()));
    delivery.reply(Ok(()));
    let receipt = scene.sign(id, 0, honest.input_boundary, honest.output_boundary);
    scene.say_done(&receipt, None).await;
    scene.rejected(&run, "it signed for an input that came without a receipt").await;
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
    let channel = transport::lazy_channel(&scene.service.coordinator.address).unwrap();
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

/// Two honest workers, and a network between them that is the test's.
async fn with_network(garble: impl Fn(&mut Delivery)) -> (Service, Run) {
    let mut service = Service::start(TINY, &["FIRST", "LAST"], 3, &[]);
    let mut network = Inbox::open().await;
    service.add_worker("MIDDLE", &["--advertise", &network.address]);
    service.ready().await;
    let run = service.submit(&input()).await.unwrap();
    let target = service.workers[2].address.clone();
    let mut garbled = false;
    let carried = async {
        loop {
            let mut delivery = network.next().await;
            if !garbled {
                garble(&mut delivery);
                garbled = true;
            }
            let channel = transport::lazy_channel(&target).unwrap();
            let (header, encoding) = (delivery.header.clone(), delivery.encoding.clone());
            let answer = activations::deliver(channel, header, encoding.into(), Duration::from_secs(20)).await;
            delivery.reply(answer);
        }
    };
    let run = tokio::select! {
        () = carried => unreachable!("the network carries for as long as the run takes"),
        run = tokio::time::timeout(PATIENCE, service.settled(&run)) => run.unwrap(),
    };
    (service, run)
}

#[tokio::test]
async fn tensors_that_the_network_changed_are_sent_again_through_the_coordinator_and_the_run_goes_on() {
    let (service, run) = with_network(|delivery| {
        delivery.encoding = encode_boundary(&one_unit_off(&delivery.tensors()));
    })
    .await;
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
