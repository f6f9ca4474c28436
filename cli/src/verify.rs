//! `shardproof verify`: a bundle, or evidence against a worker, against a model card, offline.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use shardproof_common::backend::{Job, ProofVerifier};
use shardproof_common::bundle::MAX_BUNDLE_BYTES;
use shardproof_common::card::ModelCard;
use shardproof_common::chain::{self, Report, Status, VerifyOptions};
use shardproof_common::format::{FormatError, read_capped};
use shardproof_common::ids::Digest;
use shardproof_common::receipt::PublicKey;
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{LoadOptions, ModelSource, input, parse_dim};

use crate::backends::EzklChoice;
use crate::evidence::{self, Trial};
use crate::output::{Outcome, Output};
use crate::{answer, card, job};

/// Checks a run's bundle against the model's card, offline. Exits 0 only when every check passed on every shard.
///
/// With --evidence, checks what is brought against a worker instead: exits 0 only when it convicts the worker, 3 when it
/// proves nothing.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The run's bundle.
    #[arg(required_unless_present = "evidence")]
    bundle: Option<PathBuf>,
    /// Evidence that a worker lied, instead of a bundle.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bundle", "input", "output", "allow_test_srs"])]
    evidence: Option<PathBuf>,
    /// The model card that the owner published.
    #[arg(long, value_name = "FILE")]
    card: PathBuf,
    /// The owner's key (64 hexadecimal digits); without it the card's own word is taken for who its owner is.
    #[arg(long, value_name = "KEY")]
    owner_key: Option<PublicKey>,
    /// The model, an ONNX file or a zoo name: checks that the card is for it. Evidence may need it to run a shard again.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The input that was sent (.npy or ezkl's JSON): checks that the run is about it.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The answer that was delivered (JSON with "outputs"): checks that it is the run's.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Accept proofs under an insecure test SRS. They convince nobody.
    #[arg(long)]
    allow_test_srs: bool,
    /// With --evidence and --model: the inputs that the owner calibrated on, as `card check` takes them [default: the model's own].
    #[arg(long, value_name = "FILE", requires = "evidence")]
    samples: Option<PathBuf>,
    /// With --evidence and --model: size of a symbolic dimension; may be repeated.
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim, requires = "evidence")]
    dims: Vec<(String, u64)>,
    #[command(flatten)]
    ezkl: EzklChoice,
}

/// All that a verification needs, read into memory.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(crate) bundle: Vec<u8>,
    pub(crate) card: ModelCard,
    pub(crate) owner_key: Option<PublicKey>,
    pub(crate) model: Option<Digest>,
    pub(crate) input: Option<Vec<FloatTensor>>,
    pub(crate) output: Option<Vec<f64>>,
    pub(crate) allow_test_srs: bool,
    pub(crate) ezkl: EzklChoice,
}

/// A file that could not be understood at all, in the form of a report.
#[derive(Debug, Serialize)]
struct Unreadable {
    status: &'static str,
    refusal: UnreadableRefusal,
}

#[derive(Debug, Serialize)]
struct UnreadableRefusal {
    check: &'static str,
    reason: String,
}

/// `shardproof verify`.
pub(crate) async fn run(args: VerifyArgs, output: Output) -> Result<Outcome> {
    let bundle = args.bundle.as_deref().map(read_bundle).transpose()?.transpose();
    let bundle = match bundle {
        Ok(bundle) => bundle,
        Err(reason) => return reject_unreadable("encoding", reason, output),
    };
    let card = match card::read(&args.card)? {
        Ok(card) => card,
        Err(reason) => return reject_unreadable("card", reason, output),
    };
    if let Some(evidence) = &args.evidence {
        let (owner_key, load) = (args.owner_key, LoadOptions { dims: args.dims.clone() });
        let (model, samples) = (args.model.as_deref(), args.samples.as_deref());
        return evidence::check(Trial { evidence, card, owner_key, model, samples, load }, output).await;
    }
    let bundle = bundle.context("neither a bundle nor evidence is given")?;
    let input_tensors = &card.body.plan.boundaries[0].tensors;
    let verification = Verification {
        bundle,
        owner_key: args.owner_key,
        model: args.model.as_deref().map(model_digest).transpose()?,
        input: args
            .input
            .as_deref()
            .map(|path| input::read_input(path, input_tensors).context("the input"))
            .transpose()?,
        output: args.output.as_deref().map(answer::read).transpose()?,
        allow_test_srs: args.allow_test_srs,
        ezkl: args.ezkl,
        card,
    };
    let mut report = verification.run(output).await?;
    if let (Status::Rejected(refusal), Some(path)) = (&mut report.status, &args.bundle)
        && refusal.check == chain::Check::Encoding
    {
        refusal.reason = format!("{}: {}", path.display(), refusal.reason);
    }
    output.data(&report, render)?;
    Ok(outcome_of(&report))
}

/// Only a run that is verified passes.
pub(crate) fn outcome_of(report: &Report) -> Outcome {
    if report.is_verified() { Outcome::Success } else { Outcome::Rejected }
}

impl Verification {
    /// Performs all checks.
    ///
    /// # Errors
    /// When no result can be reached, which says nothing about the run.
    pub(crate) async fn run(self, output: Output) -> Result<Report> {
        job::run("verifying offline", output, move |job| self.run_in(job)).await
    }

    fn run_in(&self, job: &Job<'_>) -> Result<Report> {
        let options = VerifyOptions {
            owner_key: self.owner_key,
            input: self.input.as_deref(),
            output: self.output.as_deref(),
            model: self.model,
            allow_test_srs: self.allow_test_srs,
        };
        let verifiers = self.ezkl.verifiers();
        let verifiers: Vec<&dyn ProofVerifier> = verifiers.iter().map(AsRef::as_ref).collect();
        Ok(chain::verify_bytes(&self.bundle, &self.card, &options, &verifiers, job)?)
    }
}

/// Digest of the file of a model.
fn model_digest(name_or_path: &str) -> Result<Digest> {
    Ok(Digest::of(&ModelSource::resolve(name_or_path)?.read()?))
}

/// Reads a bundle's file.
///
/// # Errors
/// The outer one when the file cannot be read, the inner when it is larger than a bundle can be.
fn read_bundle(path: &Path) -> Result<Result<Vec<u8>, String>> {
    match read_capped(path, MAX_BUNDLE_BYTES) {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error @ FormatError::TooLarge { .. }) => Ok(Err(format!("{}: {error}", path.display()))),
        Err(error) => Err(error).context("the bundle"),
    }
}

/// Reports a file that could not be understood.
pub(crate) fn reject_unreadable(check: &'static str, reason: String, output: Output) -> Result<Outcome> {
    let unreadable = Unreadable { status: "rejected", refusal: UnreadableRefusal { check, reason } };
    output.data(&unreadable, |unreadable| {
        format!("REJECTED: check `{}` failed: {}\n", unreadable.refusal.check, unreadable.refusal.reason)
    })?;
    Ok(Outcome::Rejected)
}

/// The report with what a reader should do next, where something stands in the way.
fn render(report: &Report) -> String {
    let mut text = format!("{report}\n");
    let srs_refused = matches!(&report.status, Status::Rejected(refusal) if refusal.check == chain::Check::Srs);
    if srs_refused {
        text.push_str("For trying things out, --allow-test-srs accepts it; such a proof convinces nobody.\n");
    }
    text
}
