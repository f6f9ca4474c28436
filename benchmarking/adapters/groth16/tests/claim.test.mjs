import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MODULUS, Refused, claimOf, fromField, proofOf, publicSignals, toField } from '../claim.mjs';

const STATEMENT = { inputs: 2, outputs: 1, input_limit: 2047, output_limit: 100000 };

const signals = (values, inputs = 2) => publicSignals(JSON.stringify({ public: values, inputs }), STATEMENT);

test('signed integers go to the field and back', () => {
  for (const integer of [0n, 1n, -1n, 2n ** 50n, -(2n ** 50n)]) assert.equal(fromField(toField(integer)), integer);
  assert.equal(toField(-1n), MODULUS - 1n);
});

test('a claim becomes public signals, outputs first', () => {
  assert.deepEqual(claimOf([12, -3], [7]), { public: ['12', '-3', '7'], inputs: 2 });
  assert.deepEqual(signals(['12', '-3', '7']), ['7', '12', (MODULUS - 3n).toString()]);
  assert.deepEqual(signals(['2047', '-2047', '-100000'])[1], '2047');
});

test('every spelling but one is refused', () => {
  const spellings = ['+5', '05', '-0', '', ' 5', '5 ', '5.0', '0x5', '5e0', '٥', 5, null, ['5']];
  for (const spelling of spellings) assert.throws(() => signals([spelling, '0', '0']), Refused, `${spelling}`);
});

test('values out of range are refused, and so are others that stand for the same field element', () => {
  for (const far of ['2048', '-2048', (5n + MODULUS).toString(), (5n - MODULUS).toString(), '9'.repeat(10000)]) {
    assert.throws(() => signals([far, '0', '0']), Refused, far);
  }
  assert.throws(() => signals(['0', '0', '100001']), Refused);
});

test('a claim of another form is refused', () => {
  assert.throws(() => signals(['1', '2']), Refused);
  assert.throws(() => signals(['1', '2', '3', '4']), Refused);
  assert.throws(() => signals(['1', '2', '3'], 1), Refused);
  for (const text of ['', '{', 'null', '[]', '{"inputs": 2}', '{"public": {"length": 3}, "inputs": 2}']) {
    assert.throws(() => publicSignals(text, STATEMENT), Refused, text);
  }
});

test('a proof has three points with canonical coordinates', () => {
  const proof = {
    pi_a: ['1', '2', '1'],
    pi_b: [
      ['1', '2'],
      ['3', '4'],
      ['1', '0'],
    ],
    pi_c: ['1', '2', '1'],
  };
  assert.deepEqual(proofOf(JSON.stringify({ ...proof, protocol: 'groth16' })), proof);
  const broken = [
    { pi_a: undefined },
    { pi_a: ['1', '2'] },
    { pi_b: ['1', '2', '1'] },
    { pi_c: ['1', '-2', '1'] },
    { pi_c: ['1', 2, '1'] },
    { pi_c: ['1', '9'.repeat(77), '1'] },
  ];
  for (const change of broken)
    assert.throws(() => proofOf(JSON.stringify({ ...proof, ...change })), Refused, JSON.stringify(change));
  assert.throws(() => proofOf('{'), Refused);
});
