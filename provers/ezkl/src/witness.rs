//! Data files for ezkl and the witness that it gives back, with every value read strictly.

use std::fs;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use serde::Deserialize;
use shardproof_common::backend::BackendError;
use shardproof_common::plan::BoundaryMode;
use shardproof_common::statement::Boundary;
use shardproof_common::tensor::{FloatTensor, IntegerTensor, Tensor, TensorSpec};

use crate::field::{Felt, FeltError};
use crate::frame::failed;
use crate::layout::POINT_BYTES;
use crate::settings::Settings;

/// The parts of ezkl's witness that this backend reads.
#[derive(Debug, Deserialize)]
pub(crate) struct Witness {
    inputs: Vec<Vec<String>>,
    outputs: Vec<Vec<String>>,
    processed_inputs: Option<Processed>,
    processed_params: Option<Processed>,
    processed_outputs: Option<Processed>,
    pub(crate) max_lookup_inputs: i64,
    pub(crate) min_lookup_inputs: i64,
}

#[derive(Debug, Deserialize)]
struct Processed {
    poseidon_hash: Option<Vec<String>>,
    polycommit: Option<Vec<Vec<String>>>,
}

/// One side of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Input,
    Output,
}

impl Witness {
    /// Reads the file that ezkl wrote.
    pub(crate) fn read(path: &Path) -> Result<Self, BackendError> {
        let file = fs::File::open(path).map_err(BackendError::io(path))?;
        serde_json::from_reader(BufReader::new(file)).map_err(|error| unreadable(error.to_string()))
    }

    /// Refuses values outside the circuit's tables, on which proving would not end.
    pub(crate) fn check_lookups(&self, settings: &Settings) -> Result<(), BackendError> {
        let (lowest, highest) = settings.run_args.lookup_range;
        if !settings.has_lookups() || (lowest <= self.min_lookup_inputs && self.max_lookup_inputs <= highest) {
            return Ok(());
        }
        Err(BackendError::Input(format!(
            "a value leaves the calibrated range: the lookup tables cover {lowest} to {highest}, this input needs {} to {}; \
             calibrate with samples like it",
            self.min_lookup_inputs, self.max_lookup_inputs
        )))
    }

    /// The outputs as integers of the registered shapes and scales.
    pub(crate) fn outputs(&self, specs: &[TensorSpec]) -> Result<Vec<Tensor>, BackendError> {
        if self.outputs.len() != specs.len() {
            return Err(unreadable(format!("expected {} outputs, found {}", specs.len(), self.outputs.len())));
        }
        self.outputs.iter().zip(specs).map(|(values, spec)| integers(values, spec)).collect()
    }

    /// Whether the witness is of exactly these inputs.
    pub(crate) fn is_of(&self, input: &[Tensor]) -> bool {
        let felts =
            |tensor: &Tensor| Some(tensor.as_integer()?.values.iter().map(|&q| Felt::from(q).to_hex()).collect());
        let given: Option<Vec<Vec<String>>> = input.iter().map(felts).collect();
        given.as_ref() == Some(&self.inputs)
    }

    /// The boundary of `tensors`, with the commitments that the witness has for that side.
    pub(crate) fn boundary(
        &self,
        side: Side,
        mode: BoundaryMode,
        tensors: &[Tensor],
    ) -> Result<Boundary, BackendError> {
        let processed = match side {
            Side::Input => self.processed_inputs.as_ref(),
            Side::Output => self.processed_outputs.as_ref(),
        };
        let commitments = match mode {
            BoundaryMode::Public => return Ok(Boundary::public(tensors)),
            BoundaryMode::Hashed | BoundaryMode::Committed => {
                hashes(processed)?.iter().map(|hash| hash.as_bytes().to_vec()).collect()
            }
            BoundaryMode::Polycommit => points(processed)?,
        };
        if commitments.len() != tensors.len() {
            let (expected, found) = (tensors.len(), commitments.len());
            return Err(unreadable(format!("expected {expected} commitments at the {side:?} boundary, found {found}")));
        }
        Ok(Boundary::committed(tensors, commitments))
    }

    /// The hashes of the weights, in their text form; none where the model has no weights, of which ezkl then says nothing.
    pub(crate) fn parameter_hashes(&self) -> Result<Vec<String>, BackendError> {
        if self.processed_params.is_none() {
            return Ok(Vec::new());
        }
        Ok(hashes(self.processed_params.as_ref())?.iter().map(|hash| hash.to_hex()).collect())
    }
}

/// Writes integers as the data file from which ezkl makes a witness.
pub(crate) fn write_integers(path: &Path, tensors: &[Tensor]) -> Result<(), BackendError> {
    let mut lists = Vec::with_capacity(tensors.len());
    for (index, tensor) in tensors.iter().enumerate() {
        let tensor =
            tensor.as_integer().ok_or_else(|| BackendError::Input(format!("input {index} is not of integers")))?;
        lists.push(tensor.values.iter().map(|&value| Felt::from(value).to_hex()).collect::<Vec<_>>());
    }
    write_data(path, &lists)
}

/// Writes samples as the data file with which ezkl calibrates: per input, the values of all samples one after the other.
pub(crate) fn write_floats(path: &Path, samples: &[Vec<FloatTensor>]) -> Result<(), BackendError> {
    let inputs = samples.first().map_or(0, Vec::len);
    let mut lists = vec![Vec::new(); inputs];
    for (index, sample) in samples.iter().enumerate() {
        if sample.len() != inputs {
            return Err(BackendError::Input(format!(
                "sample {index} has {} tensors, the first has {inputs}",
                sample.len()
            )));
        }
        for (list, tensor) in lists.iter_mut().zip(sample) {
            if let Some(value) = tensor.values.iter().find(|value| !value.is_finite()) {
                return Err(BackendError::Input(format!("sample {index} holds {value}")));
            }
            list.extend_from_slice(&tensor.values);
        }
    }
    write_data(path, &lists)
}

fn write_data<T: serde::Serialize>(path: &Path, lists: &[Vec<T>]) -> Result<(), BackendError> {
    let file = fs::File::create(path).map_err(BackendError::io(path))?;
    let mut writer = BufWriter::new(file);
    let data = serde_json::json!({ "input_data": lists });
    serde_json::to_writer(&mut writer, &data)
        .map_err(|error| BackendError::Io { path: path.to_owned(), source: error.into() })?;
    writer.flush().map_err(BackendError::io(path))
}

fn integers(values: &[String], spec: &TensorSpec) -> Result<Tensor, BackendError> {
    if values.len() as u64 != spec.elements() {
        let (expected, found) = (spec.elements(), values.len());
        return Err(unreadable(format!("output `{}`: expected {expected} elements, found {found}", spec.name)));
    }
    let read = |(index, text): (usize, &String)| match Felt::from_hex(text).and_then(Felt::to_i64) {
        Ok(value) => Ok(value),
        Err(FeltError::NotInteger) => {
            Err(BackendError::Input(format!("output `{}`, element {index}: leaves the integers of 64 bits", spec.name)))
        }
        Err(reason) => Err(unreadable(format!("output `{}`, element {index}: {reason}", spec.name))),
    };
    let values = values.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Tensor::Integer(IntegerTensor { shape: spec.shape.clone(), scale: spec.scale, values }))
}

fn hashes(processed: Option<&Processed>) -> Result<Vec<Felt>, BackendError> {
    let texts = processed.and_then(|values| values.poseidon_hash.as_ref()).ok_or_else(|| unreadable("no hashes"))?;
    texts
        .iter()
        .map(|text| Felt::from_hex(text).map_err(|reason| unreadable(format!("hash `{text}`: {reason}"))))
        .collect()
}

fn points(processed: Option<&Processed>) -> Result<Vec<Vec<u8>>, BackendError> {
    let tensors =
        processed.and_then(|values| values.polycommit.as_ref()).ok_or_else(|| unreadable("no commitments"))?;
    let read = |points: &Vec<String>| match points.as_slice() {
        [point] => match hex::decode(point) {
            Ok(bytes) if bytes.len() == POINT_BYTES => Ok(bytes),
            _ => Err(unreadable(format!("commitment `{point}`"))),
        },
        _ => Err(unreadable(format!("expected one commitment per tensor, found {}", points.len()))),
    };
    tensors.iter().map(read).collect()
}

fn unreadable(what: impl Into<String>) -> BackendError {
    failed("witness", format!("unexpected content of ezkl's witness: {}", what.into()))
}
