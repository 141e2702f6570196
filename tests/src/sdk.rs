//! The Rust SDK as a client of a server of a test, over any wire.

use tern_client::{Config, TokenSource, TransportChoice, Trust, WebSocketFormat};

use crate::client::Wire;
use crate::server::Server;

/// How the SDK comes to a server over one wire and no other.
pub fn sdk_config(server: &Server, wire: Wire, token: impl TokenSource + 'static) -> Config {
    let ready = server.ready();
    let config = Config::new(token).trust(Trust::CertSha256(server.cert_sha256()));
    let mut config = match wire {
        Wire::Quic => config.quic(ready.quic_addr.to_string()).transport(TransportChoice::Quic),
        Wire::WebTransport => {
            config.webtransport(&ready.webtransport_url).transport(TransportChoice::WebTransport)
        }
        Wire::WebSocketBinary => config.websocket(&ready.wss_url).transport(TransportChoice::WebSocket),
        Wire::WebSocketJson => config.websocket(&ready.websocket_url).transport(TransportChoice::WebSocket),
    };
    if wire == Wire::WebSocketJson {
        config.websocket_format = WebSocketFormat::Json;
    }
    config
}
