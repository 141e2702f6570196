//! What every store must do, as one suite. An implementation gives a [`Fixture`] and runs
//! `contract::suite!(fixture expression)` in a test module; each promise is then a test by its name.
//!
//! Every test uses conversations and users of its own, so a fixture may share one database.

use std::sync::Arc;

use async_trait::async_trait;
use tern_protocol::{ConversationId, ConversationKind, Entry, EntryBody, EntryId, Role, TempId, UserId};
use uuid::Uuid;

use super::{
    Ages, AppendAnswers, AppendGroup, Appended, Barred, Conversation, Departure, Erasure, GROUP_BYTES_MAX,
    GROUP_ENTRIES_MAX, Glance, Granularity, InboxCursor, InboxRow, Intent, Kept, Lost, Marker, Member,
    NewEntry, OpenErasure, Order, PageLimit, ReadPosition, Right, Standing, Store, StoreError, User,
    UserChange, intent_shard,
};

mod people;

pub(crate) use people::*;

/// A store under test.
#[async_trait]
pub(crate) trait Fixture: Send {
    /// The store as it is now.
    fn store(&self) -> Arc<dyn Store>;
    /// Ends the store and opens it again on the same data. No test holds a store across this.
    async fn reopen(&mut self);
    /// Waits until no append that was answered without an outcome is still on its way.
    async fn landed(&mut self) {}
}

macro_rules! suite {
    ($fixture:expr) => {
        $crate::store::contract::suite! {
            $fixture;
            an_append_is_readable_at_once_and_after_a_restart
            an_append_on_another_head_is_a_conflict_and_writes_nothing
            a_retry_is_a_duplicate_with_its_first_seq_and_digest
            a_group_reports_every_duplicate_in_it_and_writes_nothing
            markers_win_over_the_head
            markers_belong_to_one_sender_and_one_conversation
            entries_without_temp_id_get_no_marker
            malformed_groups_are_refused_and_write_nothing
            entries_are_read_in_both_directions_within_the_range
            a_page_ends_by_count_and_by_bytes_but_never_before_its_first_entry
            the_inbox_is_ordered_by_the_latest_change
            members_rows_follow_the_log_and_departures_end_them
            the_read_position_never_goes_down
            who_writes_or_joins_has_read_up_to_there
            users_are_answered_in_the_order_of_the_questions
            the_name_and_the_last_time_of_a_user_never_undo_each_other
            intents_come_by_time_until_they_are_cleared
            what_is_done_again_changes_nothing
            groups_of_one_call_are_answered_each_by_its_ticket
            many_are_seen_at_a_glance
            runs_of_several_logs_are_cut_together
            the_newest_entry_up_to_a_seq_and_up_to_a_time_is_found
            lists_come_page_by_page_in_a_stable_order
            what_an_erased_user_asked_for_earlier_is_not_written
            what_a_revoked_token_asks_for_is_not_written
            who_is_being_erased_joins_nothing
            what_is_old_goes_from_the_start_of_a_log_and_seqs_go_on
            entries_stay_as_long_as_their_markers
            a_log_that_ages_while_it_is_read_has_no_hole
            rewritten_entries_keep_their_place_and_lose_their_marker
            a_user_is_forgotten_once_they_are_a_member_nowhere
            many_writers_of_one_conversation_leave_a_dense_log
            two_markers_of_one_change_never_both_commit
            no_message_passes_where_one_of_two_blocks_the_other
            nobody_puts_in_a_group_whom_they_block_or_who_blocks_them
            others_put_a_user_in_so_many_groups_and_no_more
            an_older_owner_takes_back_neither_a_block_nor_what_was_accepted
            blocks_are_listed_page_by_page_up_to_their_limit
            blocks_go_with_who_is_erased
        }
    };
    ($fixture:expr; $($promise:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            $crate::store::contract::$promise(&mut $fixture).await;
        })*
    };
}
pub(crate) use suite;

const NO_LIMIT: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

pub(crate) fn fresh_user(name: &str) -> UserId {
    UserId::new(&format!("{name}-{}", Uuid::new_v4())).unwrap()
}

/// Appends, and submits again as an owner does until the answer is final: a store may not know, or say that a
/// head moved which did not. True if it was submitted more than once.
async fn answer(store: &Arc<dyn Store>, group: &Arc<AppendGroup>) -> (Result<Appended, StoreError>, bool) {
    let mut again = false;
    loop {
        match store.append(group).await {
            Ok(Appended::Unknown) | Err(StoreError::Unavailable(_)) => again = true,
            Ok(Appended::Conflict { head }) if head == group.expected_head => {}
            settled => return (settled, again),
        }
    }
}

/// As [`answer`], with what an owner makes of it: duplicates of its own attempts mean that it was applied.
pub(crate) async fn settle(store: &Arc<dyn Store>, group: AppendGroup) -> Result<Appended, StoreError> {
    let group = Arc::new(group);
    match answer(store, &group).await {
        (Ok(Appended::Duplicates(found)), true) if is_own(&group, &found) => Ok(Appended::Applied),
        (settled, _) => settled,
    }
}

/// These markers are those of the group itself.
fn is_own(group: &AppendGroup, found: &[(usize, Marker)]) -> bool {
    let own = |new: &NewEntry| Marker { seq: new.entry.seq, digest: new.digest };
    found.iter().all(|(index, marker)| *marker == own(&group.entries[*index]))
}

/// A new entry with something changed.
pub(crate) fn change(new: &mut NewEntry, change: impl FnOnce(&mut Entry)) {
    let mut entry = (*new.entry).clone();
    change(&mut entry);
    *new = NewEntry::new(entry, new.digest, new.push, new.right.clone());
}

async fn kept_of(store: Arc<dyn Store>, id: ConversationId) -> Kept {
    store.glance(&[id]).await.unwrap().pop().flatten().map_or_else(Kept::default, |glance| glance.kept)
}

/// One row of a user's list.
pub(crate) async fn row_of(store: &Arc<dyn Store>, user: &UserId, id: ConversationId) -> Option<InboxRow> {
    store.inbox_rows(user, &[id]).await.unwrap().pop().unwrap()
}

pub(crate) fn fresh_temp_id() -> TempId {
    TempId::from_uuid(Uuid::new_v4())
}

/// A conversation of a test, and what its owner would remember of it.
pub(crate) struct Talk {
    pub(crate) id: ConversationId,
    pub(crate) state: Arc<Conversation>,
}

impl Talk {
    pub(crate) fn new(users: &[&UserId]) -> Self {
        let members = users.iter().map(|user| Member {
            user: (*user).clone(),
            role: Role::Owner,
            first_seq: 1,
            added_by: None,
        });
        let state = Arc::new(Conversation {
            kind: ConversationKind::Group,
            name: Some("a group".into()),
            head: 0,
            messages: 0,
            last_time_ms: 0,
            members: members.collect(),
            blocked_by: Vec::new(),
        });
        Self { id: ConversationId::from_bytes(*Uuid::new_v4().as_bytes()), state }
    }

    /// The pair of two users, not made yet.
    pub(crate) fn pair(a: &UserId, b: &UserId) -> Self {
        let mut talk = Self::new(&[a, b]);
        talk.id = ConversationId::pair(a, b);
        let state = Arc::make_mut(&mut talk.state);
        (state.kind, state.name) = (ConversationKind::Pair, None);
        talk
    }

    /// A group of messages on top of what is remembered; `time_ms` of entry n is 1000 n.
    pub(crate) fn group(&self, sender: &UserId, messages: &[(TempId, &str)]) -> AppendGroup {
        let entries = messages.iter().zip(self.state.head + 1..).map(|((temp_id, text), seq)| {
            let entry = Entry {
                seq,
                id: EntryId::from_uuid(Uuid::now_v7()),
                time_ms: seq * 1000,
                sender: sender.clone(),
                sender_name: Some("A Name".into()),
                temp_id: Some(*temp_id),
                messages: self.state.messages + seq - self.state.head,
                body: EntryBody::text(*text),
            };
            NewEntry::new(entry, [text.len() as u8; 16], true, None)
        });
        let entries: Vec<_> = entries.collect();
        let head = self.state.head + entries.len() as u64;
        let counted = self.state.messages + entries.len() as u64;
        let state = (*self.state).clone();
        let state = Conversation { head, messages: counted, last_time_ms: head * 1000, ..state };
        let state = Arc::new(state);
        let expected_head = self.state.head;
        AppendGroup { conversation: self.id, expected_head, entries, state, departures: Vec::new() }
    }

    /// Appends and remembers.
    pub(crate) async fn apply(&mut self, store: &Arc<dyn Store>, group: AppendGroup) {
        let state = group.state.clone();
        assert_eq!(settle(store, group).await.unwrap(), Appended::Applied);
        self.state = state;
    }

    async fn say(&mut self, store: &Arc<dyn Store>, sender: &UserId, text: &str) -> Entry {
        let group = self.group(sender, &[(fresh_temp_id(), text)]);
        let entry = (*group.entries[0].entry).clone();
        self.apply(store, group).await;
        entry
    }

    async fn log(&self, store: &Arc<dyn Store>) -> Vec<Entry> {
        store.entries(self.id, 1..=u64::MAX, Order::Ascending, NO_LIMIT).await.unwrap()
    }
}

pub(crate) async fn an_append_is_readable_at_once_and_after_a_restart(fixture: &mut impl Fixture) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let mut talk = Talk::new(&[&alice, &bob]);
    let (first, second) = (fresh_temp_id(), fresh_temp_id());
    let group = talk.group(&alice, &[(first, "one"), (second, "twenty")]);
    let expected: Vec<_> = group.entries.iter().map(|new| (*new.entry).clone()).collect();
    let store_id = fixture.store().store_id();
    assert_eq!(fixture.store().conversation(talk.id).await.unwrap(), None);
    talk.apply(&fixture.store(), group).await;
    for restart in [false, true] {
        if restart {
            fixture.reopen().await;
        }
        let store = fixture.store();
        assert_eq!(store.store_id(), store_id);
        assert_eq!(store.conversation(talk.id).await.unwrap().as_ref(), Some(&talk.state));
        assert_eq!(talk.log(&store).await, expected);
        let marker = store.marker(talk.id, &alice, second, 0).await.unwrap();
        assert_eq!(marker, Some(Marker { seq: 2, digest: [6; 16] }));
        let row = row_of(&store, &bob, talk.id).await.unwrap();
        assert_eq!((row.first_seq, row.last_seq, row.last_time_ms, row.until_seq), (1, 2, 2000, None));
        let intents = store.intents(&[intent_shard(talk.id)], 0..=2000, usize::MAX).await.unwrap();
        let intent = intents.iter().find(|intent| intent.conversation == talk.id).unwrap();
        assert_eq!((intent.from_seq, intent.to_seq, intent.sender.as_ref()), (1, 2, Some(&alice)));
    }
}

pub(crate) async fn an_append_on_another_head_is_a_conflict_and_writes_nothing(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let mut talk = Talk::new(&[&alice]);
    let too_early = Talk { id: talk.id, state: Arc::new(Conversation { head: 5, ..(*talk.state).clone() }) };
    let group = too_early.group(&alice, &[(fresh_temp_id(), "from nowhere")]);
    assert_eq!(settle(&store, group).await.unwrap(), Appended::Conflict { head: 0 });
    let late = talk.group(&alice, &[(fresh_temp_id(), "late")]);
    talk.say(&store, &alice, "one").await;
    talk.say(&store, &alice, "two").await;
    let marker = late.entries[0].entry.temp_id.unwrap();
    assert_eq!(settle(&store, late).await.unwrap(), Appended::Conflict { head: 2 });
    assert_eq!(store.marker(talk.id, &alice, marker, 0).await.unwrap(), None);
    assert_eq!(talk.log(&store).await.len(), 2);
    assert_eq!(store.conversation(talk.id).await.unwrap(), Some(talk.state));
}

pub(crate) async fn a_retry_is_a_duplicate_with_its_first_seq_and_digest(fixture: &mut impl Fixture) {
    let alice = fresh_user("alice");
    let mut talk = Talk::new(&[&alice]);
    let temp_id = fresh_temp_id();
    talk.say(&fixture.store(), &alice, "before").await;
    let group = talk.group(&alice, &[(temp_id, "once")]);
    talk.apply(&fixture.store(), group).await;
    talk.say(&fixture.store(), &alice, "after").await;
    for restart in [false, true] {
        if restart {
            fixture.reopen().await;
        }
        let again = talk.group(&alice, &[(temp_id, "other text")]);
        let marker = Marker { seq: 2, digest: [4; 16] };
        assert_eq!(settle(&fixture.store(), again).await.unwrap(), Appended::Duplicates(vec![(0, marker)]));
        assert_eq!(talk.log(&fixture.store()).await.len(), 3);
    }
}

pub(crate) async fn a_group_reports_every_duplicate_in_it_and_writes_nothing(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let mut talk = Talk::new(&[&alice]);
    let ids: Vec<_> = (0..4).map(|_| fresh_temp_id()).collect();
    let first = talk.group(&alice, &[(ids[0], "a"), (ids[1], "bb")]);
    talk.apply(&store, first).await;
    let mixed = talk.group(&alice, &[(ids[2], "c"), (ids[1], "bb"), (ids[3], "d"), (ids[0], "a")]);
    let expected = vec![(1, Marker { seq: 2, digest: [2; 16] }), (3, Marker { seq: 1, digest: [1; 16] })];
    assert_eq!(settle(&store, mixed).await.unwrap(), Appended::Duplicates(expected));
    assert_eq!(store.marker(talk.id, &alice, ids[2], 0).await.unwrap(), None);
    assert_eq!(talk.log(&store).await.len(), 2);
    let rest = talk.group(&alice, &[(ids[2], "c"), (ids[3], "d")]);
    talk.apply(&store, rest).await;
}

pub(crate) async fn markers_win_over_the_head(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let mut talk = Talk::new(&[&alice]);
    let group = talk.group(&alice, &[(fresh_temp_id(), "hi")]);
    talk.apply(&store, group.clone()).await;
    // The very same call again, as after an unknown outcome: its head is wrong as well by now.
    let marker = Marker { seq: 1, digest: [2; 16] };
    let again = answer(&store, &Arc::new(group)).await.0.unwrap();
    assert_eq!(again, Appended::Duplicates(vec![(0, marker)]));
}

pub(crate) async fn markers_belong_to_one_sender_and_one_conversation(fixture: &mut impl Fixture) {
    let (store, alice, bob) = (fixture.store(), fresh_user("alice"), fresh_user("bob"));
    let (mut here, mut there) = (Talk::new(&[&alice, &bob]), Talk::new(&[&alice, &bob]));
    let temp_id = fresh_temp_id();
    for (talk, sender) in [(&mut here, &alice), (&mut there, &alice)] {
        let group = talk.group(sender, &[(temp_id, "same id")]);
        talk.apply(&store, group).await;
    }
    let group = here.group(&bob, &[(temp_id, "same id, other sender")]);
    here.apply(&store, group).await;
    assert_eq!(store.marker(here.id, &bob, temp_id, 0).await.unwrap().map(|marker| marker.seq), Some(2));
    assert_eq!(store.marker(there.id, &bob, temp_id, 0).await.unwrap(), None);
}

pub(crate) async fn entries_without_temp_id_get_no_marker(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let mut talk = Talk::new(&[&alice]);
    for _ in 0..2 {
        let mut group = talk.group(&alice, &[(fresh_temp_id(), "x"), (fresh_temp_id(), "y")]);
        change(&mut group.entries[1], |entry| entry.temp_id = None);
        talk.apply(&store, group).await;
    }
    assert_eq!(talk.log(&store).await.len(), 4);
}

pub(crate) async fn malformed_groups_are_refused_and_write_nothing(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let talk = Talk::new(&[&alice]);
    let temp_id = fresh_temp_id();
    let good = talk.group(&alice, &[(temp_id, "a"), (fresh_temp_id(), "b")]);
    let mut hole = good.clone();
    change(&mut hole.entries[1], |entry| entry.seq = 3);
    let mut count = good.clone();
    change(&mut count.entries[0], |entry| entry.messages = 0);
    let mut head = good.clone();
    Arc::make_mut(&mut head.state).head = 3;
    let many: Vec<_> = (0..=GROUP_ENTRIES_MAX).map(|_| (fresh_temp_id(), "x")).collect();
    let text = "x".repeat(GROUP_BYTES_MAX / 64);
    let large: Vec<_> = (0..65).map(|_| (fresh_temp_id(), text.as_str())).collect();
    let bad = [
        ("empty", AppendGroup { entries: Vec::new(), ..good.clone() }),
        ("a hole", hole),
        ("a wrong head", head),
        ("a wrong count", count),
        ("a marker twice", talk.group(&alice, &[(temp_id, "a"), (temp_id, "b")])),
        ("too many", talk.group(&alice, &many)),
        ("too large", talk.group(&alice, &large)),
    ];
    for (what, group) in bad {
        let answer = settle(&store, group).await;
        assert!(matches!(answer, Err(StoreError::Malformed(_))), "{what}: {answer:?}");
    }
    assert_eq!(store.conversation(talk.id).await.unwrap(), None);
    let full: Vec<_> = many.into_iter().skip(1).collect();
    assert_eq!(settle(&store, talk.group(&alice, &full)).await.unwrap(), Appended::Applied);
}

pub(crate) async fn entries_are_read_in_both_directions_within_the_range(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    // 300 entries: seqs with more than one byte, whose order as numbers and as text differ.
    let mut talk = Talk::new(&[&alice]);
    for _ in 0..3 {
        let many: Vec<_> = (0..100).map(|_| (fresh_temp_id(), "text")).collect();
        let group = talk.group(&alice, &many);
        talk.apply(&store, group).await;
    }
    let mut neighbour = Talk::new(&[&alice]);
    neighbour.say(&store, &alice, "elsewhere").await;
    let cases = [
        (1..=300, 1..=300),
        (1..=u64::MAX, 1..=300),
        (0..=3, 1..=3),
        (255..=257, 255..=257),
        (7..=7, 7..=7),
        (299..=400, 299..=300),
    ];
    for (asked, expected) in cases {
        let up: Vec<u64> = expected.collect();
        let down: Vec<u64> = up.iter().rev().copied().collect();
        for (order, expected) in [(Order::Ascending, up), (Order::Descending, down)] {
            let found = store.entries(talk.id, asked.clone(), order, NO_LIMIT).await.unwrap();
            let seqs: Vec<_> = found.iter().map(|entry| entry.seq).collect();
            assert_eq!(seqs, expected, "{asked:?} {order:?}");
        }
    }
    let absent = Talk::new(&[&alice]).id;
    #[allow(clippy::reversed_empty_ranges)]
    for (id, asked) in [(talk.id, 301..=400), (talk.id, 5..=4), (talk.id, 0..=0), (absent, 1..=9)] {
        for order in [Order::Ascending, Order::Descending] {
            assert_eq!(store.entries(id, asked.clone(), order, NO_LIMIT).await.unwrap(), []);
        }
    }
}

pub(crate) async fn a_page_ends_by_count_and_by_bytes_but_never_before_its_first_entry(
    fixture: &mut impl Fixture,
) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let mut talk = Talk::new(&[&alice]);
    for length in [100, 200, 400, 100] {
        talk.say(&store, &alice, &"x".repeat(length)).await;
    }
    let log = talk.log(&store).await;
    let size = |index: usize| postcard::to_stdvec(&log[index]).unwrap().len();
    let page = async |order, entries, bytes| {
        let limit = PageLimit { entries, bytes };
        let found = store.entries(talk.id, 1..=4, order, limit).await.unwrap();
        found.iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    let up = Order::Ascending;
    assert_eq!(page(up, 3, usize::MAX).await, [1, 2, 3]);
    assert_eq!(page(up, 0, usize::MAX).await, [0; 0]);
    assert_eq!(page(up, 9, size(0) + size(1)).await, [1, 2]);
    assert_eq!(page(up, 9, size(0) + size(1) - 1).await, [1]);
    assert_eq!(page(up, 9, 0).await, [1]);
    assert_eq!(page(Order::Descending, 9, size(3) + size(2)).await, [4, 3]);
    assert_eq!(page(Order::Descending, 1, usize::MAX).await, [4]);
}

pub(crate) async fn the_inbox_is_ordered_by_the_latest_change(fixture: &mut impl Fixture) {
    let (store, alice, bob) = (fixture.store(), fresh_user("alice"), fresh_user("bob"));
    let mut talks: Vec<_> = (0..3).map(|_| Talk::new(&[&alice, &bob])).collect();
    for (talk, count) in talks.iter_mut().zip([1, 3, 1]) {
        for _ in 0..count {
            talk.say(&store, &bob, "hello").await;
        }
    }
    // The first and the last changed at the same time: by id.
    let (low, high) = (talks[0].id.min(talks[2].id), talks[0].id.max(talks[2].id));
    let order = async || {
        let rows = store.inbox(&alice, None, usize::MAX).await.unwrap();
        rows.iter().map(|row| row.conversation).collect::<Vec<_>>()
    };
    assert_eq!(order().await, [talks[1].id, low, high]);
    for _ in 0..3 {
        talks[2].say(&store, &bob, "again").await;
    }
    assert_eq!(order().await, [talks[2].id, talks[1].id, talks[0].id]);
    assert_eq!(store.inbox(&fresh_user("nobody"), None, usize::MAX).await.unwrap(), []);
}

pub(crate) async fn members_rows_follow_the_log_and_departures_end_them(fixture: &mut impl Fixture) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let mut talk = Talk::new(&[&alice, &bob]);
    talk.say(&fixture.store(), &alice, "one").await;

    let mut group = talk.group(&alice, &[(fresh_temp_id(), "bob goes"), (fresh_temp_id(), "three")]);
    Arc::make_mut(&mut group.state).members.retain(|member| member.user != bob);
    group.departures = vec![Departure { user: bob.clone(), first_seq: 1, until_seq: 2 }];
    talk.apply(&fixture.store(), group).await;
    talk.say(&fixture.store(), &alice, "four").await;
    let row = async |fixture: &dyn Fixture, user: &UserId| {
        let row = row_of(&fixture.store(), user, talk.id).await?;
        Some((row.first_seq, row.last_seq, row.last_messages, row.last_time_ms, row.until_seq))
    };
    fixture.reopen().await;
    assert_eq!(row(fixture, &bob).await, Some((1, 2, 2, 2000, Some(2))));
    assert_eq!(row(fixture, &alice).await, Some((1, 4, 4, 4000, None)));
    assert_eq!(row(fixture, &fresh_user("nobody")).await, None);

    let mut group = talk.group(&alice, &[(fresh_temp_id(), "bob is back")]);
    Arc::make_mut(&mut group.state).members.push(Member {
        user: bob.clone(),
        role: Role::Member,
        first_seq: 5,
        added_by: None,
    });
    talk.state = group.state.clone();
    assert_eq!(settle(&fixture.store(), group).await.unwrap(), Appended::Applied);
    assert_eq!(row(fixture, &bob).await, Some((5, 5, 5, 5000, None)));

    // Gone and back again in one group: a member, from the new entry on.
    let mut group = talk.group(&alice, &[(fresh_temp_id(), "out"), (fresh_temp_id(), "in")]);
    group.departures = vec![Departure { user: bob.clone(), first_seq: 5, until_seq: 6 }];
    Arc::make_mut(&mut group.state).members[1].first_seq = 7;
    let members = group.state.members.clone();
    assert_eq!(settle(&fixture.store(), group).await.unwrap(), Appended::Applied);
    assert_eq!(row(fixture, &bob).await, Some((7, 7, 7, 7000, None)));
    let state = fixture.store().conversation(talk.id).await.unwrap().unwrap();
    assert_eq!(state.members, members);
}

pub(crate) async fn the_read_position_never_goes_down(fixture: &mut impl Fixture) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let mut talk = Talk::new(&[&alice, &bob]);
    for _ in 0..3 {
        talk.say(&fixture.store(), &alice, "x").await;
    }
    for (seq, rises) in [(2, true), (1, false), (2, false), (3, true), (0, false)] {
        let read = ReadPosition { seq, messages: seq };
        assert_eq!(fixture.store().set_read(&bob, talk.id, read).await.unwrap(), rises, "{seq}");
    }
    talk.say(&fixture.store(), &alice, "an append of somebody else does not touch it").await;
    fixture.reopen().await;
    assert_eq!(read_of(fixture, &bob, talk.id).await, ReadPosition { seq: 3, messages: 3 });
}

/// How far somebody has read, by the list and by the row.
async fn read_of(fixture: &dyn Fixture, user: &UserId, id: ConversationId) -> ReadPosition {
    let row = row_of(&fixture.store(), user, id).await.unwrap();
    assert_eq!(fixture.store().inbox(user, None, usize::MAX).await.unwrap(), std::slice::from_ref(&row));
    row.read
}

pub(crate) async fn who_writes_or_joins_has_read_up_to_there(fixture: &mut impl Fixture) {
    let (alice, bob, carol) = (fresh_user("alice"), fresh_user("bob"), fresh_user("carol"));
    let mut talk = Talk::new(&[&alice, &bob]);
    talk.say(&fixture.store(), &alice, "one").await;
    talk.say(&fixture.store(), &bob, "two").await;
    let at = |seq, messages| ReadPosition { seq, messages };
    assert_eq!(read_of(fixture, &alice, talk.id).await, at(1, 1));
    assert_eq!(read_of(fixture, &bob, talk.id).await, at(2, 2));

    // Carol joins with entry 3, which is no message; alice writes after it in the same group.
    let mut group = talk.group(&alice, &[(fresh_temp_id(), "added"), (fresh_temp_id(), "hello carol")]);
    let users = vec![carol.clone()];
    change(&mut group.entries[0], |entry| {
        (entry.messages, entry.body) = (2, EntryBody::Added { users });
    });
    change(&mut group.entries[1], |entry| entry.messages = 3);
    let state = Arc::make_mut(&mut group.state);
    state.messages = 3;
    state.members.push(Member { user: carol.clone(), role: Role::Member, first_seq: 3, added_by: None });
    talk.apply(&fixture.store(), group).await;
    fixture.reopen().await;
    assert_eq!(read_of(fixture, &carol, talk.id).await, at(2, 2), "the message after that is unread");
    assert_eq!(read_of(fixture, &alice, talk.id).await, at(4, 3));
    assert_eq!(read_of(fixture, &bob, talk.id).await, at(2, 2));
    let row = row_of(&fixture.store(), &carol, talk.id).await.unwrap();
    assert_eq!((row.last_seq, row.last_messages), (4, 3));
}

pub(crate) async fn users_are_answered_in_the_order_of_the_questions(fixture: &mut impl Fixture) {
    let known: Vec<_> = (0..20).map(|_| fresh_user("known")).collect();
    let value = |index: usize| User { name: Some(format!("name {index}")), last_seen_ms: index as u64 };
    for (index, user) in known.iter().enumerate() {
        for change in
            [UserChange::Name(None), UserChange::LastSeen(index as u64), UserChange::Name(value(index).name)]
        {
            assert!(fixture.store().change_user(user, change, None).await.unwrap());
        }
    }
    fixture.reopen().await;
    let nobody = fresh_user("nobody");
    let mut asked = known.clone();
    asked.reverse();
    asked.insert(7, nobody);
    let mut expected: Vec<_> = (0..20).rev().map(|index| Some(value(index))).collect();
    expected.insert(7, None);
    assert_eq!(fixture.store().users(&asked).await.unwrap(), expected);
    assert_eq!(fixture.store().users(&asked[..1]).await.unwrap(), expected[..1]);
    assert_eq!(fixture.store().users(&[]).await.unwrap(), []);
}

pub(crate) async fn the_name_and_the_last_time_of_a_user_never_undo_each_other(fixture: &mut impl Fixture) {
    let (alice, nobody) = (fresh_user("alice"), fresh_user("nobody"));
    let user = |name: &str, last_seen_ms| Some(User { name: Some(name.into()), last_seen_ms });
    assert!(fixture.store().change_user(&alice, UserChange::Name(Some("0".into())), None).await.unwrap());
    // Both parts are changed at once, again and again: the last of each must stand in the end.
    let names = (1..=50).map(|n| UserChange::Name(Some(n.to_string())));
    let times = (1..=50).map(UserChange::LastSeen);
    let tasks: Vec<_> = [names.collect::<Vec<_>>(), times.collect()]
        .into_iter()
        .map(|changes| {
            let (store, alice) = (fixture.store(), alice.clone());
            tokio::spawn(async move {
                for change in changes {
                    assert!(store.change_user(&alice, change, None).await.unwrap());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stored = async |fixture: &dyn Fixture, user: &UserId| {
        fixture.store().users(std::slice::from_ref(user)).await.unwrap().remove(0)
    };
    assert_eq!(stored(fixture, &alice).await, user("50", 50));
    assert!(fixture.store().change_user(&alice, UserChange::LastSeen(7), None).await.unwrap());
    assert_eq!(stored(fixture, &alice).await, user("50", 50), "a time never goes back");
    assert!(fixture.store().change_user(&nobody, UserChange::LastSeen(7), None).await.unwrap());
    assert_eq!(stored(fixture, &nobody).await, None, "who left is not thereby known");
    fixture.reopen().await;
    assert_eq!(stored(fixture, &alice).await, user("50", 50));
}

pub(crate) async fn intents_come_by_time_until_they_are_cleared(fixture: &mut impl Fixture) {
    let alice = fresh_user("alice");
    let mut talk = Talk::new(&[&alice]);
    let waiting = async |fixture: &dyn Fixture, id| {
        fixture.store().intents_waiting(&[intent_shard(id)]).await.unwrap()[0]
    };
    let before = waiting(fixture, talk.id).await;
    for time_ms in [9_000, 9_000, 300, 12_000] {
        let mut group = talk.group(&alice, &[(fresh_temp_id(), "a"), (fresh_temp_id(), "silent")]);
        change(&mut group.entries[0], |entry| entry.time_ms = time_ms);
        group.entries[1].push = false;
        talk.apply(&fixture.store(), group).await;
    }
    let id = talk.id;
    let due = async |fixture: &dyn Fixture, until_ms| {
        let intents = fixture.store().intents(&[intent_shard(id)], 0..=until_ms, usize::MAX).await.unwrap();
        intents.into_iter().filter(|intent| intent.conversation == id).collect::<Vec<Intent>>()
    };
    let intent = |seq, time_ms| Intent {
        conversation: id,
        from_seq: seq,
        to_seq: seq,
        time_ms,
        sender: Some(alice.clone()),
    };
    let all = [intent(5, 300), intent(1, 9_000), intent(3, 9_000), intent(7, 12_000)];
    assert_eq!(due(fixture, 299).await, []);
    assert_eq!(due(fixture, 9_000).await, all[..3]);
    assert_eq!(due(fixture, u64::MAX).await, all);
    let later = fixture.store().intents(&[intent_shard(id)], 9_001..=u64::MAX, usize::MAX).await.unwrap();
    assert_eq!(later.into_iter().filter(|intent| intent.conversation == id).collect::<Vec<_>>(), all[3..]);
    assert_eq!(due(fixture, 9_000).await, all[..3], "whatever was looked at in between");
    assert_eq!(fixture.store().intents(&[intent_shard(id)], 0..=u64::MAX, 0).await.unwrap(), []);
    assert_eq!(fixture.store().intents(&[intent_shard(id)], 0..=u64::MAX, 2).await.unwrap().len(), 2);
    fixture.store().clear_intents(&all[..2]).await.unwrap();
    assert_eq!(waiting(fixture, id).await, before + 2);
    fixture.store().clear_intents(&all[..1]).await.unwrap();
    assert_eq!(waiting(fixture, id).await, before + 2, "once is enough");
    assert_eq!(due(fixture, u64::MAX).await, all[2..]);
    // A clock that was put back: an older one arrives after newer ones have been seen.
    let mut group = talk.group(&alice, &[(fresh_temp_id(), "early")]);
    change(&mut group.entries[0], |entry| entry.time_ms = 200);
    let early = intent(group.entries[0].entry.seq, 200);
    assert_eq!(settle(&fixture.store(), group).await.unwrap(), Appended::Applied);
    assert_eq!(due(fixture, 9_000).await, [early.clone(), all[2].clone()]);
    fixture.reopen().await;
    // A crash may bring cleared ones back, but never loses one.
    let after = due(fixture, u64::MAX).await;
    assert!([early, all[2].clone(), all[3].clone()].iter().all(|left| after.contains(left)), "{after:?}");
}

pub(crate) async fn what_is_done_again_changes_nothing(fixture: &mut impl Fixture) {
    let (store, alice, bob) = (fixture.store(), fresh_user("alice"), fresh_user("bob"));
    let mut talk = Talk::new(&[&alice, &bob]);
    talk.say(&store, &bob, "before").await;
    let group = talk.group(&alice, &[(fresh_temp_id(), "one"), (fresh_temp_id(), "two")]);
    talk.apply(&store, group).await;
    let all = async || {
        let intents = store.intents(&[intent_shard(talk.id)], 0..=u64::MAX, usize::MAX).await.unwrap();
        let intents: Vec<_> = intents.into_iter().filter(|intent| intent.conversation == talk.id).collect();
        let rows = [row_of(&store, &alice, talk.id).await, row_of(&store, &bob, talk.id).await];
        (rows, intents, store.conversation(talk.id).await.unwrap())
    };
    let before = all().await;
    store.redo(talk.id, &talk.state, &talk.log(&store).await[1..]).await.unwrap();
    assert_eq!(all().await, before);
}

pub(crate) async fn groups_of_one_call_are_answered_each_by_its_ticket(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let mut old = Talk::new(&[&alice]);
    old.say(&store, &alice, "one").await;
    let fresh: Vec<_> = (0..20).map(|_| Talk::new(&[&alice])).collect();
    let group = |talk: &Talk| talk.group(&alice, &[(fresh_temp_id(), "x")]);
    let mut groups: Vec<_> = fresh.iter().map(group).collect();
    groups.push(
        Talk { id: old.id, state: Talk::new(&[&alice]).state }.group(&alice, &[(fresh_temp_id(), "late")]),
    );
    groups.push(AppendGroup { entries: Vec::new(), ..group(&Talk::new(&[&alice])) });
    let groups: Vec<_> = (100..).zip(groups.into_iter().map(Arc::new)).collect();
    let (answers, mut answered) = AppendAnswers::new(groups.len());
    store.append_all(groups.clone(), &answers).await;
    drop(answers);
    let mut all = std::collections::BTreeMap::new();
    while let Some(some) = answered.recv().await {
        for (ticket, answer) in some {
            assert!(all.insert(ticket, answer).is_none(), "{ticket} is answered twice");
        }
    }
    assert!(all.keys().copied().eq(100..122));
    for (ticket, group) in groups {
        let answer = &all[&ticket];
        match ticket {
            120 => assert!(!matches!(answer, Ok(Appended::Applied)), "{answer:?}"),
            121 => assert!(matches!(answer, Err(_) | Ok(Appended::Unknown)), "{answer:?}"),
            // What it says of itself is so.
            _ if matches!(answer, Ok(Appended::Applied)) => {
                let state = store.conversation(group.conversation).await.unwrap();
                assert_eq!(state.as_ref(), Some(&group.state));
            }
            _ => match self::answer(&store, &group).await.0.unwrap() {
                Appended::Applied => {}
                Appended::Duplicates(found) => assert!(is_own(&group, &found)),
                other => panic!("{other:?}"),
            },
        }
    }
}

pub(crate) async fn many_are_seen_at_a_glance(fixture: &mut impl Fixture) {
    let alice = fresh_user("alice");
    let mut talks: Vec<_> = (0..30).map(|_| Talk::new(&[&alice])).collect();
    for talk in talks.iter_mut().skip(1) {
        talk.say(&fixture.store(), &alice, "x").await;
    }
    let ids: Vec<_> = talks.iter().chain(&talks[..2]).map(|talk| talk.id).collect();
    for restart in [false, true] {
        if restart {
            fixture.reopen().await;
        }
        let glances = fixture.store().glance(&ids).await.unwrap();
        assert_eq!(glances.len(), ids.len());
        assert_eq!((&glances[0], &glances[30]), (&None, &None));
        for (talk, glance) in talks.iter().zip(glances).skip(1) {
            let expected = Glance { state: talk.state.clone(), kept: Kept::default() };
            assert_eq!(glance, Some(expected));
        }
    }
    assert_eq!(fixture.store().glance(&[]).await.unwrap(), []);
    // An append is seen once it is answered.
    talks[1].say(&fixture.store(), &alice, "y").await;
    assert_eq!(fixture.store().glance(&ids[1..2]).await.unwrap()[0].as_ref().unwrap().state.head, 2);
}

pub(crate) async fn runs_of_several_logs_are_cut_together(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let mut talks: Vec<_> = (0..3).map(|_| Talk::new(&[&alice])).collect();
    for talk in &mut talks {
        for _ in 0..5 {
            talk.say(&store, &alice, &"x".repeat(100)).await;
        }
    }
    let [a, b, c] = [0, 1, 2].map(|at: usize| talks[at].id);
    let absent = Talk::new(&[&alice]).id;
    let read = async |of: &[(ConversationId, std::ops::RangeInclusive<u64>)], limit| {
        let runs = store.runs(of, limit).await.unwrap();
        let seqs = |run: &Vec<Entry>| run.iter().map(|entry| entry.seq).collect::<Vec<_>>();
        runs.iter().map(seqs).collect::<Vec<_>>()
    };
    let of = [(a, 1..=2), (absent, 1..=9), (b, 4..=9), (c, 2..=4)];
    let whole = [vec![1, 2], vec![], vec![4, 5], vec![2, 3, 4]];
    assert_eq!(read(&of, NO_LIMIT).await, whole);
    assert_eq!(read(&of, PageLimit { entries: 3, bytes: usize::MAX }).await, [vec![1, 2], vec![], vec![4]]);
    assert_eq!(read(&of, PageLimit { entries: 2, bytes: usize::MAX }).await, whole[..2]);
    let log = talks[0].log(&store).await;
    let bytes = postcard::to_stdvec(&log[0]).unwrap().len();
    assert_eq!(read(&of, PageLimit { entries: 99, bytes: bytes * 3 }).await, [vec![1, 2], vec![], vec![4]]);
    assert_eq!(read(&of, PageLimit { entries: 99, bytes: 1 }).await, [vec![1]]);
    assert_eq!(read(&[], NO_LIMIT).await, Vec::<Vec<u64>>::new());
}

pub(crate) async fn the_newest_entry_up_to_a_seq_and_up_to_a_time_is_found(fixture: &mut impl Fixture) {
    let (store, alice) = (fixture.store(), fresh_user("alice"));
    let (mut talk, mut other) = (Talk::new(&[&alice]), Talk::new(&[&alice]));
    for (text, time_ms) in [("a", 1_000), ("b", 2_000), ("c", 2_000), ("d", 9_000)] {
        let mut group = talk.group(&alice, &[(fresh_temp_id(), text)]);
        change(&mut group.entries[0], |entry| entry.time_ms = time_ms);
        talk.apply(&store, group).await;
    }
    other.say(&store, &alice, "elsewhere").await;
    let absent = Talk::new(&[&alice]).id;
    let at = [(talk.id, 3), (talk.id, 99), (other.id, u64::MAX), (absent, 5), (talk.id, 0), (talk.id, 3)];
    let found = store.last_entries(&at).await.unwrap();
    let seqs: Vec<_> = found.iter().map(|entry| entry.as_ref().map(|entry| entry.seq)).collect();
    assert_eq!(seqs, [Some(3), Some(4), Some(1), None, None, Some(3)]);
    assert_eq!(found[2].as_ref().unwrap().body, EntryBody::text("elsewhere"));
    for (range, time_ms, seq) in [
        (1..=4, 999, 0),
        (1..=4, 1_000, 1),
        (1..=4, 1_999, 1),
        (1..=4, 2_000, 3),
        (1..=4, 8_999, 3),
        (1..=4, u64::MAX, 4),
        (3..=4, 1_500, 2),
        (1..=2, u64::MAX, 2),
        (2..=3, 0, 1),
    ] {
        assert_eq!(store.seq_at(talk.id, range.clone(), time_ms).await.unwrap(), seq, "{range:?} {time_ms}");
    }
}

pub(crate) async fn lists_come_page_by_page_in_a_stable_order(fixture: &mut impl Fixture) {
    let (store, alice, bob) = (fixture.store(), fresh_user("alice"), fresh_user("bob"));
    let mut talks: Vec<_> = (0..9).map(|_| Talk::new(&[&alice, &bob])).collect();
    for (number, talk) in talks.iter_mut().enumerate() {
        // Three of each time.
        for _ in 0..=number / 3 {
            talk.say(&store, &bob, "x").await;
        }
    }
    let whole = store.inbox(&alice, None, usize::MAX).await.unwrap();
    assert!(whole.is_sorted_by_key(InboxRow::place) && whole.len() == 9);
    for limit in [1, 2, 4, 9, 10] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store.inbox(&alice, after, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit);
            after = Some(last.place());
            paged.extend(page);
        }
        assert_eq!(paged, whole, "{limit} a page");
    }
    assert_eq!(store.inbox(&alice, None, 0).await.unwrap(), []);
    let ids: Vec<_> = talks.iter().map(|talk| talk.id).chain([Talk::new(&[&bob]).id]).collect();
    let rows = store.inbox_rows(&alice, &ids).await.unwrap();
    for (id, row) in ids.iter().zip(&rows) {
        assert_eq!(row.as_ref(), whole.iter().find(|row| row.conversation == *id));
    }
    assert_eq!((rows.len(), &rows[9]), (10, &None));
    let nowhere = InboxCursor { last_time_ms: 2_500, conversation: talks[0].id };
    let after = store.inbox(&alice, Some(nowhere), 9).await.unwrap();
    assert_eq!(after, whole[3..], "a place that no row has");
}

pub(crate) async fn what_an_erased_user_asked_for_earlier_is_not_written(fixture: &mut impl Fixture) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let mut talk = Talk::new(&[&alice]);
    let mut mixed =
        talk.group(&alice, &[(fresh_temp_id(), "a"), (fresh_temp_id(), "b"), (fresh_temp_id(), "c")]);
    for (new, (sender, right)) in mixed.entries.iter_mut().zip([
        (&alice, Some(Right::own(50))),
        (&bob, Some(Right::own(50))),
        (&bob, None),
    ]) {
        change(new, |entry| entry.sender = sender.clone());
        new.right = right;
    }
    let name = |name: &str| UserChange::Name(Some(name.into()));
    let store = fixture.store();
    assert!(store.change_user(&bob, name("Bob"), Some(Right::own(50))).await.unwrap());
    store.begin_erasure(&bob, UserId::erased([1; 16]), 50).await.unwrap();
    assert_eq!(
        settle(&store, mixed.clone()).await.unwrap(),
        Appended::Barred(vec![(1, Barred::Sender(Lost::Erased))])
    );
    let mut later = mixed.clone();
    later.entries[1].right = Some(Right::own(51));
    let barred = Appended::Barred(vec![(1, Barred::Sender(Lost::Erased))]);
    assert_eq!(settle(&store, later.clone()).await.unwrap(), barred, "while it is open none counts");
    assert!(!store.change_user(&bob, name("Bob"), Some(Right::own(51))).await.unwrap());
    fixture.landed().await;
    assert!(store.finish_erasure(&bob).await.unwrap());
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(settle(&store, mixed).await.unwrap(), barred);
    assert!(!store.change_user(&bob, name("Bob"), Some(Right::own(50))).await.unwrap());
    assert_eq!(store.users(std::slice::from_ref(&bob)).await.unwrap(), [None]);
    assert_eq!(store.conversation(talk.id).await.unwrap(), None, "nothing was written");
    assert!(store.change_user(&bob, name("Bob"), Some(Right::own(51))).await.unwrap());
    talk.apply(&store, later).await;
}

pub(crate) async fn what_a_revoked_token_asks_for_is_not_written(fixture: &mut impl Fixture) {
    let (alice, bob, shop) = (fresh_user("alice"), fresh_user("bob"), fresh_user("shop"));
    let mut talk = Talk::new(&[&alice, &bob]);
    let by = |right: Option<Right>| {
        let mut group = talk.group(&bob, &[(fresh_temp_id(), "a")]);
        group.entries[0].right = right;
        group
    };
    let store = fixture.store();
    let (before, after) = (Some(Right::own(49)), Some(Right::own(50)));
    let (earlier, later, own) = (by(before.clone()), by(after.clone()), by(None));
    let of_shop = by(Some(Right { issued_ms: 49, bearer: Some(shop.clone()) }));
    assert_eq!(store.standing(&bob).await.unwrap(), Standing::default());
    store.refuse_before(&bob, 50).await.unwrap();
    let revoked = Appended::Barred(vec![(0, Barred::Sender(Lost::Revoked))]);
    assert_eq!(settle(&store, earlier.clone()).await.unwrap(), revoked);
    store.refuse_before(&bob, 40).await.unwrap();
    let name = |name: &str| UserChange::Name(Some(name.into()));
    assert!(!store.change_user(&bob, name("Bob"), before.clone()).await.unwrap());
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(store.standing(&bob).await.unwrap(), Standing { erasure: None, refused_before_ms: 50 });
    assert_eq!(settle(&store, earlier.clone()).await.unwrap(), revoked, "it never goes back");
    assert_eq!(store.users(std::slice::from_ref(&bob)).await.unwrap(), [None], "it makes nobody known");
    assert!(store.change_user(&bob, name("Bob"), after).await.unwrap());
    // An erasure and a revocation do not undo each other.
    store.begin_erasure(&shop, UserId::erased([1; 16]), 20).await.unwrap();
    store.refuse_before(&shop, 50).await.unwrap();
    assert!(store.finish_erasure(&shop).await.unwrap());
    assert_eq!(
        settle(&store, of_shop).await.unwrap(),
        revoked,
        "the back end's token is the one that counts"
    );
    let both = Standing { erasure: Some(Erasure { at_ms: 20, open: None }), refused_before_ms: 50 };
    assert_eq!(store.standing(&shop).await.unwrap(), both);
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    assert_eq!(store.standing(&shop).await.unwrap(), both);
    talk.apply(&store, later).await;
    assert_eq!(settle(&store, own).await.unwrap(), Appended::Conflict { head: 1 }, "the server itself may");
}

pub(crate) async fn who_is_being_erased_joins_nothing(fixture: &mut impl Fixture) {
    let (store, alice, bob) = (fixture.store(), fresh_user("alice"), fresh_user("bob"));
    let mut talk = Talk::new(&[&alice]);
    talk.say(&store, &alice, "one").await;
    store.begin_erasure(&bob, UserId::erased([1; 16]), 50).await.unwrap();
    let mut group = talk.group(&alice, &[(fresh_temp_id(), "a"), (fresh_temp_id(), "bob comes")]);
    let member = Member { user: bob.clone(), role: Role::Member, first_seq: 3, added_by: None };
    Arc::make_mut(&mut group.state).members.push(member);
    let barred = Appended::Barred(vec![(1, Barred::Joining)]);
    assert_eq!(settle(&store, group.clone()).await.unwrap(), barred);
    assert_eq!(row_of(&store, &bob, talk.id).await, None);
    let pair = Talk::new(&[&alice, &bob]);
    let first = pair.group(&alice, &[(fresh_temp_id(), "hi")]);
    assert_eq!(settle(&store, first).await.unwrap(), Appended::Barred(vec![(0, Barred::Joining)]));
    assert!(store.finish_erasure(&bob).await.unwrap());
    talk.apply(&store, group).await;
}

/// Ages a log until nothing is left to go.
async fn age_all(store: &Arc<dyn Store>, id: ConversationId, ages: Ages) -> (usize, usize) {
    let mut gone = (0, 0);
    loop {
        let aged = store.age(id, ages, 2).await.unwrap();
        gone = (gone.0 + aged.entries, gone.1 + aged.markers);
        if !aged.more {
            return gone;
        }
    }
}

/// The last entry that goes from a log up to `head`, all up to `old` being old enough; 0: none goes.
fn gone_until(store: &Arc<dyn Store>, old: u64, head: u64) -> u64 {
    match store.ages_by() {
        Granularity::Entry => old,
        Granularity::Bucket(size) => ((old + 1).min(head) / size * size).saturating_sub(1),
    }
}

pub(crate) async fn what_is_old_goes_from_the_start_of_a_log_and_seqs_go_on(fixture: &mut impl Fixture) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let mut talk = Talk::new(&[&alice, &bob]);
    assert_eq!(kept_of(fixture.store(), talk.id).await, Kept::default());
    let piece = match fixture.store().ages_by() {
        Granularity::Entry => 1,
        Granularity::Bucket(size) => size,
    };
    let mut log = Vec::new();
    while talk.state.head < piece * 2 + 5 {
        log.push(talk.say(&fixture.store(), &alice, "x").await);
    }
    let head = talk.state.head;
    let ages = |ms| Ages { markers_before_ms: ms, entries_before_ms: Some(ms) };
    assert_eq!(age_all(&fixture.store(), talk.id, ages(1_000)).await, (0, 0));
    let old = piece + 2;
    let gone = gone_until(&fixture.store(), old, head);
    let aged = age_all(&fixture.store(), talk.id, ages((old + 1) * 1_000)).await;
    assert_eq!(aged, (gone as usize, old as usize));
    assert_eq!(age_all(&fixture.store(), talk.id, ages((old + 1) * 1_000)).await, (0, 0));
    fixture.reopen().await;
    let kept = kept_of(fixture.store(), talk.id).await;
    let expected = Kept { first_seq: gone + 1, markers_until: old, erased_seq: 0, messages: gone };
    assert_eq!(kept, expected);
    assert_eq!(talk.log(&fixture.store()).await, log[gone as usize..]);
    let marker = async |fixture: &dyn Fixture, entry: &Entry| {
        let found = fixture.store().marker(talk.id, &alice, entry.temp_id.unwrap(), 0).await.unwrap();
        found.map(|marker| marker.seq)
    };
    assert_eq!(marker(fixture, &log[gone as usize - 1]).await, None);
    assert_eq!(marker(fixture, &log[old as usize]).await, Some(old + 1));
    // All is old; the log goes on where it was.
    let all = gone_until(&fixture.store(), head, head);
    let aged = age_all(&fixture.store(), talk.id, ages(u64::MAX)).await;
    assert_eq!(aged, ((all - gone) as usize, (head - old) as usize));
    let kept = kept_of(fixture.store(), talk.id).await;
    assert_eq!((kept.first_seq, kept.messages), (all + 1, all));
    assert_eq!(talk.log(&fixture.store()).await, log[all as usize..]);
    let state = fixture.store().conversation(talk.id).await.unwrap().unwrap();
    assert_eq!((state.head, state.last_time_ms), (head, head * 1_000));
    assert_eq!(row_of(&fixture.store(), &bob, talk.id).await.unwrap().last_seq, head);
    let next = talk.say(&fixture.store(), &alice, "after all").await;
    assert_eq!(next.seq, head + 1);
    fixture.reopen().await;
    assert_eq!(talk.log(&fixture.store()).await.last(), Some(&next));
    let ids = fixture.store().conversations(None, usize::MAX).await.unwrap();
    assert!(ids.is_sorted() && ids.contains(&talk.id));
    let after = fixture.store().conversations(Some(talk.id), usize::MAX).await.unwrap();
    assert!(!after.contains(&talk.id) && after.iter().all(|id| ids.contains(id)));
}

pub(crate) async fn entries_stay_as_long_as_their_markers(fixture: &mut impl Fixture) {
    let alice = fresh_user("alice");
    let mut talk = Talk::new(&[&alice]);
    for _ in 0..8 {
        talk.say(&fixture.store(), &alice, "x").await;
    }
    let markers_only = Ages { markers_before_ms: 3_000, entries_before_ms: None };
    assert_eq!(age_all(&fixture.store(), talk.id, markers_only).await, (0, 2));
    assert_eq!(talk.log(&fixture.store()).await.len(), 8);
    // A retry is answered from its entry, so the entry must not go before the marker.
    let too_soon = Ages { markers_before_ms: 3_000, entries_before_ms: Some(u64::MAX) };
    let gone = gone_until(&fixture.store(), 2, 8);
    assert_eq!(age_all(&fixture.store(), talk.id, too_soon).await, (gone as usize, 0));
    assert_eq!(kept_of(fixture.store(), talk.id).await.first_seq, gone + 1);
}

pub(crate) async fn a_log_that_ages_while_it_is_read_has_no_hole(fixture: &mut impl Fixture) {
    let alice = fresh_user("alice");
    let mut talk = Talk::new(&[&alice]);
    for _ in 0..10 {
        let messages: Vec<_> = (0..100).map(|_| (fresh_temp_id(), "x")).collect();
        let group = talk.group(&alice, &messages);
        talk.apply(&fixture.store(), group).await;
    }
    let (store, id) = (fixture.store(), talk.id);
    let ageing = tokio::spawn(async move {
        for before in 1..=20 {
            let before_ms = before * 50 * 1_000;
            let ages = Ages { markers_before_ms: before_ms, entries_before_ms: Some(before_ms) };
            while store.age(id, ages, 200).await.unwrap().more {}
        }
    });
    while !ageing.is_finished() {
        for order in [Order::Ascending, Order::Descending] {
            let mut log = fixture.store().entries(id, 1..=u64::MAX, order, NO_LIMIT).await.unwrap();
            if order == Order::Descending {
                log.reverse();
            }
            let first = log.first().expect("the newest are kept").seq;
            assert!(log.iter().map(|entry| entry.seq).eq(first..=1_000), "from {first} on");
        }
    }
    ageing.await.unwrap();
}

pub(crate) async fn rewritten_entries_keep_their_place_and_lose_their_marker(fixture: &mut impl Fixture) {
    let (alice, became) = (fresh_user("alice"), UserId::erased([3; 16]));
    let mut talk = Talk::new(&[&alice]);
    let mut log = Vec::new();
    for _ in 0..3 {
        log.push(talk.say(&fixture.store(), &alice, "x").await);
    }
    let tombstone = |entry: &Entry| Entry {
        sender: became.clone(),
        sender_name: None,
        temp_id: None,
        body: EntryBody::Erased,
        ..entry.clone()
    };
    let ages = Ages { markers_before_ms: 2_000, entries_before_ms: Some(2_000) };
    age_all(&fixture.store(), talk.id, ages).await;
    // What has aged out must not come back.
    let gone = gone_until(&fixture.store(), 1, 3);
    let rewritten = vec![tombstone(&log[0]), tombstone(&log[1])];
    fixture.store().rewrite(talk.id, rewritten, 9).await.unwrap();
    fixture.store().rewrite(talk.id, Vec::new(), 5).await.unwrap();
    fixture.reopen().await;
    let expected = [tombstone(&log[0]), tombstone(&log[1]), log[2].clone()];
    assert_eq!(talk.log(&fixture.store()).await, expected[gone as usize..]);
    let kept = kept_of(fixture.store(), talk.id).await;
    assert_eq!(kept, Kept { first_seq: gone + 1, markers_until: 1, erased_seq: 9, messages: gone });
    for (entry, seq) in [(&log[1], None), (&log[2], Some(3))] {
        let found = fixture.store().marker(talk.id, &alice, entry.temp_id.unwrap(), 0).await.unwrap();
        assert_eq!(found.map(|marker| marker.seq), seq);
    }
    let other = Entry { id: EntryId::from_uuid(Uuid::now_v7()), ..log[2].clone() };
    let refused = fixture.store().rewrite(talk.id, vec![other], 0).await;
    assert!(matches!(refused, Err(StoreError::Malformed(_))), "{refused:?}");
    let many = vec![log[2].clone(); GROUP_ENTRIES_MAX + 1];
    assert!(matches!(fixture.store().rewrite(talk.id, many, 0).await, Err(StoreError::Malformed(_))));
}

pub(crate) async fn a_user_is_forgotten_once_they_are_a_member_nowhere(fixture: &mut impl Fixture) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let (first, second) = (UserId::erased([1; 16]), UserId::erased([2; 16]));
    let mut talk = Talk::new(&[&alice, &bob]);
    talk.say(&fixture.store(), &alice, "x").await;
    talk.say(&fixture.store(), &bob, "to be pushed").await;
    assert!(fixture.store().change_user(&bob, UserChange::Name(Some("Bob".into())), None).await.unwrap());
    fixture.store().set_read(&bob, talk.id, ReadPosition { seq: 1, messages: 1 }).await.unwrap();
    assert_eq!(fixture.store().standing(&bob).await.unwrap().erasure, None);
    let begun = fixture.store().begin_erasure(&bob, first.clone(), 50).await.unwrap();
    let open = OpenErasure { user: bob.clone(), became: first };
    assert_eq!(begun, Erasure { at_ms: 50, open: Some(open) });
    fixture.reopen().await;
    let again = fixture.store().begin_erasure(&bob, second.clone(), 60).await.unwrap();
    assert_eq!(again, begun, "one that is open goes on as it is");
    assert!(fixture.store().open_erasures().await.unwrap().contains(&bob));

    assert!(!fixture.store().finish_erasure(&bob).await.unwrap(), "still a member");
    assert!(row_of(&fixture.store(), &bob, talk.id).await.is_some());
    let mut group = talk.group(&alice, &[(fresh_temp_id(), "bob is gone")]);
    Arc::make_mut(&mut group.state).members.pop();
    talk.apply(&fixture.store(), group).await;
    assert!(fixture.store().finish_erasure(&bob).await.unwrap());
    fixture.reopen().await;
    assert_eq!(
        fixture.store().standing(&bob).await.unwrap().erasure,
        Some(Erasure { at_ms: 50, open: None })
    );
    assert!(!fixture.store().open_erasures().await.unwrap().contains(&bob));
    assert_eq!(fixture.store().users(std::slice::from_ref(&bob)).await.unwrap(), [None]);
    assert_eq!(fixture.store().inbox(&bob, None, usize::MAX).await.unwrap(), []);
    assert_eq!(fixture.store().inbox(&alice, None, usize::MAX).await.unwrap().len(), 1);
    let shards: Vec<u8> = (0..=u8::MAX).collect();
    let intents = fixture.store().intents(&shards, 0..=u64::MAX, usize::MAX).await.unwrap();
    assert!(intents.iter().all(|intent| intent.sender.as_ref() != Some(&bob)), "{intents:?}");
    let waiting: u64 = fixture.store().intents_waiting(&shards).await.unwrap().iter().sum();
    assert_eq!((waiting, intents.len()), (2, 2), "those of others wait on");
    let next = fixture.store().begin_erasure(&bob, second.clone(), 70).await.unwrap();
    assert_eq!((next.at_ms, next.open.unwrap().became), (70, second));
    assert!(fixture.store().finish_erasure(&bob).await.unwrap());
}

pub(crate) async fn many_writers_of_one_conversation_leave_a_dense_log(fixture: &mut impl Fixture) {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let writers: Vec<_> = (0..WRITERS).map(|_| fresh_user("writer")).collect();
    let talk = Talk::new(&writers.iter().collect::<Vec<_>>());
    let (id, start) = (talk.id, talk.state.clone());
    let tasks = writers.into_iter().map(|writer| {
        let (store, start) = (fixture.store(), start.clone());
        tokio::spawn(async move {
            let mut acked = Vec::new();
            while acked.len() < EACH {
                let temp_id = fresh_temp_id();
                loop {
                    let state = store.conversation(id).await.unwrap().unwrap_or_else(|| start.clone());
                    let group = Talk { id, state }.group(&writer, &[(temp_id, "contended")]);
                    let entry = (*group.entries[0].entry).clone();
                    match settle(&store, group).await.unwrap() {
                        Appended::Applied => break acked.push(entry),
                        Appended::Conflict { head } => assert!(head > 0),
                        Appended::Duplicates(found) => {
                            // An attempt of which nothing was known.
                            let seq = found[0].1.seq;
                            let one = store.entries(id, seq..=seq, Order::Ascending, NO_LIMIT).await.unwrap();
                            break acked.extend(one);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            acked
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut acked = Vec::new();
    for task in tasks {
        acked.extend(task.await.unwrap());
    }
    acked.sort_by_key(|entry| entry.seq);
    assert!(acked.iter().map(|entry| entry.seq).eq(1..=(WRITERS * EACH) as u64));
    assert_eq!(talk.log(&fixture.store()).await, acked);
    fixture.reopen().await;
    assert_eq!(talk.log(&fixture.store()).await, acked);
}

pub(crate) async fn two_markers_of_one_change_never_both_commit(fixture: &mut impl Fixture) {
    let alice = fresh_user("alice");
    let talk = Talk::new(&[&alice]);
    let (id, start) = (talk.id, talk.state.clone());
    for round in 0..20 {
        let temp_id = fresh_temp_id();
        let tries = (0..4).map(|_| {
            let (store, alice, start) = (fixture.store(), alice.clone(), start.clone());
            tokio::spawn(async move {
                loop {
                    let state = store.conversation(id).await.unwrap().unwrap_or_else(|| start.clone());
                    let group = Talk { id, state }.group(&alice, &[(temp_id, "the same")]);
                    let seq = group.entries[0].entry.seq;
                    match settle(&store, group).await.unwrap() {
                        Appended::Applied => break seq,
                        Appended::Duplicates(found) => break found[0].1.seq,
                        Appended::Conflict { .. } => {}
                        Appended::Unknown | Appended::Barred(_) => panic!("nothing was interrupted"),
                    }
                }
            })
        });
        let tries: Vec<_> = tries.collect();
        for attempt in tries {
            assert_eq!(attempt.await.unwrap(), round + 1, "all attempts learn the one seq");
        }
    }
    assert_eq!(talk.log(&fixture.store()).await.len(), 20);
}
