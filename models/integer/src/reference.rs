//! The reference: every operator by its definition, one element at a time in 128 bits.
//!
//! It shares no code with the executor, so that tests compare two independent readings of [`crate::graph`].

use crate::graph::{Conv, Graph, Op, TensorId, WeightId, Weights, Window};

/// Values and their extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<i128>,
}

impl Tensor {
    /// From values of a run.
    pub fn new(shape: &[usize], values: impl IntoIterator<Item = impl Into<i128>>) -> Self {
        let tensor = Self { shape: shape.to_vec(), values: values.into_iter().map(Into::into).collect() };
        assert_eq!(tensor.values.len(), shape.iter().product::<usize>());
        tensor
    }

    fn generate(shape: &[usize], mut value: impl FnMut(&[usize]) -> i128) -> Self {
        let indices = indices(shape);
        Self { shape: shape.to_vec(), values: indices.iter().map(|index| value(index)).collect() }
    }

    fn at(&self, index: &[usize]) -> i128 {
        assert_eq!(index.len(), self.shape.len());
        let place = index.iter().zip(&self.shape).fold(0, |place, (&i, &extent)| {
            assert!(i < extent);
            place * extent + i
        });
        self.values[place]
    }

    /// The element at `index`, or zero outside.
    fn at_padded(&self, index: &[Option<usize>]) -> i128 {
        let inside = index.iter().zip(&self.shape).map(|(i, &extent)| i.filter(|&i| i < extent));
        inside.collect::<Option<Vec<_>>>().map_or(0, |index| self.at(&index))
    }
}

/// All indices of a shape, in row-major order.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |outer, &extent| {
        outer.iter().flat_map(|index| (0..extent).map(move |i| [index.as_slice(), &[i]].concat())).collect()
    })
}

/// Every tensor of one run on `inputs`; nothing if a value leaves an operator's range.
///
/// # Panics
/// If the graph is not legal or the weights or inputs do not fit.
pub fn run(graph: &Graph, weights: &Weights, inputs: &[Vec<i64>]) -> Option<Vec<Vec<i64>>> {
    let inputs = graph.inputs.iter().zip(inputs);
    let mut tensors: Vec<_> = inputs.map(|(input, values)| Tensor::new(&input.shape, values.iter().copied())).collect();
    for node in &graph.nodes {
        tensors.push(apply(graph, weights, &node.op, &tensors)?);
    }
    let narrow = |value: i128| i64::try_from(value).expect("a checked graph's values have at most 62 bits");
    Some(tensors.into_iter().map(|tensor| tensor.values.into_iter().map(narrow).collect()).collect())
}

/// What `op` makes of the tensors of one run.
///
/// # Panics
/// If the graph is not legal or the weights do not fit.
pub fn apply(graph: &Graph, weights: &Weights, op: &Op, tensors: &[Tensor]) -> Option<Tensor> {
    let tensor = |id: TensorId| &tensors[id.0 as usize];
    let weight =
        |id: WeightId| Tensor::new(&graph.weights[id.0 as usize].shape, weights.0[id.0 as usize].iter().copied());
    Some(match op {
        Op::MatMul { input, weight: w } => matmul(tensor(*input), &weight(*w)),
        Op::Conv(conv) => convolve(conv, tensor(conv.input), &weight(conv.weight)),
        Op::MulWeight { input, weight: w } => {
            let (x, w) = (tensor(*input), weight(*w));
            Tensor::generate(&x.shape, |index| x.at(index) * broadcast(&w, index))
        }
        Op::AddWeight { input, weight: w, multiplier } => {
            let (x, w) = (tensor(*input), weight(*w));
            Tensor::generate(&x.shape, |index| x.at(index) + i128::from(*multiplier) * broadcast(&w, index))
        }
        Op::Combine { terms, constant } => Tensor::generate(&tensor(terms[0].0).shape, |index| {
            let sum: i128 = terms.iter().map(|&(t, factor)| i128::from(factor) * tensor(t).at(index)).sum();
            sum + i128::from(*constant)
        }),
        Op::WindowSum { input, window } => window_sum(tensor(*input), window),
        Op::Reshape { input, shape } => Tensor::new(shape, tensor(*input).values.clone()),
        Op::Transpose { input, axes } => {
            let x = tensor(*input);
            let shape: Vec<_> = axes.iter().map(|&axis| x.shape[axis]).collect();
            Tensor::generate(&shape, |index| {
                let mut source = vec![0; axes.len()];
                for (place, &axis) in axes.iter().enumerate() {
                    source[axis] = index[place];
                }
                x.at(&source)
            })
        }
        Op::Slice { input, start, step, count } => {
            let x = tensor(*input);
            Tensor::generate(count, |index| {
                let source: Vec<_> = (0..index.len()).map(|axis| start[axis] + index[axis] * step[axis]).collect();
                x.at(&source)
            })
        }
        Op::Pad { input, before, after, value } => pad(tensor(*input), before, after, *value),
        Op::Concat { inputs, axis } => {
            let parts: Vec<_> = inputs.iter().map(|&input| tensor(input)).collect();
            concat(&parts, *axis)
        }
        Op::Requant { input, shift, bits, relu } => requant(tensor(*input), *shift, *bits, *relu)?,
        Op::Table { input, table } => {
            let (x, table) = (tensor(*input), &graph.tables[table.0 as usize]);
            let value = |value: &i128| {
                let place = usize::try_from(value + (1 << (table.bits - 1))).ok()?;
                table.values.get(place).map(|&value| i128::from(value))
            };
            Tensor { shape: x.shape.clone(), values: x.values.iter().map(value).collect::<Option<_>>()? }
        }
        Op::MatMulTensors { left, right } => tensor_product(tensor(*left), tensor(*right)),
        Op::MulTensors { left, right } => {
            let (x, y) = (tensor(*left), tensor(*right));
            Tensor::generate(&x.shape, |index| x.at(index) * y.at(index))
        }
        Op::ReduceSum { input, axes } => reduce_sum(tensor(*input), axes),
        Op::Expand { input, shape } => {
            let x = tensor(*input);
            Tensor::generate(shape, |index| broadcast(x, index))
        }
        Op::Gather { input, axis, indices } => {
            let x = tensor(*input);
            let mut shape = x.shape.clone();
            shape[*axis] = indices.len();
            Tensor::generate(&shape, |index| {
                let mut source = index.to_vec();
                source[*axis] = indices[index[*axis]] as usize;
                x.at(&source)
            })
        }
        Op::Max { input } => {
            let x = tensor(*input);
            let (&length, outer) = x.shape.split_last().expect("a maximum needs an axis");
            Tensor::generate(&[outer, &[1]].concat(), |index| {
                let at = |j: usize| x.at(&[&index[..outer.len()], &[j]].concat());
                (0..length).map(at).max().expect("no axis is empty")
            })
        }
        Op::Divide { numerator, denominator, bits } => divide(tensor(*numerator), tensor(*denominator), *bits)?,
        Op::Sqrt { input, bits } => {
            let x = tensor(*input);
            let root = |&value: &i128| square_root(value).filter(|&root| root < 1 << bits);
            Tensor { shape: x.shape.clone(), values: x.values.iter().map(root).collect::<Option<_>>()? }
        }
    })
}

fn matmul(x: &Tensor, w: &Tensor) -> Tensor {
    let (depth, outer) = x.shape.split_last().expect("a matrix product needs an axis");
    let shape = [outer, &[w.shape[0]]].concat();
    Tensor::generate(&shape, |index| {
        let (&n, outer) = index.split_last().expect("the result has an axis");
        (0..*depth).map(|k| w.at(&[n, k]) * x.at(&[outer, &[k]].concat())).sum()
    })
}

/// Where place `k` of window `i` lies, before the padding is taken off, on an axis.
fn place(window: &Window, axis: usize, i: usize, k: usize) -> Option<usize> {
    let before = [window.pad_height[0], window.pad_width[0]][axis];
    (i * window.stride[axis] + k * window.dilation[axis]).checked_sub(before)
}

fn convolve(conv: &Conv, x: &Tensor, w: &Tensor) -> Tensor {
    let window = &conv.window;
    let [height, width] = window.output(x.shape[2], x.shape[3]).expect("windows fit");
    let group_inputs = x.shape[1] / conv.groups;
    let group_outputs = w.shape[0] / conv.groups;
    Tensor::generate(&[x.shape[0], w.shape[0], height, width], |index| {
        let &[n, m, h, v] = index else { unreachable!("four axes") };
        indices(&w.shape[1..])
            .iter()
            .map(|kernel| {
                let &[c, i, j] = kernel.as_slice() else { unreachable!("three axes") };
                let channel = m / group_outputs * group_inputs + c;
                let source = [Some(n), Some(channel), place(window, 0, h, i), place(window, 1, v, j)];
                w.at(&[m, c, i, j]) * x.at_padded(&source)
            })
            .sum()
    })
}

fn window_sum(x: &Tensor, window: &Window) -> Tensor {
    let axis = x.shape.len() - 2;
    let extents = window.output(x.shape[axis], x.shape[axis + 1]).expect("windows fit");
    Tensor::generate(&[&x.shape[..axis], &extents].concat(), |index| {
        indices(&window.kernel)
            .iter()
            .map(|kernel| {
                let mut source: Vec<_> = index.iter().copied().map(Some).collect();
                source[axis] = place(window, 0, index[axis], kernel[0]);
                source[axis + 1] = place(window, 1, index[axis + 1], kernel[1]);
                x.at_padded(&source)
            })
            .sum()
    })
}

fn broadcast(w: &Tensor, index: &[usize]) -> i128 {
    let index: Vec<_> = index.iter().zip(&w.shape).map(|(&i, &extent)| if extent == 1 { 0 } else { i }).collect();
    w.at(&index)
}

fn pad(x: &Tensor, before: &[usize], after: &[usize], value: i64) -> Tensor {
    let shape: Vec<_> = (0..x.shape.len()).map(|axis| before[axis] + x.shape[axis] + after[axis]).collect();
    Tensor::generate(&shape, |index| {
        let source: Option<Vec<_>> =
            (0..index.len()).map(|axis| index[axis].checked_sub(before[axis]).filter(|&i| i < x.shape[axis])).collect();
        source.map_or(value.into(), |source| x.at(&source))
    })
}

fn concat(parts: &[&Tensor], axis: usize) -> Tensor {
    let mut shape = parts[0].shape.clone();
    shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
    Tensor::generate(&shape, |index| {
        let mut source = index.to_vec();
        for part in parts {
            if source[axis] < part.shape[axis] {
                return part.at(&source);
            }
            source[axis] -= part.shape[axis];
        }
        unreachable!("the extents add up to the result's")
    })
}

fn requant(x: &Tensor, shift: u32, bits: u32, relu: bool) -> Option<Tensor> {
    let divisor = 1_i128 << shift;
    let rescale = |&value: &i128| {
        let rescaled = if shift == 0 { value } else { (value + divisor / 2).div_euclid(divisor) };
        let in_range = -(1 << bits) <= rescaled && rescaled < 1 << bits;
        in_range.then_some(if relu && rescaled < 0 { 0 } else { rescaled })
    };
    Some(Tensor { shape: x.shape.clone(), values: x.values.iter().map(rescale).collect::<Option<_>>()? })
}

fn tensor_product(left: &Tensor, right: &Tensor) -> Tensor {
    let rank = left.shape.len();
    let columns = right.shape[rank - 2];
    let shape = [&left.shape[..rank - 1], &[columns]].concat();
    Tensor::generate(&shape, |index| {
        let (batch, &[m, n]) = index.split_at(rank - 2) else { unreachable!("rows and columns") };
        (0..left.shape[rank - 1])
            .map(|k| left.at(&[batch, &[m, k]].concat()) * right.at(&[batch, &[n, k]].concat()))
            .sum()
    })
}

fn reduce_sum(x: &Tensor, axes: &[usize]) -> Tensor {
    let extents = |summed: bool| -> Vec<usize> {
        x.shape.iter().enumerate().map(|(a, &extent)| if axes.contains(&a) == summed { extent } else { 1 }).collect()
    };
    let offsets = indices(&extents(true));
    Tensor::generate(&extents(false), |index| {
        let at = |offset: &Vec<usize>| x.at(&index.iter().zip(offset).map(|(i, o)| i + o).collect::<Vec<_>>());
        offsets.iter().map(at).sum()
    })
}

/// The quotient `q` with `q - 1/2 <= x / d < q + 1/2`.
fn divide(x: &Tensor, d: &Tensor, bits: u32) -> Option<Tensor> {
    let quotient = |(&x, &d): (&i128, &i128)| {
        if d < 1 {
            return None;
        }
        let q = x.div_euclid(d) + i128::from(2 * x.rem_euclid(d) >= d);
        (-(1 << bits) <= q && q < 1 << bits).then_some(q)
    };
    Some(Tensor {
        shape: x.shape.clone(),
        values: x.values.iter().zip(&d.values).map(quotient).collect::<Option<_>>()?,
    })
}

/// The largest `y` with `y^2 <= value`, by halving; nothing for a negative value.
fn square_root(value: i128) -> Option<i128> {
    let (mut low, mut high) = (0_i128, 1_i128 << 32);
    while value >= 0 && low + 1 < high {
        let middle = i128::midpoint(low, high);
        if middle * middle <= value { low = middle } else { high = middle }
    }
    (value >= 0).then_some(low)
}
