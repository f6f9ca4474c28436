//! Constants that take scores out of a softmax: `-inf`, or a number so low that its exponential is zero.
//!
//! An infinite constant anywhere else would make an answer of infinities or of nothing, so a model that has one is refused.
//! What a mask was added to means scores for the softmax that follows, and no integers at any scale: it never crosses a
//! boundary.

use std::collections::HashSet;

use crate::constant::Constant;
use crate::error::ModelError;
use crate::graph::Graph;
use crate::proto::DataType;

/// A constant that is at most this masks what it is added to: its exponential is zero beside that of any score that
/// integers hold.
pub(crate) const MASKED: f64 = -1e4;

/// Refuses constants that are not finite, but for `-inf` where it may be a mask: as an operand of `Add` or `Where`.
pub(crate) fn check(graph: &Graph) -> Result<(), ModelError> {
    let may_mask: HashSet<&str> = graph.nodes.iter().filter(|node| adds(&node.op_type)).flat_map(operands).collect();
    let others = graph.nodes.iter().filter(|node| !adds(&node.op_type)).flat_map(operands);
    let others: HashSet<&str> = others.collect();
    for (name, constant) in &graph.constants {
        let masks = may_mask.contains(name.as_str()) && !others.contains(name.as_str());
        if let Some((index, value)) = constant.first_non_finite(masks) {
            return Err(ModelError::NonFinite { tensor: name.clone(), index, value });
        }
    }
    Ok(())
}

/// The tensors that a mask was added to.
pub(crate) fn masked(graph: &Graph) -> HashSet<&str> {
    let masks = |name: &str| graph.constants.get(name).is_some_and(is_mask);
    let nodes = graph.nodes.iter().filter(|node| adds(&node.op_type) && operands(node).any(masks));
    nodes.flat_map(|node| node.output.iter().map(String::as_str)).collect()
}

fn adds(operator: &str) -> bool {
    matches!(operator, "Add" | "Where")
}

fn operands(node: &crate::proto::NodeProto) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str)
}

/// Whether some element takes away what it is added to.
fn is_mask(constant: &Constant) -> bool {
    let low = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().expect("chunks of this length"))) <= MASKED;
    constant.data_type == DataType::Float && constant.raw.chunks_exact(4).any(low)
}
