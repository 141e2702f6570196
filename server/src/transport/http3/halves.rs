//! The two halves of a stream as h3 wants them: written and read by it, each frame judged before it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use parking_lot::Mutex;
use quinn::{ConnectionError, ReadError, SendStream, VarInt, WriteError};

use super::frames::{FRAME_BYTES_MAX, FrameError, FrameReader, HEADERS, PIECES_PER_TURN, Piece};
use super::{settings, varint};

/// The types of frames that h3 knows; it skips others only after it has buffered them.
const KNOWN_FRAMES: [u64; 11] = [0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd];

/// A stream of quinn that h3 uses, alone or until it is taken back.
enum Held<T> {
    Own(T),
    Lent(Arc<Mutex<Option<T>>>),
}

impl<T> Held<T> {
    fn with<R>(&mut self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        match self {
            Self::Own(stream) => Some(act(stream)),
            Self::Lent(stream) => stream.lock().as_mut().map(act),
        }
    }
}

/// A stream that h3 writes.
pub(super) struct Sender {
    stream: Held<SendStream>,
    writing: Option<Writing>,
}

impl Sender {
    /// A stream of h3's own.
    pub(super) fn own(stream: SendStream) -> Self {
        Self { stream: Held::Own(stream), writing: None }
    }

    /// A stream that may be taken back.
    pub(super) fn lent(stream: Arc<Mutex<Option<SendStream>>>) -> Self {
        Self { stream: Held::Lent(stream), writing: None }
    }
}

enum Writing {
    Frame(WriteBuf<Bytes>),
    Bytes(Bytes),
}

impl Writing {
    fn buffer(&mut self) -> &mut dyn Buf {
        match self {
            Self::Frame(buffer) => buffer,
            Self::Bytes(buffer) => buffer,
        }
    }
}

impl quic::SendStream<Bytes> for Sender {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let Self { stream, writing } = self;
        while let Some(buffer) = writing.as_mut().map(Writing::buffer).filter(|buffer| buffer.has_remaining())
        {
            let write = |stream: &mut SendStream| Pin::new(stream).poll_write(cx, buffer.chunk());
            let written = match stream.with(write) {
                Some(written) => ready!(written).map_err(write_error)?,
                None => return Poll::Ready(Err(unknown("the stream was taken"))),
            };
            buffer.advance(written);
        }
        *writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        let frame = data.into();
        // Payloads come as a chunk of their own, so SETTINGS are whole in the first.
        self.writing = Some(match settings::extend(frame.chunk()) {
            Some(extended) => Writing::Bytes(extended.into()),
            None => Writing::Frame(frame),
        });
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = self.stream.with(|stream| stream.finish());
        Poll::Ready(match finished {
            Some(Err(error)) => Err(StreamErrorIncoming::Unknown(Box::new(error))),
            Some(Ok(())) | None => Ok(()),
        })
    }

    fn reset(&mut self, code: u64) {
        let _ = self.stream.with(|stream| stream.reset(var_int(code)));
    }

    fn send_id(&self) -> StreamId {
        unreachable!("h3 asks only streams of requests")
    }
}

/// How much of a stream h3 reads.
enum Scope {
    /// Frames up to HEADERS; what follows is not h3's.
    Header,
    /// All frames of the control stream. One that is too long ends the connection.
    Control(quinn::Connection),
    /// Nothing: a stream of QPACK, whose table has no room for entries.
    Type,
}

/// A stream that h3 reads.
pub(super) struct Receiver {
    stream: Held<FrameReader>,
    id: u64,
    scope: Scope,
    /// Bytes that h3 gets before anything from the stream.
    first: Bytes,
    /// Whether the frame at hand is for h3.
    passes: bool,
    /// Bytes of HEADERS still to be handed on.
    header_left: Option<u64>,
}

impl Receiver {
    fn new(stream: Held<FrameReader>, id: u64, scope: Scope) -> Self {
        Self { stream, id, scope, first: Bytes::new(), passes: false, header_left: None }
    }

    /// The stream of a request; h3 reads the header from it, and nothing that follows.
    pub(super) fn header(stream: Arc<Mutex<Option<FrameReader>>>, id: u64) -> Self {
        Self::new(Held::Lent(stream), id, Scope::Header)
    }

    /// The control stream of a client, its type read.
    pub(super) fn control(connection: quinn::Connection, stream: FrameReader, id: u64) -> Self {
        let first = Bytes::from_static(&[0x00]);
        Self { first, ..Self::new(Held::Own(stream), id, Scope::Control(connection)) }
    }

    /// A stream of QPACK, its type read.
    pub(super) fn qpack(kind: u8, stream: FrameReader, id: u64) -> Self {
        Self { first: vec![kind].into(), ..Self::new(Held::Own(stream), id, Scope::Type) }
    }

    fn on_piece(&mut self, piece: Piece) -> Option<Option<Bytes>> {
        match piece {
            Piece::Head { kind, length } => {
                self.passes = KNOWN_FRAMES.contains(&kind);
                if !self.passes {
                    return None;
                }
                if kind == HEADERS {
                    self.header_left = Some(length);
                }
                let mut head = Vec::with_capacity(2 * varint::BYTES_MAX);
                varint::encode(kind, &mut head);
                varint::encode(length, &mut head);
                Some(Some(head.into()))
            }
            Piece::Payload(bytes) => {
                if let Some(left) = &mut self.header_left {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                self.passes.then_some(Some(bytes))
            }
            Piece::End => Some(None),
        }
    }
}

impl quic::RecvStream for Receiver {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if !self.first.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.first))));
        }
        let header_read = matches!(self.scope, Scope::Header) && self.header_left == Some(0);
        if header_read || matches!(self.scope, Scope::Type) {
            return Poll::Pending;
        }
        for _ in 0..PIECES_PER_TURN {
            let piece = match self.stream.with(|stream| stream.poll_piece(cx)) {
                Some(piece) => ready!(piece),
                None => return Poll::Pending,
            };
            match piece {
                Ok(piece) => {
                    if let Some(bytes) = self.on_piece(piece) {
                        return Poll::Ready(Ok(bytes));
                    }
                }
                Err(FrameError::Read(error)) => return Poll::Ready(Err(read_error(error))),
                // The end without the rest is what tells h3.
                Err(FrameError::Truncated) => return Poll::Ready(Ok(None)),
                Err(FrameError::TooLong { .. }) => {
                    self.stop_sending(Code::H3_EXCESSIVE_LOAD.value());
                    if let Scope::Control(connection) = &self.scope {
                        let reason = format!("frames have at most {FRAME_BYTES_MAX} bytes");
                        connection.close(var_int(Code::H3_EXCESSIVE_LOAD.value()), reason.as_bytes());
                    }
                    let error_code = Code::H3_EXCESSIVE_LOAD.value();
                    return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn stop_sending(&mut self, code: u64) {
        let _ = self.stream.with(|stream| stream.stop(code));
    }

    fn recv_id(&self) -> StreamId {
        StreamId::try_from(self.id).expect("an id of a stream")
    }
}

pub(super) fn var_int(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

pub(super) fn unknown(reason: &'static str) -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown(reason.into())
}

pub(super) fn lost(error: ConnectionError) -> StreamErrorIncoming {
    let connection_error = match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    };
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
