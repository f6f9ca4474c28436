//! A model that has been read: what a plan is made from.

use std::fs;
use std::path::{Path, PathBuf};

use shardproof_common::ids::Digest;
use shardproof_common::plan::BoundaryTensor;

use crate::cost::{self, Operations};
use crate::cuts::{self, Cuts};
use crate::error::ModelError;
use crate::graph::Graph;
use crate::layers::layers_of;
use crate::proto;
use crate::zoo::{self, ZooModel};

/// Largest ONNX file that is read; no protobuf message can be larger.
pub const MAX_FILE_BYTES: u64 = 1 << 31;

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// One of the zoo.
    Zoo(&'static ZooModel),
    /// An ONNX file.
    File(PathBuf),
}

impl ModelSource {
    /// A zoo model of this name, else the file at this path.
    ///
    /// # Errors
    /// When there is neither.
    pub fn resolve(name_or_path: &str) -> Result<Self, ModelError> {
        if let Some(model) = zoo::find(name_or_path) {
            return Ok(Self::Zoo(model));
        }
        let path = PathBuf::from(name_or_path);
        if path.is_file() {
            return Ok(Self::File(path));
        }
        Err(ModelError::UnknownModel {
            name: name_or_path.to_owned(),
            zoo: zoo::names().chain(zoo::benchmark_names()).collect(),
        })
    }

    /// The model's name, for people: the zoo's, or the file's without its extension.
    pub fn name(&self) -> String {
        match self {
            Self::Zoo(model) => model.name.to_owned(),
            Self::File(path) => {
                path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
            }
        }
    }

    /// The bytes of the ONNX file.
    ///
    /// # Errors
    /// When the file cannot be read or is larger than [`MAX_FILE_BYTES`].
    pub fn read(&self) -> Result<Vec<u8>, ModelError> {
        match self {
            Self::Zoo(model) => Ok(model.onnx.to_vec()),
            Self::File(path) => read_capped(path),
        }
    }
}

fn read_capped(path: &Path) -> Result<Vec<u8>, ModelError> {
    let failed = |source| ModelError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ModelError::TooLarge { path: path.to_owned(), bytes, limit: MAX_FILE_BYTES });
    }
    fs::read(path).map_err(failed)
}

/// What the caller decides about reading a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Sizes of symbolic dimensions by name (`--dim NAME=N`). An input's first axis is 1 without one, others need it.
    pub dims: Vec<(String, u64)>,
}

/// Reads `NAME=N`, the size of a symbolic dimension; the name may have signs of equality in it.
///
/// # Errors
/// Says what was expected.
pub fn parse_dim(text: &str) -> Result<(String, u64), String> {
    let (name, size) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=N")?;
    let size = size.parse().ok().filter(|&size| size > 0).ok_or_else(|| format!("`{size}` is no size"))?;
    Ok((name.to_owned(), size))
}

/// A model, checked and normalised, with its layers and legal cuts.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    name: String,
    digest: Digest,
    architecture: Digest,
    inputs: Vec<BoundaryTensor>,
    outputs: Vec<BoundaryTensor>,
    pub(crate) graph: Graph,
    /// Layer of each node.
    pub(crate) layers: Vec<usize>,
    pub(crate) cuts: Cuts,
    /// What the integer graph does without of each node.
    pub(crate) spared: Vec<Operations>,
}

impl OnnxModel {
    /// Reads a model.
    ///
    /// # Errors
    /// Names what is wrong with the file and where.
    pub fn load(source: &ModelSource, options: &LoadOptions) -> Result<Self, ModelError> {
        match source {
            ModelSource::Zoo(model) => Self::parse(model.name, model.onnx, options),
            ModelSource::File(_) => Self::parse(&source.name(), &source.read()?, options),
        }
    }

    /// Reads a model from the bytes of an ONNX file; `name` is for people.
    ///
    /// # Errors
    /// Names what is wrong with the file and where.
    pub fn parse(name: &str, bytes: &[u8], options: &LoadOptions) -> Result<Self, ModelError> {
        let graph = crate::import::import(bytes, &options.dims)?;
        let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
        let layers = layers_of(&names);
        let cuts = cuts::find(&graph, &layers);
        let boundary = |names: &[String]| {
            let tensor = |name: &String| BoundaryTensor { name: name.clone(), shape: graph.fact(name).shape.clone() };
            names.iter().map(tensor).collect()
        };
        Ok(Self {
            name: name.to_owned(),
            digest: Digest::of(bytes),
            architecture: graph.architecture(),
            inputs: boundary(&graph.inputs),
            outputs: boundary(&graph.outputs),
            layers,
            cuts,
            spared: cost::spared(&graph),
            graph,
        })
    }

    /// The model's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Digest of the file's bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Digest of the graph without its weights.
    pub fn architecture(&self) -> Digest {
        self.architecture
    }

    /// Names and shapes of the inputs, in the file's order.
    pub fn inputs(&self) -> &[BoundaryTensor] {
        &self.inputs
    }

    /// Names and shapes of the outputs, in the file's order.
    pub fn outputs(&self) -> &[BoundaryTensor] {
        &self.outputs
    }

    /// Number of trained values.
    pub fn parameters(&self) -> u64 {
        self.graph.parameters_of(&self.graph.nodes)
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.last().map_or(0, |last| last + 1)
    }

    /// Number of nodes after normalisation.
    pub fn nodes(&self) -> usize {
        self.graph.nodes.len()
    }

    /// Most shards that the model can be cut into.
    pub fn max_shards(&self) -> usize {
        self.cuts.legal.len() + 1
    }

    /// The whole model, normalised, as the bytes of an ONNX file.
    pub fn to_onnx(&self) -> Vec<u8> {
        proto::encode_model(&self.graph.to_model())
    }
}
