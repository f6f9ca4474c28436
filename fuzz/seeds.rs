//! Writes the seeds of every target into folders, or lists the targets.

use std::path::Path;

use anyhow::{Context, Result, bail};
use shardproof_fuzz::TARGETS;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // One a line: name and longest input.
        ["list"] => {
            for target in TARGETS {
                println!("{} {}", target.name, target.max_len);
            }
            Ok(())
        }
        ["write", directory] => write(Path::new(directory)),
        _ => bail!("usage: fuzz_seeds list | fuzz_seeds write DIR"),
    }
}

/// Each seed in a file that its digest names, so that writing again changes nothing.
fn write(directory: &Path) -> Result<()> {
    for target in TARGETS {
        let folder = directory.join(target.name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for seed in target.seeds() {
            let path = folder.join(shardproof_common::ids::Digest::of(&seed).short());
            std::fs::write(&path, seed).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
