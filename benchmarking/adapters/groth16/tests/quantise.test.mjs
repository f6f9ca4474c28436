import assert from 'node:assert/strict';
import { test } from 'node:test';
import { circuit, size } from '../circuit.mjs';
import { BadInput, Unsupported } from '../errors.mjs';
import { checkSize } from '../limits.mjs';
import { dequantise, execute, inputValues, quantise, quantiseInput, scaleFor } from '../quantise.mjs';
import { SMALL_SAMPLES, smallModel } from './support.mjs';

const network = () => quantise(smallModel(), SMALL_SAMPLES);

function inFloats({ stages }, input) {
  return stages.reduce(
    (values, { weights, bias, relu }) =>
      weights
        .map((row, o) => row.reduce((sum, weight, i) => sum + weight * values[i], bias[o]))
        .map((value) => (relu ? Math.max(0, value) : value)),
    input,
  );
}

test('a scale is the largest that keeps a magnitude within its bits', () => {
  for (const magnitude of [1e-3, 0.24999, 0.25, 1, 1.0000001, 127.4, 255, 256, 3e5]) {
    const scale = scaleFor(magnitude, 8);
    assert.ok(Math.round(magnitude * 2 ** scale) <= 255, `${magnitude} at ${scale}`);
    assert.ok(Math.round(magnitude * 2 ** (scale + 1)) > 255, `${magnitude} at ${scale + 1}`);
  }
  assert.equal(scaleFor(0, 8), 0);
});

test('the integer network answers as the float network does', () => {
  const quantised = network();
  for (const sample of SMALL_SAMPLES) {
    const answer = dequantise(quantised, execute(quantised, quantiseInput(quantised, sample)));
    const expected = inFloats(smallModel(), sample);
    answer.forEach((value, at) => assert.ok(Math.abs(value - expected[at]) < 0.01, `${value}, not ${expected[at]}`));
  }
});

test('rescaling rounds halves up, of negative numbers too', () => {
  const stage = { name: 'fc', inputs: 1, outputs: 1, relu: false, weights: [[1]], bias: [0], scale: 0 };
  const half = { stages: [{ ...stage, rescale: { shift: 2, bits: 4 } }] };
  const of = (accumulator) => execute(half, [accumulator])[0];
  assert.deepEqual([5, 6, 7, -5, -6, -7].map(of), [1, 2, 2, -1, -1, -2]);
  const exact = { stages: [{ ...stage, rescale: { shift: 0, bits: 4 } }] };
  assert.deepEqual(
    [-16, 15].map((value) => execute(exact, [value])[0]),
    [-16, 15],
  );
});

test('a value at the edge of its range passes, and one beyond it ends the run, naming node and value', () => {
  const stage = { name: 'fc7', inputs: 1, outputs: 1, relu: false, weights: [[1]], bias: [0], scale: 0 };
  const one = { stages: [{ ...stage, rescale: { shift: 0, bits: 4 } }] };
  for (const beyond of [16, -17]) {
    assert.throws(() => execute(one, [beyond]), {
      name: 'Error',
      message: new RegExp(`node fc7: value 0 is ${beyond} `),
    });
  }
});

test('an input outside of the calibrated range is refused, naming it', () => {
  assert.throws(
    () => quantiseInput(network(), [0, 50, 0]),
    (error) => error instanceof BadInput && /value 1 is 50/.test(error.message),
  );
});

test('inputs of the wrong form are refused, saying where', () => {
  const documents = [
    undefined,
    {},
    { input_data: [] },
    { input_data: [[1], [2]] },
    { input_data: [[1]] },
    { input_data: [[1, null]] },
  ];
  for (const document of documents) {
    assert.throws(
      () => inputValues(document, 2, 'input.json'),
      (error) => error instanceof BadInput && /^input.json/.test(error.message),
    );
  }
  assert.deepEqual(inputValues({ input_data: [[1, 2]] }, 2, 'input.json'), [1, 2]);
});

test('a model cannot be quantised without samples', () => {
  assert.throws(() => quantise(smallModel(), []), BadInput);
});

test('dead layers and zero weights are quantised', () => {
  const model = smallModel();
  model.stages[0].weights = model.stages[0].weights.map((row) => row.map(() => 0));
  model.stages[0].bias = [-1, -1, -1, -1];
  const quantised = quantise(model, SMALL_SAMPLES);
  const answer = dequantise(quantised, execute(quantised, quantiseInput(quantised, SMALL_SAMPLES[0])));
  const expected = inFloats(model, SMALL_SAMPLES[0]);
  answer.forEach((value, at) => assert.ok(Math.abs(value - expected[at]) < 0.01));
  assert.match(circuit(quantised), /template Stage2/);
});

test('accumulators that doubles cannot hold are unsupported, naming the node', () => {
  const model = smallModel();
  model.stages[1].weights[0] = [1e-9, 1e-9, 1e-9, 1e-9];
  model.stages[1].weights[1] = [0, 0, 0, 0];
  model.stages[1].weights[2] = [0, 0, 0, 0];
  model.stages[1].bias[0] = 1e6;
  assert.throws(
    () => quantise(model, SMALL_SAMPLES),
    (error) => error instanceof Unsupported && /node fc2/.test(error.message),
  );
});

test('networks that are too large are unsupported, with the reason', () => {
  checkSize({ constraints: 1000, public: 10, weights: 1000, largest: 1000 });
  const refusal = (pattern) => (error) => error instanceof Unsupported && pattern.test(error.message);
  assert.throws(
    () => checkSize({ constraints: 1000, public: 10, weights: 1e7, largest: 1000 }),
    refusal(/10,000,000 weights/),
  );
  assert.throws(
    () => checkSize({ constraints: 2 ** 22, public: 10, weights: 10, largest: 10 }),
    refusal(/constraints/),
  );
  const layer = { constraints: 1000, public: 10, weights: 5e5, largest: 5e5 };
  assert.throws(() => checkSize(layer), refusal(/a layer of 500,000 weights/));
  assert.equal(size(network()).weights, 3 * 4 + 4 * 3 + 3 * 2);
});
