//! The wall clock, for what people read. Order and dedupe never depend on it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now in Unix milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
