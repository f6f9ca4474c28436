//! Text tables and numbers for people.

use std::fmt::Write;

/// Columns of text, the numeric ones aligned to the right.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    title: String,
    right: bool,
}

impl Table {
    /// A table with these column titles; a title that begins with `>` is aligned to the right.
    pub(crate) fn new(titles: &[&str]) -> Self {
        let column = |title: &&str| match title.strip_prefix('>') {
            Some(title) => Column { title: title.to_owned(), right: true },
            None => Column { title: (*title).to_owned(), right: false },
        };
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells stay empty, cells beyond the columns are not shown.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// The table as text, each line ending in a newline.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(i, column)| self.width(i, column)).collect();
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title.as_str()).collect();
        let mut out = String::new();
        self.render_line(&mut out, &titles, &widths);
        let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        self.render_line(&mut out, &rules.iter().map(String::as_str).collect::<Vec<_>>(), &widths);
        for row in &self.rows {
            self.render_line(&mut out, &row.iter().map(String::as_str).collect::<Vec<_>>(), &widths);
        }
        out
    }

    fn width(&self, index: usize, column: &Column) -> usize {
        let cells = self.rows.iter().map(|row| row[index].chars().count());
        cells.chain([column.title.chars().count()]).max().unwrap_or(0)
    }

    fn render_line(&self, out: &mut String, cells: &[&str], widths: &[usize]) {
        let mut line = String::new();
        for ((cell, &width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let padding = " ".repeat(width - cell.chars().count());
            let (before, after) = if column.right { (padding.as_str(), "") } else { ("", padding.as_str()) };
            write!(line, "{before}{cell}{after}  ").expect("writing to a String cannot fail");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Milliseconds of a number of microseconds.
pub(crate) fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// `1.6 ms`, `843 ms`, `6.4 s`, `3 min 12 s` of milliseconds; nothing measured is `-`.
pub(crate) fn duration(ms: f64) -> String {
    match ms {
        ms if ms <= 0.0 => "-".to_owned(),
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 59_950.0 => format!("{:.1} s", ms / 1e3),
        _ => {
            let seconds = (ms / 1e3).round() as u64;
            format!("{} min {:02} s", seconds / 60, seconds % 60)
        }
    }
}

/// `312 B`, `17.1 kB`, `138 MB`, decimal units; nothing measured is `-`.
pub(crate) fn bytes(count: u64) -> String {
    let (unit, divisor) = match count {
        0 => return "-".to_owned(),
        1..1_000 => return format!("{count} B"),
        1_000..1_000_000 => ("kB", 1e3),
        1_000_000..1_000_000_000 => ("MB", 1e6),
        _ => ("GB", 1e9),
    };
    let scaled = count as f64 / divisor;
    if scaled < 99.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

/// `26,461`.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `[1, 1, 28, 28]`.
pub(crate) fn shape(extents: &[u64]) -> String {
    let extents: Vec<String> = extents.iter().map(u64::to_string).collect();
    format!("[{}]", extents.join(", "))
}

/// The first values of an answer, and how many more there are.
pub(crate) fn values(values: &[f64]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = values.iter().take(SHOWN).map(|value| format!("{value:.6}")).collect();
    let more = if values.len() > SHOWN {
        format!(", ... {} more", number((values.len() - SHOWN) as u64))
    } else {
        String::new()
    };
    format!("[{}{more}]", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let mut table = Table::new(&["shard", ">size"]);
        table.row(["first".to_owned(), "7".to_owned()]);
        table.row(["2".to_owned(), "1,234".to_owned()]);
        table.row(["short".to_owned()]);
        assert_eq!(table.render(), "shard   size\n-----  -----\nfirst      7\n2      1,234\nshort\n");
    }

    #[test]
    fn units_are_the_ones_people_read() {
        let times = [0.0, 0.04, 1.64, 9.96, 843.2, 999.7, 6_430.0, 59_990.0, 192_400.0];
        let shown = ["-", "0.0 ms", "1.6 ms", "10 ms", "843 ms", "1.0 s", "6.4 s", "1 min 00 s", "3 min 12 s"];
        assert_eq!(times.map(duration), shown);
        assert_eq!(
            [0, 312, 17_100, 138_000_000, 4_600_000_000].map(bytes),
            ["-", "312 B", "17.1 kB", "138 MB", "4.6 GB"]
        );
        assert_eq!([7, 711, 26_461, 1_191_936].map(number), ["7", "711", "26,461", "1,191,936"]);
        assert_eq!(shape(&[1, 28]), "[1, 28]");
    }

    #[test]
    fn long_answers_are_cut() {
        assert_eq!(values(&[0.5]), "[0.500000]");
        assert!(values(&[1.0; 12]).ends_with(", ... 2 more]"));
    }
}
