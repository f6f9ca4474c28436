//! The list of shards, and what a bundle must not hold.

use shardproof_common::chain::Check;
use shardproof_common::ids::ShardIndex;
use shardproof_common::tensor::encode_boundary;

use super::{COMMITTED, Forgery, forgery};
use crate::honest::Honest;
use crate::party::Forger;
use crate::scene::{SHARDS, Scene};

pub(super) fn forgeries() -> Vec<Forgery> {
    [omitted(), listed(), leftover()].into_iter().flatten().collect()
}

/// The statements of those that are left are renumbered and signed again, so that the chain looks whole.
fn omitted() -> Vec<Forgery> {
    let omit = |name: &str, shard: usize| {
        let change = format!("shard {shard} is left out with one of its boundaries; the others say that they are all");
        forgery(name, Forger::Workers, change, Check::ShardList, move |honest: &Honest| {
            let mut draft = honest.draft();
            draft.bundle.boundaries.remove(if shard == 0 { 0 } else { shard.max(1) });
            for other in (0..SHARDS).filter(|&other| other != shard) {
                draft.restate(&honest.keys, other, |statement| {
                    statement.shard = ShardIndex(other as u32 - u32::from(other > shard));
                    statement.shards -= 1;
                });
            }
            draft.bundle.shards.remove(shard);
            draft.forged()
        })
    };
    vec![omit("shard-omitted-first", 0), omit("shard-omitted-inner", 1), omit("shard-omitted-last", SHARDS - 1)]
}

fn listed() -> Vec<Forgery> {
    vec![
        forgery("shards-none", Forger::Messenger, "all shards are left out", Check::ShardList, |honest| {
            let mut draft = honest.draft();
            draft.bundle.shards.clear();
            draft.forged()
        }),
        forgery("shard-duplicated", Forger::Messenger, "the last shard follows itself", Check::ShardList, |honest| {
            let mut draft = honest.draft();
            draft.bundle.shards.extend_from_within(SHARDS - 1..);
            draft.bundle.boundaries.extend_from_within(SHARDS..);
            draft.forged()
        }),
        forgery("boundary-omitted", Forger::Messenger, "the last boundary is left out", Check::ShardList, |honest| {
            let mut draft = honest.draft();
            draft.bundle.boundaries.pop();
            draft.forged()
        }),
        forgery("boundary-added", Forger::Messenger, "an empty boundary follows the last", Check::ShardList, |honest| {
            let mut draft = honest.draft();
            draft.bundle.boundaries.push(None);
            draft.forged()
        }),
        forgery(
            "shards-reordered",
            Forger::Messenger,
            "shards 0 and 1 exchange their places; nothing can be signed again, so their labels and boundaries do not fit \
             either",
            Check::ShardList,
            |honest| {
                let mut draft = honest.draft();
                draft.bundle.shards.swap(0, 1);
                draft.carry_keys(&honest.chain.verifying_keys)?;
                draft.forged()
            },
        )
        .noticed_by(&[Check::Statement, Check::BoundaryForm, Check::BoundaryLink, Check::BoundaryTensors]),
        forgery(
            "shard-replaced-by-neighbour",
            Forger::Messenger,
            "shard 0 stands in the place of shard 1 as well, with what it put out where that is shown",
            Check::ShardList,
            |honest| {
                let mut draft = honest.draft();
                draft.bundle.shards[1] = draft.bundle.shards[0].clone();
                draft.carry_keys(&honest.chain.verifying_keys)?;
                if let Some(shown) = &mut draft.bundle.boundaries[2] {
                    *shown = encode_boundary(&honest.run.links[0].output).into();
                }
                draft.forged()
            },
        )
        .noticed_by(&[Check::Statement, Check::BoundaryForm, Check::BoundaryLink])
        .only_in(&[Scene::GkrCommitted, Scene::GkrPublic, Scene::Ezkl, Scene::EzklPolycommit]),
        forgery(
            "shards-renumbered",
            Forger::Workers,
            "the workers of shards 0 and 1 sign that each is at the other's place",
            Check::ShardList,
            |honest| {
                let mut draft = honest.draft();
                draft.restate(&honest.keys, 0, |statement| statement.shard = ShardIndex(1));
                draft.restate(&honest.keys, 1, |statement| statement.shard = ShardIndex(0));
                draft.forged()
            },
        ),
        forgery(
            "shards-miscounted",
            Forger::Worker,
            "the worker of shard 1 signs that there is one shard less",
            Check::ShardList,
            |honest| {
                let mut draft = honest.draft();
                draft.restate(&honest.keys, 1, |statement| statement.shards -= 1);
                draft.forged()
            },
        ),
    ]
}

fn leftover() -> Vec<Forgery> {
    vec![
        forgery(
            "tensors-of-committed-boundary",
            Forger::Messenger,
            "tensors are shown of boundary 1, which the plan commits to: nobody would check them",
            Check::Leftover,
            |honest| {
                let mut draft = honest.draft();
                draft.bundle.boundaries[1] = Some(encode_boundary(&honest.run.links[0].output).into());
                draft.forged()
            },
        )
        .only_in(COMMITTED),
    ]
}
