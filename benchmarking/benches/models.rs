//! Time, size and memory of proofs of whole models.
//!
//!     cargo bench -p shardproof-benchmarking --bench models [-- MODEL... [--weights public|committed] [--runs N] [--repeats N]
//!                                                        [--target resources|accuracy] [--steps] [--shares]]
//!
//! A MODEL is a zoo name, `mlp:DEPTH,WIDTH`, or the path of an ONNX file. Each model is measured in a process of its own, so
//! that the peak of memory is its own. `prove` is inference, witness and proof with keys loaded; `verify` starts from the
//! proof's bytes. Medians. `--steps` shows the steps of the last proof, `--shares` what each node has of their time.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;
use shardproof_common::plan::CalibrationTarget;
use shardproof_gkr::{
    Boundary, CommittedBoundaries, Proof, ProvingKey, Statement, Timings, Visibility, verify, witness_cells,
};
use shardproof_integer::{CheckedGraph, Executor, TensorId, Trace};
use shardproof_models::quantise::{QuantiseOptions, quantise};
use shardproof_models::{LoadOptions, ModelSource, OnnxModel, input};

/// That of the programs.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The models of the published comparison.
const MODELS: [&str; 4] = ["mlp", "mlp784", "cnn264k", "dense4m"];
/// Set for the process that measures one model.
const CHILD: &str = "SHARDPROOF_BENCH_CHILD";

struct Options {
    models: Vec<String>,
    weights: Visibility,
    runs: usize,
    repeats: usize,
    target: CalibrationTarget,
    steps: bool,
    shares: bool,
}

fn main() {
    let options = Options::parse(std::env::args().skip(1).filter(|argument| argument != "--bench"));
    if std::env::var_os(CHILD).is_some() {
        return print!("{}", measure(&options.models[0], &options));
    }
    println!(
        "{:<12} {:>10} {:>9} {:>9} {:>10} {:>11} {:>10}",
        "model", "parameters", "setup ms", "prove ms", "verify ms", "proof bytes", "peak MiB"
    );
    for model in &options.models {
        let program = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(program);
        child.env(CHILD, "1").arg(model).args(options.arguments());
        let output = child.output().expect("this program starts again");
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            models: Vec::new(),
            weights: Visibility::Committed,
            runs: 1,
            repeats: 5,
            target: CalibrationTarget::Accuracy,
            steps: false,
            shares: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} takes a value"));
            match argument.as_str() {
                "--weights" => {
                    options.weights = match value().as_str() {
                        "public" => Visibility::Public,
                        "committed" => Visibility::Committed,
                        other => panic!("weights are public or committed, not {other}"),
                    }
                }
                "--runs" => options.runs = value().parse().expect("--runs takes a number"),
                "--repeats" => options.repeats = value().parse().expect("--repeats takes a number"),
                "--target" => options.target = value().parse().expect("a target"),
                "--steps" => options.steps = true,
                "--shares" => options.shares = true,
                other if other.starts_with("--") => panic!("unknown option {other}"),
                _ => options.models.push(argument),
            }
        }
        if options.models.is_empty() {
            options.models = MODELS.map(str::to_owned).to_vec();
        }
        options
    }

    /// The options on a command line, without models.
    fn arguments(&self) -> Vec<String> {
        let weights = if self.weights == Visibility::Public { "public" } else { "committed" };
        let target = if self.target == CalibrationTarget::Accuracy { "accuracy" } else { "resources" };
        let numbers = [self.runs.to_string(), self.repeats.to_string()];
        let mut arguments: Vec<String> =
            ["--weights", weights, "--target", target, "--runs", &numbers[0], "--repeats", &numbers[1]]
                .map(str::to_owned)
                .to_vec();
        arguments.extend(self.steps.then(|| "--steps".to_owned()));
        arguments.extend(self.shares.then(|| "--shares".to_owned()));
        arguments
    }
}

fn measure(name: &str, options: &Options) -> String {
    let source = ModelSource::resolve(name).expect("a model");
    let model = OnnxModel::load(&source, &LoadOptions::default()).expect("the model loads");
    let samples = input::samples(&source, &model, 8.max(options.runs), 0).expect("samples").inputs;
    let quantised =
        quantise(&model.to_onnx(), &QuantiseOptions::new(options.target), &samples).expect("the model is quantised");
    let scales = quantised.input_scales();
    let inputs: Vec<Vec<i64>> = (0..scales.len())
        .map(|tensor| {
            let runs = (0..options.runs).map(|run| &samples[run % samples.len()][tensor]);
            runs.flat_map(|run| run.quantise(scales[tensor]).expect("a sample is quantised").values).collect()
        })
        .collect();

    let start = Instant::now();
    let key = ProvingKey::new(quantised.graph.clone(), quantised.weights.clone(), options.weights).expect("keys");
    let setup = start.elapsed();
    let executor = Executor::new(Arc::new(quantised.graph.clone()), &quantised.weights).expect("an executor");
    let registered =
        (options.weights == Visibility::Public).then(|| key.verifying().register(quantised.weights).expect("weights"));
    let (mut prove, mut check, mut bytes, mut steps) = (Vec::new(), Vec::new(), 0, Timings::default());
    for _ in 0..options.repeats {
        steps = Timings::default();
        let start = Instant::now();
        let trace =
            steps.time("run", "", || executor.run(&inputs, options.runs)).expect("the model runs on its samples");
        let outputs = outputs(&key, &trace);
        let statement = Statement {
            context: b"benchmark",
            runs: options.runs,
            input: Boundary::Public(&inputs),
            output: Boundary::Public(&outputs),
        };
        let proof = key.prove(&statement, &trace, CommittedBoundaries::default(), &mut steps).expect("a proof");
        prove.push(start.elapsed());
        let encoded = proof.to_bytes();
        bytes = encoded.len();
        let start = Instant::now();
        let proof = Proof::from_bytes(&encoded).expect("the proof is read");
        verify(key.verifying(), registered.as_ref(), &statement, &proof).expect("the proof verifies");
        check.push(start.elapsed());
    }
    let mut row = format!(
        "{name:<12} {:>10} {:>9.1} {:>9.1} {:>10.2} {bytes:>11} {:>10.1}\n",
        model.parameters(),
        ms(setup),
        ms(median(prove)),
        ms(median(check)),
        peak_mib()
    );
    if options.steps {
        write!(row, "{}", steps.to_csv()).expect("a string takes all text");
    }
    if options.shares {
        write!(row, "{}", shares(key.verifying().graph(), options.runs, &steps)).expect("a string takes all text");
    }
    row
}

/// What is a node's own, under the name of the ONNX node that it comes from.
#[derive(Default)]
struct Part {
    name: String,
    cells: usize,
    weights: usize,
    ms: f64,
}

/// The proof's time by ONNX nodes, as CSV with a header. Reductions are timed node by node. What is done for all nodes at once
/// takes time for each cell of the witness, or each weight, and is divided by their numbers. Inference is nobody's.
fn shares(graph: &CheckedGraph, runs: usize, steps: &Timings) -> String {
    let mut parts: Vec<Part> = Vec::new();
    for (node, cells) in graph.graph().nodes.iter().zip(witness_cells(graph, runs)) {
        let index = parts.iter().position(|part| part.name == node.name).unwrap_or_else(|| {
            parts.push(Part { name: node.name.clone(), ..Part::default() });
            parts.len() - 1
        });
        parts[index].cells += cells;
        if let Some(weight) = node.op.weight() {
            parts[index].weights += graph.graph().weights[weight.0 as usize].shape.iter().product::<usize>();
        }
    }
    let all = |of: fn(&Part) -> usize| parts.iter().map(of).sum::<usize>().max(1) as f64;
    let (cells, weights) = (all(|part| part.cells), all(|part| part.weights));
    for (step, layer, time) in steps.rows() {
        for part in &mut parts {
            part.ms += match (step, layer) {
                ("run", _) => 0.0,
                ("reduce", name) => f64::from(u8::from(part.name == name)),
                (_, "weights") => part.weights as f64 / weights,
                _ => part.cells as f64 / cells,
            } * ms(time);
        }
    }
    let total: f64 = parts.iter().map(|part| part.ms).sum();
    let mut csv = "node,cells,weights,ms,percent\n".to_owned();
    for Part { name, cells, weights, ms } in &parts {
        let percent = 100.0 * ms / total;
        writeln!(csv, "{name},{cells},{weights},{ms:.3},{percent:.2}").expect("a string takes all text");
    }
    csv
}

fn outputs(key: &ProvingKey, trace: &Trace) -> Vec<Vec<i64>> {
    let ids: &[TensorId] = &key.verifying().graph().graph().outputs;
    ids.iter().map(|&tensor| trace.tensor(tensor).to_vec()).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Peak resident memory of this process; nothing where the system does not say.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    peak.unwrap_or(f64::NAN) / 1024.0
}
