//! The backend against the real ezkl, installed once into the build directory.
//!
//! One program, so that the expensive parts, a chain per boundary mode, are made once for all tests.

#![allow(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod forgeries;
mod install;
mod limits;
mod links;
mod recompute;
mod settings;
mod steps;
mod support;
mod warm;
