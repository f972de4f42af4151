//! What the kernel says of a process: CPU time and memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tandem_types::{Error, Result};

/// How Linux counts CPU time in `/proc`, on all of its platforms.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of a process, user and system, with its ended threads.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = read(pid, "stat")?;
    // The second field is the program's name, which may hold anything but ends with the last parenthesis.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    match (ticks.next(), ticks.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user + system) / TICKS_PER_SECOND),
        _ => Err(Error::internal(format!("/proc/{pid}/stat is not readable: {text:?}"))),
    }
}

/// CPU seconds of the thread that asks.
pub fn thread_cpu_seconds() -> Result<f64> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).map_err(|e| Error::unavailable(format!("{path}: {e}")))?;
    let nanos = text.split_whitespace().next().and_then(|first| first.parse::<f64>().ok());
    nanos.map(|nanos| nanos / 1e9).ok_or_else(|| Error::internal(format!("{path} is not readable: {text:?}")))
}

/// Bytes that a process has caused to be written to disks.
pub fn written_bytes(pid: u32) -> Result<u64> {
    let text = read(pid, "io")?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse().ok());
    bytes.ok_or_else(|| Error::internal(format!("/proc/{pid}/io says no write_bytes")))
}

/// Bytes of memory that belong to no file.
fn anonymous_bytes(pid: u32) -> Result<u64> {
    let text = read(pid, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| Error::internal(format!("/proc/{pid}/status says no RssAnon")))
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    std::fs::read_to_string(&path).map_err(|e| Error::unavailable(format!("{}: {e}", path.display())))
}

/// Watches a process's anonymous memory until it is dropped.
pub struct MemoryWatch {
    peak: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl MemoryWatch {
    /// Looks 50 times a second, from a thread that a busy runtime cannot hold up.
    pub fn start(pid: u32) -> Self {
        let (peak, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let watch = Self { peak: peak.clone(), ended: ended.clone() };
        std::thread::spawn(move || {
            while let Ok(bytes) = anonymous_bytes(pid)
                && !ended.load(Ordering::Relaxed)
            {
                peak.fetch_max(bytes, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        watch
    }

    /// The highest so far, in bytes.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// The machine's load over the last minute: above the number of processors, wall times mean little.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
}
