//! `shardproof plan`: how a model would be cut and what that would cost, without running anything.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use shardproof_common::files;
use shardproof_coordinator::PlanArgs;
use shardproof_models::Split;

use crate::model::ChosenModel;
use crate::output::{Outcome, Output};

/// Shows how a model would be cut: shards, boundaries, and predicted cost. Runs nothing.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlanCommand {
    /// Zoo model (mlp, cnn, mlp2, attention, testing) or path of an .onnx file.
    model: String,
    /// Number of shards.
    #[arg(long, value_name = "N")]
    shards: usize,
    #[command(flatten)]
    plan: PlanArgs,
    /// Write the shards here, as ONNX files shard-0.onnx, shard-1.onnx, ...
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// `shardproof plan`.
pub(crate) fn run(args: &PlanCommand, output: Output) -> Result<Outcome> {
    let chosen = ChosenModel::load(&args.model, &args.plan.load_options())?;
    let split = args.plan.split(&chosen.model, args.shards)?;
    // A plan depends on none, but what would keep a coordinator from following it is said here.
    chosen.check_samples(args.plan.samples.as_deref())?;
    if let Some(directory) = &args.write {
        write_shards(&split, directory, output)?;
    }
    output.data(&split.report, |report| report.to_string())?;
    Ok(Outcome::Success)
}

fn write_shards(split: &Split, directory: &Path, output: Output) -> Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("{}: cannot make the directory", directory.display()))?;
    for shard in &split.shards {
        let path = directory.join(format!("shard-{}.onnx", shard.index));
        files::write_whole(&path, &shard.onnx)
            .with_context(|| format!("{}: cannot write the shard", path.display()))?;
    }
    output.say(&format!("wrote {} shards to {}", split.shards.len(), directory.display()));
    Ok(())
}
