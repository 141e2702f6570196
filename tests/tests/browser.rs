//! Chromium: a page holds sessions over WebTransport, and both sides learn how they end.

use tern_protocol::{
    Close, Code, Deliver, DeviceId, Frame, Hello, PresenceState, Send, StreamKind, Sync, Target, Token,
    Typing, UserTyping, Watch, Welcome,
};
use tern_tests::chromium::{Chromium, Tab};
use tern_tests::page::{PageLane, PageSession};
use tern_tests::{
    Caught, Options, RawClient, Server, Wire, loose, message, pair, positions, seqs, text, to, until, user,
};

/// A node on which a session that is not closed would be noticed only after the test has hung.
fn patient() -> Options {
    loose().set("TRANSPORT__KEEPALIVE_S", "60").set("PRESENCE__GRACE_MS", "1").set("PRESENCE__BATCH_MS", "10")
}

async fn hello(session: &mut PageSession, server: &Server, name: &str) -> Welcome {
    let device = Some(DeviceId::new("page").expect("a device id"));
    let token = Token(server.token(name));
    session.send(Hello { token, device, agent: Some("page".into()), features: 0 }).await;
    session
        .find("welcome", |lane, frame| match frame {
            Frame::Welcome(welcome) => {
                assert_eq!(lane, PageLane::Control);
                Some(welcome)
            }
            _ => None,
        })
        .await
}

async fn open(tab: &Tab, server: &Server, name: &str) -> PageSession {
    let mut session = PageSession::open(tab, server).await.expect("a session");
    hello(&mut session, server, name).await;
    session
}

async fn acked(session: &mut PageSession, send: Send) -> u64 {
    let temp_id = send.temp_id;
    session.send(send).await;
    session
        .find("the ack", |_, frame| match frame {
            Frame::SendAck(ack) if ack.temp_id == temp_id => Some(ack.seq),
            _ => None,
        })
        .await
}

async fn delivered(session: &mut PageSession) -> (PageLane, Deliver) {
    session
        .find("an entry", |lane, frame| match frame {
            Frame::Deliver(deliver) => Some((lane, deliver)),
            _ => None,
        })
        .await
}

async fn watching(client: &mut RawClient, name: &str) -> PresenceState {
    let watch = Watch { users: vec![user(name)] };
    match client.ask(watch).await {
        Frame::Presence(presence) => presence.users[0].state,
        other => panic!("{other:?}"),
    }
}

/// Waits until the watched user is gone.
async fn offline(client: &mut RawClient) {
    client
        .find("that somebody went offline", |envelope| match &envelope.frame {
            Frame::Presence(presence) => (presence.users[0].state == PresenceState::Offline).then_some(()),
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_says_hello_sends_and_receives() {
    let server = Server::start().await;
    let browser = Chromium::start().await;
    let tab = browser.tab().await;
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    let mut alice = PageSession::open(&tab, &server).await.expect("a session");
    assert!(matches!(alice.protocol(), None | Some("tern.v1")), "{:?}", alice.protocol());
    let welcome = hello(&mut alice, &server, "alice").await;
    assert_eq!(welcome.user, user("alice"));
    assert_eq!(acked(&mut alice, to("bob", "from a page ✓")).await, 1);
    let id = pair("alice", "bob");
    assert_eq!(text(&bob.entry(id).await), "from a page ✓");
    // Long enough to come in pieces.
    let long = "é".repeat(8_000);
    bob.say("alice", &long).await;
    let (lane, deliver) = delivered(&mut alice).await;
    assert_eq!((lane, deliver.conversation), (PageLane::Stream(StreamKind::Conversation), id));
    assert_eq!(text(&deliver.entries[0]), long);
    assert_eq!(server.metric("tern_connections{transport=\"webtransport\"}").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_comes_back_gets_what_it_missed_once_and_in_order() {
    let server = Server::start().await;
    let browser = Chromium::start().await;
    let tab = browser.tab().await;
    let mut bob = RawClient::open(&server, Wire::WebSocketJson, "bob").await;
    let mut alice = open(&tab, &server, "alice").await;
    bob.say("alice", "1").await;
    assert_eq!(seqs(&delivered(&mut alice).await.1.entries), [1]);
    alice.close(0, "").await;
    alice.end().await;
    for number in 2..=5 {
        bob.say("alice", &number.to_string()).await;
    }
    let mut alice = open(&tab, &server, "alice").await;
    alice.send(Sync { cursors: positions(&[(pair("alice", "bob"), 1)]), more: false }).await;
    let mut came = Vec::new();
    while came.len() < 4 {
        let (_, deliver) = delivered(&mut alice).await;
        came.extend(deliver.entries.iter().map(|entry| text(entry).to_owned()));
    }
    assert_eq!(came, ["2", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_told_the_code_and_the_reason_with_which_the_server_closes() {
    let mut server = patient().set("SESSION__SESSIONS_PER_USER", "1").start().await;
    let browser = Chromium::start().await;
    let tab = browser.tab().await;
    let mut first = open(&tab, &server, "alice").await;
    let mut second = open(&tab, &server, "alice").await;
    assert_closed(first.end().await, Code::SESSION_REPLACED);
    let mut silent = PageSession::open(&tab, &server).await.expect("a session");
    silent.send(to("bob", "before hello")).await;
    assert_closed(silent.end().await, Code::UNEXPECTED_FRAME);
    second
        .send(Close { code: Code::NORMAL, reason: String::new(), retry_after_ms: None, target: None })
        .await;
    assert_closed(second.end().await, Code::NORMAL);
    let mut last = open(&tab, &server, "bob").await;
    server.signal("TERM");
    assert_closed(last.end().await, Code::SHUTDOWN);
    assert_eq!(server.exit().await.code(), Some(0));
}

/// `WebTransport.closed` says it. A browser may drop what the page has not read when a session ends:
/// the last frame too, which else says the same.
fn assert_closed((last, end): (Option<Frame>, Caught), code: Code) {
    assert_eq!(end.code, Some(code.0.into()), "{end:?}");
    assert!(!end.reason.is_empty());
    if let Some(Frame::Close(close)) = last {
        assert_eq!((close.code, close.reason), (code, end.reason));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_told_the_code_and_the_reason_with_which_a_page_closes() {
    let server = patient().env("RUST_LOG", "tern=debug").start().await;
    let browser = Chromium::start().await;
    let tab = browser.tab().await;
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    let mut alice = open(&tab, &server, "alice").await;
    acked(&mut alice, to("bob", "hi")).await;
    assert_eq!(watching(&mut bob, "alice").await, PresenceState::Online);
    alice.close(4321, "going för good").await;
    offline(&mut bob).await;
    let told = |log: &str| log.lines().any(|line| line.contains("4321") && line.contains("going för good"));
    until("the end in the log", || told(&server.log()).then_some(())).await;
    server.metric_becomes("tern_connections{transport=\"webtransport\"}", |open| open == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_goes_both_ways_in_datagrams() {
    let server = Server::start().await;
    let browser = Chromium::start().await;
    let tab = browser.tab().await;
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    let mut alice = open(&tab, &server, "alice").await;
    acked(&mut alice, to("bob", "hi")).await;
    let id = pair("alice", "bob");
    bob.entry(id).await;
    let typing = |name: &str| Typing { to: Target::User(user(name)) };
    // A datagram may be lost; then it is said again, as a person goes on typing.
    let pause = || tokio::time::sleep(std::time::Duration::from_millis(600));
    let from_page = async {
        loop {
            alice.send_datagram(typing("bob")).await;
            pause().await;
        }
    };
    let seen = bob.find("typing", |envelope| match &envelope.frame {
        Frame::UserTyping(typing) => Some(typing.clone()),
        _ => None,
    });
    let seen = tokio::select! {
        seen = seen => seen,
        () = from_page => unreachable!("it does not end"),
    };
    assert_eq!(seen, UserTyping { conversation: id, user: user("alice") });
    let to_page = async {
        loop {
            bob.quic().send_datagram(&typing("alice").into());
            pause().await;
        }
    };
    let seen = alice.find("typing", |lane, frame| match frame {
        Frame::UserTyping(typing) => Some((lane, typing)),
        _ => None,
    });
    let seen = tokio::select! {
        seen = seen => seen,
        () = to_page => unreachable!("it does not end"),
    };
    assert_eq!(seen, (PageLane::Datagram, UserTyping { conversation: id, user: user("bob") }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_sessions_of_one_page_do_not_disturb_each_other() {
    let server = patient().start().await;
    let browser = Chromium::start().await;
    let tab = browser.tab().await;
    let mut sessions = Vec::new();
    for name in ["alice", "alice", "bob", "carol"] {
        sessions.push(open(&tab, &server, name).await);
    }
    let [mut alice, mut other, mut bob, mut carol] = <[_; 4]>::try_from(sessions).ok().expect("four");
    assert_eq!(acked(&mut carol, to("alice", "hi")).await, 1);
    for session in [&mut alice, &mut other] {
        assert_eq!(delivered(session).await.1.conversation, pair("alice", "carol"));
    }
    alice.close(0, "one of four").await;
    alice.end().await;
    server.metric_becomes("tern_connections{transport=\"webtransport\"}", |open| open == 3.0).await;
    for number in 1..=20 {
        assert_eq!(acked(&mut bob, to("alice", "still here")).await, number);
        assert_eq!(seqs(&delivered(&mut other).await.1.entries), [number]);
    }
    let id = pair("alice", "carol");
    assert_eq!(acked(&mut other, message(Target::Conversation(id), "me too")).await, 2);
    assert_eq!(seqs(&delivered(&mut carol).await.1.entries), [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tab_that_is_closed_or_leaves_the_page_is_noticed_at_once() {
    let server = patient().start().await;
    let browser = Chromium::start().await;
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    for round in 0..2 {
        let tab = browser.tab().await;
        let mut alice = open(&tab, &server, "alice").await;
        acked(&mut alice, to("bob", "hi")).await;
        assert_eq!(watching(&mut bob, "alice").await, PresenceState::Online);
        if round == 0 {
            tab.close().await;
        } else {
            // The page goes away under the command.
            let _ = tab.run("location.href = 'about:blank'").await;
        }
        offline(&mut bob).await;
    }
    server.metric_becomes("tern_connections{transport=\"webtransport\"}", |open| open == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_is_killed_is_taken_for_dead() {
    // Dead after 2 × 1 + 5 s, if nothing of it is left to say so.
    let server = loose().set("TRANSPORT__KEEPALIVE_S", "1").start().await;
    let mut browser = Chromium::start().await;
    let tab = browser.tab().await;
    let alice = open(&tab, &server, "alice").await;
    browser.kill();
    server.metric_becomes("tern_connections{transport=\"webtransport\"}", |open| open == 0.0).await;
    drop(alice);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_and_another_certificate_get_no_session() {
    let server = loose().set("TRANSPORT__ALLOW_LOOPBACK_ORIGINS", "false").start().await;
    let browser = Chromium::start().await;
    let tab = browser.tab().await;
    let refused = PageSession::open(&tab, &server).await.map(|_| ()).expect_err("not this origin");
    assert!(refused.contains("WebTransportError"), "{refused}");
    let welcoming = Server::start().await;
    let url = &welcoming.ready().webtransport_url;
    let refused = PageSession::open_at(&tab, url, [7; 32]).await.map(|_| ()).expect_err("not this server");
    assert!(refused.contains("WebTransportError"), "{refused}");
    open(&tab, &welcoming, "alice").await;
}
