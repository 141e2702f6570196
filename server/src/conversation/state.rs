//! Decides what a batch of changes does to a conversation: in which order, what was made before, what must be
//! looked up first. Pure: a snapshot and facts in, one append group and a verdict for each change out. What
//! each change does is in `rules`.

use tern_protocol::{EntryId, TempId, UserId};

use super::answer::Refusal;
use super::ask::Ask;
use super::plan::{Plan, Snapshot, Verdict};
use super::rules::Work;
use crate::store::{GROUP_BYTES_MAX, Marker};

/// Names a change across retries (within one conversation).
pub(super) type ChangeKey = (UserId, TempId);

/// What is known of the changes of a batch besides the state. Small: a linear search is all it needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    markers: Vec<(ChangeKey, Option<Marker>)>,
    barred: Vec<(ChangeKey, Refusal)>,
}

impl Facts {
    /// The marker of a change was looked up: there is this one, or none.
    pub(super) fn learn(&mut self, key: ChangeKey, marker: Option<Marker>) {
        match self.markers.iter_mut().find(|(known, _)| *known == key) {
            Some(known) => known.1 = marker,
            None => self.markers.push((key, marker)),
        }
    }

    /// The store does not take a change, for this reason.
    pub(super) fn bar(&mut self, key: ChangeKey, refusal: Refusal) {
        self.barred.push((key, refusal));
    }

    /// Forgets which changes have no marker: they may have got one since.
    pub(super) fn forget_absences(&mut self) {
        self.markers.retain(|(_, marker)| marker.is_some());
    }

    /// `None`: not looked up. `Some(None)`: there is none.
    fn marker(&self, sender: &UserId, temp_id: TempId) -> Option<Option<Marker>> {
        let found = self.markers.iter().find(|(key, _)| key.1 == temp_id && key.0 == *sender);
        found.map(|(_, marker)| *marker)
    }

    fn barred(&self, ask: &Ask) -> Option<&Refusal> {
        let found = self.barred.iter().find(|(key, _)| key.1 == ask.temp_id && key.0 == ask.sender);
        found.map(|(_, refusal)| refusal)
    }
}

/// The decision about a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// These markers must be looked up first.
    Lookup(Vec<ChangeKey>),
    /// Append this group, then answer.
    Ready(Plan),
}

/// Decides about as many changes of a batch as fit in one group. If it is ready, the texts have moved into it.
///
/// `now_ms` is the wall clock; entry times never decrease whatever it says. `fresh_id` makes ids.
pub(super) fn decide(
    before: Option<&Snapshot>,
    batch: &mut [Ask],
    facts: &Facts,
    now_ms: u64,
    fresh_id: &mut dyn FnMut() -> EntryId,
) -> Decision {
    let mut work = Work::new(before, now_ms, fresh_id);
    let mut judged = Judged { facts, verdicts: Vec::with_capacity(batch.len()), lookups: Vec::new() };
    let mut bytes = 0;
    for (index, ask) in batch.iter().enumerate() {
        bytes += ask.change.weight();
        if index > 0 && (bytes > GROUP_BYTES_MAX || !work.has_room()) {
            break;
        }
        let verdict = match place(&batch[..index], &ask.sender, ask.temp_id) {
            Some(first) if batch[first].change == ask.change => Verdict::SameAs(first),
            Some(first) => conflict(&judged.verdicts[first]),
            None => judged.judge(&mut work, &batch[..index], ask),
        };
        judged.verdicts.push(verdict);
    }
    if judged.lookups.is_empty() {
        Decision::Ready(work.finish(batch, judged.verdicts))
    } else {
        Decision::Lookup(judged.lookups)
    }
}

/// Where a change stands in a batch.
fn place(batch: &[Ask], sender: &UserId, temp_id: TempId) -> Option<usize> {
    batch.iter().position(|ask| ask.temp_id == temp_id && ask.sender == *sender)
}

/// The same `temp_id` twice in a batch for different things. While the first has no seq yet the
/// second is put off: its retry meets the marker and learns the seq.
fn conflict(first: &Verdict) -> Verdict {
    match first {
        Verdict::Append(_) | Verdict::SameAs(_) => Verdict::Refuse(Refusal::OutOfOrder),
        Verdict::Duplicate(marker) => Verdict::Refuse(Refusal::Conflict { seq: marker.seq }),
        Verdict::Refuse(refusal) => Verdict::Refuse(refusal.clone()),
    }
}

/// What was decided so far, and what would have to be known.
struct Judged<'a> {
    facts: &'a Facts,
    verdicts: Vec<Verdict>,
    lookups: Vec<ChangeKey>,
}

impl Judged<'_> {
    fn judge(&mut self, work: &mut Work<'_>, earlier: &[Ask], ask: &Ask) -> Verdict {
        // An earlier commit answers before anything else is asked: also for somebody who has left.
        if let Some(Some(marker)) = self.facts.marker(&ask.sender, ask.temp_id) {
            return if marker.digest == ask.change.digest() {
                Verdict::Duplicate(marker)
            } else {
                Verdict::Refuse(Refusal::Conflict { seq: marker.seq })
            };
        }
        if let Some(refusal) = self.facts.barred(ask) {
            return self.refuse(ask, refusal.clone());
        }
        if ask.after.is_some_and(|before| !self.is_resolved(earlier, &ask.sender, before)) {
            return self.refuse(ask, Refusal::OutOfOrder);
        }
        match work.apply(earlier.len(), ask) {
            Ok(index) => Verdict::Append(index),
            Err(refusal) => self.refuse(ask, refusal),
        }
    }

    /// Whether a follower of this change may pass. What must be looked up first is taken to be resolved.
    fn is_resolved(&mut self, earlier: &[Ask], sender: &UserId, before: TempId) -> bool {
        match (place(earlier, sender, before), self.facts.marker(sender, before)) {
            (Some(index), _) => match &self.verdicts[index] {
                Verdict::Refuse(refusal) => refusal.resolves(),
                Verdict::Append(_) | Verdict::Duplicate(_) | Verdict::SameAs(_) => true,
            },
            (None, Some(marker)) => marker.is_some(),
            (None, None) => {
                self.lookups.push((sender.clone(), before));
                true
            }
        }
    }

    /// Nothing is refused before it is certain that it was not committed earlier.
    fn refuse(&mut self, ask: &Ask, refusal: Refusal) -> Verdict {
        if self.facts.marker(&ask.sender, ask.temp_id).is_none() {
            self.lookups.push((ask.sender.clone(), ask.temp_id));
        }
        Verdict::Refuse(refusal)
    }
}
