//! One batch of writes: evaluates each operation against what is durable and what the operations
//! before it in the batch want to write. Decides; the committer writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tern_protocol::{ConversationId, UserId};

use super::append::{Append, Record};
use super::disk::Disk;
use super::intents::IntentChange;
use super::keys;
use super::op::{Frozen, Op, Reply};
use super::values::{self, Head, Shape};
use crate::store::people::carried;
use crate::store::{
    Answers, AppendAnswers, AppendGroup, Appended, BlockOutcome, Conversation, Erasure, Kept, Marker, Member,
    Owed, ReadPosition, Right, Standing, StoreError, User, UserChange,
};

mod people;
mod upkeep;

/// The operations of one commit.
pub(super) struct Batch<'a> {
    pub(super) disk: &'a Disk,
    /// `None` removes the key. The last write of a key counts.
    pub(super) writes: HashMap<Bytes, Option<Bytes>, RandomState>,
    /// Rows that are written once and never looked at in the same batch: entries, markers and intents.
    fresh: Vec<(Bytes, Bytes)>,
    /// The markers among them.
    markers: HashMap<Bytes, Marker, RandomState>,
    states: HashMap<ConversationId, NewState, RandomState>,
    answers: Vec<Answer>,
    intents: Vec<IntentChange>,
    pub(super) kept: Option<(ConversationId, Kept)>,
    pub(super) standing: Option<(UserId, Standing)>,
    entries: usize,
}

/// A state that a batch makes.
struct NewState {
    state: Arc<Conversation>,
    /// The conversation did not exist before the batch.
    is_new: bool,
    /// More than the head changes.
    is_shape_new: bool,
}

/// What a batch writes, each key once.
pub(super) struct Rows {
    pub(super) fresh: Vec<(Bytes, Bytes)>,
    pub(super) writes: HashMap<Bytes, Option<Bytes>, RandomState>,
}

/// What is left to do once the rows of a batch are durable.
pub(super) struct Decided {
    states: Vec<(ConversationId, Arc<Conversation>, bool)>,
    kept: Option<(ConversationId, Kept)>,
    standing: Option<(UserId, Standing)>,
    intents: Vec<IntentChange>,
    answers: Vec<Answer>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(disk: &'a Disk) -> Self {
        Self {
            disk,
            writes: HashMap::default(),
            fresh: Vec::new(),
            markers: HashMap::default(),
            states: HashMap::default(),
            answers: Vec::new(),
            intents: Vec::new(),
            kept: None,
            standing: None,
            entries: 0,
        }
    }

    /// Operations so far.
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Entries that are appended.
    pub(super) fn entries(&self) -> usize {
        self.entries
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
            Op::ChangeUser { user, change, right, reply } => {
                Answer::Flag(reply, self.change_user(&user, change, right))
            }
            Op::RefuseBefore { user, before_ms, reply } => {
                self.refuse_before(user, before_ms);
                Answer::Done(reply, Ok(()))
            }
            Op::SetBlock { change, reply } => Answer::Block(reply, self.set_block(change)),
            Op::Accept { user, conversation, reply } => Answer::Flag(reply, self.accept(&user, conversation)),
            Op::ForgetBlocks { blocks, reply } => Answer::Done(reply, self.forget_blocks(&blocks)),
            Op::ClearIntents { intents, reply } => Answer::Done(reply, self.clear_intents(intents)),
            Op::Age { age, reply } => Answer::Flag(reply, self.age(age)),
            Op::Rewrite { rewrite, reply } => Answer::Done(reply, self.rewrite(rewrite)),
            Op::BeginErasure { user, became, at_ms, reply } => {
                Answer::Erasure(reply, self.begin_erasure(user, became, at_ms))
            }
            Op::FinishErasure { user, kept, reply } => Answer::Flag(reply, self.finish_erasure(&user, kept)),
            Op::Snapshot { reply } => Answer::Snapshot(reply),
            Op::Fill { filling, reply } => {
                self.writes.insert(keys::filling(), filling);
                Answer::Done(reply, Ok(()))
            }
        };
        self.answers.push(answer);
    }

    pub(super) fn decide(self) -> (Rows, Decided) {
        let Self { disk, mut writes, fresh, markers, states, answers, intents, kept, standing, .. } = self;
        // Before they can be seen: who finds none of them looks on disk.
        disk.recent.written(markers.keys().map(|key| &key[..]), Instant::now());
        let mut decided = Vec::with_capacity(states.len());
        for (id, NewState { state, is_new, is_shape_new }) in states {
            let head = Head { seq: state.head, messages: state.messages, time_ms: state.last_time_ms };
            writes.insert(keys::head(id), Some(values::encode(&head)));
            if is_shape_new {
                writes.insert(keys::shape(id), Some(values::encode(&Shape::of(&state))));
            }
            decided.push((id, state, is_new));
        }
        (Rows { fresh, writes }, Decided { states: decided, kept, standing, intents, answers })
    }

    fn append(&mut self, append: Append) -> Result<Appended, StoreError> {
        let duplicates = self.duplicates(&append)?;
        if !duplicates.is_empty() {
            return Ok(Appended::Duplicates(duplicates));
        }
        let current = self.conversation(append.group.conversation)?;
        let barred = self.barred(&append.group, current.as_deref())?;
        if !barred.is_empty() {
            return Ok(Appended::Barred(barred));
        }
        let head = current.as_ref().map_or(0, |state| state.head);
        if head != append.group.expected_head {
            return Ok(Appended::Conflict { head });
        }
        self.disk.room.check()?;
        self.write(append, current.as_deref())?;
        Ok(Appended::Applied)
    }

    fn duplicates(&self, append: &Append) -> Result<Vec<(usize, Marker)>, StoreError> {
        let (mut found, now) = (Vec::new(), Instant::now());
        for (index, (record, new)) in append.records.iter().zip(&append.group.entries).enumerate() {
            let Some((key, _)) = &record.marker else { continue };
            if let Some(marker) = self.markers.get(key) {
                found.push((index, *marker));
            } else if let Some(marker) = self.disk.marker(key, new.age_ms, now)? {
                found.push((index, marker));
            }
        }
        Ok(found)
    }

    fn write(&mut self, append: Append, current: Option<&Conversation>) -> Result<(), StoreError> {
        let Append { group, records, departures, reads, intent } = append;
        let AppendGroup { conversation, entries, state, .. } = &*group;
        let conversation = *conversation;
        let state = current.map_or_else(|| state.clone(), |current| carried(state, current));
        self.count_added(current, &state)?;
        self.entries += entries.len();
        for (Record { entry, marker }, new) in records.into_iter().zip(entries) {
            self.fresh.push(entry);
            if let Some((key, value)) = marker {
                self.markers.insert(key.clone(), Marker { seq: new.entry.seq, digest: new.digest });
                self.fresh.push((key, value));
            }
        }
        if let Some((change, key, value)) = intent {
            self.fresh.push((key, value));
            self.intents.push(change);
        }
        self.writes.extend(reads.into_iter().map(|(key, read)| (key, Some(read))));
        self.writes.extend(departures.into_iter().map(|(key, row)| (key, Some(row))));
        let members: &[Member] = current.map_or(&[], |current| &current.members);
        let same_members = state.members == members;
        if !same_members {
            // After the departures: who left and came back in one group is a member.
            for member in state.members.iter().filter(|member| !is_same_member(members, member)) {
                let row = values::member_row(member.first_seq);
                self.writes.insert(keys::row(&member.user, conversation), Some(row));
            }
        }
        let is_shape_new = !same_members
            || current.is_none_or(|current| current.kind != state.kind || current.name != state.name);
        self.put_state(conversation, NewState { state, is_new: current.is_none(), is_shape_new });
        Ok(())
    }

    fn put_state(&mut self, id: ConversationId, new: NewState) {
        let new = match self.states.remove(&id) {
            Some(before) => NewState {
                is_new: before.is_new,
                is_shape_new: before.is_shape_new || new.is_shape_new,
                ..new
            },
            None => new,
        };
        self.states.insert(id, new);
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
            // Only what is there counts as cleared. What cannot be read is there, and can be removed.
            if !matches!(self.get(&key), Ok(None)) {
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
        right: Option<Right>,
    ) -> Result<bool, StoreError> {
        if right.is_some_and(|right| right.lost(user, |user| self.disk.standings.get(user)).is_some()) {
            return Ok(false);
        }
        let key = keys::user(user);
        let before = self
            .get(&key)
            .and_then(|bytes| bytes.map(|bytes| values::decode::<User>("a user", &bytes)).transpose());
        // What cannot be read is written anew: it is a name and a time.
        let before = match before {
            Err(error @ StoreError::Corrupt(_)) => {
                self.disk.seen.note(&error);
                None
            }
            before => before?,
        };
        if let Some(after) = change.apply(before.as_ref()) {
            self.writes.insert(key, Some(values::encode(&after)));
        }
        Ok(true)
    }

    /// A value as of the last commit or of this batch; not of entries, markers and intents of this batch.
    pub(super) fn get(&self, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        match self.writes.get(key) {
            Some(write) => Ok(write.clone()),
            None => self.disk.get(key),
        }
    }

    pub(super) fn conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        match self.states.get(&id) {
            Some(new) => Ok(Some(new.state.clone())),
            None => self.disk.conversation(id),
        }
    }
}

fn is_same_member(members: &[Member], member: &Member) -> bool {
    members.iter().any(|other| other.user == member.user && other.first_seq == member.first_seq)
}

impl Decided {
    /// It is durable and visible as commit number `commits`: what is in memory follows, then the answers.
    pub(super) fn publish(self, disk: &Disk, commits: u64) {
        for (id, state, is_new) in self.states {
            disk.states.committed(id, state, is_new);
        }
        if let Some((id, kept)) = self.kept {
            disk.states.aged(id, kept);
        }
        if let Some((user, standing)) = self.standing {
            disk.standings.put(&user, standing);
        }
        disk.intents.note(&self.intents);
        let mut appended: Vec<(AppendAnswers, Answers)> = Vec::new();
        for answer in self.answers {
            answer.send(disk, commits, &mut appended);
        }
        for (asker, answers) in appended {
            asker.send(answers);
        }
    }
}

/// An answer that waits for the commit. Dropped unsent, it tells the caller that nothing is known.
enum Answer {
    Appends(Owed, Vec<Result<Appended, StoreError>>),
    Flag(Reply<bool>, Result<bool, StoreError>),
    Block(Reply<BlockOutcome>, Result<BlockOutcome, StoreError>),
    Done(Reply<()>, Result<(), StoreError>),
    Erasure(Reply<Erasure>, Result<Erasure, StoreError>),
    /// Taken when everything before it is durable.
    Snapshot(Reply<Frozen>),
}

impl Answer {
    /// Sends it, as of commit number `commits`; a caller that has gone does not matter. Answers to appends
    /// are collected by asker.
    fn send(self, disk: &Disk, commits: u64, appended: &mut Vec<(AppendAnswers, Answers)>) {
        match self {
            Self::Appends(owed, results) => {
                let (asker, tickets) = owed.take();
                let answers = tickets.into_iter().zip(results);
                match appended.iter_mut().find(|(other, _)| other.is_same(&asker)) {
                    Some((_, collected)) => collected.extend(answers),
                    None => appended.push((asker, answers.collect())),
                }
            }
            Self::Flag(reply, result) => drop(reply.send(result)),
            Self::Block(reply, result) => drop(reply.send(result)),
            Self::Done(reply, result) => drop(reply.send(result)),
            Self::Erasure(reply, result) => drop(reply.send(result)),
            Self::Snapshot(reply) => {
                drop(reply.send(Ok(Frozen { snapshot: disk.db.snapshot(), commits })));
            }
        }
    }
}
