//! The worker's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use shardproof_common::address;
use shardproof_common::clock;
use shardproof_common::hold::HoldAt;
use shardproof_common::ids::Role;
use shardproof_ezkl::KeepWarm;
use shardproof_proto::transport::ListenArgs;

/// A number of places, of which there is one at least; as many as this, each with a run in memory, are beyond any machine.
fn places() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// What a worker is told when it starts.
#[derive(Args, Clone, Debug)]
pub struct WorkerArgs {
    /// Host or address to listen on for activations
    pub host: String,
    /// Port to listen on; 0 takes a free one
    pub port: u16,
    /// Host of the coordinator
    pub coordinator_host: String,
    /// Port of the coordinator
    pub coordinator_port: u16,
    /// Place in the chain: FIRST, MIDDLE, LAST or SOLO
    pub role: Role,
    /// Directory for key, shard files and spooled boundaries [default: worker-PORT in the user's data directory]
    #[arg(long, value_name = "DIR", env = "SHARDPROOF_WORKER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address that neighbours reach this worker at [default: the one that it listens on]
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse)]
    pub advertise: Option<String>,
    /// Runs accepted and not yet passed on, beyond which the previous worker has to wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = places())]
    pub queue: usize,
    /// Inferences at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = places())]
    pub concurrency: usize,
    /// Seconds without a sign of life after which a neighbour is given up that a boundary is handed to, or that hands one over
    #[arg(long, value_name = "SECS", default_value_t = 20, value_parser = clock::seconds(1))]
    pub hop_deadline: u64,
    /// Seconds that what is under way may take to end once the program is told to stop
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clock::seconds(0))]
    pub drain_deadline: u64,
    /// Memory that one job may use, bytes, with K, M, G or T [default: this machine's]
    #[arg(long, value_name = "BYTES", value_parser = shardproof_common::machine::parse_bytes)]
    pub memory_limit: Option<u64>,
    /// How long a run can be proven after its receipt, which promises it: what proofs need is kept for so long, as 24h, 30m or 7d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = clock::parse_duration)]
    pub keep_spool: Duration,
    /// Bytes that spooled runs may take on disk, with K, M, G or T; beyond, boundaries are refused and nothing is evicted
    #[arg(long, value_name = "BYTES", default_value = "32G", value_parser = shardproof_common::machine::parse_bytes)]
    pub spool_limit: u64,
    /// Use this `ezkl` program instead of the Python wheel
    #[arg(long, value_name = "PATH")]
    pub ezkl_cli: Option<PathBuf>,
    /// How long a process with ezkl loaded waits for the next job after one has ended (40 to 134 MB); 0 starts one per job
    #[arg(long, value_name = "N", default_value_t = KeepWarm::SERVICE.idle.as_secs(), value_parser = clock::seconds(0))]
    pub warm_seconds: u64,
    /// gkr: add where each proof's time went to this CSV file, one row for each step and layer
    #[arg(long, value_name = "FILE")]
    pub timings: Option<PathBuf>,
    /// Who may reach it
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Log lines for people (text) or programs (json)
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: shardproof_common::telemetry::LogFormat,
    /// Wait before every proof, to see proofs of different shards overlap
    #[arg(long, value_name = "MS", hide = true)]
    pub prove_delay_ms: Option<u64>,
    /// Shift what this process takes for the wall clock, to see what a clock that jumps does
    #[arg(long, value_name = "MS", hide = true, default_value_t = 0, allow_hyphen_values = true)]
    pub clock_offset_ms: i64,
    /// Hold at a stage (STAGE, or STAGE:N for the N-th time) until SIGUSR1, for tests of faults
    #[arg(long, value_name = "STAGE", hide = true)]
    pub hold_at: Option<HoldAt>,
    /// Exit when standard input closes
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}
