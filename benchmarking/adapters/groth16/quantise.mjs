// From floats to integers: real = q / 2^scale for every tensor. The same integers go into the circuit, into the
// executor below, and so into the witness; nothing else is proven.
//
// A dense layer's accumulator is exact. Between layers it is rescaled, q = floor((acc + 2^(k-1)) / 2^k), to a number of
// bits found by calibration. The last layer is not rescaled: its accumulator is the public output, at the product's
// scale.

import { BadInput, Unsupported } from './errors.mjs';

/**
 * Bits of the weights' magnitudes. With 8, and 11 for activations, deep narrow networks lose up to 5 % of their range.
 */
export const WEIGHT_BITS = 13;

/** Bits of the magnitudes of inputs and of rescaled values, headroom included. */
export const ACTIVATION_BITS = 16;

/** Calibrated ranges are this many bits wider than what the samples reach. */
export const HEADROOM_BITS = 1;

/** No scale is larger: a tensor of tiny values gains nothing from more. */
const MAX_SCALE = 40;

/** Accumulators stay below this, so that doubles hold them exactly (and far below the field's modulus). */
const MAX_ACCUMULATOR = 2 ** 50;

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/** The largest scale at which `magnitude` still takes no more than `bits` bits. */
export function scaleFor(magnitude, bits) {
  if (magnitude === 0) return 0;
  let scale = Math.min(MAX_SCALE, Math.floor(Math.log2((2 ** bits - 1) / magnitude)));
  // The logarithm may be off by an ulp at powers of two.
  while (Math.round(magnitude * 2 ** scale) > 2 ** bits - 1) scale -= 1;
  return scale;
}

/** Bits of the magnitude that `value` has at `scale`, so that -2^bits <= q < 2^bits. */
function magnitudeBits(value, scale) {
  return Math.max(1, Math.ceil(Math.log2(Math.ceil(value * 2 ** scale) + 1)));
}

/** What a stage computes in floats, before ReLU. */
function linear(stage, values) {
  return stage.weights.map((row, o) => row.reduce((sum, weight, i) => sum + weight * values[i], stage.bias[o]));
}

const relu = (values) => values.map((value) => Math.max(0, value));

/** Checks `{"input_data": [[...]]}` against the model and returns the values. */
export function inputValues(document, inputs, where) {
  const data = document?.input_data;
  if (!Array.isArray(data) || data.length !== 1 || !Array.isArray(data[0])) {
    throw new BadInput(`${where}: input_data must hold one list of numbers, for the model's one input`);
  }
  if (data[0].length !== inputs) throw new BadInput(`${where}: ${data[0].length} values for an input of ${inputs}`);
  const odd = data[0].findIndex((value) => !Number.isFinite(value));
  if (odd >= 0) throw new BadInput(`${where}: value ${odd} is no finite number`);
  return data[0];
}

/** Largest magnitudes over the samples: of the input, and for each stage before and after its ReLU. */
function calibrate(model, samples) {
  const seen = { input: 0, stages: model.stages.map(() => ({ before: 0, after: 0 })) };
  for (const sample of samples) {
    seen.input = Math.max(seen.input, largest(sample));
    let values = sample;
    model.stages.forEach((stage, at) => {
      const before = linear(stage, values);
      values = stage.relu ? relu(before) : before;
      const reached = seen.stages[at];
      reached.before = Math.max(reached.before, largest(before));
      reached.after = Math.max(reached.after, largest(values));
    });
  }
  return seen;
}

function quantiseStage(stage, reached, { inputScale, inputLimit, last }) {
  const weightScale = scaleFor(
    stage.weights.reduce((most, row) => Math.max(most, largest(row)), 0),
    WEIGHT_BITS,
  );
  const productScale = inputScale + weightScale;
  const weights = stage.weights.map((row) => row.map((weight) => Math.round(weight * 2 ** weightScale)));
  const bias = stage.bias.map((value) => Math.round(value * 2 ** productScale));
  const limit = weights.reduce(
    (most, row, o) =>
      Math.max(
        most,
        row.reduce((sum, weight) => sum + Math.abs(weight) * inputLimit, Math.abs(bias[o])),
      ),
    0,
  );
  if (limit > MAX_ACCUMULATOR) throw new Unsupported(`node ${stage.name}: accumulators of more than 50 bits`);
  const shared = { name: stage.name, inputs: stage.inputs, outputs: stage.outputs, relu: stage.relu, weights, bias };
  if (last && !stage.relu) return { ...shared, scale: productScale, rescale: null, limit };

  const kept = reached.after > 0 ? reached.after : reached.before;
  const wanted = last ? productScale : scaleFor(kept, ACTIVATION_BITS - HEADROOM_BITS);
  const scale = Math.min(wanted, productScale);
  const shift = productScale - scale;
  // The sign's constraint covers what ReLU takes away too; and no more bits than any input whatsoever could need.
  const calibrated = magnitudeBits(reached.before, scale) + HEADROOM_BITS;
  const possible = magnitudeBits(limit / 2 ** shift + 1, 0);
  const bits = Math.min(Math.max(calibrated, last ? 0 : ACTIVATION_BITS), possible);
  return { ...shared, scale, rescale: { shift, bits }, limit: 2 ** bits };
}

/**
 * Quantises what `readOnnx` returned, with ranges from `samples` (each the flat values of the input).
 *
 * Returns `{ inputs, inputScale, inputLimit, outputScale, outputLimit, stages }`. Limits are inclusive magnitudes. Each
 * stage is `{ name, inputs, outputs, relu, weights, bias, scale, rescale, limit }` in integers, the bias at the
 * product's scale; `rescale` is `{ shift, bits }` with -2^bits <= q < 2^bits, or null where the accumulator stays as it
 * is.
 */
export function quantise(model, samples) {
  if (samples.length === 0) throw new BadInput('samples.json holds no samples, and ranges come from them');
  const seen = calibrate(model, samples);
  const inputScale = scaleFor(seen.input, ACTIVATION_BITS - HEADROOM_BITS);
  const inputLimit = 2 ** ACTIVATION_BITS - 1;
  const stages = [];
  let before = { scale: inputScale, limit: inputLimit };
  model.stages.forEach((stage, at) => {
    const last = at === model.stages.length - 1;
    before = quantiseStage(stage, seen.stages[at], { inputScale: before.scale, inputLimit: before.limit, last });
    stages.push(before);
  });
  const { scale: outputScale, limit: outputLimit } = before;
  return { inputs: model.inputs, inputScale, inputLimit, outputScale, outputLimit, stages };
}

/** Integers of an input. Throws `BadInput` for a value outside of the calibrated range. */
export function quantiseInput(network, values) {
  return values.map((value, at) => {
    const integer = Math.round(value * 2 ** network.inputScale);
    if (Math.abs(integer) > network.inputLimit) {
      const range = network.inputLimit / 2 ** network.inputScale;
      throw new BadInput(`input value ${at} is ${value}, outside of the calibrated range of ${-range} to ${range}`);
    }
    return integer + 0; // not -0
  });
}

function rescaled(stage, accumulator, at) {
  const { shift, bits } = stage.rescale;
  const half = shift > 0 ? 2 ** (shift - 1) : 0;
  const quotient = Math.floor((accumulator + half) / 2 ** shift);
  if (quotient < -(2 ** bits) || quotient >= 2 ** bits) {
    const range = 2 ** (bits - stage.scale);
    throw new BadInput(
      `node ${stage.name}: value ${at} is ${quotient / 2 ** stage.scale} (before ReLU, if any), ` +
        `outside of the calibrated range of ${-range} to ${range}`,
    );
  }
  return quotient;
}

/**
 * The network on integers: exactly what the circuit constrains. Throws `BadInput`, naming node and value, out of range.
 */
export function execute(network, input) {
  let values = input;
  for (const stage of network.stages) {
    const accumulators = linear(stage, values);
    const quotients = stage.rescale ? accumulators.map((value, at) => rescaled(stage, value, at)) : accumulators;
    values = stage.relu ? relu(quotients) : quotients;
  }
  return values;
}

/** Reals of output integers. */
export function dequantise(network, integers) {
  return integers.map((integer) => integer / 2 ** network.outputScale);
}
