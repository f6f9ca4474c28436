//! Where the witness's columns lie in the one vector that is committed to.
//!
//! The committed witness is what the linear operators don't determine: for every requantised value the digits of its
//! accumulator, for every value by table the table's row and result, for maxima, quotients and roots what shows that they
//! are right, and how often each row of a lookup table is used. Its three regions are
//!
//! 1. cells that are looked up: digits, and rows of function tables
//! 2. multiplicities, one for each row of each table
//! 3. results of function tables, in the order in which their rows stand in region 1
//!
//! so that leaf i of the lookup argument is cell i for the first two. Columns lie in the order of the powers of two that
//! divide their lengths, largest first: so each is aligned to its own power of two without any padding, and the verifier
//! evaluates claims on it block by block instead of cell by cell. The layout follows from the graph and the number of runs
//! alone; prover and verifier compute it each for itself.

use std::collections::HashMap;
use std::ops::Range;

use shardproof_integer::{CheckedGraph, Op, TableId};

use crate::mle::bits_for;
use crate::rounding;

/// Widest digit considered, in bits.
const MAX_DIGIT_BITS: u32 = 16;
/// Cells beyond which nothing is counted; no commitment is nearly as large.
const COUNTED_CELLS: usize = 1 << 60;
/// Most bits of the alignment that the region of results is padded for.
const MAX_ALIGNED_BITS: u32 = 12;
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
    /// What shows that each result is the largest value of its row: one cell of each column for each element of the input.
    Max {
        /// Digits of what each value lacks to the largest.
        difference: Vec<Digit>,
        /// 1 for one value of each row that is the largest, 0 for the others.
        chosen: Digit,
    },
    /// What shows that each result is a rounded quotient.
    Divide {
        /// Digits of `quotient + 2^bits`.
        quotient: Vec<Digit>,
        /// Digits of the remainder r.
        remainder: Vec<Digit>,
        /// Digits of `2 d - 1 - r`, what the remainder lacks to its largest value.
        rest: Vec<Digit>,
    },
    /// What shows that each result y is a root rounded down.
    Sqrt {
        /// Digits of the root.
        root: Vec<Digit>,
        /// Digits of the remainder `r = x - y^2`.
        remainder: Vec<Digit>,
        /// Digits of `2 y - r`, what the remainder lacks to its largest value.
        rest: Vec<Digit>,
    },
}

impl Columns {
    /// First cells of all columns that are looked up.
    fn offsets_mut(&mut self) -> Vec<&mut usize> {
        fn of<'a>(digits: impl IntoIterator<Item = &'a mut Digit>) -> Vec<&'a mut usize> {
            digits.into_iter().map(|digit| &mut digit.offset).collect()
        }
        match self {
            Self::Requant { low, high, sign } => of(low.iter_mut().chain(high).chain(sign)),
            Self::Table { argument, .. } => vec![argument],
            Self::Max { difference, chosen } => of(difference.iter_mut().chain([chosen])),
            Self::Divide { quotient, remainder, rest } => of(quotient.iter_mut().chain(remainder).chain(rest)),
            Self::Sqrt { root, remainder, rest } => of(root.iter_mut().chain(remainder).chain(rest)),
        }
    }
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
        let mut builder = Builder { digit_bits, kinds: Vec::new(), tables: HashMap::new(), columns: Vec::new() };
        let nodes = (0..graph.graph().nodes.len()).map(|node| builder.node(graph, runs, node)).collect();
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

/// Cells of the committed witness that are each node's, in the graph's order. Commitment, lookups and opening take time for
/// cells, whosever they are. The tables' multiplicities are of all nodes together, and not among them.
///
/// # Panics
/// When there is no run.
pub fn witness_cells(graph: &CheckedGraph, runs: usize) -> Vec<usize> {
    let columns = Layout::new(graph, runs).nodes.into_iter().enumerate();
    let cells = columns.map(|(node, columns)| {
        let Some(mut columns) = columns else { return 0 };
        let results = usize::from(matches!(columns, Columns::Table { .. }));
        let tensor = match graph.graph().nodes[node].op {
            Op::Max { input } => input,
            _ => graph.graph().result(node),
        };
        (columns.offsets_mut().len() + results) * runs * graph.elements(tensor)
    });
    cells.collect()
}

/// Collects columns, and places them once all are known.
struct Builder {
    digit_bits: u32,
    kinds: Vec<TableKind>,
    /// Places in `kinds`.
    tables: HashMap<TableKind, usize>,
    /// Cells and place in `kinds` of each column. Until they are placed, its index here stands for its first cell.
    columns: Vec<(usize, usize)>,
}

impl Builder {
    fn node(&mut self, graph: &CheckedGraph, runs: usize, node: usize) -> Option<Columns> {
        let op = &graph.graph().nodes[node].op;
        let cells_of = |tensor| runs.saturating_mul(graph.elements(tensor));
        let cells = cells_of(graph.graph().result(node));
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
            Op::Max { input } => {
                let cells = cells_of(input);
                let difference = self.digits(cells, rounding::difference_bits(graph, input));
                Some(Columns::Max { difference, chosen: self.digit(cells, 0, 1) })
            }
            Op::Divide { denominator, bits, .. } => {
                let remainder_bits = rounding::remainder_bits(graph, denominator);
                let quotient = self.digits(cells, bits + 1);
                let [remainder, rest] = [(); 2].map(|()| self.digits(cells, remainder_bits));
                Some(Columns::Divide { quotient, remainder, rest })
            }
            Op::Sqrt { bits, .. } => {
                let root = self.digits(cells, bits);
                let [remainder, rest] = [(); 2].map(|()| self.digits(cells, bits + 1));
                Some(Columns::Sqrt { root, remainder, rest })
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
        self.columns.push((cells, table));
        self.columns.len() - 1
    }

    fn finish(self, graph: &CheckedGraph, runs: usize, mut nodes: Vec<Option<Columns>>) -> Layout {
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        // Stable, so that what belongs together stays together.
        order.sort_by_key(|&column| std::cmp::Reverse(self.columns[column].0.trailing_zeros()));
        let mut firsts = vec![0; self.columns.len()];
        let mut lookups = Vec::with_capacity(self.columns.len());
        let mut next = 0;
        for column in order {
            let (cells, table) = self.columns[column];
            firsts[column] = next;
            next = end(next, cells);
            lookups.push(Lookup { cells: firsts[column]..next, results: None, table });
        }
        for columns in nodes.iter_mut().flatten() {
            columns.offsets_mut().into_iter().for_each(|offset| *offset = firsts[*offset]);
        }
        let mut tables = Vec::with_capacity(self.kinds.len());
        for &kind in &self.kinds {
            let bits = match kind {
                TableKind::Range { width } => width,
                TableKind::Function(table) => graph.graph().tables[table.0 as usize].bits,
            };
            let first = next;
            next = end(first, 1 << bits);
            tables.push(LookupTable { kind, cells: first..next });
        }
        let leaves = next;
        next = place_results(&self.kinds, &mut lookups, &mut nodes, leaves);
        let variables = bits_for(next).max(crate::pcs::MIN_VARS);
        Layout { runs, nodes, lookups, tables, variables, lookup_variables: bits_for(leaves) }
    }
}

/// Places the results of function tables behind `leaves`, aligned as their arguments are; gives where they end.
fn place_results(kinds: &[TableKind], lookups: &mut [Lookup], nodes: &mut [Option<Columns>], leaves: usize) -> usize {
    let mut functions: Vec<&mut Lookup> =
        lookups.iter_mut().filter(|lookup| matches!(kinds[lookup.table], TableKind::Function(_))).collect();
    let aligned = functions.first().map_or(0, |first| first.cells.len().trailing_zeros().min(MAX_ALIGNED_BITS));
    let mut next = leaves.next_multiple_of(1 << aligned);
    let mut results = HashMap::with_capacity(functions.len());
    for lookup in &mut functions {
        lookup.results = Some(next);
        results.insert(lookup.cells.start, next);
        next = end(next, lookup.cells.len());
    }
    for columns in nodes.iter_mut().flatten() {
        if let Columns::Table { argument, result } = columns {
            *result = results[argument];
        }
    }
    if functions.is_empty() { leaves } else { next }
}

/// Where so many cells from `first` on end.
fn end(first: usize, cells: usize) -> usize {
    first.saturating_add(cells).min(COUNTED_CELLS)
}

#[cfg(test)]
mod tests {
    use shardproof_integer::testing::{Size, random_graph};

    use super::*;

    /// Claims on columns are settled with the lookups: a column that no lookup goes with would be left unproven.
    #[test]
    fn where_there_are_columns_there_are_lookups() {
        let mut with_columns = 0;
        for seed in 0..300 {
            let (graph, ..) = random_graph(seed, Size { nodes: 3, elements: 4 });
            let graph = graph.check().expect("random graphs are sound");
            let layout = Layout::new(&graph, 1);
            let columns = layout.nodes.iter().any(Option::is_some);
            assert_eq!(columns, layout.leaves() > 0, "seed {seed}");
            with_columns += usize::from(columns);
        }
        assert!((1..300).contains(&with_columns), "graphs of both kinds are drawn, {with_columns} of 300 have columns");
    }
}
