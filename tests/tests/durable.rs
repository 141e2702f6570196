//! Durable: what was acked is there after a crash, where it was, as it was.

use tern_protocol::{AddMembers, Frame, Read, Role, SetRole};
use tern_tests::{RawClient, Server, Wire, fresh, newest, on_a_wire, pair, seqs, text, to, user};

on_a_wire! {
    async fn an_acked_message_is_there_after_kill_9_at_its_seq_once(wire: Wire) {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut acks = Vec::new();
        for number in 1..=5 {
            acks.push(alice.say("bob", &format!("message {number}")).await);
        }
        server.restart().await;

        let mut bob = RawClient::open(&server, wire, "bob").await;
        let synced = bob.sync(&[]).await;
        let entries = &synced.entries[&pair("alice", "bob")];
        assert_eq!(seqs(entries), [1, 2, 3, 4, 5]);
        for (entry, (ack, number)) in entries.iter().zip(acks.iter().zip(1..)) {
            assert_eq!((entry.id, entry.seq, entry.time_ms), (ack.id, ack.seq, ack.time_ms));
            assert_eq!(text(entry), format!("message {number}"));
            assert_eq!(entry.sender, user("alice"));
            assert_eq!(entry.temp_id, Some(ack.temp_id));
        }
    }

    async fn the_next_message_after_a_crash_continues_the_log(wire: Wire) {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        assert_eq!(alice.say("bob", "before").await.seq, 1);
        server.restart().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        assert_eq!(alice.say("bob", "after").await.seq, 2);
        let page = alice.fetch(newest(pair("alice", "bob"))).await;
        assert_eq!(page.entries.iter().map(text).collect::<Vec<_>>(), ["after", "before"]);
    }

    async fn groups_roles_and_read_positions_survive_a_crash(wire: Wire) {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob"]).await;
        let add = AddMembers { conversation: group, users: vec![user("carol")], temp_id: fresh() };
        assert_eq!(alice.acked(add).await.seq, 2);
        let promote =
            SetRole { conversation: group, user: user("carol"), role: Role::Admin, temp_id: fresh() };
        assert_eq!(alice.acked(promote).await.seq, 3);
        assert_eq!(alice.say_in(group, "hello").await.seq, 4);
        let mut bob = RawClient::open(&server, wire, "bob").await;
        bob.send(Read { conversation: group, seq: 3 }).await;
        // Reads are worked off in order: the answer to the next one says that this one is done.
        bob.fetch(newest(group)).await;
        server.restart().await;

        let mut bob = RawClient::open(&server, wire, "bob").await;
        let synced = bob.sync(&[]).await;
        let [summary] = &synced.summaries[..] else { panic!("{:?}", synced.summaries) };
        assert_eq!((summary.read_seq, summary.head, summary.unread), (3, 4, 1));
        assert_eq!((summary.name.as_deref(), summary.role), (Some("team"), Some(Role::Member)));
        let members = match bob.ask(tern_protocol::ListMembers { conversation: group }).await {
            Frame::MemberList(list) => list.members,
            other => panic!("{other:?}"),
        };
        let roles: Vec<_> = members.iter().map(|member| (member.user.as_str(), member.role)).collect();
        assert_eq!(roles, [("alice", Role::Owner), ("bob", Role::Member), ("carol", Role::Admin)]);
    }

    /// Acks of pipelined sends are promises too, whichever of them were on their way.
    async fn what_was_acked_in_a_pipeline_is_there_after_kill_9(wire: Wire) {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        for number in 0..200 {
            alice.request(to("bob", &format!("{number}"))).await;
        }
        let mut acked = Vec::new();
        for _ in 0..100 {
            let ack = alice
                .find("an ack", |envelope| match &envelope.frame {
                    Frame::SendAck(ack) => Some((envelope.request, ack.clone())),
                    _ => None,
                })
                .await;
            acked.push(ack);
        }
        server.restart().await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let entries = bob.sync(&[]).await.entries.remove(&pair("alice", "bob")).expect("entries");
        assert!(entries.len() >= acked.len());
        assert_eq!(seqs(&entries), (1..=entries.len() as u64).collect::<Vec<_>>());
        for (request, ack) in acked {
            let entry = &entries[ack.seq as usize - 1];
            assert_eq!((entry.id, entry.temp_id), (ack.id, Some(ack.temp_id)));
            assert_eq!(text(entry), (request.expect("a number") - 1).to_string());
        }
    }
}
