//! Starts coordinators and workers as processes, and talks to them.

#![allow(dead_code, reason = "each test program uses a part")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use shardproof_common::artifacts::ArtifactStore;
use shardproof_common::audit::{Nonce, NonceCommitment};
use shardproof_common::backend::Job;
use shardproof_common::bundle::Bundle;
use shardproof_common::card::ModelCard;
use shardproof_common::chain::{self, VerifyOptions};
use shardproof_common::ids::RunId;
use shardproof_common::tensor::{FloatTensor, Tensor, decode_boundary, encode_boundary};
use shardproof_ezkl::{EzklConfig, EzklVerifier};
use shardproof_gkr_service::GkrVerifier;
use shardproof_models::{ModelSource, OnnxModel, input};
use shardproof_proto::convert;
use shardproof_proto::transport::{self, Channel, Party, Transport};
use shardproof_proto::v1::runs_client::RunsClient;
use shardproof_proto::v1::{
    ArtifactRef, BundleRequest, ProveRequest, Run, RunState, StatusRequest, StatusResponse, SubmitRequest, WatchRequest,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A process of the service; killed when dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) address: String,
    pub(crate) log: PathBuf,
}

impl Program {
    /// Starts `shardproof ARGS` and waits until it listens.
    pub(crate) fn start(directory: &Path, name: &str, args: &[String]) -> Self {
        Self::launch(directory, name, command(args))
    }

    /// The same where the disk takes nothing more.
    pub(crate) fn start_on_full_disk(directory: &Path, name: &str, args: &[String]) -> Self {
        Self::launch(directory, name, on_full_disk(0, args))
    }

    fn launch(directory: &Path, name: &str, mut command: Command) -> Self {
        let log = directory.join(format!("{name}.log"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut said, mut kept) =
            (child.stderr.take().unwrap(), File::options().create(true).append(true).open(&log).unwrap());
        // Copied here, because a program on a full disk could not write its log itself.
        std::thread::spawn(move || std::io::copy(&mut said, &mut kept));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let address =
            address.unwrap_or_else(|| panic!("{name} did not start: {}", std::fs::read_to_string(&log).unwrap()));
        Self { child, address, log }
    }

    /// SIGKILL, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status that follows.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "did not stop: {}", self.logged());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits until it has logged `text`.
    pub(crate) fn until_logged(&self, text: &str) {
        let started = Instant::now();
        while !self.logged().contains(text) {
            assert!(started.elapsed() < PATIENCE, "not logged: {text}; {}", self.logged());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A coordinator and workers in one temporary directory.
pub(crate) struct Service {
    pub(crate) directory: TempDir,
    pub(crate) coordinator: Program,
    pub(crate) workers: Vec<Program>,
    /// How the test talks to the coordinator.
    pub(crate) transport: Transport,
    arguments: Vec<String>,
    roles: Vec<String>,
}

impl Service {
    /// Starts a coordinator with `extra` arguments, then one worker per role.
    pub(crate) fn start(model: &str, roles: &[&str], shards: usize, extra: &[&str]) -> Self {
        Self::start_once(model, roles, shards, extra, &[])
    }

    /// The same, with arguments that the coordinator is not given when it is started again.
    pub(crate) fn start_once(model: &str, roles: &[&str], shards: usize, extra: &[&str], once: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("coordinator").display().to_string();
        let mut arguments =
            strings(&["coordinator", "127.0.0.1", "0", &shards.to_string(), model, "--data-dir", &data]);
        arguments.extend(strings(extra));
        let coordinator = Program::start(directory.path(), "coordinator", &[arguments.clone(), strings(once)].concat());
        // A coordinator that is started again has to be found where it was.
        arguments[2] = port(&coordinator.address).to_owned();
        let transport = Transport::plaintext();
        let mut service = Self { directory, coordinator, workers: Vec::new(), transport, arguments, roles: Vec::new() };
        for role in roles {
            service.add_worker(role, &[]);
        }
        service
    }

    pub(crate) fn add_worker(&mut self, role: &str, extra: &[&str]) {
        let index = self.workers.len();
        let worker = self.spawn_worker(index, role, extra);
        self.workers.push(worker);
        self.roles.push(role.to_owned());
    }

    /// Starts a worker again on the data it had.
    pub(crate) fn restart_worker(&mut self, index: usize, extra: &[&str]) {
        let role = self.roles[index].clone();
        self.workers[index] = self.spawn_worker(index, &role, extra);
    }

    /// The same where the disk takes nothing more.
    pub(crate) fn restart_worker_on_full_disk(&mut self, index: usize) {
        let arguments = self.worker_arguments(index, &self.roles[index], &[]);
        let name = format!("worker{index}");
        self.workers[index] = Program::start_on_full_disk(self.directory.path(), &name, &arguments);
    }

    /// What the coordinator is started with.
    pub(crate) fn coordinator_arguments(&self) -> &[String] {
        &self.arguments
    }

    pub(crate) fn restart_coordinator(&mut self) {
        self.restart_coordinator_once(&[]);
    }

    /// The same with further arguments, this time only.
    pub(crate) fn restart_coordinator_once(&mut self, once: &[&str]) {
        let arguments = [self.arguments.clone(), strings(once)].concat();
        self.coordinator = Program::start(self.directory.path(), "coordinator", &arguments);
    }

    fn spawn_worker(&self, index: usize, role: &str, extra: &[&str]) -> Program {
        let arguments = self.worker_arguments(index, role, extra);
        Program::start(self.directory.path(), &format!("worker{index}"), &arguments)
    }

    fn worker_arguments(&self, index: usize, role: &str, extra: &[&str]) -> Vec<String> {
        let data = self.worker_data(index).display().to_string();
        let port = port(&self.coordinator.address);
        let mut arguments = strings(&["worker", "127.0.0.1", "0", "127.0.0.1", port, role, "--data-dir", &data]);
        arguments.extend(strings(extra));
        arguments
    }

    pub(crate) fn worker_data(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("worker{index}"))
    }

    /// Where a worker, which has the shard of its own number, keeps what it has of a run.
    pub(crate) fn spooled(&self, worker: usize, run: RunId) -> PathBuf {
        self.worker_data(worker).join("spool").join(format!("{run}.{worker}"))
    }

    /// Puts what a worker spooled of one run in place of another's: everything but the receipt, which is signed.
    pub(crate) fn swap_spool(&self, worker: usize, from: &Run, to: &Run) {
        let [from, to] = [from, to].map(|run| self.spooled(worker, convert::run_id(&run.run).unwrap()));
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.file_name().unwrap() != "receipt" {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.transport.lazy_channel(&self.coordinator.address, Party::Coordinator).unwrap()
    }

    pub(crate) fn client(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel())
    }

    pub(crate) async fn status(&self) -> StatusResponse {
        self.client().status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// Waits until every shard has a worker that is ready.
    pub(crate) async fn ready(&self) {
        self.until("every shard has a worker", |status| {
            status.stage == "serving" && status.shards.iter().all(|s| s.ready)
        })
        .await;
    }

    /// Waits until the status is as described.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&StatusResponse) -> bool) {
        let started = Instant::now();
        loop {
            let status = self.client().status(StatusRequest {}).await;
            match status {
                Ok(status) if holds(status.get_ref()) => return,
                _ => assert!(started.elapsed() < PATIENCE, "not so: {what}; {}", self.coordinator.logged()),
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub(crate) async fn submit(&self, input: &[FloatTensor]) -> Result<Run, Status> {
        self.send(input, None).await
    }

    /// Submits with a part in the audit's draw.
    pub(crate) async fn submit_committed(&self, input: &[FloatTensor], nonce: Nonce) -> Result<Run, Status> {
        self.send(input, Some(nonce.commitment())).await
    }

    async fn send(&self, input: &[FloatTensor], commitment: Option<NonceCommitment>) -> Result<Run, Status> {
        let tensors: Vec<Tensor> = input.iter().cloned().map(Tensor::Float).collect();
        let stored = transport::artifacts::store(self.channel(), encode_boundary(&tensors).into()).await.unwrap();
        let request = SubmitRequest {
            input: stored.digest.as_bytes().to_vec().into(),
            nonce_commitment: commitment.map(|commitment| commitment.as_bytes().to_vec().into()).unwrap_or_default(),
        };
        Ok(self.client().submit(request).await?.into_inner())
    }

    /// Submits and waits for the end of the run.
    pub(crate) async fn infer(&self, input: &[FloatTensor]) -> Run {
        let run = self.submit(input).await.unwrap();
        self.settled(&run).await
    }

    pub(crate) async fn prove(&self, run: &Run, shards: &[u32]) -> Result<Run, Status> {
        let request = ProveRequest { run: run.run.clone(), shards: shards.to_vec(), ..ProveRequest::default() };
        Ok(self.client().prove(request).await?.into_inner())
    }

    /// Requests proofs of all shards of several runs at once.
    pub(crate) async fn prove_all(&self, runs: &[Run]) -> Result<Run, Status> {
        let runs = runs.iter().map(|run| run.run.clone()).collect();
        Ok(self.client().prove(ProveRequest { runs, ..ProveRequest::default() }).await?.into_inner())
    }

    /// The run once nothing is under way any more.
    pub(crate) async fn settled(&self, run: &Run) -> Run {
        self.run_until(run, |_| false).await
    }

    /// The run once it is as described, or once nothing is under way any more.
    pub(crate) async fn run_until(&self, run: &Run, holds: impl Fn(&Run) -> bool) -> Run {
        let mut stream = self.client().watch(WatchRequest { run: run.run.clone() }).await.unwrap().into_inner();
        let mut last = run.clone();
        let watched = tokio::time::timeout(PATIENCE, async {
            while let Some(run) = stream.message().await.unwrap() {
                last = run;
                if holds(&last) {
                    return;
                }
            }
        });
        watched.await.unwrap_or_else(|_| panic!("run did not settle; {}", self.coordinator.logged()));
        if let Some(large) = last.answer_artifact.as_ref().filter(|_| last.answer.is_empty()) {
            last.answer = fetch(self, large).await.into();
        }
        last
    }
}

/// Fetches an artifact from the coordinator.
pub(crate) async fn fetch(service: &Service, reference: &ArtifactRef) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(directory.path()).unwrap();
    let artifact = convert::artifact(Some(reference)).unwrap();
    std::fs::read(transport::artifacts::fetch(service.channel(), &store, artifact).await.unwrap()).unwrap()
}

/// Fetches the bundle of a run.
pub(crate) async fn bundle_of(service: &Service, run: &Run) -> Bundle {
    let reference = service.client().bundle(BundleRequest { run: run.run.clone() }).await.unwrap().into_inner();
    Bundle::decode(&fetch(service, &reference).await).unwrap()
}

/// Fetches card and bundle of a run on `input` and checks them as anyone else would.
pub(crate) async fn verify_bundle(service: &Service, run: &Run, input: Vec<FloatTensor>) -> chain::Report {
    let bundle = bundle_of(service, run).await;
    check_bundle(service, bundle, input, answer(run)).await
}

/// Checks a bundle as one who knows the input and the answer.
pub(crate) async fn check_bundle(
    service: &Service,
    bundle: Bundle,
    input: Vec<FloatTensor>,
    outputs: Vec<f64>,
) -> chain::Report {
    let card = ModelCard::parse(&service.status().await.card).unwrap();
    tokio::task::spawn_blocking(move || {
        let directory = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let job = Job { directory: directory.path(), limits: Default::default(), cancel: &cancel, progress: &|_| {} };
        let options =
            VerifyOptions { input: Some(&input), output: Some(&outputs), allow_test_srs: true, ..Default::default() };
        let ezkl = EzklVerifier::new(EzklConfig::from_env());
        chain::verify(&bundle, &card, &options, &[&GkrVerifier::default(), &ezkl], &job).unwrap()
    })
    .await
    .unwrap()
}

/// Runs `shardproof ARGS` to its end: exit code and standard error.
pub(crate) fn fails(args: &[&str]) -> (Option<i32>, String) {
    let mut child = command(&strings(args)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    (child.wait().unwrap().code(), errors)
}

/// Runs `shardproof ARGS` to its end: exit code and what it printed, which is JSON.
pub(crate) fn json(args: &[String]) -> (Option<i32>, serde_json::Value) {
    let output = command(args).stderr(Stdio::inherit()).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

/// The zoo's samples of a model and the float model's answers to them.
pub(crate) fn samples(name: &str) -> Vec<(Vec<FloatTensor>, Vec<f64>)> {
    let source = ModelSource::resolve(name).unwrap();
    let model = OnnxModel::load(&source, &Default::default()).unwrap();
    let shard = shardproof_models::FloatShard::load(&model.to_onnx()).unwrap();
    let inputs = input::samples(&source, &model, 8, 0).unwrap().inputs;
    let answer = |input: &Vec<FloatTensor>| {
        let outputs = shard.run(input).unwrap();
        outputs.into_iter().flat_map(|tensor| tensor.values).map(f64::from).collect()
    };
    inputs.iter().map(|input| (input.clone(), answer(input))).collect()
}

/// The answer of a run as reals.
pub(crate) fn answer(run: &Run) -> Vec<f64> {
    assert!(!run.answer.is_empty(), "no answer: {:?} {}", run.state(), run.reason);
    decode_boundary(&run.answer).unwrap().iter().flat_map(Tensor::to_reals).collect()
}

pub(crate) fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected} within {tolerance}");
    }
}

pub(crate) fn assert_state(run: &Run, state: RunState) {
    assert_eq!(run.state(), state, "{}", run.reason);
}

pub(crate) fn command(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardproof"));
    command.args(args).stdin(Stdio::null());
    command
}

/// `shardproof ARGS` where no file can grow beyond so many blocks of 512 or 1024 bytes, as shells count them.
///
/// The system ends whoever writes more with a signal; ignored, it gives them an error, as a full disk does.
pub(crate) fn on_full_disk(blocks: u32, args: &[String]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" XFSZ; ulimit -f "$0"; exec "$@""#, &blocks.to_string()]);
    command.arg(env!("CARGO_BIN_EXE_shardproof")).args(args).stdin(Stdio::null());
    command
}

pub(crate) fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

pub(crate) fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}
