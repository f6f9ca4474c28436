//! Whether trained values belong to a graph.

#[cfg(test)]
mod tests;

use crate::check::CheckedGraph;
use crate::error::{Site, WeightsError};
use crate::graph::Weights;

impl Weights {
    /// Checks count, lengths and declared bounds.
    ///
    /// # Errors
    /// The first cause to refuse them; see [`WeightsError`].
    pub fn check(&self, graph: &CheckedGraph) -> Result<(), WeightsError> {
        let graph = graph.graph();
        if self.0.len() != graph.weights.len() {
            return Err(WeightsError::Count { expected: graph.weights.len(), found: self.0.len() });
        }
        for (index, (declared, values)) in graph.weights.iter().zip(&self.0).enumerate() {
            let expected = declared.shape.iter().product();
            if values.len() != expected {
                let site = Site::weight(graph, index);
                return Err(WeightsError::Length { site, expected, found: values.len() });
            }
            let bits = declared.bits;
            if let Some(place) = values.iter().position(|value| value.unsigned_abs() > 1 << bits) {
                let site = Site::weight(graph, index);
                return Err(WeightsError::Bound { site, index: place, value: values[place], bits });
            }
        }
        Ok(())
    }
}
