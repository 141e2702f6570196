//! What `tern doctor` finds where something is wrong.

use std::path::Path;

use super::*;
use crate::auth::ensure_secret_file;

/// Runs the doctor; gives its report and whether it is content.
fn doctor(config: Option<&Path>) -> (serde_json::Value, bool) {
    let mut out = Vec::new();
    let doctor = Doctor { config: config.map(Into::into), json: true };
    let outcome = doctor.run(Io { input: &mut std::io::empty(), out: &mut out }, []);
    (serde_json::from_slice(&out).unwrap(), outcome.is_ok())
}

fn messages(report: &serde_json::Value, level: &str) -> String {
    let found = report["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == level);
    let lines: Vec<String> =
        found.map(|finding| format!("{} → {}", finding["message"], finding["advice"])).collect();
    lines.join("\n")
}

fn write_config(dir: &Path, text: &str) -> std::path::PathBuf {
    let path = dir.join("tern.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A configuration whose only oddity is its self-signed certificate.
fn good(dir: &Path) -> String {
    let secret = dir.join("secret");
    ensure_secret_file(&secret).unwrap();
    let cert = tern_certs::DevCert::load_or_create(&dir.join("certs")).unwrap();
    let pair = dir.join("certs").join("dev-cert-and-key.pem");
    format!(
        "[node]\ndata_dir = {data:?}\n[listen]\nclient = \"127.0.0.1:0\"\n\
         [tls]\ncert_file = {cert:?}\nkey_file = {pair:?}\n[ops]\nlisten = \"127.0.0.1:0\"\n\
         [[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = {secret:?}\n",
        data = dir.join("data"),
        cert = cert.cert_path,
    )
}

#[test]
fn a_machine_that_will_do_has_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (report, content) = doctor(Some(&write_config(dir.path(), &good(dir.path()))));
    assert_eq!(messages(&report, "fail"), "");
    assert!(content && report["ok"] == true);
    let warnings = messages(&report, "warn");
    assert!(warnings.contains("signed by itself") && warnings.contains("HS256"), "{warnings}");
    assert!(messages(&report, "ok").contains("for localhost, 127.0.0.1, ::1"), "{report}");
    assert!(report.to_string().contains("fdatasync/s"), "{report}");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".tern")), "{left:?}");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let text = good(dir.path());
    let other = tern_certs::DevCert::load_or_create(&dir.path().join("other")).unwrap();
    let text = text.replace("certs/dev-cert.pem", "other/dev-cert.pem");
    assert!(text.contains(other.cert_path.to_str().unwrap()));
    let blocked = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let text =
        text.replace("client = \"127.0.0.1:0\"", &format!("client = \"{}\"", blocked.local_addr().unwrap()));
    let text = format!("{text}[drain]\nspread_ms = 40000\n");
    let (report, content) = doctor(Some(&write_config(dir.path(), &text)));
    let failures = messages(&report, "fail");
    assert!(!content && report["ok"] == false);
    for words in ["does not belong to the certificate", "(UDP)", "drain.spread_ms", "ss -lntup"] {
        assert!(failures.contains(words), "{words} in {failures}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_a_failure() {
    let (report, content) = doctor(Some(Path::new("/does/not/exist.toml")));
    assert!(!content && messages(&report, "fail").contains("/does/not/exist.toml"));
}

#[test]
fn a_chain_in_the_wrong_order_is_noticed() {
    let facts = |subject: &str, issuer: &str| crate::transport::CertificateFacts {
        not_before_s: 0,
        not_after_s: 0,
        names: Vec::new(),
        subject: subject.into(),
        issuer: issuer.into(),
    };
    let level = |chain: &[crate::transport::CertificateFacts]| {
        let mut findings = Findings::default();
        certificate::check_order(chain, &mut findings);
        findings.0[0].level
    };
    let (leaf, middle, root) = (facts("leaf", "middle"), facts("middle", "root"), facts("root", "root"));
    assert_eq!(level(&[leaf.clone(), middle.clone()]), Level::Ok);
    assert_eq!(level(&[leaf.clone(), root.clone(), middle.clone()]), Level::Fail);
    assert_eq!(level(&[leaf]), Level::Warn);
    assert_eq!(level(&[root]), Level::Warn);
}
