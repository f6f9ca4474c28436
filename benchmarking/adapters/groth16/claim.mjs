// The statement as the verifier takes it: signed integers in decimal, the inputs first. One value has one spelling, and every
// value must lie in its range, so no two claims stand for the same field elements.

/** Modulus of BN254's scalar field. */
export const MODULUS = 21888242871839275222246405745257275088548364400416034343698204186575808495617n;

const CANONICAL = /^(0|-?[1-9][0-9]{0,77})$/;

/** A claim that is not to be accepted whatever the proof says. */
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

/**
 * The public signals, in snarkjs's order (outputs first), that the text of `claim.json` stands for. Throws `Refused` for
 * anything that is not exactly a claim on this statement.
 */
export function publicSignals(text, statement) {
  let claim;
  try {
    claim = JSON.parse(text);
  } catch (error) {
    throw new Refused(`claim.json is not JSON: ${error.message}`);
  }
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
