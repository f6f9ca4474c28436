//! What crosses between shards.

use anyhow::{Result, bail};
use shardproof_common::chain::Check;
use shardproof_common::statement::{Binding, Boundary, BoundaryShape};
use shardproof_common::tensor::Tensor;

use super::cards::BN254_SCALARS;
use super::{COMMITTED, EVERYWHERE, Forgery, NATIVE, SHOWN, forgery};
use crate::chain::{Lie, nudge};
use crate::draft::{Draft, add_modulus, commitments};
use crate::honest::Honest;
use crate::party::Forger;
use crate::scene::{SHARDS, Scene};

pub(super) fn forgeries() -> Vec<Forgery> {
    [values(), forms(), commitments_of_other_form(), shown()].into_iter().flatten().collect()
}

/// One unit in the last place of one boundary, and everything behind it true.
fn values() -> Vec<Forgery> {
    let output = |shard: usize| {
        let change = format!(
            "shard {shard} puts out one integer one unit off, signs it, and proves what it really did; all that follows is \
             computed, signed and proven from the lie"
        );
        let name = format!("unit-off-put-out-by-{shard}");
        let lie = forgery(name, Forger::Worker, change, Check::Proof, move |honest: &Honest| {
            honest.draft_of(&honest.chain, &honest.lying(Lie::Output(shard))?).forged()
        });
        if shard + 1 < SHARDS { lie.led_by_commitments() } else { lie }
    };
    let input = |shard: usize| {
        let change = format!(
            "shard {shard} takes in one integer one unit off from what the shard before it put out; all proofs are true"
        );
        forgery(
            format!("unit-off-taken-in-by-{shard}"),
            Forger::Worker,
            change,
            Check::BoundaryLink,
            move |honest: &Honest| honest.draft_of(&honest.chain, &honest.lying(Lie::Input(shard))?).forged(),
        )
    };
    let weights = forgery(
        "weights-of-other-model",
        Forger::Worker,
        "shard 1 is run and proven with other weights; all that follows is computed, signed and proven from it",
        Check::Proof,
        |honest| honest.draft_of(&honest.chain, &honest.lying(Lie::Weights(1))?).forged(),
    );
    (0..SHARDS).map(output).chain((1..SHARDS).map(input)).chain([weights.only_in(NATIVE)]).collect()
}

/// Changes the form of boundary 1 on both its sides, and the tensors that are shown of it.
fn reformed(honest: &Honest, form: impl Fn(&mut Vec<u64>, &mut i32)) -> Result<Draft> {
    let mut draft = honest.draft();
    let shown = match &draft.bundle.boundaries[1] {
        Some(_) => Some(draft.show(1, |tensors| {
            let Some(Tensor::Integer(tensor)) = tensors.first_mut() else { bail!("no integers") };
            form(&mut tensor.shape, &mut tensor.scale);
            Ok(())
        })?),
        None => None,
    };
    draft.restate_boundary(&honest.keys, 1, |boundary| {
        let BoundaryShape { shape, scale } = &mut boundary.tensors[0];
        form(shape, scale);
        if let Some(binding) = &shown {
            boundary.binding = binding.clone();
        }
    });
    Ok(draft)
}

fn forms() -> Vec<Forgery> {
    vec![
        forgery(
            "scale-changed",
            Forger::Workers,
            "boundary 1 is stated at twice its scale by both its workers, and shown so where it is public",
            Check::BoundaryForm,
            |honest| reformed(honest, |_, scale| *scale += 1)?.forged(),
        ),
        forgery(
            "shape-changed",
            Forger::Workers,
            "boundary 1 is stated in another shape of equally many elements by both its workers, and shown so where it is \
             public",
            Check::BoundaryForm,
            |honest| reformed(honest, |shape, _| shape.reverse())?.forged(),
        ),
        forgery(
            "scale-changed-on-one-side",
            Forger::Worker,
            "shard 1 states what it took in at twice its scale",
            Check::BoundaryForm,
            |honest| {
                let mut draft = honest.draft();
                draft.restate(&honest.keys, 1, |statement| statement.input.tensors[0].scale += 1);
                draft.forged()
            },
        )
        .noticed_by(&[Check::BoundaryLink]),
        forgery(
            "scale-of-the-answer-changed",
            Forger::Worker,
            "the last shard states and shows its output at half its scale, which doubles the answer",
            Check::BoundaryForm,
            |honest| {
                let mut draft = honest.draft();
                let binding = draft.show(SHARDS, |tensors| {
                    let Some(Tensor::Integer(tensor)) = tensors.first_mut() else { bail!("no integers") };
                    tensor.scale -= 1;
                    Ok(())
                })?;
                draft.restate(&honest.keys, SHARDS - 1, |statement| {
                    statement.output.tensors[0].scale -= 1;
                    statement.output.binding = binding;
                });
                draft.answer.iter_mut().for_each(|number| *number *= 2.0);
                draft.forged()
            },
        ),
        forgery(
            "tensor-added",
            Forger::Workers,
            "boundary 1 is stated with a second tensor by both its workers",
            Check::BoundaryForm,
            |honest| {
                let mut draft = honest.draft();
                draft.restate_boundary(&honest.keys, 1, |boundary| {
                    boundary.tensors.push(BoundaryShape { shape: vec![1], scale: 0 });
                    commitments(boundary).push(vec![0; 32]);
                });
                draft.forged()
            },
        )
        .only_in(COMMITTED),
        forgery(
            "commitment-shown-instead",
            Forger::Workers,
            "boundary 1 is bound by a digest, as if it were public, by both its workers",
            Check::BoundaryForm,
            |honest| {
                let mut draft = honest.draft();
                let public = Boundary::public(&honest.run.links[0].output);
                draft.restate_boundary(&honest.keys, 1, |boundary| *boundary = public.clone());
                draft.forged()
            },
        )
        .only_in(COMMITTED),
        forgery(
            "shown-committed-instead",
            Forger::Worker,
            "the last shard states a commitment to the answer, which the plan shows",
            Check::BoundaryForm,
            |honest| {
                let mut draft = honest.draft();
                draft.restate(&honest.keys, SHARDS - 1, |statement| {
                    statement.output.binding = Binding::Committed(vec![vec![7; 32]]);
                });
                draft.forged()
            },
        )
        .noticed_by(&[Check::BoundaryTensors]),
    ]
}

/// The commitment to boundary 1 in another form, stated by both workers.
fn commitments_of_other_form() -> Vec<Forgery> {
    let recommitted = |name: &str, change: &str, check, edit: fn(&mut Vec<u8>) -> Result<()>| {
        let change = format!("{change}, by both workers");
        forgery(name, Forger::Workers, change, check, move |honest: &Honest| {
            let mut draft = honest.draft();
            let mut changed = honest.run.links[0].statement.output.clone();
            edit(&mut commitments(&mut changed)[0])?;
            draft.restate_boundary(&honest.keys, 1, |boundary| *boundary = changed.clone());
            draft.forged()
        })
        .only_in(COMMITTED)
    };
    vec![
        recommitted("commitment-empty", "the commitment to boundary 1 is empty", Check::BoundaryForm, |bytes| {
            bytes.clear();
            Ok(())
        }),
        recommitted(
            "commitment-truncated",
            "a byte is cut off the commitment to boundary 1",
            Check::Instances,
            |bytes| {
                bytes.pop();
                Ok(())
            },
        ),
        recommitted("commitment-extended", "a byte follows the commitment to boundary 1", Check::Instances, |bytes| {
            bytes.push(0);
            Ok(())
        }),
        recommitted(
            "commitment-in-second-writing",
            "the field's order is added to the hash of boundary 1: the same element, written above the modulus",
            Check::Instances,
            |bytes| add_modulus(bytes, &BN254_SCALARS),
        )
        .only_in(&[Scene::Ezkl]),
        recommitted(
            "commitment-in-second-writing-gkr",
            "a number in the commitment to boundary 1 is written in two bytes instead of one",
            Check::Instances,
            |bytes| {
                let Some(last) = bytes.last_mut().filter(|last| **last < 0x80) else { bail!("no number of one byte") };
                *last |= 0x80;
                bytes.push(0);
                Ok(())
            },
        )
        .only_in(&[Scene::GkrCommitted, Scene::Mixed]),
    ]
}

/// What the bundle shows of public boundaries; nothing is signed again.
fn shown() -> Vec<Forgery> {
    let each = |boundary: usize, scenes| {
        let unit = forgery(
            format!("unit-off-shown-at-{boundary}"),
            Forger::Messenger,
            format!("one integer shown of boundary {boundary} is one unit off"),
            Check::BoundaryTensors,
            move |honest: &Honest| {
                let mut draft = honest.draft();
                draft.show(boundary, |tensors| nudge(tensors))?;
                draft.forged()
            },
        );
        let missing = forgery(
            format!("tensors-missing-at-{boundary}"),
            Forger::Messenger,
            format!("boundary {boundary} is not shown"),
            Check::BoundaryTensors,
            move |honest: &Honest| {
                let mut draft = honest.draft();
                draft.bundle.boundaries[boundary] = None;
                draft.forged()
            },
        );
        [unit.only_in(scenes), missing.only_in(scenes)]
    };
    let trailing = forgery(
        "tensors-extended",
        Forger::Messenger,
        "a byte follows the tensors shown of the answer",
        Check::BoundaryTensors,
        |honest| {
            let mut draft = honest.draft();
            let mut bytes = draft.bundle.boundaries[SHARDS].take().map(|blob| blob.into_vec()).unwrap_or_default();
            bytes.push(0);
            draft.bundle.boundaries[SHARDS] = Some(bytes.into());
            draft.forged()
        },
    );
    let ends = [each(0, EVERYWHERE), each(2, SHOWN), each(SHARDS, EVERYWHERE)].into_iter().flatten();
    ends.chain([trailing]).collect()
}
