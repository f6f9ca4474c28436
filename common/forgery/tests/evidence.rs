//! Evidence with the real executor: a lie of one unit convicts its worker, and an honest one is convicted by nothing that an
//! accuser can make, the owner included.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

use shardproof_common::backend::Job;
use shardproof_common::card::ModelCard;
use shardproof_common::evidence::{Conviction, Evidence, EvidenceError, Executable, Lie as Signed};
use shardproof_common::ids::UnixMillis;
use shardproof_common::receipt::{Admission, Receipt};
use shardproof_common::statement::Statement;
use shardproof_common::tensor::{Tensor, encode_boundary};
use shardproof_forgery::chain::{self, Lie};
use shardproof_forgery::{Honest, Scene};
use shardproof_gkr_service::GkrReexecutor;

/// The owner accuses the worker of a shard with whatever it likes.
struct Accuser {
    honest: Honest,
    card: ModelCard,
}

impl Accuser {
    fn new(scene: Scene) -> Self {
        let honest = Honest::make(scene, 3).unwrap();
        let card = honest.draft().card;
        Self { honest, card }
    }

    /// What the worker of a shard signed.
    fn receipt(&self, shard: usize, statement: &Statement) -> Receipt {
        Receipt::sign(statement.clone(), 0, UnixMillis(0), &self.honest.keys.workers[shard])
    }

    fn accuse(&self, shard: usize, statement: &Statement, input: &[Tensor], executable: Executable) -> Evidence {
        let worker = self.honest.keys.workers[shard].public();
        let admission = Admission::sign(worker, self.card.body.plan.digest(), &self.honest.keys.authority);
        let receipt = self.receipt(shard, statement);
        Evidence::wrong_execution(&self.card, admission, receipt, encode_boundary(input), executable)
    }

    fn judge(&self, evidence: &Evidence) -> Result<Conviction, EvidenceError> {
        let evidence = Evidence::decode(&evidence.encode().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        chain::with_job(directory.path(), |job: &Job<'_>| evidence.check(&self.card, None, &GkrReexecutor, job))
    }
}

const SCENES: [Scene; 2] = [Scene::GkrCommitted, Scene::GkrPublic];

#[test]
fn a_lie_of_one_unit_or_other_weights_convict() {
    for scene in SCENES {
        let accuser = Accuser::new(scene);
        for (shard, lie) in [(0, Lie::Output(0)), (1, Lie::Output(1)), (2, Lie::Output(2)), (1, Lie::Weights(1))] {
            let run = accuser.honest.lying(lie).unwrap();
            let link = &run.links[shard];
            let executable = accuser.honest.chain.executable(shard).unwrap();
            let conviction = accuser.judge(&accuser.accuse(shard, &link.statement, &link.input, executable)).unwrap();
            assert_eq!(conviction.lie, Signed::WrongOutput, "{scene} {lie:?}");
            assert_eq!(conviction.worker, accuser.honest.keys.workers[shard].public());
            // Those after the liar computed what they were given, and are not convicted by it.
            for (honest, link) in run.links.iter().enumerate().filter(|&(other, _)| other != shard) {
                let executable = accuser.honest.chain.executable(honest).unwrap();
                let verdict = accuser.judge(&accuser.accuse(honest, &link.statement, &link.input, executable));
                assert!(matches!(verdict, Err(EvidenceError::RightOutput)), "{scene} {lie:?} shard {honest}");
            }
        }
    }
}

#[test]
fn nothing_convicts_an_honest_worker() {
    for scene in SCENES {
        let accuser = Accuser::new(scene);
        let (chain, run) = (&accuser.honest.chain, &accuser.honest.run);
        for (shard, link) in run.links.iter().enumerate() {
            let accuse = |input: &[Tensor], executable| {
                accuser.judge(&accuser.accuse(shard, &link.statement, input, executable)).unwrap_err()
            };
            let error = accuse(&link.input, chain.executable(shard).unwrap());
            assert!(matches!(error, EvidenceError::RightOutput), "{scene} {shard}: {error}");

            let mut altered = link.input.clone();
            chain::nudge(&mut altered).unwrap();
            let error = accuse(&altered, chain.executable(shard).unwrap());
            assert!(matches!(error, EvidenceError::OtherInput), "{scene} {shard}: {error}");

            // The same field element in another integer, where there is one, and integers beyond what is proven.
            let Tensor::Integer(tensor) = &mut altered[0] else { panic!("integers") };
            for value in [i64::MIN, i64::MAX, 1 << 40] {
                tensor.values[0] = value;
                let error = accuse(&[Tensor::Integer(tensor.clone())], chain.executable(shard).unwrap());
                let refused = matches!(error, EvidenceError::NotExecuted { .. } | EvidenceError::OtherInput);
                assert!(refused, "{scene} {shard}: {error}");
            }

            let mut weights = chain.executable(shard).unwrap().weights.to_vec();
            if let Some(last) = weights.last_mut() {
                *last ^= 1;
            }
            let graph = chain.executable(shard).unwrap().graph;
            let error = accuse(&link.input, Executable { graph, weights: weights.into() });
            assert!(matches!(error, EvidenceError::NotExecuted { .. }), "{scene} {shard}: {error}");

            let another = chain.executable((shard + 1) % run.links.len()).unwrap();
            let error = accuse(&link.input, another);
            assert!(matches!(error, EvidenceError::NotExecuted { .. }), "{scene} {shard}: {error}");

            let empty = Executable { graph: Vec::new().into(), weights: Vec::new().into() };
            let error = accuse(&link.input, empty);
            assert!(matches!(error, EvidenceError::NotExecuted { .. }), "{scene} {shard}: {error}");
        }
    }
}

#[test]
fn the_same_shard_under_another_plan_convicts_nobody() {
    let accuser = Accuser::new(Scene::GkrCommitted);
    let link = &accuser.honest.elsewhere.links[1];
    let executable = accuser.honest.other.executable(1).unwrap();
    let error = accuser.judge(&accuser.accuse(1, &link.statement, &link.input, executable.clone())).unwrap_err();
    assert!(matches!(error, EvidenceError::Receipt(_)), "{error}");
    // Its key binds the weights in another way, so its files do as well as the plan's own: they are the same integers.
    let run = accuser.honest.lying(Lie::Output(1)).unwrap();
    let link = &run.links[1];
    let conviction = accuser.judge(&accuser.accuse(1, &link.statement, &link.input, executable)).unwrap();
    assert_eq!(conviction.lie, Signed::WrongOutput);
}
