//! What a stranger sends over HTTP/3 costs a bounded amount of memory and time, and the others nothing.

use std::time::Duration;

use quinn::{SendStream, WriteError};
use tern_protocol::{Code, Frame, Hello, Token};
use tern_tests::http3::*;
use tern_tests::meter::resident_bytes;
use tern_tests::{RawClient, Server, Wire, fresh, loose, pair, to, within};

/// Bytes that are sent where the server takes a few thousand.
const FLOOD_BYTES: usize = 300 * 1024 * 1024;
/// Most that the memory of the server may grow by meanwhile.
const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// `H3_FRAME_UNEXPECTED`.
const FRAME_UNEXPECTED: u64 = 0x105;
/// `H3_DATAGRAM_ERROR`.
const DATAGRAM_ERROR: u64 = 0x33;

/// Sends until the server stops the stream or the connection, or everything is sent; how much was.
async fn flood(send: &mut SendStream) -> (usize, Option<WriteError>) {
    let chunk = vec![0x20; 64 * 1024];
    let mut sent = 0;
    while sent < FLOOD_BYTES {
        match within("room to send", send.write(&chunk)).await {
            Ok(written) => sent += written,
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_end_leave_the_memory_flat() {
    let server = Server::start().await;
    let mut others = RawClient::open(&server, Wire::Quic, "alice").await;
    let before = resident_bytes(&server);
    let long = FLOOD_BYTES as u64;
    let header = frame(HEADERS, &section(&get("/")));
    let session = frame(HEADERS, &section(&CONNECT));
    let cases: [(&str, Vec<u8>); 6] = [
        ("HEADERS", head(HEADERS, long)),
        ("an unknown frame before HEADERS", head(0x21, long)),
        ("trailers", [header.clone(), frame(DATA, b"x"), head(HEADERS, long)].concat()),
        ("an unknown frame in a session", [session.clone(), head(0x21, long)].concat()),
        ("a capsule in a session", [session, head(DATA, long), head(0x17, long - 9)].concat()),
        ("a frame of HTTP/2", head(0x08, long)),
    ];
    for (what, start) in &cases {
        let client = Http3::connect(&server).await;
        let (mut send, _recv) = client.open(start).await;
        let (sent, error) = flood(&mut send).await;
        println!("{what}: {sent} bytes were taken, then {error:?}");
        assert!(error.is_some() && sent < 8 * 1024 * 1024, "{what}: {sent} bytes were taken");
        others.say("bob", what).await;
    }
    for (what, start) in [("SETTINGS", head(SETTINGS, long)), ("an unknown frame", head(0x21, long))] {
        let client = Http3::dial(&server).await;
        let mut control = client.open_uni(&[varint(0), start].concat()).await;
        let (sent, error) = flood(&mut control).await;
        assert!(error.is_some() && sent < 8 * 1024 * 1024, "{what}: {sent} bytes were taken");
        assert_eq!(client.closed().await.code, Some(EXCESSIVE_LOAD), "{what} on the control stream");
    }
    let grown = resident_bytes(&server).saturating_sub(before);
    println!("the server grew by {} KiB", grown / 1024);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    others.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_without_end_leave_the_memory_flat() {
    let server = Server::start().await;
    let client = Http3::connect(&server).await;
    let before = resident_bytes(&server);
    // A body of a byte a frame, empty frames, and frames of no use, a million of each.
    let data = [head(DATA, 1), vec![0]].concat().repeat(1024);
    let empty = head(DATA, 0).repeat(1024);
    let unknown = frame(0x21, b"").repeat(1024);
    for (what, chunk) in [("data", data), ("empty", empty), ("unknown", unknown)] {
        let start = [frame(HEADERS, &section(&get("/"))), Vec::new()].concat();
        let (mut send, _recv) = client.open(&start).await;
        for _ in 0..1000 {
            // The server may have answered, and then it takes no more.
            if within("room to send", send.write_all(&chunk)).await.is_err() {
                break;
            }
        }
        let _ = send.finish();
        println!("{what}: {} KiB", resident_bytes(&server) / 1024);
    }
    let mut session = client.session().await;
    let chunk = [head(DATA, 1), vec![0]].concat().repeat(1024);
    while session.send.write_all(&chunk).await.is_ok() {}
    let grown = resident_bytes(&server).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
}

fn hello(server: &Server, name: &str) -> Hello {
    let device = Some(tern_protocol::DeviceId::new(&fresh().to_string()).unwrap());
    Hello { token: Token(server.token(name)), device, agent: None, features: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capsules_that_may_not_be_end_their_session_and_no_other() {
    let server = Server::start().await;
    let client = Http3::connect(&server).await;
    let staying = client.session().await;
    let mut control = staying.open().await;
    control.send(hello(&server, "alice")).await;
    assert!(matches!(control.next().await, Some(Frame::Welcome(_))));
    let long = "x".repeat(1025);
    let cases: [(&str, Vec<u8>); 5] = [
        ("a capsule of 2^62 bytes", head(0x17, (1 << 62) - 1)),
        ("a close without a code", frame(CLOSE_CAPSULE, b"abc")),
        ("a reason that is too long", frame(CLOSE_CAPSULE, format!("code{long}").as_bytes())),
        ("a reason that is no text", frame(CLOSE_CAPSULE, b"code\xff\xff")),
        ("a flood of capsules", frame(0x17, b"").repeat(40_000)),
    ];
    for (what, capsule) in cases {
        let mut session = client.session().await;
        let mut control = session.open().await;
        control.send(hello(&server, "bob")).await;
        assert!(matches!(control.next().await, Some(Frame::Welcome(_))), "{what}");
        let _ = session.send.write_all(&frame(DATA, &capsule)).await;
        assert_eq!(session.closed().await.code, Some(Code::MALFORMED.0.into()), "{what}");
    }
    control.send(to("bob", "still here")).await;
    assert!(matches!(control.next().await, Some(Frame::SendAck(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_the_protocol_is_closed_with_the_code_that_says_so() {
    let server = Server::start().await;
    let session_2 = head(SESSION_BIDI, 2);
    let cases: [(&str, Vec<u8>, u64); 3] = [
        ("a session id of no request", session_2, ID_ERROR),
        ("DATA before HEADERS", frame(DATA, b"x"), FRAME_UNEXPECTED),
        ("GOAWAY on a request", frame(0x07, &[0]), FRAME_UNEXPECTED),
    ];
    for (what, bytes, code) in cases {
        let client = Http3::connect(&server).await;
        let _stream = client.open(&bytes).await;
        assert_eq!(client.closed().await.code, Some(code), "{what}");
    }
    let uni: [(&str, Vec<u8>, u64); 4] = [
        ("a push", varint(1), 0x103),
        ("a second control stream", [varint(0), frame(SETTINGS, &[])].concat(), 0x103),
        ("no SETTINGS first", [varint(0), frame(0x07, &[0])].concat(), 0x10a),
        ("a setting of HTTP/2", [varint(0), frame(SETTINGS, &head(0x02, 1))].concat(), 0x109),
    ];
    for (what, bytes, code) in uni {
        let second = what.starts_with("a second") || what == "a push";
        let client = if second { Http3::connect(&server).await } else { Http3::dial(&server).await };
        let _stream = client.open_uni(&bytes).await;
        assert_eq!(client.closed().await.code, Some(code), "{what}");
    }
    for bytes in [&[][..], &[0x40], &[0xff; 8]] {
        let client = Http3::connect(&server).await;
        client.connection.send_datagram(bytes.to_vec().into()).unwrap();
        assert_eq!(client.closed().await.code, Some(DATAGRAM_ERROR), "{bytes:?}");
    }
    // A malformed request ends its stream only.
    let client = Http3::connect(&server).await;
    for fields in [&[(":method", "GET")][..], &[(":path", "/"), (":scheme", "https")]] {
        let (_send, mut recv) = client.open(&frame(HEADERS, &section(fields))).await;
        within("a reset", recv.read_to_end(1000)).await.expect_err("malformed");
    }
    assert_eq!(client.request(&get("/")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_nothing_is_let_go() {
    let server = loose().set("TRANSPORT__HELLO_TIMEOUT_MS", "300").start().await;
    // Nothing at all; SETTINGS only; half a header; a session without a control stream or without hello.
    let silent = Http3::dial(&server).await;
    let polite = Http3::connect(&server).await;
    let slow = Http3::connect(&server).await;
    let _half = slow.open(&[0x01, 0x20, 0x00]).await;
    for client in [&silent, &polite, &slow] {
        assert_eq!(client.closed().await.code, Some(NO_ERROR));
    }
    let client = Http3::connect(&server).await;
    let mut session = client.session().await;
    assert_eq!(session.closed().await.code, Some(Code::HELLO_TIMEOUT.0.into()));
    let client = Http3::connect(&server).await;
    let mut session = client.session().await;
    let _control = session.open().await;
    assert_eq!(session.closed().await.code, Some(Code::HELLO_TIMEOUT.0.into()));
    assert_eq!(client.closed().await.code, Some(NO_ERROR));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_session_that_never_comes_are_kept_by_the_dozen_and_not_for_long() {
    let server = loose().set("TRANSPORT__HELLO_TIMEOUT_MS", "1000").start().await;
    let client = Http3::connect(&server).await;
    // A session that does come keeps the connection in use.
    let session = client.session().await;
    let mut control = session.open().await;
    control.send(hello(&server, "alice")).await;
    assert!(matches!(control.next().await, Some(Frame::Welcome(_))));
    let mut streams = Vec::new();
    for _ in 0..12 {
        streams.push(client.open(&head(SESSION_BIDI, 400)).await.1);
    }
    let mut uni = Vec::new();
    for _ in 0..6 {
        uni.push(client.open_uni(&head(SESSION_UNI, 400)).await);
    }
    for recv in &mut streams {
        within("a reset", recv.read_to_end(10)).await.expect_err("refused");
    }
    for send in &mut uni {
        assert!(within("a stop", send.stopped()).await.unwrap().is_some());
    }
    control.send(to("bob", "still here")).await;
    assert!(matches!(control.next().await, Some(Frame::SendAck(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_come_to_nothing_end_the_connection_when_there_are_too_many() {
    let server = Server::start().await;
    let mut others = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    let request = frame(HEADERS, &section(&get("/")));
    let cases: [(&str, &[u8]); 3] = [
        ("reset at once", &[]),
        ("reset within the header", &request[..4]),
        ("garbage", &[0x40, 0x41, 0xff]),
    ];
    for (what, bytes) in cases {
        let client = Http3::connect(&server).await;
        let mut opened = 0;
        while let Ok(Ok((mut send, _))) =
            tokio::time::timeout(Duration::from_secs(20), client.connection.open_bi()).await
        {
            let _ = send.write_all(bytes).await;
            let _ = send.reset(quinn::VarInt::from_u32(0x10c));
            opened += 1;
            assert!(opened < 100_000, "{what}: never closed");
        }
        println!("{what}: closed after {opened} streams");
        assert_eq!(client.closed().await.code, Some(EXCESSIVE_LOAD), "{what}");
        others.say("bob", what).await;
    }
    let client = Http3::connect(&server).await;
    let mut opened = 0;
    while let Ok(mut send) = client.connection.open_uni().await {
        let _ = send.write_all(&varint(0x21)).await;
        let _ = send.finish();
        opened += 1;
        assert!(opened < 100_000, "never closed");
    }
    assert_eq!(client.closed().await.code, Some(EXCESSIVE_LOAD), "unknown types");
}

/// `H3_REQUEST_CANCELLED`.
const CANCELLED: u32 = 0x10c;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_takes_is_given_up() {
    let server = loose().set("TRANSPORT__ANSWER_TIMEOUT_MS", "1000").start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    // More than a client has room for that does not read.
    for _ in 0..150 {
        alice.say("bob", &"x".repeat(15_000)).await;
    }
    let path = format!("/v1/history/{}?limit=200", pair("alice", "bob"));
    let authorization = format!("Bearer {}", server.token("alice"));
    let client = Http3::connect(&server).await;
    let fields = [&get(&path)[..], &[("authorization", authorization.as_str())]].concat();
    let (_send, mut recv) = client.open(&frame(HEADERS, &section(&fields))).await;
    let reset = within("the end of the answer", recv.received_reset()).await;
    assert_eq!(reset.expect("a connection"), Some(CANCELLED.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_and_sessions_one_after_the_other_leave_the_memory_flat() {
    let server = Server::start().await;
    let client = Http3::connect(&server).await;
    let ask = async |count| {
        for _ in 0..count {
            assert_eq!(client.request(&get("/")).await.status, 200);
        }
    };
    ask(500).await;
    let before = resident_bytes(&server);
    ask(3000).await;
    for _ in 0..500 {
        let mut session = client.session().await;
        session.close(0, "").await;
        session.closed().await;
    }
    let grown = resident_bytes(&server).saturating_sub(before);
    println!("the server grew by {} KiB", grown / 1024);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes");
}
