//! HTTP requests as their bytes are, over HTTP/1.1 or 2, plain or TLS.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::hang::within;
use crate::server::Server;
use crate::tls::{client_config, client_config_of};

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1 on the plain port.
    One,
    /// HTTP/2 on the plain port, with prior knowledge.
    Two,
    /// HTTP/1.1 over TLS.
    OneTls,
    /// HTTP/1.1 over TLS 1.2.
    OneTls12,
    /// HTTP/2 over TLS, agreed by ALPN.
    TwoTls,
}

impl Http {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::One, Self::Two, Self::OneTls, Self::OneTls12, Self::TwoTls];

    fn two(self) -> bool {
        matches!(self, Self::Two | Self::TwoTls)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl HttpAnswer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Everything of it but the date, the request's own name and where else to ask, to be compared.
    pub fn bytes(&self) -> String {
        let headers: BTreeMap<&str, &str> = self
            .headers
            .iter()
            .filter(|(key, _)| !["date", "x-request-id", "alt-svc"].contains(&key.as_str()))
            .map(|(key, value)| (key.as_str(), value.to_str().unwrap_or_default()))
            .collect();
        format!("{} {headers:?} {}", self.status, self.body)
    }
}

/// A question to the API.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, String)>,
    body: Vec<u8>,
}

impl<'a> Ask<'a> {
    /// A question without a body.
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, headers: Vec::new(), body: Vec::new() }
    }

    /// With a token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").bytes(body.to_string().as_bytes())
    }

    /// With a body.
    #[must_use]
    pub fn bytes(mut self, body: &[u8]) -> Self {
        self.body = body.into();
        self
    }
}

impl Server {
    /// Asks the API with a token.
    pub async fn get(&self, how: Http, path: &str, token: Option<&str>) -> HttpAnswer {
        let ask = Ask::new("GET", path);
        self.ask(how, token.into_iter().fold(ask, Ask::token)).await
    }

    /// Asks the API.
    pub async fn ask(&self, how: Http, ask: Ask<'_>) -> HttpAnswer {
        let tls = matches!(how, Http::OneTls | Http::OneTls12 | Http::TwoTls);
        let scheme = if tls { "https" } else { "http" };
        let address = if tls { self.ready().quic_addr } else { address(&self.ready().http_url) };
        let host = ask.headers.iter().find(|(name, _)| *name == "host").map(|(_, host)| host.clone());
        let host = host.unwrap_or_else(|| address.to_string());
        let mut request = Request::builder().method(ask.method).uri(ask.path);
        if how.two() {
            request = request.uri(format!("{scheme}://{host}{}", ask.path)).version(Version::HTTP_2);
        } else {
            request = request.header("host", host);
        }
        for (name, value) in ask.headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(ask.body)).expect("a request");
        let tcp = within("a TCP connection", TcpStream::connect(address)).await.expect("a TCP connection");
        if !tls {
            return exchange(tcp, how, request).await;
        }
        let sha256 = self.cert_sha256();
        let config = match how {
            Http::TwoTls => client_config(sha256, &[b"h2"]),
            Http::OneTls12 => client_config_of(sha256, &[b"http/1.1"], &rustls::version::TLS12),
            _ => client_config(sha256, &[b"http/1.1"]),
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let stream = within("a TLS handshake", connecting).await.expect("a TLS handshake");
        exchange(stream, how, request).await
    }

    /// Asks the port for operators.
    pub async fn ops(&self, path: &str) -> HttpAnswer {
        let address = address(&self.ready().ops_url);
        let tcp = within("a TCP connection", TcpStream::connect(address)).await.expect("a TCP connection");
        let request = Request::get(path).header("host", address.to_string()).body(Full::default());
        exchange(tcp, Http::One, request.expect("a request")).await
    }

    /// The value of a metric, `name` or `name{label="value"}`; `None` if it is not there.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let answer = self.ops("/metrics").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let line = answer.body.lines().find(|line| line.split(' ').next() == Some(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until a metric has such a value.
    pub async fn metric_becomes(&self, series: &str, mut good: impl FnMut(f64) -> bool) {
        within(series, async {
            while !self.metric(series).await.is_some_and(&mut good) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// The address of a URL.
pub fn address(url: &str) -> SocketAddr {
    let host = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    host.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    how: Http,
    request: Request<Full<bytes::Bytes>>,
) -> HttpAnswer {
    let io = TokioIo::new(io);
    let answer = async {
        if how.two() {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await
        }
    };
    let (head, mut body) = within("an HTTP answer", answer).await.expect("an HTTP answer").into_parts();
    let expected = if how.two() { Version::HTTP_2 } else { Version::HTTP_11 };
    assert_eq!(head.version, expected);
    let mut bytes = Vec::new();
    while let Some(chunk) = within("the body", next_chunk(&mut body)).await {
        bytes.extend_from_slice(&chunk);
    }
    let body = String::from_utf8(bytes).expect("UTF-8");
    HttpAnswer { status: head.status, headers: head.headers, body }
}

async fn next_chunk(body: &mut Incoming) -> Option<bytes::Bytes> {
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?.expect("a whole body");
        if let Ok(data) = frame.into_data() {
            return Some(data);
        }
    }
}
