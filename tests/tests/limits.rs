//! Every limit is told in Welcome, and meeting it costs nobody else anything.

use std::time::Duration;

use tern_protocol::{
    ACK_POSITIONS_MAX, Ack, BLOCKS_MAX, Code, DEDUPE_WINDOW_S, FRAME_BYTES_MAX, Frame, GAP_TAIL,
    GAP_WHOLE_MAX, GROUP_MEMBERS_MAX, LEAVE_GROUPS_MAX, Limits, NAME_BYTES_MAX, PAGE_ENTRIES_MAX, Ping,
    SENDS_IN_FLIGHT_MAX, SYNC_CURSORS_MAX, SYNC_CURSORS_TOTAL_MAX, Send, Sync, TEXT_BYTES_MAX,
    WATCH_USERS_MAX,
};
use tern_tests::{
    Options, RawClient, Server, Wire, for_each_wire, loose, newest, on_a_wire, pair, positions, text, to,
};

on_a_wire! {
    async fn welcome_tells_all_limits(wire: Wire) {
        let server = Options::default().start().await;
        let alice = RawClient::open(&server, wire, "alice").await;
        let expected = Limits {
            frame_bytes: FRAME_BYTES_MAX as u32,
            text_bytes: TEXT_BYTES_MAX as u32,
            name_bytes: NAME_BYTES_MAX as u32,
            group_members: GROUP_MEMBERS_MAX as u32,
            page_entries: PAGE_ENTRIES_MAX as u32,
            watch_users: WATCH_USERS_MAX as u32,
            sends_in_flight: SENDS_IN_FLIGHT_MAX as u32,
            sync_cursors: SYNC_CURSORS_MAX as u32,
            sync_cursors_total: SYNC_CURSORS_TOTAL_MAX as u32,
            ack_positions: ACK_POSITIONS_MAX as u32,
            gap_whole: GAP_WHOLE_MAX as u32,
            gap_tail: GAP_TAIL as u32,
            dedupe_window_s: DEDUPE_WINDOW_S,
            sessions_per_user: 20,
            keepalive_s: 20,
            dead_after_s: 45,
            sends_per_second: 50,
            blocks: BLOCKS_MAX as u32,
            leave_groups: LEAVE_GROUPS_MAX as u32,
            added_groups: 500,
        };
        assert_eq!(alice.welcome().limits, expected);
        assert_eq!(alice.welcome().user.as_str(), "alice");
        assert!(alice.welcome().server.starts_with("tern/"));
    }

    async fn a_text_has_1_byte_to_16_kib(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let error = alice.refused(to("bob", "")).await;
        assert_eq!((error.code, error.temporary), (Code::TEXT_EMPTY, false));
        // Bytes, not characters: 4-byte ones and a last of one byte too many.
        let most = "\u{1F426}".repeat(TEXT_BYTES_MAX / 4);
        let error = alice.refused(to("bob", &format!("{most}x"))).await;
        assert_eq!((error.code, error.temporary), (Code::TEXT_TOO_LONG, false));
        assert_eq!(alice.say("bob", &most).await.seq, 1);
        assert_eq!(alice.say("bob", "x").await.seq, 2);
        // Control characters, zero bytes and quotes are text like any other.
        let odd = "\u{0}\u{1}\n\r\t\u{7f}\"\\\u{2028}\u{feff}\u{202e}e\u{301}";
        assert_eq!(alice.say("bob", odd).await.seq, 3);
        let page = alice.fetch(newest(pair("alice", "bob"))).await;
        assert_eq!((text(&page.entries[0]), text(&page.entries[2])), (odd, most.as_str()));
    }

    async fn the_quota_belongs_to_the_user_and_reconnecting_does_not_reset_it(wire: Wire) {
        let server = loose()
            .set("QUOTA__USER_SENDS_PER_SECOND", "1")
            .set("QUOTA__USER_SENDS_BURST", "6")
            .start()
            .await;
        let mut first = RawClient::open(&server, wire, "alice").await;
        let mut second = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let mut refused = None;
        // Far fewer than a second brings, however slow this is: two connections share one quota.
        'sending: for _ in 0..200 {
            for client in [&mut first, &mut second] {
                if let Frame::Error(error) = client.ask(to("carol", "x")).await {
                    refused = Some(error);
                    break 'sending;
                }
            }
        }
        let error = refused.expect("the quota was met");
        assert_eq!((error.code, error.temporary), (Code::RATE_LIMITED, true));
        let wait = error.retry_after_ms.expect("a hint");
        assert!((1..=1000).contains(&wait), "{wait} ms");
        assert!(error.temp_id.is_some());
        let mut third = RawClient::open(&server, wire, "alice").await;
        match third.ask(to("dave", "x")).await {
            Frame::Error(error) => assert_eq!(error.code, Code::RATE_LIMITED),
            // A second has gone by.
            Frame::SendAck(_) => {}
            other => panic!("{other:?}"),
        }
        bob.say("carol", "others have their own").await;
    }
}

for_each_wire! {
    async fn a_flood_of_frames_is_refused_and_the_session_goes_on(wire: Wire) {
        let server = loose()
            .set("QUOTA__CONNECTION_FRAMES_PER_SECOND", "10")
            .set("QUOTA__CONNECTION_FRAMES_BURST", "20")
            .start()
            .await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        for nonce in 0..100 {
            alice.send(Ping { nonce }).await;
        }
        let (mut answered, mut refused) = (0, 0);
        for _ in 0..100 {
            match alice.recv().await {
                Frame::Pong(_) => answered += 1,
                Frame::Error(error) => {
                    assert_eq!((error.code, error.temporary), (Code::RATE_LIMITED, true));
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(answered >= 19 && refused > 0, "{answered} answered, {refused} refused");
        bob.settle().await;
        // Who waits as told is not refused again.
        let error = loop {
            if let Frame::Error(error) = alice.ask(Ping { nonce: 100 }).await {
                break error;
            }
        };
        let wait = error.retry_after_ms.expect("a hint");
        tokio::time::sleep(Duration::from_millis(wait.into())).await;
        alice.settle().await;
    }
}

on_a_wire! {
    async fn a_send_that_was_refused_by_a_flood_keeps_its_place(wire: Wire) {
        let server = loose()
            .set("QUOTA__CONNECTION_FRAMES_PER_SECOND", "10")
            .set("QUOTA__CONNECTION_FRAMES_BURST", "20")
            .start()
            .await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let sends: Vec<Send> = (0..60).map(|number| to("bob", &number.to_string())).collect();
        for send in &sends {
            alice.send(send.clone()).await;
        }
        let mut acked = Vec::new();
        let mut first_refused = None;
        for _ in &sends {
            match alice.recv().await {
                Frame::SendAck(ack) => acked.push(ack.temp_id),
                Frame::Error(error) => {
                    let code = error.code;
                    assert!([Code::RATE_LIMITED, Code::OUT_OF_ORDER].contains(&code), "{error:?}");
                    first_refused.get_or_insert(error.temp_id.expect("which send"));
                }
                other => panic!("{other:?}"),
            }
        }
        // The acked ones are a start of what was sent; the first refused one is the next.
        let start: Vec<_> = sends.iter().map(|send| send.temp_id).take(acked.len()).collect();
        assert_eq!(acked, start);
        assert_eq!(first_refused, sends.get(acked.len()).map(|send| send.temp_id));
    }
}

for_each_wire! {
    async fn a_session_with_too_many_unresolved_sends_is_closed(wire: Wire) {
        let server = loose()
            .set("QUOTA__USER_SENDS_PER_SECOND", "1")
            .set("QUOTA__USER_SENDS_BURST", "1")
            .start()
            .await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        // The first ones may be acked or refused; from then on each waits for the one before it.
        for number in 0..SENDS_IN_FLIGHT_MAX + 10 {
            alice.send(to("bob", &number.to_string())).await;
        }
        let end = alice.end().await;
        let close = end.close.expect("a Close");
        assert_eq!(close.code, Code::LIMIT_EXCEEDED);
        assert!(close.reason.contains("sends_in_flight"), "{}", close.reason);
        let refused = end.frames.iter().filter(|frame| matches!(frame, Frame::Error(_))).count();
        assert!(refused <= SENDS_IN_FLIGHT_MAX, "{refused} sends were unresolved");
    }
}

on_a_wire! {
    async fn lists_longer_than_their_limit_are_refused(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        alice.say("bob", "hi").await;
        let many = |count: usize| positions(&vec![(pair("alice", "bob"), 1); count]);
        let error = alice.refused(Ack { positions: many(ACK_POSITIONS_MAX + 1) }).await;
        assert_eq!(error.code, Code::LIMIT_EXCEEDED);
        alice.send(Ack { positions: many(ACK_POSITIONS_MAX) }).await;
        let error = alice.refused(Sync { cursors: many(SYNC_CURSORS_MAX + 1), more: false }).await;
        assert_eq!(error.code, Code::LIMIT_EXCEEDED);
        assert_eq!(alice.sync(&[]).await.changed, 1);
    }
}
