//! The service as its users meet it: real processes on free ports, real kills, the client's gRPC.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod access;
mod attacks;
mod audits;
mod batches;
#[path = "../harness/cluster.rs"]
mod cluster;
mod disputes;
mod full_disk;
#[path = "../harness/held.rs"]
mod held;
mod inference;
mod limits;
mod lying_draws;
mod metrics;
mod proving;
mod recovery;
mod refusals;
mod resumption;
#[path = "../harness/rogue.rs"]
mod rogue;
mod state;
mod workers;
