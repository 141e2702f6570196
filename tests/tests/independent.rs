//! Independent: nobody waits for a conversation they do not read, nor for somebody who does not read.

use std::collections::HashSet;

use tern_protocol::{Code, Fetch, Frame, StreamKind};
use tern_tests::{Channel, RawClient, Server, Wire, for_each_wire, loose, newest, pair, seqs, text, within};

/// A long text, 8 KiB.
fn long(number: u64) -> String {
    format!("{number:08192}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_active_conversations_use_two_streams_and_an_unread_one_leaves_the_other_flowing() {
    for wire in [Wire::Quic, Wire::WebTransport] {
        an_unread_stream_leaves_the_other_flowing(wire).await;
    }
}

async fn an_unread_stream_leaves_the_other_flowing(wire: Wire) {
    // What the unread stream and the outbox hold together; more would be Lagged.
    const UNREAD: u64 = 16;
    let server = Server::start().await;
    let mut bob = RawClient::open(&server, wire, "bob").await;
    let mut alice = RawClient::open(&server, wire, "alice").await;
    let mut carol = RawClient::open(&server, wire, "carol").await;
    let (unread, read) = (pair("alice", "bob"), pair("bob", "carol"));
    bob.quic().hold(unread);
    for number in 1..=UNREAD {
        alice.say("bob", &long(number)).await;
    }
    let mut lanes = HashSet::new();
    for number in 1..=50 {
        carol.say("bob", &number.to_string()).await;
        let arrival = within("an entry of carol's", bob.quic().next()).await.expect("the session goes on");
        let Frame::Deliver(deliver) = &arrival.envelope.frame else { panic!("{arrival:?}") };
        assert_eq!((deliver.conversation, deliver.entries[0].seq), (read, number));
        let Channel::Stream { index, kind, conversation } = arrival.channel else { panic!("{arrival:?}") };
        assert_eq!((kind, conversation), (StreamKind::Conversation, Some(read)));
        lanes.insert(index);
    }
    assert_eq!(lanes.len(), 1, "a conversation keeps its stream: {lanes:?}");
    bob.quic().release(unread);
    for number in 1..=UNREAD {
        let arrival = within("an entry of alice's", bob.quic().next()).await.expect("the session goes on");
        let Frame::Deliver(deliver) = &arrival.envelope.frame else { panic!("{arrival:?}") };
        assert_eq!((deliver.conversation, deliver.entries[0].seq), (unread, number));
        assert_eq!(text(&deliver.entries[0]), long(number));
        let Channel::Stream { index, conversation, .. } = arrival.channel else { panic!("{arrival:?}") };
        assert_eq!(conversation, Some(unread));
        assert!(!lanes.contains(&index), "its stream is its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_conversations_than_streams_share_the_inbox_stream_and_lose_nothing() {
    for wire in [Wire::Quic, Wire::WebTransport] {
        conversations_share_the_inbox_stream(wire).await;
    }
}

async fn conversations_share_the_inbox_stream(wire: Wire) {
    let server = loose().set("TRANSPORT__QUIC_CONVERSATION_STREAMS_MAX", "4").start().await;
    let mut bob = RawClient::open(&server, wire, "bob").await;
    let mut lanes = HashSet::new();
    let names: Vec<String> = (0..12).map(|number| format!("user{number}")).collect();
    for (round, name) in (1..=2).flat_map(|round| names.iter().map(move |name| (round, name))) {
        let mut client = RawClient::open(&server, wire, name).await;
        client.say("bob", "hi").await;
        let arrival = within("the entry", bob.quic().next()).await.expect("the session goes on");
        let Frame::Deliver(deliver) = &arrival.envelope.frame else { panic!("{arrival:?}") };
        assert_eq!((deliver.conversation, deliver.entries[0].seq), (pair("bob", name), round));
        match arrival.channel {
            Channel::Stream { index, conversation: Some(id), .. } => {
                assert_eq!(id, deliver.conversation);
                lanes.insert(index);
            }
            Channel::Stream { index, kind, .. } => {
                assert_eq!(kind, StreamKind::Inbox);
                lanes.insert(index);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(lanes.len() >= 4, "{lanes:?}");
}

for_each_wire! {
    /// Whoever does not read is told so once and pulls; nothing grows, and nobody else notices.
    async fn a_client_that_does_not_read_lags_alone(wire: Wire) {
        // Far more than sockets, windows and queues hold together.
        const MOST: u64 = 3000;
        const MORE: u64 = 300;
        // The outbox, and what sockets and windows of the system may take: a few MiB.
        const HELD_MAX: usize = 1200;
        let server = loose().set("SESSION__STALLED_S", "600").start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob", "carol"]).await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let mut carol = RawClient::open(&server, wire, "carol").await;
        let mut head = 1;
        let mut after_the_first_lag = 0;
        while after_the_first_lag < MORE {
            head = alice.say_in(group, &long(head + 1)).await.seq;
            assert!(head < MOST, "bob should lag by now");
            // Carol gets each at once, though bob does not read.
            assert_eq!(carol.entry(group).await.seq, head);
            if after_the_first_lag > 0 || server.metric("tern_lagged_total").await > Some(0.0) {
                after_the_first_lag += 1;
            }
        }

        let mut log = Vec::new();
        let lagged = loop {
            match bob.recv().await {
                Frame::Deliver(deliver) => log.extend(seqs(&deliver.entries)),
                Frame::Lagged(lagged) => break lagged,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(lagged.conversation, group);
        assert!(log.len() < HELD_MAX, "{} entries were kept for bob", log.len());
        assert_eq!(log, (2..2 + log.len() as u64).collect::<Vec<_>>(), "what came is a start without holes");
        // The rest is pulled.
        let mut applied = log.last().copied().unwrap_or(1);
        while applied < head {
            let page = bob.fetch(Fetch { after: Some(applied), limit: Some(200), ..newest(group) }).await;
            let page: Vec<u64> = page.entries.iter().rev().map(|entry| entry.seq).collect();
            assert_eq!(page[0], applied + 1);
            applied = page[page.len() - 1];
        }
        // And live again.
        let last = alice.say_in(group, "the last").await.seq;
        let mut live = 0;
        while live < last {
            match bob.recv().await {
                Frame::Deliver(deliver) => live = deliver.entries[0].seq,
                Frame::Lagged(lagged) => assert!(lagged.head <= last),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn a_client_whose_queue_does_not_move_is_closed_as_slow(wire: Wire) {
        // The next thing that his session would wake up for is far away.
        let server = loose().set("SESSION__STALLED_S", "1").set("TRANSPORT__KEEPALIVE_S", "60").start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let closed = format!("tern_refused_total{{code=\"{}\"}}", Code::SLOW_CONSUMER.0);
        let dead = format!("tern_refused_total{{code=\"{}\"}}", Code::HEARTBEAT_TIMEOUT.0);
        // On a slow machine he may be closed before what the kernel holds for him is full.
        for number in 1.. {
            alice.say("bob", &long(number)).await;
            let lags = server.metric("tern_lagged_total").await > Some(0.0);
            if lags || server.metric(&closed).await > Some(0.0) {
                break;
            }
            bob.send(tern_protocol::Pong { nonce: 0 }).await;
            assert!(number < 3000, "bob should lag by now");
        }
        // Bob still speaks, and reads nothing.
        within("the close", async {
            while server.metric(&closed).await.is_none_or(|count| count < 1.0) {
                assert!(server.metric(&dead).await.is_none_or(|count| count < 1.0), "bob is not silent");
                bob.send(tern_protocol::Pong { nonce: 0 }).await;
                alice.settle().await;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        })
        .await;
        assert!(alice.say("bob", "alice goes on").await.seq > 1);
    }

    async fn reading_back_in_one_conversation_does_not_hold_up_another(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut carol = RawClient::open(&server, wire, "carol").await;
        for number in 1..=40 {
            alice.say("bob", &long(number)).await;
        }
        let mut bob = RawClient::open(&server, wire, "bob").await;
        // More pages than the queue for reading back holds, none of them read yet.
        let fetch = Fetch { limit: Some(200), ..newest(pair("alice", "bob")) };
        let mut last = 0;
        for _ in 0..30 {
            last = bob.request(fetch.clone()).await;
        }
        carol.say("bob", "now").await;
        let mut pages_after = 0;
        let mut live = false;
        loop {
            let envelope = bob.next().await.expect("the session goes on");
            match envelope.frame {
                Frame::Deliver(deliver) => {
                    assert_eq!(text(&deliver.entries[0]), "now");
                    live = true;
                }
                Frame::Page(_) => pages_after += usize::from(live),
                other => panic!("{other:?}"),
            }
            if envelope.request == Some(last) {
                break;
            }
        }
        assert!(live && pages_after > 0, "the live entry came before the pages that were asked for earlier");
    }
}
