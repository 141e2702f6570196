//! Who keeps whom away, at the owner: what is told to whom, and on what state.

use std::sync::Arc;

use tern_protocol::{Code, ConversationId};

use super::super::{Ask, Change, Refusal};
use super::{GROUP, Node, ask, say_to, user, users};
use crate::roster::Roster;
use crate::store::memory::MemoryStore;
use crate::store::{BlockChange, Log, People, PeopleConfig, Right};

fn node(people: PeopleConfig) -> (Node, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new().with_people(people));
    (Node::new(store.clone(), store.clone(), &Roster::default()), store)
}

async fn block(store: &MemoryStore, by: &str, of: &str, blocked: bool) {
    let change = BlockChange { by: user(by), user: user(of), blocked, at_ms: 1, right: None };
    store.set_block(change).await.unwrap();
}

/// By a client, and so that the store looks at who asks.
fn asked(ask: Ask) -> Ask {
    Ask { right: Some(Right::own(5)), ..ask }
}

fn create(sender: &str, n: u8, members: &[&str]) -> Ask {
    let change = Change::Create { name: "crew".into(), members: users(members) };
    let conversation = ConversationId::from_bytes([n; 16]);
    asked(Ask { conversation, ..ask(sender, n, change) })
}

#[tokio::test]
async fn who_blocks_is_told_so_and_who_is_blocked_hears_what_anybody_hears_who_reaches_nobody() {
    let (node, store) = node(PeopleConfig::default());
    // The owner has the pair in its hands when the block comes.
    node.ask(asked(say_to("alice", "bob", 1))).await.unwrap();
    node.ask(asked(say_to("bob", "alice", 2))).await.unwrap();
    block(&store, "alice", "bob", true).await;
    let to_bob = node.ask(asked(say_to("alice", "bob", 3))).await.unwrap_err();
    assert_eq!(to_bob, Refusal::Blocking(user("bob")));
    assert_eq!(
        (to_bob.code(), to_bob.to_string()),
        (Code::BLOCKED, "you block bob: unblock them first".into())
    );
    let pair = ConversationId::pair(&user("alice"), &user("bob"));
    let by_id = Ask { peer: None, ..say_to("bob", "alice", 5) };
    for ask in [say_to("bob", "alice", 4), by_id] {
        assert_eq!(node.ask(asked(ask)).await.unwrap_err(), Refusal::Unreachable);
    }
    let erased = Ask { peer: Some(tern_protocol::UserId::erased([1; 16])), ..say_to("bob", "x", 6) };
    assert_eq!(node.ask(asked(erased)).await.unwrap_err(), Refusal::Unreachable, "the same as of the erased");
    assert_eq!(store.conversation(pair).await.unwrap().unwrap().head, 2);
    // What was committed before is still a success, however late its retry.
    assert_eq!(node.ask(asked(say_to("bob", "alice", 2))).await.unwrap().seq, 2);
    block(&store, "alice", "bob", false).await;
    assert_eq!(node.ask(asked(say_to("bob", "alice", 4))).await.unwrap().seq, 3);
}

#[tokio::test]
async fn who_is_blocked_learns_by_no_refused_addition_who_blocks_them() {
    let (node, store) = node(PeopleConfig { added_groups: 1, ..PeopleConfig::default() });
    block(&store, "victim", "mallory", true).await;
    let blocked = node.ask(create("mallory", 1, &["carol", "victim"])).await.unwrap_err();
    node.ask(create("alice", 2, &["crowded"])).await.unwrap();
    let crowded = node.ask(create("mallory", 3, &["carol", "crowded"])).await.unwrap_err();
    assert_eq!(blocked, Refusal::NotAddable(user("victim")));
    assert_eq!(crowded, Refusal::NotAddable(user("crowded")));
    assert_eq!((blocked.code(), blocked.retry_after()), (crowded.code(), crowded.retry_after()));
    assert_eq!(
        blocked.to_string().replace("victim", "X"),
        crowded.to_string().replace("crowded", "X"),
        "word by word"
    );
    assert_eq!(blocked.code(), Code::UNREACHABLE);
    let own = node.ask(create("victim", 4, &["mallory"])).await.unwrap_err();
    assert_eq!(own, Refusal::Blocking(user("mallory")));
}

#[tokio::test]
async fn what_is_too_fast_is_refused_for_now_and_what_is_too_much_for_good() {
    let added_groups_per_hour = std::num::NonZero::new(2).unwrap();
    let (node, _store) =
        node(PeopleConfig { added_groups: 3, added_groups_per_hour, ..PeopleConfig::default() });
    for n in 1..=2 {
        node.ask(create("mallory", n, &["victim"])).await.unwrap();
    }
    let refused = node.ask(create("mallory", 3, &["victim"])).await.unwrap_err();
    let Refusal::AddedTooFast { user: who, retry_after_ms } = &refused else { panic!("{refused:?}") };
    assert!(*who == user("victim") && (1..=30 * 60_000).contains(retry_after_ms), "{retry_after_ms}");
    assert!(refused.code().temporary() && !refused.resolves());
    // The others of the group are as before: the change was made whole or not at all.
    assert!(node.ask(create("mallory", 3, &["carol"])).await.is_ok());
}

#[tokio::test]
async fn who_writes_has_accepted_and_an_erased_adder_leaves_no_name() {
    let (node, store) = node(PeopleConfig::default());
    node.group(&["bob", "carol"]).await;
    let added_by = async |name: &str| {
        let state = store.conversation(GROUP).await.unwrap().unwrap();
        state.member(&user(name)).unwrap().added_by.clone()
    };
    assert_eq!((added_by("alice").await, added_by("bob").await), (None, Some(user("alice"))));
    node.ask(super::say("bob", 1, "hi")).await.unwrap();
    assert_eq!((added_by("bob").await, added_by("carol").await), (None, Some(user("alice"))));
    let became = tern_protocol::UserId::erased([5; 16]);
    let erase = Ask { sender: became.clone(), ..ask("x", 2, Change::Erase { user: user("alice") }) };
    node.ask(erase).await.unwrap();
    assert_eq!(added_by("carol").await, Some(became));
    // Who is put in again has not accepted that.
    node.ask(ask("bob", 3, Change::Add { users: users(&["dave"]) })).await.unwrap();
    assert_eq!(added_by("dave").await, Some(user("bob")));
}
