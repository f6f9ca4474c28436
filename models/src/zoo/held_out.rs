//! The images that no trained model of the zoo has seen: what its accuracy is measured on.
//!
//! The images are stored as they were scanned, 8x8 pixels from 0 to 16, and resampled to what each model takes exactly as
//! `zoo_data.py` did for training: the same double precision sums in the same order, rounded to single precision once.

use shardproof_common::tensor::FloatTensor;

use crate::error::InputError;
use crate::npy;

static DIGITS: &[u8] = include_bytes!("../../zoo/held-out/digits.npy");
static CLASSES: &[u8] = include_bytes!("../../zoo/held-out/classes.npy");
static TESTING: &[u8] = include_bytes!("../../zoo/held-out/testing.npy");
/// Pixels along one side of a stored image, and the value of full ink.
const SIDE: usize = 8;
const INK: f64 = 16.0;

/// Inputs of one model and what it should answer.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// `[count, *input shape]`.
    pub inputs: FloatTensor,
    /// For each input, whether the digit is odd, which a positive output means.
    pub odd: Vec<bool>,
}

/// The held-out digits as the model of this name takes them; nothing for a model that was not trained on them.
///
/// # Errors
/// When the files that are part of the program are not what they should be.
pub fn held_out(name: &str) -> Result<Option<HeldOut>, InputError> {
    let inputs = match name {
        "mlp" => resampled(&area_average(5))?,
        "cnn" | "mlp2" => resampled(&bilinear(28))?,
        "testing" => npy::read(TESTING)?,
        _ => return Ok(None),
    };
    let odd: Vec<bool> = npy::read(CLASSES)?.values.iter().map(|class| class % 2.0 == 1.0).collect();
    if inputs.shape.first() != Some(&(odd.len() as u64)) {
        let reason = format!("{} held-out classes for inputs of shape {:?}", odd.len(), inputs.shape);
        return Err(InputError::Npy { reason });
    }
    Ok(Some(HeldOut { inputs, odd }))
}

/// A matrix `[target, SIDE]` that resamples rows and columns.
type Resampling = Vec<[f64; SIDE]>;

/// Each target cell is the mean of the interval that it covers, fractions included.
fn area_average(target: usize) -> Resampling {
    let step = SIDE as f64 / target as f64;
    let edge = |index: usize| if index == target { SIDE as f64 } else { index as f64 * step };
    let cell = |row: usize, column: usize| {
        let overlap = edge(row + 1).min(column as f64 + 1.0) - edge(row).max(column as f64);
        overlap.max(0.0) * (target as f64 / SIDE as f64)
    };
    (0..target).map(|row| std::array::from_fn(|column| cell(row, column))).collect()
}

/// Linear interpolation between the centres of pixels, clamped at the borders.
fn bilinear(target: usize) -> Resampling {
    let centre = |row: usize| {
        let centre = (row as f64 + 0.5) * SIDE as f64 / target as f64 - 0.5;
        centre.clamp(0.0, SIDE as f64 - 1.0)
    };
    let weight = |row: usize, column: usize| (1.0 - (centre(row) - column as f64).abs()).max(0.0);
    (0..target).map(|row| std::array::from_fn(|column| weight(row, column))).collect()
}

/// All digits, `[count, 1, 1, target, target]`: count, then the model's batch and channel.
fn resampled(resampling: &Resampling) -> Result<FloatTensor, InputError> {
    let digits = npy::read(DIGITS)?;
    let side = SIDE as u64;
    let [count, height, width] = digits.shape[..] else {
        return Err(InputError::Npy { reason: format!("held-out digits of shape {:?}", digits.shape) });
    };
    if (height, width) != (side, side) {
        return Err(InputError::Npy { reason: format!("held-out digits of {height} x {width} pixels") });
    }
    let images = digits.values.chunks_exact(SIDE * SIDE);
    let values = images.flat_map(|image| resample(image, resampling)).collect();
    let target = resampling.len() as u64;
    Ok(FloatTensor { shape: vec![count, 1, 1, target, target], values })
}

fn resample(image: &[f32], resampling: &Resampling) -> Vec<f32> {
    let mut values = Vec::with_capacity(resampling.len() * resampling.len());
    for down in resampling {
        for across in resampling {
            let mut sum = 0.0;
            for (row, line) in image.chunks_exact(SIDE).enumerate() {
                for (column, &pixel) in line.iter().enumerate() {
                    sum += down[row] * (f64::from(pixel) / INK) * across[column];
                }
            }
            values.push(sum as f32);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo;

    /// Where the shipped samples lie among the held-out images: the first of each digit from 0.
    const SAMPLES: [usize; 8] = [8, 4, 11, 1, 10, 0, 38, 16];

    #[test]
    fn the_shipped_samples_are_among_them_bit_for_bit() {
        for (name, samples) in [("mlp", 8), ("cnn", 8), ("mlp2", 8), ("testing", 4)] {
            let held_out = held_out(name).expect("the files are whole").expect("it was trained on digits");
            let shipped = npy::read(zoo::find(name).expect("it is in the zoo").samples).expect("they can be read");
            assert_eq!((shipped.shape[0], held_out.inputs.shape[0]), (samples, 360), "{name}");
            assert_eq!(held_out.inputs.shape[1..], shipped.shape[1..], "{name}");
            let elements = held_out.inputs.values.len() / 360;
            for (digit, expected) in shipped.values.chunks_exact(elements).enumerate() {
                let index = SAMPLES[digit];
                let found = &held_out.inputs.values[index * elements..(index + 1) * elements];
                assert_eq!(
                    found.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    expected.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    "{name} {digit}"
                );
                assert_eq!(held_out.odd[index], digit % 2 == 1);
            }
            assert_eq!(held_out.odd.iter().filter(|&&odd| odd).count(), 174);
        }
    }

    #[test]
    fn untrained_models_have_none() {
        for name in ["attention", "dense4m", "other"] {
            assert_eq!(held_out(name).expect("nothing is read"), None, "{name}");
        }
    }
}
