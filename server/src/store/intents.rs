//! Push intents: what was committed and is still to be told to those who have not seen it.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tern_protocol::{ConversationId, Entry, UserId};
use xxhash_rust::xxh3::xxh3_64;

use super::StoreError;

/// Intents are kept in so many shards, so that the nodes of a fleet share them out.
pub const INTENT_SHARDS: usize = 256;

/// The shard of a conversation's intents. Fixed for ever: it is part of where they are stored.
pub fn intent_shard(conversation: ConversationId) -> u8 {
    xxh3_64(conversation.as_bytes()) as u8
}

/// That the push events of an append group are due: one for all entries of it that are to be pushed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intent {
    /// Which log.
    pub conversation: ConversationId,
    /// The first of the entries. Those between that are not messages are of no interest.
    pub from_seq: u64,
    /// The last of them.
    pub to_seq: u64,
    /// Time of the first in Unix milliseconds.
    pub time_ms: u64,
    /// Who wrote them, if one user did: they need not be told.
    pub sender: Option<UserId>,
}

impl Intent {
    /// The intent for these entries of a log, ascending; `None` if there are none.
    pub fn of<'a>(
        conversation: ConversationId,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Option<Self> {
        let mut entries = entries.into_iter();
        let first = entries.next()?;
        let mut intent = Self {
            conversation,
            from_seq: first.seq,
            to_seq: first.seq,
            time_ms: first.time_ms,
            sender: Some(first.sender.clone()),
        };
        for entry in entries {
            intent.to_seq = entry.seq;
            intent.sender = intent.sender.filter(|sender| *sender == entry.sender);
        }
        Some(intent)
    }

    /// Where it is kept.
    pub fn shard(&self) -> u8 {
        intent_shard(self.conversation)
    }
}

/// Push intents, kept until their events have left.
#[async_trait]
pub trait Intents: Send + Sync {
    /// The oldest intents of these shards by time, at most `limit`, whose time is in this range. A shard with
    /// nothing in it costs nothing.
    async fn intents(
        &self,
        shards: &[u8],
        times_ms: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<Intent>, StoreError>;

    /// Forgets intents. After a crash some may be seen again.
    async fn clear_intents(&self, intents: &[Intent]) -> Result<(), StoreError>;

    /// How many intents wait in each of these shards, due or not; one answer per shard, in order.
    async fn intents_waiting(&self, shards: &[u8]) -> Result<Vec<u64>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_a_conversation_is_fixed() {
        let shards = [0, 1, 255].map(|byte| intent_shard(ConversationId::from_bytes([byte; 16])));
        assert_eq!(shards, [104, 14, 19], "these are stored: changing them loses intents");
    }
}
