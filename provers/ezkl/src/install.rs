//! The pinned wheel in the user's cache directory.
//!
//! pip fetches it under a pinned digest per platform into a fresh directory that is renamed into place when it is whole, so
//! that an interrupted installation leaves nothing that looks finished; a file lock keeps parallel processes from
//! installing twice. A Python without pip lends one from a virtual environment that is thrown away afterwards. The wheel
//! has no dependencies and works with every Python 3.7 or later, so one directory serves all.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use shardproof_common::backend::{BackendError, Job};

use crate::child::{Child, join};
use crate::cli::CliRunner;
use crate::config::{EzklConfig, RunnerKind};
use crate::frame::{Frame, failed, in_units};
use crate::srs;
use crate::{VERSION, wheel::WheelRunner};

/// SHA-256 of the wheels of [`VERSION`], one per platform.
const WHEELS: [(&str, &str); 7] = [
    ("manylinux x86_64", "1c7f59745fcdd2270be7eabe9d11e6821253275eb6a23709ba19b30d28815b3e"),
    ("musllinux x86_64", "bdae7f9756d864396c3a764b9322edbc8c61f07d7df1047c72dee1aaf1318009"),
    ("musllinux aarch64", "5f54bad52521c59ac2cbae9a69c9026861da124b76f5b632d529d2bebb36453f"),
    ("macOS universal2", "a457f2b1930ceb6a2d73c24e874edf4e197107ded8f97a86d38b13045e7ffe44"),
    ("macOS x86_64", "a1d8e1930372419a655ddad9b888bb3d9ffba7fb88d941c31b2d706708327531"),
    ("Windows x86_64", "a7690d3cc441716866910ff13e6746381afb352f860712f4577e1a7dd1b5a9d1"),
    ("Windows x86", "61e621e97fabc5c5a4f9b2e8e5499fc8c37c4265158ebbe3e74fff434c08b091"),
];

/// Where ezkl is on this machine, or will be.
#[derive(Clone, Debug)]
pub struct Installation<'a> {
    config: &'a EzklConfig,
}

impl<'a> Installation<'a> {
    /// The installation that `config` describes.
    pub const fn new(config: &'a EzklConfig) -> Self {
        Self { config }
    }

    /// The directory that holds the package.
    pub fn site(&self) -> PathBuf {
        self.config.cache_dir().join(format!("ezkl-{VERSION}"))
    }

    /// Whether the first use can start at once; looks at files only.
    pub fn is_ready(&self) -> bool {
        match &self.config.runner {
            RunnerKind::Wheel => self.site().join("ezkl").is_dir(),
            RunnerKind::Program(program) => program.is_file(),
        }
    }

    /// The command that puts the wheel in place by hand, the pinned one and no other.
    pub fn command_by_hand(&self) -> String {
        let (python, site) = (self.config.python(), self.site());
        format!(
            "echo '{}' | {} -m pip install --no-deps --require-hashes --target {} --requirement /dev/stdin",
            requirement(),
            python.display(),
            site.display()
        )
    }

    /// Installs the wheel where it is missing and returns the directory that holds it.
    ///
    /// # Errors
    /// [`BackendError::Missing`] says what stands in the way and what to do about it.
    pub fn ensure(&self, job: &Job<'_>) -> Result<PathBuf, BackendError> {
        self.ensure_within(&Frame::new(job, self.config.stall))
    }

    pub(crate) fn ensure_within(&self, frame: &Frame<'_>) -> Result<PathBuf, BackendError> {
        let site = self.site();
        if self.is_ready() {
            return Ok(site);
        }
        let cache = self.config.cache_dir();
        let _lock = lock(&cache.join("ezkl.lock"), "install", frame)?;
        if self.is_ready() {
            return Ok(site);
        }
        frame.at(&format!("install ezkl {VERSION} into {}", site.display()));
        tracing::info!(version = VERSION, into = %site.display(), "installing ezkl");
        let workshop =
            tempfile::Builder::new().prefix("ezkl-install-").tempdir_in(&cache).map_err(BackendError::io(&cache))?;
        self.install(workshop.path(), frame)?;
        if site.exists() {
            fs::remove_dir_all(&site).map_err(BackendError::io(&site))?;
        }
        fs::rename(workshop.path().join("site"), &site).map_err(BackendError::io(&site))?;
        Ok(site)
    }

    /// Fetches the wheel into `site` inside `workshop`.
    fn install(&self, workshop: &Path, frame: &Frame<'_>) -> Result<(), BackendError> {
        let requirements = workshop.join("requirements.txt");
        fs::write(&requirements, requirement()).map_err(BackendError::io(&requirements))?;
        let python = self.python_with_pip(workshop, frame)?;
        let mut pip = Command::new(python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ]);
        pip.args(["--disable-pip-version-check", "--no-warn-script-location", "--target"]);
        pip.arg(workshop.join("site")).arg("--requirement").arg(requirements);
        match output_of(pip, "install", frame)? {
            Output { succeeded: true, .. } => Ok(()),
            Output { text, .. } if text.contains("DO NOT MATCH THE HASHES") => Err(BackendError::Missing(format!(
                "pip was offered an ezkl {VERSION} whose digest is none of the pinned ones and did not install it: check which \
                 package index pip uses"
            ))),
            Output { text, .. } => {
                let message = format!(
                    "ezkl {VERSION} could not be installed: pip needs the network, or a configured index, and a wheel for \
                     this platform; to install it by hand: {}",
                    self.command_by_hand()
                );
                Err(BackendError::Missing(join(&message, &text)))
            }
        }
    }

    /// A Python that has pip: the configured one, or a virtual environment made by it.
    fn python_with_pip(&self, workshop: &Path, frame: &Frame<'_>) -> Result<PathBuf, BackendError> {
        let python = self.config.python();
        let mut version = Command::new(&python);
        version.args(["-m", "pip", "--version"]);
        if output_of(version, "install", frame)?.succeeded {
            return Ok(python);
        }
        let environment = workshop.join("venv");
        let mut venv = Command::new(&python);
        venv.args(["-m", "venv"]).arg(&environment);
        let made = output_of(venv, "install", frame)?;
        if made.succeeded {
            return Ok(environment.join("bin").join("python3"));
        }
        let message = format!(
            "Python (`{}`) has neither pip nor what `python3 -m venv` needs: install one of them (on Debian and Ubuntu the \
             packages python3-pip or python3-venv), or run: {}",
            python.display(),
            self.command_by_hand()
        );
        Err(BackendError::Missing(join(&message, &made.text)))
    }

    /// What is there and what is not; starts Python, installs nothing.
    pub fn status(&self) -> Status {
        let python = self.python_version();
        let site = self.site();
        let version = match (&self.config.runner, &python) {
            (RunnerKind::Wheel, Ok(_)) if self.is_ready() => Some(self.probe()),
            (RunnerKind::Wheel, _) => None,
            (RunnerKind::Program(_), _) => Some(self.probe()),
        };
        let program = match &self.config.runner {
            RunnerKind::Wheel => None,
            RunnerKind::Program(program) => Some(program.clone()),
        };
        Status {
            pinned_version: VERSION,
            program,
            python: self.config.python(),
            python_version: python.as_ref().ok().cloned(),
            python_error: python.err(),
            site,
            usable: matches!(version, Some(Ok(()))),
            problem: version.and_then(Result::err),
            command_by_hand: self.command_by_hand(),
            test_srs: srs::cached(&self.config.cache_dir()),
            srs: self.config.srs.clone(),
        }
    }

    /// Starts ezkl once, which checks its version.
    fn probe(&self) -> Result<(), String> {
        let started = with_short_frame(self.config, |frame| match &self.config.runner {
            RunnerKind::Wheel => WheelRunner::start(&self.config.python(), &self.site())?.ready(frame).map(drop),
            RunnerKind::Program(program) => CliRunner::start(program, frame).map(drop),
        });
        started.map_err(|error| error.to_string())
    }

    fn python_version(&self) -> Result<String, String> {
        let python = self.config.python();
        let mut command = Command::new(&python);
        command.arg("--version");
        let said = with_short_frame(self.config, |frame| output_of(command, "version", frame))
            .map_err(|error| error.to_string())?;
        match said {
            Output { succeeded: true, text } => Ok(text.trim().trim_start_matches("Python ").to_owned()),
            Output { text, .. } => Err(text.trim().to_owned()),
        }
    }
}

/// The pinned wheels, as a line that pip reads.
fn requirement() -> String {
    let digests: String = WHEELS.iter().map(|(_, digest)| format!(" --hash=sha256:{digest}")).collect();
    format!("ezkl=={VERSION}{digests}")
}

/// What a look at this machine found.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The version that is needed.
    pub pinned_version: &'static str,
    /// The `ezkl` program, where that is used instead of the wheel.
    pub program: Option<PathBuf>,
    /// The Python that is used for the wheel.
    pub python: PathBuf,
    /// Its version.
    pub python_version: Option<String>,
    /// Why it has none.
    pub python_error: Option<String>,
    /// Where the wheel is or will be.
    pub site: PathBuf,
    /// Whether ezkl started and is the pinned version.
    pub usable: bool,
    /// Why it did not; nothing when it is not installed yet.
    pub problem: Option<String>,
    /// Installs the wheel by hand.
    pub command_by_hand: String,
    /// Cached test SRS files: log2 of rows and bytes.
    pub test_srs: Vec<(u32, u64)>,
    /// The operator's SRS file.
    pub srs: Option<PathBuf>,
}

impl Status {
    /// Whether the backend works, or will after installing itself.
    pub fn is_hopeful(&self) -> bool {
        self.usable || (self.program.is_none() && self.problem.is_none() && self.python_version.is_some())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.pinned_version;
        match (&self.program, &self.python_version) {
            (Some(program), _) => writeln!(f, "program   {}", program.display())?,
            (None, Some(found)) => writeln!(f, "python    {} ({found})", self.python.display())?,
            (None, None) => {
                let error = self.python_error.as_deref().unwrap_or("not found");
                writeln!(f, "python    {error}: install Python 3.7 or later, or name one with SHARDPROOF_PYTHON")?;
            }
        }
        match (&self.problem, self.usable) {
            (_, true) if self.program.is_some() => writeln!(f, "ezkl      {version}")?,
            (_, true) => writeln!(f, "ezkl      {version} in {}", self.site.display())?,
            (Some(problem), false) => writeln!(f, "ezkl      not usable: {problem}")?,
            (None, false) => {
                writeln!(
                    f,
                    "ezkl      {version} is not installed yet; it will be on first use, into {}",
                    self.site.display()
                )?;
                writeln!(f, "          by hand: {}", self.command_by_hand)?;
            }
        }
        match &self.srs {
            Some(srs) => write!(f, "srs       {}", srs.display()),
            None if self.test_srs.is_empty() => write!(f, "srs       insecure test SRS, none made yet"),
            None => {
                let files: Vec<String> =
                    self.test_srs.iter().map(|(k, bytes)| format!("2^{k} ({})", in_units(*bytes))).collect();
                write!(f, "srs       insecure test SRS, cached: {}", files.join(", "))
            }
        }
    }
}

/// What a helper process said.
struct Output {
    succeeded: bool,
    text: String,
}

fn output_of(command: Command, step: &str, frame: &Frame<'_>) -> Result<Output, BackendError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let missing = |error| {
        BackendError::Missing(format!(
            "cannot start Python (`{program}`): {error}; ezkl needs Python 3.7 or later: install it, or name one with \
             SHARDPROOF_PYTHON"
        ))
    };
    let mut child = Child::start(command, None).map_err(missing)?;
    let mut text = String::new();
    while let Some(line) = child.next_line(step, frame)? {
        text.push_str(&line);
        text.push('\n');
    }
    let ending = child.end(step, frame)?;
    Ok(Output { succeeded: ending.status.success(), text: text + &ending.text })
}

/// Runs a quick look at the machine under a deadline of its own.
fn with_short_frame<T>(
    config: &EzklConfig,
    look: impl FnOnce(&Frame<'_>) -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    let limits = shardproof_common::backend::Limits { deadline: Some(Duration::from_secs(30)), ..Default::default() };
    let cancel = tokio_util::sync::CancellationToken::new();
    let directory = config.cache_dir();
    let job = Job { directory: &directory, limits, cancel: &cancel, progress: &|_| {} };
    look(&Frame::new(&job, config.stall))
}

/// Holds the lock file at `path` for as long as the returned value lives; waits for its turn within the frame's limits.
pub(crate) fn lock(path: &Path, step: &str, frame: &Frame<'_>) -> Result<File, BackendError> {
    let parent = path.parent().ok_or_else(|| failed(step, "a lock file lies in a directory"))?;
    fs::create_dir_all(parent).map_err(BackendError::io(parent))?;
    let file = File::create(path).map_err(BackendError::io(path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => frame.check(step, 0)?,
            Err(TryLockError::Error(source)) => return Err(BackendError::Io { path: path.to_owned(), source }),
        }
        thread::sleep(Duration::from_millis(100));
    }
}
