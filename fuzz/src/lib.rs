//! Fuzz targets for everything that reads untrusted bytes.
//!
//! - **What.** A [`Target`] is a function of bytes that must return: it decodes them as a verifier, a worker or a coordinator
//!   would, goes on with what it got, and asserts what must hold of it. [`TARGETS`] lists them.
//! - **What must hold.** No panic. No more memory than the target's [`Budget`] says. What decodes, encodes to the same bytes
//!   again where an encoding is canonical. Nothing is accepted that is not honest: a proof, bundle, card or receipt that
//!   verifies is one that honest parties made.
//! - **When to use.** `fuzz/run MINUTES` builds the targets with the fuzzer and lets each run. The tests of this crate give
//!   every target its seeds and what was once found, with neither fuzzer nor instrumentation.
//! - **What is different from the corpus of forgeries.** A forgery aims at one check. What is found here nobody thought of.
//! - **Related.** `README.md` has how much was run, and what it found.

mod bundle;
mod card;
mod evidence;
mod forged;
mod honest;
mod input;
mod key;
mod memory;
mod messages;
mod onnx;
mod panics;
mod proof;
mod receipt;
mod tensors;

pub use memory::Budget;

/// A function of untrusted bytes.
pub struct Target {
    /// Names it on command lines, and its folders with seeds and findings.
    pub name: &'static str,
    /// Makes what all inputs need, once, outside of the budget.
    prepare: fn(),
    /// Must return, whatever the bytes.
    check: fn(&[u8]),
    /// Inputs to start from.
    make_seeds: fn() -> Vec<Vec<u8>>,
    /// Memory that an input may take.
    pub budget: Budget,
    /// Bytes beyond which an input is not tried: what is longer tests the same code more slowly.
    pub max_len: usize,
}

impl Target {
    /// Inputs to start from.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        (self.prepare)();
        (self.make_seeds)()
    }

    /// Tries one input.
    ///
    /// # Panics
    /// When something that must hold does not: that is a finding. Where memory goes beyond the budget the process ends.
    pub fn run(&self, bytes: &[u8]) {
        (self.prepare)();
        self.budget.hold(bytes.len(), || (self.check)(bytes));
    }
}

/// Nothing to prepare.
const fn nothing() {}

/// A bundle's file.
pub const BUNDLE: Target = Target {
    name: "bundle",
    prepare: honest::prepare,
    check: bundle::check,
    make_seeds: bundle::seeds,
    budget: Budget { base: 64 << 20, per_byte: 64 },
    max_len: 128 << 10,
};

/// An honest bundle, changed by a script and sealed again.
pub const FORGED: Target = Target {
    name: "forged",
    prepare: honest::prepare,
    check: forged::check,
    make_seeds: forged::seeds,
    budget: Budget { base: 256 << 20, per_byte: 1 << 20 },
    max_len: 64,
};

/// A model card's file.
pub const CARD: Target = Target {
    name: "card",
    prepare: honest::prepare,
    check: card::check,
    make_seeds: card::seeds,
    budget: Budget { base: 1 << 20, per_byte: 256 },
    max_len: 16 << 10,
};

/// A proof of the native backend, under a fixed key and for a fixed statement.
pub const PROOF: Target = Target {
    name: "proof",
    prepare: honest::prepare,
    check: proof::check,
    make_seeds: proof::seeds,
    budget: Budget { base: 64 << 20, per_byte: 64 },
    max_len: 128 << 10,
};

/// A verifying key of the native backend.
pub const KEY: Target = Target {
    name: "key",
    prepare: honest::prepare,
    check: key::check,
    make_seeds: key::seeds,
    budget: Budget { base: 256 << 20, per_byte: 1 << 10 },
    max_len: 16 << 10,
};

/// What travels packed inside messages: receipts, admissions, boundaries, signatures.
pub const RECEIPT: Target = Target {
    name: "receipt",
    prepare: honest::prepare,
    check: receipt::check,
    make_seeds: receipt::seeds,
    budget: Budget { base: 1 << 20, per_byte: 256 },
    max_len: 4 << 10,
};

/// The encoding of a boundary's tensors.
pub const TENSORS: Target = Target {
    name: "tensors",
    prepare: nothing,
    check: tensors::check,
    make_seeds: tensors::seeds,
    budget: Budget { base: 1 << 20, per_byte: 256 },
    max_len: 4 << 10,
};

/// A model's file, from import to shards.
pub const ONNX: Target = Target {
    name: "onnx",
    prepare: panics::of_this_project_end_the_process,
    check: onnx::check,
    make_seeds: onnx::seeds,
    budget: Budget { base: 512 << 20, per_byte: 1 << 12 },
    max_len: 24 << 10,
};

/// An input's file: `.npy` or JSON.
pub const INPUT: Target = Target {
    name: "input",
    prepare: nothing,
    check: input::check,
    make_seeds: input::seeds,
    budget: Budget { base: 1 << 20, per_byte: 256 },
    max_len: 4 << 10,
};

/// The streams of the services, from the frames of the wire on.
pub const MESSAGES: Target = Target {
    name: "messages",
    prepare: honest::prepare,
    check: messages::check,
    make_seeds: messages::seeds,
    budget: Budget { base: 64 << 20, per_byte: 256 },
    max_len: 16 << 10,
};

/// A file of evidence against a worker.
pub const EVIDENCE: Target = Target {
    name: "evidence",
    prepare: honest::prepare,
    check: evidence::check,
    make_seeds: evidence::seeds,
    budget: Budget { base: 256 << 20, per_byte: 1 << 10 },
    max_len: 8 << 10,
};

/// All targets.
pub const TARGETS: [&Target; 11] =
    [&BUNDLE, &EVIDENCE, &FORGED, &CARD, &PROOF, &KEY, &RECEIPT, &TENSORS, &ONNX, &INPUT, &MESSAGES];
