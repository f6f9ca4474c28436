//! The models that ship with shardproof, each with a few real samples.

/// One model of the zoo.
#[derive(Debug)]
pub struct ZooModel {
    /// Its name on command lines.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Bytes of the ONNX file.
    pub onnx: &'static [u8],
    /// Bytes of a `.npy` file, f32, `[count, *input shape]`.
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

/// The model of this name.
pub fn find(name: &str) -> Option<&'static ZooModel> {
    MODELS.iter().find(|model| model.name == name)
}

/// All models.
pub fn models() -> &'static [ZooModel] {
    MODELS
}

/// The names of all models.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|model| model.name)
}
