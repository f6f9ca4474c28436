//! A limit on memory that ends the process.
//!
//! A length in untrusted bytes must not decide how much memory is taken. The fuzzer's own limit is that of the whole process,
//! far above what a small input may cost; this one follows from the input's size. Threads share it, so inputs are tried one
//! after another. It is exact where an allocator that hands out memory lazily would hide the mistake: what counts is what is
//! asked for.

#![allow(unsafe_code, reason = "an allocator is unsafe to write; this one passes every call on as it is")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Bytes allocated now.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
/// Bytes that may be.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

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
        let budget = self.base.saturating_add(self.per_byte.saturating_mul(bytes));
        LIMIT.store(ALLOCATED.load(Ordering::Relaxed).saturating_add(budget), Ordering::Relaxed);
        let result = work();
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        result
    }
}

/// Counts so many bytes more.
fn take(bytes: usize) {
    let before = ALLOCATED.fetch_add(bytes, Ordering::Relaxed);
    let limit = LIMIT.load(Ordering::Relaxed);
    // A panic is a finding already, and its backtrace takes megabytes.
    if before.saturating_add(bytes) > limit && !std::thread::panicking() {
        // What is printed may allocate as well.
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        eprintln!("an allocation of {bytes} bytes, with {before} allocated, exceeds the input's budget: up to {limit}");
        std::process::abort();
    }
}

// SAFETY: every call is passed on to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size.saturating_sub(layout.size()));
        ALLOCATED.fetch_sub(layout.size().saturating_sub(size), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.realloc(place, layout, size) }
    }
}
