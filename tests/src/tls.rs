//! TLS of raw clients: the server is known by the hash of its certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion, version,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::hang::within;
use crate::server::Server;

#[derive(Debug)]
struct Pin {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if Sha256::digest(leaf).as_slice() == self.sha256 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("the certificate is not the one that was announced".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that accepts exactly this certificate, over TLS 1.3.
pub(crate) fn client_config(sha256: [u8; 32], alpn: &[&[u8]]) -> ClientConfig {
    client_config_of(sha256, alpn, &version::TLS13)
}

/// The same over a version of choice.
pub(crate) fn client_config_of(
    sha256: [u8; 32],
    alpn: &[&[u8]],
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .expect("the provider has this version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pin { sha256, provider }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// A connection to the port for clients, its handshake done.
pub async fn connect(server: &Server, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let tcp = within("a TCP connection", TcpStream::connect(server.ready().quic_addr)).await;
    let name = ServerName::try_from("localhost").expect("a name");
    let config = client_config(server.cert_sha256(), alpn);
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp.expect("a TCP connection"));
    within("a TLS handshake", connecting).await.expect("a TLS handshake")
}
