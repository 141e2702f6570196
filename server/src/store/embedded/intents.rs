//! Where to start looking for push intents.
//!
//! Cleared intents leave tombstones at the front of their key range until tables are merged.
//! Without a lower bound every look would step over all of them again.

use parking_lot::Mutex;

/// No intent that a finished commit wrote and nobody cleared has an earlier time than this.
#[derive(Default)]
pub(super) struct IntentFloor(Mutex<State>);

#[derive(Default)]
struct State {
    floor_ms: u64,
    /// Earliest time written since the current scan began.
    since_scan_ms: u64,
}

impl IntentFloor {
    /// A scan begins; returns the time to start at. One scan at a time.
    pub(super) fn begin_scan(&self) -> u64 {
        let mut state = self.0.lock();
        state.since_scan_ms = u64::MAX;
        state.floor_ms
    }

    /// The scan that began last met nothing before `first_ms`.
    pub(super) fn end_scan(&self, first_ms: u64) {
        let mut state = self.0.lock();
        state.floor_ms = first_ms.min(state.since_scan_ms);
    }

    /// A commit with an intent of this time has become visible, and has not been answered yet.
    pub(super) fn note(&self, time_ms: u64) {
        let mut state = self.0.lock();
        state.floor_ms = state.floor_ms.min(time_ms);
        state.since_scan_ms = state.since_scan_ms.min(time_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_committed_at_any_point_of_a_scan_is_found_by_the_next() {
        let floor = IntentFloor::default();
        floor.begin_scan();
        floor.end_scan(1_000);
        assert_eq!(floor.begin_scan(), 1_000);
        floor.note(400); // too late for this scan
        floor.end_scan(1_000);
        assert_eq!(floor.begin_scan(), 400);
        floor.end_scan(1_000);
        floor.note(300); // between scans
        assert_eq!(floor.begin_scan(), 300);
    }
}
