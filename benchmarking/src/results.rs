//! The published results: what is measured for them, where the raw figures are kept, and the page that explains them.
//!
//! [`suite::run`] starts the benchmarks of this package one after the other, each with a folder below one directory;
//! [`collect::collect`] brings their tables together in the published folder; [`page::write`] draws the plots and writes the
//! page from these tables alone, so the page can be made again without measuring anything.

pub mod collect;
mod compared;
mod draw;
mod markdown;
pub mod page;
mod recorded;
mod rows;
pub mod suite;
mod throughput;
mod verdicts;
