//! Benchmarks of the service and of its proof systems.
//!
//! Every figure comes from the programs that a user runs: a coordinator and workers are started as processes, driven through
//! the gRPC interface that clients have, and ended on every way out. What a figure is compared with is measured in the same
//! run, alternating, because machines are neither equal nor quiet. A measurement that failed is reported as failed; it never
//! becomes a number.
//!
//! - [`hop`]: what it takes to pass a boundary from one worker to the next, against the same bytes over plain TCP.
//! - [`cost`]: what the service adds to the ezkl calls that it makes.
//! - [`load`]: what load the service holds without proofs.
//! - [`overlap`]: whether proofs of different shards are made at the same time.
//! - [`pipeline`]: throughput of the pipeline without proofs.
//! - [`results`]: the published results and their page.
//! - [`system`]: the whole service over numbers of shards.
//! - [`accuracy`]: how far quantised answers are from the float model's; alone of all, without processes.
//! - [`backends`]: proof systems side by side.

pub mod accuracy;
pub mod backends;
pub mod client;
pub mod conditions;
pub mod cost;
pub mod error;
pub mod hop;
pub mod load;
pub mod memory;
pub mod overlap;
pub mod pipeline;
pub mod plot;
pub mod processes;
pub mod progress;
pub mod report;
pub mod results;
pub mod script;
pub mod stats;
pub mod system;
pub mod table;
mod tcp;
