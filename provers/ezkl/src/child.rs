//! A child process that cannot outlive its use, its limits, or this process.
//!
//! Three things end it: its [`Child`] value is dropped, a limit of its [`Frame`] is hit (time, resident memory,
//! cancellation, or no use of processor time for too long), or this process dies: the child asks the system to be killed
//! then. What the system watches is the thread that started the child, not the process, so one thread starts all
//! children and lives as long as this process; whoever uses a child may then be on any thread. Memory is sampled, so a
//! child can exceed its limit for one sampling interval; a hard limit on address space instead would refuse what is
//! mapped but never resident.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child as StdChild, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use shardproof_common::backend::BackendError;

use crate::frame::{Frame, failed, in_units};

const SAMPLING: Duration = Duration::from_millis(50);
/// How much of what a child writes to standard error is kept.
const KEPT_TEXT: usize = 32 << 10;
/// Longest line that is read from a child.
const LONGEST_LINE: u64 = 64 << 20;

/// A supervised child process.
pub(crate) struct Child {
    process: StdChild,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    texts: Receiver<String>,
    usage: Usage,
}

/// What a child has used, as far as sampled.
#[derive(Debug)]
struct Usage {
    peak_bytes: u64,
    cpu_ticks: u64,
    cpu_moved: Instant,
}

/// How a child ended, and what it had written to standard error since the last marker.
pub(crate) struct Ending {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

impl Child {
    /// Starts `command`. Text on its standard error is handed out in pieces that end with a line equal to `marker`.
    pub(crate) fn start(mut command: Command, marker: Option<&'static str>) -> std::io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut process = spawn(command)?;
        let stdin = process.stdin.take();
        let (line_sender, lines) = channel();
        let (text_sender, texts) = channel();
        if let Some(stdout) = process.stdout.take() {
            thread::spawn(move || forward_lines(stdout, &line_sender));
        }
        if let Some(stderr) = process.stderr.take() {
            thread::spawn(move || forward_texts(stderr, marker, &text_sender));
        }
        let usage = Usage { peak_bytes: 0, cpu_ticks: 0, cpu_moved: Instant::now() };
        Ok(Self { process, stdin, lines, texts, usage })
    }

    /// Writes one line to the child.
    pub(crate) fn say(&mut self, line: &str) -> std::io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        stdin.write_all(line.as_bytes())?;
        stdin.write_all(b"\n")?;
        stdin.flush()
    }

    /// The next line of standard output; nothing when the child has closed it.
    ///
    /// # Errors
    /// When a limit is hit; the child is then dead.
    pub(crate) fn next_line(&mut self, step: &str, frame: &Frame<'_>) -> Result<Option<String>, BackendError> {
        self.usage.cpu_moved = Instant::now();
        loop {
            // The first time before any wait: a job that is over already is not worked for, however quick the child is.
            if let Err(error) = self.sample(step, frame) {
                self.kill();
                return Err(error);
            }
            match self.lines.recv_timeout(SAMPLING) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The text that the child has written to standard error up to its last marker.
    pub(crate) fn text(&self) -> String {
        self.texts.recv_timeout(Duration::from_secs(2)).unwrap_or_default()
    }

    /// Waits for the child's end, which must be near: its output is closed.
    pub(crate) fn end(&mut self, step: &str, frame: &Frame<'_>) -> Result<Ending, BackendError> {
        self.stdin = None;
        self.usage.cpu_moved = Instant::now();
        loop {
            let status =
                self.process.try_wait().map_err(|error| failed(step, format!("cannot await ezkl: {error}")))?;
            if let Some(status) = status {
                return Ok(Ending { status, text: self.text() });
            }
            if let Err(error) = self.sample(step, frame) {
                self.kill();
                return Err(error);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Forgets the peak so far, and returns how much memory the child holds now, bytes.
    pub(crate) fn begin_anew(&mut self) -> u64 {
        let id = self.process.id();
        // Where the system keeps no such file, the next job's peak includes this one's.
        let _peak_kept = std::fs::write(format!("/proc/{id}/clear_refs"), "5");
        self.usage.peak_bytes = 0;
        usage_of(id).rss_bytes
    }

    /// Whether it has not ended yet. One that was killed ends its threads one by one, and until the last has ended there is
    /// nothing to wait for although nobody answers any more.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None)) && !usage_of(self.process.id()).ended
    }

    /// The error for a child that ended by itself in the midst of `step`.
    pub(crate) fn unexpected_end(&mut self, step: &str, frame: &Frame<'_>) -> BackendError {
        let ending = match self.end(step, frame) {
            Ok(ending) => ending,
            Err(error) => return error,
        };
        let peak = in_units(self.peak_rss_bytes());
        let message = match ending.status.signal() {
            Some(signal) => {
                let name =
                    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |known| known.to_string());
                let circumstances =
                    format!("it had used {peak} of memory under {}; {}", frame.memory_limit(), frame.prediction());
                if signal == Signal::SIGKILL as i32 {
                    return BackendError::Limit(format!(
                        "ezkl was killed at {step} ({name}), as systems do that run out of memory: {circumstances}"
                    ));
                }
                format!("it died of {name}; {circumstances}")
            }
            None => format!("it ended by itself ({})", ending.status),
        };
        failed(step, join(&message, &ending.text))
    }

    /// The most memory that the child was seen to use, bytes.
    pub(crate) fn peak_rss_bytes(&self) -> u64 {
        self.usage.peak_bytes
    }

    /// Takes note of a peak that the child reports itself.
    pub(crate) fn note_peak(&mut self, bytes: u64) {
        self.usage.peak_bytes = self.usage.peak_bytes.max(bytes);
    }

    fn sample(&mut self, step: &str, frame: &Frame<'_>) -> Result<(), BackendError> {
        let now = usage_of(self.process.id());
        self.usage.peak_bytes = self.usage.peak_bytes.max(now.peak_bytes);
        if now.cpu_ticks != self.usage.cpu_ticks {
            (self.usage.cpu_ticks, self.usage.cpu_moved) = (now.cpu_ticks, Instant::now());
        }
        frame.check(step, now.rss_bytes)?;
        let idle = self.usage.cpu_moved.elapsed();
        if now.measured && idle >= frame.stall {
            return Err(failed(
                step,
                format!("ezkl is stuck: it has not computed anything for {:.0} s", idle.as_secs_f64()),
            ));
        }
        Ok(())
    }

    fn kill(&mut self) {
        // The group is gone already when the child has ended.
        let _ended = killpg(Pid::from_raw(self.process.id() as i32), Signal::SIGKILL);
        let _reaped = self.process.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command, and where the process that it becomes is wanted.
type Order = (Command, Sender<std::io::Result<StdChild>>);

/// Starts a process on the thread that starts them all.
fn spawn(command: Command) -> std::io::Result<StdChild> {
    static STARTER: Mutex<Option<Sender<Order>>> = Mutex::new(None);
    let (reply, answer) = channel();
    let mut starter = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    let orders = match &*starter {
        Some(orders) => orders,
        None => {
            let (sender, orders) = channel::<Order>();
            let start_all = move || {
                for (mut command, reply) in orders {
                    // Whoever asked waits for the answer, so it is always taken.
                    let _taken = reply.send(command.spawn());
                }
            };
            thread::Builder::new().name("ezkl-starter".to_owned()).spawn(start_all)?;
            starter.insert(sender)
        }
    };
    let gone = || std::io::Error::other("the thread that starts processes is gone");
    orders.send((command, reply)).map_err(|_| gone())?;
    drop(starter);
    answer.recv().unwrap_or_else(|_| Err(gone()))
}

/// `message` with the last lines of what ezkl wrote.
pub(crate) fn join(message: &str, text: &str) -> String {
    const LINES: usize = 6;
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !message.contains(line)).collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join(" | ");
    if tail.is_empty() { message.to_owned() } else { format!("{message}: {tail}") }
}

fn forward_lines(stdout: impl Read, lines: &Sender<String>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = String::new();
        match reader.by_ref().take(LONGEST_LINE).read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if lines.send(line.trim_end().to_owned()).is_err() => return,
            Ok(_) => {}
        }
    }
}

fn forward_texts(stderr: impl Read, marker: Option<&str>, texts: &Sender<String>) {
    let mut reader = BufReader::new(stderr);
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(KEPT_TEXT as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        if marker == Some(line.trim_end()) {
            if texts.send(std::mem::take(&mut text)).is_err() {
                return;
            }
            continue;
        }
        text.push_str(&line);
        if text.len() > KEPT_TEXT {
            let start = (text.len() - KEPT_TEXT / 2..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.drain(..start);
        }
    }
    // Nobody listens any more when the child was dropped.
    let _unheard = texts.send(text);
}

/// What one look at a process shows.
struct Sample {
    rss_bytes: u64,
    peak_bytes: u64,
    cpu_ticks: u64,
    measured: bool,
    /// Only its entry in the process table is left, or some of its threads.
    ended: bool,
}

#[cfg(target_os = "linux")]
fn usage_of(id: u32) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib = |field: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap_or(0)
    };
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The fields after the command's name, which is in parentheses and may hold anything: utime is the 12th, stime the 13th.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Sample {
        rss_bytes: kib("VmRSS") * 1024,
        peak_bytes: kib("VmHWM") * 1024,
        cpu_ticks: ticks(11) + ticks(12),
        measured: !fields.is_empty(),
        ended: matches!(fields.first(), Some(&("Z" | "X"))),
    }
}

#[cfg(not(target_os = "linux"))]
fn usage_of(id: u32) -> Sample {
    let output = Command::new("ps").args(["-o", "rss=", "-p", &id.to_string()]).output();
    let kib: u64 = output.ok().and_then(|out| String::from_utf8_lossy(&out.stdout).trim().parse().ok()).unwrap_or(0);
    Sample { rss_bytes: kib * 1024, peak_bytes: kib * 1024, cpu_ticks: 0, measured: false, ended: false }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use shardproof_common::backend::{Job, Limits};
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_peak_is_forgotten_when_the_next_job_begins() {
        const LARGE: u64 = 256 << 20;
        let script = format!(
            "import sys\nx = b'1' * {LARGE}\nprint(1, flush=True)\nsys.stdin.readline()\ndel x\nprint(2, flush=True)\n\
             sys.stdin.readline()\nprint(3, flush=True)\nsys.stdin.readline()"
        );
        let mut command = Command::new("python3");
        command.args(["-I", "-c", &script]);
        let cancel = CancellationToken::new();
        let directory = std::env::temp_dir();
        let job = Job { directory: &directory, limits: Limits::default(), cancel: &cancel, progress: &|_| {} };
        let frame = Frame::new(&job, Duration::from_secs(60));
        let mut child = Child::start(command, None).unwrap();
        let next = |child: &mut Child, expected: &str| {
            assert_eq!(child.next_line("test", &frame).unwrap().as_deref(), Some(expected));
        };
        next(&mut child, "1");
        child.say("").unwrap();
        next(&mut child, "2");
        assert!(child.peak_rss_bytes() > LARGE);
        assert!(child.begin_anew() < LARGE / 2);
        child.say("").unwrap();
        next(&mut child, "3");
        let peak = child.peak_rss_bytes();
        assert!(peak > 0 && peak < LARGE / 2, "{peak}");
    }
}
