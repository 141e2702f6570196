//! What is left of one log, made into a valid one.
//!
//! Every entry that was read keeps its seq. A hole between two of them is filled with tombstones, so that the
//! log stays dense and nothing is given a seq that another entry had; a hole before the first of them is left
//! out: the log starts there. Who is a member is what the members' list says, else what the inboxes say.

use std::collections::{HashMap, HashSet};

use tern_protocol::{
    ConversationId, ConversationKind, Entry, EntryBody, EntryId, GROUP_MEMBERS_MAX, KIND_LOST, Role, UserId,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::store::embedded::values::{Head, Row, Shape};
use crate::store::embedded::verify::Fingerprint;
use crate::store::{Kept, Member};

/// Sender of a tombstone: nobody, as it is shown for users who were erased.
const NOBODY: [u8; 16] = [0; 16];

// One bit for each member.
const _: () = assert!(GROUP_MEMBERS_MAX <= u128::BITS as usize);

/// All that was read of a log, in the order of the rows.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) kept: Option<Kept>,
    pub(super) shape: Option<Shape>,
    pub(super) head: Option<Head>,
    runs: Vec<Run>,
    /// The highest seq that anything speaks of, and the most messages.
    seq_max: u64,
    messages_max: u64,
    /// Members by their inboxes, while there is no members' list.
    members: Vec<(UserId, u64)>,
    rows: u128,
    /// Members, perhaps of before their erasure, and of those whom an entry of after it names.
    erased: HashSet<UserId>,
    back: HashSet<UserId>,
    story: Story,
    expected_markers: Fingerprint,
    markers: Fingerprint,
}

/// What the entries tell of a group whose members' list is lost.
#[derive(Default)]
struct Story {
    name: Option<String>,
    roles: HashMap<UserId, Role>,
}

/// Entries without a hole.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: u64,
    to: u64,
    /// Messages before the first, and up to the last.
    before: u64,
    messages: u64,
    time_ms: u64,
}

/// Entries that are to be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) from: u64,
    pub(super) to: u64,
    before: u64,
    /// So many of them were messages.
    messages: u64,
    time_ms: u64,
}

/// A log that is valid again.
pub(super) struct Mended {
    pub(super) kept: Kept,
    pub(super) shape: Shape,
    pub(super) head: Head,
    pub(super) holes: Vec<Hole>,
    /// Its dedupe markers are whole.
    pub(super) has_markers: bool,
    /// Entries before its start that are lost.
    pub(super) lost_before: u64,
    /// Members' list and head had to be made anew.
    pub(super) is_shape_new: bool,
    pub(super) is_head_new: bool,
    /// Who was erased and came back after it.
    pub(super) back: HashSet<UserId>,
    runs: Vec<(u64, u64)>,
    rows: u128,
}

impl Facts {
    /// An entry that was read; `marker` is the key of its marker.
    pub(super) fn entry(&mut self, entry: &Entry, marker: Option<&[u8]>) {
        let kept = self.kept.unwrap_or_default();
        if entry.seq < kept.first_seq {
            return;
        }
        if let Some(marker) = marker.filter(|_| entry.seq > kept.markers_until) {
            self.expected_markers.add(marker, entry.seq);
        }
        if self.shape.is_none() {
            self.story.note(entry);
        }
        let counts = matches!(entry.body, EntryBody::Message { .. } | EntryBody::Erased);
        let mut before = entry.messages.saturating_sub(u64::from(counts));
        if let Some(last) = self.runs.last_mut() {
            let between = entry.seq - last.to - 1;
            let is_opaque = matches!(entry.body, EntryBody::Opaque { .. });
            if is_opaque && between == 0 && entry.messages == last.messages + 1 {
                before = last.messages;
            }
            let missed = before.checked_sub(last.messages);
            if entry.time_ms < last.time_ms || missed.is_none_or(|missed| missed > between) {
                // What is before it is of another life of the log.
                self.runs.clear();
            } else if between == 0 {
                (last.to, last.messages, last.time_ms) = (entry.seq, entry.messages, entry.time_ms);
                return;
            }
        }
        let (from, time_ms, messages) = (entry.seq, entry.time_ms, entry.messages);
        self.runs.push(Run { from, to: from, before, messages, time_ms });
    }

    /// A row of somebody's inbox.
    pub(super) fn row(&mut self, user: UserId, row: Row) {
        match (&self.shape, row.until) {
            (Some(shape), _) if shape.members.iter().any(|member| member.user == user) => {
                let place = shape.members.iter().position(|member| member.user == user);
                self.rows |= place.map_or(0, |place| 1 << place);
            }
            (_, Some(until)) => self.speaks_of(until.seq, until.messages),
            (None, None) => self.members.push((user, row.first_seq)),
            (Some(_), None) => {}
        }
    }

    /// The user, who was erased, is or was a member by a row that may be older than the erasure.
    pub(super) fn erased(&mut self, user: &UserId) {
        self.erased.insert(user.clone());
    }

    /// The user came back after the erasure.
    pub(super) fn back(&mut self, user: &UserId) {
        self.back.insert(user.clone());
    }

    pub(super) fn marker(&mut self, key: &[u8], seq: u64) {
        self.markers.add(key, seq);
        self.speaks_of(seq, 0);
    }

    /// Something says that this entry exists.
    pub(super) fn speaks_of(&mut self, seq: u64, messages: u64) {
        self.seq_max = self.seq_max.max(seq);
        self.messages_max = self.messages_max.max(messages);
    }

    /// Makes it valid; `None` if nothing says what it was.
    pub(super) fn mend(mut self, id: ConversationId) -> Option<Mended> {
        if self.runs.is_empty() && self.head.is_none() && self.shape.is_none() {
            return None;
        }
        let mut is_shape_new = self.shape.is_none();
        let mut shape = match self.shape.take() {
            Some(shape) => shape,
            None => self.shape_of(id),
        };
        let mut rows = if is_shape_new { u128::MAX } else { self.rows };
        self.erased.retain(|user| !self.back.contains(user));
        if !self.erased.is_empty() {
            is_shape_new |= self.without_erased(&mut shape, &mut rows);
        }
        let kept = self.kept.unwrap_or_default();
        let joined = shape.members.iter().map(|member| member.first_seq).max().unwrap_or(0);
        let last = self.runs.last().copied();
        let head = self.head.filter(|head| last.is_none_or(|last| head.seq >= last.to));
        let known = [last.map_or(0, |last| last.to), head.map_or(0, |head| head.seq)];
        let seq = known
            .into_iter()
            .chain([self.seq_max, joined, kept.first_seq.saturating_sub(1)])
            .max()
            .unwrap_or(0);
        let head = head.filter(|head| head.seq == seq);
        let is_head_new = self.head.is_none_or(|before| before.seq != seq);
        let (start, holes, head) = self.fill(kept, seq, head);
        let lost_before = start.0.saturating_sub(kept.first_seq);
        let has_markers = self.markers == self.expected_markers;
        let markers_until = if has_markers { kept.markers_until.min(seq) } else { seq };
        let erased_seq = kept.erased_seq.min(seq);
        let kept = Kept { first_seq: start.0, messages: start.1, markers_until, erased_seq };
        let runs = self.runs.iter().map(|run| (run.from, run.to)).collect();
        Some(Mended {
            kept,
            shape,
            head,
            holes,
            has_markers,
            lost_before,
            is_shape_new,
            is_head_new,
            back: self.back,
            runs,
            rows,
        })
    }

    /// Where the log starts (seq, and the messages before it), what is to be filled in, and its head.
    fn fill(&self, kept: Kept, seq: u64, head: Option<Head>) -> ((u64, u64), Vec<Hole>, Head) {
        let (Some(first), Some(last)) = (self.runs.first(), self.runs.last()) else {
            let messages = head.map_or(self.messages_max.max(kept.messages), |head| head.messages);
            let time_ms = head.map_or(0, |head| head.time_ms);
            return ((seq + 1, messages), Vec::new(), Head { seq, messages, time_ms });
        };
        let mut holes = Vec::new();
        for pair in self.runs.windows(2) {
            holes.push(Hole {
                from: pair[0].to + 1,
                to: pair[1].from - 1,
                before: pair[0].messages,
                messages: pair[1].before - pair[0].messages,
                time_ms: pair[0].time_ms,
            });
        }
        let time_ms = head.map_or(0, |head| head.time_ms).max(last.time_ms);
        let mut messages = last.messages;
        if seq > last.to {
            let missing = seq - last.to;
            let counted = head.map_or(missing, |head| head.messages.saturating_sub(messages).min(missing));
            let (from, before) = (last.to + 1, messages);
            holes.push(Hole { from, to: seq, before, messages: counted, time_ms });
            messages += counted;
        }
        ((first.from, first.before), holes, Head { seq, messages, time_ms })
    }

    /// Takes out who was erased and did not come back, with the bits of their rows; whether there was anybody.
    fn without_erased(&self, shape: &mut Shape, rows: &mut u128) -> bool {
        let (before, mut kept, mut changed) = (std::mem::take(&mut shape.members), 0, false);
        for (place, mut member) in before.into_iter().enumerate() {
            if self.erased.contains(&member.user) {
                changed = true;
                continue;
            }
            if member.added_by.as_ref().is_some_and(|by| self.erased.contains(by)) {
                (member.added_by, changed) = (Some(UserId::erased(NOBODY)), true);
            }
            kept |= (*rows >> place & 1) << shape.members.len();
            shape.members.push(member);
        }
        *rows = kept;
        if changed && shape.kind == ConversationKind::Group {
            give_owner(&mut shape.members);
        }
        changed
    }

    /// The members' list as the inboxes and the entries tell it.
    fn shape_of(&mut self, id: ConversationId) -> Shape {
        let mut users = std::mem::take(&mut self.members);
        users.sort_by_key(|(_, first_seq)| *first_seq);
        users.truncate(GROUP_MEMBERS_MAX);
        let is_pair = match &users[..] {
            [(a, _), (b, _)] => ConversationId::pair(a, b) == id,
            [(a, _)] => ConversationId::pair(a, a) == id,
            _ => false,
        };
        let role = |user: &UserId| match self.story.roles.get(user) {
            _ if is_pair => Role::Owner,
            Some(role) => *role,
            None => Role::Member,
        };
        let member =
            |(user, first_seq): (UserId, u64)| Member { role: role(&user), user, first_seq, added_by: None };
        let mut members: Vec<Member> = users.into_iter().map(member).collect();
        give_owner(&mut members);
        let kind = if is_pair { ConversationKind::Pair } else { ConversationKind::Group };
        Shape { kind, name: self.story.name.take(), members, blocked_by: Vec::new() }
    }
}

/// A group has an owner: the first, if there is none.
fn give_owner(members: &mut [Member]) {
    if members.iter().all(|member| member.role != Role::Owner)
        && let Some(first) = members.first_mut()
    {
        first.role = Role::Owner;
    }
}

impl Story {
    fn note(&mut self, entry: &Entry) {
        match &entry.body {
            EntryBody::Created { name, .. } => {
                self.name = Some(name.clone());
                self.roles.insert(entry.sender.clone(), Role::Owner);
            }
            EntryBody::Renamed { name } => self.name = Some(name.clone()),
            EntryBody::RoleChanged { user, role } => drop(self.roles.insert(user.clone(), *role)),
            _ => {}
        }
    }
}

impl Mended {
    /// This entry, if it was read, is part of the log.
    pub(super) fn has(&self, seq: u64) -> bool {
        let after = self.runs.partition_point(|(from, _)| *from <= seq);
        after > 0 && seq <= self.runs[after - 1].1
    }

    /// Members whose inbox has no row for it.
    pub(super) fn without_row(&self) -> impl Iterator<Item = &Member> {
        let missing = |place: &usize| self.rows & (1 << place) == 0;
        let members = self.shape.members.iter().enumerate();
        members.filter(move |(place, _)| missing(place)).map(|(_, member)| member)
    }

    /// Entries that are lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost_before + self.holes.iter().map(|hole| hole.to - hole.from + 1).sum::<u64>()
    }
}

impl Hole {
    /// What stands in the place of its entries.
    pub(super) fn tombstones(self, id: ConversationId) -> impl Iterator<Item = Entry> {
        (self.from..=self.to).map(move |seq| {
            let place = seq - self.from + 1;
            let was_message = place <= self.messages;
            let body = match was_message {
                true => EntryBody::Erased,
                false => EntryBody::Opaque { kind: KIND_LOST, bytes: Vec::new() },
            };
            let sum = xxh3_128(&[&id.as_bytes()[..], &seq.to_be_bytes()].concat());
            Entry {
                seq,
                id: EntryId::from_bytes(sum.to_be_bytes()),
                time_ms: self.time_ms,
                sender: UserId::erased(NOBODY),
                sender_name: None,
                temp_id: None,
                messages: self.before + place.min(self.messages),
                body,
            }
        })
    }
}
