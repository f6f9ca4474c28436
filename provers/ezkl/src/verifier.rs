//! The verifier's side: a proof against a statement and registered keys, with nothing taken from the prover but the proof.
//!
//! Instances and the points that lead the proof are made from the statement and the card. ezkl ignores what follows a
//! proof, so a proof is accepted only if it no longer verifies once its last byte is cut off: then every byte counted.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use shardproof_common::backend::{BackendError, Job, ProofVerifier, Registered, VerifyError, VerifyRequest};
use shardproof_common::card::ShardCard;
use shardproof_common::plan::BackendKind;
use thiserror::Error;

use crate::VERSION;
use crate::backend::keys_of;
use crate::check::{Mismatch, checked, verifier_srs};
use crate::config::EzklConfig;
use crate::field::Felt;
use crate::frame::Frame;
use crate::layout::{LayoutError, PublicTensors, instances, leading_points, starts_with};
use crate::runner::{CallError, Op, Runner};
use crate::tools::{Succession, Tools};

/// Largest proof that is looked at, in bytes.
pub(crate) const MAX_PROOF_BYTES: usize = 16 << 20;
/// Points are two words of this size, scalars one.
const WORD_BYTES: usize = 32;

/// Checks ezkl's proofs.
#[derive(Clone, Debug)]
pub struct EzklVerifier {
    tools: Tools,
}

/// Why a proof is not one of its statement.
#[derive(Debug, Error)]
enum Rejection {
    #[error("the proof has {found} bytes, more than the {MAX_PROOF_BYTES} that a proof may have")]
    TooLarge { found: usize },
    #[error("the proof has {found} bytes, which is no whole number of words")]
    Ragged { found: usize },
    #[error("the proof was made by version {found}, expected {VERSION}")]
    Version { found: String },
    #[error(transparent)]
    Settings(#[from] Mismatch),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("the commitments that lead the proof are not those of the statement")]
    Commitments,
    #[error("the proof does not verify: {0}")]
    Proof(String),
    #[error("bytes follow the proof")]
    Trailing,
}

impl From<Rejection> for VerifyError {
    fn from(rejection: Rejection) -> Self {
        let reason = rejection.to_string();
        match rejection {
            Rejection::Layout(LayoutError::ParameterHash { .. }) => Self::Weights(reason),
            Rejection::Layout(_) | Rejection::Commitments => Self::Instances(reason),
            _ => Self::Rejected(reason),
        }
    }
}

impl EzklVerifier {
    /// A verifier that starts ezkl as `config` says, when it is first needed.
    pub fn new(config: EzklConfig) -> Self {
        Self { tools: Tools::new(config, Succession::New) }
    }
}

impl ProofVerifier for EzklVerifier {
    fn kind(&self) -> BackendKind {
        BackendKind::Ezkl
    }

    fn pinned_version(&self) -> &str {
        VERSION
    }

    fn check_settings(&self, card: &ShardCard, registered: &Registered<'_>) -> Result<(), String> {
        checked(card, registered).map(drop).map_err(|mismatch| mismatch.to_string())
    }

    fn verify(&self, request: &VerifyRequest<'_>, job: &Job<'_>) -> Result<(), VerifyError> {
        let public = public_part(request)?;
        let frame = Frame::new(job, self.tools.config.stall);
        let files = Files::write(request, &public, &frame)?;
        self.tools.with_runner(&frame, |runner| {
            frame.at("verify");
            if let Verdict::Rejected(reason) = files.verify(&files.proof, runner, &frame)? {
                return Err(Rejection::Proof(reason).into());
            }
            match files.verify(&files.shortened, runner, &frame)? {
                Verdict::Rejected(_) => Ok(()),
                Verdict::Accepted => Err(Rejection::Trailing.into()),
            }
        })
    }
}

/// The instances of a proof that passes everything that can be checked without ezkl.
fn public_part(request: &VerifyRequest<'_>) -> Result<Vec<Felt>, VerifyError> {
    let (found, keys) = (request.proof.len(), keys_of(request.card)?);
    if found > MAX_PROOF_BYTES {
        return Err(Rejection::TooLarge { found }.into());
    }
    if found == 0 || !found.is_multiple_of(WORD_BYTES) {
        return Err(Rejection::Ragged { found }.into());
    }
    if request.statement.backend.version != VERSION {
        return Err(Rejection::Version { found: request.statement.backend.version.clone() }.into());
    }
    checked(request.card, &request.registered).map_err(Rejection::Settings)?;
    let tensors = PublicTensors { input: request.input, output: request.output };
    let public = instances(request.statement, keys, &request.registered, tensors).map_err(Rejection::Layout)?;
    let points = leading_points(request.statement, &request.registered).map_err(Rejection::Layout)?;
    if starts_with(request.proof, &points) { Ok(public) } else { Err(Rejection::Commitments.into()) }
}

/// What ezkl reads, in the job's directory.
struct Files {
    proof: PathBuf,
    shortened: PathBuf,
    settings: PathBuf,
    vk: PathBuf,
    srs: PathBuf,
}

enum Verdict {
    Accepted,
    Rejected(String),
}

impl Files {
    fn write(request: &VerifyRequest<'_>, instances: &[Felt], frame: &Frame<'_>) -> Result<Self, VerifyError> {
        let path = |name: &str| frame.job.directory.join(name);
        let files = Self {
            proof: path("verify-proof.json"),
            shortened: path("verify-shortened.json"),
            settings: path("verify-settings.json"),
            vk: path("verify-vk.key"),
            srs: path("verify.srs"),
        };
        let keys = keys_of(request.card)?;
        let srs = verifier_srs(keys).map_err(Rejection::Settings)?;
        let shortened = &request.proof[..request.proof.len() - 1];
        for (path, content) in [
            (&files.proof, proof_file(instances, request.proof).as_bytes()),
            (&files.shortened, proof_file(instances, shortened).as_bytes()),
            (&files.settings, keys.settings.as_bytes()),
            (&files.vk, request.verifying_key),
            (&files.srs, &srs),
        ] {
            fs::write(path, content).map_err(BackendError::io(path))?;
        }
        Ok(files)
    }

    fn verify(&self, proof: &PathBuf, runner: &mut dyn Runner, frame: &Frame<'_>) -> Result<Verdict, BackendError> {
        let call = Op::Verify { proof, settings: &self.settings, vk: &self.vk, srs: &self.srs, reduced_srs: true };
        match runner.call(&call, frame) {
            Ok(_) => Ok(Verdict::Accepted),
            Err(CallError::Refused { message, .. }) if is_verdict(&message) => Ok(Verdict::Rejected(message)),
            Err(error) => Err(error.at(call.step())),
        }
    }
}

/// Whether ezkl judged the proof, rather than failed to read its files. A panic on a proof counts against the proof.
pub(crate) fn is_verdict(message: &str) -> bool {
    ["[halo2]", "ezkl panicked", "ezkl answered no"].iter().any(|sign| message.contains(sign))
}

/// ezkl's `proof.json` around a transcript.
fn proof_file(instances: &[Felt], proof: &[u8]) -> String {
    let instances: Vec<String> = instances.iter().map(|felt| felt.to_hex()).collect();
    json!({ "instances": [instances], "proof": proof, "hex_proof": format!("0x{}", hex::encode(proof)) }).to_string()
}
