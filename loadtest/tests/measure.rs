//! `tern-loadtest bench`, `groups` and `idle` as a person runs them. What they measure decides nothing here;
//! that every message and every session is right does.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tern::node::dev::{DevOptions, start};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tern-loadtest")).args(arguments).output().expect("the program runs")
}

fn report(output: &Output) -> Value {
    let words = || [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert_eq!(output.status.code(), Some(0), "{}", words());
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

#[test]
fn every_message_of_a_benchmark_is_acked_and_delivered_once_over_every_transport() {
    // Each measurement ends when no push event waits, some seconds later.
    for (transport, senders) in
        [("quic", &[6][..]), ("webtransport", &[6]), ("websocket", &[6]), ("mixed", &[1, 6])]
    {
        let listed = senders.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let arguments = ["bench", "--senders", &listed, "--seconds", "1", "--transport", transport, "--json"];
        let report = report(&run(&arguments));
        assert_eq!(report["held"], true, "{transport}");
        assert!(report["disk_before"]["per_second"].as_f64().unwrap() > 0.0);
        for (level, senders) in report["levels"].as_array().unwrap().iter().zip(senders.iter().copied()) {
            assert_eq!(level["senders"], senders, "{transport}");
            assert_eq!(level["faults"]["count"], 0, "{transport}");
            assert_eq!(level["put_off"], 0, "{transport}: a node of its own has no limits for the run");
            // Message 1 of each pair is not measured but checked.
            let measured = level["durable"]["count"].as_u64().unwrap();
            assert_eq!(level["checked"].as_u64().unwrap(), measured + senders, "{transport}");
            assert_eq!(level["delivered"]["count"].as_u64().unwrap(), measured, "{transport}");
            let processor = |key: &str| level["processor"][key].as_f64().expect("the node is ours");
            assert!(processor("node_us") > 0.0 && processor("node_with_push_us") > 0.0, "{transport}");
        }
    }
}

#[test]
fn every_member_of_a_group_has_each_message_once_over_every_transport() {
    let size =
        ["groups", "--groups", "2", "--members", "5", "--writers", "2", "--rate", "400", "--seconds", "1"];
    for transport in ["quic", "webtransport", "ws"] {
        let output = run(&[&size[..], &["--transport", transport, "--json"]].concat());
        let report = report(&output);
        assert_eq!(report["held"], true, "{transport}");
        let measured = &report["measured"][0];
        let count = |key: &str| measured[key].as_u64().unwrap();
        // 400 deliveries a second are 100 messages to 4 others each.
        assert_eq!((count("messages"), count("deliveries"), count("refused")), (100, 400, 0), "{transport}");
        assert!(measured["processor"]["node_with_push_us"].as_f64().unwrap() > 0.0, "{transport}");
    }
}

#[test]
fn what_a_server_puts_off_is_repeated_counted_and_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let once = |key: &str| (format!("TERN__QUOTA__USER_SENDS_{key}"), "1".to_owned());
    let options = DevOptions { data_dir: folder.path().to_owned(), port: 0, http_port: 0, ops_port: 0 };
    let node = runtime.block_on(start(&options, [once("PER_SECOND"), once("BURST")])).unwrap();
    let secret = node.ready().jwt_secret_file.clone().unwrap();
    let arguments =
        ["bench", "--senders", "1", "--seconds", "2", "--json", "--server", &node.ready().wss_url];
    let output = run(&[&arguments[..], &["--jwt-secret-file", secret.to_str().unwrap()]].concat());
    let report = report(&output);
    assert_eq!(report["held"], true);
    assert!(report["levels"][0]["put_off"].as_u64().unwrap() > 0);
    assert!(report["disk_before"].is_null(), "the disk of a server that was named is not measured");
    runtime.block_on(node.shutdown());
}

#[test]
fn idle_sessions_live_and_have_a_cost() {
    let output = run(&["idle", "--sessions", "5,10,20", "--settle", "0", "--json"]);
    let report = report(&output);
    assert_eq!(report["held"], true);
    for (cost, transport) in
        report["costs"].as_array().unwrap().iter().zip(["quic", "webtransport", "websocket"])
    {
        assert_eq!(cost["transport"], transport);
        assert_eq!(cost["lost"], 0);
        assert_eq!(cost["points"].as_array().unwrap().len(), 3);
        assert!(cost["settled_bytes_per_session"].is_number());
        assert!(cost["opening_us_per_session"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn options_that_cannot_work_are_exit_2() {
    for arguments in [
        &["bench", "--senders", "0"][..],
        &["bench", "--senders", "1,x"],
        &["bench", "--seconds", "0"],
        &["bench", "--text-bytes", "10"],
        &["bench", "--server", "https://127.0.0.1:1"],
        &["bench", "--data-dir", "/dev/null/none"],
        &["groups", "--members", "1"],
        &["groups", "--members", "3", "--writers", "4"],
        &["groups", "--rate", "0"],
        &["idle", "--sessions", "20,10"],
        &["idle", "--sessions", "10,10"],
        &["idle", "--transport", "pigeon"],
    ] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_node_ends_and_takes_its_data_along_when_its_run_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Command::new(env!("CARGO_BIN_EXE_tern-loadtest"))
        .arg("node")
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("wss_url"), "{line}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // However a run ends, the system closes its end of the pipe.
    drop(node.stdin.take());
    assert!(node.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
