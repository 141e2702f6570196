//! Who makes room when a user has too many sessions. Pure.

use std::time::{Duration, Instant};

/// Sessions that were silent for about the same time are all alike: a second says nothing about who is dead.
const ALIKE: Duration = Duration::from_secs(1);

/// A session that could make room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// It is on the device that the new one is on.
    pub(super) same_device: bool,
    /// When something was last heard from it.
    pub(super) heard: Instant,
}

/// Which of them goes; they stand in the order in which they came. First one of the same device, which has
/// come back; then the one that was silent for longest; of several alike the oldest.
pub(super) fn victim(candidates: &[Candidate]) -> usize {
    let same_device = candidates.iter().any(|candidate| candidate.same_device);
    let eligible = || {
        let all = candidates.iter().enumerate();
        all.filter(|(_, candidate)| candidate.same_device == same_device)
    };
    let longest = eligible().map(|(_, candidate)| candidate.heard).min();
    let silent = |heard: Instant| longest.is_none_or(|longest| heard <= longest + ALIKE);
    eligible().find(|(_, candidate)| silent(candidate.heard)).map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(candidates: &[(bool, u64)]) -> usize {
        let start = Instant::now();
        let candidate = |(same_device, heard_ms): &(bool, u64)| Candidate {
            same_device: *same_device,
            heard: start + Duration::from_millis(*heard_ms),
        };
        victim(&candidates.iter().map(candidate).collect::<Vec<_>>())
    }

    #[test]
    fn the_same_device_goes_first_then_the_longest_silent_then_the_oldest() {
        assert_eq!(goes(&[(false, 0), (true, 90_000), (true, 5_000)]), 2, "not the laptop");
        assert_eq!(goes(&[(false, 90_000), (false, 5_000), (false, 60_000)]), 1);
        assert_eq!(goes(&[(false, 900), (false, 0), (false, 60_000)]), 0, "a second is no difference");
        assert_eq!(goes(&[(true, 0), (true, 0)]), 0);
        assert_eq!(goes(&[(false, 7)]), 0);
    }
}
