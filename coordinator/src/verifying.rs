//! Verification of the proofs that workers have stored here: the check that whoever has the bundle makes, and what follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shardproof_common::artifacts::{Artifact, ArtifactError};
use shardproof_common::backend::{Job, Limits, ProofVerifier};
use shardproof_common::chain::{self, ShardCheck, ShardError};
use shardproof_common::hold::Stage;
use shardproof_common::ids::{RunId, ShardIndex};
use shardproof_common::receipt::Receipt;
use shardproof_common::statement::{Binding, Boundary};

use crate::runs::now_ms;
use crate::setup::Prepared;
use crate::workers::Event;
use crate::{Coordinator, STORE_PAUSE};

/// Longest that one verification may take.
const VERIFY_DEADLINE: Duration = Duration::from_secs(600);
/// Times that what lies on this machine's disk is read before the check is given up.
const READ_TRIES: u32 = 10;

/// Why a proof does not pass.
#[derive(Debug)]
enum Verdict {
    /// What the worker of this shard handed over is at fault.
    Rejected(ShardIndex, String),
    /// What the check needs cannot be had here at the moment, which is no worker's fault.
    Unread(ArtifactError),
    /// The check itself could not be made.
    Unable(String),
}

/// A proof that is stored here, and the receipt that it is to prove.
#[derive(Clone)]
struct Stored {
    run: RunId,
    receipt: Receipt,
    proof: Artifact,
}

impl Coordinator {
    /// Verifies the proof of a shard that is stored here and acts on the result.
    pub(crate) async fn verify(self: Arc<Self>, run: RunId, shard: ShardIndex) {
        let (Ok(prepared), Ok(record)) = (self.serving(), self.find_run(run).await) else { return };
        let entry = record.shards.get(shard.as_usize()).and_then(|entry| entry.receipt.clone().zip(entry.artifact));
        let Some((receipt, proof)) = entry else { return };
        let worker = receipt.worker;
        self.hold.reach(Stage::Verify).await;
        let reason = match self.check(&prepared, Stored { run, receipt, proof }).await {
            Ok(verify_us) => {
                tracing::info!(%run, %shard, verify_us, "proof verified");
                self.uploads.used(proof.digest);
                let passed = self.runs.change(run, |record| record.proof_passed(shard, verify_us, now_ms())).await;
                if passed == Some(true) {
                    self.note(worker, Event::Proved).await;
                }
                return;
            }
            // What a stop cuts short says nothing: the next start checks the proof again.
            Err(_) if self.shutdown.is_cancelled() => return,
            Err(Verdict::Rejected(at, reason)) => {
                let receipt = record.shards.get(at.as_usize()).and_then(|entry| entry.receipt.as_ref());
                let blamed = receipt.map_or(worker, |receipt| receipt.worker);
                return self.reject(run, at, blamed, Event::Failed, reason).await;
            }
            Err(Verdict::Unread(error)) => error.to_string(),
            Err(Verdict::Unable(reason)) => reason,
        };
        tracing::error!(%run, %shard, reason, "cannot verify");
        let reason = format!("the coordinator could not verify the proof of shard {shard}: {reason}");
        self.change_and_withdraw(run, |record| record.give_up(Some(shard), reason)).await;
    }

    /// Checks a proof when its turn comes, as often as it takes to read what that needs; the time that the check took, us. Nobody
    /// is rejected because a disk is full or the object store is away.
    async fn check(self: &Arc<Self>, prepared: &Arc<Prepared>, stored: Stored) -> Result<u64, Verdict> {
        let stopping = || Verdict::Unable("the coordinator is stopping".to_owned());
        let _turn = tokio::select! {
            turn = self.verifying.acquire() => turn.map_err(|_| stopping())?,
            () = self.shutdown.cancelled() => return Err(stopping()),
        };
        let mut tries = 0;
        loop {
            let checked = match self.bring(prepared, &stored).await {
                Ok(()) => {
                    let (coordinator, prepared, stored) = (self.clone(), prepared.clone(), stored.clone());
                    let check = tokio::task::spawn_blocking(move || coordinator.check_proof(&prepared, &stored));
                    check.await.unwrap_or_else(|panic| Err(Verdict::Unable(panic.to_string())))
                }
                Err(error) => Err(Verdict::Unread(error)),
            };
            let Err(Verdict::Unread(error)) = checked else { return checked };
            // An object store that is away is waited for, however long that is.
            tries += u32::from(!matches!(error, ArtifactError::Remote { .. }));
            // What was found damaged is removed.
            let is_lost = match error {
                ArtifactError::Missing { digest } | ArtifactError::Damaged { expected: digest, .. } => {
                    self.artifacts.find(digest).await.is_ok_and(|found| found.is_none())
                }
                _ => false,
            };
            if is_lost || tries == READ_TRIES {
                return Err(Verdict::Unread(error));
            }
            tracing::warn!(run = %stored.run, %error, "cannot read what the check of a proof needs, trying again");
            tokio::select! {
                () = tokio::time::sleep(STORE_PAUSE) => {}
                () = self.shutdown.cancelled() => return Err(stopping()),
            }
        }
    }

    /// Brings what the check of a proof reads to the local directory. That it was here once was seen when it was told of; what is
    /// missing now is found missing by the check.
    async fn bring(&self, prepared: &Prepared, stored: &Stored) -> Result<(), ArtifactError> {
        let statement = &stored.receipt.statement;
        let key = prepared.shards.get(statement.shard.as_usize()).and_then(|shard| shard.verifying_key);
        let public = [&statement.input, &statement.output].map(|boundary| match boundary.binding {
            Binding::Public(digest) => Some(digest),
            Binding::Committed(_) => None,
        });
        let needed = [Some(stored.proof.digest), key.map(|key| key.digest)].into_iter().chain(public);
        for digest in needed.flatten() {
            self.artifacts.find(digest).await?;
        }
        Ok(())
    }

    /// Blocking: the same check of one proof that the offline verifier makes; the time that it took, us.
    fn check_proof(&self, prepared: &Prepared, stored: &Stored) -> Result<u64, Verdict> {
        let started = Instant::now();
        let Stored { run, receipt, proof } = stored;
        let (shard, local) = (receipt.statement.shard, self.artifacts.local());
        let proof = local.read(proof.digest, self.settings.max_proof_bytes).map_err(|error| match error {
            ArtifactError::TooLarge { size, limit, .. } => Verdict::Rejected(
                shard,
                format!("its proof has {size} bytes, more than the {limit} that --max-proof allows"),
            ),
            error => Verdict::Unread(error),
        })?;
        let key = prepared.shards.get(shard.as_usize()).and_then(|shard| shard.verifying_key);
        let key = key.map(|key| local.read(key.digest, u64::MAX)).transpose().map_err(Verdict::Unread)?;
        let directory = tempfile::tempdir_in(&self.scratch)
            .map_err(|source| Verdict::Unread(ArtifactError::Io { path: self.scratch.clone(), source }))?;
        let limits = Limits { deadline: Some(VERIFY_DEADLINE), ..Limits::default() };
        let job = Job { directory: directory.path(), limits, cancel: &self.shutdown, progress: &|_| {} };
        let before = shard.0.checked_sub(1).map(ShardIndex);
        let is_last = shard.as_usize() + 1 == prepared.shards.len();
        let input = self.public_encoding(&receipt.statement.input, before)?;
        let output = self.public_encoding(&receipt.statement.output, (!is_last).then_some(shard))?;
        let check = ShardCheck {
            card: &prepared.card,
            run: *run,
            shard,
            receipt,
            verifying_key: key.as_deref().unwrap_or_default(),
            proof: &proof,
            input: input.as_deref(),
            output: output.as_deref(),
            // The owner chose the SRS; whoever verifies the bundle decides whether it will do.
            allow_test_srs: true,
        };
        let verifiers: Vec<&dyn ProofVerifier> = self.verifiers.iter().map(AsRef::as_ref).collect();
        match chain::verify_shard(&check, &verifiers, &job) {
            Ok(()) => Ok(started.elapsed().as_micros() as u64),
            Err(ShardError::Unavailable(error)) => Err(Verdict::Unable(error.to_string())),
            Err(ShardError::Refused(refusal)) => Err(Verdict::Rejected(shard, refusal.to_string())),
        }
    }

    /// The encoding of a public boundary. Inner ones were stored by the worker of the shard `by`, the run's input and answer by the
    /// coordinator itself.
    fn public_encoding(&self, boundary: &Boundary, by: Option<ShardIndex>) -> Result<Option<Vec<u8>>, Verdict> {
        let Binding::Public(digest) = boundary.binding else { return Ok(None) };
        match (self.artifacts.local().read(digest, self.settings.max_tensor_bytes), by) {
            (Ok(encoding), _) => Ok(Some(encoding)),
            (Err(error @ ArtifactError::TooLarge { .. }), Some(by)) => {
                Err(Verdict::Rejected(by, format!("the tensors it handed over: {error}")))
            }
            (Err(error), _) => Err(Verdict::Unread(error)),
        }
    }
}

#[cfg(test)]
mod tests;
