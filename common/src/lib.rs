//! What every part of shardproof shares.
//!
//! The words of the system, in the order in which a run meets them: a [`plan::Plan`] cuts a model into shards, a
//! [`card::ModelCard`] publishes the plan with the verifying keys, workers exchange [`tensor::Tensor`]s and sign a
//! [`statement::Statement`] each as a [`receipt::Receipt`], a [`backend::Backend`] proves it, a [`bundle::Bundle`] carries
//! one run to whoever wants to check it, and [`chain::verify`] checks it. Where a worker lied, [`evidence::Evidence`] shows it.

pub mod address;
pub mod artifacts;
pub mod audit;
pub mod backend;
mod bounded;
pub mod bundle;
pub mod card;
pub mod chain;
pub mod clock;
pub mod evidence;
pub mod files;
pub mod format;
pub mod hold;
pub mod ids;
pub mod keyfile;
pub mod machine;
pub mod options;
pub mod plan;
pub mod process;
pub mod receipt;
pub mod statement;
pub mod telemetry;
pub mod tensor;
