//! From a trace to the vector that is committed to.

use p3_field::PrimeCharacteristicRing;
use shardproof_integer::{CheckedGraph, Op, Trace};

use crate::field::Base;
use crate::layout::{Columns, Digit, Layout, TableKind};
use crate::requant::Requant;
use crate::rounding;

/// The committed vector of `trace`, padded with zeros.
pub(crate) fn stack(graph: &CheckedGraph, layout: &Layout, trace: &Trace) -> Vec<Base> {
    let mut cells = vec![0u64; layout.leaves()];
    let mut stack = vec![Base::ZERO; 1 << layout.variables];
    for (node, columns) in graph.graph().nodes.iter().zip(&layout.nodes) {
        match columns {
            Some(Columns::Requant { low, high, sign }) => {
                let columns = Requant::new(&node.op, low, high, *sign);
                write_digits(&columns, trace.tensor(columns.input), &mut cells);
            }
            Some(Columns::Table { argument, result }) => {
                let Op::Table { input, table } = node.op else { continue };
                let table = &graph.graph().tables[table.0 as usize];
                let lowest = 1i64 << (table.bits - 1);
                for (i, &value) in trace.tensor(input).iter().enumerate() {
                    let row = value + lowest;
                    // Rows count up from the lowest argument; the cell itself holds the argument.
                    cells[argument + i] = row as u64;
                    stack[result + i] = Base::from_i64(table.values[row as usize].into());
                }
            }
            Some(Columns::Max { difference, chosen }) => {
                let Op::Max { input } = node.op else { continue };
                let length = graph.shape(input).last().copied().unwrap_or(1);
                write_max(difference, *chosen, trace.tensor(input), length, &mut cells);
            }
            Some(Columns::Divide { quotient, remainder, rest }) => {
                let Op::Divide { numerator, denominator, bits } = node.op else { continue };
                let pairs = trace.tensor(numerator).iter().zip(trace.tensor(denominator));
                let numbers = pairs.map(|(&x, &d)| rounding::divide(x, d, bits));
                write_numbers([quotient, remainder, rest], numbers, &mut cells);
            }
            Some(Columns::Sqrt { root, remainder, rest }) => {
                let Op::Sqrt { input, .. } = node.op else { continue };
                let numbers = trace.tensor(input).iter().map(|&x| rounding::root(x));
                write_numbers([root, remainder, rest], numbers, &mut cells);
            }
            None => {}
        }
    }
    count_rows(layout, &mut cells);
    stack.iter_mut().zip(&cells).for_each(|(cell, &value)| *cell = Base::from_u64(value));
    restore_arguments(graph, layout, &cells, &mut stack);
    stack
}

fn write_digits(columns: &Requant<'_>, accumulators: &[i64], cells: &mut [u64]) {
    for (i, &accumulator) in accumulators.iter().enumerate() {
        let (low, high, sign) = columns.split(accumulator);
        write_number(columns.low, i, low, cells);
        write_number(columns.high, i, high, cells);
        write_number(columns.sign.as_slice(), i, sign, cells);
    }
}

/// Writes the digits of element `i` of a group of columns.
fn write_number(digits: &[Digit], i: usize, value: u64, cells: &mut [u64]) {
    for digit in digits {
        cells[digit.offset + i] = value >> digit.position & ((1 << digit.width) - 1);
    }
}

/// Writes the elements of several groups of columns.
fn write_numbers<const N: usize>(groups: [&Vec<Digit>; N], numbers: impl Iterator<Item = [u64; N]>, cells: &mut [u64]) {
    for (i, numbers) in numbers.enumerate() {
        groups.iter().zip(numbers).for_each(|(digits, number)| write_number(digits, i, number, cells));
    }
}

/// Writes what each of `length` values of a row lacks to the largest, and which one is chosen: the first of the largest.
fn write_max(difference: &[Digit], chosen: Digit, values: &[i64], length: usize, cells: &mut [u64]) {
    for (row, values) in values.chunks_exact(length).enumerate() {
        let largest = values.iter().copied().fold(i64::MIN, i64::max);
        let first = values.iter().position(|&value| value == largest);
        for (j, value) in values.iter().enumerate() {
            let i = row * length + j;
            write_number(difference, i, largest.wrapping_sub(*value) as u64, cells);
            write_number(&[chosen], i, u64::from(Some(j) == first), cells);
        }
    }
}

/// Counts how often each row of each table is looked up.
fn count_rows(layout: &Layout, cells: &mut [u64]) {
    let looked_up = layout.lookups.last().map_or(0, |lookup| lookup.cells.end);
    let (values, counts) = cells.split_at_mut(looked_up);
    for lookup in &layout.lookups {
        let first = layout.tables[lookup.table].cells.start - looked_up;
        values[lookup.cells.clone()].iter().for_each(|&row| counts[first + row as usize] += 1);
    }
}

/// Cells of function tables hold arguments, which may be negative, and not rows.
fn restore_arguments(graph: &CheckedGraph, layout: &Layout, cells: &[u64], stack: &mut [Base]) {
    for lookup in &layout.lookups {
        let TableKind::Function(table) = layout.tables[lookup.table].kind else { continue };
        let lowest = 1i64 << (graph.graph().tables[table.0 as usize].bits - 1);
        for cell in lookup.cells.clone() {
            stack[cell] = Base::from_i64(cells[cell] as i64 - lowest);
        }
    }
}
