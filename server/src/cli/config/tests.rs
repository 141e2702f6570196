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
fn what_can_never_mean_what_it_says_is_wrong_and_what_opens_a_door_is_told() {
    let dir = TempDir::new().unwrap();
    let text =
        format!("{}\n[session]\nsessions_per_user = 0\n[push]\ndelay_ms = 99999999999\n", good(dir.path()));
    let (said, code) = check(dir.path(), &text);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("session.sessions_per_user must be") && said.contains("push.delay_ms must be"),
        "{said}"
    );
    let text = format!("{}\n[transport]\ntrusted_proxies = [\"0.0.0.0/0\"]\n", good(dir.path()));
    let (said, code) = check(dir.path(), &text);
    assert_eq!(code, None, "{said}");
    assert!(said.contains("WARN   transport.trusted_proxies: 0.0.0.0/0 is every address"), "{said}");
}

#[test]
fn a_certificate_that_has_ended_is_wrong() {
    let dir = TempDir::new().unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    let cert = params.self_signed(&pair).unwrap();
    let (cert_file, key_file) = (dir.path().join("old.pem"), dir.path().join("old-key.pem"));
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, pair.serialize_pem()).unwrap();
    let text = good(dir.path());
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("cert_file", _)) => format!("cert_file = {cert_file:?}"),
        Some(("key_file", _)) => format!("key_file = {key_file:?}"),
        _ => line.to_owned(),
    });
    let (said, code) = check(dir.path(), &lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not valid now: it ended at 2021-01-01"), "{said}");
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
