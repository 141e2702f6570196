//! An append group on its way to the committer, with the keys and values that depend on nothing else: made
//! where there are many threads.

use std::sync::Arc;

use bytes::Bytes;

use super::intents::IntentChange;
use super::keys;
use super::values::{self, Head, Row};
use crate::store::{AppendGroup, NewEntry};

/// A group that was checked.
pub(super) struct Append {
    pub(super) group: Arc<AppendGroup>,
    pub(super) records: Vec<Record>,
    /// Inbox rows of who has gone.
    pub(super) departures: Vec<(Bytes, Bytes)>,
    /// Read positions that it moves; the last of a key counts.
    pub(super) reads: Vec<(Bytes, Bytes)>,
    pub(super) intent: Option<(IntentChange, Bytes, Bytes)>,
}

/// The rows of an entry.
pub(super) struct Record {
    pub(super) entry: (Bytes, Bytes),
    pub(super) marker: Option<(Bytes, Bytes)>,
}

impl Append {
    /// Makes keys and values of a group that was checked.
    pub(super) fn new(group: Arc<AppendGroup>) -> Self {
        let AppendGroup { conversation, entries, state, departures, .. } = &*group;
        let departures = departures.iter().map(|gone| {
            let at = entries.iter().find(|new| new.entry.seq == gone.until_seq);
            let (messages, time_ms) = at
                .map_or((state.messages, state.last_time_ms), |new| (new.entry.messages, new.entry.time_ms));
            let until = Some(Head { seq: gone.until_seq, messages, time_ms });
            let row = Row { first_seq: gone.first_seq, until };
            (keys::row(&gone.user, *conversation), values::encode(&row))
        });
        let departures = departures.collect();
        let record = |new: &NewEntry| {
            let entry = &new.entry;
            Record {
                entry: (keys::entry(*conversation, entry.seq), new.stored()),
                marker: entry.temp_id.map(|temp_id| {
                    let key = keys::marker(*conversation, &entry.sender, temp_id);
                    (key, values::encode_marker(entry.seq, new.digest))
                }),
            }
        };
        let records = entries.iter().map(record).collect();
        let reads = group.reads().into_iter();
        let reads =
            reads.map(|(user, read)| (keys::read(user, *conversation), values::encode(&read))).collect();
        let intent = group.intent().map(|intent| {
            let change = IntentChange::Written { shard: intent.shard(), time_ms: intent.time_ms };
            (change, keys::intent(&intent), values::encode_intent(&intent))
        });
        Self { records, departures, reads, intent, group }
    }
}
