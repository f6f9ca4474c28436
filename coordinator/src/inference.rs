//! A run on its way (`delivery` sees it through): receipts come in from all workers, the last boundary comes back. Every receipt is compared with the card, with its neighbours' and with the tensors that this side has seen.

use std::sync::Arc;

use shardproof_common::artifacts::{Artifact, ArtifactError};
use shardproof_common::audit::NonceCommitment;
use shardproof_common::hold;
use shardproof_common::ids::{Digest, RunId, ShardIndex, UnixMillis};
use shardproof_common::plan::BackendKind;
use shardproof_common::receipt::{PublicKey, Receipt};
use shardproof_common::statement::{Binding, Boundary};
use shardproof_common::tensor::{FloatTensor, Tensor, decode_boundary, encode_boundary, encoded_bytes};
use shardproof_common::{chain, clock};
use shardproof_proto::transport::artifacts::store_status;
use thiserror::Error;
use tonic::{Code, Status};

use crate::audit::Audit;
use crate::record::{Replaced, RunRecord, RunState};
use crate::runs::{no_run, now_ms};
use crate::setup::Prepared;
use crate::workers::Event;
use crate::{Coordinator, STORE_PAUSE, Stage};

impl Coordinator {
    /// Starts a run on a stored input, with the client's commitment to its part in the audit; the answer is the run as it was accepted and saved.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        input: Digest,
        commitment: Option<NonceCommitment>,
    ) -> Result<RunRecord, Status> {
        self.check_accepting()?;
        let prepared = self.serving()?;
        let vacant = self.cluster.with(|registry| registry.vacant());
        if !vacant.is_empty() {
            let names: Vec<_> = vacant.iter().map(ToString::to_string).collect();
            let message = format!("no worker is ready for shard {}: start one, or wait for it", names.join(", "));
            return Err(Status::failed_precondition(message));
        }
        let _place = self.runs.reserve(self.settings.max_runs).map_err(|under_way| {
            Status::resource_exhausted(format!(
                "{under_way} runs are under way, as many as --max-runs allows at a time: wait for one to end"
            ))
        })?;
        // Room for an input that does not fit, so that the refusal can say what is wrong with it.
        let limit = 65_536 + 2 * encoded_bytes(prepared.input().iter().map(|spec| spec.shape.as_slice()), false);
        let bytes = self
            .artifacts
            .read(input, limit)
            .await
            .map_err(|error| Status::invalid_argument(format!("input: {error}")))?;
        let boundary = quantise_input(&prepared, &bytes)?;
        let encoding = encode_boundary(&boundary);
        let stored = self.artifacts.put(&encoding).await.map_err(|error| store_status(&error))?;
        let mut record = RunRecord::new(RunId::generate(), prepared.plan, prepared.shards.len(), stored, now_ms());
        record.send_to(&self.cluster.with(|registry| registry.holders()));
        record.audit = Audit::new(self.settings.audit, commitment);
        self.runs.create(record.clone()).await.map_err(|error| {
            Status::unavailable(format!(
                "the run is not accepted, because it cannot be stored: {error}; try again later"
            ))
        })?;
        self.tasks.spawn(self.clone().see_through(record.id, prepared, Some(encoding.into())));
        Ok(record)
    }

    /// Takes a receipt from the worker that holds the shard; the first one counts. One that does not hold rejects the run.
    pub(crate) async fn take_receipt(self: &Arc<Self>, run: RunId, shard: ShardIndex, told: Told) {
        let Ok(prepared) = self.serving() else { return };
        let worker = told.receipt.worker;
        let asked = Asked {
            provable_until: clock::now().after(self.settings.provable_for),
            output_is_here: self.has_output(&prepared, &told.receipt).await,
            before: self.cluster.with(|registry| {
                let before = ShardIndex(shard.0.checked_sub(1)?);
                registry.holder(before).map(|(_, member)| member.key)
            }),
        };
        let taken = |record: &mut RunRecord| record_receipt(&prepared, record, shard, told, &asked);
        let checked = self.change_and_withdraw(run, taken).await;
        self.hold.reach(hold::Stage::ReceiptTaken).await;
        let fault = match checked {
            Some(Err(fault)) => fault,
            Some(Ok(true)) => return self.ask_successor(run, shard, worker).await,
            Some(Ok(false)) | None => return,
        };
        tracing::warn!(%run, %shard, %fault, "receipt refused");
        match fault {
            Fault::Contradiction(both) => self.accuse_of_contradiction(run, &prepared, *both).await,
            Fault::Its(_) => self.note(worker, Event::Failed).await,
            Fault::Against { worker: Some(worker), .. } => self.note(worker, Event::Failed).await,
            Fault::Against { worker: None, .. } | Fault::EitherNeighbours(_) => {}
        }
    }

    /// Whether the output that a receipt names is here, where it has to be. As long as that cannot be told it counts as here: nobody
    /// is to blame for what is lost after it was handed over.
    async fn has_output(&self, prepared: &Prepared, receipt: &Receipt) -> bool {
        let statement = &receipt.statement;
        match statement.output.binding {
            Binding::Public(digest) if prepared.card.body.shows_output_of(statement.shard) => {
                !matches!(self.artifacts.find(digest).await, Ok(None))
            }
            _ => true,
        }
    }

    /// Takes the last boundary. The receipt of the worker it comes from is on its way on another stream.
    pub(crate) async fn take_answer(
        self: &Arc<Self>,
        run: RunId,
        encoding: Vec<u8>,
        receipt: Receipt,
    ) -> Result<(), Status> {
        let tensors = decode_boundary(&encoding).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let last = receipt.statement.shard;
        if receipt.statement.output != Boundary::public(&tensors) {
            return Err(Status::invalid_argument("the receipt names another answer than the one that came with it"));
        }
        if !self.find_run(run).await?.awaits_answer(&receipt) {
            return Ok(());
        }
        let answer = match self.store_answer(&encoding).await {
            Err(status) if status.code() == Code::ResourceExhausted => {
                // Before the worker says that its answer does not get through, which would count against it.
                let reason = format!("its answer could not be stored here: {}", status.message());
                self.runs.change(run, |record| record.fail(Some(last), None, reason)).await;
                return Err(status);
            }
            stored => stored?,
        };
        let worker = receipt.worker;
        let taken = self.runs.change(run, |record| {
            if !record.awaits_answer(&receipt) {
                return Ok(());
            }
            if let Some(both) = record.contradicted_by(&receipt) {
                record.reject_for_contradiction(&both);
                return Err(Fault::Contradiction(both));
            }
            let agrees = record.receipt(last).is_none_or(|known| known.statement == receipt.statement);
            record.answer_receipt = Some(receipt);
            if agrees && record.passed_on_by_another(last).is_none() {
                record.answer = Some(answer);
                record.settle_inference();
                return Ok(());
            }
            let reason = "its receipt and its answer contradict each other".to_owned();
            record.reject(last, Some(worker), reason.clone());
            Err(Fault::Its(reason))
        });
        match taken.await.ok_or_else(|| no_run(run))? {
            Ok(()) => {}
            Err(Fault::Contradiction(both)) => self.accuse_of_contradiction(run, &*self.serving()?, *both).await,
            Err(_) => self.note(worker, Event::Failed).await,
        }
        Ok(())
    }

    /// Stores an answer, once the object store takes it: meanwhile its worker waits.
    async fn store_answer(&self, encoding: &[u8]) -> Result<Artifact, Status> {
        loop {
            match self.artifacts.put(encoding).await {
                Ok(answer) => return Ok(answer),
                Err(error @ ArtifactError::Remote { .. }) => {
                    tracing::warn!(%error, "cannot store an answer, trying again")
                }
                Err(error) => return Err(store_status(&error)),
            }
            tokio::select! {
                () = tokio::time::sleep(STORE_PAUSE) => {}
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the coordinator is stopping")),
            }
        }
    }

    /// Checks who delivers an answer, before its bytes are taken: the worker that holds the last shard, for a run under way. False
    /// when the run has that very answer already.
    pub(crate) async fn check_answerer(
        &self,
        prepared: &Prepared,
        run: RunId,
        receipt: &Receipt,
        answer: Digest,
    ) -> Result<bool, Status> {
        let last = ShardIndex(prepared.shards.len() as u32 - 1);
        chain::check_receipt(receipt, &prepared.card, run, last)
            .map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        let holds =
            self.cluster.with(|registry| registry.holder(last).is_some_and(|(_, member)| member.key == receipt.worker));
        if !holds {
            return Err(Status::permission_denied("only the worker that holds the last shard delivers answers"));
        }
        let record = self.find_run(run).await?;
        match record.answer {
            None if record.state == RunState::Running => Ok(true),
            Some(known) if known.digest == answer => Ok(false),
            _ => Err(Status::failed_precondition(format!("run {run} awaits no answer"))),
        }
    }

    /// What setup gave, or why nothing is served yet.
    pub(crate) fn serving(&self) -> Result<Arc<Prepared>, Status> {
        match &*self.stage.borrow() {
            Stage::Serving(prepared) => Ok(prepared.clone()),
            Stage::Preparing(step) => Err(Status::failed_precondition(format!("not serving yet: {step}"))),
            Stage::Failed(reason) => Err(Status::failed_precondition(format!("setup failed: {reason}"))),
        }
    }
}

/// What a worker says of its inference.
pub(crate) struct Told {
    pub(crate) receipt: Receipt,
    /// The receipt that came with its input; none at shard 0.
    pub(crate) upstream: Option<Receipt>,
    pub(crate) witness_us: u64,
    pub(crate) witness_bytes: u64,
    pub(crate) peak_rss_bytes: u64,
}

/// What is asked for with a receipt besides its signature.
struct Asked {
    /// It promises a proof until then at least.
    provable_until: UnixMillis,
    /// The worker has stored its output here, where the bundle shows it.
    output_is_here: bool,
    /// The worker that has the shard before now.
    before: Option<PublicKey>,
}

/// What is wrong with a receipt.
#[derive(Debug, Error)]
enum Fault {
    /// Its worker alone can be to blame.
    #[error("{0}")]
    Its(String),
    /// Another worker's than the one that gave it, where one can be named.
    #[error("{reason}")]
    Against { shard: ShardIndex, worker: Option<PublicKey>, reason: String },
    /// Neighbours disagree, and nothing tells which is right.
    #[error("{0}")]
    EitherNeighbours(String),
    /// One worker signed both.
    #[error("worker {} gave two receipts that contradict each other", .0.0.worker)]
    Contradiction(Box<(Receipt, Receipt)>),
}

impl Fault {
    /// Ends the run whose receipt of `shard`, by `worker`, is at fault.
    fn reject(&self, record: &mut RunRecord, shard: ShardIndex, worker: PublicKey) {
        match self {
            Self::Its(reason) => record.reject(shard, Some(worker), reason.clone()),
            Self::Against { shard, worker, reason } => record.reject(*shard, *worker, reason.clone()),
            Self::EitherNeighbours(reason) => record.reject(shard, None, reason.clone()),
            Self::Contradiction(both) => record.reject_for_contradiction(both),
        }
    }
}

/// Takes a receipt into the record of a run that waits for it; whether it takes the place of another worker's. One that is at
/// fault ends the run in the same change: an answer that comes next must not find it in order.
fn record_receipt(
    prepared: &Prepared,
    record: &mut RunRecord,
    shard: ShardIndex,
    told: Told,
    asked: &Asked,
) -> Result<bool, Fault> {
    let worker = told.receipt.worker;
    let taken = compare_receipt(prepared, record, shard, told, asked);
    if let Err(fault) = &taken {
        fault.reject(record, shard, worker);
    }
    taken
}

/// Compares a receipt with what is known of its run, and takes it in unless it is at fault by itself.
fn compare_receipt(
    prepared: &Prepared,
    record: &mut RunRecord,
    shard: ShardIndex,
    told: Told,
    asked: &Asked,
) -> Result<bool, Fault> {
    let run = record.id;
    if let Some(both) = signed_twice(prepared, record, &told) {
        return Err(Fault::Contradiction(both));
    }
    if record.state != RunState::Running {
        // One that does not hold cannot take the place of one that does.
        if chain::check_receipt(&told.receipt, &prepared.card, run, shard).is_err() {
            return Ok(false);
        }
        let by_another = record.receipt(shard).is_some_and(|known| known.worker != told.receipt.worker);
        return match record.replace_receipt(shard, &told.receipt) {
            Replaced::Taken => Ok(by_another),
            Replaced::Ignored => Ok(false),
            Replaced::Contradicted => Err(Fault::EitherNeighbours(
                "sent through again, its shard gave a receipt that contradicts the first one".to_owned(),
            )),
        };
    }
    if record.has_receipt(shard) || !record.counts(told.receipt.attempt.into()) || is_early(record, shard, &told, asked)
    {
        return Ok(false);
    }
    let Some(entry) = record.shards.get_mut(shard.as_usize()) else { return Ok(false) };
    let Told { receipt, upstream, witness_us, witness_bytes, peak_rss_bytes } = told;
    check_own(prepared, run, shard, &receipt, upstream.as_ref())?;
    if !asked.output_is_here {
        return Err(Fault::Its("it gave a receipt for tensors that it did not hand over".to_owned()));
    }
    if receipt.provable_until < asked.provable_until {
        let short = asked.provable_until.0 - receipt.provable_until.0;
        return Err(Fault::Its(format!(
            "its receipt promises to be provable for {} s less than is asked for (worker --keep-spool, coordinator \
             --provable-for, and the clocks of both machines)",
            short.div_ceil(1000)
        )));
    }
    (entry.witness_us, entry.witness_bytes, entry.peak_rss_bytes) = (witness_us, witness_bytes, peak_rss_bytes);
    (entry.receipt, entry.upstream) = (Some(receipt), upstream);
    let before = shard.0.checked_sub(1).map(ShardIndex);
    for passed_on_by in before.into_iter().chain([shard]) {
        if let Some(stranger) = record.passed_on_by_another(passed_on_by) {
            let shard = ShardIndex(passed_on_by.0 + 1);
            let reason = format!(
                "the receipt that came with its input is by worker {stranger}, which did not run shard {passed_on_by}"
            );
            let worker = record.receipt(shard).map(|receipt| receipt.worker);
            return Err(Fault::Against { shard, worker, reason });
        }
    }
    check_neighbours(record, shard)?;
    record.settle_inference();
    Ok(false)
}

/// A receipt among those that were shown, however late, that contradicts one that its worker gave before.
fn signed_twice(prepared: &Prepared, record: &RunRecord, told: &Told) -> Option<Box<(Receipt, Receipt)>> {
    let holds =
        |receipt: &Receipt| chain::check_receipt(receipt, &prepared.card, record.id, receipt.statement.shard).is_ok();
    let shown = told.upstream.iter().chain([&told.receipt]);
    shown.filter_map(|receipt| record.contradicted_by(receipt)).find(|both| holds(&both.1))
}

/// Whether a receipt is by a worker that took the place of one of this attempt, or came with the receipt of such a one: the attempt
/// in which they count has not begun.
fn is_early(record: &RunRecord, shard: ShardIndex, told: &Told, asked: &Asked) -> bool {
    let of_this_attempt = |shard: ShardIndex, worker: PublicKey| {
        record.holders.get(shard.as_usize()).is_none_or(|holder| *holder == worker)
    };
    let before = shard.0.checked_sub(1).map(ShardIndex);
    let upstream = told.upstream.as_ref().zip(before).is_some_and(|(upstream, before)| {
        !of_this_attempt(before, upstream.worker) && asked.before == Some(upstream.worker)
    });
    upstream || !of_this_attempt(shard, told.receipt.worker)
}

/// What a receipt says by itself, and together with the one that came with the shard's input: whoever signs for an input
/// without a receipt for it has nobody to refer to.
fn check_own(
    prepared: &Prepared,
    run: RunId,
    shard: ShardIndex,
    receipt: &Receipt,
    upstream: Option<&Receipt>,
) -> Result<(), Fault> {
    let its = |refusal: chain::Refusal| Fault::Its(refusal.to_string());
    chain::check_receipt(receipt, &prepared.card, run, shard).map_err(its)?;
    let Some(before) = shard.0.checked_sub(1).map(ShardIndex) else { return Ok(()) };
    let upstream =
        upstream.ok_or_else(|| Fault::Its("it signed for an input that came without a receipt".to_owned()))?;
    let with = |refusal: chain::Refusal| Fault::Its(format!("the receipt that came with its input: {refusal}"));
    chain::check_receipt(upstream, &prepared.card, run, before).map_err(with)?;
    chain::check_link(upstream, receipt).map_err(with)
}

/// Compares a receipt that is in with the run's input and answer, and with the neighbours' receipts that are in.
fn check_neighbours(record: &RunRecord, shard: ShardIndex) -> Result<(), Fault> {
    let Some(receipt) = record.receipt(shard) else { return Ok(()) };
    let statement = &receipt.statement;
    if shard.0 == 0 && !names(&statement.input, record.input) {
        return Err(Fault::Its("its receipt names another input than the one submitted".into()));
    }
    let either = |refusal: chain::Refusal| Fault::EitherNeighbours(refusal.to_string());
    if let Some(previous) = shard.0.checked_sub(1).and_then(|before| record.receipt(ShardIndex(before))) {
        chain::check_link(previous, receipt).map_err(either)?;
    }
    if let Some(next) = record.receipt(ShardIndex(shard.0 + 1)) {
        chain::check_link(receipt, next).map_err(either)?;
    }
    if let Some(answer) = record.answer
        && shard.as_usize() + 1 == record.shards.len()
        && !names(&statement.output, answer)
    {
        return Err(Fault::Its("its receipt and its answer contradict each other".into()));
    }
    Ok(())
}

/// Whether a public boundary is the one whose encoding is stored as `artifact`.
fn names(boundary: &Boundary, artifact: Artifact) -> bool {
    boundary.binding == Binding::Public(artifact.digest)
}

/// The client's floats as the first shard takes them.
fn quantise_input(prepared: &Prepared, encoding: &[u8]) -> Result<Vec<Tensor>, Status> {
    let tensors = decode_boundary(encoding).map_err(|error| Status::invalid_argument(format!("input: {error}")))?;
    let first = prepared.card.body.shards.first().ok_or_else(|| Status::internal("the card has no shards"))?;
    if tensors.len() != first.input.len() {
        let message = format!("input: expected {} tensors, found {}", first.input.len(), tensors.len());
        return Err(Status::invalid_argument(message));
    }
    let floats = tensors.into_iter().zip(&first.input).map(|(tensor, spec)| {
        let refuse = |what: String| Status::invalid_argument(format!("input `{}`: {what}", spec.name));
        let Tensor::Float(floats) = tensor else { return Err(refuse("expected floats, found integers".into())) };
        if floats.shape != spec.shape {
            return Err(refuse(format!("expected shape {:?}, found {:?}", spec.shape, floats.shape)));
        }
        if let Some(index) = floats.values.iter().position(|x| !x.is_finite()) {
            return Err(refuse(format!("element {index} is {}", floats.values[index])));
        }
        convert_tensor(floats, first.backend.kind, spec.scale).map_err(|error| refuse(error.to_string()))
    });
    floats.collect()
}

fn convert_tensor(
    floats: FloatTensor,
    backend: BackendKind,
    scale: i32,
) -> Result<Tensor, shardproof_common::tensor::TensorError> {
    match backend {
        BackendKind::Float => Ok(Tensor::Float(floats)),
        BackendKind::Ezkl | BackendKind::Gkr => floats.quantise(scale).map(Tensor::Integer),
    }
}

#[cfg(test)]
mod tests;
