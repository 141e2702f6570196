//! Links: a QUIC connection, a WebTransport session or a WebSocket, as frames in and out.
//!
//! A link has a reading and a writing task, which end with it. Bounded channels lie between them
//! and the driver; the driver never waits for a link.

use std::collections::VecDeque;

use bytes::Bytes;
use tern_protocol::{Code, DecodeError, Envelope, FRAME_BYTES_MAX, Frame, encode, to_json};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::persistence::Transport;

mod address;
mod endpoint;
mod quic;
mod race;
mod streams;
mod tls;
mod websocket;

pub(crate) use address::{Addresses, Dialed, Dialer};

/// Frames read and not yet taken by the driver.
const INBOUND_MAX: usize = 64;
/// Frames given to the writing task and not yet written.
const OUTGOING_MAX: usize = 64;
/// Frames written with one flush.
const FLUSH_FRAMES_MAX: usize = 16;

/// How frames are written on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Binary,
    Json,
}

/// What a link brings.
#[derive(Debug)]
pub(crate) enum Inbound {
    Frame(Envelope),
    /// One frame could not be read; the link goes on.
    Bad(DecodeError),
    /// The link has ended.
    End(LinkEnd),
}

/// How a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", code.map(|code| format!("{code}: ")).unwrap_or_default())]
pub(crate) struct LinkEnd {
    /// The peer's code, if it gave one.
    pub(crate) code: Option<Code>,
    /// For people.
    pub(crate) reason: String,
}

impl LinkEnd {
    fn lost(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into() }
    }
}

/// What is written to a link.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Bytes),
    /// May be lost: a datagram where there are datagrams.
    Lossy(Bytes),
    /// The last thing: flush what is before it, then close with this code.
    Close(Code),
}

/// The frame would be longer than the protocol allows.
#[derive(Debug, PartialEq)]
pub(crate) struct TooLarge(pub(crate) usize);

/// An open link. Dropping it cuts it off.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) transport: Transport,
    format: Format,
    outgoing: mpsc::Sender<Outgoing>,
    inbound: mpsc::Receiver<Inbound>,
    tasks: [AbortHandle; 2],
}

impl Link {
    fn start<R, W>(
        transport: Transport,
        format: Format,
        reader: impl FnOnce(mpsc::Sender<Inbound>) -> R,
        writer: impl FnOnce(mpsc::Receiver<Outgoing>) -> W,
    ) -> Self
    where
        R: Future<Output = ()> + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let (inbound_tx, inbound) = mpsc::channel(INBOUND_MAX);
        let (outgoing, outgoing_rx) = mpsc::channel(OUTGOING_MAX);
        let tasks = [
            tokio::spawn(reader(inbound_tx)).abort_handle(),
            tokio::spawn(writer(outgoing_rx)).abort_handle(),
        ];
        Self { transport, format, outgoing, inbound, tasks }
    }

    /// Gives what waits in `queue` to the writer while waiting for the next thing from the peer.
    /// Cancel-safe.
    pub(crate) async fn exchange(&mut self, queue: &mut VecDeque<Outgoing>) -> Inbound {
        loop {
            tokio::select! {
                item = self.inbound.recv() => {
                    return item.unwrap_or_else(|| Inbound::End(LinkEnd::lost("the link has ended")));
                }
                permit = self.outgoing.reserve(), if !queue.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(item) = queue.pop_front() {
                            permit.send(item);
                        }
                    }
                    // The writer has ended; the reader is about to say why.
                    Err(_) => queue.clear(),
                },
            }
        }
    }

    /// The form in which a frame is written here.
    pub(crate) fn encode(&self, envelope: &Envelope) -> Result<Outgoing, TooLarge> {
        let bytes = match self.format {
            Format::Binary => encode(envelope),
            Format::Json => to_json(envelope).into_bytes(),
        };
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(TooLarge(bytes.len()));
        }
        Ok(match envelope.frame {
            Frame::Typing(_) => Outgoing::Lossy(bytes.into()),
            _ => Outgoing::Frame(bytes.into()),
        })
    }

    /// Waits until the writer has written everything, closed the transport and ended.
    pub(crate) async fn written(&self) {
        self.outgoing.closed().await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
