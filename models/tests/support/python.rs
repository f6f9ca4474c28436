//! Python programs with the packages that they are pinned to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use shardproof_common::ids::Digest;

pub(crate) fn zoo_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo")
}

pub(crate) fn finished(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|cause| format!("{command:?}: {cause}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// The folder with the Python packages of `zoo/requirements-check.txt`, installed under `base` on first use.
pub(crate) fn packages(base: &Path) -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let requirements = zoo_folder().join("requirements-check.txt");
        let wanted = Digest::of(&fs::read(&requirements).unwrap()).short();
        let folder = base.join(format!("onnx-check-{wanted}"));
        if !folder.exists() {
            // Installed beside and then renamed, so that an interrupted installation is never taken for a whole one.
            let staging = tempfile::Builder::new().prefix("onnx-check-").tempdir_in(base).unwrap();
            let site = staging.path().join("site");
            install(staging.path(), &requirements, &site);
            if let Err(cause) = fs::rename(&site, &folder) {
                assert!(folder.exists(), "{}: {cause}", folder.display());
            }
        }
        folder
    })
}

/// With the machine's own pip, or with that of a virtual environment where the machine has none.
fn install(staging: &Path, requirements: &Path, site: &Path) {
    let pip = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(site);
        finished(command.arg("-r").arg(requirements)).map(drop)
    };
    let with_own = pip(Path::new("python3"));
    let Err(first) = with_own else { return };
    let venv = staging.join("venv");
    let made = finished(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    let second = made.and_then(|_| pip(&venv.join("bin/python")));
    second.unwrap_or_else(|second| panic!("the packages for this test cannot be installed:\n{first}\n{second}"));
}
