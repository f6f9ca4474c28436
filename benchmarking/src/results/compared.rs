//! The sections about proof systems side by side: what they are, what their times contain, and what was measured.

use std::path::Path;

use super::markdown::{count, ms, scientific, size, table, text_table, time};
use super::recorded::{self, NamedSystem};
use super::rows::{Compared, Published, Tables};
use crate::backends::manifest::SystemConditions;
use crate::error::BenchError;

/// What the systems are, as they were described when the tables of `folder` were measured.
pub(super) fn systems(folder: &Path) -> Result<String, BenchError> {
    let mut systems: Vec<NamedSystem> = Vec::new();
    for part in recorded::read(folder)? {
        for system in part.systems {
            if systems.iter().all(|known| known.name != system.name) {
                systems.push(system);
            }
        }
    }
    let row = |system: &NamedSystem| {
        let NamedSystem { name, about, conditions } = system;
        let SystemConditions { field, commitment, security, setup, zero_knowledge, weights, .. } = conditions;
        let hides = if *zero_knowledge { "yes" } else { "no" };
        [name, about, field, commitment, security, setup, hides, weights].map(|cell| cell.to_string()).to_vec()
    };
    let heading = ["system", "what", "field", "commitment", "security", "setup", "zero-knowledge", "weights"];
    let described: Vec<Vec<String>> = systems.iter().map(row).collect();
    let or_not_stated = |text: &String| if text.is_empty() { "not stated".to_owned() } else { text.clone() };
    let times = |system: &NamedSystem| {
        let SystemConditions { prove, verify, .. } = &system.conditions;
        vec![system.name.clone(), or_not_stated(prove), or_not_stated(verify)]
    };
    let timed: Vec<Vec<String>> = systems.iter().map(times).collect();
    Ok(format!(
        "## The systems\n\n{}\n### What the times contain\n\n`prove` and `verify` are each system's own calls, and **do not contain \
         the same**:\n\n{}\nThe `whole process` of proving and of verifying does: the benchmark's clock from the start of a process to \
         its end, with reading keys and whatever else the system starts (for ezkl Python, for Groth16 Node.js), and for proving with \
         the witness. Compare systems by it. gkr with committed weights commits to them again when it loads its keys, which a \
         process that proves more than once does once.\n",
        text_table(&heading, &described),
        text_table(&["system", "prove", "verify"], &timed)
    ))
}

/// Small models first; systems in the order in which they were given.
fn by_size(rows: &[Compared]) -> Vec<&Compared> {
    let mut rows: Vec<&Compared> = rows.iter().collect();
    rows.sort_by_key(|row| row.parameters);
    rows
}

const HEADING: [&str; 17] = [
    "model",
    "parameters",
    "system",
    "passes",
    "setup",
    "witness",
    "prove",
    "prove: whole process",
    "verify",
    "verify: whole process",
    "proof",
    "proving key",
    "verifying key",
    "memory: setup",
    "memory: prove",
    "error",
    "changed input",
];

fn compared_table(rows: &[Compared]) -> String {
    let row = |row: &Compared| {
        let first = vec![row.model.clone(), count(row.parameters), row.system.clone()];
        let figures = if row.is_ok() {
            vec![
                row.passes.to_string(),
                ms(row.setup_ms),
                ms(row.witness_ms_median),
                ms(row.prove_ms_median),
                ms(row.prove_wall_ms_median),
                ms(row.verify_ms_median),
                ms(row.verify_wall_ms_median),
                size(row.proof_bytes),
                size(row.proving_key_bytes),
                size(row.verifying_key_bytes),
                size(row.setup_peak_bytes),
                size(row.prove_peak_bytes),
                scientific(row.relative_rmse),
                row.control.clone().unwrap_or_default(),
            ]
        } else {
            let mut cells = vec![String::from("-"); HEADING.len() - first.len() - 1];
            cells.push(row.status.split(':').next().unwrap_or_default().to_owned());
            cells
        };
        [first, figures].concat()
    };
    let rows: Vec<Vec<String>> = by_size(rows).into_iter().map(row).collect();
    table(&HEADING, &rows)
}

/// What all rows share, and which have a single pass.
fn passes(rows: &[Compared]) -> String {
    let mut threads: Vec<usize> = rows.iter().map(|row| row.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let threads: Vec<String> = threads.iter().map(usize::to_string).collect();
    let mut once: Vec<&str> = Vec::new();
    for row in by_size(rows).into_iter().filter(|row| row.passes == 1) {
        if !once.contains(&row.model.as_str()) {
            once.push(&row.model);
        }
    }
    let once = if once.is_empty() {
        String::new()
    } else {
        format!(
            " **Measured in a single pass, so that nothing is known of their spread: {}** (hollow marks in plots).",
            once.join(", ")
        )
    };
    format!(
        "Every step might use {} threads. Times of witness, proof and verification are medians of as many passes as `passes` says, in \
         each of which every system proves once, in turn; setup is made once.{once}",
        threads.join(" or ")
    )
}

/// The section about models of certain architectures.
pub(super) fn models(tables: &Tables, directory: &Path) -> Result<String, BenchError> {
    let published: Vec<Vec<String>> = tables
        .published
        .iter()
        .filter(|row| row.num_shards == 1)
        .map(|row: &Published| {
            vec![
                row.model_id.clone(),
                count(row.parameters),
                row.system.clone(),
                time(row.total_setup_time),
                time(row.total_proof_generation_time),
                time(row.total_verification_time),
                size(row.total_proof_size),
                size(row.total_pk_size),
                size(row.peak_bytes),
                row.conditions.clone(),
                row.source.clone(),
            ]
        })
        .collect();
    let heading = [
        "model",
        "parameters",
        "system",
        "setup",
        "prove",
        "verify",
        "proof",
        "proving key",
        "memory",
        "conditions",
        "source",
    ];
    Ok(format!(
        "## Proof systems on whole models\n\nOne shard, boundaries public. {} `error` is the root mean square error over the range of \
         the answer's values, on inputs that calibration saw as well; a single number has no range. `changed input`: what became of a claim with one input value \
         changed by one; a system that accepts it has no row of figures.\n\n{}{}\nWhat others published, or their programs gave, under \
         conditions of their own; these figures are not comparable with those above beyond their order of magnitude:\n\n{}",
        passes(&tables.models),
        recorded::note(&directory.join("models"))?,
        compared_table(&tables.models),
        table(&heading, &published)
    ))
}

/// The section about one architecture in growing sizes.
pub(super) fn growth(tables: &Tables, directory: &Path) -> Result<String, BenchError> {
    let sizes = tables.growth.iter().map(|row| row.parameters);
    let size = |of: fn(u64, u64) -> u64| sizes.clone().reduce(of).map_or_else(|| "-".to_owned(), count);
    Ok(format!(
        "## Growth with the model\n\nDense networks with ReLU (`mlp:DEPTH,WIDTH`), from {} to {} parameters. {}\n\n{}\
         ![proving, whole process, over parameters](plots/growth-proving-process.svg)\n\
         ![proving, the system's call, over parameters](plots/growth-proving.svg)\n\
         ![verifying, whole process, over parameters](plots/growth-verifying-process.svg)\n\
         ![verifying, the system's call, over parameters](plots/growth-verifying.svg)\n\
         ![proof size over parameters](plots/growth-proof.svg)\n\
         ![peak memory over parameters](plots/growth-memory.svg)\n\n{}",
        size(u64::min),
        size(u64::max),
        passes(&tables.growth),
        recorded::note(&directory.join("growth"))?,
        compared_table(&tables.growth)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::rows::compared as row;

    #[test]
    fn single_passes_are_named() {
        let text = passes(&[row("a", "gkr-committed", 3), row("b", "gkr-committed", 1), row("b", "gkr-committed", 1)]);
        assert!(
            text.contains("might use 2 threads") && text.contains("nothing is known of their spread: b**"),
            "{text}"
        );
        assert!(!passes(&[row("a", "gkr-committed", 3)]).contains("single pass"));
    }

    #[test]
    fn every_row_fills_all_columns() {
        let skipped = Compared { status: "skipped: too large".to_owned(), ..row("b", "gkr-committed", 0) };
        let text = compared_table(&[row("a", "gkr-committed", 3), skipped]);
        let columns = |line: &str| line.matches('|').count();
        assert!(text.lines().all(|line| columns(line) == HEADING.len() + 1), "{text}");
        assert!(text.contains("| gkr-committed | 3 | 1.0 ms |") && text.contains("| 6.0 ms | 7 B |"), "{text}");
        assert!(text.lines().last().unwrap().ends_with("| - | skipped |"), "{text}");
    }

    #[test]
    fn what_a_system_does_not_say_of_its_times_is_not_stated() {
        let directory = tempfile::tempdir().unwrap();
        let conditions = crate::backends::builtin::Builtin::GkrCommitted.conditions();
        let silent = SystemConditions { verify: String::new(), ..conditions };
        let mut system = serde_json::to_value(silent).unwrap();
        system["name"] = "quiet".into();
        system["about"] = "says little".into();
        let machine = crate::conditions::Conditions { load: 0.5, ..crate::conditions::Conditions::now() };
        let text = serde_json::json!({ "machine": machine, "systems": [system] }).to_string();
        std::fs::write(directory.path().join("conditions-small.json"), text).unwrap();
        let text = systems(directory.path()).unwrap();
        assert!(text.contains("| quiet | a process's first proof"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("| quiet |") && line.ends_with("| not stated |")), "{text}");
    }
}
