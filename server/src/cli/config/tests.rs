//! What `tern config check` says.

use std::net::TcpListener;
use std::path::Path;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::auth::ensure_secret_file;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs `tern config check`; gives standard output and, if it failed, the exit code.
fn check(dir: &Path, text: &str) -> (String, Option<u8>) {
    let file = dir.join("tern.toml");
    std::fs::write(&file, text).unwrap();
    let cli = Cli::parse_from(["config", "check", file.to_str().unwrap()]);
    let mut out = Vec::new();
    let outcome = cli.config.run(Io { input: &mut std::io::empty(), out: &mut out }, []);
    let mut said = String::from_utf8(out).unwrap();
    let code = outcome.err().map(|failure| {
        said.push_str(&failure.to_string());
        failure.exit_code()
    });
    (said, code)
}

/// A configuration without fault; the development certificate stands in for a real one.
fn good(dir: &Path) -> String {
    let secret = dir.join("secret");
    ensure_secret_file(&secret).unwrap();
    let cert = tern_certs::DevCert::load_or_create(&dir.join("certs")).unwrap();
    let pair = dir.join("certs").join("dev-cert-and-key.pem");
    format!(
        "[node]\ndata_dir = {data:?}\n[listen]\nclient = \"127.0.0.1:0\"\n\
         [tls]\ncert_file = {cert:?}\nkey_file = {pair:?}\n\
         [[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = {secret:?}\n\
         [ops]\nlisten = \"127.0.0.1:0\"\n",
        data = dir.join("data"),
        cert = cert.cert_path,
    )
}

#[test]
fn a_good_configuration_says_what_the_server_would_do() {
    let dir = TempDir::new().unwrap();
    let (said, code) = check(dir.path(), &good(dir.path()));
    assert_eq!(code, None, "{said}");
    assert!(said.contains("accepts HS256 tokens, kid (any), by "), "{said}");
    assert!(said.contains("listens on 127.0.0.1:0 (TCP)"), "{said}");
    assert!(said.contains("json from level info"), "{said}");
}

#[test]
fn every_wrong_section_is_named_at_once() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let text = "[listen]\nclient = \"127.0.0.1:0\"\n[[auth.keys]]\nalgorithm = \"ES256\"\npublic_key_file = \"/does/not/exist.pem\"\n\
                [ops]\nlisten = \"0.0.0.0:9433\"\n[log]\nlevel = \"loud=very\"\n[drain]\nspread_ms = 40000\n";
    let text = format!("[node]\ndata_dir = {data:?}\n{text}");
    let (said, code) = check(dir.path(), &text);
    assert_eq!(code, Some(1), "{said}");
    for part in
        ["/does/not/exist.pem: ", "ops.allow_remote", "log.level", "drain.spread_ms = 40000", "tls.cert_file"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(said.ends_with("wrong in the configuration: 5"), "{said}");
}

#[test]
fn a_port_in_use_is_not_a_wrong_configuration() {
    let dir = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("[ops]\nlisten = \"{}\"", taken.local_addr().unwrap());
    let text = good(dir.path()).replace("[ops]\nlisten = \"127.0.0.1:0\"", &taken);
    let (said, code) = check(dir.path(), &text);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("ops.listen = "), "{said}");
}

#[test]
fn an_unknown_key_ends_the_check() {
    let dir = TempDir::new().unwrap();
    let (said, code) = check(dir.path(), "[ops]\nlisen = 1\n");
    assert_eq!(code, Some(1));
    assert!(said.contains("did you mean `listen`?"), "{said}");
}

#[test]
fn the_docs_are_a_configuration_that_can_be_checked() {
    let mut out = Vec::new();
    let cli = Cli::parse_from(["config", "docs"]);
    cli.config.run(Io { input: &mut std::io::empty(), out: &mut out }, []).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("#keepalive_s = 20\n"), "{text}");
    let dir = TempDir::new().unwrap();
    let (said, _) = check(dir.path(), &text);
    assert!(said.contains("tls.cert_file"), "only what cannot have a default is missing: {said}");
}
