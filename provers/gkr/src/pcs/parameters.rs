//! The shape of an opening: how many variables each phase folds, at which rate its oracle is encoded and how often it is
//! queried. Everything that the verifier reads from an opening follows from these numbers.

use super::PcsError;

/// Fewest variables of a committed polynomial; shorter vectors are padded with zeros.
pub const MIN_VARS: usize = 6;
/// Most variables of a committed polynomial.
pub const MAX_VARS: usize = 26;

/// How far from its code an oracle may be before its queries are sure to notice, which decides what a query is worth and
/// how many polynomials an oracle can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Up to half the minimum distance: an oracle stands for one polynomial.
    UniqueDecoding,
    /// Up to `1 - sqrt(rate) (1 + 1/(2 multiplicity))`, short of the Johnson bound: an oracle stands for a short list.
    Johnson {
        /// At least 3.
        multiplicity: usize,
    },
}

/// One oracle: it is folded, then queried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Variables that this phase's sumcheck binds; a row of the oracle has `2^fold` elements.
    pub fold: usize,
    /// The oracle's rate is `2^-log_inv_rate`.
    pub log_inv_rate: usize,
    /// The distance to which the oracle's proximity is proven.
    pub regime: Regime,
    /// Rows drawn.
    pub queries: usize,
    /// Bits of work before the rows are drawn.
    pub grinding: usize,
}

/// The parameters of the openings of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Variables of the committed polynomial.
    pub num_vars: usize,
    /// The first belongs to the commitment, the others to the oracles that an opening sends.
    pub phases: Vec<Phase>,
}

const UNIQUE: Regime = Regime::UniqueDecoding;

/// `(fold, log_inv_rate, regime, queries, grinding)`.
type Row = (usize, usize, Regime, usize, usize);

impl Parameters {
    /// The parameters for `2^num_vars` values.
    ///
    /// # Errors
    /// When `num_vars` is not within [`MIN_VARS`] and [`MAX_VARS`].
    pub fn for_size(num_vars: usize) -> Result<Self, PcsError> {
        if !(MIN_VARS..=MAX_VARS).contains(&num_vars) {
            return Err(PcsError::UnsupportedSize { num_vars, min: MIN_VARS, max: MAX_VARS });
        }
        let phases = schedule(num_vars)
            .into_iter()
            .map(|(fold, log_inv_rate, regime, queries, grinding)| Phase {
                fold,
                log_inv_rate,
                regime,
                queries,
                grinding,
            })
            .collect();
        Ok(Self { num_vars, phases })
    }

    /// Variables of the polynomial behind oracle `phase`; those of the final polynomial for the number of phases.
    pub fn vars(&self, phase: usize) -> usize {
        self.num_vars - self.phases[..phase].iter().map(|phase| phase.fold).sum::<usize>()
    }

    /// Variables of the polynomial that is sent in the clear.
    pub fn final_vars(&self) -> usize {
        self.vars(self.phases.len())
    }

    /// Base-two logarithm of the number of rows of oracle `phase`.
    pub fn log_rows(&self, phase: usize) -> usize {
        self.vars(phase + 1) + self.phases[phase].log_inv_rate
    }

    /// Every number, for the transcript.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut numbers = vec![self.num_vars, self.phases.len()];
        for &Phase { fold, log_inv_rate, regime, queries, grinding } in &self.phases {
            let regime = match regime {
                Regime::UniqueDecoding => 0,
                Regime::Johnson { multiplicity } => multiplicity,
            };
            numbers.extend([fold, log_inv_rate, regime, queries, grinding]);
        }
        numbers.into_iter().flat_map(|number| (number as u32).to_le_bytes()).collect()
    }
}

fn schedule(num_vars: usize) -> Vec<Row> {
    match num_vars {
        0..=9 => vec![(3, 3, UNIQUE, 111, 12)],
        10..=13 => vec![(4, 3, UNIQUE, 111, 12), (num_vars - 8, 4, UNIQUE, 101, 12)],
        14..=17 => vec![(4, 2, UNIQUE, 130, 16), (5, 4, UNIQUE, 97, 16), (num_vars - 13, 5, UNIQUE, 92, 16)],
        18..=19 => vec![(5, 2, UNIQUE, 130, 16), (5, 4, UNIQUE, 97, 16), (num_vars - 14, 5, UNIQUE, 92, 16)],
        _ => vec![
            (6, 1, UNIQUE, 212, 16),
            (5, 3, UNIQUE, 106, 16),
            (4, 5, UNIQUE, 94, 16),
            (num_vars - 19, 6, UNIQUE, 92, 16),
        ],
    }
}
