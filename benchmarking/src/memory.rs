//! Peak memory of processes with their children.
//!
//! A process's own peak is the system's (`VmHWM`), so it is exact however short it was. Children are seen by looking: every
//! [`INTERVAL`] the resident sizes of a process and all its descendants are added up. A child that lives for less than that
//! may be missed; proof systems that run in children take seconds.

use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the sizes are looked at.
pub const INTERVAL: Duration = Duration::from_millis(10);
/// Deepest nesting of children that is followed.
const DEPTH: u32 = 16;

/// Watches processes until it is asked for their peaks.
#[derive(Debug)]
pub struct MemoryWatch {
    peaks: Arc<Mutex<Vec<u64>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Watches these processes; where the system doesn't tell, peaks stay 0.
    pub fn start(processes: Vec<u32>) -> Self {
        let peaks = Arc::new(Mutex::new(vec![0; processes.len()]));
        let (stop, stopped) = mpsc::channel();
        let shared = Arc::clone(&peaks);
        let watch = move || {
            loop {
                for (index, &process) in processes.iter().enumerate() {
                    let now = own_peak(process).max(resident_tree(process, DEPTH));
                    let mut peaks = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    peaks[index] = peaks[index].max(now);
                }
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        Self { peaks, stop: Some(stop), thread: Some(thread::spawn(watch)) }
    }

    /// Peaks so far in bytes, in the order of the processes. Processes that ended keep theirs.
    pub fn peaks(&self) -> Vec<u64> {
        self.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only fails by a panic, of which it has told already.
            let _told_already = thread.join();
        }
    }
}

/// Largest resident size that one process ever had, bytes; 0 where it is gone or the system doesn't say.
fn own_peak(process: u32) -> u64 {
    field(process, "VmHWM:")
}

/// Resident size of a process and its descendants now, bytes.
fn resident_tree(process: u32, depth: u32) -> u64 {
    let own = field(process, "VmRSS:");
    if depth == 0 {
        return own;
    }
    children(process).into_iter().fold(own, |sum, child| sum + resident_tree(child, depth - 1))
}

fn field(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let rest = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = rest.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Children that any thread of the process has started.
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn a_childs_memory_counts() {
        // 64 MiB in a grandchild of this process's child, held until the watch has seen it.
        let script = "b = bytearray(64 << 20); b[::4096] = b'x' * len(b[::4096]); import time; time.sleep(60)";
        let mut child = Command::new("sh").args(["-c", &format!("python3 -c \"{script}\"; true")]).spawn().unwrap();
        let watch = MemoryWatch::start(vec![child.id()]);
        let started = Instant::now();
        while watch.peaks()[0] < 64 << 20 && started.elapsed() < Duration::from_secs(30) {
            thread::sleep(INTERVAL);
        }
        let peak = watch.peaks()[0];
        for process in children(child.id()) {
            Command::new("kill").arg(process.to_string()).status().unwrap();
        }
        child.wait().unwrap();
        assert!((64 << 20..1 << 30).contains(&peak), "{peak}");
        assert_eq!(watch.peaks()[0], peak.max(watch.peaks()[0]), "peaks are kept");
    }

    #[test]
    fn who_is_gone_has_no_memory() {
        assert_eq!(own_peak(u32::MAX), 0);
        assert_eq!(resident_tree(u32::MAX, DEPTH), 0);
    }
}
