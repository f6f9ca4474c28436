//! The fuzzer with all targets: `FUZZ_TARGET` names the one that it runs, and the arguments are libFuzzer's.
//!
//! One program instead of one for each target is linked once and takes a tenth of the space.

#![no_main]
#![allow(unsafe_code, reason = "the fuzzer finds its entry point by a name without mangling")]

use std::sync::OnceLock;

use shardproof_fuzz::{TARGETS, Target};

libfuzzer_sys::fuzz_target!(|data: &[u8]| target().run(data));

/// The target named.
///
/// # Panics
/// When there is none of that name: then there is nothing to run.
fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("FUZZ_TARGET names no target: `{name}`"))
    })
}
