//! Which certificates are believed.

use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tern_protocol::ALPN;

use crate::config::{ConfigError, Trust};

/// TLS sessions kept for resumption, per client: it talks to a few nodes.
const RESUMPTIONS: usize = 8;

/// TLS settings by transport.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) quic: Arc<ClientConfig>,
    pub(super) webtransport: Arc<ClientConfig>,
    pub(super) websocket: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn new(trust: &Trust) -> Result<Self, ConfigError> {
        let broken = |error: Error| ConfigError::Trust(error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let quic = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(broken)?;
        let websocket = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(broken)?;
        let (mut quic, mut websocket) = match trust {
            Trust::CertSha256(sha256) => {
                let pinned = Arc::new(Pinned { sha256: *sha256, provider });
                (
                    quic.dangerous().with_custom_certificate_verifier(pinned.clone()).with_no_client_auth(),
                    websocket.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth(),
                )
            }
            Trust::System => {
                let roots = system_roots()?;
                (
                    quic.with_root_certificates(roots.clone()).with_no_client_auth(),
                    websocket.with_root_certificates(roots).with_no_client_auth(),
                )
            }
            Trust::Roots(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate.clone()).map_err(broken)?;
                }
                let roots = Arc::new(roots);
                (
                    quic.with_root_certificates(roots.clone()).with_no_client_auth(),
                    websocket.with_root_certificates(roots).with_no_client_auth(),
                )
            }
        };
        let mut webtransport = quic.clone();
        quic.alpn_protocols = vec![ALPN.to_vec()];
        webtransport.alpn_protocols = vec![web_transport_quinn::ALPN.as_bytes().to_vec()];
        websocket.alpn_protocols = vec![b"http/1.1".to_vec()];
        quic.resumption = Resumption::in_memory_sessions(RESUMPTIONS);
        webtransport.resumption = Resumption::in_memory_sessions(RESUMPTIONS);
        websocket.resumption = Resumption::in_memory_sessions(RESUMPTIONS);
        Ok(Self {
            quic: Arc::new(quic),
            webtransport: Arc::new(webtransport),
            websocket: Arc::new(websocket),
        })
    }
}

/// The roots of the operating system, read once per process.
fn system_roots() -> Result<Arc<RootCertStore>, ConfigError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(ConfigError::Trust(format!("the system has no trusted certificates{why}")));
    }
    Ok(ROOTS.get_or_init(|| Arc::new(roots)).clone())
}

/// Believes one certificate, whatever its names and dates. That the server holds its key is
/// verified as always.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found: [u8; 32] = Sha256::digest(end_entity).into();
        if found == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        Err(Error::General(format!("the server's certificate is another one, SHA-256 {hex}")))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
