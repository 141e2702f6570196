//! Every end has a reason: the last frame carries its code, and so does the transport's own close.

use std::time::Duration;

use tern_protocol::{Close, Code, Frame, Hello, Ping, Pong, StreamKind, SyncEnd, Token};
use tern_tests::{Ended, QuicLink, RawClient, Server, Wire, for_each_wire, loose, pair, text, to, within};

/// The session ended with this code, in band and on the transport, with the same words.
fn assert_closed(wire: Wire, end: &Ended, code: Code) {
    let close = end.close.as_ref().unwrap_or_else(|| panic!("no Close: {end:?}"));
    assert_eq!(close.code, code, "{end:?}");
    assert_eq!(end.transport.code, Some(wire.close_code(code)), "{end:?}");
    assert_eq!(end.transport.reason, close.reason);
    assert!(!close.reason.is_empty(), "{end:?}");
}

for_each_wire! {
    async fn a_client_that_says_goodbye_gets_it_back(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        // What was sent before is still worked off.
        alice.send(to("bob", "my last words")).await;
        let end = alice.leave().await;
        assert_closed(wire, &end, Code::NORMAL);
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let mut entries = bob.sync(&[]).await.entries;
        if entries.is_empty() {
            // It was still on its way to the log.
            entries.insert(pair("alice", "bob"), vec![bob.entry(pair("alice", "bob")).await]);
        }
        assert_eq!(text(&entries[&pair("alice", "bob")][0]), "my last words");
        server.metric_becomes(&format!("tern_connections{{transport=\"{}\"}}", wire.label()), |open| open == 1.0).await;
    }

    async fn a_clients_own_transport_close_ends_the_session(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        match wire {
            Wire::Quic | Wire::WebTransport => alice.quic().close(4000, "I do not like it here"),
            Wire::WebSocketBinary | Wire::WebSocketJson => {
                let message = tokio_tungstenite::tungstenite::Message::Close(None);
                alice.websocket().send_message(message).await;
            }
        }
        server.metric_becomes(&format!("tern_connections{{transport=\"{}\"}}", wire.label()), |open| open == 0.0).await;
    }

    async fn whoever_does_not_say_hello_in_time_is_closed(wire: Wire) {
        let server = loose().set("TRANSPORT__HELLO_TIMEOUT_MS", "300").start().await;
        let mut silent = RawClient::connect(&server, wire).await;
        let end = silent.end().await;
        assert_eq!(end.transport.code, Some(wire.close_code(Code::HELLO_TIMEOUT)), "{end:?}");
        if wire == Wire::Quic {
            // A stream on which nothing was sent does not exist for the server.
            assert_eq!(end.close, None);
            // One with half a frame does.
            let mut slow = RawClient::connect(&server, wire).await;
            slow.send_bytes(&[200]).await;
            assert_closed(wire, &slow.end().await, Code::HELLO_TIMEOUT);
        } else {
            assert_closed(wire, &end, Code::HELLO_TIMEOUT);
        }
    }

    async fn the_first_frame_must_be_hello(wire: Wire) {
        let server = Server::start().await;
        for frame in [Frame::from(to("bob", "hi")), Ping { nonce: 1 }.into(), SyncEnd { changed: 0 }.into()] {
            let mut client = RawClient::connect(&server, wire).await;
            client.send(frame).await;
            let end = client.end().await;
            assert_closed(wire, &end, Code::UNEXPECTED_FRAME);
            assert!(end.frames.is_empty(), "{end:?}");
        }
    }

    async fn a_second_hello_and_frames_of_servers_are_refused_and_the_session_goes_on(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let hello = Hello { token: Token(server.token("bob")), device: None, agent: None, features: 0 };
        let error = alice.refused(hello).await;
        assert_eq!((error.code, error.temporary), (Code::UNEXPECTED_FRAME, false));
        let error = alice.refused(SyncEnd { changed: 0 }).await;
        assert_eq!(error.code, Code::UNEXPECTED_FRAME);
        assert!(error.detail.contains("sync_end"), "{}", error.detail);
        assert_eq!(alice.say("carol", "still alice").await.conversation, pair("alice", "carol"));
    }

    async fn one_session_too_many_ends_the_users_oldest(wire: Wire) {
        let server = loose().set("SESSION__SESSIONS_PER_USER", "2").start().await;
        let mut first = RawClient::open(&server, wire, "alice").await;
        let mut second = RawClient::open(&server, wire, "alice").await;
        assert_eq!(first.welcome().limits.sessions_per_user, 2);
        let _other = RawClient::open(&server, wire, "bob").await;
        first.settle().await;
        let mut third = RawClient::open(&server, wire, "alice").await;
        assert_closed(wire, &first.end().await, Code::SESSION_REPLACED);
        second.settle().await;
        third.settle().await;
    }

    async fn a_client_that_is_silent_is_taken_for_dead_and_one_that_pings_is_not(wire: Wire) {
        // Dead after 2 × 1 + 5 s.
        let server = loose().set("TRANSPORT__KEEPALIVE_S", "1").start().await;
        let mut alive = RawClient::open(&server, wire, "alice").await;
        let limits = alive.welcome().limits.clone();
        assert_eq!((limits.keepalive_s, limits.dead_after_s), (1, 7));
        let mut silent = RawClient::open(&server, wire, "bob").await;
        let pinging = async {
            loop {
                alive.settle().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let end = async {
            if !matches!(wire, Wire::Quic | Wire::WebTransport) {
                // Who reads answers the server's pings as well.
                server.metric_becomes("tern_sessions", |left| left == 1.0).await;
            }
            silent.end().await
        };
        let end = tokio::select! {
            end = end => end,
            () = pinging => unreachable!("it does not end"),
        };
        if matches!(wire, Wire::Quic | Wire::WebTransport) {
            // Either side of the connection may notice first.
            assert!(matches!(end.transport.code, None | Some(4303)), "{end:?}");
        } else {
            assert_closed(wire, &end, Code::HEARTBEAT_TIMEOUT);
        }
        alive.settle().await;
    }

    async fn a_ping_comes_back_with_its_number(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        for nonce in [0, 1, u64::from(u32::MAX) + 1] {
            assert_eq!(alice.ask(Ping { nonce }).await, Pong { nonce }.into());
        }
    }

    async fn a_reason_of_a_client_is_its_own_affair(wire: Wire) {
        let server = loose().env("RUST_LOG", "tern=trace").start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let reason = "x\r\nINFO forged line\u{1b}[31m".repeat(4);
        alice.send(Close { code: Code(4999), reason, retry_after_ms: None, target: None }).await;
        assert_closed(wire, &alice.end().await, Code::NORMAL);
        assert!(!server.log().contains("\nINFO forged"), "{}", server.log());
    }
}

#[tokio::test]
async fn only_the_first_stream_of_a_client_is_read() {
    let server = Server::start().await;
    for wire in [Wire::Quic, Wire::WebTransport] {
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let (mut send, mut receive) = alice.quic().session.open_bi().await.unwrap();
        send.write_all(&[0; 10]).await.unwrap();
        let stopped = within("STOP_SENDING", send.stopped()).await.unwrap();
        assert_eq!(stopped, Some(Code::UNEXPECTED_FRAME.0.into()), "{wire:?}");
        let read = within("RESET", receive.read_to_end(1024)).await;
        assert!(read.is_err(), "{wire:?}: {read:?}");
        let mut send = alice.quic().session.open_uni().await.unwrap();
        send.write_all(&[StreamKind::Inbox as u8]).await.unwrap();
        let stopped = within("STOP_SENDING", send.stopped()).await.unwrap();
        assert_eq!(stopped, Some(Code::UNEXPECTED_FRAME.0.into()), "{wire:?}");
        alice.say("bob", "goes on").await;
    }
}

#[tokio::test]
async fn another_alpn_is_no_connection() {
    let server = Server::start().await;
    for alpn in [&b"h3-29"[..], b"tern/2", b"http/1.1"] {
        let error = QuicLink::refused(&server, alpn).await.to_string();
        assert!(error.contains("application protocol") || error.contains("120"), "{error}");
    }
}
