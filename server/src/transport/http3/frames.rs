//! Reading the frames of an HTTP/3 stream piece by piece, none larger than it may be.
//!
//! h3 0.0.8 buffers every frame but DATA whole before it looks at it (300 MiB of HEADERS take as much
//! memory and minutes of CPU), and takes two chunks from a stream for each DATA frame that it hands
//! on. So the length is judged here, and a chunk never reaches beyond its frame.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::{ReadError, RecvStream};
use smallvec::SmallVec;

use super::varint;

/// DATA.
pub(super) const DATA: u64 = 0x00;
/// HEADERS.
pub(super) const HEADERS: u64 = 0x01;
/// Longest frame that is not DATA, in bytes.
pub(super) const FRAME_BYTES_MAX: u64 = 16 * 1024;
/// Most bytes taken from a stream at a time.
const READ_BYTES: usize = 16 * 1024;
/// Frames looked at before others get their turn: empty ones cost the sender almost nothing.
pub(super) const PIECES_PER_TURN: u32 = 64;

/// Type and length of a frame, byte by byte: pure.
#[derive(Debug, Default)]
struct Head {
    bytes: SmallVec<[u8; 2 * varint::BYTES_MAX]>,
}

impl Head {
    /// Takes the next byte; gives type and length once they are complete, and starts over.
    fn push(&mut self, byte: u8) -> Option<(u64, u64)> {
        self.bytes.push(byte);
        let (kind, used) = varint::decode(&self.bytes)?;
        let (length, _) = varint::decode(&self.bytes[used..])?;
        self.bytes.clear();
        Some((kind, length))
    }
}

/// A part of a frame.
#[derive(Debug)]
pub(super) enum Piece {
    /// A frame begins.
    Head {
        /// Its type.
        kind: u64,
        /// Bytes that follow.
        length: u64,
    },
    /// Bytes of the frame that began last; never empty.
    Payload(Bytes),
    /// The stream ended between two frames.
    End,
}

/// Why there are no further frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame other than DATA is longer than it may be.
    #[error("a frame of type {kind:#x} has {length} bytes, at most {FRAME_BYTES_MAX} are taken")]
    TooLong {
        /// Its type.
        kind: u64,
        /// Its length.
        length: u64,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The stream was reset, or its connection is lost.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Reads frames from a stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: RecvStream,
    /// Bytes that were read to find out what the stream is.
    before: SmallVec<[u8; 2 * varint::BYTES_MAX]>,
    head: Head,
    /// Bytes of the current frame still to come.
    left: u64,
}

impl FrameReader {
    /// Reads a stream whose first bytes, `before`, have been read already.
    pub(super) fn new(stream: RecvStream, before: &[u8]) -> Self {
        Self { stream, before: SmallVec::from_slice(before), head: Head::default(), left: 0 }
    }

    /// Reads no further; the peer is told why.
    pub(super) fn stop(&mut self, code: u64) {
        let _ = self.stream.stop(quinn::VarInt::from_u64(code).unwrap_or_default());
    }

    /// The next part of a frame.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, FrameError>> {
        if self.left > 0 {
            let most = usize::try_from(self.left).unwrap_or(READ_BYTES).min(READ_BYTES);
            let Some(bytes) = ready!(self.poll_bytes(cx, most))? else {
                return Poll::Ready(Err(FrameError::Truncated));
            };
            self.left -= bytes.len() as u64;
            return Poll::Ready(Ok(Piece::Payload(bytes)));
        }
        loop {
            let byte = match ready!(self.poll_byte(cx))? {
                Some(byte) => byte,
                None if self.head.bytes.is_empty() => return Poll::Ready(Ok(Piece::End)),
                None => return Poll::Ready(Err(FrameError::Truncated)),
            };
            let Some((kind, length)) = self.head.push(byte) else { continue };
            if kind != DATA && length > FRAME_BYTES_MAX {
                return Poll::Ready(Err(FrameError::TooLong { kind, length }));
            }
            self.left = length;
            return Poll::Ready(Ok(Piece::Head { kind, length }));
        }
    }

    fn poll_byte(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<u8>, ReadError>> {
        if !self.before.is_empty() {
            return Poll::Ready(Ok(Some(self.before.remove(0))));
        }
        Poll::Ready(Ok(ready!(self.poll_bytes(cx, 1))?.and_then(|bytes| bytes.first().copied())))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        // The future keeps nothing between polls.
        let chunk = ready!(pin!(self.stream.read_chunk(most, true)).poll(cx))?;
        Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes)))
    }
}

/// What follows the header of a request: the content of its DATA frames.
#[derive(Debug)]
pub struct BodyReader {
    frames: FrameReader,
    data: bool,
}

impl BodyReader {
    pub(super) fn new(frames: FrameReader) -> Self {
        Self { frames, data: false }
    }

    /// The next bytes, `None` at the end of the stream. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for the next bytes; trailers and frames of unknown types are skipped.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, FrameError>> {
        for _ in 0..PIECES_PER_TURN {
            match ready!(self.frames.poll_piece(cx))? {
                Piece::Head { kind, .. } => self.data = kind == DATA,
                Piece::Payload(bytes) if self.data => return Poll::Ready(Ok(Some(bytes))),
                Piece::Payload(_) => {}
                Piece::End => return Poll::Ready(Ok(None)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_head_is_found_whatever_bytes_stand_around_it(kind in 0u64..1 << 62, length in 0u64..1 << 62) {
            let mut bytes = Vec::new();
            varint::encode(kind, &mut bytes);
            varint::encode(length, &mut bytes);
            let mut head = Head::default();
            for _ in 0..2 {
                let (last, first) = bytes.split_last().unwrap();
                for byte in first {
                    prop_assert_eq!(head.push(*byte), None);
                }
                prop_assert_eq!(head.push(*last), Some((kind, length)));
            }
        }
    }
}
