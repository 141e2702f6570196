//! Bad input gets a clear answer and costs nobody else anything.

use std::time::Duration;

use tern_protocol::{
    Ack, BAD_FRAMES_MAX, Code, ConversationId, Envelope, FRAME_BYTES_MAX, Fetch, Frame, Ping, Read, encode,
};
use tern_tests::http::address;
use tern_tests::{
    RawClient, Server, Wire, for_each_wire, loose, newest, on_a_wire, pair, positions, to, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WebSocketFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// Type, flags, body, with their length before them.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = varint(payload.len() as u64);
    bytes.extend_from_slice(payload);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Malformed frames after each of which the session goes on, with the code of the answer.
fn malformed(wire: Wire) -> Vec<(&'static str, Vec<u8>, Code)> {
    if wire == Wire::WebSocketJson {
        let nested = "[".repeat(50_000);
        let texts = [
            ("not JSON", "{\"type\":\"ping\"".to_owned()),
            ("empty", String::new()),
            ("not an object", "[1,2,3]".to_owned()),
            ("nested deeply", nested),
            ("type is a number", r#"{"type":6}"#.to_owned()),
            ("a field is missing", r#"{"type":"fetch"}"#.to_owned()),
            ("a field has another type", r#"{"to":"bob","text":7}"#.to_owned()),
            ("a number is negative", r#"{"type":"ping","nonce":-1}"#.to_owned()),
            ("a request id is text", r#"{"type":"ping","request_id":"1"}"#.to_owned()),
            ("no user id", "{\"to\":\"\",\"text\":\"x\"}".to_owned()),
            ("no conversation id", r#"{"to":"c:nonsense","text":"x"}"#.to_owned()),
            ("a control character in an id", r#"{"to":"a\u0000b","text":"x"}"#.to_owned()),
            ("no UUID", r#"{"to":"bob","text":"x","temp_id":"1"}"#.to_owned()),
        ];
        let mut list: Vec<_> = texts.map(|(what, text)| (what, text.into_bytes(), Code::MALFORMED)).into();
        let unknown = br#"{"type":"nonsense"}"#.to_vec();
        list.push(("an unknown type", unknown, Code::UNKNOWN_CRITICAL));
        return list;
    }
    let ping = encode(&Envelope::from(Ping { nonce: 1 }));
    let mut trailing = ping[1..].to_vec();
    trailing.push(0);
    let mut bad_utf8 = encode(&Envelope::from(to("bob", "text!")));
    let place = bad_utf8.windows(5).position(|window| window == b"text!").expect("the text");
    bad_utf8[place] = 0xff;
    // sync, critical, a list that claims 2^32 - 1 cursors.
    let mut claims = vec![24, 1];
    claims.extend(varint(u64::from(u32::MAX)));
    vec![
        ("empty", framed(&[]), Code::MALFORMED),
        ("no flags", framed(&[6]), Code::MALFORMED),
        ("a type of more than 5 bytes", framed(&[0xff; 6]), Code::MALFORMED),
        ("a reserved flag", framed(&[6, 0x81, 1]), Code::MALFORMED),
        (
            "a request id of more than 10 bytes",
            framed(&[[6, 3].as_slice(), &[0xff; 11]].concat()),
            Code::MALFORMED,
        ),
        ("a body that ends too soon", framed(&[6, 1]), Code::MALFORMED),
        ("bytes after the body", framed(&trailing), Code::MALFORMED),
        ("not UTF-8", bad_utf8, Code::MALFORMED),
        ("a list longer than its frame", framed(&claims), Code::MALFORMED),
        ("an unknown critical type", framed(&[0xff, 0x7f, 1, 1, 2, 3]), Code::UNKNOWN_CRITICAL),
    ]
}

for_each_wire! {
    async fn a_malformed_frame_gets_an_answer_and_the_session_goes_on(wire: Wire) {
        let server = Server::start().await;
        for (what, bytes, code) in malformed(wire) {
            let mut alice = RawClient::open(&server, wire, "alice").await;
            alice.send_bytes(&bytes).await;
            match alice.recv().await {
                Frame::Error(error) => {
                    assert_eq!((error.code, error.temporary), (code, false), "{what}: {}", error.detail);
                    assert!(!error.detail.is_empty(), "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
            alice.settle().await;
        }
        let mut alice = RawClient::open(&server, wire, "alice").await;
        assert_eq!(alice.say("bob", "nothing of it was a message").await.seq, 1);
    }

    async fn a_malformed_first_frame_is_a_close(wire: Wire) {
        let server = Server::start().await;
        for (what, bytes, code) in malformed(wire) {
            let mut client = RawClient::connect(&server, wire).await;
            client.send_bytes(&bytes).await;
            let end = client.end().await;
            let close = end.close.unwrap_or_else(|| panic!("{what}: no Close"));
            assert_eq!(close.code, code, "{what}: {}", close.reason);
            assert_eq!(end.transport.code, Some(code.0.into()), "{what}");
        }
    }

    async fn the_20th_malformed_frame_is_the_last(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let (_, bytes, _) = &malformed(wire)[1];
        for _ in 1..BAD_FRAMES_MAX {
            alice.send_bytes(bytes).await;
        }
        alice.settle().await;
        alice.send_bytes(bytes).await;
        let end = alice.end().await;
        assert_eq!(end.close.expect("a Close").code, Code::TOO_MANY_ERRORS);
        assert_eq!(end.transport.code, Some(Code::TOO_MANY_ERRORS.0.into()));
        assert_eq!(end.frames.len() as u32, BAD_FRAMES_MAX - 1);
        bob.settle().await;
    }

    async fn a_frame_over_its_limit_is_refused_before_it_is_read(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let expected = match wire {
            Wire::Quic | Wire::WebTransport => {
                // Only the length: the rest never comes.
                alice.send_bytes(&varint(FRAME_BYTES_MAX as u64 + 1)).await;
                u64::from(Code::FRAME_TOO_LARGE.0)
            }
            Wire::WebSocketBinary => {
                alice.send_bytes(&varint(u64::from(u32::MAX))).await;
                u64::from(Code::FRAME_TOO_LARGE.0)
            }
            Wire::WebSocketJson => {
                let text = format!(r#"{{"to":"bob","text":"{}"}}"#, "x".repeat(2 * FRAME_BYTES_MAX));
                alice.send_bytes(text.as_bytes()).await;
                u64::from(Code::FRAME_TOO_LARGE.0)
            }
        };
        let end = alice.end().await;
        assert_eq!(end.close.as_ref().map(|close| close.code), Some(Code::FRAME_TOO_LARGE), "{end:?}");
        assert_eq!(end.transport.code, Some(expected), "{end:?}");
    }
}

on_a_wire! {
    async fn positions_and_cursors_above_the_head_are_refused(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        alice.say("bob", "hi").await;
        let conversation = pair("alice", "bob");
        for seq in [2, u64::from(u32::MAX), u64::MAX] {
            let above = positions(&[(conversation, seq)]);
            assert_eq!(alice.refused(Ack { positions: above }).await.code, Code::CURSOR_AHEAD, "{seq}");
            assert_eq!(alice.refused(Read { conversation, seq }).await.code, Code::CURSOR_AHEAD, "{seq}");
        }
        for seq in [0, 1] {
            alice.send(Ack { positions: positions(&[(conversation, seq)]) }).await;
            alice.send(Read { conversation, seq }).await;
        }
        // Read is answered by nothing when all is well.
        let page = alice.fetch(Fetch { after: Some(u64::MAX), ..newest(conversation) }).await;
        assert!(page.entries.is_empty());
        alice.settle().await;
        assert_eq!(alice.unread().count(), 0, "{:?}", alice.unread().collect::<Vec<_>>());
    }

    async fn ids_that_mean_nothing_here_are_not_found(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        for id in [[0; 16], [0xff; 16]] {
            let conversation = ConversationId::from_bytes(id);
            assert_eq!(alice.refused(newest(conversation)).await.code, Code::NOT_FOUND);
            let send = tern_tests::message(tern_protocol::Target::Conversation(conversation), "x");
            assert_eq!(alice.refused(send).await.code, Code::NOT_FOUND);
            assert_eq!(alice.refused(Read { conversation, seq: 1 }).await.code, Code::NOT_FOUND);
        }
    }
}

for_each_wire! {
    /// All of it at once, while two others talk.
    async fn others_go_on_talking_while_garbage_comes(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let attackers = (0..10).map(|number| {
            let server = &server;
            async move {
                for (_, bytes, _) in malformed(wire) {
                    let mut attacker = RawClient::open(server, wire, &format!("attacker{number}")).await;
                    attacker.send_bytes(&bytes).await;
                    attacker.recv().await;
                }
            }
        });
        let talking = async {
            for number in 1..=50 {
                assert_eq!(alice.say("bob", "hi").await.seq, number);
                assert_eq!(bob.entry(pair("alice", "bob")).await.seq, number);
            }
        };
        tokio::join!(futures_util::future::join_all(attackers), talking);
    }
}

#[tokio::test]
async fn an_unknown_frame_that_is_not_critical_is_skipped() {
    let server = Server::start().await;
    for wire in [Wire::Quic, Wire::WebTransport, Wire::WebSocketBinary] {
        let mut alice = RawClient::open(&server, wire, "alice").await;
        for _ in 0..2 * BAD_FRAMES_MAX {
            alice.send_bytes(&framed(&[0xff, 0x7f, 0, 1, 2, 3])).await;
        }
        alice.settle().await;
        assert_eq!(alice.unread().count(), 0);
    }
}

#[tokio::test]
async fn the_answer_to_a_broken_request_carries_its_number() {
    let server = Server::start().await;
    for wire in [Wire::Quic, Wire::WebTransport, Wire::WebSocketBinary] {
        let mut alice = RawClient::open(&server, wire, "alice").await;
        alice.send_bytes(&framed(&[0xff, 0x7f, 3, 42, 1])).await;
        alice.send_bytes(&framed(&[28, 3, 43])).await;
        for (request, code) in [(42, Code::UNKNOWN_CRITICAL), (43, Code::MALFORMED)] {
            let answer = alice.next().await.expect("an answer");
            assert_eq!(answer.request, Some(request));
            assert!(matches!(answer.frame, Frame::Error(error) if error.code == code));
        }
    }
    let mut alice = RawClient::open(&server, Wire::WebSocketJson, "alice").await;
    alice.send_bytes(br#"{"type":"fetch","request_id":44}"#).await;
    assert_eq!(alice.next().await.expect("an answer").request, Some(44));
}

#[tokio::test]
async fn a_stream_or_message_that_ends_inside_a_frame_is_a_close() {
    let server = Server::start().await;
    let whole = encode(&Envelope::from(to("bob", "hello")));
    for cut in 1..whole.len() {
        for wire in [Wire::Quic, Wire::WebTransport] {
            let mut alice = RawClient::open(&server, wire, "alice").await;
            alice.send_bytes(&whole[..cut]).await;
            alice.quic().finish();
            let end = alice.end().await;
            assert_eq!(end.close.as_ref().map(|close| close.code), Some(Code::MALFORMED), "{cut}: {end:?}");
        }
        let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
        alice.send_bytes(&whole[..cut]).await;
        let end = alice.end().await;
        assert_eq!(end.close.as_ref().map(|close| close.code), Some(Code::MALFORMED), "{cut}: {end:?}");
    }
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    assert_eq!(alice.say("bob", "none of them counted").await.seq, 1);
}

#[tokio::test]
async fn a_websocket_message_of_the_other_kind_is_a_close() {
    let server = Server::start().await;
    let not_utf8 = WebSocketFrame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    let table = [
        (Wire::WebSocketBinary, Message::text("{}"), 1003),
        (Wire::WebSocketJson, Message::binary(vec![1, 6, 1]), 1003),
        (Wire::WebSocketJson, Message::Frame(not_utf8), 1007),
    ];
    for (wire, message, code) in table {
        let mut alice = RawClient::open(&server, wire, "alice").await;
        alice.websocket().send_message(message).await;
        let end = alice.end().await;
        assert_eq!(end.close.as_ref().map(|close| close.code), Some(Code::MALFORMED), "{end:?}");
        assert_eq!(end.transport.code, Some(code), "{end:?}");
    }
}

#[tokio::test]
async fn a_flood_of_pings_or_empty_fragments_is_a_close() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    for _ in 0..200 {
        alice.websocket().send_message(Message::Ping(Vec::new().into())).await;
    }
    assert_eq!(alice.end().await.transport.code, Some(1008));
    let mut alice = RawClient::open(&server, Wire::WebSocketJson, "alice").await;
    for number in 0..200_000 {
        let kind = if number == 0 { Data::Binary } else { Data::Continue };
        let fragment = WebSocketFrame::message(Vec::new(), OpCode::Data(kind), false);
        alice.websocket().send_message(Message::Frame(fragment)).await;
    }
    // The close may be lost when the rest of the flood meets a closed socket.
    let end = alice.end().await;
    assert!(matches!(end.transport.code, Some(1008) | None), "{end:?}");
    RawClient::open(&server, Wire::Quic, "bob").await.settle().await;
}

#[tokio::test]
async fn slow_and_oversized_headers_and_handshakes_are_cut_off() {
    let server = loose().set("TRANSPORT__HANDSHAKE_TIMEOUT_MS", "500").start().await;
    let http = address(&server.ready().http_url);
    // A header that never ends, and one that says nothing; TLS that never begins.
    let mut slow = TcpStream::connect(http).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    let mut silent_tls = TcpStream::connect(server.ready().quic_addr).await.unwrap();
    let ended = |stream: TcpStream| async move {
        let mut stream = stream;
        within("the end of the connection", stream.read_to_end(&mut Vec::new())).await
    };
    let mut oversized = TcpStream::connect(http).await.unwrap();
    let header = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    let _ = oversized.write_all(header.as_bytes()).await;
    let mut many = TcpStream::connect(http).await.unwrap();
    let header = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    let _ = many.write_all(header.as_bytes()).await;
    for stream in [&mut oversized, &mut many] {
        let mut answer = Vec::new();
        let _ = within("an answer", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
    }
    let mut byte = [0];
    let read = within("the end of the handshake", silent_tls.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let _ = ended(slow).await;
    RawClient::open(&server, Wire::WebSocketJson, "alice").await.settle().await;
}

#[tokio::test]
async fn random_datagrams_disturb_nobody() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 5, 20, 100, 1199, 1200, 1400] {
        for _ in 0..50 {
            let mut bytes = vec![0; length];
            rand::fill(&mut bytes[..]);
            socket.send_to(&bytes, server.ready().quic_addr).await.unwrap();
        }
        alice.settle().await;
    }
    // A long header with a version that nobody speaks is answered with fewer bytes than it had.
    let mut unknown = vec![0; 1200];
    rand::fill(&mut unknown[..]);
    unknown[..7].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1]);
    unknown[14] = 8;
    socket.send_to(&unknown, server.ready().quic_addr).await.unwrap();
    let mut answer = [0; 2048];
    let read = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut answer)).await;
    if let Ok(Ok(length)) = read {
        assert!(length <= 1200, "{length} bytes");
    }
    RawClient::open(&server, Wire::Quic, "bob").await.settle().await;
}
