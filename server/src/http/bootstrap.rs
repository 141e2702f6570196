//! `GET /v1/bootstrap`: where a client connects, best first, and what this server allows.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::request::Parts as Head;
use http::uri::Authority;
use http::{HeaderMap, header};
use serde::Serialize;
use tern_protocol::{ALPN, CONNECT_PATH, Limits, SUBPROTOCOL_BINARY, SUBPROTOCOL_JSON};
use utoipa::ToSchema;

use super::Problem;
use super::cache::{self, Keep};
use super::connect::Entrance;
use super::door::{Stranger, peer};
use crate::transport::TrustedProxies;
use crate::transport::tls::Certificate;

/// Marks requests that came without TLS, by the listener; those on TLS and HTTP/3 have no mark.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

/// What the answers are made of.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Port of QUIC, WebTransport, HTTPS and WSS.
    pub client_port: u16,
    /// Where clients reach that port (`chat.example:443`); absent: at the name by which they asked.
    pub public: Option<Authority>,
    /// The certificate, where it is made for development: clients pin the one that is presented now.
    pub pinned: Option<Arc<Certificate>>,
}

/// Where and how to connect.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bootstrap)]
pub(super) struct Whereabouts {
    /// Name and version of the server.
    server: &'static str,
    /// Name of the protocol on native QUIC.
    alpn: &'static str,
    /// Names of the protocol on WebTransport and WebSocket: binary, JSON (WebSocket only).
    subprotocols: [&'static str; 2],
    /// The best first.
    endpoints: Vec<Endpoint>,
    /// SHA-256 of the server's certificate in hex, if it was made for development: for
    /// `serverCertificateHashes`, or to pin. Null: verify it as usual.
    certificate_sha256: Option<String>,
    limits: Limits,
}

/// One way to connect.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Endpoint {
    transport: Wire,
    /// `https:` for WebTransport, `wss:` or `ws:` for WebSocket; for QUIC `quic://host:port`.
    url: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Wire {
    WebTransport,
    Quic,
    WebSocket,
}

/// Tells where to connect.
///
/// For everybody; may be kept for a minute. Try the endpoints in this order.
#[utoipa::path(
    get, path = "/v1/bootstrap", operation_id = "bootstrap",
    responses(
        (status = 200, description = "Where and how to connect", body = Whereabouts),
        (status = 304, description = "It has the ETag that If-None-Match names"),
    )
)]
pub(super) async fn bootstrap(
    State(bootstrap): State<Bootstrap>,
    State(Entrance { gateway, proxies, .. }): State<Entrance>,
    _: Stranger,
    request: axum::extract::Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let asked = asked_at(&head)?;
    let endpoints = endpoints(&bootstrap, &asked, way(&proxies, &head));
    let answer = Whereabouts {
        server: concat!("tern/", env!("CARGO_PKG_VERSION")),
        alpn: std::str::from_utf8(ALPN).expect("ALPN is text"),
        subprotocols: [SUBPROTOCOL_BINARY, SUBPROTOCOL_JSON],
        endpoints,
        certificate_sha256: bootstrap.pinned.as_ref().map(|certificate| certificate.identity().sha256_hex()),
        limits: gateway.limits(),
    };
    Ok(cache::json(&head.headers, &answer, Keep::Public))
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By TLS to the port for clients, perhaps under another number.
    Tls,
    /// By plain HTTP.
    Plain,
    /// By TLS to a proxy of ours, and on by plain HTTP.
    Proxy,
}

fn way(proxies: &TrustedProxies, head: &Head) -> Way {
    match head.extensions.get::<Plain>() {
        None => Way::Tls,
        Some(Plain) if proxies.says_tls(peer(head), &head.headers) => Way::Proxy,
        Some(Plain) => Way::Plain,
    }
}

/// The name, and perhaps the port, by which the client asked.
pub(super) fn asked_at(head: &Head) -> Result<Authority, Problem> {
    let said = head.uri.authority().cloned().or_else(|| host(&head.headers));
    said.filter(|authority| !authority.as_str().contains('@'))
        .ok_or_else(|| Problem::parameter("the Host header must name this server"))
}

fn host(headers: &HeaderMap) -> Option<Authority> {
    headers.get(header::HOST)?.to_str().ok()?.parse().ok()
}

fn endpoints(bootstrap: &Bootstrap, asked: &Authority, way: Way) -> Vec<Endpoint> {
    let client = match (&bootstrap.public, way) {
        (Some(public), _) => public.to_string(),
        (None, Way::Tls) => format!("{}:{}", asked.host(), asked.port_u16().unwrap_or(443)),
        (None, Way::Plain | Way::Proxy) => format!("{}:{}", asked.host(), bootstrap.client_port),
    };
    let websocket = match way {
        Way::Proxy => format!("wss://{asked}{CONNECT_PATH}"),
        Way::Tls | Way::Plain => format!("wss://{client}{CONNECT_PATH}"),
    };
    let mut endpoints = vec![
        Endpoint { transport: Wire::WebTransport, url: format!("https://{client}{CONNECT_PATH}") },
        Endpoint { transport: Wire::Quic, url: format!("quic://{client}") },
        Endpoint { transport: Wire::WebSocket, url: websocket },
    ];
    if way == Way::Plain && is_loopback(asked.host()) {
        endpoints.push(Endpoint { transport: Wire::WebSocket, url: format!("ws://{asked}{CONNECT_PATH}") });
    }
    endpoints
}

/// Whether a host is this machine, by whichever name.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(public: Option<&str>, asked: &str, way: Way) -> Vec<String> {
        let bootstrap =
            Bootstrap { client_port: 4433, public: public.map(|text| text.parse().unwrap()), pinned: None };
        endpoints(&bootstrap, &asked.parse().unwrap(), way).into_iter().map(|endpoint| endpoint.url).collect()
    }

    #[test]
    fn a_client_is_sent_where_it_reached_this_server() {
        assert_eq!(
            urls(None, "chat.example", Way::Tls),
            [
                "https://chat.example:443/v1/connect",
                "quic://chat.example:443",
                "wss://chat.example:443/v1/connect"
            ]
        );
        assert_eq!(urls(None, "[::1]:4433", Way::Tls)[1], "quic://[::1]:4433");
        assert_eq!(
            urls(None, "localhost:8080", Way::Plain),
            [
                "https://localhost:4433/v1/connect",
                "quic://localhost:4433",
                "wss://localhost:4433/v1/connect",
                "ws://localhost:8080/v1/connect"
            ]
        );
        assert_eq!(urls(None, "chat.example", Way::Plain).len(), 3, "no plain WebSocket but on loopback");
    }

    #[test]
    fn behind_a_proxy_the_websocket_goes_through_it_and_a_public_name_wins() {
        assert_eq!(urls(None, "chat.example", Way::Proxy)[2], "wss://chat.example/v1/connect");
        assert_eq!(urls(Some("udp.example:443"), "chat.example", Way::Proxy)[1], "quic://udp.example:443");
        assert_eq!(
            urls(Some("udp.example:443"), "10.0.0.1", Way::Tls)[2],
            "wss://udp.example:443/v1/connect"
        );
    }
}
