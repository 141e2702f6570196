//! The development certificate of Tern: self-signed, short-lived, renewed in time, with its hash.
//!
//! Browsers accept a certificate by its hash only if it is ECDSA and valid for at most 14 days,
//! so this one is P-256 and valid for 13.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

/// The whole validity in seconds: 13 days.
pub const VALIDITY_S: i64 = 13 * 24 * 3600;
/// Valid since this long before it was made, in seconds, for clients whose clock is behind.
pub const BACKDATED_S: i64 = 3600;
/// A certificate with less than this left is replaced, in seconds: 2 days.
pub const RENEW_BEFORE_S: i64 = 2 * 24 * 3600;
/// Names every certificate is good for.
pub const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Certificate and key in one file, so that the two can never belong to different makings.
const PAIR_FILE: &str = "dev-cert-and-key.pem";
/// The certificate alone, to give to clients.
const CERT_FILE: &str = "dev-cert.pem";
/// Starts the line of the pair file that says when the certificate ends, in Unix seconds.
const NOT_AFTER: &str = "not-after: ";
/// Starts the line of the pair file that says which names the certificate is good for.
const FOR_NAMES: &str = "names: ";

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file or its directory cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name is neither a DNS name nor an address, or the certificate cannot be signed.
    #[error("cannot make a certificate for {names:?}: {source}")]
    Make {
        /// The names asked for.
        names: Vec<String>,
        /// What is wrong.
        source: rcgen::Error,
    },
}

/// A self-signed certificate for development and its key.
pub struct DevCert {
    /// The certificate.
    pub cert: CertificateDer<'static>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// SHA-256 of the certificate's DER form: what browsers take as `serverCertificateHashes`.
    pub sha256: [u8; 32],
    /// When it ends, in Unix seconds.
    pub not_after_s: i64,
    /// The certificate alone as a PEM file.
    pub cert_path: PathBuf,
}

impl DevCert {
    /// The certificate in `dir` for [`NAMES`], made anew if there is none or it ends within 2 days.
    /// The directory is made too.
    pub fn load_or_create(dir: &Path) -> Result<Self, CertError> {
        Self::load_or_create_for(dir, &[])
    }

    /// The same, good for more names (DNS names or addresses) as well; other names than those of
    /// the certificate in `dir` make a new one.
    pub fn load_or_create_for(dir: &Path, extra_names: &[&str]) -> Result<Self, CertError> {
        Self::load_or_create_at(dir, extra_names, Timestamp::now().as_second())
    }

    /// The same at a given time, in Unix seconds.
    pub fn load_or_create_at(dir: &Path, extra_names: &[&str], now_s: i64) -> Result<Self, CertError> {
        let names: Vec<String> =
            NAMES.into_iter().chain(extra_names.iter().copied()).map(str::to_owned).collect();
        let pair_path = dir.join(PAIR_FILE);
        match fs::read_to_string(&pair_path) {
            Ok(text) => {
                // A file that cannot be understood is replaced like one that has run out.
                if let Some(found) = Self::parse(&text, &names, now_s, dir) {
                    return Ok(found);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(source) => return Err(CertError::Io { action: "read", path: pair_path, source }),
        }
        fs::create_dir_all(dir).map_err(|source| CertError::Io {
            action: "make the directory",
            path: dir.to_owned(),
            source,
        })?;
        Self::create(dir, names, now_s)
    }

    /// The hash as 64 hexadecimal digits.
    pub fn sha256_hex(&self) -> String {
        use std::fmt::Write;
        self.sha256.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    fn parse(text: &str, names: &[String], now_s: i64, dir: &Path) -> Option<Self> {
        let line = |start| text.lines().find_map(|line: &str| line.strip_prefix(start));
        let not_after_s: i64 = line(NOT_AFTER)?.split(' ').next()?.parse().ok()?;
        if not_after_s - now_s < RENEW_BEFORE_S || not_after_s - now_s > VALIDITY_S {
            return None;
        }
        if line(FOR_NAMES)? != names.join(",") {
            return None;
        }
        let cert = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).ok()?;
        Some(Self::new(cert, key, not_after_s, dir))
    }

    fn create(dir: &Path, names: Vec<String>, now_s: i64) -> Result<Self, CertError> {
        let not_before_s = now_s - BACKDATED_S;
        let not_after_s = not_before_s + VALIDITY_S;
        let (cert, key) = sign(&names, not_before_s, not_after_s)
            .map_err(|source| CertError::Make { names: names.clone(), source })?;
        let cert_pem = cert.pem();
        let date = Timestamp::from_second(not_after_s).map(|date| date.to_string()).unwrap_or_default();
        let pair = format!(
            "Development certificate and private key of Tern; made anew when it runs out.\n\
             {NOT_AFTER}{not_after_s} ({date})\n{FOR_NAMES}{}\n{cert_pem}{}",
            names.join(","),
            key.serialize_pem(),
        );
        write_whole(&dir.join(PAIR_FILE), pair.as_bytes(), 0o600)?;
        write_whole(&dir.join(CERT_FILE), cert_pem.as_bytes(), 0o644)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Self::new(cert.der().clone(), key, not_after_s, dir))
    }

    fn new(cert: CertificateDer<'static>, key: PrivateKeyDer<'static>, not_after_s: i64, dir: &Path) -> Self {
        let sha256 = Sha256::digest(&cert).into();
        Self { cert, key, sha256, not_after_s, cert_path: dir.join(CERT_FILE) }
    }
}

fn sign(
    names: &[String],
    not_before_s: i64,
    not_after_s: i64,
) -> Result<(rcgen::Certificate, KeyPair), rcgen::Error> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let after_epoch = |seconds: i64| epoch + Duration::from_secs(seconds.max(0) as u64);
    let mut params = CertificateParams::new(names)?;
    params.not_before = after_epoch(not_before_s);
    params.not_after = after_epoch(not_after_s);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Tern development");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let cert = params.self_signed(&key)?;
    Ok((cert, key))
}

/// Writes a file that is either whole or not there, readable by `mode` from its first byte on.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertError> {
    let fresh = path.with_extension("pem.new");
    let written = (|| {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    })();
    written.map_err(|source| CertError::Io { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
