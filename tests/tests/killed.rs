//! A node is killed and comes back: its clients hear so with their next word, long before silence counts as death.

use std::time::Duration;

use tern_client::{Client, Config, Event};
use tern_protocol::{Code, DeviceId, Frame, Hello, Ping, Token};
use tern_tests::chromium::Chromium;
use tern_tests::page::PageSession;
use tern_tests::{Options, RawClient, Server, Wire, for_each_wire, loose, sdk_config, to, user, within};

/// Silence counts as death only after 20 minutes, on every transport: no test lasts that long, so what is
/// noticed was noticed by something else.
fn patient() -> Options {
    loose().set("TRANSPORT__KEEPALIVE_S", "600")
}

fn config(server: &Server, wire: Wire, name: &str) -> Config {
    let mut config = sdk_config(server, wire, server.token(name));
    config.backoff.first = Duration::from_millis(10);
    config.backoff.max = Duration::from_millis(200);
    config
}

for_each_wire! {
    async fn the_connection_ends_at_the_next_packet(wire: Wire) {
        let mut server = patient().start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        assert_eq!(alice.welcome().limits.dead_after_s, 1205);
        alice.say("bob", "before").await;
        server.restart().await;
        let end = async {
            // A packet may be lost like any other.
            loop {
                alice.send_bytes(&tern_protocol::encode(&Ping { nonce: 1 }.into())).await;
                if let Ok(end) = tokio::time::timeout(Duration::from_secs(1), alice.next()).await {
                    return end;
                }
            }
        };
        let end = within("the end of the session", end).await;
        assert!(end.is_none(), "{end:?}");
        if wire == Wire::Quic {
            let end = alice.quic().closed().await;
            assert!(end.code.is_none() && end.reason.contains("reset by peer"), "{end:?}");
        }
    }

    async fn the_sdk_is_back_with_its_next_message_and_everything_is_there_once(wire: Wire) {
        let mut server = patient().start().await;
        let (client, mut events) = within("a session", Client::connect(config(&server, wire, "alice"))).await.unwrap();
        let sent = within("an ack", client.send(user("bob"), "before")).await.unwrap();
        assert_eq!(sent.seq, 1);
        server.restart().await;
        let sent = within("an ack after the crash", client.send(user("bob"), "after")).await.unwrap();
        assert_eq!(sent.seq, 2);
        // It is there for what it is told, too.
        let mut bob = RawClient::open(&server, Wire::WebSocketBinary, "bob").await;
        bob.say("alice", "welcome back").await;
        let mut seqs = Vec::new();
        while seqs.last() != Some(&3) {
            match within("what was written", events.next()).await.expect("the client goes on") {
                Event::Entry { entry, .. } => seqs.push(entry.seq),
                Event::StoreChanged { .. } | Event::Resync { .. } => panic!("it is the same store"),
                _ => {}
            }
        }
        assert_eq!(seqs, [1, 2, 3]);
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_in_a_browser_hears_of_it_at_its_next_packet() {
    let mut server = patient().start().await;
    let browser = Chromium::start().await;
    let tab = browser.tab().await;
    let mut alice = PageSession::open(&tab, &server).await.expect("a session");
    let hello = Hello {
        token: Token(server.token("alice")),
        device: Some(DeviceId::new("page").expect("a device id")),
        agent: None,
        features: 0,
    };
    alice.send(hello).await;
    alice.find("welcome", |_, frame| matches!(frame, Frame::Welcome(_)).then_some(())).await;
    server.restart().await;
    // The browser knows already if a packet of its own was answered.
    let _ = alice.try_send(to("bob", "is anybody there?")).await;
    let (last, end) = alice.end().await;
    assert!(last.is_none_or(|frame| !matches!(frame, Frame::Close(_))), "nobody said goodbye");
    assert_ne!(end.code, Some(u64::from(Code::NORMAL.0)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_secret_resets_nobody() {
    let mut server = patient().start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    server.change(|options| options.set("NODE__QUIC_KEY_FILE", "another"));
    server.restart().await;
    let key = server.data_dir().join("another");
    assert!(key.is_file(), "it is made where it is missing");
    for _ in 0..5 {
        alice.send(Ping { nonce: 1 }).await;
        let heard = tokio::time::timeout(Duration::from_millis(200), alice.next()).await;
        assert!(heard.is_err(), "a stranger ended the connection: {heard:?}");
    }
    // With the secret of the earlier run the same client hears of it.
    server.change(|options| options.set("NODE__QUIC_KEY_FILE", "quic-key"));
    server.restart().await;
    alice.send(Ping { nonce: 1 }).await;
    assert!(within("the reset", alice.next()).await.is_none());
}
