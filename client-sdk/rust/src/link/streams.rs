//! Frames on the streams of a connection: one control stream opened by the client, streams from
//! the server and datagrams merged into it. The same for native QUIC and for WebTransport.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tern_protocol::{Code, Decoder, Incoming, StreamKind};
use tokio::sync::mpsc;
use tokio::time::timeout;
use web_transport_quinn::{RecvStream, SendStream, Session, SessionError, WebTransportError};

use super::{FLUSH_FRAMES_MAX, Format, Inbound, Link, LinkEnd, Outgoing, endpoint};
use crate::persistence::Transport;

/// Bytes taken from a stream at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes of conversation id after the kind of a conversation's stream.
const CONVERSATION_ID_BYTES: usize = 16;
/// How long the last frames may take to arrive before the connection is closed over them, and
/// that close before the connection is given up.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How long after its control stream the server may close the connection and say why.
const REASON_WAIT: Duration = Duration::from_millis(500);

/// Opens the control stream and starts a link. The socket is held for as long as there is
/// something to write.
pub(super) async fn start(
    transport: Transport,
    session: Session,
    socket: endpoint::Shared,
) -> Result<Link, String> {
    let (send, receive) = session.open_bi().await.map_err(|error| error.to_string())?;
    let reading = Reading(session.clone());
    Ok(Link::start(
        transport,
        Format::Binary,
        |inbound| read(reading, receive, inbound),
        |outgoing| async move {
            write(&session, send, outgoing).await;
            drop(socket);
        },
    ))
}

/// Cuts the connection off when nobody reads it any more: a session alone would not, since a task
/// of its library holds the connection.
struct Reading(Session);

impl Drop for Reading {
    fn drop(&mut self) {
        quinn::Connection::close(&self.0, 0u32.into(), b"");
    }
}

/// Merges control stream, server streams and datagrams until the control stream ends.
async fn read(session: Reading, control: RecvStream, inbound: mpsc::Sender<Inbound>) {
    let session = &session.0;
    let control = read_frames(control, inbound.clone());
    tokio::pin!(control);
    let mut streams = FuturesUnordered::new();
    let end = loop {
        tokio::select! {
            end = &mut control => break end,
            Some(_) = streams.next() => {}
            stream = session.accept_uni() => match stream {
                Ok(stream) => streams.push(read_stream(stream, inbound.clone())),
                // The control stream may still hold the server's last frame.
                Err(_) => break control.await,
            },
            datagram = session.read_datagram() => match datagram {
                Ok(bytes) => read_datagram(&bytes, &inbound).await,
                Err(_) => break control.await,
            },
        }
    };
    let reason = match timeout(REASON_WAIT, session.closed()).await {
        Ok(SessionError::WebTransportError(WebTransportError::Closed(code, reason))) => {
            LinkEnd { code: u16::try_from(code).ok().map(Code), reason }
        }
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
            let _ = stream.stop(0);
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

async fn write(session: &Session, mut send: SendStream, mut outgoing: mpsc::Receiver<Outgoing>) {
    let mut batch = Vec::with_capacity(FLUSH_FRAMES_MAX);
    while outgoing.recv_many(&mut batch, FLUSH_FRAMES_MAX).await > 0 {
        let mut chunks = Vec::with_capacity(batch.len());
        let mut close = None;
        for item in batch.drain(..) {
            match item {
                Outgoing::Frame(bytes) => chunks.push(bytes),
                // Lost is lost: that is what datagrams are for.
                Outgoing::Lossy(bytes) if bytes.len() <= session.max_datagram_size() => {
                    drop(session.send_datagram(bytes));
                }
                Outgoing::Lossy(bytes) => chunks.push(bytes),
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
            session.close(code.0.into(), b"");
            let _ = timeout(CLOSE_WAIT, session.closed()).await;
            return;
        }
    }
}
