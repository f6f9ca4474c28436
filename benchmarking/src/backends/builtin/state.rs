//! What the steps of a built-in system hand on to each other, and why one fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shardproof_common::backend::{BackendError, ShardFiles};
use shardproof_common::card::ShardCard;
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, RunId, ShardIndex};
use shardproof_common::plan::{BackendOptions, BoundaryMode};
use shardproof_common::statement::{Boundary, Statement};
use shardproof_common::tensor::{IntegerTensor, Tensor, TensorError, TensorSpec};
use shardproof_models::{InputError, ModelError};
use thiserror::Error;

use crate::backends::contract::Claim;

/// Why a step gave nothing.
#[derive(Debug, Error)]
pub(super) enum StepError {
    #[error("{0} is not set: this is a step of `backend_benchmark`")]
    Variable(&'static str),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Claim(String),
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What setup leaves for the other steps: the owner's registered side, and the prover's files.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) model: Digest,
    pub(super) architecture: Digest,
    pub(super) plan: Digest,
    pub(super) options: BackendOptions,
    pub(super) card: ShardCard,
    pub(super) files: BTreeMap<String, PathBuf>,
    pub(super) verifying_key: PathBuf,
}

impl State {
    /// Its file in the directory that steps share.
    pub(super) const FILE: &'static str = "state.json";

    /// What [`State::write`] left in `work`.
    pub(super) fn read(work: &Path) -> Result<Self, StepError> {
        let path = work.join(Self::FILE);
        let text = fs::read(&path).map_err(|error| file_error(&path)(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| file_error(&path)(error.to_string()))
    }

    /// Leaves it in `work`.
    pub(super) fn write(&self, work: &Path) -> Result<(), StepError> {
        let path = work.join(Self::FILE);
        let text = serde_json::to_vec(self).map_err(|error| file_error(&path)(error.to_string()))?;
        fs::write(&path, text).map_err(|error| file_error(&path)(error.to_string()))
    }

    /// The shard as a worker holds it.
    pub(super) fn shard(&self, work: &Path) -> ShardFiles {
        ShardFiles {
            shard: ShardIndex(0),
            card: self.card.clone(),
            options: self.options.clone(),
            input_mode: BoundaryMode::Public,
            output_mode: BoundaryMode::Public,
            model: work.join("shard.onnx"),
            files: self.files.clone(),
        }
    }

    /// The statement of the one run that a directory is for.
    pub(super) fn statement(&self, input: Boundary, output: Boundary) -> Statement {
        Statement {
            protocol: PROTOCOL_VERSION,
            backend: self.card.backend.clone(),
            model: self.model,
            architecture: self.architecture,
            plan: self.plan,
            shard: ShardIndex(0),
            shards: 1,
            run: RunId::from_bytes([0; 16]),
            input,
            output,
            keys: self.card.keys.digest(),
        }
    }
}

/// The tensors of a claim, which must have as many values as the card's.
pub(super) fn claimed(claim: &Claim, card: &ShardCard) -> Result<(Vec<Tensor>, Vec<Tensor>), StepError> {
    let count = |specs: &[TensorSpec]| specs.iter().map(TensorSpec::elements).sum::<u64>();
    let (inputs, outputs) = (count(&card.input), count(&card.output));
    if claim.inputs as u64 != inputs || claim.public.len() as u64 != inputs + outputs {
        let (found, rest) = (claim.inputs, claim.public.len());
        return Err(StepError::Claim(format!(
            "a claim of {rest} values, {found} of them inputs; expected {} values, {inputs} of them inputs",
            inputs + outputs
        )));
    }
    let number = |text: &String| {
        text.parse::<i64>().map_err(|error| StepError::Claim(format!("the claim's value {text:?}: {error}")))
    };
    let values = claim.public.iter().map(number).collect::<Result<Vec<i64>, _>>()?;
    let mut values = values.into_iter();
    let mut tensors = |specs: &[TensorSpec]| -> Vec<Tensor> {
        let tensor = |spec: &TensorSpec| IntegerTensor {
            shape: spec.shape.clone(),
            scale: spec.scale,
            values: values.by_ref().take(spec.elements() as usize).collect(),
        };
        specs.iter().map(tensor).map(Tensor::Integer).collect()
    };
    let input = tensors(&card.input);
    Ok((input, tensors(&card.output)))
}

/// For `map_err` where a path and a reason are at hand.
pub(super) fn file_error(path: &Path) -> impl Fn(String) -> StepError {
    let path = path.to_owned();
    move |reason| StepError::File { path: path.clone(), reason }
}

#[cfg(test)]
mod tests {
    use shardproof_common::card::ShardKeys;
    use shardproof_common::plan::BackendKind;
    use shardproof_common::statement::BackendId;

    use super::*;

    #[test]
    fn a_claim_has_as_many_values_as_the_card_has_elements() {
        let spec = |name: &str, shape: &[u64]| TensorSpec { name: name.to_owned(), shape: shape.to_vec(), scale: 3 };
        let card = ShardCard {
            backend: BackendId { kind: BackendKind::Gkr, version: "1".to_owned() },
            input: vec![spec("a", &[1, 2]), spec("b", &[1])],
            output: vec![spec("c", &[1])],
            keys: ShardKeys::Float,
        };
        let claim = |values: &[&str], inputs| Claim { public: values.iter().map(|&v| v.to_owned()).collect(), inputs };
        let (input, output) = claimed(&claim(&["1", "-2", "3", "4"], 3), &card).unwrap();
        let integers = |tensors: &[Tensor]| -> Vec<Vec<i64>> {
            tensors.iter().filter_map(Tensor::as_integer).map(|tensor| tensor.values.clone()).collect()
        };
        assert_eq!((integers(&input), integers(&output)), (vec![vec![1, -2], vec![3]], vec![vec![4]]));
        for wrong in [claim(&["1", "2", "3"], 3), claim(&["1", "2", "3", "4"], 2), claim(&["1", "2", "3", "x"], 3)] {
            assert!(claimed(&wrong, &card).is_err(), "{wrong:?}");
        }
    }
}
