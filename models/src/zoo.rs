//! The models that ship with shardproof, each with a few real samples, and the benchmark models, made when they are asked
//! for.

mod generated;
mod held_out;
mod transformer;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub use held_out::{HeldOut, held_out};

/// One model of the zoo.
#[derive(Debug)]
pub struct ZooModel {
    /// Its name on command lines.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Bytes of the ONNX file.
    pub onnx: &'static [u8],
    /// Bytes of a `.npy` file, f32, `[count, *input shape]`; empty for benchmark models, which have no real samples.
    pub samples: &'static [u8],
}

macro_rules! zoo {
    ($($name:literal: $about:literal),+ $(,)?) => {
        static MODELS: &[ZooModel] = &[$(ZooModel {
            name: $name,
            about: $about,
            onnx: include_bytes!(concat!("../zoo/", $name, ".onnx")),
            samples: include_bytes!(concat!("../zoo/samples/", $name, ".npy")),
        }),+];
    };
}

zoo! {
    "mlp": "six linear layers with ReLU on 5x5 digits, 711 parameters",
    "cnn": "two convolutions and three linear layers on 28x28 digits, 26461 parameters",
    "mlp2": "six linear layers with sigmoid and ReLU on 28x28 digits, 548421 parameters",
    "testing": "twelve linear layers on ten features of digits, 4441 parameters",
    "attention": "twelve transformer blocks on sequences of 32, 1191936 parameters",
}

/// The model of this name: one that ships with shardproof, or a benchmark model, which is made on first use and kept.
pub fn find(name: &str) -> Option<&'static ZooModel> {
    static MADE: Mutex<Option<HashMap<String, &'static ZooModel>>> = Mutex::new(None);
    if let Some(model) = MODELS.iter().find(|model| model.name == name) {
        return Some(model);
    }
    let recipe = generated::Recipe::named(name)?;
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = made.get_or_insert_default();
    let make = || {
        let (name, about) = (String::leak(name.to_owned()), String::leak(recipe.about()));
        // Kept for the life of the program, as the models that are part of it are.
        &*Box::leak(Box::new(ZooModel { name, about, onnx: Vec::leak(recipe.onnx()), samples: &[] }))
    };
    Some(kept.entry(name.to_owned()).or_insert_with(make))
}

/// Whether a benchmark model of this name can be made, without making it.
pub fn is_generated(name: &str) -> bool {
    generated::Recipe::named(name).is_some()
}

/// The models that ship with shardproof.
pub fn models() -> &'static [ZooModel] {
    MODELS
}

/// The names of the models that ship with shardproof.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|model| model.name)
}

/// The names of the benchmark models, whose weights are drawn from a seed; `mlp:DEPTH,WIDTH` and `cnn:SHAPE,WIDTH` stand for
/// families.
pub fn benchmark_names() -> impl Iterator<Item = &'static str> {
    generated::NAMES.into_iter()
}
