//! Models for measuring speed, made from a seed instead of stored: their weights are uniform in +-1/sqrt(fan-in), as those
//! of layers before training are.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::transformer::Transformer;
use crate::constant::Constant;
use crate::graph::wrap;
use crate::proto::{self, DataType, GraphProto, NodeProto, Value, set_attribute, value_info};

/// Names for lists; the last two stand for families.
pub(super) const NAMES: [&str; 6] = ["mlp784", "cnn264k", "dense4m", "gpt2block", "mlp:DEPTH,WIDTH", "cnn:SHAPE,WIDTH"];
/// Every model draws its weights from this seed.
const SEED: u64 = 0x7368_6172_6470_726f;
/// Most parameters of a model of a family.
const MAX_PARAMETERS: u64 = 1 << 27;
/// Inputs and outputs of the models of the family `mlp`.
const MLP_ENDS: (u64, u64) = (16, 10);
/// Inputs of the models of the family `cnn`: `[batch, channels, height, width]` by the name of the data set that has them.
const CNN_SHAPES: [(&str, [u64; 4]); 2] = [("mnist", [1, 1, 28, 28]), ("cifar10", [1, 3, 32, 32])];
/// Classes that the models of the family `cnn` tell apart.
const CNN_CLASSES: u64 = 10;
/// Extent of the kernels of the family `cnn`.
const CNN_KERNEL: u64 = 5;
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// One step of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// To this many features, with bias.
    Dense(u64),
    /// To this many channels by square kernels of this extent, with bias and without padding.
    Conv(u64, u64),
    /// Maxima of 2 x 2.
    Pool,
    Relu,
    Flatten,
}

/// How a benchmark model is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    Chain(Chain),
    Transformer(Transformer),
}

/// One step after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    input: Vec<u64>,
    steps: Vec<Step>,
}

impl Recipe {
    /// The recipe of a benchmark model, of `mlp:DEPTH,WIDTH`, or of `cnn:SHAPE,WIDTH`.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "gpt2block" => Some(Self::Transformer(Transformer::GPT2)),
            _ => Chain::named(name).map(Self::Chain),
        }
    }

    /// One line about it.
    pub(super) fn about(&self) -> String {
        match self {
            Self::Chain(chain) => chain.about(),
            Self::Transformer(transformer) => transformer.about(),
        }
    }

    /// The bytes of the ONNX file.
    pub(super) fn onnx(&self) -> Vec<u8> {
        match self {
            Self::Chain(chain) => chain.onnx(),
            Self::Transformer(transformer) => transformer.onnx(SEED, IR_VERSION, OPSET),
        }
    }
}

impl Chain {
    fn named(name: &str) -> Option<Self> {
        match name {
            "mlp784" => Some(Self { input: vec![1, 784], steps: dense(&[500, 250, 100, 50, 10, 1]) }),
            "cnn264k" => {
                let convolutions = [
                    Step::Conv(12, 5),
                    Step::Relu,
                    Step::Pool,
                    Step::Conv(33, 5),
                    Step::Relu,
                    Step::Pool,
                    Step::Flatten,
                ];
                let steps = convolutions.into_iter().chain(dense(&[251, 175, 10])).collect();
                Some(Self { input: vec![1, 3, 32, 32], steps })
            }
            "dense4m" => {
                let mut steps = dense(&[1000, 1000, 1000, 1000, 1000, 3]);
                steps.push(Step::Relu);
                Some(Self { input: vec![1, 4], steps })
            }
            _ => match name.split_once(':')? {
                ("mlp", parameters) => Self::mlp(parameters),
                ("cnn", parameters) => Self::cnn(parameters),
                _ => None,
            },
        }
    }

    /// `DEPTH,WIDTH`: DEPTH dense layers of WIDTH features with ReLU after each but the last, which has 10.
    fn mlp(parameters: &str) -> Option<Self> {
        let (depth, width) = parameters.split_once(',')?;
        let (depth, width): (usize, u64) = (depth.parse().ok()?, width.parse().ok()?);
        let largest = width.max(MLP_ENDS.0).checked_add(1)?.checked_mul(width.max(MLP_ENDS.1))?;
        let fits = largest.checked_mul(depth as u64).is_some_and(|most| most <= MAX_PARAMETERS);
        if depth == 0 || width == 0 || !fits {
            return None;
        }
        let mut features = vec![width; depth];
        features[depth - 1] = MLP_ENDS.1;
        Some(Self { input: vec![1, MLP_ENDS.0], steps: dense(&features) })
    }

    /// `SHAPE,WIDTH`: WIDTH and then twice as many channels by kernels of 5 x 5, each with ReLU and maxima of 2 x 2, then
    /// 10 WIDTH features with ReLU, then 10. SHAPE is `mnist` or `cifar10`.
    fn cnn(parameters: &str) -> Option<Self> {
        let (shape, width) = parameters.split_once(',')?;
        let input = CNN_SHAPES.iter().find(|(name, _)| *name == shape)?.1;
        let width: u64 = width.parse().ok().filter(|&width| width > 0)?;
        let (channels, features) = (width.checked_mul(2)?, width.checked_mul(10)?);
        let [_, depth, height, breadth] = input;
        let convolved = |extent: u64| extent - (CNN_KERNEL - 1);
        let left = |extent: u64| convolved(convolved(extent) / 2) / 2;
        let layer = |inputs: u64, outputs: u64| inputs.checked_add(1)?.checked_mul(outputs);
        let flat = channels.checked_mul(left(height) * left(breadth))?;
        let kernel = CNN_KERNEL * CNN_KERNEL;
        let layers = [
            layer(depth * kernel, width),
            layer(width.checked_mul(kernel)?, channels),
            layer(flat, features),
            layer(features, CNN_CLASSES),
        ];
        let parameters = layers.into_iter().try_fold(0u64, |sum, layer| sum.checked_add(layer?))?;
        if parameters > MAX_PARAMETERS {
            return None;
        }
        let convolution = |channels| [Step::Conv(channels, CNN_KERNEL), Step::Relu, Step::Pool];
        let steps = [convolution(width), convolution(channels)].concat().into_iter();
        let steps = steps.chain([Step::Flatten]).chain(dense(&[features, CNN_CLASSES])).collect();
        Some(Self { input: input.to_vec(), steps })
    }

    fn about(&self) -> String {
        let layers = self.steps.iter().filter(|step| matches!(step, Step::Dense(_) | Step::Conv(..))).count();
        format!("benchmark with random weights: {layers} layers on inputs of shape {:?}", self.input)
    }

    fn onnx(&self) -> Vec<u8> {
        let mut writer = Writer {
            rng: ChaCha20Rng::seed_from_u64(SEED),
            graph: GraphProto { name: "benchmark".to_owned(), ..GraphProto::default() },
            tensor: "input".to_owned(),
            shape: self.input.clone(),
            counts: [0; 5],
        };
        writer.graph.input.push(value_info("input", DataType::Float, &self.input));
        for (index, &step) in self.steps.iter().enumerate() {
            writer.step(step, index + 1 == self.steps.len());
        }
        writer.graph.output.push(value_info("output", DataType::Float, &writer.shape));
        proto::encode_model(&wrap(writer.graph, IR_VERSION, OPSET))
    }
}

/// Dense layers with ReLU between.
fn dense(features: &[u64]) -> Vec<Step> {
    let mut steps: Vec<Step> = features.iter().flat_map(|&count| [Step::Dense(count), Step::Relu]).collect();
    steps.pop();
    steps
}

struct Writer {
    rng: ChaCha20Rng,
    graph: GraphProto,
    /// What the next step reads.
    tensor: String,
    shape: Vec<u64>,
    /// Steps of each kind so far.
    counts: [usize; 5],
}

impl Writer {
    fn step(&mut self, step: Step, last: bool) {
        let (kind, prefix, operator) = match step {
            Step::Dense(_) => (0, "fc", "Gemm"),
            Step::Conv(..) => (1, "conv", "Conv"),
            Step::Pool => (2, "pool", "MaxPool"),
            Step::Relu => (3, "relu", "Relu"),
            Step::Flatten => (4, "flatten", "Flatten"),
        };
        self.counts[kind] += 1;
        let name = format!("{prefix}{}", self.counts[kind]);
        let output = if last { "output".to_owned() } else { format!("{name}_out") };
        let mut node = NodeProto {
            name: name.clone(),
            op_type: operator.to_owned(),
            input: vec![std::mem::replace(&mut self.tensor, output.clone())],
            output: vec![output],
            ..NodeProto::default()
        };
        match step {
            Step::Dense(features) => {
                let depth = self.shape[1];
                node.input.extend(self.parameters(&name, vec![features, depth], depth));
                set_attribute(&mut node, "transB", Value::Int(1));
                self.shape[1] = features;
            }
            Step::Conv(channels, kernel) => {
                let depth = self.shape[1];
                node.input.extend(self.parameters(
                    &name,
                    vec![channels, depth, kernel, kernel],
                    depth * kernel * kernel,
                ));
                self.shape = vec![self.shape[0], channels, self.shape[2] - kernel + 1, self.shape[3] - kernel + 1];
            }
            Step::Pool => {
                set_attribute(&mut node, "kernel_shape", Value::Ints(vec![2, 2]));
                set_attribute(&mut node, "strides", Value::Ints(vec![2, 2]));
                self.shape[2..].iter_mut().for_each(|extent| *extent /= 2);
            }
            Step::Relu => {}
            Step::Flatten => self.shape = vec![self.shape[0], self.shape[1..].iter().product()],
        }
        self.graph.node.push(node);
    }

    /// Draws weights of `shape` and one bias for each of their rows; their names.
    fn parameters(&mut self, name: &str, shape: Vec<u64>, fan_in: u64) -> [String; 2] {
        let names = [format!("{name}.weight"), format!("{name}.bias")];
        let bias = vec![shape[0]];
        for (tensor, shape) in names.iter().zip([shape, bias]) {
            let limit = 1.0 / (fan_in as f32).sqrt();
            let count: u64 = shape.iter().product();
            let raw = (0..count).flat_map(|_| (self.rng.gen_range(-1.0_f32..1.0) * limit).to_le_bytes()).collect();
            let constant = Constant { data_type: DataType::Float, shape, raw, trained: true };
            self.graph.initializer.push(constant.to_proto(tensor));
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::find;
    use crate::{LoadOptions, ModelSource, OnnxModel};

    fn parameters(name: &str) -> u64 {
        let source = ModelSource::resolve(name).expect("it is a benchmark model");
        OnnxModel::load(&source, &LoadOptions::default()).expect("it can be read").parameters()
    }

    #[test]
    fn benchmark_models_have_their_sizes() {
        assert_eq!(parameters("mlp784"), 548_421);
        assert_eq!(parameters("cnn264k"), 12 * 76 + 33 * 301 + 826 * 251 + 252 * 175 + 176 * 10);
        assert_eq!(parameters("dense4m"), 5 * 1000 + 4 * 1_001_000 + 3 * 1001);
        assert_eq!(parameters("gpt2block"), 7_087_872);
        assert_eq!(parameters("mlp:3,8"), 8 * 17 + 8 * 9 + 10 * 9);
        // 28 -> 24 -> 12 -> 8 -> 4 and 32 -> 28 -> 14 -> 10 -> 5 along each edge.
        assert_eq!(parameters("cnn:mnist,3"), 3 * 26 + 6 * 76 + 30 * (6 * 16 + 1) + 10 * 31);
        assert_eq!(parameters("cnn:cifar10,2"), 2 * 76 + 4 * 51 + 20 * (4 * 25 + 1) + 10 * 21);
    }

    #[test]
    fn equal_names_give_equal_bytes() {
        let recipe = Recipe::named("mlp:2,8").expect("it is of the family");
        assert_eq!(recipe.onnx(), recipe.onnx());
        assert!(std::ptr::eq(find("mlp:2,8").expect("it exists"), find("mlp:2,8").expect("it exists")));
    }

    #[test]
    fn names_outside_the_family_are_no_models() {
        for name in ["mlp:", "mlp:2", "mlp:0,8", "mlp:2,0", "mlp:2,8,3", "mlp:99,99999", "mlp:-1,5", "dense5m"]
            .into_iter()
            .chain(["cnn:", "cnn:mnist", "cnn:mnist,0", "cnn:mnist,2,3", "cnn:imagenet,2", "cnn:cifar10,-1"])
            .chain(["cnn:mnist,700", "cnn:mnist,99999999999999999999", "cnn:mnist,9223372036854775807", "rnn:2,3"])
        {
            assert!(Recipe::named(name).is_none(), "{name}");
        }
    }
}
