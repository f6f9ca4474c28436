//! Which worker holds which shard. Pure bookkeeping: every change returns the orders that follow from it, for the caller to
//! send.
//!
//! FIRST takes shard 0, LAST the last, SOLO the only one, MIDDLE the lowest free one between, except that a worker gets the
//! shard back that it held before, because its spool is there. A worker whose places are taken is a spare and steps in when
//! one becomes vacant.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use shardproof_common::ids::{Role, ShardIndex};
use shardproof_common::receipt::PublicKey;
use thiserror::Error;

/// Names one connection of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// A connected worker.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) key: PublicKey,
    pub(crate) role: Role,
    pub(crate) address: String,
    /// The shard it has, or none for a spare.
    pub(crate) shard: Option<ShardIndex>,
    /// Whether it has fetched its shard.
    pub(crate) ready: bool,
    /// Whether it is to stop: what is under way passes through it, nothing new is begun with it.
    pub(crate) leaving: bool,
    pub(crate) since: Instant,
    pub(crate) last_seen: Instant,
    neighbours: Option<Neighbours>,
}

impl Member {
    /// Whether new runs may count on it.
    pub(crate) fn serves(&self) -> bool {
        self.ready && !self.leaving
    }
}

/// Who stands before and after a worker in the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Neighbours {
    /// Where outputs go; none while the next shard has no ready worker.
    pub(crate) next: Option<String>,
    /// Whose outputs are taken; none for shard 0 and while the previous shard is vacant.
    pub(crate) previous: Option<PublicKey>,
}

/// What a worker is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Take this shard.
    Take(SessionId, ShardIndex),
    /// These are its neighbours.
    Route(SessionId, Neighbours),
    /// Close the connection.
    Close(SessionId),
}

/// The workers of one plan.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: usize,
    coordinator: String,
    members: BTreeMap<SessionId, Member>,
    remembered: HashMap<PublicKey, ShardIndex>,
    next_session: u64,
}

impl Registry {
    /// For a plan of `shards` shards whose last outputs go to `coordinator`; `remembered` is who held what before.
    pub(crate) fn new(shards: usize, coordinator: String, remembered: HashMap<PublicKey, ShardIndex>) -> Self {
        // Sessions of an earlier process must not be taken for those of this one.
        let next_session = rand::random::<u32>().into();
        Self { shards, coordinator, members: BTreeMap::new(), remembered, next_session }
    }

    /// Whether the plan has a place for `role`.
    pub(crate) fn check_role(&self, role: Role) -> Result<(), RoleError> {
        let shards = self.shards;
        match role {
            Role::Solo if shards != 1 => Err(RoleError::Solo { shards }),
            Role::First | Role::Last if shards < 2 => Err(RoleError::NotSolo { role }),
            Role::Middle if shards < 3 => Err(RoleError::NoMiddle { shards }),
            _ => Ok(()),
        }
    }

    /// Adds a worker. One that is already connected under the same key is closed: it has reconnected.
    pub(crate) fn join(
        &mut self,
        key: PublicKey,
        role: Role,
        address: String,
    ) -> Result<(SessionId, Vec<Order>), RoleError> {
        self.check_role(role)?;
        let earlier = self.members.iter().find(|(_, member)| member.key == key).map(|(&id, _)| id);
        let mut orders = Vec::new();
        if let Some(id) = earlier {
            self.members.remove(&id);
            orders.push(Order::Close(id));
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let now = Instant::now();
        let member = Member {
            key,
            role,
            address,
            shard: None,
            ready: false,
            leaving: false,
            since: now,
            last_seen: now,
            neighbours: None,
        };
        self.members.insert(session, member);
        orders.extend(self.fill());
        Ok((session, orders))
    }

    /// Removes a worker; a spare steps in where there is one.
    pub(crate) fn leave(&mut self, session: SessionId) -> Vec<Order> {
        match self.members.remove(&session) {
            Some(_) => self.fill(),
            None => Vec::new(),
        }
    }

    /// Notes that a worker has its shard.
    pub(crate) fn ready(&mut self, session: SessionId, shard: ShardIndex) -> Vec<Order> {
        match self.members.get_mut(&session) {
            Some(member) if member.shard == Some(shard) => member.ready = true,
            _ => return Vec::new(),
        }
        self.routes()
    }

    /// Notes that a worker is to stop; which shard it holds, if any.
    pub(crate) fn leaving(&mut self, session: SessionId) -> Option<ShardIndex> {
        let member = self.members.get_mut(&session)?;
        member.leaving = true;
        member.shard
    }

    /// Notes a heartbeat; false when the session is not known.
    pub(crate) fn seen(&mut self, session: SessionId) -> bool {
        match self.members.get_mut(&session) {
            Some(member) => {
                member.last_seen = Instant::now();
                true
            }
            None => false,
        }
    }

    /// Sessions whose last heartbeat is older than `age`.
    pub(crate) fn silent(&self, age: std::time::Duration) -> Vec<SessionId> {
        let silent = self.members.iter().filter(|(_, member)| member.last_seen.elapsed() > age);
        silent.map(|(&id, _)| id).collect()
    }

    /// The worker that holds a shard, ready or not.
    pub(crate) fn holder(&self, shard: ShardIndex) -> Option<(SessionId, &Member)> {
        self.members.iter().find(|(_, member)| member.shard == Some(shard)).map(|(&id, member)| (id, member))
    }

    /// The worker with this key.
    pub(crate) fn by_key(&self, key: &PublicKey) -> Option<(SessionId, &Member)> {
        self.members.iter().find(|(_, member)| member.key == *key).map(|(&id, member)| (id, member))
    }

    /// The member behind a session.
    pub(crate) fn member(&self, session: SessionId) -> Option<&Member> {
        self.members.get(&session)
    }

    /// All members by the time of joining.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// All shards that are given out.
    pub(crate) fn assigned(&self) -> Vec<(SessionId, ShardIndex)> {
        self.members.iter().filter_map(|(&id, member)| Some((id, member.shard?))).collect()
    }

    /// Shards that no worker holds on whom new runs may count.
    pub(crate) fn vacant(&self) -> Vec<ShardIndex> {
        let all = (0..self.shards as u32).map(ShardIndex);
        all.filter(|&shard| !self.holder(shard).is_some_and(|(_, member)| member.serves())).collect()
    }

    /// Gives vacant shards to workers without one, in the order in which they joined.
    fn fill(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        let idle: Vec<SessionId> = self.members.iter().filter(|(_, m)| m.shard.is_none()).map(|(&id, _)| id).collect();
        for session in idle {
            let Some(shard) = self.place_for(session) else { continue };
            if let Some(member) = self.members.get_mut(&session) {
                member.shard = Some(shard);
                self.remembered.insert(member.key, shard);
                orders.push(Order::Take(session, shard));
            }
        }
        orders.extend(self.routes());
        orders
    }

    /// The shard for a worker: the one it held before, else the lowest vacant one, preferring those that nobody is expected
    /// back for.
    fn place_for(&self, session: SessionId) -> Option<ShardIndex> {
        let member = self.members.get(&session)?;
        let places =
            (0..self.shards as u32).map(ShardIndex).filter(|&shard| Role::of(shard, self.shards) == member.role);
        let vacant: Vec<ShardIndex> = places.filter(|&shard| self.holder(shard).is_none()).collect();
        let before = self.remembered.get(&member.key).copied();
        let expected_back =
            |shard: &ShardIndex| self.remembered.iter().any(|(key, at)| at == shard && *key != member.key);
        let own = before.filter(|shard| vacant.contains(shard));
        own.or_else(|| vacant.iter().copied().find(|shard| !expected_back(shard))).or_else(|| vacant.first().copied())
    }

    /// Neighbours that changed: each holder sends to the next shard's ready holder, the last one to the coordinator.
    fn routes(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        for index in 0..self.shards as u32 {
            let next = if index as usize + 1 == self.shards {
                Some(self.coordinator.clone())
            } else {
                self.holder(ShardIndex(index + 1))
                    .filter(|(_, member)| member.ready)
                    .map(|(_, member)| member.address.clone())
            };
            let previous =
                index.checked_sub(1).and_then(|before| self.holder(ShardIndex(before))).map(|(_, member)| member.key);
            let neighbours = Neighbours { next, previous };
            let Some((session, _)) = self.holder(ShardIndex(index)) else { continue };
            if let Some(member) = self.members.get_mut(&session)
                && member.neighbours.as_ref() != Some(&neighbours)
            {
                member.neighbours = Some(neighbours.clone());
                orders.push(Order::Route(session, neighbours));
            }
        }
        orders
    }
}

/// A role that the plan has no place for.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum RoleError {
    #[error("role SOLO makes no sense with {shards} shards: use FIRST, MIDDLE or LAST")]
    Solo { shards: usize },
    #[error("role {role} makes no sense with 1 shard: use SOLO")]
    NotSolo { role: Role },
    #[error("role MIDDLE makes no sense with {shards} shards: use {}", if *shards == 1 { "SOLO" } else { "FIRST or LAST" })]
    NoMiddle { shards: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn registry(shards: usize) -> Registry {
        Registry::new(shards, "coordinator:1".into(), HashMap::new())
    }

    fn join(registry: &mut Registry, n: u8, role: Role) -> (SessionId, Vec<Order>) {
        registry.join(key(n), role, format!("worker{n}:1")).unwrap()
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
        let expected = [
            Order::Take(other, ShardIndex(2)),
            route(other, None, Some(2)),
            route(last, Some("coordinator:1"), Some(3)),
        ];
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
}
