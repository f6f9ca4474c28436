//! The quantisation error that ezkl reports when it calibrates.

use serde::Serialize;

/// How far the integers' outputs were from the floats' over the calibration samples, in the outputs' own unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Fidelity {
    /// Mean of the signed error.
    pub mean_error: f64,
    /// Median of the signed error.
    pub median_error: f64,
    /// Mean of the error's magnitude.
    pub mean_abs_error: f64,
    /// Median of the error's magnitude.
    pub median_abs_error: f64,
    /// Largest magnitude of the error.
    pub max_abs_error: f64,
    /// Mean of the error's square.
    pub mean_squared_error: f64,
}

impl Fidelity {
    /// Reads the last table in what ezkl wrote; nothing where there is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let cells = |line: &str| -> Vec<String> {
            line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let rows: Vec<Vec<String>> =
            text.lines().filter(|line| line.trim_start().starts_with('|')).map(cells).collect();
        let header = rows.iter().rposition(|row| row.iter().any(|cell| cell == "mean_error"))?;
        let values = rows.get(header + 1)?;
        let value = |name: &str| -> Option<f64> {
            let column = rows[header].iter().position(|cell| cell == name)?;
            values.get(column)?.parse().ok()
        };
        Some(Self {
            mean_error: value("mean_error")?,
            median_error: value("median_error")?,
            mean_abs_error: value("mean_abs_error")?,
            median_abs_error: value("median_abs_error")?,
            max_abs_error: value("max_abs_error")?,
            mean_squared_error: value("mean_squared_error")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "
 <---- Numerical Fidelity Report (input_scale: 13, param_scale: 13, scale_input_multiplier: 1) ---->
+------------+--------------+-----------+-----------+----------------+------------------+---------------+---------------+--------------------+
| mean_error | median_error | max_error | min_error | mean_abs_error | median_abs_error | max_abs_error | min_abs_error | mean_squared_error |
+------------+--------------+-----------+-----------+----------------+------------------+---------------+---------------+--------------------+
| -0.000559  | 0            | 0.0002    | -0.003    | 0.0007         | 0.0001           | 0.0033        | 0             | 0.0000016          |
+------------+--------------+-----------+-----------+----------------+------------------+---------------+---------------+--------------------+
";

    #[test]
    fn the_table_is_read_by_its_header() {
        let fidelity = Fidelity::parse(REPORT).unwrap();
        assert_eq!((fidelity.mean_error, fidelity.max_abs_error), (-0.000559, 0.0033));
        assert_eq!(fidelity.mean_squared_error, 0.0000016);
        assert_eq!(Fidelity::parse("nothing of the kind"), None);
        assert_eq!(Fidelity::parse("| mean_error |"), None);
    }
}
