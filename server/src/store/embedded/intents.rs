//! Where to start looking for push intents, and how many wait in each shard.
//!
//! Cleared intents leave tombstones at the front of their key range until tables are merged.
//! Without a lower bound every look would step over all of them again.

use parking_lot::Mutex;

use crate::store::INTENT_SHARDS;

/// What a commit did to the intents, in the order in which it did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntentChange {
    /// One of this time is new in a shard.
    Written { shard: u8, time_ms: u64 },
    /// One that was there is gone from a shard.
    Cleared { shard: u8 },
}

/// All shards. No intent that a finished commit wrote and nobody cleared is earlier than the floor of its
/// shard.
pub(super) struct IntentShards(Mutex<Vec<Shard>>);

#[derive(Clone, Default)]
struct Shard {
    floor_ms: u64,
    /// Earliest time written since the current scan began.
    since_scan_ms: u64,
    waiting: u64,
}

impl Default for IntentShards {
    fn default() -> Self {
        Self(Mutex::new(vec![Shard::default(); INTENT_SHARDS]))
    }
}

impl IntentShards {
    /// So many wait in each shard, found on disk.
    pub(super) fn load(&self, waiting: &[u64]) {
        for (shard, waiting) in self.0.lock().iter_mut().zip(waiting) {
            shard.waiting = *waiting;
        }
    }

    /// Intents in each of these shards.
    pub(super) fn waiting(&self, shards: &[u8]) -> Vec<u64> {
        let all = self.0.lock();
        shards.iter().map(|shard| all[usize::from(*shard)].waiting).collect()
    }

    /// A scan of a shard begins; returns the time to start at, `None` if nothing is there. One scan at a time.
    pub(super) fn begin_scan(&self, shard: u8) -> Option<u64> {
        let shard = &mut self.0.lock()[usize::from(shard)];
        shard.since_scan_ms = u64::MAX;
        (shard.waiting > 0).then_some(shard.floor_ms)
    }

    /// The scan that began last met nothing before `first_ms`.
    pub(super) fn end_scan(&self, shard: u8, first_ms: u64) {
        let shard = &mut self.0.lock()[usize::from(shard)];
        shard.floor_ms = first_ms.min(shard.since_scan_ms);
    }

    /// A commit has become visible, and has not been answered yet.
    pub(super) fn note(&self, changes: &[IntentChange]) {
        let mut shards = self.0.lock();
        for change in changes {
            match *change {
                IntentChange::Written { shard, time_ms } => {
                    let shard = &mut shards[usize::from(shard)];
                    shard.waiting += 1;
                    shard.floor_ms = shard.floor_ms.min(time_ms);
                    shard.since_scan_ms = shard.since_scan_ms.min(time_ms);
                }
                IntentChange::Cleared { shard } => {
                    let shard = &mut shards[usize::from(shard)];
                    shard.waiting = shard.waiting.saturating_sub(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_committed_at_any_point_of_a_scan_is_found_by_the_next() {
        let shards = IntentShards::default();
        shards.load(&[1; INTENT_SHARDS]);
        let written = |time_ms| shards.note(&[IntentChange::Written { shard: 7, time_ms }]);
        shards.begin_scan(7);
        shards.end_scan(7, 1_000);
        assert_eq!(shards.begin_scan(7), Some(1_000));
        written(400); // too late for this scan
        shards.end_scan(7, 1_000);
        assert_eq!(shards.begin_scan(7), Some(400));
        shards.end_scan(7, 1_000);
        written(300); // between scans
        assert_eq!(shards.begin_scan(7), Some(300));
        assert_eq!(shards.begin_scan(8), Some(0), "another shard");
    }

    #[test]
    fn a_shard_with_nothing_in_it_is_not_scanned() {
        let shards = IntentShards::default();
        assert_eq!(shards.begin_scan(3), None);
        shards.note(&[IntentChange::Written { shard: 3, time_ms: 5 }]);
        assert_eq!((shards.begin_scan(3), shards.waiting(&[2, 3])), (Some(0), vec![0, 1]));
        shards.note(&[IntentChange::Cleared { shard: 3 }]);
        assert_eq!(shards.begin_scan(3), None);
    }
}
