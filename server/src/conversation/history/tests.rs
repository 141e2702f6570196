use std::collections::HashMap;
use std::sync::Arc;

use tern_protocol::resume::CatchUp;
use tern_protocol::{ConversationId, ConversationKind, EntryBody, Role, UserId};

use super::*;
use crate::clock::unix_ms;
use crate::store::contract::{Talk, change, fresh_temp_id};
use crate::store::memory::MemoryStore;
use crate::store::shaky::{Call, Shaky};
use crate::store::{Ages, Departure, Member, UserChange};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A store with things in it, and the reading of it.
struct Room {
    shaky: Arc<Shaky>,
    store: Arc<dyn Store>,
    history: History,
}

impl Room {
    fn new() -> Self {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let store: Arc<dyn Store> = shaky.clone();
        Self { shaky, history: History::new(store.clone()), store }
    }

    /// A pair with so many messages of the other user.
    async fn pair(&self, me: &UserId, other: &UserId, messages: usize) -> Talk {
        let mut talk = Talk::new(&[me, other]);
        talk.id = ConversationId::pair(me, other);
        let state = Arc::make_mut(&mut talk.state);
        (state.kind, state.name) = (ConversationKind::Pair, None);
        for _ in 0..messages {
            self.say(&mut talk, other).await;
        }
        talk
    }

    async fn say(&self, talk: &mut Talk, sender: &UserId) {
        let group = talk.group(sender, &[(fresh_temp_id(), "a message")]);
        talk.apply(&self.store, group).await;
    }

    /// The same now, by the clock.
    async fn say_now(&self, talk: &mut Talk, sender: &UserId) {
        let mut group = talk.group(sender, &[(fresh_temp_id(), "a message")]);
        change(&mut group.entries[0], |entry| entry.time_ms = unix_ms());
        Arc::make_mut(&mut group.state).last_time_ms = group.entries[0].entry.time_ms;
        talk.apply(&self.store, group).await;
    }

    /// An entry that is no message: somebody joins.
    async fn add(&self, talk: &mut Talk, sender: &UserId, who: &UserId) {
        let mut group = talk.group(sender, &[(fresh_temp_id(), "added")]);
        let messages = talk.state.messages;
        change(&mut group.entries[0], |entry| {
            (entry.messages, entry.body) = (messages, EntryBody::Added { users: vec![who.clone()] });
        });
        let state = Arc::make_mut(&mut group.state);
        state.messages = messages;
        state.members.push(Member {
            user: who.clone(),
            role: Role::Member,
            first_seq: state.head,
            added_by: None,
        });
        talk.apply(&self.store, group).await;
    }

    async fn remove(&self, talk: &mut Talk, sender: &UserId, who: &UserId) {
        let mut group = talk.group(sender, &[(fresh_temp_id(), "removed")]);
        let (user, until_seq) = (who.clone(), group.state.head);
        let first_seq = talk.state.member(who).unwrap().first_seq;
        group.departures.push(Departure { user, first_seq, until_seq });
        Arc::make_mut(&mut group.state).members.retain(|member| member.user != *who);
        talk.apply(&self.store, group).await;
    }

    async fn unread(&self, user: &UserId, id: ConversationId) -> u64 {
        let summary = self.history.described(user, id).await.unwrap().unwrap().summary;
        assert_eq!(summary.unread, summary.head_messages - summary.read_messages);
        summary.unread
    }

    /// Round trips of what is done.
    async fn trips<T>(&self, done: impl Future<Output = T>) -> (usize, T) {
        let before = self.shaky.round_trips();
        let done = done.await;
        (self.shaky.round_trips() - before, done)
    }
}

#[tokio::test]
async fn every_question_costs_a_constant_number_of_round_trips() {
    let (room, me) = (Room::new(), user("me"));
    let mut talks = Vec::new();
    for number in 0..200 {
        let other = user(&format!("user-{number}"));
        room.store.change_user(&other, UserChange::Name(Some("Name".into())), None).await.unwrap();
        talks.push(room.pair(&me, &other, 3).await);
    }
    let (history, id) = (&room.history, talks[7].id);

    let (trips, page) = room.trips(history.list(&me, None, 20)).await;
    assert_eq!((trips, page.unwrap().conversations.len()), (3, 20), "a frame: rows, glances, names");
    let (trips, page) = room.trips(history.list_described(&me, None, 20)).await;
    let page = page.unwrap();
    assert_eq!((trips, page.conversations.len()), (4, 20), "HTTP: last entries too");
    assert!(page.conversations.iter().all(|one| one.last_entry.as_ref().unwrap().seq == 3));
    let (trips, one) = room.trips(history.described(&me, id)).await;
    assert_eq!((trips, one.unwrap().unwrap().members.unwrap().len()), (4, 2));

    let (trips, changed) = room.trips(history.changed(&me, &HashMap::new())).await;
    let Changes { changed, ahead, unreadable } = changed.unwrap();
    assert_eq!(
        (trips, changed.len(), ahead.len(), unreadable.len()),
        (3, 200, 0, 0),
        "a sync: rows, glances, names"
    );
    let runs: Vec<Run> = changed.iter().map(|changed| run(&changed.missing)).collect();
    let (trips, entries) = room.trips(history.runs(&runs)).await;
    assert_eq!(trips, 1, "and one for each frame of entries");
    assert_eq!(entries.unwrap().found.len(), 67, "200 entries");

    for (anchor, expected) in [
        (Anchor::Latest, 2),
        (Anchor::Before(3), 2),
        (Anchor::After(1), 2),
        (Anchor::Around(2), 3),
        (Anchor::Until(2_500), 3),
    ] {
        let (trips, page) = room.trips(history.page(&me, id, anchor, 20)).await;
        assert_eq!(trips, expected, "{anchor:?}: glance, perhaps a place, entries");
        assert!(!page.unwrap().unwrap().entries.is_empty());
    }
    let (trips, members) = room.trips(history.members(&me, id)).await;
    assert_eq!((trips, members.unwrap().unwrap().len()), (2, 2), "glance, names");
    let ids: Vec<ConversationId> = talks.iter().map(|talk| talk.id).collect();
    let (trips, accesses) = room.trips(history.accesses(&me, &ids)).await;
    assert_eq!(
        (trips, accesses.unwrap().into_iter().filter_map(Result::unwrap).count()),
        (1, 200),
        "all positions of an ack"
    );
    let (trips, accesses) = room.trips(history.accesses(&user("mallory"), &ids)).await;
    assert_eq!(
        (trips, accesses.unwrap().into_iter().filter_map(Result::unwrap).count()),
        (2, 0),
        "and of one who asks for nothing"
    );
    let (trips, marked) = room.trips(history.mark_read(&me, id, 2)).await;
    assert!(trips == 3 && matches!(marked.unwrap(), Marked::Rose(_)), "glance, entry, write");
}

fn run(missing: &Missing) -> Run {
    match missing.catch_up {
        CatchUp::Whole { from, to } => Run { conversation: missing.conversation, from, to },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn unread_is_exact_without_reading_the_log() {
    let (room, [alice, bob, carol]) = (Room::new(), ["alice", "bob", "carol"].map(user));
    let mut talk = Talk::new(&[&alice, &bob]);
    for _ in 0..5 {
        room.say(&mut talk, &alice).await;
    }
    assert_eq!((room.unread(&alice, talk.id).await, room.unread(&bob, talk.id).await), (0, 5));
    room.history.mark_read(&bob, talk.id, 2).await.unwrap();
    assert_eq!(room.unread(&bob, talk.id).await, 3);
    assert_eq!(room.history.mark_read(&bob, talk.id, 1).await.unwrap(), Marked::Stood);
    assert_eq!(room.history.mark_read(&bob, talk.id, 6).await.unwrap(), Marked::Ahead(5));
    assert_eq!(room.history.mark_read(&carol, talk.id, 1).await.unwrap(), Marked::NotFound);

    // Entry 6 is no message and takes nobody's count up; carol begins there with nothing unread.
    room.add(&mut talk, &alice, &carol).await;
    assert_eq!((room.unread(&carol, talk.id).await, room.unread(&bob, talk.id).await), (0, 3));
    room.say(&mut talk, &bob).await;
    assert_eq!(room.unread(&bob, talk.id).await, 0, "who writes has read");
    assert_eq!((room.unread(&carol, talk.id).await, room.unread(&alice, talk.id).await), (1, 1));

    // What has aged out nobody can read any more.
    for _ in 0..3 {
        room.say(&mut talk, &alice).await;
    }
    assert_eq!(room.unread(&carol, talk.id).await, 4);
    let old = Ages { markers_before_ms: 9_000, entries_before_ms: Some(9_000) };
    while room.store.age(talk.id, old, 100).await.unwrap().more {}
    assert_eq!(room.unread(&carol, talk.id).await, 2, "of entries 9 and 10");
    let summary = room.history.described(&carol, talk.id).await.unwrap().unwrap().summary;
    assert_eq!((summary.first_seq, summary.read_seq, summary.head_messages), (9, 8, 9));

    // For who is gone the count stands still.
    room.remove(&mut talk, &alice, &carol).await;
    room.say(&mut talk, &alice).await;
    assert_eq!(room.unread(&carol, talk.id).await, 3, "the last message counts as one here");
}

#[tokio::test]
async fn what_changes_while_somebody_pages_is_shown_all_the_same() {
    let (room, me) = (Room::new(), user("me"));
    let mut talks = Vec::new();
    for number in 0..9 {
        talks.push(room.pair(&me, &user(&format!("user-{number}")), 9 - number).await);
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = room.history.list(&me, cursor.as_ref(), 3).await.unwrap();
        seen.extend(page.conversations.iter().map(|summary| summary.conversation));
        pages += 1;
        assert!(pages < 10, "it ends");
        if pages == 1 {
            // The one that stands last moves to the front, out of the way of who pages.
            room.say_now(&mut talks[8], &user("user-8")).await;
        }
        let Some(next) = page.next else { break };
        cursor = Some(next.parse().unwrap());
    }
    for talk in &talks {
        assert!(seen.contains(&talk.id));
    }
    assert_eq!((seen.len(), pages), (9, 4), "eight on three pages, and once more the one that moved");
}

#[tokio::test]
async fn a_list_of_one_page_is_asked_for_once() {
    let (room, me) = (Room::new(), user("me"));
    for number in 0..3 {
        room.say_now(&mut room.pair(&me, &user(&format!("user-{number}")), 0).await, &me).await;
    }
    let (trips, page) = room.trips(room.history.list(&me, None, 3)).await;
    let page = page.unwrap();
    assert_eq!((trips, page.conversations.len(), page.next), (3, 3, None));
    assert_eq!(room.shaky.calls(Call::Inbox), 1);
}

#[tokio::test]
async fn a_glance_that_is_behind_hides_nothing_and_sends_nobody_back() {
    let (room, [alice, bob]) = (Room::new(), ["alice", "bob"].map(user));
    let mut talk = Talk::new(&[&alice]);
    room.say(&mut talk, &alice).await;
    room.shaky.stale_glances(1);
    room.store.glance(&[talk.id]).await.unwrap();
    room.add(&mut talk, &alice, &bob).await;
    room.say(&mut talk, &alice).await;
    let list = room.history.list(&bob, None, 9).await.unwrap();
    assert_eq!(list.conversations.len(), 1, "the list says that bob is in it");

    room.shaky.stale_glances(9);
    room.store.glance(&[talk.id]).await.unwrap();
    room.say(&mut talk, &alice).await;
    let cursors = HashMap::from([(talk.id, 4)]);
    let ahead = room.history.changed(&alice, &cursors).await.unwrap().ahead;
    assert_eq!(ahead, [], "entry 4 is there, though the glance ends at 3");
    let ahead = room.history.changed(&alice, &HashMap::from([(talk.id, 5)])).await.unwrap().ahead;
    assert_eq!(ahead, [Ahead { conversation: talk.id, cursor: 5, head: 4 }]);
    let foreign = ConversationId::pair(&bob, &user("carol"));
    let cursors = HashMap::from([(foreign, 3), (talk.id, 4)]);
    let ahead = room.history.changed(&alice, &cursors).await.unwrap().ahead;
    assert_eq!(ahead, [Ahead { conversation: foreign, cursor: 3, head: 0 }], "never hers");
    let ahead = room.history.changed(&alice, &HashMap::from([(foreign, 0)])).await.unwrap().ahead;
    assert_eq!(ahead, [], "a cursor of 0 claims nothing");
    assert!(matches!(
        room.history.mark_read(&alice, talk.id, 4).await.unwrap(),
        Marked::Stood | Marked::Rose(_)
    ));
    assert_eq!(room.history.mark_read(&alice, talk.id, 5).await.unwrap(), Marked::Ahead(4));
    let members = room.history.members(&bob, talk.id).await.unwrap();
    assert_eq!(members.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_damaged_is_left_out_of_lists_and_named_to_who_comes_back() {
    let room = Room::new();
    let me = user("me");
    let mut talks = Vec::new();
    for number in 0..9 {
        talks.push(room.pair(&me, &user(&format!("friend{number}")), 2).await);
    }
    room.shaky.damage(talks[3].id);
    room.shaky.damage_entries(talks[5].id);
    let changes = room.history.changed(&me, &HashMap::new()).await.unwrap();
    assert_eq!((changes.changed.len(), changes.unreadable), (8, vec![talks[3].id]));
    let run = |talk: &Talk| Run { conversation: talk.id, from: 1, to: 2 };
    let runs: Vec<Run> = [5, 6, 7].map(|number| run(&talks[number])).into();
    let read = room.history.runs(&runs).await.unwrap();
    assert_eq!((read.found, read.damaged), (vec![Vec::new()], vec![0]), "the first cannot be read");
    let read = room.history.runs(&runs[1..]).await.unwrap();
    assert_eq!((read.found.iter().map(Vec::len).collect::<Vec<_>>(), read.damaged), (vec![2, 2], vec![]));
    let listed = room.history.list(&me, None, 20).await.unwrap().conversations;
    assert_eq!(listed.len(), 8);
    let described = room.history.list_described(&me, None, 20).await.unwrap().conversations;
    assert_eq!(described.iter().filter(|one| one.last_entry.is_some()).count(), 7);
    let ids: Vec<ConversationId> = talks.iter().map(|talk| talk.id).collect();
    let accesses = room.history.accesses(&me, &ids).await.unwrap();
    assert_eq!(accesses.iter().filter(|access| matches!(access, Ok(Some(_)))).count(), 8);
    assert!(matches!(accesses[3], Err(StoreError::Corrupt(_))));
    let one = room.history.described(&me, talks[3].id).await;
    assert!(matches!(one, Err(StoreError::Corrupt(_))), "it is not as if it did not exist");
}

#[tokio::test]
async fn what_was_left_is_listed_and_synced_as_long_as_something_of_it_can_be_read() {
    let (room, [alice, bob]) = (Room::new(), ["alice", "bob"].map(user));
    let mut talk = Talk::new(&[&alice, &bob]);
    room.say(&mut talk, &alice).await;
    room.remove(&mut talk, &alice, &bob).await;
    room.say(&mut talk, &alice).await;
    let listed = async || room.history.list(&bob, None, 20).await.unwrap().conversations;
    let changed = async |cursor: Option<u64>| {
        let cursors = cursor.map(|seq| (talk.id, seq)).into_iter().collect();
        let Changes { changed, ahead, .. } = room.history.changed(&bob, &cursors).await.unwrap();
        assert_eq!(ahead, []);
        changed.into_iter().map(|one| (one.summary.role, one.summary.head)).collect::<Vec<_>>()
    };
    assert_eq!(listed().await.iter().map(|one| (one.role, one.head)).collect::<Vec<_>>(), [(None, 2)]);
    assert_eq!(changed(None).await, [(None, 2)], "a new device learns of it");
    assert_eq!(changed(Some(1)).await, [(None, 2)]);
    assert_eq!(changed(Some(2)).await, []);
    let old = Ages { markers_before_ms: 2_500, entries_before_ms: Some(2_500) };
    while room.store.age(talk.id, old, 100).await.unwrap().more {}
    assert!(listed().await.is_empty() && changed(None).await.is_empty(), "nothing of it is left for him");
    assert_eq!(room.history.list(&alice, None, 20).await.unwrap().conversations.len(), 1);
}
