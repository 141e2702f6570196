//! A node run for real: renewals while clients send, drains, the service manager, what an operator asks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::time::Duration;

use http::StatusCode;
use tern_protocol::{Code, Frame, Reauth, Token};
use tern_tests::http::Http;
use tern_tests::{Deployment, Options, RawClient, Server, TokenKey, Wire, bounded, loose, to, until, within};
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

/// A node with one key for tokens.
async fn serve(deployment: &Deployment, key: &TokenKey) -> Server {
    let file = deployment.put_public_key("jwt.pem", key);
    deployment.configure(&es256(&file));
    loose().serve(&deployment.config()).start().await
}

fn es256(file: &Path) -> String {
    format!("[[auth.keys]]\nalgorithm = \"ES256\"\npublic_key_file = {file:?}\n")
}

async fn open(server: &Server, wire: Wire, key: &TokenKey, user: &str) -> RawClient {
    let mut client = RawClient::connect(server, wire).await;
    client.hello(&key.token(user), &format!("{user}-device")).await;
    client
}

/// A client that sends one message after the other, each of which must be acked.
struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<RawClient>,
}

impl Sender {
    fn start(mut client: RawClient) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                client.say("carol", "still here").await;
                count.fetch_add(1, Ordering::Relaxed);
            }
            client
        });
        Self { stop, sent, task }
    }

    /// Waits until ten more messages were acked.
    async fn goes_on(&self) {
        let goal = self.sent.load(Ordering::Relaxed) + 10;
        until("more acks", || (self.sent.load(Ordering::Relaxed) >= goal).then_some(())).await;
    }

    async fn stop(self) -> RawClient {
        self.stop.store(true, Ordering::Relaxed);
        within("the last ack", self.task).await.expect("every send was acked in one session")
    }
}

async fn log_has(server: &Server, words: &str) {
    until(words, || server.log().contains(words).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_presented_and_no_send_fails() {
    bounded(async {
        let (deployment, key) = (Deployment::new(), TokenKey::new("one"));
        let mut server = serve(&deployment, &key).await;
        let mut senders = Vec::new();
        for (number, wire) in Wire::ALL.into_iter().enumerate() {
            let user = format!("sender-{number}");
            senders.push(Sender::start(open(&server, wire, &key, &user).await));
        }
        let sha256 = deployment.put_certificate();
        log_has(&server, "a new certificate is presented").await;
        server.expect_certificate(sha256);
        // Who comes now is shown the new one, on every transport.
        for wire in Wire::ALL {
            open(&server, wire, &key, "newcomer").await.say("carol", "hi").await;
        }
        for sender in senders {
            sender.goes_on().await;
            sender.stop().await;
        }
        assert_eq!(server.metric("tern_reloads_total{outcome=\"refused\"}").await, Some(0.0));
        let expires = server.metric("tern_certificate_expires_timestamp_seconds").await.unwrap();
        assert!(expires > tern_tests::token::now_s() as f64, "{expires}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_without_its_key_is_refused_loudly_and_the_old_one_stays() {
    bounded(async {
        let (deployment, key) = (Deployment::new(), TokenKey::new("one"));
        let mut server = serve(&deployment, &key).await;
        std::fs::copy(deployment.file("key.pem"), deployment.file("old-key.pem")).unwrap();
        let sha256 = deployment.put_certificate();
        log_has(&server, "a new certificate is presented").await;
        server.expect_certificate(sha256);
        std::fs::copy(deployment.file("old-key.pem"), deployment.file("key.pem")).unwrap();
        server.metric_becomes("tern_reloads_total{outcome=\"refused\"}", |count| count >= 1.0).await;
        let log = server.log();
        let line = log.lines().find(|line| line.contains("is not taken")).unwrap();
        assert!(line.contains("WARN") && line.contains("does not belong to the certificate"), "{line}");
        open(&server, Wire::Quic, &key, "alice").await.say("bob", "hi").await;
        open(&server, Wire::WebSocketBinary, &key, "alice").await.say("bob", "hi").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_for_tokens_is_taken_while_sessions_of_the_old_one_go_on() {
    bounded(async {
        let (deployment, old, new) = (Deployment::new(), TokenKey::new("old"), TokenKey::new("new"));
        let mut server = serve(&deployment, &old).await;
        let mut senders = Vec::new();
        for wire in Wire::ALL {
            senders.push(Sender::start(open(&server, wire, &old, "alice").await));
        }
        deployment.put_public_key("jwt.pem", &new);
        server.signal("HUP");
        log_has(&server, "configuration read again").await;
        for sender in senders {
            sender.goes_on().await;
            let mut client = sender.stop().await;
            let renewed = client.ask(Reauth { token: Token(new.token("alice")) }).await;
            assert!(matches!(renewed, Frame::Reauthed(_)), "{renewed:?}");
            let refused = client.refused(Reauth { token: Token(old.token("alice")) }).await;
            assert_eq!(refused.code, Code::TOKEN_INVALID);
            client.say("carol", "still here").await;
        }
        let mut late = RawClient::connect(&server, Wire::Quic).await;
        let answer = late.greet(&old.token("alice"), "device").await;
        assert!(matches!(answer, Frame::Close(close) if close.code == Code::TOKEN_INVALID));
        assert!(server.alive());
    })
    .await;
}

#[tokio::test]
async fn a_bad_configuration_is_not_taken_and_what_needs_a_restart_is_said() {
    let (deployment, key) = (Deployment::new(), TokenKey::new("one"));
    let server = serve(&deployment, &key).await;
    let good = es256(&deployment.file("jwt.pem"));
    deployment.configure("[log]\nlevle = \"debug\"\n");
    server.signal("HUP");
    log_has(&server, "the configuration was not taken").await;
    deployment.configure(&format!("[presence]\ngrace_ms = 7\n[log]\nlevel = \"info,tern=debug\"\n{good}"));
    server.signal("HUP");
    log_has(&server, "only a restart takes these over").await;
    let log = server.log();
    let line = log.lines().find(|line| line.contains("only a restart")).unwrap();
    assert!(line.contains("presence.grace_ms") && !line.contains("log.level"), "{line}");
    assert!(server.ops("/log").await.body.contains("tern=debug"));
    open(&server, Wire::Quic, &key, "alice").await.say("bob", "hi").await;
}

#[tokio::test]
async fn the_service_manager_hears_of_start_reload_and_end() {
    let (deployment, key) = (Deployment::new(), TokenKey::new("one"));
    let path = deployment.file("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    let file = deployment.put_public_key("jwt.pem", &key);
    deployment.configure(&es256(&file));
    let options = Options::default().serve(&deployment.config());
    let options = options.env("NOTIFY_SOCKET", path.to_str().unwrap()).env("WATCHDOG_USEC", "200000");
    let mut server = options.start().await;
    let next = async |skip_watchdog: bool| loop {
        let mut buffer = [0; 256];
        let read = within("a word to the service manager", socket.recv(&mut buffer)).await.unwrap();
        let text = String::from_utf8(buffer[..read].to_vec()).unwrap();
        if !(skip_watchdog && text == "WATCHDOG=1") {
            return text;
        }
    };
    assert_eq!(next(true).await, "READY=1");
    assert_eq!(next(false).await, "WATCHDOG=1");
    server.signal("HUP");
    assert_eq!(next(true).await, "RELOADING=1");
    assert_eq!(next(true).await, "READY=1");
    server.signal("TERM");
    assert_eq!(next(true).await, "STOPPING=1");
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_seen_by_balancers_before_any_session_ends() {
    bounded(async {
        let (deployment, key) = (Deployment::new(), TokenKey::new("one"));
        let mut server = serve(&deployment, &key).await;
        let mut clients = Vec::new();
        for wire in Wire::ALL {
            clients.push(open(&server, wire, &key, "alice").await);
        }
        server.signal("TERM");
        for client in &mut clients {
            client.find("GoAway", |e| matches!(e.frame, Frame::GoAway(_)).then_some(())).await;
            assert_eq!(server.ops("/readyz").await.status, 503);
            assert_eq!(server.ops("/livez").await.status, 200);
            client.say("bob", "sent during the drain").await;
        }
        for mut client in clients {
            let end = client.end().await;
            assert_eq!(end.close.map(|close| close.code), Some(Code::SHUTDOWN));
        }
        assert_eq!(server.exit().await.code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn the_log_of_a_running_node_can_be_turned_up_and_down() {
    let server = Server::start().await;
    let ops = server.ready().ops_url.trim_start_matches("http://").to_owned();
    let tern = async |words: &[&str]| {
        let mut command = std::process::Command::new(tern_tests::binary());
        command.args(words).args(["--ops", &ops]);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = within("tern log", output).await.unwrap().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (_, configured) = tern(&["log", "get"]).await;
    RawClient::open(&server, Wire::Quic, "alice").await.leave().await;
    assert!(!server.log().contains("session open"));
    let (done, changed) = tern(&["log", "set", "tern::session=debug"]).await;
    assert!(done && changed.trim() == format!("{},tern::session=debug", configured.trim()), "{changed}");
    RawClient::open(&server, Wire::Quic, "alice").await.leave().await;
    log_has(&server, "session open").await;
    assert!(!tern(&["log", "set", "loud=very"]).await.0);
    assert_eq!(tern(&["log", "get"]).await.1, changed, "a bad filter changes nothing");
    assert_eq!(tern(&["log", "reset"]).await.1, configured);
}

#[tokio::test]
async fn one_message_can_be_followed_through_the_debug_log_by_its_ids_and_without_its_words() {
    let server = loose().env("RUST_LOG", "debug").start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let session = alice.welcome().session;
    let send = to("bob", "a-secret-between-us");
    let (temp_id, token) = (send.temp_id.to_string(), server.token("alice"));
    let ack = alice.acked(send).await;
    log_has(&server, "change answered").await;
    let log = server.log();
    let step = |what: &str| {
        let line = log.lines().find(|line| line.contains(what) && line.contains(&temp_id));
        line.unwrap_or_else(|| panic!("no line says {what:?} of {temp_id}")).to_owned()
    };
    let conversation = ack.conversation.to_string();
    for what in ["change asked for", "durable", "change answered"] {
        let line = step(what);
        assert!(line.contains(&format!("session={session}")) && line.contains(&conversation), "{line}");
    }
    for what in ["durable", "change answered"] {
        assert!(step(what).contains(&format!("seq={}", ack.seq)), "{}", step(what));
    }
    assert!(!log.contains("a-secret-between-us") && !log.contains(&token));
}

/// Runs `tern` to its end; gives whether it was content, and what it said.
async fn tern(words: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(tern_tests::binary());
    command.args(words).env_clear();
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = within("the command", output).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_doctor_reaches_a_running_node_over_udp_and_tcp_and_notices_an_old_certificate() {
    let (deployment, key) = (Deployment::new(), TokenKey::new("one"));
    let file = deployment.put_public_key("jwt.pem", &key);
    // The node never looks at the files again, unless it is told to.
    deployment.configure(&es256(&file));
    let options = loose().serve(&deployment.config()).set("TLS__RELOAD_EVERY_S", "0");
    let server = options.start().await;
    let [client, _, ops] = server.ports();
    deployment.configure(&format!(
        "[node]\ndata_dir = {:?}\n[listen]\nclient = \"127.0.0.1:{client}\"\n[ops]\nlisten = \"127.0.0.1:{ops}\"\n{}",
        server.data_dir(),
        es256(&file)
    ));
    let config = deployment.config();
    let config = config.to_str().unwrap();
    let (content, said) = tern(&["doctor", "--config", config]).await;
    assert!(content, "{said}");
    for words in ["(UDP) answers", "(TCP) answers", "fdatasync/s", "belong together"] {
        assert!(said.contains(words), "{words} in {said}");
    }
    assert!(tern(&["ready", "--config", config]).await.0);
    deployment.put_certificate();
    let (content, said) = tern(&["doctor", "--config", config]).await;
    assert!(!content && said.contains("presents another certificate"), "{said}");
}

#[tokio::test]
async fn the_example_configuration_is_what_the_program_prints() {
    let (content, said) = tern(&["config", "docs"]).await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tern.toml");
    assert!(content && said == std::fs::read_to_string(file).unwrap());
    let (content, said) = tern(&["version", "--json"]).await;
    let version: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(content && version["target"].as_str().unwrap().contains('-'), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_development_node_that_runs_for_weeks_presents_a_certificate_that_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    let mut server = Options::default().settable_clock(&clock).set("TLS__RELOAD_EVERY_S", "1").start().await;
    let told = async |server: &Server| {
        let bootstrap = server.get(Http::One, "/v1/bootstrap", None).await.json();
        bootstrap["certificate_sha256"].as_str().expect("a hash").to_owned()
    };
    let first = told(&server).await;
    assert_eq!(first, server.ready().cert_sha256);
    Server::set_clock(&clock, 15 * 24 * 3600);
    let renewed = within("a renewed certificate", async {
        loop {
            let now = told(&server).await;
            if now != first {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // It is what is presented on every port, and what `tern chat` finds.
    server
        .expect_certificate(data_encoding::HEXLOWER.decode(renewed.as_bytes()).unwrap().try_into().unwrap());
    assert_eq!(server.get(Http::TwoTls, "/v1/bootstrap", None).await.status, StatusCode::OK);
    RawClient::connect(&server, Wire::Quic).await;
    until("the file for `tern chat`", || {
        let file = std::fs::read_to_string(server.data_dir().join("dev.json")).unwrap();
        file.contains(&renewed).then_some(())
    })
    .await;
}
