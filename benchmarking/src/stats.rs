//! Few numbers for many measurements.

use serde::Serialize;

/// Least, middle and greatest of a set of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many measurements there are.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// Of `values`; nothing of no values, or of any that is not finite.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        if sorted.iter().any(|value| !value.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Some(Self { count: sorted.len(), min, median, max })
    }
}

/// Measurements in order, to be asked for quantiles.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles(Vec<f64>);

impl Quantiles {
    /// Of `values`; nothing of no values, or of any that is not finite.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        if sorted.is_empty() || sorted.iter().any(|value| !value.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        Some(Self(sorted))
    }

    /// The least measurement that the share `share` (0 to 1) of all does not exceed.
    pub fn at(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measurements() {
        let quantiles = Quantiles::of((1..=200).rev().map(f64::from)).unwrap();
        assert_eq!([0.0, 0.5, 0.99, 0.991, 1.0].map(|share| quantiles.at(share)), [1.0, 100.0, 198.0, 199.0, 200.0]);
        assert_eq!(Quantiles::of([7.0]).unwrap().at(0.01), 7.0);
        assert!(Quantiles::of([]).is_none() && Quantiles::of([f64::NAN]).is_none());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Summary::of([3.0, 1.0, 10.0]).unwrap();
        assert_eq!((odd.count, odd.min, odd.median, odd.max), (3, 1.0, 3.0, 10.0));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
    }

    #[test]
    fn what_was_not_measured_is_no_number() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([1.0, f64::NAN]), None);
    }
}
