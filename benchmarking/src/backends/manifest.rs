//! What an adapter's folder says of itself: `adapter.toml`, as `adapters/README.md` describes it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::ComparisonError;

/// Name of the manifest in an adapter's folder.
pub const FILE: &str = "adapter.toml";

/// The content of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// In tables: lower case, digits and dashes.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// What is printed beside the figures.
    pub conditions: SystemConditions,
    /// What must be there.
    pub require: Option<Requirement>,
    /// The commands.
    pub steps: Commands,
}

/// Under which conditions a system's figures mean anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemConditions {
    /// How a computation becomes equations.
    pub arithmetisation: String,
    /// The field, and its extension where there is one.
    pub field: String,
    /// The commitment scheme.
    pub commitment: String,
    /// Bits of security, and what they mean.
    pub security: String,
    /// What must be trusted before the first proof.
    pub setup: String,
    /// Whether proofs hide what is not public.
    pub zero_knowledge: bool,
    /// How a proof is bound to the model's weights.
    pub weights: String,
    /// Where it runs.
    pub platforms: String,
    /// Which model files it reads.
    pub formats: String,
    /// What the time of `prove` contains beside the proof; empty where it is not stated.
    #[serde(default)]
    pub prove: String,
    /// What the time of `verify` contains: which checks, and what is read or started in it; empty where it is not stated.
    #[serde(default)]
    pub verify: String,
}

/// What must be there for a system to be tried.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Exits with 0 where it is.
    pub command: Vec<String>,
    /// What to do otherwise.
    pub remedy: String,
}

/// The commands of the steps: a program and its arguments each.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Runs once, and is not measured.
    pub install: Option<Vec<String>>,
    /// Setup of a model.
    pub prepare: Vec<String>,
    /// One proof.
    pub prove: Vec<String>,
    /// One verification.
    pub verify: Vec<String>,
}

impl Manifest {
    /// Reads the manifest in `folder`.
    ///
    /// # Errors
    /// When it is missing or not as described; the message names the file and the key.
    pub fn read(folder: &Path) -> Result<Self, ComparisonError> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).map_err(ComparisonError::io(&path))?;
        Self::parse(&text).map_err(|reason| ComparisonError::Manifest { path, reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if manifest.name.is_empty() || !manifest.name.chars().all(allowed) {
            let found = &manifest.name;
            return Err(format!("`name` is {found:?}, expected lower-case letters, digits and dashes"));
        }
        let steps = &manifest.steps;
        let commands = [
            ("steps.install", steps.install.as_ref()),
            ("steps.prepare", Some(&steps.prepare)),
            ("steps.prove", Some(&steps.prove)),
            ("steps.verify", Some(&steps.verify)),
            ("require.command", manifest.require.as_ref().map(|requirement| &requirement.command)),
        ];
        match commands.iter().find(|(_, command)| command.is_some_and(Vec::is_empty)) {
            Some((key, _)) => Err(format!("`{key}` is empty, expected a program and its arguments")),
            None => Ok(manifest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
name = "a-system"
about = "for tests"
[conditions]
arithmetisation = "a"
field = "f"
commitment = "c"
security = "s"
setup = "none"
zero_knowledge = false
weights = "public"
platforms = "all"
formats = "ONNX"
[require]
command = ["true"]
remedy = "nothing"
[steps]
prepare = ["sh", "prepare"]
prove = ["sh", "prove"]
verify = ["sh", "verify"]
"#;

    #[test]
    fn a_whole_manifest_is_read() {
        let manifest = Manifest::parse(WHOLE).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.steps.install), ("a-system", None));
        assert_eq!(manifest.steps.prove, ["sh", "prove"]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (from, to, key) in [
            ("field = \"f\"\n", "", "field"),
            ("field = \"f\"", "feild = \"f\"", "feild"),
            ("zero_knowledge = false", "zero_knowledge = \"no\"", "zero_knowledge"),
            ("name = \"a-system\"", "name = \"A system\"", "name"),
            ("prove = [\"sh\", \"prove\"]", "prove = []", "steps.prove"),
            ("command = [\"true\"]", "command = []", "require.command"),
        ] {
            let text = WHOLE.replace(from, to);
            assert_ne!(text, WHOLE);
            let reason = Manifest::parse(&text).unwrap_err();
            assert!(reason.contains(key), "{key}: {reason}");
        }
    }

    #[test]
    fn a_missing_manifest_is_named_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let error = Manifest::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("adapter.toml"), "{error}");
    }
}
