//! Recoverable without a window: a device asks "after seq n" and gets what it lacks, whole and in order.

use std::collections::BTreeMap;

use tern_protocol::resume::{Placement, place};
use tern_protocol::{
    AddMembers, Code, ConversationKind, Entry, Fetch, Frame, GAP_TAIL, GAP_WHOLE_MAX, Gap, Read,
    RemoveMembers, Role, SYNC_CURSORS_MAX, Sync, Target,
};
use tern_tests::{
    RawClient, Server, Wire, for_each_wire, fresh, message, newest, on_a_wire, pair, positions, seqs, text,
    to, user,
};

/// Sends that wait for their acks at a time.
const WINDOW: usize = 200;

/// Sends `count` numbered messages to a user.
async fn fill(client: &mut RawClient, name: &str, count: usize) {
    for start in (0..count).step_by(WINDOW) {
        let some = WINDOW.min(count - start);
        for number in start..start + some {
            client.send(to(name, &format!("{}", number + 1))).await;
        }
        for _ in 0..some {
            let ack =
                client.find("an ack", |envelope| matches!(&envelope.frame, Frame::SendAck(_)).then_some(()));
            ack.await;
        }
    }
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

on_a_wire! {
    async fn a_new_device_learns_its_conversations_most_recent_first(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        alice.say("bob", "oldest").await;
        let group = alice.group("team", &["bob"]).await;
        alice.say_in(group, "newer").await;
        let mut carol = RawClient::open(&server, wire, "carol").await;
        carol.say("bob", "newest").await;

        let mut bob = RawClient::open(&server, wire, "bob").await;
        let synced = bob.sync(&[]).await;
        let ids: Vec<_> = synced.summaries.iter().map(|summary| summary.conversation).collect();
        assert_eq!(ids, [pair("bob", "carol"), group, pair("alice", "bob")]);
        assert_eq!((synced.changed, synced.gaps.len(), synced.errors.len()), (3, 0, 0));
        let team = &synced.summaries[1];
        assert_eq!((team.kind, team.head, team.first_seq), (ConversationKind::Group, 2, 1));
        assert_eq!((team.unread, team.read_seq, team.role), (1, 0, Some(Role::Member)));
        let direct = &synced.summaries[2];
        assert_eq!((direct.kind, direct.peer.clone()), (ConversationKind::Pair, Some(user("alice"))));
        assert_eq!((direct.head, direct.unread), (1, 1));
        assert_eq!(seqs(&synced.entries[&group]), [1, 2]);
        assert_eq!(text(&synced.entries[&pair("alice", "bob")][0]), "oldest");
        assert_eq!(text(&synced.entries[&pair("bob", "carol")][0]), "newest");
    }

    async fn a_device_with_cursors_gets_only_what_it_lacks(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        fill(&mut alice, "bob", 5).await;
        fill(&mut alice, "carol", 1).await;
        let (bob, carol) = (pair("alice", "bob"), pair("alice", "carol"));
        let mut device = RawClient::open(&server, wire, "alice").await;
        let synced = device.sync(&[(bob, 3), (carol, 1)]).await;
        assert_eq!(synced.changed, 1);
        assert_eq!(seqs(&synced.entries[&bob]), [4, 5]);
        assert_eq!(synced.summaries.len(), 1);
        let synced = device.sync(&[(bob, 5), (carol, 1)]).await;
        assert_eq!((synced.changed, synced.summaries.len(), synced.entries.len()), (0, 0, 0));
    }

    async fn a_gap_of_500_comes_whole_and_in_order(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        fill(&mut alice, "bob", GAP_WHOLE_MAX as usize).await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let synced = bob.sync(&[]).await;
        assert_eq!(synced.gaps, []);
        let entries = &synced.entries[&pair("alice", "bob")];
        assert_eq!(seqs(entries), range(1, GAP_WHOLE_MAX));
        assert!(entries.iter().all(|entry| text(entry) == entry.seq.to_string()));
    }

    async fn a_gap_of_501_is_named_and_the_newest_50_follow(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let head = GAP_WHOLE_MAX + 1;
        fill(&mut alice, "bob", head as usize).await;
        let conversation = pair("alice", "bob");
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let synced = bob.sync(&[]).await;
        assert_eq!(synced.gaps, [Gap { conversation, from: 1, to: head - GAP_TAIL }]);
        assert_eq!(seqs(&synced.entries[&conversation]), range(head - GAP_TAIL + 1, head));
        // One more on the cursor, and it is 500 again.
        let synced = bob.sync(&[(conversation, 1)]).await;
        assert_eq!(synced.gaps, []);
        assert_eq!(seqs(&synced.entries[&conversation]), range(2, head));
        // History has the rest.
        let mut log = Vec::new();
        let mut before = head - GAP_TAIL + 1;
        while before > 1 {
            let fetch = Fetch { before: Some(before), limit: Some(200), ..newest(conversation) };
            let page = bob.fetch(fetch).await;
            before = page.entries.last().expect("entries").seq;
            log.extend(seqs(&page.entries));
        }
        log.reverse();
        assert_eq!(log, range(1, head - GAP_TAIL));
    }

    async fn a_cursor_above_the_head_is_told_and_everything_comes_again(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        fill(&mut alice, "bob", 3).await;
        let conversation = pair("alice", "bob");
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let synced = bob.sync(&[(conversation, 9)]).await;
        let [error] = &synced.errors[..] else { panic!("{:?}", synced.errors) };
        assert_eq!(error.code, Code::CURSOR_AHEAD);
        assert!(error.detail.contains(&conversation.to_string()), "{}", error.detail);
        assert_eq!(seqs(&synced.entries[&conversation]), [1, 2, 3]);
    }

    async fn cursors_may_come_in_several_frames(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        fill(&mut alice, "bob", 2).await;
        fill(&mut alice, "carol", 2).await;
        let (bob, carol) = (pair("alice", "bob"), pair("alice", "carol"));
        let mut device = RawClient::open(&server, wire, "alice").await;
        // Each cursor of a conversation that is not theirs is named, and harms no other.
        let strangers = (0..SYNC_CURSORS_MAX - 1).map(|number| (pair("x", &format!("{number}")), 7));
        let mut cursors: Vec<_> = strangers.collect();
        cursors.push((bob, 2));
        device.request(Sync { cursors: positions(&cursors), more: true }).await;
        let synced = device.sync(&[(carol, 1)]).await;
        assert_eq!((synced.changed, synced.errors.len()), (1, SYNC_CURSORS_MAX - 1));
        assert!(synced.errors.iter().all(|error| error.code == Code::CURSOR_AHEAD));
        assert_eq!(seqs(&synced.entries[&carol]), [2]);
    }
}

for_each_wire! {
    /// Whatever comes first, live or from the log, an entry is applied at its turn, and none is missing.
    async fn catching_up_during_live_traffic_misses_nothing(wire: Wire) {
        const COUNT: u64 = 300;
        let server = Server::start().await;
        let conversation = pair("alice", "bob");
        let mut alice = RawClient::open(&server, wire, "alice").await;
        alice.say("bob", "1").await;
        let sending = async {
            for number in 2..=COUNT {
                alice.say("bob", &number.to_string()).await;
            }
        };
        let receiving = async {
            let mut bob = RawClient::open(&server, wire, "bob").await;
            bob.request(Sync { cursors: Vec::new(), more: false }).await;
            let mut log: Vec<Entry> = Vec::new();
            let mut early: BTreeMap<u64, Entry> = BTreeMap::new();
            while (log.len() as u64) < COUNT {
                let deliver = bob.delivery().await;
                assert_eq!(deliver.conversation, conversation);
                for entry in deliver.entries {
                    match place(log.len() as u64, entry.seq) {
                        Placement::Next => log.push(entry),
                        Placement::Old => assert_eq!(log[entry.seq as usize - 1], entry),
                        Placement::Early { .. } => {
                            early.insert(entry.seq, entry);
                        }
                    }
                    while let Some(entry) = early.remove(&(log.len() as u64 + 1)) {
                        log.push(entry);
                    }
                }
            }
            assert!(log.iter().all(|entry| text(entry) == entry.seq.to_string()));
        };
        tokio::join!(sending, receiving);
    }
}

on_a_wire! {
    async fn a_member_added_later_sees_the_log_from_there(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob"]).await;
        alice.say_in(group, "before carol").await;
        let add = AddMembers { conversation: group, users: vec![user("carol")], temp_id: fresh() };
        assert_eq!(alice.acked(add).await.seq, 3);
        alice.say_in(group, "with carol").await;

        let mut carol = RawClient::open(&server, wire, "carol").await;
        let synced = carol.sync(&[]).await;
        assert_eq!((synced.summaries[0].first_seq, synced.summaries[0].head), (3, 4));
        assert_eq!(seqs(&synced.entries[&group]), [3, 4]);
        // A cursor below does not open what was before.
        assert_eq!(seqs(&carol.sync(&[(group, 1)]).await.entries[&group]), [3, 4]);
        let page = carol.fetch(newest(group)).await;
        assert_eq!((seqs(&page.entries), page.first_seq, page.head), (vec![4, 3], 3, 4));
        let page = carol.fetch(Fetch { before: Some(3), ..newest(group) }).await;
        assert_eq!(seqs(&page.entries), range(1, 0));
        let page = carol.fetch(Fetch { around: Some(1), ..newest(group) }).await;
        assert!(page.entries.iter().all(|entry| entry.seq >= 3), "{:?}", seqs(&page.entries));
    }

    async fn a_removed_members_log_ends_with_the_removal_and_begins_anew_on_return(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob"]).await;
        alice.say_in(group, "seen").await;
        let users = vec![user("bob")];
        alice.acked(RemoveMembers { conversation: group, users: users.clone(), temp_id: fresh() }).await;
        alice.say_in(group, "not for bob").await;

        // The last that bob was told of before it went away was entry 1.
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let synced = bob.sync(&[(group, 1)]).await;
        assert_eq!(seqs(&synced.entries[&group]), [2, 3]);
        assert_eq!((synced.summaries[0].role, synced.summaries[0].head), (None, 3));
        assert_eq!(bob.sync(&[(group, 3)]).await.changed, 0);
        let page = bob.fetch(newest(group)).await;
        assert_eq!((seqs(&page.entries), page.head), (vec![3, 2, 1], 3));
        let error = bob.refused(message(Target::Conversation(group), "still here")).await;
        assert_eq!(error.code, Code::NOT_FOUND);

        alice.acked(AddMembers { conversation: group, users, temp_id: fresh() }).await;
        let synced = bob.sync(&[(group, 3)]).await;
        assert_eq!(seqs(&synced.entries[&group]), [5]);
        assert_eq!((synced.summaries[0].first_seq, synced.summaries[0].role), (5, Some(Role::Member)));
        assert_eq!(seqs(&bob.fetch(newest(group)).await.entries), [5]);
    }

    async fn unread_is_what_others_wrote_after_what_was_read_or_written(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob"]).await;
        alice.say_in(group, "2").await;
        alice.say_in(group, "3").await;
        alice.acked(AddMembers { conversation: group, users: vec![user("carol")], temp_id: fresh() }).await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let unread = |synced: &tern_tests::Synced| {
            let row = &synced.summaries[0];
            assert_eq!(row.unread, row.head_messages - row.read_messages);
            assert_eq!(row.head_messages, synced.entries[&group].last().map_or(0, |entry| entry.messages));
            (row.unread, row.read_seq)
        };
        assert_eq!(unread(&bob.sync(&[]).await), (2, 0));
        bob.send(Read { conversation: group, seq: 2 }).await;
        assert_eq!(unread(&bob.sync(&[]).await), (1, 2));
        // A read position never goes back.
        bob.send(Read { conversation: group, seq: 1 }).await;
        assert_eq!(unread(&bob.sync(&[]).await), (1, 2));
        // Who writes has read what is above.
        assert_eq!(unread(&alice.sync(&[]).await), (0, 3));
        bob.say_in(group, "5, of bob").await;
        assert_eq!(unread(&bob.sync(&[]).await), (0, 5));
        bob.send(Read { conversation: group, seq: 3 }).await;
        assert_eq!(unread(&bob.sync(&[]).await), (0, 5));
        assert_eq!(unread(&alice.sync(&[]).await), (1, 3));
        // Who is added begins with nothing unread.
        let mut carol = RawClient::open(&server, wire, "carol").await;
        assert_eq!(unread(&carol.sync(&[]).await), (1, 3));
    }

    async fn a_store_is_known_by_its_id(wire: Wire) {
        let mut server = Server::start().await;
        let before = RawClient::open(&server, wire, "alice").await.welcome().store_id;
        assert_eq!(before.to_string(), server.ready().store_id);
        server.restart().await;
        let after = RawClient::open(&server, wire, "alice").await.welcome().store_id;
        assert_eq!(after, before, "the same data");
        let fresh = Server::start().await;
        let other = RawClient::open(&fresh, wire, "alice").await.welcome().store_id;
        assert_ne!(other, before, "other data");
    }
}

for_each_wire! {
    async fn welcome_comes_before_any_entry(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let sending = async {
            loop {
                alice.say("bob", "hi").await;
            }
        };
        let coming = async {
            for _ in 0..40 {
                let mut bob = RawClient::connect(&server, wire).await;
                let first = bob.greet(&server.token("bob"), "device").await;
                assert!(matches!(first, Frame::Welcome(_)), "{first:?}");
            }
        };
        tokio::select! {
            () = coming => {}
            () = sending => unreachable!("it does not end"),
        }
    }
}
