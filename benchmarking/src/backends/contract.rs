//! What a step of a system prints and leaves behind, as `adapters/README.md` describes it, read without trust.

use std::fs;
use std::path::{Component, Path};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::Stop;

/// Files of the directory that all steps share.
pub mod file {
    /// The model.
    pub const MODEL: &str = "model.onnx";
    /// Calibration samples.
    pub const SAMPLES: &str = "samples.json";
    /// The input to prove.
    pub const INPUT: &str = "input.json";
    /// What is claimed.
    pub const CLAIM: &str = "claim.json";
}

/// Environment variables of a step.
pub mod variable {
    /// The directory that all steps share.
    pub const WORK: &str = "BENCH_WORK";
    /// A directory that outlives the benchmark.
    pub const CACHE: &str = "BENCH_CACHE";
    /// Threads that a step may use.
    pub const THREADS: &str = "BENCH_THREADS";
    /// What quantisation should aim at: `resources` or `accuracy`.
    pub const TARGET: &str = "BENCH_TARGET";
}

/// What every step prints, with `R` of its own beside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said<R> {
    /// Peak memory as the step itself knows it, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// The rest.
    #[serde(flatten)]
    pub result: R,
}

/// What `prepare` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// Everything that happens once for a model, ms.
    pub setup_ms: f64,
    /// Files of the proving key.
    pub proving_key: Vec<String>,
    /// Files of the verifying key.
    pub verifying_key: Vec<String>,
}

/// What `prove` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proven {
    /// Running the model in the system's integers, ms.
    pub witness_ms: f64,
    /// The proof, ms.
    pub prove_ms: f64,
    /// Files of the witness.
    pub witness: Vec<String>,
    /// Files of the proof.
    pub proof: Vec<String>,
    /// The model's answer as the system computed it: dequantised, row-major, outputs in order.
    pub output: Vec<f64>,
}

/// What `verify` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// The verification, ms.
    pub verify_ms: f64,
    /// The verdict.
    pub accepted: bool,
}

/// The content of [`file::CLAIM`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Public values of the statement as decimal strings, those of the model's input first.
    pub public: Vec<String>,
    /// How many of them are the input's.
    pub inputs: usize,
}

/// What a step that measures prints.
pub trait Answer: DeserializeOwned {
    /// What the line looks like, for messages.
    const FORM: &'static str;

    /// Its times, which must be finite and not negative.
    fn times(&self) -> Vec<f64>;
}

impl Answer for Prepared {
    const FORM: &'static str = r#"{"setup_ms", "proving_key", "verifying_key"}"#;

    fn times(&self) -> Vec<f64> {
        vec![self.setup_ms]
    }
}

impl Answer for Proven {
    const FORM: &'static str = r#"{"witness_ms", "prove_ms", "witness", "proof", "output"}"#;

    fn times(&self) -> Vec<f64> {
        vec![self.witness_ms, self.prove_ms]
    }
}

impl Answer for Verified {
    const FORM: &'static str = r#"{"verify_ms", "accepted"}"#;

    fn times(&self) -> Vec<f64> {
        vec![self.verify_ms]
    }
}

/// Reads the last line of what a step printed.
///
/// # Errors
/// [`Stop::Unsupported`] when it says so, [`Stop::Failed`] when it is not as described.
pub fn parse<A: Answer>(step: &str, line: &str) -> Result<Said<A>, Stop> {
    let wrong = |reason: String| {
        let shown: String = line.chars().take(200).collect();
        Stop::Failed(format!("{step} printed {shown:?} as its last line, expected {}: {reason}", A::FORM))
    };
    let value: Value = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
    if let Some(what) = value.get("unsupported") {
        let what = what.as_str().map_or_else(|| what.to_string(), str::to_owned);
        return Err(Stop::Unsupported(what));
    }
    let said: Said<A> = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
    match said.result.times().iter().find(|time| !time.is_finite() || **time < 0.0) {
        Some(time) => Err(wrong(format!("a time of {time} ms"))),
        None => Ok(said),
    }
}

/// Bytes of files in the directory `work` together.
///
/// # Errors
/// When a name leads out of the directory, or a file is not there.
pub fn size_of(work: &Path, names: &[String]) -> Result<u64, Stop> {
    let mut total = 0u64;
    for name in names {
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Stop::Failed(format!("the file name {name:?} leads out of the step's directory")));
        }
        let data = fs::metadata(work.join(name)).map_err(|error| Stop::Failed(format!("the file {name}: {error}")))?;
        total += data.len();
    }
    Ok(total)
}

impl Claim {
    /// Reads the claim that `prove` left in `work`.
    ///
    /// # Errors
    /// When there is none, or it has fewer values than inputs.
    pub fn read(work: &Path) -> Result<Self, Stop> {
        let wrong = |reason: String| Stop::Failed(format!("{}: {reason}", file::CLAIM));
        let text = fs::read(work.join(file::CLAIM)).map_err(|error| wrong(error.to_string()))?;
        let claim: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        match claim.inputs {
            0 => Err(wrong("`inputs` is 0: there is nothing that a control could change".to_owned())),
            inputs if inputs > claim.public.len() => {
                Err(wrong(format!("`inputs` is {inputs}, but there are {} public values", claim.public.len())))
            }
            _ => Ok(claim),
        }
    }

    /// Writes the claim into `work`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, work: &Path) -> Result<(), Stop> {
        let wrong = |reason: String| Stop::Failed(format!("{}: {reason}", file::CLAIM));
        let text = serde_json::to_vec(self).map_err(|error| wrong(error.to_string()))?;
        fs::write(work.join(file::CLAIM), text).map_err(|error| wrong(error.to_string()))
    }

    /// The claim with the input value in the middle one larger: another statement than the one proven, and a false one
    /// wherever the model's integers depend on that value.
    ///
    /// # Errors
    /// When that value is no decimal number.
    pub fn altered(&self) -> Result<Self, Stop> {
        let mut altered = self.clone();
        let index = self.inputs / 2;
        let value = &mut altered.public[index];
        *value = successor(value).ok_or_else(|| {
            Stop::Failed(format!("{}: public value {index} is {value:?}, no decimal number", file::CLAIM))
        })?;
        Ok(altered)
    }
}

/// The number after a decimal one of any length.
fn successor(decimal: &str) -> Option<String> {
    let (negative, digits) = decimal.strip_prefix('-').map_or((false, decimal), |digits| (true, digits));
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let mut digits = digits.as_bytes().to_vec();
    // Away from zero a digit that overflows carries, towards zero one that underflows borrows.
    let (last, wrapped) = if negative { (b'0', b'9') } else { (b'9', b'0') };
    let mut place = digits.len();
    while place > 0 && digits[place - 1] == last {
        place -= 1;
        digits[place] = wrapped;
    }
    match (place, negative) {
        // Nothing but zeros: minus zero is zero.
        (0, true) => return Some("1".to_owned()),
        (0, false) => digits.insert(0, b'1'),
        (place, true) => digits[place - 1] -= 1,
        (place, false) => digits[place - 1] += 1,
    }
    let text = String::from_utf8(digits).ok()?;
    let significant = text.trim_start_matches('0');
    Some(match (significant, negative) {
        ("", _) => "0".to_owned(),
        (value, true) => format!("-{value}"),
        (value, false) => value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors_of_decimals_of_any_length() {
        for (value, next) in [
            ("0", "1"),
            ("-1", "0"),
            ("-3", "-2"),
            ("-0", "1"),
            ("-10", "-9"),
            ("-1000", "-999"),
            ("199", "200"),
            ("999", "1000"),
            ("007", "8"),
            (
                "21888242871839275222246405745257275088548364400416034343698204186575808495616",
                "21888242871839275222246405745257275088548364400416034343698204186575808495617",
            ),
        ] {
            assert_eq!(successor(value).as_deref(), Some(next), "{value}");
        }
        for wrong in ["", "-", "1.5", "0x1", "+1", "--1"] {
            assert_eq!(successor(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_control_differs_in_one_input_value() {
        let claim = Claim { public: ["4", "-7", "9"].map(str::to_owned).to_vec(), inputs: 2 };
        assert_eq!(claim.altered().unwrap().public, ["4", "-6", "9"]);
        let directory = tempfile::tempdir().unwrap();
        claim.write(directory.path()).unwrap();
        assert_eq!(Claim::read(directory.path()).unwrap(), claim);
        for inputs in [0, 4] {
            Claim { inputs, ..claim.clone() }.write(directory.path()).unwrap();
            let error = Claim::read(directory.path()).unwrap_err().to_string();
            assert!(error.contains("`inputs`"), "{error}");
        }
    }

    #[test]
    fn lines_are_read_or_refused_with_what_was_expected() {
        let said: Said<Verified> = parse("verify", r#"{"verify_ms": 1.5, "accepted": true, "peak_bytes": 7}"#).unwrap();
        assert_eq!((said.result.accepted, said.peak_bytes), (true, Some(7)));
        let said: Said<Verified> = parse("verify", r#"{"verify_ms": 0, "accepted": false}"#).unwrap();
        assert_eq!((said.result.accepted, said.peak_bytes), (false, None));
        let stop = parse::<Prepared>("prepare", r#"{"unsupported": "operator Conv (node conv1)"}"#).unwrap_err();
        assert_eq!(stop, Stop::Unsupported("operator Conv (node conv1)".to_owned()));
        for line in ["", "done", "{}", r#"{"verify_ms": -1, "accepted": true}"#, r#"{"verify_ms": 1, "accepted": 1}"#] {
            let stop = parse::<Verified>("verify", line).unwrap_err().to_string();
            assert!(stop.starts_with("failed: verify printed") && stop.contains("verify_ms"), "{stop}");
        }
    }

    #[test]
    fn sizes_are_of_files_within_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("keys")).unwrap();
        fs::write(directory.path().join("keys/a"), [0; 5]).unwrap();
        fs::write(directory.path().join("b"), [0; 3]).unwrap();
        let sizes =
            |names: &[&str]| size_of(directory.path(), &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(sizes(&["keys/a", "b"]), Ok(8));
        for name in ["../b", "/etc/passwd", "c"] {
            assert!(sizes(&[name]).is_err(), "{name}");
        }
    }
}
