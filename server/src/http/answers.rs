//! How many answers one connection may have in memory: the next request waits until a client has taken one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A protocol takes no more of a body than that before it knows that the client has room.
const SLICE_BYTES: usize = 16 * 1024;

/// The turns of one connection. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Answers(Arc<Semaphore>);

/// The right to work on one request.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Answers {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Turn {
        let permit = self.0.clone().acquire_owned().await;
        Turn { _permit: permit.expect("nobody closes it") }
    }
}

impl Turn {
    /// The turn is over when the last of the answer is taken.
    pub(super) fn hold(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| Body::new(Held { body, rest: Bytes::new(), _turn: self }))
    }
}

/// A body in slices.
struct Held {
    body: Body,
    rest: Bytes,
    _turn: Turn,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let length = self.rest.len().min(SLICE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::body::Body as _;

    use super::*;

    #[tokio::test]
    async fn a_long_body_comes_in_slices_and_says_at_every_time_what_is_left() {
        let text: Vec<u8> = (0..50_000_u32).map(|number| number as u8).collect();
        let answers = Answers::new(1);
        let mut body = answers.turn().await.hold(Response::new(Body::from(text.clone()))).into_body();
        let mut taken = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(50_000 - taken.len() as u64));
            let slice = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(slice.len() <= SLICE_BYTES);
            taken.extend_from_slice(&slice);
        }
        assert_eq!(taken, text);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_turn_lasts_until_the_answer_is_gone() {
        let answers = Answers::new(1);
        let response = answers.turn().await.hold(Response::new(Body::from("x")));
        assert!(answers.0.clone().try_acquire_owned().is_err());
        drop(response);
        answers.turn().await;
    }
}
