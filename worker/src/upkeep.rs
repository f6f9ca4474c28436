//! What a worker no longer has to keep goes from its spool.
//!
//! Input, witness and proof of a run are kept until the time that the worker's receipt promises, after which nobody can demand a
//! proof. The receipt itself and what arrived stay for as long as the run's id is taken: a worker that forgot what it signed
//! could be made to sign something else for the same run.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shardproof_common::clock;
use shardproof_common::ids::{RunId, ShardIndex, UnixMillis};
use shardproof_common::process::DataDir;

use crate::pipeline::{OLDEST_RUN, Passages};
use crate::spool::{ARRIVAL, Entry, RECEIPT, Spool};
use crate::{Worker, proving};

/// How often a worker looks for what it no longer has to keep.
const PAUSE: Duration = Duration::from_secs(3600);

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleared {
    /// Entries, one for each run and shard, of which something went.
    pub entries: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// Looks through the spool from time to time, until the worker stops.
pub(crate) async fn regularly(worker: Arc<Worker>) {
    loop {
        let at_work = worker.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            let unused = unused(&at_work.passages, &at_work.proving);
            let cleared = clear(&at_work.spool, clock::now(), unused, false)?;
            at_work.spool.recount()?;
            io::Result::Ok(cleared)
        });
        match cleared.await {
            Ok(Ok(Cleared { entries: 0, .. })) => {}
            Ok(Ok(Cleared { entries, bytes })) => tracing::info!(entries, bytes, "removed spooled runs that are past"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot look through the spool"),
            Err(error) => tracing::warn!(%error, "looking through the spool ended early"),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = worker.shutdown.cancelled() => return,
        }
    }
}

/// Removes from the data directory of a worker that is not running what it no longer has to keep; with `dry_run` only counts it.
///
/// # Errors
/// When there is no worker's spool in `directory`, or a process is using it.
pub fn collect_offline(directory: &Path, dry_run: bool) -> anyhow::Result<Cleared> {
    let root = directory.join("spool");
    anyhow::ensure!(root.is_dir(), "{}: no worker has kept a spool here", directory.display());
    let data = DataDir::open(directory)?;
    let spool = Spool::open(root, &data.scratch()?, u64::MAX)?;
    Ok(clear(&spool, clock::now(), |_, _| true, dry_run)?)
}

/// Tells the runs of which nothing is read just now: neither on their way through the worker nor about to be proven. A proof that
/// was asked for in time is made, however long others take before it.
fn unused(passages: &Passages, proving: &proving::Queue) -> impl Fn(RunId, ShardIndex) -> bool {
    |run, shard| !passages.contains_key(&run) && !proving.needs(run, shard)
}

/// Clears the entries of runs that are `unused`.
fn clear(
    spool: &Spool,
    now: UnixMillis,
    unused: impl Fn(RunId, ShardIndex) -> bool,
    dry_run: bool,
) -> io::Result<Cleared> {
    let mut cleared = Cleared::default();
    for entry in fs::read_dir(spool.root())? {
        let name = entry?.file_name();
        let Some((run, shard)) = name.to_str().and_then(Spool::parse_name) else { continue };
        let _turn = spool.turn(run);
        if !unused(run, shard) {
            continue;
        }
        let bytes = clear_entry(&spool.entry(run, shard), run, now, dry_run)?;
        cleared.entries += u64::from(bytes > 0);
        cleared.bytes += bytes;
    }
    Ok(cleared)
}

/// Bytes that one entry lost.
fn clear_entry(entry: &Entry, run: RunId, now: UnixMillis, dry_run: bool) -> io::Result<u64> {
    let refused = run.created().is_none_or(|created| created.after(OLDEST_RUN) < now);
    let promised = entry.read_receipt().ok().map(|receipt| receipt.provable_until);
    let needed = match promised {
        Some(until) => until >= now,
        None => !refused,
    };
    if needed {
        return Ok(0);
    }
    let mut bytes = 0;
    for file in fs::read_dir(entry.directory())? {
        let file = file?;
        let remembered = file.file_name() == RECEIPT || file.file_name() == ARRIVAL;
        if remembered && !refused {
            continue;
        }
        let metadata = file.metadata()?;
        bytes += metadata.len();
        match (dry_run, metadata.is_dir()) {
            (true, _) => {}
            (false, true) => fs::remove_dir_all(file.path())?,
            (false, false) => fs::remove_file(file.path())?,
        }
    }
    if refused && !dry_run {
        fs::remove_dir(entry.directory())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use shardproof_common::ids::{Digest, PROTOCOL_VERSION};
    use shardproof_common::plan::BackendKind;
    use shardproof_common::receipt::{Identity, Receipt};
    use shardproof_common::statement::{BackendId, Boundary, Statement};
    use shardproof_proto::convert;
    use shardproof_proto::v1::{CancelJob, ProveJob, ProveMember};

    use super::*;
    use crate::spool::Arrival;

    const HOUR: Duration = Duration::from_secs(3600);

    fn receipt(run: RunId, provable_until: UnixMillis) -> Receipt {
        let statement = Statement {
            protocol: PROTOCOL_VERSION,
            backend: BackendId { kind: BackendKind::Float, version: "1".into() },
            model: Digest::of(b"model"),
            architecture: Digest::of(b"architecture"),
            plan: Digest::of(b"plan"),
            shard: ShardIndex(0),
            shards: 1,
            run,
            input: Boundary::public(&[]),
            output: Boundary::public(&[]),
            keys: Digest::of(b"keys"),
        };
        Receipt::sign(statement, 0, provable_until, &Identity::generate())
    }

    #[test]
    fn what_is_promised_stays_then_what_was_signed_then_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path().join("spool"), directory.path(), u64::MAX).unwrap();
        let (run, now) = (RunId::generate(), clock::now());
        let entry = spool.entry(run, ShardIndex(0));
        let arrival = Arrival { attempt: 0, input: Digest::of(b"input"), upstream: None };
        entry.write_input(b"input", &arrival).unwrap();
        entry.write_receipt(&receipt(run, now.after(HOUR))).unwrap();
        entry.write_proof(b"proof").unwrap();
        let clear_at = |time: UnixMillis, dry_run| clear(&spool, time, |_, _| true, dry_run).unwrap();

        assert_eq!(clear_at(now, false), Cleared::default());
        let later = now.after(2 * HOUR);
        let expected = Cleared { entries: 1, bytes: 10 };
        assert_eq!(
            clear(&spool, later, |_, _| false, false).unwrap(),
            Cleared::default(),
            "on its way through the worker"
        );
        assert_eq!(clear_at(later, true), expected);
        assert_eq!(entry.read_proof().as_deref(), Some(&b"proof"[..]), "a dry run removes nothing");
        assert_eq!(clear_at(later, false), expected);
        assert!(entry.read_input().is_err() && entry.read_proof().is_none());
        assert!(entry.read_receipt().is_ok() && entry.arrival() == Some(arrival));
        assert_eq!(clear_at(later, false), Cleared::default());

        assert_eq!(clear_at(now.after(OLDEST_RUN + HOUR), false).entries, 1);
        assert_eq!(fs::read_dir(spool.root()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_proof_is_being_made_of_stays() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path().join("spool"), directory.path(), u64::MAX).unwrap();
        let (run, later) = (RunId::generate(), clock::now().after(HOUR));
        let entry = spool.entry(run, ShardIndex(0));
        entry.write_input(b"input", &Arrival { attempt: 0, input: Digest::of(b"input"), upstream: None }).unwrap();
        entry.write_receipt(&receipt(run, clock::now())).unwrap();
        let (passages, (proving, _jobs)) = (Passages::new(), proving::queue());
        let clear = || clear(&spool, later, unused(&passages, &proving), false).unwrap();

        let member = ProveMember { run: convert::run_bytes(run), attempt: 1 };
        proving.submit(&ProveJob { shard: 0, members: vec![member] });
        assert_eq!(clear(), Cleared::default());
        proving.cancel(&CancelJob { run: convert::run_bytes(run), shard: 0, attempt: 1 });
        assert_eq!(clear().entries, 1);
    }

    #[test]
    fn an_input_without_a_receipt_stays_for_as_long_as_its_run_may_come_again() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path().join("spool"), directory.path(), u64::MAX).unwrap();
        let (run, now) = (RunId::generate(), clock::now());
        let arrival = Arrival { attempt: 0, input: Digest::of(b"input"), upstream: None };
        spool.entry(run, ShardIndex(0)).write_input(b"input", &arrival).unwrap();
        assert_eq!(clear(&spool, now.after(HOUR), |_, _| true, false).unwrap(), Cleared::default());
        assert_eq!(clear(&spool, now.after(OLDEST_RUN + HOUR), |_, _| true, false).unwrap().entries, 1);
    }
}
