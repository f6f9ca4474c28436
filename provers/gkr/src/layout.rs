//! Where the witness's columns lie in the one vector that is committed to.
//!
//! The committed witness is what the linear operators don't determine: for every requantised value the digits of its
//! accumulator, for every value by table the table's row and result, and how often each row of a lookup table is used. Its
//! three regions are
//!
//! 1. cells that are looked up: digits, and rows of function tables
//! 2. multiplicities, one for each row of each table
//! 3. results of function tables, in the order in which their rows stand in region 1
//!
//! so that leaf i of the lookup argument is cell i for the first two. Columns are packed without padding. The layout
//! follows from the graph and the number of runs alone; prover and verifier compute it each for itself.

use std::collections::HashMap;
use std::ops::Range;

use shardproof_integer::{CheckedGraph, Op, TableId};

use crate::mle::bits_for;

/// Widest digit considered, in bits.
const MAX_DIGIT_BITS: u32 = 16;
/// Cells beyond which nothing is counted; no commitment is nearly as large.
const COUNTED_CELLS: usize = 1 << 60;
/// Tags of function tables start above those of ranges, which are their widths.
const FUNCTION_TAG: u64 = 64;

/// The columns of a graph's witness for a number of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Number of runs that one proof covers.
    pub runs: usize,
    /// Columns of each node; nothing for linear and shape operators.
    pub nodes: Vec<Option<Columns>>,
    /// Looked-up cells in order: runs of cells that share a table.
    pub lookups: Vec<Lookup>,
    /// Lookup tables with the place of their multiplicities.
    pub tables: Vec<LookupTable>,
    /// log2 of the length of the committed vector.
    pub variables: usize,
    /// log2 of the number of leaves of the lookup argument.
    pub lookup_variables: usize,
}

/// The columns of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// Digits of `accumulator + 2^(shift-1) + 2^(shift+bits)`, which must lie in `0 .. 2^(shift+bits+1)`.
    Requant {
        /// Of the lowest `shift` bits.
        low: Vec<Digit>,
        /// Of the bits above; with a ReLU without the topmost.
        high: Vec<Digit>,
        /// The topmost bit where there is a ReLU: 1 for a result that is not negative.
        sign: Option<Digit>,
    },
    /// A lookup in a function table.
    Table {
        /// First cell of the arguments.
        argument: usize,
        /// First cell of the results.
        result: usize,
    },
}

/// A column of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digit {
    /// First cell.
    pub offset: usize,
    /// log2 of its weight within its group (low, high or sign).
    pub position: u32,
    /// Every value is below 2^width.
    pub width: u32,
}

/// Cells that are looked up in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lookup {
    /// The cells.
    pub cells: Range<usize>,
    /// First cell of the results, for a function table.
    pub results: Option<usize>,
    /// Index in [`Layout::tables`].
    pub table: usize,
}

/// A lookup table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LookupTable {
    /// What it holds.
    pub kind: TableKind,
    /// The multiplicities, one for each row.
    pub cells: Range<usize>,
}

/// What a lookup table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TableKind {
    /// The integers `0 .. 2^width`.
    Range {
        /// In bits.
        width: u32,
    },
    /// Arguments and results of a function of the graph.
    Function(TableId),
}

impl TableKind {
    /// The third component of the table's tuples `(argument, result, tag)`, different for each table.
    pub(crate) fn tag(self) -> u64 {
        match self {
            Self::Range { width } => u64::from(width),
            Self::Function(table) => FUNCTION_TAG + u64::from(table.0),
        }
    }
}

impl Layout {
    /// The layout whose digits make the committed vector shortest.
    ///
    /// # Panics
    /// When there is no run.
    pub(crate) fn new(graph: &CheckedGraph, runs: usize) -> Self {
        assert!(runs > 0, "a proof covers at least one run");
        let widths = 2..=MAX_DIGIT_BITS;
        let layouts = widths.map(|width| Self::with_digits(graph, runs, width));
        layouts.min_by_key(Self::cells).expect("there are widths to choose from")
    }

    fn with_digits(graph: &CheckedGraph, runs: usize, digit_bits: u32) -> Self {
        let mut builder =
            Builder { digit_bits, kinds: Vec::new(), tables: HashMap::new(), lookups: Vec::new(), next: 0 };
        let mut nodes = Vec::with_capacity(graph.graph().nodes.len());
        for (index, node) in graph.graph().nodes.iter().enumerate() {
            let cells = runs.saturating_mul(graph.elements(graph.graph().result(index)));
            nodes.push(builder.columns(&node.op, cells));
        }
        builder.finish(graph, runs, nodes)
    }

    /// Cells in use.
    pub(crate) fn cells(&self) -> usize {
        let results = |lookup: &Lookup| lookup.results.map(|first| first + lookup.cells.len());
        self.lookups.iter().filter_map(results).max().unwrap_or(self.leaves())
    }

    /// Leaves of the lookup argument in use: looked-up cells and rows of tables.
    pub(crate) fn leaves(&self) -> usize {
        self.tables.last().map_or(0, |table| table.cells.end)
    }
}

/// Hands out cells.
struct Builder {
    digit_bits: u32,
    kinds: Vec<TableKind>,
    /// Places in `kinds`.
    tables: HashMap<TableKind, usize>,
    lookups: Vec<Lookup>,
    next: usize,
}

impl Builder {
    fn columns(&mut self, op: &Op, cells: usize) -> Option<Columns> {
        match *op {
            Op::Requant { shift, bits, relu, .. } => {
                let low = self.digits(cells, shift);
                let high = self.digits(cells, if relu { bits } else { bits + 1 });
                let sign = relu.then(|| self.digit(cells, 0, 1));
                Some(Columns::Requant { low, high, sign })
            }
            Op::Table { table, .. } => {
                let argument = self.take(cells, TableKind::Function(table));
                // Results are placed once all arguments and multiplicities are.
                Some(Columns::Table { argument, result: usize::MAX })
            }
            _ => None,
        }
    }

    fn digits(&mut self, cells: usize, bits: u32) -> Vec<Digit> {
        let positions = (0..bits).step_by(self.digit_bits as usize);
        positions.map(|position| self.digit(cells, position, self.digit_bits.min(bits - position))).collect()
    }

    fn digit(&mut self, cells: usize, position: u32, width: u32) -> Digit {
        Digit { offset: self.take(cells, TableKind::Range { width }), position, width }
    }

    fn take(&mut self, cells: usize, kind: TableKind) -> usize {
        let table = *self.tables.entry(kind).or_insert_with(|| {
            self.kinds.push(kind);
            self.kinds.len() - 1
        });
        let first = self.next;
        self.next = end(first, cells);
        self.lookups.push(Lookup { cells: first..self.next, results: None, table });
        first
    }

    fn finish(mut self, graph: &CheckedGraph, runs: usize, mut nodes: Vec<Option<Columns>>) -> Layout {
        let mut tables = Vec::with_capacity(self.kinds.len());
        for &kind in &self.kinds {
            let bits = match kind {
                TableKind::Range { width } => width,
                TableKind::Function(table) => graph.graph().tables[table.0 as usize].bits,
            };
            let first = self.next;
            self.next = end(first, 1 << bits);
            tables.push(LookupTable { kind, cells: first..self.next });
        }
        let leaves = self.next;
        let mut results = nodes.iter_mut().flatten().filter_map(|columns| match columns {
            Columns::Table { result, .. } => Some(result),
            Columns::Requant { .. } => None,
        });
        for lookup in &mut self.lookups {
            if matches!(self.kinds[lookup.table], TableKind::Function(_)) {
                let result = results.next().expect("one lookup for each node with a function table");
                *result = self.next;
                lookup.results = Some(self.next);
                self.next = end(self.next, lookup.cells.len());
            }
        }
        let variables = bits_for(self.next).max(crate::pcs::MIN_VARS);
        Layout { runs, nodes, lookups: self.lookups, tables, variables, lookup_variables: bits_for(leaves) }
    }
}

/// Where so many cells from `first` on end.
fn end(first: usize, cells: usize) -> usize {
    first.saturating_add(cells).min(COUNTED_CELLS)
}
