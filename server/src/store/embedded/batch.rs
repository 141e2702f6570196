//! One batch of writes: evaluates each operation against what is durable and what the operations
//! before it in the batch want to write. Decides; the committer writes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fjall::Snapshot;
use foldhash::fast::RandomState;
use tern_protocol::{ConversationId, UserId};
use tokio::sync::oneshot;

use super::disk::Disk;
use super::intents::IntentChange;
use super::keys;
use super::upkeep::{Age, Rewrite};
use super::values::{self, Head, Row, Shape};
use crate::store::{
    AppendGroup, Appended, Barred, Conversation, Erasure, Marker, Member, NewEntry, Owed, ReadPosition,
    StoreError, User, UserChange,
};

/// Where the answer to an operation goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A durable write, its values encoded already: the committer is one thread, its callers are many.
pub(super) enum Op {
    Appends { appends: Vec<Append>, owed: Owed },
    SetRead { key: Bytes, read: ReadPosition, reply: Reply<bool> },
    ChangeUser { user: UserId, change: UserChange, issued_ms: Option<u64>, reply: Reply<bool> },
    ClearIntents { intents: Vec<(u8, Bytes)>, reply: Reply<()> },
    Age { age: Age, reply: Reply<bool> },
    Rewrite { rewrite: Rewrite, reply: Reply<()> },
    BeginErasure { user: UserId, became: UserId, at_ms: u64, reply: Reply<Erasure> },
    FinishErasure { user: UserId, conversations: Vec<ConversationId>, reply: Reply<bool> },
    Snapshot { reply: Reply<Frozen> },
}

/// The store as of a commit, unmoved by later ones.
pub(super) struct Frozen {
    pub(super) snapshot: Snapshot,
    /// Number of that commit.
    pub(super) commits: u64,
}

/// An append group with the keys and values that only depend on it.
pub(super) struct Append {
    group: Arc<AppendGroup>,
    records: Vec<Record>,
    departures: Vec<(Bytes, Row)>,
    intent: Option<(IntentChange, Bytes, Bytes)>,
}

struct Record {
    entry: (Bytes, Bytes),
    marker: Option<(Bytes, Bytes)>,
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
            (keys::row(&gone.user, *conversation), Row { first_seq: gone.first_seq, until })
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
        let intent = group.intent().map(|intent| {
            let change = IntentChange::Written { shard: intent.shard(), time_ms: intent.time_ms };
            (change, keys::intent(&intent), values::encode_intent(&intent))
        });
        Self { records, departures, intent, group }
    }
}

/// The operations of one commit.
pub(super) struct Batch<'a> {
    pub(super) disk: &'a Disk,
    /// `None` removes the key. The last write of a key counts.
    pub(super) writes: HashMap<Bytes, Option<Bytes>, RandomState>,
    states: HashMap<ConversationId, Arc<Conversation>, RandomState>,
    answers: Vec<Answer>,
    intents: Vec<IntentChange>,
}

/// What is left to do once the writes of a batch are durable.
pub(super) struct Decided {
    pub(super) writes: HashMap<Bytes, Option<Bytes>, RandomState>,
    pub(super) states: HashMap<ConversationId, Arc<Conversation>, RandomState>,
    pub(super) answers: Vec<Answer>,
    /// `u64::MAX` if there is none.
    pub(super) intents: Vec<IntentChange>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(disk: &'a Disk) -> Self {
        Self {
            disk,
            writes: HashMap::default(),
            states: HashMap::default(),
            answers: Vec::new(),
            intents: Vec::new(),
        }
    }

    /// Operations so far.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Decides an operation. Its answer waits for the commit, whatever it is: also a duplicate or a
    /// conflict may rest on an operation of this batch.
    pub(super) fn apply(&mut self, op: Op) {
        let answer = match op {
            Op::Appends { appends, owed } => {
                let results = appends.into_iter().map(|append| self.append(append)).collect();
                Answer::Appends(owed, results)
            }
            Op::SetRead { key, read, reply } => Answer::Flag(reply, self.set_read(key, read)),
            Op::ChangeUser { user, change, issued_ms, reply } => {
                Answer::Flag(reply, self.change_user(&user, change, issued_ms))
            }
            Op::ClearIntents { intents, reply } => Answer::Done(reply, self.clear_intents(intents)),
            Op::Age { age, reply } => Answer::Flag(reply, self.age(age)),
            Op::Rewrite { rewrite, reply } => Answer::Done(reply, self.rewrite(rewrite)),
            Op::BeginErasure { user, became, at_ms, reply } => {
                Answer::Erasure(reply, self.begin_erasure(user, became, at_ms))
            }
            Op::FinishErasure { user, conversations, reply } => {
                Answer::Flag(reply, self.finish_erasure(&user, &conversations))
            }
            Op::Snapshot { reply } => Answer::Snapshot(reply),
        };
        self.answers.push(answer);
    }

    pub(super) fn decide(self) -> Decided {
        let Self { disk: _, writes, states, answers, intents } = self;
        Decided { writes, states, answers, intents }
    }

    fn append(&mut self, append: Append) -> Result<Appended, StoreError> {
        let duplicates = self.duplicates(&append.records)?;
        if !duplicates.is_empty() {
            return Ok(Appended::Duplicates(duplicates));
        }
        let barred = self.barred(&append.group)?;
        if !barred.is_empty() {
            return Ok(Appended::Barred(barred));
        }
        let current = self.conversation(append.group.conversation)?;
        let head = current.as_ref().map_or(0, |state| state.head);
        if head != append.group.expected_head {
            return Ok(Appended::Conflict { head });
        }
        self.write(append, current.as_deref());
        Ok(Appended::Applied)
    }

    /// What must not be written since a user was erased.
    fn barred(&self, group: &AppendGroup) -> Result<Vec<(usize, Barred)>, StoreError> {
        let mut failed = Ok(());
        let barred = group.barred(|user| {
            let erasure = self.erasure(user);
            erasure.unwrap_or_else(|error| {
                failed = Err(error);
                None
            })
        });
        failed.map(|()| barred)
    }

    pub(super) fn erasure(&self, user: &UserId) -> Result<Option<Erasure>, StoreError> {
        self.get(&keys::erasure(user))?.map(|bytes| values::decode("an erasure", &bytes)).transpose()
    }

    fn duplicates(&self, records: &[Record]) -> Result<Vec<(usize, Marker)>, StoreError> {
        let mut found = Vec::new();
        for (index, record) in records.iter().enumerate() {
            let Some((key, _)) = &record.marker else { continue };
            if let Some(bytes) = self.get(key)? {
                found.push((index, values::decode_marker(&bytes)?));
            }
        }
        Ok(found)
    }

    fn write(&mut self, append: Append, current: Option<&Conversation>) {
        let Append { group, records, departures, intent } = append;
        let AppendGroup { conversation, state, .. } = &*group;
        let conversation = *conversation;
        for Record { entry, marker } in records {
            self.writes.insert(entry.0, Some(entry.1));
            self.writes.extend(marker.map(|(key, value)| (key, Some(value))));
        }
        if let Some((change, key, value)) = intent {
            self.writes.insert(key, Some(value));
            self.intents.push(change);
        }
        for (key, row) in departures {
            self.writes.insert(key, Some(values::encode(&row)));
        }
        let members: &[Member] = current.map_or(&[], |current| &current.members);
        if state.members != members {
            // After the departures: who left and came back in one group is a member.
            for member in state.members.iter().filter(|member| !is_same_member(members, member)) {
                let row = Row { first_seq: member.first_seq, until: None };
                self.writes.insert(keys::row(&member.user, conversation), Some(values::encode(&row)));
            }
        }
        let is_shape = |current: &Conversation| {
            current.members == state.members && current.kind == state.kind && current.name == state.name
        };
        if !current.is_some_and(is_shape) {
            let Conversation { kind, name, members, .. } = &**state;
            let shape = Shape { kind: *kind, name: name.clone(), members: members.clone() };
            self.writes.insert(keys::shape(conversation), Some(values::encode(&shape)));
        }
        let head = Head { seq: state.head, messages: state.messages, time_ms: state.last_time_ms };
        self.writes.insert(keys::head(conversation), Some(values::encode(&head)));
        self.states.insert(conversation, state.clone());
    }

    fn set_read(&mut self, key: Bytes, read: ReadPosition) -> Result<bool, StoreError> {
        let before = self.get(&key)?.map(|bytes| values::decode("a read position", &bytes)).transpose()?;
        let before: ReadPosition = before.unwrap_or_default();
        if read.seq > before.seq {
            self.writes.insert(key, Some(values::encode(&read)));
        }
        Ok(read.seq > before.seq)
    }

    fn clear_intents(&mut self, intents: Vec<(u8, Bytes)>) -> Result<(), StoreError> {
        for (shard, key) in intents {
            // Only what is there counts as cleared.
            if self.get(&key)?.is_some() {
                self.writes.insert(key, None);
                self.intents.push(IntentChange::Cleared { shard });
            }
        }
        Ok(())
    }

    fn change_user(
        &mut self,
        user: &UserId,
        change: UserChange,
        issued_ms: Option<u64>,
    ) -> Result<bool, StoreError> {
        if let Some(issued_ms) = issued_ms
            && self.erasure(user)?.is_some_and(|erasure| erasure.bars(issued_ms))
        {
            return Ok(false);
        }
        let key = keys::user(user);
        let before: Option<User> =
            self.get(&key)?.map(|bytes| values::decode("a user", &bytes)).transpose()?;
        if let Some(after) = change.apply(before.as_ref()) {
            self.writes.insert(key, Some(values::encode(&after)));
        }
        Ok(true)
    }

    pub(super) fn get(&self, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        match self.writes.get(key) {
            Some(write) => Ok(write.clone()),
            None => self.disk.get(key),
        }
    }

    pub(super) fn conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        match self.states.get(&id) {
            Some(state) => Ok(Some(state.clone())),
            None => self.disk.conversation(id),
        }
    }
}

fn is_same_member(members: &[Member], member: &Member) -> bool {
    members.iter().any(|other| other.user == member.user && other.first_seq == member.first_seq)
}

/// An answer that waits for the commit. Dropped unsent, it tells the caller that nothing is known.
pub(super) enum Answer {
    Appends(Owed, Vec<Result<Appended, StoreError>>),
    Flag(Reply<bool>, Result<bool, StoreError>),
    Done(Reply<()>, Result<(), StoreError>),
    Erasure(Reply<Erasure>, Result<Erasure, StoreError>),
    /// Taken when everything before it is durable.
    Snapshot(Reply<Frozen>),
}

impl Answer {
    /// Sends it, as of commit number `commits`; a caller that has gone does not matter.
    pub(super) fn send(self, disk: &Disk, commits: u64) {
        match self {
            Self::Appends(owed, results) => owed.settle(results),
            Self::Flag(reply, result) => drop(reply.send(result)),
            Self::Done(reply, result) => drop(reply.send(result)),
            Self::Erasure(reply, result) => drop(reply.send(result)),
            Self::Snapshot(reply) => {
                drop(reply.send(Ok(Frozen { snapshot: disk.db.snapshot(), commits })));
            }
        }
    }
}
