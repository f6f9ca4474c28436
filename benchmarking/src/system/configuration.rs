//! One configuration of the service: how a model is cut and proven.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use shardproof_common::plan::{
    BackendKind, BackendOptions, BoundaryMode, CalibrationTarget, EzklOptions, GkrOptions, WeightVisibility,
};
use shardproof_models::{BoundaryModes, OnnxModel, SplitRequest, Strategy};

use crate::error::BenchError;

/// The proof systems that all shards can be proven with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProvenBy {
    /// Native: succinct, not zero-knowledge.
    Gkr,
    /// Halo2/KZG: zero-knowledge.
    Ezkl,
}

impl ProvenBy {
    /// The proof system of a plan.
    pub const fn kind(self) -> BackendKind {
        match self {
            Self::Gkr => BackendKind::Gkr,
            Self::Ezkl => BackendKind::Ezkl,
        }
    }
}

impl fmt::Display for ProvenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.kind().as_str())
    }
}

/// How one model is cut and proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The model as the user named it.
    pub model: String,
    /// Number of shards, and so of workers.
    pub shards: usize,
    /// The proof system of every shard.
    pub backend: ProvenBy,
    /// Mode of the boundaries between shards.
    pub boundary: BoundaryMode,
    /// gkr: whether verifiers have the weights.
    pub weights: WeightVisibility,
    /// What calibration optimises.
    pub target: CalibrationTarget,
}

impl Configuration {
    /// The model's name in tables: that of the zoo, or of the file without folders and extension.
    pub fn model_id(&self) -> String {
        let file = self.model.rsplit('/').next().unwrap_or(&self.model);
        file.strip_suffix(".onnx").unwrap_or(file).to_owned()
    }

    /// Name of the model in so many shards.
    pub fn setup_id(&self) -> String {
        format!("{}-{}", self.model_id(), self.shards)
    }

    /// Name of the folder of everything that was measured of the model.
    pub fn model_folder(&self) -> String {
        file_name(&self.model_id())
    }

    /// Name of the folder with what was measured; other configurations have other names.
    pub fn folder(&self) -> String {
        let Self { boundary, weights, .. } = self;
        let target = self.target.as_str();
        let setup = file_name(&self.setup_id());
        match self.backend {
            ProvenBy::Gkr => format!("{setup}-gkr-{boundary}-{}-{target}", weights.as_str()),
            ProvenBy::Ezkl => format!("{setup}-ezkl-{boundary}-{target}"),
        }
    }

    /// How the weights are bound, as tables name it.
    pub const fn weights_in_words(&self) -> &'static str {
        match self.backend {
            ProvenBy::Gkr => self.weights.as_str(),
            ProvenBy::Ezkl => "fixed",
        }
    }

    /// The coordinator's options.
    pub fn arguments(&self) -> Vec<String> {
        let Self { backend, boundary, weights, .. } = self;
        let target = self.target.as_str();
        let mut arguments =
            vec![format!("--backend={backend}"), format!("--boundary={boundary}"), format!("--target={target}")];
        if *backend == ProvenBy::Gkr {
            arguments.push(format!("--weights={}", weights.as_str()));
        }
        arguments
    }

    fn options(&self) -> BackendOptions {
        let &Self { target, weights, .. } = self;
        match self.backend {
            ProvenBy::Gkr => BackendOptions::Gkr(GkrOptions { target, weights, ..GkrOptions::default() }),
            ProvenBy::Ezkl => BackendOptions::Ezkl(EzklOptions { target, ..EzklOptions::default() }),
        }
    }

    /// Memory that each shard is predicted to need for setup or proof, bytes.
    ///
    /// # Errors
    /// When the model cannot be cut or proven in this way.
    pub fn predicted_bytes(&self, model: &OnnxModel) -> Result<Vec<u64>, BenchError> {
        let options = self.options();
        let request = SplitRequest {
            shards: self.shards,
            strategy: Strategy::default(),
            backend: &|_| options.clone(),
            modes: BoundaryModes::with_inner(self.boundary),
        };
        let split = model.split(&request)?;
        Ok(split.shards.iter().map(|shard| shard.prediction.peak_memory_bytes().unwrap_or(0)).collect())
    }
}

/// What can stand in a file's name.
fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

/// Numbers of shards, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardCounts(pub Vec<usize>);

impl FromStr for ShardCounts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |part: &str| {
            let count = part.trim().parse().ok().filter(|&count: &usize| count > 0);
            count.ok_or_else(|| {
                format!("`{part}` is no number of shards: write one such as 4, or several such as 1,2,4")
            })
        };
        text.split(',').map(count).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(model: &str) -> Configuration {
        Configuration {
            model: model.to_owned(),
            shards: 4,
            backend: ProvenBy::Gkr,
            boundary: BoundaryMode::Committed,
            weights: WeightVisibility::Public,
            target: CalibrationTarget::Resources,
        }
    }

    #[test]
    fn folders_are_file_names() {
        assert_eq!(configuration("mlp").folder(), "mlp-4-gkr-committed-public-resources");
        assert_eq!(configuration("/some/where/net 1.onnx").folder(), "net-1-4-gkr-committed-public-resources");
        assert_eq!(configuration("mlp:2,8").folder(), "mlp-2-8-4-gkr-committed-public-resources");
    }

    #[test]
    fn counts_of_shards_are_read_or_refused() {
        assert_eq!("1, 2,12".parse(), Ok(ShardCounts(vec![1, 2, 12])));
        for wrong in ["", "0", "1,,2", "four"] {
            assert!(wrong.parse::<ShardCounts>().is_err(), "{wrong}");
        }
    }
}
