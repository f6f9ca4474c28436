//! What a statement says it is about.

use shardproof_common::chain::Check;
use shardproof_common::ids::Digest;
use shardproof_common::plan::BackendKind;
use shardproof_common::statement::Statement;

use super::{Forgery, forgery};
use crate::honest::Honest;
use crate::party::Forger;

pub(super) fn forgeries() -> Vec<Forgery> {
    let label = |name: &str, change: &str, edit: fn(&mut Statement, &Honest)| {
        let change = format!("shard 1's statement {change}; its worker signs it");
        forgery(name, Forger::Worker, change, Check::Statement, move |honest: &Honest| {
            let mut draft = honest.draft();
            draft.restate(&honest.keys, 1, |statement| edit(statement, honest));
            draft.forged()
        })
    };
    vec![
        label("label-protocol", "is of another protocol", |statement, _| statement.protocol += 1),
        label("label-backend", "is of a backend that proves nothing", |statement, _| {
            statement.backend.kind = BackendKind::Float;
        }),
        label("label-version", "is of another version of the proof system", |statement, _| {
            statement.backend.version.push('0');
        }),
        label("label-model", "is about another model", |statement, _| statement.model = Digest::of(b"another")),
        label("label-architecture", "is about another graph", |statement, _| {
            statement.architecture = Digest::of(b"another");
        }),
        label("label-plan", "is of the owner's other plan", |statement, honest| {
            statement.plan = honest.other.body.plan.digest();
        }),
        label("label-keys", "names the keys of the owner's other plan", |statement, honest| {
            statement.keys = honest.other.body.shards[1].keys.digest();
        }),
        label("label-keys-of-neighbour", "names the keys of shard 0", |statement, honest| {
            statement.keys = honest.chain.body.shards[0].keys.digest();
        }),
    ]
}
