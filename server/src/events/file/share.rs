//! How much of the event files one sender may fill: nobody's flood pushes out what is for everybody else. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tern_protocol::UserId;

/// A sender may fill this part of the files at once …
const PARTS: u64 = 4;
/// … and as much again in this time.
const REFILL: Duration = Duration::from_secs(600);
/// Senders that are remembered; those who wrote least lately make room.
const SENDERS_MAX: usize = 10_000;

/// What each sender has written lately.
#[derive(Debug)]
pub(super) struct Shares {
    bytes_max: u64,
    senders: HashMap<UserId, Written, RandomState>,
}

#[derive(Debug)]
struct Written {
    bytes: u64,
    at: Instant,
}

impl Shares {
    /// Of files that hold so many bytes together.
    pub(super) fn new(files_bytes: u64) -> Self {
        Self { bytes_max: files_bytes / PARTS, senders: HashMap::default() }
    }

    /// Whether an event of so many bytes is within its sender's share; then it counts.
    pub(super) fn take(&mut self, sender: &UserId, bytes: u64, now: Instant) -> bool {
        let bytes_max = self.bytes_max;
        if let Some(written) = self.senders.get_mut(sender) {
            written.bytes = written.left(bytes_max, now);
            written.at = now;
            if written.bytes + bytes > bytes_max {
                return false;
            }
            written.bytes += bytes;
            return true;
        }
        if self.senders.len() >= SENDERS_MAX {
            self.make_room(now);
        }
        self.senders.insert(sender.clone(), Written { bytes, at: now });
        true
    }

    /// So many bytes of a sender were not written after all.
    pub(super) fn give_back(&mut self, sender: &UserId, bytes: u64) {
        if let Some(written) = self.senders.get_mut(sender) {
            written.bytes = written.bytes.saturating_sub(bytes);
        }
    }

    /// Forgets the half that has written least.
    fn make_room(&mut self, now: Instant) {
        let bytes_max = self.bytes_max;
        let mut left: Vec<u64> = self.senders.values().map(|written| written.left(bytes_max, now)).collect();
        let middle = left.len() / 2;
        let limit = *left.select_nth_unstable(middle).1;
        self.senders.retain(|_, written| written.left(bytes_max, now) > limit);
    }
}

impl Written {
    /// What still counts.
    fn left(&self, bytes_max: u64, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.at).min(REFILL);
        let refilled = u128::from(bytes_max) * passed.as_millis() / REFILL.as_millis();
        self.bytes.saturating_sub(refilled as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> UserId {
        UserId::new(&format!("u{number}")).unwrap()
    }

    #[test]
    fn a_sender_fills_its_share_and_nobody_elses_and_gets_it_back_in_time() {
        let (mut shares, now) = (Shares::new(400), Instant::now());
        assert!((0..10).all(|_| shares.take(&user(1), 10, now)));
        assert!(!shares.take(&user(1), 1, now));
        assert!(shares.take(&user(2), 100, now), "others have theirs");
        let half = now + REFILL / 2;
        assert!(shares.take(&user(1), 50, half) && !shares.take(&user(1), 1, half));
        assert!(shares.take(&user(1), 100, half + REFILL));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_those_who_wrote_least() {
        let (mut shares, now) = (Shares::new(400), Instant::now());
        assert!(shares.take(&user(0), 100, now));
        for number in 1..3 * SENDERS_MAX {
            assert!(shares.take(&user(number), 1, now));
            assert!(shares.senders.len() <= SENDERS_MAX);
        }
        assert!(!shares.take(&user(0), 1, now), "the one that matters is remembered");
    }
}
