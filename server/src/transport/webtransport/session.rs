//! A session: its place on the connection, how its client ends it, how it is closed from here.

use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, OpenUni, SendDatagramError, SendStream, WriteError};
use tern_protocol::Code;
use tokio::time::timeout;

use super::super::LinkError;
use super::super::error::clean_reason;
use super::super::http3::{Arrival, BodyReader, Connected, FrameError, SessionPlace, varint};
use super::capsule::{self, CapsuleParser, Closed};

/// Type of a unidirectional WebTransport stream.
const STREAM_UNI: u64 = 0x54;
/// Type of an HTTP/3 DATA frame.
const FRAME_DATA: u64 = 0x00;
/// A session that is closed goes before everything else on the connection.
const PRIORITY_CLOSE: i32 = 3;

/// What a session has of its connection. It has its place there until it is dropped.
#[derive(Debug)]
pub(in crate::transport) struct WebTransportSession {
    connection: Connection,
    place: SessionPlace,
}

impl WebTransportSession {
    pub(in crate::transport) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The next arrival. Cancel-safe; one reader.
    pub(in crate::transport) async fn next(&self) -> Arrival {
        self.place.mailbox().next().await
    }

    /// Opens a stream to the client, to begin with [`WebTransportSession::stream_header`].
    pub(in crate::transport) fn open_uni(&self) -> OpenUni<'_> {
        self.connection.open_uni()
    }

    /// What a stream of this session begins with.
    pub(in crate::transport) fn stream_header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        varint::encode(STREAM_UNI, &mut header);
        varint::encode(self.place.id(), &mut header);
        header
    }

    /// Sends a datagram.
    pub(in crate::transport) fn send_datagram(&self, payload: &[u8]) -> Result<(), SendDatagramError> {
        let mut bytes = Vec::with_capacity(varint::BYTES_MAX + payload.len());
        varint::encode(self.place.id() / 4, &mut bytes);
        bytes.extend_from_slice(payload);
        self.connection.send_datagram(bytes.into())
    }
}

/// Makes a session of a CONNECT request that was accepted.
pub(super) fn split(connected: Connected) -> (WebTransportSession, SessionEnd, SessionClose) {
    let Connected { connection, send, body, place } = connected;
    let _ = send.set_priority(PRIORITY_CLOSE);
    let end = SessionEnd { body, capsules: CapsuleParser::default() };
    (WebTransportSession { connection, place }, end, SessionClose(send))
}

/// Sees how the client ends the session.
#[derive(Debug)]
pub(in crate::transport) struct SessionEnd {
    body: BodyReader,
    capsules: CapsuleParser,
}

impl SessionEnd {
    /// Waits for it. Cancel-safe.
    pub(in crate::transport) async fn wait(&mut self) -> LinkError {
        loop {
            let bytes = match self.body.next().await {
                Ok(Some(bytes)) => bytes,
                // A FIN alone says as much as code 0 without a reason.
                Ok(None) => return closed(Closed { code: 0, reason: String::new() }),
                Err(FrameError::Read(quinn::ReadError::ConnectionLost(error))) => {
                    return LinkError::of_session(error);
                }
                Err(FrameError::Read(quinn::ReadError::Reset(_))) => {
                    return LinkError::Closed { code: None, reason: "the session was reset".into() };
                }
                Err(FrameError::Read(error)) => return LinkError::Io(error.into()),
                Err(FrameError::TooLong { .. } | FrameError::Truncated) => {
                    return violation("frames on the stream of a session are short and whole");
                }
            };
            match self.capsules.push(&bytes) {
                Ok(None) => {}
                Ok(Some(end)) => return closed(end),
                Err(_) => return violation("capsules are short, few and well-formed"),
            }
        }
    }
}

fn closed(end: Closed) -> LinkError {
    LinkError::Closed { code: u16::try_from(end.code).ok().map(Code), reason: clean_reason(&end.reason) }
}

fn violation(rule: &'static str) -> LinkError {
    LinkError::Violation { code: Code::MALFORMED, websocket: 1002, rule }
}

/// Closes the session.
#[derive(Debug)]
pub(in crate::transport) struct SessionClose(SendStream);

impl SessionClose {
    /// Tells the client code and reason, and waits until it has them, at most for `patience`; then gives
    /// the stream up.
    pub(in crate::transport) async fn close(mut self, code: Code, reason: &str, patience: Duration) {
        let capsule = capsule::close(code.0.into(), reason);
        let mut head = Vec::new();
        varint::encode(FRAME_DATA, &mut head);
        varint::encode(capsule.len() as u64, &mut head);
        if timeout(patience, self.send([head.into(), capsule.into()])).await.is_err() {
            let _ = self.0.reset(quinn::VarInt::from_u32(0));
        }
    }

    async fn send(&mut self, mut chunks: [Bytes; 2]) -> Result<(), WriteError> {
        self.0.write_all_chunks(&mut chunks).await?;
        let _ = self.0.finish();
        let _ = self.0.stopped().await;
        Ok(())
    }
}
