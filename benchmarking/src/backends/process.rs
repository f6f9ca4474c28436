//! One step as a child process: timed, watched, and ended with all that it started.
//!
//! A step runs in a process group of its own. When it ends, hits a limit, or the benchmark is stopped, the whole group is
//! killed, so that nothing of it disturbs the next measurement. If the benchmark itself is killed, the system ends its
//! steps ([`guard`]), though not what an adapter's program has started in turn.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(target_os = "linux")]
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
#[cfg(target_os = "linux")]
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getppid};

use super::error::Stop;
use crate::memory::MemoryWatch;

/// How often limits are looked at.
const INTERVAL: Duration = Duration::from_millis(10);
/// Most of what a step printed that is read.
const LONGEST_OUTPUT: u64 = 64 << 20;
/// How much of the end of standard error is kept.
const KEPT_TEXT: u64 = 32 << 10;
/// Lines of it that a message shows.
const SHOWN_LINES: usize = 5;
/// The exit code of a program that could not be started, as shells have it.
const NOT_STARTED: u8 = 127;

/// What a step may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time.
    pub time: Duration,
    /// Resident memory of its processes together, bytes.
    pub memory_bytes: u64,
}

/// A step to run.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Its name in messages and of its logs.
    pub name: &'a str,
    /// The program and its arguments.
    pub command: &'a [String],
    /// Where it is started.
    pub folder: &'a Path,
    /// What it finds in its environment besides the benchmark's own.
    pub environment: &'a [(&'static str, OsString)],
    /// Where its output is kept.
    pub logs: &'a Path,
}

/// How a step ended by itself.
#[derive(Clone, Debug)]
pub struct Ended {
    status: ExitStatus,
    /// The last line on standard output that is not empty.
    pub line: String,
    /// The end of standard error.
    complaint: String,
    /// From its start to its end.
    pub wall: Duration,
    /// Peak memory of its processes together as far as seen, bytes.
    pub peak_bytes: u64,
}

/// A running step; dropping it ends the step's whole process group.
struct Running {
    process: Child,
    #[cfg(target_os = "linux")]
    exited: Receiver<Instant>,
    reaped: bool,
}

impl Running {
    fn start(mut command: Command) -> io::Result<Self> {
        let process = command.spawn()?;
        #[cfg(target_os = "linux")]
        let exited = watch(process.id());
        Ok(Self {
            process,
            #[cfg(target_os = "linux")]
            exited,
            reaped: false,
        })
    }

    /// When the step ended, if it does within [`INTERVAL`].
    #[cfg(target_os = "linux")]
    fn ended(&mut self) -> Option<Instant> {
        match self.exited.recv_timeout(INTERVAL) {
            Ok(at) => Some(at),
            Err(RecvTimeoutError::Disconnected) => Some(Instant::now()),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }

    /// When the step ended, up to [`INTERVAL`] late: other systems only tell of an end by reaping.
    #[cfg(not(target_os = "linux"))]
    fn ended(&mut self) -> Option<Instant> {
        std::thread::sleep(INTERVAL);
        matches!(self.process.try_wait(), Ok(Some(_))).then(Instant::now)
    }

    /// Ends whatever is left of the group and reaps the step, in this order: until it is reaped, its id is nobody else's.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.reaped {
            let _none_left = killpg(Pid::from_raw(self.process.id() as i32), Signal::SIGKILL);
            self.reaped = true;
        }
        self.process.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.end();
    }
}

/// Runs a step to its end, whatever that is.
///
/// # Errors
/// [`Stop::Failed`] when it cannot be started or hits a limit, [`Stop::Interrupted`] when the benchmark is stopped.
pub fn run(step: &Step<'_>, limits: Limits, interrupted: &AtomicBool) -> Result<Ended, Stop> {
    let name = step.name;
    let cannot = |what: &str, error: &dyn std::fmt::Display| Stop::Failed(format!("{name}: {what}: {error}"));
    if interrupted.load(Ordering::Relaxed) {
        return Err(Stop::Interrupted);
    }
    let (output, errors) = (step.logs.join(format!("{name}.out")), step.logs.join(format!("{name}.err")));
    let create = |path: &Path| File::create(path).map_err(|error| cannot(&path.display().to_string(), &error));
    let mut command = guarded(step.command).map_err(|error| cannot("cannot be started", &error))?;
    command.current_dir(step.folder).stdin(Stdio::null()).process_group(0);
    command.stdout(create(&output)?).stderr(create(&errors)?);
    command.envs(step.environment.iter().map(|(variable, value)| (variable, value)));

    let started = Instant::now();
    let mut running = Running::start(command).map_err(|error| cannot("cannot be started", &error))?;
    let memory = MemoryWatch::start(vec![running.process.id()]);
    let peak = || memory.peaks().first().copied().unwrap_or(0);
    let ended = loop {
        if let Some(at) = running.ended() {
            break at;
        }
        if interrupted.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted);
        }
        if started.elapsed() > limits.time {
            let seconds = limits.time.as_secs_f64();
            return Err(Stop::Failed(format!("{name} did not end within the time limit of {seconds} s")));
        }
        if peak() > limits.memory_bytes {
            let limit = limits.memory_bytes >> 20;
            return Err(Stop::Failed(format!("{name} took more memory than the limit of {limit} MiB")));
        }
    };
    let peak_bytes = peak();
    let status = running.end().map_err(|error| cannot("waiting for it", &error))?;
    let line = last_line(&output).map_err(|error| cannot("reading its output", &error))?;
    let complaint = tail(&errors, KEPT_TEXT).map_err(|error| cannot("reading its errors", &error))?;
    Ok(Ended { status, line, complaint, wall: ended - started, peak_bytes })
}

impl Ended {
    /// The step, if it exited with 0.
    ///
    /// # Errors
    /// [`Stop::Failed`] with how it ended and the end of standard error.
    pub fn succeeded(self, name: &str) -> Result<Self, Stop> {
        if self.status.success() {
            return Ok(self);
        }
        let lines: Vec<&str> = self.complaint.lines().filter(|line| !line.trim().is_empty()).collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join(" | ");
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        Err(Stop::Failed(if shown.is_empty() { format!("{name} {how}") } else { format!("{name} {how}: {shown}") }))
    }

    /// The last thing that the step said, on whichever stream it complains.
    pub fn last_words(&self) -> &str {
        let complaint = self.complaint.lines().rev().find(|line| !line.trim().is_empty());
        complaint.map_or(self.line.as_str(), str::trim)
    }

    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// Says when the process ends, without reaping it.
#[cfg(target_os = "linux")]
fn watch(process: u32) -> Receiver<Instant> {
    let (sender, exited) = mpsc::channel();
    std::thread::spawn(move || {
        let process = Pid::from_raw(process as i32);
        while waitid(Id::Pid(process), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        // Nobody listens any more where a limit was hit.
        let _nobody_listens = sender.send(Instant::now());
    });
    exited
}

/// `command` behind [`guard`].
fn guarded(command: &[String]) -> io::Result<Command> {
    let mut guarded = Command::new(std::env::current_exe()?);
    guarded.arg("guard").arg(std::process::id().to_string()).arg("--").args(command);
    Ok(guarded)
}

/// Becomes the program `command`, which the system ends when the process `parent`, the benchmark, does.
///
/// Comes back only if the program cannot be started.
pub fn guard(parent: i32, command: &[OsString]) -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        eprintln!("cannot ask to end with the benchmark: {error}");
        return ExitCode::from(NOT_STARTED);
    }
    if getppid() != Pid::from_raw(parent) {
        // The benchmark ended before the system knew whom to end with it.
        return ExitCode::from(NOT_STARTED);
    }
    let Some((program, arguments)) = command.split_first() else { return ExitCode::from(NOT_STARTED) };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("{}: cannot be started: {error}", Path::new(program).display());
    ExitCode::from(NOT_STARTED)
}

/// The last line of a file that is not empty.
fn last_line(path: &Path) -> io::Result<String> {
    let text = tail(path, LONGEST_OUTPUT)?;
    Ok(text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned())
}

/// At most `bytes` of the end of a file as text.
fn tail(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = fs::metadata(path)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The command by which this program does one of its own steps.
pub fn own_command(arguments: &[&str]) -> io::Result<Vec<String>> {
    let program = std::env::current_exe()?;
    let program = program.to_str().map(str::to_owned);
    let program = program.ok_or_else(|| io::Error::other("this program's path is no text"))?;
    Ok(std::iter::once(program).chain(arguments.iter().map(|&argument| argument.to_owned())).collect())
}

/// A variable of a step's environment.
pub fn variable(name: &'static str, value: impl AsRef<OsStr>) -> (&'static str, OsString) {
    (name, value.as_ref().to_owned())
}
