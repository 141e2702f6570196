//! What h3 sees of a QUIC connection: the streams that are its own, each frame judged before it.
//!
//! h3-quinn cannot stand here: its streams are made by itself only, so a stream whose first bytes have
//! been read cannot become one of them, nor can it give a WebTransport stream back as quinn's. It also
//! panics when a stream is stopped while it is being read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, RecvStream as _, StreamErrorIncoming, StreamId, WriteBuf};
use parking_lot::Mutex;
use quinn::SendStream;

use super::frames::FrameReader;
use super::halves::{Receiver, Sender, lost, unknown, var_int};

/// A connection as h3 wants it. It accepts nothing by itself: what was found to be h3's is put here.
pub(super) struct Quic {
    connection: quinn::Connection,
    pub(super) requests: VecDeque<RequestStream>,
    pub(super) streams: VecDeque<Receiver>,
}

impl Quic {
    pub(super) fn new(connection: quinn::Connection) -> Self {
        Self { connection, requests: VecDeque::new(), streams: VecDeque::new() }
    }
}

impl quic::Connection<Bytes> for Quic {
    type RecvStream = Receiver;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, _: &mut Context<'_>) -> Poll<Result<Receiver, ConnectionErrorIncoming>> {
        // Whoever adds a stream polls h3 next.
        take_first(&mut self.streams)
    }

    fn poll_accept_bidi(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<Result<RequestStream, ConnectionErrorIncoming>> {
        take_first(&mut self.requests)
    }

    fn opener(&self) -> Opener {
        Opener(self.connection.clone())
    }
}

fn take_first<T>(queue: &mut VecDeque<T>) -> Poll<Result<T, ConnectionErrorIncoming>> {
    let Some(stream) = queue.pop_front() else { return Poll::Pending };
    if queue.is_empty() {
        // It was needed at the start; the connection may be idle for days.
        *queue = VecDeque::new();
    }
    Poll::Ready(Ok(stream))
}

impl quic::OpenStreams<Bytes> for Quic {
    type BidiStream = RequestStream;
    type SendStream = Sender;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestStream, StreamErrorIncoming>> {
        Opener(self.connection.clone()).poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sender, StreamErrorIncoming>> {
        Opener(self.connection.clone()).poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(var_int(code.value()), reason);
    }
}

/// Opens the streams of h3.
pub(super) struct Opener(quinn::Connection);

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = RequestStream;
    type SendStream = Sender;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<RequestStream, StreamErrorIncoming>> {
        Poll::Ready(Err(unknown("a server opens no requests")))
    }

    fn poll_open_send(&mut self, _: &mut Context<'_>) -> Poll<Result<Sender, StreamErrorIncoming>> {
        // h3 opens three at the start; a client that does not allow them speaks no HTTP/3.
        Poll::Ready(match self.0.open_uni().now_or_never() {
            Some(Ok(stream)) => Ok(Sender::own(stream)),
            Some(Err(error)) => Err(lost(error)),
            None => Err(unknown("the client allows no unidirectional streams")),
        })
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.0.close(var_int(code.value()), reason);
    }
}

/// The two halves of a request's stream, to be taken from h3 once the header is read or sent.
#[derive(Clone, Debug)]
pub(super) struct Lent {
    send: Arc<Mutex<Option<SendStream>>>,
    recv: Arc<Mutex<Option<FrameReader>>>,
}

impl Lent {
    pub(super) fn new(send: SendStream, recv: FrameReader) -> Self {
        Self { send: Arc::new(Mutex::new(Some(send))), recv: Arc::new(Mutex::new(Some(recv))) }
    }

    /// From now on h3 does not write there.
    pub(super) fn take_send(&self) -> Option<SendStream> {
        self.send.lock().take()
    }

    /// From now on h3 does not read there.
    pub(super) fn take_recv(&self) -> Option<FrameReader> {
        self.recv.lock().take()
    }
}

/// A request's stream as h3 wants it.
pub(super) struct RequestStream {
    lent: Lent,
    send: Sender,
    recv: Receiver,
}

impl RequestStream {
    /// h3 reads the header from it, and nothing that follows.
    pub(super) fn new(lent: Lent, id: u64) -> Self {
        Self { send: Sender::lent(lent.send.clone()), recv: Receiver::header(lent.recv.clone(), id), lent }
    }

    /// The way to its two halves.
    pub(super) fn lent(&self) -> &Lent {
        &self.lent
    }
}

impl quic::BidiStream<Bytes> for RequestStream {
    type SendStream = Sender;
    type RecvStream = Receiver;

    fn split(self) -> (Sender, Receiver) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for RequestStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::RecvStream for RequestStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}
