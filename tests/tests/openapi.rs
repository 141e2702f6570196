//! The API answers as its OpenAPI document says: schemathesis, an independent tool, asks from that alone.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tern_tests::http::{Ask, Http};
use tern_tests::{RawClient, Server, Wire, installed, loose, pair, token};

/// Generated questions for each call, besides those that try the edges of each field.
const EXAMPLES: &str = "8";
/// The same questions each time.
const SEED: &str = "20261124";
/// Left out: a schema counts characters where this API counts bytes, so that a text that fits the schema can
/// be too long.
const LEFT_OUT: &str = "positive_data_acceptance";
/// A run that takes this many seconds hangs.
const RUN_TIME_S: &str = "240";

async fn group(server: &Server, name: &str) -> String {
    let ask = Ask::new("POST", "/v1/conversations").token(&server.token("alice"));
    let members = ["bob", "carol"];
    let made = server.ask(Http::One, ask.json(&json!({"name": name, "members": members}))).await;
    made.json()["conversation"].as_str().expect("a group").to_owned()
}

/// Conversations that are there, so that questions get past "no such conversation".
async fn configuration(server: &Server) -> String {
    let mut alice = RawClient::open(server, Wire::Quic, "alice").await;
    for text in ["one", "two", "three"] {
        alice.say("bob", text).await;
    }
    let (kept, left) = (group(server, "kept").await, group(server, "left").await);
    format!(
        "[parameters]\n\"path.id\" = \"{kept}\"\n\"path.conv_id\" = \"{}\"\n\"path.user\" = \"bob\"\n\
         [[operations]]\ninclude-name = \"POST /v1/conversations/{{id}}/leave\"\n\
         parameters = {{ \"path.id\" = \"{left}\" }}\n",
        pair("alice", "bob")
    )
}

#[tokio::test]
async fn every_answer_is_one_that_the_document_names() {
    let server = loose().start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("schemathesis.toml");
    std::fs::write(&config, configuration(&server).await).expect("a file");
    let report = dir.path().join("report.json");
    let mut claims = token::claims("alice");
    claims["scope"] = json!("admin");
    // From a file: a document that it fetches it does not ask for again.
    let document: Value = server.get(Http::One, "/v1/openapi.json", None).await.json();
    let file = dir.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).expect("a file");
    let mut command = Command::new("timeout");
    command
        .arg(RUN_TIME_S)
        .arg(installed("schemathesis", "schemathesis", "openapi"))
        .arg("--config-file")
        .arg(&config)
        .arg("run")
        .arg(&file)
        .args(["--url", &server.ready().http_url])
        .args(["--phases", "examples,coverage,fuzzing", "--exclude-checks", LEFT_OUT])
        .args(["--max-examples", EXAMPLES, "--seed", SEED, "--no-shrink", "--continue-on-failure"])
        .args(["--workers", "1", "--request-timeout", "30", "--report", "json", "--report-json-path"])
        .arg(&report)
        .args(["--header", &format!("Authorization: Bearer {}", server.sign(&claims))])
        .current_dir(dir.path())
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.expect("a thread").expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the document and the answers disagree");
    let items = document["paths"].as_object().expect("paths").values();
    let operations: usize = items.map(|item| item.as_object().expect("operations").len()).sum();
    assert!(said.contains(&format!("Tested: {operations}")), "not all of {operations} calls were tested");
}
