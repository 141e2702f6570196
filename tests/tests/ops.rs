//! What an operator sees: health, metrics and logs that give nobody's words away.

use http::StatusCode;
use tern_tests::{Options, RawClient, Server, Wire, for_each_wire, loose, on_a_wire, pair, text};

for_each_wire! {
    async fn connections_are_counted_by_transport(wire: Wire) {
        let server = Server::start().await;
        let series = format!("tern_connections{{transport=\"{}\"}}", wire.label());
        let first = RawClient::open(&server, wire, "alice").await;
        let _second = RawClient::open(&server, wire, "bob").await;
        assert_eq!(server.metric(&series).await, Some(2.0));
        for other in Wire::ALL.into_iter().filter(|other| other.label() != wire.label()) {
            let series = format!("tern_connections{{transport=\"{}\"}}", other.label());
            assert_eq!(server.metric(&series).await.unwrap_or(0.0), 0.0, "{series}");
        }
        first.leave().await;
        server.metric_becomes(&series, |open| open == 1.0).await;
    }
}

on_a_wire! {
    async fn delivery_is_measured_when_the_recipient_confirms(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let measured = async || server.metric("tern_delivery_seconds_count").await.unwrap_or(0.0);
        let conversation = pair("alice", "bob");
        alice.say("bob", "hi").await;
        bob.entry(conversation).await;
        assert_eq!(measured().await, 0.0, "before the ack");
        // The same ack again counts nothing.
        for _ in 0..2 {
            bob.ack(conversation, 1).await;
            bob.settle().await;
            assert_eq!(measured().await, 1.0);
        }
        // One delivery of 64 to a session is measured, the first of them.
        for _ in 2..=64 {
            alice.say("bob", "hi").await;
            bob.entry(conversation).await;
        }
        bob.ack(conversation, 64).await;
        bob.settle().await;
        assert_eq!(measured().await, 1.0);
        alice.say("bob", "hi").await;
        bob.entry(conversation).await;
        bob.ack(conversation, 65).await;
        bob.settle().await;
        assert_eq!(measured().await, 2.0);
        assert!(server.metric("tern_delivery_seconds_sum").await > Some(0.0));
        assert!(server.metric("tern_send_ack_seconds_count").await >= Some(65.0));
        assert!(server.metric("tern_store_commit_seconds_count").await > Some(0.0));
    }
}

for_each_wire! {
    async fn logs_contain_neither_messages_nor_tokens(wire: Wire) {
        const CANARY: &str = "canary-7f3a9c-nobody-may-read-this";
        let server = loose().env("RUST_LOG", "tern=trace,info").start().await;
        let token = server.token("alice");
        let mut alice = RawClient::connect(&server, wire).await;
        alice.hello(&token, "device").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let group = alice.group(CANARY, &["bob"]).await;
        alice.say_in(group, CANARY).await;
        alice.say("bob", CANARY).await;
        assert_eq!(text(&bob.entry(pair("alice", "bob")).await), CANARY);
        bob.sync(&[]).await;
        // Refused, malformed and conflicting ones too.
        alice.refused(tern_tests::to("c", &CANARY.repeat(1000))).await;
        alice.send_bytes(format!("{{\"type\":\"{CANARY}\",\"text\":\"{CANARY}\"}}").as_bytes()).await;
        if wire == Wire::WebSocketJson {
            alice.leave().await;
        }
        let log = server.log();
        assert!(log.contains("session open"), "the log was on: {log}");
        assert!(!log.contains(CANARY), "{log}");
        for secret in [&token, &server.token("bob")] {
            assert!(!log.contains(secret.split('.').next_back().unwrap()), "a token is in the log");
        }
        let metrics = server.ops("/metrics").await.body;
        assert!(!metrics.contains("alice") && !metrics.contains(CANARY) && !metrics.contains("c:"), "{metrics}");
    }
}

#[tokio::test]
async fn a_healthy_node_says_so() {
    let server = Server::start().await;
    for path in ["/livez", "/healthz", "/readyz", "/version", "/metrics"] {
        let answer = server.ops(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    }
    assert!(server.ops("/version").await.body.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(server.ops("/nothing").await.status, StatusCode::NOT_FOUND);
    // The operator's pages are not on the port for clients.
    for path in ["/metrics", "/livez", "/readyz"] {
        let answer = server.get(tern_tests::http::Http::One, path, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_draining_node_is_alive_and_not_ready() {
    let mut server = Options::default().set("DRAIN__DEADLINE_MS", "20000").start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    server.signal("TERM");
    alice
        .find("GoAway", |envelope| matches!(envelope.frame, tern_protocol::Frame::GoAway(_)).then_some(()))
        .await;
    let ready = server.ops("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{}", ready.body);
    assert!(ready.body.contains("drain"), "{}", ready.body);
    assert_eq!(server.ops("/livez").await.status, StatusCode::OK);
    // Sessions that are there are still served.
    alice.say("bob", "one more").await;
    alice.leave().await;
    assert_eq!(
        server.exit().await.code(),
        Some(0),
        "with the last session it ends, long before the deadline"
    );
}
