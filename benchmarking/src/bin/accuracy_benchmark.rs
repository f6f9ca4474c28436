//! `accuracy_benchmark`: how far a quantised model's answers are from the float model's.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shardproof_benchmarking::accuracy::{self, AccuracyOptions, CALIBRATION_INPUTS};
use shardproof_benchmarking::report;
use shardproof_common::plan::{BackendKind, CalibrationTarget};
use shardproof_models::Strategy;

/// How far a quantised model's answers are from the float model's.
///
/// Every input goes through the whole model in floats and through the quantised shards in integers: with gkr through
/// the executor whose values are served and proven, with ezkl through its witness generator. Shards are cut and
/// calibrated as a coordinator does. Included are all errors of quantisation: rounding of inputs, weights and
/// activations, clamping, tables. Excluded are time, proofs and the network, which change no value, and the float
/// engine's own rounding: floats are single precision.
///
/// INPUTS are of one kind, never filled up or augmented: with mlp, cnn, mlp2 and testing the digits that no training
/// step saw, with attention the zoo's samples, with --samples the file's, otherwise random (standard normal). Inputs
/// that calibration uses are left out where there are others. A run whose values leave the calibrated range ends with
/// an error instead of an answer: it is counted in `failed_runs`, named in errors.csv, and is in no figure of errors.
///
/// FIGURES, over all answered inputs and all values of the output. RMSE: root mean square of integers (dequantised)
/// less floats; relative: over the range of the float outputs. Percentage error: magnitude of the error over that of
/// the float value, without values below 1 % of the range, which are counted in `values_near_zero`. Class: whether a
/// single number is positive, else the place of the largest; agreement is over answered inputs, the task's accuracy
/// over all inputs, a failed run counting as wrong.
///
/// CUTS. `rmse_added_by_cuts`: the output's RMSE less that of one shard, over inputs that both answered; a negative one
/// means that the cut model happens to be nearer. boundaries.csv has, for the end of every shard, the error of what
/// came through all shards so far (`chain`) and of what this shard alone makes of the floats before it (`own`): where
/// `chain` is no larger than `own`, earlier errors do not matter. `accuracy_loss` is the sum of `own` over the shards.
///
/// DIR gets accuracy.csv, errors.csv, boundaries.csv, conditions.json and plots (SVG and PNG): errors-TARGET-SHARDS for
/// one shard and the most, rmse-by-shards. Files of these names are replaced.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Zoo model, benchmark model or path of an .onnx file
    model: String,
    /// Where the results are written
    #[arg(default_value = "benchmark-results/accuracy")]
    dir: PathBuf,
    /// Numbers of shards [default: 1,2,3,4,6,12 as far as the model can be cut so]
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',', value_parser = positive)]
    shards: Option<Vec<usize>>,
    /// Where to cut: balanced or layers
    #[arg(long, default_value = "balanced")]
    strategy: Strategy,
    /// What calibration optimises
    #[arg(long, value_name = "TARGET[,TARGET]", value_delimiter = ',', default_value = "resources,accuracy")]
    target: Vec<CalibrationTarget>,
    /// Most inputs [default: 1000; 10 with ezkl]
    #[arg(long, value_name = "N", value_parser = positive)]
    inputs: Option<usize>,
    /// Own inputs, .npy of shape [count, *input shape]; the first of them are calibrated on
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Most inputs that calibration uses; a coordinator takes 8
    #[arg(long, value_name = "N", default_value_t = CALIBRATION_INPUTS, value_parser = positive)]
    calibration: usize,
    /// Measure on calibration's inputs as well where there are others
    #[arg(long)]
    with_calibration: bool,
    /// Proof system whose integers are measured: gkr or ezkl
    #[arg(long, default_value = "gkr")]
    backend: BackendKind,
    /// gkr: bits of the weights' magnitudes instead of the target's
    #[arg(long, value_name = "BITS")]
    weight_bits: Option<u32>,
    /// gkr: bits of the activations' magnitudes instead of the target's
    #[arg(long, value_name = "BITS")]
    activation_bits: Option<u32>,
    /// Seed of random inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.trim().parse().ok().filter(|&number| number > 0).ok_or_else(|| format!("`{text}` is no number above 0"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let usual = if cli.backend == BackendKind::Ezkl { 10 } else { 1000 };
    let mut targets = Vec::new();
    for target in cli.target {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let options = AccuracyOptions {
        model: cli.model,
        directory: cli.dir,
        shards: cli.shards,
        strategy: cli.strategy,
        targets,
        inputs: cli.inputs.unwrap_or(usual),
        samples: cli.samples,
        calibration: cli.calibration,
        with_calibration: cli.with_calibration,
        backend: cli.backend,
        weight_bits: cli.weight_bits,
        activation_bits: cli.activation_bits,
        seed: cli.seed,
    };
    report::conclude("accuracy", cli.json, accuracy::measure(options)).await
}
