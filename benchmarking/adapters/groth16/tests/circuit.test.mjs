// What the constraints catch. An adversary may give every signal any value, so the tests make whole assignments by
// themselves: they cheat at one place and compute all that follows from the lie. Then one constraint can object, and
// must.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { circuit, size } from '../circuit.mjs';
import { MODULUS, fromField, toField } from '../claim.mjs';
import { Unsupported } from '../errors.mjs';
import { load } from '../packages.mjs';
import { execute, quantise, quantiseInput } from '../quantise.mjs';
import { checkGenerator, compile, makeWitness } from '../snark.mjs';
import { SMALL_SAMPLES, smallModel, temporaryFolder, withoutPackages as skip } from './support.mjs';

const modulo = (value) => ((value % MODULUS) + MODULUS) % MODULUS;

/** The compiled small network: constraints as lists of [wire, coefficient], and the wire of each signal's name. */
async function compiled(t) {
  const folder = temporaryFolder(t);
  const network = quantise(smallModel(), SMALL_SAMPLES);
  writeFileSync(join(folder, 'circuit.circom'), circuit(network));
  compile(folder, { symbols: true });
  const { constraints, nVars, nOutputs, nPubInputs } = await load('snarkjs').r1cs.exportJson(
    join(folder, 'circuit.r1cs'),
  );
  const terms = (sum) => Object.entries(sum).map(([wire, coefficient]) => [Number(wire), BigInt(coefficient)]);
  const wires = new Map(
    readFileSync(join(folder, 'circuit.sym'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => {
        const [, wire, , name] = line.split(',');
        return [name, Number(wire)];
      }),
  );
  return {
    folder,
    network,
    wires,
    variables: nVars,
    publics: nOutputs + nPubInputs,
    constraints: constraints.map((c) => c.map(terms)),
  };
}

/** Indices of the constraints that `witness` violates. */
function violated({ constraints }, witness) {
  const at = (sum) => sum.reduce((all, [wire, coefficient]) => all + coefficient * witness[wire], 0n);
  return constraints.flatMap(([a, b, c], index) => (modulo(at(a) * at(b) - at(c)) === 0n ? [] : [index]));
}

const BITS = (value, count) => Array.from({ length: count }, (_, bit) => (value >> BigInt(bit)) & 1n);

/** What a neuron honestly does: its bits and its output. */
function honestNeuron({ relu, rescale: { shift, bits } }, accumulator) {
  const half = shift > 0 ? 1n << BigInt(shift - 1) : 0n;
  const boolean = BITS(accumulator + half + (1n << BigInt(shift + bits)), shift + bits + 1);
  const quotient = (accumulator + half) >> BigInt(shift);
  return { bit: boolean, quotient, y: relu && quotient < 0n ? 0n : quotient };
}

/**
 * A whole witness. `cheat(honest, stage, neuron)`, where given, returns what the neuron `at` = [stage, neuron] claims
 * instead; all that follows is computed honestly from there.
 */
function assignment({ network, wires, variables }, input, at, cheat) {
  const witness = new Array(variables).fill(null);
  witness[0] = 1n;
  const set = (name, value) => {
    assert.ok(wires.has(name), name);
    if (wires.get(name) >= 0) witness[wires.get(name)] = modulo(value);
  };
  let values = input.map(BigInt);
  values.forEach((value, i) => set(`main.x[${i}]`, value));
  network.stages.forEach((stage, s) => {
    values.forEach((value, i) => set(`main.stage${s}.x[${i}]`, value));
    values = stage.weights.map((row, o) => {
      const accumulator = row.reduce((sum, weight, i) => sum + BigInt(weight) * values[i], BigInt(stage.bias[o]));
      const honest = stage.rescale ? honestNeuron(stage, accumulator) : { bit: [], y: accumulator };
      const { bit, y } = at && at[0] === s && at[1] === o ? { ...honest, ...cheat(honest, stage) } : honest;
      bit.forEach((value, b) => set(`main.stage${s}.bit[${o}][${b}]`, value));
      set(`main.stage${s}.y[${o}]`, y);
      return y;
    });
  });
  values.forEach((value, o) => set(`main.y[${o}]`, value));
  assert.ok(
    witness.every((value) => value !== null),
    'every wire has a name',
  );
  return witness;
}

/** [stage, neuron] of the first rescaled neuron whose quotient `is` something, on `input`. */
function neuronWhere(network, input, relu, is) {
  let values = input.map(BigInt);
  for (const [s, stage] of network.stages.entries()) {
    if (!stage.rescale) break;
    const neurons = stage.weights.map((row, o) =>
      honestNeuron(
        stage,
        row.reduce((sum, weight, i) => sum + BigInt(weight) * values[i], BigInt(stage.bias[o])),
      ),
    );
    const found = neurons.findIndex(({ quotient }) => is(quotient));
    if (found >= 0 && stage.relu === relu) return [s, found];
    values = neurons.map(({ y }) => y);
  }
  return assert.fail('no such neuron');
}

test('the constraints and nothing but the network', { skip }, async (t) => {
  const built = await compiled(t);
  const input = quantiseInput(built.network, SMALL_SAMPLES[0]);
  await makeWitness(
    built.folder,
    input.map((value) => toField(BigInt(value)).toString()),
  );
  const { wtns } = load('snarkjs');
  const witness = (await wtns.exportJson(join(built.folder, 'witness.wtns'))).map(BigInt);

  await t.test('circom computes what the executor does', () => {
    assert.deepEqual(violated(built, witness), []);
    assert.deepEqual(
      witness.slice(1, 3).map((value) => Number(fromField(value))),
      execute(built.network, input),
    );
  });
  await t.test('the tests compute it too, on every sample', () => {
    assert.deepEqual(assignment(built, input), witness);
    for (const sample of SMALL_SAMPLES) {
      assert.deepEqual(violated(built, assignment(built, quantiseInput(built.network, sample))), []);
    }
  });
  await t.test('the size is known before compiling', () => {
    const known = size(built.network);
    assert.deepEqual([known.constraints, known.public], [built.constraints.length, built.publics]);
  });
  await t.test('no wire can change alone', () => {
    for (let wire = 1; wire < witness.length; wire += 1) {
      for (const change of [1n, -1n, MODULUS / 2n, 987654321n]) {
        const changed = [...witness];
        changed[wire] = modulo(changed[wire] + change);
        assert.notDeepEqual(violated(built, changed), [], `wire ${wire} changed by ${change}`);
      }
    }
  });
});

test('lies that are consistent in all else break the one constraint that they are about', { skip }, async (t) => {
  const built = await compiled(t);
  const { network } = built;
  const input = quantiseInput(network, SMALL_SAMPLES[0]);
  const positive = neuronWhere(network, input, true, (quotient) => quotient > 1n);
  const negative = neuronWhere(network, input, true, (quotient) => quotient < -1n);
  const plain = neuronWhere(network, input, false, (quotient) => quotient !== 0n);

  /** Bits of another quotient, with what that makes of the output. */
  const withQuotient = ({ bit }, { relu, rescale: { shift, bits } }, quotient) => ({
    bit: [...bit.slice(0, shift), ...BITS(quotient + (1n << BigInt(bits)), bits + 1)],
    y: relu && quotient < 0n ? 0n : quotient,
  });
  const lies = {
    'another quotient': (honest, stage) => withQuotient(honest, stage, honest.quotient + 1n),
    'a quotient one less and a remainder of 2^shift and more': (honest, stage) => {
      const { bit, y } = withQuotient(honest, stage, honest.quotient - 1n);
      bit[0] += 1n << BigInt(stage.rescale.shift);
      return { bit, y };
    },
    'a remainder that is right in sum, with a bit that is none': ({ bit }) => {
      const changed = [...bit];
      changed[0] += bit[1] === 1n ? 2n : -2n;
      changed[1] = 1n - bit[1];
      return { bit: changed };
    },
    'an output one more': ({ y }) => ({ y: y + 1n }),
  };
  for (const [name, at] of Object.entries({ positive, negative, plain })) {
    for (const [lie, cheat] of Object.entries(lies)) {
      await t.test(`${lie} (${name})`, () => {
        const broken = violated(built, assignment(built, input, at, cheat));
        assert.equal(broken.length, 1, `${broken.length} object`);
      });
    }
  }
  await t.test('a negative value passed on through ReLU', () => {
    assert.equal(
      violated(
        built,
        assignment(built, input, negative, ({ quotient }) => ({ y: quotient })),
      ).length,
      1,
    );
  });
  await t.test('a positive value stopped by ReLU', () => {
    assert.equal(
      violated(
        built,
        assignment(built, input, positive, () => ({ y: 0n })),
      ).length,
      1,
    );
  });
  await t.test('a negative value said to be positive, sign and all', () => {
    const cheat = ({ bit, quotient }, { rescale: { bits } }) => ({
      bit: [...bit.slice(0, -1), 1n],
      y: quotient + (1n << BigInt(bits)),
    });
    assert.equal(violated(built, assignment(built, input, negative, cheat)).length, 1);
  });
  await t.test('another output of the last layer', () => {
    const last = network.stages.length - 1;
    assert.equal(
      violated(
        built,
        assignment(built, input, [last, 1], ({ y }) => ({ y: y - 1n })),
      ).length,
      1,
    );
  });
});

test('snarkjs agrees about a tampered witness', { skip }, async (t) => {
  const { folder, network } = await compiled(t);
  const input = quantiseInput(network, SMALL_SAMPLES[1]);
  await makeWitness(
    folder,
    input.map((value) => toField(BigInt(value)).toString()),
  );
  const { wtns } = load('snarkjs');
  const silent = { debug() {}, info() {}, warn() {}, error() {} };
  const [r1cs, path] = ['circuit.r1cs', 'witness.wtns'].map((name) => join(folder, name));
  assert.equal(await wtns.check(r1cs, path, silent), true);
  const bytes = readFileSync(path);
  bytes[bytes.length - 32] ^= 1; // the last wire's lowest bit
  writeFileSync(path, bytes);
  assert.equal(await wtns.check(r1cs, path, silent), false);
});

test('a witness generator that the engine cannot compile is unsupported', () => {
  const leb = (value) => [0, 7, 14, 21, 28].map((shift) => ((value >> shift) & 127) | (shift < 28 ? 128 : 0));
  /** A module of one function, of `length` no-operations. */
  const generator = (length) => {
    const body = [[0], new Array(length).fill(1), [11]].flat();
    const code = [1, ...leb(body.length)].concat(body);
    const [type, functions] = [[1, 4, 1, 96, 0, 0], [3, 2, 1, 0]];
    const bytes = [0, 97, 115, 109, 1, 0, 0, 0, ...type, ...functions, 10, ...leb(code.length)];
    return Uint8Array.from(bytes.concat(code));
  };
  checkGenerator(generator(1000));
  assert.throws(() => checkGenerator(generator(8_000_000)), Unsupported);
});
