//! Applied once: a retry gets the original id and seq, through any connection, after any crash.

use tern_protocol::{Code, ConversationId, CreateGroup, Frame, RemoveMembers, Send, SendAck, Target};
use tern_tests::{RawClient, Server, Wire, fresh, message, newest, on_a_wire, pair, to, user};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// A retry is answered with the place of the first.
fn assert_same(retry: &SendAck, first: &SendAck) {
    assert!(retry.duplicate, "{retry:?}");
    let place = |ack: &SendAck| (ack.temp_id, ack.conversation, ack.seq, ack.id, ack.time_ms);
    assert_eq!(place(retry), place(first));
}

async fn head(client: &mut RawClient, conversation: ConversationId) -> u64 {
    client.fetch(newest(conversation)).await.head
}

on_a_wire! {
    async fn a_retry_gets_the_original_on_any_connection_and_after_a_crash(wire: Wire) {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let send = to("bob", "once");
        let first = alice.acked(send.clone()).await;
        assert!(!first.duplicate);
        assert_same(&alice.acked(Send { age_ms: Some(1), ..send.clone() }).await, &first);
        for other in Wire::ALL {
            let mut again = RawClient::open(&server, other, "alice").await;
            assert_same(&again.acked(Send { age_ms: Some(1000), ..send.clone() }).await, &first);
        }
        server.restart().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        assert_same(&alice.acked(Send { age_ms: Some(7 * DAY_MS), ..send.clone() }).await, &first);
        // Without an age too.
        assert_same(&alice.acked(send).await, &first);
        assert_eq!(head(&mut alice, pair("alice", "bob")).await, 1);
    }

    async fn the_same_send_at_once_on_two_connections_is_one_entry(wire: Wire) {
        let server = Server::start().await;
        let mut one = RawClient::open(&server, wire, "alice").await;
        let mut two = RawClient::open(&server, wire, "alice").await;
        let send = to("bob", "once");
        for _ in 0..10 {
            one.request(send.clone()).await;
            two.request(send.clone()).await;
        }
        let mut acks = Vec::new();
        for client in [&mut one, &mut two] {
            for _ in 0..10 {
                let ack = client.find("an ack", |envelope| match &envelope.frame {
                    Frame::SendAck(ack) => Some(ack.clone()),
                    Frame::Error(error) => panic!("{error:?}"),
                    _ => None,
                });
                acks.push(ack.await);
            }
        }
        assert!(acks.iter().all(|ack| (ack.seq, ack.id) == (1, acks[0].id)), "{acks:?}");
        assert_eq!(acks.iter().filter(|ack| !ack.duplicate).count(), 1, "{acks:?}");
        assert_eq!(head(&mut one, pair("alice", "bob")).await, 1);
    }

    async fn the_same_temp_id_for_something_else_is_a_conflict(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let send = to("bob", "this");
        let first = alice.acked(send.clone()).await;
        let error = alice.refused(Send { text: "that".into(), ..send.clone() }).await;
        assert_eq!((error.code, error.temporary), (Code::CONFLICT, false));
        assert_eq!(error.temp_id, Some(send.temp_id));
        assert!(error.detail.contains(&first.seq.to_string()), "{}", error.detail);
        assert_eq!(head(&mut alice, pair("alice", "bob")).await, 1);
        // The session goes on, and so does the lane.
        assert_eq!(alice.say("bob", "next").await.seq, 2);
    }

    async fn a_send_first_tried_more_than_7_days_ago_is_refused(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let late = Send { age_ms: Some(7 * DAY_MS + 1), ..to("bob", "late") };
        let error = alice.refused(late).await;
        assert_eq!((error.code, error.temporary), (Code::TOO_OLD, false));
        let in_time = Send { age_ms: Some(7 * DAY_MS), ..to("bob", "in time") };
        assert_eq!(alice.acked(in_time).await.seq, 1);
    }

    async fn a_committed_send_retried_after_removal_still_gets_its_ack(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob"]).await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let send = message(Target::Conversation(group), "mine");
        let first = bob.acked(send.clone()).await;
        let remove = RemoveMembers { conversation: group, users: vec![user("bob")], temp_id: fresh() };
        let removal = alice.acked(remove.clone()).await;
        assert_same(&bob.acked(send.clone()).await, &first);
        // A new one does not get in.
        let error = bob.refused(Send { temp_id: fresh(), ..send }).await;
        assert_eq!(error.code, Code::NOT_FOUND);
        assert_same(&alice.acked(remove).await, &removal);
    }

    async fn creating_a_group_again_is_the_same_group(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let create = CreateGroup { name: "team".into(), members: vec![user("bob")], temp_id: fresh() };
        let first = alice.acked(create.clone()).await;
        assert_eq!((first.seq, first.conversation), (1, ConversationId::group(&user("alice"), &create.temp_id)));
        let mut again = RawClient::open(&server, wire, "alice").await;
        assert_same(&again.acked(create.clone()).await, &first);
        let other = CreateGroup { name: "other".into(), ..create };
        assert_eq!(again.refused(other).await.code, Code::CONFLICT);
    }

    async fn a_temp_id_belongs_to_its_sender_and_conversation(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let send = to("bob", "hello");
        assert_eq!(alice.acked(send.clone()).await.seq, 1);
        let back = Send { to: Target::User(user("alice")), ..send.clone() };
        let ack = bob.acked(back).await;
        assert_eq!((ack.seq, ack.duplicate), (2, false));
        let elsewhere = Send { to: Target::User(user("carol")), ..send };
        let ack = alice.acked(elsewhere).await;
        assert_eq!((ack.seq, ack.duplicate, ack.conversation), (1, false, pair("alice", "carol")));
    }

    async fn first_messages_in_both_directions_at_once_make_one_conversation(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let (a, b) = tokio::join!(alice.say("bob", "a"), bob.say("alice", "b"));
        assert_eq!((a.conversation, b.conversation), (pair("alice", "bob"), pair("alice", "bob")));
        assert_eq!(a.seq + b.seq, 3, "one is 1 and one is 2");
    }
}
