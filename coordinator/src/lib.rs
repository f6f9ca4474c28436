//! The coordinator: plans, sets up, assigns shards to workers, runs, verifies and chains.
//!
//! It acts for the model's owner: settings and keys are computed here (`setup`), workers get theirs by digest
//! (`registry`, `cluster`). A run passes through the workers without the coordinator, which sees the first and the last
//! boundary and every receipt (`inference`); proofs come later, on request (`proving`) or because they were drawn (`audit`),
//! and are verified here before a client sees them in a bundle (`bundling`). What a worker's proofs came to is on its record
//! (`workers`). What must survive a restart is in the `store`.

mod access;
mod accusation;
mod args;
mod audit;
mod binding;
mod bundling;
mod cluster;
mod dispute;
mod drain;
mod inference;
mod plan_args;
mod proving;
mod record;
mod registry;
mod runs;
mod services;
mod setup;
mod store;
mod workers;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use shardproof_common::artifacts::ArtifactStore;
use shardproof_common::audit::AuditPolicy;
use shardproof_common::backend::{Backend, ProofVerifier};
use shardproof_common::hold::Hold;
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::process::{self, DataDir};
use shardproof_common::receipt::{Identity, PublicKey};
use shardproof_common::{keyfile, machine, telemetry};
use shardproof_proto::transport::{Party, Transport};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::{AccessArgs, LimitArgs};
pub use args::{CoordinatorArgs, ServiceArgs};
use cluster::Cluster;
use dashmap::DashMap;
use dispute::Asked;
pub use plan_args::{Backends, PlanArgs, parse_dim};
use runs::Runs;
pub use setup::CALIBRATION_SAMPLES;
use setup::{Planned, Prepared};
use store::Store;
use workers::Workers;

/// Proofs verified at a time.
const VERIFICATIONS: usize = 2;
/// A worker that has sent no heartbeat for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(20);

/// What the parts of a coordinator share.
struct Coordinator {
    settings: Settings,
    transport: Transport,
    planned: Planned,
    owner: Identity,
    artifacts: ArtifactStore,
    /// Where jobs work; empty when the program starts.
    scratch: PathBuf,
    runs: Runs,
    /// Workers that were asked to show the output of a shard in a run.
    asked: DashMap<(RunId, ShardIndex), Asked>,
    backends: Vec<Box<dyn Backend>>,
    store: Store,
    workers: Workers,
    cluster: Cluster,
    verifiers: Vec<Box<dyn ProofVerifier>>,
    verifying: Semaphore,
    stage: watch::Sender<Stage>,
    hold: Hold,
    tasks: TaskTracker,
    /// Cancelled by the first signal: nothing more is accepted.
    stopping: CancellationToken,
    /// Cancelled when nothing is under way any more, or has to be given up.
    shutdown: CancellationToken,
}

/// How far setup is.
#[derive(Clone)]
enum Stage {
    /// At a step, in words for people.
    Preparing(String),
    /// Done.
    Serving(Arc<Prepared>),
    /// It failed, and why.
    Failed(String),
}

/// The service's limits.
struct Settings {
    run_deadline: Duration,
    prove_deadline: Duration,
    setup_deadline: Duration,
    rejoin_grace: Duration,
    reveal_deadline: Duration,
    audit: AuditPolicy,
    dispute_deadline: Duration,
    /// What a receipt must promise at least.
    provable_for: Duration,
    hop_deadline: Duration,
    drain_deadline: Duration,
    max_runs: usize,
    /// Largest boundary that the coordinator takes, bytes of its encoding.
    max_tensor_bytes: u64,
    /// Largest proof that it takes, bytes.
    max_proof_bytes: u64,
    memory_bytes: Option<u64>,
}

/// Runs a coordinator until it is told to stop.
///
/// # Errors
/// When the model cannot be split as asked, it cannot listen, or its data directory is in use.
pub async fn run(args: CoordinatorArgs) -> anyhow::Result<()> {
    telemetry::init("info", args.service.log_format);
    let stopping = process::stopping_on_signals()?;
    let shutdown = CancellationToken::new();
    if args.service.exit_with_parent {
        process::exit_with_parent(shutdown.clone());
    }
    let access = args.access.clone();
    let transport = access.listen.transport(Party::Coordinator)?;
    let gate = access.gate()?;
    check_audit(&args)?;
    let data = DataDir::open(data_directory(&args)?)?;
    let listener = TcpListener::bind((args.host.as_str(), args.port)).await.with_context(|| {
        format!("cannot listen on {}:{}: give another port, or 0 for a free one", args.host, args.port)
    })?;
    let port = listener.local_addr()?.port();
    let advertised = args.service.advertise.clone().unwrap_or_else(|| format!("{}:{port}", args.host));
    access.listen.check_exposure(&listener, access.tokens.is_some())?;
    let loopback = listener.local_addr()?.ip().is_loopback();

    let planning = args.clone();
    let planned = tokio::task::spawn_blocking(move || setup::plan(&planning)).await??;
    let store = Store::open(&data.join("state.sqlite")).await.context("state.sqlite in the data directory")?;
    let plan = planned.plan.digest();
    let runs = Runs::new(store.clone());
    runs.restore().await?;
    let listed = args.service.admit.as_deref().map(read_admitted).transpose()?;
    let workers = Workers::load(store.clone(), listed).await?;
    warn_of_exposure(loopback, &workers);
    let coordinator = Arc::new(Coordinator {
        settings: settings(&args)?,
        transport,
        cluster: Cluster::new(planned.plan.shards.len(), advertised, store.holders(plan).await?),
        planned,
        owner: keyfile::load_or_create(&data.join("owner.key"))
            .context("the owner's key owner.key in the data directory")?,
        artifacts: ArtifactStore::open(data.join("artifacts"))?,
        scratch: data.scratch()?,
        runs,
        workers,
        asked: DashMap::new(),
        backends: setup::backends(&args.service),
        store,
        verifiers: setup::verifiers(&args.service),
        verifying: Semaphore::new(VERIFICATIONS),
        stage: watch::Sender::new(Stage::Preparing("starting".into())),
        hold: Hold::arm(args.service.hold_at)?,
        tasks: TaskTracker::new(),
        stopping,
        shutdown,
    });
    process::announce(&format!("{}:{port}", args.host))?;
    tracing::info!(model = coordinator.planned.name, shards = args.shards, plan = plan.short(), "coordinator started");
    coordinator.tasks.spawn(coordinator.clone().prepare(args, data.join("setup")));
    services::serve(coordinator.clone(), listener, &access.listen, gate).await?;
    match &*coordinator.stage.borrow() {
        Stage::Failed(reason) => anyhow::bail!("{reason}"),
        Stage::Preparing(_) | Stage::Serving(_) => Ok(()),
    }
}

fn settings(args: &CoordinatorArgs) -> anyhow::Result<Settings> {
    let (args, limits) = (&args.service, &args.access.limits);
    Ok(Settings {
        run_deadline: Duration::from_secs(args.run_deadline),
        prove_deadline: Duration::from_secs(args.prove_deadline),
        setup_deadline: Duration::from_secs(args.setup_deadline),
        rejoin_grace: Duration::from_secs(args.rejoin_grace),
        reveal_deadline: Duration::from_secs(args.reveal_deadline),
        audit: args.audit,
        dispute_deadline: Duration::from_secs(args.dispute_deadline),
        provable_for: args.provable_for,
        hop_deadline: Duration::from_secs(args.hop_deadline),
        drain_deadline: Duration::from_secs(args.drain_deadline),
        max_runs: limits.max_runs,
        max_tensor_bytes: limits.max_upload,
        max_proof_bytes: limits.max_proof,
        memory_bytes: args.memory_limit.or_else(machine::memory_bytes),
    })
}

/// One key a line; empty lines and those that begin with `#` are skipped.
fn read_admitted(path: &Path) -> anyhow::Result<HashSet<PublicKey>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(n, line)| line.parse().with_context(|| format!("{}:{}", path.display(), n + 1))).collect()
}

/// Proofs that cannot be are not promised.
fn check_audit(args: &CoordinatorArgs) -> anyhow::Result<()> {
    if args.service.audit != AuditPolicy::Request && args.plan.backend.prove_nothing() {
        anyhow::bail!("--audit {}: float mode proves nothing; use --backend gkr or ezkl", args.service.audit);
    }
    Ok(())
}

fn warn_of_exposure(loopback: bool, workers: &Workers) {
    let (_, admission_required) = workers.list();
    if !loopback && !admission_required {
        tracing::warn!(
            "listening beyond this machine without --admit, and no worker is admitted: whoever reaches the port can join as a worker; \
             their receipts are signed and their proofs verified, but they see the activations"
        );
    }
}

fn data_directory(args: &CoordinatorArgs) -> anyhow::Result<PathBuf> {
    match (&args.service.data_dir, args.port) {
        (Some(directory), _) => Ok(directory.clone()),
        (None, 0) => anyhow::bail!("port 0 needs --data-dir: the default directory is named by the port"),
        (None, port) => Ok(process::default_data_dir().join(format!("coordinator-{port}"))),
    }
}
