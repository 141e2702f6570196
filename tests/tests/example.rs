//! The example of the Rust SDK does what its page says, against a real server.

use std::process::Command;

use tern_tests::{Server, binary};

#[tokio::test]
async fn the_hello_example_sends_and_shows_its_own_entry() {
    let server = Server::start().await;
    let example = binary().with_file_name("examples").join("hello");
    assert!(example.is_file(), "{}: run `cargo build -p tern-client --examples`", example.display());
    let mut command = Command::new(example);
    command
        .env("TERN_TOKEN", server.token("alice"))
        .env("TERN_QUIC", server.ready().quic_addr.to_string())
        .env("TERN_CERT_SHA256", &server.ready().cert_sha256);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("durable: entry 1 of c:"), "{said}");
    assert!(said.contains("alice: hello\n"), "{said}");
}
