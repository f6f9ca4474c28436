//! How a model is cut and proven, as `demo` and `plan` take it and a coordinator is told.

use clap::Args;
use shardproof_common::plan::{
    BackendKind, BackendOptions, BoundaryMode, CalibrationTarget, EzklOptions, ParameterVisibility,
};
use shardproof_models::{LoadOptions, Strategy};

use crate::cli::Usage;

/// How a model is cut and proven.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Plan")]
pub(crate) struct PlanOptions {
    /// Proof system: ezkl (zero-knowledge), or float (runs in floats and proves nothing).
    #[arg(long, default_value = "ezkl")]
    pub(crate) backend: BackendKind,
    /// How boundaries between shards appear in proofs: public, hashed or polycommit.
    #[arg(long, value_name = "MODE", default_value = "hashed")]
    pub(crate) boundary: BoundaryMode,
    /// Where to cut: balanced (smallest worst shard) or layers (equal counts of layers).
    #[arg(long, default_value = "balanced")]
    pub(crate) strategy: Strategy,
    /// Size of a symbolic dimension; may be repeated.
    #[arg(long = "dim", value_name = "NAME=N")]
    pub(crate) dims: Vec<String>,
    /// What calibration optimises: resources or accuracy.
    #[arg(long, default_value = "resources")]
    pub(crate) target: CalibrationTarget,
    /// How the weights enter the circuit: fixed (in the verifying key), hashed, or private (bound by nothing).
    #[arg(long, value_name = "VISIBILITY", default_value = "fixed")]
    pub(crate) parameters: ParameterVisibility,
}

impl PlanOptions {
    /// The same, for a coordinator's command line.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let target = match self.target {
            CalibrationTarget::Resources => "resources",
            CalibrationTarget::Accuracy => "accuracy",
        };
        let parameters = match self.parameters {
            ParameterVisibility::Fixed => "fixed",
            ParameterVisibility::Hashed => "hashed",
            ParameterVisibility::Private => "private",
        };
        let named = [
            ("--backend", self.backend.to_string()),
            ("--boundary", self.boundary.to_string()),
            ("--strategy", self.strategy.to_string()),
            ("--target", target.to_owned()),
            ("--parameters", parameters.to_owned()),
        ];
        let dims = self.dims.iter().map(|dim| ("--dim", dim.clone()));
        named.into_iter().chain(dims).flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// The backend with its options, the same for every shard.
    pub(crate) fn backend_options(&self) -> BackendOptions {
        match self.backend {
            BackendKind::Float => BackendOptions::Float,
            BackendKind::Ezkl => BackendOptions::Ezkl(EzklOptions {
                target: self.target,
                parameters: self.parameters,
                ..EzklOptions::default()
            }),
        }
    }

    /// Mode of the boundaries between shards: without proofs there is nothing to commit to.
    pub(crate) fn inner_mode(&self) -> BoundaryMode {
        match self.backend {
            BackendKind::Float => BoundaryMode::Public,
            BackendKind::Ezkl => self.boundary,
        }
    }

    /// How the model's file is read.
    ///
    /// # Errors
    /// When a `--dim` is malformed.
    pub(crate) fn load_options(&self) -> Result<LoadOptions, Usage> {
        load_options(&self.dims)
    }
}

/// How a model's file is read, given `NAME=N` for its symbolic dimensions.
///
/// # Errors
/// When one is malformed.
pub(crate) fn load_options(dims: &[String]) -> Result<LoadOptions, Usage> {
    LoadOptions::from_dims(dims).map_err(|error| Usage(format!("--dim: {error}")))
}
