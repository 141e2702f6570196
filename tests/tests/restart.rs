//! Going and coming back: drains, signals, and start-ups that cannot be.

use std::process::{Command, Output};

use tern_protocol::{Code, Frame};
use tern_tests::{Options, RawClient, Server, Wire, binary, for_each_wire, newest, pair, seqs};

fn tern(words: &[&str]) -> Output {
    Command::new(binary()).args(words).output().expect("tern runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

for_each_wire! {
    async fn a_drain_tells_everybody_serves_on_and_then_closes(wire: Wire) {
        let mut server = Options::default().set("DRAIN__DEADLINE_MS", "1500").set("DRAIN__SPREAD_MS", "700").start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        alice.say("bob", "before").await;
        server.signal("TERM");
        let go_away = alice.find("GoAway", |envelope| match &envelope.frame {
            Frame::GoAway(go_away) => Some(go_away.clone()),
            _ => None,
        });
        let go_away = go_away.await;
        assert_eq!((go_away.deadline_ms, go_away.spread_ms), (1500, 700));
        let ack = alice.say("bob", "during").await;
        assert_eq!(ack.seq, 2);
        assert_eq!(seqs(&[bob.entry(pair("alice", "bob")).await, bob.entry(pair("alice", "bob")).await]), [1, 2]);
        let end = alice.end().await;
        assert_eq!(end.close.expect("a Close").code, Code::SHUTDOWN);
        assert_eq!(end.transport.code, Some(wire.close_code(Code::SHUTDOWN)));
        assert_eq!(server.exit().await.code(), Some(0));

        server.restart().await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        assert_eq!(seqs(&bob.fetch(newest(pair("alice", "bob"))).await.entries), [2, 1]);
    }

    async fn what_was_sent_before_the_end_is_acked_or_not_there(wire: Wire) {
        let mut server = Options::default().set("DRAIN__DEADLINE_MS", "500").start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        for number in 0..100 {
            alice.request(tern_tests::to("bob", &number.to_string())).await;
        }
        alice.find("an ack", |envelope| matches!(envelope.frame, Frame::SendAck(_)).then_some(())).await;
        server.signal("TERM");
        let end = alice.end().await;
        let acked = 1 + end.frames.iter().filter(|frame| matches!(frame, Frame::SendAck(_))).count();
        assert_eq!(server.exit().await.code(), Some(0));
        server.restart().await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let there = bob.sync(&[]).await.entries.remove(&pair("alice", "bob")).unwrap_or_default();
        assert!(there.len() >= acked, "{acked} acked, {} there", there.len());
        assert_eq!(seqs(&there), (1..=there.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn ctrl_c_without_sessions_waits_for_no_deadline() {
    // Waiting for it would be taken for a hang.
    let mut server = Options::default().set("DRAIN__DEADLINE_MS", "600000").start().await;
    server.signal("INT");
    let exit = server.exit().await;
    assert_eq!(exit.code(), Some(0), "{}", exit.stderr);
}

#[tokio::test]
async fn a_node_for_development_gives_its_sessions_half_a_second() {
    let mut server = Options::default().start().await;
    let mut clients = Vec::new();
    for wire in Wire::ALL {
        clients.push(RawClient::open(&server, wire, "alice").await);
    }
    server.signal("INT");
    for client in &mut clients {
        let told = client.find("GoAway", |envelope| match &envelope.frame {
            Frame::GoAway(told) => Some(told.deadline_ms),
            _ => None,
        });
        let told = told.await;
        assert!(told <= 500, "{told} ms");
    }
    let exit = server.exit().await;
    assert_eq!(exit.code(), Some(0), "{}", exit.stderr);
    for mut client in clients {
        assert_eq!(client.end().await.close.expect("a Close").code, Code::SHUTDOWN);
    }
}

#[tokio::test]
async fn a_second_ctrl_c_exits_at_once() {
    let mut server = Options::default().set("DRAIN__DEADLINE_MS", "600000").start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    server.signal("INT");
    alice.find("GoAway", |envelope| matches!(envelope.frame, Frame::GoAway(_)).then_some(())).await;
    assert!(server.alive(), "it drains");
    server.signal("INT");
    assert_eq!(server.exit().await.code(), Some(130));
}

#[tokio::test]
async fn a_second_node_on_the_same_data_is_refused_and_the_first_goes_on() {
    let server = Server::start().await;
    let exit =
        Options::default().data_dir(server.data_dir()).try_start().await.expect_err("it must not start");
    assert_ne!(exit.code(), Some(0));
    let store = server.data_dir().join("store");
    assert!(exit.stderr.contains(&*store.to_string_lossy()), "it names the directory: {}", exit.stderr);
    assert!(exit.stderr.contains("another"), "it says why: {}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    RawClient::open(&server, Wire::Quic, "alice").await.say("bob", "hi").await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = Server::start().await;
    let [client, http, ops] = server.ports();
    for ports in [[client, 0, 0], [0, http, 0], [0, 0, ops]] {
        let exit = Options::default().ports(ports).try_start().await.expect_err("it must not start");
        assert_ne!(exit.code(), Some(0));
        let port = ports.iter().find(|port| **port != 0).unwrap();
        assert!(exit.stderr.contains(&format!("127.0.0.1:{port}")), "{}", exit.stderr);
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    }
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let inside = file.join("data");
    for path in [&file, &inside] {
        let exit = Options::default().data_dir(path).try_start().await.expect_err("it must not start");
        assert_ne!(exit.code(), Some(0));
        assert!(exit.stderr.contains(&*path.to_string_lossy()), "{}", exit.stderr);
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    }
}

#[tokio::test]
async fn an_old_copy_of_the_data_put_back_is_told_when_a_client_comes_that_knows_more() {
    let mut server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    alice.say("bob", "before the copy").await;
    server.signal("TERM");
    server.exit().await;
    let (dir, copy) = (server.data_dir().to_owned(), tempfile::tempdir().unwrap());
    let copied = Command::new("cp").arg("-a").arg(dir.join("store")).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    server.restart().await;
    RawClient::open(&server, Wire::Quic, "alice").await.say("bob", "after it").await;
    server.signal("TERM");
    server.exit().await;
    std::fs::remove_dir_all(dir.join("store")).unwrap();
    std::fs::rename(copy.path().join("store"), dir.join("store")).unwrap();
    server.restart().await;
    let told = || server.log().matches("an old copy of the data directory was put back").count();
    // Whoever makes up a cursor of a conversation of others says nothing about the data.
    let mut mallory = RawClient::open(&server, Wire::Quic, "mallory").await;
    assert_eq!(mallory.sync(&[(pair("alice", "bob"), 2)]).await.errors.len(), 1);
    assert_eq!(told(), 0);
    let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
    assert_eq!(bob.sync(&[(pair("alice", "bob"), 2)]).await.errors.len(), 1);
    assert_eq!(told(), 1, "{}", server.log());
}

#[tokio::test]
async fn data_of_a_newer_version_is_refused_untouched() {
    let mut server = Server::start().await;
    RawClient::open(&server, Wire::Quic, "alice").await.say("bob", "hi").await;
    server.signal("TERM");
    server.exit().await;
    let path = server.data_dir().join("store/store.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"format\":2"), "{text}");
    // Of what else a newer version writes nothing is known, its check sum included.
    let newer = text.replace("\"format\":2", "\"format\":99").replace("\"check\"", "\"seal\"");
    std::fs::write(&path, &newer).unwrap();
    let exit =
        Options::default().data_dir(server.data_dir()).try_start().await.expect_err("it must not start");
    assert_ne!(exit.code(), Some(0));
    assert!(exit.stderr.contains("99") && exit.stderr.contains("newer"), "{}", exit.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
    std::fs::write(&path, &text).unwrap();
    server.restart().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    assert_eq!(alice.fetch(newest(pair("alice", "bob"))).await.head, 1);
}

#[tokio::test]
async fn a_setting_that_does_not_exist_is_refused_with_the_one_that_was_meant() {
    let exit =
        Options::default().set("PUSH__DELAI_MS", "5").try_start().await.expect_err("it must not start");
    assert_ne!(exit.code(), Some(0));
    assert!(
        exit.stderr.contains("TERN__PUSH__DELAI_MS") && exit.stderr.contains("delay_ms"),
        "{}",
        exit.stderr
    );
    let exit =
        Options::default().set("PUSH__DELAY_MS", "soon").try_start().await.expect_err("it must not start");
    assert!(exit.stderr.contains("TERN__PUSH__DELAY_MS"), "{}", exit.stderr);
}

#[test]
fn a_configuration_is_checked_with_all_it_refers_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("secret"), "0123456789abcdef0123456789abcdef").unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path("secret"), permissions).unwrap();
    let write = |text: &str| std::fs::write(path("tern.toml"), text).unwrap();
    let key = format!("[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"{}\"\n", path("secret"));

    write(&format!("{key}[push]\ndelai_ms = 5\n"));
    let output = tern(&["config", "check", &path("tern.toml")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("delai_ms") && stderr(&output).contains("delay_ms"),
        "{}",
        stderr(&output)
    );

    write(&key.replace("secret\"", "missing\""));
    let output = tern(&["config", "check", &path("tern.toml")]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    assert!(said.contains(&path("missing")), "{said}");

    for command in [["config", "check"], ["serve", "--config"]] {
        let output = tern(&[command[0], command[1], &path("nothing.toml")]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&path("nothing.toml")), "{}", stderr(&output));
    }
    write(&format!("{key}[tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n", path("cert.pem"), path("key.pem")));
    let output = tern(&["serve", "--config", &path("tern.toml")]);
    assert_ne!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("cert.pem"), "{}", stderr(&output));
}

#[tokio::test]
async fn tokens_are_minted_inspected_and_verified() {
    let server = Server::start().await;
    let secret = server.ready().jwt_secret_file.to_string_lossy().into_owned();
    let output =
        tern(&["token", "mint", "--user", "erin", "--name", "Erin", "--ttl", "1h", "--secret-file", &secret]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let mut erin = RawClient::connect(&server, Wire::WebSocketJson).await;
    let welcome = erin.hello(&token, "device").await;
    assert_eq!((welcome.user.as_str(), welcome.name.as_deref()), ("erin", Some("Erin")));

    let output = tern(&["token", "inspect", &token]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("erin") && said.contains("Erin"), "{said}");
    let output = tern(&["token", "verify", "--secret-file", &secret, &token]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = tern(&["token", "verify", "--secret-file", &secret, &format!("{token}x")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!stderr(&output).contains(&token), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_read_nothing_do_not_keep_a_node_that_stops() {
    // Silence counts as death only after 20 minutes: nobody waits for that.
    let options = tern_tests::loose().set("TRANSPORT__KEEPALIVE_S", "600").set("SESSION__STALLED_S", "1200");
    let mut server = options.set("DRAIN__DEADLINE_MS", "500").start().await;
    let mut alice = RawClient::open(&server, Wire::WebSocketBinary, "alice").await;
    let mut deaf = Vec::new();
    let members: Vec<String> = (0..12).map(|number| format!("deaf{number}")).collect();
    for (number, name) in members.iter().enumerate() {
        deaf.push(RawClient::open(&server, Wire::ALL[number % 4], name).await);
    }
    let group = alice.group("team", &members.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // More than kernels, windows and outboxes hold.
    while server.metric("tern_lagged_total").await.unwrap_or(0.0) < members.len() as f64 {
        alice.say_in(group, &"x".repeat(16_000)).await;
    }
    server.signal("TERM");
    let exit = server.exit().await;
    assert_eq!(exit.code(), Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("did not take what it was owed"), "{}", exit.stderr);
    drop(deaf);
}
