//! What is always in memory, read when the store is opened: what was taken from whose tokens, and how many push
//! intents wait.

use std::sync::Arc;

use super::disk::Disk;
use super::failures::read_failed;
use super::recent::RecentMarkers;
use super::{keys, values};
use crate::store::{INTENT_SHARDS, StoreError};

impl Disk {
    /// Reads what is always in memory. Before anything else is asked.
    pub(super) fn load(&mut self) -> Result<(), StoreError> {
        if self.space.is_empty().map_err(read_failed)? {
            self.recent = Arc::new(RecentMarkers::new(None));
        }
        for item in self.space.prefix(keys::ERASURES) {
            let (key, value) = item.into_inner().map_err(read_failed)?;
            let erasure = values::decode("an erasure", &value)?;
            self.standings.load(keys::user_hash(&key)?, |standing| standing.erasure = Some(erasure));
        }
        for item in self.space.prefix(keys::REVOCATIONS) {
            let (key, value) = item.into_inner().map_err(read_failed)?;
            let before_ms = values::decode("a revocation", &value)?;
            self.standings.load(keys::user_hash(&key)?, |standing| standing.refused_before_ms = before_ms);
        }
        self.intents.load(&self.count_intents()?);
        Ok(())
    }

    /// How many intents there are in each shard. Reads all of them.
    fn count_intents(&self) -> Result<Vec<u64>, StoreError> {
        let mut counts = vec![0; INTENT_SHARDS];
        for item in self.space.prefix(keys::INTENTS) {
            match self.unless_damaged(item.key().map_err(read_failed))? {
                Some(key) => counts[usize::from(keys::intent_shard(&key)?)] += 1,
                None => return self.count_around_damage(),
            }
        }
        Ok(counts)
    }
}
