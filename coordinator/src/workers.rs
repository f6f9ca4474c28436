//! The workers' records: what each key proved, failed, refused, and was convicted of, and whether the owner admits it.
//!
//! A worker that lied once would go on to get work if nobody remembered. A conviction bars its key for good, a revocation until
//! the owner lifts it; the counts rank those that compete for a shard. All records are in memory and each is saved whole after
//! every change. One that cannot be saved counts all the same, and is saved as soon as the database takes it again: the
//! alternative, to let a liar in while the database is away, is worse than a count that a crash meanwhile would lose.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shardproof_common::receipt::PublicKey;
use thiserror::Error;

use crate::cluster::Departure;
use crate::registry::Rank;
use crate::runs::now_ms;
use crate::store::{Store, StoreError};
use crate::{Coordinator, metrics};

/// Longest name of a worker, bytes.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// Runs in a row that end at a worker and together count as a refusal. One alone may be the run's own doing: an input that
/// leaves its range, a moment of overload.
const MISSED_IN_A_ROW: u32 = 5;

/// What the owner said of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing.
    #[default]
    Unlisted,
    Admitted,
    Revoked,
}

impl Standing {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unlisted => "unlisted",
            Self::Admitted => "admitted",
            Self::Revoked => "revoked",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Unlisted, Self::Admitted, Self::Revoked].into_iter().find(|standing| standing.as_str() == text)
    }
}

/// Something that goes on a worker's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A proof of its passed.
    Proved,
    /// A receipt or proof of its did not pass a check.
    Failed,
    /// It did not give what it owed: it said no, was late, stayed away, had lost its spool, could not take its shard, or let several
    /// runs in a row end.
    Refused,
    /// Evidence against it passed its check.
    Convicted,
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerRecord {
    pub(crate) key: PublicKey,
    /// For people; may be empty.
    pub(crate) name: String,
    pub(crate) standing: Standing,
    pub(crate) proved: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) convicted: u64,
    /// Unix time, ms; 0 for never.
    pub(crate) last_seen_ms: u64,
}

impl WorkerRecord {
    pub(crate) fn new(key: PublicKey) -> Self {
        let (proved, failed, refused, convicted) = (0, 0, 0, 0);
        let standing = Standing::Unlisted;
        Self { key, name: String::new(), standing, proved, failed, refused, convicted, last_seen_ms: 0 }
    }

    fn note(&mut self, event: Event) {
        let count = match event {
            Event::Proved => &mut self.proved,
            Event::Failed => &mut self.failed,
            Event::Refused => &mut self.refused,
            Event::Convicted => &mut self.convicted,
        };
        *count = count.saturating_add(1);
    }

    pub(crate) fn rank(&self) -> Rank {
        Rank { failures: self.failed.saturating_add(self.refused), proved: self.proved }
    }
}

/// The records of all workers, backed by the store.
pub(crate) struct Workers {
    records: Mutex<Records>,
    store: Store,
    /// Held over a read of a record and its write, so that the latest one is written last.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Records {
    by_key: HashMap<PublicKey, WorkerRecord>,
    /// Keys of the file that the coordinator was started with; none without a file.
    listed: Option<HashSet<PublicKey>>,
    unsaved: HashSet<PublicKey>,
    streaks: HashMap<PublicKey, Streak>,
}

/// The runs that ended at a worker since it last took one to its answer, or since such runs last counted as a refusal. Those
/// begun before that do not count: they came to a worker that serves, and only too many at a time.
#[derive(Default)]
struct Streak {
    since_ms: u64,
    missed: u32,
}

impl Streak {
    fn begin() -> Self {
        Self { since_ms: now_ms(), missed: 0 }
    }
}

impl Records {
    fn admission_required(&self) -> bool {
        self.listed.is_some() || self.by_key.values().any(|record| record.standing == Standing::Admitted)
    }

    fn standing(&self, key: &PublicKey) -> Standing {
        let said = self.by_key.get(key).map_or(Standing::Unlisted, |record| record.standing);
        let listed = self.listed.as_ref().is_some_and(|listed| listed.contains(key));
        if said == Standing::Unlisted && listed { Standing::Admitted } else { said }
    }
}

impl Workers {
    /// Loads all records. `listed` are the keys of the owner's file, which are admitted unless they were revoked.
    pub(crate) async fn load(store: Store, listed: Option<HashSet<PublicKey>>) -> Result<Self, StoreError> {
        let by_key = store.workers().await?.into_iter().map(|record| (record.key, record)).collect();
        let records = Mutex::new(Records { by_key, listed, ..Records::default() });
        Ok(Self { records, store, writing: tokio::sync::Mutex::new(()) })
    }

    /// Whether a key may join.
    pub(crate) fn check(&self, key: &PublicKey) -> Result<(), JoinRefused> {
        let records = self.lock();
        if records.by_key.get(key).is_some_and(|record| record.convicted > 0) {
            return Err(JoinRefused::Convicted { key: *key });
        }
        match records.standing(key) {
            Standing::Revoked => Err(JoinRefused::Revoked { key: *key }),
            Standing::Unlisted if records.admission_required() => Err(JoinRefused::NotAdmitted { key: *key }),
            Standing::Unlisted | Standing::Admitted => Ok(()),
        }
    }

    /// How a key fares among those that compete with it for a shard.
    pub(crate) fn rank(&self, key: &PublicKey) -> Rank {
        self.lock().by_key.get(key).map(WorkerRecord::rank).unwrap_or_default()
    }

    /// All records, with those keys of the owner's file that have none yet, and whether only admitted keys join.
    pub(crate) fn list(&self) -> (Vec<WorkerRecord>, bool) {
        let records = self.lock();
        let listed = records.listed.iter().flatten().filter(|key| !records.by_key.contains_key(key));
        let new = listed.map(|&key| WorkerRecord::new(key));
        let mut all: Vec<WorkerRecord> = records.by_key.values().cloned().chain(new).collect();
        for record in &mut all {
            record.standing = records.standing(&record.key);
        }
        all.sort_by_key(|record| *record.key.as_bytes());
        (all, records.admission_required())
    }

    /// Puts an event on a worker's record.
    pub(crate) async fn note(&self, key: PublicKey, event: Event) {
        let (_, saved) = self.change(key, |record| record.note(event)).await;
        report(key, saved);
    }

    /// Counts a run that ended at a worker; true when that makes a refusal.
    fn missed(&self, key: PublicKey, submitted_ms: u64) -> bool {
        let mut records = self.lock();
        let streak = records.streaks.entry(key).or_default();
        streak.missed += u32::from(submitted_ms >= streak.since_ms);
        let is_refusal = streak.missed == MISSED_IN_A_ROW;
        if is_refusal {
            *streak = Streak::begin();
        }
        is_refusal
    }

    /// Notes that workers took a run to its answer.
    pub(crate) fn answered(&self, keys: &[PublicKey]) {
        self.lock().streaks.extend(keys.iter().map(|&key| (key, Streak::begin())));
    }

    /// Notes that a worker is there now. Strangers that never had a shard leave no trace: anyone can make keys.
    pub(crate) async fn seen(&self, key: PublicKey, had_shard: bool) {
        if had_shard || self.lock().by_key.contains_key(&key) {
            let (_, saved) = self.change(key, |record| record.last_seen_ms = now_ms()).await;
            report(key, saved);
        }
    }

    /// Admits a key; an empty name keeps the one it has.
    pub(crate) async fn admit(&self, key: PublicKey, name: &str) -> Result<WorkerRecord, AdmitError> {
        if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(AdmitError::Name);
        }
        if self.lock().by_key.get(&key).is_some_and(|record| record.convicted > 0) {
            return Err(AdmitError::Convicted { key });
        }
        let (record, saved) = self
            .change(key, |record| {
                record.standing = Standing::Admitted;
                if !name.is_empty() {
                    name.clone_into(&mut record.name);
                }
            })
            .await;
        saved?;
        Ok(record)
    }

    /// Refuses a key until it is admitted again. It is refused from now on even where that cannot be stored yet.
    pub(crate) async fn revoke(&self, key: PublicKey) -> Result<WorkerRecord, StoreError> {
        let (record, saved) = self.change(key, |record| record.standing = Standing::Revoked).await;
        saved.map(|()| record)
    }

    /// Saves what could not be saved before.
    pub(crate) async fn save_unsaved(&self) {
        let unsaved: Vec<PublicKey> = self.lock().unsaved.iter().copied().collect();
        for key in unsaved {
            report(key, self.save(key).await);
        }
    }

    /// Changes a record, which counts from now on, and saves it.
    async fn change(
        &self,
        key: PublicKey,
        change: impl FnOnce(&mut WorkerRecord),
    ) -> (WorkerRecord, Result<(), StoreError>) {
        let changed = {
            let mut records = self.lock();
            let record = records.by_key.entry(key).or_insert_with(|| WorkerRecord::new(key));
            change(record);
            record.clone()
        };
        (changed, self.save(key).await)
    }

    /// Saves a record as it is now; one that cannot be saved is remembered for the next time.
    async fn save(&self, key: PublicKey) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let record = self.lock().by_key.get(&key).cloned();
        let Some(record) = record else { return Ok(()) };
        let saved = self.store.save_worker(&record).await;
        match saved {
            Ok(()) => self.lock().unsaved.remove(&key),
            Err(_) => self.lock().unsaved.insert(key),
        };
        saved
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        // Records are changed by assignments that do not panic.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report(key: PublicKey, saved: Result<(), StoreError>) {
    if let Err(error) = saved {
        tracing::error!(worker = key.short(), %error, "cannot save the worker's record, will try again");
    }
}

/// Why a key may not join.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum JoinRefused {
    #[error(
        "key {key} is not admitted: the owner admits it with `shardproof workers admit {key}`, or in the --admit file"
    )]
    NotAdmitted { key: PublicKey },
    #[error("key {key} was revoked: the owner admits it again with `shardproof workers admit {key}`")]
    Revoked { key: PublicKey },
    #[error("key {key} was convicted of a lie and is refused for good")]
    Convicted { key: PublicKey },
}

/// Why a key cannot be admitted.
#[derive(Debug, Error)]
pub(crate) enum AdmitError {
    #[error("key {key} was convicted of a lie: it is never admitted again")]
    Convicted { key: PublicKey },
    #[error("a name has at most {MAX_NAME_BYTES} bytes and no control characters")]
    Name,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coordinator {
    /// Puts an event on a worker's record, and acts on it: a convicted worker is out, one that failed makes room for a spare
    /// with a better record.
    pub(crate) async fn note(self: &Arc<Self>, worker: PublicKey, event: Event) {
        tracing::info!(worker = worker.short(), ?event, "on the worker's record");
        metrics::note_event(event);
        let noted = self.workers.note(worker, event);
        if event == Event::Convicted {
            // Noted, and then out beside the saving, which takes its time while the database is away.
            let expelled = self.expel(worker, "was convicted of a lie and is refused for good");
            tokio::join!(noted, expelled);
            return;
        }
        noted.await;
        self.make_way(worker).await;
    }

    /// Gives the shard of a worker to a spare with a better record, where there is one.
    pub(crate) async fn make_way(self: &Arc<Self>, worker: PublicKey) {
        let departure = self.cluster.rerank(worker, self.workers.rank(&worker));
        self.part_with(worker, departure).await;
    }

    /// Notes that a run ended at these workers: which of them is to blame nobody can tell, or whether the run itself is.
    pub(crate) async fn note_missed(self: &Arc<Self>, workers: &[PublicKey], submitted_ms: u64) {
        for &worker in workers {
            if self.workers.missed(worker, submitted_ms) {
                self.note(worker, Event::Refused).await;
            }
        }
    }

    /// Ends the connection of a worker whose key is refused from now on, and gives its shard to another.
    pub(crate) async fn expel(self: &Arc<Self>, worker: PublicKey, why: &str) {
        let departure = self.cluster.expel(worker, &format!("key {worker} {why}"));
        self.part_with(worker, departure).await;
    }

    /// What follows when a worker was taken out: its runs go on as those of one that was lost, and others take its shard.
    async fn part_with(self: &Arc<Self>, worker: PublicKey, departure: Option<Departure>) {
        let Some(Departure { shard, given }) = departure else { return };
        tracing::warn!(worker = worker.short(), "the worker was taken out");
        if let Some(shard) = shard {
            self.worker_left(shard, worker);
            self.interrupt_runs_of(shard, worker);
        }
        self.give_out(given).await;
    }
}

#[cfg(test)]
mod tests;
