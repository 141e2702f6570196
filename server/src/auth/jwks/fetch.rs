//! One bounded HTTP request for a key set: no redirects, no proxies, nothing kept open.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::JwksConfig;

/// Longest fetch, from the look-up of the name to the last byte.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
pub(super) const SET_BYTES_MAX: usize = 256 * 1024;

/// Why there is no new set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {} s", FETCH_TIME.as_secs())]
    Timeout,
    #[error("the URL {0}")]
    Url(&'static str),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("cannot use ca_file {path}: {problem}", path = path.display())]
    Authority { path: std::path::PathBuf, problem: String },
    #[error("the certificate authorities of this machine cannot be used: {0}")]
    Authorities(rustls::Error),
    #[error("the exchange failed: {0}")]
    Http(String),
    #[error("the answer is {0}; only 200 is taken, and no redirect is followed")]
    Status(StatusCode),
    #[error("the answer is larger than {SET_BYTES_MAX} bytes or broke off")]
    Body,
    #[error("the answer is no key set: {0}")]
    NoSet(String),
    #[error("the set has no key for the configured algorithms")]
    NoKey,
}

/// The text at the URL.
pub(super) async fn get(config: &JwksConfig) -> Result<Vec<u8>, FetchError> {
    tokio::time::timeout(FETCH_TIME, get_within(config)).await.unwrap_or(Err(FetchError::Timeout))
}

async fn get_within(config: &JwksConfig) -> Result<Vec<u8>, FetchError> {
    let uri = config.uri().map_err(FetchError::Url)?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(FetchError::Connect)?;
    if !https {
        return exchange(tcp, &uri).await;
    }
    let name = ServerName::try_from(host).map_err(|_| FetchError::Url("names no host"))?;
    let connector = TlsConnector::from(Arc::new(client_config(config)?));
    let tls = connector.connect(name, tcp).await.map_err(FetchError::Connect)?;
    exchange(tls, &uri).await
}

/// Trusts the authorities of this machine and `ca_file`, as they are now: a fetch is rare.
fn client_config(config: &JwksConfig) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    // A store that is damaged in part or absent leaves what else there is; without any, no fetch works.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &config.ca_file {
        let bad = |problem: String| FetchError::Authority { path: path.clone(), problem };
        let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        let before = roots.len();
        for cert in CertificateDer::pem_slice_iter(&pem) {
            let cert = cert.map_err(|error| bad(error.to_string()))?;
            roots.add(cert).map_err(|error| bad(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(bad("it holds no certificate in PEM form".into()));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(FetchError::Authorities)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    uri: &Uri,
) -> Result<Vec<u8>, FetchError> {
    let failed = |error: hyper::Error| FetchError::Http(error.to_string());
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        .header(header::USER_AGENT, concat!("tern/", env!("CARGO_PKG_VERSION")))
        .body(Body::empty())
        .map_err(|error| FetchError::Http(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = to_bytes(Body::new(response.into_body()), SET_BYTES_MAX).await;
        body.map(|bytes| bytes.to_vec()).map_err(|_| FetchError::Body)
    };
    // The connection is driven here, so that nothing of it outlives the fetch.
    let driven = async {
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = answer => answer,
        never = driven => match never {},
    }
}
