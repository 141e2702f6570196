//! The rows of the store in memory, and what an append does to them.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use tern_protocol::{ConversationId, Entry, EntryBody, TempId, UserId};

use crate::store::people::carried;
use crate::store::{
    AppendGroup, Appended, Conversation, InboxRow, Intent, Kept, Marker, NewEntry, PeopleConfig,
    ReadPosition, Standing, StoreError, Tally, User,
};

#[derive(Default)]
pub(super) struct State {
    pub(super) conversations: HashMap<ConversationId, Arc<Conversation>>,
    pub(super) entries: BTreeMap<(ConversationId, u64), Arc<Entry>>,
    pub(super) markers: HashMap<(ConversationId, UserId, TempId), Marker>,
    pub(super) rows: BTreeMap<(UserId, ConversationId), InboxRow>,
    pub(super) reads: HashMap<(UserId, ConversationId), ReadPosition>,
    pub(super) users: HashMap<UserId, User>,
    /// By time, conversation and first seq.
    pub(super) intents: BTreeMap<(u64, ConversationId, u64), Intent>,
    pub(super) kept: HashMap<ConversationId, Kept>,
    pub(super) standings: HashMap<UserId, Standing>,
    /// Who blocks whom, and since when in Unix milliseconds.
    pub(super) blocks: BTreeMap<(UserId, UserId), u64>,
    pub(super) tallies: HashMap<UserId, Tally>,
    pub(super) people: PeopleConfig,
    /// The next append writes only the log, as one does that dies half-way in a store of several parts.
    #[cfg(test)]
    pub(super) is_torn: bool,
}

impl State {
    pub(super) fn append(&mut self, group: &AppendGroup) -> Result<Appended, StoreError> {
        group.check()?;
        let duplicates = self.duplicates(group);
        if !duplicates.is_empty() {
            return Ok(Appended::Duplicates(duplicates));
        }
        let barred = group.barred(self, &self.people)?;
        if !barred.is_empty() {
            return Ok(Appended::Barred(barred));
        }
        let head = self.conversations.get(&group.conversation).map_or(0, |current| current.head);
        if head != group.expected_head {
            return Ok(Appended::Conflict { head });
        }
        self.write(group);
        Ok(Appended::Applied)
    }

    pub(super) fn standing(&self, user: &UserId) -> Standing {
        self.standings.get(user).cloned().unwrap_or_default()
    }

    fn duplicates(&self, group: &AppendGroup) -> Vec<(usize, Marker)> {
        let marker = |new: &NewEntry| {
            let key = (group.conversation, new.entry.sender.clone(), new.entry.temp_id?);
            self.markers.get(&key).copied()
        };
        group.entries.iter().enumerate().filter_map(|(at, new)| Some((at, marker(new)?))).collect()
    }

    fn write(&mut self, group: &AppendGroup) {
        self.write_log(group);
        #[cfg(test)]
        if std::mem::take(&mut self.is_torn) {
            return;
        }
        self.write_marks(group);
    }

    /// Inbox rows, read positions and the push intent.
    fn write_marks(&mut self, group: &AppendGroup) {
        let AppendGroup { conversation, entries, state, departures, .. } = group;
        for gone in departures {
            let at = entries.iter().find(|new| new.entry.seq == gone.until_seq);
            let row = InboxRow {
                conversation: *conversation,
                last_seq: gone.until_seq,
                last_messages: at.map_or(state.messages, |new| new.entry.messages),
                last_time_ms: at.map_or(state.last_time_ms, |new| new.entry.time_ms),
                first_seq: gone.first_seq,
                until_seq: Some(gone.until_seq),
                read: ReadPosition::default(), // kept apart
            };
            self.rows.insert((gone.user.clone(), *conversation), row);
        }
        self.mark_members(*conversation, state);
        for (user, read) in group.reads() {
            self.reads.insert((user.clone(), *conversation), read);
        }
        if let Some(intent) = group.intent() {
            self.intents.insert((intent.time_ms, *conversation, intent.from_seq), intent);
        }
    }

    fn mark_members(&mut self, conversation: ConversationId, state: &Conversation) {
        for member in &state.members {
            let row = InboxRow {
                conversation,
                last_seq: state.head,
                last_messages: state.messages,
                last_time_ms: state.last_time_ms,
                first_seq: member.first_seq,
                until_seq: None,
                read: ReadPosition::default(), // kept apart
            };
            self.rows.insert((member.user.clone(), conversation), row);
        }
    }

    /// Writes again what of these entries is not in the log.
    pub(super) fn redo(&mut self, conversation: ConversationId, state: &Conversation, entries: &[Entry]) {
        self.mark_members(conversation, state);
        for entry in entries {
            let gone: &[UserId] = match &entry.body {
                EntryBody::Removed { users } => users,
                EntryBody::Left { user } => std::slice::from_ref(user),
                _ => &[],
            };
            for user in gone.iter().filter(|user| state.member(user).is_none()) {
                if let Some(row) = self.rows.get_mut(&(user.clone(), conversation)) {
                    (row.until_seq, row.last_seq) = (Some(entry.seq), entry.seq);
                    (row.last_messages, row.last_time_ms) = (entry.messages, entry.time_ms);
                }
            }
            let joined = state.members.iter().filter(|member| member.first_seq == entry.seq);
            let before = entry.messages - u64::from(entry.body.is_message());
            let joined = joined.map(|member| (&member.user, entry.seq - 1, before));
            let wrote = entry.body.is_message().then_some((&entry.sender, entry.seq, entry.messages));
            for (user, seq, messages) in joined.chain(wrote) {
                let read = self.reads.entry((user.clone(), conversation)).or_default();
                if seq > read.seq {
                    *read = ReadPosition { seq, messages };
                }
            }
        }
        let pushed = entries.iter().filter(|entry| entry.body.is_message() && state.members.len() > 1);
        if let Some(intent) = Intent::of(conversation, pushed) {
            self.intents.insert((intent.time_ms, conversation, intent.from_seq), intent);
        }
    }

    fn write_log(&mut self, group: &AppendGroup) {
        let AppendGroup { conversation, entries, state, .. } = group;
        for new in entries {
            let entry = &new.entry;
            if let Some(temp_id) = entry.temp_id {
                let marker = Marker { seq: entry.seq, digest: new.digest };
                self.markers.insert((*conversation, entry.sender.clone(), temp_id), marker);
            }
            self.entries.insert((*conversation, entry.seq), entry.clone());
        }
        let current = self.conversations.get(conversation).cloned();
        let state = current.as_ref().map_or_else(|| state.clone(), |current| carried(state, current));
        self.count_added(current.as_deref(), &state);
        self.conversations.insert(*conversation, state);
    }

    pub(super) fn row(&self, user: &UserId, row: &InboxRow) -> InboxRow {
        let read = self.reads.get(&(user.clone(), row.conversation));
        InboxRow { read: read.copied().unwrap_or_default(), ..row.clone() }
    }

    /// The entries of a log in a range.
    pub(super) fn log(
        &self,
        conversation: ConversationId,
        range: &RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        let range =
            (!range.is_empty()).then(|| (conversation, *range.start())..=(conversation, *range.end()));
        range.into_iter().flat_map(|range| self.entries.range(range)).map(|(_, entry)| entry)
    }
}
