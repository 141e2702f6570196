//! The file descriptors of the process: raises their limit, and shares them out, so that clients never take
//! those that the store, the events and the port for operators need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For tables and journals of the store, and those being written. It keeps up to three quarters open.
const STORE: u64 = 1024;
/// The store works with no fewer files open than that.
const STORE_FILES_MIN: usize = 16;
/// For the port for operators: its connections, and what it reads of the process.
const OPS: u64 = 64;
/// For files of events.
const EVENTS: u64 = 32;
/// For listeners, the log, certificates, key sets that are fetched, and the runtime.
const OTHER: u64 = 96;
/// What clients never get.
const RESERVE: u64 = STORE + OPS + EVENTS + OTHER;
/// With a lower limit a node serves few clients, and an operator is told.
const FEW: u64 = 4096;

/// How many descriptors the process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    limit: u64,
}

impl Descriptors {
    /// Raises the limit of the process as far as it may do that itself, and says what it is then.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum {
            // Where that is refused, the limit is what it was.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        }
        Self::now()
    }

    /// The limit as it is.
    pub fn now() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// A limit.
    pub fn of(limit: u64) -> Self {
        Self { limit }
    }

    /// The limit.
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// Whether an operator should give the process more.
    pub fn are_few(self) -> bool {
        self.limit < FEW
    }

    /// How many connections clients may have together, of those that take a descriptor.
    pub fn connections(self) -> usize {
        usize::try_from(self.limit - self.reserve()).unwrap_or(usize::MAX)
    }

    /// How many files the store may keep open because it could need them again.
    pub fn store_files(self) -> usize {
        ((self.reserve() * STORE / RESERVE * 3 / 4) as usize).max(STORE_FILES_MIN)
    }

    /// What clients never get. Where there are few in all, they get half.
    fn reserve(self) -> u64 {
        RESERVE.min(self.limit / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_node_itself_does_not_need_and_half_of_little() {
        assert_eq!(Descriptors::of(65_536).connections(), 64_320);
        assert_eq!(Descriptors::of(4096).connections(), 2880);
        assert_eq!(Descriptors::of(1024).connections(), 512);
        assert_eq!(Descriptors::of(0).connections(), 0);
        assert_eq!(Descriptors::of(u64::MAX).connections() as u64, u64::MAX - RESERVE);
    }

    #[test]
    fn what_the_store_keeps_open_leaves_room_for_what_it_writes_and_for_the_others() {
        assert_eq!(Descriptors::of(1_000_000).store_files(), 768);
        for limit in [64, 120, 1024, 4096] {
            let descriptors = Descriptors::of(limit);
            let kept = descriptors.store_files() as u64;
            assert!(kept + kept / 4 + descriptors.connections() as u64 <= limit, "{limit}");
        }
    }

    #[test]
    fn an_operator_is_told_below_four_thousand() {
        assert!(Descriptors::of(4095).are_few());
        assert!(!Descriptors::of(4096).are_few());
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let raised = Descriptors::raise();
        assert_eq!(raised.limit(), getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
        assert_eq!(Descriptors::now(), raised);
    }
}
