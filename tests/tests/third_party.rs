//! What `docs/protocol.md` says is so: a client in Python, written from that page alone, asserts its rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use tern_tests::{Options, Server, installed, loose};

const PAGE: &str = include_str!("../../docs/protocol.md");
/// A run that takes this many seconds hangs.
const RUN_TIME_S: &str = "240";
/// The wires as the client names them.
const WIRES: [&str; 4] = ["json", "binary", "quic", "webtransport"];

fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("page_client")
}

/// Lets the client assert what is for this kind of node, over this wire.
async fn assert_rules(server: &Server, needs: &'static str, wire: &'static str) {
    let at = server.ready();
    let ready = json!({
        "quic_addr": at.quic_addr, "webtransport_url": at.webtransport_url, "websocket_url": at.websocket_url,
        "wss_url": at.wss_url, "http_url": at.http_url, "cert_sha256": at.cert_sha256, "store_id": at.store_id,
        "jwt_secret_file": at.jwt_secret_file, "pid": server.pid(), "tern": tern_tests::binary(),
        "data_dir": server.data_dir(),
    });
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ready.json");
    std::fs::write(&file, ready.to_string()).expect("a file");
    let mut command = Command::new("timeout");
    command
        .arg(RUN_TIME_S)
        .arg(installed("schemathesis", "python", "third_party"))
        .arg("-B")
        .arg(client())
        .arg(&file)
        .args([needs, wire]);
    command.stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output()).await;
    let output = run.expect("a thread").expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(said.contains("\nok ") || said.starts_with("ok "), "nothing was asserted: {said}");
}

async fn rules_hold_over(wire: &'static str) {
    let server = Server::start().await;
    assert_rules(&server, "loose", wire).await;
}

#[tokio::test]
async fn the_rules_hold_over_websocket_with_json() {
    rules_hold_over("json").await;
}

#[tokio::test]
async fn the_rules_hold_over_websocket_with_binary_frames() {
    rules_hold_over("binary").await;
}

#[tokio::test]
async fn the_rules_hold_over_quic() {
    rules_hold_over("quic").await;
}

#[tokio::test]
async fn the_rules_hold_over_webtransport() {
    rules_hold_over("webtransport").await;
}

#[tokio::test]
async fn the_rules_of_order_and_limits_hold_with_the_limits_of_the_page() {
    let server = Options::default().start().await;
    for wire in ["json", "quic"] {
        assert_rules(&server, "default", wire).await;
    }
}

#[tokio::test]
async fn the_rules_of_erasure_hold() {
    let server = loose().start().await;
    for wire in ["json", "quic"] {
        assert_rules(&server, "alone", wire).await;
    }
}

#[tokio::test]
async fn the_rules_of_silence_hold() {
    let server = loose().set("TRANSPORT__KEEPALIVE_S", "1").start().await;
    for wire in WIRES {
        assert_rules(&server, "lively", wire).await;
    }
}

#[tokio::test]
async fn the_rules_of_leaving_hold() {
    for wire in WIRES {
        let quick = loose().set("DRAIN__DEADLINE_MS", "3000").set("DRAIN__SPREAD_MS", "500");
        assert_rules(&quick.start().await, "leaving", wire).await;
    }
}

/// The marks in a text: `#…` between backticks.
fn marks_of_the_page() -> BTreeSet<&'static str> {
    let marks = PAGE.split("`#").skip(1).filter_map(|rest| rest.split('`').next());
    marks
        .filter(|mark| mark.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        .collect()
}

/// The marks that the checks of the client name.
fn asserted() -> BTreeSet<String> {
    let mut marks = BTreeSet::new();
    for file in std::fs::read_dir(client()).expect("the client") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|extension| extension != "py") {
            continue;
        }
        let text = std::fs::read_to_string(path).expect("text");
        for names in text.split("\n@rule(").skip(1).filter_map(|rest| rest.split(')').next()) {
            // The rest of the arguments begins with the first that has a name.
            let names = names.split(['=', '\n']).next().unwrap_or(names);
            marks.extend(names.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    marks
}

#[test]
fn every_mark_on_the_page_is_asserted_and_every_asserted_one_is_there() {
    let (page, asserted) = (marks_of_the_page(), asserted());
    let on_the_page: BTreeSet<String> = page.iter().map(|&mark| mark.to_owned()).collect();
    let missing: Vec<_> = asserted.difference(&on_the_page).collect();
    assert!(missing.is_empty(), "asserted, and not on the page: {missing:?}");
    let unproven: Vec<_> = on_the_page.difference(&asserted).collect();
    assert!(unproven.is_empty(), "marked on the page, and asserted by nobody: {unproven:?}");
    assert!(page.len() > 80, "{} rules", page.len());
    for mark in page {
        assert_eq!(PAGE.matches(&format!("`#{mark}`")).count(), 1, "{mark} marks one place");
    }
}
