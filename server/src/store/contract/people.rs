//! What every store must do about blocks, and about groups that others put somebody in.

use std::num::NonZero;

use super::*;
use crate::store::{BlockChange, BlockOutcome, Blocked, PeopleConfig};

/// The limits of a store under test.
pub(crate) fn few() -> PeopleConfig {
    let added_groups_per_hour = NonZero::new(8).unwrap();
    PeopleConfig { blocks: 12, added_groups: 5, added_groups_per_hour }
}

/// Later than any entry of the tests before: an hour for each.
const HOUR_MS: u64 = 3600 * 1000;

async fn block(store: &Arc<dyn Store>, by: &UserId, user: &UserId, blocked: bool) -> BlockOutcome {
    let (by, user) = (by.clone(), user.clone());
    let change = BlockChange { by, user, blocked, at_ms: 7, right: Some(Right::own(90)) };
    // A store that does not know is asked again.
    loop {
        match store.set_block(change.clone()).await {
            Err(StoreError::Unavailable(_)) => {}
            outcome => return outcome.unwrap(),
        }
    }
}

fn message(talk: &Talk, from: &UserId) -> AppendGroup {
    let mut group = talk.group(from, &[(fresh_temp_id(), "hi")]);
    group.entries[0].right = Some(Right::own(95));
    group
}

/// A group that `by` makes with others, at this time.
fn made(by: &UserId, others: &[&UserId], time_ms: u64) -> AppendGroup {
    let users: Vec<&UserId> = std::iter::once(by).chain(others.iter().copied()).collect();
    let talk = Talk::new(&users);
    let mut group = talk.group(by, &[(fresh_temp_id(), "")]);
    change(&mut group.entries[0], |entry| {
        let members = users.iter().map(|user| (*user).clone()).collect();
        (entry.time_ms, entry.messages) = (time_ms, 0);
        entry.body = EntryBody::Created { name: "a group".into(), members };
    });
    group.entries[0].right = Some(Right::own(95));
    let state = Arc::make_mut(&mut group.state);
    (state.messages, state.last_time_ms) = (0, time_ms);
    for member in state.members.iter_mut().filter(|member| member.user != *by) {
        member.added_by = Some(by.clone());
    }
    group
}

async fn barred(store: &Arc<dyn Store>, group: AppendGroup) -> Barred {
    match settle(store, group).await.unwrap() {
        Appended::Barred(mut barred) if barred.len() == 1 && barred[0].0 == 0 => barred.remove(0).1,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn no_message_passes_where_one_of_two_blocks_the_other(fixture: &mut impl Fixture) {
    let (alice, bob, carol) = (fresh_user("alice"), fresh_user("bob"), fresh_user("carol"));
    let mut old = Talk::pair(&alice, &bob);
    let group = message(&old, &bob);
    old.apply(&fixture.store(), group).await;
    let never = Talk::pair(&alice, &carol);
    // What was asked for before and comes after is refused too.
    let under_way = message(&old, &bob);
    for other in [&bob, &carol] {
        assert_eq!(block(&fixture.store(), &alice, other, true).await, BlockOutcome::Changed);
        assert_eq!(block(&fixture.store(), &alice, other, true).await, BlockOutcome::Stood);
    }
    for _ in 0..2 {
        let store = fixture.store();
        assert_eq!(barred(&store, under_way.clone()).await, Barred::Blocked);
        assert_eq!(barred(&store, message(&old, &alice)).await, Barred::Blocking(bob.clone()));
        assert_eq!(barred(&store, message(&never, &carol)).await, Barred::Blocked);
        assert_eq!(barred(&store, message(&never, &alice)).await, Barred::Blocking(carol.clone()));
        assert_eq!(store.conversation(never.id).await.unwrap(), None);
        let state = store.conversation(old.id).await.unwrap().unwrap();
        assert_eq!((state.head, &state.blocked_by), (1, &vec![alice.clone()]));
        let others = [bob.clone(), carol.clone(), fresh_user("dave")];
        assert_eq!(store.blocked_between(&alice, &others).await.unwrap(), [true, true, false]);
        assert_eq!(
            store.blocked_between(&bob, &[alice.clone(), carol.clone()]).await.unwrap(),
            [true, false]
        );
        assert_eq!(old.log(&store).await.len(), 1, "what was said stays");
        drop((store, state));
        fixture.reopen().await;
    }
    let store = fixture.store();
    // Both block; one takes it back; then the other.
    block(&store, &bob, &alice, true).await;
    block(&store, &alice, &bob, false).await;
    assert_eq!(barred(&store, message(&old, &alice)).await, Barred::Blocked);
    // Nothing of it is on its way any more when it would be allowed.
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    block(&store, &bob, &alice, false).await;
    assert_eq!(block(&store, &bob, &alice, false).await, BlockOutcome::Stood);
    old.apply(&store, under_way).await;
    let mut never = never;
    block(&store, &alice, &carol, false).await;
    let first = message(&never, &carol);
    never.apply(&store, first).await;
    assert_eq!(store.conversation(old.id).await.unwrap().unwrap().blocked_by, [] as [UserId; 0]);
}

pub(crate) async fn nobody_puts_in_a_group_whom_they_block_or_who_blocks_them(fixture: &mut impl Fixture) {
    let store = fixture.store();
    let (alice, bob, carol) = (fresh_user("alice"), fresh_user("bob"), fresh_user("carol"));
    let mut crew = Talk::new(&[&alice, &carol]);
    crew.say(&store, &alice, "one").await;
    block(&store, &alice, &bob, true).await;
    assert_eq!(barred(&store, made(&alice, &[&carol, &bob], 1)).await, Barred::Blocking(bob.clone()));
    assert_eq!(barred(&store, made(&bob, &[&carol, &alice], 1)).await, Barred::BlockedJoin(alice.clone()));
    let mut joining = message(&crew, &alice);
    let state = Arc::make_mut(&mut joining.state);
    let (role, added_by) = (Role::Member, Some(alice.clone()));
    state.members.push(Member { user: bob.clone(), role, first_seq: 2, added_by });
    assert_eq!(barred(&store, joining).await, Barred::Blocking(bob.clone()));
    // Somebody else may have both in a group, and there both write.
    let both = made(&carol, &[&alice, &bob], 1);
    let mut talk = Talk { id: both.conversation, state: both.state.clone() };
    talk.apply(&store, both).await;
    for sender in [&alice, &bob] {
        let group = message(&talk, sender);
        talk.apply(&store, group).await;
    }
}

pub(crate) async fn others_put_a_user_in_so_many_groups_and_no_more(fixture: &mut impl Fixture) {
    let PeopleConfig { added_groups, added_groups_per_hour, .. } = few();
    let (mallory, victim) = (fresh_user("mallory"), fresh_user("victim"));
    // As many as they accept, but not faster than that.
    for _ in 0..added_groups_per_hour.get() {
        let group = made(&mallory, &[&victim], HOUR_MS);
        let id = group.conversation;
        assert_eq!(settle(&fixture.store(), group).await.unwrap(), Appended::Applied);
        assert!(fixture.store().accept(&victim, id).await.unwrap());
    }
    match barred(&fixture.store(), made(&mallory, &[&victim], HOUR_MS)).await {
        Barred::TooFast { user, retry_after_ms } => assert!(user == victim && retry_after_ms > 0),
        other => panic!("{other:?}"),
    }
    // Who makes it is put in by nobody.
    let own = made(&victim, &[], HOUR_MS);
    assert_eq!(settle(&fixture.store(), own).await.unwrap(), Appended::Applied);
    let mut groups = Vec::new();
    for _ in 0..added_groups {
        let group = made(&mallory, &[&victim], 3 * HOUR_MS);
        groups.push(group.conversation);
        assert_eq!(settle(&fixture.store(), group).await.unwrap(), Appended::Applied);
    }
    fixture.reopen().await;
    let store = fixture.store();
    let later = || made(&mallory, &[&victim], 1_000 * HOUR_MS);
    assert_eq!(barred(&store, later()).await, Barred::Crowded(victim.clone()));
    // One is kept, in one they write, one they leave: three more may come.
    assert!(store.accept(&victim, groups[0]).await.unwrap());
    assert!(store.accept(&victim, groups[0]).await.unwrap(), "once more is fine, and counts once");
    for (place, leaves) in [(1, false), (2, true)] {
        let state = store.conversation(groups[place]).await.unwrap().unwrap();
        let talk = Talk { id: groups[place], state };
        let mut group = message(&talk, &victim);
        let (state, seq) = (Arc::make_mut(&mut group.state), group.entries[0].entry.seq);
        let at = state.members.iter().position(|member| member.user == victim).unwrap();
        if leaves {
            let first_seq = state.members.remove(at).first_seq;
            group.departures.push(Departure { user: victim.clone(), first_seq, until_seq: seq });
        } else {
            state.members[at].added_by = None;
        }
        assert_eq!(settle(&store, group).await.unwrap(), Appended::Applied);
    }
    for _ in 0..3 {
        assert_eq!(settle(&store, later()).await.unwrap(), Appended::Applied);
    }
    assert_eq!(barred(&store, later()).await, Barred::Crowded(victim.clone()));
    assert!(
        !store.accept(&fresh_user("carol"), groups[0]).await.unwrap(),
        "who is no member accepts nothing"
    );
    assert!(!store.accept(&victim, ConversationId::from_bytes([0xee; 16])).await.unwrap());
}

pub(crate) async fn an_older_owner_takes_back_neither_a_block_nor_what_was_accepted(
    fixture: &mut impl Fixture,
) {
    let store = fixture.store();
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let group = made(&alice, &[&bob], 1);
    let mut talk = Talk { id: group.conversation, state: group.state.clone() };
    talk.apply(&store, group).await;
    assert!(store.accept(&bob, talk.id).await.unwrap());
    let on_the_older = message(&talk, &alice);
    talk.apply(&store, on_the_older).await;
    let state = store.conversation(talk.id).await.unwrap().unwrap();
    assert_eq!(state.member(&bob).unwrap().added_by, None);
    let glance = store.glance(&[talk.id]).await.unwrap().pop().flatten().unwrap();
    assert_eq!(glance.state, state);
}

pub(crate) async fn blocks_are_listed_page_by_page_up_to_their_limit(fixture: &mut impl Fixture) {
    let (alice, most) = (fresh_user("alice"), few().blocks);
    let mut others: Vec<UserId> = (0..most).map(|_| fresh_user("other")).collect();
    others.sort();
    let blocking = others.iter().map(|other| {
        let (store, alice, other) = (fixture.store(), alice.clone(), other.clone());
        tokio::spawn(async move { block(&store, &alice, &other, true).await })
    });
    for blocked in blocking.collect::<Vec<_>>() {
        // A store that did not know may have done it.
        assert!(matches!(blocked.await.unwrap(), BlockOutcome::Changed | BlockOutcome::Stood));
    }
    assert_eq!(block(&fixture.store(), &alice, &fresh_user("late"), true).await, BlockOutcome::Full(most));
    fixture.reopen().await;
    let store = fixture.store();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = store.blocks(&alice, after.as_ref(), 5).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.user.clone());
        listed.extend(page);
    }
    let expected: Vec<Blocked> =
        others.iter().map(|user| Blocked { user: user.clone(), since_ms: 7 }).collect();
    assert_eq!(listed, expected);
    block(&store, &alice, &others[0], false).await;
    assert_eq!(block(&store, &alice, &fresh_user("next"), true).await, BlockOutcome::Changed);
    assert_eq!(store.blocks(&others[0], None, 9).await.unwrap(), [], "they are not told");
}

pub(crate) async fn blocks_go_with_who_is_erased(fixture: &mut impl Fixture) {
    let (alice, bob, carol) = (fresh_user("alice"), fresh_user("bob"), fresh_user("carol"));
    let mut talk = Talk::pair(&alice, &bob);
    let group = message(&talk, &bob);
    talk.apply(&fixture.store(), group).await;
    let store = fixture.store();
    block(&store, &alice, &bob, true).await;
    block(&store, &bob, &carol, true).await;
    block(&store, &alice, &carol, true).await;
    store.begin_erasure(&bob, UserId::erased([1; 16]), 93).await.unwrap();
    assert_eq!(block(&store, &bob, &alice, true).await, BlockOutcome::Barred(Barred::Sender(Lost::Erased)));
    assert_eq!(block(&store, &carol, &bob, true).await, BlockOutcome::Barred(Barred::Joining));
    while store.forget_blocks(&bob, 1).await.unwrap() {}
    assert_eq!(store.blocks(&bob, None, 9).await.unwrap(), []);
    drop(store);
    fixture.reopen().await;
    let store = fixture.store();
    let blocks = store.blocks(&alice, None, 9).await.unwrap();
    assert_eq!(blocks, [Blocked { user: carol, since_ms: 7 }]);
    assert_eq!(store.conversation(talk.id).await.unwrap().unwrap().blocked_by, [] as [UserId; 0]);
}
