//! Inputs of a run: from files, from samples that ship with a model, or drawn at random.

use std::fs;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shardproof_common::plan::BoundaryTensor;
use shardproof_common::tensor::FloatTensor;

use crate::error::InputError;
use crate::model::{ModelSource, OnnxModel};
use crate::npy;

/// Largest input file that is read, bytes.
pub const MAX_INPUT_BYTES: u64 = 4 << 30;

/// Where samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleOrigin {
    /// Real data that ships with the model.
    Zoo,
    /// A file that the user named.
    File,
    /// Standard normal values, drawn from a seed: fit for trying a model out, not for judging it.
    Random,
}

/// Inputs for calibration and for trying a model out.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Where they come from.
    pub origin: SampleOrigin,
    /// Per sample, the model's inputs in order.
    pub inputs: Vec<Vec<FloatTensor>>,
}

/// Up to `count` samples of a model: its own where it has some, else as many as asked for, drawn from `seed`.
///
/// # Errors
/// When the samples that ship with the model do not fit it.
pub fn samples(source: &ModelSource, model: &OnnxModel, count: usize, seed: u64) -> Result<Samples, InputError> {
    match source {
        ModelSource::Zoo(zoo) if !zoo.samples.is_empty() => {
            let inputs = unstack(npy::read(zoo.samples)?, model.inputs(), count)?;
            Ok(Samples { origin: SampleOrigin::Zoo, inputs })
        }
        ModelSource::Zoo(_) | ModelSource::File(_) => {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let one = |spec: &BoundaryTensor, rng: &mut ChaCha20Rng| FloatTensor {
                shape: spec.shape.clone(),
                values: (0..spec.shape.iter().product()).map(|_| standard_normal(rng)).collect(),
            };
            let inputs = (0..count).map(|_| model.inputs().iter().map(|spec| one(spec, &mut rng)).collect()).collect();
            Ok(Samples { origin: SampleOrigin::Random, inputs })
        }
    }
}

/// Up to `count` samples from a `.npy` file of shape `[samples, *input shape]`, for a model with one input, or from JSON
/// `{"input_data": [[...], ...]}` with the values of all samples, one after the other, in the list of each input, as ezkl calibrates.
///
/// # Errors
/// When the file cannot be read or does not fit the model.
pub fn read_samples(path: &Path, specs: &[BoundaryTensor], count: usize) -> Result<Samples, InputError> {
    let bytes = read_file(path)?;
    let read = if bytes.starts_with(npy::MAGIC) {
        npy::read(&bytes).and_then(|stack| unstack(stack, specs, count))
    } else if is_json(&bytes) {
        read_lists(&bytes, specs).and_then(|lists| chunk(&lists, specs, count))
    } else {
        return Err(InputError::UnknownFormat { path: path.to_owned() });
    };
    let inputs = read.map_err(|source| InputError::Samples { path: path.to_owned(), source: Box::new(source) })?;
    Ok(Samples { origin: SampleOrigin::File, inputs })
}

/// Takes the values of all samples apart: the first `count` samples.
fn chunk(lists: &[Vec<f32>], specs: &[BoundaryTensor], count: usize) -> Result<Vec<Vec<FloatTensor>>, InputError> {
    let mut samples: Option<Vec<Vec<FloatTensor>>> = None;
    for (list, spec) in lists.iter().zip(specs) {
        let elements = spec.shape.iter().product::<u64>() as usize;
        let found = list.len().checked_div(elements).filter(|_| list.len() % elements == 0);
        let before = samples.as_ref().map(Vec::len);
        let Some(found) = found.map(|found| found.min(count)).filter(|&found| before.is_none_or(|n| n == found)) else {
            let (input, shape) = (spec.name.clone(), spec.shape.clone());
            return Err(InputError::SampleValues { input, shape, found: list.len() });
        };
        let samples = samples.get_or_insert_with(|| vec![Vec::new(); found]);
        for (sample, values) in samples.iter_mut().zip(list.chunks_exact(elements)) {
            sample.push(FloatTensor { shape: spec.shape.clone(), values: values.to_vec() });
        }
    }
    samples.unwrap_or_default().into_iter().map(|sample| fit(sample, specs)).collect()
}

/// Reads one input from a `.npy` file or from JSON `{"input_data": [[...], ...]}` and checks it against the model.
///
/// # Errors
/// Names the input, and what was expected and found.
pub fn read_input(path: &Path, specs: &[BoundaryTensor]) -> Result<Vec<FloatTensor>, InputError> {
    let bytes = read_file(path)?;
    if bytes.starts_with(npy::MAGIC) {
        return fit(vec![npy::read(&bytes)?], specs);
    }
    if is_json(&bytes) {
        return parse_json(&bytes, specs);
    }
    Err(InputError::UnknownFormat { path: path.to_owned() })
}

fn is_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

/// Reads the JSON form: one list of flat, row-major values per input of the model. Other keys are ignored.
///
/// # Errors
/// Names the input, and what was expected and found.
pub fn parse_json(bytes: &[u8], specs: &[BoundaryTensor]) -> Result<Vec<FloatTensor>, InputError> {
    let mut tensors = Vec::with_capacity(specs.len());
    for (values, spec) in read_lists(bytes, specs)?.into_iter().zip(specs) {
        let expected = spec.shape.iter().product();
        if values.len() as u64 != expected {
            let (input, shape, found) = (spec.name.clone(), spec.shape.clone(), values.len());
            return Err(InputError::Values { input, shape, expected, found });
        }
        tensors.push(FloatTensor { shape: spec.shape.clone(), values });
    }
    fit(tensors, specs)
}

/// The JSON form's list of values for each input, of whatever length.
fn read_lists(bytes: &[u8], specs: &[BoundaryTensor]) -> Result<Vec<Vec<f32>>, InputError> {
    #[derive(Deserialize)]
    struct InputFile {
        input_data: Vec<Vec<Value>>,
    }
    let refused = |reason: String| InputError::Json { reason };
    let file: InputFile = serde_json::from_slice(bytes).map_err(|cause| refused(cause.to_string()))?;
    check_count(file.input_data.len(), specs)?;
    let numbers = |(list, spec): (&Vec<Value>, &BoundaryTensor)| {
        let number = |(index, value): (usize, &Value)| {
            let found = value.as_f64().map(|number| number as f32);
            found.ok_or_else(|| refused(format!("input `{}`: element {index} is {value}, not a number", spec.name)))
        };
        list.iter().enumerate().map(number).collect()
    };
    file.input_data.iter().zip(specs).map(numbers).collect()
}

/// Checks tensors against the model's inputs. A leading batch axis of 1 may be missing or too many.
///
/// # Errors
/// Names the input, and what was expected and found.
pub fn fit(tensors: Vec<FloatTensor>, specs: &[BoundaryTensor]) -> Result<Vec<FloatTensor>, InputError> {
    check_count(tensors.len(), specs)?;
    let mut fitted = Vec::with_capacity(tensors.len());
    for (tensor, spec) in tensors.into_iter().zip(specs) {
        let same = tensor.shape == spec.shape
            || tensor.shape.strip_prefix(&[1]) == Some(&spec.shape)
            || spec.shape.strip_prefix(&[1]) == Some(&tensor.shape);
        if !same || tensor.values.len() as u64 != spec.shape.iter().product::<u64>() {
            return Err(InputError::Shape {
                input: spec.name.clone(),
                expected: spec.shape.clone(),
                found: tensor.shape,
            });
        }
        if let Some((index, &value)) = tensor.values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(InputError::NonFinite { input: spec.name.clone(), index, value });
        }
        fitted.push(FloatTensor { shape: spec.shape.clone(), values: tensor.values });
    }
    Ok(fitted)
}

fn check_count(found: usize, specs: &[BoundaryTensor]) -> Result<(), InputError> {
    if found == specs.len() {
        return Ok(());
    }
    let names = specs.iter().map(|spec| spec.name.clone()).collect();
    Err(InputError::Count { expected: specs.len(), names, found })
}

/// Takes a stack `[samples, *input shape]` apart, for a model with one input: its first `count` samples.
///
/// # Errors
/// When the stack does not fit the model.
pub fn unstack(
    stack: FloatTensor,
    specs: &[BoundaryTensor],
    count: usize,
) -> Result<Vec<Vec<FloatTensor>>, InputError> {
    check_count(1, specs)?;
    let spec = &specs[0];
    let elements = spec.shape.iter().product::<u64>() as usize;
    if stack.shape.get(1..) != Some(&spec.shape) || elements == 0 {
        let (input, expected) = (spec.name.clone(), spec.shape.clone());
        return Err(InputError::Stack { input, expected, found: stack.shape });
    }
    let chunks = stack.values.chunks_exact(elements).take(count);
    chunks.map(|values| fit(vec![FloatTensor { shape: spec.shape.clone(), values: values.to_vec() }], specs)).collect()
}

fn read_file(path: &Path) -> Result<Vec<u8>, InputError> {
    let failed = |source| InputError::Io { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_INPUT_BYTES {
        return Err(InputError::TooLarge { path: path.to_owned(), bytes, limit: MAX_INPUT_BYTES });
    }
    fs::read(path).map_err(failed)
}

/// Box and Muller's transform of two uniform values.
fn standard_normal(rng: &mut ChaCha20Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.r#gen::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * rng.r#gen::<f64>()).cos()) as f32
}
