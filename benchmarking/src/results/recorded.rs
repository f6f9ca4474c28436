//! What is recorded beside the tables about how they were made. What is not recorded is said to be so, and never guessed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::collect::{Machine, NOTES, is_conditions};
use super::rows::Tables;
use crate::backends::manifest::SystemConditions;
use crate::conditions::Conditions;
use crate::error::BenchError;

/// What one start of a benchmark wrote beside its tables.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Recorded {
    #[serde(alias = "conditions")]
    machine: Conditions,
    threads: Option<usize>,
    target: Option<String>,
    /// What was measured in this start; nothing where older programs did not write it.
    #[serde(default)]
    models: Vec<String>,
    model: Option<String>,
    #[serde(default)]
    pub(super) systems: Vec<NamedSystem>,
}

/// What `backend_benchmark` says of a system.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NamedSystem {
    pub(super) name: String,
    pub(super) about: String,
    #[serde(flatten)]
    pub(super) conditions: SystemConditions,
}

impl Recorded {
    fn models(&self) -> impl Iterator<Item = &str> {
        self.models.iter().chain(&self.model).map(String::as_str)
    }

    /// One line: what, on what, when.
    fn line(&self, what: &str) -> String {
        let models: Vec<&str> = self.models().collect();
        let models = if models.is_empty() { String::new() } else { format!(" ({})", models.join(", ")) };
        let threads = self.threads.map_or(String::new(), |threads| format!(", {threads} threads"));
        let target = self.target.as_ref().map_or(String::new(), |target| format!(", target `{target}`"));
        let (machine, day) = (self.machine.line(), day(self.machine.unix_seconds));
        format!("- {what}{models}: {machine}{threads}{target}, {day}.\n")
    }
}

/// Everything that is recorded in `folder`, by the names of the files.
pub(super) fn read(folder: &Path) -> Result<Vec<Recorded>, BenchError> {
    let unreadable = || BenchError::io(folder.display().to_string());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        if is_conditions(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read_json(path)).collect()
}

pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, BenchError> {
    let bytes = fs::read(path).map_err(BenchError::io(path.display().to_string()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| BenchError::Io { what: path.display().to_string(), source: error.into() })
}

/// What people know of the tables in `folder` and no program recorded; a paragraph, or nothing.
pub(super) fn note(folder: &Path) -> Result<String, BenchError> {
    let path = folder.join(NOTES);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(format!("{}\n\n", text.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(BenchError::io(path.display().to_string())(error)),
    }
}

/// The section about conditions of all tables in `directory`, but for those that stand beside their figures.
pub(super) fn section(tables: &Tables, directory: &Path) -> Result<String, BenchError> {
    let mut text = "## Conditions\n\nEach measurement has one machine, which plays all parts: coordinator, workers, client. Proof systems are compared within one \
                    run of the benchmark, taking turns; configurations of the service were measured one after the other. `load \
                    before` is how many processes wanted to run, over a minute; the last of the benchmark's own are among them.\n\n"
        .to_owned();
    for machine in read_json::<Vec<Machine>>(&directory.join("system/conditions.json"))? {
        text.push_str(&service(&machine));
    }
    let compared = |rows: &[super::rows::Compared]| rows.iter().map(|row| row.model.clone()).collect::<Vec<_>>();
    let accurate = tables.accuracy.iter().map(|row| row.model.clone()).collect();
    for (what, folder, models) in [
        ("Whole models", "models", compared(&tables.models)),
        ("Growth", "growth", compared(&tables.growth)),
        ("Operators", "compatibility", Vec::new()),
        ("Accuracy", "accuracy", accurate),
    ] {
        let recorded = read(&directory.join(folder))?;
        recorded.iter().for_each(|part| text.push_str(&part.line(what)));
        text.push_str(&missing(what, models, &recorded));
    }
    Ok(text)
}

/// The machine of some configurations of the service.
fn service(Machine { conditions, configurations, load: (low, high) }: &Machine) -> String {
    let line = conditions.line();
    let line = line.split(", load").next().unwrap_or(&line);
    let day = day(conditions.unix_seconds);
    format!(
        "- The service, {configurations} configurations: {line}, load before each {low:.1} to {high:.1}, from {day} on.\n"
    )
}

/// Says of which `models` nothing is recorded.
fn missing(what: &str, models: Vec<String>, recorded: &[Recorded]) -> String {
    let mut left: Vec<String> = Vec::new();
    let is_known = |model: &String| recorded.iter().any(|part| part.models().any(|known| known == model));
    for model in models.into_iter().filter(|model| !is_known(model)) {
        if !left.contains(&model) {
            left.push(model);
        }
    }
    if left.is_empty() {
        return String::new();
    }
    let mut which = left.join(", ");
    if recorded.is_empty() {
        which = "all rows".to_owned();
    }
    let mut text = String::new();
    writeln!(
        text,
        "- {what} ({which}): machine, load, version, day and whatever else the table does not say are **not recorded**."
    )
    .expect("a string takes all text");
    text
}

/// `2026-11-24`.
fn day(unix_seconds: u64) -> String {
    let (year, month, day) = date(unix_seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar (H. Hinnant, chrono-compatible
/// low-level date algorithms).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(20_453), (2025, 12, 31));
    }

    #[test]
    fn what_is_not_recorded_is_said_to_be_so() {
        let directory = tempfile::tempdir().unwrap();
        let models = || ["a", "b", "b"].map(str::to_owned).to_vec();
        let none = read(directory.path()).unwrap();
        assert!(missing("Growth", models(), &none).contains("(all rows): machine, load, version, day and whatever"));
        let machine = serde_json::to_value(Conditions { load: 0.5, ..Conditions::now() }).unwrap();
        let text = serde_json::json!({ "machine": machine, "threads": 2, "models": ["a"] }).to_string();
        fs::write(directory.path().join("conditions-small.json"), text).unwrap();
        let some = read(directory.path()).unwrap();
        assert!(missing("Growth", models(), &some).starts_with("- Growth (b): "));
        assert!(some[0].line("Growth").starts_with("- Growth (a): ") && some[0].line("Growth").contains("2 threads"));
        let accuracy = serde_json::json!({ "model": "b", "conditions": machine }).to_string();
        fs::write(directory.path().join("conditions-b.json"), accuracy).unwrap();
        assert_eq!(missing("Accuracy", models(), &read(directory.path()).unwrap()), "");
    }

    #[test]
    fn notes_are_shown_where_there_are_any() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(note(directory.path()).unwrap(), "");
        fs::write(directory.path().join(NOTES), "The machine was busy.\n").unwrap();
        assert_eq!(note(directory.path()).unwrap(), "The machine was busy.\n\n");
    }
}
