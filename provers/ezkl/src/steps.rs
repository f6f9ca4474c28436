//! ezkl's workflow one step at a time, from file to file, in ezkl's own formats.

use std::path::Path;

use shardproof_common::backend::{BackendError, Job};
use shardproof_common::plan::{BoundaryMode, EzklOptions};

use crate::circuit::{SampleFiles, Wishes, Workbench};
use crate::config::EzklConfig;
use crate::fidelity::Fidelity;
use crate::frame::Frame;
use crate::runner::{CallError, Op};
use crate::settings::Settings;
use crate::witness::Witness;
use crate::{srs, tools};

/// The steps, each a process of its own.
#[derive(Clone, Debug)]
pub struct Steps {
    config: EzklConfig,
}

/// What fixes a circuit besides the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitOptions {
    /// How the inputs enter.
    pub input: BoundaryMode,
    /// How the outputs leave.
    pub output: BoundaryMode,
    /// The rest.
    pub options: EzklOptions,
}

/// What a witness shows without being read in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WitnessSummary {
    /// Smallest input of any lookup table.
    pub min_lookup_input: i64,
    /// Largest input of any lookup table.
    pub max_lookup_input: i64,
}

impl CircuitOptions {
    fn wishes(&self) -> Wishes<'_> {
        let Self { input, output, options } = self;
        Wishes { options, input_mode: *input, output_mode: *output, input_scale: options.input_scale }
    }
}

impl Steps {
    /// Steps of the ezkl that `config` describes.
    pub const fn new(config: EzklConfig) -> Self {
        Self { config }
    }

    /// Writes uncalibrated settings of `model`.
    ///
    /// # Errors
    /// When ezkl refuses the model.
    pub fn settings(
        &self,
        model: &Path,
        circuit: &CircuitOptions,
        settings: &Path,
        job: &Job<'_>,
    ) -> Result<(), BackendError> {
        self.on_bench(model, settings, job, |bench| bench.draft(&circuit.wishes()))
    }

    /// Calibrates `settings` by the samples in `data`, ezkl's JSON: of a single sample when the weights have another scale
    /// than the input. Returns the quantisation error where ezkl reports it.
    ///
    /// # Errors
    /// When no scales fit the samples.
    pub fn calibrate(
        &self,
        model: &Path,
        data: &Path,
        circuit: &CircuitOptions,
        settings: &Path,
        job: &Job<'_>,
    ) -> Result<Option<Fidelity>, BackendError> {
        let each = [data.to_owned()];
        let samples = SampleFiles { together: data, each: &each };
        self.on_bench(model, settings, job, |bench| bench.calibrate(&circuit.wishes(), samples, job.directory))
    }

    /// Compiles `model` under `settings`.
    ///
    /// # Errors
    /// When ezkl fails.
    pub fn compile(&self, model: &Path, settings: &Path, circuit: &Path, job: &Job<'_>) -> Result<(), BackendError> {
        self.on_bench(model, settings, job, |bench| bench.compile(circuit))
    }

    /// Copies the SRS for `settings` to `output`: the operator's, or the insecure test SRS. Returns its log2 of rows.
    ///
    /// # Errors
    /// When the operator's file is too small, or the test SRS cannot be made.
    pub fn srs(&self, settings: &Path, output: &Path, job: &Job<'_>) -> Result<u32, BackendError> {
        let text = std::fs::read_to_string(settings).map_err(BackendError::io(settings))?;
        let read =
            Settings::parse(&text).map_err(|error| BackendError::Input(format!("{}: {error}", settings.display())))?;
        let frame = Frame::new(job, self.config.stall);
        let mut runner = tools::start(&self.config, &frame)?;
        let prepared = srs::prepare(&self.config, read.run_args.logrows, runner.as_mut(), &frame)?;
        std::fs::copy(&prepared.path, output).map_err(BackendError::io(output))?;
        Ok(prepared.srs.logrows)
    }

    /// Makes the keys of `circuit`.
    ///
    /// # Errors
    /// When ezkl fails, for example because the circuit needs more rows.
    pub fn setup(&self, circuit: &Path, srs: &Path, vk: &Path, pk: &Path, job: &Job<'_>) -> Result<(), BackendError> {
        self.call(&Op::Setup { circuit, vk, pk, srs }, job)
    }

    /// Makes the witness of `data`, ezkl's JSON; `commit` names verifying key and SRS, which polynomial commitments take.
    ///
    /// # Errors
    /// [`BackendError::Input`] when a value leaves the range that can be proven.
    pub fn witness(
        &self,
        data: &Path,
        circuit: &Path,
        witness: &Path,
        commit: Option<(&Path, &Path)>,
        job: &Job<'_>,
    ) -> Result<WitnessSummary, BackendError> {
        let (vk, srs) = commit.unzip();
        self.call(&Op::Witness { data, circuit, output: witness, vk, srs }, job)?;
        let made = Witness::read(witness)?;
        Ok(WitnessSummary { min_lookup_input: made.min_lookup_inputs, max_lookup_input: made.max_lookup_inputs })
    }

    /// Checks every constraint of `circuit` on `witness` without proving.
    ///
    /// # Errors
    /// Names the constraints that do not hold.
    pub fn mock(&self, witness: &Path, circuit: &Path, job: &Job<'_>) -> Result<(), BackendError> {
        self.call(&Op::Mock { witness, circuit }, job)
    }

    /// Proves `witness` and writes ezkl's `proof.json`.
    ///
    /// # Errors
    /// When ezkl fails.
    pub fn prove(
        &self,
        witness: &Path,
        circuit: &Path,
        pk: &Path,
        srs: &Path,
        proof: &Path,
        job: &Job<'_>,
    ) -> Result<(), BackendError> {
        self.call(&Op::Prove { witness, circuit, pk, proof, srs }, job)
    }

    /// Verifies ezkl's `proof.json` under `vk`; `false` when it does not verify.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn verify(
        &self,
        proof: &Path,
        settings: &Path,
        vk: &Path,
        srs: &Path,
        job: &Job<'_>,
    ) -> Result<bool, BackendError> {
        let frame = Frame::new(job, self.config.stall);
        let call = Op::Verify { proof, settings, vk, srs, reduced_srs: false };
        match tools::start(&self.config, &frame)?.call(&call, &frame) {
            Ok(_) => Ok(true),
            Err(CallError::Refused { message, .. }) if crate::verifier::is_verdict(&message) => Ok(false),
            Err(error) => Err(error.at(call.step())),
        }
    }

    fn call(&self, op: &Op<'_>, job: &Job<'_>) -> Result<(), BackendError> {
        let frame = Frame::new(job, self.config.stall);
        let mut runner = tools::start(&self.config, &frame)?;
        frame.at(op.step());
        runner.call(op, &frame).map(drop).map_err(|error| error.at(op.step()))
    }

    fn on_bench<T>(
        &self,
        model: &Path,
        settings: &Path,
        job: &Job<'_>,
        step: impl FnOnce(&mut Workbench<'_>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let frame = Frame::new(job, self.config.stall);
        let mut runner = tools::start(&self.config, &frame)?;
        step(&mut Workbench { runner: runner.as_mut(), frame: &frame, model, settings: settings.to_owned() })
    }
}
