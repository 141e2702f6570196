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
use super::keys;
use super::upkeep::{Age, Rewrite};
use super::values::{self, Head, Row, Shape};
use crate::store::{
    AppendGroup, Appended, Conversation, Erasure, GROUP_BYTES_MAX, Intent, Marker, Member, StoreError, User,
    UserChange,
};

/// Where the answer to an operation goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A durable write, its values encoded already: the committer is one thread, its callers are many.
pub(super) enum Op {
    Append { append: Box<Append>, reply: Reply<Appended> },
    SetRead { key: Bytes, seq: u64, reply: Reply<bool> },
    ChangeUser { key: Bytes, change: UserChange, reply: Reply<()> },
    ClearIntents { keys: Vec<Bytes>, reply: Reply<()> },
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

/// An append group ready to be written.
pub(super) struct Append {
    conversation: ConversationId,
    expected_head: u64,
    records: Vec<Record>,
    state: Conversation,
    departures: Vec<(Bytes, Row)>,
    first_intent_ms: u64,
    /// Bytes of its encoded entries.
    pub(super) bytes: usize,
}

struct Record {
    entry: (Bytes, Bytes),
    marker: Option<(Bytes, Bytes)>,
    intent: Option<Bytes>,
}

impl Append {
    /// Checks and encodes a group.
    pub(super) fn new(group: AppendGroup) -> Result<Self, StoreError> {
        group.check()?;
        let AppendGroup { conversation, expected_head, entries, state, departures } = group;
        let departures = departures.into_iter().map(|gone| {
            let at = entries.iter().find(|new| new.entry.seq == gone.until_seq);
            let (messages, time_ms) = at
                .map_or((state.messages, state.last_time_ms), |new| (new.entry.messages, new.entry.time_ms));
            let until = Some(Head { seq: gone.until_seq, messages, time_ms });
            (keys::row(&gone.user, conversation), Row { first_seq: gone.first_seq, until })
        });
        let departures = departures.collect();
        let mut first_intent_ms = u64::MAX;
        let mut bytes = 0;
        let mut records = Vec::with_capacity(entries.len());
        for new in &entries {
            let (seq, time_ms) = (new.entry.seq, new.entry.time_ms);
            let value = values::encode(&new.entry);
            bytes += value.len() - 1; // without the version
            if new.push {
                first_intent_ms = first_intent_ms.min(time_ms);
            }
            records.push(Record {
                entry: (keys::entry(conversation, seq), value),
                marker: new.entry.temp_id.map(|temp_id| {
                    let key = keys::marker(conversation, &new.entry.sender, temp_id);
                    (key, values::encode_marker(seq, new.digest))
                }),
                intent: new.push.then(|| keys::intent(&Intent { conversation, seq, time_ms })),
            });
        }
        if bytes > GROUP_BYTES_MAX {
            return Err(StoreError::Malformed("its entries must not exceed 1 MiB"));
        }
        Ok(Self { conversation, expected_head, records, state, departures, first_intent_ms, bytes })
    }
}

/// The operations of one commit.
pub(super) struct Batch<'a> {
    pub(super) disk: &'a Disk,
    /// `None` removes the key. The last write of a key counts.
    pub(super) writes: HashMap<Bytes, Option<Bytes>, RandomState>,
    states: HashMap<ConversationId, Arc<Conversation>, RandomState>,
    answers: Vec<Answer>,
    first_intent_ms: u64,
}

/// What is left to do once the writes of a batch are durable.
pub(super) struct Decided {
    pub(super) writes: HashMap<Bytes, Option<Bytes>, RandomState>,
    pub(super) states: HashMap<ConversationId, Arc<Conversation>, RandomState>,
    pub(super) answers: Vec<Answer>,
    /// `u64::MAX` if there is none.
    pub(super) first_intent_ms: u64,
}

impl<'a> Batch<'a> {
    pub(super) fn new(disk: &'a Disk) -> Self {
        Self {
            disk,
            writes: HashMap::default(),
            states: HashMap::default(),
            answers: Vec::new(),
            first_intent_ms: u64::MAX,
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
            Op::Append { append, reply } => Answer::Append(reply, self.append(*append)),
            Op::SetRead { key, seq, reply } => Answer::Flag(reply, self.set_read(key, seq)),
            Op::ChangeUser { key, change, reply } => Answer::Done(reply, self.change_user(key, change)),
            Op::ClearIntents { keys, reply } => {
                self.writes.extend(keys.into_iter().map(|key| (key, None)));
                Answer::Done(reply, Ok(()))
            }
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
        let Self { disk: _, writes, states, answers, first_intent_ms } = self;
        Decided { writes, states, answers, first_intent_ms }
    }

    fn append(&mut self, append: Append) -> Result<Appended, StoreError> {
        let duplicates = self.duplicates(&append.records)?;
        if !duplicates.is_empty() {
            return Ok(Appended::Duplicates(duplicates));
        }
        let current = self.conversation(append.conversation)?;
        let head = current.as_ref().map_or(0, |state| state.head);
        if head != append.expected_head {
            return Ok(Appended::Conflict { head });
        }
        self.write(append, current.as_deref());
        Ok(Appended::Applied)
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
        let Append { conversation, records, state, departures, first_intent_ms, .. } = append;
        for Record { entry, marker, intent } in records {
            self.writes.insert(entry.0, Some(entry.1));
            self.writes.extend(marker.map(|(key, value)| (key, Some(value))));
            self.writes.extend(intent.map(|key| (key, Some(Bytes::new()))));
        }
        self.first_intent_ms = self.first_intent_ms.min(first_intent_ms);
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
            let Conversation { kind, ref name, ref members, .. } = state;
            let shape = Shape { kind, name: name.clone(), members: members.clone() };
            self.writes.insert(keys::shape(conversation), Some(values::encode(&shape)));
        }
        let head = Head { seq: state.head, messages: state.messages, time_ms: state.last_time_ms };
        self.writes.insert(keys::head(conversation), Some(values::encode(&head)));
        self.states.insert(conversation, Arc::new(state));
    }

    fn set_read(&mut self, key: Bytes, seq: u64) -> Result<bool, StoreError> {
        let before = self.get(&key)?.map_or(Ok(0), |bytes| values::decode("a read position", &bytes))?;
        if seq > before {
            self.writes.insert(key, Some(values::encode(&seq)));
        }
        Ok(seq > before)
    }

    fn change_user(&mut self, key: Bytes, change: UserChange) -> Result<(), StoreError> {
        let before: Option<User> =
            self.get(&key)?.map(|bytes| values::decode("a user", &bytes)).transpose()?;
        if let Some(after) = change.apply(before.as_ref()) {
            self.writes.insert(key, Some(values::encode(&after)));
        }
        Ok(())
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
    Append(Reply<Appended>, Result<Appended, StoreError>),
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
            Self::Append(reply, result) => drop(reply.send(result)),
            Self::Flag(reply, result) => drop(reply.send(result)),
            Self::Done(reply, result) => drop(reply.send(result)),
            Self::Erasure(reply, result) => drop(reply.send(result)),
            Self::Snapshot(reply) => {
                drop(reply.send(Ok(Frozen { snapshot: disk.db.snapshot(), commits })));
            }
        }
    }
}
