//! Splitting a model: cuts chosen, shards written, and the plan that describes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shardproof_common::ids::{Digest, PROTOCOL_VERSION, ShardIndex};
use shardproof_common::plan::{
    BackendKind, BackendOptions, BoundaryMode, BoundaryPlan, BoundaryTensor, Plan, ShardPlan,
};

use crate::cost::{self, Load, Operations, Prediction};
use crate::cuts;
use crate::error::ModelError;
use crate::model::OnnxModel;
use crate::modes::{self, BoundaryModes};
use crate::planner::{self, Problem};
use crate::report::PlanReport;
use crate::shard::{self, Boundaries};

/// How cuts are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The cheapest costliest shard, then the smallest boundaries, then cuts between layers, then the work spread evenly.
    #[default]
    Balanced,
    /// Equal counts of layers.
    Layers,
}

impl Strategy {
    /// The name as written on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Layers => "layers",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "balanced" => Ok(Self::Balanced),
            "layers" => Ok(Self::Layers),
            _ => Err(format!("unknown strategy `{text}`: expected one of balanced, layers")),
        }
    }
}

/// What is asked of [`OnnxModel::split`].
#[derive(Clone, Copy)]
pub struct SplitRequest<'a> {
    /// Number of shards, from 1 to [`OnnxModel::max_shards`].
    pub shards: usize,
    /// How cuts are chosen.
    pub strategy: Strategy,
    /// The proof system of each shard. Costs are balanced as shard 0's backend counts them.
    pub backend: &'a dyn Fn(ShardIndex) -> BackendOptions,
    /// Modes of the boundaries. In `float` mode all are public, whatever is asked for.
    pub modes: BoundaryModes,
}

/// A model cut into shards.
#[derive(Clone, Debug)]
pub struct Split {
    /// What is published.
    pub plan: Plan,
    /// The shards, in order.
    pub shards: Vec<Shard>,
    /// The plan for people and programs that decide about it.
    pub report: PlanReport,
}

/// One shard of a split.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Position in the plan.
    pub index: ShardIndex,
    /// Bytes of its ONNX file.
    pub onnx: Vec<u8>,
    /// Names and shapes of its inputs, in order.
    pub inputs: Vec<BoundaryTensor>,
    /// Names and shapes of its outputs, in order.
    pub outputs: Vec<BoundaryTensor>,
    /// Nodes of the model in it.
    pub nodes: usize,
    /// Operations that it computes.
    pub operations: Operations,
    /// What it is predicted to cost.
    pub prediction: Prediction,
}

impl OnnxModel {
    /// Cuts the model into shards. Equal models and requests give equal bytes.
    ///
    /// # Errors
    /// When there are too few places to cut, or a boundary's mode needs another backend.
    pub fn split(&self, request: &SplitRequest<'_>) -> Result<Split, ModelError> {
        self.check_count(request)?;
        let shards = request.shards;
        let backends: Vec<BackendOptions> =
            (0..shards).map(|index| (request.backend)(ShardIndex(index as u32))).collect();
        let modes = request.modes.in_force(&backends);
        modes::check(&modes, &backends)?;
        let stops = match request.strategy {
            Strategy::Balanced => self.balanced_stops(backends[0].kind(), request.modes, shards),
            Strategy::Layers => self.layer_stops(shards),
        };
        let (plan, shards) = self.cut_at(&stops, backends, &modes);
        let report = PlanReport::new(self, request.strategy, &plan, &shards);
        Ok(Split { plan, shards, report })
    }

    /// Cuts the model where `plan` does, whoever chose its cuts, with its backends and modes. Nothing else of the plan is
    /// looked at: compare it with the one that is returned, which tells what this model's shards are.
    ///
    /// # Errors
    /// When the plan's shards are not this model's nodes in order, each once, or the model cannot be cut there.
    pub fn split_as(&self, plan: &Plan) -> Result<(Plan, Vec<Shard>), ModelError> {
        let shards = plan.shards.len();
        if shards == 0 || plan.boundaries.len() != shards + 1 {
            return Err(ModelError::PlanShape { shards, boundaries: plan.boundaries.len() });
        }
        let modes: Vec<BoundaryMode> = plan.boundaries.iter().map(|boundary| boundary.mode).collect();
        let backends: Vec<BackendOptions> = plan.shards.iter().map(|shard| shard.backend.clone()).collect();
        modes::check(&modes, &backends)?;
        let stops = self.stops_of(plan)?;
        Ok(self.cut_at(&stops, backends, &modes))
    }

    /// The stops at which a plan cuts, both ends included.
    fn stops_of(&self, plan: &Plan) -> Result<Vec<usize>, ModelError> {
        let nodes = &self.graph.nodes;
        let mut stops = vec![0];
        let mut position = 0;
        for (index, shard) in plan.shards.iter().enumerate() {
            match nodes.get(position) {
                Some(node) if node.name == shard.first_node => {}
                other => {
                    let expected = other.map_or_else(|| "none".to_owned(), |node| node.name.clone());
                    return Err(ModelError::ShardBegin { shard: index, expected, found: shard.first_node.clone() });
                }
            }
            let length = nodes[position..].iter().position(|node| node.name == shard.last_node);
            let missing = || ModelError::ShardEnd { shard: index, found: shard.last_node.clone() };
            position += length.ok_or_else(missing)? + 1;
            if index + 1 < plan.shards.len() {
                stops.push(self.stop_at(position)?);
            }
        }
        match (nodes.last(), plan.shards.last()) {
            (Some(last), Some(shard)) if last.name != shard.last_node => {
                Err(ModelError::PlanEnd { expected: last.name.clone(), found: shard.last_node.clone() })
            }
            _ => {
                stops.push(self.last_stop());
                Ok(stops)
            }
        }
    }

    /// The stop with this many nodes before it.
    fn stop_at(&self, position: usize) -> Result<usize, ModelError> {
        if position == self.graph.nodes.len() {
            return Ok(self.last_stop());
        }
        let found = self.cuts.legal.binary_search_by_key(&position, |cut| cut.position);
        found.map(|index| index + 1).map_err(|_| ModelError::IllegalCut {
            node: self.graph.nodes[position - 1].name.clone(),
            reason: cuts::objection(&self.graph, &self.cuts, position),
        })
    }

    /// Writes the shards between these stops, both ends included, and the plan that describes them.
    fn cut_at(&self, stops: &[usize], backends: Vec<BackendOptions>, modes: &[BoundaryMode]) -> (Plan, Vec<Shard>) {
        let shards = backends.len();
        let positions: Vec<usize> = stops.iter().map(|&stop| self.position(stop)).collect();
        let named = Boundaries::name(&self.graph, &self.cuts, &positions);
        let boundaries = self.boundary_plans(&named, modes);
        let mut written = Vec::with_capacity(shards);
        let mut planned = Vec::with_capacity(shards);
        for (index, backend) in backends.into_iter().enumerate() {
            let range = positions[index]..positions[index + 1];
            let onnx = shard::write(&self.graph, &self.cuts, &named, index, range.clone());
            let load = self.load_between(stops[index], stops[index + 1]);
            let nodes = &self.graph.nodes[range.clone()];
            planned.push(ShardPlan {
                model: Digest::of(&onnx),
                first_node: nodes[0].name.clone(),
                last_node: nodes[nodes.len() - 1].name.clone(),
                layers: self.layers_begun(&range),
                parameters: self.graph.parameters_of(nodes),
                backend: backend.clone(),
            });
            written.push(Shard {
                index: ShardIndex(index as u32),
                onnx,
                inputs: boundaries[index].tensors.clone(),
                outputs: boundaries[index + 1].tensors.clone(),
                nodes: nodes.len(),
                operations: load.operations,
                prediction: cost::predict(backend.kind(), &load, boundaries[index].mode, boundaries[index + 1].mode),
            });
        }
        let plan = Plan {
            protocol: PROTOCOL_VERSION,
            model: self.digest(),
            architecture: self.architecture(),
            shards: planned,
            boundaries,
        };
        (plan, written)
    }

    fn check_count(&self, request: &SplitRequest<'_>) -> Result<(), ModelError> {
        let layers = request.strategy == Strategy::Layers;
        let possible = if layers { self.layer_candidates().len() + 1 } else { self.max_shards() };
        if (1..=possible).contains(&request.shards) {
            return Ok(());
        }
        Err(ModelError::ShardCount { asked: request.shards, possible, layers })
    }

    /// Number of the stop behind the last node; stop `i` between is the `i`-th legal cut, counted from 1.
    fn last_stop(&self) -> usize {
        self.cuts.legal.len() + 1
    }

    /// Nodes before a stop.
    fn position(&self, stop: usize) -> usize {
        match stop {
            0 => 0,
            stop if stop == self.last_stop() => self.graph.nodes.len(),
            stop => self.cuts.legal[stop - 1].position,
        }
    }

    /// Elements that cross at a stop.
    fn elements_at(&self, stop: usize) -> u64 {
        let sum = |tensors: &[BoundaryTensor]| tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
        match stop {
            0 => sum(self.inputs()),
            stop if stop == self.last_stop() => sum(self.outputs()),
            stop => self.cuts.legal[stop - 1].elements,
        }
    }

    fn load_between(&self, from: usize, to: usize) -> Load {
        let load = Load::of(&self.graph, &self.spared, self.position(from)..self.position(to));
        Load { input_elements: self.elements_at(from), output_elements: self.elements_at(to), ..load }
    }

    fn balanced_stops(&self, kind: BackendKind, modes: BoundaryModes, shards: usize) -> Vec<usize> {
        let last = self.last_stop();
        let mut sums: Vec<Load> = Vec::with_capacity(last + 1);
        sums.push(Load::default());
        for stop in 0..last {
            sums.push(sums[stop].and(&self.load_between(stop, stop + 1)));
        }
        let elements: Vec<u64> = (0..=last).map(|stop| self.elements_at(stop)).collect();
        let inner = modes.between(kind, kind);
        let mode = |stop: usize| {
            if stop == 0 {
                modes.input
            } else if stop == last {
                modes.output
            } else {
                inner
            }
        };
        // A weight that several nodes share counts once for each of them here, and once for a shard when it is written.
        let inside = |from: usize, to: usize| sums[to].without(&sums[from]);
        let cost = |from: usize, to: usize| {
            let load = Load { input_elements: elements[from], output_elements: elements[to], ..inside(from, to) };
            cost::predict(kind, &load, mode(from), mode(to)).cost
        };
        let least = |from: usize, to: usize| cost::predict(kind, &inside(from, to), mode(from), mode(to)).cost;
        let crossing = |stop: usize| {
            let cut = &self.cuts.legal[stop - 1];
            (cut.elements, u64::from(!cut.between_layers))
        };
        let work = |from: usize, to: usize| cost::work(kind, &inside(from, to));
        planner::balanced(&Problem { last, cost: &cost, least: &least, work: &work, crossing: &crossing }, shards)
    }

    /// Stops between layers, each with the number of layers before it.
    fn layer_candidates(&self) -> Vec<(usize, usize)> {
        let numbered = self.cuts.legal.iter().enumerate().filter(|(_, cut)| cut.between_layers);
        numbered.map(|(index, cut)| (index + 1, self.layers[cut.position])).collect()
    }

    fn layer_stops(&self, shards: usize) -> Vec<usize> {
        planner::equal_layers(&self.layer_candidates(), self.layers(), self.last_stop(), shards)
    }

    /// Layers whose first node lies in the range, so that each layer is counted in one shard.
    fn layers_begun(&self, range: &std::ops::Range<usize>) -> u32 {
        let begins = |index: &usize| *index == 0 || self.layers[index - 1] != self.layers[*index];
        range.clone().filter(begins).count() as u32
    }

    fn boundary_plans(&self, named: &Boundaries, modes: &[BoundaryMode]) -> Vec<BoundaryPlan> {
        let tensor = |(id, name): &(usize, String)| {
            let shape = self.graph.fact(&self.cuts.tensors[*id].name).shape.clone();
            BoundaryTensor { name: name.clone(), shape }
        };
        let plan = |(tensors, &mode): (&Vec<(usize, String)>, &BoundaryMode)| BoundaryPlan {
            tensors: tensors.iter().map(tensor).collect(),
            mode,
        };
        named.tensors.iter().zip(modes).map(plan).collect()
    }
}

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, ProptestConfig, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::test_runner::RngSeed;
    use shardproof_common::plan::EzklOptions;
    use shardproof_common::tensor::FloatTensor;

    use super::support::Builder;
    use super::*;
    use crate::model::LoadOptions;
    use crate::{FloatShard, run_chain};

    /// One node: an operator and which earlier tensors it reads, counted from the latest.
    type Step = (usize, usize, usize);

    /// A model whose nodes read any earlier tensors, so that many of them cross many cuts.
    fn random_model(steps: &[Step], second_output: usize) -> OnnxModel {
        let weights: Vec<f32> = (0..16).map(|i| ((i * 7 % 11) as f32 - 5.0) / 10.0).collect();
        let mut builder = Builder::new().input("x0", &[1, 4]).input("x1", &[1, 4]).weights("w", &[4, 4], &weights);
        let mut tensors = vec!["x0".to_owned(), "x1".to_owned()];
        for (index, &(operator, first, second)) in steps.iter().enumerate() {
            let pick = |back: usize| tensors[tensors.len() - 1 - back % tensors.len()].clone();
            let (a, b) = (pick(first), pick(second));
            let output = format!("t{index}");
            let name = format!("/block{}/n{index}", index / 2);
            let (operator, inputs) = match operator {
                0 => ("Relu", vec![a]),
                1 => ("Tanh", vec![a]),
                2 => ("Add", vec![a, b]),
                3 => ("Sub", vec![a, b]),
                4 => ("MatMul", vec![a, "w".to_owned()]),
                _ => ("Max", vec![a, b]),
            };
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            builder = builder.node(&name, operator, &inputs, &[&output]);
            tensors.push(output);
        }
        let last = format!("t{}", steps.len() - 1);
        let other = format!("t{}", second_output % steps.len());
        builder = builder.output(&last);
        if other != last {
            builder = builder.output(&other);
        }
        OnnxModel::parse("random", &builder.bytes(), &LoadOptions::default()).expect("every such graph is a model")
    }

    fn ezkl(shards: usize) -> Vec<BackendOptions> {
        vec![BackendOptions::Ezkl(EzklOptions::default()); shards]
    }

    fn inputs(model: &OnnxModel) -> Vec<FloatTensor> {
        let values = |index: usize| [0.5, -1.25, 2.0, -0.75].map(|value| value + index as f32 * 0.3).to_vec();
        model
            .inputs()
            .iter()
            .enumerate()
            .map(|(index, spec)| FloatTensor { shape: spec.shape.clone(), values: values(index) })
            .collect()
    }

    fn close(a: &[FloatTensor], b: &[FloatTensor]) -> bool {
        let same = |a: &f32, b: &f32| (a - b).abs() <= 1e-5 * (1.0 + a.abs());
        a.len() == b.len()
            && a.iter()
                .zip(b)
                .all(|(a, b)| a.shape == b.shape && a.values.iter().zip(&b.values).all(|(a, b)| same(a, b)))
    }

    proptest! {
        // The cases are the same in every run: on rare graphs the float engine's own optimiser leaves a node that it cannot
        // evaluate, which says nothing about cuts.
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::with_cases(48) })]

        #[test]
        fn any_set_of_cuts_gives_the_models_outputs(
            steps in proptest::collection::vec((0usize..6, 0usize..5, 0usize..9), 1..12),
            second_output in 0usize..12,
            chosen in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let model = random_model(&steps, second_output);
            let inner = (1..model.last_stop()).filter(|&stop| chosen[stop % chosen.len()]);
            let stops: Vec<usize> = std::iter::once(0).chain(inner).chain([model.last_stop()]).collect();
            let backends = ezkl(stops.len() - 1);
            let modes = BoundaryModes::default().in_force(&backends);
            let (plan, shards) = model.cut_at(&stops, backends, &modes);

            let whole = FloatShard::load(&model.to_onnx()).unwrap();
            let loaded: Vec<_> = shards.iter().map(|shard| FloatShard::load(&shard.onnx).unwrap()).collect();
            let input = inputs(&model);
            prop_assert!(close(&run_chain(&loaded, &input).unwrap(), &whole.run(&input).unwrap()));

            // Every node is in exactly one shard, in order, and none is empty.
            let inside = shards.iter().map(|shard| shard.nodes);
            prop_assert!(inside.clone().all(|nodes| nodes > 0));
            prop_assert_eq!(inside.sum::<usize>(), model.nodes());
            // Neighbours agree on names, shapes and order, and no name is used at two boundaries.
            for pair in loaded.windows(2) {
                prop_assert_eq!(pair[0].outputs(), pair[1].inputs());
            }
            let names = plan.boundaries.iter().flat_map(|boundary| &boundary.tensors).map(|tensor| &tensor.name);
            let distinct: std::collections::HashSet<_> = names.clone().collect();
            prop_assert_eq!(distinct.len(), names.count());
            // Whoever has the plan can cut the same way, whatever the planner would have chosen.
            let (again, same) = model.split_as(&plan).unwrap();
            prop_assert!(again == plan && same.iter().zip(&shards).all(|(a, b)| a.onnx == b.onnx));
        }

        #[test]
        fn every_shard_count_up_to_the_limit_works_and_no_more(
            steps in proptest::collection::vec((0usize..6, 0usize..3, 0usize..4), 1..8),
            strategy in prop_oneof![Just(Strategy::Balanced), Just(Strategy::Layers)],
        ) {
            let model = random_model(&steps, 0);
            let possible = match strategy {
                Strategy::Balanced => model.max_shards(),
                Strategy::Layers => model.layer_candidates().len() + 1,
            };
            for shards in 1..=possible + 1 {
                let backend = |_| BackendOptions::Float;
                let request = SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() };
                match model.split(&request) {
                    Ok(split) => prop_assert_eq!((split.shards.len(), shards <= possible), (shards, true)),
                    Err(error) => prop_assert!(shards > possible, "{}", error),
                }
            }
        }
    }
}
