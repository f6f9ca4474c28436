// Writes a quantised network as a circom circuit whose weights are constants.
//
// For each neuron that is rescaled, with T = shift + bits + 1 boolean signals:
//
//     sum of bit[i] * 2^i  =  acc + 2^(shift-1) + 2^(shift+bits)          one linear constraint
//     bit[i] * (bit[i] - 1) = 0                                           T constraints
//
// The lower `shift` bits are the remainder, so it is below 2^shift; the upper ones are the quotient plus 2^bits, so it
// lies in [-2^bits, 2^bits); the uppermost says that it is not negative. Both sides are far below the modulus in
// magnitude, as the inputs' ranges are: nothing wraps, and there is one assignment only. ReLU multiplies the quotient
// by the uppermost bit.
//
// The range of the public inputs is not in the circuit: the verifier has them, and looks.

import { BadInput } from './errors.mjs';

/** Every template declares what it needs of the language. */
const VERSION = '2.1.0';

// The compiler copies a symbolic sum whenever it grows, so one long sum costs the square of its length: blocks of
// blocks.
const INNER = 10;
const OUTER = 100;

function literal(integer) {
  if (!Number.isSafeInteger(integer)) throw new BadInput(`${integer} is not an exact integer`);
  return integer < 0 ? `-${-integer}` : `${integer + 0}`;
}

const list = (integers) => `[${integers.map(literal).join(',')}]`;

function accumulator(stage) {
  return `
    var acc = bias[o];
    for (var outer = 0; outer < ${stage.inputs}; outer += ${OUTER}) {
      var block = 0;
      for (var inner = outer; inner < outer + ${OUTER} && inner < ${stage.inputs}; inner += ${INNER}) {
        var few = 0;
        for (var i = inner; i < inner + ${INNER} && i < ${stage.inputs}; i++) { few += weight[o][i] * x[i]; }
        block += few;
      }
      acc += block;
    }`;
}

function rescale(stage) {
  const { shift, bits } = stage.rescale;
  const offset = (shift > 0 ? 2 ** (shift - 1) : 0) + 2 ** (shift + bits);
  const quotient = stage.relu ? `bit[o][${shift + bits}] * (quotient - ${2 ** bits})` : `quotient - ${2 ** bits}`;
  return `
    var shifted = acc + ${literal(offset)};
    var sum = 0;
    var quotient = 0;
    for (var b = 0; b < ${shift + bits + 1}; b++) {
      bit[o][b] <-- (shifted >> b) & 1;
      bit[o][b] * (bit[o][b] - 1) === 0;
      sum += bit[o][b] * (1 << b);
      if (b >= ${shift}) { quotient += bit[o][b] * (1 << (b - ${shift})); }
    }
    sum === shifted;
    y[o] <== ${quotient};`;
}

function stageTemplate(stage, at) {
  const output = stage.rescale ? rescale(stage) : '\n    y[o] <== acc;';
  const bits = stage.rescale && `signal bit[${stage.outputs}][${stage.rescale.shift + stage.rescale.bits + 1}];`;
  return `
template Stage${at}() {
  signal input x[${stage.inputs}];
  signal output y[${stage.outputs}];
  ${bits ?? ''}
  var weight[${stage.outputs}][${stage.inputs}] = [
${stage.weights.map(list).join(',\n')}
  ];
  var bias[${stage.outputs}] = ${list(stage.bias)};
  for (var o = 0; o < ${stage.outputs}; o++) {${accumulator(stage)}${output}
  }
}
`;
}

/** The circom program of what `quantise` returned; inputs are `x`, outputs are public, and so are the inputs. */
export function circuit(network) {
  const { stages } = network;
  const wiring = stages.map((stage, at) => {
    const source = at === 0 ? 'x' : `stage${at - 1}.y`;
    return `  component stage${at} = Stage${at}();\n  stage${at}.x <== ${source};`;
  });
  return `pragma circom ${VERSION};
${stages.map(stageTemplate).join('')}
template Network() {
  signal input x[${network.inputs}];
  signal output y[${stages.at(-1).outputs}];
${wiring.join('\n')}
  y <== stage${stages.length - 1}.y;
}

component main { public [x] } = Network();
`;
}

/** Constraints, public values, weights, and weights of the largest layer, from the network alone. */
export function size(network) {
  const ofNeuron = ({ rescale: to }) => (to ? to.shift + to.bits + 3 : 1);
  const sum = (amount) => network.stages.reduce((all, stage) => all + stage.outputs * amount(stage), 0);
  return {
    constraints: sum(ofNeuron),
    public: network.inputs + network.stages.at(-1).outputs,
    weights: sum(({ inputs }) => inputs),
    largest: Math.max(...network.stages.map(({ inputs, outputs }) => inputs * outputs)),
  };
}
