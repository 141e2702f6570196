//! Who is to be told of what. Pure.
//!
//! A member is told of each message that they did not write, may see, and have not seen. Who writes has seen
//! what was before.

use std::collections::HashMap;

use tern_protocol::{ConversationId, Entry, EntryBody, UserId};

use crate::events::PushEvent;
use crate::store::{Conversation, Intent};

/// Characters of the text in an event.
const PREVIEW_CHARS: usize = 120;

/// A member who is perhaps to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) user: UserId,
    /// The first entry of the intent that they have not seen.
    pub(super) from_seq: u64,
}

/// The members who have not seen all that an intent is for. `seen` says how far somebody has seen.
pub(super) fn waiting(state: &Conversation, intent: &Intent, seen: impl Fn(&UserId) -> u64) -> Vec<Waiting> {
    let others = state.members.iter().filter(|member| Some(&member.user) != intent.sender.as_ref());
    let waiting = others.map(|member| {
        let from_seq = intent.from_seq.max(member.first_seq).max(seen(&member.user) + 1);
        Waiting { user: member.user.clone(), from_seq }
    });
    waiting.filter(|waiting| waiting.from_seq <= intent.to_seq).collect()
}

/// The events of an intent, in the order of the entries, which are those of the log in its range.
pub(super) fn events<'a>(
    state: &'a Conversation,
    intent: &'a Intent,
    waiting: &'a [Waiting],
    entries: impl Iterator<Item = &'a Entry> + Clone,
) -> impl Iterator<Item = PushEvent> {
    let range = intent.from_seq..=intent.to_seq;
    let entries = entries.filter(move |entry| range.contains(&entry.seq));
    let mut wrote: HashMap<&UserId, u64> = HashMap::new();
    for entry in entries.clone() {
        wrote.insert(&entry.sender, entry.seq);
    }
    entries.flat_map(move |entry| {
        let waits = |waiting: &&Waiting| {
            let has_seen = wrote.get(&waiting.user).is_some_and(|seq| *seq >= entry.seq);
            waiting.from_seq <= entry.seq && !has_seen
        };
        let told: Vec<&Waiting> = waiting.iter().filter(waits).collect();
        told.into_iter().filter_map(move |waiting| event(state, intent, entry, &waiting.user))
    })
}

/// The event that tells a user of an entry, if it is a message.
fn event(state: &Conversation, intent: &Intent, entry: &Entry, user: &UserId) -> Option<PushEvent> {
    let EntryBody::Message { text, data, reply_to } = &entry.body else { return None };
    Some(PushEvent {
        event_id: format!("{}:{user}", entry.id),
        recipient_id: user.clone(),
        conversation: intent.conversation,
        seq: entry.seq,
        entry_id: entry.id,
        sender_id: entry.sender.clone(),
        sender_name: entry.sender_name.clone(),
        group_name: state.name.clone(),
        preview: text.chars().take(PREVIEW_CHARS).collect(),
        data: data.clone(),
        reply_to: *reply_to,
        time_ms: entry.time_ms,
    })
}

/// The ranges to be read for these intents of which somebody waits: one for each conversation, in their order.
pub(super) fn ranges<'a>(
    intents: impl Iterator<Item = &'a Intent>,
) -> Vec<(ConversationId, std::ops::RangeInclusive<u64>)> {
    let mut ranges: Vec<(ConversationId, std::ops::RangeInclusive<u64>)> = Vec::new();
    let mut places: HashMap<ConversationId, usize> = HashMap::new();
    for intent in intents {
        match places.get(&intent.conversation) {
            Some(&place) => {
                let range = &mut ranges[place].1;
                *range = intent.from_seq.min(*range.start())..=intent.to_seq.max(*range.end());
            }
            None => {
                places.insert(intent.conversation, ranges.len());
                ranges.push((intent.conversation, intent.from_seq..=intent.to_seq));
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use tern_protocol::{ConversationKind, EntryId, Role};

    use super::*;
    use crate::store::Member;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn state(members: &[(&str, u64)]) -> Conversation {
        let member = |(name, first_seq): &(&str, u64)| Member {
            user: user(name),
            role: Role::Member,
            first_seq: *first_seq,
            added_by: None,
        };
        Conversation {
            kind: ConversationKind::Group,
            name: Some("team".into()),
            head: 20,
            messages: 20,
            last_time_ms: 0,
            members: members.iter().map(member).collect(),
            blocked_by: Vec::new(),
        }
    }

    fn intent(from_seq: u64, to_seq: u64, sender: Option<&str>) -> Intent {
        let conversation = ConversationId::from_bytes([1; 16]);
        Intent { conversation, from_seq, to_seq, time_ms: 5, sender: sender.map(user) }
    }

    fn entry(seq: u64, sender: &str, body: EntryBody) -> Entry {
        Entry {
            seq,
            id: EntryId::from_bytes([seq as u8; 16]),
            time_ms: seq,
            sender: user(sender),
            sender_name: None,
            temp_id: None,
            messages: seq,
            body,
        }
    }

    fn names(waiting: &[Waiting]) -> Vec<(&str, u64)> {
        waiting.iter().map(|waiting| (waiting.user.as_str(), waiting.from_seq)).collect()
    }

    fn told(events: &[PushEvent]) -> Vec<(u64, &str)> {
        events.iter().map(|event| (event.seq, event.recipient_id.as_str())).collect()
    }

    #[test]
    fn who_wrote_or_has_seen_or_joined_later_does_not_wait() {
        let state = state(&[("alice", 1), ("bob", 1), ("carol", 7), ("dave", 9), ("erin", 1)]);
        let seen = |user: &UserId| match user.as_str() {
            "bob" => 8,
            "erin" => 5,
            _ => 0,
        };
        let waiting = waiting(&state, &intent(5, 8, Some("alice")), seen);
        assert_eq!(names(&waiting), [("carol", 7), ("erin", 6)]);
    }

    #[test]
    fn in_a_pair_whose_other_side_has_seen_it_nobody_waits() {
        let pair = state(&[("alice", 1), ("bob", 1)]);
        assert_eq!(
            waiting(&pair, &intent(5, 5, Some("alice")), |user| 5 * u64::from(user.as_str() == "bob")),
            []
        );
    }

    #[test]
    fn each_is_told_of_messages_of_others_that_they_have_not_seen() {
        let state = state(&[("alice", 1), ("bob", 1), ("carol", 6)]);
        let intent = intent(4, 8, None);
        let log = [
            entry(3, "alice", EntryBody::text("before")),
            entry(4, "alice", EntryBody::text("a")),
            entry(5, "bob", EntryBody::text("b")),
            entry(6, "alice", EntryBody::Added { users: vec![user("carol")] }),
            entry(7, "alice", EntryBody::text("c")),
            entry(8, "alice", EntryBody::Erased),
        ];
        let waiting = waiting(&state, &intent, |_| 0);
        assert_eq!(names(&waiting), [("alice", 4), ("bob", 4), ("carol", 6)]);
        // Bob's own message says that he has seen the first; alice has seen all of it.
        let events: Vec<PushEvent> = events(&state, &intent, &waiting, log.iter()).collect();
        assert_eq!(told(&events), [(7, "bob"), (7, "carol")]);
        assert_eq!(events[0].event_id, format!("{}:bob", log[4].id));
        assert_eq!((events[0].preview.as_str(), events[0].group_name.as_deref()), ("c", Some("team")));
    }

    #[test]
    fn intents_of_one_conversation_are_read_in_one_range() {
        let other = Intent { conversation: ConversationId::from_bytes([2; 16]), ..intent(1, 1, None) };
        let intents = [intent(9, 9, None), other.clone(), intent(4, 6, None)];
        let expected = [(intents[0].conversation, 4..=9), (other.conversation, 1..=1)];
        assert_eq!(ranges(intents.iter()), expected);
    }
}
