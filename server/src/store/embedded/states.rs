//! Conversations in memory as of the last commit, filled by readers and by the writer alike.
//!
//! A reader that was slow must not put back what a commit has replaced. So who reads from disk first says
//! that it does; a commit in between takes the right to keep what was read away.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::mem::size_of;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tern_protocol::ConversationId;

use crate::store::{Conversation, Kept, Member};

/// Bytes of all cached conversations, about 150,000 pairs.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Parts, to keep their locks apart.
const PARTS: usize = 64;
/// About how many bytes a slot takes besides its members.
const SLOT_BYTES: usize = 192;

/// What is known of a conversation; `None` for its state means that it does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) state: Option<Arc<Conversation>>,
    /// `None`: not known.
    pub(super) kept: Option<Kept>,
}

/// The right to keep what is read from now on, unless a commit comes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filling(u64);

/// All cached conversations.
pub(super) struct States {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
    part_bytes_max: usize,
}

#[derive(Default)]
struct Part {
    slots: HashMap<ConversationId, Slot, RandomState>,
    /// Every slot once; the front is the next to go, unless it was used since it was last there.
    order: VecDeque<ConversationId>,
    bytes: usize,
    /// Reads under way; the last of each conversation counts.
    filling: HashMap<ConversationId, u64, RandomState>,
    next: u64,
}

struct Slot {
    known: Known,
    bytes: usize,
    is_used: bool,
}

impl Default for States {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl States {
    /// Nothing is cached; at most so many bytes will be.
    pub(super) fn new(bytes_max: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, hasher: RandomState::default(), part_bytes_max: bytes_max / PARTS }
    }

    /// What is known, `None` if the disk must be asked.
    pub(super) fn get(&self, id: ConversationId) -> Option<Known> {
        let mut part = self.part(id).lock();
        let slot = part.slots.get_mut(&id)?;
        slot.is_used = true;
        Some(slot.known.clone())
    }

    /// Somebody reads it from disk now.
    pub(super) fn begin(&self, id: ConversationId) -> Filling {
        let mut part = self.part(id).lock();
        part.next += 1;
        let number = part.next;
        part.filling.insert(id, number);
        Filling(number)
    }

    /// It was read, or could not be. Kept, if nothing was committed and nobody else began to read it
    /// meanwhile.
    pub(super) fn finish(&self, id: ConversationId, filling: Filling, known: Option<Known>) {
        let mut part = self.part(id).lock();
        if part.filling.get(&id) == Some(&filling.0) {
            part.filling.remove(&id);
            if let Some(known) = known {
                part.put(id, known, self.part_bytes_max);
            }
        }
    }

    /// A commit has made this the state; it is visible, and has not been answered yet.
    pub(super) fn committed(&self, id: ConversationId, state: Arc<Conversation>, is_new: bool) {
        let mut part = self.part(id).lock();
        part.filling.remove(&id);
        let kept = match part.slots.get(&id) {
            Some(slot) => slot.known.kept,
            None => is_new.then(Kept::default),
        };
        part.put(id, Known { state: Some(state), kept }, self.part_bytes_max);
    }

    /// A commit has made this what is kept.
    pub(super) fn aged(&self, id: ConversationId, kept: Kept) {
        let mut part = self.part(id).lock();
        part.filling.remove(&id);
        if let Some(slot) = part.slots.get_mut(&id) {
            slot.known.kept = Some(kept);
        }
    }

    fn part(&self, id: ConversationId) -> &Mutex<Part> {
        &self.parts[self.hasher.hash_one(id) as usize % PARTS]
    }
}

impl Part {
    fn put(&mut self, id: ConversationId, known: Known, bytes_max: usize) {
        let bytes = weight(&known);
        self.bytes += bytes;
        match self.slots.entry(id) {
            Place::Occupied(mut place) => {
                let before = std::mem::replace(place.get_mut(), Slot { known, bytes, is_used: true });
                self.bytes -= before.bytes;
            }
            Place::Vacant(place) => {
                place.insert(Slot { known, bytes, is_used: false });
                self.order.push_back(id);
            }
        }
        while self.bytes > bytes_max {
            let Some(oldest) = self.order.pop_front() else { return };
            match self.slots.get_mut(&oldest) {
                Some(slot) if slot.is_used => {
                    slot.is_used = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    let gone = self.slots.remove(&oldest);
                    self.bytes -= gone.map_or(0, |slot| slot.bytes);
                }
            }
        }
    }
}

/// About how many bytes it takes.
fn weight(known: &Known) -> usize {
    let Some(state) = &known.state else { return SLOT_BYTES };
    let length = |member: &Member| {
        member.user.as_str().len() + member.added_by.as_ref().map_or(0, |by| by.as_str().len())
    };
    let texts: usize = state.members.iter().map(length).sum();
    let name = state.name.as_ref().map_or(0, String::len);
    // A user id is a text of its own in memory, with a count beside it.
    SLOT_BYTES + size_of::<Conversation>() + state.members.len() * (size_of::<Member>() + 32) + texts + name
}

#[cfg(test)]
mod tests {
    use tern_protocol::ConversationKind;

    use super::*;

    fn id(number: u8) -> ConversationId {
        ConversationId::from_bytes([number; 16])
    }

    fn state(head: u64) -> Arc<Conversation> {
        let (kind, name) = (ConversationKind::Group, None);
        Arc::new(Conversation {
            kind,
            name,
            head,
            messages: 0,
            last_time_ms: 0,
            members: Vec::new(),
            blocked_by: Vec::new(),
        })
    }

    fn known(head: u64) -> Known {
        Known { state: Some(state(head)), kept: Some(Kept::default()) }
    }

    #[test]
    fn a_slow_reader_never_puts_back_what_a_commit_has_replaced() {
        let states = States::default();
        let slow = states.begin(id(1));
        states.committed(id(1), state(2), false);
        states.finish(id(1), slow, Some(known(1)));
        assert_eq!(states.get(id(1)).unwrap().state, Some(state(2)));

        // Nor if the newer one has been evicted meanwhile.
        let tiny = States::new(0);
        let slow = tiny.begin(id(1));
        tiny.committed(id(1), state(2), false);
        assert_eq!(tiny.get(id(1)), None);
        tiny.finish(id(1), slow, Some(known(1)));
        let slow = states.begin(id(3));
        states.aged(id(3), Kept { first_seq: 9, ..Kept::default() });
        states.finish(id(3), slow, Some(known(1)));
        assert_eq!(states.get(id(3)), None, "what is kept has changed");
    }

    #[test]
    fn the_last_who_began_to_read_fills() {
        let states = States::default();
        let (first, second) = (states.begin(id(1)), states.begin(id(1)));
        states.finish(id(1), first, Some(known(1)));
        assert_eq!(states.get(id(1)), None);
        states.finish(id(1), second, Some(known(2)));
        assert_eq!(states.get(id(1)), Some(known(2)));
    }

    #[test]
    fn what_is_new_is_known_whole_and_what_was_evicted_is_not() {
        let states = States::default();
        states.committed(id(1), state(1), true);
        assert_eq!(states.get(id(1)), Some(known(1)));
        states.committed(id(2), state(7), false);
        assert_eq!(states.get(id(2)), Some(Known { state: Some(state(7)), kept: None }));
        states.aged(id(1), Kept { first_seq: 4, ..Kept::default() });
        states.committed(id(1), state(2), false);
        assert_eq!(states.get(id(1)).unwrap().kept.unwrap().first_seq, 4, "an append keeps what is kept");
    }

    #[test]
    fn the_bytes_are_bounded_and_what_is_used_stays() {
        let room = 20 * weight(&known(1));
        let mut part = Part::default();
        for number in 0..100 {
            part.put(id(number), known(u64::from(number)), room);
            assert!(part.bytes <= room && part.order.len() == part.slots.len());
            if let Some(slot) = part.slots.get_mut(&id(0)) {
                slot.is_used = true;
            }
        }
        assert!(part.slots.contains_key(&id(0)) && part.slots.contains_key(&id(99)));
        assert_eq!(part.slots.len(), 20);
        assert_eq!(part.bytes, part.slots.values().map(|slot| slot.bytes).sum::<usize>());
    }
}
