//! What a server costs while something is done to it, and how long the messages of others take meanwhile.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::client::{RawClient, Wire, pair};
use crate::server::Server;

/// How often memory is looked at for its peak.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Messages of the innocent pair before anything is done, to compare with.
const QUIET: usize = 100;
/// Between two messages of the innocent pair.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a page of memory.
const PAGE_BYTES: u64 = 4096;

/// Memory of the process, in bytes.
pub fn resident_bytes(server: &Server) -> u64 {
    resident(server.pid())
}

fn resident(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

/// Processor time of the process so far, in milliseconds, by a clock of ten.
fn processor_ms(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = |place| after_name.split(' ').nth(place).and_then(|ticks| ticks.parse::<u64>().ok());
    10 * (ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0))
}

/// Bytes that the kernel keeps for TCP connections of this local port until their peers have taken them.
pub fn unsent_bytes(port: u16) -> u64 {
    let mut sum = 0;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let of_port = columns[1].ends_with(&format!(":{port:04X}"));
            // Of a listening socket it counts connections that wait.
            if of_port && columns[3] != "0A" {
                sum += u64::from_str_radix(&columns[4][..8], 16).unwrap_or(0);
            }
        }
    }
    sum
}

/// Memory that the kernel uses for all TCP connections of this machine, in bytes.
fn kernel_bytes() -> u64 {
    let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    tcp.rsplit(' ').next().and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

/// Watches a server from its making to [`Meter::finish`].
pub struct Meter {
    pid: u32,
    resident: u64,
    processor_ms: u64,
    kernel: u64,
    start: Instant,
    peaks: Arc<[AtomicU64; 2]>,
    looking: JoinHandle<()>,
}

/// What it cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Most that the memory of the process grew by, in bytes.
    pub grown: u64,
    /// Most that the kernel's memory for TCP grew by, in bytes, that of others included.
    pub kernel: u64,
    /// Processor time, in milliseconds.
    pub processor_ms: u64,
    /// How long it took.
    pub lasted: Duration,
}

impl Meter {
    /// Begins.
    pub fn start(server: &Server) -> Self {
        let pid = server.pid();
        let peaks = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let seen = peaks.clone();
        let looking = tokio::spawn(async move {
            loop {
                seen[0].fetch_max(resident(pid), Ordering::Relaxed);
                seen[1].fetch_max(kernel_bytes(), Ordering::Relaxed);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        let (resident, processor_ms) = (resident(pid), processor_ms(pid));
        Self { pid, resident, processor_ms, kernel: kernel_bytes(), start: Instant::now(), peaks, looking }
    }

    /// Ends.
    pub fn finish(self) -> Cost {
        self.looking.abort();
        let peak = |at: usize, now: u64, before: u64| {
            self.peaks[at].load(Ordering::Relaxed).max(now).saturating_sub(before)
        };
        Cost {
            grown: peak(0, resident(self.pid), self.resident),
            kernel: peak(1, kernel_bytes(), self.kernel),
            processor_ms: processor_ms(self.pid) - self.processor_ms,
            lasted: self.start.elapsed(),
        }
    }
}

/// How long something took each time. Printed for whoever reads the log; the machine's mood never decides a
/// test.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    count: usize,
    median: Duration,
    p99: Duration,
}

impl Times {
    /// Of at least one.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        Self { count: times.len(), median: at(50), p99: at(99) }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} times, median {:?}, P99 {:?}", self.count, self.median, self.p99)
    }
}

/// Two users who have nothing to do with what is done: one writes, the other gets everything in order.
pub struct Innocents {
    quiet: Times,
    quiet_ms: u64,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Duration>>,
}

impl Innocents {
    /// They have talked for a while when this returns, and go on.
    pub async fn start(server: &Server, wire: Wire) -> Self {
        let mut ines = RawClient::open(server, wire, "ines").await;
        let mut ivan = RawClient::open(server, wire, "ivan").await;
        let (mut quiet, pid) = (Vec::new(), server.pid());
        let before = processor_ms(pid);
        for _ in 0..QUIET {
            quiet.push(talk(&mut ines, &mut ivan).await);
        }
        let quiet_ms = processor_ms(pid) - before;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut times = vec![talk(&mut ines, &mut ivan).await];
            while !stopped.load(Ordering::Relaxed) {
                times.push(talk(&mut ines, &mut ivan).await);
            }
            times
        });
        Self { quiet: Times::of(quiet), quiet_ms, stop, task }
    }

    /// Every message has arrived.
    ///
    /// # Panics
    /// If one has not.
    pub async fn finish(self) -> Innocent {
        self.stop.store(true, Ordering::Relaxed);
        let during = Times::of(self.task.await.expect("every message of the innocent pair arrives"));
        let processor_ms = self.quiet_ms * during.count as u64 / QUIET as u64;
        Innocent { quiet: self.quiet, during, processor_ms }
    }
}

/// How it was for them.
#[derive(Clone, Copy, Debug)]
pub struct Innocent {
    /// How long messages took before.
    pub quiet: Times,
    /// How long they took since.
    pub during: Times,
    /// About how much of the server's processor time since then was theirs, in milliseconds.
    pub processor_ms: u64,
}

/// One message, from being sent to being there.
async fn talk(ines: &mut RawClient, ivan: &mut RawClient) -> Duration {
    tokio::time::sleep(PAUSE).await;
    let start = Instant::now();
    let ack = ines.say("ivan", "meanwhile").await;
    let entry = ivan.entry(pair("ines", "ivan")).await;
    assert_eq!(entry.seq, ack.seq, "each message once, in order");
    ivan.ack(pair("ines", "ivan"), entry.seq).await;
    start.elapsed()
}
