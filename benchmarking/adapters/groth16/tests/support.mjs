// What the tests share: temporary folders, small ONNX files, and the reason for which tests are left out.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { modelType } from '../onnx.mjs';
import { installed } from '../packages.mjs';

/** For the `skip` option of tests that need the npm packages. */
export const withoutPackages = installed()
  ? false
  : 'the packages are not installed: BENCH_CACHE=DIR node steps.mjs install';

// snarkjs's threads would keep the test's process alive.
after(() => globalThis.curve_bn128?.terminate());

/** A folder that goes away when test `t` is over. */
export function temporaryFolder(t) {
  const folder = mkdtempSync(join(tmpdir(), 'groth16-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A float tensor, its data listed or, with `raw`, as bytes. */
export function tensor(name, dims, values, { raw = false } = {}) {
  return raw
    ? { name, dims, dataType: 1, rawData: new Uint8Array(new Float32Array(values).buffer) }
    : { name, dims, dataType: 1, floatData: values };
}

/** Reshape's target. */
export const shapeTensor = (name, values) => ({ name, dims: [values.length], dataType: 7, int64Data: values });

export const node = (opType, input, output, name, attribute = []) => ({
  opType,
  input,
  output: [output],
  name,
  attribute,
});

/** The bytes of a model with one input `input` of shape `dims`; a dimension that is a string is symbolic. */
export function onnx({ dims, nodes, initializers, output }) {
  const dim = dims.map((size) => (typeof size === 'string' ? { dimParam: size } : { dimValue: size }));
  const input = [{ name: 'input', type: { tensorType: { elemType: 1, shape: { dim } } } }];
  const graph = { node: nodes, initializer: initializers, input, output: [{ name: output }] };
  const type = modelType();
  return type.encode(type.fromObject({ irVersion: 8, graph })).finish();
}

/**
 * A network of three dense layers, 3-4-3-2, ReLU after the first only, whose neurons take both signs on its samples.
 */
export function smallModel() {
  const weights = [
    [
      [0.5, -0.25, 0.75],
      [-0.5, 0.5, 0.1],
      [-0.9, -0.3, 0.2],
      [0.3, 0.8, -0.6],
    ],
    [
      [0.4, -0.7, 0.2, 0.1],
      [-0.3, 0.6, 0.9, -0.2],
      [0.8, 0.1, -0.5, -0.9],
    ],
    [
      [1.1, -0.4, 0.3],
      [-0.6, 0.2, 0.7],
    ],
  ];
  const bias = [
    [0.1, -0.2, 0.05, 0],
    [0.02, -0.1, 0.3],
    [0, -0.25],
  ];
  const stages = weights.map((rows, at) => ({
    name: `fc${at + 1}`,
    inputs: rows[0].length,
    outputs: rows.length,
    weights: rows,
    bias: bias[at],
    relu: at === 0,
  }));
  return { inputs: 3, stages };
}

export const SMALL_SAMPLES = [
  [1, -0.5, 0.25],
  [-0.75, 1, -1],
  [0.3, 0.9, 0.6],
];

/** `smallModel` as an ONNX file. */
export function smallOnnx() {
  const { stages } = smallModel();
  const nodes = stages.flatMap(({ name, relu }, at) => {
    const source = at === 0 ? 'input' : `y${at - 1}`;
    const transposed = [{ name: 'transB', i: 1 }];
    return relu
      ? [
          node('Gemm', [source, `w${at}`, `b${at}`], `g${at}`, name, transposed),
          node('Relu', [`g${at}`], `y${at}`, `relu${at}`),
        ]
      : [node('Gemm', [source, `w${at}`, `b${at}`], `y${at}`, name, transposed)];
  });
  const initializers = stages.flatMap(({ weights, bias, inputs, outputs }, at) => [
    tensor(`w${at}`, [outputs, inputs], weights.flat(), { raw: at === 1 }),
    tensor(`b${at}`, [outputs], bias),
  ]);
  return onnx({ dims: [1, 3], nodes, initializers, output: 'y2' });
}
