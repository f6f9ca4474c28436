//! What honest parties made, which is all that a verifier may accept.

use std::sync::LazyLock;

use shardproof_common::backend::{Job, Limits, ProofVerifier};
use shardproof_common::bundle::{Bundle, ShardProof};
use shardproof_common::chain::{self, Report, VerifyOptions};
use shardproof_forgery::{Draft, Honest, Scene};
use shardproof_gkr_service::GkrVerifier;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Seed of all keys.
const SEED: u64 = 7;

/// A plan with its card, and bundles of honest runs.
pub(crate) struct Stage {
    pub(crate) honest: Honest,
    /// Runs under the card: two of one input, one of another.
    pub(crate) runs: Vec<Draft>,
    /// A run under the owner's other card.
    pub(crate) elsewhere: Draft,
    verifier: GkrVerifier,
    directory: TempDir,
}

static STAGES: LazyLock<[Stage; 2]> = LazyLock::new(|| [Scene::GkrCommitted, Scene::GkrPublic].map(Stage::new));

/// Makes the stages, if they are not made yet.
pub(crate) fn prepare() {
    LazyLock::force(&STAGES);
}

/// Weights and boundaries committed, or both public.
pub(crate) fn stage(index: u8) -> &'static Stage {
    &STAGES[usize::from(index) % STAGES.len()]
}

/// All of them.
pub(crate) fn stages() -> impl Iterator<Item = &'static Stage> {
    STAGES.iter()
}

impl Stage {
    fn new(scene: Scene) -> Self {
        let honest = Honest::make(scene, SEED).expect("a model of the zoo can be set up, run and proven");
        let runs = [&honest.run, &honest.again, &honest.second].map(|run| honest.draft_of(&honest.chain, run)).into();
        let elsewhere = honest.draft_of(&honest.other, &honest.elsewhere);
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        Self { honest, runs, elsewhere, verifier: GkrVerifier::default(), directory }
    }

    /// Calls `work` with the verifier and a frame for it.
    pub(crate) fn with_verifier<T>(&self, work: impl FnOnce(&dyn ProofVerifier, &Job<'_>) -> T) -> T {
        let cancel = CancellationToken::new();
        let directory = self.directory.path();
        work(&self.verifier, &Job { directory, limits: Limits::default(), cancel: &cancel, progress: &|_| {} })
    }

    /// What whoever has card, model and owner's key says of a bundle.
    pub(crate) fn judge(&self, bundle: &Bundle) -> Report {
        let options = VerifyOptions { owner_key: Some(self.honest.keys.owner.public()), ..VerifyOptions::default() };
        let report =
            self.with_verifier(|verifier, job| chain::verify(bundle, &self.runs[0].card, &options, &[verifier], job));
        report.expect("a native verifier always comes to a result")
    }

    /// Judges a bundle.
    ///
    /// # Panics
    /// When it is accepted and says anything else than an honest run: another statement, proof, key or boundary. Who signed
    /// a receipt, and for which attempt, is not the proof's to say.
    pub(crate) fn refuse(&self, bundle: &Bundle) {
        if self.judge(bundle).is_verified() {
            let honest = self.runs.iter().any(|run| says_the_same(bundle, &run.bundle));
            assert!(honest, "a forged bundle is verified: {bundle:?}");
        }
    }
}

fn says_the_same(a: &Bundle, b: &Bundle) -> bool {
    let parts = |bundle: &Bundle| -> Vec<_> {
        bundle.shards.iter().map(|shard| (shard.receipt.statement.clone(), shard.proof.clone())).collect()
    };
    (a.card, a.run, &a.boundaries) == (b.card, b.run, &b.boundaries) && parts(a) == parts(b)
}

/// The proofs of an honest bundle, in the order of its shards.
pub(crate) fn proofs(draft: &Draft) -> impl Iterator<Item = &ShardProof> {
    draft.bundle.shards.iter().filter_map(|shard| shard.proof.as_ref())
}
