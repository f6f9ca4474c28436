//! What every database has to do, run over each of them.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use shardproof_common::artifacts::Artifact;
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex, UnixMillis};
use shardproof_common::plan::BackendKind;
use shardproof_common::receipt::{Identity, PublicKey, Receipt};
use shardproof_common::statement::{BackendId, Boundary, Statement as Claim};
use tokio_util::sync::CancellationToken;

use super::lease::{self, Candidate};
use super::sql::{Kind, Statement};
use super::testing::{TestDatabase, candidate, run};
use super::{Store, StoreError};
use crate::record::{ProofState, RunState};
use crate::workers::{Standing, WorkerRecord};

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::TestDatabase::file()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::TestDatabase::server()).await;
            })*
        }
    };
}

on_both!(
    runs_survive_reopening,
    the_latest_come_first_and_those_under_way_are_known,
    old_runs_are_found_and_removed_unless_they_are_under_way,
    workers_records_are_kept,
    holders_are_remembered_per_plan,
    setups_are_kept,
    writes_that_wait_are_made_together,
    a_write_that_is_refused_takes_no_other_with_it,
    whoever_lost_the_lease_writes_nothing,
    a_lease_that_was_given_back_is_taken_at_once,
    a_service_has_one_owner,
);

fn receipt(run: RunId, attempt: u32) -> Receipt {
    let statement = Claim {
        protocol: PROTOCOL_VERSION,
        backend: BackendId { kind: BackendKind::Float, version: "1".into() },
        model: Digest::of(b"model"),
        architecture: Digest::of(b"architecture"),
        plan: Digest::of(b"plan"),
        shard: ShardIndex(1),
        shards: 2,
        run,
        input: Boundary::public(&[]),
        output: Boundary::public(&[]),
        keys: Digest::of(b"keys"),
    };
    Receipt::sign(statement, attempt, UnixMillis(5), &Identity::from_secret(&[7; 32]))
}

async fn runs_survive_reopening(database: TestDatabase) {
    let store = database.store(1).await;
    let mut now = run(2);
    store.save(&now, None).await.unwrap();
    let accepted = now.clone();
    now.shards[1].receipt = Some(receipt(now.id, 0));
    now.state = RunState::Answered;
    now.request_proofs(&[ShardIndex(1)], 10);
    let proof = Artifact { digest: Digest::of(b"proof"), size: 5 };
    assert!(now.take_proof(ShardIndex(1), 1, proof));
    store.save(&now, Some(&accepted)).await.unwrap();
    // What is stored already is not written again, and stays.
    let taken = now.clone();
    now.shards[1].witness_bytes = 77;
    store.save(&now, Some(&taken)).await.unwrap();
    store.close().await;

    let store = database.store(1).await;
    let found = store.load(now.id).await.unwrap().unwrap();
    assert_eq!((found.state, found.shards[1].witness_bytes), (RunState::Answered, 77));
    assert_eq!(found.shards[1].receipt, now.shards[1].receipt);
    let job = |index: usize| (found.shards[index].proof, found.shards[index].attempt, found.shards[index].artifact);
    assert_eq!(job(1), (ProofState::Verifying, 1, Some(proof)));
    assert_eq!(job(0), (ProofState::NotRequested, 0, None));
    assert!(found.shards[0].receipt.is_none());
    assert!(store.load(RunId::generate()).await.unwrap().is_none());

    // A receipt of a later attempt takes the place of the one before.
    let before = now.clone();
    now.shards[1].receipt = Some(receipt(now.id, 1));
    store.save(&now, Some(&before)).await.unwrap();
    let found = store.load(now.id).await.unwrap().unwrap();
    assert_eq!(found.shards[1].receipt.as_ref().unwrap().attempt, 1);
}

async fn the_latest_come_first_and_those_under_way_are_known(database: TestDatabase) {
    let store = database.store(1).await;
    let mut runs = vec![run(1), run(1), run(1)];
    runs.sort_by_key(|run| *run.id.as_bytes());
    runs[1].fail(None, None, "stopped".into());
    for run in &runs {
        store.save(run, None).await.unwrap();
    }
    let ids = |runs: &[crate::record::RunRecord]| runs.iter().map(|run| run.id).collect::<Vec<_>>();
    assert_eq!(ids(&store.latest(2).await.unwrap()), [runs[2].id, runs[1].id]);
    assert_eq!(store.latest(10).await.unwrap()[1].reason, "stopped");
    let mut under_way = ids(&store.under_way().await.unwrap());
    under_way.sort_by_key(|id| *id.as_bytes());
    assert_eq!(under_way, [runs[0].id, runs[2].id]);
}

async fn old_runs_are_found_and_removed_unless_they_are_under_way(database: TestDatabase) {
    let store = database.store(1).await;
    let (mut ended, under_way) = (run(2), run(2));
    ended.shards[0].receipt = Some(receipt(ended.id, 0));
    ended.request_proofs(&[ShardIndex(0)], 10);
    ended.fail(None, None, "over".into());
    for run in [&ended, &under_way] {
        store.save(run, None).await.unwrap();
    }
    let created = ended.id.created().unwrap();
    assert_eq!(store.older_than(created).await.unwrap(), []);
    assert_eq!(store.older_than(created.after(Duration::from_secs(60))).await.unwrap(), [ended.id]);
    let mut all: Vec<RunId> = store.after(RunId::from_bytes([0; 16])).await.unwrap().iter().map(|run| run.id).collect();
    all.sort();
    assert_eq!(all.len(), 2);
    assert!(store.after(all[1]).await.unwrap().is_empty());
    store.remove(&[ended.id, under_way.id]).await.unwrap();
    assert!(store.load(ended.id).await.unwrap().is_none());
    assert!(store.load(under_way.id).await.unwrap().is_some());
    let query = Statement::new("SELECT shard FROM receipts UNION ALL SELECT shard FROM jobs");
    let left = store.fetch(&query, &[Kind::Int]).await.unwrap();
    assert!(left.is_empty(), "receipts and jobs go with their run");
}

async fn workers_records_are_kept(database: TestDatabase) {
    let store = database.store(1).await;
    let mut record = WorkerRecord::new(PublicKey::from_bytes([4; 32]));
    store.save_worker(&record).await.unwrap();
    (record.name, record.standing, record.proved, record.convicted) = ("ada".into(), Standing::Revoked, 7, 1);
    store.save_worker(&record).await.unwrap();
    assert_eq!(store.workers().await.unwrap(), [record]);
}

async fn holders_are_remembered_per_plan(database: TestDatabase) {
    let store = database.store(1).await;
    let (plan, worker) = (Digest::of(b"plan"), PublicKey::from_bytes([3; 32]));
    store.remember(plan, worker, ShardIndex(1)).await.unwrap();
    store.remember(plan, worker, ShardIndex(2)).await.unwrap();
    assert_eq!(store.holders(plan).await.unwrap(), HashMap::from([(worker, ShardIndex(2))]));
    assert!(store.holders(Digest::of(b"other")).await.unwrap().is_empty());
}

async fn setups_are_kept(database: TestDatabase) {
    let store = database.store(1).await;
    let id = Digest::of(b"setup");
    assert_eq!(store.setup(id).await.unwrap(), None);
    store.keep_setup(id, "{}".into()).await.unwrap();
    store.keep_setup(id, "[]".into()).await.unwrap();
    assert_eq!(store.setup(id).await.unwrap().as_deref(), Some("[]"));
}

async fn beats(store: &Store) -> i64 {
    let query = Statement::new("SELECT beat FROM leases");
    store.database.fetch(&query, &[Kind::Int]).await.unwrap().pop().unwrap().int().unwrap()
}

async fn writes_that_wait_are_made_together(database: TestDatabase) {
    let store = database.store(1).await;
    let runs: Vec<_> = (0..200).map(|_| run(1)).collect();
    // Each transaction is one sign of life.
    let before = beats(&store).await;
    let saved = join_all(runs.iter().map(|run| store.save(run, None))).await;
    assert!(saved.iter().all(Result::is_ok));
    let transactions = beats(&store).await - before;
    assert!((1..=20).contains(&transactions), "{transactions} transactions for 200 runs");
    assert_eq!(store.under_way().await.unwrap().len(), 200);
}

async fn a_write_that_is_refused_takes_no_other_with_it(database: TestDatabase) {
    let store = database.store(1).await;
    let (good, also_good, unknown) = (run(1), run(1), run(2));
    // A receipt of a run that is not there.
    let refused = super::records::save(&unknown, None).map(|_| {
        Statement::new("INSERT INTO receipts (run, shard, attempt, worker, receipt) VALUES ($1, 0, 0, $1, '')")
            .bind(&unknown.id.as_bytes()[..])
    });
    let refused = vec![refused.unwrap()];
    let (first, second, third) =
        tokio::join!(store.save(&good, None), store.writer.write(refused), store.save(&also_good, None));
    assert!(first.is_ok() && third.is_ok());
    assert!(second.unwrap_err().is_about_a_statement());
    assert_eq!(store.under_way().await.unwrap().len(), 2);
}

/// Takes the lease over as another data directory for which it has stood still long enough.
async fn taken_over(database: &TestDatabase, holder: u8) -> Store {
    let store = database.store(holder).await;
    assert!(store.lease().term() > 1);
    store
}

async fn whoever_lost_the_lease_writes_nothing(database: TestDatabase) {
    let old = database.store(1).await;
    let mut run = run(1);
    old.save(&run, None).await.unwrap();
    let new = taken_over(&database, 2).await;
    let accepted = run.clone();
    run.fail(None, None, "by one that was replaced".into());
    assert!(matches!(old.save(&run, Some(&accepted)).await, Err(StoreError::Fenced)));
    assert!(old.lease().is_lost().is_cancelled());
    assert_eq!(new.load(run.id).await.unwrap().unwrap().state, RunState::Running);
    new.save(&run, Some(&accepted)).await.unwrap();
    assert_eq!(new.load(run.id).await.unwrap().unwrap().state, RunState::Failed);
}

async fn a_lease_that_was_given_back_is_taken_at_once(database: TestDatabase) {
    const FOREVER: Duration = Duration::from_secs(1 << 32);
    let store = database.store(1).await;
    let term = store.lease().term();
    store.close().await;
    let connection = database.connect().await;
    let never = CancellationToken::new();
    let taken = lease::take(&connection, &candidate(2), FOREVER, &never).await.unwrap().unwrap();
    assert_eq!(taken.term(), term + 1);
}

async fn a_service_has_one_owner(database: TestDatabase) {
    let _store = database.store(1).await;
    let stranger = Candidate { owner: PublicKey::from_bytes([8; 32]), ..candidate(2) };
    let never = CancellationToken::new();
    let refused = Store::lead(database.connect().await, &stranger, Duration::ZERO, &never).await;
    assert!(matches!(refused, Err(StoreError::OtherOwner)));
}

#[tokio::test]
async fn a_lease_is_taken_over_only_without_signs_of_life() {
    const LIFETIME: Duration = Duration::from_millis(50);
    let database = TestDatabase::server();
    let holder = database.store(1).await;
    let (connection, other) = (database.connect().await, candidate(2));
    let mut last = None;
    for _ in 0..3 {
        assert_eq!(lease::try_take(&connection, &other, LIFETIME, &mut last).await.unwrap(), None);
        tokio::time::sleep(LIFETIME).await;
        // A sign of life: what was seen is no longer so, however long ago it was seen.
        holder.save(&run(1), None).await.unwrap();
    }
    assert_eq!(lease::try_take(&connection, &other, LIFETIME, &mut last).await.unwrap(), None);
    // The holder gives a sign of life now and then, between which it is taken over.
    let taken = lease::take(&connection, &other, LIFETIME, &CancellationToken::new()).await.unwrap().unwrap();
    assert_eq!(taken.term(), 2);
    assert_eq!(lease::try_take(&connection, &candidate(3), LIFETIME, &mut None).await.unwrap(), None);
    // The data directory that holds it has one process: a second one there is the first one's successor.
    assert_eq!(lease::try_take(&connection, &other, LIFETIME, &mut None).await.unwrap(), Some(3));
}
