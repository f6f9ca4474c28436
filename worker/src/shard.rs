//! The shard that a worker holds: fetched by digest from the coordinator, then kept.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use shardproof_common::artifacts::{Artifact, ArtifactError, ArtifactStore};
use shardproof_common::backend::{Backend, BackendError, Limits, ShardFiles};
use shardproof_common::card::{CardError, ModelCard};
use shardproof_common::hold::Stage;
use shardproof_common::ids::{Digest, ShardIndex};
use shardproof_common::plan::BackendKind;
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::encoded_bytes;
use shardproof_proto::convert;
use shardproof_proto::transport::artifacts::{TransferError, fetch};
use shardproof_proto::v1::worker_message::Message;
use shardproof_proto::v1::{self, Assignment, Failure, FailureStage};
use thiserror::Error;
use tokio::sync::watch;
use tonic::Status;

use crate::{Worker, pipeline};

/// Pause before a shard that could not be loaded is tried again; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A shard with everything that it takes to run and prove it.
pub(crate) struct HeldShard {
    pub(crate) card: ModelCard,
    pub(crate) plan: Digest,
    pub(crate) files: ShardFiles,
    pub(crate) limits: Limits,
    pub(crate) backend: Arc<dyn Backend>,
    /// What it was loaded for.
    pub(crate) assignment: Assignment,
}

impl HeldShard {
    /// Which shard.
    pub(crate) fn index(&self) -> ShardIndex {
        self.files.shard
    }

    /// The files that it was loaded from.
    fn named_files(&self) -> HashSet<Digest> {
        let files = self.assignment.files.iter().map(|file| file.artifact.as_ref());
        let named = files.chain([self.assignment.model.as_ref()]).map(convert::artifact);
        named.filter_map(|artifact| Some(artifact.ok()?.digest)).collect()
    }

    /// Bytes of the encoding of every input.
    pub(crate) fn input_bytes(&self) -> u64 {
        let shapes = self.files.card.input.iter().map(|spec| spec.shape.as_slice());
        encoded_bytes(shapes, self.files.card.keys.provable())
    }

    /// What this worker asserts about `run`.
    pub(crate) fn statement(&self, run: shardproof_common::ids::RunId, input: Boundary, output: Boundary) -> Statement {
        let body = &self.card.body;
        Statement {
            protocol: body.protocol,
            backend: self.files.card.backend.clone(),
            model: body.plan.model,
            architecture: body.plan.architecture,
            plan: self.plan,
            shard: self.index(),
            shards: body.plan.shards.len() as u32,
            run,
            input,
            output,
            keys: self.files.card.keys.digest(),
        }
    }
}

/// Loads whichever shard is assigned, until the worker ends.
pub(crate) async fn keep_loading(worker: Arc<Worker>, mut assigned: watch::Receiver<Option<Assignment>>) {
    let load_each = async {
        while assigned.changed().await.is_ok() {
            let assignment = assigned.borrow_and_update().clone();
            if let Some(assignment) = assignment {
                load_in_the_end(&worker, &assignment, &mut assigned).await;
            }
        }
    };
    tokio::select! {
        () = load_each => {}
        () = worker.shutdown.cancelled() => {}
    }
}

/// Loads an assigned shard, as often as it takes until something else is assigned: a disk that is full need not stay so.
async fn load_in_the_end(worker: &Worker, assignment: &Assignment, assigned: &mut watch::Receiver<Option<Assignment>>) {
    let index = assignment.shard;
    let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
    for pause in pauses.without_max_times().build() {
        tracing::info!(shard = index, "fetching shard");
        worker.hold.reach(Stage::Fetch).await;
        let error = match load(worker, assignment.clone()).await {
            Ok(held) => {
                let (plan, named) = (convert::digest_bytes(held.plan), held.named_files());
                let before = worker.shard.send_replace(Some(Arc::new(held)));
                tracing::info!(shard = index, "shard ready");
                worker.tell(Message::Ready(v1::Ready { plan, shard: index })).await;
                // What is at work with an earlier shard still needs its files: then they go with the next one.
                if before.is_none_or(|before| Arc::strong_count(&before) == 1) {
                    let artifacts = worker.artifacts.clone();
                    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || remove_others(&artifacts, &named)).await
                    {
                        tracing::warn!(%error, "cannot remove files of earlier shards");
                    }
                }
                return;
            }
            Err(error) => error,
        };
        tracing::error!(shard = index, %error, again_in_s = pause.as_secs(), "cannot take the shard");
        if assigned.has_changed().unwrap_or(true) {
            // The coordinator is gone, or wants another shard: it would take this for what is wrong with its next assignment.
            return;
        }
        let (stage, reason) = (error.stage().into(), error.to_string());
        worker.tell(Message::Failure(Failure { shard: index, stage, reason, ..Failure::default() })).await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _something_else = assigned.changed() => return assigned.mark_changed(),
        }
    }
}

/// Fetches what `assignment` names and is not here yet.
async fn load(worker: &Worker, assignment: Assignment) -> Result<HeldShard, LoadError> {
    let card = ModelCard::parse(&assignment.card)?;
    let index = ShardIndex(assignment.shard);
    let missing = || LoadError::NoSuchShard { shard: index, shards: card.body.plan.shards.len() };
    let plan = card.body.plan.shard(index).ok_or_else(missing)?;
    let (input, output) = card.body.plan.boundaries_of(index).ok_or_else(missing)?;
    let kind = plan.backend.kind();
    let backend = worker.backends.get(&kind).cloned().ok_or(LoadError::Backend { kind })?;

    let model = convert::artifact(assignment.model.as_ref())?;
    if model.digest != plan.model {
        return Err(LoadError::Model { expected: plan.model, found: model.digest });
    }
    let mut files = BTreeMap::new();
    for file in &assignment.files {
        let artifact: Artifact = convert::artifact(file.artifact.as_ref())?;
        files.insert(file.name.clone(), fetch(worker.coordinator.clone(), &worker.artifacts, artifact).await?);
    }
    let limits = assignment.limits.unwrap_or_default();
    let nonzero = |value: u64| (value > 0).then_some(value);
    let (plan, card_entry) = (plan.clone(), card.body.shards[index.as_usize()].clone());
    let held = HeldShard {
        plan: card.body.plan.digest(),
        files: ShardFiles {
            shard: index,
            card: card_entry,
            options: plan.backend,
            input_mode: input.mode,
            output_mode: output.mode,
            model: fetch(worker.coordinator.clone(), &worker.artifacts, model).await?,
            files,
        },
        limits: Limits {
            deadline: nonzero(limits.deadline_ms).map(Duration::from_millis),
            // The coordinator says what is allowed, this machine what there is.
            memory_bytes: nonzero(limits.memory_bytes).into_iter().chain(worker.memory_bytes).min(),
            predicted_bytes: nonzero(limits.predicted_bytes),
        },
        backend,
        card,
        assignment,
    };
    let (backend, files) = (held.backend.clone(), held.files.clone());
    tokio::task::spawn_blocking(move || backend.load(&files)).await??;
    Ok(held)
}

/// Removes the files that are not `named`: those of shards that the worker had before.
fn remove_others(artifacts: &ArtifactStore, named: &HashSet<Digest>) -> Result<(), ArtifactError> {
    for (artifact, _) in artifacts.list()? {
        if !named.contains(&artifact.digest) {
            tracing::info!(
                file = artifact.digest.short(),
                bytes = artifact.size,
                "removing a file of an earlier shard"
            );
            artifacts.remove(artifact.digest)?;
        }
    }
    Ok(())
}

/// Reports the activation service as serving exactly while a shard is held and the worker is not stopping.
pub(crate) async fn report_health(worker: Arc<Worker>, health: tonic_health::server::HealthReporter) {
    let mut held = worker.shard.subscribe();
    loop {
        let ready = held.borrow_and_update().is_some();
        if ready {
            health.set_serving::<pipeline::Server>().await;
        }
        tokio::select! {
            changed = held.changed() => if changed.is_err() { return },
            () = worker.stopping.cancelled() => {
                health.set_not_serving::<pipeline::Server>().await;
                return;
            }
        }
    }
}

impl LoadError {
    /// Whose doing it is: this side's (`Setup`), or that of the coordinator, which does not hand out what it should (`Fetch`).
    fn stage(&self) -> FailureStage {
        match self {
            Self::Backend { .. } | Self::Load(_) | Self::Task(_) => FailureStage::Setup,
            // What came was another content: the disk at the other end may not have kept it.
            Self::Transfer(TransferError::Store(ArtifactError::Damaged { .. })) => FailureStage::Fetch,
            Self::Transfer(TransferError::Store(_) | TransferError::Task(_)) => FailureStage::Setup,
            Self::Transfer(_) => FailureStage::Fetch,
            Self::Card(_) | Self::NoSuchShard { .. } | Self::Model { .. } | Self::Malformed(_) => FailureStage::Fetch,
        }
    }
}

/// Why a shard could not be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("the card that came with the shard: {0}")]
    Card(#[from] CardError),
    #[error("assigned shard {shard} of a plan with {shards}")]
    NoSuchShard { shard: ShardIndex, shards: usize },
    #[error("this worker has no backend `{kind}`")]
    Backend { kind: BackendKind },
    #[error("the card names shard file {expected}, the assignment {found}")]
    Model { expected: Digest, found: Digest },
    #[error("malformed assignment: {}", .0.message())]
    Malformed(#[from] Status),
    #[error("fetching shard files: {0}")]
    Transfer(#[from] TransferError),
    #[error("loading the shard: {0}")]
    Load(#[from] BackendError),
    #[error("the loading task died: {0}")]
    Task(#[from] tokio::task::JoinError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_earlier_shards_go_and_those_of_the_present_one_stay() {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = ArtifactStore::open(directory.path()).unwrap();
        let [present, earlier] = [b"present", b"earlier"].map(|bytes| artifacts.put(bytes).unwrap());
        remove_others(&artifacts, &HashSet::from([present.digest])).unwrap();
        assert_eq!((artifacts.find(present.digest), artifacts.find(earlier.digest)), (Some(present), None));
    }

    #[test]
    fn files_that_came_damaged_are_not_held_against_this_worker() {
        let stage = |error: ArtifactError| LoadError::Transfer(error.into()).stage();
        let [expected, found] = [Digest::of(b"one"), Digest::of(b"other")];
        assert_eq!(stage(ArtifactError::Damaged { expected, found }), FailureStage::Fetch);
        assert_eq!(stage(ArtifactError::Missing { digest: expected }), FailureStage::Setup);
    }

    #[test]
    fn files_that_do_not_come_are_not_held_against_this_worker() {
        let stage = |error: TransferError| LoadError::Transfer(error).stage();
        assert_eq!(stage(Status::not_found("not here").into()), FailureStage::Fetch);
        assert_eq!(stage(TransferError::Size { expected: 2, found: 1 }), FailureStage::Fetch);
    }
}
