//! Who reaches whom: blocks, groups that others put one in, and what one has left. Also over a restart.

use http::StatusCode;
use serde_json::{Value, json};
use tern_protocol::{
    AddMembers, BLOCKS_PAGE_MAX, Block, BlockChanged, BlockList, Code, ConversationId, CreateGroup, Error,
    Frame, GroupKept, GroupLeft, KeepGroup, LEAVE_GROUPS_MAX, LeaveGroup, LeaveGroups, ListBlocks,
    ListConversations, PresenceState, RenameGroup, Role, SYNC_CURSORS_MAX, Sync, Target, Typing, Unblock,
    Watch,
};
use tern_tests::http::{Ask, Http, HttpAnswer};
use tern_tests::{
    Options, RawClient, Server, Wire, fresh, loose, message, newest, on_a_wire, pair, text, to, user,
};

fn hasty() -> Options {
    loose().set("PRESENCE__GRACE_MS", "1").set("PRESENCE__BATCH_MS", "10")
}

async fn block(client: &mut RawClient, name: &str) {
    let expected = BlockChanged { user: user(name), blocked: true };
    assert_eq!(client.ask(Block { user: user(name) }).await, expected.into());
}

async fn unblock(client: &mut RawClient, name: &str) {
    let expected = BlockChanged { user: user(name), blocked: false };
    assert_eq!(client.ask(Unblock { user: user(name) }).await, expected.into());
}

async fn blocks(client: &mut RawClient) -> Vec<String> {
    match client.ask(ListBlocks { after: None }).await {
        Frame::BlockList(BlockList { users, next: None }) => {
            users.iter().map(|blocked| blocked.user.to_string()).collect()
        }
        other => panic!("{other:?}"),
    }
}

async fn watching(client: &mut RawClient, name: &str) -> PresenceState {
    match client.ask(Watch { users: vec![user(name)] }).await {
        Frame::Presence(presence) => presence.users[0].state,
        other => panic!("{other:?}"),
    }
}

async fn presence(client: &mut RawClient) -> PresenceState {
    client
        .find("a change of presence", |envelope| match &envelope.frame {
            Frame::Presence(presence) => Some(presence.users[0].state),
            _ => None,
        })
        .await
}

/// What a refusal tells, without what the request itself named.
fn told(error: Error) -> (Code, bool, Option<u32>, String) {
    (error.code, error.temporary, error.retry_after_ms, error.detail)
}

async fn http(server: &Server, method: &str, path: &str, who: &str, body: Option<Value>) -> HttpAnswer {
    let ask = Ask::new(method, path).token(&server.token(who));
    server.ask(Http::One, body.iter().fold(ask, |ask, body| ask.json(body))).await
}

on_a_wire! {
    async fn between_two_of_whom_one_blocks_the_other_nothing_passes_until_it_is_taken_back(wire: Wire) {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut tablet = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        bob.say("alice", "hi").await;
        alice.say("bob", "hi bob").await;
        block(&mut alice, "bob").await;
        let heard = tablet.find("the block", |envelope| match &envelope.frame {
            Frame::BlockChanged(changed) => Some(changed.clone()),
            _ => None,
        });
        assert_eq!(heard.await, BlockChanged { user: user("bob"), blocked: true });
        let refused = bob.refused(to("alice", "are you there?")).await;
        assert_eq!((refused.code, refused.temporary), (Code::UNREACHABLE, false));
        let by_id = message(Target::Conversation(pair("alice", "bob")), "hello?");
        let by_id = bob.refused(by_id).await;
        assert_eq!(told(by_id), told(refused));
        let own = alice.refused(to("bob", "and one more thing")).await;
        assert_eq!((own.code, own.detail.contains("unblock")), (Code::BLOCKED, true), "{}", own.detail);
        let group = CreateGroup { name: "us".into(), members: vec![user("alice")], temp_id: fresh() };
        assert_eq!(bob.refused(group).await.code, Code::UNREACHABLE);
        let group = CreateGroup { name: "us".into(), members: vec![user("bob")], temp_id: fresh() };
        assert_eq!(alice.refused(group).await.code, Code::BLOCKED);
        // What was said stays readable, and nobody told him.
        assert_eq!(bob.fetch(newest(pair("alice", "bob"))).await.entries.len(), 2);
        assert!(!bob.unread().any(|frame| matches!(frame, Frame::BlockChanged(_))));
        server.restart().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        assert_eq!(blocks(&mut alice).await, ["bob"]);
        assert_eq!(blocks(&mut bob).await, [""; 0]);
        assert_eq!(bob.refused(to("alice", "still?")).await.code, Code::UNREACHABLE);
        unblock(&mut alice, "bob").await;
        unblock(&mut alice, "bob").await;
        assert_eq!(bob.say("alice", "and now?").await.seq, 3);
        assert_eq!(text(&alice.entry(pair("alice", "bob")).await), "and now?");
    }

    async fn a_block_ends_presence_both_ways_and_typing_and_its_end_brings_them_back(wire: Wire) {
        let server = hasty().start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        bob.say("alice", "hi").await;
        alice.say("bob", "hi").await;
        assert_eq!(watching(&mut alice, "bob").await, PresenceState::Online);
        assert_eq!(watching(&mut bob, "alice").await, PresenceState::Online);
        block(&mut alice, "bob").await;
        assert_eq!(presence(&mut alice).await, PresenceState::Unknown);
        assert_eq!(presence(&mut bob).await, PresenceState::Unknown);
        assert_eq!(watching(&mut bob, "alice").await, PresenceState::Unknown);
        bob.send(Typing { to: Target::User(user("alice")) }).await;
        bob.settle().await;
        unblock(&mut alice, "bob").await;
        assert_eq!(presence(&mut alice).await, PresenceState::Online);
        assert_eq!(presence(&mut bob).await, PresenceState::Online);
        assert!(!alice.unread().any(|frame| matches!(frame, Frame::UserTyping(_))));
    }

    async fn many_groups_are_left_at_once_and_each_says_what_became_of_it(wire: Wire) {
        let server = Server::start().await;
        let mut mallory = RawClient::open(&server, wire, "mallory").await;
        let mut victim = RawClient::open(&server, wire, "victim").await;
        let mut groups = Vec::new();
        for number in 0..5 {
            groups.push(mallory.group(&format!("spam {number}"), &["victim"]).await);
        }
        mallory.say("victim", "look").await;
        let nowhere = ConversationId::from_bytes([7; 16]);
        let all: Vec<_> = groups.iter().copied().chain([nowhere, pair("mallory", "victim")]).collect();
        let leave = LeaveGroups { conversations: all.clone(), temp_id: fresh() };
        for _ in 0..2 {
            // A retry says the same.
            let Frame::GroupsLeft(left) = victim.ask(leave.clone()).await else { panic!("not left") };
            let mut expected: Vec<GroupLeft> =
                all.iter().map(|conversation| GroupLeft { conversation: *conversation, code: None }).collect();
            expected[5].code = Some(Code::NOT_FOUND);
            expected[6].code = Some(Code::INVALID_ARGUMENT);
            assert_eq!(left.groups, expected);
        }
        let gone = mallory.refused(RenameGroup { conversation: groups[0], name: String::new(), temp_id: fresh() });
        assert_eq!(gone.await.code, Code::INVALID_ARGUMENT, "it is still hers");
        let many = |number: usize| {
            (0..number).map(|at| ConversationId::from_bytes([at as u8; 16])).collect::<Vec<_>>()
        };
        for (conversations, code) in [
            (many(LEAVE_GROUPS_MAX + 1), Code::LIMIT_EXCEEDED),
            (Vec::new(), Code::INVALID_ARGUMENT),
            (vec![nowhere, nowhere], Code::INVALID_ARGUMENT),
        ] {
            let refused = victim.refused(LeaveGroups { conversations, temp_id: fresh() }).await;
            assert_eq!(refused.code, code);
        }
    }

    async fn what_one_has_left_is_on_the_list_and_in_a_sync_of_a_new_device(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let group = alice.group("team", &["bob"]).await;
        alice.say_in(group, "before").await;
        bob.acked(LeaveGroup { conversation: group, temp_id: fresh() }).await;
        alice.say_in(group, "after").await;
        let mut fresh_device = RawClient::open(&server, wire, "bob").await;
        let synced = fresh_device.sync(&[]).await;
        let [summary] = &synced.summaries[..] else { panic!("{synced:?}") };
        assert_eq!((summary.conversation, summary.role, summary.head), (group, None, 3));
        assert_eq!(synced.entries[&group].len(), 3, "up to the entry that says so");
        let list = ListConversations { cursor: None, limit: None };
        let Frame::ConversationPage(page) = fresh_device.ask(list).await else { panic!("no page") };
        assert_eq!((page.conversations.len(), page.conversations[0].role, page.next), (1, None, None));
        // Who has all of it hears no more of it.
        assert_eq!(fresh_device.sync(&[(group, 3)]).await.changed, 0);
        alice.acked(AddMembers { conversation: group, users: vec![user("bob")], temp_id: fresh() }).await;
        let again = fresh_device.sync(&[(group, 3)]).await;
        assert_eq!((again.summaries[0].role, again.summaries[0].first_seq), (Some(Role::Member), 5));
    }
}

#[tokio::test]
async fn who_is_blocked_is_refused_an_addition_word_by_word_as_for_one_who_is_in_too_many_groups() {
    let server = loose().set("PEOPLE__ADDED_GROUPS", "1").start().await;
    let mut mallory = RawClient::open(&server, Wire::Quic, "mallory").await;
    let mut carol = RawClient::open(&server, Wire::Quic, "carol").await;
    let mut quiet = RawClient::open(&server, Wire::Quic, "quiet").await;
    block(&mut quiet, "mallory").await;
    carol.group("the one", &["busy"]).await;
    let own = mallory.group("mine", &[]).await;
    let mut refusals = Vec::new();
    for name in ["quiet", "busy"] {
        for members in [vec![user(name)], vec![user("zoe"), user(name)]] {
            let create = CreateGroup { name: "x".into(), members: members.clone(), temp_id: fresh() };
            refusals.push((told(mallory.refused(create).await), name));
            let add = AddMembers { conversation: own, users: members, temp_id: fresh() };
            refusals.push((told(mallory.refused(add).await), name));
        }
    }
    let plain = |((code, temporary, after, detail), name): &((Code, bool, Option<u32>, String), &str)| {
        (*code, *temporary, *after, detail.replace(name, "somebody"))
    };
    let first = plain(&refusals[0]);
    assert_eq!((first.0, first.1), (Code::UNREACHABLE, false));
    assert!(refusals.iter().all(|refusal| plain(refusal) == first), "{refusals:?}");
    // Others may be put in it, and somebody else may put her in one with mallory.
    carol.group("both", &["quiet", "mallory"]).await;
}

#[tokio::test]
async fn nobody_is_put_in_groups_without_end_and_what_was_accepted_does_not_count() {
    let server =
        loose().set("PEOPLE__ADDED_GROUPS", "4").set("PEOPLE__ADDED_GROUPS_PER_HOUR", "6").start().await;
    let mut mallory = RawClient::open(&server, Wire::Quic, "mallory").await;
    let mut victim = RawClient::open(&server, Wire::Quic, "victim").await;
    assert_eq!(victim.welcome().limits.added_groups, 4);
    let mut groups = Vec::new();
    for _ in 0..4 {
        groups.push(mallory.group("spam", &["victim"]).await);
    }
    let more = || CreateGroup { name: "spam".into(), members: vec![user("victim")], temp_id: fresh() };
    let refused = mallory.refused(more()).await;
    assert_eq!((refused.code, refused.temporary), (Code::UNREACHABLE, false), "the total is final");
    assert!(refused.detail.contains("victim"), "{}", refused.detail);
    // Who they are in it by is told, until they accept.
    let added_by = async |client: &mut RawClient, group: ConversationId| {
        let summaries = client.sync(&[]).await.summaries;
        let summary = summaries.into_iter().find(|summary| summary.conversation == group).unwrap();
        summary.added_by.map(|by| by.to_string())
    };
    assert_eq!(added_by(&mut victim, groups[0]).await.as_deref(), Some("mallory"));
    victim.say_in(groups[0], "I stay").await;
    assert_eq!(added_by(&mut victim, groups[0]).await, None);
    let kept = victim.ask(KeepGroup { conversation: groups[1] }).await;
    assert_eq!(kept, GroupKept { conversation: groups[1] }.into());
    let nowhere = ConversationId::from_bytes([7; 16]);
    assert_eq!(victim.refused(KeepGroup { conversation: nowhere }).await.code, Code::NOT_FOUND);
    for _ in 0..2 {
        mallory.group("again", &["victim"]).await;
    }
    victim.ask(LeaveGroups { conversations: groups[2..].to_vec(), temp_id: fresh() }).await;
    let refused = mallory.refused(more()).await;
    assert_eq!((refused.code, refused.temporary), (Code::RATE_LIMITED, true), "{}", refused.detail);
    assert!(refused.retry_after_ms.is_some_and(|wait| (1..=600_000).contains(&wait)), "{refused:?}");
    // It is about her alone, and her own groups do not count.
    mallory.group("others", &["carol"]).await;
    victim.group("mine", &["mallory"]).await;
}

#[tokio::test]
async fn one_message_or_one_group_makes_nobody_visible_to_who_sent_it() {
    let server = hasty().start().await;
    let mut mallory = RawClient::open(&server, Wire::Quic, "mallory").await;
    let mut victim = RawClient::open(&server, Wire::Quic, "victim").await;
    assert_eq!(watching(&mut victim, "mallory").await, PresenceState::Unknown);
    mallory.say("victim", "hi").await;
    let group = mallory.group("trap", &["victim"]).await;
    assert_eq!(watching(&mut mallory, "victim").await, PresenceState::Unknown);
    assert_eq!(presence(&mut victim).await, PresenceState::Online, "mallory has shown himself");
    victim.ask(KeepGroup { conversation: group }).await;
    assert_eq!(presence(&mut mallory).await, PresenceState::Online);
    victim.acked(LeaveGroup { conversation: group, temp_id: fresh() }).await;
    assert_eq!(presence(&mut mallory).await, PresenceState::Unknown);
    victim.say("mallory", "what do you want?").await;
    assert_eq!(presence(&mut mallory).await, PresenceState::Online);
}

#[tokio::test]
async fn blocks_are_made_listed_and_taken_back_by_http_too() {
    let server = loose().set("PEOPLE__BLOCKS", "300").start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let path = "/v1/blocks/a%2Fb%2C%20c";
    let answer = http(&server, "PUT", path, "alice", None).await;
    assert_eq!(answer.json(), json!({"user": "a/b, c", "blocked": true}), "{answer:?}");
    let heard = alice.find("the block", |envelope| match &envelope.frame {
        Frame::BlockChanged(changed) => Some(changed.user.to_string()),
        _ => None,
    });
    assert_eq!(heard.await, "a/b, c");
    let listed = http(&server, "GET", "/v1/blocks", "alice", None).await.json();
    assert_eq!((&listed["users"][0]["user"], &listed["next"]), (&json!("a/b, c"), &Value::Null));
    let answer = http(&server, "DELETE", path, "alice", None).await;
    assert_eq!(answer.json(), json!({"user": "a/b, c", "blocked": false}));
    for (bad, status) in [
        ("/v1/blocks/alice", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/blocks/bob%20", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/blocks/c:x", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let answer = http(&server, "PUT", bad, "alice", None).await;
        assert_eq!(answer.status, status, "{bad}: {answer:?}");
    }
    for number in 0..300 {
        block(&mut alice, &format!("user{number:03}")).await;
    }
    let full = alice.refused(Block { user: user("late") }).await;
    assert_eq!((full.code, full.detail.contains("300")), (Code::LIMIT_EXCEEDED, true), "{}", full.detail);
    let first = http(&server, "GET", "/v1/blocks", "alice", None).await.json();
    assert_eq!(first["users"].as_array().unwrap().len(), BLOCKS_PAGE_MAX);
    let next = format!("/v1/blocks?after={}", first["next"].as_str().unwrap());
    let second = http(&server, "GET", &next, "alice", None).await.json();
    assert_eq!((second["users"].as_array().unwrap().len(), &second["next"]), (100, &Value::Null));
    // The refusals have the codes of the table here too.
    http(&server, "POST", "/v1/messages", "user007", Some(json!({"to": "bob", "text": "x"}))).await;
    let refused =
        http(&server, "POST", "/v1/messages", "user007", Some(json!({"to": "alice", "text": "x"}))).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::FORBIDDEN, &json!("unreachable")));
    let refused =
        http(&server, "POST", "/v1/messages", "alice", Some(json!({"to": "user007", "text": "x"}))).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::FORBIDDEN, &json!("blocked")));
}

#[tokio::test]
async fn groups_are_kept_and_left_by_http_too() {
    let server = Server::start().await;
    let mut mallory = RawClient::open(&server, Wire::Quic, "mallory").await;
    let (kept, left) = (mallory.group("a", &["victim"]).await, mallory.group("b", &["victim"]).await);
    let keep = format!("/v1/conversations/{kept}/keep");
    let answer = http(&server, "POST", &keep, "victim", None).await;
    assert_eq!(answer.json(), json!({"conversation": kept}), "{answer:?}");
    assert_eq!(http(&server, "POST", &keep, "eve", None).await.status, StatusCode::NOT_FOUND);
    let body = json!({"conversations": [left, pair("mallory", "victim")], "temp_id": fresh()});
    let answer = http(&server, "POST", "/v1/conversations/leave", "victim", Some(body)).await;
    let expected = json!({"groups": [
        {"conversation": left, "code": null},
        {"conversation": pair("mallory", "victim"), "code": 4009},
    ]});
    assert_eq!(answer.json(), expected, "{answer:?}");
    let none =
        http(&server, "POST", "/v1/conversations/leave", "victim", Some(json!({"conversations": []}))).await;
    assert_eq!(none.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn ids_and_names_that_cannot_be_told_apart_by_eye_are_refused_and_letters_are_one_however_written() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::WebSocketJson, "alice").await;
    for odd in ["bob ", "bob\u{200b}", "\u{202e}bob", "\u{2028}", " ", "\u{a0}bob", "C:bob"] {
        let frame = json!({"type": "send", "to": odd, "text": "x", "request_id": 7}).to_string();
        alice.send_bytes(frame.as_bytes()).await;
        let refused = alice.find("the refusal", |envelope| match &envelope.frame {
            Frame::Error(error) if envelope.request == Some(7) => Some(error.clone()),
            _ => None,
        });
        let refused = refused.await;
        assert_eq!(refused.code, Code::MALFORMED, "{odd:?}: {}", refused.detail);
        assert!(refused.detail.contains("id"), "{odd:?}: {}", refused.detail);
    }
    for odd in ["team ", "te\u{202e}am", "te\u{200b}am", "\u{2029}", "\u{3164}"] {
        let create = CreateGroup { name: odd.into(), members: Vec::new(), temp_id: fresh() };
        assert_eq!(alice.refused(create).await.code, Code::INVALID_ARGUMENT, "{odd:?}");
    }
    let family = alice.group("\u{1f468}\u{200d}\u{1f467} & co", &[]).await;
    assert_eq!(alice.say_in(family, "emoji may be joined").await.seq, 2);
    for spelling in ["jos\u{e9}", "jose\u{301}"] {
        let frame = json!({"to": spelling, "text": "x", "temp_id": fresh()}).to_string();
        alice.send_bytes(frame.as_bytes()).await;
        let ack = alice.find("the ack", |envelope| match &envelope.frame {
            Frame::SendAck(ack) => Some(ack.conversation),
            _ => None,
        });
        assert_eq!(ack.await, pair("alice", "jos\u{e9}"));
    }
}

#[tokio::test]
async fn more_cursors_than_a_sync_takes_are_refused_with_what_to_do() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let most = alice.welcome().limits.sync_cursors_total as usize;
    let cursor = |at: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(at as u64).to_be_bytes());
        tern_protocol::Position { conversation: ConversationId::from_bytes(id), seq: 1 }
    };
    let mut sent = 0;
    while sent < most {
        let cursors: Vec<_> = (sent..(sent + SYNC_CURSORS_MAX).min(most)).map(cursor).collect();
        sent += cursors.len();
        alice.send(Sync { cursors, more: true }).await;
    }
    let refused = alice.refused(Sync { cursors: vec![cursor(sent)], more: false }).await;
    assert_eq!((refused.code, refused.temporary), (Code::LIMIT_EXCEEDED, false));
    assert!(refused.detail.contains("begin again"), "{}", refused.detail);
    assert_eq!(alice.sync(&[]).await.changed, 0, "the next begins anew");
}
