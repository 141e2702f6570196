//! The owners of one node: who waits for whom, what is bounded, and what nobody loses.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::{Code, EntryBody, GROUP_MEMBERS_MAX, Role};

use super::super::owned::WAITING_MAX;
use super::super::{Ask, Change, ConversationConfig, Refusal};
use super::gate::Gate;
use super::{GROUP, Listener, Node, ask, say, say_to, session, temp, text, user, users};
use crate::roster::Roster;
use crate::store::memory::MemoryStore;
use crate::store::shaky::{Call, Fault, Shaky};
use crate::store::{Log, Right, Upkeep};

fn node(gate: &Arc<Gate>) -> Node {
    Node::new(gate.clone(), gate.store.clone(), &Roster::default())
}

/// A node on a store without faults, and the roster of who is connected.
fn plain() -> (Node, Roster) {
    let (store, roster) = (Arc::new(MemoryStore::new()), Roster::default());
    (Node::new(store.clone(), store, &roster), roster)
}

fn shaky() -> (Arc<Shaky>, Roster) {
    (Shaky::new(Arc::new(MemoryStore::new())), Roster::default())
}

/// Lets the owners do all that they can do without time passing.
async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_is_slow_holds_up_no_other() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    let slow = say_to("alice", "bob", 1);
    gate.close(slow.conversation);
    let mut waiting = node.submit(slow);
    // More than there are shards: some share it.
    for n in 0..200 {
        node.ask(say_to("alice", &format!("user{n}"), 1)).await.unwrap();
    }
    assert!(waiting.try_recv().is_err(), "its append has no answer yet");
    gate.open().await;
    assert_eq!(waiting.await.unwrap().unwrap().seq, 1);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_whose_appends_find_no_room_or_no_answer_holds_up_no_other() {
    let gate = Arc::new(Gate::default());
    let owners = node(&gate);
    let stuck = say_to("alice", "bob", 1);
    gate.full.lock().insert(stuck.conversation);
    let _never = owners.submit(stuck);
    settle_down().await;
    for n in 0..200 {
        owners.ask(say_to("alice", &format!("user{n}"), 1)).await.unwrap();
    }
    // Nor one that is tried again after a pause.
    let (shaky, roster) = shaky();
    let owners = Node::new(shaky.clone(), shaky.clone(), &roster);
    shaky.script([Fault::UnknownLost]);
    let mut unknown = owners.submit(say_to("alice", "bob", 1));
    settle_down().await;
    for n in 0..200 {
        owners.ask(say_to("alice", &format!("user{n}"), 1)).await.unwrap();
    }
    assert!(unknown.try_recv().is_err(), "it pauses");
    assert_eq!(unknown.await.unwrap().unwrap().seq, 1);
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_while_an_append_is_under_way_goes_in_one_group() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    node.group(&[]).await;
    gate.close(GROUP);
    let first = node.submit(say("alice", 1, "x"));
    settle_down().await;
    assert_eq!(gate.waiting(), 1);
    let others: Vec<_> = (2..52).map(|n| node.submit(say("alice", n, "x"))).collect();
    settle_down().await;
    assert_eq!(gate.waiting(), 1, "one append at a time");
    gate.calls.lock().clear();
    gate.open().await;
    assert_eq!(first.await.unwrap().unwrap().seq, 2);
    for (n, other) in others.into_iter().enumerate() {
        assert_eq!(other.await.unwrap().unwrap().seq, 3 + n as u64, "in the order of the calls");
    }
    assert_eq!(*gate.calls.lock(), [[(GROUP, 50)]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_in_one_turn_goes_to_the_store_in_one_call() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    let answers: Vec<_> = (0..100).map(|n| node.submit(say_to("alice", &format!("user{n}"), 1))).collect();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let owners = std::thread::available_parallelism().unwrap().get();
    let calls = gate.calls.lock();
    assert_eq!(calls.iter().map(Vec::len).sum::<usize>(), 100);
    assert!(calls.len() <= 2 * owners, "{} calls for 100 conversations of {owners} owners", calls.len());
}

#[tokio::test(start_paused = true)]
async fn too_many_in_one_conversation_are_refused_by_name_and_none_is_lost() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    node.group(&[]).await;
    gate.close(GROUP);
    let under_way = node.submit(say("alice", 1, "x"));
    settle_down().await;
    let temp_id = |n: usize| tern_protocol::TempId::from_bytes((n as u128).to_be_bytes());
    let asks = (0..WAITING_MAX + 50).map(|n| Ask { temp_id: temp_id(n + 1000), ..say("alice", 2, "x") });
    let answers: Vec<_> = asks.map(|ask| node.submit(ask)).collect();
    settle_down().await;
    gate.open().await;
    under_way.await.unwrap().unwrap();
    for (n, answer) in answers.into_iter().enumerate() {
        match answer.await.unwrap() {
            Ok(committed) => assert_eq!(committed.seq, 3 + n as u64),
            Err(refusal) => {
                assert!(n >= WAITING_MAX, "{n} of {WAITING_MAX}: {refusal}");
                assert_eq!(refusal, Refusal::Busy("too many changes wait in this conversation"));
                assert_eq!(refusal.code(), Code::OVER_CAPACITY);
            }
        }
    }
    assert_eq!(gate.store.conversation(GROUP).await.unwrap().unwrap().head, 2 + WAITING_MAX as u64);
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_refuses_by_name() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    // The owner does not come to look at them before the first await.
    let answers: Vec<_> = (0..6000).map(|_| node.submit(say_to("alice", "bob", 1))).collect();
    let (mut made, mut refused) = (0, 0);
    for answer in answers {
        match answer.await.unwrap() {
            Ok(_) => made += 1,
            Err(Refusal::Busy(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(made >= WAITING_MAX && made + refused == 6000, "{made} made, {refused} refused");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_over_all_conversations() {
    let gate = Arc::new(Gate::default());
    let memory_mib = NonZero::new(1).unwrap();
    let config = ConversationConfig { memory_mib, ..ConversationConfig::default() };
    let node = Node::with(&config, gate.clone(), gate.store.clone(), &Roster::default());
    // What waits: 16 KiB each, 1.6 MiB in all.
    let large = |n: usize| Ask { change: text(&"x".repeat(16_000)), ..say_to("alice", &format!("u{n}"), 1) };
    (0..100).for_each(|n| gate.close(large(n).conversation));
    let answers: Vec<_> = (0..100).map(|n| node.submit(large(n))).collect();
    settle_down().await;
    gate.open().await;
    let mut refused = 0;
    for answer in answers {
        match answer.await.unwrap() {
            Ok(_) => {}
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Busy("too many changes wait on this node"));
                refused += 1;
            }
        }
    }
    assert!((30..70).contains(&refused), "{refused} of 100 were refused");
    // What is kept ready: the longest idle ones go, and come back from the store.
    for n in 0..3000 {
        node.ask(say_to("alice", &format!("user{n}"), 1)).await.unwrap();
    }
    let read = *gate.states_read.lock();
    node.ask(say_to("alice", "user2999", 2)).await.unwrap();
    assert_eq!(*gate.states_read.lock(), read, "the newest is ready");
    assert_eq!(node.ask(say_to("alice", "user0", 2)).await.unwrap().seq, 2);
    assert_eq!(*gate.states_read.lock(), read + 1, "the oldest was let go");
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_let_go_when_it_is_idle_and_never_with_something_in_it() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    node.group(&[]).await;
    gate.close(GROUP);
    // It has a place among the idle ones from before, and is not idle any more.
    tokio::time::sleep(Duration::from_secs(59)).await;
    let under_way = node.submit(say("alice", 1, "x"));
    settle_down().await;
    let waits = node.submit(say("alice", 2, "x"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    gate.open().await;
    assert_eq!(under_way.await.unwrap().unwrap().seq, 2);
    assert_eq!(waits.await.unwrap().unwrap().seq, 3);
    let read = *gate.states_read.lock();
    tokio::time::sleep(Duration::from_secs(59)).await;
    node.ask(say("alice", 3, "x")).await.unwrap();
    assert_eq!(*gate.states_read.lock(), read, "kept ready for 60 s after the last change");
    tokio::time::sleep(Duration::from_secs(61)).await;
    node.ask(say("alice", 4, "x")).await.unwrap();
    assert_eq!(*gate.states_read.lock(), read + 1, "then it is read anew");
}

#[tokio::test(start_paused = true)]
async fn conversations_that_are_let_go_at_once_lose_nothing() {
    let gate = Arc::new(Gate::default());
    let config = ConversationConfig { idle_s: 0, ..ConversationConfig::default() };
    let node = Node::with(&config, gate.clone(), gate.store.clone(), &Roster::default());
    let mut answers = Vec::new();
    for n in 0..200_u8 {
        answers.push(node.submit(say_to("alice", "bob", n)));
        answers.push(node.submit(say_to("alice", "carol", n)));
        if n % 7 == 0 {
            settle_down().await;
        }
    }
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().unwrap().seq, 1 + n as u64 / 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_all_that_was_accepted() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    node.group(&[]).await;
    gate.close(GROUP);
    let under_way = node.submit(say("alice", 1, "x"));
    settle_down().await;
    let waits = node.submit(say("alice", 2, "x"));
    let just_in = node.submit(say_to("alice", "bob", 1));
    let end = tokio::spawn({
        let conversations = node.conversations.clone();
        async move { conversations.close().await }
    });
    settle_down().await;
    assert!(!end.is_finished(), "an append is under way");
    let late = node.ask(say_to("alice", "carol", 1)).await;
    assert_eq!(late, Err(Refusal::Unavailable("this node stops")));
    gate.open().await;
    end.await.unwrap();
    assert_eq!(under_way.await.unwrap().unwrap().seq, 2);
    assert_eq!(waits.await.unwrap().unwrap().seq, 3);
    assert_eq!(just_in.await.unwrap().unwrap().seq, 1);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_panics_says_so_and_begins_again() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    node.group(&[]).await;
    let cursed = say_to("alice", "bob", 1);
    gate.cursed.lock().insert(cursed.conversation);
    let answer = node.ask(cursed.clone()).await;
    assert_eq!(answer, Err(Refusal::Unavailable("the conversation stopped before it answered")));
    for n in 0..100 {
        node.ask(say_to("alice", &format!("user{n}"), 1)).await.unwrap();
    }
    assert_eq!(node.ask(say("alice", 1, "x")).await.unwrap().seq, 2, "from the store");
    gate.cursed.lock().clear();
    assert_eq!(node.ask(cursed).await.unwrap().seq, 1);
    node.conversations.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_send_that_follows_a_change_refused_for_good_goes_through() {
    let (node, _roster) = plain();
    node.group(&["carol"]).await;
    let rename = ask("carol", 1, Change::Rename { name: "mine".into() });
    assert!(matches!(node.ask(rename).await, Err(Refusal::Forbidden(_))));
    // It was pipelined behind the rename, and comes in another batch.
    let behind = |n: u8| Ask { after: Some(temp(n - 1)), ..say("carol", n, "x") };
    assert_eq!(node.ask(behind(2)).await.unwrap().seq, 2);
    // One that nobody knows of is waited for.
    assert_eq!(node.ask(behind(9)).await, Err(Refusal::OutOfOrder));
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_told_again_with_what_came_along_with_it() {
    let (node, roster) = plain();
    node.group(&["bob", "carol"]).await;
    let number = |n: u64| n + 10;
    let mut listeners: Vec<Listener> = ["alice", "bob", "carol"]
        .iter()
        .zip(0..)
        .map(|(name, n)| Listener::new(&roster, name, number(n)))
        .collect();
    let mut heard = || listeners.iter_mut().map(Listener::seqs).collect::<Vec<_>>();
    let message = Ask { asker: Some(session(10)), ..say("alice", 1, "hi") };
    let first = node.ask(message.clone()).await.unwrap();
    assert_eq!(heard(), [vec![], vec![2], vec![2]], "the ack stands for it");
    let again = node.ask(message).await.unwrap();
    assert!(again.duplicate);
    assert_eq!((again.seq, again.id, again.time_ms), (first.seq, first.id, first.time_ms));
    assert_eq!(heard(), [vec![], vec![2], vec![2]]);
    // Who is gone is told again too, and so is the promotion that came along.
    let leave = ask("alice", 2, Change::Leave);
    node.ask(leave.clone()).await.unwrap();
    assert_eq!(heard(), [vec![3], vec![3, 4], vec![3, 4]]);
    assert!(node.ask(leave).await.unwrap().duplicate);
    assert_eq!(heard(), [vec![3], vec![3, 4], vec![3, 4]]);
    // Who came later does not hear of what was before.
    node.ask(ask("bob", 3, Change::Add { users: users(&["alice"]) })).await.unwrap();
    assert_eq!(heard(), [vec![5], vec![5], vec![5]]);
    node.ask(Ask { asker: None, ..say("alice", 1, "hi") }).await.unwrap();
    assert_eq!(heard(), [vec![], vec![2], vec![2]]);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_applied_without_an_answer_is_told_like_any_other() {
    let (shaky, roster) = shaky();
    let node = Node::new(shaky.clone(), shaky.clone(), &roster);
    node.group(&["bob", "carol"]).await;
    let mut listeners: Vec<Listener> =
        ["alice", "bob", "carol"].iter().zip(10..).map(|(name, n)| Listener::new(&roster, name, n)).collect();
    let mut heard = || listeners.iter_mut().map(Listener::seqs).collect::<Vec<_>>();
    for fault in [Fault::UnknownApplied, Fault::ErrorApplied] {
        shaky.script([fault]);
        let n = if fault == Fault::UnknownApplied { 1 } else { 2 };
        let remove = ask("alice", n, Change::Remove { users: users(&["bob"]) });
        let removed = node.ask(remove).await.unwrap();
        assert!(!removed.duplicate, "it was made by this attempt");
        let seq = removed.seq;
        assert_eq!(heard(), [vec![seq], vec![seq], vec![seq]], "bob too, by {fault:?}");
        node.ask(ask("alice", n + 10, Change::Add { users: users(&["bob"]) })).await.unwrap();
        assert_eq!(heard(), [vec![seq + 1], vec![seq + 1], vec![seq + 1]]);
    }
    shaky.script([Fault::UnknownApplied]);
    let left = node.ask(ask("alice", 9, Change::Leave)).await.unwrap();
    let (seq, promoted) = (left.seq, left.seq + 1);
    assert_eq!(heard(), [vec![seq], vec![seq, promoted], vec![seq, promoted]]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_given_up_in_time_and_by_all_who_wait() {
    let (shaky, roster) = shaky();
    let node = Node::new(shaky.clone(), shaky.clone(), &roster);
    node.group(&[]).await;
    shaky.dice(1, &[(1000, Fault::UnknownLost)]);
    let began = tokio::time::Instant::now();
    let first = node.submit(say("alice", 1, "x"));
    settle_down().await;
    let second = node.submit(say("alice", 2, "x"));
    for answer in [first, second] {
        let refusal = answer.await.unwrap().unwrap_err();
        assert!(refusal.code().temporary(), "{refusal}");
        assert!(began.elapsed() <= Duration::from_secs(8), "{:?}", began.elapsed());
    }
    shaky.calm();
    assert_eq!(node.ask(say("alice", 2, "x")).await.unwrap().seq, 2);
    // A read that fails is no answer either.
    let idle = Duration::from_secs(61);
    tokio::time::sleep(idle).await;
    shaky.fail(Call::Conversation, 1);
    assert!(node.ask(say("alice", 3, "x")).await.unwrap_err().code().temporary());
    assert_eq!(node.ask(say("alice", 3, "x")).await.unwrap().seq, 3);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_behind_refuses_nobody_for_good() {
    let (store, roster) = (Arc::new(MemoryStore::new()), Roster::default());
    let owner = || Node::new(store.clone(), store.clone(), &roster);
    let (behind, ahead) = (owner(), owner());
    behind.group(&[]).await;
    behind.ask(say("alice", 1, "hi")).await.unwrap();
    let add = ask("alice", 2, Change::Add { users: users(&["bob"]) });
    ahead.ask(add).await.unwrap();
    assert_eq!(behind.ask(say("bob", 3, "me too")).await.unwrap().seq, 4);
    let role = Change::SetRole { user: user("bob"), role: Role::Admin };
    ahead.ask(ask("alice", 4, role)).await.unwrap();
    let rename = Change::Rename { name: "ours".into() };
    assert_eq!(behind.ask(ask("bob", 5, rename)).await.unwrap().seq, 6);
    // What is refused on the state of now stays refused.
    assert_eq!(behind.ask(say("eve", 6, "?")).await, Err(Refusal::NotFound));
}

#[tokio::test(start_paused = true)]
async fn the_first_message_says_whether_the_other_has_ever_been_here() {
    let (store, roster) = (Arc::new(MemoryStore::new()), Roster::default());
    let node = Node::new(store.clone(), store.clone(), &roster);
    for name in ["alice", "bob"] {
        let name = user(name);
        crate::store::Users::change_user(&*store, &name, crate::store::UserChange::Name(None), None)
            .await
            .unwrap();
    }
    assert!(!node.ask(say_to("alice", "bob", 1)).await.unwrap().recipient_unknown);
    assert!(node.ask(say_to("alice", "bbo", 1)).await.unwrap().recipient_unknown);
    assert!(!node.ask(say_to("alice", "bbo", 2)).await.unwrap().recipient_unknown, "said once");
}

#[tokio::test(start_paused = true)]
async fn what_bears_an_older_token_of_an_erased_user_is_refused_and_the_rest_is_made() {
    let gate = Arc::new(Gate::default());
    let node = node(&gate);
    node.group(&["bob"]).await;
    gate.close(GROUP);
    let under_way = node.submit(say("alice", 1, "x"));
    settle_down().await;
    let mine = node.submit(Ask { right: Some(Right::own(1_000)), ..say("bob", 2, "x") });
    let other = node.submit(Ask { right: Some(Right::own(1_000)), ..say("alice", 3, "x") });
    let became = tern_protocol::UserId::erased([1; 16]);
    gate.store.begin_erasure(&user("bob"), became, 2_000).await.unwrap();
    gate.open().await;
    under_way.await.unwrap().unwrap();
    assert_eq!(mine.await.unwrap(), Err(Refusal::Erased));
    assert_eq!(other.await.unwrap().unwrap().seq, 3);
}

#[tokio::test(start_paused = true)]
async fn a_large_group_is_told_whole_batches() {
    let (node, roster) = plain();
    let others: Vec<String> = (1..GROUP_MEMBERS_MAX).map(|n| format!("user{n}")).collect();
    node.group(&others.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut listener = Listener::new(&roster, "user7", 1);
    let answers: Vec<_> = (1..=100).map(|n| node.submit(say("alice", n, "x"))).collect();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let entries = listener.entries();
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (2..=101).collect::<Vec<_>>());
    assert!(entries.iter().all(|entry| entry.body == EntryBody::text("x")));
    assert_eq!(entries[99].messages, 100);
}
