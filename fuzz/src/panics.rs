//! Which panics are findings where the inference engine runs.
//!
//! The importer catches the engine's panics and makes errors of them. The fuzzer ends the process at any panic; what is put in
//! its place ends the process only where the panic is this project's own.

use std::panic;
use std::sync::Once;

/// From now on a panic in a library from outside unwinds, and every other one ends the process.
pub(crate) fn of_this_project_end_the_process() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        panic::set_hook(Box::new(|panicked| {
            let from_outside = panicked.location().is_some_and(|location| location.file().contains("/registry/src/"));
            if !from_outside {
                eprintln!("{panicked}");
                std::process::abort();
            }
        }));
    });
}
