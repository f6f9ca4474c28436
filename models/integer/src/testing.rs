//! Random legal graphs, with weights and inputs on which they run: for tests of everything that reads graphs.
//!
//! Extents are small and seldom powers of two. Rescales and tables fit the values that the reference computes on the
//! very inputs that are handed back, so that those runs succeed; other inputs may leave their ranges.

mod tensors;

use crate::check::{Bounds, CheckedGraph};
use crate::graph::{
    Conv, Graph, Input, MAX_SHIFT, Node, Op, Table, TableId, TensorId, Weight, WeightId, Weights, Window,
};
use crate::reference::Tensor;

/// How large a random graph becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// At least this many nodes; some more join loose ends.
    pub nodes: usize,
    /// At most this many elements in a tensor of one run, but for the loose ends' concatenation.
    pub elements: usize,
}

impl Size {
    /// A few nodes of a few dozen elements.
    pub const TINY: Self = Self { nodes: 6, elements: 60 };
    /// About what one layer of a small network takes.
    pub const SMALL: Self = Self { nodes: 16, elements: 300 };
    /// Every operator, some several times.
    pub const MEDIUM: Self = Self { nodes: 60, elements: 1500 };
}

/// A random graph, its weights, and for each input the values of one run on which it succeeds.
pub fn random_graph(seed: u64, size: Size) -> (Graph, Weights, Vec<Vec<i64>>) {
    random_batch(seed, size, 1)
}

/// As [`random_graph`], with inputs `[runs, elements]`.
///
/// # Panics
/// If `runs` is zero.
pub fn random_batch(seed: u64, size: Size, runs: usize) -> (Graph, Weights, Vec<Vec<i64>>) {
    assert!(runs > 0, "a graph fits the values of its runs");
    let mut generator = Generator::new(seed, size, runs);
    let mut blocks = Vec::new();
    let mut attempts = 0;
    while generator.graph.nodes.len() < size.nodes && attempts < 20 * size.nodes {
        attempts += 1;
        if blocks.is_empty() {
            blocks = generator.random.shuffled(&Block::ALL);
        }
        if let Some(block) = blocks.pop() {
            generator.add(block);
        }
    }
    generator.finish()
}

/// A deterministic source of numbers: splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that `seed` determines.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `low ..= high`.
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        let count = high.abs_diff(low).saturating_add(1);
        low + (self.next_u64() % count) as i64
    }

    fn size(&mut self, low: usize, high: usize) -> usize {
        self.within(low as i64, high as i64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.size(1, count) == 1
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        if choices.is_empty() { None } else { Some(choices[self.size(0, choices.len() - 1)]) }
    }

    fn shuffled<T: Copy>(&mut self, items: &[T]) -> Vec<T> {
        let mut items = items.to_vec();
        for place in (1..items.len()).rev() {
            let other = self.size(0, place);
            items.swap(place, other);
        }
        items
    }
}

/// A pattern of one or more nodes.
#[derive(Clone, Copy)]
enum Block {
    Dense,
    Conv,
    Scale,
    Residual,
    MaxPool,
    WindowSum,
    Reshape,
    Transpose,
    Slice,
    Pad,
    Concat,
    Table,
    TensorProduct,
    Multiply,
    ReduceSum,
    Expand,
    Gather,
    Max,
    Divide,
    SquareRoot,
}

impl Block {
    const ALL: [Self; 20] = [
        Self::Dense,
        Self::Conv,
        Self::Scale,
        Self::Residual,
        Self::MaxPool,
        Self::WindowSum,
        Self::Reshape,
        Self::Transpose,
        Self::Slice,
        Self::Pad,
        Self::Concat,
        Self::Table,
        Self::TensorProduct,
        Self::Multiply,
        Self::ReduceSum,
        Self::Expand,
        Self::Gather,
        Self::Max,
        Self::Divide,
        Self::SquareRoot,
    ];
}

struct Generator {
    random: Random,
    size: Size,
    runs: usize,
    graph: Graph,
    weights: Weights,
    /// For each run, every tensor.
    tensors: Vec<Vec<Tensor>>,
    bounds: Vec<Bounds>,
}

impl Generator {
    fn new(seed: u64, size: Size, runs: usize) -> Self {
        let mut random = Random::new(seed);
        let mut inputs = Vec::new();
        for index in 0..random.size(1, 2) {
            let rank = if index == 0 || random.one_in(2) { 4 } else { random.size(1, 3) };
            let shape = random_shape(&mut random, rank, size.elements / 2);
            inputs.push(Input { name: format!("input{index}"), shape, scale: random.within(0, 8) as i32 });
        }
        let mut tensors = vec![Vec::new(); runs];
        for input in &inputs {
            // Now and then all that a boundary lets through.
            let largest = if random.one_in(4) { Bounds::BOUNDARY.high } else { random.within(1, 200) };
            for run in &mut tensors {
                let elements: usize = input.shape.iter().product();
                run.push(Tensor::new(&input.shape, (0..elements).map(|_| random.within(-largest, largest))));
            }
        }
        let bounds = vec![Bounds::BOUNDARY; inputs.len()];
        let outputs = vec![TensorId(0)];
        let graph = Graph { inputs, weights: vec![], tables: vec![], nodes: vec![], outputs };
        Self { random, size, runs, graph, weights: Weights(vec![]), tensors, bounds }
    }

    fn shape(&self, tensor: TensorId) -> &[usize] {
        &self.tensors[0][tensor.0 as usize].shape
    }

    /// Least and greatest value over all runs.
    fn extremes(&self, tensor: TensorId) -> (i128, i128) {
        let values = || self.tensors.iter().flat_map(|run| &run[tensor.0 as usize].values).copied();
        (values().min().unwrap_or(0), values().max().unwrap_or(0))
    }

    /// A tensor that may cross a boundary and of which `fits` holds; recent ones are likelier.
    fn pick(&mut self, fits: impl Fn(&[usize]) -> bool) -> Option<TensorId> {
        let narrow = |&id: &TensorId| self.bounds[id.0 as usize].magnitude() <= Bounds::BOUNDARY.magnitude();
        let ids = (0..self.bounds.len() as u32).map(TensorId).filter(narrow);
        let choices: Vec<_> = ids.filter(|&id| fits(self.shape(id))).collect();
        let recent = choices.len().saturating_sub(4);
        let from = if self.random.one_in(3) { 0 } else { recent };
        self.random.pick(&choices[from..])
    }

    /// Adds a node, unless the graph would not be legal with it or the runs would fail.
    fn push(&mut self, op: Op, scale: i32) -> Option<TensorId> {
        let name = format!("node{}", self.graph.nodes.len());
        self.graph.nodes.push(Node { name, op, scale });
        let checked = self.graph.clone().check();
        let node = self.graph.nodes.last()?;
        let apply = |run: &Vec<Tensor>| crate::reference::apply(&self.graph, &self.weights, &node.op, run);
        let legal = checked.ok().filter(|checked| checked.elements(last(checked)) <= self.size.elements);
        let made = legal.and_then(|checked| {
            let results = self.tensors.iter().map(apply).collect::<Option<Vec<_>>>()?;
            Some((checked.bounds(last(&checked)), results))
        });
        let Some((bounds, results)) = made else {
            self.discard();
            return None;
        };
        self.bounds.push(bounds);
        for (run, result) in self.tensors.iter_mut().zip(results) {
            run.push(result);
        }
        Some(TensorId(self.bounds.len() as u32 - 1))
    }

    /// Takes the last node back, and the weight or table that was made for it.
    fn discard(&mut self) {
        match self.graph.nodes.pop().map(|node| node.op) {
            Some(Op::Conv(_) | Op::MatMul { .. } | Op::MulWeight { .. } | Op::AddWeight { .. }) => {
                self.graph.weights.pop();
                self.weights.0.pop();
            }
            Some(Op::Table { .. }) => drop(self.graph.tables.pop()),
            _ => {}
        }
    }

    /// Adds a node that keeps the scale of `input`.
    fn push_like(&mut self, input: TensorId, op: Op) -> Option<TensorId> {
        let scale = self.graph.scale(input);
        self.push(op, scale)
    }

    fn weight(&mut self, shape: Vec<usize>) -> WeightId {
        let bits = self.random.size(1, 9) as u32;
        let elements: usize = shape.iter().product();
        let values = (0..elements).map(|_| self.random.within(-(1 << bits), 1 << bits) as i32).collect();
        self.graph.weights.push(Weight { name: format!("weight{}", self.weights.0.len()), shape, bits });
        self.weights.0.push(values);
        WeightId(self.weights.0.len() as u32 - 1)
    }

    /// Brings a tensor to few bits, as many as its values need.
    fn requant(&mut self, input: TensorId) -> Option<TensorId> {
        let target = self.random.size(3, 12) as u32;
        let relu = self.random.one_in(3);
        self.requant_to(input, target, relu)
    }

    fn requant_to(&mut self, input: TensorId, target: u32, relu: bool) -> Option<TensorId> {
        let (low, high) = self.extremes(input);
        let rescale = |value: i128, shift: u32| if shift == 0 { value } else { (value + (1 << (shift - 1))) >> shift };
        let needed = |shift: u32| {
            let fits = |bits: &u32| -(1 << bits) <= rescale(low, shift) && rescale(high, shift) < 1 << bits;
            (1..64).find(fits).unwrap_or(64)
        };
        let shift = (0..=MAX_SHIFT).find(|&shift| needed(shift) <= target)?;
        let bits = needed(shift) + u32::from(self.random.one_in(3));
        let scale = self.graph.scale(input) - shift as i32;
        self.push(Op::Requant { input, shift, bits, relu }, scale)
    }

    fn add(&mut self, block: Block) -> Option<TensorId> {
        match block {
            Block::Dense => self.dense(),
            Block::Conv => self.conv(),
            Block::Scale => self.scale(),
            Block::Residual => self.residual(),
            Block::MaxPool => self.max_pool(),
            Block::WindowSum => self.window_sum(),
            Block::Reshape => self.reshape(),
            Block::Transpose => self.transpose(),
            Block::Slice => self.slice(),
            Block::Pad => self.pad(),
            Block::Concat => self.concat(),
            Block::Table => self.table(),
            Block::TensorProduct => self.tensor_product(),
            Block::Multiply => self.multiply(),
            Block::ReduceSum => self.reduce_sum(),
            Block::Expand => self.expand(),
            Block::Gather => self.gather(),
            Block::Max => self.max(),
            Block::Divide => self.divide(),
            Block::SquareRoot => self.square_root(),
        }
    }

    fn dense(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| !shape.is_empty())?;
        let depth = *self.shape(input).last()?;
        let outputs = self.random.size(1, 11);
        let weight = self.weight(vec![outputs, depth]);
        let scale = self.graph.scale(input) + self.random.within(0, 6) as i32;
        let product = self.push(Op::MatMul { input, weight }, scale)?;
        let biased = self.bias(product, self.shape(product).len() - 1)?;
        self.requant(biased)
    }

    /// Adds a bias along `axis`, or nothing.
    fn bias(&mut self, input: TensorId, axis: usize) -> Option<TensorId> {
        if self.random.one_in(3) {
            return Some(input);
        }
        let mut shape = vec![1; self.shape(input).len()];
        shape[axis] = self.shape(input)[axis];
        let weight = self.weight(shape);
        let multiplier = self.random.pick(&[1, -3, 16])?;
        self.push_like(input, Op::AddWeight { input, weight, multiplier })
    }

    fn conv(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| shape.len() == 4)?;
        let channels = self.shape(input)[1];
        let divisors: Vec<_> = (1..=channels).filter(|groups| channels.is_multiple_of(*groups)).collect();
        let groups = if self.random.one_in(2) { 1 } else { self.random.pick(&divisors)? };
        let outputs = groups * self.random.size(1, 3);
        let window = self.window(input)?;
        let weight = self.weight(vec![outputs, channels / groups, window.kernel[0], window.kernel[1]]);
        let scale = self.graph.scale(input) + self.random.within(0, 6) as i32;
        let sums = self.push(Op::Conv(Conv { input, weight, groups, window }), scale)?;
        let biased = self.bias(sums, 1)?;
        self.requant(biased)
    }

    /// Windows that fit over the last two axes.
    fn window(&mut self, input: TensorId) -> Option<Window> {
        let shape = self.shape(input);
        let plane = [shape[shape.len() - 2], shape[shape.len() - 1]];
        for _ in 0..20 {
            let random = &mut self.random;
            let pad =
                |random: &mut Random| if random.one_in(2) { [0, 0] } else { [random.size(0, 2), random.size(0, 2)] };
            let window = Window {
                kernel: [random.size(1, 4), random.size(1, 4)],
                stride: [random.size(1, 3), random.size(1, 3)],
                dilation: [random.size(1, 2), random.size(1, 2)],
                pad_height: pad(random),
                pad_width: pad(random),
            };
            if window.output(plane[0], plane[1]).is_some() {
                return Some(window);
            }
        }
        None
    }

    fn scale(&mut self) -> Option<TensorId> {
        let input = self.pick(|_| true)?;
        let shape = self.shape(input).to_vec();
        let shape = shape.iter().map(|&extent| if self.random.one_in(2) { 1 } else { extent }).collect();
        let weight = self.weight(shape);
        let scale = self.graph.scale(input) + 2;
        let product = self.push(Op::MulWeight { input, weight }, scale)?;
        self.requant(product)
    }

    fn residual(&mut self) -> Option<TensorId> {
        let first = self.pick(|_| true)?;
        let shape = self.shape(first).to_vec();
        let second = self.pick(|other| other == shape)?;
        let third = self.pick(|other| other == shape)?;
        let mut terms = vec![(first, self.random.within(1, 8)), (second, self.random.within(-8, -1))];
        if self.random.one_in(3) {
            terms.push((third, self.random.within(-3, 3)));
        }
        let constant = if self.random.one_in(2) { 0 } else { self.random.within(-100, 100) };
        let scale = self.graph.scale(first);
        let sum = self.push(Op::Combine { terms, constant }, scale)?;
        self.requant(sum)
    }

    /// The larger of neighbours along an axis: `y + relu(x - y)`.
    fn max_pool(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| shape.iter().any(|&extent| extent >= 2))?;
        let shape = self.shape(input).to_vec();
        let axes: Vec<_> = (0..shape.len()).filter(|&axis| shape[axis] >= 2).collect();
        let axis = self.random.pick(&axes)?;
        let mut count = shape.clone();
        count[axis] /= 2;
        let mut step = vec![1; shape.len()];
        step[axis] = 2;
        let mut halves = Vec::new();
        for first in 0..2 {
            let mut start = vec![0; shape.len()];
            start[axis] = first;
            let half = Op::Slice { input, start, step: step.clone(), count: count.clone() };
            halves.push(self.push_like(input, half)?);
        }
        let difference = Op::Combine { terms: vec![(halves[0], 1), (halves[1], -1)], constant: 0 };
        let difference = self.push_like(input, difference)?;
        let excess = self.exact(difference, true)?;
        let larger = self.push_like(input, Op::Combine { terms: vec![(halves[1], 1), (excess, 1)], constant: 0 })?;
        self.exact(larger, false)
    }

    /// A requantisation that does not round.
    fn exact(&mut self, input: TensorId, relu: bool) -> Option<TensorId> {
        self.requant_to(input, 24, relu)
    }

    fn window_sum(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| shape.len() >= 2)?;
        let window = self.window(input)?;
        let sums = self.push_like(input, Op::WindowSum { input, window })?;
        self.requant(sums)
    }

    fn reshape(&mut self) -> Option<TensorId> {
        let input = self.pick(|_| true)?;
        let mut rest: usize = self.shape(input).iter().product();
        let mut shape = Vec::new();
        for _ in 0..self.random.size(0, 4) {
            let divisors: Vec<_> = (1..=rest).filter(|divisor| rest.is_multiple_of(*divisor)).collect();
            let extent = self.random.pick(&divisors)?;
            shape.push(extent);
            rest /= extent;
        }
        if rest > 1 {
            shape.push(rest);
        }
        self.push_like(input, Op::Reshape { input, shape })
    }

    fn transpose(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| shape.len() >= 2)?;
        let axes: Vec<_> = (0..self.shape(input).len()).collect();
        let axes = self.random.shuffled(&axes);
        self.push_like(input, Op::Transpose { input, axes })
    }

    fn slice(&mut self) -> Option<TensorId> {
        let input = self.pick(|shape| !shape.is_empty())?;
        let (mut start, mut step, mut count) = (vec![], vec![], vec![]);
        for extent in self.shape(input).to_vec() {
            let first = if self.random.one_in(2) { 0 } else { self.random.size(0, extent - 1) };
            let distance = self.random.size(1, 3);
            let most = (extent - 1 - first) / distance + 1;
            start.push(first);
            step.push(distance);
            count.push(self.random.size(most.div_ceil(2), most));
        }
        self.push_like(input, Op::Slice { input, start, step, count })
    }

    fn pad(&mut self) -> Option<TensorId> {
        let input = self.pick(|_| true)?;
        let rank = self.shape(input).len();
        let before = (0..rank).map(|_| self.random.size(0, 2)).collect();
        let after = (0..rank).map(|_| self.random.size(0, 1)).collect();
        let value = if self.random.one_in(2) { 0 } else { self.random.within(-90, 90) };
        self.push_like(input, Op::Pad { input, before, after, value })
    }

    fn concat(&mut self) -> Option<TensorId> {
        let first = self.pick(|shape| !shape.is_empty())?;
        let shape = self.shape(first).to_vec();
        let axis = self.random.size(0, shape.len() - 1);
        let mut inputs = vec![first];
        for _ in 0..self.random.size(0, 2) {
            let continues = |other: &[usize]| {
                other.len() == shape.len() && (0..shape.len()).all(|a| a == axis || other[a] == shape[a])
            };
            let part = self.pick(continues)?;
            inputs.push(self.rescaled(part, self.graph.scale(first))?);
        }
        self.push_like(first, Op::Concat { inputs, axis })
    }

    /// The same integers, declared at another scale.
    fn rescaled(&mut self, input: TensorId, scale: i32) -> Option<TensorId> {
        if self.graph.scale(input) == scale {
            return Some(input);
        }
        self.push(Op::Combine { terms: vec![(input, 1)], constant: 0 }, scale)
    }

    fn table(&mut self) -> Option<TensorId> {
        let input = self.pick(|_| true)?;
        let largest = self.random.size(2, 7) as u32;
        let narrow = self.requant_to(input, largest, false)?;
        let (low, high) = self.extremes(narrow);
        let bits = (1..=8).find(|bits| -(1 << (bits - 1)) <= low && high < 1 << (bits - 1))?;
        let spread = self.random.within(1, 3000);
        let values = (0..1 << bits).map(|_| self.random.within(-spread, spread) as i32).collect();
        self.graph.tables.push(Table { name: format!("table{}", self.graph.tables.len()), bits, values });
        let table = TableId(self.graph.tables.len() as u32 - 1);
        let scale = self.random.within(0, 9) as i32;
        self.push(Op::Table { input: narrow, table }, scale)
    }

    /// Joins what nothing reads into one output, so that every node matters, and adds another output; a few graphs keep
    /// nodes that nothing reads.
    fn finish(mut self) -> (Graph, Weights, Vec<Vec<i64>>) {
        let last_made = TensorId(self.bounds.len() as u32 - 1);
        let mut loose = self.loose_ends();
        if self.random.one_in(8) {
            loose.truncate(1);
        }
        self.size.elements = usize::MAX;
        let mut parts = Vec::new();
        for end in loose {
            parts.extend(self.flattened(end));
        }
        let joined = self.push(Op::Concat { inputs: parts, axis: 0 }, 0);
        let outputs = [joined, Some(last_made)].into_iter().flatten();
        let crosses = |id: &TensorId| self.bounds[id.0 as usize].magnitude() <= Bounds::BOUNDARY.magnitude();
        let outputs: Vec<_> = outputs.filter(crosses).collect();
        if !outputs.is_empty() {
            self.graph.outputs = outputs;
        }
        let inputs = (0..self.graph.inputs.len()).map(|input| {
            let runs = self.tensors.iter().flat_map(|run| &run[input].values);
            runs.map(|&value| value as i64).collect()
        });
        let inputs: Vec<Vec<i64>> = inputs.collect();
        assert!(inputs.iter().all(|values| values.len().is_multiple_of(self.runs)));
        (self.graph, self.weights, inputs)
    }

    fn loose_ends(&self) -> Vec<TensorId> {
        let read: Vec<_> = self.graph.nodes.iter().flat_map(|node| node.op.inputs()).collect();
        (0..self.bounds.len() as u32).map(TensorId).filter(|id| !read.contains(id)).collect()
    }

    /// The tensor as `[elements]` at scale 0, fit to cross a boundary.
    fn flattened(&mut self, input: TensorId) -> Option<TensorId> {
        let crosses = self.bounds[input.0 as usize].magnitude() <= Bounds::BOUNDARY.magnitude();
        let narrow = if crosses { input } else { self.requant(input)? };
        let shape = vec![self.shape(narrow).iter().product()];
        let flat = self.push_like(narrow, Op::Reshape { input: narrow, shape })?;
        self.rescaled(flat, 0)
    }
}

/// The tensor that the last node makes.
fn last(graph: &CheckedGraph) -> TensorId {
    TensorId(graph.tensors() as u32 - 1)
}

/// Extents whose product is at most `elements`, the first one small: it stands for a batch.
fn random_shape(random: &mut Random, rank: usize, elements: usize) -> Vec<usize> {
    let mut shape = Vec::new();
    let mut rest = elements.max(1);
    for axis in 0..rank {
        let most = match axis {
            0 if rank == 4 => 2,
            1 if rank == 4 => 6,
            _ => 11,
        };
        let extent = random.size(1, most.min(rest));
        shape.push(extent);
        rest /= extent;
    }
    shape
}
