// What the verifier reads from others: the claim, as signed integers in decimal, the inputs first, and the proof. One
// value has one spelling, and every value must lie in its range, so no two claims stand for the same field elements.

/** Modulus of BN254's base field, which curve points have their coordinates in. */
const BASE_MODULUS = 21888242871839275222246405745257275088696311157297823662689037894645226208583n;

/** Modulus of BN254's scalar field. */
export const MODULUS = 21888242871839275222246405745257275088548364400416034343698204186575808495617n;

const CANONICAL = /^(0|-?[1-9][0-9]{0,77})$/;

/** A claim that is not to be accepted whatever the proof says, or a proof that is none. */
export class Refused extends Error {}

/** A signed integer as the field element that stands for it. */
export const toField = (integer) => (integer < 0n ? integer + MODULUS : integer);

/** The signed integer of least magnitude that a field element stands for. */
export const fromField = (element) => (element > MODULUS / 2n ? element - MODULUS : element);

function value(text, at, limit) {
  if (typeof text !== 'string' || !CANONICAL.test(text)) {
    throw new Refused(`public value ${at} is not a canonical decimal string`);
  }
  const integer = BigInt(text);
  if (integer > limit || integer < -limit) throw new Refused(`public value ${at} is ${integer}, outside of +-${limit}`);
  return integer;
}

/** What the verifier must know beside the key: how many values, their ranges, and their scales. */
export function statementOf(network) {
  return {
    inputs: network.inputs,
    outputs: network.stages.at(-1).outputs,
    input_limit: network.inputLimit,
    output_limit: network.outputLimit,
    input_scale: network.inputScale,
    output_scale: network.outputScale,
  };
}

/** `claim.json` of integers. */
export function claimOf(inputs, outputs) {
  return { public: [...inputs, ...outputs].map((integer) => BigInt(integer).toString()), inputs: inputs.length };
}

function parse(text, name) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Refused(`${name} is not JSON: ${error.message}`);
  }
}

/**
 * The public signals, in snarkjs's order (outputs first), that the text of `claim.json` stands for. Throws `Refused`
 * for anything that is not exactly a claim on this statement.
 */
export function publicSignals(text, statement) {
  const claim = parse(text, 'claim.json');
  const values = claim?.public;
  if (!Array.isArray(values)) throw new Refused('claim.json has no list of public values');
  if (claim.inputs !== statement.inputs) throw new Refused(`${claim.inputs} inputs, not ${statement.inputs}`);
  const expected = statement.inputs + statement.outputs;
  if (values.length !== expected) throw new Refused(`${values.length} public values, not ${expected}`);
  const elements = values.map((entry, at) => {
    const limit = at < statement.inputs ? statement.input_limit : statement.output_limit;
    return toField(value(entry, at, BigInt(limit))).toString();
  });
  return [...elements.slice(statement.inputs), ...elements.slice(0, statement.inputs)];
}

/**
 * The proof that the text of `proof.json` holds. Throws `Refused` unless it has the three points' coordinates, all
 * canonical.
 */
export function proofOf(text) {
  const proof = parse(text, 'proof.json');
  const isCoordinate = (entry) =>
    typeof entry === 'string' && CANONICAL.test(entry) && BigInt(entry) >= 0n && BigInt(entry) < BASE_MODULUS;
  const isTriple = (entries, isEntry) => Array.isArray(entries) && entries.length === 3 && entries.every(isEntry);
  const isPair = (entries) => Array.isArray(entries) && entries.length === 2 && entries.every(isCoordinate);
  for (const [name, isEntry] of [
    ['pi_a', isCoordinate],
    ['pi_b', isPair],
    ['pi_c', isCoordinate],
  ]) {
    if (!isTriple(proof?.[name], isEntry)) throw new Refused(`proof.json: ${name} is no curve point`);
  }
  return { pi_a: proof.pi_a, pi_b: proof.pi_b, pi_c: proof.pi_c };
}
