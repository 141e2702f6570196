//! The certificate: readable, with its key, in order, valid, for which names.

use std::time::SystemTime;

use super::Findings;
use crate::node::config::TlsFiles;
use crate::transport::CertificateFacts;
use crate::transport::tls::Identity;

const CHECK: &str = "certificate";
/// Less than this left is worth a warning, in seconds: 14 days.
const LEFT_S_MIN: i64 = 14 * 24 * 3600;

pub(super) fn check(tls: &TlsFiles, needed: bool, findings: &mut Findings) {
    let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else {
        if needed {
            findings.fail(CHECK, "there is none", "set tls.cert_file and tls.key_file");
        }
        return;
    };
    let identity = match Identity::from_pem_files(cert, key) {
        Ok(identity) => identity,
        Err(error) => {
            return findings.fail(
                CHECK,
                error.to_string(),
                "both files, in PEM form, readable by the node's user",
            );
        }
    };
    findings.ok(CHECK, format!("{} and its key belong together", cert.display()));
    let chain = identity.chain_facts();
    let Some(leaf) = chain.first() else {
        return findings.fail(CHECK, "the certificate cannot be understood", "ask its issuer for another");
    };
    check_time(leaf, findings);
    check_names(leaf, findings);
    check_order(&chain, findings);
}

fn check_time(leaf: &CertificateFacts, findings: &mut Findings) {
    let now = SystemTime::now();
    if let Some(reason) = leaf.invalid(now) {
        return findings.fail(CHECK, format!("not valid now: {reason}"), "renew it, or set the clock");
    }
    let days = leaf.left_s(now) / 86_400;
    if leaf.left_s(now) < LEFT_S_MIN {
        findings.warn(
            CHECK,
            format!("ends in {days} days"),
            "renew it; the node takes the new one by itself",
        );
    } else {
        findings.ok(CHECK, format!("valid for {days} more days"));
    }
}

fn check_names(leaf: &CertificateFacts, findings: &mut Findings) {
    if leaf.names.is_empty() {
        findings.fail(
            CHECK,
            "it has no names (subjectAltName)",
            "clients look at nothing else: get one with names",
        );
    } else {
        findings.ok(CHECK, format!("for {}", leaf.names.join(", ")));
    }
}

/// Each certificate is followed by the one that signed it; the root is left out by most issuers.
pub(super) fn check_order(chain: &[CertificateFacts], findings: &mut Findings) {
    if let Some(pair) = chain.windows(2).find(|pair| pair[0].issuer != pair[1].subject) {
        let (issuer, found) = (&pair[0].issuer, &pair[1].subject);
        return findings.fail(
            CHECK,
            format!("chain out of order: after a certificate signed by {issuer:?} comes {found:?}"),
            "put the leaf first, then each signer in turn",
        );
    }
    match chain {
        [leaf] if leaf.issuer == leaf.subject => findings.warn(
            CHECK,
            "it is signed by itself",
            "browsers and other clients refuse it unless they are told its hash",
        ),
        [leaf] => findings.warn(
            CHECK,
            format!("the file holds no certificate of its signer {:?}", leaf.issuer),
            "most issuers need theirs in between: use the full chain",
        ),
        _ => findings.ok(CHECK, format!("a chain of {} in order", chain.len())),
    }
}
