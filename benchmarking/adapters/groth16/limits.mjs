// Beyond these, setting a model up takes longer or more memory than a comparison should: README.md has what was
// measured.

import { Unsupported } from './errors.mjs';
import { powerFor } from './snark.mjs';

/** Weights: circom keeps each as a term of a symbolic sum, in a 32-bit address space. */
const MAX_WEIGHTS = 1_000_000;

/** Weights of one layer: circom loads them in one function, and V8 compiles none beyond 7,654,321 bytes. */
const MAX_LAYER = 400_000;

/** log2 of the rows, public values included: the powers of tau are made on the spot. */
const MAX_POWER = 17;

/** Throws `Unsupported` where a circuit of `size` (see `circuit.mjs`) is too large. */
export function checkSize(size) {
  const count = (number) => number.toLocaleString('en');
  if (size.weights > MAX_WEIGHTS) {
    throw new Unsupported(
      `too large: ${count(size.weights)} weights, and circom's memory ends at about ${count(MAX_WEIGHTS)}`,
    );
  }
  if (size.largest > MAX_LAYER) {
    throw new Unsupported(`too large: a layer of ${count(size.largest)} weights, and the limit is ${count(MAX_LAYER)}`);
  }
  if (powerFor(size) > MAX_POWER) {
    const rows = count(size.constraints + size.public);
    throw new Unsupported(
      `too large: ${rows} constraints and public values, and the limit is ${count(2 ** MAX_POWER)}`,
    );
  }
}
