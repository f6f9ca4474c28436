use super::*;

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

async fn store(directory: &tempfile::TempDir) -> Store {
    crate::store::testing::in_file(&directory.path().join("state.sqlite")).await
}

async fn workers(listed: Option<&[u8]>) -> (Workers, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let listed = listed.map(|keys| keys.iter().copied().map(key).collect());
    (Workers::load(store(&directory).await, listed).await.unwrap(), directory)
}

#[tokio::test]
async fn anyone_joins_until_somebody_is_admitted() {
    let (workers, _directory) = workers(None).await;
    assert_eq!(workers.check(&key(1)), Ok(()));
    assert!(!workers.list().1);
    workers.admit(key(2), "lab").await.unwrap();
    assert_eq!(workers.check(&key(1)), Err(JoinRefused::NotAdmitted { key: key(1) }));
    assert_eq!(workers.check(&key(2)), Ok(()));
    assert!(workers.list().1);
}

#[tokio::test]
async fn the_owners_file_admits_and_a_revocation_outweighs_it() {
    let (workers, _directory) = workers(Some(&[1, 2])).await;
    assert_eq!(workers.check(&key(1)), Ok(()));
    assert_eq!(workers.check(&key(3)), Err(JoinRefused::NotAdmitted { key: key(3) }));
    workers.revoke(key(1)).await.unwrap();
    assert_eq!(workers.check(&key(1)), Err(JoinRefused::Revoked { key: key(1) }));
    let standings: Vec<_> = workers.list().0.iter().map(|record| (record.key, record.standing)).collect();
    assert_eq!(standings, [(key(1), Standing::Revoked), (key(2), Standing::Admitted)]);
    workers.admit(key(1), "").await.unwrap();
    assert_eq!(workers.check(&key(1)), Ok(()));
}

#[tokio::test]
async fn an_empty_file_admits_nobody() {
    let (workers, _directory) = workers(Some(&[])).await;
    assert_eq!(workers.check(&key(1)), Err(JoinRefused::NotAdmitted { key: key(1) }));
}

#[tokio::test]
async fn a_conviction_bars_a_key_for_good() {
    let (workers, _directory) = workers(Some(&[1])).await;
    workers.note(key(1), Event::Convicted).await;
    assert_eq!(workers.check(&key(1)), Err(JoinRefused::Convicted { key: key(1) }));
    assert!(matches!(workers.admit(key(1), "").await, Err(AdmitError::Convicted { .. })));
    assert_eq!(workers.check(&key(1)), Err(JoinRefused::Convicted { key: key(1) }));
}

#[tokio::test]
async fn records_survive_a_restart() {
    let (workers, directory) = workers(None).await;
    workers.admit(key(1), "lab").await.unwrap();
    for event in [Event::Proved, Event::Proved, Event::Failed, Event::Refused, Event::Convicted] {
        workers.note(key(1), event).await;
    }
    workers.seen(key(2), true).await;
    let kept = workers.list();
    drop(workers);
    let again = Workers::load(store(&directory).await, None).await.unwrap();
    assert_eq!(again.list(), kept);
    let record = &kept.0[0];
    assert_eq!((record.name.as_str(), record.proved, record.failed, record.refused), ("lab", 2, 1, 1));
    assert_eq!(record.convicted, 1);
    assert_eq!(again.rank(&key(1)), Rank { failures: 2, proved: 2 });
}

#[tokio::test]
async fn strangers_leave_no_trace_until_they_hold_a_shard() {
    let (workers, _directory) = workers(None).await;
    workers.seen(key(1), false).await;
    assert!(workers.list().0.is_empty());
    workers.seen(key(1), true).await;
    assert!(workers.list().0[0].last_seen_ms > 0);
}

#[tokio::test]
async fn names_are_short_and_draw_nothing() {
    let (workers, _directory) = workers(None).await;
    for name in ["x".repeat(MAX_NAME_BYTES + 1), "\x1b[2J".to_owned()] {
        assert!(matches!(workers.admit(key(1), &name).await, Err(AdmitError::Name)));
    }
    workers.admit(key(1), &"x".repeat(MAX_NAME_BYTES)).await.unwrap();
    workers.admit(key(1), "").await.unwrap();
    assert_eq!(workers.list().0[0].name.len(), MAX_NAME_BYTES, "an empty name keeps the one there is");
}

#[tokio::test]
async fn runs_that_end_at_a_worker_are_a_refusal_when_they_are_several_in_a_row() {
    let (workers, _directory) = workers(None).await;
    let before = now_ms() - 1;
    let miss = |times: u32, begun_ms| (0..times).filter(|_| workers.missed(key(1), begun_ms)).count();
    assert_eq!(miss(MISSED_IN_A_ROW - 1, before), 0);
    workers.answered(&[key(1), key(2)]);
    assert_eq!(miss(MISSED_IN_A_ROW - 1, now_ms()), 0);
    assert_eq!(miss(9 * MISSED_IN_A_ROW, before), 0, "they were begun before it answered one");
    assert_eq!(miss(1, now_ms()), 1);
    assert_eq!(miss(9 * MISSED_IN_A_ROW, before), 0, "many at once are no more than one refusal");
}
