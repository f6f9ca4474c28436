//! Answers that nobody asked for: twice, for another job, of another attempt, and once the matter is closed.

use shardproof_common::card::ModelCard;
use shardproof_common::ids::RunId;
use shardproof_common::tensor::{IntegerTensor, Tensor};
use shardproof_proto::convert;
use shardproof_proto::transport::{self, Party, Transport};
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as ToCoordinator;
use shardproof_proto::v1::{GetRequest, InferenceDone, ProofDone, ProveJob, Ready, Run, RunState};
use tonic::Code;

use crate::cluster::{Service, answer, assert_state};
use crate::rogue::{Rogue, card, deliver};
use crate::support::{TINY, ends_clean, eventually, tiny_input};

/// How the coordinator's log says that a proof changed nothing.
const IGNORED: &str = "ignoring a proof that is not awaited";

/// The only worker of a service, under the test's control.
struct Solo {
    rogue: Rogue,
    card: ModelCard,
}

impl Solo {
    async fn join(service: &Service) -> Self {
        // It takes connections and says nothing, so its inputs are on their way for as long as the test runs.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = silent.accept().await {
                held.push(stream);
            }
        });
        let card = card(service).await;
        let rogue = Rogue::join(service, "SOLO", &address).await;
        let plan = convert::digest_bytes(card.body.plan.digest());
        rogue.say(ToCoordinator::Ready(Ready { plan, shard: 0 })).await;
        service.ready().await;
        Self { rogue, card }
    }

    fn input(&self) -> Vec<Tensor> {
        let input = tiny_input().remove(0);
        vec![Tensor::Integer(input.quantise(self.card.body.shards[0].input[0].scale).unwrap())]
    }

    /// An answer of the right shape. Whether it is right is for the proof to say.
    fn output(&self) -> Vec<Tensor> {
        let spec = &self.card.body.shards[0].output[0];
        let values = vec![1; spec.elements() as usize];
        vec![Tensor::Integer(IntegerTensor { shape: spec.shape.clone(), scale: spec.scale, values })]
    }

    fn receipt(&self, run: RunId) -> Vec<u8> {
        convert::pack(&self.rogue.receipt(&self.card, run, 0, &self.input(), &self.output())).to_vec()
    }

    async fn say_done(&self, run: RunId) {
        let (id, receipt) = (convert::run_bytes(run), self.receipt(run).into());
        let done = InferenceDone { run: id, shard: 0, receipt, ..Default::default() };
        self.rogue.say(ToCoordinator::InferenceDone(done)).await;
    }

    /// The code that an answer for `run` is refused with.
    async fn answer_refused(&self, service: &Service, run: RunId) -> Code {
        let (address, receipt) = (&service.coordinator.address, self.receipt(run));
        deliver(address, &self.card, run, 1, receipt, &self.output()).await.unwrap_err().code()
    }

    async fn job(&mut self) -> ProveJob {
        loop {
            if let FromCoordinator::Prove(job) = self.rogue.next().await.unwrap() {
                return job;
            }
        }
    }

    async fn say_proof(&self, service: &Service, run: RunId, attempt: u64) {
        let channel = Transport::plaintext().lazy_channel(&service.coordinator.address, Party::Coordinator).unwrap();
        let proof = transport::artifacts::store(channel, "no proof at all".into()).await.unwrap();
        let proof = Some(convert::artifact_ref(proof));
        let done = ProofDone { run: convert::run_bytes(run), shard: 0, attempt, proof, ..Default::default() };
        self.rogue.say(ToCoordinator::ProofDone(done)).await;
    }
}

async fn state_of(service: &Service, run: &Run) -> Run {
    service.client().get(GetRequest { run: run.run.clone() }).await.unwrap().into_inner()
}

#[tokio::test]
async fn answers_that_nobody_asked_for_change_nothing() {
    let service = Service::start(TINY, &[], 1, &[]);
    let mut solo = Solo::join(&service).await;
    let run = service.submit(&tiny_input()).await.unwrap();
    let other = service.submit(&tiny_input()).await.unwrap();
    let (id, other_id) = (convert::run_id(&run.run).unwrap(), convert::run_id(&other.run).unwrap());

    // A receipt for a run that does not exist, then the one that is awaited, twice; the same with the answer.
    solo.say_done(RunId::generate()).await;
    solo.say_done(id).await;
    solo.say_done(id).await;
    assert_eq!(solo.answer_refused(&service, RunId::generate()).await, Code::NotFound);
    let (address, receipt) = (&service.coordinator.address, solo.receipt(id));
    deliver(address, &solo.card, id, 1, receipt, &solo.output()).await.unwrap();
    let answered = service.settled(&run).await;
    assert_state(&answered, RunState::Answered);
    assert_eq!(solo.answer_refused(&service, id).await, Code::FailedPrecondition);

    // Proofs: of a run that none was asked of, of another attempt, and only then the one that is awaited.
    service.prove(&run, &[]).await.unwrap();
    let job = solo.job().await;
    let attempt = job.members[0].attempt;
    solo.say_proof(&service, other_id, 1).await;
    solo.say_proof(&service, id, attempt + 1).await;
    solo.say_proof(&service, id, attempt.wrapping_sub(1)).await;
    ignored(&service, 3).await;
    assert_state(&state_of(&service, &run).await, RunState::Answered);
    solo.say_proof(&service, id, attempt).await;
    let rejected = service.settled(&run).await;
    assert_state(&rejected, RunState::Rejected);
    assert_eq!((rejected.blamed_shard, &rejected.blamed_worker), (Some(0), &rejected.shards[0].worker));

    // Nothing said afterwards brings it back.
    solo.say_proof(&service, id, attempt).await;
    ignored(&service, 4).await;
    solo.say_done(id).await;
    let after = state_of(&service, &run).await;
    assert_eq!((after.state(), &after.reason), (RunState::Rejected, &rejected.reason));
    assert_eq!(answer(&after), answer(&answered));
    assert_state(&state_of(&service, &other).await, RunState::Running);
    drop(solo);
    service.settled(&other).await;
    ends_clean(service).await;
}

/// Waits until the coordinator has ignored so many proofs.
async fn ignored(service: &Service, count: usize) {
    let log = || service.coordinator.logged();
    eventually("proofs are ignored", || log().matches(IGNORED).count() == count, log).await;
}
