//! What an owner reads of the store while its other conversations go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use tern_protocol::{ConversationId, Entry, EntryBody, PAGE_BYTES_MAX, UserId};

use super::plan::{Snapshot, Verdict};
use super::settle::{Input, Settled};
use super::state::ChangeKey;
use crate::store::{AppendGroup, Log, Order, PageLimit, StoreError, Users};

/// A committed entry and its neighbours.
const PAGE: PageLimit = PageLimit { entries: 3, bytes: PAGE_BYTES_MAX };

pub(super) async fn state(log: Arc<dyn Log>, id: ConversationId) -> Input {
    Input::State(log.conversation(id).await)
}

pub(super) async fn markers(
    log: Arc<dyn Log>,
    id: ConversationId,
    keys: Vec<ChangeKey>,
    age_ms: u64,
) -> Input {
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        match log.marker(id, &key.0, key.1, age_ms).await {
            Ok(marker) => found.push((key, marker)),
            Err(error) => return Input::Markers(Err(error)),
        }
    }
    Input::Markers(Ok(found))
}

pub(super) async fn entry(log: Arc<dyn Log>, id: ConversationId, seq: u64) -> Input {
    let limit = PageLimit { entries: 1, ..PAGE };
    let found = log.entries(id, seq..=seq, Order::Ascending, limit).await;
    Input::Entry(found.map(|entries| entries.first().map(|entry| entry.id)))
}

/// What must be read before a plan can be told.
#[derive(Debug)]
pub(super) struct Retelling {
    /// Entries that were committed before: their first attempt may have died before anybody was told.
    seqs: BTreeSet<u64>,
    after: Option<Snapshot>,
    /// The group of the plan, where its attempt may have died half-way.
    again: Option<Arc<AppendGroup>>,
    /// Users of a conversation that was just made.
    newcomers: Option<Arc<[UserId]>>,
}

/// What was read for a plan.
#[derive(Debug, Default)]
pub(super) struct Retold {
    /// The entries committed before, and what came along with them; ascending.
    pub(super) entries: Vec<Entry>,
    /// The store did not answer: what was committed before cannot be told.
    pub(super) failed: bool,
    /// What an own attempt may have left undone could not be done: it is not acked.
    pub(super) undone: bool,
    /// Somebody in a conversation that was just made has never been here.
    pub(super) recipient_unknown: bool,
}

impl Retelling {
    /// `None`: the plan is enough.
    pub(super) fn of(Settled { plan, found_again, .. }: &Settled) -> Option<Self> {
        let committed = |verdict: &Verdict| match verdict {
            Verdict::Duplicate(marker) => Some(marker.seq),
            Verdict::Append(_) | Verdict::SameAs(_) | Verdict::Refuse(_) => None,
        };
        let seqs: BTreeSet<u64> = plan.verdicts.iter().filter_map(committed).collect();
        let is_new = plan.group.as_ref().is_some_and(|group| group.expected_head == 0);
        let newcomers = plan.after.as_ref().filter(|_| is_new).map(|after| Arc::clone(&after.members));
        let again = plan.group.clone().filter(|_| *found_again);
        let is_empty = seqs.is_empty() && newcomers.is_none() && again.is_none();
        (!is_empty).then(|| Self { seqs, after: plan.after.clone(), again, newcomers })
    }

    /// Reads it. What the first attempt may not have written besides the log is written again.
    pub(super) async fn read(self, log: Arc<dyn Log>, users: Arc<dyn Users>, id: ConversationId) -> Retold {
        let recipient_unknown = match &self.newcomers {
            // A hint for people: without an answer nothing is claimed.
            Some(newcomers) => {
                users.users(newcomers).await.is_ok_and(|known| known.iter().any(Option::is_none))
            }
            None => false,
        };
        let undone = match self.redo(&*log, id).await {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(conversation = %id, %error, "what may be missing of an append cannot be written");
                true
            }
        };
        match self.committed(&*log, id).await {
            Ok(entries) => Retold { entries, failed: false, undone, recipient_unknown },
            Err(error) => {
                tracing::warn!(conversation = %id, %error, "what was committed before cannot be told again");
                Retold { entries: Vec::new(), failed: true, undone, recipient_unknown }
            }
        }
    }

    async fn redo(&self, log: &dyn Log, id: ConversationId) -> Result<(), StoreError> {
        let Some(group) = &self.again else { return Ok(()) };
        let entries: Vec<Entry> = group.entries.iter().map(|new| (*new.entry).clone()).collect();
        log.redo(id, &group.state, &entries).await
    }

    async fn committed(&self, log: &dyn Log, id: ConversationId) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        for &seq in &self.seqs {
            let next = entries.last().map_or(0, |entry| entry.seq) + 1;
            // The one before it and the one after it may have come along.
            let mut from = next.max(seq.saturating_sub(1)).max(1);
            while from <= seq + 1 {
                let found = log.entries(id, from..=seq + 1, Order::Ascending, PAGE).await?;
                let Some(last) = found.last() else { break };
                from = last.seq + 1;
                entries.extend(found);
            }
        }
        let told = |at: usize| self.seqs.contains(&entries[at].seq) || self.came_along(&entries, at);
        let keep: Vec<bool> = (0..entries.len()).map(told).collect();
        let mut keep = keep.into_iter();
        entries.retain(|_| keep.next().unwrap_or_default());
        if let (Some(after), false) = (&self.after, entries.is_empty()) {
            log.redo(id, &after.state, &entries).await?;
        }
        Ok(entries)
    }

    /// Entries without a marker are told with the change that they came of: who came back to a pair before it,
    /// who was promoted after it.
    fn came_along(&self, entries: &[Entry], at: usize) -> bool {
        let entry = &entries[at];
        let (seq, neighbour) = match &entry.body {
            EntryBody::Added { .. } => (entry.seq + 1, at.checked_add(1)),
            EntryBody::RoleChanged { .. } => (entry.seq - 1, at.checked_sub(1)),
            _ => return false,
        };
        let neighbour = neighbour.and_then(|at| entries.get(at));
        let is_of_it = neighbour.is_some_and(|other| other.seq == seq && other.sender == entry.sender);
        entry.temp_id.is_none() && is_of_it && self.seqs.contains(&seq)
    }
}
