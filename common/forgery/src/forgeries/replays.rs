//! What is true of another run.

use anyhow::Result;
use shardproof_common::bundle::Bundle;
use shardproof_common::chain::Check;
use shardproof_common::ids::RunId;

use super::{EZKL, Expected, Forgery, NATIVE, forgery};
use crate::chain::{Lie, Run, nudge};
use crate::draft::{Draft, Forged};
use crate::honest::Honest;
use crate::party::Forger;
use crate::scene::SHARDS;

pub(super) fn forgeries() -> Vec<Forgery> {
    [whole_runs(), one_shard()].into_iter().flatten().collect()
}

/// The bundle of the run with the id of another; all workers sign again.
fn renamed(honest: &Honest) -> Draft {
    let mut draft = honest.draft();
    draft.bundle.run = honest.again.id;
    for shard in 0..SHARDS {
        draft.restate(&honest.keys, shard, |statement| statement.run = honest.again.id);
    }
    draft
}

fn whole_runs() -> Vec<Forgery> {
    vec![
        forgery(
            "run-replayed",
            Forger::Messenger,
            "the bundle of another input's run, with its answer",
            Check::Input,
            |honest| honest.draft_of(&honest.chain, &honest.second).forged(),
        ),
        forgery(
            "run-on-input-one-unit-off",
            Forger::Messenger,
            "the run was asked for with one integer of the input one unit off; all that follows is true",
            Check::Input,
            |honest| {
                let mut input = honest.chain.quantise(&honest.input)?;
                nudge(&mut input)?;
                let run = honest.chain.run(honest.run.id, input, Lie::None)?;
                honest.draft_of(&honest.chain, &run).forged()
            },
        ),
        forgery(
            "answer-of-other-run",
            Forger::Messenger,
            "the answer delivered is that of another run",
            Check::Output,
            |honest| answered(honest, &honest.second),
        ),
        forgery("answer-changed", Forger::Messenger, "one number of the answer differs in its last digit", Check::Output, |honest| {
            let mut draft = honest.draft();
            if let Some(number) = draft.answer.first_mut() {
                *number = number.next_up();
            }
            draft.forged()
        }),
        forgery(
            "run-renamed",
            Forger::Messenger,
            "the bundle's run has another id, the statements keep theirs",
            Check::RunId,
            |honest| {
                let mut draft = honest.draft();
                draft.bundle.run = RunId::from_bytes([0xee; 16]);
                draft.forged()
            },
        ),
        forgery(
            "run-renamed-and-signed",
            Forger::Workers,
            "the run has another id, and all workers sign again; the proofs are of the run as it was",
            Check::Proof,
            |honest| renamed(honest).forged(),
        )
        .only_in(NATIVE),
        forgery(
            "run-renamed-and-signed-ezkl",
            Forger::Workers,
            "the run has another id, and all workers sign again; ezkl's proofs know no run, and are as true of this one",
            Check::Proof,
            |honest| renamed(honest).forged(),
        )
        .only_in(EZKL)
        .expecting(Expected::Verified),
    ]
}

fn answered(honest: &Honest, run: &Run) -> Result<Forged> {
    let mut draft = honest.draft();
    draft.answer = honest.draft_of(&honest.chain, run).answer;
    draft.forged()
}

/// The same shard of another run in the place of shard 1.
fn with_shard_of(honest: &Honest, run: &Run) -> Draft {
    let mut draft = honest.draft();
    let Bundle { shards, .. } = honest.draft_of(&honest.chain, run).bundle;
    draft.bundle.shards[1] = shards[1].clone();
    draft
}

fn one_shard() -> Vec<Forgery> {
    vec![
        forgery(
            "shard-replayed",
            Forger::Messenger,
            "shard 1 is that of another run on the same input: receipt, admission and proof",
            Check::RunId,
            |honest| with_shard_of(honest, &honest.again).forged(),
        ),
        forgery(
            "shard-replayed-and-signed",
            Forger::Worker,
            "shard 1 is that of another run on the same input; its worker signs it for this run, with that run's proof",
            Check::Proof,
            |honest| {
                let mut draft = with_shard_of(honest, &honest.again);
                draft.restate(&honest.keys, 1, |statement| statement.run = honest.run.id);
                draft.forged()
            },
        )
        .only_in(NATIVE),
        forgery(
            "shard-replayed-and-signed-ezkl",
            Forger::Worker,
            "shard 1 is that of another run on the same input; its worker signs it for this run, with that run's proof, \
             which is as true of this one",
            Check::Proof,
            |honest| {
                let mut draft = with_shard_of(honest, &honest.again);
                draft.restate(&honest.keys, 1, |statement| statement.run = honest.run.id);
                draft.forged()
            },
        )
        .only_in(EZKL)
        .expecting(Expected::Verified),
        forgery(
            "shard-of-other-input",
            Forger::Worker,
            "shard 1 is that of a run on another input; its worker signs it for this run and says that it took in what shard \
             0 put out and put out what shard 2 took in; the proof is of the other input",
            Check::Proof,
            |honest| {
                let mut draft = honest.draft();
                draft.proof(1)?.proof = honest.second.links[1].proof.clone().into();
                draft.forged()
            },
        )
        .led_by_commitments(),
        forgery(
            "shard-of-other-input-unlinked",
            Forger::Worker,
            "the last shard is that of a run on another input, signed for this one, with its proof and its answer",
            Check::BoundaryLink,
            |honest| {
                let mut run = honest.run.clone();
                let mut last = honest.second.links[SHARDS - 1].clone();
                last.statement.run = run.id;
                run.links[SHARDS - 1] = last;
                let restated = honest.chain.restated(&run, &honest.chain.body)?;
                honest.draft_of(&honest.chain, &restated).forged()
            },
        ),
    ]
}
