//! Random operations on the embedded store, with restarts, compared with the store in memory.

use proptest::prelude::*;
use tern_protocol::{ConversationId, ConversationKind, EntryBody, EntryId, Role};

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Ages, BlockChange, Departure, Member, NewEntry, People, Right, Upkeep};

const USERS: u8 = 4;
const TEMP_IDS: u8 = 16;

/// Small numbers, so that operations meet.
#[derive(Clone, Debug)]
enum Step {
    /// Messages, some of them retries; the owner is mistaken about the head by `off`.
    Append {
        talk: u8,
        sender: u8,
        temp_ids: Vec<u8>,
        off: u64,
        push: bool,
    },
    /// Leaves if a member, else joins.
    Toggle {
        talk: u8,
        user: u8,
        name: bool,
    },
    SetRead {
        talk: u8,
        user: u8,
        seq: u64,
    },
    ChangeUser {
        user: u8,
        last_seen_ms: u64,
    },
    /// Clears every `every`th of the oldest intents.
    ClearIntents {
        limit: usize,
        every: usize,
    },
    Reopen {
        is_orderly: bool,
    },
    /// Everything before a time goes, or only its markers.
    Age {
        talk: u8,
        before_ms: u64,
        entries: bool,
    },
    /// What the user wrote becomes tombstones, and the user is forgotten, if they are a member nowhere.
    Erase {
        user: u8,
    },
    /// One user blocks another, or takes it back.
    Block {
        by: u8,
        user: u8,
        blocked: bool,
    },
    /// A member accepts that they were brought in.
    Accept {
        talk: u8,
        user: u8,
    },
    /// The store goes on from a backup of itself.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let temp_ids = prop::collection::btree_set(0..TEMP_IDS, 1..5);
    let append = (0..3_u8, 0..USERS, temp_ids, prop::sample::select(vec![0, 0, 0, 0, 1]), any::<bool>());
    let append = append.prop_map(|(talk, sender, temp_ids, off, push)| Step::Append {
        talk,
        sender,
        temp_ids: temp_ids.into_iter().collect(),
        off,
        push,
    });
    let toggle = (0..3_u8, 0..USERS, any::<bool>());
    prop_oneof![
        8 => append,
        3 => toggle.prop_map(|(talk, user, name)| Step::Toggle { talk, user, name }),
        2 => (0..3_u8, 0..USERS, 0..20_u64).prop_map(|(talk, user, seq)| Step::SetRead { talk, user, seq }),
        1 => (0..USERS, 0..9_u64).prop_map(|(user, last_seen_ms)| Step::ChangeUser { user, last_seen_ms }),
        1 => (0..20_usize, 1..4_usize).prop_map(|(limit, every)| Step::ClearIntents { limit, every }),
        1 => any::<bool>().prop_map(|is_orderly| Step::Reopen { is_orderly }),
        1 => (0..3_u8, 0..9_u64, any::<bool>())
            .prop_map(|(talk, before_ms, entries)| Step::Age { talk, before_ms, entries }),
        1 => (0..USERS).prop_map(|user| Step::Erase { user }),
        1 => Just(Step::Restore),
        2 => (0..USERS, 1..USERS, any::<bool>())
            .prop_map(|(by, other, blocked)| Step::Block { by, user: (by + other) % USERS, blocked }),
        1 => (0..3_u8, 0..USERS).prop_map(|(talk, user)| Step::Accept { talk, user }),
    ]
}

fn user(number: u8) -> UserId {
    UserId::new(&format!("user-{number}")).unwrap()
}

/// The first is the pair of the first two users, so that blocks meet it.
fn talk_id(number: u8) -> ConversationId {
    match number {
        0 => ConversationId::pair(&user(0), &user(1)),
        _ => ConversationId::from_bytes([number; 16]),
    }
}

/// Every third entry is no message.
fn messages(seq: u64) -> u64 {
    seq - seq / 3
}

fn message(sender: u8, seq: u64, temp_id: Option<u8>, push: bool) -> NewEntry {
    let entry = Entry {
        seq,
        id: EntryId::from_bytes([seq as u8; 16]),
        // Times of different logs interleave and repeat.
        time_ms: seq / 2,
        sender: user(sender),
        sender_name: None,
        temp_id: temp_id.map(|byte| TempId::from_bytes([byte; 16])),
        messages: messages(seq),
        body: match seq % 3 {
            0 => EntryBody::Renamed { name: "n".into() },
            _ => EntryBody::text("x".repeat(seq as usize * 7 % 50)),
        },
    };
    NewEntry::new(entry, [temp_id.unwrap_or(0); 16], push, None)
}

fn empty(talk: u8) -> Conversation {
    let (kind, name) = (if talk == 0 { ConversationKind::Pair } else { ConversationKind::Group }, None);
    let (members, blocked_by) = (Vec::new(), Vec::new());
    Conversation { kind, name, head: 0, messages: 0, last_time_ms: 0, members, blocked_by }
}

async fn group(model: &MemoryStore, talk: u8, off: u64, entries: Vec<(u8, Option<u8>, bool)>) -> AppendGroup {
    let state = model.conversation(talk_id(talk)).await.unwrap();
    let mut state = state.map_or_else(|| empty(talk), |state| (*state).clone());
    let expected_head = state.head.saturating_sub(off);
    let entries: Vec<_> = (expected_head + 1..)
        .zip(entries)
        .map(|(seq, (sender, temp_id, push))| message(sender, seq, temp_id, push))
        .collect();
    state.head = expected_head + entries.len() as u64;
    state.messages = messages(state.head);
    state.last_time_ms = state.head / 2;
    let (conversation, state) = (talk_id(talk), Arc::new(state));
    AppendGroup { conversation, expected_head, entries, state, departures: Vec::new() }
}

async fn toggle(model: &MemoryStore, talk: u8, number: u8, is_renamed: bool) -> AppendGroup {
    let by = (number + 1) % USERS;
    let mut group = group(model, talk, 0, vec![(by, None, false)]).await;
    let seq = group.state.head;
    let state = Arc::make_mut(&mut group.state);
    match state.members.iter().position(|member| member.user == user(number)) {
        Some(place) => {
            let first_seq = state.members.remove(place).first_seq;
            group.departures.push(Departure { user: user(number), first_seq, until_seq: seq });
        }
        None => {
            state.members.push(Member {
                user: user(number),
                role: Role::Member,
                first_seq: seq,
                added_by: Some(user(by)),
            });
        }
    }
    if is_renamed {
        state.name = Some(format!("name {seq}"));
    }
    group
}

/// Both answer the same to everything that can be asked.
async fn compare(model: &MemoryStore, store: &EmbeddedStore) {
    for talk in (0..3).map(talk_id) {
        assert_eq!(store.conversation(talk).await.unwrap(), model.conversation(talk).await.unwrap());
        assert_eq!(store.glance(&[talk]).await.unwrap(), model.glance(&[talk]).await.unwrap());
        let head = model.conversation(talk).await.unwrap().map_or(0, |state| state.head);
        for (range, entries, bytes) in
            [(0..=u64::MAX, 1000, 1_000_000), (head / 3..=head, 3, 1_000_000), (2..=head, 1000, 200)]
        {
            let limit = PageLimit { entries, bytes };
            for order in [Order::Ascending, Order::Descending] {
                assert_eq!(
                    store.entries(talk, range.clone(), order, limit).await.unwrap(),
                    model.entries(talk, range.clone(), order, limit).await.unwrap()
                );
            }
        }
        for (sender, byte) in (0..USERS).flat_map(|sender| (0..TEMP_IDS).map(move |byte| (sender, byte))) {
            let (sender, temp_id) = (user(sender), TempId::from_bytes([byte; 16]));
            assert_eq!(
                store.marker(talk, &sender, temp_id, 0).await.unwrap(),
                model.marker(talk, &sender, temp_id, 0).await.unwrap()
            );
        }
    }
    let users: Vec<_> = (0..USERS).map(user).collect();
    assert_eq!(store.users(&users).await.unwrap(), model.users(&users).await.unwrap());
    assert_eq!(store.conversations(None, 9).await.unwrap(), model.conversations(None, 9).await.unwrap());
    for user in &users {
        assert_eq!(store.standing(user).await.unwrap(), model.standing(user).await.unwrap());
        assert_eq!(
            store.blocked_between(user, &users).await.unwrap(),
            model.blocked_between(user, &users).await.unwrap()
        );
        for after in [None, Some(user)] {
            let blocks = model.blocks(user, after, 2).await.unwrap();
            assert_eq!(store.blocks(user, after, 2).await.unwrap(), blocks);
        }
        let inbox = model.inbox(user, None, 9).await.unwrap();
        assert_eq!(store.inbox(user, None, 9).await.unwrap(), inbox);
        let after = inbox.first().map(InboxRow::place);
        let rest = model.inbox(user, after, 1).await.unwrap();
        assert_eq!(store.inbox(user, after, 1).await.unwrap(), rest);
        for row in inbox {
            assert_eq!(store.inbox_rows(user, &[row.conversation]).await.unwrap(), [Some(row)]);
        }
    }
    let shards: Vec<u8> = (0..=255).collect();
    assert_eq!(store.intents_waiting(&shards).await.unwrap(), model.intents_waiting(&shards).await.unwrap());
    for (from_ms, until_ms, limit) in
        [(0, u64::MAX, usize::MAX), (0, 3, usize::MAX), (3, u64::MAX, 4), (0, u64::MAX, 2)]
    {
        assert_eq!(
            store.intents(&shards, from_ms..=until_ms, limit).await.unwrap(),
            model.intents(&shards, from_ms..=until_ms, limit).await.unwrap()
        );
    }
}

async fn age_all(store: &dyn Upkeep, talk: u8, ages: Ages) -> (usize, usize) {
    let mut gone = (0, 0);
    loop {
        let aged = store.age(talk_id(talk), ages, 3).await.unwrap();
        gone = (gone.0 + aged.entries, gone.1 + aged.markers);
        if !aged.more {
            return gone;
        }
    }
}

async fn erase(model: &MemoryStore, store: &EmbeddedStore, user: &UserId) {
    let became = UserId::erased([9; 16]);
    let begun = model.begin_erasure(user, became.clone(), 5).await.unwrap();
    assert_eq!(store.begin_erasure(user, became.clone(), 5).await.unwrap(), begun);
    for talk in (0..3).map(talk_id) {
        let limit = PageLimit { entries: 100, bytes: usize::MAX };
        let log = model.entries(talk, 1..=u64::MAX, Order::Ascending, limit).await.unwrap();
        if model.conversation(talk).await.unwrap().is_none() {
            continue; // nobody is erased from what is not there
        }
        let own = log.into_iter().filter(|entry| entry.sender == *user);
        let rewritten: Vec<_> =
            own.map(|entry| Entry { sender: became.clone(), temp_id: None, ..entry }).collect();
        model.rewrite(talk, rewritten.clone(), 1).await.unwrap();
        store.rewrite(talk, rewritten, 1).await.unwrap();
    }
    assert_eq!(store.forget_blocks(user, 9).await.unwrap(), model.forget_blocks(user, 9).await.unwrap());
    let finished = model.finish_erasure(user).await.unwrap();
    assert_eq!(store.finish_erasure(user).await.unwrap(), finished);
}

async fn apply(step: Step, model: &MemoryStore, disk: &mut OnDisk) {
    let store = disk.store.clone().unwrap();
    match step {
        Step::Append { talk, sender, temp_ids, off, push } => {
            let entries = temp_ids.into_iter().map(|temp_id| (sender, Some(temp_id), push)).collect();
            let group = Arc::new(group(model, talk, off, entries).await);
            let expected = model.append(&group).await.unwrap();
            assert_eq!(store.append(&group).await.unwrap(), expected);
        }
        Step::Toggle { talk, user, name } => {
            let group = Arc::new(toggle(model, talk, user, name).await);
            let expected = model.append(&group).await.unwrap();
            assert_eq!(store.append(&group).await.unwrap(), expected);
        }
        Step::SetRead { talk, user: number, seq } => {
            let (user, talk) = (user(number), talk_id(talk));
            let head = model.conversation(talk).await.unwrap().map_or(0, |state| state.head);
            let seq = seq.min(head);
            let read = ReadPosition { seq, messages: messages(seq) };
            let expected = model.set_read(&user, talk, read).await.unwrap();
            assert_eq!(store.set_read(&user, talk, read).await.unwrap(), expected);
        }
        Step::ChangeUser { user: number, last_seen_ms } => {
            let name = Some(format!("{last_seen_ms}"));
            for change in [UserChange::LastSeen(last_seen_ms), UserChange::Name(name)] {
                let expected =
                    model.change_user(&user(number), change.clone(), Some(Right::own(9))).await.unwrap();
                assert_eq!(
                    store.change_user(&user(number), change, Some(Right::own(9))).await.unwrap(),
                    expected
                );
            }
        }
        Step::ClearIntents { limit, every } => {
            let due = model.intents(&(0..=255).collect::<Vec<_>>(), 0..=u64::MAX, limit).await.unwrap();
            let some: Vec<_> = due.into_iter().step_by(every).collect();
            model.clear_intents(&some).await.unwrap();
            store.clear_intents(&some).await.unwrap();
        }
        Step::Age { talk, before_ms, entries } => {
            let ages = Ages { markers_before_ms: before_ms, entries_before_ms: entries.then_some(before_ms) };
            assert_eq!(age_all(&*store, talk, ages).await, age_all(model, talk, ages).await);
        }
        Step::Erase { user: number } => erase(model, &store, &user(number)).await,
        Step::Block { by, user: other, blocked } => {
            let (by, user, right) = (user(by), user(other), Some(Right::own(9)));
            let change = BlockChange { by, user, blocked, at_ms: 3, right };
            let expected = model.set_block(change.clone()).await.unwrap();
            assert_eq!(store.set_block(change).await.unwrap(), expected);
        }
        Step::Accept { talk, user: number } => {
            let (user, talk) = (user(number), talk_id(talk));
            let expected = model.accept(&user, talk).await.unwrap();
            assert_eq!(store.accept(&user, talk).await.unwrap(), expected);
        }
        Step::Restore => {
            drop(store);
            disk.restore().await;
        }
        Step::Reopen { is_orderly } => {
            drop(store);
            disk.is_orderly = is_orderly;
            disk.reopen().await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_answers_like_the_one_in_memory(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (model, mut disk) = (MemoryStore::new().with_people(contract::few()), OnDisk::new(true));
            for step in steps {
                apply(step, &model, &mut disk).await;
                compare(&model, disk.store.as_ref().unwrap()).await;
            }
            disk.reopen().await;
            compare(&model, disk.store.as_ref().unwrap()).await;
        });
    }
}
