//! How far a system's answers are from the float model's.

use serde::Serialize;

/// Over all inputs that were proven.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Inputs.
    pub inputs: usize,
    /// Greatest difference of any value.
    pub max_abs_error: f64,
    /// Root of the mean of squared differences over the range of the float answers; nothing where that is a single value.
    pub relative_rmse: Option<f64>,
    /// Share of the inputs whose largest value is at the same place; nothing where there is but one value.
    pub class_agreement: Option<f64>,
}

impl Accuracy {
    /// Of pairs of the float answer and the system's, which have as many values; nothing of no pairs.
    pub fn of(pairs: &[(&[f64], &[f64])]) -> Option<Self> {
        let differences = || pairs.iter().flat_map(|(expected, found)| expected.iter().zip(*found).map(|(e, f)| e - f));
        let count = differences().count();
        if count == 0 {
            return None;
        }
        let expected = || pairs.iter().flat_map(|(expected, _)| expected.iter().copied());
        let range = expected().fold(f64::MIN, f64::max) - expected().fold(f64::MAX, f64::min);
        let rmse = (differences().map(|difference| difference * difference).sum::<f64>() / count as f64).sqrt();
        let classes = pairs.iter().filter(|(expected, found)| largest(expected) == largest(found)).count();
        let has_classes = pairs.iter().all(|(expected, _)| expected.len() > 1);
        Some(Self {
            inputs: pairs.len(),
            max_abs_error: differences().map(f64::abs).fold(0.0, f64::max),
            relative_rmse: (range > 0.0).then(|| rmse / range),
            class_agreement: has_classes.then(|| classes as f64 / pairs.len() as f64),
        })
    }
}

/// Place of the first largest value.
fn largest(values: &[f64]) -> Option<usize> {
    let first_largest = |best: Option<usize>, place: usize| match best {
        Some(best) if values[best] >= values[place] => Some(best),
        _ => Some(place),
    };
    (0..values.len()).fold(None, first_largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_answers_range() {
        let accuracy = Accuracy::of(&[(&[0.0, 4.0], &[0.0, 3.0]), (&[2.0, 0.0], &[1.0, 1.5])]).unwrap();
        assert_eq!((accuracy.inputs, accuracy.max_abs_error), (2, 1.5));
        let rmse = ((1.0 + 1.0 + 2.25) / 4.0_f64).sqrt();
        assert_eq!(accuracy.relative_rmse, Some(rmse / 4.0));
        assert_eq!(accuracy.class_agreement, Some(0.5));
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        assert_eq!(Accuracy::of(&[]), None);
        let one = Accuracy::of(&[(&[2.0], &[2.5])]).unwrap();
        assert_eq!((one.relative_rmse, one.class_agreement), (None, None));
    }
}
