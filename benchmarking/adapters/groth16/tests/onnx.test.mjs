import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { BadInput, Unsupported } from '../errors.mjs';
import { readOnnx } from '../onnx.mjs';
import { node, onnx, shapeTensor, smallModel, smallOnnx, tensor, withoutPackages as skip } from './support.mjs';

const ZOO = new URL('../../../../models/zoo/', import.meta.url);
const WEIGHTS = [tensor('w', [2, 3], [1, 2, 3, 4, 5, 6]), tensor('b', [3], [0.5, -0.5, 0.25])];

/** A model of `nodes` on `input`, [1, 2] unless told, with the weights `w` [2, 3] and the bias `b` [3]. */
const model = (nodes, { dims = [1, 2], output = 'y', more = [] } = {}) =>
  onnx({ dims, nodes, initializers: [...WEIGHTS, ...more], output });

const close = (found, expected) =>
  found
    .flat()
    .forEach((value, at) => assert.ok(Math.abs(value - expected.flat()[at]) < 1e-6, `${found}, not ${expected}`));

function unsupported(bytes, ...parts) {
  assert.throws(
    () => readOnnx(bytes),
    (error) => {
      assert.ok(error instanceof Unsupported, `${error}`);
      for (const part of parts) assert.ok(error.message.includes(part), error.message);
      return true;
    },
  );
}

test('Gemm, its transposed weights and its bias, and ReLU', { skip }, () => {
  const { inputs, stages } = readOnnx(smallOnnx());
  assert.equal(inputs, 3);
  smallModel().stages.forEach((expected, at) => {
    const { weights, bias, ...rest } = stages[at];
    const { weights: expectedWeights, bias: expectedBias, ...expectedRest } = expected;
    assert.deepEqual(rest, expectedRest);
    close(weights, expectedWeights);
    close(bias, expectedBias);
  });
});

test('MatMul with Add on either side, through Flatten, Reshape and Identity', { skip }, () => {
  const nodes = (sides) => [
    node('Flatten', ['input'], 'f', 'flatten', [{ name: 'axis', i: 1 }]),
    node('Reshape', ['f', 'target'], 'r', 'reshape'),
    node('MatMul', ['r', 'w'], 'm', 'mm'),
    node('Add', sides, 'a', 'add'),
    node('Identity', ['a'], 'i', 'dropout'),
    node('Relu', ['i'], 'y', 'relu'),
  ];
  for (const sides of [
    ['m', 'b'],
    ['b', 'm'],
  ]) {
    const bytes = model(nodes(sides), { dims: [1, 1, 2, 1], more: [shapeTensor('target', [0, -1])] });
    const [stage] = readOnnx(bytes).stages;
    assert.deepEqual(stage.weights, [
      [1, 4],
      [2, 5],
      [3, 6],
    ]);
    assert.deepEqual([stage.bias, stage.relu], [[0.5, -0.5, 0.25], true]);
  }
});

test('alpha and beta of Gemm, and a second bias', { skip }, () => {
  const factors = [
    { name: 'alpha', f: 2 },
    { name: 'beta', f: 4 },
  ];
  const bytes = model([node('Gemm', ['input', 'w', 'b'], 'g', 'fc', factors), node('Add', ['g', 'b'], 'y', 'add')]);
  const [stage] = readOnnx(bytes).stages;
  assert.deepEqual(stage.weights, [
    [2, 8],
    [4, 10],
    [6, 12],
  ]);
  assert.deepEqual(stage.bias, [2.5, -2.5, 1.25]);
});

test('the zoo: mlp is read, and the others are refused by node', { skip }, () => {
  const { inputs, stages } = readOnnx(readFileSync(new URL('mlp.onnx', ZOO)));
  assert.equal(inputs, 25);
  assert.deepEqual(
    stages.map(({ outputs, relu }) => [outputs, relu]),
    [...Array(5).fill([10, true]), [1, false]],
  );
  unsupported(readFileSync(new URL('cnn.onnx', ZOO)), 'Conv', 'conv1');
  unsupported(readFileSync(new URL('mlp2.onnx', ZOO)), 'Sigmoid', 'sigmoid1');
});

test('what is no chain of dense layers is unsupported, naming the node', { skip }, () => {
  const gemm = node('Gemm', ['input', 'w', 'b'], 'g', 'fc');
  unsupported(model([gemm, node('Softmax', ['g'], 'y', 'soft')]), 'Softmax', 'soft');
  unsupported(model([node('Relu', ['input'], 'y', 'early')]), 'Relu', 'early');
  unsupported(model([gemm, node('Add', ['g', 'g'], 'y', 'twice')]), 'Add', 'twice');
  unsupported(model([gemm, node('Relu', ['g'], 'r', 'relu'), node('Add', ['r', 'b'], 'y', 'late')]), 'Add', 'late');
  unsupported(model([gemm, node('Relu', ['input'], 'y', 'branch')]), 'branch', 'no chain');
  unsupported(model([node('Gemm', ['input', 'w', 'b'], 'y', 'fc', [{ name: 'transA', i: 1 }])]), 'fc', 'transA');
  unsupported(model([node('MatMul', ['w', 'input'], 'y', 'left')], { dims: [3, 1] }), 'left', 'left operand');
  unsupported(model([node('MatMul', ['input', 'w'], 'y', 'rows')], { dims: [5, 2] }), 'rows', 'more than a row');
  unsupported(model([{ ...gemm, output: ['y'], domain: 'com.example' }]), 'Gemm', 'fc');
  unsupported(model([gemm], { output: 'elsewhere' }), 'elsewhere');
  unsupported(model([node('Identity', ['input'], 'y', 'id')]), 'without a dense layer');
});

test('shapes that are not static are unsupported', { skip }, () => {
  unsupported(model([node('MatMul', ['input', 'w'], 'y', 'mm')], { dims: ['batch', 2] }), 'batch', 'not static');
});

test('files with errors are refused, saying where', { skip }, () => {
  const refused = (bytes, pattern) =>
    assert.throws(
      () => readOnnx(bytes),
      (error) => error instanceof BadInput && pattern.test(error.message),
    );
  const gemm = [node('MatMul', ['input', 'w'], 'y', 'mm')];
  refused(smallOnnx().subarray(0, 60), /not an ONNX file/);
  refused(new Uint8Array(), /no graph/);
  refused(model(gemm, { dims: [1, 4] }), /node mm.*4 values enter weights for 2/);
  const broken = (weights) => onnx({ dims: [1, 2], nodes: gemm, initializers: [weights], output: 'y' });
  refused(broken(tensor('w', [2, 3], [1, 2, 3])), /tensor w: 3 values/);
  refused(broken(tensor('w', [2, 1], [1, Number.NaN])), /tensor w: value 1 is NaN/);
  unsupported(broken({ ...tensor('w', [2, 1], [1, 2]), dataType: 10 }), 'tensor w', 'element type 10');
  unsupported(broken({ ...tensor('w', [2, 1], []), dataLocation: 1 }), 'tensor w', 'outside of the file');
});
