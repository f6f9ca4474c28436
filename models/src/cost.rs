//! What a shard costs: operations counted from shapes, and what they come to in a proof system.
//!
//! The counts are exact. Everything named *predicted* is an estimate made before anything is run; the constants of the
//! ezkl estimate are in [`ezkl`], with where each comes from.

pub mod ezkl;
pub mod gkr;
mod spared;

use serde::{Deserialize, Serialize};
use shardproof_common::plan::{BackendKind, BoundaryMode};

use crate::graph::Graph;
use crate::proto::{NodeProto, int_of, ints_of, text_of};
pub(crate) use spared::spared;

/// Operations of a node or a shard, counted from shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    /// Multiplications that are summed up: matrix products, convolutions.
    pub macs: u64,
    /// Values that come out of a multiplication, and so out of scale: integer arithmetic divides them back.
    pub rescales: u64,
    /// Additions and the like, one per element.
    pub arithmetic: u64,
    /// Comparisons with a constant: ReLU, clipping.
    pub comparisons: u64,
    /// Comparisons of two values: max-pooling.
    pub maxima: u64,
    /// Functions of one value that need a table: sigmoid, exponential, roots.
    pub tables: u64,
    /// Elements that are moved without being changed.
    pub moves: u64,
}

impl Operations {
    /// `outputs` sums of `macs` products in all.
    fn products(macs: u64, outputs: u64) -> Self {
        Self { macs, rescales: outputs, ..Self::default() }
    }

    fn each(&self) -> [u64; 7] {
        let Self { macs, rescales, arithmetic, comparisons, maxima, tables, moves } = *self;
        [macs, rescales, arithmetic, comparisons, maxima, tables, moves]
    }

    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let (a, b) = (self.each(), other.each());
        let [macs, rescales, arithmetic, comparisons, maxima, tables, moves] =
            std::array::from_fn(|index| with(a[index], b[index]));
        Self { macs, rescales, arithmetic, comparisons, maxima, tables, moves }
    }

    /// What is left of a sum without one of its parts.
    pub(crate) fn minus(self, part: Self) -> Self {
        self.zip(part, u64::saturating_sub)
    }

    /// All counts, each of them weighed alike.
    pub fn total(&self) -> u64 {
        self.each().into_iter().fold(0, u64::saturating_add)
    }
}

impl std::ops::Add for Operations {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}

impl std::iter::Sum for Operations {
    fn sum<I: Iterator<Item = Self>>(operations: I) -> Self {
        operations.fold(Self::default(), |sum, one| sum + one)
    }
}

/// Counts the operations of one node of a normalised graph.
pub(crate) fn operations(graph: &Graph, node: &NodeProto) -> Operations {
    let elements = |name: &String| graph.shape(name).map_or(0, |shape| shape.iter().product::<u64>());
    let output: u64 = node.output.iter().filter(|name| !name.is_empty()).map(elements).sum();
    let input = node.input.first().map_or(0, elements);
    let shape = |index: usize| node.input.get(index).and_then(|name| graph.shape(name)).unwrap_or(&[]);
    let weights_per_element = || shape(1).iter().skip(1).product::<u64>();
    let none = Operations::default();
    match node.op_type.as_str() {
        "Conv" | "ConvInteger" | "QLinearConv" => {
            Operations::products(output.saturating_mul(weights_per_element()), output)
        }
        "ConvTranspose" => Operations::products(input.saturating_mul(weights_per_element()), output),
        "Gemm" => {
            let inner = shape(0).get(usize::from(int_of(node, "transA") != Some(1)));
            Operations::products(output.saturating_mul(inner.copied().unwrap_or(1)), output)
        }
        "MatMul" | "MatMulInteger" | "QLinearMatMul" => {
            Operations::products(output.saturating_mul(shape(0).last().copied().unwrap_or(1)), output)
        }
        "Einsum" => Operations::products(einsum_products(graph, node).unwrap_or(output), output),
        "LSTM" | "GRU" | "RNN" => recurrent(graph, node),
        "Identity" | "Flatten" | "Reshape" | "Transpose" | "Concat" | "Split" | "Slice" | "Gather"
        | "GatherElements" | "GatherND" | "Squeeze" | "Unsqueeze" | "Expand" | "Tile" | "Pad" | "DepthToSpace"
        | "SpaceToDepth" | "Cast" | "Shape" | "Size" => Operations { moves: output, ..none },
        "Relu" | "LeakyRelu" | "PRelu" | "Abs" | "Sign" | "ThresholdedRelu" | "Floor" | "Ceil" | "Round" => {
            Operations { comparisons: output, ..none }
        }
        "Clip" | "Shrink" | "HardSigmoid" | "HardSwish" => {
            Operations { comparisons: output.saturating_mul(2), arithmetic: output, ..none }
        }
        "Max" | "Min" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "Equal" => {
            Operations { maxima: output, ..none }
        }
        "MaxPool" => Operations { maxima: output.saturating_mul(window(node) - 1), ..none },
        "GlobalMaxPool" | "ReduceMax" | "ReduceMin" | "ArgMax" | "ArgMin" | "TopK" | "Hardmax" => {
            Operations { maxima: input, ..none }
        }
        "AveragePool" => Operations { arithmetic: output.saturating_mul(window(node)), rescales: output, ..none },
        "Softmax" | "LogSoftmax" => {
            // The largest value of each row is subtracted, the exponentials are summed, and each is divided by the sum.
            Operations { maxima: input, arithmetic: input.saturating_mul(3), tables: input, rescales: input, ..none }
        }
        "LayerNormalization"
        | "GroupNormalization"
        | "InstanceNormalization"
        | "RMSNormalization"
        | "MeanVarianceNormalization"
        | "LpNormalization"
        | "LRN" => Operations { arithmetic: input.saturating_mul(6), rescales: input, ..none },
        "Add" | "Sub" | "Neg" | "Sum" | "And" | "Or" | "Xor" | "Not" | "Where" => {
            Operations { arithmetic: output, ..none }
        }
        "Mul" | "BatchNormalization" => Operations { arithmetic: output, rescales: output, ..none },
        "Div" => Operations { arithmetic: output, rescales: output.saturating_mul(2), ..none },
        "Mean" | "ReduceSum" | "ReduceMean" | "ReduceProd" | "ReduceSumSquare" | "ReduceL1" | "ReduceL2"
        | "GlobalAveragePool" | "CumSum" => Operations { arithmetic: input, rescales: output, ..none },
        "Sigmoid" | "Tanh" | "Erf" | "Exp" | "Log" | "Sqrt" => Operations { tables: output, ..none },
        // Whatever is left is a function of its elements: a table, and a value to bring back to scale.
        _ => Operations { tables: output.max(input), rescales: output, ..none },
    }
}

/// Elements under a pooling window.
fn window(node: &NodeProto) -> u64 {
    let extents = ints_of(node, "kernel_shape").unwrap_or(&[]).iter().map(|&extent| extent.max(1) as u64);
    extents.fold(1, u64::saturating_mul)
}

/// Product of the extents of all letters in the equation.
fn einsum_products(graph: &Graph, node: &NodeProto) -> Option<u64> {
    let equation = text_of(node, "equation")?;
    let terms = equation.split("->").next()?.split(',');
    let mut extents = std::collections::BTreeMap::new();
    for (term, name) in terms.zip(&node.input) {
        let letters: Vec<char> = term.chars().filter(|letter| letter.is_alphabetic()).collect();
        let shape = graph.shape(name)?;
        // Letters stand for the last axes when an ellipsis takes the first; its extents are left out.
        let offset = shape.len().checked_sub(letters.len())?;
        extents.extend(letters.into_iter().zip(shape[offset..].iter().copied()));
    }
    Some(extents.values().fold(1, |product: u64, &extent| product.saturating_mul(extent)))
}

/// `[sequence, batch, features]` in, weights `[directions, gates * hidden, features]` and `[.., hidden]`.
fn recurrent(graph: &Graph, node: &NodeProto) -> Operations {
    let elements = |index: usize| {
        node.input.get(index).and_then(|name| graph.shape(name)).map_or(0, |shape| shape.iter().product::<u64>())
    };
    let leading = |index: usize| {
        node.input
            .get(index)
            .and_then(|name| graph.shape(name))
            .map_or(0, |shape| shape.iter().take(2).product::<u64>())
    };
    let steps = leading(0);
    let gates = steps.saturating_mul(leading(1));
    let macs = steps.saturating_mul(elements(1).saturating_add(elements(2)));
    Operations { macs, rescales: gates, arithmetic: gates, tables: gates, ..Operations::default() }
}

/// What one shard is predicted to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// What the planner balances. For ezkl the rows of the circuit, a power of two: time, key and memory follow from
    /// those, not from how many of them are filled. For gkr committed values, weights included. Operations for `float`.
    pub cost: u64,
    /// What the shard needs under ezkl; nothing for other backends.
    pub ezkl: Option<EzklPrediction>,
    /// What the shard needs under gkr; nothing for other backends.
    pub gkr: Option<GkrPrediction>,
}

impl Prediction {
    /// Peak memory of setup and proving, bytes, where the shard is proven.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        self.ezkl.map(|ezkl| ezkl.peak_memory_bytes).or(self.gkr.map(|gkr| gkr.peak_memory_bytes))
    }
}

/// Estimates for one gkr shard; see [`gkr`] for how they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GkrPrediction {
    /// Values that the prover commits to for each run.
    pub witness_values: u64,
    /// Size of a proof with committed weights, bytes.
    pub proof_bytes: u64,
    /// Peak memory of the worker that proves, bytes.
    pub peak_memory_bytes: u64,
}

/// Estimates for one ezkl shard; see [`ezkl`] for how they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EzklPrediction {
    /// Rows that the operations and boundaries fill.
    pub rows: u64,
    /// log2 of the circuit's rows.
    pub logrows: u32,
    /// Size of the proving key, bytes.
    pub proving_key_bytes: u64,
    /// Peak memory of setup and proving, bytes.
    pub peak_memory_bytes: u64,
}

/// Operations, parameters and boundaries of a shard, from which its cost follows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) operations: Operations,
    /// What the integer graph does without of these.
    pub(crate) spared: Operations,
    /// Rounds that a sumcheck over each computed tensor has, as often as one is computed.
    pub(crate) rounds: u64,
    pub(crate) parameters: u64,
    /// Cells of the commitment to these.
    pub(crate) weight_cells: u64,
    pub(crate) input_elements: u64,
    pub(crate) output_elements: u64,
}

impl Load {
    /// Of the nodes of a graph; `spared` is of all its nodes.
    pub(crate) fn of(graph: &Graph, spared: &[Operations], nodes: std::ops::Range<usize>) -> Self {
        let used = &graph.nodes[nodes.clone()];
        let weight_cells = graph.trained(used).map(|constant| gkr::weight_cells(&constant.shape));
        let mut load = Self {
            parameters: graph.parameters_of(used),
            weight_cells: weight_cells.fold(0, u64::saturating_add),
            ..Self::default()
        };
        for (node, &spared) in used.iter().zip(&spared[nodes]) {
            let counted = operations(graph, node);
            load.operations = load.operations + counted;
            load.spared = load.spared + spared;
            let Operations { macs, rescales, arithmetic: _, comparisons, maxima, tables, moves: _ } =
                counted.minus(spared);
            if macs.max(rescales).max(comparisons).max(maxima).max(tables) > 0 {
                let elements =
                    node.output.first().and_then(|name| graph.shape(name)).map_or(0, |shape| shape.iter().product());
                load.rounds += gkr::rounds(elements);
            }
        }
        load
    }

    /// This with what another one has besides, boundaries apart.
    pub(crate) fn and(self, other: &Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            spared: self.spared + other.spared,
            rounds: self.rounds + other.rounds,
            parameters: self.parameters + other.parameters,
            weight_cells: self.weight_cells + other.weight_cells,
            ..self
        }
    }

    /// What is left of this without one of its parts, boundaries apart.
    pub(crate) fn without(self, part: &Self) -> Self {
        Self {
            operations: self.operations.minus(part.operations),
            spared: self.spared.minus(part.spared),
            rounds: self.rounds - part.rounds,
            parameters: self.parameters - part.parameters,
            weight_cells: self.weight_cells - part.weight_cells,
            ..self
        }
    }

    /// The operations of the integer graph.
    fn proven(&self) -> Operations {
        self.operations.minus(self.spared)
    }
}

/// Work without that for boundaries, which the planner spreads evenly where nothing else decides.
pub(crate) fn work(backend: BackendKind, load: &Load) -> u64 {
    match backend {
        BackendKind::Float => load.operations.total(),
        BackendKind::Ezkl => ezkl::work(&load.operations),
        BackendKind::Gkr => gkr::work(&load.proven(), load.parameters),
    }
}

/// What a shard costs on `backend` when its boundaries are in these modes.
pub(crate) fn predict(backend: BackendKind, load: &Load, input: BoundaryMode, output: BoundaryMode) -> Prediction {
    match backend {
        BackendKind::Float => {
            let boundaries = load.input_elements.saturating_add(load.output_elements);
            Prediction { cost: load.operations.total().saturating_add(boundaries), ezkl: None, gkr: None }
        }
        BackendKind::Ezkl => {
            let predicted =
                ezkl::predict(&load.operations, (load.input_elements, input), (load.output_elements, output));
            Prediction { cost: 1 << predicted.logrows, ezkl: Some(predicted), gkr: None }
        }
        BackendKind::Gkr => {
            let boundaries = [(load.input_elements, input), (load.output_elements, output)];
            let predicted = gkr::predict(&load.proven(), load.rounds, load.weight_cells, boundaries);
            let cost = gkr::work(&load.proven(), load.parameters).saturating_add(gkr::boundary_work(boundaries));
            Prediction { cost, ezkl: None, gkr: Some(predicted) }
        }
    }
}

#[cfg(test)]
mod tests {
    use shardproof_common::plan::{BackendOptions, EzklOptions, GkrOptions};

    use super::*;
    use crate::{BoundaryModes, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy};

    fn whole(name: &str) -> (Operations, EzklPrediction) {
        let model = OnnxModel::load(&ModelSource::resolve(name).unwrap(), &LoadOptions::default()).unwrap();
        let operations = model.graph.nodes.iter().map(|node| operations(&model.graph, node)).sum();
        let elements = |tensors: &[shardproof_common::plan::BoundaryTensor]| tensors[0].shape.iter().product();
        let load = Load {
            operations,
            parameters: model.parameters(),
            input_elements: elements(model.inputs()),
            output_elements: elements(model.outputs()),
            ..Load::default()
        };
        let public = BoundaryMode::Public;
        (operations, predict(BackendKind::Ezkl, &load, public, public).ezkl.unwrap())
    }

    #[test]
    fn operations_are_counted_from_shapes() {
        let (mlp, _) = whole("mlp");
        assert_eq!((mlp.macs, mlp.rescales, mlp.comparisons, mlp.moves), (25 * 10 + 4 * 100 + 10, 51, 50, 25));
        let (cnn, _) = whole("cnn");
        assert_eq!(cnn.macs, 28 * 28 * 5 * 25 + 14 * 14 * 10 * 125 + 490 * 50 + 50 * 10 + 10);
        assert_eq!(cnn.maxima, (14 * 14 * 5 + 7 * 7 * 10) * 3);
    }

    fn near(found: u64, measured: f64, tolerance: f64) -> bool {
        (found as f64 / measured - 1.0).abs() < tolerance
    }

    /// Rows and log2 of rows that ezkl 23.0.5 calibrated for whole models with public boundaries, and what they took.
    #[test]
    fn predictions_are_near_what_was_measured() {
        for (name, rows, logrows) in
            [("mlp", 2_759.0, 12), ("testing", 9_389.0, 14), ("cnn", 440_766.0, 19), ("mlp2", 300_669.0, 19)]
        {
            let (_, predicted) = whole(name);
            assert!(near(predicted.rows, rows, 0.02), "{name}: {} rows predicted, {rows} measured", predicted.rows);
            assert_eq!(predicted.logrows, logrows, "{name}");
        }
        let (mlp, cnn) = (whole("mlp").1, whole("cnn").1);
        assert!(near(mlp.proving_key_bytes, 17.31e6, 0.02) && near(cnn.proving_key_bytes, 4.6e9, 0.02));
        assert!(near(mlp.peak_memory_bytes, 85e6, 0.05) && near(cnn.peak_memory_bytes, 11.5e9, 0.05));
    }

    /// The same for shards with hashed boundaries between them.
    #[test]
    fn predictions_of_small_shards_are_near_what_was_measured() {
        let measured =
            [("mlp", [765.0, 940.0, 824.0, 619.0], 10), ("testing", [2_530.0, 2_710.0, 2_710.0, 1_919.0], 12)];
        for (name, rows, most_logrows) in measured {
            let model = OnnxModel::load(&ModelSource::resolve(name).unwrap(), &LoadOptions::default()).unwrap();
            let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
            let modes = BoundaryModes::default();
            let request = SplitRequest { shards: 4, strategy: Strategy::Layers, backend: &backend, modes };
            let predicted =
                model.split(&request).unwrap().shards.into_iter().map(|shard| shard.prediction.ezkl.unwrap());
            let predicted: Vec<_> = predicted.collect();
            for (predicted, rows) in predicted.iter().zip(rows) {
                assert!(near(predicted.rows, rows, 0.02), "{name}: {} rows predicted, {rows} measured", predicted.rows);
            }
            assert_eq!(predicted.iter().map(|shard| shard.logrows).max(), Some(most_logrows), "{name}");
            if name == "mlp" {
                let key = predicted[1].proving_key_bytes;
                assert!(near(key, 10.294e6, 0.02), "{key}");
                // Measured: 50 MB.
                assert!((50_000_000..70_000_000).contains(&predicted[1].peak_memory_bytes));
            }
        }
    }

    #[test]
    fn hashed_boundaries_cost_rows_of_their_own() {
        let prediction = |mode| {
            predict(BackendKind::Ezkl, &Load { input_elements: 1000, ..Load::default() }, mode, mode).ezkl.unwrap()
        };
        assert_eq!(prediction(BoundaryMode::Hashed).rows, 41_002);
        assert_eq!(prediction(BoundaryMode::Polycommit).rows, 8_000);
        assert_eq!((prediction(BoundaryMode::Hashed).logrows, prediction(BoundaryMode::Public).logrows), (16, 13));
    }

    #[test]
    fn larger_digits_never_make_a_growing_shard_cheaper() {
        let cost = |rescales| {
            let load = Load { operations: Operations::products(0, rescales), ..Load::default() };
            let predicted = predict(BackendKind::Ezkl, &load, BoundaryMode::Public, BoundaryMode::Public);
            (predicted.cost, predicted.ezkl.unwrap().logrows)
        };
        let switch = (ezkl::ROWS_FOR_SMALL_DIGITS as f64 / ezkl::SMALL_DIGITS.rows_per_rescale) as u64;
        assert_eq!((cost(switch).1, cost(switch + 1).1), (14, 15));
        assert!((0..2_000).all(|rescales| cost(rescales) <= cost(rescales + 1)));
    }

    /// Bytes of a proof and of the worker's memory that were measured, one shard, weights committed.
    #[test]
    fn gkr_predictions_are_near_what_was_measured() {
        for (name, proof, memory) in [
            ("mlp", 28_409.0, 35e6),
            ("testing", 60_482.0, 37e6),
            ("cnn", 146_107.0, 40e6),
            ("mlp784", 190_531.0, 98e6),
            ("cnn264k", 232_539.0, 71e6),
            ("dense4m", 257_355.0, 346e6),
            ("attention", 612_540.0, 1.979e9),
            ("gpt2block", 522_076.0, 933e6),
        ] {
            let model = OnnxModel::load(&ModelSource::resolve(name).unwrap(), &LoadOptions::default()).unwrap();
            let backend = |_| BackendOptions::Gkr(GkrOptions::default());
            let request = SplitRequest {
                shards: 1,
                strategy: Strategy::Balanced,
                backend: &backend,
                modes: BoundaryModes::default(),
            };
            let predicted = model.split(&request).unwrap().shards[0].prediction.gkr.unwrap();
            assert!(near(predicted.proof_bytes, proof, 0.2), "{name}: {predicted:?}, measured {proof}");
            assert!(near(predicted.peak_memory_bytes, memory, 0.25), "{name}: {predicted:?}, measured {memory}");
        }
    }

    #[test]
    fn gkr_costs_grow_with_everything_that_is_committed_to() {
        let predict = |load: &Load, mode| predict(BackendKind::Gkr, load, mode, BoundaryMode::Public);
        let load = Load {
            operations: Operations::products(9_000, 300),
            parameters: 5_000,
            input_elements: 700,
            ..Load::default()
        };
        let (public, committed) = (predict(&load, BoundaryMode::Public), predict(&load, BoundaryMode::Committed));
        assert!(public.cost < committed.cost);
        let proof = |prediction: &Prediction| prediction.gkr.unwrap().proof_bytes;
        assert!(proof(&public) < proof(&committed));
        assert!((0..3_000).all(|rescales| {
            let cost = |rescales| {
                predict(&Load { operations: Operations::products(0, rescales), ..load }, BoundaryMode::Public).cost
            };
            cost(rescales) < cost(rescales + 1)
        }));
        let most = Load { operations: Operations::products(u64::MAX, u64::MAX), parameters: u64::MAX, ..load };
        assert_eq!(predict(&most, BoundaryMode::Public).cost, u64::MAX);
    }
}
