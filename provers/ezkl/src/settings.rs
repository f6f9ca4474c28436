//! ezkl's `settings.json`: its one canonical text, and the parts that this backend looks at.
//!
//! ezkl writes a time stamp and hash maps in random order into its settings. The canonical text has sorted keys, sorted
//! lists where order means nothing, and no time stamp; the same model and options then give the same settings and the
//! same keys, so that whoever has the model can recompute them.

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// Largest settings that are read, in bytes.
pub(crate) const MAX_SETTINGS_BYTES: usize = 4 << 20;

/// The parts of ezkl's settings that this backend looks at; names are ezkl's.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Settings {
    /// What the circuit was made with.
    pub run_args: RunArgs,
    /// Rows that the model's operators take, before blinding.
    pub num_rows: u64,
    /// Fixed values.
    pub total_const_size: u64,
    /// Shapes of the tensors whose integers are public instances.
    pub model_instance_shapes: Vec<Vec<u64>>,
    /// `s` in `real = q / 2^s` of each input.
    pub model_input_scales: Vec<i32>,
    /// `s` in `real = q / 2^s` of each output.
    pub model_output_scales: Vec<i32>,
    /// What hashes and commitments take.
    pub module_sizes: ModuleSizes,
    /// The tables of non-linear functions.
    pub required_lookups: Vec<Value>,
    /// Whether the prover checks its own work.
    pub check_mode: String,
    /// Version of ezkl.
    pub version: String,
    /// Rows of randomness; ezkl's default where nothing is given.
    pub num_blinding_factors: Option<u64>,
}

/// See [`Settings::run_args`].
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct RunArgs {
    /// Scale of the inputs.
    pub input_scale: i32,
    /// Scale of the weights.
    pub param_scale: i32,
    /// Lowest and highest input of the lookup tables.
    pub lookup_range: (i64, i64),
    /// log2 of rows.
    pub logrows: u32,
    /// How the inputs enter.
    pub input_visibility: Visibility,
    /// How the outputs leave.
    pub output_visibility: Visibility,
    /// How the weights enter.
    pub param_visibility: Visibility,
    /// Whether the prover checks its own work.
    pub check_mode: String,
    /// Base of the digits in which range checks split a value.
    pub decomp_base: u64,
    /// Number of those digits.
    pub decomp_legs: u64,
    /// Leaves inputs and outputs without range checks.
    pub ignore_range_check_inputs_outputs: bool,
}

/// How values enter a circuit.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub enum Visibility {
    /// As public instances.
    Public,
    /// Unseen.
    Private,
    /// Baked into the verifying key.
    Fixed,
    /// By a KZG commitment that leads the proof.
    KZGCommit,
    /// By a Poseidon hash.
    Hashed {
        /// Whether the hash is a public instance.
        hash_is_public: bool,
        /// Which operators receive the preimage, where the hash is not public.
        outlets: Vec<u64>,
    },
}

/// See [`Settings::module_sizes`].
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct ModuleSizes {
    /// Length of each tensor that is committed to.
    pub polycommit: Vec<u64>,
    /// Rows of the hash, and how many hashes are public.
    pub poseidon: (u64, Vec<u64>),
}

/// What can be wrong with settings as such.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// Larger than any settings.
    #[error("the settings have {found} bytes, more than the {MAX_SETTINGS_BYTES} that settings may have")]
    TooLarge {
        /// Bytes found.
        found: usize,
    },
    /// Not ezkl's settings.
    #[error("not ezkl's settings: {0}")]
    Json(#[from] serde_json::Error),
    /// The same content in another text.
    #[error("the settings are not in their canonical form")]
    NotCanonical,
}

impl Settings {
    /// Reads settings in any order.
    ///
    /// # Errors
    /// When they are too large or not ezkl's.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        if text.len() > MAX_SETTINGS_BYTES {
            return Err(SettingsError::TooLarge { found: text.len() });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Reads settings that must be in their canonical text.
    ///
    /// # Errors
    /// As [`Self::parse`], and when the text is another one.
    pub fn parse_canonical(text: &str) -> Result<Self, SettingsError> {
        let settings = Self::parse(text)?;
        if canonical(serde_json::from_str(text)?) == text { Ok(settings) } else { Err(SettingsError::NotCanonical) }
    }

    /// Whether the circuit has tables of non-linear functions.
    pub fn has_lookups(&self) -> bool {
        !self.required_lookups.is_empty()
    }
}

impl Visibility {
    /// The hash as a public instance.
    pub fn hashed() -> Self {
        Self::Hashed { hash_is_public: true, outlets: Vec::new() }
    }
}

/// The canonical text of ezkl's settings.
pub(crate) fn canonical(mut settings: Value) -> String {
    if let Some(fields) = settings.as_object_mut() {
        fields.remove("timestamp");
        for unordered in ["required_range_checks", "required_lookups"] {
            if let Some(Value::Array(items)) = fields.get_mut(unordered) {
                items.sort_by_cached_key(|item| sorted(item.clone()).to_string());
            }
        }
    }
    sorted(settings).to_string()
}

/// The same value with the keys of every object in order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().map(|(key, value)| (key, sorted(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_text_has_neither_time_nor_order() {
        let one = r#"{"b":{"y":1,"x":[{"d":1,"c":2}]},"timestamp":5,"required_range_checks":[[0,127],[-1,1]],"e":2.220446049250313e-16}"#;
        let other = r#"{"required_range_checks":[[-1,1],[0,127]],"e":2.220446049250313e-16,"b":{"x":[{"c":2,"d":1}],"y":1},"timestamp":6}"#;
        let text = canonical(serde_json::from_str(one).unwrap());
        assert_eq!(text, canonical(serde_json::from_str(other).unwrap()));
        assert_eq!(text, canonical(serde_json::from_str(&text).unwrap()));
        assert_eq!(
            text,
            r#"{"b":{"x":[{"c":2,"d":1}],"y":1},"e":2.220446049250313e-16,"required_range_checks":[[-1,1],[0,127]]}"#
        );
    }
}
