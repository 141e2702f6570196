//! Attacks by raw sockets and independent HTTP/2 and 3 are ended with the reason, and cost a bounded amount.
//!
//! Beside each an innocent pair goes on talking. What it cost is printed: memory, the kernel's memory and processor
//! time, for each byte that was sent, and how long the pair's messages took before and meanwhile.
//! `TERN_ATTACKS=long` does ten times as much.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tern_protocol::{ConversationId, Watch};
use tern_tests::http::{Http, address};
use tern_tests::meter::{Innocents, Meter, unsent_bytes};
use tern_tests::{
    RawClient, Server, Subprotocol, WebSocketLink, Wire, installed, loose, message, tls, until, user, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// `ENHANCE_YOUR_CALM` of HTTP/2.
const CALM: u64 = 0xb;
/// A stated bound, generous: no attack of this suite makes the server grow by more.
const GROWTH_BYTES_MAX: u64 = 192 * 1024 * 1024;
/// What the system may keep for one connection: the send buffer as Linux counts it, and a little.
const UNSENT_BYTES_MAX: u64 = 160 * 1024;

/// One attack at a time, so that the figures of one are not those of another.
static TURN: Mutex<()> = Mutex::const_new(());

/// How many times as much is done.
fn scale() -> usize {
    if std::env::var("TERN_ATTACKS").is_ok_and(|said| said == "long") { 10 } else { 1 }
}

/// Runs an attack, which says how many bytes it has sent, beside an innocent pair; prints what it cost.
async fn attack(what: &str, server: &Server, attack: impl AsyncFnOnce() -> usize) {
    let innocents = Innocents::start(server, Wire::WebSocketBinary).await;
    let meter = Meter::start(server);
    let sent = attack().await.max(1);
    let (innocent, cost) = (innocents.finish().await, meter.finish());
    let (quiet, during) = (innocent.quiet, innocent.during);
    let processor_ms = cost.processor_ms.saturating_sub(innocent.processor_ms);
    let per_byte = |figure: u64| figure as f64 / sent as f64;
    println!(
        "{what}: {sent} bytes sent in {:.1?}; memory grew by {} KiB, {:.2} a byte; the kernel's by {} KiB, {:.2} a \
         byte; {} ms of processor besides the pair's, {:.2} µs a byte; innocent pair: {during}; before: {quiet}",
        cost.lasted,
        cost.grown / 1024,
        per_byte(cost.grown),
        cost.kernel / 1024,
        per_byte(cost.kernel),
        processor_ms,
        per_byte(1000 * processor_ms),
    );
    assert!(cost.grown < GROWTH_BYTES_MAX, "{what}: memory grew by {} bytes", cost.grown);
}

/// A plain connection whose answers are taken, and the end of them kept.
struct Raw {
    write: tokio::net::tcp::OwnedWriteHalf,
    reading: tokio::task::JoinHandle<Vec<u8>>,
    sent: usize,
}

impl Raw {
    async fn connect(server: &Server) -> Self {
        let connecting = TcpStream::connect(address(&server.ready().http_url));
        let (mut read, write) = within("a connection", connecting).await.expect("a connection").into_split();
        let reading = tokio::spawn(async move {
            let (mut end, mut bytes) = (Vec::new(), vec![0; 64 * 1024]);
            while let Ok(length @ 1..) = read.read(&mut bytes).await {
                end.extend_from_slice(&bytes[..length]);
                end.drain(..end.len().saturating_sub(4096));
            }
            end
        });
        Self { write, reading, sent: 0 }
    }

    /// A JSON WebSocket after its hello.
    async fn websocket(server: &Server, name: &str) -> Self {
        let mut raw = Self::connect(server).await;
        let upgrade = "GET /v1/connect HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert!(raw.send(upgrade.as_bytes()).await);
        let hello = json!({"type": "hello", "token": server.token(name)});
        assert!(raw.send(&text(&hello.to_string())).await);
        raw
    }

    /// Whether the server still takes anything.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.sent += bytes.len();
        within("room to send", self.write.write_all(bytes)).await.is_ok()
    }

    /// Sends this over and over until the server ends the connection; what it said last.
    async fn send_until_closed(mut self, bytes: &[u8]) -> (usize, String) {
        let sending = async {
            while self.write.write_all(bytes).await.is_ok() {
                self.sent += bytes.len();
            }
        };
        let mut reading = self.reading;
        let end = tokio::select! {
            end = &mut reading => end,
            () = sending => within("the end", reading).await,
        };
        (self.sent, String::from_utf8_lossy(&end.expect("a task")).into_owned())
    }
}

/// A text message as a client sends it, with a mask of zeros.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short").to_be_bytes();
    let mut bytes = vec![0x81];
    if text.len() < 126 {
        bytes.push(0x80 | length[1]);
    } else {
        bytes.extend([0x80 | 126, length[0], length[1]]);
    }
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

/// Waits until the server has closed this connection, whatever it says before.
async fn closed(io: &mut (impl AsyncReadExt + Unpin)) {
    let mut bytes = [0; 4096];
    within("the end of a connection", async { while let Ok(1..) = io.read(&mut bytes).await {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_closed() {
    let _turn = TURN.lock().await;
    let server = loose().set("TRANSPORT__REQUEST_HEAD_TIMEOUT_MS", "1500").start().await;
    let each = 40 * scale();
    attack("silence after TCP, TLS, half a preface, half a header, half an upgrade", &server, async || {
        let (mut plain, mut secure, mut sent) = (Vec::new(), Vec::new(), 0);
        let half = ["", "PRI * HT", "GET / HTTP/1.1\r\nhost", "GET /v1/connect HTTP/1.1\r\nupgrade: webso"];
        for said in half.iter().cycle().take(half.len() * each) {
            let mut io = TcpStream::connect(address(&server.ready().http_url)).await.unwrap();
            io.write_all(said.as_bytes()).await.unwrap();
            sent += said.len();
            plain.push(io);
        }
        for alpn in [&[][..], &[&b"h2"[..]], &[&b"http/1.1"[..]]].into_iter().cycle().take(3 * each) {
            secure.push(tls::connect(&server, alpn).await);
            sent += 500;
        }
        for io in &mut plain {
            closed(io).await;
        }
        for io in &mut secure {
            closed(io).await;
        }
        sent
    })
    .await;
    let silent = server.metric(r#"tern_connections_cut_total{reason="silent"}"#).await.unwrap();
    assert!(silent >= (5 * each) as f64, "{silent} were counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_never_take_the_descriptors_of_the_store_and_of_operators() {
    let _turn = TURN.lock().await;
    let options = loose().under(&["prlimit", "--nofile=160:160"]);
    let server = options.set("TRANSPORT__REQUEST_HEAD_TIMEOUT_MS", "60000").start().await;
    assert_eq!(server.metric("tern_tcp_connections_max").await, Some(80.0));
    assert!(server.log().contains("few file descriptors"), "an operator is told");
    let mut idle = Vec::new();
    attack("300 connections where 80 fit", &server, async || {
        for _ in 0..300 {
            // It may be reset before it is seen to be there.
            if let Ok(mut io) = TcpStream::connect(address(&server.ready().http_url)).await {
                let _ = io.write_all(b"G").await;
                idle.push(io);
            }
        }
        server.metric_becomes("tern_tcp_connections", |open| open == 80.0).await;
        server
            .metric_becomes(r#"tern_connections_refused_total{reason="full"}"#, |refused| refused >= 222.0)
            .await;
        assert_eq!(server.ops("/readyz").await.status, 200);
        300
    })
    .await;
    assert_eq!(server.metric("tern_accept_errors_total").await, Some(0.0));
    // QUIC needs no descriptor, and a place that is free again is given away.
    RawClient::open(&server, Wire::Quic, "late").await.settle().await;
    drop(idle);
    server.metric_becomes("tern_tcp_connections", |open| open <= 2.0).await;
    RawClient::open(&server, Wire::WebSocketJson, "later").await.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_descriptors_is_raised_as_far_as_the_system_allows() {
    let server = loose().under(&["prlimit", "--nofile=128:8192"]).start().await;
    assert_eq!(server.metric("process_max_fds").await, Some(8192.0));
    assert_eq!(server.metric("tern_tcp_connections_max").await, Some(8192.0 - 1216.0));
    assert!(!server.log().contains("few file descriptors"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_keeps_little_for_sessions_that_do_not_read_and_nothing_after_their_end() {
    let _turn = TURN.lock().await;
    let server = loose().set("SESSION__STALLED_S", "3").start().await;
    let deaf = 20 * scale();
    let names: Vec<String> = (0..deaf).map(|number| format!("deaf{number}")).collect();
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let members: Vec<&str> = names.iter().take(90).map(String::as_str).collect();
    let group = alice.group("loud", &members).await;
    let ports = server.ports();
    let mut most = 0;
    attack(&format!("{deaf} sessions that do not read"), &server, async || {
        let mut links = Vec::new();
        for (name, wire) in names.iter().zip([Subprotocol::Json, Subprotocol::Binary].into_iter().cycle()) {
            let mut link = RawClient::over(WebSocketLink::connect(&server, wire).await);
            link.hello(&server.token(name), "deaf").await;
            links.push(link);
        }
        let long = "z".repeat(15_000);
        for _ in 0..60 * scale() {
            alice.say_in(group, &long).await;
            most = most.max(ports[..2].iter().map(|port| unsent_bytes(*port)).sum());
        }
        // They are closed as slow, and reset: nothing of it is left to the system.
        let quiet = r#"tern_connections{transport="websocket"}"#;
        server.metric_becomes(quiet, |open| open == 2.0).await;
        until("the system to let go", || {
            let left: u64 = ports[..2].iter().map(|port| unsent_bytes(*port)).sum();
            (left < UNSENT_BYTES_MAX).then_some(())
        })
        .await;
        15_000 * 60 * scale()
    })
    .await;
    println!("   the system kept {most} bytes, {} for each", most / deaf as u64);
    assert!(most > 0 && most < deaf as u64 * UNSENT_BYTES_MAX, "{most} bytes for {deaf} sessions");
    let slow = server.metric(r#"tern_refused_total{code="4302"}"#).await;
    assert_eq!(slow, Some(deaf as f64), "each was closed as slow");
}

/// A conversation of alice's whose newest page is long, and its path.
async fn long_page(server: &Server) -> String {
    let mut alice = RawClient::open(server, Wire::Quic, "alice").await;
    let mut conversation: Option<ConversationId> = None;
    for _ in 0..60 {
        conversation = Some(alice.acked(message(user("bob"), &"x".repeat(15_000))).await.conversation);
    }
    format!("/v1/history/{}?limit=200", conversation.expect("it was sent"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_http_1_that_nobody_takes_are_given_up() {
    let _turn = TURN.lock().await;
    let server = loose().set("TRANSPORT__ANSWER_TIMEOUT_MS", "2000").start().await;
    let (path, token) = (long_page(&server).await, server.token("alice"));
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
    let connections = 20 * scale();
    attack(&format!("{connections} × 16 requests of HTTP/1.1, nothing read"), &server, async || {
        let mut deaf = Vec::new();
        for _ in 0..connections {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut io = socket.connect(address(&server.ready().http_url)).await.unwrap();
            let _ = io.write_all(request.repeat(16).as_bytes()).await;
            deaf.push(io);
        }
        let cut = r#"tern_connections_cut_total{reason="unread"}"#;
        server.metric_becomes(cut, |cut| cut == connections as f64).await;
        connections * 16 * request.len()
    })
    .await;
}

/// What the independent client says of its attack.
async fn peer(attack: &'static str, port: u16, count: usize, token: String, path: String) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(installed("attacks", "python", "attacks"));
    command.arg(root.join("attacks/peer.py")).args([
        attack,
        &port.to_string(),
        &count.to_string(),
        &token,
        &path,
    ]);
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("a thread");
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let said =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{attack}: {error}: {said}\n{errors}"));
    println!("   {attack}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_http_2_that_nobody_has_room_for_are_given_up_with_the_reason() {
    let _turn = TURN.lock().await;
    let server = loose().set("TRANSPORT__ANSWER_TIMEOUT_MS", "2000").start().await;
    let path = long_page(&server).await;
    attack("32 requests of HTTP/2 by an independent client without a window", &server, async || {
        let said = peer("h2_unread", server.ports()[1], 32, server.token("alice"), path).await;
        assert_eq!(
            (said["code"].as_u64(), &said["reason"]),
            (Some(CALM), &json!("an answer was not taken in time"))
        );
        said["sent"].as_u64().unwrap() as usize
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_http_2_end_their_connection_with_the_reason() {
    let _turn = TURN.lock().await;
    let server = loose().start().await;
    let ask_nothing = Some("too many frames that ask nothing");
    let floods = [
        ("h2_ping", ask_nothing),
        ("h2_settings", ask_nothing),
        ("h2_window", ask_nothing),
        ("h2_priority", ask_nothing),
        ("h2_reset", None),
        ("h2_index_bomb", None),
        ("h2_empty_data", None),
        ("h2_continuation", None),
    ];
    for (flood, reason) in floods {
        attack(flood, &server, async || {
            let token = server.token("mallory");
            let said = peer(flood, server.ports()[1], 20_000, token, "/v1/bootstrap".into()).await;
            assert_eq!(said["code"].as_u64(), Some(CALM), "{flood}: {said}");
            if let Some(reason) = reason {
                assert_eq!(said["reason"], reason, "{flood}");
            }
            said["sent"].as_u64().unwrap() as usize
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_http_3_that_never_end_and_answers_that_nobody_takes_are_given_up() {
    let _turn = TURN.lock().await;
    let server = loose().set("TRANSPORT__ANSWER_TIMEOUT_MS", "2000").start().await;
    let path = long_page(&server).await;
    for kind in ["h3_endless", "h3_unread"] {
        attack(kind, &server, async || {
            let said = peer(kind, server.ports()[0], 16, server.token("alice"), path.clone()).await;
            assert_eq!(said["ended"], true, "{kind}: {said}");
            said["sent"].as_u64().unwrap() as usize
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_over_the_limit_of_frames_are_not_read_on() {
    let _turn = TURN.lock().await;
    let server = loose()
        .set("QUOTA__CONNECTION_FRAMES_PER_SECOND", "300")
        .set("QUOTA__CONNECTION_FRAMES_BURST", "600")
        .start()
        .await;
    let mut mallory = RawClient::open(&server, Wire::Quic, "mallory").await;
    for number in 0..20 {
        mallory.group(&format!("g{number}"), &["bob"]).await;
    }
    for (what, frame) in
        [("sync after sync", r#"{"type":"sync"}"#), ("frame after frame", r#"{"type":"ping"}"#)]
    {
        attack(what, &server, async || {
            let mut raw = Raw::websocket(&server, "mallory").await;
            let refused = r#"tern_refused_total{code="4300"}"#;
            let before = server.metric(refused).await.unwrap();
            // It is not read on before its time, so it would take long until it is closed for that.
            let flood = text(frame).repeat(20);
            let flooding = async {
                while raw.write.write_all(&flood).await.is_ok() {
                    raw.sent += flood.len()
                }
            };
            tokio::select! {
                () = flooding => {}
                () = server.metric_becomes(refused, |count| count >= before + 3.0) => {}
            }
            raw.sent
        })
        .await;
    }
    attack("what is no frame", &server, async || {
        let raw = Raw::websocket(&server, "mallory").await;
        let (sent, said) = raw.send_until_closed(&text("{").repeat(20)).await;
        assert!(said.contains(r#""type":"close""#), "{said}");
        sent
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reads_is_refused_beyond_the_quota() {
    let _turn = TURN.lock().await;
    let server = loose()
        .set("QUOTA__USER_FETCHES_PER_SECOND", "10")
        .set("QUOTA__USER_FETCHES_BURST", "20")
        .start()
        .await;
    let mut mallory = RawClient::open(&server, Wire::Quic, "mallory").await;
    for number in 0..40 * scale() {
        let group = mallory.group(&format!("g{number}"), &["bob"]).await;
        for _ in 0..5 {
            mallory.say_in(group, "unread by bob").await;
        }
    }
    let token = server.token("bob");
    attack("lists, as fast as they come", &server, async || {
        let (mut good, mut refused) = (0, 0);
        for _ in 0..150 * scale() {
            let answer = server.get(Http::One, "/v1/conversations?limit=200", Some(&token)).await;
            match answer.status.as_u16() {
                200 => good += 1,
                429 => refused += 1,
                other => panic!("{other}: {}", answer.body),
            }
        }
        println!("   {good} answered, {refused} refused");
        assert!(good > 0 && refused > 0);
        150 * scale() * 400
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_to_ever_new_people_and_vanishing_watchers_cost_little() {
    let _turn = TURN.lock().await;
    let server = loose().start().await;
    let people = 1500 * scale();
    attack(&format!("messages to {people} people"), &server, async || {
        let mut mallory = RawClient::open(&server, Wire::Quic, "mallory").await;
        for number in 0..people {
            mallory.say(&format!("p{number}"), "hi").await;
        }
        people * 60
    })
    .await;
    let watchers = 200 * scale();
    attack(&format!("{watchers} watchers that vanish"), &server, async || {
        for number in 0..watchers {
            let mut mallory = RawClient::open(&server, Wire::WebSocketJson, "mallory").await;
            let users = (0..100).map(|person| user(&format!("p{}", number + person))).collect();
            mallory.send(Watch { users }).await;
        }
        server.metric_becomes(r#"tern_connections{transport="websocket"}"#, |open| open == 2.0).await;
        watchers * 2000
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_guess_tokens_are_refused_at_the_door() {
    let _turn = TURN.lock().await;
    let server = loose().set("QUOTA__LOOPBACK_EXEMPT", "false").start().await;
    attack("bad tokens", &server, async || {
        let mut raw = Raw::connect(&server).await;
        let request =
            "GET /v1/conversations HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer x.y.z\r\n\r\n";
        for _ in 0..2000 * scale() {
            assert!(raw.send(request.as_bytes()).await);
            // So that answers can be taken in between.
            tokio::task::yield_now().await;
        }
        assert!(
            raw.send(b"GET /v1/conversations HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await
        );
        let said = within("the last answer", raw.reading).await.unwrap();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("HTTP/1.1 429"), "{said}");
        raw.sent
    })
    .await;
}
