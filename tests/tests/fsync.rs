//! Durable against power loss too: the log is synced before an ack is written. `kill -9` cannot show
//! this, since what the system has been given survives it; the order of system calls can.

use std::path::Path;
use std::process::Command;

use tern_tests::{RawClient, Server, Wire, loose, until};

/// Messages, each sent alone.
const MESSAGES: u64 = 5;
/// System calls that sync, and those that write to a socket.
const CALLS: &str = "fdatasync,fsync,write,writev,sendto,sendmsg";

/// What a line of the trace says, in the order in which the kernel was seen to do it.
#[derive(Debug, PartialEq)]
enum Step {
    /// A sync of a journal begins.
    SyncBegins { thread: String },
    /// A sync has returned.
    SyncReturns { thread: String },
    /// The ack with this seq is written.
    Ack(u64),
}

fn step(line: &str) -> Option<Step> {
    let (thread, call) = line.split_once(' ')?;
    let (thread, call) = (thread.to_owned(), call.trim_start());
    let is_sync = |text: &str| text.starts_with("fdatasync") || text.starts_with("fsync");
    if is_sync(call) && call.contains(".jnl") {
        // Without an "unfinished" the line was written when the call had returned.
        let whole = !call.contains("<unfinished");
        return Some(if whole { Step::SyncReturns { thread } } else { Step::SyncBegins { thread } });
    }
    if let Some(resumed) = call.strip_prefix("<... ") {
        return (is_sync(resumed) && resumed.contains("= 0")).then_some(Step::SyncReturns { thread });
    }
    if !call.contains(r#"\"type\":\"send_ack\""#) {
        return None;
    }
    let seq = call.split(r#"\"seq\":"#).nth(1)?;
    let digits: String = seq.chars().take_while(char::is_ascii_digit).collect();
    Some(Step::Ack(digits.parse().ok()?))
}

/// Checks that a sync of the journal has returned between each ack and the one before it.
fn check(trace: &str) -> Result<(), String> {
    let (mut synced, mut open) = (false, None);
    let mut acks = 0;
    for line in trace.lines() {
        match step(line) {
            Some(Step::SyncBegins { thread }) => open = Some(thread),
            Some(Step::SyncReturns { thread }) => {
                // One that another kind of file was synced by does not count.
                synced |= open.as_ref() == Some(&thread) || line.contains(".jnl");
                open = None;
            }
            Some(Step::Ack(seq)) => {
                acks += 1;
                if seq != acks {
                    return Err(format!("ack {acks} is for seq {seq}"));
                }
                if !std::mem::take(&mut synced) {
                    return Err(format!("no sync of the journal returned before ack {seq} was written"));
                }
                open = None;
            }
            None => {}
        }
    }
    if acks == MESSAGES { Ok(()) } else { Err(format!("{acks} of {MESSAGES} acks are in the trace")) }
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
    let calls = format!("trace={CALLS}");
    let path = trace.to_string_lossy();
    // -D: strace is a child, and the server stays the process that was started.
    let strace = ["strace", "-D", "-f", "-y", "-s", "256", "-e", &calls, "-o", &path];
    let server: Server = loose().under(&strace).start().await;
    // JSON without TLS, so that the trace shows which write is the ack.
    let mut alice = RawClient::open(&server, Wire::WebSocketJson, "alice").await;
    for seq in 1..=MESSAGES {
        assert_eq!(alice.say("bob", "alone").await.seq, seq);
    }
    let read = || std::fs::read_to_string(&trace).unwrap_or_default();
    let last = until("the last ack in the trace", || {
        let trace = read();
        trace.lines().any(|line| step(line) == Some(Step::Ack(MESSAGES))).then_some(trace)
    });
    let trace = last.await;
    // Up to the first ack the user was written too: only what is after Welcome counts.
    let welcome = trace.find(r#"\"type\":\"welcome\""#).expect("Welcome is in the trace");
    if let Err(fault) = check(&trace[welcome..]) {
        let lines: Vec<&str> = trace[welcome..].lines().filter(|line| step(line).is_some()).collect();
        panic!("{fault}:\n{}", lines.join("\n"));
    }
}

#[test]
fn an_ack_without_a_sync_before_it_is_noticed() {
    let ack = |seq: u64| format!(r#"7 write(9, "..{{\"type\":\"send_ack\",\"seq\":{seq},"..., 200) = 200"#);
    let whole = "8 fdatasync(5</d/0.jnl>) = 0".to_owned();
    let begins = "8 fdatasync(5</d/0.jnl> <unfinished ...>".to_owned();
    let returns = "8 <... fdatasync resumed>) = 0".to_owned();
    let other = "8 fdatasync(6</d/commit-count>) = 0".to_owned();
    let trace = |first: &[&String]| {
        let mut lines: Vec<String> = first.iter().map(|line| (*line).clone()).collect();
        for seq in 2..=MESSAGES {
            lines.extend([whole.clone(), ack(seq)]);
        }
        lines.join("\n")
    };
    assert_eq!(check(&trace(&[&whole, &ack(1)])), Ok(()));
    assert_eq!(check(&trace(&[&begins, &returns, &ack(1)])), Ok(()));
    for bad in [
        &[&ack(1)][..],
        &[&other, &ack(1)],
        &[&begins, &ack(1), &returns],
        &[&ack(1), &whole],
        &[&returns, &ack(1)],
        &[&whole],
    ] {
        assert!(check(&trace(bad)).is_err(), "{bad:?}");
    }
}
