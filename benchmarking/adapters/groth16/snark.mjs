// circom and snarkjs as this adapter calls them.

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Unsupported } from './errors.mjs';
import { circomProgram, load } from './packages.mjs';

const LOGGER = {
  debug() {},
  info() {},
  log() {},
  warn: (message) => console.error(message),
  error: (message) => console.error(message),
};

/** What the compiler says when its 32-bit address space, or the engine's memory, is used up. */
const OUT_OF_MEMORY = /out of memory|memory allocation|RangeError|allocation failed|ERR_OUT_OF_MEMORY/i;

/**
 * Keeps snarkjs to `threads` worker threads: its arithmetic starts as many as the machine has processors, and this is
 * where it asks. The thread that calls mostly waits for them.
 */
export function limitThreads(threads) {
  const processors = os.cpus();
  os.cpus = () => Array.from({ length: threads }, (_, at) => processors[at % processors.length]);
}

/** Throws `Unsupported` for a witness generator with a longer function than the engine takes. */
export function checkGenerator(bytes) {
  try {
    new WebAssembly.Module(bytes);
  } catch (error) {
    if (!/function size/.test(error.message)) throw error;
    throw new Unsupported(`too large: the witness generator of a layer (${error.message})`);
  }
}

/**
 * Compiles `circuit.circom` of `folder` to `circuit.r1cs` and to the witness generator `circuit_js/circuit.wasm`.
 * `symbols` also writes `circuit.sym`, which names the signals.
 */
export function compile(folder, { symbols = false } = {}) {
  // Full simplification (--O2) would replace activations by sums of bits, and make every later row that much longer.
  const args = [circomProgram(), 'circuit.circom', '--r1cs', '--wasm', '--O1', ...(symbols ? ['--sym'] : [])];
  const { status, signal, stdout, stderr, error } = spawnSync(process.execPath, args, {
    cwd: folder,
    encoding: 'utf8',
  });
  if (error) throw new Error(`circom cannot be started: ${error.message}`);
  if (status === 0 && existsSync(join(folder, 'circuit.r1cs'))) {
    checkGenerator(readFileSync(join(folder, 'circuit_js', 'circuit.wasm')));
    return;
  }
  const said = `${stdout}${stderr}`.trim();
  if (OUT_OF_MEMORY.test(said)) throw new Unsupported('circom ran out of memory');
  throw new Error(`circom ended with ${signal ?? `status ${status}`}: ${said.slice(-2000)}`);
}

/** Smallest power of two that holds a circuit of `size` (see `circuit.mjs`), as an exponent. */
export function powerFor({ constraints, public: values }) {
  return Math.max(4, Math.ceil(Math.log2(constraints + values + 1)));
}

const entropy = () => randomBytes(64).toString('hex');

/**
 * Makes `model.zkey` and `vk.json` in `folder` for its `circuit.r1cs`. The key gets a contribution, because without one
 * gamma equals delta, and then anyone can forge proofs.
 */
export async function makeKeys(folder, powersPath) {
  const { zKey } = load('snarkjs');
  const blank = join(folder, 'blank.zkey');
  const key = join(folder, 'model.zkey');
  const made = await zKey.newZKey(join(folder, 'circuit.r1cs'), powersPath, blank, LOGGER);
  if (made === -1) throw new Error('snarkjs refuses the circuit or the powers of tau; its message is above');
  await zKey.contribute(blank, key, 'benchmark', entropy(), LOGGER);
  rmSync(blank);
  const verifyingKey = await zKey.exportVerificationKey(key, LOGGER);
  if (JSON.stringify(verifyingKey.vk_gamma_2) === JSON.stringify(verifyingKey.vk_delta_2)) {
    throw new Error('the key has no contribution: gamma equals delta');
  }
  writeFileSync(join(folder, 'vk.json'), JSON.stringify(verifyingKey));
}

/**
 * Computes `witness.wtns` in `folder` for input field elements, given as decimal strings.
 *
 * The generator is megabytes of straight code that run once. The engine would go on optimising it in the background,
 * for seconds and a gigabyte with half a million weights, while the proof is made; so that is off here, and on again
 * after.
 */
export async function makeWitness(folder, elements) {
  const { wtns } = load('snarkjs');
  setFlagsFromString('--no-wasm-tier-up');
  setFlagsFromString('--no-wasm-dynamic-tiering');
  await wtns.calculate({ x: elements }, join(folder, 'circuit_js', 'circuit.wasm'), join(folder, 'witness.wtns'));
  setFlagsFromString('--wasm-tier-up');
  setFlagsFromString('--wasm-dynamic-tiering');
}

/** Proves `witness.wtns` of `folder`. Returns snarkjs's proof and its public signals, outputs first. */
export async function makeProof(folder) {
  const { groth16 } = load('snarkjs');
  return groth16.prove(join(folder, 'model.zkey'), join(folder, 'witness.wtns'), LOGGER);
}

/** Whether `proof` (see `proofOf` in claim.mjs) convinces of `signals`, outputs first. */
export async function checkProof(verifyingKey, signals, proof) {
  const { groth16 } = load('snarkjs');
  return groth16.verify(verifyingKey, signals, proof, LOGGER);
}
