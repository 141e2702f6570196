//! The QUIC link: one control stream opened by the client, streams from the server merged into it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt,
};
use tern_protocol::{Code, Decoder, Incoming, StreamKind};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{FLUSH_FRAMES_MAX, Format, Inbound, Link, LinkEnd, Outgoing, endpoint};
use crate::persistence::Transport;

/// Streams the server may have open to us; beyond them it shares one.
const SERVER_STREAMS_MAX: u32 = 64;
/// Window of one stream, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Window of the connection and bytes sent but not acked, in bytes.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Typing notices in flight, in bytes.
const DATAGRAM_BUFFER: usize = 16 * 1024;
/// Longest idle time this side allows; the server's is shorter and wins, and a peer that the
/// protocol calls dead is given up before.
const IDLE_MAX: Duration = Duration::from_secs(180);
/// Bytes taken from a stream at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes of conversation id after the kind of a conversation's stream.
const CONVERSATION_ID_BYTES: usize = 16;
/// How long the last frames may take to arrive before the connection is closed over them.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How long after its control stream the server may close the connection and say why.
const REASON_WAIT: Duration = Duration::from_millis(500);

/// Settings of the client side of a connection.
pub(super) fn config(tls: &Arc<rustls::ClientConfig>, keepalive: Duration) -> Result<ClientConfig, String> {
    let crypto = QuicClientConfig::try_from(tls.clone()).map_err(|error| error.to_string())?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(SERVER_STREAMS_MAX))
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

/// Connects to one address.
pub(super) async fn connect(
    remote: SocketAddr,
    server_name: String,
    config: ClientConfig,
) -> Result<Link, String> {
    let endpoint = endpoint::shared(&remote).map_err(|error| format!("UDP socket: {error}"))?;
    let connecting =
        endpoint.connect_with(config, remote, &server_name).map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let (send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    let reading = connection.clone();
    Ok(Link::start(
        Transport::Quic,
        Format::Binary,
        |inbound| read(reading, receive, inbound),
        // The socket is held for as long as there is something to write.
        |outgoing| async move {
            write(&connection, send, outgoing).await;
            drop(endpoint);
        },
    ))
}

/// Merges control stream, server streams and datagrams until the control stream ends.
async fn read(connection: Connection, control: RecvStream, inbound: mpsc::Sender<Inbound>) {
    let control = read_frames(control, inbound.clone());
    tokio::pin!(control);
    let mut streams = FuturesUnordered::new();
    let end = loop {
        tokio::select! {
            end = &mut control => break end,
            Some(_) = streams.next() => {}
            stream = connection.accept_uni() => match stream {
                Ok(stream) => streams.push(read_stream(stream, inbound.clone())),
                // The control stream may still hold the server's last frame.
                Err(_) => break control.await,
            },
            datagram = connection.read_datagram() => match datagram {
                Ok(bytes) => read_datagram(&bytes, &inbound).await,
                Err(_) => break control.await,
            },
        }
    };
    let reason = match timeout(REASON_WAIT, connection.closed()).await {
        Ok(ConnectionError::ApplicationClosed(close)) => LinkEnd {
            code: u16::try_from(close.error_code.into_inner()).ok().map(Code),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        Ok(error) => LinkEnd::lost(error.to_string()),
        Err(_) => end,
    };
    // A driver that does not listen any more needs no reason.
    let _ = inbound.send(Inbound::End(reason)).await;
}

/// Reads the header of a server stream, then its frames. Streams are only lanes: how one ends
/// does not matter.
async fn read_stream(mut stream: RecvStream, inbound: mpsc::Sender<Inbound>) {
    let mut kind = [0; 1];
    if stream.read_exact(&mut kind).await.is_err() {
        return;
    }
    match StreamKind::from_byte(kind[0]) {
        None => {
            // It may have ended already; then there is nothing to stop.
            let _ = stream.stop(VarInt::from_u32(0));
        }
        Some(StreamKind::Conversation) => {
            let mut id = [0; CONVERSATION_ID_BYTES];
            if stream.read_exact(&mut id).await.is_ok() {
                read_frames(stream, inbound).await;
            }
        }
        Some(StreamKind::Inbox | StreamKind::Backlog) => {
            read_frames(stream, inbound).await;
        }
    }
}

/// Reads frames to the end of a stream and says how it ended.
async fn read_frames(mut stream: RecvStream, inbound: mpsc::Sender<Inbound>) -> LinkEnd {
    let mut decoder = Decoder::default();
    loop {
        loop {
            let item = match decoder.next() {
                Ok(None) => break,
                Ok(Some(Incoming::Skipped(_))) => continue,
                Ok(Some(Incoming::Frame(envelope))) => Inbound::Frame(envelope),
                Err(error) if error.fatal() => return LinkEnd::lost(error.to_string()),
                Err(error) => Inbound::Bad(error),
            };
            if inbound.send(item).await.is_err() {
                return LinkEnd::lost("the client has stopped");
            }
        }
        match stream.read_chunk(CHUNK_BYTES, true).await {
            Ok(Some(chunk)) => decoder.extend(&chunk.bytes),
            Ok(None) => return LinkEnd::lost("the server ended the control stream"),
            Err(error) => return LinkEnd::lost(error.to_string()),
        }
    }
}

/// A datagram holds one whole frame; anything else may be lost.
async fn read_datagram(bytes: &[u8], inbound: &mpsc::Sender<Inbound>) {
    let mut decoder = Decoder::default();
    decoder.extend(bytes);
    if let Ok(Some(Incoming::Frame(envelope))) = decoder.next() {
        // A driver that does not listen any more needs no datagrams.
        let _ = inbound.send(Inbound::Frame(envelope)).await;
    }
}

async fn write(connection: &Connection, mut send: SendStream, mut outgoing: mpsc::Receiver<Outgoing>) {
    let mut batch = Vec::with_capacity(FLUSH_FRAMES_MAX);
    while outgoing.recv_many(&mut batch, FLUSH_FRAMES_MAX).await > 0 {
        let mut chunks = Vec::with_capacity(batch.len());
        let mut close = None;
        for item in batch.drain(..) {
            match item {
                Outgoing::Frame(bytes) => chunks.push(bytes),
                Outgoing::Lossy(bytes) => match connection.max_datagram_size() {
                    // Lost is lost: that is what datagrams are for.
                    Some(max) if bytes.len() <= max => drop(connection.send_datagram(bytes)),
                    _ => chunks.push(bytes),
                },
                Outgoing::Close(code) => close = Some(code),
            }
        }
        if send.write_all_chunks(&mut chunks).await.is_err() {
            // The reading side says why.
            return;
        }
        if let Some(code) = close {
            if send.finish().is_ok() {
                // Whether or not the server got everything in time, this side is done.
                let _ = timeout(CLOSE_WAIT, send.stopped()).await;
            }
            connection.close(VarInt::from_u32(code.0.into()), b"");
            return;
        }
    }
}
