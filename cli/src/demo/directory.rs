//! The directory of a demo: what survives it, and what does not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shardproof_common::artifacts::digest_of_file;
use shardproof_common::card::ModelCard;
use shardproof_common::files;
use shardproof_common::ids::Digest;
use shardproof_common::keyfile;
use shardproof_common::receipt::PublicKey;
use shardproof_models::ModelSource;

use super::DemoArgs;
use crate::card::insecure_test_srs;

/// Bundle, card, model, input, answer and logs, which stay, and the data of the processes, which goes with this value
/// unless it is to be kept.
#[derive(Debug)]
pub(super) struct DemoDirectory {
    root: PathBuf,
    keep: bool,
}

impl DemoDirectory {
    /// Makes the directory `out`, or a new temporary one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn create(out: Option<&Path>, keep: bool) -> Result<Self> {
        let root = match out {
            Some(out) => {
                fs::create_dir_all(out).with_context(|| format!("{}: cannot make the directory", out.display()))?;
                fs::canonicalize(out).with_context(|| format!("{}: cannot be resolved", out.display()))?
            }
            None => {
                let made = tempfile::Builder::new()
                    .prefix("shardproof-demo-")
                    .tempdir()
                    .context("making a temporary directory")?;
                made.keep()
            }
        };
        Ok(Self { root, keep })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// The run's bundle.
    pub(super) fn bundle(&self) -> PathBuf {
        self.root.join("run.bundle")
    }

    /// The model card.
    pub(super) fn card(&self) -> PathBuf {
        self.root.join("card.json")
    }

    /// The input as it was sent.
    pub(super) fn input(&self) -> PathBuf {
        self.root.join("input.json")
    }

    /// The answer as it was delivered.
    pub(super) fn answer(&self) -> PathBuf {
        self.root.join("answer.json")
    }

    fn model(&self) -> PathBuf {
        self.root.join("model.onnx")
    }

    fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Writes a copy of the model's file.
    pub(super) fn write_model(&self, source: &ModelSource) -> Result<()> {
        let path = self.model();
        files::write_whole(&path, &source.read()?)
            .with_context(|| format!("{}: cannot write the model", path.display()))
    }

    /// Digest of the model's file.
    pub(super) fn model_digest(&self) -> Result<Digest> {
        Ok(digest_of_file(&self.model())?)
    }

    /// `--data-dir` for one of the processes, whose data of an earlier demo here is removed.
    pub(super) fn data_dir_args(&self, name: &str) -> Result<[String; 2]> {
        let path = self.data().join(name);
        remove_if_there(&path)?;
        let text = path.to_str().with_context(|| format!("{}: not UTF-8", path.display()))?;
        Ok(["--data-dir".to_owned(), text.to_owned()])
    }

    /// A directory below the processes' data, which goes with it.
    pub(super) fn in_data(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    /// The owner's public key, from the owner's own key file: in a demo the owner is at this machine.
    pub(super) fn owner_key(&self) -> Result<Option<PublicKey>> {
        let path = self.data().join("coordinator").join("owner.key");
        if !path.is_file() {
            return Ok(None);
        }
        let owner = keyfile::load_or_create(&path).with_context(|| format!("{}: the owner's key", path.display()))?;
        Ok(Some(owner.public()))
    }

    /// Where everything is and what to try next.
    pub(super) fn next_steps(&self, args: &DemoArgs, card: &ModelCard, has_bundle: bool) -> String {
        let program = program();
        let show = |path: PathBuf| path.display().to_string();
        if !has_bundle {
            return format!("\ncard    {}\n\nNext: {program} demo {} --backend gkr\n", show(self.card()), args.model);
        }
        let allow = if insecure_test_srs(card) { " --allow-test-srs" } else { "" };
        format!(
            "\nbundle  {bundle}\ncard    {card}\n\n\
             Verify it yourself, without the services:\n  {program} verify {bundle} --card {card} \\\n    \
             --owner-key {owner} \\\n    --model {model} --input {input} \\\n    --output {answer}{allow}\n\
             Next: {next}\n",
            bundle = show(self.bundle()),
            card = show(self.card()),
            owner = card.owner,
            model = show(self.model()),
            input = show(self.input()),
            answer = show(self.answer()),
            next = next_demo(&program, args),
        )
    }
}

impl Drop for DemoDirectory {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = remove_if_there(&self.data())
        {
            tracing::warn!(%error, "cannot remove the demo's data");
        }
    }
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

fn next_demo(program: &str, args: &DemoArgs) -> String {
    match args.model.as_str() {
        "mlp" => {
            format!("{program} demo cnn    or, in zero knowledge, {program} demo testing --shards 2 --backend ezkl")
        }
        _ => format!("{program} plan {} --shards {}", args.model, args.shards),
    }
}

/// How this program can be started again from here: by name where the search path finds it, else by path.
fn program() -> String {
    let Ok(program) = std::env::current_exe() else { return "shardproof".to_owned() };
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search_path).any(|directory| directory.join("shardproof") == program);
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| program.strip_prefix(here).ok().map(Path::to_owned));
    match below {
        _ if found => "shardproof".to_owned(),
        Some(below) => below.display().to_string(),
        None => program.display().to_string(),
    }
}
