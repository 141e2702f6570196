//! A connection below the HTTP library: what passes is told to a [`Watch`], and its faults end the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::enhance_your_calm;
use super::watch::{Fault, Watch};

/// The connection.
pub(super) struct Watched<S> {
    io: S,
    watch: Arc<Mutex<Watch>>,
    /// Nothing more is to be learned from what is read and sent.
    is_http1: bool,
    /// The system did not take all that was written.
    unsent: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    pub(super) fn new(io: S, watch: Arc<Mutex<Watch>>) -> Self {
        Self { io, watch, is_http1: false, unsent: false }
    }

    /// Says why the connection ends, as far as there is room for it.
    fn end(&mut self, cx: &mut Context<'_>, fault: Fault) -> io::Error {
        let last_stream = self.watch.lock().last_stream();
        if let Some(last_stream) = last_stream {
            let frame = enhance_your_calm(last_stream, fault.reason());
            let _ = Pin::new(&mut self.io).poll_write(cx, &frame);
            let _ = Pin::new(&mut self.io).poll_flush(cx);
        }
        io::Error::other(fault.reason())
    }

    fn note_unsent<T>(&mut self, polled: &Poll<io::Result<T>>) {
        if self.unsent != polled.is_pending() {
            self.unsent = polled.is_pending();
            self.watch.lock().flushed(!self.unsent, Instant::now());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_http1 {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let fault = {
            let mut watch = self.watch.lock();
            if buffer.filled().len() > before {
                watch.received(&buffer.filled()[before..], Instant::now());
            }
            watch.fault()
        };
        if let Some(fault) = fault {
            return Poll::Ready(Err(self.end(cx, fault)));
        }
        let is_http1 = self.watch.lock().is_http1();
        self.is_http1 = is_http1;
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        match &polled {
            Poll::Ready(Ok(written)) if !self.is_http1 => {
                self.watch.lock().sent(&bytes[..*written], Instant::now());
            }
            Poll::Pending => self.note_unsent(&polled),
            Poll::Ready(_) => {}
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.note_unsent(&polled);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.note_unsent(&polled);
        polled
    }
}
