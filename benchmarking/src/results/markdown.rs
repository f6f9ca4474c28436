//! Tables in Markdown.

use crate::report;

/// A table whose first column is text and whose others are figures.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    aligned(heading, rows, "--:")
}

/// A table of text.
pub(super) fn text_table(heading: &[&str], rows: &[Vec<String>]) -> String {
    aligned(heading, rows, "---")
}

fn aligned(heading: &[&str], rows: &[Vec<String>], others: &str) -> String {
    let cells = |cells: &[String]| {
        let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        format!("| {} |\n", escaped.join(" | "))
    };
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let rule: Vec<&str> = (0..heading.len()).map(|column| if column == 0 { "---" } else { others }).collect();
    let rows: String = rows.iter().map(|row| cells(row)).collect();
    format!("{}|{}|\n{rows}", cells(&heading), rule.join("|"))
}

/// Seconds.
pub(super) fn time(seconds: Option<f64>) -> String {
    seconds.map_or_else(nothing, report::time)
}

/// Milliseconds.
pub(super) fn ms(ms: Option<f64>) -> String {
    time(ms.map(|ms| ms / 1e3))
}

/// Bytes.
pub(super) fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(nothing, report::size)
}

/// A percentage with as many digits as it needs.
pub(super) fn percent(value: Option<f64>) -> String {
    value.map_or_else(nothing, |value| match value.abs() {
        v if v == 0.0 || v >= 0.1 => format!("{value:.1} %"),
        _ => format!("{value:.4} %"),
    })
}

/// A small number.
pub(super) fn scientific(value: Option<f64>) -> String {
    value.map_or_else(nothing, |value| if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") })
}

fn nothing() -> String {
    "-".to_owned()
}

/// `26,461`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for (index, digit) in digits[first..].chars().enumerate() {
        if index % 3 == 0 && !text.is_empty() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_figures_are_written() {
        let rows = vec![vec!["a|b".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["what", "n"], &rows), "| what | n |\n|---|--:|\n| a\\|b | 1 |\n");
        assert_eq!([1, 711, 26_461, 4_012_003].map(count), ["1", "711", "26,461", "4,012,003"]);
        assert_eq!(
            (percent(Some(0.0123)), percent(Some(99.96)), percent(None)),
            ("0.0123 %".into(), "100.0 %".into(), "-".into())
        );
        assert_eq!((scientific(Some(2.04e-4)), scientific(Some(0.0))), ("2.0e-4".to_owned(), "0".to_owned()));
    }
}
