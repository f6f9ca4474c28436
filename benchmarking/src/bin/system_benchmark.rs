//! `system_benchmark`: the whole service over numbers of shards.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shardproof_benchmarking::report;
use shardproof_benchmarking::system::{self, ProvenBy, SHARD_COUNTS, ShardCounts, SystemOptions};
use shardproof_common::machine;
use shardproof_common::plan::{BoundaryMode, CalibrationTarget, WeightVisibility};

/// The whole service over numbers of shards: times, sizes, memory, bytes on the wire.
///
/// For each number of shards a coordinator and one worker per shard are started as processes with empty data, all on this
/// machine. Runs are proven in two ways: the shards one after the other, so that each proof has the machine to itself, and all
/// at once, as the service does it.
///
/// setup: the coordinator's calls for settings and keys, without starting it, reading the model and making an SRS.
/// witness: running a shard in integers and signing the receipt, as the worker tells. prove: from keys in memory (gkr) or on
/// disk (ezkl) to the proof's bytes, as the worker tells, without sending them; summed over shards that were proven one after
/// the other. longest: the longest of these, which is what proving would take with one such machine for each shard, sending and
/// verifying apart: a projection. on the clock: from the client's request for all proofs at once to the last verdict, sending
/// and verifying included, all workers on this machine. verify: the coordinator's checks, summed over shards. worker: most
/// memory of a worker with its children. on the wire: all bytes that any connection of the service carried, handing out shards
/// and keys and all repetitions included.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Zoo model or path of an .onnx file
    model: String,
    /// Numbers of shards, such as 4 or 1,2,4 [default: 1,2,3,4,6,12]
    shards: Option<ShardCounts>,
    /// Proof system
    #[arg(long, value_enum, default_value_t = ProvenBy::Gkr)]
    backend: ProvenBy,
    /// Boundaries between shards: committed or public with gkr, hashed, polycommit or public with ezkl
    #[arg(long, value_name = "MODE")]
    boundary: Option<BoundaryMode>,
    /// gkr: whether verifiers get the weights: committed (no) or public (yes)
    #[arg(long, value_name = "VISIBILITY", default_value = "committed")]
    weights: WeightVisibility,
    /// What calibration optimises: resources or accuracy
    #[arg(long, default_value = "resources")]
    target: CalibrationTarget,
    /// Runs, each proven in both ways; tables show all, the summary their medians [default: 3 with gkr, 1 with ezkl]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: Option<u16>,
    /// Prove the shards one after the other only, which halves the time
    #[arg(long)]
    apart_only: bool,
    /// Seconds that one number of shards may take; it fails beyond
    #[arg(long, value_name = "SECS", default_value_t = 3600)]
    time_limit: u64,
    /// Memory that a shard may be predicted to need, with K, M, G; beyond, it is not tried [default: this machine's]
    #[arg(long, value_name = "BYTES", value_parser = machine::parse_bytes)]
    memory_limit: Option<u64>,
    /// Where records, tables and plots go, in a folder for each model; what is there already is not measured again
    #[arg(long, value_name = "DIR", default_value = "benchmark-results/system")]
    out: PathBuf,
    /// Measure again what is there already
    #[arg(long)]
    again: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Options for the coordinator, after `--`
    #[arg(last = true)]
    coordinator: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let usual = if cli.backend == ProvenBy::Gkr { 3 } else { 1 };
    let options = SystemOptions {
        model: cli.model,
        shards: cli.shards.map_or_else(|| SHARD_COUNTS.to_vec(), |ShardCounts(counts)| counts),
        backend: cli.backend,
        boundary: cli.boundary,
        weights: cli.weights,
        target: cli.target,
        repeats: usize::from(cli.repeats.unwrap_or(usual)),
        apart_only: cli.apart_only,
        time_limit: Duration::from_secs(cli.time_limit),
        memory_limit: cli.memory_limit.or_else(machine::memory_bytes).unwrap_or(u64::MAX),
        directory: cli.out,
        again: cli.again,
        coordinator_options: cli.coordinator,
    };
    report::conclude_whole("system", cli.json, system::measure(options), system::SystemReport::is_whole).await
}
