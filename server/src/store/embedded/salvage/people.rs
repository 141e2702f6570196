//! Who blocks whom, and what is counted of users, made from whatever row still says it.
//!
//! A block is a row for each side of it, a flag in the pair of the two and one in a count. What one of them lost is
//! made from the others, so that all say the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use tern_protocol::{ConversationId, ConversationKind, UserId};

use super::log::Mended;
use crate::store::Tally;
use crate::store::embedded::{keys, values};

/// All that was read of it.
#[derive(Default)]
pub(super) struct People {
    /// Since when, by who blocks and who is blocked.
    blocks: BTreeMap<(UserId, UserId), u64>,
    tallies: BTreeMap<UserId, Tally>,
}

/// The rows as they go into the new store.
pub(super) struct PeopleRows {
    pub(super) tallies: BTreeMap<Bytes, Bytes>,
    pub(super) blocks: BTreeMap<Bytes, Bytes>,
}

impl People {
    /// One of the two rows of a block.
    pub(super) fn block(&mut self, by: UserId, user: UserId, since_ms: u64) {
        let known = self.blocks.entry((by, user)).or_default();
        *known = since_ms.max(*known);
    }

    /// What was counted of a user.
    pub(super) fn tally(&mut self, user: UserId, tally: Tally) {
        self.tallies.insert(user, tally);
    }

    /// Makes it one: the pairs of `logs` say what the rows do.
    pub(super) fn mend(mut self, logs: &mut BTreeMap<ConversationId, Mended>) -> PeopleRows {
        for (id, log) in &*logs {
            self.by_pair(*id, log);
        }
        let mut blocked_by: HashMap<ConversationId, BTreeSet<UserId>> = HashMap::new();
        for (by, user) in self.blocks.keys() {
            blocked_by.entry(ConversationId::pair(by, user)).or_default().insert(by.clone());
        }
        for (id, log) in logs.iter_mut() {
            let mut by = blocked_by.remove(id).unwrap_or_default();
            let before = log.shape.blocked_by.len();
            log.shape.blocked_by.retain(|user| by.remove(user));
            log.is_shape_new |= log.shape.blocked_by.len() != before || !by.is_empty();
            log.shape.blocked_by.extend(by);
        }
        let tallies = self.counted(logs).into_iter().filter(|(_, tally)| *tally != Tally::default());
        let tallies = tallies.map(|(user, tally)| (keys::tally(&user), values::encode(&tally))).collect();
        let blocks = self.blocks.iter().flat_map(|((by, user), since_ms)| {
            let value = values::encode(since_ms);
            [(keys::block(by, user), value.clone()), (keys::block_of(user, by), value)]
        });
        PeopleRows { tallies, blocks: blocks.collect() }
    }

    /// The blocks that a pair tells of.
    fn by_pair(&mut self, id: ConversationId, log: &Mended) {
        for by in &log.shape.blocked_by {
            let mut users = log.shape.members.iter().map(|member| &member.user);
            if let Some(user) = users.find(|user| *user != by && ConversationId::pair(by, user) == id) {
                self.blocks.entry((by.clone(), user.clone())).or_insert(log.head.time_ms);
            }
        }
    }

    fn counted(&self, logs: &BTreeMap<ConversationId, Mended>) -> BTreeMap<UserId, Tally> {
        let paced = |(user, tally): (&UserId, &Tally)| {
            (user.clone(), Tally { paced_ms: tally.paced_ms, ..Tally::default() })
        };
        let mut counted: BTreeMap<UserId, Tally> = self.tallies.iter().map(paced).collect();
        for (by, _) in self.blocks.keys() {
            counted.entry(by.clone()).or_default().blocks += 1;
        }
        let groups = logs.values().filter(|log| log.shape.kind == ConversationKind::Group);
        for member in groups.flat_map(|log| &log.shape.members).filter(|member| member.added_by.is_some()) {
            counted.entry(member.user.clone()).or_default().added += 1;
        }
        counted
    }
}

impl PeopleRows {
    /// What this row says in the new store, if it is there.
    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.tallies.get(key).or_else(|| self.blocks.get(key)).cloned()
    }
}
