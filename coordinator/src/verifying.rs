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

use crate::record::RunRecord;
use crate::runs::now_ms;
use crate::setup::Prepared;
use crate::workers::Event;
use crate::{Coordinator, STORE_PAUSE};

/// Longest that one verification may take.
const VERIFY_DEADLINE: Duration = Duration::from_secs(600);

/// Why a proof does not pass.
enum Verdict {
    /// It is at fault.
    Rejected(String),
    /// The check itself could not be made.
    Unable(String),
}

impl Coordinator {
    /// Verifies the proof of a shard that is stored here and acts on the result.
    pub(crate) async fn verify(self: Arc<Self>, run: RunId, shard: ShardIndex) {
        let (Ok(prepared), Ok(record)) = (self.serving(), self.find_run(run).await) else { return };
        let Some((receipt, artifact)) =
            record.shards.get(shard.as_usize()).and_then(|s| s.receipt.clone().zip(s.artifact))
        else {
            return;
        };
        self.hold.reach(Stage::Verify).await;
        let Ok(_turn) = self.verifying.acquire().await else { return };
        while let Err(error) = self.bring(&prepared, &receipt, artifact).await {
            // Nobody is rejected because the object store is away.
            tracing::warn!(%run, %shard, %error, "cannot bring what the check of a proof needs, trying again");
            tokio::select! {
                () = tokio::time::sleep(STORE_PAUSE) => {}
                () = self.shutdown.cancelled() => return,
            }
        }
        let started = Instant::now();
        let worker = receipt.worker;
        let coordinator = self.clone();
        let verdict =
            tokio::task::spawn_blocking(move || coordinator.check_proof(&prepared, &record, &receipt, artifact)).await;
        let verify_us = started.elapsed().as_micros() as u64;
        match verdict {
            Ok(Ok(())) => {
                tracing::info!(%run, %shard, verify_us, "proof verified");
                self.uploads.used(artifact.digest);
                self.runs.change(run, |record| record.proof_passed(shard, verify_us, now_ms())).await;
                self.note(worker, Event::Proved).await;
            }
            Ok(Err(Verdict::Rejected(reason))) => self.reject(run, shard, worker, Event::Failed, reason).await,
            Ok(Err(Verdict::Unable(reason))) => {
                tracing::error!(%run, %shard, reason, "cannot verify");
                let reason = format!("the coordinator could not verify the proof of shard {shard}: {reason}");
                self.runs.change(run, |record| record.fail(Some(shard), None, reason)).await;
            }
            Err(panic) => {
                let reason = format!("verifying the proof of shard {shard} ended early: {panic}");
                self.runs.change(run, |record| record.fail(Some(shard), None, reason)).await;
            }
        }
    }

    /// Brings what the check of a proof reads to the local directory; what is missing there is found missing by the check.
    async fn bring(&self, prepared: &Prepared, receipt: &Receipt, proof: Artifact) -> Result<(), ArtifactError> {
        let statement = &receipt.statement;
        let key = prepared.shards.get(statement.shard.as_usize()).and_then(|shard| shard.verifying_key);
        let public = [&statement.input, &statement.output].map(|boundary| match boundary.binding {
            Binding::Public(digest) => Some(digest),
            Binding::Committed(_) => None,
        });
        let needed = [Some(proof.digest), key.map(|key| key.digest)].into_iter().chain(public);
        for digest in needed.flatten() {
            match self.artifacts.find(digest).await {
                Err(error @ ArtifactError::Remote { .. }) => return Err(error),
                Err(error) => tracing::warn!(artifact = digest.short(), %error, "an artifact cannot be used"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Blocking: the same check of one proof that the offline verifier makes.
    fn check_proof(
        &self,
        prepared: &Prepared,
        record: &RunRecord,
        receipt: &Receipt,
        artifact: Artifact,
    ) -> Result<(), Verdict> {
        let unable = |error: &dyn std::fmt::Display| Verdict::Unable(error.to_string());
        let proof =
            self.artifacts.local().read(artifact.digest, self.settings.max_proof_bytes).map_err(
                |error| match error {
                    ArtifactError::TooLarge { size, limit, .. } => Verdict::Rejected(format!(
                        "its proof has {size} bytes, more than the {limit} that --max-proof allows"
                    )),
                    error => Verdict::Rejected(error.to_string()),
                },
            )?;
        let shard = receipt.statement.shard;
        let key = prepared.shards.get(shard.as_usize()).and_then(|shard| shard.verifying_key);
        let key = key
            .map(|key| self.artifacts.local().read(key.digest, u64::MAX))
            .transpose()
            .map_err(|e| unable(&e))?
            .unwrap_or_default();
        let directory = tempfile::tempdir_in(&self.scratch).map_err(|error| unable(&error))?;
        let limits = Limits { deadline: Some(VERIFY_DEADLINE), ..Limits::default() };
        let job = Job { directory: directory.path(), limits, cancel: &self.shutdown, progress: &|_| {} };
        let input = self.public_encoding(&receipt.statement.input)?;
        let output = self.public_encoding(&receipt.statement.output)?;
        let check = ShardCheck {
            card: &prepared.card,
            run: record.id,
            shard,
            receipt,
            verifying_key: &key,
            proof: &proof,
            input: input.as_deref(),
            output: output.as_deref(),
            // The owner chose the SRS; whoever verifies the bundle decides whether it will do.
            allow_test_srs: true,
        };
        let verifiers: Vec<&dyn ProofVerifier> = self.verifiers.iter().map(AsRef::as_ref).collect();
        match chain::verify_shard(&check, &verifiers, &job) {
            // Its worker may forget it now.
            Ok(()) => self.artifacts.local().sync(artifact.digest).map_err(|error| unable(&error)),
            Err(ShardError::Unavailable(error)) => Err(unable(&error)),
            Err(ShardError::Refused(refusal)) => Err(Verdict::Rejected(refusal.to_string())),
        }
    }

    /// The encoding of a public boundary, which workers upload before they report its receipt or proof.
    fn public_encoding(&self, boundary: &Boundary) -> Result<Option<Vec<u8>>, Verdict> {
        match boundary.binding {
            Binding::Public(digest) => match self.artifacts.local().read(digest, self.settings.max_tensor_bytes) {
                Ok(encoding) => Ok(Some(encoding)),
                Err(error) => Err(Verdict::Rejected(format!("a public boundary was not handed over: {error}"))),
            },
            Binding::Committed(_) => Ok(None),
        }
    }
}
