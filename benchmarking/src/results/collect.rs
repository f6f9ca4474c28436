//! Bringing the tables of many benchmarks together.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shardproof_common::files;

use crate::conditions::Conditions;
use crate::error::BenchError;
use crate::system::{self, Record};
use crate::table::TableError;

/// Folder, and tables of its folders that are joined into one.
const JOINED: [(&str, [&str; 2]); 3] = [
    ("accuracy", ["accuracy.csv", "boundaries.csv"]),
    ("models", ["backends.csv", "passes.csv"]),
    ("growth", ["backends.csv", "passes.csv"]),
];
/// Copied as they are.
const COPIED: [[&str; 2]; 6] = [
    ["compatibility/compatibility.csv", "compatibility/compatibility.csv"],
    ["compatibility/conditions.json", "compatibility/conditions.json"],
    ["load/load.csv", "load/load.csv"],
    ["load/conditions.json", "load/conditions.json"],
    ["pipeline/pipeline.csv", "pipeline/pipeline.csv"],
    ["pipeline/conditions.json", "pipeline/conditions.json"],
];

/// What people know of the tables beside it and no program recorded. It is of those tables alone, and goes with them.
pub(super) const NOTES: &str = "notes.md";

/// Whether a file has conditions of the tables beside it: `conditions.json`, or `conditions-PART.json` where tables were joined.
pub(super) fn is_conditions(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("conditions") && name.ends_with(".json")
}

/// On what the service was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its conditions at the first measurement.
    pub conditions: Conditions,
    /// How many configurations were measured on it.
    pub configurations: usize,
    /// Least and greatest load before one of them.
    pub load: (f64, f64),
}

/// Brings what the suite left in `from` together in `to`.
///
/// # Errors
/// When a table is missing, cannot be read or written, or has other columns than the others of its kind.
pub fn collect(from: &Path, to: &Path) -> Result<(), BenchError> {
    collect_system(&from.join("system"), &to.join("system"))?;
    for (folder, tables) in JOINED {
        for table in tables {
            join(&subfolders(&from.join(folder))?, table, &to.join(folder))?;
        }
        keep_conditions(&subfolders(&from.join(folder))?, &to.join(folder))?;
    }
    for folder in ["compatibility", "load", "pipeline"] {
        make(&to.join(folder))?;
    }
    for [source, target] in COPIED {
        let (source, target) = (from.join(source), to.join(target));
        let bytes = fs::read(&source).map_err(BenchError::io(source.display().to_string()))?;
        files::write_whole(&target, &bytes).map_err(BenchError::io(target.display().to_string()))?;
    }
    Ok(())
}

fn collect_system(from: &Path, to: &Path) -> Result<(), BenchError> {
    let mut records: Vec<Record> = Vec::new();
    for model in subfolders(from)? {
        records.extend(system::records_in(&model)?);
    }
    // Small models first, and those of which nothing is known last.
    let known = |record: &Record| Some((record.configuration.model_id(), record.summary_row().parameters?));
    let sizes: HashMap<String, u64> = records.iter().filter_map(known).collect();
    records.sort_by_cached_key(|record| {
        let model = record.configuration.model_id();
        (sizes.get(&model).copied().unwrap_or(u64::MAX), model)
    });
    make(to)?;
    system::write_tables(to, &records)?;
    let machines = machines(&records);
    let path = to.join("conditions.json");
    let text = serde_json::to_vec_pretty(&machines)
        .map_err(|error| BenchError::Io { what: path.display().to_string(), source: error.into() })?;
    files::write_whole(&path, &text).map_err(BenchError::io(path.display().to_string()))
}

/// The machines of all records, each once.
fn machines(records: &[Record]) -> Vec<Machine> {
    let mut machines: Vec<Machine> = Vec::new();
    for Record { conditions, .. } in records {
        let same = |machine: &&mut Machine| {
            let Conditions { unix_seconds, load, .. } = machine.conditions;
            Conditions { unix_seconds, load, ..conditions.clone() } == machine.conditions
        };
        match machines.iter_mut().find(same) {
            Some(machine) => {
                machine.configurations += 1;
                machine.load = (machine.load.0.min(conditions.load), machine.load.1.max(conditions.load));
            }
            None => machines.push(Machine {
                conditions: conditions.clone(),
                configurations: 1,
                load: (conditions.load, conditions.load),
            }),
        }
    }
    machines
}

/// Writes the rows of the tables of this name in `folders` into one.
fn join(folders: &[PathBuf], name: &str, to: &Path) -> Result<(), BenchError> {
    make(to)?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut columns: Option<csv::StringRecord> = None;
    for path in folders.iter().map(|folder| folder.join(name)) {
        let wrong = |source| TableError::Csv { path: path.clone(), source };
        let mut reader = csv::Reader::from_path(&path).map_err(wrong)?;
        let found = reader.headers().map_err(wrong)?.clone();
        match &columns {
            Some(columns) if *columns != found => {
                let (expected, found) =
                    (columns.iter().collect::<Vec<_>>().join(","), found.iter().collect::<Vec<_>>());
                return Err(BenchError::Columns { path, expected, found: found.join(",") });
            }
            Some(_) => {}
            None => {
                writer.write_record(&found).map_err(wrong)?;
                columns = Some(found);
            }
        }
        for row in reader.records() {
            writer.write_record(&row.map_err(wrong)?).map_err(wrong)?;
        }
    }
    let path = to.join(name);
    let bytes = writer
        .into_inner()
        .map_err(|error| BenchError::Io { what: path.display().to_string(), source: error.into_error() })?;
    files::write_whole(&path, &bytes).map_err(BenchError::io(path.display().to_string()))
}

/// Puts the conditions of all `parts` beside the joined tables, in place of those of earlier ones.
fn keep_conditions(parts: &[PathBuf], to: &Path) -> Result<(), BenchError> {
    let wrong = |path: &Path| BenchError::io(path.display().to_string());
    for entry in fs::read_dir(to).map_err(wrong(to))? {
        let path = entry.map_err(wrong(to))?.path();
        if is_conditions(&path) || path.ends_with(NOTES) {
            fs::remove_file(&path).map_err(wrong(&path))?;
        }
    }
    for part in parts {
        let source = part.join("conditions.json");
        let name = part.file_name().unwrap_or_default().display();
        let target = to.join(format!("conditions-{name}.json"));
        let bytes = fs::read(&source).map_err(wrong(&source))?;
        files::write_whole(&target, &bytes).map_err(wrong(&target))?;
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(directory).map_err(BenchError::io(directory.display().to_string()))
}

/// Folders in `directory`, by name.
fn subfolders(directory: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let unreadable = || BenchError::io(directory.display().to_string());
    let mut folders = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_joined_if_they_are_of_one_kind() {
        let directory = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| directory.path().join(name));
        for (folder, row) in folders.iter().zip(["1,2", "3,4"]) {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("t.csv"), format!("x,y\n{row}\n")).unwrap();
        }
        join(&folders, "t.csv", &directory.path().join("all")).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("all/t.csv")).unwrap(), "x,y\n1,2\n3,4\n");
        fs::write(folders[1].join("t.csv"), "x,z\n3,4\n").unwrap();
        let error = join(&folders, "t.csv", &directory.path().join("all")).unwrap_err().to_string();
        assert!(error.contains("b/t.csv") && error.contains("x,z"), "{error}");
    }

    #[test]
    fn conditions_of_every_part_are_kept_and_those_of_earlier_tables_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let parts = ["small", "large"].map(|name| directory.path().join(name));
        for part in &parts {
            fs::create_dir(part).unwrap();
            fs::write(part.join("conditions.json"), part.display().to_string()).unwrap();
        }
        let to = directory.path().join("all");
        fs::create_dir(&to).unwrap();
        for stale in ["conditions-older.json", NOTES, "backends.csv"] {
            fs::write(to.join(stale), "").unwrap();
        }
        keep_conditions(&parts, &to).unwrap();
        let mut left: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["backends.csv", "conditions-large.json", "conditions-small.json"]);
        assert!(fs::read_to_string(to.join("conditions-small.json")).unwrap().ends_with("small"));
        fs::remove_file(parts[0].join("conditions.json")).unwrap();
        let error = keep_conditions(&parts, &to).unwrap_err().to_string();
        assert!(error.contains("small/conditions.json"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = collect(&directory.path().join("nowhere"), directory.path()).unwrap_err().to_string();
        assert!(error.contains("nowhere/system"), "{error}");
    }
}
