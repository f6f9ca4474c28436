//! What checks proofs: everything here but the card is untrusted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use shardproof_common::backend::{BackendError, Job, ProofVerifier, Registered, VerifyError, VerifyRequest};
use shardproof_common::card::{GkrKeys, ShardCard, ShardKeys};
use shardproof_common::ids::Digest;
use shardproof_common::plan::{BackendKind, BackendOptions};
use shardproof_gkr::Proof;

use crate::VERSION;
use crate::batch::{self, BatchError, Member};
use crate::boundary::{Side, check_tensors};
use crate::key_file::{KeyFile, KeyFileError};

/// Keys that a verifier keeps; those of the shards that it saw last.
const KEPT_KEYS: usize = 4;

/// Checks gkr proofs in this process; needs no installation and no files.
///
/// Reading a key with public weights takes longer than checking a proof, so the last few stay in memory, by the digest of
/// their bytes. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct GkrVerifier {
    keys: Arc<Mutex<VecDeque<KeptKey>>>,
}

/// A key by the digest of its file.
type KeptKey = (Digest, Arc<KeyFile>);

impl GkrVerifier {
    /// The key in `bytes`, as it was read before or read now.
    fn key(&self, bytes: &[u8]) -> Result<Arc<KeyFile>, KeyFileError> {
        let digest = Digest::of(bytes);
        let kept = || self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = kept().iter().find(|(known, _)| *known == digest) {
            return Ok(key.clone());
        }
        let key = Arc::new(KeyFile::decode(bytes)?);
        let mut keys = kept();
        keys.push_front((digest, key.clone()));
        keys.truncate(KEPT_KEYS);
        Ok(key)
    }
}

impl ProofVerifier for GkrVerifier {
    fn kind(&self) -> BackendKind {
        BackendKind::Gkr
    }

    fn pinned_version(&self) -> &str {
        VERSION
    }

    fn check_settings(&self, card: &ShardCard, registered: &Registered<'_>) -> Result<(), String> {
        keys_of(card)?;
        let BackendOptions::Gkr(_) = registered.options else {
            return Err(format!("the plan's options are for {}", registered.options.kind()));
        };
        for (side, mode) in [("input", registered.input_mode), ("output", registered.output_mode)] {
            if !BackendKind::Gkr.has_mode(mode) {
                return Err(format!("the {side} boundary is {mode}, which gkr does not have"));
            }
        }
        Ok(())
    }

    fn check_verifying_key(&self, card: &ShardCard, verifying_key: &[u8]) -> Result<(), String> {
        let file = self.key(verifying_key).map_err(|error| error.to_string())?;
        check_key(card, &file)
    }

    fn verify(&self, request: &VerifyRequest<'_>, job: &Job<'_>) -> Result<(), VerifyError> {
        if job.cancel.is_cancelled() {
            return Err(BackendError::Cancelled.into());
        }
        let found = &request.statement.backend;
        if found.kind != BackendKind::Gkr || found.version != VERSION {
            let reason = format!("expected a statement of gkr {VERSION}, found {} {}", found.kind, found.version);
            return Err(VerifyError::Rejected(reason));
        }
        self.check_settings(request.card, &request.registered).map_err(VerifyError::Rejected)?;
        let file = self.key(request.verifying_key).map_err(|error| match error {
            KeyFileError::Weights(_) => VerifyError::Weights(error.to_string()),
            _ => VerifyError::Rejected(error.to_string()),
        })?;
        check_key(request.card, &file).map_err(VerifyError::Rejected)?;

        let side = |name: &str, side: Result<Side, String>| {
            side.map_err(|reason| VerifyError::Instances(format!("{name} boundary: {reason}")))
        };
        let input = side("input", Side::of(&request.statement.input, request.input))?;
        let output = side("output", Side::of(&request.statement.output, request.output))?;
        let own = Member { context: request.statement.digest(), input, output };
        let most = batch::most_runs(file.key.graph());
        let (asserted, proof) = batch::open(request.proof, &own, most).map_err(|error| match error {
            BatchError::Boundary { .. } => VerifyError::Instances(error.to_string()),
            _ => VerifyError::Rejected(error.to_string()),
        })?;
        let proof = Proof::from_bytes(proof).map_err(refusal)?;
        shardproof_gkr::verify(&file.key, file.weights.as_ref(), &asserted.statement(), &proof).map_err(refusal)
    }
}

/// The card's keys, if they are gkr's.
pub(crate) fn keys_of(card: &ShardCard) -> Result<&GkrKeys, String> {
    match &card.keys {
        ShardKeys::Gkr(keys) => Ok(keys),
        ShardKeys::Float | ShardKeys::Ezkl(_) => Err(format!("the card registers keys of {}", card.backend.kind)),
    }
}

/// The key is what the card says of it.
pub(crate) fn check_key(card: &ShardCard, file: &KeyFile) -> Result<(), String> {
    let (registered, found) = (keys_of(card)?.weights, file.visibility());
    if registered != found {
        let words =
            |visibility: Option<_>| visibility.map_or_else(|| "no".to_owned(), |visibility| format!("{visibility}"));
        return Err(format!("the card registers {} weights, the key has {} ones", words(registered), words(found)));
    }
    check_tensors(file.key.graph(), card)
}

fn refusal(error: shardproof_gkr::VerifyError) -> VerifyError {
    use shardproof_gkr::VerifyError as Cause;
    let reason = error.to_string();
    match error {
        Cause::Weights(_) | Cause::WeightValue { .. } => VerifyError::Weights(reason),
        _ => VerifyError::Rejected(reason),
    }
}
