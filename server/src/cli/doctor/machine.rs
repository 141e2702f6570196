//! The clock, the limits of the process and the settings of the kernel.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Findings, Level};

/// No node of this program can have run before: 2026 in Unix seconds.
const EARLIEST_S: u64 = 1_767_225_600;
/// Open files for a node that serves many: a WebSocket takes one, QUIC sessions share one.
const FILES_WANTED: u64 = 65_536;
/// Fewer do not even suffice for the store and a few hundred WebSockets.
const FILES_MIN: u64 = 1024;
/// Kernel settings, what they should be at least, and why.
const KERNEL: [(&str, u64, &str); 4] = [
    ("net.core.rmem_max", 2 << 20, "bursts of QUIC packets are dropped beyond it"),
    ("net.core.wmem_max", 2 << 20, "sending to many QUIC clients waits beyond it"),
    ("net.core.somaxconn", 4096, "TCP connections that come at once are refused beyond it"),
    ("net.netfilter.nf_conntrack_max", 262_144, "the firewall drops connections beyond it"),
];

pub(super) fn check_clock(findings: &mut Findings) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now_s < EARLIEST_S {
        return findings.fail(
            "clock",
            "the clock stands before 2026",
            "set it: tokens and certificates depend on it",
        );
    }
    let timesync = Path::new("/run/systemd/timesync");
    if timesync.join("synchronized").exists() {
        findings.ok("clock", "synchronised by systemd-timesyncd");
    } else if ["/run/chrony", "/var/run/chrony"].iter().any(|dir| Path::new(dir).is_dir()) {
        findings.ok("clock", "chrony runs; `chronyc tracking` tells how far off it is");
    } else if timesync.is_dir() {
        findings.warn(
            "clock",
            "systemd-timesyncd has not synchronised it",
            "see: timedatectl timesync-status",
        );
    } else {
        let advice = "tokens are checked against it: see that something synchronises it";
        findings.add("clock", Level::Unknown, "nothing tells whether it is synchronised", advice);
    }
}

pub(super) fn check_limits(findings: &mut Findings) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    match open_files(&limits) {
        None => findings.add("limits", Level::Unknown, "the limit of open files cannot be told", ""),
        Some(files) => {
            let text = format!("{files} open files (of this shell; a service has its own)");
            let advice = "systemd: LimitNOFILE=1048576; shell: ulimit -n";
            if files < FILES_MIN {
                findings.fail("limits", text, advice);
            } else if files < FILES_WANTED {
                findings.warn("limits", text, advice);
            } else {
                findings.ok("limits", text);
            }
        }
    }
    for (name, wanted, why) in KERNEL {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let Some(value) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok())
        else {
            continue;
        };
        if value < wanted {
            findings.warn("kernel", format!("{name} = {value}: {why}"), format!("sysctl -w {name}={wanted}"));
        } else {
            findings.ok("kernel", format!("{name} = {value}"));
        }
    }
}

/// The soft limit.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_what_counts() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(open_files(""), None);
    }
}
