//! Integer graphs: the exact semantics of quantised networks.
//!
//! A [`Graph`] is the architecture: operators, shapes, scales, bounds and lookup tables, everything but the trained
//! values. [`Weights`] are those. One executor defines what a graph computes; its output is the served answer and its
//! [`Trace`] is the prover's witness.

pub mod graph;

pub use graph::{
    Conv, Graph, Input, MAX_REQUANT_BITS, MAX_SHIFT, MAX_TABLE_BITS, Node, Op, Table, TableId, TensorId, Weight,
    WeightId, Weights, Window,
};
