//! How far a client was told of each conversation, so that its acks need not be looked up. Pure.

use tern_protocol::ConversationId;

/// Conversations that are remembered; the one told of least recently is forgotten.
const TOLD_MAX: usize = 64;

/// The newest entry that was queued, by conversation; the one told of last stands at the end.
#[derive(Debug, Default)]
pub(super) struct Told {
    heads: Vec<(ConversationId, u64)>,
}

impl Told {
    /// It is told of everything up to `seq`.
    pub(super) fn note(&mut self, id: ConversationId, seq: u64) {
        let seq = match self.heads.iter().rposition(|(known, _)| *known == id) {
            Some(place) if place + 1 == self.heads.len() => {
                let head = &mut self.heads[place].1;
                *head = seq.max(*head);
                return;
            }
            Some(place) => seq.max(self.heads.remove(place).1),
            None => seq,
        };
        if self.heads.len() == TOLD_MAX {
            self.heads.remove(0);
        }
        self.heads.push((id, seq));
    }

    /// It was told of this entry; false also if that is forgotten.
    pub(super) fn knows(&self, id: ConversationId, seq: u64) -> bool {
        self.heads.iter().rev().any(|(known, head)| *known == id && seq <= *head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConversationId {
        ConversationId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn what_was_told_is_known_and_nothing_above_it() {
        let mut told = Told::default();
        told.note(id(1), 7);
        told.note(id(2), 3);
        told.note(id(1), 5);
        assert!(told.knows(id(1), 7) && told.knows(id(2), 1));
        assert!(!told.knows(id(1), 8) && !told.knows(id(3), 0));
    }

    #[test]
    fn a_bounded_number_is_remembered_the_latest_of_them() {
        let mut told = Told::default();
        for number in 0..TOLD_MAX {
            told.note(id(number), 1);
        }
        told.note(id(0), 2);
        told.note(id(TOLD_MAX), 1);
        assert_eq!(told.heads.len(), TOLD_MAX);
        assert!(told.knows(id(0), 2) && told.knows(id(TOLD_MAX), 1));
        assert!(!told.knows(id(1), 1), "told of least recently");
    }
}
