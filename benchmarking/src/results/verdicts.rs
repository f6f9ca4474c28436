//! What speaks for and against each proof system, as measured.
//!
//! Only equals are compared. Times of proving and verifying are those of whole processes, because the systems' own calls do not
//! contain the same. A verifier that gets the weights can be spared most of the proof, so `gkr-public`, where it does, has only
//! its sibling `gkr-committed` beside it, and the others are not measured against it.

use std::collections::BTreeMap;

use super::markdown::count;
use super::rows::{Compared, Tables, Taken};
use crate::report;
use crate::stats::Summary;

/// Findings about one system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) system: String,
    pub(super) pros: Vec<String>,
    pub(super) cons: Vec<String>,
}

/// A figure in which less is better: what the first one is said to do, what the figure is called, and where it comes from.
type Figure = (&'static str, &'static str, fn(&Compared) -> Option<f64>);

const FIGURES: [Figure; 5] = [
    ("proves fastest", "proving", |row| row.prove_wall_ms_median),
    ("verifies fastest", "verifying", |row| row.verify_wall_ms_median),
    ("has the smallest proof", "proof size", |row| row.proof_bytes.map(|bytes| bytes as f64)),
    ("is set up fastest", "setup", |row| row.setup_ms),
    ("needs the least memory to prove", "memory", |row| row.prove_peak_bytes.map(|bytes| bytes as f64)),
];

/// The system whose verifier gets the weights, and what it is compared with.
const OPEN: (&str, &str) = ("gkr-public", "gkr-committed");

/// Whether figures of `system` may stand beside those of `other`.
fn is_rival(system: &str, other: &str) -> bool {
    let (open, sibling) = OPEN;
    system == other || if system == open { other == sibling } else { other != open }
}

/// Compares each system with its rivals, on the models that at least two of them have figures of.
pub(super) fn verdicts(tables: &Tables) -> Vec<Verdict> {
    let rows: Vec<&Compared> = tables.models.iter().chain(&tables.growth).collect();
    let mut systems: Vec<&str> = Vec::new();
    for row in &rows {
        if !systems.contains(&row.system.as_str()) {
            systems.push(&row.system);
        }
    }
    systems.into_iter().map(|system| verdict(system, &rows, &tables.compatibility)).collect()
}

fn verdict(system: &str, rows: &[&Compared], probes: &[Taken]) -> Verdict {
    let mut verdict = Verdict { system: system.to_owned(), ..Verdict::default() };
    for (best, called, get) in FIGURES {
        compare(&mut verdict, best, called, &contests(system, rows, get));
    }
    sizes(&mut verdict, rows);
    operators(&mut verdict, probes);
    verdict
}

/// A figure of the system and of every rival that has one, for each model with two of them at least.
fn contests<'a>(system: &str, rows: &[&'a Compared], get: fn(&Compared) -> Option<f64>) -> Vec<Vec<(&'a str, f64)>> {
    let mut models: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.is_ok() && is_rival(system, &row.system)) {
        if let Some(value) = get(row) {
            models.entry(&row.model).or_default().push((&row.system, value));
        }
    }
    models.into_values().filter(|entries| entries.len() > 1).collect()
}

/// Says on how many models the system is first, and by how much it is behind the first otherwise.
fn compare(verdict: &mut Verdict, best: &str, called: &str, contests: &[Vec<(&str, f64)>]) {
    let mut behind = Vec::new();
    for entries in contests {
        let least = entries.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
        if let Some((_, own)) = entries.iter().find(|(system, _)| *system == verdict.system) {
            behind.push(own / least);
        }
    }
    let first = behind.iter().filter(|&&ratio| ratio <= 1.0).count();
    if first > 0 {
        verdict.pros.push(format!("{best} on {first} of {} models", behind.len()));
    }
    let rest = Summary::of(behind.iter().copied().filter(|&ratio| ratio > 1.0));
    if let Some(Summary { count: models, median, max, .. }) = rest.filter(|rest| rest.median >= 1.5) {
        let ratio = |value: f64| if value < 10.0 { format!("{value:.1}") } else { count(value.round() as u64) };
        let (median, max) = (ratio(median), ratio(max));
        verdict.cons.push(format!("{called}: {median} times the best (median of {models}), {max} at most"));
    }
}

fn sizes(verdict: &mut Verdict, rows: &[&Compared]) {
    let own = || rows.iter().filter(|row| row.system == verdict.system);
    let (done, tried) = (own().filter(|row| row.is_ok()).count(), own().count());
    if let Some(largest) = own().filter(|row| row.is_ok()).map(|row| row.parameters).max() {
        verdict.pros.push(format!("{done} models of up to {} parameters", count(largest)));
    }
    if done < tried {
        verdict.cons.push(format!("no figures of {} of {tried} models that it was given", tried - done));
    }
    let setup = own().filter(|row| row.is_ok()).filter_map(|row| row.setup_ms).fold(0.0, f64::max);
    if setup > 60_000.0 {
        verdict.cons.push(format!("setup of up to {}", report::time(setup / 1e3)));
    }
}

fn operators(verdict: &mut Verdict, probes: &[Taken]) {
    let own = || probes.iter().filter(|probe| probe.system == verdict.system);
    let taken = own().filter(|probe| probe.proven == "yes").count();
    let tried = own().filter(|probe| probe.proven != "skipped").count();
    if tried == 0 {
        return;
    }
    let text = format!("{taken} of {tried} operators that were tried");
    if 2 * taken >= tried { verdict.pros.push(text) } else { verdict.cons.push(format!("only {text}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::rows::compared;

    /// A row with no other figure than the time of proving.
    fn row(model: &str, system: &str, prove_ms: f64) -> Compared {
        Compared {
            prove_wall_ms_median: Some(prove_ms),
            verify_wall_ms_median: None,
            setup_ms: None,
            proof_bytes: None,
            prove_peak_bytes: None,
            ..compared(model, system, 3)
        }
    }

    #[test]
    fn who_is_first_and_who_is_behind_is_said() {
        let rows = [row("a", "fast", 1.0), row("a", "slow", 30.0), row("b", "fast", 2.0), row("b", "slow", 20.0)];
        let rows: Vec<&Compared> = rows.iter().collect();
        let fast = verdict("fast", &rows, &[]);
        assert_eq!(fast.pros[0], "proves fastest on 2 of 2 models");
        assert!(fast.cons.is_empty());
        let slow = verdict("slow", &rows, &[]);
        assert_eq!(slow.cons[0], "proving: 20 times the best (median of 2), 30 at most");
        assert!(slow.pros.iter().all(|pro| !pro.contains("fastest")));
    }

    #[test]
    fn a_verifier_that_gets_the_weights_is_not_compared_with_one_that_does_not() {
        let rows = [row("a", "gkr-committed", 3.0), row("a", "gkr-public", 1.0), row("a", "ezkl", 30.0)];
        let rows: Vec<&Compared> = rows.iter().collect();
        let of = |system| verdict(system, &rows, &[]);
        assert_eq!(of("gkr-committed").pros[0], "proves fastest on 1 of 1 models");
        assert_eq!(of("gkr-public").pros[0], "proves fastest on 1 of 1 models");
        assert_eq!(of("ezkl").cons[0], "proving: 10 times the best (median of 1), 10 at most");
    }

    #[test]
    fn a_model_that_one_system_alone_can_do_is_no_contest() {
        let failed = Compared { status: "failed: memory".to_owned(), parameters: 500, ..row("a", "slow", 1.0) };
        let rows = [row("a", "fast", 1.0), failed];
        let rows: Vec<&Compared> = rows.iter().collect();
        assert!(verdict("fast", &rows, &[]).pros.iter().all(|pro| !pro.contains("fastest")));
        let slow = verdict("slow", &rows, &[]);
        assert!(slow.pros.is_empty());
        assert_eq!(slow.cons, ["no figures of 1 of 1 models that it was given"]);
    }
}
