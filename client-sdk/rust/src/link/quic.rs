//! QUIC connections: native, with the protocol on them, and HTTP/3 with a WebTransport session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, IdleTimeout, TransportConfig, VarInt};
use tern_protocol::SUBPROTOCOL_BINARY;
use url::Url;
use web_transport_quinn::proto::{ConnectError as Refusal, ConnectRequest};
use web_transport_quinn::{ClientError, ConnectError, Session};

use super::{Link, endpoint, streams};
use crate::persistence::Transport;

/// Streams the server may have open to us; beyond them it shares one.
const SERVER_STREAMS_MAX: u32 = 64;
/// Streams that HTTP/3 has open beside them: control, the two of QPACK, and one of an unknown kind.
const HTTP3_STREAMS: u32 = 4;
/// Window of one stream, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Window of the connection and bytes sent but not acked, in bytes.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Typing notices in flight, in bytes.
const DATAGRAM_BUFFER: usize = 16 * 1024;
/// Longest idle time this side allows; the server's is shorter and wins, and a peer that the
/// protocol calls dead is given up before.
const IDLE_MAX: Duration = Duration::from_secs(180);

/// Settings of the client side of a connection.
pub(super) fn config(tls: &Arc<rustls::ClientConfig>, keepalive: Duration) -> Result<ClientConfig, String> {
    let crypto = QuicClientConfig::try_from(tls.clone()).map_err(|error| error.to_string())?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(SERVER_STREAMS_MAX + HTTP3_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .mtu_discovery_config(None)
        .allow_spin(false)
        .keep_alive_interval(Some(keepalive))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Connects to one address with the protocol directly on QUIC.
pub(super) async fn connect(
    remote: SocketAddr,
    server_name: String,
    config: ClientConfig,
) -> Result<Link, String> {
    let (socket, connection) = dial(remote, &server_name, config).await?;
    streams::start(Transport::Quic, Session::raw(connection), socket).await
}

/// Connects to one address and opens a WebTransport session at `url`.
pub(super) async fn connect_webtransport(
    remote: SocketAddr,
    server_name: String,
    url: Url,
    config: ClientConfig,
) -> Result<Link, String> {
    let (socket, connection) = dial(remote, &server_name, config).await?;
    let request = ConnectRequest::new(url).with_protocol(SUBPROTOCOL_BINARY);
    let session = Session::connect(connection, request).await.map_err(|error| refusal(&error))?;
    streams::start(Transport::WebTransport, session, socket).await
}

async fn dial(
    remote: SocketAddr,
    server_name: &str,
    config: ClientConfig,
) -> Result<(endpoint::Shared, Connection), String> {
    let socket = endpoint::shared(&remote).map_err(|error| format!("UDP socket: {error}"))?;
    let connecting = socket.connect_with(config, remote, server_name).map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    Ok((socket, connection))
}

fn refusal(error: &ClientError) -> String {
    match error {
        ClientError::HttpError(ConnectError::ProtoError(Refusal::WrongStatus(Some(status)))) => {
            format!("HTTP status {status}")
        }
        other => other.to_string(),
    }
}
