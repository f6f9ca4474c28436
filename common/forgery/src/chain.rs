//! Shards set up, run and proven in this process through the same interface as the service uses, by honest workers and by
//! some that are not.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use shardproof_common::backend::{
    Backend, Inference, Job, Limits, ProofVerifier, SetupRequest, ShardFiles, ShardSetup,
};
use shardproof_common::card::{CardBody, ShardKeys};
use shardproof_common::evidence::Executable;
use shardproof_common::ids::{PROTOCOL_VERSION, RunId, ShardIndex};
use shardproof_common::plan::{BackendKind, BoundaryMode, BoundaryTensor};
use shardproof_common::receipt::PublicKey;
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::{FloatTensor, Tensor, TensorSpec};
use shardproof_ezkl::{EzklBackend, EzklConfig, EzklVerifier};
use shardproof_gkr_service::{GRAPH, GkrBackend, GkrVerifier, WEIGHTS};
use shardproof_models::{BoundaryModes, FloatShard, OnnxModel, Shard, SplitRequest, Strategy};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::liar;
use crate::scene::{SHARDS, Scene};

/// A plan with the keys and files of its shards.
pub struct Chain {
    /// What the owner signs.
    pub body: CardBody,
    /// The verifying keys' bytes.
    pub verifying_keys: Vec<Vec<u8>>,
    files: Vec<ShardFiles>,
    backends: Backends,
    directory: TempDir,
}

/// What a worker does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// States and hands on an output one unit off at one place, and proves it as well as it can.
    Output(usize),
    /// Runs on, states and proves an input one unit off from what the shard before it put out.
    Input(usize),
    /// Runs and proves the shard with other weights; gkr only.
    Weights(usize),
}

/// One shard's part of a run.
#[derive(Clone)]
pub struct Link {
    /// What the worker says went in.
    pub input: Vec<Tensor>,
    /// What the worker says came out.
    pub output: Vec<Tensor>,
    /// What it signs.
    pub statement: Statement,
    /// The proof that it has.
    pub proof: Vec<u8>,
}

/// A run with all its proofs.
#[derive(Clone)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its shards' parts, in order.
    pub links: Vec<Link>,
}

struct Backends {
    gkr: GkrBackend,
    ezkl: EzklBackend,
}

impl Backends {
    fn of(&self, kind: BackendKind) -> Result<&dyn Backend> {
        match kind {
            BackendKind::Gkr => Ok(&self.gkr),
            BackendKind::Ezkl => Ok(&self.ezkl),
            BackendKind::Float => bail!("float mode proves nothing that could be forged"),
        }
    }
}

/// The verifiers of all proof systems.
pub fn verifiers() -> Vec<Box<dyn ProofVerifier>> {
    vec![Box::new(GkrVerifier::default()), Box::new(EzklVerifier::new(EzklConfig::from_env()))]
}

/// Calls `work` with a job in `directory` that has no limits.
pub fn with_job<T>(directory: &Path, work: impl FnOnce(&Job<'_>) -> T) -> T {
    let cancel = CancellationToken::new();
    work(&Job { directory, limits: Limits::default(), cancel: &cancel, progress: &|_| {} })
}

impl Chain {
    /// Cuts the model and computes settings and keys of all shards.
    ///
    /// # Errors
    /// When a backend does.
    pub fn set_up(
        scene: Scene,
        other: bool,
        model: &OnnxModel,
        samples: &[Vec<FloatTensor>],
        authority: PublicKey,
    ) -> Result<Self> {
        let request = SplitRequest {
            shards: SHARDS,
            strategy: Strategy::Balanced,
            backend: &|index| scene.options(index.as_usize(), other),
            modes: BoundaryModes { inner: scene.inner(), ..BoundaryModes::default() },
        };
        let split = model.split(&request)?;
        let backends = Backends { gkr: GkrBackend::new(), ezkl: EzklBackend::new(EzklConfig::from_env()) };
        let directory = tempfile::tempdir()?;
        let body = CardBody {
            protocol: PROTOCOL_VERSION,
            name: model.name().to_owned(),
            plan: split.plan,
            shards: Vec::new(),
            authority,
        };
        let mut chain = Self { body, verifying_keys: Vec::new(), files: Vec::new(), backends, directory };
        chain.set_up_shards(&split.shards, samples, None)?;
        let largest = chain.logrows().max();
        if scene.inner() == Some(BoundaryMode::Polycommit) && chain.logrows().any(|logrows| Some(logrows) != largest) {
            chain.set_up_shards(&split.shards, samples, largest)?;
        }
        Ok(chain)
    }

    fn logrows(&self) -> impl Iterator<Item = u32> {
        self.body.shards.iter().filter_map(|shard| match &shard.keys {
            ShardKeys::Ezkl(keys) => Some(keys.srs.logrows),
            ShardKeys::Float | ShardKeys::Gkr(_) => None,
        })
    }

    fn set_up_shards(
        &mut self,
        shards: &[Shard],
        samples: &[Vec<FloatTensor>],
        min_logrows: Option<u32>,
    ) -> Result<()> {
        self.body.shards.clear();
        self.verifying_keys.clear();
        self.files.clear();
        let mut samples = samples.to_vec();
        for shard in shards {
            let index = shard.index.as_usize();
            let setup =
                self.set_up_shard(shard, &samples, min_logrows).with_context(|| format!("setting up shard {index}"))?;
            let float = FloatShard::load(&shard.onnx)?;
            samples = samples.iter().map(|sample| float.run(sample)).collect::<Result<_, _>>()?;
            let key = setup.verifying_key.as_ref().ok_or_else(|| anyhow!("shard {index} has no verifying key"))?;
            self.verifying_keys.push(std::fs::read(key).with_context(|| key.display().to_string())?);
            let plan = &self.body.plan;
            self.files.push(ShardFiles {
                shard: shard.index,
                card: setup.card.clone(),
                options: plan.shards[index].backend.clone(),
                input_mode: plan.boundaries[index].mode,
                output_mode: plan.boundaries[index + 1].mode,
                model: self.directory.path().join(format!("shard{index}")).join("shard.onnx"),
                files: setup.worker_files,
            });
            self.body.shards.push(setup.card);
        }
        Ok(())
    }

    fn set_up_shard(
        &self,
        shard: &Shard,
        samples: &[Vec<FloatTensor>],
        min_logrows: Option<u32>,
    ) -> Result<ShardSetup> {
        let index = shard.index.as_usize();
        let plan = &self.body.plan;
        let directory = self.directory.path().join(format!("shard{index}"));
        std::fs::create_dir_all(&directory)?;
        let path = directory.join("shard.onnx");
        std::fs::write(&path, &shard.onnx)?;
        let input: Option<&[TensorSpec]> = self.body.shards.last().map(|previous| previous.output.as_slice());
        let request = SetupRequest {
            shard: shard.index,
            model: &path,
            samples,
            input,
            input_names: &names(&plan.boundaries[index].tensors),
            output_names: &names(&plan.boundaries[index + 1].tensors),
            input_mode: plan.boundaries[index].mode,
            output_mode: plan.boundaries[index + 1].mode,
            options: &plan.shards[index].backend,
            min_logrows,
        };
        let backend = self.backends.of(plan.shards[index].backend.kind())?;
        Ok(with_job(&directory, |job| backend.setup(&request, job))?)
    }

    /// The integers of a client's floats.
    ///
    /// # Errors
    /// When they are not finite.
    pub fn quantise(&self, input: &[FloatTensor]) -> Result<Vec<Tensor>> {
        let specs = &self.body.shards[0].input;
        input.iter().zip(specs).map(|(tensor, spec)| Ok(Tensor::Integer(tensor.quantise(spec.scale)?))).collect()
    }

    /// Runs all shards on `input` and proves each; one of the workers may lie.
    ///
    /// # Errors
    /// When a backend does.
    pub fn run(&self, id: RunId, input: Vec<Tensor>, lie: Lie) -> Result<Run> {
        let mut run = Run { id, links: Vec::new() };
        let mut current = input;
        for index in 0..SHARDS {
            let directory = tempfile::tempdir_in(self.directory.path())?;
            if lie == Lie::Input(index) {
                nudge(&mut current)?;
            }
            let truth = self.infer(index, &current, directory.path())?;
            let mut output = match lie {
                Lie::Weights(shard) if shard == index => liar::run(&self.files[index], &current)?,
                _ => truth.output.clone(),
            };
            if lie == Lie::Output(index) {
                nudge(&mut output)?;
            }
            let stated = if output == truth.output { truth.output_boundary } else { self.bind(index + 1, &output)? };
            let statement = self.statement(&self.body, index, id, truth.input_boundary, stated);
            let proof = match lie {
                Lie::Output(shard) if shard == index => self.prove_falsely(index, &current, &statement, &directory)?,
                Lie::Weights(shard) if shard == index => {
                    liar::prove(&self.files[index], &current, &statement, liar::Weights::Others)?
                }
                _ => self.prove(index, &current, &statement, directory.path())?,
            };
            run.links.push(Link { input: current, output: output.clone(), statement, proof });
            current = output;
        }
        Ok(run)
    }

    /// The statement of shard `index` under the card of `body`.
    pub fn statement(&self, body: &CardBody, index: usize, run: RunId, input: Boundary, output: Boundary) -> Statement {
        Statement {
            protocol: PROTOCOL_VERSION,
            backend: body.shards[index].backend.clone(),
            model: body.plan.model,
            architecture: body.plan.architecture,
            plan: body.plan.digest(),
            shard: ShardIndex(index as u32),
            shards: body.plan.shards.len() as u32,
            run,
            input,
            output,
            keys: body.shards[index].keys.digest(),
        }
    }

    /// The run with its statements under the card of `body`, whose shards are this chain's in all that they compute, and
    /// with proofs of them. A proof of ezkl does not know its statement, and stays.
    ///
    /// # Errors
    /// When a backend does.
    pub fn restated(&self, run: &Run, body: &CardBody) -> Result<Run> {
        let mut restated = run.clone();
        for (index, link) in restated.links.iter_mut().enumerate() {
            let old = &link.statement;
            link.statement = self.statement(body, index, run.id, old.input.clone(), old.output.clone());
            if self.kind(index) == BackendKind::Gkr {
                link.proof = self.prove(index, &link.input, &link.statement, self.directory.path())?;
            }
        }
        Ok(restated)
    }

    /// The proof system of a shard.
    pub fn kind(&self, index: usize) -> BackendKind {
        self.body.plan.shards[index].backend.kind()
    }

    /// A shard in integers, as evidence brings it.
    ///
    /// # Errors
    /// When the shard is not one of gkr.
    pub fn executable(&self, index: usize) -> Result<Executable> {
        let file = |name: &str| -> Result<Vec<u8>> {
            let path = self.files[index].files.get(name).ok_or_else(|| anyhow!("shard {index} has no file {name}"))?;
            std::fs::read(path).with_context(|| path.display().to_string())
        };
        Ok(Executable { graph: file(GRAPH)?.into(), weights: file(WEIGHTS)?.into() })
    }

    fn infer(&self, index: usize, input: &[Tensor], directory: &Path) -> Result<Inference> {
        let backend = self.backends.of(self.kind(index))?;
        Ok(with_job(directory, |job| backend.infer(&self.files[index], input, job))?)
    }

    fn prove(&self, index: usize, input: &[Tensor], statement: &Statement, directory: &Path) -> Result<Vec<u8>> {
        let backend = self.backends.of(self.kind(index))?;
        Ok(with_job(directory, |job| backend.prove(&self.files[index], input, statement, job))?.bytes)
    }

    /// What shard `index` states of its input when it takes in these tensors.
    ///
    /// # Errors
    /// When the backend does not run on them.
    pub fn claimed(&self, index: usize, input: &[Tensor]) -> Result<Boundary> {
        let directory = tempfile::tempdir_in(self.directory.path())?;
        Ok(self.infer(index, input, directory.path())?.input_boundary)
    }

    /// The best proof that there is of a false statement: a true one of what the shard really put out, bound to the false
    /// statement where the proof system binds statements.
    fn prove_falsely(
        &self,
        index: usize,
        input: &[Tensor],
        statement: &Statement,
        directory: &TempDir,
    ) -> Result<Vec<u8>> {
        if self.kind(index) == BackendKind::Gkr {
            return liar::prove(&self.files[index], input, statement, liar::Weights::Registered);
        }
        let truth = self.infer(index, input, directory.path())?;
        let stated = Statement { output: truth.output_boundary, ..statement.clone() };
        self.prove(index, input, &stated, directory.path())
    }

    /// A boundary of these tensors: what the shard behind it says of its input.
    fn bind(&self, boundary: usize, tensors: &[Tensor]) -> Result<Boundary> {
        if self.body.plan.boundaries[boundary].mode == BoundaryMode::Public {
            return Ok(Boundary::public(tensors));
        }
        self.claimed(boundary, tensors)
    }
}

/// Moves one integer by one unit, towards zero where it is not zero, so that it stays in range.
///
/// # Errors
/// When there is no integer.
pub fn nudge(tensors: &mut [Tensor]) -> Result<()> {
    let Some(Tensor::Integer(tensor)) = tensors.first_mut() else { bail!("no integers to change") };
    let value = tensor.values.first_mut().ok_or_else(|| anyhow!("an empty tensor"))?;
    *value += if *value > 0 { -1 } else { 1 };
    Ok(())
}

fn names(tensors: &[BoundaryTensor]) -> Vec<(String, Vec<u64>)> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}
