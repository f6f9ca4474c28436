//! What nobody needs any more goes: runs that are old enough, artifacts that nothing refers to, transfers that broke off.
//!
//! A run under way, whatever a run that is kept refers to, and the files of every setup stay, however old. An artifact that
//! nothing refers to stays for a while as well: it may be an input whose run is not submitted yet, or a proof that is not
//! reported. Storing it again makes it young, so one that is about to be referred to is not taken away. The trade-off: ages are
//! told by the wall clock, so one that jumps ahead takes what would have gone later, and nothing that is needed.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use shardproof_common::artifacts::{ArtifactError, ArtifactStore};
use shardproof_common::clock;
use shardproof_common::ids::{Digest, RunId, UnixMillis};
use shardproof_common::keyfile;
use shardproof_common::process::DataDir;
use shardproof_storage::Artifacts;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::Coordinator;
use crate::runs::Runs;
use crate::setup::PreparedShard;
use crate::store::lease::{Candidate, LIFETIME};
use crate::store::{Database, Location, Store, StoreError};

/// Runs removed in one transaction.
const TOGETHER: usize = 500;
/// How often a coordinator looks for what nobody needs.
pub(crate) const PAUSE: Duration = Duration::from_secs(3600);

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Runs, from their submission; for ever when none.
    pub keep_runs: Option<Duration>,
    /// Artifacts that nothing refers to and transfers that broke off, from their last byte; in an object store at least as long as
    /// [`Artifacts::shortest_kept`].
    pub keep_artifacts: Duration,
}

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Runs with their receipts and requests for proofs.
    pub runs: u64,
    /// Artifacts.
    pub artifacts: u64,
    /// Their bytes.
    pub artifact_bytes: u64,
    /// Transfers that broke off.
    pub transfers: u64,
    /// Their bytes.
    pub transfer_bytes: u64,
}

/// Removes what is older than `retention` says and needed by nothing, and tells `gone` of each artifact; with `dry_run` only
/// counts it.
async fn collect(
    store: &Store,
    runs: &Runs,
    artifacts: &Artifacts,
    retention: &Retention,
    dry_run: bool,
    gone: &(dyn Fn(Digest) + Sync),
) -> Result<Removed, GcError> {
    let now = clock::now();
    let mut removed = Removed::default();
    let without = remove_runs(store, runs, retention, now, dry_run).await?;
    removed.runs = without.len() as u64;
    let needed = needed(store, runs, &without).await?;
    let before = before(now, retention.keep_artifacts.max(artifacts.shortest_kept()));
    for (artifact, written) in artifacts.list().await? {
        if needed.contains(&artifact.digest) || written >= before.0 {
            continue;
        }
        if dry_run || artifacts.remove_if_older(artifact.digest, before.0).await? {
            if !dry_run {
                gone(artifact.digest);
            }
            removed.artifacts += 1;
            removed.artifact_bytes += artifact.size;
        }
    }
    for (path, size, written) in artifacts.local().partials()? {
        if written >= before.0 {
            continue;
        }
        if !dry_run && let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a transfer that broke off");
            continue;
        }
        removed.transfers += 1;
        removed.transfer_bytes += size;
    }
    Ok(removed)
}

async fn remove_runs(
    store: &Store,
    runs: &Runs,
    retention: &Retention,
    now: UnixMillis,
    dry_run: bool,
) -> Result<HashSet<RunId>, GcError> {
    let Some(keep) = retention.keep_runs else { return Ok(HashSet::new()) };
    let old = store.older_than(before(now, keep)).await?;
    if dry_run {
        return Ok(old.into_iter().collect());
    }
    let mut gone = HashSet::new();
    for together in old.chunks(TOGETHER) {
        gone.extend(runs.remove(together.to_vec()).await?);
    }
    Ok(gone)
}

/// The artifacts that something refers to, besides the runs in `gone`.
async fn needed(store: &Store, runs: &Runs, gone: &HashSet<RunId>) -> Result<HashSet<Digest>, GcError> {
    let mut needed = HashSet::new();
    for setup in store.setups().await? {
        let setup: PreparedShard = serde_json::from_str(&setup).map_err(StoreError::from)?;
        needed.extend(setup.artifacts().map(|artifact| artifact.digest));
    }
    let mut last = RunId::from_bytes([0; 16]);
    loop {
        let page = store.after(last).await?;
        let Some(end) = page.last() else { break };
        last = end.id;
        let kept = page.iter().filter(|run| !gone.contains(&run.id));
        needed.extend(kept.flat_map(crate::record::RunRecord::artifacts));
    }
    // What has happened to them since may not be stored yet.
    needed.extend(runs.under_way().iter().flat_map(crate::record::RunRecord::artifacts));
    Ok(needed)
}

fn before(now: UnixMillis, keep: Duration) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX)))
}

impl Coordinator {
    /// Removes what nobody needs; `retention` is the coordinator's own where none is given.
    pub(crate) async fn collect_garbage(
        &self,
        retention: Option<Retention>,
        dry_run: bool,
    ) -> Result<Removed, GcError> {
        let _turn = self.collecting.lock().await;
        let retention = retention.unwrap_or(self.settings.retention);
        let gone = |digest| self.uploads.used(digest);
        collect(&self.store, &self.runs, &self.artifacts, &retention, dry_run, &gone).await
    }

    /// Does so from time to time, until the coordinator is told to stop.
    pub(crate) async fn collect_regularly(self: std::sync::Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.shutdown.cancelled() => return,
            }
            match self.collect_garbage(None, false).await {
                Ok(removed) if removed == Removed::default() => {}
                Ok(removed) => tracing::info!(?removed, "removed what nobody needs"),
                Err(error) => tracing::warn!(%error, "cannot remove what nobody needs"),
            }
        }
    }
}

/// In the data directory of a coordinator whose state is in another place than there.
const ELSEWHERE: &str = "state.elsewhere";

/// Notes for [`collect_offline`], which would find nothing referred to, whether the state is outside the data directory.
pub(crate) fn note_where_the_state_is(data: &DataDir, location: &Location) -> std::io::Result<()> {
    let note = data.join(ELSEWHERE);
    match location {
        Location::Url(_) => fs::write(note, "The state is in the database given with --database.\n"),
        Location::File(_) => match fs::remove_file(note) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// Removes what nobody needs from the data directory of a coordinator that is not running.
///
/// # Errors
/// When there is no coordinator's state in `directory`, or not its keys, it is in a database, or a process is using it.
pub async fn collect_offline(directory: &Path, retention: &Retention, dry_run: bool) -> anyhow::Result<Removed> {
    let state = directory.join("state.sqlite");
    anyhow::ensure!(
        !directory.join(ELSEWHERE).exists(),
        "{}: the state of this coordinator is in a database; start it, and let it remove what nobody needs",
        directory.display()
    );
    anyhow::ensure!(state.is_file(), "{}: no coordinator has kept state here", directory.display());
    let data = DataDir::open(directory)?;
    // Whoever clears up is no coordinator that begins: a new key would be another owner's.
    let key = |name: &str| {
        let missing = || format!("{}: the key of the coordinator that kept state here", data.join(name).display());
        keyfile::load(&data.join(name)).with_context(missing)
    };
    let candidate = Candidate { owner: key("owner.key")?.public(), holder: key("instance.key")?.public() };
    let database = Database::open(&Location::File(state)).await.context("state.sqlite in the data directory")?;
    let never = CancellationToken::new();
    let store = Store::lead(database, &candidate, LIFETIME, &never).await?.context("nothing stops it")?;
    let artifacts = Artifacts::in_directory(ArtifactStore::open(data.join("artifacts"))?);
    let runs = Runs::new(store.clone(), never);
    let removed = collect(&store, &runs, &artifacts, retention, dry_run, &|_| ()).await?;
    store.close().await;
    Ok(removed)
}

/// Why nothing, or not all, was removed.
#[derive(Debug, Error)]
pub(crate) enum GcError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

#[cfg(test)]
mod tests {
    use shardproof_common::artifacts::Artifact;

    use super::*;
    use crate::record::{ProofState, RunRecord};
    use crate::store::testing;

    const AT_ONCE: Retention = Retention { keep_runs: Some(Duration::ZERO), keep_artifacts: Duration::ZERO };

    struct Place {
        directory: tempfile::TempDir,
        store: Store,
        runs: Runs,
        artifacts: Artifacts,
    }

    impl Place {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = testing::in_file(&directory.path().join("state.sqlite")).await;
            let runs = Runs::new(store.clone(), CancellationToken::new());
            let artifacts = Artifacts::in_directory(ArtifactStore::open(directory.path().join("artifacts")).unwrap());
            Self { directory, store, runs, artifacts }
        }

        /// An artifact that was stored an hour ago.
        async fn artifact(&self, content: &str) -> Artifact {
            let artifact = self.artifacts.put(content.as_bytes()).await.unwrap();
            let file = fs::File::options().append(true).open(self.artifacts.path(artifact.digest)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
            artifact
        }

        async fn run(&self, name: &str) -> RunRecord {
            let mut run = testing::run(1);
            run.input = self.artifact(&format!("input of {name}")).await;
            run.answer = Some(self.artifact(&format!("answer of {name}")).await);
            run.shards[0].artifact = Some(self.artifact(&format!("proof of {name}")).await);
            (run.shards[0].attempt, run.shards[0].proof) = (1, ProofState::Verified);
            run
        }

        async fn collect(&self, retention: &Retention, dry_run: bool) -> Removed {
            self.collect_telling(retention, dry_run, &|_| ()).await
        }

        async fn collect_telling(&self, kept: &Retention, dry_run: bool, gone: &(dyn Fn(Digest) + Sync)) -> Removed {
            collect(&self.store, &self.runs, &self.artifacts, kept, dry_run, gone).await.unwrap()
        }

        async fn has(&self, digests: &[Digest]) -> bool {
            for digest in digests {
                if self.artifacts.find(*digest).await.unwrap().is_none() {
                    return false;
                }
            }
            true
        }
    }

    #[tokio::test]
    async fn what_something_needs_stays_and_the_rest_goes_when_it_is_old() {
        let place = Place::new().await;
        let (mut ended, under_way) = (place.run("ended").await, place.run("under way").await);
        ended.fail(None, None, "over".into());
        for run in [&ended, &under_way] {
            place.runs.create(run.clone()).await.unwrap();
        }
        place.runs.sweep().await;
        let stray = place.artifact("nothing refers to this").await;
        let young = place.artifacts.put(b"stored just now").await.unwrap();
        fs::write(place.artifacts.local().partial(Digest::of(b"p")), b"half").unwrap();

        let hour = Retention { keep_runs: None, keep_artifacts: Duration::from_secs(1800) };
        let expected = Removed { artifacts: 1, artifact_bytes: stray.size, ..Removed::default() };
        assert_eq!(place.collect(&hour, true).await, expected);
        assert!(place.has(&[stray.digest]).await, "a dry run removes nothing");
        let gone = std::sync::Mutex::new(Vec::new());
        let removed = place.collect_telling(&hour, false, &|digest| gone.lock().unwrap().push(digest)).await;
        assert_eq!((removed, gone.into_inner().unwrap()), (expected, vec![stray.digest]));
        assert!(!place.has(&[stray.digest]).await);
        assert!(place.has(&ended.artifacts()).await && place.has(&[young.digest]).await);

        // Stored again, an old artifact is young.
        let again = place.artifact("twice").await;
        assert_eq!(place.artifacts.put(b"twice").await.unwrap(), again);
        assert_eq!(place.collect(&hour, false).await, Removed::default());

        // What was made in this very millisecond is not older than it.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let removed = place.collect(&AT_ONCE, false).await;
        assert_eq!((removed.runs, removed.artifacts, removed.transfers, removed.transfer_bytes), (1, 5, 1, 4));
        assert!(place.runs.get(ended.id).await.unwrap().is_none());
        assert!(place.runs.get(under_way.id).await.unwrap().is_some());
        assert!(place.has(&under_way.artifacts()).await);
        assert_eq!(place.collect(&AT_ONCE, false).await, Removed::default());
    }

    #[tokio::test]
    async fn an_object_store_keeps_what_is_not_stored_again() {
        let mut place = Place::new().await;
        let objects = place.directory.path().join("objects");
        let cache = ArtifactStore::open(place.directory.path().join("cache")).unwrap();
        place.artifacts = Artifacts::at(cache, &format!("file://{}", objects.display())).unwrap();
        let stray = place.artifacts.put(b"nothing refers to this").await.unwrap();
        let name = stray.digest.to_string();
        let object = fs::File::options().append(true).open(objects.join(&name[..2]).join(&name)).unwrap();
        let aged = |minutes: u64| object.set_modified(std::time::SystemTime::now() - Duration::from_secs(60 * minutes));
        aged(19).unwrap();
        assert_eq!(place.collect(&AT_ONCE, false).await.artifacts, 0);
        aged(21).unwrap();
        assert_eq!(place.collect(&AT_ONCE, false).await.artifacts, 1);
    }

    #[tokio::test]
    async fn what_an_object_store_does_not_have_goes_from_the_directory_as_well() {
        let mut place = Place::new().await;
        let objects = place.directory.path().join("objects");
        let cache = ArtifactStore::open(place.directory.path().join("cache")).unwrap();
        place.artifacts = Artifacts::at(cache.clone(), &format!("file://{}", objects.display())).unwrap();
        let (needed, cached) = (place.run("under way").await, place.artifact("in both").await);
        place.runs.create(needed.clone()).await.unwrap();
        let age = |artifact: Artifact| {
            let file = fs::File::options().append(true).open(cache.path(artifact.digest)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
            artifact
        };
        // Of uploads that the object store did not take.
        let (stray, _young) = (age(cache.put(b"stray").unwrap()), cache.put(b"young").unwrap());
        let lost = needed.input.digest.to_string();
        fs::remove_file(objects.join(&lost[..2]).join(&lost)).unwrap();
        let expected = Removed { artifacts: 1, artifact_bytes: stray.size, ..Removed::default() };
        assert_eq!(place.collect(&AT_ONCE, true).await, expected);
        assert_eq!(place.collect(&AT_ONCE, false).await, expected);
        assert!(cache.find(stray.digest).is_none(), "nobody has stored it");
        assert!(place.has(&needed.artifacts()).await && place.has(&[cached.digest]).await);
        assert_eq!(cache.list().unwrap().len(), needed.artifacts().len() + 2);
    }

    #[tokio::test]
    async fn a_directory_whose_state_is_elsewhere_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = Location::File(directory.path().join("state.sqlite"));
        drop(testing::in_file(&directory.path().join("state.sqlite")).await);
        let data = || DataDir::open(directory.path()).unwrap();
        note_where_the_state_is(&data(), &Location::Url("postgres://host/name".into())).unwrap();
        let error = collect_offline(directory.path(), &AT_ONCE, false).await.unwrap_err();
        assert!(error.to_string().contains("in a database"), "{error}");
        note_where_the_state_is(&data(), &file).unwrap();
        assert!(!directory.path().join(ELSEWHERE).exists());
    }

    #[tokio::test]
    async fn a_directory_without_keys_gets_none() {
        let directory = tempfile::tempdir().unwrap();
        drop(testing::in_file(&directory.path().join("state.sqlite")).await);
        let error = collect_offline(directory.path(), &AT_ONCE, false).await.unwrap_err();
        assert!(error.to_string().contains("owner.key: the key of the coordinator"), "{error}");
        assert!(!directory.path().join("owner.key").exists() && !directory.path().join("instance.key").exists());
    }

    #[tokio::test]
    async fn a_run_that_someone_watches_stays() {
        let place = Place::new().await;
        let mut run = place.run("watched").await;
        run.fail(None, None, "over".into());
        place.runs.create(run.clone()).await.unwrap();
        let watch = place.runs.watch(run.id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(place.collect(&AT_ONCE, false).await, Removed::default());
        drop(watch);
        assert_eq!(place.collect(&AT_ONCE, false).await.runs, 1);
        assert!(place.directory.path().exists());
    }
}
