use super::*;

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

fn registry(shards: usize) -> Registry {
    Registry::new(shards, "coordinator:1".into(), HashMap::new())
}

fn join(registry: &mut Registry, n: u8, role: Role) -> (SessionId, Vec<Order>) {
    join_ranked(registry, n, role, Rank::default())
}

fn join_ranked(registry: &mut Registry, n: u8, role: Role, rank: Rank) -> (SessionId, Vec<Order>) {
    registry.join(key(n), role, format!("worker{n}:1"), rank).unwrap()
}

fn failures(failures: u64) -> Rank {
    Rank { failures, proved: 9 }
}

fn holder(registry: &Registry, shard: u32) -> PublicKey {
    registry.holder(ShardIndex(shard)).unwrap().1.key
}

fn route(session: SessionId, next: Option<&str>, previous: Option<u8>) -> Order {
    Order::Route(session, Neighbours { next: next.map(str::to_owned), previous: previous.map(key) })
}

#[test]
fn roles_take_their_shards_in_any_order_and_routes_follow_readiness() {
    let mut registry = registry(4);
    let (last, orders) = join(&mut registry, 1, Role::Last);
    assert_eq!(orders, [Order::Take(last, ShardIndex(3)), route(last, Some("coordinator:1"), None)]);
    let (middle, orders) = join(&mut registry, 2, Role::Middle);
    assert_eq!(orders, [Order::Take(middle, ShardIndex(1)), route(middle, None, None)]);
    let (other, orders) = join(&mut registry, 3, Role::Middle);
    let expected =
        [Order::Take(other, ShardIndex(2)), route(other, None, Some(2)), route(last, Some("coordinator:1"), Some(3))];
    assert_eq!(orders, expected);
    assert_eq!(registry.ready(last, ShardIndex(3)), [route(other, Some("worker1:1"), Some(2))]);
    assert_eq!(registry.ready(other, ShardIndex(2)), [route(middle, Some("worker3:1"), None)]);
    assert_eq!(registry.vacant(), [ShardIndex(0), ShardIndex(1)]);
}

#[test]
fn a_second_first_is_a_spare_that_steps_in() {
    let mut registry = registry(2);
    let (first, _) = join(&mut registry, 1, Role::First);
    let (spare, orders) = join(&mut registry, 2, Role::First);
    assert_eq!(orders, []);
    assert_eq!(registry.leave(first), [Order::Take(spare, ShardIndex(0)), route(spare, None, None)]);
}

#[test]
fn a_returning_worker_gets_its_shard_back_even_when_another_joins_first() {
    let remembered = HashMap::from([(key(7), ShardIndex(1)), (key(8), ShardIndex(2))]);
    let mut registry = Registry::new(5, "coordinator:1".into(), remembered);
    let (stranger, orders) = join(&mut registry, 1, Role::Middle);
    assert_eq!(orders[0], Order::Take(stranger, ShardIndex(3)));
    let (eight, orders) = join(&mut registry, 8, Role::Middle);
    assert_eq!(orders[0], Order::Take(eight, ShardIndex(2)));
    let (second_stranger, orders) = join(&mut registry, 2, Role::Middle);
    assert_eq!(orders[0], Order::Take(second_stranger, ShardIndex(1)));
}

#[test]
fn a_worker_that_is_to_stop_stays_in_the_chain_but_is_not_counted_on() {
    let mut registry = registry(2);
    let (first, _) = join(&mut registry, 1, Role::First);
    let (last, _) = join(&mut registry, 2, Role::Last);
    registry.ready(first, ShardIndex(0));
    registry.ready(last, ShardIndex(1));
    assert_eq!(registry.leaving(last), Some(ShardIndex(1)));
    assert_eq!(registry.vacant(), [ShardIndex(1)]);
    assert_eq!(registry.routes(), [], "what is under way still passes through it");
    let (spare, _) = join(&mut registry, 3, Role::Last);
    assert_eq!(registry.leaving(spare), None);
    assert!(registry.leave(last).contains(&Order::Take(spare, ShardIndex(1))));
}

#[test]
fn reconnecting_closes_the_earlier_session() {
    let mut registry = registry(1);
    let (first, _) = join(&mut registry, 1, Role::Solo);
    registry.ready(first, ShardIndex(0));
    let (second, orders) = join(&mut registry, 1, Role::Solo);
    assert_eq!(orders[..2], [Order::Close(first), Order::Take(second, ShardIndex(0))]);
    assert_eq!(registry.vacant(), [ShardIndex(0)]);
    assert!(!registry.seen(first));
    assert_eq!(registry.ready(first, ShardIndex(0)), []);
}

#[test]
fn senseless_roles_are_refused_with_the_right_one_named() {
    assert_eq!(registry(4).check_role(Role::Solo), Err(RoleError::Solo { shards: 4 }));
    assert_eq!(registry(1).check_role(Role::First), Err(RoleError::NotSolo { role: Role::First }));
    assert_eq!(registry(2).check_role(Role::Middle), Err(RoleError::NoMiddle { shards: 2 }));
    assert!(registry(3).check_role(Role::Middle).is_ok());
}

#[test]
fn of_several_spares_the_one_with_the_best_record_steps_in() {
    let mut registry = registry(2);
    let (first, _) = join(&mut registry, 1, Role::First);
    join_ranked(&mut registry, 2, Role::First, failures(1));
    join_ranked(&mut registry, 3, Role::First, Rank { failures: 0, proved: 7 });
    join_ranked(&mut registry, 4, Role::First, Rank { failures: 0, proved: 8 });
    join_ranked(&mut registry, 5, Role::First, Rank { failures: 0, proved: 8 });
    registry.leave(first);
    assert_eq!(holder(&registry, 0), key(4), "no failures, most proved, joined first");
}

#[test]
fn a_worker_that_failed_hands_its_shard_to_a_spare_with_a_better_record() {
    let mut registry = registry(2);
    let (first, _) = join(&mut registry, 1, Role::First);
    join(&mut registry, 2, Role::Last);
    assert_eq!(registry.rerank(&key(1), failures(1)), None, "nobody else could do it");
    assert_eq!(holder(&registry, 0), key(1));
    let (spare, _) = join_ranked(&mut registry, 3, Role::First, failures(2));
    assert_eq!(registry.rerank(&key(1), failures(2)), None, "no worse than the spare");
    let removed = registry.rerank(&key(1), failures(3)).unwrap();
    assert_eq!((removed.session, removed.shard), (first, Some(ShardIndex(0))));
    assert_eq!(removed.orders[0], Order::Take(spare, ShardIndex(0)));
    let (_, orders) = join_ranked(&mut registry, 1, Role::First, failures(3));
    assert_eq!((orders, holder(&registry, 0)), (vec![], key(3)), "back as a spare");
    assert_eq!(registry.rerank(&key(9), failures(1)), None);
}

#[test]
fn an_expelled_worker_is_not_expected_back() {
    let mut registry = registry(4);
    let (one, _) = join(&mut registry, 1, Role::Middle);
    let (two, _) = join(&mut registry, 2, Role::Middle);
    let removed = registry.expel(&key(1)).unwrap();
    assert_eq!((removed.session, removed.shard), (one, Some(ShardIndex(1))));
    assert!(registry.member(one).is_none());
    assert_eq!(registry.expel(&key(1)), None);
    let (_, orders) = join(&mut registry, 3, Role::Middle);
    assert!(matches!(orders[0], Order::Take(_, ShardIndex(1))));
    assert_eq!(registry.member(two).unwrap().shard, Some(ShardIndex(2)));
}

#[test]
fn a_worker_that_cannot_take_its_shard_hands_it_to_a_spare_that_may() {
    let mut registry = registry(2);
    let (first, _) = join(&mut registry, 1, Role::First);
    let (spare, _) = join_ranked(&mut registry, 2, Role::First, failures(5));
    assert_eq!(registry.rerank(&key(1), failures(1)), None, "its record is better");
    assert!(registry.troubled(first, "the disk is full".to_owned()));
    let removed = registry.rerank(&key(1), failures(1)).unwrap();
    assert_eq!((removed.session, holder(&registry, 0)), (first, key(2)));

    // Where neither can, their records decide.
    join_ranked(&mut registry, 1, Role::First, failures(6));
    assert!(registry.troubled(spare, "the disk is full".to_owned()));
    assert!(!registry.troubled(spare, "the disk is full".to_owned()), "that is known");
    assert_eq!(registry.rerank(&key(2), failures(6)), None);
    // One that could take it since is tried again.
    let removed = registry.rerank(&key(2), failures(7)).unwrap();
    assert_eq!((removed.session, holder(&registry, 0)), (spare, key(1)));
    let (session, _) = registry.by_key(&key(1)).unwrap();
    registry.ready(session, ShardIndex(0));
    assert!(registry.member(session).unwrap().trouble.is_none());
}

#[test]
fn a_worker_that_is_hindered_keeps_its_shard_until_it_fails_by_itself() {
    let mut registry = registry(1);
    let (session, _) = join(&mut registry, 1, Role::Solo);
    join(&mut registry, 2, Role::Solo);
    registry.hindered(session, "the coordinator's disk is away".to_owned());
    assert_eq!(registry.member(session).unwrap().trouble.as_deref(), Some("the coordinator's disk is away"));
    assert_eq!(registry.rerank(&key(1), Rank::default()), None);
    assert!(registry.troubled(session, "the disk is full".to_owned()), "only now is it its own doing");
    registry.hindered(session, "the coordinator's disk is away".to_owned());
    assert!(!registry.troubled(session, "the disk is full".to_owned()), "that is known");
    assert_eq!(registry.rerank(&key(1), Rank::default()).unwrap().session, session);
}

#[test]
fn runs_under_way_pass_through_a_worker_that_is_to_stop() {
    let mut registry = registry(2);
    let (first, _) = join(&mut registry, 1, Role::First);
    let (last, _) = join(&mut registry, 2, Role::Last);
    registry.ready(first, ShardIndex(0));
    assert_eq!((registry.vacant(), registry.unready()), (vec![ShardIndex(1)], vec![ShardIndex(1)]));
    registry.ready(last, ShardIndex(1));
    registry.leaving(first);
    assert_eq!((registry.vacant(), registry.unready()), (vec![ShardIndex(0)], vec![]));
}

#[test]
fn a_role_that_makes_no_sense_is_told_which_do() {
    let refused = |shards: usize, role: Role| registry(shards).check_role(role).unwrap_err().to_string();
    assert!(refused(2, Role::Solo).ends_with("use FIRST or LAST"));
    assert!(refused(3, Role::Solo).ends_with("use FIRST, MIDDLE or LAST"));
    assert!(refused(2, Role::Middle).ends_with("use FIRST or LAST"));
    assert!(refused(1, Role::Middle).ends_with("use SOLO"));
    assert!(refused(1, Role::First).ends_with("use SOLO"));
}
