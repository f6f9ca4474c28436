//! The checks that involve a proof system: version, settings, SRS, verifying key, and the proof itself.

use thiserror::Error;

use super::check::{Check, Refusal, printable};
use super::shard::{Place, check_receipt, place_of};
use crate::backend::{BackendError, Job, ProofVerifier, Registered, VerifyError, VerifyRequest};
use crate::bundle::ShardProof;
use crate::card::{ModelCard, ShardKeys};
use crate::ids::{Digest, RunId, ShardIndex};
use crate::plan::{BackendKind, BackendOptions, BoundaryMode, ParameterVisibility};
use crate::receipt::Receipt;
use crate::statement::{Boundary, Statement};
use crate::tensor::Tensor;

/// Why the verifier reached no result. Nothing is known about the run: neither that it is verified nor that it is not.
#[derive(Debug, Error)]
pub enum ChainError {
    /// No verifier for a proof system that the bundle has proofs of.
    #[error("shard {shard}: this program cannot check {kind} proofs")]
    NoVerifier {
        /// The proof system.
        kind: BackendKind,
        /// Which shard.
        shard: ShardIndex,
    },
    /// The proof system could not be run.
    #[error("shard {shard}: the proof could not be checked: {}", printable(&source.to_string()))]
    Unavailable {
        /// Which shard.
        shard: ShardIndex,
        /// Why.
        source: BackendError,
    },
    /// The user supplied something to compare with a boundary that the plan does not show.
    #[error("the {what} cannot be compared: boundary {boundary} is {mode}, not public")]
    NotShown {
        /// `input` or `output`.
        what: &'static str,
        /// Which boundary.
        boundary: usize,
        /// Its mode.
        mode: BoundaryMode,
    },
}

/// One proof as it arrives at the coordinator, with what it is checked against.
#[derive(Clone, Copy, Debug)]
pub struct ShardCheck<'a> {
    /// The owner's card.
    pub card: &'a ModelCard,
    /// The run.
    pub run: RunId,
    /// Which shard was asked for a proof.
    pub shard: ShardIndex,
    /// The receipt given at inference time: one that comes with the proof would let the worker choose what it proves.
    pub receipt: &'a Receipt,
    /// The verifying key's bytes, from the owner's side.
    pub verifying_key: &'a [u8],
    /// The backend's bytes.
    pub proof: &'a [u8],
    /// Encoding of the input boundary where the plan makes it public.
    pub input: Option<&'a [u8]>,
    /// Encoding of the output boundary where the plan makes it public.
    pub output: Option<&'a [u8]>,
    /// Accept an SRS that is for tests only.
    pub allow_test_srs: bool,
}

/// Why [`verify_shard`] did not accept.
#[derive(Debug, Error)]
pub enum ShardError {
    /// A check does not hold.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The proof could not be checked.
    #[error(transparent)]
    Unavailable(#[from] ChainError),
}

/// Checks one shard's proof with all that the offline verifier would check of that shard, its neighbours apart.
///
/// # Errors
/// [`ShardError::Refused`] with the first check that does not hold; [`ShardError::Unavailable`] when there is no result.
pub fn verify_shard(
    request: &ShardCheck<'_>,
    verifiers: &[&dyn ProofVerifier],
    job: &Job<'_>,
) -> Result<(), ShardError> {
    let ShardCheck { card, run, shard, receipt, verifying_key, proof, input, output, allow_test_srs } = *request;
    let refuse = |check| move |reason: String| Refusal::of_shard(check, shard, receipt.worker, reason);
    check_receipt(receipt, card, run, shard)?;
    let place = place_of(card, shard, receipt)?;
    if place.is_float() {
        return Err(refuse(Check::Leftover)("a proof of a shard that runs in float mode".to_owned()).into());
    }
    let statement = &receipt.statement;
    let open = |encoded: Option<&[u8]>, mode: BoundaryMode, boundary: &Boundary| match (encoded, mode) {
        (Some(encoded), BoundaryMode::Public) => {
            Ok(Some(place.open(encoded, boundary).map_err(refuse(Check::BoundaryTensors))?))
        }
        (None, BoundaryMode::Public) => Err(refuse(Check::BoundaryTensors)("the tensors are missing".to_owned())),
        (Some(_), _) => Err(refuse(Check::Leftover)(format!("tensors at a {mode} boundary"))),
        (None, _) => Ok(None),
    };
    let tensors = Shown {
        input: open(input, place.input.mode, &statement.input)?,
        output: open(output, place.output.mode, &statement.output)?,
    };
    let verifier = verifier_for(&place, verifiers)?;
    check_version(&place, verifier).map_err(refuse(Check::BackendVersion))?;
    check_settings(&place, verifier).map_err(refuse(Check::Settings))?;
    if place.registered.keys.insecure_test_srs() && !allow_test_srs {
        return Err(refuse(Check::Srs)(TEST_SRS.to_owned()).into());
    }
    check_verifying_key(&place, verifier, verifying_key).map_err(refuse(Check::VerifyingKey))?;
    let parts = ProofParts {
        statement,
        verifying_key,
        proof,
        input: tensors.input.as_deref(),
        output: tensors.output.as_deref(),
    };
    match verify_proof(&place, &parts, verifier, job)? {
        Ok(()) => Ok(()),
        Err((check, reason)) => Err(refuse(check)(reason).into()),
    }
}

/// What is said of a test SRS.
pub(super) const TEST_SRS: &str = "the SRS is an insecure one for tests: whoever made it can forge proofs";

struct Shown {
    input: Option<Vec<Tensor>>,
    output: Option<Vec<Tensor>>,
}

/// A proof and its neighbourhood in the bundle.
pub(super) struct ProofParts<'a> {
    pub(super) statement: &'a Statement,
    pub(super) verifying_key: &'a [u8],
    pub(super) proof: &'a [u8],
    pub(super) input: Option<&'a [Tensor]>,
    pub(super) output: Option<&'a [Tensor]>,
}

impl<'a> ProofParts<'a> {
    pub(super) fn new(
        statement: &'a Statement,
        proof: &'a ShardProof,
        input: Option<&'a [Tensor]>,
        output: Option<&'a [Tensor]>,
    ) -> Self {
        Self { statement, verifying_key: &proof.verifying_key, proof: &proof.proof, input, output }
    }
}

pub(super) fn verifier_for<'a>(
    place: &Place<'_>,
    verifiers: &[&'a dyn ProofVerifier],
) -> Result<&'a dyn ProofVerifier, ChainError> {
    let kind = place.registered.backend.kind;
    let found = verifiers.iter().find(|verifier| verifier.kind() == kind);
    found.copied().ok_or(ChainError::NoVerifier { kind, shard: place.index })
}

/// The card's version is the one that the verifier pins.
pub(super) fn check_version(place: &Place<'_>, verifier: &dyn ProofVerifier) -> Result<(), String> {
    let (expected, found) = (verifier.pinned_version(), &place.registered.backend.version);
    if found == expected { Ok(()) } else { Err(format!("expected {} {expected}, found {found}", verifier.kind())) }
}

/// The card's settings are what the plan asks for.
pub(super) fn check_settings(place: &Place<'_>, verifier: &dyn ProofVerifier) -> Result<(), String> {
    verifier.check_settings(place.registered, &registered(place))
}

/// The bytes are those of the registered key, and the key is what the card says of it.
pub(super) fn check_verifying_key(
    place: &Place<'_>,
    verifier: &dyn ProofVerifier,
    verifying_key: &[u8],
) -> Result<(), String> {
    let found = Digest::of(verifying_key);
    match place.registered.keys.verifying_key() {
        Some(expected) if expected == found => verifier.check_verifying_key(place.registered, verifying_key),
        Some(expected) => Err(format!("expected key {expected}, found {found}")),
        None => Err("the card registers no key for this shard".to_owned()),
    }
}

/// Has the proof system check the proof; the inner error names the check that does not hold.
pub(super) fn verify_proof(
    place: &Place<'_>,
    parts: &ProofParts<'_>,
    verifier: &dyn ProofVerifier,
    job: &Job<'_>,
) -> Result<Result<(), (Check, String)>, ChainError> {
    let ProofParts { statement, verifying_key, proof, input, output } = *parts;
    let card = place.registered;
    let request = VerifyRequest { statement, card, registered: registered(place), verifying_key, input, output, proof };
    match verifier.verify(&request, job) {
        Ok(()) => Ok(Ok(())),
        Err(VerifyError::Instances(reason)) => Ok(Err((Check::Instances, reason))),
        Err(VerifyError::Weights(reason)) => Ok(Err((Check::Weights, reason))),
        Err(VerifyError::Rejected(reason)) => Ok(Err((Check::Proof, reason))),
        Err(VerifyError::Unavailable(source)) => Err(ChainError::Unavailable { shard: place.index, source }),
    }
}

/// What ties a shard's weights to the card.
pub(super) enum WeightsTie {
    /// A verifying key that contains them, or hashes that the proof is compared with.
    Registered,
    /// Nothing.
    Nothing,
}

/// Whether the card ties the shard's weights to its proofs, and refuses a card that claims to and does not.
pub(super) fn weights_tie(place: &Place<'_>) -> Result<WeightsTie, String> {
    let hashes = place.registered.keys.parameter_hashes().len();
    let options = match (&place.plan.backend, &place.registered.keys) {
        (BackendOptions::Ezkl(options), _) => options,
        (BackendOptions::Gkr(options), ShardKeys::Gkr(keys)) => {
            // A graph without weights is fixed by the key alone, and so are the weights of one that has some.
            return match keys.weights {
                Some(found) if found != options.weights => {
                    Err(format!("the plan asks for {} weights, the card registers {found} ones", options.weights))
                }
                _ => Ok(WeightsTie::Registered),
            };
        }
        _ => return Ok(WeightsTie::Nothing),
    };
    match (options.parameters, hashes) {
        (ParameterVisibility::Hashed, 0) if place.plan.parameters > 0 => {
            Err("the weights are hashed, but the card registers no hash of them".to_owned())
        }
        (ParameterVisibility::Hashed, _) | (ParameterVisibility::Fixed, 0) => Ok(WeightsTie::Registered),
        (ParameterVisibility::Private, 0) => Ok(WeightsTie::Nothing),
        (visibility, hashes) => Err(format!("the card registers {hashes} hashes of weights that are {visibility:?}")),
    }
}

fn registered<'a>(place: &Place<'a>) -> Registered<'a> {
    Registered { options: &place.plan.backend, input_mode: place.input.mode, output_mode: place.output.mode }
}
