//! The worker's stream to the coordinator, kept for as long as the worker runs.
//!
//! The coordinator may start later, restart, or be away for a while: the worker waits and joins again. Messages that wait in
//! the outbox meanwhile are sent then. One that was on its way when the connection broke is lost with it; the coordinator asks
//! again for what it still needs, and a proof that is already made is answered from the spool. A refusal (a role that the plan
//! has no place for, a key that is not admitted) ends the worker. A worker that is told to stop says so and stays until the
//! coordinator lets it go, because runs on their way pass through it.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, Role};
use shardproof_proto::convert;
use shardproof_proto::transport::{self, Party, explain};
use shardproof_proto::v1::control_client::ControlClient;
use shardproof_proto::v1::coordinator_message::Message as FromCoordinator;
use shardproof_proto::v1::worker_message::Message as ToCoordinator;
use shardproof_proto::v1::{self, CoordinatorMessage, WorkerMessage};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{Neighbours, Worker, heartbeat, metrics, showing};

/// How often a worker that waits for its coordinator says so.
const WAITING_NOTICE: Duration = Duration::from_secs(30);

/// Keeps a session until the worker stops or the coordinator refuses it.
pub(crate) async fn keep(
    worker: Arc<Worker>,
    coordinator: String,
    mut pending: mpsc::Receiver<WorkerMessage>,
) -> Result<(), SessionError> {
    let stale = Arc::new(Notify::new());
    let session = watch::Sender::new(None);
    heartbeat::start(worker.transport.clone(), &coordinator, session.subscribe(), stale.clone())?;

    let mut delays = delays();
    let mut last_notice: Option<tokio::time::Instant> = None;
    loop {
        let connected = tokio::select! {
            end = connect(&worker, &mut pending, &session) => end,
            () = stale.notified() => Err(SessionError::Lost(Status::unavailable("the coordinator no longer knows this session"))),
            () = worker.shutdown.cancelled() => return Ok(()),
        };
        let was_connected = session.send_replace(None).is_some();
        worker.assigned.send_replace(None);
        metrics::note_session(false);
        match connected {
            Ok(()) => return Ok(()),
            Err(SessionError::Lost(_)) if worker.stopping.is_cancelled() => return Ok(()),
            Err(SessionError::Lost(status)) => {
                if was_connected {
                    delays = self::delays();
                    last_notice = None;
                }
                if last_notice.is_none_or(|at| at.elapsed() >= WAITING_NOTICE) {
                    tracing::warn!(coordinator, reason = why(&status), "waiting for the coordinator");
                    last_notice = Some(tokio::time::Instant::now());
                }
            }
            Err(refused) => return Err(refused),
        }
        tokio::select! {
            () = tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(2))) => {}
            () = worker.stopping.cancelled() => return Ok(()),
        }
    }
}

/// What the coordinator said, or why nothing could be said to it.
fn why(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(_) => explain(status),
        None => status.message().to_owned(),
    }
}

fn delays() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter()
        .build()
}

/// One session from the challenge to the end of the stream.
async fn connect(
    worker: &Arc<Worker>,
    pending: &mut mpsc::Receiver<WorkerMessage>,
    session: &watch::Sender<Option<u64>>,
) -> Result<(), SessionError> {
    let (sender, receiver) = mpsc::channel(64);
    let mut client =
        ControlClient::new(worker.coordinator.clone()).max_decoding_message_size(transport::MAX_MESSAGE_BYTES);
    let mut stream = client.work(ReceiverStream::new(receiver)).await?.into_inner();
    let challenge = match next(&mut stream).await? {
        FromCoordinator::Challenge(challenge) => convert::digest("nonce", &challenge.nonce)?,
        _ => return Err(Status::internal("the coordinator did not begin with a challenge").into()),
    };
    let lost = |_| SessionError::Lost(Status::unavailable("the stream to the coordinator closed"));
    sender.send(WorkerMessage { message: Some(join(worker, challenge)) }).await.map_err(lost)?;
    let mut told = false;
    loop {
        tokio::select! {
            () = worker.stopping.cancelled(), if !told => {
                told = true;
                let leaving = ToCoordinator::Leaving(v1::Leaving {});
                sender.send(WorkerMessage { message: Some(leaving) }).await.map_err(lost)?;
            }
            message = next(&mut stream) => handle(worker, message?, session),
            Some(message) = pending.recv() => sender.send(message).await.map_err(lost)?,
        }
    }
}

async fn next(stream: &mut Streaming<CoordinatorMessage>) -> Result<FromCoordinator, SessionError> {
    loop {
        match stream.message().await? {
            Some(CoordinatorMessage { message: Some(message) }) => return Ok(message),
            Some(CoordinatorMessage { message: None }) => tracing::debug!("skipping a message of a later version"),
            None => return Err(SessionError::Lost(Status::unavailable("the coordinator closed the stream"))),
        }
    }
}

fn join(worker: &Worker, challenge: Digest) -> ToCoordinator {
    let signature = worker.identity.sign(Digest::derive("shardproof 2 join", &(challenge, worker.identity.public())));
    ToCoordinator::Join(v1::Join {
        role: worker.role.to_string(),
        address: worker.address.clone(),
        key: worker.identity.public().as_bytes().to_vec().into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL_VERSION,
        signature: convert::pack(&signature),
    })
}

fn handle(worker: &Arc<Worker>, message: FromCoordinator, session: &watch::Sender<Option<u64>>) {
    match message {
        FromCoordinator::Welcome(welcome) => {
            tracing::info!("joined the coordinator");
            session.send_replace(Some(welcome.session));
            metrics::note_session(true);
        }
        FromCoordinator::Assignment(assignment) => {
            worker.assigned.send_replace(Some(assignment));
        }
        FromCoordinator::Route(route) => {
            tracing::debug!(next = route.next, "outputs go to");
            worker.neighbours.send_replace(neighbours(worker, &route));
        }
        FromCoordinator::Prove(job) => worker.proving.submit(&job),
        FromCoordinator::CancelJob(job) => worker.proving.cancel(&job),
        FromCoordinator::ShowOutput(request) => {
            worker.tasks.spawn(showing::answer(worker.clone(), request));
        }
        FromCoordinator::Challenge(_) => tracing::debug!("ignoring a second challenge"),
    }
}

/// What does not parse counts as vacant: without a next address nothing is passed on, without a key nothing is taken.
fn neighbours(worker: &Worker, route: &v1::Route) -> Neighbours {
    let party = match worker.role {
        Role::First | Role::Middle => Party::Worker,
        // The last outputs are the answer.
        Role::Last | Role::Solo => Party::Coordinator,
    };
    let next = (!route.next.is_empty()).then(|| worker.transport.hop(&route.next, party, worker.hop_deadline));
    Neighbours { next: next.and_then(Result::ok), previous: convert::public_key(&route.previous).ok() }
}

/// Why a session ended.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    #[error("the coordinator refused this worker: {}", .0.message())]
    Refused(Status),
    #[error("lost the coordinator: {}", .0.message())]
    Lost(Status),
    #[error("cannot start the heartbeat thread: {0}")]
    Heartbeat(#[from] std::io::Error),
}

impl From<Status> for SessionError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => {
                Self::Refused(status)
            }
            _ => Self::Lost(status),
        }
    }
}
