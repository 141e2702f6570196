//! Keeps the order of one session's sends in each conversation (go-back-N). Pure.
//!
//! A send is unresolved until it is acked, refused for good, or abandoned. After a temporary
//! refusal every later send of the conversation is refused too, until the unresolved ones were
//! sent again in their order.

use std::collections::{HashMap, VecDeque};

use tern_protocol::{ConversationId, SENDS_IN_FLIGHT_MAX, TempId};

/// Names one attempt: the same send tried again is another attempt.
pub(super) type Attempt = u64;

/// The unresolved sends of a session, by conversation.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// In each the sends stand in the order in which they first arrived.
    lanes: HashMap<ConversationId, VecDeque<Unresolved>>,
    attempts: Attempt,
    unresolved: usize,
}

#[derive(Debug)]
struct Unresolved {
    temp_id: TempId,
    /// The newest attempt, if it has no answer yet; otherwise it was refused for now.
    in_flight: Option<Attempt>,
    abandoned: bool,
}

/// What to do with a send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Submit it under this attempt, behind the send `after`.
    Submit {
        /// To resolve it with.
        attempt: Attempt,
        /// Its predecessor that is still on its way.
        after: Option<TempId>,
    },
    /// Refuse it as out of order: an earlier one must be sent again first.
    OutOfOrder,
    /// The session has too many unresolved sends; it broke a limit it was told.
    TooMany,
}

impl Lanes {
    /// A send has arrived.
    pub(super) fn admit(&mut self, conversation: ConversationId, temp_id: TempId) -> Admission {
        let lane = self.lanes.entry(conversation).or_default();
        let place = match lane.iter().position(|send| send.temp_id == temp_id) {
            Some(place) => place,
            None if self.unresolved == SENDS_IN_FLIGHT_MAX => {
                self.tidy(conversation);
                return Admission::TooMany;
            }
            None => {
                lane.push_back(Unresolved { temp_id, in_flight: None, abandoned: false });
                self.unresolved += 1;
                lane.len() - 1
            }
        };
        if lane.iter().take(place).any(|earlier| earlier.in_flight.is_none()) {
            return Admission::OutOfOrder;
        }
        let attempt = self.attempts;
        self.attempts += 1;
        lane[place].in_flight = Some(attempt);
        let after = place.checked_sub(1).map(|before| lane[before].temp_id);
        Admission::Submit { attempt, after }
    }

    /// The answer to an attempt: `temporary` leaves the send unresolved.
    pub(super) fn answered(
        &mut self,
        conversation: ConversationId,
        temp_id: TempId,
        attempt: Attempt,
        temporary: bool,
    ) {
        let Some(lane) = self.lanes.get_mut(&conversation) else { return };
        let Some(place) = lane.iter().position(|send| send.temp_id == temp_id) else { return };
        if temporary && !lane[place].abandoned {
            // An answer to an older attempt says nothing about the newer one.
            if lane[place].in_flight == Some(attempt) {
                lane[place].in_flight = None;
            }
            return;
        }
        self.resolve(conversation, place);
    }

    /// The client gives a send up: later ones need not wait for it.
    pub(super) fn abandon(&mut self, conversation: ConversationId, temp_id: TempId) {
        let Some(lane) = self.lanes.get_mut(&conversation) else { return };
        let Some(place) = lane.iter().position(|send| send.temp_id == temp_id) else { return };
        if lane[place].in_flight.is_some() {
            lane[place].abandoned = true;
        } else {
            self.resolve(conversation, place);
        }
    }

    fn resolve(&mut self, conversation: ConversationId, place: usize) {
        if self.lanes.get_mut(&conversation).and_then(|lane| lane.remove(place)).is_some() {
            self.unresolved -= 1;
        }
        self.tidy(conversation);
    }

    fn tidy(&mut self, conversation: ConversationId) {
        if self.lanes.get(&conversation).is_some_and(VecDeque::is_empty) {
            self.lanes.remove(&conversation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ConversationId = ConversationId::from_bytes([1; 16]);
    const THERE: ConversationId = ConversationId::from_bytes([2; 16]);

    fn id(n: u8) -> TempId {
        TempId::from_bytes([n; 16])
    }

    fn submit(lanes: &mut Lanes, n: u8) -> (Attempt, Option<TempId>) {
        match lanes.admit(HERE, id(n)) {
            Admission::Submit { attempt, after } => (attempt, after),
            other => panic!("send {n}: {other:?}"),
        }
    }

    #[test]
    fn pipelined_sends_name_their_predecessor() {
        let mut lanes = Lanes::default();
        let (first, none) = submit(&mut lanes, 1);
        assert_eq!(none, None);
        assert_eq!(submit(&mut lanes, 2).1, Some(id(1)));
        lanes.answered(HERE, id(1), first, false);
        assert_eq!(submit(&mut lanes, 3).1, Some(id(2)));
    }

    #[test]
    fn a_later_send_never_overtakes_one_that_was_refused_for_now() {
        let mut lanes = Lanes::default();
        let (one, _) = submit(&mut lanes, 1);
        let (two, _) = submit(&mut lanes, 2);
        lanes.answered(HERE, id(1), one, true);
        assert_eq!(lanes.admit(HERE, id(3)), Admission::OutOfOrder);
        // The retry of 1 comes before the refusal of 2 is known, and must not wait for 2.
        let (_, after) = submit(&mut lanes, 1);
        assert_eq!(after, None);
        lanes.answered(HERE, id(2), two, true);
        assert_eq!(lanes.admit(HERE, id(3)), Admission::OutOfOrder, "2 is unresolved");
        assert_eq!(submit(&mut lanes, 2).1, Some(id(1)));
        assert_eq!(submit(&mut lanes, 3).1, Some(id(2)));
    }

    #[test]
    fn an_answer_to_an_older_attempt_does_not_refuse_the_newer_one() {
        let mut lanes = Lanes::default();
        let (old, _) = submit(&mut lanes, 1);
        let (_new, _) = submit(&mut lanes, 1);
        lanes.answered(HERE, id(1), old, true);
        assert_eq!(submit(&mut lanes, 2).1, Some(id(1)), "1 is still on its way");
    }

    #[test]
    fn a_refusal_for_good_and_an_abandoned_send_let_the_next_pass() {
        let mut lanes = Lanes::default();
        let (one, _) = submit(&mut lanes, 1);
        lanes.answered(HERE, id(1), one, true);
        lanes.abandon(HERE, id(1));
        let (two, none) = submit(&mut lanes, 2);
        assert_eq!(none, None);
        lanes.abandon(HERE, id(2));
        lanes.answered(HERE, id(2), two, true);
        let (three, none) = submit(&mut lanes, 3);
        assert_eq!(none, None);
        lanes.answered(HERE, id(3), three, false);
        assert!(lanes.lanes.is_empty(), "a resolved conversation keeps nothing");
        assert_eq!(lanes.unresolved, 0);
    }

    #[test]
    fn conversations_do_not_wait_for_each_other() {
        let mut lanes = Lanes::default();
        let (one, _) = submit(&mut lanes, 1);
        lanes.answered(HERE, id(1), one, true);
        assert!(matches!(lanes.admit(THERE, id(2)), Admission::Submit { after: None, .. }));
    }

    #[test]
    fn unresolved_sends_are_bounded_over_all_conversations() {
        let mut lanes = Lanes::default();
        for n in 0..SENDS_IN_FLIGHT_MAX {
            let conversation = ConversationId::from_bytes([n as u8; 16]);
            let temp_id = TempId::from_bytes((n as u128).to_be_bytes());
            assert!(matches!(lanes.admit(conversation, temp_id), Admission::Submit { .. }));
        }
        assert_eq!(lanes.admit(HERE, TempId::from_bytes([0xff; 16])), Admission::TooMany);
    }
}
