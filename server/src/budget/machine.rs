//! How much memory this process may take: what is configured, or a share of what the machine and its
//! control group allow.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;
/// The budget is never derived to be less.
const LEAST_MIB: u64 = 128;
/// The budget where the machine says nothing about its memory.
const UNKNOWN_MIB: u64 = 1024;

/// The `[memory]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Most memory for what clients make this node keep: connections, sessions, what waits for them, and
    /// conversations. From nine tenths of it on new sessions and reads are refused as temporary, with a hint
    /// when to come again; beyond it, everything new. Absent: half of the memory of the machine or of the
    /// control group (container, systemd unit), whichever is less, and at least 128. The other half is for
    /// the caches of the store, buffers of the network and the allocator.
    /// Example: `2048`.
    pub limit_mib: Option<NonZero<u32>>,
}

impl MemoryConfig {
    /// The budget in bytes.
    pub fn limit_bytes(&self, limits: &Limits) -> usize {
        let mib = match self.limit_mib {
            Some(mib) => u64::from(mib.get()),
            None => limits.least().map_or(UNKNOWN_MIB, |bytes| (bytes / 2 / MIB).max(LEAST_MIB)),
        };
        usize::try_from(mib * MIB).unwrap_or(usize::MAX)
    }
}

/// What bounds the memory of this process, in bytes; absent where the system does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory of the machine.
    pub machine: Option<u64>,
    /// The tightest limit of the control groups that this process is in.
    pub group: Option<u64>,
}

impl Limits {
    /// Asks the system.
    pub fn of_this_process() -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let limits = group_files(&groups).into_iter().filter_map(|file| group_limit(&read(&file)?));
        Self {
            machine: read(Path::new("/proc/meminfo")).as_deref().and_then(machine_memory),
            group: limits.min(),
        }
    }

    /// The tighter of both.
    pub fn least(&self) -> Option<u64> {
        [self.machine, self.group].into_iter().flatten().min()
    }
}

/// `MemTotal` of `/proc/meminfo`.
fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The files with the limits of the groups that `/proc/self/cgroup` names, and of those above them. Inside of
/// a container the own group looks like the root.
fn group_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        files.extend(own.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

/// A limit in a file; `max`, and the largest number that the older kind shows, are none.
fn group_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_half_of_the_tighter_limit_unless_it_is_configured() {
        let gib = 1024 * MIB;
        let bytes = |machine, group| {
            let limits = Limits { machine, group };
            MemoryConfig::default().limit_bytes(&limits) as u64
        };
        assert_eq!(bytes(Some(16 * gib), None), 8 * gib);
        assert_eq!(bytes(Some(16 * gib), Some(2 * gib)), gib);
        assert_eq!(bytes(Some(gib), Some(2 * gib)), gib / 2);
        assert_eq!(bytes(Some(gib), Some(64 * MIB)), LEAST_MIB * MIB);
        assert_eq!(bytes(None, None), UNKNOWN_MIB * MIB);
        let set = MemoryConfig { limit_mib: NonZero::new(7) };
        assert_eq!(set.limit_bytes(&Limits { machine: Some(gib), group: None }) as u64, 7 * MIB);
    }

    #[test]
    fn the_limits_of_a_group_and_of_those_above_it_are_found() {
        let files = |text| -> Vec<String> {
            group_files(text).into_iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            files("0::/system.slice/tern.service\n"),
            [
                "/sys/fs/cgroup/system.slice/tern.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            files("5:cpu:/x\n4:memory:/box\n"),
            [
                "/sys/fs/cgroup/memory/box/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert_eq!(group_limit("max\n"), None);
        assert_eq!(group_limit("9223372036854771712\n"), None);
        assert_eq!(group_limit("1073741824\n"), Some(1024 * MIB));
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(machine_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 * MIB));
        assert_eq!(machine_memory("nothing"), None);
        assert!(!cfg!(target_os = "linux") || Limits::of_this_process().machine.is_some());
    }
}
