//! The soundness account: an upper bound for the probability that a verifier accepts a false statement, term by term.
//!
//! `SOUNDNESS.md` derives every formula; here they are computed. A term is the probability that one step goes wrong, for
//! one attempt at the step; [`Account::total_bits`] is the union bound over all of them. Where the prover must show work
//! before a step, the work is kept apart: it makes attempts expensive rather than unlikely.

mod proof;

pub use proof::{MAX_COEFFICIENTS, MAX_ELEMENTS, NoAccount, proof};

use crate::pcs::{Parameters, Phase, Regime};

/// Fewest bits, work counted, of a proof that is made or accepted.
pub const MIN_BITS: f64 = 96.0;

/// The modulus of the base field, 2^64 - 2^32 + 1, as a float; rounding is far below what is reported.
const MODULUS: f64 = 18_446_744_069_414_584_321.0;

/// Elements of the extension field from which challenges are drawn: the modulus squared.
pub const FIELD_SIZE: f64 = MODULUS * MODULUS;

/// Bits that it takes to find a collision of the hash, whose output has 256 bits.
pub const HASH_COLLISION_BITS: f64 = 128.0;

/// One way in which a false statement may pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Protocol and step.
    pub name: String,
    /// `-log2` of the step's error probability, without work.
    pub bits: f64,
    /// Bits of work that each attempt at the step costs.
    pub grinding: f64,
}

/// All terms of a proof.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// In the order of the protocol.
    pub terms: Vec<Term>,
}

impl Account {
    /// Adds a term with the given error probability.
    pub fn push(&mut self, name: impl Into<String>, error: f64) {
        self.terms.push(Term { name: name.into(), bits: -error.log2(), grinding: 0.0 });
    }

    /// Adds all terms of another account, their names after `prefix`.
    pub fn extend(&mut self, prefix: &str, other: Self) {
        let renamed = other.terms.into_iter().map(|term| Term { name: format!("{prefix}: {}", term.name), ..term });
        self.terms.extend(renamed);
    }

    /// Bits of the union bound, work counted.
    pub fn total_bits(&self) -> f64 {
        -self.terms.iter().map(|term| (-term.bits - term.grinding).exp2()).sum::<f64>().log2()
    }

    /// Whether that makes [`MIN_BITS`]. What is not a number does not.
    pub fn suffices(&self) -> bool {
        self.total_bits() >= MIN_BITS
    }

    /// Bits of the union bound without any work.
    pub fn bits_without_grinding(&self) -> f64 {
        -self.terms.iter().map(|term| (-term.bits).exp2()).sum::<f64>().log2()
    }
}

/// A sumcheck whose round polynomials have the given degrees: a false claim survives a round with probability at most
/// `degree / |F|` (Lund, Fortnow, Karloff, Nisan 1992).
pub fn sumcheck(degrees: impl IntoIterator<Item = usize>) -> f64 {
    degrees.into_iter().map(|degree| degree as f64).sum::<f64>() / FIELD_SIZE
}

/// Two different multilinear polynomials agree at a random point (Schwartz, Zippel).
pub fn multilinear_identity(num_vars: usize) -> f64 {
    num_vars as f64 / FIELD_SIZE
}

/// `claims` claims of which one is false, combined with independent random coefficients of which one may be 1.
pub fn random_combination(claims: usize) -> f64 {
    if claims > 1 { 1.0 / FIELD_SIZE } else { 0.0 }
}

/// `claims` claims of which one is false, combined with the powers 0 to `claims - 1` of one challenge.
pub fn power_combination(claims: usize) -> f64 {
    claims.saturating_sub(1) as f64 / FIELD_SIZE
}

/// A lookup argument by logarithmic derivatives (Haböck, eprint 2022/1530): `lookups` entries and `rows` table rows of
/// `columns` columns, compressed with the powers of one challenge, their fractions summed at another one.
///
/// A row is a polynomial of degree below `columns` in the first challenge, different for different rows. If an entry is
/// not in the table, the two sums of fractions differ as functions of both challenges, and the numerator of their
/// difference has at most degree `columns - 1` (or 1) for each fraction. The verifier must check that the common denominator
/// is not zero; no value may have a multiplicity of a multiple of the modulus, so `lookups` is below it.
pub fn logup(lookups: usize, rows: usize, columns: usize) -> f64 {
    (lookups as f64 + rows as f64) * columns.saturating_sub(1).max(1) as f64 / FIELD_SIZE
}

/// Most polynomials within the regime's distance of a word (Guruswami-Sudan with the given multiplicity; BCIKS20).
pub fn list_size(regime: Regime, log_inv_rate: usize) -> f64 {
    match regime {
        Regime::UniqueDecoding => 1.0,
        Regime::Johnson { multiplicity } => (multiplicity as f64 + 0.5) * sqrt_inv_rate(log_inv_rate),
    }
}

/// `log2` of the share of positions at which a word may agree with the code's nearest word and still be beyond the
/// regime's distance: what a query is worth, negated.
pub fn log_agreement(regime: Regime, log_inv_rate: usize) -> f64 {
    let rate = (-(log_inv_rate as f64)).exp2();
    match regime {
        Regime::UniqueDecoding => f64::midpoint(1.0, rate).log2(),
        Regime::Johnson { multiplicity } => (rate.sqrt() * (1.0 + 0.5 / multiplicity as f64)).log2(),
    }
}

/// Mutual correlated agreement of a random combination of two words with a Reed-Solomon code of `2^log_length` positions.
///
/// Infinite where no theorem holds: the Johnson regime needs a multiplicity of 3, a dimension of 2, and a rate below 1.
fn proximity_gap(regime: Regime, log_length: usize, log_inv_rate: usize) -> f64 {
    let length = (log_length as f64).exp2();
    match regime {
        Regime::UniqueDecoding => length / FIELD_SIZE,
        Regime::Johnson { multiplicity } if multiplicity < 3 || log_inv_rate < 1 || log_length <= log_inv_rate => {
            f64::INFINITY
        }
        Regime::Johnson { multiplicity } => {
            let m = multiplicity as f64 + 0.5;
            let rate = (-(log_inv_rate as f64)).exp2();
            let distance = 1.0 - log_agreement(regime, log_inv_rate).exp2();
            let lines = length * (2.0 * m.powi(5) + 3.0 * m * distance * rate) / (3.0 * rate.powf(1.5));
            (lines + m * sqrt_inv_rate(log_inv_rate)) / FIELD_SIZE
        }
    }
}

fn sqrt_inv_rate(log_inv_rate: usize) -> f64 {
    (log_inv_rate as f64 / 2.0).exp2()
}

/// Pairs of polynomials that an oracle may stand for and that a random point does not tell apart.
fn out_of_domain(list: f64, num_vars: usize) -> f64 {
    list * (list - 1.0) / 2.0 * multilinear_identity(num_vars)
}

/// The terms of one opening, its commitment's out-of-domain binding included.
pub fn opening(parameters: &Parameters) -> Account {
    // Exhaustive, so that no parameter goes unaccounted for.
    let Parameters { num_vars, phases } = parameters;
    let mut account = Account::default();
    let mut vars = *num_vars;
    let mut claims = 2;
    for (index, phase) in phases.iter().enumerate() {
        let &Phase { fold, log_inv_rate, regime, queries, grinding } = phase;
        let list = list_size(regime, log_inv_rate);
        let mut push = |step: &str, error: f64| {
            if error > 0.0 {
                account.push(format!("phase {index}, {step}"), error);
            }
        };
        push("out-of-domain value", out_of_domain(list, vars));
        push("combination of claims", list * power_combination(claims));
        push("sumcheck", list * sumcheck(vec![2; fold]));
        let gaps = (1..=fold).map(|bound| proximity_gap(regime, vars - bound + log_inv_rate, log_inv_rate));
        push("proximity gaps", gaps.sum());
        account.terms.push(Term {
            name: format!("phase {index}, queries"),
            bits: -log_agreement(regime, log_inv_rate) * queries as f64,
            grinding: grinding as f64,
        });
        vars -= fold;
        // The sum so far, an out-of-domain value and the rows.
        claims = queries + 2;
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcs::{MAX_VARS, MIN_VARS};

    fn parameters(num_vars: usize) -> Parameters {
        Parameters::for_size(num_vars).unwrap()
    }

    #[test]
    fn every_opening_has_a_hundred_bits() {
        for num_vars in MIN_VARS..=MAX_VARS {
            let account = opening(&parameters(num_vars));
            assert!(account.total_bits() >= 100.0, "2^{num_vars}: {:.2} bits", account.total_bits());
            assert!(account.terms.iter().all(|term| term.grinding <= 16.0), "2^{num_vars}: more than 16 bits of work");
            // Work is counted on queries alone.
            let (with, without): (Vec<&Term>, _) = account.terms.iter().partition(|term| term.grinding > 0.0);
            assert!(with.iter().all(|term| term.name.ends_with("queries")));
            assert!(without.iter().all(|term| term.bits >= 100.0), "2^{num_vars}: {without:?}");
        }
        assert!(Parameters::for_size(MIN_VARS - 1).is_err());
        assert!(Parameters::for_size(MAX_VARS + 1).is_err());
    }

    #[test]
    fn the_account_agrees_with_figures_worked_out_by_hand() {
        let bits = |error: f64| -error.log2();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 0.01, "{a} and {b}");
        close(FIELD_SIZE.log2(), 128.0);
        // Unique decoding at rate 1/2: at most 3/4 of the rows agree; 2^20 positions.
        close(-log_agreement(Regime::UniqueDecoding, 1), 0.415);
        close(bits(proximity_gap(Regime::UniqueDecoding, 20, 1)), 108.0);
        // m = 3 at rate 1/4: sqrt(1/4) * 7/6 agree, 7 polynomials at most; 2/3 * 3.5^5 * 8 lines for each position.
        let johnson = Regime::Johnson { multiplicity: 3 };
        close(-log_agreement(johnson, 2), 0.7776);
        close(list_size(johnson, 2), 7.0);
        close(bits(proximity_gap(johnson, 10, 2)), 128.0 - 10.0 - 11.45);
        close(bits(out_of_domain(7.0, 8)), 128.0 - 3.0 - 4.39);
        close(bits(sumcheck([2, 2, 2, 2])), 125.0);
        close(bits(power_combination(9)), 125.0);
        close(bits(logup(1 << 20, 1 << 20, 3)), 106.0);
        assert_eq!(random_combination(1) + power_combination(1), 0.0);
    }

    #[test]
    fn johnson_gaps_are_charged_more_than_is_proven() {
        for num_vars in MIN_VARS..=MAX_VARS {
            let parameters = parameters(num_vars);
            for (index, phase) in parameters.phases.iter().enumerate() {
                let Regime::Johnson { multiplicity } = phase.regime else { continue };
                // Every part of the polynomial is encoded by itself. The bound is that of eprint 2026/2056, Theorem 5.12.
                let log_length = parameters.log_rows(index);
                let length = (log_length as f64).exp2();
                let rate = (-(phase.log_inv_rate as f64)).exp2() - 1.0 / length;
                let proven = 8.0 * length * (multiplicity as f64 + 0.5).powi(3) / (3.0 * rate) / FIELD_SIZE;
                let charged = proximity_gap(phase.regime, log_length, phase.log_inv_rate);
                assert!(charged > 4.0 * proven, "2^{num_vars}, phase {index}: {charged:e} and {proven:e}");
            }
        }
    }

    #[test]
    fn no_account_suffices_where_no_theorem_holds() {
        let with = |multiplicity, fold, log_inv_rate| {
            let regime = Regime::Johnson { multiplicity };
            let phase = Phase { fold, log_inv_rate, regime, queries: 200, grinding: 16 };
            opening(&Parameters { num_vars: 8, phases: vec![phase] }).suffices()
        };
        assert!(with(3, 3, 3) && with(3, 7, 3));
        assert!(!with(2, 3, 3), "a multiplicity below 3");
        assert!(!with(3, 8, 3), "a code of constants");
        assert!(!with(3, 3, 0), "a code that is the whole space");
    }

    #[test]
    fn weaker_parameters_give_fewer_bits() {
        let reference = parameters(20);
        let bits = opening(&reference).total_bits();
        for phase in 0..reference.phases.len() {
            let mut fewer_queries = reference.clone();
            fewer_queries.phases[phase].queries -= 4;
            assert!(opening(&fewer_queries).total_bits() < bits - 0.1, "queries of phase {phase}");
            let mut less_work = reference.clone();
            less_work.phases[phase].grinding -= 4;
            assert!(opening(&less_work).total_bits() < bits - 0.1, "work of phase {phase}");
            assert_eq!(opening(&less_work).bits_without_grinding(), opening(&reference).bits_without_grinding());
            let mut higher_rate = reference.clone();
            higher_rate.phases[phase].log_inv_rate -= 1;
            assert!(opening(&higher_rate).total_bits() < bits - 0.1, "rate of phase {phase}");
        }
    }

    #[test]
    fn the_written_table_is_the_computed_one() {
        let written = include_str!("../SOUNDNESS.md");
        for num_vars in MIN_VARS..=MAX_VARS {
            let parameters = parameters(num_vars);
            let account = opening(&parameters);
            let phase = |&Phase { fold, log_inv_rate, regime, queries, grinding }: &Phase| {
                let regime = match regime {
                    Regime::UniqueDecoding => "U".to_owned(),
                    Regime::Johnson { multiplicity } => format!("J{multiplicity}"),
                };
                format!("{fold} / {log_inv_rate}, {regime}, {queries}, {grinding}")
            };
            let phases: Vec<String> = parameters.phases.iter().map(phase).collect();
            let (bits, without) = (account.total_bits(), account.bits_without_grinding());
            let row = format!("| {num_vars} | {} | {bits:.2} | {without:.2} |", phases.join("; "));
            assert!(written.contains(&row), "SOUNDNESS.md lacks the row {row}");
        }
    }

    #[test]
    fn accounts_add_up() {
        let mut account = Account::default();
        account.push("a", 2f64.powi(-101));
        let mut inner = Account::default();
        inner.push("b", 2f64.powi(-101));
        account.extend("inner", inner);
        assert_eq!(account.total_bits(), 100.0);
        assert_eq!(account.terms[1].name, "inner: b");
        account.terms.push(Term { name: "work".into(), bits: 90.0, grinding: 16.0 });
        assert!(account.total_bits() > 99.9 && account.bits_without_grinding() < 90.0);
    }

    #[test]
    fn an_account_suffices_from_ninety_six_bits_on_and_never_without_a_number() {
        let of = |error: f64| {
            let mut account = Account::default();
            account.push("a", error);
            account
        };
        assert!(Account::default().suffices() && of(0.0).suffices() && of(2f64.powi(-96)).suffices());
        assert!(!of(2f64.powi(-96) * 1.01).suffices());
        assert!(of(-1.0).total_bits().is_nan() && !of(-1.0).suffices() && !of(f64::NAN).suffices());
    }
}
