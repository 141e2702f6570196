//! Durable against power loss too: what an ack stands for is synced before the ack is written.
//!
//! `kill -9` cannot show this, since what the system was given survives it; the order of system calls can.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use tern_protocol::{CreateGroup, SendAck};
use tern_tests::{RawClient, Server, Wire, fresh, loose, until, user};

/// Messages, each sent alone.
const MESSAGES: usize = 5;
/// System calls that sync, and those that write to a file or a socket.
const CALLS: &str = "trace=fdatasync,fsync,write,writev,pwrite64,pwritev,sendto,sendmsg";
/// Bytes of what is written that the trace shows: more than any write here has.
const SHOWN_BYTES: &str = "65536";

/// A system call. Its lines are numbers of lines in the trace, which stand in the order in which
/// things happened: a thread goes on only once strace has written its line.
#[derive(Debug)]
struct Call {
    name: String,
    /// Arguments as strace writes them, the path of a file descriptor with it.
    arguments: String,
    begins: usize,
    /// Where it has returned without an error.
    returns: Option<usize>,
}

impl Call {
    fn is_sync(&self) -> bool {
        self.name == "fdatasync" || self.name == "fsync"
    }

    /// The file it is about: `5</path>` stands first.
    fn file(&self) -> &str {
        let path = self.arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        path.map_or("", |(path, _)| path)
    }

    fn writes(&self, what: &str) -> bool {
        !self.is_sync() && self.arguments.contains(what)
    }
}

/// The calls of a trace in the order in which they began.
fn parse(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<&str, usize> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, what)) = line.split_once(' ') else { continue };
        let what = what.trim_start();
        // The result stands last; an error is negative.
        let is_good =
            |text: &str| text.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'));
        if what.starts_with("<... ") {
            if let Some(index) = unfinished.remove(thread) {
                calls[index].returns = is_good(what).then_some(number);
            }
        } else if let Some((name, arguments)) = what.split_once('(') {
            let is_whole = !what.ends_with("<unfinished ...>");
            let (name, arguments) = (name.to_owned(), arguments.to_owned());
            let returns = (is_whole && is_good(what)).then_some(number);
            calls.push(Call { name, arguments, begins: number, returns });
            if !is_whole {
                unfinished.insert(thread, calls.len() - 1);
            }
        }
    }
    calls
}

/// The write of an ack, recognised by the `temp_id`.
fn ack_of<'a>(calls: &'a [Call], temp_id: &str) -> Option<&'a Call> {
    calls.iter().find(|call| call.writes(r#"\"type\":\"send_ack\""#) && call.writes(temp_id))
}

/// Checks that after `text` had been written to a journal, a sync of that journal began and
/// returned before the ack was written.
fn check(calls: &[Call], text: &str, temp_id: &str) -> Result<(), String> {
    let is_record = |call: &&Call| call.file().ends_with(".jnl") && call.writes(text);
    let record = calls.iter().find(is_record).ok_or("it was never written to a journal")?;
    let written = record.returns.ok_or("the journal could not be written")?;
    let ack = ack_of(calls, temp_id).ok_or("its ack was never written")?;
    let is_sync_between = |call: &Call| {
        let returned = call.returns.is_some_and(|returned| returned < ack.begins);
        call.is_sync() && call.file() == record.file() && call.begins > written && returned
    };
    match calls.iter().any(is_sync_between) {
        true => Ok(()),
        false => Err("no sync of it has returned before its ack was written".into()),
    }
}

fn strace_works(dir: &Path) {
    let traced = Command::new("strace").args(["-f", "-o"]).arg(dir.join("true")).arg("true").output();
    match traced {
        Err(error) => panic!("strace is needed and cannot be run: {error}; apt-get install strace"),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("strace cannot trace here: {said}; allow ptrace (containers: CAP_SYS_PTRACE)");
        }
        Ok(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sync_of_a_lone_send_returns_before_its_ack_is_written() {
    let dir = tempfile::tempdir().unwrap();
    strace_works(dir.path());
    let trace = dir.path().join("trace");
    let path = trace.to_string_lossy();
    // -D: strace is a child, and the server stays the process that was started.
    let strace = ["strace", "-D", "-f", "-y", "-s", SHOWN_BYTES, "-e", CALLS, "-o", &path];
    let server: Server = loose().under(&strace).start().await;
    // JSON without TLS, so that the trace shows which write is the ack.
    let mut alice = RawClient::open(&server, Wire::WebSocketJson, "alice").await;
    let mut sent: Vec<(String, SendAck)> = Vec::new();
    for number in 0..MESSAGES {
        let text = format!("lone-message-{number}");
        let ack = alice.say("bob", &text).await;
        sent.push((text, ack));
    }
    let name = "lone-group".to_owned();
    let group = CreateGroup { name: name.clone(), members: vec![user("bob")], temp_id: fresh() };
    let last = alice.acked(group).await;
    let last_temp_id = last.temp_id.to_string();
    sent.push((name, last));
    let calls = until("the last ack in the trace", || {
        // The last line may be half of one.
        let calls = parse(&std::fs::read_to_string(&trace).unwrap_or_default());
        ack_of(&calls, &last_temp_id).is_some().then_some(calls)
    })
    .await;
    for (text, ack) in sent {
        if let Err(fault) = check(&calls, &text, &ack.temp_id.to_string()) {
            let is_shown = |call: &&Call| {
                call.file().ends_with(".jnl") || call.writes("send_ack") || call.writes("lone-")
            };
            let shown: Vec<_> = calls.iter().filter(is_shown).map(|call| format!("{call:?}")).collect();
            panic!("{text}: {fault}\n{}", shown.join("\n"));
        }
    }
}

#[test]
fn an_ack_without_a_sync_before_it_is_noticed() {
    let write = r#"8 write(5</d/0.jnl>, "\1\2hello\3", 8) = 8"#;
    let ack = r#"7 sendto(9<socket:[1]>, "\201~{\"type\":\"send_ack\",\"temp_id\":\"id-1\"}", 60, 0, NULL, 0) = 60"#;
    let sync = "8 fdatasync(5</d/0.jnl>) = 0";
    let (begins, returns) = ("8 fdatasync(5</d/0.jnl> <unfinished ...>", "8 <... fdatasync resumed>) = 0");
    let failed = "8 fdatasync(5</d/0.jnl>) = -1 EIO (Input/output error)";
    let other = "8 fdatasync(6</d/commits>) = 0";
    let (other_begins, other_returns) =
        ("6 fdatasync(6</d/commits> <unfinished ...>", "6 <... fdatasync resumed>) = 0");
    let check = |lines: &[&str]| check(&parse(&lines.join("\n")), "hello", "id-1");
    for good in [
        &[write, sync, ack][..],
        &[write, begins, returns, ack],
        &[write, begins, other_begins, other_returns, returns, ack],
        &[other_begins, write, begins, other_returns, returns, ack],
    ] {
        assert_eq!(check(good), Ok(()), "{good:?}");
    }
    for bad in [
        &[write, ack][..],
        &[write, ack, sync],
        &[sync, write, ack],
        &[begins, write, returns, ack],
        &[write, begins, ack, returns],
        &[write, begins, other_begins, other_returns, ack, returns],
        &[write, failed, ack],
        &[write, other, ack],
        &[sync, ack],
        &[write, sync],
    ] {
        assert!(check(bad).is_err(), "{bad:?}");
    }
}
