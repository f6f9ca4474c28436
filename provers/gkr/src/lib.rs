//! The native proof system: quantised networks by sumcheck, logup and WHIR.

pub mod field;
pub mod pcs;
pub mod transcript;
