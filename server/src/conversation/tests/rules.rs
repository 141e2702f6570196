//! The rules of a conversation, without a store.

use std::sync::Arc;

use tern_protocol::{
    Abandon, AddMembers, ConversationId, ConversationKind, CreateGroup, Data, EntryBody, EntryId, Frame,
    LeaveGroup, RemoveMembers, RenameGroup, Role, Send, SetRole, Target, UserId,
};

use super::super::answer::Refusal;
use super::super::ask::{Ask, Change, change_of};
use super::super::plan::{Plan, Snapshot, Verdict};
use super::super::state::{Decision, Facts, decide};
use super::{GROUP, ask, say, session, temp, user};
use crate::store::{Conversation, GROUP_ENTRIES_MAX, Marker, Right};

/// A world without markers, except those a test adds: every look-up finds nothing.
fn plan_with(state: Option<&Conversation>, batch: &[Ask], mut facts: Facts) -> Plan {
    let mut next = 0;
    let mut fresh_id = || {
        next += 1;
        EntryId::from_bytes([next; 16])
    };
    let before = state.map(|state| Snapshot::new(Arc::new(state.clone())));
    let mut batch = batch.to_vec();
    loop {
        match decide(before.as_ref(), &mut batch, &facts, 1_000, &mut fresh_id) {
            Decision::Ready(plan) => return plan,
            Decision::Lookup(keys) => {
                assert!(!keys.is_empty());
                keys.into_iter().for_each(|key| facts.learn(key, None));
            }
        }
    }
}

/// What is known of one change.
fn fact(name: &str, n: u8, marker: Marker) -> Facts {
    let mut facts = Facts::default();
    facts.learn((user(name), temp(n)), Some(marker));
    facts
}

fn plan(state: Option<&Conversation>, batch: &[Ask]) -> Plan {
    plan_with(state, batch, Facts::default())
}

/// The state after a batch of which nothing is refused.
fn after(state: Option<&Conversation>, batch: &[Ask]) -> Conversation {
    let plan = plan(state, batch);
    assert!(plan.verdicts.iter().all(|verdict| matches!(verdict, Verdict::Append(_))), "{:?}", plan.verdicts);
    (*plan.group.unwrap().state).clone()
}

/// alice owns it, bob is an admin, carol and dave are members.
fn group() -> Conversation {
    let users = |names: &[&str]| names.iter().map(|name| user(name)).collect();
    let create = Change::Create { name: "crew".into(), members: users(&["bob", "carol", "dave"]) };
    let promote = Change::SetRole { user: user("bob"), role: Role::Admin };
    after(None, &[ask("alice", 1, create), ask("alice", 2, promote)])
}

fn refusal(state: &Conversation, ask: Ask) -> Refusal {
    match plan(Some(state), &[ask]).verdicts.remove(0) {
        Verdict::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn roles(state: &Conversation) -> Vec<(String, Role)> {
    state.members.iter().map(|member| (member.user.to_string(), member.role)).collect()
}

#[test]
fn the_first_message_to_a_user_makes_the_pair() {
    let mut hello = say("alice", 1, "hi");
    hello.peer = Some(user("bob"));
    let state = after(None, &[hello]);
    assert_eq!(state.kind, ConversationKind::Pair);
    assert_eq!(state.head, 1);
    assert_eq!(roles(&state), [("alice".into(), Role::Owner), ("bob".into(), Role::Owner)]);
}

#[test]
fn notes_to_oneself_have_one_member_and_no_push() {
    let mut note = say("alice", 1, "milk");
    note.peer = Some(user("alice"));
    let group = plan(None, &[note]).group.unwrap();
    assert_eq!(group.state.members.len(), 1);
    assert!(!group.entries[0].push);
}

fn erase(name: &str, n: u8) -> Ask {
    Ask { sender: UserId::erased([5; 16]), ..ask("x", n, Change::Erase { user: user(name) }) }
}

#[test]
fn an_erased_user_leaves_by_an_entry_in_the_name_that_stands_for_them() {
    let became = UserId::erased([5; 16]);
    let group = plan(Some(&group()), &[erase("alice", 9)]).group.unwrap();
    let bodies: Vec<_> = group.entries.iter().map(|new| new.entry.body.clone()).collect();
    let heir = EntryBody::RoleChanged { user: user("bob"), role: Role::Owner };
    assert_eq!(bodies, [EntryBody::Left { user: became.clone() }, heir]);
    assert!(group.entries.iter().all(|new| new.entry.sender == became));
    assert!(group.state.member(&user("alice")).is_none());
    // It is said also where they had left before: entries have changed there too.
    let again = plan(Some(&group.state), &[erase("alice", 10)]).group.unwrap();
    assert_eq!(again.entries[0].entry.body, EntryBody::Left { user: became });
    assert_eq!(again.entries.len(), 1);
}

#[test]
fn a_pair_goes_on_without_an_erased_user_and_takes_them_back_when_they_are_written_to() {
    let to_bob = |n| Ask { peer: Some(user("bob")), ..say("alice", n, "hi") };
    let pair = after(None, &[to_bob(1)]);
    let alone = after(Some(&pair), &[erase("bob", 2)]);
    assert_eq!(roles(&alone), [("alice".into(), Role::Owner)]);
    assert!(matches!(refusal(&alone, say("alice", 3, "anybody?")), Refusal::Unreachable));
    let group = plan(Some(&alone), &[to_bob(4)]).group.unwrap();
    assert_eq!(group.entries[0].entry.body, EntryBody::Added { users: vec![user("bob")] });
    assert_eq!(group.state.member(&user("bob")).unwrap().first_seq, 3, "what was before stays out of sight");
    let back = Ask { peer: Some(user("alice")), ..say("bob", 5, "it is me") };
    let group = plan(Some(&alone), &[back]).group.unwrap();
    assert_eq!(group.entries[0].entry.body, EntryBody::Added { users: vec![user("bob")] });
    assert_eq!(group.entries.len(), 2);
}

#[test]
fn nobody_reaches_or_adds_who_stands_for_an_erased_user() {
    let gone = UserId::erased([5; 16]);
    let message = Ask { peer: Some(gone.clone()), ..say("alice", 1, "hi") };
    let create = Change::Create { name: "crew".into(), members: vec![gone.clone()] };
    let in_their_name = Ask { sender: gone.clone(), peer: Some(user("bob")), ..say("x", 1, "hi") };
    for refused in [message, in_their_name, ask("alice", 1, create)] {
        let verdict = plan(None, &[refused]).verdicts.remove(0);
        assert!(
            matches!(verdict, Verdict::Refuse(Refusal::Unreachable | Refusal::NotAddable(_))),
            "{verdict:?}"
        );
    }
    let add = ask("alice", 9, Change::Add { users: vec![gone.clone()] });
    assert_eq!(refusal(&group(), add), Refusal::NotAddable(gone));
}

#[test]
fn a_conversation_that_does_not_exist_looks_like_one_that_is_not_yours() {
    let absent = plan(None, &[say("alice", 1, "hi")]).verdicts.remove(0);
    let forbidden = refusal(&group(), say("mallory", 1, "hi"));
    assert_eq!(absent, Verdict::Refuse(Refusal::NotFound));
    assert_eq!(forbidden, Refusal::NotFound);
}

#[test]
fn a_batch_gets_dense_seqs_in_its_order_and_times_never_decrease() {
    let mut state = group();
    state.last_time_ms = 5_000; // later than the clock of `plan`
    let batch: Vec<_> = (10..20).map(|n| say("carol", n, "x")).collect();
    let group = plan(Some(&state), &batch).group.unwrap();
    let seqs: Vec<u64> = group.entries.iter().map(|new| new.entry.seq).collect();
    assert_eq!(seqs, (state.head + 1..=state.head + 10).collect::<Vec<_>>());
    assert!(group.entries.iter().all(|new| new.entry.time_ms == 5_000));
    assert_eq!(group.expected_head, state.head);
}

#[test]
fn a_committed_send_retried_after_removal_still_gets_its_ack() {
    let state = group();
    let retry = say("mallory", 9, "hi");
    let marker = Marker { seq: 2, digest: retry.change.digest() };
    let facts = fact("mallory", 9, marker);
    let plan = plan_with(Some(&state), &[retry], facts);
    assert_eq!(plan.verdicts, [Verdict::Duplicate(marker)]);
    assert!(plan.group.is_none());
}

#[test]
fn nothing_is_refused_before_its_marker_was_looked_up() {
    let mut fresh_id = || EntryId::from_bytes([0; 16]);
    let before = Snapshot::new(Arc::new(group()));
    let mut batch = [say("mallory", 9, "hi")];
    let decision = decide(Some(&before), &mut batch, &Facts::default(), 0, &mut fresh_id);
    assert_eq!(decision, Decision::Lookup(vec![(user("mallory"), temp(9))]));
}

#[test]
fn the_same_temp_id_for_another_content_is_a_conflict_that_names_the_original() {
    let first = Change::Message { text: "first".into(), data: None, reply_to: None };
    let facts = fact("carol", 9, Marker { seq: 3, digest: first.digest() });
    let plan = plan_with(Some(&group()), &[say("carol", 9, "second")], facts);
    assert_eq!(plan.verdicts, [Verdict::Refuse(Refusal::Conflict { seq: 3 })]);
}

#[test]
fn a_double_inside_one_batch_is_stored_once() {
    let plan = plan(Some(&group()), &[say("carol", 9, "x"), say("carol", 9, "x"), say("dave", 9, "x")]);
    assert_eq!(plan.verdicts, [Verdict::Append(0), Verdict::SameAs(0), Verdict::Append(1)]);
    assert_eq!(plan.group.unwrap().entries.len(), 2);
}

#[test]
fn a_send_waits_for_its_predecessor() {
    let state = group();
    let chained = |n: u8, before: u8| Ask { after: Some(temp(before)), ..say("carol", n, "x") };
    let alone = plan(Some(&state), &[chained(9, 8)]);
    assert_eq!(alone.verdicts, [Verdict::Refuse(Refusal::OutOfOrder)]);
    let together = plan(Some(&state), &[say("carol", 8, "x"), chained(9, 8)]);
    assert_eq!(together.verdicts, [Verdict::Append(0), Verdict::Append(1)]);
    let facts = fact("carol", 8, Marker { seq: 1, digest: [0; 16] });
    let later = plan_with(Some(&state), &[chained(9, 8)], facts);
    assert_eq!(later.verdicts, [Verdict::Append(0)]);
    // What follows a refused one is refused as well.
    let row = plan(Some(&state), &[chained(9, 8), chained(10, 9)]);
    assert_eq!(row.verdicts, vec![Verdict::Refuse(Refusal::OutOfOrder); 2]);
}

#[test]
fn a_send_does_not_wait_for_one_that_was_refused_for_good() {
    let state = group();
    let rename = ask("carol", 8, Change::Rename { name: "mine".into() });
    let behind = Ask { after: Some(temp(8)), ..say("carol", 9, "x") };
    let row = plan(Some(&state), &[rename, behind]);
    assert!(matches!(row.verdicts[..], [Verdict::Refuse(Refusal::Forbidden(_)), Verdict::Append(0)]));
    let chained = |n: u8| Ask { after: Some(temp(n - 1)), ..say("eve", n, "x") };
    let row = plan(Some(&state), &[say("eve", 8, "x"), chained(9), chained(10)]);
    assert_eq!(row.verdicts, vec![Verdict::Refuse(Refusal::NotFound); 3]);
}

#[test]
fn roles_decide_who_manages_a_group() {
    let state = group();
    let add = |users: &[&str]| Change::Add { users: users.iter().map(|name| user(name)).collect() };
    let remove = |name: &str| Change::Remove { users: vec![user(name)] };
    let rename = || Change::Rename { name: "new".into() };
    for change in [add(&["eve"]), remove("dave"), rename()] {
        assert!(matches!(refusal(&state, ask("carol", 9, change)), Refusal::Forbidden(_)));
    }
    assert!(matches!(refusal(&state, ask("bob", 9, remove("alice"))), Refusal::Forbidden(_)));
    let promote = |name: &str, role| Change::SetRole { user: user(name), role };
    assert!(matches!(refusal(&state, ask("bob", 9, promote("carol", Role::Admin))), Refusal::Forbidden(_)));
    assert!(matches!(
        refusal(&state, ask("alice", 9, promote("alice", Role::Member))),
        Refusal::Forbidden(_)
    ));
    assert!(matches!(refusal(&state, ask("bob", 9, remove("bob"))), Refusal::Invalid(_)));
    for nothing in [add(&["carol"]), Change::Rename { name: "crew".into() }] {
        assert!(matches!(refusal(&state, ask("bob", 9, nothing)), Refusal::Invalid(_)));
    }
    let state =
        after(Some(&state), &[ask("bob", 9, add(&["eve", "carol", "eve"])), ask("bob", 10, remove("dave"))]);
    assert!(state.member(&user("eve")).is_some_and(|eve| eve.first_seq == 3));
    assert!(state.member(&user("dave")).is_none());
}

#[test]
fn the_101st_member_is_refused_and_leaves_the_group_untouched() {
    let members = (0..99).map(|n| user(&format!("user{n}"))).collect();
    let state = after(None, &[ask("alice", 1, Change::Create { name: "full".into(), members })]);
    assert_eq!(state.members.len(), 100);
    let one_more = Change::Add { users: vec![user("late")] };
    assert_eq!(refusal(&state, ask("alice", 2, one_more)), Refusal::GroupFull(100));
    let members = (0..100).map(|n| user(&format!("user{n}"))).collect();
    let too_large = plan(None, &[ask("alice", 3, Change::Create { name: "big".into(), members })]);
    assert_eq!(too_large.verdicts, [Verdict::Refuse(Refusal::GroupFull(100))]);
}

#[test]
fn the_last_owner_leaving_promotes_the_oldest_admin_else_the_oldest_member() {
    let state = group();
    let plan_one = plan(Some(&state), &[ask("alice", 9, Change::Leave)]);
    let group_one = plan_one.group.unwrap();
    let bodies: Vec<_> = group_one.entries.iter().map(|new| new.entry.body.clone()).collect();
    let promoted = EntryBody::RoleChanged { user: user("bob"), role: Role::Owner };
    assert_eq!(bodies, [EntryBody::Left { user: user("alice") }, promoted]);
    assert_eq!(group_one.departures[0].until_seq, state.head + 1);
    // alice hears that she is gone, and nothing after it.
    assert!(plan_one.recipients[0].users.contains(&user("alice")));
    assert!(!plan_one.recipients[1].users.contains(&user("alice")));
    let state = after(Some(&group_one.state), &[ask("bob", 10, Change::Leave)]);
    assert_eq!(roles(&state)[0], ("carol".into(), Role::Owner));
    let empty = after(Some(&state), &[ask("carol", 11, Change::Leave), ask("dave", 12, Change::Leave)]);
    assert!(empty.members.is_empty());
}

#[test]
fn who_was_removed_in_a_batch_neither_sends_nor_receives_after_it() {
    let state = group();
    let kick = ask("alice", 9, Change::Remove { users: vec![user("dave")] });
    let plan = plan(
        Some(&state),
        &[say("dave", 8, "still here"), kick, say("dave", 10, "?"), say("carol", 11, "!")],
    );
    assert_eq!(plan.verdicts[2], Verdict::Refuse(Refusal::NotFound));
    let users_of = |entry: usize| {
        &plan.recipients.iter().rev().find(|recipients| recipients.from <= entry).unwrap().users
    };
    assert!(users_of(0).contains(&user("dave")));
    assert!(users_of(1).contains(&user("dave")), "dave hears of the removal");
    assert!(!users_of(2).contains(&user("dave")));
}

#[test]
fn a_rejoin_starts_a_new_log_for_the_member() {
    let state = group();
    let kick = ask("alice", 9, Change::Remove { users: vec![user("dave")] });
    let back = ask("alice", 10, Change::Add { users: vec![user("dave")] });
    let plan = plan(Some(&state), &[kick, back]);
    let group = plan.group.unwrap();
    assert_eq!(group.state.member(&user("dave")).unwrap().first_seq, state.head + 2);
    assert!(group.departures.is_empty(), "the row of a member who is back does not end");
}

#[test]
fn group_changes_do_not_work_on_a_pair() {
    let mut hello = say("alice", 1, "hi");
    hello.peer = Some(user("bob"));
    let pair = after(None, &[hello]);
    for change in
        [Change::Leave, Change::Rename { name: "x".into() }, Change::Add { users: vec![user("eve")] }]
    {
        assert!(matches!(refusal(&pair, ask("alice", 2, change)), Refusal::Invalid(_)));
    }
}

#[test]
fn a_group_of_appends_is_bounded_by_bytes_and_count() {
    let state = group();
    let large = "x".repeat(16 * 1024);
    let batch: Vec<_> = (0..128).map(|n| say("carol", n, &large)).collect();
    let plan = plan(Some(&state), &batch);
    assert!(plan.verdicts.len() < 64, "1 MiB holds fewer than 64 texts of 16 KiB");
    assert_eq!(plan.group.unwrap().entries.len(), plan.verdicts.len());
    // A change may make two entries: a group ends before one that might not fit.
    let batch: Vec<_> = (0..=255).map(|n| say("carol", n, "x")).collect();
    assert_eq!(
        plan_with(Some(&state), &batch, Facts::default()).group.unwrap().entries.len(),
        GROUP_ENTRIES_MAX - 1
    );
}

#[test]
fn every_frame_that_changes_a_log_names_its_place() {
    let me = user("alice");
    let (conversation, temp_id) = (GROUP, temp(7));
    let users = vec![user("bob")];
    let frames: [Frame; 8] = [
        Send {
            to: user("bob").into(),
            text: "hi".into(),
            temp_id,
            age_ms: Some(5),
            data: None,
            reply_to: None,
        }
        .into(),
        Send {
            to: Target::Conversation(GROUP),
            text: "hi".into(),
            temp_id,
            age_ms: None,
            data: None,
            reply_to: None,
        }
        .into(),
        CreateGroup { name: "crew".into(), members: users.clone(), temp_id }.into(),
        AddMembers { conversation, users: users.clone(), temp_id }.into(),
        RemoveMembers { conversation, users, temp_id }.into(),
        LeaveGroup { conversation, temp_id }.into(),
        RenameGroup { conversation, name: "x".into(), temp_id }.into(),
        SetRole { conversation, user: user("bob"), role: Role::Admin, temp_id }.into(),
    ];
    let places = [ConversationId::pair(&me, &user("bob")), GROUP, ConversationId::group(&me, &temp_id)];
    for (index, frame) in frames.into_iter().enumerate() {
        let wanted = change_of(frame, &me).unwrap();
        assert_eq!(wanted.temp_id, temp_id);
        assert_eq!(wanted.conversation, places.get(index).copied().unwrap_or(GROUP));
        assert_eq!(wanted.peer.is_some(), index == 0, "only a message to a user makes a pair");
    }
    let other = Frame::from(Abandon { to: Target::Conversation(GROUP), temp_id });
    assert_eq!(change_of(other.clone(), &me), Err(other));
}

#[test]
fn an_ask_crosses_a_wire_as_it_is() {
    let mut asked = say("alice", 1, "hi");
    asked.asker = Some(session(3));
    (asked.after, asked.right) = (Some(temp(9)), Some(Right::own(4)));
    let bytes = postcard::to_stdvec(&asked).unwrap();
    assert_eq!(postcard::from_bytes::<Ask>(&bytes).unwrap(), asked);
}

#[test]
fn a_text_is_moved_into_its_entry_and_back_and_never_copied() {
    let before = Snapshot::new(Arc::new(group()));
    let mut fresh_id = || EntryId::from_bytes([1; 16]);
    let mut batch = [Ask { sender_name: Some("Carol".into()), ..say("carol", 9, "moved") }];
    let text_of = |ask: &Ask| match &ask.change {
        Change::Message { text, .. } => text.as_ptr(),
        other => panic!("{other:?}"),
    };
    let (as_asked, at) = (batch[0].clone(), text_of(&batch[0]));
    let Decision::Ready(plan) = decide(Some(&before), &mut batch, &Facts::default(), 5, &mut fresh_id) else {
        panic!("nothing is to be looked up");
    };
    let entry = Arc::clone(&plan.group.as_ref().unwrap().entries[0].entry);
    let EntryBody::Message { text, .. } = &entry.body else { panic!("{:?}", entry.body) };
    assert_eq!((text.as_str(), text.as_ptr()), ("moved", at));
    assert_eq!(plan.group.as_ref().unwrap().entries[0].digest, as_asked.change.digest());
    drop(entry);
    plan.give_back(&mut batch);
    assert_eq!(batch[0], as_asked);
    assert_eq!(text_of(&batch[0]), at);
}

#[test]
fn the_largest_batch_is_a_group_that_every_store_takes() {
    let long = |n: u8| format!("{}{n:03}", "u".repeat(125));
    let sender = |n: u8| Ask {
        sender: user(&long(n)),
        sender_name: Some("n".repeat(128)),
        ..say("x", n, &"t".repeat(16 * 1024))
    };
    let members = (0..99).map(|n| user(&long(n))).collect();
    let state = after(None, &[ask("alice", 1, Change::Create { name: "n".repeat(128), members })]);
    let batch: Vec<Ask> = (0..99).map(sender).collect();
    let group = plan(Some(&state), &batch).group.unwrap();
    assert!(group.check().is_ok(), "{} bytes", group.bytes());
}

fn answer(sender: &str, n: u8, seq: u64) -> Ask {
    ask(sender, n, Change::Message { text: "yes".into(), data: None, reply_to: Some(seq) })
}

#[test]
fn a_message_answers_an_entry_that_its_sender_may_see() {
    // dave has just come: 3 is the entry that added him.
    let state = after(
        Some(&group()),
        &[
            ask("alice", 3, Change::Remove { users: vec![user("dave")] }),
            ask("alice", 4, Change::Add { users: vec![user("dave")] }),
        ],
    );
    assert_eq!(state.head, 4);
    for (sender, seq, allowed) in
        [("carol", 1, true), ("carol", 4, true), ("carol", 5, false), ("carol", 0, false), ("dave", 4, true)]
    {
        let verdict = &plan(Some(&state), &[answer(sender, 9, seq)]).verdicts[0];
        assert_eq!(matches!(verdict, Verdict::Append(0)), allowed, "{sender} answers {seq}: {verdict:?}");
    }
    assert!(matches!(refusal(&state, answer("dave", 9, 3)), Refusal::Invalid(_)), "before he came");
    assert_eq!(refusal(&state, answer("eve", 9, 1)), Refusal::NotFound, "who is outside learns nothing");
    // One that is made in the same batch is there already; a pair that is not has nothing to answer.
    let batch = [say("carol", 8, "one"), answer("bob", 9, 5)];
    assert!(plan(Some(&state), &batch).verdicts.iter().all(|verdict| matches!(verdict, Verdict::Append(_))));
    let mut first = answer("alice", 9, 1);
    first.peer = Some(user("zoe"));
    let plan = plan(None, &[first]);
    assert!(matches!(plan.verdicts[0], Verdict::Refuse(Refusal::Invalid(_))) && plan.group.is_none());
}

#[test]
fn every_entry_says_how_many_messages_there_are() {
    let state = after(Some(&group()), &[say("carol", 3, "one"), say("bob", 4, "two")]);
    assert_eq!((state.head, state.messages), (4, 2));
    let rename = ask("alice", 5, Change::Rename { name: "x".into() });
    let batch = [say("carol", 6, "three"), rename, say("bob", 7, "four")];
    let group = plan(Some(&state), &batch).group.unwrap();
    let counts: Vec<_> = group.entries.iter().map(|new| new.entry.messages).collect();
    assert_eq!((counts, group.state.messages), (vec![3, 3, 4], 4));
}

#[test]
fn text_and_data_are_bounded_together() {
    let check = |text: usize, data: Option<usize>| {
        let data = data.map(|bytes| Data::from_value(&"x".repeat(bytes - 2)).unwrap());
        Change::Message { text: "x".repeat(text), data, reply_to: None }.check()
    };
    assert_eq!(check(0, None), Err(Refusal::TextEmpty));
    assert_eq!(check(0, Some(2)), Ok(()));
    assert_eq!(check(16_384, None), Ok(()));
    assert_eq!(check(16_000, Some(384)), Ok(()));
    assert_eq!(check(16_000, Some(385)), Err(Refusal::TextTooLong(16_385)));
    let weight = Change::Message {
        text: String::new(),
        data: Data::from_value(&"x".repeat(998)).ok(),
        reply_to: None,
    };
    assert!(weight.weight() >= 1000, "what is beside the text takes room too");
}
