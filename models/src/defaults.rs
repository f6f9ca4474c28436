//! Makes explicit what a node leaves to ONNX's defaults, and turns automatic padding into numbers.
//!
//! Proof systems read attributes as they stand and refuse a node that leaves one out; onnxruntime and the float engine
//! give the same results either way.

use crate::proto::{NodeProto, Value, attribute, int_of, ints_of, set_attribute, text_of};

/// Attribute, first operator set that has it, and its default.
type Default = (&'static str, i64, Value);

/// Writes the defaults of `node` in operator set `opset`; `shape(i)` is the shape of its input `i`, if it has one.
pub(crate) fn make_explicit(node: &mut NodeProto, opset: i64, shape: &dyn Fn(usize) -> Option<Vec<u64>>) {
    let rank = shape(0).map_or(0, |dims| dims.len());
    for (name, since, default) in windows(node, shape).into_iter().chain(plain(&node.op_type, opset, rank)) {
        if opset >= since && attribute(node, name).is_none() {
            set_attribute(node, name, default);
        }
    }
    resolve_auto_pad(node, shape);
    // Names in alphabetical order, so that equal nodes have equal bytes.
    node.attribute.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Defaults of convolutions and poolings, whose lengths follow from the number of spatial axes.
fn windows(node: &NodeProto, shape: &dyn Fn(usize) -> Option<Vec<u64>>) -> Vec<Default> {
    let convolution = matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "ConvInteger");
    if !convolution && !matches!(node.op_type.as_str(), "MaxPool" | "AveragePool" | "LpPool") {
        return Vec::new();
    }
    let from_weights = || shape(1).and_then(|dims| Some(dims.get(2..)?.iter().map(|&d| d as i64).collect::<Vec<_>>()));
    let written = ints_of(node, "kernel_shape").map(<[i64]>::to_vec);
    let Some(kernel) = written.or_else(|| if convolution { from_weights() } else { None }) else {
        return Vec::new();
    };
    let spatial = kernel.len();
    let each = |value: i64, count: usize| Value::Ints(vec![value; count]);
    let mut defaults = vec![("strides", 1, each(1, spatial)), ("auto_pad", 1, Value::Text("NOTSET"))];
    let automatic = text_of(node, "auto_pad").is_some_and(|mode| mode != "NOTSET");
    let sized_output = attribute(node, "output_shape").is_some();
    if !automatic && !sized_output {
        defaults.push(("pads", 1, each(0, 2 * spatial)));
    }
    match node.op_type.as_str() {
        "MaxPool" => {
            defaults.extend([
                ("dilations", 10, each(1, spatial)),
                ("ceil_mode", 10, Value::Int(0)),
                ("storage_order", 8, Value::Int(0)),
            ]);
        }
        "AveragePool" => {
            defaults.extend([
                ("ceil_mode", 10, Value::Int(0)),
                ("count_include_pad", 7, Value::Int(0)),
                ("dilations", 19, each(1, spatial)),
            ]);
        }
        "LpPool" => defaults.extend([
            ("p", 2, Value::Int(2)),
            ("ceil_mode", 18, Value::Int(0)),
            ("dilations", 18, each(1, spatial)),
        ]),
        operator => {
            defaults.extend([("dilations", 1, each(1, spatial)), ("group", 1, Value::Int(1))]);
            defaults.push(("kernel_shape", 1, Value::Ints(kernel)));
            if operator == "ConvTranspose" {
                defaults.push(("output_padding", 1, each(0, spatial)));
            }
        }
    }
    defaults
}

/// Defaults that depend on nothing but the operator, the operator set and the first input's rank.
fn plain(operator: &str, opset: i64, rank: usize) -> Vec<Default> {
    use Value::{Float, Int, Ints, Text};
    let all_axes = || Ints((0..rank as i64).collect());
    match operator {
        "Gemm" => vec![("alpha", 1, Float(1.0)), ("beta", 1, Float(1.0)), ("transA", 1, Int(0)), ("transB", 1, Int(0))],
        "Flatten" => vec![("axis", 1, Int(1))],
        "Softmax" | "LogSoftmax" | "Hardmax" => vec![("axis", 1, Int(if opset < 13 { 1 } else { -1 }))],
        "LayerNormalization" => vec![("axis", 17, Int(-1)), ("epsilon", 17, Float(1e-5)), ("stash_type", 17, Int(1))],
        "GroupNormalization" => vec![("epsilon", 18, Float(1e-5)), ("stash_type", 21, Int(1))],
        "InstanceNormalization" => vec![("epsilon", 1, Float(1e-5))],
        "BatchNormalization" => {
            vec![("epsilon", 1, Float(1e-5)), ("momentum", 1, Float(0.9)), ("training_mode", 14, Int(0))]
        }
        "LpNormalization" => vec![("axis", 1, Int(-1)), ("p", 1, Int(2))],
        "MeanVarianceNormalization" => vec![("axes", 9, Ints(vec![0, 2, 3]))],
        "LRN" => vec![("alpha", 1, Float(1e-4)), ("beta", 1, Float(0.75)), ("bias", 1, Float(1.0))],
        "LeakyRelu" => vec![("alpha", 1, Float(0.01))],
        "Elu" | "Celu" | "ThresholdedRelu" => vec![("alpha", 1, Float(1.0))],
        "Selu" => vec![("alpha", 1, Float(1.673_263_2)), ("gamma", 1, Float(1.050_701))],
        "HardSigmoid" => vec![("alpha", 1, Float(0.2)), ("beta", 1, Float(0.5))],
        "Shrink" => vec![("bias", 9, Float(0.0)), ("lambd", 9, Float(0.5))],
        "Gelu" => vec![("approximate", 20, Text("none"))],
        "Transpose" => vec![("perm", 1, Ints((0..rank as i64).rev().collect()))],
        "Gather" | "GatherElements" => vec![("axis", 1, Int(0))],
        "GatherND" => vec![("batch_dims", 12, Int(0))],
        "ScatterElements" => vec![("axis", 1, Int(0)), ("reduction", 16, Text("none"))],
        "ScatterND" => vec![("reduction", 16, Text("none"))],
        "Split" => vec![("axis", 1, Int(0))],
        "ArgMax" | "ArgMin" => vec![("axis", 1, Int(0)), ("keepdims", 1, Int(1)), ("select_last_index", 12, Int(0))],
        "ReduceSum" if opset >= 13 => vec![("keepdims", 1, Int(1)), ("noop_with_empty_axes", 13, Int(0))],
        reduce if reduce.starts_with("Reduce") && opset >= 18 => {
            vec![("keepdims", 1, Int(1)), ("noop_with_empty_axes", 18, Int(0))]
        }
        reduce if reduce.starts_with("Reduce") => vec![("keepdims", 1, Int(1)), ("axes", 1, all_axes())],
        "Reshape" => vec![("allowzero", 14, Int(0))],
        "Pad" => vec![("mode", 1, Text("constant"))],
        "CumSum" => vec![("exclusive", 11, Int(0)), ("reverse", 11, Int(0))],
        "Mod" => vec![("fmod", 10, Int(0))],
        "TopK" => vec![("axis", 1, Int(-1)), ("largest", 11, Int(1)), ("sorted", 11, Int(1))],
        "OneHot" => vec![("axis", 9, Int(-1))],
        "Trilu" => vec![("upper", 14, Int(1))],
        "DepthToSpace" => vec![("mode", 11, Text("DCR"))],
        "QuantizeLinear" | "DequantizeLinear" => vec![("axis", 13, Int(1))],
        "Resize" => vec![
            ("mode", 10, Text("nearest")),
            ("coordinate_transformation_mode", 11, Text("half_pixel")),
            ("nearest_mode", 11, Text("round_prefer_floor")),
            ("cubic_coeff_a", 11, Float(-0.75)),
            ("exclude_outside", 11, Int(0)),
            ("extrapolation_value", 11, Float(0.0)),
        ],
        "LSTM" | "GRU" | "RNN" => vec![("direction", 1, Text("forward")), ("layout", 14, Int(0))],
        _ => Vec::new(),
    }
}

/// Replaces `SAME_UPPER`, `SAME_LOWER` and `VALID` by the padding that they stand for.
fn resolve_auto_pad(node: &mut NodeProto, shape: &dyn Fn(usize) -> Option<Vec<u64>>) {
    let upper = match text_of(node, "auto_pad") {
        Some("SAME_UPPER") => Some(true),
        Some("SAME_LOWER") => Some(false),
        Some("VALID") => None,
        _ => return,
    };
    let resolved = (|| {
        let kernel = ints_of(node, "kernel_shape")?;
        let strides = ints_of(node, "strides")?;
        let spatial = shape(0)?.get(2..)?.to_vec();
        let dilations = ints_of(node, "dilations").map_or_else(|| vec![1; kernel.len()], <[i64]>::to_vec);
        if kernel.len() != spatial.len() || strides.len() != spatial.len() || dilations.len() != spatial.len() {
            return None;
        }
        let Some(upper) = upper else { return Some(vec![0; 2 * kernel.len()]) };
        let extra = ints_of(node, "output_padding").unwrap_or(&[]);
        let mut pads = vec![0; 2 * kernel.len()];
        for axis in 0..kernel.len() {
            let (size, stride) = (spatial[axis] as i64, strides[axis]);
            let reach = kernel[axis].checked_sub(1)?.checked_mul(dilations[axis])?.checked_add(1)?;
            if stride < 1 {
                return None;
            }
            let total = if node.op_type == "ConvTranspose" {
                // The output has size * stride elements, so the padding is what the kernel reaches beyond the stride.
                let total = reach.checked_sub(stride)?.checked_add(extra.get(axis).copied().unwrap_or(0))?;
                (total >= 0).then_some(total)?
            } else {
                let outputs = size.checked_add(stride - 1)? / stride;
                outputs.checked_sub(1)?.checked_mul(stride)?.checked_add(reach)?.checked_sub(size)?
            };
            let total = total.max(0);
            let (small, large) = (total / 2, total - total / 2);
            pads[axis] = if upper { small } else { large };
            pads[kernel.len() + axis] = if upper { large } else { small };
        }
        Some(pads)
    })();
    // An output shape given with automatic padding fixes the padding in its own way and stays as it is.
    if let Some(pads) = resolved.filter(|_| attribute(node, "output_shape").is_none()) {
        set_attribute(node, "pads", Value::Ints(pads));
        set_attribute(node, "auto_pad", Value::Text("NOTSET"));
    }
}

/// Whether the node asks for behaviour of training instead of inference, as far as its attributes say.
pub(crate) fn trains(node: &NodeProto) -> bool {
    node.op_type == "BatchNormalization" && int_of(node, "training_mode") == Some(1)
}
