//! Several devices of one user see the same log, own sends included.

use tern_protocol::{Frame, Position, Read};
use tern_tests::{RawClient, Server, Wire, on_a_wire, pair, seqs, text, user};

on_a_wire! {
    async fn another_device_gets_what_this_one_sends(wire: Wire) {
        let server = Server::start().await;
        let mut phone = RawClient::open(&server, wire, "alice").await;
        let mut laptop = RawClient::open(&server, wire, "alice").await;
        let ack = phone.say("bob", "from my phone").await;
        let entry = laptop.entry(pair("alice", "bob")).await;
        assert_eq!((entry.seq, entry.id, entry.temp_id), (ack.seq, ack.id, Some(ack.temp_id)));
        assert_eq!((entry.sender.clone(), text(&entry)), (user("alice"), "from my phone"));
        let mut tablet = RawClient::open(&server, wire, "alice").await;
        let synced = tablet.sync(&[]).await;
        assert_eq!(seqs(&synced.entries[&pair("alice", "bob")]), [1]);
        assert_eq!(synced.summaries[0].unread, 0);
    }

    async fn the_session_that_sent_a_message_gets_its_ack_and_no_copy(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        assert_eq!(alice.say("bob", "mine").await.seq, 1);
        assert_eq!(bob.say("alice", "yours").await.seq, 2);
        // The first that alice is given is not her own message.
        assert_eq!(alice.entry(pair("alice", "bob")).await.seq, 2);
        let delivered = alice.unread().filter(|frame| matches!(frame, Frame::Deliver(_))).count();
        assert_eq!(delivered, 0);
    }

    async fn the_two_devices_sends_are_one_log(wire: Wire) {
        let server = Server::start().await;
        let mut phone = RawClient::open(&server, wire, "alice").await;
        let mut laptop = RawClient::open(&server, wire, "alice").await;
        for number in 0..10 {
            assert_eq!(phone.say("bob", "phone").await.seq, 2 * number + 1);
            assert_eq!(laptop.say("bob", "laptop").await.seq, 2 * number + 2);
        }
        for (client, own) in [(&mut phone, "phone"), (&mut laptop, "laptop")] {
            for _ in 0..10 {
                assert_ne!(text(&client.entry(pair("alice", "bob")).await), own);
            }
        }
    }

    async fn a_read_position_reaches_the_users_other_devices_and_nobody_else(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut phone = RawClient::open(&server, wire, "bob").await;
        let mut laptop = RawClient::open(&server, wire, "bob").await;
        alice.say("bob", "1").await;
        alice.say("bob", "2").await;
        let conversation = pair("alice", "bob");
        phone.send(Read { conversation, seq: 2 }).await;
        let read = laptop.find("a read position", |envelope| match &envelope.frame {
            Frame::HaveRead(read) => Some(Position { conversation: read.conversation, seq: read.seq }),
            _ => None,
        });
        assert_eq!(read.await, Position { conversation, seq: 2 });
        // Both have had everything that was on its way to them.
        phone.sync(&[]).await;
        phone.settle().await;
        alice.settle().await;
        for client in [&phone, &alice] {
            assert!(!client.unread().any(|frame| matches!(frame, Frame::HaveRead(_))));
        }
    }
}
