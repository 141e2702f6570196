//! Every metric means what it says: what it shows is what really happened on the node, no more and no less.

use std::collections::BTreeSet;

use tern_protocol::{Code, LeaveGroup, Send, Target};
use tern_tests::http::{Ask, Http};
use tern_tests::{Options, RawClient, Server, Wire, fresh, loose, message, pair, to};

/// Every metric of a node, and where it is proved: here, or in the test that is named.
const PROVED: &[(&str, &str)] = &[
    ("tern_connections", "ops::connections_are_counted_by_transport, and here"),
    ("tern_sessions", "here"),
    ("tern_delivery_seconds", "ops::delivery_is_measured_when_the_recipient_confirms"),
    ("tern_send_ack_seconds", "here"),
    ("tern_sends_total", "here"),
    ("tern_dedupe_hits_total", "here"),
    ("tern_lagged_total", "independent::a_client_that_does_not_read_lags_and_keeps_nobody_waiting"),
    ("tern_push_pending", "here"),
    ("tern_push_events_total", "here"),
    ("tern_event_files_unread", "here, and events::file::tests"),
    ("tern_event_files_removed_total", "events::file::tests"),
    ("tern_events_dropped_total", "events::file::tests"),
    ("tern_conversations_ready", "here"),
    ("tern_sync_total", "here"),
    ("tern_store_commit_seconds", "here"),
    ("tern_store_commit_entries", "here"),
    ("tern_store_aged_total", "upkeep::retention::tests"),
    ("tern_refused_total", "here"),
    ("tern_panics_total", "here: there is none"),
    ("tern_memory_bytes", "here, and node::pressure::tests"),
    ("tern_memory_limit_bytes", "here"),
    ("tern_memory_refused_total", "here"),
    ("tern_certificate_expires_timestamp_seconds", "operate::a_renewed_certificate_is_presented"),
    ("tern_reloads_total", "operate::a_renewed_certificate_is_presented"),
    ("tern_jwks_fetches_total", "jwks"),
    ("tern_tcp_connections", "here"),
    ("tern_tcp_connections_max", "here"),
    ("tern_connections_refused_total", "here"),
    ("tern_connections_cut_total", "http::serve::tests"),
    ("tern_accept_errors_total", "here: there is none"),
    ("tern_push_lost_total", "push::tests"),
    ("tern_revocations_total", "here"),
    ("tern_sessions_ended_total", "here"),
    ("tern_store_unreadable_total", "store::embedded::tests"),
];

async fn value(server: &Server, series: &str) -> f64 {
    server.metric(series).await.unwrap_or_else(|| panic!("no {series}"))
}

async fn sends(server: &Server) -> [f64; 4] {
    let mut values = [0.0; 4];
    for (value, outcome) in values.iter_mut().zip(["applied", "duplicate", "refused", "temporary"]) {
        *value = self::value(server, &format!("tern_sends_total{{outcome=\"{outcome}\"}}")).await;
    }
    values
}

async fn refused(server: &Server, code: Code) -> f64 {
    value(server, &format!("tern_refused_total{{code=\"{}\"}}", code.0)).await
}

async fn memory(server: &Server, part: &str) -> f64 {
    value(server, &format!("tern_memory_bytes{{part=\"{part}\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_metric_is_without_a_proof() {
    let server = Server::start().await;
    let text = server.ops("/metrics").await.body;
    let known: BTreeSet<&str> = PROVED.iter().map(|(name, _)| *name).collect();
    let shown: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("tern_"))
        .collect();
    assert_eq!(known, shown, "each metric has a line in PROVED");
    for name in shown {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} says what it is");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_counted_by_what_became_of_them() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    assert_eq!(sends(&server).await, [0.0; 4]);
    let group = alice.group("team", &["bob"]).await;
    let first = message(group, "one");
    alice.acked(first.clone()).await;
    alice.say_in(group, "two").await;
    assert_eq!(sends(&server).await, [3.0, 0.0, 0.0, 0.0], "a group and two messages");
    assert!(alice.acked(Send { age_ms: Some(1), ..first }).await.duplicate);
    assert_eq!(sends(&server).await, [3.0, 1.0, 0.0, 0.0]);
    assert_eq!(value(&server, "tern_dedupe_hits_total").await, 1.0);
    // Refused for good: nothing is there for her.
    let elsewhere = message(Target::Conversation(pair("carol", "dave")), "let me in");
    assert_eq!(alice.refused(elsewhere).await.code, Code::NOT_FOUND);
    assert_eq!(sends(&server).await, [3.0, 1.0, 1.0, 0.0]);
    assert_eq!(refused(&server, Code::NOT_FOUND).await, 1.0);
    // Each that was applied has its time, and each commit its entries.
    assert_eq!(value(&server, "tern_send_ack_seconds_count").await, 3.0);
    assert_eq!(value(&server, "tern_store_commit_entries_sum").await, 3.0);
    let commits = value(&server, "tern_store_commit_entries_count").await;
    assert!((1.0..=3.0).contains(&commits), "{commits}");
    assert!(value(&server, "tern_store_commit_seconds_count").await >= commits);
    assert!(value(&server, "tern_store_commit_seconds_sum").await > 0.0);
    assert_eq!(value(&server, "tern_panics_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_node_refuses_is_counted_as_temporary_and_by_part() {
    let server = loose().set("MEMORY__LIMIT_MIB", "2").start().await;
    assert_eq!(value(&server, "tern_memory_limit_bytes").await, 2097152.0);
    let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    // Who comes until it is full.
    let mut here = Vec::new();
    let close = loop {
        let mut late = RawClient::connect(&server, Wire::Quic).await;
        match late.greet(&server.token(&format!("user{}", here.len())), "device").await {
            tern_protocol::Frame::Welcome(_) => here.push(late),
            tern_protocol::Frame::Close(close) => break close,
            other => panic!("{other:?}"),
        }
        assert!(here.len() < 1000, "two mebibytes hold no thousand sessions");
    };
    assert_eq!(close.code, Code::OVER_CAPACITY);
    assert!(close.retry_after_ms.is_some_and(|ms| ms > 0), "{close:?}");
    assert_eq!(refused(&server, Code::OVER_CAPACITY).await, 1.0);
    server.metric_becomes("tern_memory_refused_total{part=\"sessions\"}", |refused| refused == 1.0).await;
    let ready = server.ops("/readyz").await;
    assert_eq!(ready.status, http::StatusCode::OK, "{}", ready.body);
    assert!(ready.body.contains("of 2 MiB are in use"), "{}", ready.body);
    assert!(server.log().contains("memory is short"), "somebody should look");
    // Who is here is served; reads wait, and a change that is made is answered.
    alice.say("bob", "still here").await;
    let token = server.token("alice");
    let read = server.get(Http::One, "/v1/conversations", Some(&token)).await;
    assert_eq!((read.status.as_u16(), read.json()["code"].as_str()), (503, Some("over_capacity")));
    assert!(read.headers.contains_key("retry-after"));
    let body = serde_json::json!({"to": "bob", "text": "hi"});
    let change = Ask::new("POST", "/v1/messages").token(&token).json(&body);
    assert_eq!(server.ask(Http::One, change).await.status, http::StatusCode::OK);
    drop(here);
    server.metric_becomes("tern_memory_bytes{part=\"sessions\"}", |bytes| bytes < 20_000.0).await;
    RawClient::open(&server, Wire::WebSocketBinary, "late").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_what_they_take_are_counted_from_hello_to_their_end() {
    let server = Server::start().await;
    let open = "tern_connections{transport=\"websocket\"}";
    let silent = RawClient::connect(&server, Wire::WebSocketBinary).await;
    server.metric_becomes(open, |open| open == 1.0).await;
    assert_eq!(value(&server, "tern_sessions").await, 0.0, "nobody has said hello");
    let alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    assert_eq!((value(&server, open).await, value(&server, "tern_sessions").await), (2.0, 1.0));
    server.metric_becomes("tern_memory_bytes{part=\"sessions\"}", |bytes| bytes > 0.0).await;
    let (connections, session) = (memory(&server, "connections").await, memory(&server, "sessions").await);
    assert!(connections > 0.0, "{connections}");
    let second = RawClient::open(&server, Wire::Quic, "alice").await;
    server.metric_becomes("tern_memory_bytes{part=\"sessions\"}", |bytes| bytes == 2.0 * session).await;
    for client in [alice, second] {
        client.leave().await;
    }
    drop(silent);
    server.metric_becomes("tern_sessions", |open| open == 0.0).await;
    for part in ["sessions", "connections", "outboxes", "reads", "commits"] {
        server.metric_becomes(&format!("tern_memory_bytes{{part=\"{part}\"}}"), |bytes| bytes == 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_that_ends_a_session_is_counted_whoever_ends_it() {
    let server = loose().set("DRAIN__DEADLINE_MS", "20000").start().await;
    let mut first = RawClient::open_device(&server, Wire::WebSocketBinary, "alice", "phone").await;
    for _ in 0..20 {
        RawClient::open_device(&server, Wire::WebSocketBinary, "alice", "phone").await.leave().await;
    }
    assert_eq!(refused(&server, Code::SESSION_REPLACED).await, 0.0, "nobody was in the way");
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(RawClient::open_device(&server, Wire::WebSocketBinary, "alice", "phone").await);
    }
    assert_eq!(first.end().await.close.map(|close| close.code), Some(Code::SESSION_REPLACED));
    let replaced = format!("tern_refused_total{{code=\"{}\"}}", Code::SESSION_REPLACED.0);
    server.metric_becomes(&replaced, |count| count == 1.0).await;
    let mut strange = RawClient::connect(&server, Wire::WebSocketBinary).await;
    strange.send(to("bob", "before hello")).await;
    strange.end().await;
    assert_eq!(refused(&server, Code::UNEXPECTED_FRAME).await, 1.0);
    assert_eq!(value(&server, "tern_refused_total{code=\"other\"}").await, 0.0, "who left is no refusal");
    server.signal("TERM");
    for other in others {
        other.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_events_and_their_files_are_counted() {
    let patient = loose().set("PUSH__DELAY_MS", "600000").start().await;
    RawClient::open(&patient, Wire::WebSocketBinary, "alice").await.say("bob", "one").await;
    patient.metric_becomes("tern_push_pending", |pending| pending == 1.0).await;

    let server = loose().set("PUSH__DELAY_MS", "200").start().await;
    let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    assert_eq!(value(&server, "tern_push_events_total").await, 0.0);
    let group = alice.group("team", &["bob", "carol", "dave"]).await;
    alice.say_in(group, "one").await;
    alice.say_in(group, "two").await;
    server.metric_becomes("tern_push_events_total", |events| events >= 6.0).await;
    server.metric_becomes("tern_push_pending", |pending| pending == 0.0).await;
    let file = server.data_dir().join("events/events-000000000001.jsonl");
    let lines = std::fs::read_to_string(file).unwrap().lines().count();
    assert_eq!(value(&server, "tern_push_events_total").await, lines as f64);
    assert_eq!(lines, 6, "three members were told of two messages");
    assert_eq!(value(&server, "tern_event_files_unread").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_are_counted_by_what_they_brought() {
    let server = Server::start().await;
    let sync = |outcome: &'static str| {
        let server = &server;
        async move { value(server, &format!("tern_sync_total{{outcome=\"{outcome}\"}}")).await }
    };
    let id = pair("alice", "bob");
    let mut bob = RawClient::open(&server, Wire::WebSocketBinary, "bob").await;
    bob.sync(&[]).await;
    assert_eq!(sync("up_to_date").await, 1.0);
    let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    alice.say("bob", "one").await;
    bob.sync(&[]).await;
    assert_eq!((sync("up_to_date").await, sync("caught_up").await), (1.0, 1.0));
    bob.sync(&[(id, 9)]).await;
    assert_eq!(sync("refused").await, 1.0);
    for number in 2..=520 {
        if number % 40 == 0 {
            alice.say("bob", &number.to_string()).await;
        } else {
            alice.request(to("bob", &number.to_string())).await;
        }
    }
    let synced = bob.sync(&[(id, 1)]).await;
    assert_eq!(synced.gaps.len(), 1);
    assert_eq!((sync("gap").await, sync("caught_up").await, sync("up_to_date").await), (1.0, 1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_are_ready_while_they_are_used_and_not_for_long_after() {
    let memory = "tern_memory_bytes{part=\"conversations\"}";
    let server = loose().set("CONVERSATION__IDLE_S", "600").start().await;
    assert_eq!(value(&server, "tern_conversations_ready").await, 0.0);
    let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    for name in ["bob", "carol", "dave", "bob"] {
        alice.say(name, "hi").await;
    }
    server.metric_becomes("tern_conversations_ready", |ready| ready == 3.0).await;
    server.metric_becomes(memory, |bytes| bytes > 0.0).await;

    let hasty = loose().set("CONVERSATION__IDLE_S", "1").start().await;
    let mut alice = RawClient::open(&hasty, Wire::WebSocketBinary, "alice").await;
    alice.say("bob", "hi").await;
    hasty.metric_becomes("tern_conversations_ready", |ready| ready == 0.0).await;
    hasty.metric_becomes(memory, |bytes| bytes == 0.0).await;
    alice.say("bob", "again").await;
    assert!(value(&hasty, "tern_conversations_ready").await <= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_below_sessions_are_counted_up_to_their_limit() {
    let server = loose().set("TRANSPORT__TCP_CONNECTIONS_MAX", "3").start().await;
    assert_eq!(value(&server, "tern_tcp_connections_max").await, 3.0);
    let address = tern_tests::http::address(&server.ready().http_url);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    server.metric_becomes("tern_tcp_connections", |open| open == 3.0).await;
    // It may be told before it is there.
    let _one_more = tokio::net::TcpStream::connect(address).await;
    let full = "tern_connections_refused_total{reason=\"full\"}";
    server.metric_becomes(full, |refused| refused == 1.0).await;
    assert_eq!(value(&server, "tern_connections_refused_total{reason=\"address\"}").await, 0.0);
    assert_eq!(value(&server, "tern_accept_errors_total").await, 0.0);
    drop(open);
    server.metric_becomes("tern_tcp_connections", |open| open == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_did_to_sessions_is_counted() {
    let server = Server::start().await;
    let mut claims = tern_tests::token::claims("operator");
    claims["scope"] = "admin".into();
    let token = server.sign(&claims);
    let ask = async |method: &str, path: &str| {
        let ask = Ask::new(method, path).token(&token).json(&serde_json::json!({}));
        let answer = server.ask(Http::One, ask).await;
        assert_eq!(answer.status, http::StatusCode::OK, "{}", answer.body);
    };
    let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    ask("DELETE", "/v1/admin/users/alice/sessions").await;
    alice.end().await;
    assert_eq!(value(&server, "tern_sessions_ended_total{by=\"close\"}").await, 1.0);
    let mut bob = RawClient::open(&server, Wire::WebSocketBinary, "bob").await;
    ask("POST", "/v1/admin/users/bob/revoke").await;
    bob.end().await;
    assert_eq!(value(&server, "tern_revocations_total").await, 1.0);
    assert_eq!(value(&server, "tern_sessions_ended_total{by=\"revoke\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_do_not_follow_users_conversations_or_paths() {
    let server = Options::default().start().await;
    let count =
        async || server.ops("/metrics").await.body.lines().filter(|line| !line.starts_with('#')).count();
    let before = count().await;
    for number in 0..40 {
        let mut client = RawClient::open(&server, Wire::WebSocketJson, &format!("user{number:03}")).await;
        let group = client.group("team", &["bob"]).await;
        client.say_in(group, "hi").await;
        client.acked(LeaveGroup { conversation: group, temp_id: fresh() }).await;
        server.get(Http::One, &format!("/v1/odd/{number}"), None).await;
    }
    let after = count().await;
    assert!(after < before + 10, "{before} series, then {after}");
    assert!(!server.ops("/metrics").await.body.contains("user0"));
}
