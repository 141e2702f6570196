//! The life of data: backups restore to what was acked, what is old goes, erased users are tombstones everywhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tern_client::{Client, Config, Event, FilePersistence, Trust};
use tern_protocol::{
    AddMembers, Code, ConversationId, Entry, EntryBody, Erased, Fetch, Frame, Gap, LeaveGroup, Read, Target,
    UserId,
};
use tern_tests::{
    RawClient, Server, Wire, binary, bounded, fresh, loose, newest, on_a_wire, pair, seqs, text, token,
    until, user, within,
};

fn tern(words: &[&str]) -> Output {
    Command::new(binary()).args(words).output().expect("tern runs")
}

/// Runs `tern store` and expects success; what it printed.
#[track_caller]
fn store(words: &[&str]) -> String {
    let output = tern(&[&["store"], words].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tern store {words:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs `tern store` and expects failure; its exit code, and all that it said.
#[track_caller]
fn refused(words: &[&str]) -> (i32, String) {
    let output = tern(&[&["store"], words].concat());
    let code = output.status.code().expect("it was not killed");
    let said = [output.stdout, output.stderr].concat();
    assert_ne!(code, 0, "tern store {words:?}");
    (code, String::from_utf8_lossy(&said).into_owned())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in text")
}

/// Runs a command of this test on a thread of its own, so that the runtime goes on.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the command was run")
}

/// A store that this program verifies from end to end.
fn in_order(dir: &Path) {
    let said = store(&["verify", path(dir)]);
    assert!(said.contains("all of it is in order"), "{said}");
}

/// An application on the SDK: what it was handed, by store.
struct App {
    client: Client,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    log: BTreeMap<u64, Entry>,
    stores: usize,
    erased: Vec<u64>,
}

impl App {
    async fn start(server: &Server, name: &str, file: &Path, conversation: ConversationId) -> Self {
        let config = Config::new(server.token(name))
            .trust(Trust::CertSha256(server.cert_sha256()))
            .persistence(FilePersistence::new(file))
            .quic(server.ready().quic_addr.to_string());
        let (client, mut events) = within("a session", Client::connect(config)).await.expect("a session");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let taken = seen.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let mut seen = taken.lock();
                match event {
                    Event::Entry { conversation: of, entry } if of == conversation => {
                        let before = seen.log.insert(entry.seq, entry);
                        assert!(before.is_none(), "an entry was handed out twice");
                    }
                    Event::StoreChanged { .. } => {
                        seen.log.clear();
                        seen.stores += 1;
                    }
                    Event::Erased { seq, .. } => seen.erased.push(seq),
                    _ => {}
                }
            }
        });
        Self { client, seen }
    }

    async fn has_up_to(&self, seq: u64) {
        let has =
            || self.seen.lock().log.last_key_value().is_some_and(|(last, _)| *last >= seq).then_some(());
        until("the application to have it all", has).await;
    }

    fn log(&self) -> Vec<Entry> {
        self.seen.lock().log.values().cloned().collect()
    }
}

/// Sends messages, some at a time, and waits for their acks.
async fn fill(client: &mut RawClient, messages: Vec<tern_protocol::Send>) {
    for some in messages.chunks(100) {
        for message in some {
            client.send(message.clone()).await;
        }
        for _ in some {
            client
                .find("an ack", |envelope| matches!(&envelope.frame, Frame::SendAck(_)).then_some(()))
                .await;
        }
    }
}

/// The whole log as a member reads it.
async fn whole_log(client: &mut RawClient, conversation: ConversationId) -> Vec<Entry> {
    let mut log = Vec::new();
    loop {
        let after = log.last().map_or(0, |entry: &Entry| entry.seq);
        let fetch = Fetch { conversation, before: None, after: Some(after), around: None, limit: Some(200) };
        let page = client.fetch(fetch).await;
        if page.entries.is_empty() {
            return log;
        }
        log.extend(page.entries.into_iter().rev());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_busy_node_restores_and_clients_with_old_cursors_end_with_its_log() {
    bounded(async {
        let mut server = Server::start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let talk = pair("alice", "bob");
        let (alice_file, bob_file) = (dir.path().join("alice"), dir.path().join("bob"));
        let alice = App::start(&server, "alice", &alice_file, talk).await;
        let bob = App::start(&server, "bob", &bob_file, talk).await;
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sending = tokio::spawn({
            let (client, stop, acked) = (alice.client.clone(), stop.clone(), acked.clone());
            async move {
                while !stop.load(Ordering::SeqCst) {
                    let ack = client.send(user("bob"), "before or after").await.expect("an ack");
                    acked.store(ack.seq, Ordering::SeqCst);
                }
            }
        });
        until("some traffic", || (acked.load(Ordering::SeqCst) > 50).then_some(())).await;
        let before = acked.load(Ordering::SeqCst);
        let (backup, data) = (dir.path().join("backup"), server.data_dir().to_owned());
        let taken = backup.clone();
        let said = aside(move || store(&["backup", path(&taken), "--data-dir", path(&data)])).await;
        let after = acked.load(Ordering::SeqCst);
        until("more traffic", || (acked.load(Ordering::SeqCst) > after + 20).then_some(())).await;
        stop.store(true, Ordering::SeqCst);
        sending.await.expect("the sender is well");
        assert!(said.contains(&server.ready().store_id), "{said}");
        bob.has_up_to(acked.load(Ordering::SeqCst)).await;
        alice.client.close().await;
        bob.client.close().await;
        server.kill();

        in_order(&backup);
        let restored = dir.path().join("restored");
        let said = store(&["restore", path(&backup), "--to", path(&restored)]);
        assert!(said.contains(&server.ready().store_id), "{said}");
        in_order(&restored);
        let again = refused(&["restore", path(&backup), "--to", path(&restored)]);
        assert!(again.1.contains("not empty"), "{again:?}");
        let other = loose().data_dir(&restored).start().await;
        assert_ne!(other.ready().store_id, server.ready().store_id);
        let mut reader = RawClient::open(&other, Wire::Quic, "alice").await;
        let log = whole_log(&mut reader, talk).await;
        assert!(log.len() as u64 >= before, "{} of {before} acked messages are in the backup", log.len());
        assert!((log.len() as u64) < acked.load(Ordering::SeqCst), "the backup has no future");
        // The same seqs are given to other entries now.
        let alice = App::start(&other, "alice", &alice_file, talk).await;
        let bob = App::start(&other, "bob", &bob_file, talk).await;
        let mut last = 0;
        for number in 0..40 {
            last = bob.client.send(user("alice"), format!("new life {number}")).await.expect("an ack").seq;
        }
        assert_eq!(last, log.len() as u64 + 40);
        let log = whole_log(&mut reader, talk).await;
        for app in [&alice, &bob] {
            app.has_up_to(last).await;
            assert_eq!(app.log(), log, "the client's log is the server's");
            assert_eq!(app.seen.lock().stores, 1, "it was told that the store is another");
        }
        alice.client.close().await;
        bob.client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_is_backed_up_verified_and_exported_without_one() {
    bounded(async {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
        alice.say("bob", "hi").await;
        let data = server.data_dir().to_owned();
        let busy = refused(&["verify", path(&data)]);
        assert!(busy.1.contains("verify a backup of it"), "{busy:?}");
        server.kill();
        in_order(&data);
        let dir = tempfile::tempdir().expect("a directory");
        let backup = dir.path().join("b");
        store(&["backup", path(&backup), "--data-dir", path(&data)]);
        in_order(&backup);
        assert!(store(&["export", "alice", "--data-dir", path(&data)]).contains("\"hi\""));
        let (code, said) = refused(&["backup", path(&backup), "--data-dir", path(&data)]);
        assert!(code == 1 && said.contains("not empty"), "{said}");
        let (_, said) = refused(&["backup", "/nowhere", "--data-dir", path(dir.path())]);
        assert!(said.contains("there is no store in"), "{said}");
        // Damage is told.
        let rows = backup.join("rows-000001.tern");
        let mut bytes = std::fs::read(&rows).expect("rows");
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        std::fs::write(&rows, bytes).expect("rows");
        let (_, said) = refused(&["verify", path(&backup)]);
        assert!(said.contains("rows-000001.tern"), "{said}");
        // Nothing of this has touched the store.
        server.restart().await;
        let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
        assert_eq!(text(&bob.sync(&[]).await.entries[&pair("alice", "bob")][0]), "hi");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_all_that_is_the_users_and_nothing_of_others() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let mut bob = RawClient::connect(&server, Wire::Quic).await;
    let mut claims = token::claims("bob");
    claims["name"] = json!("Bob B.");
    bob.hello(&server.sign(&claims), "phone").await;
    bob.say("alice", "mine 1").await;
    alice.say("bob", "not yours").await;
    let group = alice.group("crew", &["bob"]).await;
    bob.say_in(group, "mine 2").await;
    bob.send(Read { conversation: pair("alice", "bob"), seq: 2 }).await;
    bob.settle().await;
    bob.acked(LeaveGroup { conversation: group, temp_id: fresh() }).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bob.jsonl");
    let words = ["export", "bob", "--out", path(&file), "--data-dir", path(server.data_dir())];
    store(&words);
    let exported = std::fs::read_to_string(&file).expect("the export");
    let lines: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    assert_eq!(
        (&lines[0]["type"], &lines[0]["user"], &lines[0]["name"]),
        (&json!("user"), &json!("bob"), &json!("Bob B."))
    );
    assert_eq!(of("conversation").len(), 2);
    let of_pair = of("conversation").into_iter().find(|line| line["kind"] == "pair").expect("the pair");
    assert_eq!((&of_pair["read_seq"], &of_pair["members"]), (&json!(2), &json!(["bob", "alice"])));
    let texts: Vec<&str> =
        of("entry").iter().filter_map(|line| line["entry"]["body"]["text"].as_str()).collect();
    assert_eq!(texts.len(), 2);
    assert!(texts.contains(&"mine 1") && texts.contains(&"mine 2"), "{texts:?}");
    assert_eq!(of("entry").len(), 3, "the entry by which he left is his too");
    assert!(!exported.contains("not yours"));
    assert_eq!(lines.last().expect("lines")["entries"], 3);
    assert!(refused(&words).1.contains("exists"), "an export overwrites nothing");
    let (_, said) = refused(&["export", "nobody", "--data-dir", path(server.data_dir())]);
    assert!(said.contains("nothing is kept of the user nobody"), "{said}");
}

/// Erases a user through the running node.
async fn erase(server: &Server, name: &'static str) {
    let data = server.data_dir().to_owned();
    aside(move || store(&["erase", name, "--yes", "--data-dir", path(&data)])).await;
}

fn erased_by(entry: &Entry) -> &UserId {
    match &entry.body {
        EntryBody::Left { user } if user.is_erased() => user,
        other => panic!("not the entry of an erasure: {other:?}"),
    }
}

on_a_wire! {
    async fn an_erasure_is_seen_by_who_is_online_away_and_back(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let group = alice.group("crew", &["bob", "carol"]).await;
        bob.say_in(group, "secret of bob").await;
        alice.say_in(group, "bob said a secret").await;
        bob.say("alice", "also secret").await;
        let talk = pair("alice", "bob");
        alice.sync(&[]).await;
        let token_of_before = server.token("bob");
        let (code, said) = refused(&["erase", "bob", "--data-dir", path(server.data_dir())]);
        assert!(code == 1 && said.contains("--yes"), "{said}");
        erase(&server, "bob").await;

        // Who is online: the entry, and the frame that says what it means.
        let end = bob.end().await;
        assert_eq!(end.close.expect("a Close").code, Code::TOKEN_INVALID);
        let mut told = Vec::new();
        while told.len() < 2 {
            told.push(alice.find("an erasure", |envelope| match &envelope.frame {
                Frame::Erased(erased) => Some(*erased),
                _ => None,
            }).await);
        }
        assert!(told.contains(&Erased { conversation: group, seq: 4 }), "{told:?}");
        assert!(told.contains(&Erased { conversation: talk, seq: 2 }), "{told:?}");

        // Who is back with an old cursor, and who comes for the first time.
        let mut back = RawClient::open(&server, wire, "alice").await;
        let synced = back.sync(&[(group, 3), (talk, 1)]).await;
        assert_eq!(synced.erased.len(), 2);
        let became = erased_by(&synced.entries[&group][0]).clone();
        assert_eq!(*erased_by(&synced.entries[&talk][0]), became);
        let summary = synced.summaries.iter().find(|summary| summary.conversation == talk).expect("the pair");
        assert_eq!((summary.peer.clone(), summary.head), (None, 2));
        let mut carol = RawClient::open(&server, wire, "carol").await;
        let synced = carol.sync(&[]).await;
        let log = &synced.entries[&group];
        assert_eq!(seqs(log), [1, 2, 3, 4]);
        let written = serde_json::to_string(log).expect("entries are JSON");
        assert!(!written.contains("secret of bob") && !written.contains("\"bob\""), "{written}");
        assert_eq!((&log[1].body, &log[1].sender, log[1].temp_id), (&EntryBody::Erased, &became, None));
        assert_eq!(text(&log[2]), "bob said a secret", "what others wrote is theirs");
        assert_eq!(synced.summaries[0].unread, 2, "numbers of messages do not change");
        assert_eq!(whole_log(&mut back, group).await, *log, "all members see the same log");

        // The pair goes on alone; its other user can be written to like anybody who never came.
        let refused = back.refused(tern_tests::message(Target::Conversation(talk), "?")).await;
        assert_eq!(refused.code, Code::UNREACHABLE);
        let ack = back.say("bob", "hello again").await;
        assert_eq!(ack.seq, 4, "after the entry that adds him");

        // Tokens of before are refused; a newer one opens a new account.
        let mut old = RawClient::connect(&server, wire).await;
        let answer = old.greet(&token_of_before, "phone").await;
        let Frame::Close(close) = answer else { panic!("let in: {answer:?}") };
        assert_eq!(close.code, Code::TOKEN_INVALID);
        let mut claims = token::claims("bob");
        claims["iat"] = json!(token::now_s() + 1);
        let mut new = RawClient::connect(&server, wire).await;
        new.hello(&server.sign(&claims), "phone").await;
        let synced = new.sync(&[]).await;
        assert_eq!(synced.summaries.len(), 1, "his old list is gone");
        assert_eq!(seqs(&synced.entries[&talk]), [3, 4]);
        assert_eq!(text(&synced.entries[&talk][1]), "hello again");
        erase(&server, "bob").await;
        erase(&server, "bob").await; // and nothing is left to be done
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_was_killed_ends_after_the_restart() {
    bounded(async {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
        let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
        let mut groups = Vec::new();
        for number in 0..12 {
            let group = alice.group(&format!("group {number}"), &["bob"]).await;
            let secrets = (0..20).map(|_| tern_tests::message(Target::Conversation(group), "secret"));
            fill(&mut bob, secrets.collect()).await;
            groups.push(group);
        }
        // Killed again and again, wherever it is.
        for round in 0..4_u64 {
            let data = server.data_dir().to_owned();
            let mut erasing = Command::new(binary())
                .args(["store", "erase", "bob", "--yes", "--data-dir", path(&data)])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("tern runs");
            tokio::time::sleep(Duration::from_millis(15 + 25 * round)).await;
            server.kill();
            aside(move || erasing.wait().expect("it is ours")).await;
            in_order(&data);
            server.restart().await;
        }
        erase(&server, "bob").await;
        let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
        for group in groups {
            let log = whole_log(&mut alice, group).await;
            assert!(seqs(&log).into_iter().eq(1..=log.len() as u64));
            let written = serde_json::to_string(&log).expect("entries are JSON");
            assert!(!written.contains("secret") && !written.contains("\"bob\""), "{written}");
            let names: std::collections::BTreeSet<_> =
                log.iter().map(|entry| &entry.sender).filter(|sender| sender.is_erased()).collect();
            assert_eq!(names.len(), 1, "one name stands for him, however often it was cut short");
        }
        let (_, said) = refused(&["export", "bob", "--data-dir", path(server.data_dir())]);
        assert!(said.contains("nothing is kept"), "{said}");
        server.kill();
        in_order(server.data_dir());
    })
    .await;
}

on_a_wire! {
    async fn old_entries_go_and_cursors_stay_good(wire: Wire) {
        let dir = tempfile::tempdir().expect("a directory");
        let (talk, other) = (pair("alice", "bob"), pair("alice", "carol"));
        // Twelve days ago, then nine, then now.
        let mut retry = None;
        for (days, texts) in [(12, 1..=600), (9, 601..=610)] {
            let server = loose().days_behind(days).data_dir(dir.path()).start().await;
            let mut alice = RawClient::open(&server, wire, "alice").await;
            let texts: Vec<tern_protocol::Send> = texts.map(|number| tern_tests::to("bob", &number.to_string())).collect();
            retry = texts.first().cloned().filter(|_| days == 12).or(retry);
            fill(&mut alice, texts).await;
            alice.say("carol", "once").await;
        }
        let server = loose().data_dir(dir.path()).set("RETENTION__DAYS", "10").set("RETENTION__SWEEP_S", "1");
        let mut server = server.start().await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let first_seq = async |bob: &mut RawClient| bob.fetch(newest(talk)).await.first_seq;
        within("old entries to go", async {
            while first_seq(&mut bob).await != 601 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }).await;
        server.restart().await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        for (cursor, gap) in [(0, None), (10, Some((11, 600))), (599, Some((600, 600))), (600, None), (605, None)] {
            let cursors = if cursor == 0 { vec![] } else { vec![(talk, cursor)] };
            let synced = bob.sync(&cursors).await;
            let expected: Vec<_> =
                gap.into_iter().map(|(from, to)| Gap { conversation: talk, from, to }).collect();
            assert_eq!(synced.gaps, expected, "cursor {cursor}");
            let from = cursor.max(600) + 1;
            assert_eq!(seqs(&synced.entries[&talk]), (from..=610).collect::<Vec<_>>(), "cursor {cursor}");
            assert_eq!((synced.summaries[0].first_seq, synced.summaries[0].head), (601, 610));
            assert_eq!(synced.summaries[0].unread, 10);
        }
        let page = bob.fetch(Fetch { conversation: talk, before: Some(603), after: None, around: None, limit: None });
        let page = page.await;
        assert_eq!((seqs(&page.entries), page.first_seq, page.head), (vec![602, 601], 601, 610));
        // The seqs go on, and a marker that has aged out with its entry is no promise any more.
        let mut alice = RawClient::open(&server, wire, "alice").await;
        assert_eq!(alice.say("bob", "now").await.seq, 611);
        let again = alice.acked(retry.expect("a message")).await;
        assert_eq!((again.seq, again.duplicate), (612, false));
        assert_eq!(seqs(&alice.sync(&[]).await.entries[&other]), [2]);
        server.kill();
        in_order(dir.path());
    }
}

on_a_wire! {
    async fn a_conversation_of_which_nothing_is_left_is_still_in_the_list(wire: Wire) {
        let dir = tempfile::tempdir().expect("a directory");
        let talk = pair("alice", "bob");
        {
            let server = loose().days_behind(12).data_dir(dir.path()).start().await;
            let mut alice = RawClient::open(&server, wire, "alice").await;
            alice.say("bob", "one").await;
            alice.say("bob", "two").await;
        }
        let options = loose().data_dir(dir.path()).set("RETENTION__DAYS", "8").set("RETENTION__SWEEP_S", "1");
        let server = options.start().await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        within("old entries to go", async {
            while bob.fetch(newest(talk)).await.first_seq != 3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }).await;
        let synced = bob.sync(&[]).await;
        assert_eq!((synced.summaries[0].first_seq, synced.summaries[0].head), (3, 2));
        assert!(synced.entries.is_empty() && synced.gaps.is_empty());
        let synced = bob.sync(&[(talk, 1)]).await;
        assert_eq!(synced.gaps, [Gap { conversation: talk, from: 2, to: 2 }]);
        assert_eq!(bob.sync(&[(talk, 2)]).await.changed, 0);
        let mut alice = RawClient::open(&server, wire, "alice").await;
        assert_eq!(alice.say("bob", "three").await.seq, 3);
        assert_eq!(seqs(&bob.sync(&[(talk, 1)]).await.entries[&talk]), [3]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retention_shorter_than_retries_are_recognised_is_refused() {
    let exit = loose().set("RETENTION__DAYS", "7").try_start().await.expect_err("it must not start");
    assert!(exit.stderr.contains("at least 8"), "{}", exit.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_was_away_hears_of_an_erasure_that_lies_in_a_gap() {
    bounded(async {
        let server = Server::start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
        let group = alice.group("crew", &["bob", "carol"]).await;
        let mut bob = RawClient::open(&server, Wire::Quic, "bob").await;
        bob.say_in(group, "secret").await;
        let file = dir.path().join("carol");
        let carol = App::start(&server, "carol", &file, group).await;
        carol.has_up_to(2).await;
        carol.client.close().await;
        erase(&server, "bob").await;
        let texts =
            (0..600).map(|number| tern_tests::message(Target::Conversation(group), &number.to_string()));
        fill(&mut alice, texts.collect()).await;
        alice.acked(AddMembers { conversation: group, users: vec![user("dave")], temp_id: fresh() }).await;
        let carol = App::start(&server, "carol", &file, group).await;
        carol.has_up_to(604).await;
        let seen = carol.seen.lock();
        assert!(seen.erased.contains(&3), "{:?}", seen.erased);
        assert!(!seen.log.contains_key(&3), "the entry itself was in the gap");
    })
    .await;
}
