//! Installing the wheel: once, whole, pinned, and with a remedy in every refusal.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use shardproof_common::backend::{BackendError, Limits};
use shardproof_ezkl::{EzklConfig, Installation};

use crate::support::{config, executable, real_python, with_job};

/// A cache of its own, and a Python that does `prelude` first.
fn machine(directory: &Path, prelude: &str) -> EzklConfig {
    let script = format!("{prelude}\nexec '{}' \"$@\"", real_python().display());
    let python = executable(directory, "python", &script);
    EzklConfig { cache_dir: Some(directory.join("cache")), python: Some(python), ..config() }
}

fn ensure(config: &EzklConfig) -> Result<PathBuf, BackendError> {
    let directory = tempfile::tempdir().unwrap();
    with_job(directory.path(), Limits::default(), |job| Installation::new(config).ensure(job))
}

fn missing(config: &EzklConfig) -> String {
    match ensure(config).unwrap_err() {
        BackendError::Missing(reason) => reason,
        other => panic!("another error: {other}"),
    }
}

#[test]
fn parallel_uses_install_once_and_leave_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let config = machine(directory.path(), &format!("echo \"$@\" >> '{}'", log.display()));
    thread::scope(|scope| {
        let users: Vec<_> = (0..3).map(|_| scope.spawn(|| ensure(&config).unwrap())).collect();
        users.into_iter().for_each(|user| assert!(user.join().unwrap().join("ezkl").is_dir()));
    });
    let installs = fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains("pip install")).count();
    assert_eq!(installs, 1);
    let mut left: Vec<_> =
        fs::read_dir(directory.path().join("cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["ezkl-23.0.5", "ezkl.lock"]);
    let status = Installation::new(&config).status();
    assert!(status.usable && status.is_hopeful(), "{status}");
}

#[test]
fn a_python_without_pip_lends_one_from_a_virtual_environment() {
    let directory = tempfile::tempdir().unwrap();
    let config = machine(directory.path(), "[ \"$2\" = pip ] && exit 1");
    assert!(ensure(&config).unwrap().join("ezkl").is_dir());
}

#[test]
fn a_python_with_neither_is_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let config = machine(directory.path(), "case \"$2\" in pip|venv) echo no such module; exit 1;; esac");
    let reason = missing(&config);
    assert!(reason.contains("python3-pip or python3-venv") && reason.contains("no such module"), "{reason}");
    assert!(!Installation::new(&config).is_ready());
}

#[test]
fn without_a_network_the_refusal_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let offline =
        "export PIP_INDEX_URL=http://127.0.0.1:9 PIP_EXTRA_INDEX_URL= PIP_FIND_LINKS= PIP_NO_CACHE_DIR=1 PIP_RETRIES=0";
    let reason = missing(&machine(directory.path(), offline));
    assert!(reason.contains("needs the network") && reason.contains("ezkl==23.0.5"), "{reason}");
}

#[test]
fn a_wheel_with_another_digest_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let index = directory.path().join("wheels");
    fs::create_dir(&index).unwrap();
    let name = "ezkl-23.0.5-py3-none-any.whl";
    let script = "import sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n\
        \x20   info = 'ezkl-23.0.5.dist-info/'\n\
        \x20   wheel.writestr('ezkl/__init__.py', '__version__ = \"23.0.5\"')\n\
        \x20   wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: ezkl\\nVersion: 23.0.5\\n')\n\
        \x20   wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        \x20   wheel.writestr(info + 'RECORD', '')\n";
    let made = std::process::Command::new(real_python()).args(["-c", script]).arg(index.join(name)).status().unwrap();
    assert!(made.success());
    let forged = format!("export PIP_NO_INDEX=1 PIP_FIND_LINKS='{}'", index.display());
    let config = machine(directory.path(), &forged);
    let reason = missing(&config);
    assert!(reason.contains("whose digest is none of the pinned ones"), "{reason}");
    assert!(!Installation::new(&config).is_ready());
}

#[test]
fn no_python_is_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let config = EzklConfig {
        cache_dir: Some(directory.path().to_owned()),
        python: Some(directory.path().join("no-python")),
        ..config()
    };
    let reason = missing(&config);
    assert!(reason.contains("no-python") && reason.contains("SHARDPROOF_PYTHON"), "{reason}");
    let status = Installation::new(&config).status();
    assert!(!status.is_hopeful() && status.python_version.is_none());
    assert!(status.to_string().contains("SHARDPROOF_PYTHON"), "{status}");
}

#[test]
fn another_version_or_a_broken_package_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let config = EzklConfig { cache_dir: Some(directory.path().to_owned()), ..config() };
    let package = directory.path().join("ezkl-23.0.5").join("ezkl");
    fs::create_dir_all(&package).unwrap();
    let problem = |content: &str| {
        fs::write(package.join("__init__.py"), content).unwrap();
        let status = Installation::new(&config).status();
        assert!(!status.usable && !status.is_hopeful(), "{status}");
        status.problem.unwrap()
    };
    let other = problem("__version__ = '22.0.0'");
    assert!(other.contains("expected ezkl 23.0.5, found 22.0.0") && other.contains("remove"), "{other}");
    let broken = problem("raise ImportError('half a package')");
    assert!(broken.contains("half a package") && broken.contains("remove"), "{broken}");
}

#[test]
fn an_interrupted_installation_is_redone() {
    let directory = tempfile::tempdir().unwrap();
    let config = machine(directory.path(), "");
    let half = directory.path().join("cache").join("ezkl-23.0.5");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("leftover"), "").unwrap();
    let site = ensure(&config).unwrap();
    assert_eq!(site, half);
    assert!(site.join("ezkl").is_dir() && !site.join("leftover").exists());
}
