//! One step of a built-in system, in a process of its own: what worker and coordinator do with a plan of one shard whose
//! boundaries are public.
//!
//! `prove_ms` and `verify_ms` are of the first proof of a process. The native prover's keys are loaded before, and it runs the
//! model again when it proves, which counts; ezkl reads its keys in each call. ezkl's verifier starts Python and checks a proof
//! twice, the second time cut short by a byte, which must fail; all that counts. Making ezkl's test SRS, where it is missing, is
//! no part of `setup_ms`.

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
    Backend, BackendError, Job, Limits, ProofVerifier, Registered, SetupRequest, VerifyError, VerifyRequest,
};
use shardproof_common::ids::ShardIndex;
use shardproof_common::machine::peak_rss_bytes;
use shardproof_common::plan::{BoundaryMode, BoundaryTensor, CalibrationTarget};
use shardproof_common::statement::Boundary;
use shardproof_common::tensor::{FloatTensor, Tensor, TensorError, TensorSpec};
use shardproof_ezkl::{EzklBackend, EzklConfig, EzklVerifier, Installation, KeepWarm};
use shardproof_gkr_service::{GkrBackend, GkrVerifier};
use shardproof_models::{BoundaryModes, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy, input};
use tokio_util::sync::CancellationToken;

use super::Builtin;
use super::state::{State, StepError, claimed, file_error};
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

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
