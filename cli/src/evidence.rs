//! Evidence on the command line: fetched from a coordinator, and checked offline by anyone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use shardproof_common::backend::Job;
use shardproof_common::card::ModelCard;
use shardproof_common::evidence::{Conviction, Evidence, EvidenceError, Executable, MAX_EVIDENCE_BYTES};
use shardproof_common::format::{FormatError, read_capped};
use shardproof_common::ids::RunId;
use shardproof_common::receipt::PublicKey;
use shardproof_coordinator::CALIBRATION_SAMPLES;
use shardproof_gkr_service::GkrReexecutor;
use shardproof_models::LoadOptions;

use crate::card_check;
use crate::client::{Client, CoordinatorAddress};
use crate::job;
use crate::model::ChosenModel;
use crate::output::{Outcome, Output};

/// Fetches what convicts a worker of having lied in a run.
#[derive(Debug, Args)]
pub(crate) struct EvidenceArgs {
    /// The run.
    run: RunId,
    /// Where the evidence goes [default: RUN.evidence].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// With the shard in integers, where checking needs it: IT SHOWS THE WEIGHTS. Given to the owner only. Without it,
    /// whoever checks needs the model.
    #[arg(long)]
    with_shard: bool,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// A file that was fetched.
#[derive(Debug, Serialize)]
struct Fetched {
    run: String,
    evidence: PathBuf,
    bytes: u64,
    with_shard: bool,
}

/// `shardproof evidence`.
pub(crate) async fn fetch(args: EvidenceArgs, output: Output) -> Result<Outcome> {
    let client = Client::connect(&args.coordinator).await?;
    let path = args.out.unwrap_or_else(|| PathBuf::from(format!("{}.evidence", args.run)));
    let bytes = client.fetch_evidence(args.run, args.with_shard, &path).await?;
    let with_shard = Evidence::decode(&read_capped(&path, MAX_EVIDENCE_BYTES)?)?.executable().is_some();
    let fetched = Fetched { run: args.run.to_string(), evidence: path, bytes, with_shard };
    output.data(&fetched, |fetched| {
        let secret = if fetched.with_shard { "\nIt shows the shard's weights.\n" } else { "\n" };
        format!(
            "evidence  {0}{secret}Check it: shardproof verify --evidence {0} --card CARD\n",
            fetched.evidence.display()
        )
    })?;
    Ok(Outcome::Success)
}

/// What evidence is checked against.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    pub(crate) evidence: &'a Path,
    pub(crate) card: ModelCard,
    pub(crate) owner_key: Option<PublicKey>,
    pub(crate) model: Option<&'a str>,
    pub(crate) samples: Option<&'a Path>,
    pub(crate) load: LoadOptions,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Finding {
    convicts: bool,
    #[serde(flatten)]
    conviction: Option<Conviction>,
    /// Why it proves nothing.
    reason: Option<String>,
}

impl Finding {
    fn nothing(reason: impl ToString) -> Self {
        Self { convicts: false, conviction: None, reason: Some(reason.to_string()) }
    }

    fn render(&self) -> String {
        match (&self.conviction, &self.reason) {
            (Some(conviction), _) => format!("CONVICTED: {conviction}\n"),
            (None, reason) => format!("PROVES NOTHING: {}\n", reason.as_deref().unwrap_or("no reason given")),
        }
    }
}

/// `shardproof verify --evidence`: succeeds exactly when the evidence convicts.
pub(crate) async fn check(trial: Trial<'_>, output: Output) -> Result<Outcome> {
    let finding = find(trial, output).await?;
    output.data(&finding, Finding::render)?;
    Ok(if finding.convicts { Outcome::Success } else { Outcome::Rejected })
}

async fn find(trial: Trial<'_>, output: Output) -> Result<Finding> {
    let bytes = match read_capped(trial.evidence, MAX_EVIDENCE_BYTES) {
        Ok(bytes) => bytes,
        Err(error @ FormatError::Io { .. }) => return Err(error).context("the evidence"),
        Err(error) => return Ok(Finding::nothing(error)),
    };
    let evidence = match Evidence::decode(&bytes) {
        Ok(evidence) => evidence,
        Err(error) => return Ok(Finding::nothing(error)),
    };
    if let Some(expected) = trial.owner_key.filter(|&key| key != trial.card.owner) {
        let found = trial.card.owner;
        return Ok(Finding::nothing(format!("expected the card of owner {expected}, found one of {found}")));
    }
    let bring = match trial.model.filter(|_| evidence.lacks_executable()) {
        Some(name) => {
            let chosen = ChosenModel::load(name, &trial.load)?;
            let samples = chosen.samples(trial.samples, CALIBRATION_SAMPLES)?;
            Some((chosen, samples))
        }
        None => None,
    };
    let card = trial.card;
    let checked = job::run("checking the evidence", output, move |job| {
        let brought = bring.map(|(chosen, samples)| {
            let shard = evidence.receipt().statement.shard;
            card_check::executable(&chosen, samples, &card, shard, job)
        });
        judge(&evidence, &card, brought.transpose()?.as_ref(), job)
    });
    checked.await
}

fn judge(evidence: &Evidence, card: &ModelCard, brought: Option<&Executable>, job: &Job<'_>) -> Result<Finding> {
    match evidence.check(card, brought, &GkrReexecutor, job) {
        Ok(conviction) => Ok(Finding { convicts: true, conviction: Some(conviction), reason: None }),
        Err(EvidenceError::Unavailable(error)) => Err(error.into()),
        Err(error @ EvidenceError::NoExecutable) => bail!(error),
        Err(error) => Ok(Finding::nothing(error)),
    }
}
