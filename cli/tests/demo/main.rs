//! The whole way of the demo: real processes, every shard proven, the bundle verified offline, forgeries refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod ezkl;
mod gkr;
mod mixed;
mod support;
