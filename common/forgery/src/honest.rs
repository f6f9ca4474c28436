//! What forgers start from: two plans of one model, and honest runs of them.

use anyhow::{Context, Result};
use shardproof_common::backend::{Job, ProofVerifier};
use shardproof_common::bundle::{Bundle, ShardProof, ShardRecord};
use shardproof_common::card::{CardBody, ModelCard};
use shardproof_common::chain::{self, ChainError, Check, Report, VerifyOptions};
use shardproof_common::ids::{Digest, RunId, UnixMillis};
use shardproof_common::plan::BoundaryMode;
use shardproof_common::receipt::{Admission, Receipt};
use shardproof_common::tensor::{FloatTensor, Tensor, encode_boundary};
use shardproof_models::{LoadOptions, ModelSource, OnnxModel, input};

use crate::chain::{Chain, Lie, Run};
use crate::draft::{Draft, Forged};
use crate::party::Keys;
use crate::scene::{MODEL, Scene};

/// What receipts promise; long past, which takes nothing from a proof that exists.
const PROVABLE_UNTIL: UnixMillis = UnixMillis(1_700_000_000_000);
/// Samples that calibration uses.
const SAMPLES: usize = 8;

/// Everything honest in one scene.
pub struct Honest {
    /// How it was cut and proven.
    pub scene: Scene,
    /// Everyone's keys.
    pub keys: Keys,
    /// The model's file.
    pub model: Vec<u8>,
    /// What the client sent.
    pub input: Vec<FloatTensor>,
    /// The plan.
    pub chain: Chain,
    /// Another plan of the same model: equal cuts, scales and boundaries, other keys, as weights are bound in another way.
    pub other: Chain,
    /// The run that the client asked for.
    pub run: Run,
    /// The same input once more.
    pub again: Run,
    /// A run of another input.
    pub second: Run,
    /// The client's input under the other plan.
    pub elsewhere: Run,
}

/// What became of a bundle.
#[derive(Debug)]
pub struct Verdict {
    /// The word for it: `verified`, `partial`, `rejected`.
    pub status: &'static str,
    /// The checks that do not hold, in order: the first is the one that the refusal names.
    pub failed: Vec<Check>,
    /// The refusal's reason.
    pub reason: String,
    /// Nothing where the card could not be read.
    pub report: Option<Report>,
}

impl Honest {
    /// Sets the scene up and makes its runs. All but ezkl's keys and proofs follows from `seed`.
    ///
    /// # Errors
    /// When a backend fails.
    pub fn make(scene: Scene, seed: u64) -> Result<Self> {
        let keys = Keys::insecure(seed);
        let source = ModelSource::resolve(MODEL)?;
        let model = OnnxModel::load(&source, &LoadOptions::default())?;
        let mut samples = input::samples(&source, &model, SAMPLES, seed)?.inputs;
        let authority = keys.authority.public();
        let chain = Chain::set_up(scene, false, &model, &samples, authority)?;
        let other = Chain::set_up(scene, true, &model, &samples, authority)?;
        let (first, second) = (samples.swap_remove(0), samples.swap_remove(1));
        let id = |index: usize| run_id(seed, scene, index);
        let run = chain.run(id(0), chain.quantise(&first)?, Lie::None).context("the run")?;
        let again = chain.run(id(1), chain.quantise(&first)?, Lie::None)?;
        let second = chain.run(id(2), chain.quantise(&second)?, Lie::None)?;
        let elsewhere = other.run(id(3), other.quantise(&first)?, Lie::None).context("the run of the other plan")?;
        let model = source.read()?;
        Ok(Self { scene, keys, model, input: first, chain, other, run, again, second, elsewhere })
    }

    /// The run's bundle and card as the service would give them.
    pub fn draft(&self) -> Draft {
        self.draft_of(&self.chain, &self.run)
    }

    /// Bundle, card and answer of any run of `chain`.
    pub fn draft_of(&self, chain: &Chain, run: &Run) -> Draft {
        self.draft_under(chain, &chain.body, run)
    }

    /// Bundle, card and answer of a run of `chain` under a card of `body`, which the owner signs.
    pub fn draft_under(&self, chain: &Chain, body: &CardBody, run: &Run) -> Draft {
        let card = ModelCard::sign(body.clone(), &self.keys.owner);
        let plan = body.plan.digest();
        let records = run.links.iter().zip(&self.keys.workers).zip(&chain.verifying_keys);
        let shards = records.map(|((link, worker), key)| ShardRecord {
            receipt: Receipt::sign(link.statement.clone(), 0, PROVABLE_UNTIL, worker),
            admission: Admission::sign(worker.public(), plan, &self.keys.authority),
            proof: Some(ShardProof { verifying_key: key.clone().into(), proof: link.proof.clone().into() }),
        });
        let outputs = run.links.iter().map(|link| &link.output);
        let tensors = run.links.iter().take(1).map(|link| &link.input).chain(outputs);
        let shown = tensors.zip(&body.plan.boundaries).map(|(tensors, boundary)| {
            (boundary.mode == BoundaryMode::Public).then(|| encode_boundary(tensors).into())
        });
        let bundle = Bundle { card: card.digest(), run: run.id, shards: shards.collect(), boundaries: shown.collect() };
        let answer = run.links.last().map(|link| link.output.iter().flat_map(Tensor::to_reals).collect());
        Draft { bundle, card, answer: answer.unwrap_or_default(), accept_test_srs: true }
    }

    /// A run with a liar among the workers, on the client's input.
    ///
    /// # Errors
    /// When a backend fails.
    pub fn lying(&self, lie: Lie) -> Result<Run> {
        self.chain.run(self.run.id, self.chain.quantise(&self.input)?, lie)
    }

    /// Verifies as the client would, with all that it can supply: its owner's key, its model, its input, and the answer that
    /// was delivered. A card that is not whole is a failed check, as it is for the command line.
    ///
    /// # Errors
    /// When no result can be reached.
    pub fn judge(
        &self,
        forged: &Forged,
        verifiers: &[&dyn ProofVerifier],
        job: &Job<'_>,
    ) -> Result<Verdict, ChainError> {
        let card = match ModelCard::parse(&forged.card) {
            Ok(card) => card,
            Err(error) => {
                let failed = vec![Check::Card];
                return Ok(Verdict { status: "rejected", failed, reason: error.to_string(), report: None });
            }
        };
        let options = VerifyOptions {
            owner_key: Some(self.keys.owner.public()),
            input: Some(&self.input),
            output: Some(&forged.answer),
            model: Some(Digest::of(&self.model)),
            allow_test_srs: forged.accept_test_srs,
        };
        let report = chain::verify_bytes(&forged.bundle, &card, &options, verifiers, job)?;
        let failed = report.checks.iter().filter(|line| line.outcome.is_failed()).map(|line| line.check).collect();
        let reason = report.refusal().map(|refusal| refusal.reason.clone()).unwrap_or_default();
        Ok(Verdict { status: report.status.as_str(), failed, reason, report: Some(report) })
    }
}

fn run_id(seed: u64, scene: Scene, index: usize) -> RunId {
    let digest = Digest::derive("shardproof 2 forgery run", &(seed, scene.as_str(), index));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    RunId::from_bytes(bytes)
}
