// The steps as the benchmark starts them: processes, files, one line of JSON.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MODULUS } from '../claim.mjs';
import { SMALL_SAMPLES, smallOnnx, temporaryFolder, withoutPackages as skip } from './support.mjs';

const STEPS = fileURLToPath(new URL('../steps.mjs', import.meta.url));
const ZOO = fileURLToPath(new URL('../../../../models/zoo/', import.meta.url));

function step(folder, name) {
  const env = { ...process.env, BENCH_WORK: folder, BENCH_THREADS: '2' };
  const { status, stdout, stderr } = spawnSync(process.execPath, [STEPS, name], { env, encoding: 'utf8' });
  const line = stdout.trim().split('\n').at(-1);
  return { status, stderr, said: line && status === 0 ? JSON.parse(line) : undefined };
}

function workFolder(t, model) {
  const folder = temporaryFolder(t);
  const documents = {
    'samples.json': { samples: SMALL_SAMPLES.map((sample) => ({ input_data: [sample] })) },
    'input.json': { input_data: [SMALL_SAMPLES[0]] },
  };
  for (const [name, document] of Object.entries(documents)) writeFileSync(join(folder, name), JSON.stringify(document));
  if (model) writeFileSync(join(folder, 'model.onnx'), model);
  return folder;
}

test('a model is prepared, proven and verified, and no other claim is', { skip }, async (t) => {
  const folder = workFolder(t, smallOnnx());
  const prepared = step(folder, 'prepare');
  assert.equal(prepared.status, 0, prepared.stderr);
  const proven = step(folder, 'prove');
  assert.equal(proven.status, 0, proven.stderr);
  for (const name of [
    ...prepared.said.proving_key,
    ...prepared.said.verifying_key,
    ...proven.said.witness,
    ...proven.said.proof,
  ]) {
    assert.ok(readFileSync(join(folder, name)).length > 0, name);
  }
  const claim = readFileSync(join(folder, 'claim.json'), 'utf8');
  const proof = readFileSync(join(folder, 'proof.json'), 'utf8');

  /** Whether the verifier accepts these files. */
  const accepts = (otherClaim, otherProof = proof) => {
    writeFileSync(join(folder, 'claim.json'), typeof otherClaim === 'string' ? otherClaim : JSON.stringify(otherClaim));
    writeFileSync(join(folder, 'proof.json'), typeof otherProof === 'string' ? otherProof : JSON.stringify(otherProof));
    const { status, stderr, said } = step(folder, 'verify');
    assert.equal(status, 0, stderr);
    return said.accepted;
  };

  await t.test('the claim is accepted, and its answer is the one reported', () => {
    assert.equal(accepts(claim), true);
    const { public: values, inputs } = JSON.parse(claim);
    const { output_scale: scale } = JSON.parse(readFileSync(join(folder, 'statement.json'), 'utf8'));
    assert.deepEqual(
      values.slice(inputs).map((value) => Number(value) / 2 ** scale),
      proven.said.output,
    );
  });
  await t.test('no public value can be another', () => {
    const { public: values, inputs } = JSON.parse(claim);
    values.forEach((value, at) => {
      const changed = [...values];
      changed[at] = `${BigInt(value) + 1n}`;
      assert.equal(accepts({ public: changed, inputs }), false, `value ${at}`);
    });
  });
  await t.test('the same field element in another spelling is refused', () => {
    const { public: values, inputs } = JSON.parse(claim);
    const [first, ...rest] = values;
    assert.equal(accepts({ public: [`${BigInt(first) + MODULUS}`, ...rest], inputs }), false);
    assert.equal(accepts('no claim'), false);
  });
  await t.test('another proof is none', () => {
    const other = JSON.parse(proof);
    assert.equal(accepts(claim, { ...other, pi_a: ['1', '2', '1'] }), false); // the generator
    assert.equal(accepts(claim, { ...other, pi_c: ['1', '3', '1'] }), false); // not on the curve
    assert.equal(accepts(claim, { ...other, pi_a: ['0', '1', '0'], pi_c: ['0', '1', '0'] }), false); // infinity
    assert.equal(accepts(claim, '{}'), false);
    assert.equal(accepts(claim, proof), true);
  });
  await t.test('an input outside of the range ends the proof with an error that names it', () => {
    writeFileSync(join(folder, 'input.json'), JSON.stringify({ input_data: [[0, 99, 0]] }));
    const { status, stderr } = step(folder, 'prove');
    assert.equal(status, 1);
    assert.match(stderr, /^error: input value 1 is 99, outside of the calibrated range/m);
  });
});

test('a model with other operators is unsupported, which is no failure', { skip }, (t) => {
  const folder = workFolder(t);
  copyFileSync(join(ZOO, 'cnn.onnx'), join(folder, 'model.onnx'));
  const { status, said } = step(folder, 'prepare');
  assert.deepEqual([status, said], [0, { unsupported: 'operator Conv (node conv1)' }]);
});

test('what is missing is named', { skip }, (t) => {
  const { status, stderr } = step(workFolder(t), 'prepare');
  assert.equal(status, 1);
  assert.match(stderr, /^error: model.onnx cannot be read/m);
  assert.match(step(workFolder(t), 'dance').stderr, /^error: usage/m);
});
