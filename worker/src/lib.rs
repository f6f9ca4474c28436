//! The worker: runs one shard, passes the activations on, proves on request.
//!
//! A worker keeps one control stream to the coordinator (`session`), from which it learns its shard (`shard`) and the
//! address of the next one. Boundaries arrive through `pipeline`, are written to the `spool` before they are
//! acknowledged, and proofs are made one at a time on a thread of their own (`proving`). Heartbeats leave from a thread that
//! none of this can starve (`heartbeat`).

mod args;
mod heartbeat;
mod metrics;
mod pipeline;
mod proving;
mod session;
mod shard;
mod showing;
mod spool;
mod timings;
mod upkeep;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use shardproof_common::address::host_port;
use shardproof_common::artifacts::ArtifactStore;
use shardproof_common::backend::Backend;
use shardproof_common::hold::Hold;
use shardproof_common::ids::Role;
use shardproof_common::plan::BackendKind;
use shardproof_common::process::{self, DataDir};
use shardproof_common::receipt::{Identity, PublicKey};
use shardproof_common::{clock, keyfile, machine, telemetry};
use shardproof_ezkl::{EzklBackend, EzklConfig, KeepWarm, RunnerKind};
use shardproof_gkr_service::GkrBackend;
use shardproof_models::FloatBackend;
use shardproof_proto::transport::activations::Hop;
use shardproof_proto::transport::metrics::serve as serve_metrics;
use shardproof_proto::transport::{self, Channel, ClientLimits, Gate, ListenArgs, Party, Transport, traffic::Traffic};
use shardproof_proto::v1::{Assignment, WorkerMessage, worker_message};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use args::WorkerArgs;
use shard::HeldShard;
use spool::Spool;
pub use timings::TIMINGS_HEADER;
pub use upkeep::{Cleared, collect_offline};

/// Messages that wait while the coordinator is away.
const OUTBOX_MESSAGES: usize = 4096;

/// What the parts of a worker share.
struct Worker {
    identity: Identity,
    role: Role,
    address: String,
    transport: Transport,
    coordinator: Channel,
    artifacts: ArtifactStore,
    spool: Spool,
    passages: pipeline::Passages,
    backends: HashMap<BackendKind, Arc<dyn Backend>>,
    shard: watch::Sender<Option<Arc<HeldShard>>>,
    neighbours: watch::Sender<Neighbours>,
    outbox: mpsc::Sender<WorkerMessage>,
    memory_bytes: Option<u64>,
    /// How long the spool keeps what a receipt promises to prove.
    keep_spool: Duration,
    hop_deadline: Duration,
    timings: Option<PathBuf>,
    /// Places for runs that come as they should, from the shard before or, at the first, from the owner's side.
    queue: Arc<Semaphore>,
    /// Places for what the owner's side hands over in a neighbour's stead, which no neighbour can take.
    disputed: Arc<Semaphore>,
    compute: Arc<Semaphore>,
    proving: proving::Queue,
    /// The coordinator's latest; none while there is no session.
    assigned: watch::Sender<Option<Assignment>>,
    hold: Hold,
    tasks: TaskTracker,
    /// Cancelled by the first signal: the coordinator is told, and what is under way ends.
    stopping: CancellationToken,
    /// Cancelled when the coordinator has let the worker go, or what is under way has to be given up.
    shutdown: CancellationToken,
}

/// Who stands before and after this worker in the chain.
#[derive(Default)]
struct Neighbours {
    next: Option<Hop>,
    /// Key of the only worker whose outputs are taken.
    previous: Option<PublicKey>,
}

impl Worker {
    /// Queues a message for the coordinator.
    async fn tell(&self, message: worker_message::Message) {
        let message = WorkerMessage { message: Some(message) };
        if self.outbox.send(message).await.is_err() {
            tracing::debug!("nobody is left to take a message for the coordinator");
        }
    }

    /// Queues a message that may be dropped when many wait.
    fn mention(&self, message: worker_message::Message) {
        // Progress is for people: a full outbox means that nobody is looking.
        let _dropped_when_full = self.outbox.try_send(WorkerMessage { message: Some(message) });
    }
}

/// Runs a worker until it is told to stop.
///
/// # Errors
/// When it cannot listen, its data directory is in use, or the coordinator refuses it.
pub async fn run(args: WorkerArgs) -> anyhow::Result<()> {
    telemetry::init("info", args.log_format);
    clock::set_offset_ms(args.clock_offset_ms);
    let stopping = process::stopping_on_signals()?;
    let shutdown = CancellationToken::new();
    if args.exit_with_parent {
        process::exit_with_parent(shutdown.clone());
    }
    let transport = args.listen.transport(Party::Worker)?;
    let data = DataDir::open(data_directory(&args)?)?;
    let (listener, own) = args.listen.bind(&args.host, args.port).await?;
    args.listen.check_exposure(&listener, false)?;
    let address = args.listen.advertised(&listener, &own, args.advertise.as_deref())?;

    let coordinator = host_port(&args.coordinator_host, args.coordinator_port);
    let channel = transport.lazy_channel(&coordinator, Party::Coordinator)?;
    let (outbox, pending) = mpsc::channel(OUTBOX_MESSAGES);
    let (proving, jobs) = proving::queue();
    let worker = Arc::new(Worker {
        identity: keyfile::load_or_create(&data.join("worker.key"))
            .context("the key worker.key in the data directory")?,
        role: args.role,
        address,
        transport,
        coordinator: channel,
        artifacts: ArtifactStore::open(data.join("artifacts"))?,
        spool: Spool::open(data.join("spool"), &data.scratch()?, args.spool_limit)?,
        passages: pipeline::Passages::new(),
        backends: backends(&args),
        shard: watch::Sender::new(None),
        neighbours: watch::Sender::new(Neighbours::default()),
        outbox,
        timings: args.timings.clone(),
        keep_spool: args.keep_spool,
        memory_bytes: args.memory_limit.or_else(machine::memory_bytes),
        hop_deadline: Duration::from_secs(args.hop_deadline),
        queue: Arc::new(Semaphore::new(args.queue)),
        disputed: Arc::new(Semaphore::new(args.queue)),
        compute: Arc::new(Semaphore::new(args.concurrency)),
        proving,
        assigned: watch::Sender::new(None),
        hold: Hold::arm(args.hold_at)?,
        tasks: TaskTracker::new(),
        stopping,
        shutdown,
    });
    tokio::spawn(give_up_after(worker.clone(), Duration::from_secs(args.drain_deadline)));
    proving::start(worker.clone(), jobs, args.prove_delay_ms)?;
    worker.tasks.spawn(upkeep::regularly(worker.clone()));
    worker.tasks.spawn(shard::keep_loading(worker.clone(), worker.assigned.subscribe()));
    process::announce(&own)?;
    tracing::info!(role = %worker.role, key = %worker.identity.public().short(), "worker ready for the coordinator");
    serve(worker, listener, &args.listen, pending, coordinator).await
}

/// Serves activations and keeps the session with the coordinator until either ends.
async fn serve(
    worker: Arc<Worker>,
    listener: TcpListener,
    listen: &ListenArgs,
    pending: mpsc::Receiver<WorkerMessage>,
    coordinator: String,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_not_serving::<pipeline::Server>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(shardproof_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let activations = pipeline::server(worker.clone()).max_decoding_message_size(listen.message_bytes());
    let stop = worker.shutdown.clone();
    let traffic = Traffic::default();
    if let Some(address) = listen.metrics {
        serve_metrics(address, "worker", env!("CARGO_PKG_VERSION"))?;
        metrics::describe();
        tokio::spawn(metrics::sample(worker.clone(), traffic.clone()));
    }
    let connections = listen.listening(listener, traffic.clone()).connections(&worker.transport)?;
    // Nobody calls a worker but its neighbours and the coordinator.
    let gate = Gate::new(None, ClientLimits::default());
    let server = transport::server(gate, listen.max_streams)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(activations)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned());
    let server = tokio::spawn(server);
    let watcher = tokio::spawn(shard::report_health(worker.clone(), health));

    let session = session::keep(worker.clone(), coordinator, pending).await;
    worker.shutdown.cancel();
    worker.tasks.close();
    let until_at_rest = async {
        worker.tasks.wait().await;
        server.await
    };
    let at_rest = process::until_farewell(&worker.shutdown, until_at_rest).await;
    watcher.abort();
    traffic.log();
    at_rest.transpose()?.transpose()?;
    Ok(session?)
}

/// Ends the worker when the coordinator has not let it go within the drain deadline.
async fn give_up_after(worker: Arc<Worker>, drain_deadline: Duration) {
    worker.stopping.cancelled().await;
    tokio::select! {
        () = tokio::time::sleep(drain_deadline) => {}
        () = worker.shutdown.cancelled() => return,
    }
    tracing::warn!("the drain deadline has passed: giving up what is under way");
    worker.shutdown.cancel();
}

fn backends(args: &WorkerArgs) -> HashMap<BackendKind, Arc<dyn Backend>> {
    let float: Arc<dyn Backend> = Arc::new(FloatBackend::new());
    let warm = KeepWarm { idle: Duration::from_secs(args.warm_seconds), ..KeepWarm::SERVICE };
    let keep_warm = (args.warm_seconds > 0).then_some(warm);
    let mut config = EzklConfig { keep_warm, ..EzklConfig::from_env() };
    if let Some(program) = &args.ezkl_cli {
        config.runner = RunnerKind::Program(program.clone());
    }
    let ezkl: Arc<dyn Backend> = Arc::new(EzklBackend::new(config));
    let gkr: Arc<dyn Backend> = Arc::new(GkrBackend::new());
    HashMap::from([(BackendKind::Float, float), (BackendKind::Ezkl, ezkl), (BackendKind::Gkr, gkr)])
}

fn data_directory(args: &WorkerArgs) -> anyhow::Result<PathBuf> {
    match (&args.data_dir, args.port) {
        (Some(directory), _) => Ok(directory.clone()),
        (None, 0) => anyhow::bail!("port 0 needs --data-dir: the default directory is named by the port"),
        (None, port) => Ok(process::default_data_dir().join(format!("worker-{port}"))),
    }
}
