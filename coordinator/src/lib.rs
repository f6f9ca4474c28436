//! The coordinator: plans, sets up, assigns shards to workers, runs, verifies and chains.
//!
//! It acts for the model's owner: settings and keys are computed here (`setup`), workers get theirs by digest
//! (`registry`, `cluster`). A run passes through the workers without the coordinator, which sees the first and the last
//! boundary and every receipt (`inference`); proofs come later, on request (`proving`) or because they were drawn (`audit`),
//! and are verified here (`verifying`) before a client sees them in a bundle (`bundling`). What a worker's proofs came to is on
//! its record (`workers`). What must survive a restart is in the `store`.

mod access;
mod accusation;
mod args;
mod audit;
mod binding;
mod bundling;
mod cluster;
mod delivery;
mod dispute;
mod drain;
mod gc;
mod inference;
mod metrics;
mod plan_args;
mod proving;
mod record;
mod registry;
mod replay;
mod runs;
mod services;
mod setup;
mod store;
#[cfg(test)]
mod testing;
mod verifying;
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
use shardproof_common::{clock, keyfile, machine, telemetry};
use shardproof_proto::transport::{Gate, Party, Transport, Uploads};
use shardproof_storage::Artifacts;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::{AccessArgs, LimitArgs};
pub use args::{CoordinatorArgs, ServiceArgs};
use cluster::Cluster;
use dashmap::DashMap;
use delivery::Deliveries;
use dispute::Asked;
pub use gc::{Removed, Retention, collect_offline};
pub use plan_args::{Backends, PlanArgs};
use runs::Runs;
pub use setup::CALIBRATION_SAMPLES;
use setup::{Planned, Prepared};
use store::lease::{Candidate, LIFETIME};
use store::{Database, Location, Store};
use workers::Workers;

/// Proofs verified at a time.
const VERIFICATIONS: usize = 2;
/// A worker that has sent no heartbeat for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(20);

/// Pause before an object store that is away is tried again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What the parts of a coordinator share.
struct Coordinator {
    settings: Settings,
    transport: Transport,
    planned: Planned,
    owner: Identity,
    artifacts: Artifacts,
    /// What callers have stored that nothing uses yet.
    uploads: Uploads,
    /// Where jobs work; empty when the program starts.
    scratch: PathBuf,
    runs: Runs,
    /// Workers that were asked to show the output of a shard in a run.
    asked: DashMap<(RunId, ShardIndex), Asked>,
    backends: Vec<Box<dyn Backend>>,
    store: Store,
    workers: Workers,
    cluster: Cluster,
    deliveries: Deliveries,
    verifiers: Vec<Box<dyn ProofVerifier>>,
    verifying: Semaphore,
    /// Held while what nobody needs is removed.
    collecting: tokio::sync::Mutex<()>,
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
    retention: Retention,
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
    clock::set_offset_ms(args.service.clock_offset_ms);
    let stopping = process::stopping_on_signals()?;
    let shutdown = CancellationToken::new();
    if args.service.exit_with_parent {
        process::exit_with_parent(shutdown.clone());
    }
    let access = args.access.clone();
    let transport = access.listen.transport(Party::Coordinator)?;
    let gate = access.gate().context("--tokens")?;
    check_audit(&args)?;
    check_files(&args.service)?;
    let data = DataDir::open(data_directory(&args)?)?;
    let planning = args.clone();
    let planned = tokio::task::spawn_blocking(move || setup::plan(&planning)).await??;
    let location = location(&args.service, &data);
    let opened = open_store(&location, &data, &stopping, &shutdown).await?;
    let Some((store, owner)) = opened else { return Ok(()) };
    let lead =
        Lead { data: &data, location, transport, gate, planned, store: store.clone(), owner, stopping, shutdown };
    let led = lead.serve(args).await;
    let replaced = store.lease().is_lost().is_cancelled();
    // Whatever it came to: one that stands by need not wait until the lease runs out.
    store.close().await;
    let coordinator = led?;
    anyhow::ensure!(!replaced, "another coordinator has taken over: this one has stopped");
    match &*coordinator.stage.borrow() {
        Stage::Failed(reason) => anyhow::bail!("{reason}"),
        Stage::Preparing(_) | Stage::Serving(_) => Ok(()),
    }
}

/// A coordinator that holds the lease.
struct Lead<'a> {
    data: &'a DataDir,
    location: Location,
    transport: Transport,
    gate: Gate,
    planned: Planned,
    store: Store,
    owner: Identity,
    stopping: CancellationToken,
    shutdown: CancellationToken,
}

impl Lead<'_> {
    /// Listens, and serves until it is told to stop or its setup fails.
    async fn serve(self, args: CoordinatorArgs) -> anyhow::Result<Arc<Coordinator>> {
        let Self { data, location, transport, gate, planned, store, owner, stopping, shutdown } = self;
        let access = args.access.clone();
        gc::note_where_the_state_is(data, &location)?;
        // Whoever stands by does not listen: workers and clients find the one that serves at the service's address.
        let (listener, own) = access.listen.bind(&args.host, args.port).await?;
        access.listen.check_exposure(&listener, access.tokens.is_some())?;
        let advertised = access.listen.advertised(&listener, &own, args.service.advertise.as_deref())?;
        let loopback = listener.local_addr()?.ip().is_loopback();

        let term = store.lease().term();
        let parts = Parts { data, transport, planned, store, owner, advertised, stopping, shutdown };
        let coordinator = Arc::new(Coordinator::new(&args, parts, setup::verifiers(&args.service)).await?);
        warn_of_exposure(loopback, &coordinator.workers);
        process::announce(&own)?;
        tracing::info!(
            model = coordinator.planned.name,
            shards = args.shards,
            plan = coordinator.planned.plan.digest().short(),
            term,
            "coordinator started"
        );
        coordinator.tasks.spawn(coordinator.clone().prepare(args));
        coordinator.tasks.spawn(coordinator.clone().collect_regularly());
        services::serve(coordinator.clone(), listener, &access.listen, gate).await?;
        Ok(coordinator)
    }
}

/// What a coordinator is made of, besides its options.
struct Parts<'a> {
    data: &'a DataDir,
    transport: Transport,
    planned: Planned,
    store: Store,
    owner: Identity,
    /// Where workers reach it.
    advertised: String,
    stopping: CancellationToken,
    shutdown: CancellationToken,
}

impl Coordinator {
    /// With the runs and workers that the store knows, none of them connected.
    async fn new(
        args: &CoordinatorArgs,
        parts: Parts<'_>,
        verifiers: Vec<Box<dyn ProofVerifier>>,
    ) -> anyhow::Result<Self> {
        let Parts { data, transport, planned, store, owner, advertised, stopping, shutdown } = parts;
        let runs = Runs::new(store.clone(), shutdown.clone());
        runs.restore().await?;
        let listed = args.service.admit.as_deref().map(read_admitted).transpose().context("--admit")?;
        let holders = store.holders(planned.plan.digest()).await?;
        Ok(Self {
            settings: settings(args)?,
            transport,
            cluster: Cluster::new(planned.plan.shards.len(), advertised, holders),
            planned,
            owner,
            artifacts: artifacts(&args.service, data)?,
            uploads: uploads(args),
            scratch: data.scratch()?,
            runs,
            workers: Workers::load(store.clone(), listed).await?,
            asked: DashMap::new(),
            backends: setup::backends(&args.service),
            store,
            deliveries: Deliveries::default(),
            verifiers,
            verifying: Semaphore::new(VERIFICATIONS),
            collecting: tokio::sync::Mutex::default(),
            stage: watch::Sender::new(Stage::Preparing("starting".into())),
            hold: Hold::arm(args.service.hold_at)?,
            tasks: TaskTracker::new(),
            stopping,
            shutdown,
        })
    }
}

/// Where the state is.
fn location(args: &ServiceArgs, data: &DataDir) -> Location {
    match &args.database {
        Some(url) => Location::Url(url.clone()),
        None => Location::File(data.join("state.sqlite")),
    }
}

/// Opens the state and waits until this process is the one that serves; nothing when it is told to stop before.
async fn open_store(
    location: &Location,
    data: &DataDir,
    stopping: &CancellationToken,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<(Store, Identity)>> {
    let name = match location {
        Location::Url(_) => "the database given with --database",
        Location::File(_) => "state.sqlite in the data directory",
    };
    let database = Database::open(location).await.context(name)?;
    let owner =
        keyfile::load_or_create(&data.join("owner.key")).context("the owner's key owner.key in the data directory")?;
    let holder = keyfile::load_or_create(&data.join("instance.key"))
        .context("instance.key, which names this data directory, in it")?;
    let candidate = Candidate { owner: owner.public(), holder: holder.public() };
    let store = Store::lead(database, &candidate, LIFETIME, stopping).await.context(name)?;
    if let Some(store) = &store {
        tokio::spawn(store.clone().keep_lease());
        let (lost, shutdown) = (store.lease().is_lost().clone(), shutdown.clone());
        tokio::spawn(async move {
            lost.cancelled().await;
            tracing::error!("another coordinator has taken over: stopping");
            shutdown.cancel();
        });
    }
    Ok(store.map(|store| (store, owner)))
}

fn artifacts(args: &ServiceArgs, data: &DataDir) -> anyhow::Result<Artifacts> {
    let local = ArtifactStore::open(data.join("artifacts"))?;
    Ok(match &args.artifacts {
        Some(url) => Artifacts::at(local, url).context("--artifacts")?,
        None => Artifacts::in_directory(local),
    })
}

fn uploads(args: &CoordinatorArgs) -> Uploads {
    let limit = Some(args.access.limits.max_unused).filter(|&bytes| bytes > 0);
    // Garbage is looked for from time to time: what is old enough may be there a while longer.
    Uploads::new(limit, args.service.keep_artifacts + gc::PAUSE)
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
        retention: Retention { keep_runs: args.keep_runs, keep_artifacts: args.keep_artifacts },
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

/// Files that are read later are there, so that what is missing ends the program before it starts anything.
fn check_files(args: &ServiceArgs) -> anyhow::Result<()> {
    for (option, path) in [("--admit", &args.admit), ("--srs", &args.srs)] {
        if let Some(path) = path {
            std::fs::File::open(path).with_context(|| format!("{option} {}", path.display()))?;
        }
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
