//! `benchmark_results`: the published results, measured and explained.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use shardproof_benchmarking::error::BenchError;
use shardproof_benchmarking::results::{collect, page, suite};

/// Makes the page of results and its plots from the tables that are published, or measures the tables first.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Folder with the published tables; page and plots go there
    #[arg(long, value_name = "DIR", default_value = "benchmarking/results")]
    results: PathBuf,
    /// Measure first: quick (a small model, a minute or two) or full (all models and systems, hours); what an earlier call
    /// measured of the service is not measured again
    #[arg(long, value_enum)]
    measure: Option<Measure>,
    /// Where what is measured goes before it is brought together
    #[arg(long, value_name = "DIR", default_value = "benchmark-results")]
    work: PathBuf,
    /// Folder with the adapters of other proof systems
    #[arg(long, value_name = "DIR", default_value = "benchmarking/adapters")]
    adapters: PathBuf,
    /// Bring together what was measured in the work folder, without measuring
    #[arg(long)]
    collect: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    Quick,
    Full,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benchmark_results: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<(), BenchError> {
    if let Some(measure) = cli.measure {
        let absolute = |path: &Path| std::path::absolute(path).map_err(BenchError::io(path.display().to_string()));
        let tasks = suite::tasks(measure == Measure::Full, &absolute(&cli.work)?, &absolute(&cli.adapters)?);
        suite::run(&tasks).await?;
    }
    if cli.measure.is_some() || cli.collect {
        collect::collect(&cli.work, &cli.results)?;
    }
    page::write(&cli.results)?;
    eprintln!("{}", cli.results.join("README.md").display());
    Ok(())
}
