//! From an ONNX file to shards that can be run and proven.
//!
//! - **What**: [`OnnxModel`] reads and normalises a model, [`OnnxModel::split`] cuts it into shards that are ONNX models
//!   themselves, [`FloatShard`] runs a shard in floats, [`zoo`] holds the models that ship with shardproof, and [`input`]
//!   reads what goes in.
//! - **When**: on the owner's side for all of it; a worker needs [`FloatShard`] or [`FloatBackend`] only.
//! - **Guarantees**: the shards, run one after another, compute what the model computes; equal models and requests give
//!   equal bytes; whatever a file contains ends in an error that names what and where, never in a panic.
//!
//! ```
//! use shardproof_common::plan::{BackendOptions, GkrOptions};
//! use shardproof_models::{BoundaryModes, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy};
//!
//! let source = ModelSource::resolve("mlp")?;
//! let model = OnnxModel::load(&source, &LoadOptions::default())?;
//! let split = model.split(&SplitRequest {
//!     shards: 4,
//!     strategy: Strategy::Balanced,
//!     backend: &|_| BackendOptions::Gkr(GkrOptions::default()),
//!     modes: BoundaryModes::default(),
//! })?;
//! assert_eq!(split.plan.shards.len(), 4);
//! println!("{}", split.report);
//! # Ok::<(), shardproof_models::ModelError>(())
//! ```

mod constant;
pub mod cost;
mod cuts;
mod defaults;
mod engine;
mod error;
mod float;
mod float_backend;
mod graph;
mod import;
pub mod input;
mod layers;
mod masks;
mod model;
mod modes;
mod normalise;
pub mod npy;
mod planner;
mod proto;
pub mod quantise;
mod report;
mod shard;
mod split;
pub mod zoo;

pub use engine::ENGINE_VERSION;
pub use error::{FloatError, InputError, ModelError};
pub use float::{FloatShard, run_chain};
pub use float_backend::FloatBackend;
pub use import::{OPSET_HIGHEST, OPSET_LOWEST};
pub use input::{SampleOrigin, Samples};
pub use model::{LoadOptions, MAX_FILE_BYTES, ModelSource, OnnxModel, parse_dim};
pub use modes::BoundaryModes;
pub use report::{BoundaryReport, PlanReport, ShardReport};
pub use split::{Shard, Split, SplitRequest, Strategy};
