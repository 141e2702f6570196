//! Counts streams that came to nothing; a client that goes on with them is cut off. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Wasted streams a client may have at once; page reloads and races produce some.
const BURST: u32 = 100;
/// One is forgotten after this time.
const FORGET_EVERY: Duration = Duration::from_millis(100);

/// Streams of one connection that were reset, refused, or never said what they are.
#[derive(Debug)]
pub(super) struct Strikes {
    /// When all strikes so far will be forgotten.
    due: Option<Instant>,
}

impl Strikes {
    pub(super) fn new() -> Self {
        Self { due: None }
    }

    /// Counts some; whether that is too many.
    pub(super) fn add(&mut self, count: u32, now: Instant) -> bool {
        let due = self.due.map_or(now, |due| due.max(now)) + FORGET_EVERY * count;
        self.due = Some(due);
        due > now + FORGET_EVERY * BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_a_slow_trickle_pass_and_a_flood_does_not() {
        let (mut strikes, start) = (Strikes::new(), Instant::now());
        assert!(!strikes.add(BURST, start));
        for count in 1..1000 {
            assert!(!strikes.add(1, start + FORGET_EVERY * count));
        }
        let end = start + FORGET_EVERY * 1000;
        assert!(!strikes.add(1, end));
        assert!(strikes.add(1, end));
    }
}
