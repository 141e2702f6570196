//! The clocks: the wall clock for what people read, on which order and dedupe never depend, and the one that waits are measured by.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now in Unix milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The time of the runtime's clock, which stands still where a test wants that.
pub fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
