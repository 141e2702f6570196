//! `tern-loadtest replay` as a person runs it: one command, its words and its exit code.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

fn replay(file: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern-loadtest"));
    command.arg("replay").arg(file).args(options).output().expect("the program runs")
}

fn words(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// Twelve people, enough messages that a newcomer is given a gap, and some of everything else.
fn log() -> Vec<u8> {
    let mut text = String::from("=== ann [n=a@example] has joined #x\n#x 2024-01-01 [00:00] * bob waves\n");
    for number in 0..600 {
        let author = (number * number + number / 7) % 12;
        let minute = number / 60;
        writeln!(text, "[10:{minute:02}] <nick{author}> message {}", number % 50).expect("a String takes it");
    }
    let mut bytes = text.into_bytes();
    bytes.extend(b"[11:00] <nick1> caf\xe9\n[11:00] <nick2> \n");
    bytes
}

#[test]
fn a_log_is_replayed_on_a_node_of_its_own_and_every_check_holds() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat.log");
    std::fs::write(&file, log()).unwrap();
    let output = replay(&file, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["held"], true);
    assert_eq!(report["run"]["sent"], 601);
    let members = report["input"]["members"].as_u64().unwrap();
    assert_eq!(report["run"]["received"].as_u64().unwrap(), members * 602);
    assert_eq!(report["run"]["transports"].as_object().unwrap().len(), 4, "all transports take part");
    assert_eq!(report["run"]["checks"].as_array().unwrap().len(), 7);
    assert_eq!(report["input"]["repaired_bytes"], 1);
    let skipped = serde_json::json!({"status": 1, "action": 1, "empty": 1});
    assert_eq!(report["input"]["skipped"], skipped);
}

#[test]
fn every_kind_of_line_is_sent_or_counted_with_its_reason() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/harbour.txt");
    let output = replay(&file, &["--members", "4", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["run"]["sent"], 11);
    assert_eq!(report["input"]["members"], 4);
    assert_eq!(report["input"]["lines"], 23);
    assert_eq!(report["input"]["repaired_bytes"], 1);
    let skipped = serde_json::json!({
        "blank": 1, "status": 3, "action": 1, "no_time": 2, "no_nick": 1, "bad_nick": 2, "empty": 1,
        "not_member": 1,
    });
    assert_eq!(report["input"]["skipped"], skipped);
}

#[test]
fn a_log_without_messages_is_exit_2_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("quiet.log");
    std::fs::write(&file, "=== ann has joined\n[10:00] <ann> \n").unwrap();
    let output = replay(&file, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(words(&output).contains("nothing was sent"), "{}", words(&output));
    assert!(words(&output).contains("messages without text"), "{}", words(&output));
}

#[test]
fn bad_input_is_exit_2_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = replay(&folder.path().join("missing.log"), &[]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(words(&missing).contains("missing.log"), "{}", words(&missing));
    let directory = replay(folder.path(), &[]);
    assert_eq!(directory.status.code(), Some(2));
    assert!(words(&directory).contains("directory"), "{}", words(&directory));

    let file = folder.path().join("chat.log");
    std::fs::write(&file, log()).unwrap();
    for options in [
        &["--server", "https://127.0.0.1:1"][..],
        &["--server", "ftp://x", "--jwt-secret-file", "/dev/null"],
        &["--members", "0"],
        &["--members", "101"],
        &["--in-flight", "0"],
    ] {
        assert_eq!(replay(&file, options).status.code(), Some(2), "{options:?}");
    }
}
