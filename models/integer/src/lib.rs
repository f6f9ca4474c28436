//! Integer graphs: the exact semantics of quantised networks.
//!
//! A [`Graph`] is the architecture: operators, shapes, scales, bounds and lookup tables, everything but the trained
//! values. [`Weights`] are those. [`Graph::check`] makes a [`CheckedGraph`], the only thing that is run, proven or
//! verified. One [`Executor`] defines what it computes; its output is the served answer and its [`Trace`] is the prover's
//! witness.

mod check;
mod encoding;
mod error;
mod executor;
pub mod graph;
#[cfg(any(test, feature = "testing"))]
pub mod reference;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod weights;

pub use check::{Bounds, CheckedGraph, MAX_ELEMENTS, MAX_ITEMS, MAX_RANK, VALUE_BITS};
pub use encoding::MAX_GRAPH_BYTES;
pub use error::{EncodingError, GraphError, RunError, Site, WeightsError};
pub use executor::{Executor, Trace};
pub use graph::{
    BOUNDARY_BITS, Conv, Graph, Input, MAX_QUOTIENT_BITS, MAX_REQUANT_BITS, MAX_ROOT_BITS, MAX_SHIFT, MAX_TABLE_BITS,
    Node, Op, Table, TableId, TensorId, Weight, WeightId, Weights, Window,
};
