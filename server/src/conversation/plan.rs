//! What was decided about a batch: what to append, who is told, and what each change comes to. Pure.

use std::sync::Arc;

use tern_protocol::{EntryBody, UserId};

use super::answer::Refusal;
use super::ask::{Ask, Change};
use crate::store::{AppendGroup, Conversation, Marker};

/// A conversation as it stood at some head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Its state.
    pub(super) state: Arc<Conversation>,
    /// Ids of its members, for whoever tells them something.
    pub(super) members: Arc<[UserId]>,
}

impl Snapshot {
    /// Collects the members' ids.
    pub(super) fn new(state: Arc<Conversation>) -> Self {
        let members = state.members.iter().map(|member| member.user.clone()).collect();
        Self { state, members }
    }
}

/// Who receives an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipients {
    /// Index of the first entry of the group that these users receive.
    pub(super) from: usize,
    /// Members at that entry, and who just went.
    pub(super) users: Arc<[UserId]>,
}

/// What happens to one change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Entry `index` of the group is this change.
    Append(usize),
    /// It was committed before.
    Duplicate(Marker),
    /// It is the same change as the one at `index` of the batch.
    SameAs(usize),
    /// It is not made.
    Refuse(Refusal),
}

/// A decided batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What to append; `None` if nothing is new. The texts of its messages are those of the batch, moved.
    pub(super) group: Option<Arc<AppendGroup>>,
    /// One for each change that was decided, in order: a prefix of the batch.
    pub(super) verdicts: Vec<Verdict>,
    /// By entry of the group: which change of the batch it comes of.
    pub(super) made_by: Vec<usize>,
    /// Who receives which entries: each set holds until the next one's `from`.
    pub(super) recipients: Vec<Recipients>,
    /// Who came, went or showed themselves in it: who sees whom is judged again.
    pub(super) moved: Vec<UserId>,
    /// The conversation after the group.
    pub(super) after: Option<Snapshot>,
}

impl Plan {
    /// Somebody would be told that their change is never made.
    pub(super) fn refuses_for_good(&self) -> bool {
        let is_final =
            |verdict: &Verdict| matches!(verdict, Verdict::Refuse(refusal) if !refusal.code().temporary());
        self.verdicts.iter().any(is_final)
    }

    /// It knows of an entry that is newer than the state it was made on.
    pub(super) fn is_behind(&self) -> bool {
        let head = self.after.as_ref().map_or(0, |after| after.state.head);
        let is_newer = |verdict: &Verdict| matches!(verdict, Verdict::Duplicate(marker) if marker.seq > head);
        self.verdicts.iter().any(is_newer)
    }

    /// Moves the texts back into the batch, to decide about it anew.
    pub(super) fn give_back(self, batch: &mut [Ask]) {
        let Some(group) = self.group else { return };
        let entries =
            Arc::try_unwrap(group).map_or_else(|shared| shared.entries.clone(), |group| group.entries);
        for (new, by) in entries.into_iter().zip(self.made_by) {
            let Change::Message { text, data, .. } = &mut batch[by].change else { continue };
            // Shared only if a store has kept it: then this copies.
            let entry = Arc::unwrap_or_clone(new.entry);
            if let EntryBody::Message { text: moved_text, data: moved_data, .. } = entry.body {
                (*text, *data) = (moved_text, moved_data);
                batch[by].sender_name = entry.sender_name;
            }
        }
    }
}
