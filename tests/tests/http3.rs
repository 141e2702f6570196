//! HTTP/3 and WebTransport: sessions beside requests, and bounds on all that a stranger may send.

use quinn::VarInt;
use tern_protocol::{Code, Envelope, Frame, Hello, Target, Token, Typing};
use tern_tests::http::Http;
use tern_tests::http3::*;
use tern_tests::{Caught, RawClient, Server, Wire, fresh, loose, to, within};

/// Opens the control stream of a session and says hello.
async fn greet(server: &Server, session: &ConnectStream, name: &str) -> Control {
    let mut control = session.open().await;
    control.send(hello(server, name)).await;
    match control.next().await {
        Some(Frame::Welcome(_)) => control,
        other => panic!("not welcome: {other:?}"),
    }
}

fn hello(server: &Server, name: &str) -> Hello {
    let device = Some(tern_protocol::DeviceId::new(&fresh().to_string()).unwrap());
    Hello { token: Token(server.token(name)), device, agent: None, features: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sends_and_is_delivered_to_on_streams_of_its_own() {
    let server = Server::start().await;
    let client = Http3::connect(&server).await;
    let session = client.session().await;
    let mut alice = greet(&server, &session, "alice").await;
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;

    alice.send(Envelope { request: Some(1), frame: to("bob", "over HTTP/3").into() }).await;
    let Some(Frame::SendAck(ack)) = alice.next().await else { panic!("no ack") };
    assert_eq!(bob.delivery().await.entries[0].seq, ack.seq);

    let back = bob.say("alice", "over QUIC").await;
    let (id, mut entries) = ServerStreams(&client).next().await;
    assert_eq!(id, session.id);
    let Some(Frame::Deliver(deliver)) = entries.next().await else { panic!("no entry") };
    assert_eq!((deliver.conversation, deliver.entries[0].seq), (ack.conversation, back.seq));
}

/// Waits until the server counts this many WebTransport sessions.
async fn sessions_become(server: &Server, count: f64) {
    server.metric_becomes(r#"tern_connections{transport="webtransport"}"#, |open| open == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_sessions_share_a_connection_with_requests_and_do_not_disturb_each_other() {
    let server = Server::start().await;
    let client = Http3::connect(&server).await;
    // A request first, so that no session has stream 0.
    assert_eq!(client.request(&get("/")).await.status, 200);
    let mut first = client.session().await;
    let second = client.session().await;
    assert!(first.id > 0 && second.id > first.id);
    let mut alice = greet(&server, &first, "alice").await;
    let mut bob = greet(&server, &second, "bob").await;
    sessions_become(&server, 2.0).await;

    // Each sees what is meant for it, on streams and in datagrams.
    alice.send(Envelope { request: Some(1), frame: to("bob", "hi").into() }).await;
    let Some(Frame::SendAck(ack)) = alice.next().await else { panic!("no ack") };
    let (session, mut entries) = ServerStreams(&client).next().await;
    assert_eq!(session, second.id);
    let Some(Frame::Deliver(deliver)) = entries.next().await else { panic!("no entry") };
    assert_eq!((deliver.conversation, deliver.entries[0].seq), (ack.conversation, ack.seq));
    let typing = Envelope::from(Typing { to: Target::Conversation(ack.conversation) });
    client.connection.send_datagram(first.datagram(&tern_protocol::encode(&typing))).unwrap();
    let datagram = within("a datagram", client.connection.read_datagram()).await.unwrap();
    assert_eq!(read_varint(&datagram), Some((second.id / 4, 1)), "it is for bob");

    first.close(0, "").await;
    assert_eq!(first.closed().await, Caught::default(), "the server ends its side too");
    sessions_become(&server, 1.0).await;
    bob.send(Envelope { request: Some(2), frame: to("alice", "still here").into() }).await;
    assert!(matches!(bob.next().await, Some(Frame::SendAck(_))));
    assert_eq!(client.request(&get("/v1/nowhere")).await.status, 404);
    assert_eq!(client.request(&get(&format!("/v1/history/{}", ack.conversation))).await.status, 401);
    assert_eq!(client.connection.close_reason(), None);
}

/// The streams that the server opens in sessions.
struct ServerStreams<'a>(&'a Http3);

impl ServerStreams<'_> {
    /// The next one: its session, and its frames.
    async fn next(&self) -> (u64, Control) {
        loop {
            let mut stream = within("a stream", self.0.connection.accept_uni()).await.unwrap();
            // The first three are HTTP/3's own, their types have one byte.
            if next_varint(&mut stream).await.unwrap() != Some(SESSION_UNI) {
                continue;
            }
            let session = next_varint(&mut stream).await.unwrap().unwrap();
            let mut kind = [0; 17];
            stream.read_exact(&mut kind).await.unwrap();
            assert_eq!(kind[0], tern_protocol::StreamKind::Conversation as u8);
            return (session, Control::reading(stream));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_closed_with_code_and_reason_either_way_and_then_its_connection() {
    let server = Server::start().await;
    // By the client, as a browser does: a capsule, and its streams are reset.
    let client = Http3::connect(&server).await;
    let mut session = client.session().await;
    let mut control = greet(&server, &session, "alice").await;
    sessions_become(&server, 1.0).await;
    session.capsule(0x1f * 7 + 0x17, b"a type that nobody knows").await;
    session.close(4100, "gone for lunch").await;
    let _ = control.send.as_mut().unwrap().reset(VarInt::from_u32(0x170d_7b68));
    sessions_become(&server, 0.0).await;
    assert_eq!(client.closed().await.code, Some(NO_ERROR), "nobody else would close it");

    // By the server.
    let client = Http3::connect(&server).await;
    let mut session = client.session().await;
    let mut control = session.open().await;
    let bad = Hello { token: Token("no token".into()), device: None, agent: None, features: 0 };
    control.send(bad).await;
    let Some(Frame::Close(close)) = control.next().await else { panic!("no close") };
    let caught = session.closed().await;
    assert_eq!((caught.code, caught.reason), (Some(close.code.0.into()), close.reason));
    assert!((4100..4200).contains(&close.code.0), "{}", close.code);
    assert_eq!(client.closed().await.code, Some(NO_ERROR));

    // By a client that just goes.
    let client = Http3::connect(&server).await;
    let session = client.session().await;
    let _control = greet(&server, &session, "alice").await;
    sessions_become(&server, 1.0).await;
    client.connection.close(VarInt::from_u32(0x100), b"");
    sessions_become(&server, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_open_no_session_are_told_why() {
    let server = loose().set("TRANSPORT__ALLOWED_ORIGINS", "[\"https://chat.example\"]").start().await;
    let client = Http3::connect(&server).await;
    let with = |changes: &[(&'static str, &'static str)]| {
        let mut fields: Vec<_> = CONNECT.to_vec();
        for (name, value) in changes {
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
        }
        fields
    };
    let cases: [(&[(&str, &str)], u16); 6] = [
        (&[(":path", "/v1/elsewhere")], 404),
        (&[(":path", "/v1/connect?token=x")], 400),
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("wt-available-protocols", "\"chat.v9\"")], 400),
        (&[(":protocol", "connect-udp")], 405),
    ];
    for (changes, status) in cases {
        let answer = client.session_with(&with(changes)).await.err().map(|answer| answer.status);
        assert_eq!(answer, Some(status), "{changes:?}");
    }
    let mut plain: Vec<_> = CONNECT.to_vec();
    plain.retain(|(name, _)| *name != ":protocol");
    assert_eq!(client.request(&plain).await.status, 405);

    // The refused ones took no place.
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(client.session_with(&with(&[("origin", "https://chat.example")])).await.unwrap());
    }
    let fifth = client.session_with(&CONNECT).await.err().expect("refused");
    assert_eq!(fifth.status, 429);
    assert!(String::from_utf8(fifth.body).unwrap().contains("another connection"));
    sessions.pop().unwrap().close(0, "").await;
    // Its place is free as soon as the server has seen it go.
    until_ok(async || client.session_with(&CONNECT).await.ok()).await;
}

/// Asks again until there is something.
async fn until_ok<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    within("success", async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_may_be_asked_for_before_settings_and_its_stream_may_come_before_it() {
    let server = Server::start().await;
    let mut client = Http3::dial(&server).await;
    // The CONNECT stream is opened, but the other stream overtakes what it says.
    let (mut send, mut recv) = client.open(&[]).await;
    let id = u64::from(send.id());
    let (mut control, answers) = client.open(&head(SESSION_BIDI, id)).await;
    control.write_all(&tern_protocol::encode(&hello(&server, "alice").into())).await.unwrap();
    client.connection.send_datagram([varint(5), b"of nobody".to_vec()].concat().into()).unwrap();
    send.write_all(&frame(HEADERS, &section(&CONNECT))).await.unwrap();
    assert_eq!(within("an answer", status(&mut recv)).await.unwrap(), 200);
    let mut answers = Control::reading(answers);
    assert!(matches!(answers.next().await, Some(Frame::Welcome(_))));
    client.settings().await;
    control.write_all(&tern_protocol::encode(&to("bob", "hi").into())).await.unwrap();
    assert!(matches!(answers.next().await, Some(Frame::SendAck(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_say_what_it_is_holds_up_nobody() {
    let server = loose().set("TRANSPORT__HELLO_TIMEOUT_MS", "3000").start().await;
    let client = Http3::connect(&server).await;
    // Half a type, a session stream without its session, half a header, on either kind of stream.
    let mut stuck = Vec::new();
    for bytes in [&[0x40][..], &[0x40, 0x41], &[0x01, 0x40], &[0x01, 0x20, 0x00]] {
        stuck.push(client.open(bytes).await);
    }
    let mut stuck_uni = vec![client.open_uni(&[0x40]).await, client.open_uni(&[0x40, 0x54]).await];
    let session = client.session().await;
    let mut control = greet(&server, &session, "alice").await;
    control.send(to("bob", "hi")).await;
    assert!(matches!(control.next().await, Some(Frame::SendAck(_))));
    // They are given up; the session is not.
    for (_, recv) in &mut stuck {
        within("the end of a stream", recv.read_to_end(100)).await.expect_err("reset");
    }
    for send in &mut stuck_uni {
        assert!(within("the end of a stream", send.stopped()).await.unwrap().is_some());
    }
    control.send(to("bob", "still here")).await;
    assert!(matches!(control.next().await, Some(Frame::SendAck(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_of_many_is_lost() {
    let server = Server::start().await;
    let client = Http3::connect(&server).await;
    let mut session = client.session().await;
    let mut control = greet(&server, &session, "alice").await;
    // Each further stream of the session is answered: it is refused.
    for number in 0..30 {
        let further = session.open().await;
        let uni = client.open_uni(&head(SESSION_UNI, session.id)).await;
        let refused = stream_code(Code::UNEXPECTED_FRAME.0.into());
        let mut recv = further.recv;
        let error = within("a reset", recv.read_to_end(100)).await.expect_err("refused");
        assert!(error.to_string().contains(&refused.to_string()), "{number}: {error}");
        assert_eq!(within("a stop", uni.stopped()).await.unwrap(), Some(refused));
    }
    control.send(to("bob", "hi")).await;
    assert!(matches!(control.next().await, Some(Frame::SendAck(_))));
    // With too many of them the session is closed.
    for _ in 0..60 {
        let Ok((mut send, _)) = within("a stream", client.connection.open_bi()).await else { break };
        let _ = send.write_all(&head(SESSION_BIDI, session.id)).await;
    }
    let caught = session.closed().await;
    assert!(caught.code == Some(Code::UNEXPECTED_FRAME.0.into()) || caught.code.is_none(), "{caught:?}");
    sessions_become(&server, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_over_tls_say_that_http3_is_there_and_others_do_not() {
    let server = Server::start().await;
    let said = format!("h3=\":{}\"; ma=86400", server.ready().quic_addr.port());
    for how in Http::ALL {
        let answer = server.get(how, "/", None).await;
        let tls = !matches!(how, Http::One | Http::Two);
        let value = answer.headers.get("alt-svc").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(value, tls.then(|| said.clone()), "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_sessions_and_closes_those_that_stay() {
    let mut server = loose().set("DRAIN__DEADLINE_MS", "8000").start().await;
    let client = Http3::connect(&server).await;
    let mut session = client.session().await;
    let mut control = greet(&server, &session, "alice").await;
    let idle = Http3::connect(&server).await;
    server.signal("TERM");
    assert!(matches!(control.next().await, Some(Frame::GoAway(_))));
    assert_eq!(idle.closed().await.code, Some(NO_ERROR), "nobody is there who could stay");
    let refused = client.session_with(&CONNECT).await.err().map(|answer| answer.status);
    assert_eq!(refused, Some(503));
    let Some(Frame::Close(close)) = control.next().await else { panic!("no close") };
    assert_eq!(close.code, Code::SHUTDOWN);
    assert_eq!(session.closed().await.code, Some(Code::SHUTDOWN.0.into()));
    let exit = server.exit().await;
    assert_eq!(exit.code(), Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("did not end in time"), "{}", exit.stderr);
}
