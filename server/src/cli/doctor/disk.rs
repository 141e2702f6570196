//! The disk of the data directory: kind of file system, space, and how fast it syncs.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Findings, Level};

const CHECK: &str = "disk";
/// Syncs that are measured.
const SYNCS: usize = 64;
/// Bytes written before each.
const BLOCK_BYTES: usize = 4096;
/// No more than this is spent on measuring.
const MEASURE_TIME: Duration = Duration::from_secs(5);
/// A median above this makes single messages slow.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// A median below this means that the disk, or a layer above it, may not sync at all.
const SYNC_DOUBTFUL: Duration = Duration::from_micros(15);
/// Less free space than this is worth a warning, and than this a failure.
const FREE_WARN_BYTES: u64 = 2 << 30;
const FREE_FAIL_BYTES: u64 = 256 << 20;

pub(super) fn check(data_dir: &Path, findings: &mut Findings) {
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let Some(existing) = absolute.ancestors().find(|path| path.is_dir()) else {
        return findings.fail(
            CHECK,
            format!("{} cannot be made", data_dir.display()),
            "choose node.data_dir",
        );
    };
    check_kind(existing, findings);
    check_space(existing, findings);
    match measure(existing) {
        Err(error) => findings.fail(
            CHECK,
            format!("{}: {error}", existing.display()),
            "make it writable for the user that runs this and the node, or choose node.data_dir",
        ),
        Ok(mut times) => {
            times.sort_unstable();
            let total: Duration = times.iter().sum();
            let rate = times.len() as f64 / total.as_secs_f64().max(f64::EPSILON);
            let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            let text = format!("{rate:.0} fdatasync/s, P50 {p50:.1?}, P99 {p99:.1?}");
            if p50 > SYNC_SLOW {
                findings.warn(CHECK, text, "every message waits for one of these: use a faster disk");
            } else if p50 < SYNC_DOUBTFUL {
                findings.warn(
                    CHECK,
                    text,
                    "too fast to be true: does this disk keep what it says it has synced?",
                );
            } else {
                findings.ok(CHECK, text);
            }
        }
    }
}

fn check_kind(dir: &Path, findings: &mut Findings) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(kind) = kind_of(dir, &mounts) else {
        return findings.add(CHECK, Level::Unknown, "the kind of file system cannot be told", "");
    };
    let text = format!("{} is on {kind}", dir.display());
    match kind.as_str() {
        "tmpfs" | "ramfs" => {
            findings.warn(CHECK, text, "nothing there survives a reboot: put node.data_dir on a disk")
        }
        "overlay" | "aufs" => {
            findings.warn(CHECK, text, "a container's own layer goes with the container: mount a volume");
        }
        kind if ["nfs", "nfs4", "cifs", "smb3", "9p"].contains(&kind) || kind.starts_with("fuse") => {
            findings.warn(CHECK, text, "locks and syncs may not hold over a network: use a local disk");
        }
        _ => findings.ok(CHECK, text),
    }
}

/// The type of the file system of a directory: that of the longest mount point above it; of two mounts
/// on one point the later is seen.
fn kind_of(dir: &Path, mountinfo: &str) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        Some((point, kind.split(' ').next()?.to_owned()))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point));
    above.max_by_key(|(point, _)| Path::new(point).components().count()).map(|(_, kind)| kind)
}

fn check_space(dir: &Path, findings: &mut Findings) {
    let Ok(space) = rustix::fs::statvfs(dir) else {
        return findings.add(CHECK, Level::Unknown, "the free space cannot be told", "");
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let text = format!("{} MiB free", free >> 20);
    if free < FREE_FAIL_BYTES {
        findings.fail(CHECK, text, "the node ends when it cannot write: make room");
    } else if free < FREE_WARN_BYTES {
        findings.warn(CHECK, text, "make room before it runs out");
    } else {
        findings.ok(CHECK, text);
    }
}

/// The times of small synced writes to a file that is removed again.
fn measure(dir: &Path) -> io::Result<Vec<Duration>> {
    let path = dir.join(format!(".tern-doctor-{:016x}", rand::random::<u64>()));
    let mut file = File::options().write(true).create_new(true).open(&path)?;
    let measured = syncs(&mut file);
    let removed = std::fs::remove_file(&path);
    let times = measured?;
    removed.map(|()| times)
}

fn syncs(file: &mut File) -> io::Result<Vec<Duration>> {
    let begun = Instant::now();
    let mut times = Vec::with_capacity(SYNCS);
    while times.len() < SYNCS && (times.is_empty() || begun.elapsed() < MEASURE_TIME) {
        let start = Instant::now();
        file.write_all(&[0x5a; BLOCK_BYTES])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                      23 22 0:5 / /run rw - tmpfs tmpfs rw\n\
                      24 22 0:6 / /var/lib/tern\\040data rw - nfs4 server:/ rw\n";
        let kind = |dir: &str| kind_of(Path::new(dir), mounts).unwrap();
        assert_eq!(kind("/var/lib/tern"), "ext4");
        assert_eq!(kind("/run/tern"), "tmpfs");
        assert_eq!(kind("/running"), "ext4");
        assert_eq!(kind("/var/lib/tern data/x"), "nfs4");
        assert_eq!(kind_of(Path::new("/x"), ""), None);
    }
}
