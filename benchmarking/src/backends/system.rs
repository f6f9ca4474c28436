//! The systems that take part: built in, or an adapter's.

use std::path::{Path, PathBuf};

use super::builtin::Builtin;
use super::error::ComparisonError;
use super::manifest::{Commands, Manifest, Requirement, SystemConditions};
use super::process;

/// A system with the commands of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// In tables.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// What is printed beside the figures.
    pub conditions: SystemConditions,
    /// Where its commands are started.
    pub folder: PathBuf,
    /// What must be there.
    pub require: Option<Requirement>,
    /// Its commands.
    pub steps: Commands,
    /// Which of the built-in ones it is.
    pub builtin: Option<Builtin>,
}

impl System {
    /// A system that this program measures by starting itself.
    ///
    /// # Errors
    /// When the program doesn't know its own path.
    pub fn builtin(builtin: Builtin) -> Result<Self, ComparisonError> {
        let name = builtin.as_str();
        let command = |step: &str| {
            process::own_command(&["step", name, step]).map_err(ComparisonError::io(Path::new("/proc/self/exe")))
        };
        let needs_more = builtin.is_ezkl();
        Ok(Self {
            name: name.to_owned(),
            about: builtin.about().to_owned(),
            conditions: builtin.conditions(),
            folder: PathBuf::from("."),
            require: match needs_more {
                true => Some(Requirement {
                    command: command("require")?,
                    remedy: "install Python 3.7 or later, or point SHARDPROOF_PYTHON at one".to_owned(),
                }),
                false => None,
            },
            steps: Commands {
                install: if needs_more { Some(command("install")?) } else { None },
                prepare: command("prepare")?,
                prove: command("prove")?,
                verify: command("verify")?,
            },
            builtin: Some(builtin),
        })
    }

    /// The system of the adapter in `folder`.
    ///
    /// # Errors
    /// When its manifest is missing or wrong.
    pub fn adapter(folder: &Path) -> Result<Self, ComparisonError> {
        let Manifest { name, about, conditions, require, steps } = Manifest::read(folder)?;
        let folder = folder.canonicalize().map_err(ComparisonError::io(folder))?;
        Ok(Self { name, about, conditions, folder, require, steps, builtin: None })
    }
}

/// The systems of a comparison: the built-in ones by their names, then the adapters in these folders.
///
/// # Errors
/// When a name is unknown or taken twice, or a manifest is wrong.
pub fn systems(names: &[String], adapters: &[PathBuf]) -> Result<Vec<System>, ComparisonError> {
    let builtin = |name: &String| {
        let unknown = || ComparisonError::UnknownSystem {
            name: name.clone(),
            known: Builtin::ALL.iter().map(|builtin| builtin.as_str()).collect(),
        };
        System::builtin(Builtin::named(name).ok_or_else(unknown)?)
    };
    let mut systems: Vec<System> = Vec::new();
    for system in names.iter().map(builtin).chain(adapters.iter().map(|folder| System::adapter(folder))) {
        let system = system?;
        if systems.iter().any(|earlier| earlier.name == system.name) {
            return Err(ComparisonError::Twice(system.name));
        }
        systems.push(system);
    }
    Ok(systems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_distinct() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let found = systems(&names(&["ezkl", "gkr-public"]), &[]).unwrap();
        assert_eq!(found.iter().map(|system| system.name.as_str()).collect::<Vec<_>>(), ["ezkl", "gkr-public"]);
        assert!(found[0].require.is_some() && found[1].require.is_none());
        let unknown = systems(&names(&["gkr"]), &[]).unwrap_err().to_string();
        assert!(unknown.contains("`gkr`") && unknown.contains("gkr-committed"), "{unknown}");
        assert!(matches!(systems(&names(&["ezkl", "ezkl"]), &[]), Err(ComparisonError::Twice(name)) if name == "ezkl"));
    }
}
