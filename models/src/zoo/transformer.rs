//! A block of a language model, made from a seed: what GPT-2 has twelve of.
//!
//! `x + attention(norm(x))`, then `x + project(gelu(expand(norm(x))))`, with the operators, in the order, that PyTorch's
//! exporters write for it: packed projections, a causal mask by `Where`, GELU by tanh in eight operators.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::constant::Constant;
use crate::graph::wrap;
use crate::proto::{self, DataType, GraphProto, NodeProto, Value, set_attribute, value_info};

/// Sizes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transformer {
    pub(super) heads: u64,
    /// Features of a token; a multiple of `heads`.
    pub(super) width: u64,
    /// Tokens.
    pub(super) length: u64,
}

impl Transformer {
    /// One block of GPT-2 (124 million parameters) on 64 tokens.
    pub(super) const GPT2: Self = Self { heads: 12, width: 768, length: 64 };

    pub(super) fn about(self) -> String {
        let Self { heads, width, length } = self;
        format!("benchmark with random weights: a block of GPT-2, {heads} heads, {width} features, {length} tokens")
    }

    /// The bytes of the ONNX file; weights are uniform in +-1/sqrt(fan-in), drawn from `seed`.
    pub(super) fn onnx(self, seed: u64, ir_version: i64, opset: i64) -> Vec<u8> {
        let mut block = Block {
            sizes: self,
            rng: ChaCha20Rng::seed_from_u64(seed),
            graph: GraphProto { name: "gpt2block".to_owned(), ..GraphProto::default() },
        };
        let shape = [1, self.length, self.width];
        block.graph.input.push(value_info("input", DataType::Float, &shape));
        let attended = block.attention("input");
        let seen = block.node("Add", "residual1", &["input", &attended], vec![]);
        let fed = block.feed_forward(&seen);
        let last = block.node("Add", "residual2", &[&seen, &fed], vec![]);
        let node = block.graph.node.last_mut().expect("a node was just added");
        node.output = vec!["output".to_owned()];
        debug_assert_eq!(last, "residual2_out");
        block.graph.output.push(value_info("output", DataType::Float, &shape));
        proto::encode_model(&wrap(block.graph, ir_version, opset))
    }
}

struct Block {
    sizes: Transformer,
    rng: ChaCha20Rng,
    graph: GraphProto,
}

impl Block {
    fn attention(&mut self, input: &str) -> String {
        let Transformer { heads, width, length } = self.sizes;
        let normed = self.norm("ln_1", input);
        let packed = self.linear("attn/c_attn", &normed, width, 3 * width);
        let thirds = ["query", "key", "value"].map(|part| format!("attn/{part}"));
        let mut split = NodeProto {
            name: "attn/split".to_owned(),
            op_type: "Split".to_owned(),
            input: vec![packed],
            output: thirds.to_vec(),
            ..NodeProto::default()
        };
        set_attribute(&mut split, "axis", Value::Int(2));
        self.graph.node.push(split);
        let by_head = self.integers("attn/by_head", &[1, length, heads, width / heads]);
        let [query, key, value] = [(0, [0, 2, 1, 3]), (1, [0, 2, 3, 1]), (2, [0, 2, 1, 3])].map(|(part, order)| {
            let viewed = self.node("Reshape", &format!("attn/view{part}"), &[&thirds[part], &by_head], vec![]);
            let order = ("perm", Value::Ints(order.to_vec()));
            self.node("Transpose", &format!("attn/permute{part}"), &[&viewed], vec![order])
        });
        let scores = self.node("MatMul", "attn/scores", &[&query, &key], vec![]);
        let root = self.number("attn/root", (width as f32 / heads as f32).sqrt());
        let scaled = self.node("Div", "attn/scale", &[&scores, &root], vec![]);
        let seen = (0..length).flat_map(|row| (0..length).map(move |column| u8::from(column <= row))).collect();
        let seen = self.constant("attn/seen", DataType::Bool, vec![1, 1, length, length], seen);
        let hidden = self.number("attn/hidden", f32::MIN);
        let masked = self.node("Where", "attn/mask", &[&seen, &scaled, &hidden], vec![]);
        let shares = self.node("Softmax", "attn/softmax", &[&masked], vec![("axis", Value::Int(-1))]);
        let mixed = self.node("MatMul", "attn/mix", &[&shares, &value], vec![]);
        let order = ("perm", Value::Ints(vec![0, 2, 1, 3]));
        let together = self.node("Transpose", "attn/permute", &[&mixed], vec![order]);
        let flat = self.integers("attn/flat", &[1, length, width]);
        let joined = self.node("Reshape", "attn/view", &[&together, &flat], vec![]);
        self.linear("attn/c_proj", &joined, width, width)
    }

    fn feed_forward(&mut self, input: &str) -> String {
        let width = self.sizes.width;
        let normed = self.norm("ln_2", input);
        let hidden = self.linear("mlp/c_fc", &normed, width, 4 * width);
        let active = self.gelu(&hidden);
        self.linear("mlp/c_proj", &active, 4 * width, width)
    }

    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`
    fn gelu(&mut self, x: &str) -> String {
        let [half, one, three] = [0.5, 1.0, 3.0].map(|value| self.number(&format!("mlp/act/{value}"), value));
        let cubic = self.number("mlp/act/cubic", 0.044_715);
        let root = self.number("mlp/act/root", std::f32::consts::FRAC_2_PI.sqrt());
        let halved = self.node("Mul", "mlp/act/halve", &[x, &half], vec![]);
        let cube = self.node("Pow", "mlp/act/cube", &[x, &three], vec![]);
        let scaled = self.node("Mul", "mlp/act/scale", &[&cube, &cubic], vec![]);
        let sum = self.node("Add", "mlp/act/sum", &[x, &scaled], vec![]);
        let argument = self.node("Mul", "mlp/act/argument", &[&sum, &root], vec![]);
        let bent = self.node("Tanh", "mlp/act/tanh", &[&argument], vec![]);
        let raised = self.node("Add", "mlp/act/raise", &[&bent, &one], vec![]);
        self.node("Mul", "mlp/act/gate", &[&halved, &raised], vec![])
    }

    fn norm(&mut self, name: &str, input: &str) -> String {
        let width = self.sizes.width;
        let weight = self.drawn(&format!("{name}.weight"), vec![width], 1.0, 0.2);
        let bias = self.drawn(&format!("{name}.bias"), vec![width], 0.0, 0.1);
        let attributes = vec![("axis", Value::Int(-1)), ("epsilon", Value::Float(1e-5))];
        self.node("LayerNormalization", name, &[input, &weight, &bias], attributes)
    }

    fn linear(&mut self, name: &str, input: &str, from: u64, to: u64) -> String {
        let reach = 1.0 / (from as f32).sqrt();
        let weight = self.drawn(&format!("{name}.weight"), vec![from, to], 0.0, reach);
        let bias = self.drawn(&format!("{name}.bias"), vec![to], 0.0, reach);
        let product = self.node("MatMul", &format!("{name}/matmul"), &[input, &weight], vec![]);
        self.node("Add", &format!("{name}/add"), &[&product, &bias], vec![])
    }

    fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attributes: Vec<(&str, Value)>) -> String {
        let output = format!("{name}_out");
        let mut node = NodeProto {
            name: name.to_owned(),
            op_type: operator.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.clone()],
            ..NodeProto::default()
        };
        attributes.into_iter().for_each(|(name, value)| set_attribute(&mut node, name, value));
        self.graph.node.push(node);
        output
    }

    /// Trained values, uniform in `centre - reach .. centre + reach`.
    fn drawn(&mut self, name: &str, shape: Vec<u64>, centre: f32, reach: f32) -> String {
        let count: u64 = shape.iter().product();
        let draw = |_| (centre + self.rng.gen_range(-1.0_f32..1.0) * reach).to_le_bytes();
        let raw = (0..count).flat_map(draw).collect();
        let constant = Constant { data_type: DataType::Float, shape, raw, trained: true };
        self.graph.initializer.push(constant.to_proto(name));
        name.to_owned()
    }

    fn number(&mut self, name: &str, value: f32) -> String {
        self.constant(name, DataType::Float, vec![], value.to_le_bytes().to_vec())
    }

    fn integers(&mut self, name: &str, values: &[u64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, DataType::Int64, vec![values.len() as u64], raw)
    }

    /// A Constant node rather than an initializer, so that the initializers are exactly the parameters.
    fn constant(&mut self, name: &str, data_type: DataType, shape: Vec<u64>, raw: Vec<u8>) -> String {
        let constant = Constant { data_type, shape, raw, trained: false };
        let output = format!("{name}_out");
        let mut node = NodeProto {
            name: name.to_owned(),
            op_type: "Constant".to_owned(),
            output: vec![output.clone()],
            ..NodeProto::default()
        };
        set_attribute(&mut node, "value", Value::Tensor(Box::new(constant.to_proto(name))));
        self.graph.node.push(node);
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoadOptions, OnnxModel};

    #[test]
    fn a_block_has_the_parameters_of_gpt2s() {
        let sizes = Transformer { heads: 2, width: 8, length: 4 };
        let model = OnnxModel::parse("block", &sizes.onnx(1, 8, 17), &LoadOptions::default()).expect("it is a model");
        assert_eq!(model.parameters(), 12 * 8 * 8 + 13 * 8);
        assert_eq!(model.outputs()[0].shape, [1, 4, 8]);
        let Transformer { width, .. } = Transformer::GPT2;
        assert_eq!(12 * width * width + 13 * width, 7_087_872);
    }
}
