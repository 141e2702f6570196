//! Checks that the rows of a store fit together: logs are dense, heads, markers, members and inboxes
//! say the same. Takes rows in the order of their keys, once, and changes nothing.

use std::collections::{BTreeMap, HashSet};

use tern_protocol::{ConversationId, ConversationKind, Entry, EntryBody, GROUP_MEMBERS_MAX, UserId};
use xxhash_rust::xxh3::xxh3_64;

use super::identity::Salt;
use super::keys;
use super::numbers::last_commit;
use super::values::{self, Commit, Head, Row, Shape};
use crate::store::{Erasure, Kept, Member, ReadPosition, StoreError, Tally, User};

/// Faults that are told in words; more are counted.
const FAULTS_TOLD: usize = 1_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Rows of all kinds.
    pub rows: u64,
    /// Logs.
    pub conversations: u64,
    /// Entries of all logs.
    pub entries: u64,
    /// Known users.
    pub users: u64,
    /// Number of the last commit.
    pub commits: u64,
    /// Users whose erasure has begun and not ended.
    pub open_erasures: Vec<UserId>,
    /// What is wrong, at most 1,000 of it.
    pub faults: Vec<String>,
    /// How much is wrong.
    pub fault_count: u64,
}

impl Findings {
    /// One more thing is wrong.
    pub(super) fn add(&mut self, what: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(what);
        }
    }

    /// The same, before all others.
    pub(super) fn add_first(&mut self, what: String) {
        self.fault_count += 1;
        self.faults.insert(0, what);
    }

    /// Nothing is wrong after all; what was counted stays.
    pub(super) fn clear(&mut self) {
        (self.fault_count, self.faults) = (0, Vec::new());
    }
}

/// A set of things, told apart from other sets by count and sum: markers are too many to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    count: u64,
    sum: u64,
}

impl Fingerprint {
    pub(super) fn add(&mut self, key: &[u8], seq: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(xxh3_64(&[key, &seq.to_be_bytes()].concat()));
    }
}

#[derive(Default)]
struct Log {
    kept: Kept,
    members: Option<Vec<Member>>,
    last: Option<Entry>,
    head: Option<Head>,
    expected_markers: Fingerprint,
    markers: Fingerprint,
    rows: usize,
    /// Who of a pair blocks the other as it says itself, until the row of the block is met.
    blocked_by: Vec<UserId>,
}

/// What is counted of a user less what was found of it: nothing is left where that is the same.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    blocks: i64,
    added: i64,
}

/// Takes rows and remembers what later ones must agree with.
#[derive(Default)]
pub(super) struct Checker {
    findings: Findings,
    logs: BTreeMap<ConversationId, Log>,
    commits: Vec<u64>,
    /// That of the first commit.
    salt: Option<Salt>,
    /// Rows of users who are no members, and not said to be gone.
    stray: Vec<(UserId, ConversationId)>,
    /// Each block is found by who blocks and by who is blocked.
    blocks_by: Fingerprint,
    blocks_of: Fingerprint,
    counted: BTreeMap<UserId, Counted>,
}

impl Checker {
    /// Whose rows they are, once a commit was among them.
    pub(super) fn salt(&self) -> Option<Salt> {
        self.salt
    }

    pub(super) fn fault(&mut self, what: String) {
        self.findings.add(what);
    }

    /// The next row.
    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) {
        self.findings.rows += 1;
        if let Err(error) = self.check(key, value) {
            self.fault(format!("row {}: {error}", data_encoding::HEXLOWER.encode(key)));
        }
    }

    fn check(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        match keys::kind(key) {
            keys::Kind::Kept => self.log(key)?.kept = values::decode("the start of a log", value)?,
            keys::Kind::Shape => self.shape(key, value)?,
            keys::Kind::Entry => self.entry(key, value)?,
            keys::Kind::Head => self.log(key)?.head = Some(values::decode("a head", value)?),
            keys::Kind::Row => self.inbox_row(key, value)?,
            keys::Kind::Marker => {
                let marker = values::decode_marker(value)?;
                self.known(key)?.markers.add(key, marker.seq);
            }
            keys::Kind::Commit => {
                let commit = Commit::decode(value)?;
                self.commits.push(commit.number);
                if *self.salt.get_or_insert(commit.salt) != commit.salt {
                    return wrong(format!("commit {} is of another store", commit.number));
                }
            }
            keys::Kind::Intent => {
                let intent = values::decode_intent(key, value)?;
                let head = self.logs.get(&intent.conversation).and_then(|log| log.head);
                if head.is_none_or(|head| head.seq < intent.to_seq) || intent.from_seq > intent.to_seq {
                    let (from, to) = (intent.from_seq, intent.to_seq);
                    return wrong(format!("a push intent for entries {from} to {to}, which are not there"));
                }
                if keys::intent_shard(key)? != intent.shard() {
                    return wrong("a push intent in the wrong shard".into());
                }
            }
            keys::Kind::Read => drop(values::decode::<ReadPosition>("a read position", value)?),
            keys::Kind::User => {
                values::decode::<User>("a user", value)?;
                self.findings.users += 1;
            }
            keys::Kind::Block => self.block(key, values::decode("a block", value)?)?,
            keys::Kind::Tally => {
                let Tally { blocks, added, .. } = values::decode("a tally", value)?;
                let counted = Counted { blocks: blocks.into(), added: added.into() };
                self.counted.insert(keys::named_user(key)?, counted);
            }
            keys::Kind::Erasure => {
                let erasure: Erasure = values::decode("an erasure", value)?;
                self.findings.open_erasures.extend(erasure.open.map(|open| open.user));
            }
            keys::Kind::Filling => {}
            keys::Kind::Revocation => {
                keys::user_hash(key)?;
                values::decode::<u64>("a revocation", value)?;
            }
            keys::Kind::Unknown => return wrong("a row of an unknown kind".into()),
        }
        Ok(())
    }

    fn log(&mut self, key: &[u8]) -> Result<&mut Log, StoreError> {
        Ok(self.logs.entry(keys::conversation(key)?).or_default())
    }

    /// The log that a row belongs to.
    fn known(&mut self, key: &[u8]) -> Result<&mut Log, StoreError> {
        let id = keys::conversation(key)?;
        let log = self.logs.get_mut(&id);
        log.ok_or_else(|| StoreError::Corrupt(format!("conversation {id} is not there")))
    }

    fn shape(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let shape: Shape = values::decode("a conversation", value)?;
        let distinct: HashSet<_> = shape.members.iter().map(|member| &member.user).collect();
        if distinct.len() != shape.members.len() || distinct.len() > GROUP_MEMBERS_MAX {
            return wrong(format!("{} members, {} of them distinct", shape.members.len(), distinct.len()));
        }
        if shape.kind == ConversationKind::Group {
            for member in shape.members.iter().filter(|member| member.added_by.is_some()) {
                self.counted.entry(member.user.clone()).or_default().added -= 1;
            }
        }
        let log = self.log(key)?;
        (log.members, log.blocked_by) = (Some(shape.members), shape.blocked_by);
        Ok(())
    }

    fn block(&mut self, key: &[u8], since_ms: u64) -> Result<(), StoreError> {
        let (by, user) = keys::block_sides(key)?;
        let own = keys::block(&by, &user);
        if key != &own[..] {
            self.blocks_of.add(&own, since_ms);
            return Ok(());
        }
        self.blocks_by.add(&own, since_ms);
        if let Some(log) = self.logs.get_mut(&ConversationId::pair(&by, &user)) {
            log.blocked_by.retain(|other| *other != by);
        }
        self.counted.entry(by).or_default().blocks -= 1;
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let seq = keys::entry_seq(key)?;
        let (entry, _) = values::decode_entry(value)?;
        let id = keys::conversation(key)?;
        self.findings.entries += 1;
        let log = self.known(key)?;
        let expected = log.last.as_ref().map_or(log.kept.first_seq, |last| last.seq + 1);
        let last_ms = log.last.as_ref().map_or(0, |last| last.time_ms);
        let before = log.last.as_ref().map_or(log.kept.messages, |last| last.messages);
        let counted = match entry.body {
            EntryBody::Message { .. } | EntryBody::Erased => before + 1..=before + 1,
            EntryBody::Opaque { .. } => before..=before + 1,
            _ => before..=before,
        };
        let messages = entry.messages;
        if seq > log.kept.markers_until
            && let Some(temp_id) = entry.temp_id
        {
            log.expected_markers.add(&keys::marker(id, &entry.sender, temp_id), seq);
        }
        let (found, time_ms) = (entry.seq, entry.time_ms);
        log.last = Some(entry);
        if seq != expected || found != seq {
            return wrong(format!("entry {seq} of {id} stands where {expected} is due (it says {found})"));
        }
        if !counted.contains(&messages) {
            return wrong(format!("entry {seq} of {id} counts {messages} messages, {before} are before it"));
        }
        if time_ms < last_ms {
            return wrong(format!("entry {seq} of {id} is older than the one before it"));
        }
        Ok(())
    }

    fn inbox_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let (user, id) = (keys::row_user(key)?, keys::row_conversation(key)?);
        let row: Row = values::decode("an inbox row", value)?;
        let Some(log) = self.logs.get_mut(&id) else {
            return wrong(format!("{user} has a row for {id}, which is not there"));
        };
        let head = log.head.map_or(0, |head| head.seq);
        match (log.members.iter().flatten().find(|member| member.user == user), row.until) {
            (Some(member), None) if member.first_seq == row.first_seq => log.rows += 1,
            (Some(member), _) => {
                return wrong(format!(
                    "{user} is a member of {id} from {} on, the inbox says {} to {:?}",
                    member.first_seq,
                    row.first_seq,
                    row.until.map(|until| until.seq)
                ));
            }
            (None, Some(until)) if until.seq <= head => {}
            (None, Some(until)) => {
                return wrong(format!("{user} may see {id} up to {}, its head is {head}", until.seq));
            }
            (None, None) => self.stray.push((user, id)),
        }
        Ok(())
    }

    /// All rows were given. `commits` is the number that the last commit must have.
    pub(super) fn finish(mut self, commits: Option<u64>) -> Findings {
        match last_commit(std::mem::take(&mut self.commits)) {
            Ok(last) if commits.is_none_or(|commits| commits == last) => self.findings.commits = last,
            Ok(last) => {
                self.fault(format!("the last commit is {last}, it should be {}", commits.unwrap_or(0)))
            }
            Err(error) => self.fault(error.to_string()),
        }
        let logs = std::mem::take(&mut self.logs);
        self.findings.conversations = logs.len() as u64;
        for (id, log) in &logs {
            for what in log.faults() {
                self.fault(format!("{id}: {what}"));
            }
        }
        self.people();
        for (user, id) in std::mem::take(&mut self.stray) {
            if !self.findings.open_erasures.contains(&user) {
                self.fault(format!("{user} has a row for {id} and is no member of it"));
            }
        }
        self.findings
    }
}

impl Checker {
    /// All rows about people were given.
    fn people(&mut self) {
        let (by, of) = (self.blocks_by, self.blocks_of);
        if by != of {
            self.fault(format!("the {} blocks by users are not the {} blocks of users", by.count, of.count));
        }
        for (user, left) in std::mem::take(&mut self.counted) {
            let what =
                [(left.blocks, "users whom they block"), (left.added, "groups that they wait to accept")];
            for (left, what) in what.into_iter().filter(|(left, _)| *left != 0) {
                self.fault(format!("the count of {user}'s {what} is off by {left}"));
            }
        }
    }
}

impl Log {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let Some(head) = self.head else { return vec!["there is no head".into()] };
        let Some(members) = &self.members else { return vec!["it has no members' list".into()] };
        match &self.last {
            Some(last)
                if (last.seq, last.messages, last.time_ms) == (head.seq, head.messages, head.time_ms) => {}
            Some(last) => faults.push(format!("the head is {}, the last entry is {}", head.seq, last.seq)),
            None if (self.kept.first_seq, self.kept.messages) == (head.seq + 1, head.messages) => {}
            None => faults.push(format!("entries {} to {} are missing", self.kept.first_seq, head.seq)),
        }
        if self.markers != self.expected_markers {
            let (found, expected) = (self.markers.count, self.expected_markers.count);
            faults.push(format!("the {found} dedupe markers are not those of its {expected} entries"));
        }
        if self.rows != members.len() {
            faults.push(format!("{} of its {} members have an inbox row", self.rows, members.len()));
        }
        for by in &self.blocked_by {
            faults.push(format!("it says that {by} blocks the other, and there is no such block"));
        }
        faults
    }
}

fn wrong<T>(what: String) -> Result<T, StoreError> {
    Err(StoreError::Corrupt(what))
}
