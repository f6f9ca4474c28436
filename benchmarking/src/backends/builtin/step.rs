//! One step of a built-in system, in a process of its own: what worker and coordinator do with a plan of one shard whose
//! boundaries are public.
//!
//! `prove_ms` and `verify_ms` are of the first proof of a process whose keys are loaded. The native prover runs the model
//! again when it proves, which counts. ezkl's verifier checks a proof twice, the second time cut short by a byte, which must
//! fail; both count. Making ezkl's test SRS, where it is missing, is no part of `setup_ms`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shardproof_common::backend::{
    Backend, BackendError, Job, Limits, ProofVerifier, Registered, SetupRequest, ShardFiles, VerifyError, VerifyRequest,
};
use shardproof_common::card::ShardCard;
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex};
use shardproof_common::machine::peak_rss_bytes;
use shardproof_common::plan::{BackendOptions, BoundaryMode, BoundaryTensor, CalibrationTarget};
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::{FloatTensor, IntegerTensor, Tensor, TensorError, TensorSpec};
use shardproof_ezkl::{EzklBackend, EzklConfig, EzklVerifier, Installation, KeepWarm};
use shardproof_gkr_service::{GkrBackend, GkrVerifier};
use shardproof_models::{
    BoundaryModes, InputError, LoadOptions, ModelError, ModelSource, OnnxModel, SplitRequest, Strategy, input,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::Builtin;
use crate::backends::contract::{Claim, Prepared, Proven, Said, Verified, file, variable};

/// What this program is asked to do as a built-in system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Looks for what must be there.
    Require,
    /// Puts in place what is missing.
    Install,
    /// Setup.
    Prepare,
    /// One proof.
    Prove,
    /// One verification.
    Verify,
}

/// Why a step gave nothing.
#[derive(Debug, Error)]
enum StepError {
    #[error("{0} is not set: this is a step of `backend_benchmark`")]
    Variable(&'static str),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Claim(String),
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What setup leaves for the other steps: the owner's registered side, and the prover's files.
#[derive(Serialize, Deserialize)]
struct State {
    model: Digest,
    architecture: Digest,
    plan: Digest,
    options: BackendOptions,
    card: ShardCard,
    files: BTreeMap<String, PathBuf>,
    verifying_key: PathBuf,
}

/// Does `task` as `system`, and prints its line.
pub fn run(system: Builtin, task: Task) -> ExitCode {
    let outcome = match task {
        Task::Require => require(),
        Task::Install => install(),
        Task::Prepare => work().and_then(|work| prepare(system, &work)),
        Task::Prove => work().and_then(|work| prove(system, &work)),
        Task::Verify => work().and_then(|work| verify(system, &work)),
    };
    let line = match outcome {
        Ok(line) => line,
        Err(StepError::Unsupported(what)) => json!({ "unsupported": what }),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match writeln!(std::io::stdout().lock(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work() -> Result<PathBuf, StepError> {
    std::env::var_os(variable::WORK).map(PathBuf::from).ok_or(StepError::Variable(variable::WORK))
}

/// Whether there is a Python, or an ezkl that needs none.
fn require() -> Result<serde_json::Value, StepError> {
    let config = EzklConfig::from_env();
    let python = config.python.unwrap_or_else(|| PathBuf::from("python3"));
    let found = std::process::Command::new(&python).arg("--version").output();
    match found {
        Ok(output) if output.status.success() => Ok(json!({})),
        Ok(output) => Err(file_error(&python)(format!("`--version` ended with {}", output.status))),
        Err(error) => Err(file_error(&python)(error.to_string())),
    }
}

fn install() -> Result<serde_json::Value, StepError> {
    let directory = std::env::temp_dir();
    let site = with_job(&directory, &|_| {}, |job| Installation::new(&EzklConfig::from_env()).ensure(job))?;
    Ok(json!({ "installed": site }))
}

fn prepare(system: Builtin, work: &Path) -> Result<serde_json::Value, StepError> {
    let target = std::env::var(variable::TARGET).ok().and_then(|target| target.parse().ok());
    let options = system.options(target.unwrap_or(CalibrationTarget::Resources));
    let model = OnnxModel::load(&ModelSource::File(work.join(file::MODEL)), &LoadOptions::default())?;
    let split = model.split(&SplitRequest {
        shards: 1,
        strategy: Strategy::Balanced,
        backend: &|_| options.clone(),
        modes: BoundaryModes::default(),
    })?;
    let shard = &split.shards[0];
    let (onnx, keys) = (work.join("shard.onnx"), work.join("keys"));
    fs::write(&onnx, &shard.onnx).map_err(|error| file_error(&onnx)(error.to_string()))?;
    fs::create_dir_all(&keys).map_err(|error| file_error(&keys)(error.to_string()))?;
    let samples = calibration(&work.join(file::SAMPLES), model.inputs())?;
    let request = SetupRequest {
        shard: ShardIndex(0),
        model: &onnx,
        samples: &samples,
        input: None,
        input_names: &names(&shard.inputs),
        output_names: &names(&shard.outputs),
        input_mode: BoundaryMode::Public,
        output_mode: BoundaryMode::Public,
        options: &options,
        min_logrows: None,
    };
    let phases = Phases::default();
    let started = Instant::now();
    let setup = with_job(&keys, &|phase| phases.begin(phase), |job| backend(system).setup(&request, job))
        .map_err(|error| refusal(system, error))?;
    let taken = started.elapsed().saturating_sub(phases.spent_on("srs"));

    let verifying_key = setup.verifying_key.ok_or_else(|| file_error(&keys)("no verifying key was made".to_owned()))?;
    let proving = ["pk", "gkr.graph", "gkr.weights"];
    let proving_key = setup.worker_files.iter().filter(|(name, _)| proving.contains(&name.as_str()));
    let said = Prepared {
        setup_ms: ms(taken),
        proving_key: proving_key.map(|(_, path)| relative(path, work)).collect(),
        verifying_key: vec![relative(&verifying_key, work)],
    };
    State {
        model: model.digest(),
        architecture: model.architecture(),
        plan: split.plan.digest(),
        options,
        card: setup.card,
        files: setup.worker_files,
        verifying_key,
    }
    .write(work)?;
    Ok(line(said, setup.peak_rss_bytes))
}

fn prove(system: Builtin, work: &Path) -> Result<serde_json::Value, StepError> {
    let state = State::read(work)?;
    let shard = state.shard(work);
    let directory = work.join("run");
    fs::create_dir_all(&directory).map_err(|error| file_error(&directory)(error.to_string()))?;
    let path = work.join(file::INPUT);
    let text = fs::read(&path).map_err(|error| file_error(&path)(error.to_string()))?;
    let specs: Vec<BoundaryTensor> = shard.card.input.iter().map(boundary_tensor).collect();
    let floats = input::parse_json(&text, &specs)?;
    let quantise = |(tensor, spec): (&FloatTensor, &TensorSpec)| Ok(Tensor::Integer(tensor.quantise(spec.scale)?));
    let input: Vec<Tensor> = floats.iter().zip(&shard.card.input).map(quantise).collect::<Result<_, TensorError>>()?;

    let backend = backend(system);
    backend.load(&shard)?;
    let (inference, witness, proof, proving) = with_job(&directory, &|_| {}, |job| {
        let started = Instant::now();
        let inference = backend.infer(&shard, &input, job)?;
        let witness = started.elapsed();
        let statement = state.statement(inference.input_boundary.clone(), inference.output_boundary.clone());
        let started = Instant::now();
        let proof = backend.prove(&shard, &input, &statement, job)?;
        Ok::<_, BackendError>((inference, witness, proof, started.elapsed()))
    })?;

    let path = work.join("proof");
    fs::write(&path, &proof.bytes).map_err(|error| file_error(&path)(error.to_string()))?;
    let claim = Claim {
        public: integers(&input).chain(integers(&inference.output)).map(|value| value.to_string()).collect(),
        inputs: integers(&input).count(),
    };
    claim.write(work).map_err(|stop| StepError::Claim(stop.to_string()))?;
    let witness_file = directory.join("witness.json");
    let said = Proven {
        witness_ms: ms(witness),
        prove_ms: ms(proving),
        // The native prover keeps its witness in memory.
        witness: if witness_file.is_file() { vec![relative(&witness_file, work)] } else { Vec::new() },
        proof: vec!["proof".to_owned()],
        output: inference.output.iter().flat_map(Tensor::to_reals).collect(),
    };
    Ok(line(said, inference.peak_rss_bytes.max(proof.peak_rss_bytes)))
}

fn verify(system: Builtin, work: &Path) -> Result<serde_json::Value, StepError> {
    let state = State::read(work)?;
    let directory = work.join("check");
    fs::create_dir_all(&directory).map_err(|error| file_error(&directory)(error.to_string()))?;
    let read = |path: PathBuf| fs::read(&path).map_err(|error| file_error(&path)(error.to_string()));
    let (proof, verifying_key) = (read(work.join("proof"))?, read(state.verifying_key.clone())?);
    let claim = Claim::read(work).map_err(|stop| StepError::Claim(stop.to_string()))?;
    let (input, output) = claimed(&claim, &state.card)?;
    let registered =
        Registered { options: &state.options, input_mode: BoundaryMode::Public, output_mode: BoundaryMode::Public };
    let verifier = verifier(system);
    let unfit = |reason| StepError::File { path: work.join(State::FILE), reason };
    verifier.check_settings(&state.card, &registered).map_err(unfit)?;
    // The native verifier reads its key here.
    verifier.check_verifying_key(&state.card, &verifying_key).map_err(unfit)?;

    let request = VerifyRequest {
        statement: &state.statement(Boundary::public(&input), Boundary::public(&output)),
        card: &state.card,
        registered,
        verifying_key: &verifying_key,
        input: Some(&input),
        output: Some(&output),
        proof: &proof,
    };
    let started = Instant::now();
    let verdict = with_job(&directory, &|_| {}, |job| verifier.verify(&request, job));
    let taken = started.elapsed();
    let accepted = match verdict {
        Ok(()) => true,
        Err(VerifyError::Unavailable(error)) => return Err(error.into()),
        Err(rejection) => {
            eprintln!("rejected: {rejection}");
            false
        }
    };
    Ok(line(Verified { verify_ms: ms(taken), accepted }, peak_rss_bytes()))
}

impl State {
    const FILE: &'static str = "state.json";

    fn read(work: &Path) -> Result<Self, StepError> {
        let path = work.join(Self::FILE);
        let text = fs::read(&path).map_err(|error| file_error(&path)(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| file_error(&path)(error.to_string()))
    }

    fn write(&self, work: &Path) -> Result<(), StepError> {
        let path = work.join(Self::FILE);
        let text = serde_json::to_vec(self).map_err(|error| file_error(&path)(error.to_string()))?;
        fs::write(&path, text).map_err(|error| file_error(&path)(error.to_string()))
    }

    /// The shard as a worker holds it.
    fn shard(&self, work: &Path) -> ShardFiles {
        ShardFiles {
            shard: ShardIndex(0),
            card: self.card.clone(),
            options: self.options.clone(),
            input_mode: BoundaryMode::Public,
            output_mode: BoundaryMode::Public,
            model: work.join("shard.onnx"),
            files: self.files.clone(),
        }
    }

    /// The statement of the one run that a directory is for.
    fn statement(&self, input: Boundary, output: Boundary) -> Statement {
        Statement {
            protocol: PROTOCOL_VERSION,
            backend: self.card.backend.clone(),
            model: self.model,
            architecture: self.architecture,
            plan: self.plan,
            shard: ShardIndex(0),
            shards: 1,
            run: RunId::from_bytes([0; 16]),
            input,
            output,
            keys: self.card.keys.digest(),
        }
    }
}

fn backend(system: Builtin) -> Box<dyn Backend> {
    match system.is_ezkl() {
        // As workers run it: the proof finds the process that served the witness.
        true => Box::new(EzklBackend::new(EzklConfig { keep_warm: Some(KeepWarm::SERVICE), ..EzklConfig::from_env() })),
        false => Box::new(GkrBackend::new()),
    }
}

fn verifier(system: Builtin) -> Box<dyn ProofVerifier> {
    match system.is_ezkl() {
        true => Box::new(EzklVerifier::new(EzklConfig::from_env())),
        false => Box::new(GkrVerifier::default()),
    }
}

/// A setup that is refused because of the model is no failure: the quantiser names an operator or a value, ezkl stops when
/// it reads the model.
fn refusal(system: Builtin, error: BackendError) -> StepError {
    match error {
        BackendError::Unsupported { .. } => StepError::Unsupported(error.to_string()),
        BackendError::Input(reason) if !system.is_ezkl() => StepError::Unsupported(reason),
        BackendError::Failed { ref step, .. } if system.is_ezkl() && step == "settings" => {
            StepError::Unsupported(error.to_string())
        }
        error => error.into(),
    }
}

fn with_job<T>(directory: &Path, progress: &(dyn Fn(&str) + Sync), action: impl FnOnce(&Job<'_>) -> T) -> T {
    // The benchmark ends this process when a limit is hit, and ezkl's children end with it.
    let cancel = CancellationToken::new();
    action(&Job { directory, limits: Limits::default(), cancel: &cancel, progress })
}

/// When which phase of a call began.
#[derive(Default)]
struct Phases(Mutex<Vec<(String, Instant)>>);

impl Phases {
    fn begin(&self, phase: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((phase.to_owned(), Instant::now()));
    }

    /// Time in phases whose names begin with `prefix`, each of which lasts until the next begins.
    fn spent_on(&self, prefix: &str) -> Duration {
        let phases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        phases.windows(2).filter(|pair| pair[0].0.starts_with(prefix)).map(|pair| pair[1].1 - pair[0].1).sum()
    }
}

fn calibration(path: &Path, specs: &[BoundaryTensor]) -> Result<Vec<Vec<FloatTensor>>, StepError> {
    #[derive(Deserialize)]
    struct Samples {
        samples: Vec<serde_json::Value>,
    }
    let text = fs::read(path).map_err(|error| file_error(path)(error.to_string()))?;
    let read: Samples = serde_json::from_slice(&text).map_err(|error| file_error(path)(error.to_string()))?;
    read.samples.iter().map(|sample| Ok(input::parse_json(sample.to_string().as_bytes(), specs)?)).collect()
}

/// The tensors of a claim, which must have as many values as the card's.
fn claimed(claim: &Claim, card: &ShardCard) -> Result<(Vec<Tensor>, Vec<Tensor>), StepError> {
    let count = |specs: &[TensorSpec]| specs.iter().map(TensorSpec::elements).sum::<u64>();
    let (inputs, outputs) = (count(&card.input), count(&card.output));
    if claim.inputs as u64 != inputs || claim.public.len() as u64 != inputs + outputs {
        let (found, rest) = (claim.inputs, claim.public.len());
        return Err(StepError::Claim(format!(
            "a claim of {rest} values, {found} of them inputs; expected {} values, {inputs} of them inputs",
            inputs + outputs
        )));
    }
    let number = |text: &String| {
        text.parse::<i64>().map_err(|error| StepError::Claim(format!("the claim's value {text:?}: {error}")))
    };
    let values = claim.public.iter().map(number).collect::<Result<Vec<i64>, _>>()?;
    let mut values = values.into_iter();
    let mut tensors = |specs: &[TensorSpec]| -> Vec<Tensor> {
        let tensor = |spec: &TensorSpec| IntegerTensor {
            shape: spec.shape.clone(),
            scale: spec.scale,
            values: values.by_ref().take(spec.elements() as usize).collect(),
        };
        specs.iter().map(tensor).map(Tensor::Integer).collect()
    };
    let input = tensors(&card.input);
    Ok((input, tensors(&card.output)))
}

fn integers(tensors: &[Tensor]) -> impl Iterator<Item = i64> {
    tensors.iter().filter_map(Tensor::as_integer).flat_map(|tensor| tensor.values.iter().copied())
}

fn names(tensors: &[BoundaryTensor]) -> Vec<(String, Vec<u64>)> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

fn boundary_tensor(spec: &TensorSpec) -> BoundaryTensor {
    BoundaryTensor { name: spec.name.clone(), shape: spec.shape.clone() }
}

fn line<R: Serialize>(result: R, backend_peak: u64) -> serde_json::Value {
    let peak_bytes = Some(backend_peak.max(peak_rss_bytes()));
    serde_json::to_value(Said { peak_bytes, result }).expect("names, numbers and lists of them are JSON")
}

fn relative(path: &Path, work: &Path) -> String {
    path.strip_prefix(work).unwrap_or(path).display().to_string()
}

fn file_error(path: &Path) -> impl Fn(String) -> StepError {
    let path = path.to_owned();
    move |reason| StepError::File { path: path.clone(), reason }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
