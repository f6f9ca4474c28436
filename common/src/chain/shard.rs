//! The checks of one shard's receipt and boundaries against the card. The coordinator makes them while a run proceeds, the
//! offline verifier makes them again: the code is the same.

use super::check::{Check, Refusal};
use crate::bundle::ShardRecord;
use crate::card::{ModelCard, ShardCard};
use crate::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex};
use crate::plan::{BackendKind, BoundaryMode, BoundaryPlan, ShardPlan};
use crate::receipt::{Admission, Receipt};
use crate::statement::{Binding, Boundary, Statement};
use crate::tensor::{FloatTensor, Tensor, TensorSpec, decode_boundary};

/// What the card says of the shard at one place of the chain.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) card: &'a ModelCard,
    pub(super) plan_digest: Digest,
    pub(super) index: ShardIndex,
    pub(super) plan: &'a ShardPlan,
    pub(super) registered: &'a ShardCard,
    pub(super) input: &'a BoundaryPlan,
    pub(super) output: &'a BoundaryPlan,
}

impl<'a> Place<'a> {
    /// The place of shard `index`, if the card has one; `plan_digest` is the digest of the card's plan.
    pub(super) fn of(card: &'a ModelCard, plan_digest: Digest, index: ShardIndex) -> Option<Self> {
        let plan = card.body.plan.shard(index)?;
        let registered = card.body.shards.get(index.as_usize())?;
        let (input, output) = card.body.plan.boundaries_of(index)?;
        Some(Self { card, plan_digest, index, plan, registered, input, output })
    }

    pub(super) fn is_float(&self) -> bool {
        self.registered.backend.kind == BackendKind::Float
    }

    /// The statement names this place.
    pub(super) fn check_position(&self, statement: &Statement) -> Result<(), String> {
        let shards = self.card.body.plan.shards.len();
        if statement.shard != self.index || statement.shards as usize != shards {
            let (found, of) = (statement.shard, statement.shards);
            return Err(format!(
                "expected shard {} of {shards}, found a receipt for shard {found} of {of}",
                self.index
            ));
        }
        Ok(())
    }

    /// All of the statement but its position, run and boundaries, which have checks of their own, is what the card calls
    /// for.
    pub(super) fn check_statement(&self, statement: &Statement) -> Result<(), String> {
        // Destructured so that a field added to statements does not build until somebody says where it is checked.
        let Statement {
            protocol,
            backend,
            model,
            architecture,
            plan,
            shard: _,
            shards: _,
            run: _,
            input: _,
            output: _,
            keys,
        } = statement;
        let body = &self.card.body;
        if *protocol != PROTOCOL_VERSION {
            return Err(format!("expected protocol {PROTOCOL_VERSION}, found {protocol}"));
        }
        if *backend != self.registered.backend {
            let registered = &self.registered.backend;
            let expected = format!("{} {}", registered.kind, registered.version);
            return Err(format!("expected backend {expected}, found {} {}", backend.kind, backend.version));
        }
        let keys_digest = self.registered.keys.digest();
        let digests = [
            ("model", *model, body.plan.model),
            ("architecture", *architecture, body.plan.architecture),
            ("plan", *plan, self.plan_digest),
            ("keys", *keys, keys_digest),
        ];
        match digests.into_iter().find(|(_, found, expected)| found != expected) {
            Some((what, found, expected)) => Err(format!("expected {what} {expected}, found {found}")),
            None => Ok(()),
        }
    }

    /// The receipt's worker is admitted to the card's plan by the card's authority.
    pub(super) fn check_admission(&self, receipt: &Receipt, admission: &Admission) -> Result<(), String> {
        if admission.worker != receipt.worker {
            return Err(format!("the admission is for worker {}, the receipt by {}", admission.worker, receipt.worker));
        }
        if admission.plan != self.plan_digest {
            return Err(format!("the admission is for plan {}, the card's is {}", admission.plan, self.plan_digest));
        }
        admission.check(&self.card.body.authority).map_err(|error| error.to_string())
    }

    /// Both boundaries have the registered shapes and scales, and are bound as the plan's modes say.
    pub(super) fn check_boundary_form(&self, statement: &Statement) -> Result<(), String> {
        let sides = [
            ("input", &statement.input, &self.registered.input, self.input.mode),
            ("output", &statement.output, &self.registered.output, self.output.mode),
        ];
        for (side, boundary, specs, mode) in sides {
            boundary.conforms_to(specs).map_err(|error| format!("{side}: {error}"))?;
            match (&boundary.binding, mode) {
                (Binding::Public(_), BoundaryMode::Public) => {}
                (
                    Binding::Committed(commitments),
                    BoundaryMode::Hashed | BoundaryMode::Polycommit | BoundaryMode::Committed,
                ) => {
                    if commitments.iter().any(Vec::is_empty) {
                        return Err(format!("{side}: a commitment is empty"));
                    }
                }
                (Binding::Public(_), _) => return Err(format!("{side}: expected {mode} commitments, found a digest")),
                (Binding::Committed(_), _) => {
                    return Err(format!("{side}: expected {mode} tensors, found commitments"));
                }
            }
        }
        Ok(())
    }

    /// The tensors whose encoding is `encoded`, which is what `boundary`, one of this shard's, names.
    pub(super) fn open(&self, encoded: &[u8], boundary: &Boundary) -> Result<Vec<Tensor>, String> {
        let tensors = decode_boundary(encoded).map_err(|error| error.to_string())?;
        let float = self.is_float();
        if let Some(position) = tensors.iter().position(|tensor| tensor.as_integer().is_none() != float) {
            let (expected, found) = if float { ("floats", "integers") } else { ("integers", "floats") };
            return Err(format!("tensor {position}: expected {expected}, found {found}"));
        }
        let found = Boundary::public(&tensors);
        if found.tensors != boundary.tensors {
            return Err("the shapes or scales of the tensors are not those of the statement".to_owned());
        }
        if found.binding != boundary.binding {
            return Err("the digest of the tensors is not the one in the statement".to_owned());
        }
        Ok(tensors)
    }
}

/// Compares what one shard put out with what the next took in.
pub(super) fn compare_link(output: &Boundary, input: &Boundary) -> Result<(), String> {
    if output.tensors.len() != input.tensors.len() {
        return Err(format!("{} tensors were put out, {} taken in", output.tensors.len(), input.tensors.len()));
    }
    for (position, (out, taken)) in output.tensors.iter().zip(&input.tensors).enumerate() {
        if out.shape != taken.shape {
            return Err(format!(
                "tensor {position} was put out in shape {:?}, taken in as {:?}",
                out.shape, taken.shape
            ));
        }
        if out.scale != taken.scale {
            return Err(format!("tensor {position} was put out at scale {}, taken in at {}", out.scale, taken.scale));
        }
    }
    match (&output.binding, &input.binding) {
        (out, taken) if out == taken => Ok(()),
        (Binding::Public(out), Binding::Public(taken)) => Err(format!("tensors {out} were put out, {taken} taken in")),
        (Binding::Committed(out), Binding::Committed(taken)) => {
            let position =
                out.iter().zip(taken).position(|(out, taken)| out != taken).unwrap_or(out.len().min(taken.len()));
            Err(format!("the commitments to tensor {position} differ"))
        }
        _ => Err("one side shows its tensors, the other commits to them".to_owned()),
    }
}

/// Compares boundary 0 with the client's floats, quantised at the registered scales; bit for bit in `float` mode.
pub(super) fn compare_input(given: &[FloatTensor], specs: &[TensorSpec], found: &[Tensor]) -> Result<(), String> {
    if given.len() != specs.len() || found.len() != specs.len() {
        return Err(format!("the model takes {} tensors, {} were given", specs.len(), given.len()));
    }
    for ((given, spec), found) in given.iter().zip(specs).zip(found) {
        let name = &spec.name;
        if given.shape != spec.shape || given.values.len() as u64 != spec.elements() {
            let (expected, found, values) = (&spec.shape, &given.shape, given.values.len());
            return Err(format!(
                "tensor `{name}`: expected shape {expected:?}, was given {found:?} with {values} values"
            ));
        }
        let difference = match found {
            Tensor::Integer(found) => {
                let expected = given.quantise(spec.scale).map_err(|error| format!("tensor `{name}`: {error}"))?;
                first_difference(&expected.values, &found.values, |a, b| a == b)
            }
            Tensor::Float(found) => first_difference(&given.values, &found.values, |a, b| a.to_bits() == b.to_bits()),
        };
        if let Some(index) = difference {
            return Err(format!("tensor `{name}`: element {index} of the run's input is not the given one"));
        }
    }
    Ok(())
}

/// Compares boundary n, dequantised, with the answer that was delivered: exactly, for printed doubles read back exactly.
pub(super) fn compare_output(given: &[f64], found: &[f64]) -> Result<(), String> {
    if given.len() != found.len() {
        return Err(format!("the run's output has {} values, {} were given", found.len(), given.len()));
    }
    match first_difference(found, given, |a, b| a == b || a.is_nan() && b.is_nan()) {
        Some(index) => {
            Err(format!("element {index}: the run's output is {}, {} was given", found[index], given[index]))
        }
        None => Ok(()),
    }
}

fn first_difference<T>(expected: &[T], found: &[T], same: impl Fn(&T, &T) -> bool) -> Option<usize> {
    if expected.len() != found.len() {
        return Some(expected.len().min(found.len()));
    }
    expected.iter().zip(found).position(|(a, b)| !same(a, b))
}

/// Checks one receipt, as it arrives, for shard `shard` of run `run` under `card`: position, run, statement, signature, and
/// the form of its boundaries. Whether the worker is admitted is [`check_admission`]'s question.
///
/// # Errors
/// The first check that does not hold.
pub fn check_receipt(receipt: &Receipt, card: &ModelCard, run: RunId, shard: ShardIndex) -> Result<(), Refusal> {
    let refuse = |check| move |reason: String| Refusal::of_shard(check, shard, receipt.worker, reason);
    let place = place_of(card, shard, receipt)?;
    let statement = &receipt.statement;
    place.check_position(statement).map_err(refuse(Check::ShardList))?;
    check_run(statement, run).map_err(refuse(Check::RunId))?;
    place.check_statement(statement).map_err(refuse(Check::Statement))?;
    receipt.check().map_err(|error| refuse(Check::Receipt)(error.to_string()))?;
    place.check_boundary_form(statement).map_err(refuse(Check::BoundaryForm))
}

/// Checks that `admission` admits the receipt's worker to the card's plan.
///
/// # Errors
/// [`Check::Admission`], with what is wrong.
pub fn check_admission(receipt: &Receipt, admission: &Admission, card: &ModelCard) -> Result<(), Refusal> {
    let shard = receipt.statement.shard;
    let place = place_of(card, shard, receipt)?;
    place
        .check_admission(receipt, admission)
        .map_err(|reason| Refusal::of_shard(Check::Admission, shard, receipt.worker, reason))
}

/// Checks that the shard of `next` took in what the shard of `previous`, the one before it in the same run, put out.
///
/// # Errors
/// Names the shard of `next`; the fault may be either neighbour's.
pub fn check_link(previous: &Receipt, next: &Receipt) -> Result<(), Refusal> {
    let (before, after) = (&previous.statement, &next.statement);
    let refuse = |check, reason: String| Refusal::of_shard(check, after.shard, next.worker, reason);
    if before.shard.0.checked_add(1) != Some(after.shard.0) {
        return Err(refuse(Check::ShardList, format!("shard {} does not follow shard {}", after.shard, before.shard)));
    }
    check_run(after, before.run).map_err(|reason| refuse(Check::RunId, reason))?;
    compare_link(&before.output, &after.input)
        .map_err(|reason| refuse(Check::BoundaryLink, link_reason(previous, &reason)))
}

/// A link concerns two workers; the refusal names the later one, so the reason names the one before.
pub(super) fn link_reason(previous: &Receipt, reason: &str) -> String {
    format!("{reason} (put out by shard {}, worker {})", previous.statement.shard, previous.worker)
}

pub(super) fn check_run(statement: &Statement, run: RunId) -> Result<(), String> {
    if statement.run == run { Ok(()) } else { Err(format!("expected run {run}, found {}", statement.run)) }
}

pub(super) fn place_of<'a>(card: &'a ModelCard, shard: ShardIndex, receipt: &Receipt) -> Result<Place<'a>, Refusal> {
    Place::of(card, card.body.plan.digest(), shard).ok_or_else(|| {
        let shards = card.body.plan.shards.len();
        Refusal::of_shard(
            Check::ShardList,
            shard,
            receipt.worker,
            format!("the card has {shards} shards, none at {shard}"),
        )
    })
}

/// A proof where the backend makes none is a value that nobody checks.
pub(super) fn check_leftover(place: &Place<'_>, record: &ShardRecord) -> Result<(), String> {
    match &record.proof {
        Some(_) if !place.registered.keys.provable() => Err("a proof of a shard that runs in float mode".to_owned()),
        _ => Ok(()),
    }
}
