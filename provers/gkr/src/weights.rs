//! Where the weights lie in the one vector that is committed to.
//!
//! A weight is a matrix of its first axis by all others, or of one column where claims on it are not products of a vector
//! over rows and one over columns: in grouped convolutions. Rows are padded to a power of two and packed without gaps, so that
//! a claim that is a product of a vector over rows and one over columns is evaluated anywhere in time linear in both. Each
//! weight is stored as it is or transposed, whichever is smaller; weights with longer rows come first, so that every row is
//! aligned to its own length.

use shardproof_integer::{CheckedGraph, Op, WeightId};

use crate::claims::WeightClaim;
use crate::field::Ext;
use crate::functional::Term;
use crate::mle::{bits_for, dot, eq_prefix, eq_range};
use crate::pcs;

/// The places of a graph's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeightLayout {
    places: Vec<Place>,
    /// log2 of the length of the committed vector.
    pub variables: usize,
}

/// The place of one weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// First cell.
    pub offset: usize,
    /// Extents of the weight as a matrix: first axis, all others.
    pub matrix: [usize; 2],
    /// Whether the stored rows are the matrix's columns.
    pub transposed: bool,
    /// log2 of the distance of stored rows.
    pub stride_bits: usize,
}

impl Place {
    fn new([rows, columns]: [usize; 2]) -> Self {
        let (plain, transposed) = (rows * columns.next_power_of_two(), columns * rows.next_power_of_two());
        let transpose = transposed < plain;
        let stride_bits = bits_for(if transpose { rows } else { columns });
        Self { offset: 0, matrix: [rows, columns], transposed: transpose, stride_bits }
    }

    /// Number of stored rows and of values in each.
    pub(crate) fn stored(&self) -> [usize; 2] {
        let [rows, columns] = self.matrix;
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }

    fn cells(&self) -> usize {
        self.stored()[0] << self.stride_bits
    }
}

impl WeightLayout {
    /// The layout for a graph's weights.
    pub(crate) fn new(graph: &CheckedGraph) -> Self {
        let mut grouped = vec![false; graph.graph().weights.len()];
        for node in &graph.graph().nodes {
            if let Op::Conv(conv) = &node.op {
                grouped[conv.weight.0 as usize] |= conv.groups > 1;
            }
        }
        let matrices = graph.graph().weights.iter().zip(grouped).map(|(weight, grouped)| {
            let rows = if grouped { weight.shape.len() } else { 1 };
            [weight.shape.iter().take(rows).product(), weight.shape.iter().skip(rows).product()]
        });
        let mut places: Vec<Place> = matrices.map(Place::new).collect();
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(places[index].stride_bits));
        let mut next = 0;
        for index in order {
            places[index].offset = next;
            next += places[index].cells();
        }
        Self { places, variables: bits_for(next).max(pcs::MIN_VARS) }
    }

    /// Cells in use.
    #[cfg(feature = "prover")]
    pub(crate) fn cells(&self) -> usize {
        self.places.iter().map(|place| place.offset + place.cells()).max().unwrap_or(0)
    }

    /// The place of a weight.
    pub(crate) fn place(&self, weight: WeightId) -> Place {
        self.places[weight.0 as usize]
    }

    /// The multilinear extension of a claim's coefficients in the committed vector, at `point`.
    pub(crate) fn coefficient_at(&self, claim: &WeightClaim, point: &[Ext]) -> Ext {
        let place = self.place(claim.weight);
        let (high, low) = point.split_at(point.len() - place.stride_bits);
        let [rows, columns] = place.stored();
        let row_weights = eq_range(high, place.offset >> place.stride_bits, rows);
        let column_weights = eq_prefix(low, columns);
        let (first, second) =
            if place.transposed { (&column_weights, &row_weights) } else { (&row_weights, &column_weights) };
        let at = |term: &Term| {
            let factors =
                term.per_axis(&place.matrix).expect("claims on weights have a factor for rows and one for columns");
            dot(&factors[0], first) * dot(&factors[1], second)
        };
        claim.functional.terms.iter().map(at).sum()
    }
}
