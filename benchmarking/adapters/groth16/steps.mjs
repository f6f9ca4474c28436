// The steps of the benchmark's contract (../README.md): node steps.mjs install | prepare | prove | verify

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { circuit, size } from './circuit.mjs';
import { Refused, claimOf, fromField, proofOf, publicSignals, statementOf, toField } from './claim.mjs';
import { BadInput, Unsupported } from './errors.mjs';
import { checkSize } from './limits.mjs';
import { readOnnx } from './onnx.mjs';
import { install } from './packages.mjs';
import { dequantise, execute, inputValues, quantise, quantiseInput } from './quantise.mjs';
import { referenceString } from './reference.mjs';
import { checkProof, compile, limitThreads, makeKeys, makeProof, makeWitness, powerFor } from './snark.mjs';

function workFile(name) {
  const folder = process.env.BENCH_WORK;
  if (!folder) throw new BadInput('BENCH_WORK is not set: it names the directory of this model');
  return join(folder, name);
}

function read(name) {
  try {
    return readFileSync(workFile(name));
  } catch (error) {
    throw error.code ? new BadInput(`${name} cannot be read: ${error.message}`) : error;
  }
}

function readJson(name) {
  try {
    return JSON.parse(read(name).toString());
  } catch (error) {
    throw error instanceof SyntaxError ? new BadInput(`${name} is not JSON: ${error.message}`) : error;
  }
}

const write = (name, document) => writeFileSync(workFile(name), JSON.stringify(document));

async function timed(work) {
  const start = performance.now();
  const result = await work();
  return [performance.now() - start, result];
}

async function prepare() {
  const [compileMs, needed] = await timed(() => {
    const model = readOnnx(read('model.onnx'));
    const { samples } = readJson('samples.json') ?? {};
    if (!Array.isArray(samples)) throw new BadInput('samples.json holds no list of samples');
    const values = samples.map((sample, at) => inputValues(sample, model.inputs, `samples.json, sample ${at}`));
    const network = quantise(model, values);
    const needs = size(network);
    checkSize(needs);
    write('network.json', network);
    write('statement.json', statementOf(network));
    writeFileSync(workFile('circuit.circom'), circuit(network));
    compile(process.env.BENCH_WORK);
    return needs;
  });
  console.error(`${needed.constraints} constraints, ${needed.public} public values, ${needed.weights} weights`);
  const [referenceMs, powers] = await timed(() => referenceString(powerFor(needed)));
  const [keysMs] = await timed(() => makeKeys(process.env.BENCH_WORK, powers));
  return {
    setup_ms: compileMs + keysMs,
    reference_string_ms: referenceMs,
    constraints: needed.constraints,
    proving_key: ['model.zkey'],
    verifying_key: ['vk.json', 'statement.json'],
  };
}

async function prove() {
  const network = readJson('network.json');
  const [witnessMs, { input, output }] = await timed(async () => {
    const integers = quantiseInput(network, inputValues(readJson('input.json'), network.inputs, 'input.json'));
    const outputs = execute(network, integers);
    const elements = integers.map((integer) => toField(BigInt(integer)).toString());
    await makeWitness(process.env.BENCH_WORK, elements);
    return { input: integers, output: outputs };
  });
  const [proveMs, { proof, publicSignals: signals }] = await timed(() => makeProof(process.env.BENCH_WORK));
  const proven = signals.slice(0, output.length).map((signal) => Number(fromField(BigInt(signal))));
  const differs = proven.findIndex((value, at) => value !== output[at]);
  if (differs >= 0)
    throw new Error(`output ${differs} is ${proven[differs]} in the circuit and ${output[differs]} outside`);
  write('proof.json', proof);
  write('claim.json', claimOf(input, proven));
  return {
    witness_ms: witnessMs,
    prove_ms: proveMs,
    witness: ['witness.wtns'],
    proof: ['proof.json'],
    output: dequantise(network, proven),
  };
}

async function verify() {
  const verifyingKey = readJson('vk.json');
  const statement = readJson('statement.json');
  const [verifyMs, accepted] = await timed(async () => {
    try {
      const signals = publicSignals(read('claim.json').toString(), statement);
      return await checkProof(verifyingKey, signals, proofOf(read('proof.json').toString()));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      console.error(`refused: ${error.message}`);
      return false;
    }
  });
  return { verify_ms: verifyMs, accepted };
}

const STEPS = { install: () => (install(), { installed: true }), prepare, prove, verify };

async function main() {
  const name = process.argv[2];
  if (!Object.hasOwn(STEPS, name ?? '')) throw new BadInput(`usage: node steps.mjs ${Object.keys(STEPS).join(' | ')}`);
  limitThreads(Math.max(1, Number.parseInt(process.env.BENCH_THREADS ?? '', 10) || 1));
  try {
    return await STEPS[name]();
  } catch (error) {
    if (error instanceof Unsupported) return { unsupported: error.message };
    throw error;
  }
}

// snarkjs's threads would keep the process alive, so it is ended, once the line is out.
try {
  process.stdout.write(`${JSON.stringify(await main())}\n`, () => process.exit(0));
} catch (error) {
  console.error(error instanceof BadInput ? `error: ${error.message}` : error);
  process.exit(1);
}
