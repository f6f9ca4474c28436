//! `shardproof gc`: removes what nobody needs any more, at a coordinator that runs or in the data directory of a program that
//! does not.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use shardproof_common::clock;
use shardproof_coordinator::{Removed, Retention};
use shardproof_proto::v1::CollectRequest;
use shardproof_worker::Cleared;

use crate::cli::Usage;
use crate::client::{Client, CoordinatorAddress};
use crate::output::{Outcome, Output};

/// Removes old runs, artifacts that nothing refers to, transfers that broke off, and spooled runs that are past.
///
/// Runs under way, what they refer to, and what setups need stay in any case. A coordinator and a worker that run do this every
/// hour by themselves.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// Work in the data directory of a coordinator or worker that is not running, instead of asking one that is.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Remove runs that were submitted longer ago, in d, h, m or s; of a coordinator only [default: what the coordinator keeps;
    /// offline, none].
    #[arg(long, value_name = "DURATION", value_parser = clock::parse_duration)]
    keep_runs: Option<Duration>,
    /// Remove artifacts that nothing refers to, and transfers that broke off, that are older; of a coordinator only [default: what
    /// the coordinator keeps; offline, 24h].
    #[arg(long, value_name = "DURATION", value_parser = clock::parse_duration)]
    keep_artifacts: Option<Duration>,
    #[command(flatten)]
    coordinator: CoordinatorAddress,
}

/// Offline, what nothing refers to is kept so long.
const KEEP_ARTIFACTS: Duration = Duration::from_secs(24 * 3600);

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Collected {
    dry_run: bool,
    #[serde(flatten)]
    removed: Removed,
    #[serde(skip_serializing_if = "Option::is_none")]
    spool: Option<Cleared>,
}

/// `shardproof gc`.
///
/// # Errors
/// When there is no such coordinator or directory, it is in use, or its storage fails.
pub(crate) async fn run(args: GcArgs, output: Output) -> Result<Outcome> {
    if let Some(ignored) = args.ignored() {
        return Err(Usage(ignored).into());
    }
    let collected = match &args.data_dir {
        Some(directory) if directory.join("spool").is_dir() => {
            let spool = Some(shardproof_worker::collect_offline(directory, args.dry_run)?);
            Collected { dry_run: args.dry_run, spool, ..Collected::default() }
        }
        Some(directory) => {
            let keep_artifacts = args.keep_artifacts.unwrap_or(KEEP_ARTIFACTS);
            let retention = Retention { keep_runs: args.keep_runs, keep_artifacts };
            let removed = shardproof_coordinator::collect_offline(directory, &retention, args.dry_run).await?;
            Collected { dry_run: args.dry_run, removed, ..Collected::default() }
        }
        None => {
            let client = Client::connect(&args.coordinator).await?;
            let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let request = CollectRequest {
                dry_run: args.dry_run,
                keep_runs_ms: args.keep_runs.map(ms),
                keep_artifacts_ms: args.keep_artifacts.map(ms),
            };
            let answer = client.collect(request).await?;
            let removed = Removed {
                runs: answer.runs,
                artifacts: answer.artifacts,
                artifact_bytes: answer.artifact_bytes,
                transfers: answer.transfers,
                transfer_bytes: answer.transfer_bytes,
            };
            Collected { dry_run: args.dry_run, removed, ..Collected::default() }
        }
    };
    output.data(&collected, describe)?;
    Ok(Outcome::Success)
}

impl GcArgs {
    /// The option that would change nothing where the command works, and why.
    fn ignored(&self) -> Option<String> {
        let directory = self.data_dir.as_ref()?;
        if let Some(option) = self.coordinator.given() {
            return Some(format!("{option}: with --data-dir no coordinator is asked; give one of the two"));
        }
        let kept = [("--keep-runs", self.keep_runs), ("--keep-artifacts", self.keep_artifacts)];
        let (option, _) = kept.into_iter().find(|(_, given)| given.is_some() && directory.join("spool").is_dir())?;
        let directory = directory.display();
        Some(format!(
            "{option}: {directory} is a worker's, which keeps what its receipts promise; leave the option out"
        ))
    }
}

fn describe(collected: &Collected) -> String {
    let verb = if collected.dry_run { "would remove" } else { "removed" };
    match &collected.spool {
        Some(spool) => format!("{verb} {} spooled runs ({} bytes)\n", spool.entries, spool.bytes),
        None => {
            let Removed { runs, artifacts, artifact_bytes, transfers, transfer_bytes } = collected.removed;
            format!(
                "{verb} {runs} runs, {artifacts} artifacts ({artifact_bytes} bytes), \
                 {transfers} transfers that broke off ({transfer_bytes} bytes)\n"
            )
        }
    }
}
