//! The client's clock: Unix milliseconds that never go back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Follows the system's clock forwards, also over a sleep of the machine, which monotonic clocks
/// leave out; where the system's clock is set back, it goes on at the monotonic pace.
#[derive(Debug)]
pub(crate) struct Clock {
    last_ms: u64,
    last: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { last_ms: unix_ms(), last: Instant::now() }
    }

    pub(crate) fn now_ms(&mut self) -> u64 {
        let elapsed = self.last.elapsed();
        let elapsed_ms = elapsed.as_millis() as u64;
        let now_ms = unix_ms().max(self.last_ms + elapsed_ms);
        if now_ms > self.last_ms {
            self.last_ms = now_ms;
            // Keep the part below a millisecond: a clock asked often must not stand still.
            self.last += Duration::from_millis(elapsed_ms);
        }
        now_ms
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
