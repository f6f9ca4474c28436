//! `forge`: writes the corpus of forged bundles, for anyone's verifier.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;
use shardproof_forgery::{Scene, corpus, table};

/// Writes bundles and cards that a verifier must refuse, with the check that must refuse each.
#[derive(Debug, Parser)]
struct Args {
    /// Directory that the corpus goes to.
    #[arg(long, value_name = "DIR", required_unless_present = "table")]
    out: Option<PathBuf>,
    /// What is forged; may be repeated [default: all that can be set up on this machine].
    #[arg(long = "scene", value_enum)]
    scenes: Vec<Scene>,
    /// From which all keys and runs follow; with gkr also every byte of the corpus.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the table of all forgeries in Markdown, and do nothing else.
    #[arg(long)]
    table: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.table {
        std::io::stdout().write_all(table::markdown().as_bytes())?;
        return Ok(());
    }
    let Some(out) = args.out else { bail!("--out is missing") };
    let say = |line: &str| {
        // Nobody may be listening.
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    let scenes = if args.scenes.is_empty() {
        let (here, missing): (Vec<Scene>, Vec<Scene>) =
            Scene::ALL.into_iter().partition(|scene| scene.missing().is_none());
        missing.into_iter().filter_map(Scene::missing).for_each(|reason| say(&format!("left out: {reason}")));
        here
    } else {
        args.scenes
    };
    let index = corpus::write(&out, &scenes, args.seed, say)?;
    say(&format!("wrote {} forgeries to {}", index.forgeries.len(), out.display()));
    Ok(())
}
