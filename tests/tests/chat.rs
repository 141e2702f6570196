//! `tern chat`: what is typed arrives, over whichever transport was asked for.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use tern_tests::{RawClient, Server, Wire, binary, pair, text, until, within};
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_speaks_the_transport_it_was_told_to_and_no_other() {
    let server = Server::start().await;
    // Bob is on a wire of his own, so that the metrics tell the two apart.
    for (name, wire) in
        [("quic", Wire::WebTransport), ("webtransport", Wire::Quic), ("websocket", Wire::WebTransport)]
    {
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let mut chat = Command::new(binary())
            .args(["chat", "--as", "alice", "--to", "bob", "--json", "--transport", name, "--data-dir"])
            .arg(server.data_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tern chat");
        let mut shown = lines(chat.stdout.take().expect("it is piped"));
        let mut typed = chat.stdin.take().expect("it is piped");
        writeln!(typed, "{{\"text\":\"by {name}\"}}").expect("it reads");
        let entry = bob.entry(pair("alice", "bob")).await;
        assert_eq!(text(&entry), format!("by {name}"));
        assert_eq!(server.metric(&format!("tern_connections{{transport=\"{name}\"}}")).await, Some(1.0));
        let answer = format!("heard by {name}");
        bob.say("alice", &answer).await;
        while !within("bob's line", shown.recv()).await.expect("the chat goes on").contains(&answer) {}
        // Ctrl-D leaves.
        drop(typed);
        let status = until("the end of the chat", || chat.try_wait().expect("the process is ours")).await;
        assert!(status.success(), "{name}: {status}");
        bob.leave().await;
    }
}

fn lines(output: std::process::ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(64);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
