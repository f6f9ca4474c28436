// The powers of tau, in snarkjs's file format, made from a tau that is drawn here. **Insecure by construction**: this
// process knows tau, and whoever knows it can forge proofs. A benchmark needs keys of the right shape; nobody is to be
// convinced.
//
// snarkjs would keep tau secret even from itself, which makes it transform vectors of curve points: half a minute for
// 2^11 rows and the better part of an hour for 2^17. With tau known, the transform is one of field elements, and each
// point a multiple of the generator. The file holds what key generation reads: powers of tau (section 2), alpha and
// beta (4 to 6), and the Lagrange polynomials at tau of every domain up to 2^power (12 to 15; 12 of 2^(power+1) too).

import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, load } from './packages.mjs';

/** Points that are made affine at a time, which shares an inversion; they fit into the arithmetic's fixed memory. */
const BATCH = 1 << 10;

const VERSION = 1;
const HEADER = 1;
const TAU_G1 = 2;
const ALPHA_G1 = 4;
const BETA_G1 = 5;
const BETA_G2 = 6;
const LAGRANGE_G1 = 12;
const LAGRANGE_G2 = 13;
const LAGRANGE_ALPHA_G1 = 14;
const LAGRANGE_BETA_G1 = 15;

function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function littleEndian(value, length) {
  const bytes = Buffer.alloc(length);
  for (let at = 0, rest = value; at < length; at += 1, rest >>= 8n) bytes[at] = Number(rest & 255n);
  return bytes;
}

/** A section in pieces, so that no more than one domain's points are in memory. */
async function writeSection(file, id, size, pieces) {
  writeSync(file, Buffer.concat([u32(id), littleEndian(BigInt(size), 8)]));
  let written = 0;
  for await (const piece of pieces) {
    writeSync(file, piece);
    written += piece.length;
  }
  if (written !== size) throw new Error(`section ${id} of the powers of tau: ${written} bytes, not ${size}`);
}

/**
 * Multiples of the generator of `group` (G1 or G2), affine, for scalars in Montgomery form. The scalar's digits to base
 * 16 pick from a table of the generator's multiples, so a point takes 64 additions and no doubling.
 */
async function multiples(curve, group, scalars) {
  const G = curve[group];
  const { tm, Fr } = curve;
  const call = (name, ...pointers) => tm.instance.exports[`${group.toLowerCase()}m_${name}`](...pointers);
  const [affine, jacobian] = [G.F.n8 * 2, G.F.n8 * 3];
  const plain = await Fr.batchFromMontgomery(scalars);
  const count = plain.length / Fr.n8;
  const digit = (at) => (at % 2 === 0 ? plain[at >> 1] & 15 : plain[at >> 1] >> 4);
  const digits = 2 * Fr.n8;
  const points = Buffer.alloc(count * affine);

  tm.startSyncOp();
  const table = tm.allocBuff(generatorTable(G, digits));
  const sums = tm.alloc(BATCH * jacobian);
  const results = tm.alloc(BATCH * affine);
  for (let start = 0; start < count; start += BATCH) {
    const length = Math.min(BATCH, count - start);
    for (let at = 0; at < length; at += 1) {
      const sum = sums + at * jacobian;
      call('zero', sum);
      for (let place = 0; place < digits; place += 1) {
        const value = digit((start + at) * digits + place);
        if (value > 0) call('addMixed', sum, table + (place * 15 + value - 1) * affine, sum);
      }
    }
    call('batchToAffine', sums, length, results);
    points.set(tm.getBuff(results, length * affine), start * affine);
  }
  tm.endSyncOp();
  return points;
}

/** value * 16^place * generator, affine, for values 1 to 15 of each place. */
function generatorTable(G, digits) {
  const width = G.F.n8 * 2;
  const table = new Uint8Array(digits * 15 * width);
  let base = G.g;
  for (let place = 0; place < digits; place += 1) {
    let multiple = base;
    for (let value = 1; value <= 15; value += 1) {
      table.set(G.toAffine(multiple), (place * 15 + value - 1) * width);
      multiple = G.add(multiple, base);
    }
    base = multiple;
  }
  return table;
}

/** factor, factor * tau, factor * tau^2, ... */
function powers(curve, count, tau, factor) {
  const ones = new Uint8Array(count * curve.Fr.n8);
  for (let at = 0; at < ones.length; at += curve.Fr.n8) ones.set(curve.Fr.one, at);
  return curve.Fr.batchApplyKey(ones, factor, tau);
}

/** The values at tau of the Lagrange polynomials of the domain of 2^power roots of unity, times `factor`. */
async function lagrange(curve, power, tau, factor) {
  return curve.Fr.ifft(await powers(curve, 2 ** power, tau, factor));
}

async function* domains(curve, group, upTo, tau, factor) {
  for (let power = 0; power <= upTo; power += 1) {
    yield await multiples(curve, group, await lagrange(curve, power, tau, factor));
  }
}

async function fill(file, curve, power) {
  const { Fr, G1, G2 } = curve;
  const draw = () => Fr.e(BigInt(`0x${randomBytes(64).toString('hex')}`) % Fr.p);
  const [tau, alpha, beta] = [draw(), draw(), draw()];
  const width = { G1: G1.F.n8 * 2, G2: G2.F.n8 * 2 };

  const header = Buffer.concat([u32(G1.F.n8), littleEndian(curve.q, G1.F.n8), u32(power), u32(power)]);
  writeSync(file, Buffer.concat([Buffer.from('ptau'), u32(VERSION), u32(9)]));
  await writeSection(file, HEADER, header.length, [header]);
  const count = 2 ** (power + 1) - 1;
  await writeSection(file, TAU_G1, count * width.G1, [
    await multiples(curve, 'G1', await powers(curve, count, tau, Fr.one)),
  ]);
  for (const [id, group, scalar] of [
    [ALPHA_G1, 'G1', alpha],
    [BETA_G1, 'G1', beta],
    [BETA_G2, 'G2', beta],
  ]) {
    await writeSection(file, id, width[group], [await multiples(curve, group, scalar)]);
  }
  const sections = [
    [LAGRANGE_G1, 'G1', power + 1, Fr.one],
    [LAGRANGE_G2, 'G2', power, Fr.one],
    [LAGRANGE_ALPHA_G1, 'G1', power, alpha],
    [LAGRANGE_BETA_G1, 'G1', power, beta],
  ];
  for (const [id, group, upTo, factor] of sections) {
    await writeSection(file, id, (2 ** (upTo + 1) - 1) * width[group], domains(curve, group, upTo, tau, factor));
  }
}

/** Path of the powers of tau for circuits of up to 2^power rows: from the cache, or made now. */
export async function referenceString(power) {
  const path = join(cacheFolder(), `powers-of-tau-${power}.ptau`);
  if (existsSync(path)) return path;
  mkdirSync(cacheFolder(), { recursive: true });
  const unfinished = `${path}.${process.pid}`;
  const curve = await load('snarkjs').curves.getCurveFromName('bn128');
  const file = openSync(unfinished, 'w');
  try {
    await fill(file, curve, power);
    renameSync(unfinished, path);
  } finally {
    closeSync(file);
    rmSync(unfinished, { force: true });
  }
  return path;
}
