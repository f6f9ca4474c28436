//! What users get when something breaks: real processes, real kills, real silence on the wire.
//!
//! Each test is a row of `docs/faults.md`. It ends in the right answer or in the right error, and with nothing left behind:
//! every program that is told to end does, and no file is half there. Faults are injected at events (`--hold-at`, the log, a
//! relay between two programs), never after a sleep.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod chain;
mod clock;
#[path = "../harness/cluster.rs"]
mod cluster;
mod coordinators;
mod drain;
mod hangs;
mod many;
mod network;
mod relay;
#[path = "../harness/rogue.rs"]
mod rogue;
mod spares;
mod storage;
mod strays;
mod support;
mod workers;
