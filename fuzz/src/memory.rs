//! A limit on memory that ends the process.
//!
//! A length in untrusted bytes must not decide how much memory is taken. The fuzzer's own limit is that of the whole process,
//! far above what a small input may cost; this one follows from the input's size. Threads share it, so inputs are tried one
//! after another.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Memory that one input may take, at any time while it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes for any input.
    pub base: usize,
    /// Further bytes for each byte of the input.
    pub per_byte: usize,
}

impl Budget {
    /// Runs `work` for an input of so many bytes; an allocation beyond the budget ends the process.
    pub(crate) fn hold<T>(self, bytes: usize, work: impl FnOnce() -> T) -> T {
        let limit = self.base.saturating_add(self.per_byte.saturating_mul(bytes));
        let set = ALLOCATOR.set_limit(ALLOCATOR.allocated().saturating_add(limit));
        set.expect("the limit is above what is allocated");
        let result = work();
        ALLOCATOR.set_limit(usize::MAX).expect("there is no higher limit");
        result
    }
}
