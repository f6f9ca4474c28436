//! The coordinator's command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use shardproof_common::machine;
use shardproof_common::plan::{
    BackendKind, BackendOptions, BoundaryMode, CalibrationTarget, EzklOptions, ParameterVisibility,
};
use shardproof_common::telemetry::LogFormat;

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
}

/// How a model is cut and proven.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Plan")]
pub struct PlanArgs {
    /// Proof system: ezkl (zero-knowledge), or float (runs in floats and proves nothing)
    #[arg(long, default_value = "ezkl")]
    pub backend: BackendKind,
    /// How boundaries between shards appear in proofs: public, hashed or polycommit
    #[arg(long, value_name = "MODE", default_value = "hashed")]
    pub boundary: BoundaryMode,
    /// Where to cut: balanced (smallest worst shard) or layers (equal counts of layers)
    #[arg(long, default_value = "balanced")]
    pub strategy: shardproof_models::Strategy,
    /// Size of a symbolic dimension; may be repeated
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    pub dims: Vec<(String, u64)>,
    /// Calibration samples, .npy or ezkl's JSON [default: the zoo's samples, or seeded random ones]
    #[arg(long, value_name = "FILE")]
    pub samples: Option<PathBuf>,
    /// What calibration optimises: resources or accuracy
    #[arg(long, default_value = "resources")]
    pub target: CalibrationTarget,
    /// How the weights enter the circuit: fixed (in the verifying key), hashed, or private (bound by nothing)
    #[arg(long, value_name = "VISIBILITY", default_value = "fixed")]
    pub parameters: ParameterVisibility,
    /// Scale of the model's input instead of the calibrated one
    #[arg(long, value_name = "S")]
    pub input_scale: Option<i32>,
    /// Scale of the weights instead of the calibrated one
    #[arg(long, value_name = "S")]
    pub parameter_scale: Option<i32>,
    /// Range of the lookup tables instead of the calibrated one
    #[arg(long, value_name = "LO,HI", value_parser = parse_range, allow_hyphen_values = true)]
    pub lookup_range: Option<(i64, i64)>,
    /// log2 of the circuit's rows instead of the calibrated one
    #[arg(long, value_name = "K")]
    pub logrows: Option<u32>,
}

impl PlanArgs {
    /// The plan's options for every shard.
    pub fn backend_options(&self) -> BackendOptions {
        match self.backend {
            BackendKind::Float => BackendOptions::Float,
            BackendKind::Ezkl => BackendOptions::Ezkl(EzklOptions {
                target: self.target,
                parameters: self.parameters,
                input_scale: self.input_scale,
                parameter_scale: self.parameter_scale,
                lookup_range: self.lookup_range,
                logrows: self.logrows,
            }),
        }
    }

    /// Mode of the boundaries between shards. Without proofs there is nothing to commit to.
    pub fn inner_mode(&self) -> BoundaryMode {
        match self.backend {
            BackendKind::Float => BoundaryMode::Public,
            BackendKind::Ezkl => self.boundary,
        }
    }
}

/// How the service runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Service")]
pub struct ServiceArgs {
    /// Directory for keys, artifacts and runs [default: coordinator-PORT in the user's data directory]
    #[arg(long, value_name = "DIR", env = "SHARDPROOF_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address that workers reach this coordinator at [default: the one that it listens on]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Admit only workers whose keys are in this file, one a line [default: any worker that can connect]
    #[arg(long, value_name = "FILE")]
    pub admit: Option<PathBuf>,
    /// SRS file of a trusted ceremony [default: a cached test SRS, which is insecure]
    #[arg(long, value_name = "FILE")]
    pub srs: Option<PathBuf>,
    /// Use this `ezkl` program instead of the Python wheel
    #[arg(long, value_name = "PATH")]
    pub ezkl_cli: Option<PathBuf>,
    /// Memory that one setup or proof may use, bytes, with K, M, G or T [default: this machine's]
    #[arg(long, value_name = "BYTES", value_parser = machine::parse_bytes)]
    pub memory_limit: Option<u64>,
    /// Seconds that the setup of one shard may take
    #[arg(long, value_name = "SECS", default_value_t = 4 * 3600)]
    pub setup_deadline: u64,
    /// Seconds that one proof may take
    #[arg(long, value_name = "SECS", default_value_t = 4 * 3600)]
    pub prove_deadline: u64,
    /// Seconds that one run may take
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    pub run_deadline: u64,
    /// Seconds that a worker that owes a proof may be away
    #[arg(long, value_name = "SECS", default_value_t = 60)]
    pub rejoin_grace: u64,
    /// Runs under way at a time
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub max_runs: usize,
    /// Log lines for people (text) or programs (json)
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Exit when standard input closes
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// `NAME=N`.
fn parse_dim(text: &str) -> Result<(String, u64), String> {
    let (name, size) = text.split_once('=').ok_or("expected NAME=N")?;
    let size = u64::from_str(size).ok().filter(|&size| size > 0).ok_or_else(|| format!("`{size}` is no size"))?;
    Ok((name.to_owned(), size))
}

/// `LO,HI`.
fn parse_range(text: &str) -> Result<(i64, i64), String> {
    let (low, high) = text.split_once(',').ok_or("expected LO,HI")?;
    let number = |text: &str| i64::from_str(text.trim()).map_err(|_| format!("`{text}` is no integer"));
    let range = (number(low)?, number(high)?);
    if range.0 < range.1 { Ok(range) } else { Err(format!("{} is not below {}", range.0, range.1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_dims_parse_or_say_why() {
        assert_eq!(parse_range("-10,20"), Ok((-10, 20)));
        assert!(parse_range("3,3").is_err());
        assert_eq!(parse_dim("batch=2"), Ok(("batch".into(), 2)));
        assert!(parse_dim("batch=0").is_err());
    }
}
