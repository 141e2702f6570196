//! Writing a WebSocket link: priority is decided in the outbox, the socket gets one stream of it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::sink::Sink;
use futures_util::stream::Stream;
use tern_protocol::{Close, Code};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::super::error::clean_reason;
use super::super::{LinkError, TransportConfig};
use super::Shared;
use crate::roster::outbox::{Batch, TakeLimit};
use crate::roster::{Format, Outbox};

/// How much goes to the socket at a time. The socket keeps a buffer of that size, so it is small.
pub(super) const TAKE: TakeLimit = TakeLimit { frames: 16, bytes: 16 * 1024 };

/// The writing half of a WebSocket link.
#[derive(Debug)]
pub struct WebSocketWriter {
    shared: Arc<Shared>,
    format: Format,
    close_flush: Duration,
    /// Messages of `sending` that the socket has not taken.
    messages: VecDeque<Message>,
    /// What is under way.
    sending: Option<Batch>,
}

impl WebSocketWriter {
    pub(super) fn new(shared: Arc<Shared>, format: Format, config: &TransportConfig) -> Self {
        let (messages, sending) = Default::default();
        Self { shared, format, close_flush: config.close_flush(), messages, sending }
    }

    /// See [`LinkWriter::drive`](crate::transport::LinkWriter::drive).
    pub(in crate::transport) async fn drive(&mut self, outbox: &Outbox) -> Result<(), LinkError> {
        loop {
            if let Some(close) = outbox.closing() {
                // Boxed, so that it takes no room before the end.
                return Box::pin(self.finish(close, outbox)).await;
            }
            if self.sending.is_none() {
                self.take(outbox)?;
            }
            tokio::select! {
                biased;
                flushed = self.flushed(), if self.sending.is_some() => self.settle(flushed, outbox)?,
                () = outbox.work() => {}
            }
        }
    }

    /// Takes the next frames and makes messages of them: one for all of them in binary, one for
    /// each in JSON.
    fn take(&mut self, outbox: &Outbox) -> Result<(), LinkError> {
        let Some(batch) = outbox.take_any(TAKE) else { return Ok(()) };
        match self.format {
            Format::Binary => self.messages.push_back(Message::Binary(joined(&batch.frames))),
            Format::Json => {
                for frame in &batch.frames {
                    self.messages.push_back(text(frame.clone())?);
                }
            }
        }
        self.sending = Some(batch);
        Ok(())
    }

    fn settle(&mut self, flushed: Result<(), LinkError>, outbox: &Outbox) -> Result<(), LinkError> {
        if let Some(batch) = self.sending.take() {
            outbox.sent(batch);
        }
        flushed
    }

    /// Waits until the socket has taken all messages. Cancel-safe: what it has not taken stays.
    async fn flushed(&mut self) -> Result<(), LinkError> {
        poll_fn(|cx| self.poll_flushed(cx)).await
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut socket = self.shared.socket.lock();
        let mut socket = Pin::new(&mut *socket);
        while !self.messages.is_empty() {
            ready!(socket.as_mut().poll_ready(cx)).map_err(LinkError::of_websocket)?;
            if let Some(message) = self.messages.pop_front() {
                socket.as_mut().start_send(message).map_err(LinkError::of_websocket)?;
            }
        }
        socket.poll_flush(cx).map_err(LinkError::of_websocket)
    }

    /// Sends the replies still queued, the Close frame and the WebSocket close frame, then waits
    /// for the client to end the connection; all within `close_flush`.
    async fn finish(&mut self, close: Close, outbox: &Outbox) -> Result<(), LinkError> {
        let close = Close { reason: clean_reason(&close.reason), ..close };
        // A client that does not read is left with a broken connection: nothing more fits in.
        timeout(self.close_flush, self.send_last(close, outbox)).await.unwrap_or(Ok(()))
    }

    async fn send_last(&mut self, close: Close, outbox: &Outbox) -> Result<(), LinkError> {
        loop {
            if self.sending.is_some() {
                let flushed = self.flushed().await;
                self.settle(flushed, outbox)?;
            }
            self.take(outbox)?;
            if self.sending.is_none() {
                break;
            }
        }
        let code = match self.shared.close_code.load(Ordering::Relaxed) {
            0 if close.code == Code::NORMAL => 1000,
            0 => close.code.0,
            violated => violated,
        };
        let frame = CloseFrame { code: code.into(), reason: close.reason.as_str().into() };
        let last = self.format.encode(&close.into());
        self.messages.push_back(match self.format {
            Format::Binary => Message::Binary(last),
            Format::Json => text(last)?,
        });
        self.messages.push_back(Message::Close(Some(frame)));
        self.flushed().await?;
        poll_fn(|cx| self.poll_gone(cx)).await;
        Ok(())
    }

    /// Waits for the client's own close and the end of the connection. Closing with unread data
    /// would make the system throw away what the client has not yet received.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut socket = self.shared.socket.lock();
        while let Some(Ok(_)) = ready!(Pin::new(&mut *socket).poll_next(cx)) {}
        let io = socket.get_mut();
        let _ = ready!(Pin::new(&mut io.io).poll_shutdown(cx));
        let mut scratch = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut io.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

fn joined(frames: &[Bytes]) -> Bytes {
    if let [frame] = frames {
        return frame.clone();
    }
    let mut message = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    for frame in frames {
        message.extend_from_slice(frame);
    }
    message.freeze()
}

fn text(frame: Bytes) -> Result<Message, LinkError> {
    Utf8Bytes::try_from(frame).map(Message::Text).map_err(|error| LinkError::Io(std::io::Error::other(error)))
}
