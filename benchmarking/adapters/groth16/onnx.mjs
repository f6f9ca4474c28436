// Reads an ONNX file as a chain of dense layers. Whatever is not exactly such a chain is refused by name: a network
// that is understood in part would be proven wrongly.

import { Unsupported, BadInput } from './errors.mjs';
import { load } from './packages.mjs';

// The messages and fields of onnx.proto that are read here, with their numbers; readers skip the others.
const field = (type, id, rule) => ({ type, id, ...(rule && { rule }) });
const SCHEMA = {
  nested: {
    Dimension: { fields: { dimValue: field('int64', 1), dimParam: field('string', 2) } },
    Shape: { fields: { dim: field('Dimension', 1, 'repeated') } },
    TensorType: { fields: { elemType: field('int32', 1), shape: field('Shape', 2) } },
    Type: { fields: { tensorType: field('TensorType', 1) } },
    ValueInfo: { fields: { name: field('string', 1), type: field('Type', 2) } },
    Tensor: {
      fields: {
        dims: field('int64', 1, 'repeated'),
        dataType: field('int32', 2),
        floatData: field('float', 4, 'repeated'),
        int64Data: field('int64', 7, 'repeated'),
        name: field('string', 8),
        rawData: field('bytes', 9),
        doubleData: field('double', 10, 'repeated'),
        dataLocation: field('int32', 14),
      },
    },
    Attribute: {
      fields: { name: field('string', 1), f: field('float', 2), i: field('int64', 3), t: field('Tensor', 5) },
    },
    Node: {
      fields: {
        input: field('string', 1, 'repeated'),
        output: field('string', 2, 'repeated'),
        name: field('string', 3),
        opType: field('string', 4),
        attribute: field('Attribute', 5, 'repeated'),
        domain: field('string', 7),
      },
    },
    Graph: {
      fields: {
        node: field('Node', 1, 'repeated'),
        name: field('string', 2),
        initializer: field('Tensor', 5, 'repeated'),
        input: field('ValueInfo', 11, 'repeated'),
        output: field('ValueInfo', 12, 'repeated'),
        sparseInitializer: field('bytes', 15, 'repeated'),
      },
    },
    Model: { fields: { irVersion: field('int64', 1), graph: field('Graph', 7) } },
  },
};

const FLOAT = 1;
const INT64 = 7;
const DOUBLE = 11;
const EXTERNAL = 1;

/** The message type of a whole model, for reading and, in tests, for writing. */
export function modelType() {
  return load('protobufjs').Root.fromJSON(SCHEMA).lookupType('Model');
}

const product = (dims) => dims.reduce((all, dim) => all * dim, 1);

// Little-endian whatever the machine; `width` bytes for each value.
function unpack(bytes, width, read) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.byteLength / width) }, (_, at) => read(view, at * width));
}

/** `{ dims, values }` of a constant tensor, as doubles (int64 included, which here are shapes). */
function constant(tensor, where) {
  if (tensor.dataLocation === EXTERNAL) throw new Unsupported(`${where}: its data lies outside of the file`);
  const dims = tensor.dims.map(Number);
  const raw = tensor.rawData;
  const kinds = {
    [FLOAT]: [4, (view, at) => view.getFloat32(at, true), tensor.floatData],
    [DOUBLE]: [8, (view, at) => view.getFloat64(at, true), tensor.doubleData],
    [INT64]: [8, (view, at) => Number(view.getBigInt64(at, true)), tensor.int64Data.map(Number)],
  };
  if (!(tensor.dataType in kinds))
    throw new Unsupported(`${where}: element type ${tensor.dataType}, not float or double`);
  const [width, read, listed] = kinds[tensor.dataType];
  const values = raw.length > 0 ? unpack(raw, width, read) : Array.from(listed);
  if (values.length !== product(dims)) {
    throw new BadInput(`${where}: ${values.length} values for the shape [${dims}]`);
  }
  const odd = values.findIndex((value) => !Number.isFinite(value));
  if (odd >= 0) throw new BadInput(`${where}: value ${odd} is ${values[odd]}`);
  return { dims, values };
}

function attributes(node) {
  return Object.fromEntries(node.attribute.map((attribute) => [attribute.name, attribute]));
}

/** A graph as it is read, node by node: the one tensor that flows, its shape, and the stages so far. */
class Chain {
  constructor(graph) {
    this.constants = new Map(graph.initializer.map((tensor) => [tensor.name, tensor]));
    const inputs = graph.input.filter(({ name }) => !this.constants.has(name));
    if (inputs.length !== 1) throw new Unsupported(`${inputs.length} inputs (one is supported)`);
    if (graph.output.length !== 1) throw new Unsupported(`${graph.output.length} outputs (one is supported)`);
    this.current = inputs[0].name;
    this.shape = (inputs[0].type?.tensorType?.shape?.dim ?? []).map((dim) => {
      if (Number(dim.dimValue) > 0) return Number(dim.dimValue);
      throw new Unsupported(`input ${this.current}: a dimension (${dim.dimParam || 'unnamed'}) is not static`);
    });
    if (this.shape.length === 0) throw new Unsupported(`input ${this.current} has no shape`);
    this.inputs = product(this.shape);
    this.stages = [];
  }

  take(node) {
    const label = `operator ${node.opType} (node ${node.name || node.output[0]})`;
    const read = READERS[node.opType];
    if (!read || (node.domain && node.domain !== 'ai.onnx')) throw new Unsupported(label);
    if (node.opType === 'Constant') return read(this, node, label);
    const fed = node.input.filter((name) => name && !this.constants.has(name));
    if (fed.length !== 1 || fed[0] !== this.current) {
      throw new Unsupported(`${label}: it does not take the preceding node's output alone, so the graph is no chain`);
    }
    read(this, node, label);
    this.current = node.output[0];
  }

  /** The constant that `node` takes as input `index`, or nothing where the input is absent. */
  parameter(node, index, label) {
    const name = node.input[index];
    if (!name) return undefined;
    if (!this.constants.has(name)) throw new Unsupported(`${label}: input ${index} is not constant`);
    return constant(this.constants.get(name), `tensor ${name}`);
  }

  /** The tensor's length, where it is one row. */
  row(label) {
    const length = this.shape.at(-1);
    if (product(this.shape) !== length)
      throw new Unsupported(`${label}: its input has shape [${this.shape}], more than a row`);
    return length;
  }
}

function dense(chain, node, label, { matrix, transposed, alpha }) {
  if (matrix.dims.length !== 2) throw new Unsupported(`${label}: weights of shape [${matrix.dims}]`);
  const [inputs, outputs] = transposed ? [matrix.dims[1], matrix.dims[0]] : matrix.dims;
  const row = chain.row(label);
  if (row !== inputs) throw new BadInput(`${label}: ${row} values enter weights for ${inputs}`);
  const weights = Array.from({ length: outputs }, (_, o) =>
    Array.from({ length: inputs }, (_, i) => alpha * matrix.values[transposed ? o * inputs + i : i * outputs + o]),
  );
  chain.shape = [...chain.shape.slice(0, -1), outputs];
  const name = node.name || node.output[0];
  chain.stages.push({ name, inputs, outputs, weights, bias: new Array(outputs).fill(0), relu: false });
}

function addBias(chain, bias, factor, label) {
  const stage = chain.stages.at(-1);
  const { outputs } = stage;
  if (bias.values.length !== outputs && bias.values.length !== 1) {
    throw new Unsupported(`${label}: ${bias.values.length} values added to ${outputs}`);
  }
  if (bias.dims.length > chain.shape.length || (bias.values.length > 1 && bias.dims.at(-1) !== outputs)) {
    throw new Unsupported(`${label}: shape [${bias.dims}] added to [${chain.shape}]`);
  }
  stage.bias = stage.bias.map((value, o) => value + factor * bias.values[bias.values.length === 1 ? 0 : o]);
}

const READERS = {
  Constant(chain, node, label) {
    const { value } = attributes(node);
    if (!value?.t) throw new Unsupported(`${label}: not a tensor`);
    chain.constants.set(node.output[0], value.t);
  },
  Gemm(chain, node, label) {
    const { alpha, beta, transA, transB } = attributes(node);
    if (Number(transA?.i ?? 0) !== 0) throw new Unsupported(`${label}: transA`);
    const matrix = chain.parameter(node, 1, label);
    if (!matrix) throw new BadInput(`${label}: it has no weights`);
    if (chain.shape.length !== 2)
      throw new Unsupported(`${label}: its input has shape [${chain.shape}], not two dimensions`);
    dense(chain, node, label, { matrix, transposed: Number(transB?.i ?? 0) !== 0, alpha: alpha?.f ?? 1 });
    const bias = chain.parameter(node, 2, label);
    if (bias) addBias(chain, bias, beta?.f ?? 1, label);
  },
  MatMul(chain, node, label) {
    if (chain.current !== node.input[0]) throw new Unsupported(`${label}: its left operand is constant`);
    dense(chain, node, label, { matrix: chain.parameter(node, 1, label), transposed: false, alpha: 1 });
  },
  Add(chain, node, label) {
    if (chain.stages.length === 0 || chain.stages.at(-1).relu)
      throw new Unsupported(`${label}: only as a dense layer's bias`);
    addBias(chain, chain.parameter(node, chain.current === node.input[0] ? 1 : 0, label), 1, label);
  },
  Relu(chain, node, label) {
    if (chain.stages.length === 0) throw new Unsupported(`${label}: only after a dense layer`);
    chain.stages.at(-1).relu = true; // a second one in a row changes nothing
  },
  Identity() {},
  Flatten(chain, node) {
    const axis = Number(attributes(node).axis?.i ?? 1);
    const at = axis < 0 ? axis + chain.shape.length : axis;
    chain.shape = [product(chain.shape.slice(0, at)), product(chain.shape.slice(at))];
  },
  Reshape(chain, node, label) {
    if (Number(attributes(node).allowzero?.i ?? 0) !== 0) throw new Unsupported(`${label}: allowzero`);
    const target = chain.parameter(node, 1, label);
    if (!target) throw new BadInput(`${label}: it has no shape`);
    const dims = target.values.map((dim, at) => (dim === 0 ? chain.shape[at] : dim));
    const elements = product(chain.shape);
    const shape = dims.map((dim) => (dim === -1 ? elements / -product(dims) : dim));
    if (shape.some((dim) => !(Number.isInteger(dim) && dim > 0)) || product(shape) !== elements) {
      throw new BadInput(`${label}: [${chain.shape}] cannot become [${target.values}]`);
    }
    chain.shape = shape;
  },
};

/**
 * Reads the bytes of an ONNX file.
 *
 * Returns `{ inputs, stages }`: the number of input values, and dense layers in order, each `{ name, inputs, outputs,
 * weights: [outputs][inputs], bias: [outputs], relu }`. Values stay in row-major order throughout. Throws
 * `Unsupported`, naming the operator and the node, or `BadInput`.
 */
export function readOnnx(bytes) {
  let model;
  try {
    model = modelType().decode(bytes);
  } catch (error) {
    throw new BadInput(`model.onnx is not an ONNX file: ${error.message}`);
  }
  if (!model.graph) throw new BadInput('model.onnx has no graph');
  if (model.graph.sparseInitializer.length > 0) throw new Unsupported('sparse weights');
  const chain = new Chain(model.graph);
  for (const node of model.graph.node) chain.take(node);
  const output = model.graph.output[0].name;
  if (output !== chain.current) throw new Unsupported(`output ${output} is not what the last node computes`);
  if (chain.stages.length === 0) throw new Unsupported('a model without a dense layer');
  return { inputs: chain.inputs, stages: chain.stages };
}
