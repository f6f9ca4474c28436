//! The corpus as files, for anyone's verifier.
//!
//! In the directory lie `model.onnx` and `corpus.json`, and for every scene a folder with the client's `input.json` and, for
//! each forgery, `NAME.bundle`, `NAME.card` and `NAME.answer.json`, the answer that was delivered.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use shardproof_common::files;
use shardproof_common::ids::Digest;
use shardproof_common::receipt::PublicKey;

use crate::forgeries::{self, Expected};
use crate::honest::Honest;
use crate::party::Forger;
use crate::scene::Scene;

/// Name of the list of all that was written.
pub const INDEX: &str = "corpus.json";
/// Name of the model's file.
pub const MODEL_FILE: &str = "model.onnx";
/// Name of a scene's input.
pub const INPUT_FILE: &str = "input.json";

/// What [`write()`] wrote.
#[derive(Debug, Serialize)]
pub struct Index {
    /// From which all keys follow.
    pub seed: u64,
    /// Digest of the model's file.
    pub model: Digest,
    /// Whose cards the client expects.
    pub owner_key: PublicKey,
    /// All forgeries, scene after scene.
    pub forgeries: Vec<Entry>,
}

/// One forgery's files and what they must lead to.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The folder.
    pub scene: Scene,
    /// Names the files.
    pub name: String,
    /// Who could have made it.
    pub forger: Forger,
    /// What was changed.
    pub change: String,
    /// What a verifier must say.
    pub expected: Expected,
    /// Whether the client goes on under an SRS that is for tests only.
    pub accept_test_srs: bool,
}

/// Makes the corpus of `scenes` and writes it to `directory`; `say` is told what is at work.
///
/// # Errors
/// When a backend fails or a file cannot be written.
pub fn write(directory: &Path, scenes: &[Scene], seed: u64, mut say: impl FnMut(&str)) -> Result<Index> {
    let mut index = Index {
        seed,
        model: Digest::from_bytes([0; 32]),
        owner_key: crate::Keys::insecure(seed).owner.public(),
        forgeries: Vec::new(),
    };
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for &scene in scenes {
        say(&format!("{scene}: setting up, running, proving"));
        let honest = Honest::make(scene, seed).with_context(|| format!("setting up {scene}"))?;
        index.model = Digest::of(&honest.model);
        put(&directory.join(MODEL_FILE), &honest.model)?;
        say(&format!("{scene}: forging"));
        index.forgeries.extend(write_scene(&directory.join(scene.as_str()), &honest)?);
    }
    put(&directory.join(INDEX), (serde_json::to_string_pretty(&index)? + "\n").as_bytes())?;
    Ok(index)
}

/// Writes one scene's folder.
///
/// # Errors
/// As [`write()`].
pub fn write_scene(directory: &Path, honest: &Honest) -> Result<Vec<Entry>> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let values: Vec<&[f32]> = honest.input.iter().map(|tensor| tensor.values.as_slice()).collect();
    put(&directory.join(INPUT_FILE), json!({ "input_data": values }).to_string().as_bytes())?;
    let mut entries = Vec::new();
    for forgery in forgeries::of(honest.scene) {
        let forged = forgery.make(honest)?;
        let name = &forgery.name;
        put(&directory.join(format!("{name}.bundle")), &forged.bundle)?;
        put(&directory.join(format!("{name}.card")), &forged.card)?;
        let answer = json!({ "outputs": forged.answer }).to_string() + "\n";
        put(&directory.join(format!("{name}.answer.json")), answer.as_bytes())?;
        entries.push(Entry {
            scene: honest.scene,
            expected: forgery.expected_in(honest.scene),
            name: forgery.name,
            forger: forgery.forger,
            change: forgery.change,
            accept_test_srs: forged.accept_test_srs,
        });
    }
    Ok(entries)
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    files::write_whole(path, bytes).with_context(|| path.display().to_string())
}
