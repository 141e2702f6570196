//! Handshakes with a running node, to see whether it can be reached and what it presents. Nothing is
//! sent over them, so the certificate need not be trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Sent as the name of the server.
const NAME: &str = "localhost";

/// SHA-256, in hex, of the certificate presented over QUIC.
pub(super) async fn quic(address: SocketAddr) -> anyhow::Result<String> {
    let local: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let endpoint = quinn::Endpoint::client(SocketAddr::new(local, 0))?;
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(client_config(&[tern_protocol::ALPN])?)?;
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(tls)), address, NAME)?;
    let connection = timeout(HANDSHAKE_TIME, connecting).await.context("no answer")??;
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
    connection.close(0u32.into(), b"");
    let _ = timeout(HANDSHAKE_TIME, endpoint.wait_idle()).await;
    hash_of_first(identity.as_deref().map(Vec::as_slice))
}

/// SHA-256, in hex, of the certificate presented over TCP.
pub(super) async fn tls(address: SocketAddr) -> anyhow::Result<String> {
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(&[b"http/1.1"])?));
        anyhow::Ok(connector.connect(ServerName::try_from(NAME)?, tcp).await?)
    };
    let stream = timeout(HANDSHAKE_TIME, connect).await.context("no answer")??;
    hash_of_first(stream.get_ref().1.peer_certificates())
}

fn hash_of_first(chain: Option<&[CertificateDer<'_>]>) -> anyhow::Result<String> {
    let leaf = chain.and_then(<[_]>::first).ok_or_else(|| anyhow!("no certificate was presented"))?;
    Ok(data_encoding::HEXLOWER.encode(&Sha256::digest(leaf)))
}

fn client_config(alpn: &[&[u8]]) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// Takes any certificate whose key signs the handshake.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
