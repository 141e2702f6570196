//! What an operator sees: health, metrics and logs that give nobody's words away.

use http::StatusCode;
use serde_json::json;
use tern_tests::http::{Ask, Http};
use tern_tests::{Options, RawClient, Server, Wire, for_each_wire, fresh, loose, on_a_wire, pair, text};

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
        // Everything at its finest: whatever an operator asks for.
        let server = loose().env("RUST_LOG", "trace").start().await;
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
            // A field that is not one is quoted by who cannot read it.
            for hello in [format!(r#"{{"type":"hello","token":7,"device":"{token}"}}"#), format!(r#"{{"type":"hello","features":"{CANARY}"}}"#)] {
                let mut wrong = RawClient::connect(&server, wire).await;
                wrong.send_bytes(hello.as_bytes()).await;
                wrong.end().await;
            }
        }
        for how in Http::ALL {
            let answer = server.get(how, "/v1/conversations", Some(&token)).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            let body = json!({"to": "bob", "text": CANARY, "temp_id": fresh().to_string()});
            let answer = server.ask(how, Ask::new("POST", "/v1/messages").token(&token).json(&body)).await;
            assert!(answer.status.is_success(), "{}", answer.body);
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

#[tokio::test]
async fn what_a_node_writes_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let server = Options::default().set("PUSH__DELAY_MS", "100").start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    alice.say("bob", "for bob only").await;
    server.metric_becomes("tern_push_events_total", |events| events == 1.0).await;
    let (mut dirs, mut seen) = (vec![server.data_dir().to_owned()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is {mode:o}", entry.path().display());
            seen.push(entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
        let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", dir.display());
    }
    for name in ["quic-key", "jwt-secret", "events", "events-000000000001.jsonl", "store", "dev.json"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} in {seen:?}");
    }
}

#[tokio::test]
async fn the_log_says_what_runs_here_and_why_somebody_cannot_connect() {
    let server = Server::start().await;
    let log = server.log();
    let ready = log
        .lines()
        .find(|line| line.ends_with("sessions_per_user=20 connections_per_address=500"))
        .expect("a line");
    for told in [
        format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
        format!("store={}", server.ready().store_id),
        format!("directory={}", server.data_dir().display()),
        "memory_mib=".into(),
        "open_files=".into(),
        "sessions_per_user=20".into(),
    ] {
        assert!(ready.contains(&told), "{told} in {ready}");
    }
    for _ in 0..30 {
        let mut stranger = RawClient::connect(&server, Wire::WebSocketBinary).await;
        stranger.greet("no token at all", "device").await;
    }
    let mut silent = RawClient::connect(&server, Wire::WebSocketBinary).await;
    silent.send(tern_tests::to("bob", "before hello")).await;
    silent.end().await;
    server.get(Http::One, "/v1/connect", None).await;
    let log = server.log();
    let told = |reason: &str| {
        log.lines().filter(|line| line.contains("could not connect") && line.contains(reason)).count()
    };
    for reason in ["TOKEN_INVALID", "UNEXPECTED_FRAME", "\"websocket\""] {
        assert!((1..=3).contains(&told(reason)), "{reason}: {} lines in {log}", told(reason));
    }
}
