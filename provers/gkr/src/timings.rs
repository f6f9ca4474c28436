//! Where a proof's time went.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// One row for each step, in order.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    rows: Vec<(&'static str, String, Duration)>,
}

impl Timings {
    /// Runs `work` and notes its time under a step and, where there is one, the layer that it is about.
    pub fn time<T>(&mut self, step: &'static str, layer: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.rows.push((step, layer.to_owned(), start.elapsed()));
        result
    }

    /// Step, layer and time of each row.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, &str, Duration)> {
        self.rows.iter().map(|(step, layer, time)| (*step, layer.as_str(), *time))
    }

    /// The rows as CSV with a header; times in milliseconds.
    pub fn to_csv(&self) -> String {
        let mut csv = "step,layer,ms\n".to_owned();
        for (step, layer, time) in self.rows() {
            let layer = if layer.contains([',', '"', '\n']) {
                format!("\"{}\"", layer.replace('"', "\"\""))
            } else {
                layer.to_owned()
            };
            writeln!(csv, "{step},{layer},{:.3}", time.as_secs_f64() * 1e3).expect("a string takes all text");
        }
        csv
    }
}
