//! Groups: their life, who may do what, and that every change is an entry of the log.

use std::cmp::Reverse;

use tern_protocol::{
    AddMembers, Code, ConversationId, ConversationKind, ConversationPage, ConversationSummary, CreateGroup,
    EntryBody, Frame, GROUP_MEMBERS_MAX, LeaveGroup, ListConversations, ListMembers, NAME_BYTES_MAX,
    RemoveMembers, RenameGroup, Role, SetRole, Target, UserId,
};
use tern_tests::{RawClient, Server, Wire, fresh, message, newest, on_a_wire, pair, text, user};

fn add(conversation: ConversationId, names: &[&str]) -> AddMembers {
    AddMembers { conversation, users: users(names), temp_id: fresh() }
}

fn remove(conversation: ConversationId, names: &[&str]) -> RemoveMembers {
    RemoveMembers { conversation, users: users(names), temp_id: fresh() }
}

fn rename(conversation: ConversationId, name: &str) -> RenameGroup {
    RenameGroup { conversation, name: name.into(), temp_id: fresh() }
}

fn role(conversation: ConversationId, name: &str, role: Role) -> SetRole {
    SetRole { conversation, user: user(name), role, temp_id: fresh() }
}

fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| user(name)).collect()
}

async fn members(client: &mut RawClient, conversation: ConversationId) -> Vec<(String, Role)> {
    match client.ask(ListMembers { conversation }).await {
        Frame::MemberList(list) => {
            list.members.iter().map(|member| (member.user.to_string(), member.role)).collect()
        }
        other => panic!("{other:?}"),
    }
}

async fn conversations(client: &mut RawClient, cursor: Option<String>, limit: u32) -> ConversationPage {
    match client.ask(ListConversations { cursor, limit: Some(limit) }).await {
        Frame::ConversationPage(page) => page,
        other => panic!("{other:?}"),
    }
}

on_a_wire! {
    async fn every_change_is_an_entry_that_all_sessions_get_also_the_one_that_made_it(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let group = alice.group("team", &["bob"]).await;
        let created = EntryBody::Created { name: "team".into(), members: users(&["alice", "bob"]) };
        alice.acked(add(group, &["carol", "dave"])).await;
        alice.acked(rename(group, "crew")).await;
        alice.acked(role(group, "bob", Role::Admin)).await;
        bob.acked(remove(group, &["carol"])).await;
        bob.acked(LeaveGroup { conversation: group, temp_id: fresh() }).await;
        let expected = [
            ("alice", created),
            ("alice", EntryBody::Added { users: users(&["carol", "dave"]) }),
            ("alice", EntryBody::Renamed { name: "crew".into() }),
            ("alice", EntryBody::RoleChanged { user: user("bob"), role: Role::Admin }),
            ("bob", EntryBody::Removed { users: users(&["carol"]) }),
            ("bob", EntryBody::Left { user: user("bob") }),
        ];
        for client in [&mut alice, &mut bob] {
            for (seq, (sender, body)) in (1..).zip(&expected) {
                let entry = client.entry(group).await;
                assert_eq!((entry.seq, entry.sender.as_str(), &entry.body), (seq, *sender, body));
                assert!(entry.temp_id.is_some());
            }
        }
        let left = [("alice".to_owned(), Role::Owner), ("dave".to_owned(), Role::Member)];
        assert_eq!(members(&mut alice, group).await, left);
        // Whoever is gone hears nothing more.
        alice.say_in(group, "among us").await;
        bob.say("alice", "a direct message is the next that bob's own log gets").await;
        alice.say("bob", "and this").await;
        assert_eq!(text(&bob.entry(pair("alice", "bob")).await), "and this");
        assert!(!bob.unread().any(|frame| matches!(frame, Frame::Deliver(_))), "bob is not a member any more");
    }

    async fn members_send_admins_manage_members_and_owners_manage_roles(wire: Wire) {
        let server = Server::start().await;
        let mut owner = RawClient::open(&server, wire, "owner").await;
        let mut admin = RawClient::open(&server, wire, "admin").await;
        let mut member = RawClient::open(&server, wire, "member").await;
        let group = owner.group("team", &["admin", "member", "other"]).await;
        owner.acked(role(group, "admin", Role::Admin)).await;
        let head = owner.acked(role(group, "other", Role::Admin)).await.seq;

        assert_eq!(member.refused(add(group, &["x"])).await.code, Code::FORBIDDEN);
        assert_eq!(member.refused(remove(group, &["other"])).await.code, Code::FORBIDDEN);
        assert_eq!(member.refused(rename(group, "mine")).await.code, Code::FORBIDDEN);
        assert_eq!(member.refused(role(group, "member", Role::Owner)).await.code, Code::FORBIDDEN);
        assert_eq!(admin.refused(remove(group, &["other"])).await.code, Code::FORBIDDEN);
        assert_eq!(admin.refused(remove(group, &["owner"])).await.code, Code::FORBIDDEN);
        assert_eq!(admin.refused(role(group, "admin", Role::Owner)).await.code, Code::FORBIDDEN);
        let refused = owner.refused(role(group, "owner", Role::Member)).await;
        assert_eq!(refused.code, Code::FORBIDDEN, "the last owner cannot step down");
        assert!(!refused.temporary);

        // None of the refusals left a trace.
        assert_eq!(member.say_in(group, "members send").await.seq, head + 1);
        admin.acked(add(group, &["x"])).await;
        admin.acked(remove(group, &["x"])).await;
        admin.acked(rename(group, "ours")).await;
        owner.acked(role(group, "admin", Role::Owner)).await;
        let last = owner.acked(role(group, "owner", Role::Member)).await;
        assert_eq!(last.seq, head + 6);
    }

    async fn when_the_last_owner_leaves_the_oldest_admin_else_the_oldest_member_is_promoted(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut carol = RawClient::open(&server, wire, "carol").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let group = alice.group("team", &["bob", "carol", "dave"]).await;
        alice.acked(role(group, "carol", Role::Admin)).await;
        alice.acked(LeaveGroup { conversation: group, temp_id: fresh() }).await;
        let page = bob.fetch(newest(group)).await;
        assert_eq!(page.entries[0].body, EntryBody::RoleChanged { user: user("carol"), role: Role::Owner });
        assert_eq!((page.entries[0].seq, page.entries[0].temp_id), (4, None));
        assert_eq!(page.entries[1].body, EntryBody::Left { user: user("alice") });
        carol.acked(LeaveGroup { conversation: group, temp_id: fresh() }).await;
        let left = [("bob".to_owned(), Role::Owner), ("dave".to_owned(), Role::Member)];
        assert_eq!(members(&mut bob, group).await, left);
    }

    async fn a_group_has_100_members_and_no_more(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let names: Vec<UserId> = (1..=GROUP_MEMBERS_MAX).map(|number| user(&format!("user{number}"))).collect();
        let create = |members: &[UserId]| CreateGroup { name: "all".into(), members: members.into(), temp_id: fresh() };
        let error = alice.refused(create(&names)).await;
        assert_eq!((error.code, error.temporary), (Code::GROUP_FULL, false));
        let group = alice.acked(create(&names[1..])).await.conversation;
        assert_eq!(members(&mut alice, group).await.len(), GROUP_MEMBERS_MAX);
        assert_eq!(alice.refused(add(group, &["one-too-many"])).await.code, Code::GROUP_FULL);
        alice.acked(remove(group, &["user2"])).await;
        alice.acked(add(group, &["fits-now"])).await;
        assert_eq!(members(&mut alice, group).await.len(), GROUP_MEMBERS_MAX);
    }

    async fn a_strangers_group_looks_like_one_that_does_not_exist(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut eve = RawClient::open(&server, wire, "eve").await;
        let group = alice.group("secret", &["bob"]).await;
        let nowhere = ConversationId::from_bytes([7; 16]);
        let requests = |conversation: ConversationId| -> Vec<Frame> {
            vec![
                message(Target::Conversation(conversation), "hello").into(),
                add(conversation, &["eve"]).into(),
                remove(conversation, &["bob"]).into(),
                rename(conversation, "mine").into(),
                role(conversation, "eve", Role::Owner).into(),
                LeaveGroup { conversation, temp_id: fresh() }.into(),
                newest(conversation).into(),
                ListMembers { conversation }.into(),
                tern_protocol::Read { conversation, seq: 1 }.into(),
                tern_protocol::Ack { positions: tern_tests::positions(&[(conversation, 1)]) }.into(),
            ]
        };
        for (there, not_there) in requests(group).into_iter().zip(requests(nowhere)) {
            let name = there.name();
            let (mut there, mut not_there) = (eve.refused(there).await, eve.refused(not_there).await);
            (there.temp_id, not_there.temp_id) = (None, None);
            // Each names what was asked for, and nothing else tells them apart.
            assert_eq!(there.conversation.take(), Some(group), "{name}");
            assert_eq!(not_there.conversation.take(), Some(nowhere), "{name}");
            assert_eq!(there.code, Code::NOT_FOUND, "{name}");
            assert_eq!(there, not_there, "{name}");
        }
        assert_eq!(alice.say_in(group, "nothing happened").await.seq, 2);
    }

    async fn senseless_changes_are_refused_with_a_reason(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob"]).await;
        alice.say("bob", "a pair").await;
        let direct = pair("alice", "bob");
        let create = |name: &str| CreateGroup { name: name.into(), members: Vec::new(), temp_id: fresh() };
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let senseless: Vec<Frame> = vec![
            create("").into(),
            create(&long).into(),
            create("two\nlines").into(),
            rename(group, "").into(),
            rename(group, &long).into(),
            add(group, &[]).into(),
            add(group, &["alice", "bob"]).into(),
            remove(group, &[]).into(),
            remove(group, &["nobody"]).into(),
            remove(group, &["alice"]).into(),
            role(group, "nobody", Role::Admin).into(),
            role(group, "bob", Role::Member).into(),
            add(direct, &["carol"]).into(),
            remove(direct, &["bob"]).into(),
            rename(direct, "us").into(),
            LeaveGroup { conversation: direct, temp_id: fresh() }.into(),
        ];
        for frame in senseless {
            let what = format!("{frame:?}");
            let error = alice.refused(frame).await;
            assert_eq!((error.code, error.temporary), (Code::INVALID_ARGUMENT, false), "{what}: {}", error.detail);
            assert!(!error.detail.is_empty(), "{what}");
        }
        assert_eq!(alice.say_in(group, "nothing happened").await.seq, 2);
    }

    async fn conversations_are_listed_page_by_page_most_recent_first(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        for name in ["u1", "u2", "u3", "u4", "u5", "u2"] {
            alice.say(name, "hi").await;
            // Within one millisecond the order is that of the conversations.
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
        let mut seen = Vec::new();
        let mut cursor = None;
        for pages in 1.. {
            let page = conversations(&mut alice, cursor, 2).await;
            seen.extend(page.conversations);
            cursor = page.next;
            if cursor.is_none() {
                assert_eq!(pages, 3);
                break;
            }
        }
        // Two of one millisecond have an order too: that of their ids.
        let place = |summary: &ConversationSummary| (Reverse(summary.last_time_ms), summary.conversation);
        assert!(seen.is_sorted_by_key(place), "{seen:?}");
        let again = seen.iter().position(|summary| summary.peer == Some(user("u2")));
        let before = seen.iter().filter(|summary| summary.last_time_ms > seen[again.unwrap()].last_time_ms);
        assert_eq!(before.count(), 0, "u2 was written to last: {seen:?}");
        let mut peers: Vec<_> = seen.iter().map(|summary| summary.peer.clone().expect("a pair").to_string()).collect();
        peers.sort_unstable();
        assert_eq!(peers, ["u1", "u2", "u3", "u4", "u5"], "each once");
        let nonsense = ListConversations { cursor: Some("nonsense".into()), limit: None };
        assert_eq!(alice.refused(nonsense).await.code, Code::INVALID_ARGUMENT);
        for limit in [0, 201, 1 << 31, u32::MAX] {
            let list = ListConversations { cursor: None, limit: Some(limit) };
            assert_eq!(alice.refused(list).await.code, Code::INVALID_ARGUMENT, "{limit}");
        }
    }

    async fn one_may_write_to_oneself_and_to_somebody_who_was_never_seen(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let notes = alice.say("alice", "a note").await;
        assert_eq!((notes.conversation, notes.recipient_unknown), (pair("alice", "alice"), false));
        assert_eq!(members(&mut alice, notes.conversation).await.len(), 1);
        assert!(alice.say("bbo", "a typo?").await.recipient_unknown);
        let mut bob = RawClient::open(&server, wire, "bob").await;
        assert!(!alice.say("bob", "known").await.recipient_unknown);
        let entry = bob.entry(pair("alice", "bob")).await;
        assert_eq!(text(&entry), "known");
        let mut late = RawClient::open(&server, wire, "bbo").await;
        assert_eq!(text(&late.sync(&[]).await.entries[&pair("alice", "bbo")][0]), "a typo?");
        let page = conversations(&mut alice, None, 20).await;
        assert!(page.conversations.iter().all(|summary| summary.kind == ConversationKind::Pair));
    }
}
