//! Everything that can be wrong with a model, a split, an input file or a float run.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a model was refused or could not be split.
#[derive(Debug, Error)]
pub enum ModelError {
    /// Neither a zoo name nor a file.
    #[error("no model `{name}`: it is neither a file nor one of the zoo's models ({})", zoo.join(", "))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The zoo's names.
        zoo: Vec<&'static str>,
    },
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Larger than any ONNX file can be.
    #[error("{}: {bytes} bytes, more than the {limit} that an ONNX file can have", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Bytes found.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Nothing in it.
    #[error("not an ONNX model: the file is empty")]
    Empty,
    /// The bytes are something else.
    #[error("not an ONNX model: {reason}")]
    NotOnnx {
        /// What does not fit.
        reason: String,
    },
    /// The file ends early.
    #[error(
        "the ONNX file is truncated: at byte {offset} a part of {expected} bytes begins, but {found} bytes are left"
    )]
    Truncated {
        /// Where the part begins.
        offset: usize,
        /// Its length.
        expected: u64,
        /// Bytes that are left.
        found: usize,
    },
    /// A protobuf that is damaged inside.
    #[error("the ONNX file is damaged: {reason}")]
    Malformed {
        /// The decoder's words.
        reason: String,
    },
    /// A tensor that nothing could refer to.
    #[error("{what} has no name")]
    UnnamedTensor {
        /// `an input of the model` or `an initializer`.
        what: String,
    },
    /// No graph in it.
    #[error("the ONNX file has no {what}: it is truncated or not a model")]
    Missing {
        /// `graph`, `operator set`, `node`, `input` or `output`.
        what: &'static str,
    },
    /// Another operator set than those supported.
    #[error("the model uses ONNX operator set {found}; supported are {lowest} to {highest}")]
    Opset {
        /// The model's.
        found: i64,
        /// First supported.
        lowest: i64,
        /// Last supported.
        highest: i64,
    },
    /// Weights in another file.
    #[error(
        "initializer `{tensor}` is stored outside the file (external data): save the model with its weights inside"
    )]
    ExternalData {
        /// Which initializer.
        tensor: String,
    },
    /// Weights in a sparse encoding.
    #[error("initializer `{tensor}` is sparse, which is not supported: save it dense")]
    Sparse {
        /// Which initializer.
        tensor: String,
    },
    /// Model-local functions.
    #[error("the model defines function `{name}`; functions are not supported: inline them when exporting")]
    Function {
        /// Which function.
        name: String,
    },
    /// Control flow.
    #[error("node `{node}` ({operator}): its attribute `{attribute}` is a graph; control flow is not supported")]
    Subgraph {
        /// Which node.
        node: String,
        /// Its operator.
        operator: String,
        /// Which attribute.
        attribute: String,
    },
    /// An operator nobody here can run.
    #[error("node `{node}`: operator {operator} is not supported")]
    UnsupportedOperator {
        /// Which node.
        node: String,
        /// Operator, with its domain unless that is ONNX's own.
        operator: String,
    },
    /// An operator whose result differs from run to run.
    #[error("node `{node}` ({operator}): {what}; only deterministic inference can be split and proven")]
    NotInference {
        /// Which node.
        node: String,
        /// Its operator.
        operator: String,
        /// What makes it so.
        what: &'static str,
    },
    /// The operator is known, but not with these inputs or attributes.
    #[error("node `{node}` ({operator}): {reason}")]
    Operator {
        /// Which node.
        node: String,
        /// Its operator.
        operator: String,
        /// What the inference engine said.
        reason: String,
    },
    /// The model as a whole cannot be run.
    #[error("the model cannot be run: {reason}")]
    NotRunnable {
        /// What the inference engine said.
        reason: String,
    },
    /// A shape that only a run could tell.
    #[error("node `{node}` ({operator}): the shape of its output `{tensor}` depends on data or is unknown")]
    UnknownShape {
        /// Which node.
        node: String,
        /// Its operator.
        operator: String,
        /// Which output.
        tensor: String,
    },
    /// A tensor larger than any that is handled.
    #[error("tensor `{tensor}` has shape {shape:?}, more than {limit} elements or more than {rank} dimensions")]
    TensorTooLarge {
        /// Which tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Elements allowed.
        limit: u64,
        /// Dimensions allowed.
        rank: usize,
    },
    /// A dimension without a size.
    #[error("input `{input}`: dimension {axis} is symbolic (`{dim}`): give its size with --dim {dim}=N")]
    SymbolicDim {
        /// Which input.
        input: String,
        /// Which axis, from 0.
        axis: usize,
        /// Name of the dimension.
        dim: String,
    },
    /// A size for a dimension that the model does not have.
    #[error("--dim {dim}: the model has no symbolic dimension of this name; it has {}", list(known))]
    UnknownDim {
        /// Name given.
        dim: String,
        /// Names that exist.
        known: Vec<String>,
    },
    /// A size that is no size.
    #[error("--dim {dim}={size}: a dimension needs a size from 1 to {limit}")]
    DimSize {
        /// Name given.
        dim: String,
        /// Size given.
        size: u64,
        /// Largest size allowed.
        limit: u64,
    },
    /// Two sizes for one name.
    #[error("--dim {dim}: the dimension is given twice")]
    DimTwice {
        /// Name given.
        dim: String,
    },
    /// Something else than f32 enters or leaves.
    #[error("{what} `{tensor}` is of type {found}; only FLOAT (f32) can enter and leave a model")]
    BoundaryType {
        /// `input` or `output`.
        what: &'static str,
        /// Which tensor.
        tensor: String,
        /// Its ONNX type.
        found: String,
    },
    /// An input with nothing known about its shape.
    #[error("input `{input}` has no shape")]
    NoShape {
        /// Which input.
        input: String,
    },
    /// An output that no run can change.
    #[error("output `{output}` is {what}")]
    TrivialOutput {
        /// Which output.
        output: String,
        /// `constant` or `an input passed on unchanged`.
        what: &'static str,
    },
    /// More inputs or outputs than a boundary may have.
    #[error("the model has {found} {what}, more than the {limit} that may cross a boundary")]
    TooManyTensors {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// Found.
        found: usize,
        /// Allowed.
        limit: usize,
    },
    /// A weight that is not a number.
    #[error("initializer `{tensor}`: element {index} is {value}")]
    NonFinite {
        /// Which initializer.
        tensor: String,
        /// Flat index of the element.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: f64,
    },
    /// A constant whose data do not fit its type and shape.
    #[error("initializer `{tensor}`: {reason}")]
    BadConstant {
        /// Which initializer.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// The graph has a cycle.
    #[error("the graph has a cycle through node `{node}` ({operator})")]
    Cycle {
        /// A node on it or behind it.
        node: String,
        /// Its operator.
        operator: String,
    },
    /// A tensor with two sources.
    #[error("tensor `{tensor}` has two sources: {first} and {second}")]
    DuplicateTensor {
        /// Which tensor.
        tensor: String,
        /// One source.
        first: String,
        /// The other.
        second: String,
    },
    /// A tensor without a source.
    #[error("{consumer} needs tensor `{tensor}`, which nothing in the graph gives")]
    UnknownTensor {
        /// Which tensor.
        tensor: String,
        /// Who needs it.
        consumer: String,
    },
    /// More shards than there are places to cut, or none.
    #[error("cannot cut the model into {asked} shards: 1 to {possible} are possible{}", by_layers(*layers))]
    ShardCount {
        /// Shards asked for.
        asked: usize,
        /// Most shards possible.
        possible: usize,
        /// Whether the limit is that of cuts between layers.
        layers: bool,
    },
    /// A plan to be followed has no shards, or another number of boundaries than belongs to them.
    #[error("the plan has {shards} shards and {boundaries} boundaries, which do not belong together")]
    PlanShape {
        /// Shards of the plan.
        shards: usize,
        /// Its boundaries.
        boundaries: usize,
    },
    /// A plan to be followed leaves nodes out, or has them twice.
    #[error("shard {shard} of the plan has to begin with node `{expected}`, but it begins with `{found}`")]
    ShardBegin {
        /// Which shard.
        shard: usize,
        /// The node behind the shard before.
        expected: String,
        /// The plan's.
        found: String,
    },
    /// A plan to be followed ends a shard with a node that is not behind its first one.
    #[error("shard {shard} of the plan cannot end with `{found}`: no node of this name follows its first one")]
    ShardEnd {
        /// Which shard.
        shard: usize,
        /// The plan's.
        found: String,
    },
    /// A plan to be followed ends before the model does.
    #[error("the plan ends with node `{found}`, but the model with `{expected}`")]
    PlanEnd {
        /// The model's last node.
        expected: String,
        /// The plan's.
        found: String,
    },
    /// A plan to be followed cuts where the model cannot be cut.
    #[error("the model cannot be cut behind node `{node}`: {reason}")]
    IllegalCut {
        /// The last node before the cut.
        node: String,
        /// What stands in the way.
        reason: String,
    },
    /// A shard in floats beside one that is proven.
    #[error("float mode is for all shards or for none: of shards {shard} and {} one is proven", shard + 1)]
    FloatMixed {
        /// The first of the two shards.
        shard: usize,
    },
    /// The boundaries or backends that were asked for do not belong together.
    #[error("boundary {boundary} cannot be {mode}: shard {shard} runs on {backend}, which does not have it")]
    BoundaryMode {
        /// Which boundary.
        boundary: usize,
        /// Mode asked for.
        mode: shardproof_common::plan::BoundaryMode,
        /// Which shard.
        shard: usize,
        /// Its backend.
        backend: shardproof_common::plan::BackendKind,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn by_layers(layers: bool) -> &'static str {
    if layers { " between layers (strategy `balanced` also cuts inside them)" } else { "" }
}

/// Why an input file or input tensors were refused.
#[derive(Debug, Error)]
pub enum InputError {
    /// The file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Larger than any input.
    #[error("{}: {bytes} bytes, more than the {limit} that an input file may have", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Bytes found.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Neither `.npy` nor `.json`.
    #[error("{}: neither a .npy file nor JSON of the form {{\"input_data\": [[...]]}}", path.display())]
    UnknownFormat {
        /// Which file.
        path: PathBuf,
    },
    /// Not a usable `.npy` file.
    #[error("not a usable .npy file: {reason}")]
    Npy {
        /// What is wrong.
        reason: String,
    },
    /// Not the JSON form.
    #[error("not input JSON of the form {{\"input_data\": [[...]]}}: {reason}")]
    Json {
        /// What is wrong.
        reason: String,
    },
    /// Another number of tensors than the model has inputs.
    #[error("the model has {expected} inputs ({}), the input gives {found}", names.join(", "))]
    Count {
        /// Inputs of the model.
        expected: usize,
        /// Their names.
        names: Vec<String>,
        /// Tensors given.
        found: usize,
    },
    /// A tensor of another shape.
    #[error("input `{input}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Which input.
        input: String,
        /// Shape of the model's input.
        expected: Vec<u64>,
        /// Shape found.
        found: Vec<u64>,
    },
    /// A stack of samples of another shape.
    #[error("input `{input}`: expected shape [samples, {}], found {found:?}", extents(expected))]
    Stack {
        /// Which input.
        input: String,
        /// Shape of the model's input.
        expected: Vec<u64>,
        /// Shape found.
        found: Vec<u64>,
    },
    /// A list that is not one of whole samples, or of another number of them than that of the first input.
    #[error(
        "input `{input}`: expected the values of whole samples, as many as of the other inputs (shape [samples, {}]), found \
         {found} values",
        extents(shape)
    )]
    SampleValues {
        /// Which input.
        input: String,
        /// Shape of the model's input.
        shape: Vec<u64>,
        /// Values found.
        found: usize,
    },
    /// A file of samples does not fit.
    #[error("{}: {source}", path.display())]
    Samples {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<InputError>,
    },
    /// Another number of values.
    #[error("input `{input}`: expected {expected} values (shape {shape:?}), found {found}")]
    Values {
        /// Which input.
        input: String,
        /// Shape of the model's input.
        shape: Vec<u64>,
        /// Values expected.
        expected: u64,
        /// Values found.
        found: usize,
    },
    /// A value that is not a number.
    #[error("input `{input}`: element {index} is {value}")]
    NonFinite {
        /// Which input.
        input: String,
        /// Flat index of the element.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: f32,
    },
}

fn extents(shape: &[u64]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why a shard could not be loaded or run in floats.
#[derive(Debug, Error)]
pub enum FloatError {
    /// The bytes are no shard that can be run.
    #[error("cannot load the shard: {0}")]
    Load(String),
    /// The tensors given are not the shard's inputs.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Running failed.
    #[error("cannot run the shard: {0}")]
    Run(String),
    /// A result that is not a number.
    #[error("output `{output}`: element {index} is {value}")]
    NonFinite {
        /// Which output.
        output: String,
        /// Flat index of the element.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: f32,
    },
}
