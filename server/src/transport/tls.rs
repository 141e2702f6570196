//! Certificates and the TLS settings of both listeners.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::x509::CertificateFacts;

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}: {source}")]
    Read {
        /// Certificate or key.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no certificate or no key in PEM form.
    #[error("{path} holds no {what} in PEM form")]
    Pem {
        /// Certificate or key.
        what: &'static str,
        /// Which file.
        path: PathBuf,
    },
    /// The key is of a kind that is not supported, or damaged.
    #[error("the private key cannot be used: {0}")]
    Key(rustls::Error),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The certificate is not valid at this time.
    #[error("the certificate is not valid now: {0}; check the date of this machine, or renew it")]
    NotNow(String),
}

/// A certificate chain with its key.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads a chain (leaf first) and its key from PEM files.
    pub fn from_pem_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let what = "certificate chain";
        let certs = CertificateDer::pem_slice_iter(&read(what, chain)?)
            .collect::<Result<Vec<_>, pem::Error>>()
            .unwrap_or_default();
        if certs.is_empty() {
            return Err(TlsError::Pem { what, path: chain.to_owned() });
        }
        let what = "private key";
        let key = PrivateKeyDer::from_pem_slice(&read(what, key)?)
            .map_err(|_| TlsError::Pem { what, path: key.to_owned() })?;
        Self::from_der(certs, &key)
    }

    /// Takes a chain (leaf first) and its key, checking that they belong together.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let key = provider().key_provider.load_private_key(key.clone_key()).map_err(TlsError::Key)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Self(Arc::new(certified)))
            }
            Err(_) => Err(TlsError::Mismatch),
        }
    }
}

impl Identity {
    /// SHA-256 of the leaf certificate in hex, as clients that pin it want it.
    pub fn sha256_hex(&self) -> String {
        let leaf = self.0.cert.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
        data_encoding::HEXLOWER.encode(&Sha256::digest(leaf))
    }

    /// What the leaf certificate says about itself, if it can be understood.
    pub fn facts(&self) -> Option<CertificateFacts> {
        CertificateFacts::read(self.0.cert.first()?)
    }

    /// What every certificate of the chain says about itself, leaf first; damaged ones are left out.
    pub fn chain_facts(&self) -> Vec<CertificateFacts> {
        self.0.cert.iter().filter_map(|der| CertificateFacts::read(der)).collect()
    }

    /// Itself, if its certificate is valid at this time.
    pub fn valid_at(self, now: SystemTime) -> Result<Self, TlsError> {
        match self.facts().and_then(|facts| facts.invalid(now)) {
            None => Ok(self),
            Some(reason) => Err(TlsError::NotNow(reason)),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.cert.len())
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

/// The certificate that all listeners present; it can be replaced while they run.
#[derive(Debug)]
pub struct Certificate(RwLock<Identity>);

impl Certificate {
    /// Presents this identity from now on.
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self(RwLock::new(identity)))
    }

    /// What is presented now.
    pub fn identity(&self) -> Identity {
        self.0.read().clone()
    }

    /// New handshakes get this one; connections that exist keep theirs.
    pub fn replace(&self, identity: Identity) {
        *self.0.write() = identity;
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().0.clone())
    }
}

/// What HTTP/3 is called in ALPN.
pub(super) const ALPN_HTTP3: &[u8] = b"h3";

/// TLS for QUIC: 1.3, ALPN `tern/1` and `h3`, no early data, no tickets.
pub fn quic_server_config(certificate: Arc<Certificate>) -> Arc<ServerConfig> {
    server_config(certificate, &[&TLS13], &[tern_protocol::ALPN, ALPN_HTTP3])
}

/// TLS for HTTPS and WSS: 1.3 and 1.2, ALPN `h2` and `http/1.1`.
pub fn tcp_server_config(certificate: Arc<Certificate>) -> Arc<ServerConfig> {
    server_config(certificate, &[&TLS13, &TLS12], &[b"h2", b"http/1.1"])
}

fn server_config(
    certificate: Arc<Certificate>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // AES-128-GCM stands first in the provider: the cheapest suite where the CPU has AES.
    config.ignore_client_order = true;
    // Signing costs the server some 10 µs; resumption would cost it memory per session instead,
    // and a client that resumes does not look at a renewed certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// aws-lc-rs with AES-128-GCM first.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites = vec![
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_certs::DevCert;

    fn files(dir: &Path) -> (PathBuf, PathBuf) {
        let cert = DevCert::load_or_create(dir).unwrap();
        let pair = dir.join("dev-cert-and-key.pem");
        assert!(pair.exists());
        (cert.cert_path, pair)
    }

    #[test]
    fn a_chain_and_key_are_read_from_pem_files() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = files(dir.path());
        let identity = Identity::from_pem_files(&chain, &key).unwrap();
        let certificate = Certificate::new(identity);
        assert_eq!(
            quic_server_config(certificate.clone()).alpn_protocols,
            [b"tern/1".to_vec(), b"h3".to_vec()]
        );
        let tcp = tcp_server_config(certificate);
        assert_eq!(tcp.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(tcp.max_early_data_size, 0);
    }

    #[test]
    fn a_missing_or_wrong_file_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = files(dir.path());
        let missing = dir.path().join("nothing.pem");
        let error = Identity::from_pem_files(&chain, &missing).unwrap_err();
        assert!(matches!(&error, TlsError::Read { what: "private key", path, .. } if *path == missing));
        let error = Identity::from_pem_files(&missing, &key).unwrap_err();
        assert!(matches!(&error, TlsError::Read { what: "certificate chain", .. }), "{error}");
        let error = Identity::from_pem_files(&chain, &chain).unwrap_err();
        assert!(matches!(&error, TlsError::Pem { what: "private key", .. }), "{error}");
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let error = Identity::from_pem_files(&empty, &key).unwrap_err();
        assert!(matches!(&error, TlsError::Pem { what: "certificate chain", .. }), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_at_start() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let error = Identity::from_pem_files(&files(one.path()).0, &files(other.path()).1).unwrap_err();
        assert!(matches!(error, TlsError::Mismatch), "{error}");
    }
}
