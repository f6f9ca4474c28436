//! The calls that this backend makes to ezkl, whichever way ezkl is installed.

use std::path::Path;

use serde::Serialize;
use shardproof_common::backend::BackendError;

use crate::child::join;
use crate::frame::{Frame, failed};

/// One call to ezkl; paths are files that it reads or writes.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op<'a> {
    GenSettings {
        model: &'a Path,
        settings: &'a Path,
        run_args: &'a RunArgs,
    },
    Calibrate {
        data: &'a Path,
        model: &'a Path,
        settings: &'a Path,
        target: &'a str,
        scales: Option<&'a [i32]>,
        lookup_safety_margin: f64,
        max_logrows: Option<u32>,
    },
    Compile {
        model: &'a Path,
        circuit: &'a Path,
        settings: &'a Path,
    },
    GenSrs {
        srs: &'a Path,
        logrows: u32,
    },
    Setup {
        circuit: &'a Path,
        vk: &'a Path,
        pk: &'a Path,
        srs: &'a Path,
    },
    Witness {
        data: &'a Path,
        circuit: &'a Path,
        output: &'a Path,
        vk: Option<&'a Path>,
        srs: Option<&'a Path>,
    },
    Mock {
        witness: &'a Path,
        circuit: &'a Path,
    },
    Prove {
        witness: &'a Path,
        circuit: &'a Path,
        pk: &'a Path,
        proof: &'a Path,
        srs: &'a Path,
    },
    Verify {
        proof: &'a Path,
        settings: &'a Path,
        vk: &'a Path,
        srs: &'a Path,
        reduced_srs: bool,
    },
}

/// The run arguments that this backend sets; names and spellings are ezkl's.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct RunArgs {
    pub(crate) input_visibility: &'static str,
    pub(crate) output_visibility: &'static str,
    pub(crate) param_visibility: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input_scale: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) param_scale: Option<i32>,
    pub(crate) decomp_base: u64,
    pub(crate) decomp_legs: u64,
    pub(crate) check_mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lookup_range: Option<(i64, i64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logrows: Option<u32>,
}

impl Op<'_> {
    /// The step's name in messages.
    pub(crate) fn step(&self) -> &'static str {
        match self {
            Self::GenSettings { .. } => "settings",
            Self::Calibrate { .. } => "calibrate",
            Self::Compile { .. } => "compile",
            Self::GenSrs { .. } => "srs",
            Self::Setup { .. } => "keys",
            Self::Witness { .. } => "witness",
            Self::Mock { .. } => "mock",
            Self::Prove { .. } => "prove",
            Self::Verify { .. } => "verify",
        }
    }
}

/// Why a call gave nothing.
#[derive(Debug)]
pub(crate) enum CallError {
    /// ezkl ran and said no.
    Refused {
        /// Its words.
        message: String,
        /// What it wrote besides.
        text: String,
    },
    /// ezkl could not run, or not to its end.
    Backend(BackendError),
}

impl CallError {
    /// The failure of a call that should have succeeded.
    pub(crate) fn at(self, step: &str) -> BackendError {
        match self {
            Self::Refused { message, text } => {
                let said = join(&message, &text);
                match OUT_OF_RANGE.iter().any(|sign| said.contains(sign)) {
                    true => BackendError::Input(format!("a value leaves the range that the circuit can prove: {said}")),
                    false => failed(step, said),
                }
            }
            Self::Backend(error) => error,
        }
    }
}

impl From<BackendError> for CallError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

/// What ezkl says when a value is too large for its range checks or tables.
const OUT_OF_RANGE: [&str; 2] = ["is too large to be represented", ") out of range: ("];

/// Something that carries out calls, one after the other.
pub(crate) trait Runner {
    /// Carries out `op` and returns what ezkl wrote meanwhile.
    fn call(&mut self, op: &Op<'_>, frame: &Frame<'_>) -> Result<String, CallError>;

    /// The most memory that any call was seen to use, bytes.
    fn peak_rss_bytes(&self) -> u64;
}
