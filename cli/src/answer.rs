//! Delivered answers in files: what `--output` compares with.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use shardproof_common::files;
use shardproof_common::format::read_capped;

/// Largest answer file that is read, bytes.
const MAX_BYTES: u64 = 1 << 30;

/// Reads an answer: `{"outputs": [...]}` as `infer --json` and `demo --json` print it, `{"output_data": [[...]]}`, or a
/// bare array. Nested arrays are read row-major.
///
/// # Errors
/// When the file cannot be read or holds anything but numbers.
pub(crate) fn read(path: &Path) -> Result<Vec<f64>> {
    let bytes = read_capped(path, MAX_BYTES).context("the answer")?;
    parse(&bytes).with_context(|| format!("{}: not an answer", path.display()))
}

/// The answer as a file that [`read`] takes; floats are written with all their digits.
pub(crate) fn write(path: &Path, outputs: &[f64]) -> Result<()> {
    let text = serde_json::json!({ "outputs": outputs }).to_string() + "\n";
    files::write_whole(path, text.as_bytes()).with_context(|| format!("{}: cannot write the answer", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Vec<f64>> {
    let value: Value = serde_json::from_slice(bytes).context("expected JSON")?;
    let array = match &value {
        Value::Object(object) => object.get("outputs").or_else(|| object.get("output_data")),
        other => Some(other),
    };
    let mut numbers = Vec::new();
    flatten(array.context("expected \"outputs\" or \"output_data\"")?, &mut numbers)?;
    Ok(numbers)
}

// The parser bounds the depth of what reaches this.
fn flatten(value: &Value, numbers: &mut Vec<f64>) -> Result<()> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| flatten(value, numbers)),
        Value::Number(number) => {
            numbers.push(number.as_f64().context("a number out of range")?);
            Ok(())
        }
        other => bail!("expected numbers, found {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_the_same_numbers() {
        for text in ["[0.1, -2]", r#"{"outputs": [0.1, -2]}"#, r#"{"output_data": [[0.1], [-2.0]]}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap(), [0.1, -2.0], "{text}");
        }
        assert!(parse(b"{}").is_err());
        assert!(parse(b"[\"x\"]").is_err());
        assert!(parse(b"[1").is_err());
    }

    #[test]
    fn what_is_written_is_read_exactly() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answer.json");
        let outputs = [0.1, 1.0 / 3.0, -1e-30, 123_456_789.125];
        write(&path, &outputs).unwrap();
        assert_eq!(read(&path).unwrap(), outputs);
    }
}
