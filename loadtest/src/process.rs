//! What the system says of a process: its memory, its processor time and its limits.

use std::io;
use std::time::Duration;

/// Ticks per second in which Linux tells processor time, on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process that is in RAM (`VmRSS`), in bytes.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_resident(&text).ok_or_else(|| io::Error::other("no VmRSS in the status of the process"))
}

/// Processor time of a process since its start, in user and system mode, to 10 ms.
pub(crate) fn processor_time(pid: u32) -> io::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_processor_time(&text).ok_or_else(|| io::Error::other("no times in the stat of the process"))
}

/// An error that says what to do, if this process may not hold so many file descriptors.
pub(crate) fn ensure_descriptors(needed: u64) -> anyhow::Result<()> {
    let text = std::fs::read_to_string("/proc/self/limits")?;
    let allowed = parse_descriptors(&text).unwrap_or(u64::MAX);
    anyhow::ensure!(
        needed <= allowed,
        "{needed} file descriptors are needed and {allowed} allowed: run `ulimit -n {needed}` first"
    );
    Ok(())
}

fn parse_resident(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1024)
}

/// The soft limit; `None` if there is none.
fn parse_descriptors(limits: &str) -> Option<u64> {
    let row = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    row.split_ascii_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15. The second is the program's name in brackets and may contain anything, so
/// counting starts behind the last bracket.
fn parse_processor_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t 999 kB\nVmRSS:\t    1234 kB\nRssAnon:\t 7 kB\n";
        assert_eq!(parse_resident(status), Some(1234 * 1024));
        assert_eq!(parse_resident("Name:\tx\n"), None);
    }

    #[test]
    fn processor_time_is_user_and_system_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 25 1000 1000 20 0";
        assert_eq!(parse_processor_time(stat), Some(Duration::from_millis(1750)));
        assert_eq!(parse_processor_time("42 (x) S 1"), None);
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_read_and_unlimited_is_none() {
        let row = "Max cpu time   unlimited unlimited seconds\nMax open files  1024  20000  files\n";
        assert_eq!(parse_descriptors(row), Some(1024));
        assert_eq!(parse_descriptors("Max open files  unlimited  unlimited  files\n"), None);
        ensure_descriptors(1).unwrap();
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes(std::process::id()).unwrap() > 0);
        processor_time(std::process::id()).unwrap();
    }
}
