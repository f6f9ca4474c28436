//! The coordinator's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use shardproof_common::address;
use shardproof_common::audit::AuditPolicy;
use shardproof_common::clock;
use shardproof_common::hold::HoldAt;
use shardproof_common::machine;
use shardproof_common::telemetry::LogFormat;
use shardproof_proto::transport::activations::LONGEST_RUN;

use crate::access::AccessArgs;
use crate::plan_args::PlanArgs;

/// What a coordinator is told when it starts.
#[derive(Args, Clone, Debug)]
pub struct CoordinatorArgs {
    /// Host or address to listen on
    pub host: String,
    /// Port to listen on; 0 takes a free one
    pub port: u16,
    /// Number of shards
    pub shards: usize,
    /// Zoo model (mlp, cnn, mlp2, attention, testing) or path of an .onnx file
    pub model: String,
    /// How the shards are cut and proven
    #[command(flatten)]
    pub plan: PlanArgs,
    /// How the service runs
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Who may reach it
    #[command(flatten)]
    pub access: AccessArgs,
}

/// How the service runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Service")]
pub struct ServiceArgs {
    /// Directory for keys, artifacts and runs [default: coordinator-PORT in the user's data directory]
    #[arg(long, value_name = "DIR", env = "SHARDPROOF_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Postgres database for runs, receipts, proof requests and the lease, shared by coordinators of one service
    /// [default: SQLite in the data directory]
    #[arg(long, value_name = "URL", env = "SHARDPROOF_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// Object store for shards, keys, inputs, answers and proofs, shared by coordinators of one service: s3://BUCKET/PREFIX with
    /// AWS_ENDPOINT, AWS_REGION and credentials in the environment, or file:///DIRECTORY [default: the data directory]
    #[arg(long, value_name = "URL", env = "SHARDPROOF_ARTIFACTS")]
    pub artifacts: Option<String>,
    /// Address that workers reach this coordinator at [default: the one that it listens on]
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse)]
    pub advertise: Option<String>,
    /// Admit workers whose keys are in this file, one a line, and those of `shardproof workers admit`, and no others [default: any
    /// worker that can connect, until the first is admitted]
    #[arg(long, value_name = "FILE")]
    pub admit: Option<PathBuf>,
    /// Proofs to ask for without a request: always, request, runs:SHARE or shards:SHARE, a share from 0 to 1 drawn at random
    #[arg(long, value_name = "POLICY", default_value_t = AuditPolicy::Request)]
    pub audit: AuditPolicy,
    /// Seconds that a client has to reveal its nonce once its run is answered, after which the run counts as not audited
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clock::seconds(0))]
    pub reveal_deadline: u64,
    /// ezkl: SRS file of a trusted ceremony [default: a cached test SRS, which is insecure]
    #[arg(long, value_name = "FILE")]
    pub srs: Option<PathBuf>,
    /// Use this `ezkl` program instead of the Python wheel
    #[arg(long, value_name = "PATH")]
    pub ezkl_cli: Option<PathBuf>,
    /// Memory that one setup or proof may use, bytes, with K, M, G or T [default: this machine's]
    #[arg(long, value_name = "BYTES", value_parser = machine::parse_bytes)]
    pub memory_limit: Option<u64>,
    /// Seconds that the setup of one shard may take
    #[arg(long, value_name = "SECS", default_value_t = 4 * 3600, value_parser = clock::seconds(0))]
    pub setup_deadline: u64,
    /// Seconds that one proof may take
    #[arg(long, value_name = "SECS", default_value_t = 4 * 3600, value_parser = clock::seconds(0))]
    pub prove_deadline: u64,
    /// Seconds that one run may take, a day at most
    #[arg(long, value_name = "SECS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(..=LONGEST_RUN.as_secs()))]
    pub run_deadline: u64,
    /// Seconds that a worker that owes a proof may be away
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clock::seconds(0))]
    pub rejoin_grace: u64,
    /// Shortest time for which a receipt must promise that its statement can be proven, as 1h, 30m or 7d: a worker that promises
    /// less could not be held to anything, and rejects the run
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = clock::parse_duration)]
    pub provable_for: Duration,
    /// Seconds that a worker may take for each step of a dispute with its neighbour: to show what it put out, to sign for what
    /// it is handed
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clock::seconds(0))]
    pub dispute_deadline: u64,
    /// Seconds without a sign of life after which the first worker, handed an input, or the last, with an answer, is given up
    #[arg(long, value_name = "SECS", default_value_t = 20, value_parser = clock::seconds(1))]
    pub hop_deadline: u64,
    /// Seconds that what is under way may take to end once the program is told to stop
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clock::seconds(0))]
    pub drain_deadline: u64,
    /// Keep runs so long after their submission, in d, h, m or s [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = clock::parse_duration)]
    pub keep_runs: Option<Duration>,
    /// Keep artifacts that nothing refers to, and transfers that broke off, so long
    #[arg(long, value_name = "DURATION", value_parser = clock::parse_duration, default_value = "24h")]
    pub keep_artifacts: Duration,
    /// Log lines for people (text) or programs (json)
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
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
