//! How far a quantised model's answers are from the float model's, over many inputs, cut into different numbers of shards.
//!
//! For the native prover the integers are those of its executor, shard by shard, which are the served answer and the
//! witness of the proof; for ezkl those of its witness generator. Shards are cut and calibrated as a coordinator does it.
//! Nothing is proven here, and no process or network takes part.
//!
//! A run that ends with an error, because a value leaves the range that calibration left room for, is counted and listed as
//! failed. It has no part in any figure of errors, and is not right in the task's accuracy.

pub mod chain;
pub mod error;
pub mod ezkl;
pub mod inputs;
pub mod report;
pub mod rows;
pub mod shards;

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use shardproof_common::files;
use shardproof_common::plan::{BackendKind, BackendOptions, CalibrationTarget, EzklOptions, GkrOptions};
use shardproof_common::tensor::FloatTensor;
use shardproof_models::{
    BoundaryModes, FloatShard, LoadOptions, ModelSource, OnnxModel, Split, SplitRequest, Strategy,
};
use tokio_util::sync::CancellationToken;

use crate::conditions::Conditions;
use crate::error::BenchError;
use crate::plot::{HistogramChart, LineChart, Scale, Series};
use crate::{report::profile, table};
use chain::ChainErrors;
use error::AccuracyError;
use inputs::{Inputs, Wanted};
use report::{AccuracyReport, Settings};
use rows::{AccuracyRow, BoundaryRow, Configuration, ErrorRow, Reference};
use shards::{GkrShard, IntegerShard};

/// Samples that a coordinator calibrates on.
pub const CALIBRATION_INPUTS: usize = 8;
/// Numbers of shards that are measured if none are named, as far as the model can be cut so.
pub const SHARDS: [usize; 6] = [1, 2, 3, 4, 6, 12];

/// What is measured.
#[derive(Clone, Debug)]
pub struct AccuracyOptions {
    /// Zoo model, benchmark model or path.
    pub model: String,
    /// Where the results are written; made if it is not there.
    pub directory: PathBuf,
    /// Numbers of shards; [`SHARDS`] as far as the model can be cut so where none are given.
    pub shards: Option<Vec<usize>>,
    /// Where to cut.
    pub strategy: Strategy,
    /// Calibration targets.
    pub targets: Vec<CalibrationTarget>,
    /// Most inputs.
    pub inputs: usize,
    /// The user's inputs instead of the model's own.
    pub samples: Option<PathBuf>,
    /// Most inputs that calibration uses.
    pub calibration: usize,
    /// Whether inputs of calibration are measured on even where there are others.
    pub with_calibration: bool,
    /// Proof system.
    pub backend: BackendKind,
    /// Bits of weights instead of the target's.
    pub weight_bits: Option<u32>,
    /// Bits of activations instead of the target's.
    pub activation_bits: Option<u32>,
    /// Of random inputs.
    pub seed: u64,
}

/// Measures, and writes tables, plots and conditions.
///
/// # Errors
/// When the model cannot be read, cut or quantised in this way, or a file not be written.
pub async fn measure(options: AccuracyOptions) -> Result<AccuracyReport, BenchError> {
    let stop = CancellationToken::new();
    // Whoever stops waiting for this also stops the work.
    let _guard = stop.clone().drop_guard();
    let work = tokio::task::spawn_blocking(move || run(&options, &stop));
    work.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What all configurations share.
struct Bench<'a> {
    options: &'a AccuracyOptions,
    model: &'a OnnxModel,
    inputs: &'a Inputs,
    reference: Reference<'a>,
    progress: ProgressBar,
    stop: &'a CancellationToken,
}

/// All rows so far.
#[derive(Default)]
struct Tables {
    accuracy: Vec<AccuracyRow>,
    errors: Vec<ErrorRow>,
    boundaries: Vec<BoundaryRow>,
}

impl Tables {
    /// Target by target, which are easier to read than numbers of shards by numbers of shards.
    fn sort(&mut self, targets: &[CalibrationTarget]) {
        let place = |name: &str| targets.iter().position(|target| target.as_str() == name);
        self.accuracy.sort_by_key(|row| place(row.ezkl_optimization_goal));
        self.errors.sort_by_key(|row| place(row.target));
        self.boundaries.sort_by_key(|row| place(row.target));
    }
}

fn run(options: &AccuracyOptions, stop: &CancellationToken) -> Result<AccuracyReport, BenchError> {
    check(options)?;
    let conditions = Conditions::now();
    let source = ModelSource::resolve(&options.model)?;
    let model = OnnxModel::load(&source, &LoadOptions::default())?;
    let counts = shard_counts(options, &model)?;
    let inputs = Inputs::gather(&source, &model, &wanted(options))?;
    let outputs = float_outputs(&model, &inputs)?;
    let progress = progress_bar(counts.len() * options.targets.len() * inputs.measured.len());
    let reference = Reference { inputs: &inputs.measured, outputs: &outputs, class_elements: class_elements(&model) };
    let bench = Bench { options, model: &model, inputs: &inputs, reference, progress, stop };
    std::fs::create_dir_all(&options.directory).map_err(BenchError::io(options.directory.display().to_string()))?;
    let tables = bench.measure_all(&counts)?;
    bench.progress.finish_and_clear();

    let settings = Settings::new(options, &model, &inputs, counts, conditions);
    let directory = &options.directory;
    table::write(&directory.join("accuracy.csv"), &tables.accuracy).map_err(AccuracyError::from)?;
    table::write(&directory.join("errors.csv"), &tables.errors).map_err(AccuracyError::from)?;
    table::write(&directory.join("boundaries.csv"), &tables.boundaries).map_err(AccuracyError::from)?;
    settings.write(&directory.join("conditions.json"))?;
    plot_growth(&tables.accuracy, options, directory)?;
    Ok(AccuracyReport {
        benchmark: "accuracy",
        profile: profile(),
        directory: directory.clone(),
        settings,
        accuracy: tables.accuracy,
        boundaries: tables.boundaries,
    })
}

fn check(options: &AccuracyOptions) -> Result<(), AccuracyError> {
    match options.backend {
        BackendKind::Float => Err(AccuracyError::FloatBackend),
        BackendKind::Gkr => Ok(()),
        BackendKind::Ezkl => {
            let given = [("--weight-bits", options.weight_bits), ("--activation-bits", options.activation_bits)];
            match given.iter().find(|(_, bits)| bits.is_some()) {
                Some(&(option, _)) => Err(AccuracyError::Option { option, backend: options.backend.as_str() }),
                None => Ok(()),
            }
        }
    }
}

fn wanted(options: &AccuracyOptions) -> Wanted<'_> {
    Wanted {
        inputs: options.inputs,
        calibration: options.calibration,
        file: options.samples.as_deref(),
        seed: options.seed,
        with_calibration: options.with_calibration,
    }
}

/// Numbers of shards, each once, from the least.
fn shard_counts(options: &AccuracyOptions, model: &OnnxModel) -> Result<Vec<usize>, AccuracyError> {
    let most = model.max_shards();
    let mut counts = match &options.shards {
        None => SHARDS.into_iter().filter(|&count| count <= most).collect(),
        Some(counts) => counts.clone(),
    };
    counts.sort_unstable();
    counts.dedup();
    match counts.iter().find(|&&count| count > most) {
        Some(&asked) => Err(AccuracyError::TooManyShards { model: model.name().to_owned(), most, asked }),
        None => Ok(counts),
    }
}

/// The whole model's outputs in floats, one after another, for every input.
fn float_outputs(model: &OnnxModel, inputs: &Inputs) -> Result<Vec<Vec<f64>>, AccuracyError> {
    let whole = load_float(&model.to_onnx(), 0, 1)?;
    let run = |input: &inputs::Input| {
        let outputs = chain::in_floats(&whole, input, &input.tensors)?;
        Ok(outputs.iter().flat_map(|tensor| tensor.values.iter().map(|&x| f64::from(x))).collect())
    };
    inputs.measured.iter().map(run).collect()
}

fn load_float(onnx: &[u8], shard: usize, shards: usize) -> Result<FloatShard, AccuracyError> {
    FloatShard::load(onnx).map_err(|source| AccuracyError::Load { shard, shards, source })
}

/// Elements of the first output, if it is one number or one vector: then it stands for a class.
fn class_elements(model: &OnnxModel) -> Option<usize> {
    let shape = &model.outputs().first()?.shape;
    let vector = shape.iter().filter(|&&extent| extent > 1).count() <= 1;
    vector.then(|| shape.iter().product::<u64>() as usize)
}

fn progress_bar(inputs: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<28} {wide_bar} {pos}/{len} inputs, {eta} left");
    // The template is a constant; were it wrong, the default one would do.
    ProgressBar::new(inputs as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Bench<'_> {
    fn measure_all(&self, counts: &[usize]) -> Result<Tables, BenchError> {
        let mut tables = Tables::default();
        let mut uncut: Vec<Option<Vec<Option<f64>>>> = vec![None; self.options.targets.len()];
        for &shards in counts {
            let split = self.split(shards)?;
            let load = |(index, shard): (usize, &shardproof_models::Shard)| load_float(&shard.onnx, index, shards);
            let floats: Vec<FloatShard> = split.shards.iter().enumerate().map(load).collect::<Result<_, _>>()?;
            let calibration = shards::calibration_inputs(&floats, &self.inputs.calibration)?;
            for (&target, uncut) in self.options.targets.iter().zip(&mut uncut) {
                self.progress.set_message(format!("{}, {shards} shards", target.as_str()));
                let integers = self.integers(&split, target, &calibration)?;
                let errors = chain::measure(&floats, &integers, &self.inputs.measured, &mut |inputs| {
                    self.progress.inc(inputs as u64);
                    if self.stop.is_cancelled() { Err(BenchError::Stopped) } else { Ok(()) }
                })?;
                if shards == 1 {
                    *uncut = Some(self.reference.squares(&errors));
                }
                let configuration = self.configuration(target, shards);
                let scales: Vec<Vec<i32>> = integers.iter().map(|shard| shard.output_scales().to_vec()).collect();
                let row = rows::accuracy_row(&configuration, &self.reference, &errors, uncut.as_deref());
                tables.accuracy.push(row);
                tables.errors.extend(rows::error_rows(&configuration, &self.reference, &errors));
                tables.boundaries.extend(rows::boundary_rows(&configuration, &split.plan, &scales, &errors));
                if shards == 1 || counts.last() == Some(&shards) {
                    self.plot_histogram(&configuration, &errors)?;
                }
            }
        }
        tables.sort(&self.options.targets);
        Ok(tables)
    }

    /// Cuts the model as a coordinator does.
    fn split(&self, shards: usize) -> Result<Split, BenchError> {
        let backend = |_| match self.options.backend {
            BackendKind::Ezkl => BackendOptions::Ezkl(EzklOptions::default()),
            BackendKind::Gkr | BackendKind::Float => BackendOptions::Gkr(GkrOptions::default()),
        };
        let strategy = self.options.strategy;
        Ok(self.model.split(&SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() })?)
    }

    fn integers(
        &self,
        split: &Split,
        target: CalibrationTarget,
        calibration: &[Vec<Vec<FloatTensor>>],
    ) -> Result<Vec<Box<dyn IntegerShard>>, BenchError> {
        if self.options.backend == BackendKind::Ezkl {
            return ezkl::chain(split, target, calibration, self.stop);
        }
        let files: Vec<&[u8]> = split.shards.iter().map(|shard| shard.onnx.as_slice()).collect();
        let options = shards::options(target, self.options.weight_bits, self.options.activation_bits);
        let chain = GkrShard::chain(&files, &options, calibration)?;
        Ok(chain.into_iter().map(|shard| Box::new(shard) as Box<dyn IntegerShard>).collect())
    }

    fn configuration(&self, target: CalibrationTarget, shards: usize) -> Configuration {
        let (model, backend) = (self.model.name().to_owned(), self.options.backend.as_str());
        Configuration { model, backend, target: target.as_str(), shards }
    }

    /// No plot where every run failed.
    fn plot_histogram(&self, configuration: &Configuration, errors: &ChainErrors) -> Result<(), AccuracyError> {
        let values = self.reference.differences(errors);
        if values.is_empty() {
            return Ok(());
        }
        let Configuration { model, backend, target, shards } = configuration;
        let plural = if *shards == 1 { "" } else { "s" };
        let chart = HistogramChart {
            title: format!("{model}, {backend}, {target}, {shards} shard{plural}: {} values", values.len()),
            x: "error of the output (integers less floats)".to_owned(),
            y: "output values".to_owned(),
            values,
        };
        Ok(chart.write(&self.options.directory, &format!("errors-{target}-{shards}"))?)
    }
}

/// The error of the output over the number of shards, one line for each target.
fn plot_growth(rows: &[AccuracyRow], options: &AccuracyOptions, directory: &Path) -> Result<(), AccuracyError> {
    let series = |target: &CalibrationTarget| Series {
        name: target.as_str().to_owned(),
        points: rows
            .iter()
            .filter(|row| row.ezkl_optimization_goal == target.as_str())
            .filter_map(|row| Some((row.num_nodes as f64, row.rmse?)))
            .collect(),
        ..Series::default()
    };
    let series: Vec<Series> = options.targets.iter().map(series).collect();
    let drawn = series.iter().flat_map(|series| &series.points).filter(|(_, rmse)| *rmse > 0.0).count();
    // Where no answer came out, or every one exactly as in floats, there is nothing to draw on a logarithmic axis.
    if drawn == 0 {
        return Ok(());
    }
    let model = rows.first().map_or("", |row| row.model.as_str());
    let chart = LineChart {
        title: format!("{model}, {}: error of the output", options.backend.as_str()),
        x: "shards".to_owned(),
        y: "root mean square error".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Logarithmic,
        series,
    };
    Ok(chart.write(directory, "rmse-by-shards")?)
}

impl Settings {
    fn write(&self, path: &Path) -> Result<(), BenchError> {
        let text = serde_json::to_vec_pretty(self).expect("settings have string keys");
        files::write_whole(path, &text).map_err(BenchError::io(path.display().to_string()))
    }
}
