//! The owner's side before any run: cut the model, calibrate, compute keys, publish the card.
//!
//! Keys are computed here and nowhere else, shard after shard, because the scale at which a shard takes its input is the one
//! at which the shard before gives its output. A setup is kept under the digest of everything that it depends on, so a restart
//! or a second plan with the same shard costs nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use shardproof_common::artifacts::Artifact;
use shardproof_common::backend::{Backend, Job, Limits, ProofVerifier, SetupRequest, ShardSetup};
use shardproof_common::card::{CardBody, ModelCard, ShardCard, ShardKeys};
use shardproof_common::hold;
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex};
use shardproof_common::plan::{BackendKind, BoundaryMode, BoundaryTensor, Plan};
use shardproof_common::tensor::{FloatTensor, Tensor, TensorSpec, boundary_digest, encoded_bytes};
use shardproof_ezkl::{EzklBackend, EzklConfig, EzklVerifier, KeepWarm, RunnerKind};
use shardproof_gkr_service::{GkrBackend, GkrVerifier};
use shardproof_models::{FloatBackend, FloatShard, ModelSource, OnnxModel, SampleOrigin};

use shardproof_proto::convert;
use shardproof_proto::v1::coordinator_message::Message;
use shardproof_proto::v1::{Assignment, Limits as LimitsMessage, NamedArtifact};

use crate::args::{CoordinatorArgs, ServiceArgs};
use crate::registry::SessionId;
use crate::{Coordinator, Stage};

/// Samples that calibration uses.
pub const CALIBRATION_SAMPLES: usize = 8;
/// Seed of the samples of a model that has none.
const SAMPLE_SEED: u64 = 0;

/// A model cut into shards, before any key.
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) plan: Plan,
    /// The shards' ONNX files.
    models: Vec<Vec<u8>>,
    /// Memory that each shard is predicted to need, bytes.
    predicted_bytes: Vec<Option<u64>>,
    /// For every calibration sample, the model's inputs.
    samples: Vec<Vec<FloatTensor>>,
}

/// A model ready to be served.
pub(crate) struct Prepared {
    pub(crate) card: ModelCard,
    pub(crate) card_json: String,
    pub(crate) plan: Digest,
    pub(crate) shards: Vec<PreparedShard>,
}

/// One shard ready to be served.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PreparedShard {
    pub(crate) card: ShardCard,
    pub(crate) model: Artifact,
    pub(crate) files: BTreeMap<String, Artifact>,
    pub(crate) verifying_key: Option<Artifact>,
    #[serde(default)]
    pub(crate) setup_us: u64,
    pub(crate) proving_key_bytes: u64,
    pub(crate) peak_rss_bytes: u64,
    /// Whether this process found it done.
    #[serde(skip)]
    pub(crate) cached: bool,
}

impl PreparedShard {
    /// The files that it takes to serve the shard.
    pub(crate) fn artifacts(&self) -> impl Iterator<Item = Artifact> {
        self.files.values().chain(&self.verifying_key).chain([&self.model]).copied()
    }
}

impl Prepared {
    /// The model's inputs with their scales.
    pub(crate) fn input(&self) -> &[TensorSpec] {
        self.shards.first().map_or(&[], |shard| &shard.card.input)
    }

    /// Bytes of the encoding of every answer.
    pub(crate) fn answer_bytes(&self) -> u64 {
        let output = self.shards.last().map_or(&[][..], |shard| &shard.card.output);
        encoded_bytes(output.iter().map(|spec| spec.shape.as_slice()), self.provable())
    }

    /// Whether runs can be proven at all.
    pub(crate) fn provable(&self) -> bool {
        self.shards.iter().all(|shard| shard.card.keys.provable())
    }
}

/// Cuts the model as the arguments say; runs nothing.
pub(crate) fn plan(args: &CoordinatorArgs) -> anyhow::Result<Planned> {
    let source = ModelSource::resolve(&args.model)?;
    let model = OnnxModel::load(&source, &args.plan.load_options()).with_context(|| args.model.clone())?;
    let split = args.plan.split(&model, args.shards)?;
    let samples = match &args.plan.samples {
        Some(path) => {
            shardproof_models::input::read_samples(path, model.inputs(), CALIBRATION_SAMPLES).context("--samples")?
        }
        None => shardproof_models::input::samples(&source, &model, CALIBRATION_SAMPLES, SAMPLE_SEED)?,
    };
    if matches!(samples.origin, SampleOrigin::Random) && !args.plan.backend.prove_nothing() {
        tracing::warn!(
            "the model has no samples: scales are calibrated on seeded random input; give real ones with --samples"
        );
    }
    Ok(Planned {
        name: model.name().to_owned(),
        predicted_bytes: split.shards.iter().map(|shard| shard.prediction.peak_memory_bytes()).collect(),
        models: split.shards.into_iter().map(|shard| shard.onnx).collect(),
        plan: split.plan,
        samples: samples.inputs,
    })
}

/// The backends of this side.
fn backend(kind: BackendKind, args: &ServiceArgs) -> Box<dyn Backend> {
    match kind {
        BackendKind::Float => Box::new(FloatBackend::new()),
        BackendKind::Ezkl => Box::new(EzklBackend::new(ezkl_config(args))),
        BackendKind::Gkr => Box::new(GkrBackend::new()),
    }
}

/// All of them, for disputes.
pub(crate) fn backends(args: &ServiceArgs) -> Vec<Box<dyn Backend>> {
    [BackendKind::Float, BackendKind::Ezkl, BackendKind::Gkr].map(|kind| backend(kind, args)).into()
}

/// The verifiers of this side.
pub(crate) fn verifiers(args: &ServiceArgs) -> Vec<Box<dyn ProofVerifier>> {
    let ezkl = EzklConfig { keep_warm: Some(KeepWarm::SERVICE), ..ezkl_config(args) };
    vec![Box::new(GkrVerifier::default()), Box::new(EzklVerifier::new(ezkl))]
}

fn ezkl_config(args: &ServiceArgs) -> EzklConfig {
    let mut config = EzklConfig::from_env();
    if let Some(program) = &args.ezkl_cli {
        config.runner = RunnerKind::Program(program.clone());
    }
    config.srs = args.srs.clone();
    config
}

impl Coordinator {
    /// Sets the shards up, then serves; when that fails the program ends with the reason.
    pub(crate) async fn prepare(self: Arc<Self>, args: CoordinatorArgs) {
        let coordinator = self.clone();
        let prepared = tokio::task::spawn_blocking(move || coordinator.prepare_shards(&args)).await;
        let prepared = prepared.map_err(anyhow::Error::from).and_then(|result| result);
        match prepared {
            Ok(prepared) => {
                tracing::info!(card = prepared.card.digest().short(), "serving");
                // Nothing can be submitted yet, so all that is under way was left by an earlier process.
                let left: Vec<RunId> = self.runs.under_way().iter().map(|run| run.id).collect();
                self.stage.send_replace(Stage::Serving(Arc::new(prepared)));
                let held = self.cluster.with(|registry| registry.assigned());
                self.give_out(held).await;
                self.resume(&left).await;
            }
            Err(error) => {
                // The program ends only once its workers' sessions have: whoever reads the log need not wait for that.
                tracing::error!("the model could not be set up: {error:#}");
                self.stage.send_replace(Stage::Failed(format!("{error:#}")));
                self.shutdown.cancel();
            }
        }
    }

    /// Sends shards to the workers that they were given to, once there is something to send.
    pub(crate) async fn give_out(&self, given: Vec<(SessionId, ShardIndex)>) {
        let Ok(prepared) = self.serving() else { return };
        for (session, index) in given {
            let Some(shard) = prepared.shards.get(index.as_usize()) else { continue };
            let named = |(name, &artifact): (&String, &Artifact)| NamedArtifact {
                name: name.clone(),
                artifact: Some(convert::artifact_ref(artifact)),
            };
            let limits = LimitsMessage {
                deadline_ms: self.settings.prove_deadline.as_millis() as u64,
                memory_bytes: self.settings.memory_bytes.unwrap_or(0),
                predicted_bytes: self.planned.predicted_bytes[index.as_usize()].unwrap_or(0),
            };
            let assignment = Assignment {
                card: prepared.card_json.clone().into(),
                shard: index.0,
                model: Some(convert::artifact_ref(shard.model)),
                files: shard.files.iter().map(named).collect(),
                limits: Some(limits),
            };
            self.cluster.send(session, Message::Assignment(assignment));
            let Some(member) = self.cluster.member(session) else { continue };
            if let Err(error) = self.store.remember(prepared.plan, member.key, index).await {
                tracing::error!(%error, "cannot remember who holds the shard");
            }
            self.workers.seen(member.key, true).await;
        }
    }

    /// Blocking: settings and keys of all shards, then the card.
    fn prepare_shards(&self, args: &CoordinatorArgs) -> anyhow::Result<Prepared> {
        let plan = &self.planned.plan;
        self.check_memory()?;
        let calibration = self.calibration_inputs()?;
        let mut shards = self.set_up_all(args, &calibration, None)?;
        let commits_to_polynomials = plan.boundaries.iter().any(|boundary| boundary.mode == BoundaryMode::Polycommit);
        let logrows = |shard: &PreparedShard| match &shard.card.keys {
            ShardKeys::Ezkl(keys) => Some(keys.srs.logrows),
            ShardKeys::Float | ShardKeys::Gkr(_) => None,
        };
        let largest = shards.iter().filter_map(logrows).max().unwrap_or(0);
        if commits_to_polynomials && shards.iter().filter_map(logrows).any(|logrows| logrows != largest) {
            // Commitments of neighbours can only be compared under one SRS and one k.
            tracing::info!(logrows = largest, "setting up again with the k that the largest shard needs");
            shards = self.set_up_all(args, &calibration, Some(largest))?;
        }
        let body = CardBody {
            protocol: PROTOCOL_VERSION,
            name: self.planned.name.clone(),
            plan: plan.clone(),
            shards: shards.iter().map(|shard| shard.card.clone()).collect(),
            authority: self.owner.public(),
        };
        let card_json = ModelCard::sign(body, &self.owner).to_json();
        let card = ModelCard::parse(card_json.as_bytes()).context("the card that was just made")?;
        if card.body.shards.iter().any(|shard| shard.keys.insecure_test_srs()) {
            tracing::warn!("INSECURE TEST SRS: whoever made it could forge proofs; give a ceremony's file with --srs");
        }
        Ok(Prepared { plan: plan.digest(), card, card_json, shards })
    }

    /// Refuses what is predicted not to fit before anything is tried.
    fn check_memory(&self) -> anyhow::Result<()> {
        let Some(limit) = self.settings.memory_bytes else { return Ok(()) };
        for (index, predicted) in self.planned.predicted_bytes.iter().enumerate() {
            if let Some(predicted) = predicted.filter(|&predicted| predicted > limit) {
                bail!(
                    "shard {index} is predicted to need {:.1} GiB of memory, and {:.1} GiB are allowed: use more shards, \
                     --backend float, or raise --memory-limit",
                    gibibytes(predicted),
                    gibibytes(limit)
                );
            }
        }
        Ok(())
    }

    /// For every shard, its inputs for every calibration sample, in floats.
    fn calibration_inputs(&self) -> anyhow::Result<Vec<Vec<Vec<FloatTensor>>>> {
        let mut inputs = Vec::with_capacity(self.planned.models.len());
        let mut current = self.planned.samples.clone();
        for (index, onnx) in self.planned.models.iter().enumerate() {
            inputs.push(current.clone());
            let shard = FloatShard::load(onnx).with_context(|| format!("shard {index}"))?;
            let outputs = current.iter().map(|sample| shard.run(sample)).collect::<Result<_, _>>();
            current = outputs.with_context(|| format!("running shard {index} on the calibration samples"))?;
        }
        Ok(inputs)
    }

    fn set_up_all(
        &self,
        args: &CoordinatorArgs,
        calibration: &[Vec<Vec<FloatTensor>>],
        min_logrows: Option<u32>,
    ) -> anyhow::Result<Vec<PreparedShard>> {
        let mut shards: Vec<PreparedShard> = Vec::new();
        for (index, samples) in calibration.iter().enumerate() {
            let input = shards.last().map(|previous| previous.card.output.clone());
            let work = ShardWork { index, samples, input, min_logrows };
            shards.push(self.set_up(args, &work).with_context(|| format!("setting up shard {index}"))?);
        }
        Ok(shards)
    }

    /// One shard, from an earlier setup where one is kept.
    fn set_up(&self, args: &CoordinatorArgs, work: &ShardWork<'_>) -> anyhow::Result<PreparedShard> {
        let plan = &self.planned.plan;
        let index = work.index;
        let (shard, input, output) = (&plan.shards[index], &plan.boundaries[index], &plan.boundaries[index + 1]);
        let backend = backend(shard.backend.kind(), &args.service);
        let samples: Vec<Digest> = work.samples.iter().map(|sample| digest_of_sample(sample)).collect();
        let srs = args.service.srs.as_deref().map(shardproof_common::artifacts::digest_of_file).transpose()?;
        let depends_on = (
            (shard.model, &shard.backend, backend.id(), srs),
            (input, output, &work.input),
            (samples, work.min_logrows),
        );
        let kept = Digest::derive("shardproof 2 setup", &depends_on);
        let runtime = tokio::runtime::Handle::current();
        if let Some(setup) = runtime.block_on(self.store.setup(kept))?
            && let Some(shard) = runtime.block_on(self.usable(&setup))
        {
            tracing::info!(shard = index, "setup found");
            return Ok(shard);
        }
        let total = plan.shards.len();
        let progress = |step: &str| {
            self.stage.send_replace(Stage::Preparing(format!("setting up shard {} of {total}: {step}", index + 1)));
        };
        progress("starting");
        let job_directory = tempfile::tempdir_in(&self.scratch)?;
        let model = job_directory.path().join("shard.onnx");
        std::fs::write(&model, &self.planned.models[index]).with_context(|| model.display().to_string())?;
        let (input_names, output_names) = (names(&input.tensors), names(&output.tensors));
        let request = SetupRequest {
            shard: ShardIndex(index as u32),
            model: &model,
            samples: work.samples,
            input: work.input.as_deref(),
            input_names: &input_names,
            output_names: &output_names,
            input_mode: input.mode,
            output_mode: output.mode,
            options: &shard.backend,
            min_logrows: work.min_logrows,
        };
        let limits = Limits {
            deadline: Some(self.settings.setup_deadline),
            memory_bytes: self.settings.memory_bytes,
            predicted_bytes: self.planned.predicted_bytes[index],
        };
        let job = Job { directory: job_directory.path(), limits, cancel: &self.shutdown, progress: &progress };
        runtime.block_on(self.hold.reach(hold::Stage::Setup));
        let started = Instant::now();
        let setup = backend.setup(&request, &job)?;
        let prepared = runtime.block_on(self.keep(setup, &model, started.elapsed()))?;
        runtime.block_on(self.store.keep_setup(kept, serde_json::to_string(&prepared)?))?;
        tracing::info!(shard = index, us = prepared.setup_us, "shard set up");
        Ok(prepared)
    }

    /// Blocking: a kept setup, if its files are all still there. They are read through: workers would find out one by one what the disk
    /// has not kept, and could not say whose disk it was. What is damaged is brought again where an object store has it.
    async fn usable(&self, setup: &str) -> Option<PreparedShard> {
        let shard: PreparedShard = serde_json::from_str(setup).ok()?;
        let mut complete = true;
        for artifact in shard.artifacts() {
            let whole = self.artifacts.local().is_whole(artifact);
            if matches!(whole, Ok(false)) {
                tracing::warn!(artifact = %artifact.digest.short(), "a file of the setup is missing here, or damaged");
            }
            // All are looked at: one that stays damaged would be taken for what is made again.
            complete &= whole.is_ok() && self.artifacts.find(artifact.digest).await.ok()? == Some(artifact);
        }
        complete.then_some(PreparedShard { cached: true, ..shard })
    }

    /// Moves what a setup made into the artifact store.
    async fn keep(&self, setup: ShardSetup, model: &Path, elapsed: Duration) -> anyhow::Result<PreparedShard> {
        let mut files = BTreeMap::new();
        for (name, path) in &setup.worker_files {
            files.insert(name.clone(), self.artifacts.put_file(path).await?);
        }
        let verifying_key = match &setup.verifying_key {
            Some(path) => Some(self.artifacts.put_file(path).await?),
            None => None,
        };
        Ok(PreparedShard {
            files,
            model: self.artifacts.put_file(model).await?,
            verifying_key,
            setup_us: elapsed.as_micros() as u64,
            proving_key_bytes: setup.proving_key_bytes,
            peak_rss_bytes: setup.peak_rss_bytes,
            card: setup.card,
            cached: false,
        })
    }
}

/// What the setup of one shard depends on besides the plan.
struct ShardWork<'a> {
    index: usize,
    samples: &'a [Vec<FloatTensor>],
    /// The previous shard's outputs.
    input: Option<Vec<TensorSpec>>,
    min_logrows: Option<u32>,
}

fn digest_of_sample(sample: &[FloatTensor]) -> Digest {
    let tensors: Vec<Tensor> = sample.iter().cloned().map(Tensor::Float).collect();
    boundary_digest(&tensors)
}

fn names(tensors: &[BoundaryTensor]) -> Vec<(String, Vec<u64>)> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[tokio::test]
    async fn files_that_the_disk_has_not_kept_are_found_and_brought_again_where_they_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let objects = format!("file://{}", directory.path().display());
        for (flags, kept) in [(&[][..], false), (&["--artifacts", &objects], true)] {
            let bench = Bench::new(1, &[&["--backend", "gkr"], flags].concat()).await;
            let shard = &bench.prepared().shards[0];
            let setup = serde_json::to_string(shard).unwrap();
            assert!(bench.usable(&setup).await.is_some());
            for artifact in shard.artifacts() {
                let path = bench.artifacts.path(artifact.digest);
                let mut damaged = std::fs::read(&path).unwrap();
                damaged[0] ^= 1;
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, damaged).unwrap();
            }
            assert_eq!(bench.usable(&setup).await.is_some(), kept);
            for artifact in shard.artifacts() {
                let local = bench.artifacts.local();
                assert!(local.find(artifact.digest).is_none() || local.is_whole(artifact).unwrap());
            }
        }
    }
}
