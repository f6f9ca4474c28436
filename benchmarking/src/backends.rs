//! Proof systems side by side: the same model, the same input, the same machine, in one run, taking turns.
//!
//! Every system is an adapter in the sense of `adapters/README.md`, shardproof's own included: commands that are started
//! as processes, timed, watched, and held to limits. For each of them a [`session::Session`] keeps a directory, and
//! [`comparison::measure`] gives the sessions their turns. A system's row says `ok`, or why it has no figures; it is never
//! left out. A claim that was tampered with must be rejected by the system that has just accepted the true one, or the row
//! is a failure.
//!
//! - [`builtin`]: the systems that ship with this program, and their steps.
//! - [`compatibility`]: which operators a system can prove, tried one by one.

pub mod accuracy;
pub mod builtin;
pub mod comparison;
pub mod compatibility;
pub mod contract;
pub mod error;
pub mod interrupt;
pub mod manifest;
pub mod models;
pub mod onnx;
pub mod output;
pub mod probes;
pub mod process;
pub mod progress;
pub mod record;
pub mod session;
pub mod subject;
pub mod system;
